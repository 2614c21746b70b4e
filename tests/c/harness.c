/* harness: the kernels and the pool without Python.
 *
 * Every mechanism runs forward and backward with each instruction set, alone and by several threads
 * at once. Threads must change no bit; the instruction sets must agree with the scalar one. For
 * ThreadSanitizer (`make tsan`), and for machines that are emulated (`make emulate`).
 */
#define _POSIX_C_SOURCE 200809L
#include "../../csrc/dispatch.h"
#include "../../csrc/pool.h"
#include "../../csrc/scratch.h"

#include <math.h>
#include <pthread.h>
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

/* Forward and backward, as csrc/run.c does. */
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
        pthread_t callers[CALLERS];
        caller_args args = {p, &alone, attnc_isa_name(isa)};
        for (int k = 0; k < CALLERS; k++)
            if (pthread_create(&callers[k], NULL, one_caller, &args) != 0)
                exit(2);
        for (int k = 0; k < CALLERS; k++)
            pthread_join(callers[k], NULL);
        free_call(&alone);
    }
    free_call(&scalar);
}

int main(void)
{
    for (int k = 0; k < PROBLEMS; k++)
        for (int f32 = 0; f32 < 2; f32++)
            check(&problems[k], f32);
    printf("%d problems, float and double, %d instruction sets, %d failures, %ld blocks left\n",
           PROBLEMS, attnc_isa_count(), atomic_load(&failures), attnc_allocation_count());
    return atomic_load(&failures) != 0 || attnc_allocation_count() != 0;
}
