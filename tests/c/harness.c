/* harness: the kernels, the loops over time and the pool without Python.
 *
 * Every mechanism runs forward and backward with each instruction set, alone and by several threads
 * at once; so do recurrent layers, the softmax cross-entropy and the matrix product. Threads must
 * change no bit; the instruction sets must agree with the scalar one. For ThreadSanitizer (`make
 * tsan`), and for machines that are emulated (`make emulate`).
 */
#define _POSIX_C_SOURCE 200809L
#include "../../csrc/engine/dispatch.h"
#include "../../csrc/engine/pool.h"
#include "../../csrc/engine/scratch.h"
#include "../../csrc/engine/steps.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 3, D = 32, DV = 19, MOST_TQ = 100, MOST_TK = 700, CALLERS = 4, THREADS = 3 };

static uint64_t random_state = 1;
static double uniform(void) /* -1 .. 1 */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / (double)(1ull << 52) - 1;
}

/* ---- a call: arrays of float or double by the same names ---- */

enum { QUERY, KEY, VALUE, SCORES, BIAS, VECTOR, DCONTEXT, INPUTS };
enum { CONTEXT, WEIGHTS, LSE, DQUERY, DKEY, DVALUE, DVECTOR, DSCORES, DBIAS, OUTPUTS };
static const char *const output_names[] = {"context", "weights", "lse",     "dquery", "dkey",
                                           "dvalue",  "dvector", "dscores", "dbias"};

typedef struct {
    int f32;
    attnc_attention a;
    void *inputs[INPUTS], *outputs[OUTPUTS], *stats, *copy, *delta, *parts;
    unsigned char *mask;
    ptrdiff_t sizes[OUTPUTS]; /* elements */
} call;

static void *new_block(size_t bytes)
{
    void *block = attnc_allocate(bytes);
    if (!block)
        exit(2);
    return memset(block, 0, bytes);
}

static void *new_input(int f32, ptrdiff_t count)
{
    void *block = new_block((size_t)count * (f32 ? 4 : 8));
    for (ptrdiff_t k = 0; k < count; k++)
        if (f32)
            ((float *)block)[k] = (float)uniform();
        else
            ((double *)block)[k] = uniform();
    return block;
}

static attnc_view view(void *data, ptrdiff_t rows, ptrdiff_t columns)
{
    return (attnc_view){.data = data, .row = columns, .col = 1, .lead = {rows * columns}};
}

typedef struct {
    const char *name;
    attnc_score score;
    ptrdiff_t Tq, Tk;
    int causal, masked, biased;
    double softcap, dropout;
} problem;

static const problem problems[] = {
    {"dot", ATTNC_DOT, 100, 300, 0, 0, 0, 0, 0},
    {"dot, whole rows", ATTNC_DOT, 70, 150, 0, 0, 0, 0, 0},
    {"dot, causal", ATTNC_DOT, 100, 100, 1, 0, 0, 0, 0},
    {"dot, everything", ATTNC_DOT, 100, 300, 1, 1, 1, 2, 0.3},
    {"dot, few queries", ATTNC_DOT, 2, 700, 0, 1, 0, 0, 0},
    {"additive", ATTNC_ADDITIVE, 60, 300, 0, 0, 0, 0, 0},
    {"additive, everything", ATTNC_ADDITIVE, 60, 70, 1, 1, 1, 2, 0.3},
    {"additive, few queries", ATTNC_ADDITIVE, 1, 700, 0, 0, 0, 0, 0},
    {"given", ATTNC_GIVEN, 100, 300, 0, 1, 0, 0, 0},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

static call new_call(const problem *p, int f32)
{
    const size_t size = f32 ? 4 : 8;
    const ptrdiff_t pairs = N * p->Tq * p->Tk, rows = N * p->Tq;
    call c = {.f32 = f32};
    const ptrdiff_t input_sizes[] = {rows * D, N * p->Tk * D, N * p->Tk * DV, pairs, pairs,
                                     D,        rows * DV};
    random_state = 1;
    for (int k = 0; k < INPUTS; k++)
        c.inputs[k] = new_input(f32, input_sizes[k]);
    c.mask = new_block((size_t)pairs);
    for (ptrdiff_t k = 0; k < pairs; k++)
        c.mask[k] = uniform() > -0.5;
    const ptrdiff_t output_sizes[] = {rows * DV,      pairs,     rows,  8 * rows * D, N * p->Tk * D,
                                      N * p->Tk * DV, 8 * N * D, pairs, pairs};
    for (int k = 0; k < OUTPUTS; k++) {
        c.sizes[k] = output_sizes[k];
        c.outputs[k] = new_block((size_t)output_sizes[k] * size);
    }
    c.stats = new_block((size_t)(2 * rows) * size);
    c.copy = new_block((size_t)(rows * DV) * size);
    c.delta = new_block((size_t)rows * size);
    c.parts = new_block((size_t)(8 * rows * (DV + 64)) * size);

    attnc_attention *a = &c.a;
    *a = (attnc_attention){.score = p->score,
                           .lead = {.ndim = 1, .count = N, .shape = {N}},
                           .Tq = p->Tq,
                           .Tk = p->Tk,
                           .D = p->score == ATTNC_GIVEN ? 0 : D,
                           .Dv = DV,
                           .context = c.outputs[CONTEXT],
                           .weights = c.outputs[WEIGHTS],
                           .lse = c.outputs[LSE],
                           .stats = c.stats,
                           .context_copy = c.copy,
                           .parts = c.parts,
                           .query = view(c.inputs[QUERY], p->Tq, D),
                           .key = view(c.inputs[KEY], p->Tk, D),
                           .value = view(c.inputs[VALUE], p->Tk, DV),
                           .scores = view(c.inputs[SCORES], p->Tq, p->Tk),
                           .dcontext = view(c.inputs[DCONTEXT], p->Tq, DV),
                           .score_vector = c.inputs[VECTOR],
                           .scale = 1 / sqrt(D),
                           .length = p->Tk,
                           .causal = p->causal,
                           .causal_offset = p->Tk - p->Tq,
                           .left = -1,
                           .right = -1,
                           .softcap = p->softcap,
                           .dropout = p->dropout,
                           .dropout_key = 12345,
                           .saved_context = c.copy,
                           .saved_stats = c.stats,
                           .delta = c.delta,
                           .dquery_parts = c.outputs[DQUERY],
                           .dkey = c.outputs[DKEY],
                           .dvalue = c.outputs[DVALUE],
                           .dscore_vector_parts = c.outputs[DVECTOR],
                           .dscores = c.outputs[DSCORES],
                           .dbias = c.outputs[DBIAS]};
    if (p->masked)
        a->mask = view(c.mask, p->Tq, p->Tk);
    if (p->biased)
        a->bias = view(c.inputs[BIAS], p->Tq, p->Tk);
    return c;
}

static void free_call(call *c)
{
    for (int k = 0; k < INPUTS; k++)
        attnc_release(c->inputs[k]);
    for (int k = 0; k < OUTPUTS; k++)
        attnc_release(c->outputs[k]);
    void *others[] = {c->mask, c->stats, c->copy, c->delta, c->parts};
    for (int k = 0; k < 5; k++)
        attnc_release(others[k]);
}

static ptrdiff_t divide_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

/* Forward and backward, as csrc/python/run.c does. */
static void run(call *c, int threads)
{
    const attnc_kernels *k = attnc_kernels_for(c->f32);
    attnc_attention *a = &c->a;
    a->query_chunk = k->query_block;
    a->key_splits = a->Tq <= k->few_queries ? k->segments(a->Tk) : 1;
    a->segments = k->segments(a->Tk);
    const size_t forward = (k->attention_scratch(a, 0) + 63) / 64 * 64;
    const size_t backward = (k->attention_scratch(a, 1) + 63) / 64 * 64;
    char *scratch = new_block((size_t)threads * (forward > backward ? forward : backward));
    const ptrdiff_t chunks = N * divide_up(a->Tq, a->query_chunk);
    attnc_parallel_for(k->attention_fwd, a, chunks * a->key_splits, threads, scratch, forward);
    if (a->key_splits > 1)
        attnc_parallel_for(k->attention_merge, a, N, threads, scratch, forward);
    if (!k->whole_rows(a->Tk))
        attnc_parallel_for(k->attention_delta, a, N * divide_up(a->Tq, k->bwd_query_block), threads,
                           scratch, backward);
    attnc_parallel_for(k->attention_bwd, a, N * a->segments, threads, scratch, backward);
    attnc_release(scratch);
}

/* ---- comparisons ---- */

static atomic_int failures;

static void fail(const char *isa, const call *c, const problem *p, int output, const char *what)
{
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s, %s, %s: %s %s\n", isa, c->f32 ? "float" : "double", p->name,
            output_names[output], what);
}

static double element(const call *c, int output, ptrdiff_t k)
{
    return c->f32 ? ((const float *)c->outputs[output])[k]
                  : ((const double *)c->outputs[output])[k];
}

static void expect_same(const char *isa, const problem *p, const call *got, const call *expected)
{
    for (int o = 0; o < OUTPUTS; o++)
        if (memcmp(got->outputs[o], expected->outputs[o],
                   (size_t)got->sizes[o] * (got->f32 ? 4 : 8)) != 0)
            fail(isa, got, p, o, "has other bits with threads");
}

static void expect_close(const char *isa, const problem *p, const call *got, const call *expected)
{
    for (int o = 0; o < OUTPUTS; o++) {
        double error = 0, top = 1;
        for (ptrdiff_t k = 0; k < got->sizes[o]; k++) {
            const double x = element(got, o, k), y = element(expected, o, k);
            if (isfinite(y) && fabs(y) > top)
                top = fabs(y);
            if (x != y && !(fabs(x - y) <= error)) /* so that a NaN stays */
                error = fabs(x - y);
        }
        if (!(error <= (got->f32 ? 2e-5 : 2e-13) * top))
            fail(isa, got, p, o, "is not that of the scalar kernels");
    }
}

typedef struct {
    const problem *p;
    const call *expected;
    const char *isa;
} caller_args;

static void *one_caller(void *data)
{
    const caller_args *args = data;
    call c = *args->expected;
    const size_t size = c.f32 ? 4 : 8;
    /* its own outputs, the inputs of the others */
    void **mine[] = {&c.stats, &c.copy, &c.delta, &c.parts};
    const ptrdiff_t rows = N * c.a.Tq;
    const ptrdiff_t counts[] = {2 * rows, rows * DV, rows, 8 * rows * (DV + 64)};
    for (int k = 0; k < 4; k++)
        *mine[k] = new_block((size_t)counts[k] * size);
    for (int k = 0; k < OUTPUTS; k++)
        c.outputs[k] = new_block((size_t)c.sizes[k] * size);
    attnc_attention *a = &c.a;
    a->context = c.outputs[CONTEXT], a->weights = c.outputs[WEIGHTS], a->lse = c.outputs[LSE];
    a->dquery_parts = c.outputs[DQUERY], a->dkey = c.outputs[DKEY];
    a->dvalue = c.outputs[DVALUE], a->dscore_vector_parts = c.outputs[DVECTOR];
    a->dscores = c.outputs[DSCORES], a->dbias = c.outputs[DBIAS];
    a->stats = c.stats, a->saved_stats = c.stats, a->context_copy = c.copy;
    a->saved_context = c.copy, a->delta = c.delta, a->parts = c.parts;
    run(&c, THREADS);
    expect_same(args->isa, args->p, &c, args->expected);
    for (int k = 0; k < OUTPUTS; k++)
        attnc_release(c.outputs[k]);
    for (int k = 0; k < 4; k++)
        attnc_release(*mine[k]);
    return NULL;
}

/* Several threads that call at once; one where there are no more. */
#ifdef ATTNC_NO_THREADS
static void run_callers(void *(*caller)(void *), void *args) { caller(args); }
#else
#include <pthread.h>
static void run_callers(void *(*caller)(void *), void *args)
{
    pthread_t callers[CALLERS];
    for (int k = 0; k < CALLERS; k++)
        if (pthread_create(&callers[k], NULL, caller, args) != 0)
            exit(2);
    for (int k = 0; k < CALLERS; k++)
        pthread_join(callers[k], NULL);
}
#endif

static void check(const problem *p, int f32)
{
    call scalar = new_call(p, f32);
    attnc_isa_select(0);
    run(&scalar, 1);
    for (int isa = 0; isa < attnc_isa_count(); isa++) {
        attnc_isa_select(isa);
        call alone = new_call(p, f32);
        run(&alone, 1);
        expect_close(attnc_isa_name(isa), p, &alone, &scalar);
        caller_args args = {p, &alone, attnc_isa_name(isa)};
        run_callers(one_caller, &args);
        free_call(&alone);
    }
    free_call(&scalar);
}

/* ---- recurrent layers, cross-entropy, products ---- */

enum { MOST_BLOCKS = 48 };

/* The arrays of one call, in the order in which it asked for them. Results have a name. */
typedef struct {
    int f32, count;
    struct {
        void *data;
        ptrdiff_t size; /* elements */
        int f32;
        const char *name;
    } of[MOST_BLOCKS];
} arrays;

static void *add_array(arrays *all, ptrdiff_t size, int f32, const char *name)
{
    void *data = new_block((size_t)size * (f32 ? 4 : 8));
    if (all->count == MOST_BLOCKS)
        exit(2);
    all->of[all->count].data = data;
    all->of[all->count].size = size;
    all->of[all->count].f32 = f32;
    all->of[all->count++].name = name;
    return data;
}

static void *add_result(arrays *all, ptrdiff_t size, const char *name)
{
    return add_array(all, size, all->f32, name);
}

/* Numbers of -scale .. scale, others for each array of a call, the same in each call. */
static void fill(const arrays *all, void *data, ptrdiff_t size, double scale)
{
    uint64_t state = (uint64_t)all->count;
    for (ptrdiff_t k = 0; k < size; k++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        const double x = scale * ((double)(state >> 11) / (double)(1ull << 52) - 1);
        if (all->f32)
            ((float *)data)[k] = (float)x;
        else
            ((double *)data)[k] = x;
    }
}

/* name: of what is read and written; NULL for what is only read. */
static void *add_numbers(arrays *all, ptrdiff_t size, double scale, const char *name)
{
    void *data = add_result(all, size, name);
    fill(all, data, size, scale);
    return data;
}

static void free_arrays(arrays *all)
{
    for (int k = 0; k < all->count; k++)
        attnc_release(all->of[k].data);
}

typedef struct step_problem {
    const char *name;
    void (*run)(const struct step_problem *p, arrays *all);
    attnc_cell cell;
    ptrdiff_t a, b, c; /* layer: batch, steps, H; loss: rows, classes; product: M, K, N */
} step_problem;

/* x (K, groups * N) with its strides, in panels. */
static const void *add_panels(arrays *all, const attnc_kernels *k, const void *x, ptrdiff_t row,
                              ptrdiff_t col, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t groups)
{
    attnc_panels p = {.x = x, .row = row, .col = col, .K = K, .N = columns, .groups = groups};
    p.out = add_result(all, k->panels_size(&p), NULL);
    const ptrdiff_t tasks = divide_up(columns, k->panel);
    attnc_parallel_for(k->pack_panels, &p, tasks, attnc_get_num_threads(), NULL, 0);
    return p.out;
}

/* Both directions of a layer, sequences of many lengths; as attnc/functional/recurrent.py does. */
static void run_layer(const step_problem *p, arrays *all)
{
    static const int gates[] = {1, 3, 4};
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    const ptrdiff_t batch = p->a, steps = p->b, H = p->c, G = gates[p->cell], width = G * H;
    const ptrdiff_t parts = divide_up(batch, ATTNC_SUM_STEP);
    ptrdiff_t *counts = add_array(all, steps, 0, NULL), rows = 0;
    for (ptrdiff_t t = 0; t < steps; t++)
        rows += counts[t] = batch - t * (batch - 1) / steps;
    ptrdiff_t *flat = add_array(all, rows, 0, NULL);
    for (ptrdiff_t r = 0; r < rows; r++)
        flat[r] = rows - 1 - r;

    attnc_recurrence forward = {.kernels = k,
                                .item = all->f32 ? 4 : 8,
                                .sweeps = ATTNC_MAX_SWEEPS,
                                .steps = steps,
                                .counts = counts};
    attnc_recurrence backward = forward;
    const ptrdiff_t places = rows * ATTNC_MAX_SWEEPS * H, item = (ptrdiff_t)forward.item;
    char *outputs = add_result(all, places, "outputs");
    const char *doutputs = add_numbers(all, places, 1, NULL);
    for (int i = 0; i < ATTNC_MAX_SWEEPS; i++) {
        attnc_sweep *s = &forward.sweep[i];
        const void *U = add_numbers(all, H * width, 1 / sqrt((double)H), NULL);
        forward.panels[i] = add_panels(all, k, U, width, 1, H, H, G);
        backward.panels[i] = add_panels(all, k, U, 1, width, width, H, 1);
        *s = (attnc_sweep){.cell = p->cell, .gate_count = G, .H = H, .batch = batch, .flat = flat};
        s->gates = add_numbers(all, rows * width, 1, "gates");
        s->h = add_result(all, (batch + rows) * H, "h");
        fill(all, s->h, batch * H, 1);
        s->input_bias = add_numbers(all, width, 1, NULL);
        s->state_bias = add_numbers(all, width, 1, NULL);
        s->dinput = add_result(all, rows * width, "dinput");
        s->dproduct = s->dinput;
        s->dh = add_numbers(all, batch * H, 1, "dh");
        s->dinput_bias = add_result(all, parts * width, "dinput_bias");
        if (p->cell != ATTNC_RNN)
            s->saved = add_result(all, rows * H, "saved");
        if (p->cell == ATTNC_GRU) {
            s->dproduct = add_result(all, rows * width, "dproduct");
            s->dstate_bias = add_result(all, parts * width, "dstate_bias");
        }
        if (p->cell == ATTNC_LSTM) {
            s->c = add_result(all, (batch + rows) * H, "c");
            fill(all, s->c, batch * H, 1);
            s->dc = add_numbers(all, batch * H, 1, "dc");
        }
        backward.sweep[i] = *s;
        s->outputs = outputs + i * H * item;
        backward.sweep[i].doutputs = doutputs + i * H * item;
        s->outputs_row = backward.sweep[i].doutputs_row = ATTNC_MAX_SWEEPS * H;
    }
    if (attnc_recurrence_forward(&forward) < 0 || attnc_recurrence_backward(&backward) < 0)
        exit(2);
}

/* As csrc/python/run.c does. */
static void run_loss(const step_problem *p, arrays *all)
{
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    attnc_cross_entropy c = {.rows = p->a, .classes = p->b, .smoothing = 0.1, .factor = 0.5};
    int64_t *targets = add_array(all, c.rows, 0, NULL);
    for (ptrdiff_t r = 0; r < c.rows; r++)
        targets[r] = r % 5 == 4 ? -1 : r % c.classes;
    c.targets = targets;
    c.logits = add_numbers(all, c.rows * c.classes, 8, NULL);
    c.losses = add_array(all, c.rows, 0, "losses");
    c.stats = add_result(all, 2 * c.rows, "stats");
    c.dlogits = add_result(all, c.rows * c.classes, "dlogits");
    const ptrdiff_t tasks = divide_up(c.rows, ATTNC_LOSS_ROWS);
    attnc_parallel_for(k->cross_entropy_fwd, &c, tasks, attnc_get_num_threads(), NULL, 0);
    attnc_parallel_for(k->cross_entropy_bwd, &c, tasks, attnc_get_num_threads(), NULL, 0);
}

/* a b, (b^T a^T)^T of the same arrays, and the two with skip_zero_rows. */
static void run_product(const step_problem *p, arrays *all)
{
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    const ptrdiff_t M = p->a, K = p->b, columns = p->c;
    const void *a = add_numbers(all, M * K, 1, NULL), *b = add_numbers(all, K * columns, 1, NULL);
    attnc_product products[] = {
        {.a = a,
         .b = b,
         .M = M,
         .N = columns,
         .K = K,
         .a_row = K,
         .a_col = 1,
         .b_row = columns,
         .b_col = 1},
        {.a = b,
         .b = a,
         .M = columns,
         .N = M,
         .K = K,
         .a_row = 1,
         .a_col = columns,
         .b_row = 1,
         .b_col = K},
    };
    for (int i = 0; i < 4; i++) {
        attnc_product product = products[i % 2];
        product.skip_zero_rows = i / 2;
        product.out_row = product.N;
        product.out = add_result(all, M * columns, i % 2 ? "transposed product" : "product");
        const int threads = attnc_get_num_threads();
        const size_t stride = (k->product_scratch(&product) + 63) / 64 * 64;
        char *scratch = new_block((size_t)threads * stride);
        attnc_parallel_for(k->product, &product, k->product_tasks(&product), threads, scratch,
                           stride);
        attnc_release(scratch);
    }
}

static const step_problem step_problems[] = {
    {"RNN", run_layer, ATTNC_RNN, 37, 5, 45},
    {"GRU", run_layer, ATTNC_GRU, 37, 5, 45},
    {"LSTM", run_layer, ATTNC_LSTM, 37, 5, 45},
    {"RNN, one unit", run_layer, ATTNC_RNN, 20, 3, 1},
    {"GRU, one sequence", run_layer, ATTNC_GRU, 1, 4, 67},
    {"LSTM, many sequences", run_layer, ATTNC_LSTM, 150, 3, 20},
    {"LSTM, many units", run_layer, ATTNC_LSTM, 18, 2, 190},
    {"cross-entropy", run_loss, 0, 100, 301, 0},
    {"cross-entropy, one class", run_loss, 0, 40, 1, 0},
    {"product", run_product, 0, 67, 300, 131},
    {"product, one column", run_product, 0, 100, 5, 1},
};
enum { STEP_PROBLEMS = sizeof step_problems / sizeof *step_problems };

static void fail_step(const step_problem *p, const char *isa, const arrays *all, int k,
                      const char *what)
{
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s, %s, %s: %s %s\n", isa, all->f32 ? "float" : "double", p->name,
            all->of[k].name, what);
}

static double number(const arrays *all, int k, ptrdiff_t n)
{
    return all->of[k].f32 ? ((const float *)all->of[k].data)[n]
                          : ((const double *)all->of[k].data)[n];
}

typedef struct {
    const step_problem *p;
    const arrays *expected;
    const char *isa;
} step_caller_args;

static void *one_step_caller(void *data)
{
    const step_caller_args *args = data;
    arrays all = {.f32 = args->expected->f32};
    args->p->run(args->p, &all);
    for (int k = 0; k < all.count; k++)
        if (all.of[k].name && memcmp(all.of[k].data, args->expected->of[k].data,
                                     (size_t)all.of[k].size * (all.of[k].f32 ? 4 : 8)) != 0)
            fail_step(args->p, args->isa, &all, k, "has other bits with threads");
    free_arrays(&all);
    return NULL;
}

static void expect_near(const step_problem *p, const char *isa, const arrays *got,
                        const arrays *expected)
{
    for (int k = 0; k < got->count; k++) {
        double error = 0, top = 1;
        for (ptrdiff_t n = 0; got->of[k].name && n < got->of[k].size; n++) {
            const double x = number(got, k, n), y = number(expected, k, n);
            if (fabs(y) > top)
                top = fabs(y);
            if (!(fabs(x - y) <= error)) /* so that a NaN stays */
                error = fabs(x - y);
        }
        if (!(error <= (got->f32 ? 2e-5 : 2e-13) * top))
            fail_step(p, isa, got, k, "is not that of the scalar kernels");
    }
}

static void check_step(const step_problem *p, int f32)
{
    arrays scalar = {.f32 = f32};
    attnc_isa_select(0);
    attnc_set_num_threads(1);
    p->run(p, &scalar);
    for (int isa = 0; isa < attnc_isa_count(); isa++) {
        attnc_isa_select(isa);
        attnc_set_num_threads(1);
        arrays alone = {.f32 = f32};
        p->run(p, &alone);
        expect_near(p, attnc_isa_name(isa), &alone, &scalar);
        attnc_set_num_threads(THREADS);
        step_caller_args args = {p, &alone, attnc_isa_name(isa)};
        run_callers(one_step_caller, &args);
        free_arrays(&alone);
    }
    free_arrays(&scalar);
}

int main(void)
{
    for (int f32 = 0; f32 < 2; f32++) {
        for (int k = 0; k < PROBLEMS; k++)
            check(&problems[k], f32);
        for (int k = 0; k < STEP_PROBLEMS; k++)
            check_step(&step_problems[k], f32);
    }
    printf("%d problems, float and double, %d instruction sets, %d failures, %ld blocks left\n",
           PROBLEMS + STEP_PROBLEMS, attnc_isa_count(), atomic_load(&failures),
           attnc_allocation_count());
    return atomic_load(&failures) != 0 || attnc_allocation_count() != 0;
}
