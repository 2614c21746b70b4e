/* harness: the engine and its kernels without Python.
 *
 * Every mechanism runs forward, in forward mode, backward and in second order with each instruction
 * set, alone and by several threads at once, on the pool and on threads of the caller's own; so do
 * recurrent layers, decoders, the softmax cross-entropy and the matrix product. Threads must change
 * no bit; the instruction sets must agree with the scalar one; halves must give the bits of the
 * same numbers in float, rounded. For ThreadSanitizer (`make tsan`), and for machines that are
 * emulated (`make emulate`).
 */
#define _POSIX_C_SOURCE 200809L
#include "../../csrc/engine/attention.h"
#include "../../csrc/engine/calls.h"
#include "../../csrc/engine/dispatch.h"
#include "../../csrc/engine/pool.h"
#include "../../csrc/engine/scratch.h"
#include "../../csrc/engine/loop.h"

#include <math.h>
#ifndef ATTNC_NO_THREADS
#include <pthread.h>
#endif
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLERS = 4, THREADS = 3 };

static atomic_int failures;

static void *new_block(size_t bytes)
{
    void *block = attnc_allocate(bytes);
    if (!block)
        exit(2);
    return memset(block, 0, bytes);
}

/* The function on each of `count` items, each on a thread of its own; one after the other where
 * there are no threads. */
static void on_threads(void *(*function)(void *), void *items, size_t size, int count)
{
#ifdef ATTNC_NO_THREADS
    for (int k = 0; k < count; k++)
        function((char *)items + (size_t)k * size);
#else
    pthread_t threads[CALLERS];
    for (int k = 0; k < count; k++)
        if (pthread_create(&threads[k], NULL, function, (char *)items + (size_t)k * size) != 0)
            exit(2);
    for (int k = 0; k < count; k++)
        pthread_join(threads[k], NULL);
#endif
}

/* Several threads that call at once; each gets its number. */
typedef struct {
    void *(*function)(void *);
    const void *args;
    int number;
} caller;

static void run_callers(void *(*function)(void *), const void *args)
{
    caller callers[CALLERS];
    for (int k = 0; k < CALLERS; k++)
        callers[k] = (caller){function, args, k};
    on_threads(function, callers, sizeof *callers, CALLERS);
}

/* ---- attention: the problems ---- */

enum { BATCH = 2, HEADS = 2, D = 32, DQ = 21, DV = 19 };

/* Leading axes are (BATCH, HEADS). */
typedef struct {
    const char *name;
    const attnc_mechanism *mechanism;
    ptrdiff_t Tq, Tk;
    int weights;      /* additive: query and key have to be projected */
    int one_key_head; /* key and value are the same for all heads */
    int gaps;         /* query, key and value have other numbers between their rows */
    int masks;        /* mask, key_mask, lengths and an offset for each element of the batch */
    int bias;         /* 1: for each pair; 2: (1, HEADS, 1, Tk) */
    int causal, window;
    int numbers; /* a slope for each head, and a sink for each element */
    int packed;  /* the rows are those of SEQUENCES of them; of the masks there is key_mask */
    int hard;    /* 1: keys are drawn; 2: the largest of each query */
    int local;   /* windows of 21 keys around centers; 2: the Gaussian is part of the softmax */
    attnc_normalizer normalizer;
    int scores_alone; /* the scores are the result, and their gradients come in */
    double softcap, dropout;
    attnc_stored stored; /* of query, key, value, scores, bias and their results, with float */
} problem;

static const problem problems[] = {
    {.name = "dot", .mechanism = &attnc_dot_product, .Tq = 100, .Tk = 300},
    {.name = "dot, whole rows", .mechanism = &attnc_dot_product, .Tq = 70, .Tk = 150},
    {.name = "dot, causal", .mechanism = &attnc_dot_product, .Tq = 100, .Tk = 100, .causal = 1},
    {.name = "dot, everything",
     .mechanism = &attnc_dot_product,
     .Tq = 100,
     .Tk = 300,
     .one_key_head = 1,
     .gaps = 1,
     .masks = 1,
     .bias = 1,
     .causal = 1,
     .window = 1,
     .numbers = 1,
     .softcap = 2,
     .dropout = 0.3},
    {.name = "dot, slope and sink",
     .mechanism = &attnc_dot_product,
     .Tq = 70,
     .Tk = 150,
     .numbers = 1},
    {.name = "dot, local", .mechanism = &attnc_dot_product, .Tq = 130, .Tk = 1300, .local = 1},
    {.name = "dot, local, everything",
     .mechanism = &attnc_dot_product,
     .Tq = 100,
     .Tk = 300,
     .one_key_head = 1,
     .gaps = 1,
     .masks = 1,
     .bias = 2,
     .causal = 1,
     .numbers = 1,
     .local = 2,
     .softcap = 2,
     .dropout = 0.3},
    {.name = "dot, local, one query",
     .mechanism = &attnc_dot_product,
     .Tq = 1,
     .Tk = 700,
     .local = 1},
    {.name = "dot, local, packed, float16",
     .mechanism = &attnc_dot_product,
     .Tq = 130,
     .Tk = 800,
     .packed = 1,
     .local = 1,
     .stored = ATTNC_FLOAT16},
    {.name = "additive, local",
     .mechanism = &attnc_additive,
     .Tq = 60,
     .Tk = 300,
     .weights = 1,
     .local = 1},
    {.name = "dot, few queries", .mechanism = &attnc_dot_product, .Tq = 2, .Tk = 700, .masks = 1},
    {.name = "dot, many segments", .mechanism = &attnc_dot_product, .Tq = 9, .Tk = 1100, .bias = 2},
    {.name = "multiplicative", .mechanism = &attnc_multiplicative, .Tq = 60, .Tk = 210, .gaps = 1},
    {.name = "additive", .mechanism = &attnc_additive, .Tq = 60, .Tk = 300},
    {.name = "additive, everything",
     .mechanism = &attnc_additive,
     .Tq = 60,
     .Tk = 70,
     .weights = 1,
     .one_key_head = 1,
     .masks = 1,
     .bias = 2,
     .causal = 1,
     .softcap = 2,
     .dropout = 0.3},
    {.name = "additive, saved scores",
     .mechanism = &attnc_additive,
     .Tq = 50,
     .Tk = 30,
     .weights = 1,
     .gaps = 1},
    {.name = "additive, few queries", .mechanism = &attnc_additive, .Tq = 1, .Tk = 700},
    {.name = "cosine", .mechanism = &attnc_cosine, .Tq = 65, .Tk = 130, .one_key_head = 1},
    {.name = "given scores", .mechanism = &attnc_given_scores, .Tq = 100, .Tk = 300, .masks = 1},
    {.name = "dot, float16",
     .mechanism = &attnc_dot_product,
     .Tq = 70,
     .Tk = 300,
     .one_key_head = 1,
     .gaps = 1,
     .masks = 1,
     .bias = 1,
     .stored = ATTNC_FLOAT16},
    {.name = "dot, few queries, float16",
     .mechanism = &attnc_dot_product,
     .Tq = 2,
     .Tk = 700,
     .masks = 1,
     .bias = 2,
     .stored = ATTNC_FLOAT16},
    {.name = "dot, few queries, bfloat16",
     .mechanism = &attnc_dot_product,
     .Tq = 1,
     .Tk = 1100,
     .stored = ATTNC_BFLOAT16},
    {.name = "multiplicative, bfloat16",
     .mechanism = &attnc_multiplicative,
     .Tq = 60,
     .Tk = 210,
     .gaps = 1,
     .stored = ATTNC_BFLOAT16},
    {.name = "additive, float16",
     .mechanism = &attnc_additive,
     .Tq = 60,
     .Tk = 70,
     .weights = 1,
     .gaps = 1,
     .stored = ATTNC_FLOAT16},
    {.name = "additive, few queries, bfloat16",
     .mechanism = &attnc_additive,
     .Tq = 1,
     .Tk = 300,
     .stored = ATTNC_BFLOAT16},
    {.name = "cosine, float16",
     .mechanism = &attnc_cosine,
     .Tq = 65,
     .Tk = 130,
     .one_key_head = 1,
     .stored = ATTNC_FLOAT16},
    {.name = "given scores, bfloat16",
     .mechanism = &attnc_given_scores,
     .Tq = 100,
     .Tk = 300,
     .masks = 1,
     .stored = ATTNC_BFLOAT16},
    {.name = "hard, drawn",
     .mechanism = &attnc_given_scores,
     .Tq = 100,
     .Tk = 300,
     .masks = 1,
     .bias = 2,
     .causal = 1,
     .softcap = 2,
     .hard = 1},
    {.name = "hard, many segments",
     .mechanism = &attnc_given_scores,
     .Tq = 9,
     .Tk = 1100,
     .hard = 1},
    {.name = "hard, the largest",
     .mechanism = &attnc_given_scores,
     .Tq = 100,
     .Tk = 150,
     .bias = 1,
     .hard = 2,
     .stored = ATTNC_FLOAT16},
    {.name = "dot, packed",
     .mechanism = &attnc_dot_product,
     .Tq = 400,
     .Tk = 2000,
     .one_key_head = 1,
     .gaps = 1,
     .masks = 1,
     .causal = 1,
     .dropout = 0.3,
     .packed = 1},
    {.name = "dot, packed, float16",
     .mechanism = &attnc_dot_product,
     .Tq = 80,
     .Tk = 900,
     .packed = 1,
     .stored = ATTNC_FLOAT16},
    {.name = "multiplicative, packed",
     .mechanism = &attnc_multiplicative,
     .Tq = 80,
     .Tk = 80,
     .packed = 1},
    {.name = "additive, packed",
     .mechanism = &attnc_additive,
     .Tq = 80,
     .Tk = 130,
     .weights = 1,
     .softcap = 2,
     .packed = 1},
    {.name = "cosine, packed", .mechanism = &attnc_cosine, .Tq = 120, .Tk = 900, .packed = 1},
    {.name = "no keys", .mechanism = &attnc_dot_product, .Tq = 5, .Tk = 0},
    {.name = "dot, sparsemax",
     .mechanism = &attnc_dot_product,
     .Tq = 100,
     .Tk = 300,
     .gaps = 1,
     .masks = 1,
     .bias = 2,
     .softcap = 2,
     .dropout = 0.3,
     .normalizer = ATTNC_SPARSEMAX},
    {.name = "additive, entmax15",
     .mechanism = &attnc_additive,
     .Tq = 60,
     .Tk = 130,
     .weights = 1,
     .masks = 1,
     .normalizer = ATTNC_ENTMAX15},
    {.name = "given, entmax15, one query",
     .mechanism = &attnc_given_scores,
     .Tq = 1,
     .Tk = 700,
     .normalizer = ATTNC_ENTMAX15},
    {.name = "given, sparsemax, float16",
     .mechanism = &attnc_given_scores,
     .Tq = 50,
     .Tk = 150,
     .bias = 1,
     .normalizer = ATTNC_SPARSEMAX,
     .stored = ATTNC_FLOAT16},
    {.name = "dot, scores alone",
     .mechanism = &attnc_dot_product,
     .Tq = 100,
     .Tk = 300,
     .masks = 1,
     .one_key_head = 1,
     .scores_alone = 1},
    {.name = "multiplicative, scores alone, bfloat16",
     .mechanism = &attnc_multiplicative,
     .Tq = 60,
     .Tk = 210,
     .gaps = 1,
     .causal = 1,
     .scores_alone = 1,
     .stored = ATTNC_BFLOAT16},
    {.name = "additive, scores alone",
     .mechanism = &attnc_additive,
     .Tq = 60,
     .Tk = 300,
     .weights = 1,
     .masks = 1,
     .scores_alone = 1},
    {.name = "additive, scores alone, one query",
     .mechanism = &attnc_additive,
     .Tq = 1,
     .Tk = 1100,
     .scores_alone = 1},
    {.name = "cosine, scores alone",
     .mechanism = &attnc_cosine,
     .Tq = 65,
     .Tk = 1100,
     .window = 1,
     .scores_alone = 1},
};
enum { PROBLEMS = sizeof problems / sizeof *problems };

/* ---- attention: what goes in ---- */

enum {
    QUERY,
    KEY,
    VALUE,
    SCORES,
    WEIGHT,
    SCORE_VECTOR,
    QUERY_WEIGHT,
    KEY_WEIGHT,
    SCORE_BIAS,
    MASK,
    KEY_MASK,
    LENGTHS,
    QUERY_LENGTHS,
    OFFSET,
    BIAS,
    SLOPE,
    SINK,
    CENTER,
    D_CONTEXT,
    D_WEIGHTS,
    D_LSE,
    INPUTS
};
enum { MOST_AXES = 4, SEQUENCES = 7 };

/* The arrays of one problem; several callers read them. */
typedef struct {
    attnc_inputs in;
    attnc_incoming incoming;
    attnc_stored halves;
    void *data[INPUTS], *moved[INPUTS]; /* moved: of real ones, the tangent */
    ptrdiff_t size[INPUTS];             /* in elements */
    attnc_stored stored[INPUTS];
    ptrdiff_t lead[2], shape[INPUTS][MOST_AXES], stride[INPUTS][MOST_AXES];
    int64_t query_offsets[SEQUENCES + 1], key_offsets[SEQUENCES + 1];
} inputs;

static uint64_t random_state = 1;
static double uniform(void) /* -1 .. 1 */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / (double)(1ull << 52) - 1;
}

/* PARAMETER: never in halves. NUMBER: always double. PLACE: the same, among the keys and near. */
typedef enum { REAL, PARAMETER, BYTE, INTEGER, QUERY_COUNT, NUMBER, PLACE } element_kind;

/* A number in halves, its low bits cut off, and back. */
static uint16_t half_of(double x, attnc_stored stored)
{
    const int bits = stored == ATTNC_FLOAT16 ? 10 : 7, bias = stored == ATTNC_FLOAT16 ? 15 : 127;
    int exponent;
    const double fraction = 2 * frexp(fabs(x), &exponent) - 1; /* |x| = (1 + it) 2^(exponent - 1) */
    if (fabs(x) < 1e-4)
        return 0;
    const int sign = x < 0 ? 0x8000 : 0, field = exponent - 1 + bias;
    return (uint16_t)(sign | field << bits | (int)(fraction * (1 << bits)));
}

static double of_half(uint16_t half, attnc_stored stored)
{
    const int bits = stored == ATTNC_FLOAT16 ? 10 : 7, bias = stored == ATTNC_FLOAT16 ? 15 : 127;
    const int field = (half & 0x7fff) >> bits, fraction = half & ((1 << bits) - 1);
    const double sign = half & 0x8000 ? -1 : 1;
    if (field == 2 * bias + 1)
        return fraction ? NAN : sign * INFINITY;
    return sign * ldexp(fraction + (field ? 1 << bits : 0), (field ? field : 1) - bias - bits);
}

static void put(const inputs *i, void *data, element_kind kind, attnc_stored stored, ptrdiff_t k,
                double x)
{
    if (stored != ATTNC_AS_COMPUTED)
        ((uint16_t *)data)[k] = half_of(x, stored);
    else if (kind == BYTE)
        ((unsigned char *)data)[k] = x > -0.5;
    else if (kind == INTEGER)
        ((int64_t *)data)[k] = (int64_t)fabs(x * (double)i->in.Tk);
    else if (kind == QUERY_COUNT)
        ((int64_t *)data)[k] = (int64_t)fabs(x * (double)(i->in.Tq + 1));
    else if (kind == PLACE)
        ((double *)data)[k] = (x + 1) / 2 * (double)(i->in.Tk + 6) - 3;
    else if (i->in.f32 && kind != NUMBER)
        ((float *)data)[k] = (float)x;
    else
        ((double *)data)[k] = x;
}

/* The numbers of an input in the reverse order. */
static void *reversed(const void *data, ptrdiff_t count, size_t size)
{
    char *block = new_block((size_t)count * size);
    for (ptrdiff_t k = 0; k < count; k++)
        memcpy(block + (size_t)k * size, (const char *)data + (size_t)(count - 1 - k) * size, size);
    return block;
}

/* Random numbers of that shape, `gap` more of them behind every row; the last axis is a row. */
static attnc_operand add_input(inputs *i, int index, element_kind kind, int ndim,
                               const ptrdiff_t *shape, ptrdiff_t gap)
{
    const attnc_stored stored = kind == REAL ? i->halves : ATTNC_AS_COMPUTED;
    const size_t real_size = attnc_stored_size(stored, i->in.f32 ? 4 : 8);
    const size_t size = kind == BYTE ? 1 : kind >= INTEGER ? 8 : real_size;
    ptrdiff_t count = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        i->shape[index][d] = shape[d];
        i->stride[index][d] = count;
        count *= shape[d] + (d == ndim - 1 ? gap : 0);
    }
    i->data[index] = new_block((size_t)count * size);
    i->size[index] = count;
    i->stored[index] = stored;
    for (ptrdiff_t k = 0; k < count; k++)
        put(i, i->data[index], kind, stored, k, uniform());
    if (kind == REAL || kind == PARAMETER || kind >= NUMBER)
        i->moved[index] = reversed(i->data[index], count, size);
    return (attnc_operand){i->data[index], i->shape[index], gap ? i->stride[index] : NULL, stored};
}

static void add_scores(inputs *i, const problem *p)
{
    attnc_inputs *in = &i->in;
    const ptrdiff_t Dq = p->mechanism == &attnc_multiplicative || p->weights ? DQ : D;
    const ptrdiff_t Dk = p->weights ? DQ : D, gap = p->gaps ? 5 : 0, heads = p->one_key_head;
    const ptrdiff_t key_heads = heads ? 1 : HEADS;
    if (!p->scores_alone)
        in->value = add_input(i, VALUE, REAL, 4, (ptrdiff_t[]){BATCH, key_heads, p->Tk, DV}, gap);
    if (p->mechanism == &attnc_given_scores) {
        in->scores = add_input(i, SCORES, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, p->Tk}, gap);
        return;
    }
    in->D = D;
    in->query = add_input(i, QUERY, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, Dq}, gap);
    in->key = add_input(i, KEY, REAL, 4, (ptrdiff_t[]){BATCH, key_heads, p->Tk, Dk}, gap);
    if (p->mechanism == &attnc_multiplicative)
        in->weight = add_input(i, WEIGHT, PARAMETER, 2, (ptrdiff_t[]){DQ, D}, gap);
    if (p->mechanism == &attnc_additive)
        in->score_vector = add_input(i, SCORE_VECTOR, PARAMETER, 1, (ptrdiff_t[]){D}, 0);
    if (p->weights) {
        in->query_weight = add_input(i, QUERY_WEIGHT, PARAMETER, 2, (ptrdiff_t[]){DQ, D}, 0);
        in->key_weight = add_input(i, KEY_WEIGHT, PARAMETER, 2, (ptrdiff_t[]){DQ, D}, 0);
        in->score_bias = add_input(i, SCORE_BIAS, PARAMETER, 1, (ptrdiff_t[]){D}, 0);
    }
}

/* Where sequences begin, in sixteenths of all rows: some are empty, some have one query. */
static const ptrdiff_t query_sixteenths[SEQUENCES + 1] = {0, 0, 3, 3, 8, 9, 15, 16};
static const ptrdiff_t key_sixteenths[SEQUENCES + 1] = {0, 1, 1, 2, 2, 8, 15, 16};

static void add_offsets(inputs *i, const problem *p)
{
    for (int b = 0; b <= SEQUENCES; b++) {
        i->query_offsets[b] = p->Tq * query_sixteenths[b] / 16;
        i->key_offsets[b] = p->Tk * key_sixteenths[b] / 16;
    }
    i->query_offsets[3]++; /* the third sequence has one query, which the fourth has not */
    i->in.query_offsets = i->query_offsets;
    i->in.key_offsets = i->key_offsets;
    i->in.sequences = SEQUENCES;
}

static void add_masks(inputs *i, const problem *p)
{
    attnc_inputs *in = &i->in;
    if (p->masks && p->packed)
        in->key_mask = add_input(i, KEY_MASK, BYTE, 3, (ptrdiff_t[]){1, HEADS, p->Tk}, 0);
    else if (p->masks) {
        in->mask = add_input(i, MASK, BYTE, 4, (ptrdiff_t[]){BATCH, 1, p->Tq, p->Tk}, 3);
        in->key_mask = add_input(i, KEY_MASK, BYTE, 3, (ptrdiff_t[]){1, HEADS, p->Tk}, 0);
        in->lengths = add_input(i, LENGTHS, INTEGER, 2, (ptrdiff_t[]){BATCH, 1}, 0);
        in->query_lengths = add_input(i, QUERY_LENGTHS, QUERY_COUNT, 2, (ptrdiff_t[]){1, HEADS}, 0);
        in->offset = add_input(i, OFFSET, INTEGER, 2, (ptrdiff_t[]){BATCH, 1}, 0);
    }
    if (p->numbers) {
        in->slope = add_input(i, SLOPE, NUMBER, 2, (ptrdiff_t[]){1, HEADS}, 0);
        in->sink = add_input(i, SINK, NUMBER, 2, (ptrdiff_t[]){BATCH, HEADS}, 0);
    }
    if (p->local) {
        in->center = add_input(i, CENTER, PLACE, 3, (ptrdiff_t[]){BATCH, 1, p->Tq}, 0);
        in->window = 1;
        in->left = in->right = 10;
        in->sigma = 5;
        in->renormalize = p->local == 2;
    }
    if (p->bias == 1)
        in->bias = add_input(i, BIAS, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, p->Tk}, 0);
    if (p->bias == 2)
        in->bias = add_input(i, BIAS, REAL, 4, (ptrdiff_t[]){1, HEADS, 1, p->Tk}, 0);
}

static inputs *new_inputs(const problem *p, int f32)
{
    inputs *i = new_block(sizeof *i);
    i->lead[0] = BATCH, i->lead[1] = HEADS;
    i->halves = f32 ? p->stored : ATTNC_AS_COMPUTED;
    i->in = (attnc_inputs){.mechanism = p->mechanism,
                           .f32 = f32,
                           .lead = {2, BATCH * HEADS, i->lead},
                           .Tq = p->Tq,
                           .Tk = p->Tk,
                           .Dv = p->scores_alone ? 0 : DV,
                           .normalizer = p->normalizer,
                           .scale = 1 / sqrt(D),
                           .length = p->Tk,
                           .query_length = p->Tq,
                           .causal_offset = p->Tk - p->Tq,
                           .causal = p->causal,
                           .window = p->window,
                           .left = 150,
                           .right = -1,
                           .softcap = p->softcap,
                           .dropout = p->dropout,
                           .dropout_key = 12345};
    static const attnc_choice choices[] = {{.how = ATTNC_SAMPLED, .key = 12345},
                                           {.how = ATTNC_LARGEST}};
    if (p->hard)
        i->in.choice = &choices[p->hard - 1];
    random_state = 1;
    add_scores(i, p);
    add_masks(i, p);
    if (p->packed)
        add_offsets(i, p);
    if (p->scores_alone) {
        i->incoming.scores =
            add_input(i, D_WEIGHTS, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, p->Tk}, p->gaps);
        return i;
    }
    i->incoming.context =
        add_input(i, D_CONTEXT, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, DV}, p->gaps);
    if (p->gaps && !p->packed)
        i->incoming.weights =
            add_input(i, D_WEIGHTS, REAL, 4, (ptrdiff_t[]){BATCH, HEADS, p->Tq, p->Tk}, 0);
    if (p->gaps && p->normalizer == ATTNC_SOFTMAX)
        i->incoming.lse = add_input(i, D_LSE, PARAMETER, 3, (ptrdiff_t[]){BATCH, HEADS, p->Tq}, 0);
    if (p->hard)
        i->incoming.log_probability = i->incoming.entropy =
            add_input(i, D_LSE, PARAMETER, 3, (ptrdiff_t[]){BATCH, HEADS, p->Tq}, 0);
    return i;
}

static void free_inputs(inputs *i)
{
    for (int k = 0; k < INPUTS; k++) {
        attnc_release(i->data[k]);
        attnc_release(i->moved[k]);
    }
    attnc_release(i);
}

/* The tangent of an input, which lies as it does. */
static attnc_operand moved(const inputs *i, int index, attnc_operand x)
{
    if (x.data)
        x.data = i->moved[index];
    return x;
}

static attnc_tangents tangents_of(const inputs *i)
{
    const attnc_inputs *in = &i->in;
    return (attnc_tangents){
        .query = moved(i, QUERY, in->query),
        .key = moved(i, KEY, in->key),
        .value = moved(i, VALUE, in->value),
        .scores = moved(i, SCORES, in->scores),
        .bias = moved(i, BIAS, in->bias),
        .weight = moved(i, WEIGHT, in->weight),
        .score_vector = moved(i, SCORE_VECTOR, in->score_vector),
        .query_weight = moved(i, QUERY_WEIGHT, in->query_weight),
        .key_weight = moved(i, KEY_WEIGHT, in->key_weight),
        .score_bias = moved(i, SCORE_BIAS, in->score_bias),
        .slope = moved(i, SLOPE, in->slope),
        .sink = moved(i, SINK, in->sink),
        .center = moved(i, CENTER, in->center),
        .scale = 0.5,
    };
}

/* ---- attention: what comes out ---- */

enum {
    OUT_CONTEXT,
    OUT_WEIGHTS,
    OUT_LSE,
    OUT_SAVED_CONTEXT,
    OUT_SAVED_STATS,
    OUT_SAVED_SCORES,
    OUT_INDEX, /* of hard attention, int64, and what it gives besides */
    OUT_LOG_PROBABILITY,
    OUT_ENTROPY,
    OUT_TANGENTS, /* from here on: of the context, of weights or scores alone, of the lse */
    OUT_TANGENT_OF_LOG_PROBABILITY = OUT_TANGENTS + 3,
    OUT_TANGENT_OF_ENTROPY,
    OUT_GRADIENTS, /* from here on: the gradient of input k, then of the scale */
    OUT_DSCALE = OUT_GRADIENTS + INPUTS,
    OUT_SECOND, /* from here on: the tangents of the same */
    RESULTS = OUT_SECOND + INPUTS + 1
};
static const char *const result_names[OUT_SECOND] = {
    [OUT_CONTEXT] = "context",
    [OUT_WEIGHTS] = "weights",
    [OUT_LSE] = "lse",
    [OUT_SAVED_CONTEXT] = "saved context",
    [OUT_SAVED_STATS] = "saved stats",
    [OUT_SAVED_SCORES] = "saved scores",
    [OUT_INDEX] = "index",
    [OUT_LOG_PROBABILITY] = "log_probability",
    [OUT_ENTROPY] = "entropy",
    [OUT_TANGENTS + OUT_CONTEXT] = "tangent of the context",
    [OUT_TANGENTS + OUT_WEIGHTS] = "tangent of the weights",
    [OUT_TANGENTS + OUT_LSE] = "tangent of the lse",
    [OUT_TANGENT_OF_LOG_PROBABILITY] = "tangent of log_probability",
    [OUT_TANGENT_OF_ENTROPY] = "tangent of the entropy",
    [OUT_GRADIENTS + QUERY] = "dquery",
    [OUT_GRADIENTS + KEY] = "dkey",
    [OUT_GRADIENTS + VALUE] = "dvalue",
    [OUT_GRADIENTS + SCORES] = "dscores",
    [OUT_GRADIENTS + WEIGHT] = "dweight",
    [OUT_GRADIENTS + SCORE_VECTOR] = "dscore_vector",
    [OUT_GRADIENTS + QUERY_WEIGHT] = "dquery_weight",
    [OUT_GRADIENTS + KEY_WEIGHT] = "dkey_weight",
    [OUT_GRADIENTS + SCORE_BIAS] = "dscore_bias",
    [OUT_GRADIENTS + BIAS] = "dbias",
    [OUT_GRADIENTS + SLOPE] = "dslope",
    [OUT_GRADIENTS + SINK] = "dsink",
    [OUT_GRADIENTS + CENTER] = "dcenter",
    [OUT_DSCALE] = "dscale",
};

/* Memory of the caller's. size: elements; data is NULL where there are none. */
typedef struct {
    void *data[RESULTS];
    ptrdiff_t size[RESULTS];
    attnc_stored stored[RESULTS];
    attnc_outputs out;
    attnc_output_tangents tangents;
    attnc_gradients gradients, second;
} results;

/* Full of NaN: what a call does not write, it is caught by. */
static attnc_result add_stored(results *r, const inputs *i, int index, ptrdiff_t size,
                               attnc_stored stored)
{
    const size_t bytes = (size_t)size * attnc_stored_size(stored, i->in.f32 ? 4 : 8);
    r->size[index] = size;
    r->stored[index] = stored;
    r->data[index] = memset(new_block(bytes), 0xff, bytes);
    return (attnc_result){r->data[index], stored};
}

static void *add_to_results(results *r, const inputs *i, int index, ptrdiff_t size)
{
    return add_stored(r, i, index, size, ATTNC_AS_COMPUTED).data;
}

/* first: OUT_GRADIENTS, or OUT_SECOND. */
static attnc_result add_gradient(results *r, const inputs *i, int first, int only, int input,
                                 int ndim)
{
    ptrdiff_t size = 1;
    if (!i->data[input] || (only >= 0 && only != first + input))
        return (attnc_result){0};
    for (int d = 0; d < ndim; d++)
        size *= i->shape[input][d];
    return add_stored(r, i, first + input, size, i->stored[input]);
}

static attnc_gradients new_gradients(results *r, const inputs *i, int first, int only)
{
    const int scale = first + INPUTS;
    const int dscale = i->in.mechanism == &attnc_cosine && (only < 0 || only == scale);
    return (attnc_gradients){
        .query = add_gradient(r, i, first, only, QUERY, 4),
        .key = add_gradient(r, i, first, only, KEY, 4),
        .value = add_gradient(r, i, first, only, VALUE, 4),
        .scores = add_gradient(r, i, first, only, SCORES, 4),
        .bias = add_gradient(r, i, first, only, BIAS, 4),
        .scale = dscale ? add_to_results(r, i, scale, 1) : NULL,
        .weight = add_gradient(r, i, first, only, WEIGHT, 2).data,
        .score_vector = add_gradient(r, i, first, only, SCORE_VECTOR, 1).data,
        .query_weight = add_gradient(r, i, first, only, QUERY_WEIGHT, 2).data,
        .key_weight = add_gradient(r, i, first, only, KEY_WEIGHT, 2).data,
        .score_bias = add_gradient(r, i, first, only, SCORE_BIAS, 1).data,
        .slope = add_gradient(r, i, first, only, SLOPE, 2).data,
        .sink = add_gradient(r, i, first, only, SINK, 2).data,
        .center = add_gradient(r, i, first, only, CENTER, 3).data,
    };
}

static void *add_saved(results *r, const inputs *i, int index, ptrdiff_t columns)
{
    return columns < 0 ? NULL : add_to_results(r, i, index, i->in.lead.count * i->in.Tq * columns);
}

/* only: of all gradients this one alone is wanted; -1: all. */
static results new_results(const inputs *i, int only)
{
    const ptrdiff_t rows = i->in.lead.count * i->in.Tq;
    const attnc_saves saves = attnc_what_is_saved(&i->in);
    results r = {0};
    const int alone = i->in.Dv == 0, softmax = i->in.normalizer == ATTNC_SOFTMAX;
    if (alone)
        r.out.scores = add_stored(&r, i, OUT_WEIGHTS, rows * i->in.Tk, i->halves);
    else
        r.out.context = add_stored(&r, i, OUT_CONTEXT, rows * DV, i->halves);
    if (i->in.choice) {
        r.out.index = add_to_results(&r, i, OUT_INDEX, i->in.f32 ? 2 * rows : rows);
        r.out.log_probability = add_to_results(&r, i, OUT_LOG_PROBABILITY, rows);
        r.out.entropy = add_to_results(&r, i, OUT_ENTROPY, rows);
        r.out.saved_stats = add_saved(&r, i, OUT_SAVED_STATS, 2);
    }
    else if (!alone)
        r.out = (attnc_outputs){
            .context = r.out.context,
            .lse = softmax ? add_to_results(&r, i, OUT_LSE, rows) : NULL,
            .saved_context = add_saved(&r, i, OUT_SAVED_CONTEXT, saves.context),
            .saved_stats = add_saved(&r, i, OUT_SAVED_STATS, saves.stats),
            .saved_scores = add_saved(&r, i, OUT_SAVED_SCORES, saves.scores),
        };
    if (i->in.sequences == 0 && !i->in.choice && !alone)
        r.out.weights = add_stored(&r, i, OUT_WEIGHTS, rows * i->in.Tk, i->halves);
    else if (i->in.sequences > 0 && saves.packed_scores > 0)
        r.out.saved_scores =
            add_to_results(&r, i, OUT_SAVED_SCORES, i->in.lead.count * saves.packed_scores);
    if (alone)
        r.tangents.scores =
            add_stored(&r, i, OUT_TANGENTS + OUT_WEIGHTS, rows * i->in.Tk, i->halves);
    else
        r.tangents.context = add_stored(&r, i, OUT_TANGENTS + OUT_CONTEXT, rows * DV, i->halves);
    if (r.out.weights.data)
        r.tangents.weights =
            add_stored(&r, i, OUT_TANGENTS + OUT_WEIGHTS, rows * i->in.Tk, i->halves);
    if (r.out.lse)
        r.tangents.lse = add_to_results(&r, i, OUT_TANGENTS + OUT_LSE, rows);
    if (i->in.choice) {
        r.tangents.log_probability = add_to_results(&r, i, OUT_TANGENT_OF_LOG_PROBABILITY, rows);
        r.tangents.entropy = add_to_results(&r, i, OUT_TANGENT_OF_ENTROPY, rows);
    }
    r.gradients = new_gradients(&r, i, OUT_GRADIENTS, only);
    r.second = new_gradients(&r, i, OUT_SECOND, only);
    return r;
}

/* The tangents of what comes in. */
static attnc_incoming moved_incoming(const inputs *i)
{
    const attnc_incoming *d = &i->incoming;
    return (attnc_incoming){
        .context = moved(i, D_CONTEXT, d->context),
        .weights = moved(i, D_WEIGHTS, d->weights),
        .scores = moved(i, D_WEIGHTS, d->scores),
        .lse = moved(i, D_LSE, d->lse),
        .log_probability = moved(i, D_LSE, d->log_probability),
        .entropy = moved(i, D_LSE, d->entropy),
    };
}

/* Forward, forward mode, which writes the same outputs again, backward and second order; -1 for
 * want of memory. */
static int run_passes(const inputs *i, const attnc_executor *executor, const results *r)
{
    attnc_incoming incoming = i->incoming;
    incoming.saved_context = r->out.saved_context;
    incoming.saved_stats = r->out.saved_stats;
    incoming.saved_scores = r->out.saved_scores;
    incoming.saved_index = r->out.index;
    incoming.saved_entropy = r->out.entropy;
    const attnc_tangents tangents = tangents_of(i);
    const attnc_incoming dincoming = moved_incoming(i);
    return attnc_attention_forward(&i->in, &r->out, executor) < 0 ||
                   attnc_attention_jvp(&i->in, &tangents, &r->out, &r->tangents, executor) < 0 ||
                   attnc_attention_backward(&i->in, &incoming, &r->gradients, executor) < 0
               ? -1
               : attnc_attention_hvp(&i->in, &tangents, &i->incoming, &dincoming, &r->second,
                                     executor);
}

static results run_attention(const inputs *i, const attnc_executor *executor, int only)
{
    results r = new_results(i, only);
    if (run_passes(i, executor, &r) < 0)
        exit(2);
    return r;
}

static void free_results(results *r)
{
    for (int k = 0; k < RESULTS; k++)
        attnc_release(r->data[k]);
}

/* ---- attention: a caller's own threads ---- */

typedef struct {
    attnc_kernel_fn kernel;
    const void *args;
    ptrdiff_t tasks;
    atomic_ptrdiff_t next;
} own_job;

typedef struct {
    own_job *job;
    char *scratch;
} own_thread;

static void *run_own_thread(void *data)
{
    const own_thread *me = data;
    ptrdiff_t task;
    while ((task = atomic_fetch_add(&me->job->next, 1)) < me->job->tasks)
        me->job->kernel(me->job->args, task, task + 1, me->scratch);
    return NULL;
}

/* New threads for every kernel, however little work it is; context counts the calls. */
static void own_parallel_for(void *context, attnc_kernel_fn kernel, const void *args,
                             ptrdiff_t tasks, double work, int threads, char *scratch,
                             size_t stride)
{
    own_job job = {kernel, args, tasks, 0};
    own_thread all[THREADS];
    (void)work;
    if (threads > THREADS || threads > tasks)
        exit(2);
    for (int t = 0; t < threads; t++)
        all[t] = (own_thread){&job, scratch + (size_t)t * stride};
    on_threads(run_own_thread, all, sizeof *all, threads);
    ++*(int *)context;
}

/* The pool, also where the work alone would not make it worth it. */
static void eager_parallel_for(void *context, attnc_kernel_fn kernel, const void *args,
                               ptrdiff_t tasks, double work, int threads, char *scratch,
                               size_t stride)
{
    (void)work;
    attnc_parallel_for(kernel, args, tasks, threads, scratch, stride);
    ++*(int *)context;
}

/* ---- attention: comparisons ---- */

static void fail_result(const char *isa, const inputs *i, const problem *p, int result,
                        const char *what)
{
    const int second = result >= OUT_SECOND;
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s, %s, %s: %s%s %s\n", isa, i->in.f32 ? "float" : "double", p->name,
            second ? "tangent of " : "",
            result_names[second ? result - OUT_SECOND + OUT_GRADIENTS : result], what);
}

static void fail(const char *isa, const inputs *i, const problem *p, const char *result,
                 const char *what)
{
    atomic_fetch_add(&failures, 1);
    fprintf(stderr, "%s, %s, %s: %s %s\n", isa, i->in.f32 ? "float" : "double", p->name, result,
            what);
}

static double element(const inputs *i, const results *r, int result, ptrdiff_t k)
{
    if (r->stored[result] != ATTNC_AS_COMPUTED)
        return of_half(((const uint16_t *)r->data[result])[k], r->stored[result]);
    return i->in.f32 ? ((const float *)r->data[result])[k] : ((const double *)r->data[result])[k];
}

static void expect_same(const char *isa, const problem *p, const inputs *i, const results *got,
                        const results *expected)
{
    for (int k = 0; k < RESULTS; k++) {
        const size_t size = attnc_stored_size(got->stored[k], i->in.f32 ? 4 : 8);
        if (got->data[k] &&
            memcmp(got->data[k], expected->data[k], (size_t)got->size[k] * size) != 0)
            fail_result(isa, i, p, k, "has other bits");
    }
}

/* Halves are computed as the same numbers in float, and rounded. */
static void expect_rounded(const char *isa, const problem *p, const inputs *i, const results *got)
{
    inputs wide = *i;
    attnc_operand *operands[INPUTS] = {
        [QUERY] = &wide.in.query,
        [KEY] = &wide.in.key,
        [VALUE] = &wide.in.value,
        [SCORES] = &wide.in.scores,
        [BIAS] = &wide.in.bias,
        [D_CONTEXT] = &wide.incoming.context,
        [D_WEIGHTS] = i->in.Dv > 0 ? &wide.incoming.weights : &wide.incoming.scores,
    };
    for (int k = 0; k < INPUTS; k++) {
        wide.stored[k] = ATTNC_AS_COMPUTED;
        if (i->stored[k] == ATTNC_AS_COMPUTED)
            continue;
        float *floats = wide.data[k] = new_block((size_t)i->size[k] * sizeof *floats);
        for (ptrdiff_t x = 0; x < i->size[k]; x++)
            floats[x] = (float)of_half(((const uint16_t *)i->data[k])[x], i->stored[k]);
        wide.moved[k] = reversed(floats, i->size[k], sizeof *floats);
        operands[k]->data = floats;
        operands[k]->stored = ATTNC_AS_COMPUTED;
    }
    wide.halves = ATTNC_AS_COMPUTED;
    results floats = run_attention(&wide, NULL, -1), rounded = floats;
    for (int k = 0; k < RESULTS; k++)
        if (floats.data[k] && got->stored[k] != ATTNC_AS_COMPUTED) {
            rounded.data[k] = new_block((size_t)floats.size[k] * sizeof(uint16_t));
            const attnc_narrow n = {
                {rounded.data[k], got->stored[k]}, floats.data[k], floats.size[k]};
            if (attnc_call_narrow(&n, NULL) < 0)
                exit(2);
        }
    expect_same(isa, p, i, got, &rounded);
    for (int k = 0; k < RESULTS; k++)
        if (rounded.data[k] != floats.data[k])
            attnc_release(rounded.data[k]);
    for (int k = 0; k < INPUTS; k++)
        if (wide.data[k] != i->data[k]) {
            attnc_release(wide.data[k]);
            attnc_release(wide.moved[k]);
        }
    free_results(&floats);
}

static void expect_close(const char *isa, const problem *p, const inputs *i, const results *got,
                         const results *expected)
{
    for (int r = 0; r < RESULTS; r++) {
        if (r == OUT_INDEX) /* integers; the contexts would not agree if these did not */
            continue;
        /* dslope is a sum of distances with weights that cancel. */
        double error = 0, top = r == OUT_GRADIENTS + SLOPE ? (double)i->in.Tk : 1;
        if (r == OUT_SECOND + SLOPE) /* and each of these moves with the slope by the distance */
            top = (double)i->in.Tk * (double)i->in.Tk;
        for (ptrdiff_t k = 0; k < got->size[r]; k++) {
            const double x = element(i, got, r, k), y = element(i, expected, r, k);
            if (isfinite(y) && fabs(y) > top)
                top = fabs(y);
            if (x != y && !(fabs(x - y) <= error)) /* so that a NaN stays */
                error = fabs(x - y);
        }
        const double rounding = got->stored[r] == ATTNC_AS_COMPUTED ? 0
                                : got->stored[r] == ATTNC_FLOAT16   ? 1e-3
                                                                    : 8e-3;
        if (!(error <= (rounding + (i->in.f32 ? 2e-5 : 2e-13)) * top))
            fail_result(isa, i, p, r, "is not that of the scalar kernels");
    }
}

#define ATTNC_ON_ONE_THREAD __attribute__((unused)) static /* by ThreadSanitizer's build */

/* A gradient has the same bits whether the others are wanted or not. */
ATTNC_ON_ONE_THREAD void expect_each_alone(const char *isa, const problem *p, const inputs *i,
                                           const results *expected)
{
    for (int k = OUT_GRADIENTS; k < RESULTS; k++) {
        if (!expected->data[k])
            continue;
        results r = run_attention(i, NULL, k);
        expect_same(isa, p, i, &r, expected);
        free_results(&r);
    }
}

typedef struct {
    const problem *p;
    const inputs *i;
    const results *expected;
    const char *isa;
} attention_args;

/* Each caller has its own results and its own way to spread the work. */
static void *one_caller(void *data)
{
    const caller *me = data;
    const attention_args *args = me->args;
    int calls = 0;
    const attnc_executor executors[CALLERS] = {
        {0}, /* the pool, as the work goes */
        {.threads = 2},
        {.threads = THREADS, .parallel_for = own_parallel_for, .context = &calls},
        {.threads = THREADS, .parallel_for = eager_parallel_for, .context = &calls},
    };
    results r = run_attention(args->i, &executors[me->number], -1);
    expect_same(args->isa, args->p, args->i, &r, args->expected);
    if ((calls > 0) != (executors[me->number].parallel_for != NULL))
        fail(args->isa, args->i, args->p, "a caller", "was not asked for its threads");
    if (attnc_set_thread_limit(0) != 0)
        fail(args->isa, args->i, args->p, "a cap", "outlives its call");
    free_results(&r);
    return NULL;
}

/* Whichever allocation fails, the call says so and keeps none of the others. */
ATTNC_ON_ONE_THREAD void expect_failures(const char *isa, const problem *p, const inputs *i,
                                         const results *expected)
{
    results r = new_results(i, -1);
    const long blocks = attnc_allocation_count();
    int status = -1;
    for (long n = 1; status < 0; n++) {
        attnc_fail_allocation(n);
        status = run_passes(i, NULL, &r);
        if (attnc_allocation_count() != blocks)
            fail(isa, i, p, "a failed call", "keeps memory");
        if (status == 0 && n < 3) /* each pass takes scratch at least */
            fail(isa, i, p, "a failed allocation", "was not noticed");
    }
    attnc_fail_allocation(0);
    expect_same(isa, p, i, &r, expected);
    free_results(&r);
}

static void check(const problem *p, int f32)
{
    const attnc_executor one = {.threads = 1};
    inputs *i = new_inputs(p, f32);
    attnc_isa_select(0);
    results scalar = run_attention(i, &one, -1);
    for (int isa = 0; isa < attnc_isa_count(); isa++) {
        attnc_isa_select(isa);
        results alone = run_attention(i, &one, -1);
        expect_close(attnc_isa_name(isa), p, i, &alone, &scalar);
        if (i->halves != ATTNC_AS_COMPUTED)
            expect_rounded(attnc_isa_name(isa), p, i, &alone);
        const attention_args args = {p, i, &alone, attnc_isa_name(isa)};
        attnc_set_num_threads(THREADS);
        run_callers(one_caller, &args);
#ifndef __SANITIZE_THREAD__ /* of no interest there, and most of the time */
        expect_each_alone(attnc_isa_name(isa), p, i, &alone);
        expect_failures(attnc_isa_name(isa), p, i, &alone);
#endif
        free_results(&alone);
    }
    free_results(&scalar);
    free_inputs(i);
}

/* ---- the arena ---- */

/* Pieces of many sizes: all are there at once, aligned, and none is part of another. */
static void check_arena(void)
{
    enum { PIECES = 100 };
    _Alignas(64) char first[256];
    attnc_arena arena = attnc_arena_in(first, sizeof first);
    unsigned char *pieces[PIECES];
    int wrong = attnc_take(&arena, SIZE_MAX / 2, 3) || attnc_take(&arena, SIZE_MAX - 8, 1);
    for (int k = 0; k < PIECES; k++) {
        pieces[k] = attnc_take(&arena, (size_t)k, 2);
        if (!pieces[k])
            exit(2);
        wrong |= (uintptr_t)pieces[k] % 64 != 0;
        memset(pieces[k], k, (size_t)(2 * k));
    }
    for (int k = 0; k < PIECES; k++)
        for (int b = 0; b < 2 * k; b++)
            wrong |= pieces[k][b] != k;
    attnc_give_back(&arena);
    if (wrong) {
        atomic_fetch_add(&failures, 1);
        fprintf(stderr, "the arena: pieces overlap, or are not aligned\n");
    }
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
    ptrdiff_t a, b, c; /* layer, decoder: batch, steps, H; loss: rows, classes; product: M, K, N */
    int additive;      /* the decoder's scores; 2: coverage in the tanh, and windows */
} step_problem;

/* x (K, gates * N) with its strides, in panels. */
static const void *add_panels(arrays *all, const attnc_kernels *k, const void *x, ptrdiff_t row,
                              ptrdiff_t col, ptrdiff_t K, ptrdiff_t columns, ptrdiff_t gates)
{
    attnc_panels p = {.x = x, .row = row, .col = col, .K = K, .N = columns, .gates = gates};
    p.out = add_result(all, k->panels_size(&p), NULL);
    const ptrdiff_t tasks = attnc_divide_up(columns, k->panel);
    attnc_parallel_for(k->pack_panels, &p, tasks, attnc_get_num_threads(), NULL, 0);
    return p.out;
}

/* Forward on the pool, backward on threads of the caller's own. */
static void run_loop(const attnc_loop *loop)
{
    int calls = 0;
    const attnc_executor eager = {.parallel_for = eager_parallel_for, .context = &calls};
    if (attnc_loop_run(loop, loop->backward ? &eager : NULL) < 0)
        exit(2);
}

/* Both directions of a layer, sequences of many lengths; as attnc/functional/recurrent.py does. */
static void run_layer(const step_problem *p, arrays *all)
{
    static const int gates[] = {1, 3, 4};
    enum { DIRECTIONS = 2 };
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    const ptrdiff_t batch = p->a, steps = p->b, H = p->c, G = gates[p->cell], width = G * H;
    const ptrdiff_t parts = attnc_divide_up(batch, ATTNC_BIAS_ROWS);
    ptrdiff_t *counts = add_array(all, steps, 0, NULL), rows = 0;
    for (ptrdiff_t t = 0; t < steps; t++)
        rows += counts[t] = batch - t * (batch - 1) / steps;
    ptrdiff_t *place = add_array(all, rows, 0, NULL);
    for (ptrdiff_t r = 0; r < rows; r++)
        place[r] = rows - 1 - r;

    attnc_operation forward[DIRECTIONS] = {{0}}, backward[DIRECTIONS];
    const ptrdiff_t places = rows * DIRECTIONS * H, item = all->f32 ? 4 : 8;
    char *outputs = add_result(all, places, "outputs");
    const char *doutputs = add_numbers(all, places, 1, NULL);
    for (int i = 0; i < DIRECTIONS; i++) {
        attnc_loop_cell *cell = &forward[i].cell, *back = &backward[i].cell;
        attnc_recurrence *r = &cell->recurrence;
        const void *U = add_numbers(all, H * width, 1 / sqrt((double)H), NULL);
        *r = (attnc_recurrence){.kind = p->cell,
                                .gate_count = G,
                                .H = H,
                                .batch = batch,
                                .gates_hold_input = 1,
                                .outputs_row = DIRECTIONS * H,
                                .doutputs_row = DIRECTIONS * H,
                                .place = place};
        r->gates = add_numbers(all, rows * width, 1, "gates");
        r->h = add_result(all, (batch + rows) * H, "h");
        fill(all, r->h, batch * H, 1);
        r->input_bias = add_numbers(all, width, 1, NULL);
        r->state_bias = add_numbers(all, width, 1, NULL);
        r->dinput = add_result(all, rows * width, "dinput");
        r->dproduct = r->dinput;
        r->dh = add_numbers(all, batch * H, 1, "dh");
        r->dinput_bias = add_result(all, parts * width, "dinput_bias");
        if (p->cell != ATTNC_RNN)
            r->saved = add_result(all, rows * H, "saved");
        if (p->cell == ATTNC_GRU) {
            r->dproduct = add_result(all, rows * width, "dproduct");
            r->dstate_bias = add_result(all, parts * width, "dstate_bias");
        }
        if (p->cell == ATTNC_LSTM) {
            r->c = add_result(all, (batch + rows) * H, "c");
            fill(all, r->c, batch * H, 1);
            r->dc = add_numbers(all, batch * H, 1, "dc");
        }
        forward[i].type = &attnc_operation_cell;
        cell->beside = i > 0;
        backward[i] = forward[i];
        backward[i].type = &attnc_operation_cell_back;
        cell->panels = add_panels(all, k, U, width, 1, H, H, G);
        back->panels = add_panels(all, k, U, 1, width, width, H, 1);
        r->outputs = outputs + i * H * item;
        back->recurrence.doutputs = doutputs + i * H * item;
    }
    attnc_loop loop = {.f32 = all->f32,
                       .steps = steps,
                       .batch = batch,
                       .counts = counts,
                       .operations = DIRECTIONS,
                       .operation = forward};
    run_loop(&loop);
    loop.operation = backward;
    loop.backward = 1;
    run_loop(&loop);
}

static attnc_rows rows_of(void *data, ptrdiff_t size, ptrdiff_t rows, ptrdiff_t features)
{
    return (attnc_rows){data, size, rows * features, features};
}

/* A decoder that attends to a memory before each step of its cell, by unit queries, and back: as
 * attnc/functional/decoder_run.py does for additive scores with coverage, and for the cosine; with
 * coverage in the tanh in windows around places that it is given. */
static void run_decoder(const step_problem *p, arrays *all)
{
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    const ptrdiff_t B = p->a, T = p->b, H = p->c, rows = T * B, Tk = 2 * T + 1, width = 3 * H;
    const ptrdiff_t item = all->f32 ? 4 : 8, parts = attnc_divide_up(B, ATTNC_BIAS_ROWS);
    const int additive = p->additive;
    const double scale = 1 / sqrt((double)H);
    const void *U = add_numbers(all, H * width, scale, NULL);
    const void *C = add_numbers(all, H * width, scale, NULL);
    const void *Wq = add_numbers(all, H * H, scale, NULL);
    void *key = add_numbers(all, B * Tk * H, 1, NULL), *h = add_result(all, (T + 1) * B * H, "h");
    fill(all, h, B * H, 1);
    void *query = add_result(all, rows * H, "query"), *unit = add_result(all, rows * H, "unit");
    void *context = add_result(all, rows * H, "context");

    /* forward: query = h Wq; unit; attention; cell */
    attnc_operation forward[4] = {{.type = &attnc_operation_linear},
                                  {.type = &attnc_operation_normalize},
                                  {.type = &attnc_operation_attend},
                                  {.type = &attnc_operation_cell}};
    forward[0].linear = (attnc_loop_linear){
        .out = rows_of(query, T, B, H),
        .N = H,
        .terms = 1,
        .term = {{rows_of(h, T, B, H), add_panels(all, k, Wq, H, 1, H, H, 1), H}}};
    forward[1].normalize = (attnc_loop_normalize){
        .D = H, .x = rows_of(query, T, B, H), .unit = unit, .norm = add_result(all, rows, "norm")};
    attnc_loop_attend *a = &forward[2].attend;
    *a = (attnc_loop_attend){.score = additive ? ATTNC_ADDITIVE : ATTNC_DOT,
                             .Tk = Tk,
                             .D = H,
                             .Dv = H,
                             .query = {unit, B, H, B * H},
                             .key = rows_of(key, B, Tk, H),
                             .value = rows_of(key, B, Tk, H),
                             .scale = 3,
                             .context = context,
                             .weights = add_result(all, B * T * Tk, "weights"),
                             .stats = add_result(all, B * T * 2, "stats")};
    if (additive) {
        a->score_vector = add_numbers(all, H, 1, NULL);
        a->coverage = add_numbers(all, B * Tk, 1, "coverage");
        a->coverage_bias = add_result(all, B * T * Tk, "coverage_bias");
    }
    if (additive == 1) {
        const ptrdiff_t padded = attnc_divide_up(H, k->lanes) * k->lanes;
        a->transforms = (attnc_key_transforms){.key = key,
                                               .small = add_result(all, B * Tk * padded, NULL),
                                               .large = add_result(all, B * Tk * padded, NULL),
                                               .top = add_result(all, B, NULL),
                                               .count = B,
                                               .Tk = Tk,
                                               .D = H};
        attnc_parallel_for(k->transform_keys, &a->transforms, B, attnc_get_num_threads(), NULL, 0);
        a->coverage_weight = -0.5;
        a->scores = add_result(all, B * T * Tk, "scores");
    }
    else if (additive) {
        a->coverage_weight = 1;
        a->coverage_vector = add_numbers(all, H, 1, NULL);
        a->coverage_rate = add_numbers(all, B * Tk, 1, NULL);
        a->width = 2;
        a->sigma = 1;
        a->renormalize = T % 2;
        a->center = add_array(all, B * T, 0, "center");
        a->last = add_array(all, B, 0, NULL);
        for (ptrdiff_t n = 0; n < B; n++)
            a->last[n] = (double)(Tk - 1);
        a->P = H;
        a->position = rows_of(add_numbers(all, rows * H, 1, NULL), B, T, H);
        a->position_vector = add_numbers(all, H, 1, NULL);
    }
    attnc_loop_cell *cell = &forward[3].cell;
    attnc_recurrence *r = &cell->recurrence;
    *r = (attnc_recurrence){.kind = ATTNC_GRU, .gate_count = 3, .H = H, .batch = B, .h = h};
    r->gates = add_result(all, rows * width, "gates");
    r->saved = add_result(all, rows * H, "saved");
    r->input_bias = add_numbers(all, width, 1, NULL);
    r->state_bias = add_numbers(all, width, 1, NULL);
    cell->panels = add_panels(all, k, U, width, 1, H, H, 3);
    cell->terms = 1;
    cell->term[0] =
        (attnc_loop_term){{context, T, H, T * H}, add_panels(all, k, C, width, 1, H, H, 3), H};
    attnc_loop loop = {
        .f32 = all->f32, .steps = T, .batch = B, .operations = 4, .operation = forward};
    run_loop(&loop);

    /* back: the queries of step t + 1, and their gradients, belong to the state of step t */
    void *dquery = add_result(all, rows * H, "dquery"), *dunit = add_result(all, rows * H, "dunit");
    void *dcontext = add_result(all, rows * H, "dcontext");
    void *doutputs = add_numbers(all, rows * H, 1, NULL);
    attnc_operation backward[4] = {forward[3],
                                   {.type = &attnc_operation_linear},
                                   forward[2],
                                   {.type = &attnc_operation_normalize_back}};
    backward[0].type = &attnc_operation_cell_back;
    cell = &backward[0].cell;
    r = &cell->recurrence;
    r->dinput = add_result(all, rows * width, "dinput");
    r->dproduct = add_result(all, rows * width, "dproduct");
    r->dh = add_numbers(all, B * H, 1, "dh");
    r->dinput_bias = add_result(all, parts * width, "dinput_bias");
    r->dstate_bias = add_result(all, parts * width, "dstate_bias");
    cell->panels = add_panels(all, k, U, 1, width, width, H, 1);
    cell->term[0] = (attnc_loop_term){
        {(char *)dquery + B * H * item, T - 1, B * H, H}, add_panels(all, k, Wq, 1, H, H, H, 1), H};
    cell->adds = 1;
    cell->add[0] = rows_of(doutputs, T, B, H);
    backward[1].linear =
        (attnc_loop_linear){.out = rows_of(dcontext, T, B, H),
                            .N = H,
                            .terms = 1,
                            .term = {{rows_of(r->dinput, T, B, width),
                                      add_panels(all, k, C, 1, width, width, H, 1), width}}};
    backward[2].type = &attnc_operation_attend_back;
    a = &backward[2].attend;
    a->dcontext = (attnc_rows){dcontext, B, H, B * H};
    a->dquery = dunit;
    if (additive) {
        a->coverage = add_numbers(all, B * Tk, 1, "dcoverage");
        a->dweights = rows_of(add_numbers(all, B * T * Tk, 1, NULL), B, T, Tk);
        a->dweights_total = add_result(all, B * T * Tk, "dweights_total");
    }
    if (additive == 2) {
        a->dcoverage_rate = add_numbers(all, B * Tk, 1, "dcoverage_rate");
        a->dkey = add_numbers(all, B * Tk * H, 1, "dkey");
        a->dscore_vector = add_numbers(all, B * H, 1, "dscore_vector");
        a->dcoverage_vector = add_numbers(all, B * H, 1, "dcoverage_vector");
        a->dcenter = add_array(all, B * T, 0, "dcenter");
        a->dposition = add_result(all, rows * H, "dposition");
    }
    backward[3].normalize = (attnc_loop_normalize){
        .D = H, .unit = unit, .norm = forward[1].normalize.norm, .dunit = dunit, .dx = dquery};
    loop.operation = backward;
    loop.backward = 1;
    run_loop(&loop);
}

/* Forward and backward. */
static void run_loss(const step_problem *p, arrays *all)
{
    attnc_cross_entropy c = {.rows = p->a, .classes = p->b, .smoothing = 0.1, .factor = 0.5};
    int64_t *targets = add_array(all, c.rows, 0, NULL);
    for (ptrdiff_t r = 0; r < c.rows; r++)
        targets[r] = r % 5 == 4 ? -1 : r % c.classes;
    c.targets = targets;
    c.logits = add_numbers(all, c.rows * c.classes, 8, NULL);
    c.losses = add_array(all, c.rows, 0, "losses");
    c.stats = add_result(all, 2 * c.rows, "stats");
    c.dlogits = add_result(all, c.rows * c.classes, "dlogits");
    int calls = 0;
    const attnc_executor eager = {.parallel_for = eager_parallel_for, .context = &calls};
    if (attnc_call_cross_entropy(all->f32, &c, 0, &eager) < 0 ||
        attnc_call_cross_entropy(all->f32, &c, 1, &eager) < 0)
        exit(2);
}

/* Forward and backward, rows of one table, and of one for each element. */
static void run_rotary(const step_problem *p, arrays *all)
{
    const ptrdiff_t N = p->a, T = p->b, D = p->c, size = N * T * D;
    const ptrdiff_t rows[] = {T * D}, none[] = {0};
    attnc_rotary r = {.x = {.row = D, .lead = rows},
                      .table = {.row = D, .lead = none},
                      .lead = {1, N, &N},
                      .T = T,
                      .D = D};
    r.x.data = (void *)add_numbers(all, size, 2, NULL);
    r.table.data = (void *)add_numbers(all, size, 1, NULL);
    for (int k = 0; k < 4; k++) {
        r.interleaved = k / 2;
        r.back = k % 2;
        r.table.lead = k % 2 ? rows : none;
        r.out.data = add_result(all, size, "turned");
        if (attnc_call_rotary(all->f32, &r, NULL) < 0)
            exit(2);
    }
}

/* Rows of b numbers between products, forward and backward: norms, activations with all that they
 * take, dropout, and a step of Adam on the result. */
static void run_rows(const step_problem *p, arrays *all)
{
    const ptrdiff_t rows = p->a, n = p->b, size = rows * n;
    const ptrdiff_t parts = attnc_divide_up(rows, ATTNC_PART_ROWS);
    const void *x = add_numbers(all, size, 3, NULL), *dy = add_numbers(all, size, 1, NULL);
    const void *weight = add_numbers(all, n, 1, NULL), *bias = add_numbers(all, n, 1, NULL);
    for (int center = 0; center < 2; center++) {
        attnc_norm a = {.rows = rows, .n = n, .center = center, .epsilon = 1e-5, .x = x};
        a.weight = weight;
        a.bias = center ? bias : NULL;
        a.y = add_result(all, size, "norm");
        a.stats = add_result(all, 3 * rows, NULL);
        a.dy = dy;
        a.dx = add_result(all, size, "norm dx");
        a.parts = add_result(all, parts * 2 * n, "norm parts");
        for (int backward = 0; backward < 2; backward++)
            if (attnc_call_norm(all->f32, &a, backward, NULL) < 0)
                exit(2);
    }
    for (int kind = ATTNC_RELU; kind <= ATTNC_SILU; kind++) {
        attnc_activation a = {.kind = kind, .count = size, .n = n, .bias = bias, .dy = dy};
        a.x = (void *)add_numbers(all, size, 2, "x + bias");
        a.up = kind == ATTNC_SILU ? (void *)add_numbers(all, size, 1, "up + bias") : NULL;
        a.up_bias = a.up ? weight : NULL;
        a.dropout = kind == ATTNC_GELU ? 0.3 : 0;
        a.key = 12345678901u;
        a.y = add_result(all, size, "activation");
        a.dx = add_result(all, size, "activation dx");
        a.dup = a.up ? add_result(all, size, "dup") : NULL;
        a.dbias = add_result(all, parts * n, "dbias");
        a.dup_bias = a.up ? add_result(all, parts * n, "dup_bias") : NULL;
        for (int backward = 0; backward < 2; backward++)
            if (attnc_call_activation(all->f32, &a, backward, NULL) < 0)
                exit(2);
    }
    attnc_add_dropout d = {.count = size, .residual = x, .y = dy, .dropout = 0.2, .key = 99};
    d.out = add_result(all, size, "add_dropout");
    attnc_adam adam = {.count = size,
                       .parameter = (void *)add_numbers(all, size, 1, "parameter"),
                       .gradient = dy,
                       .m = (void *)add_numbers(all, size, 1, "m"),
                       .v = add_result(all, size, "v"),
                       .beta1 = 0.9,
                       .beta2 = 0.99,
                       .rate = 0.01,
                       .epsilon = 1e-3,
                       .keep = 0.99};
    attnc_square_sums squares = {.count = size, .x = x};
    squares.sums = add_array(all, attnc_divide_up(size, ATTNC_ADAM_NUMBERS), 0, "squares");
    if (attnc_call_add_dropout(all->f32, &d, NULL) < 0 ||
        attnc_call_adam(all->f32, &adam, NULL) < 0 ||
        attnc_call_square_sums(all->f32, &squares, NULL) < 0)
        exit(2);
}

/* a b, (b^T a^T)^T of the same arrays, and the two with skip_zero_rows. */
static void run_product(const step_problem *p, arrays *all)
{
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
        int calls = 0;
        const attnc_executor eager = {.parallel_for = eager_parallel_for, .context = &calls};
        if (attnc_call_product(all->f32, &product, &eager) < 0)
            exit(2);
    }
}

/* Numbers of -1/2 .. 1/2 become probabilities, and some of them 0 and 1. */
static void add_half(const arrays *all, void *data, ptrdiff_t size)
{
    for (ptrdiff_t k = 0; k < size; k++) {
        const int certain = k % 7 < 2;
        if (all->f32)
            ((float *)data)[k] = certain ? (float)(k % 7) : ((float *)data)[k] + 0.5f;
        else
            ((double *)data)[k] = certain ? (double)(k % 7) : ((double *)data)[k] + 0.5;
    }
}

/* Monotonic alignments and the weights of chunks, forward and back, of a sequences with b queries
 * and c keys, without and with a mask and a previous alignment; and products of many matrices. */
static void run_monotonic(const step_problem *p, arrays *all)
{
    const ptrdiff_t B = p->a, Tq = p->b, Tk = p->c, size = B * Tq * Tk;
    const attnc_pairs dense = {NULL, Tq * Tk, Tk}, keys = {NULL, Tk, 0};
    double *range = add_array(all, 2 * B, 0, NULL);
    unsigned char *mask = add_array(all, attnc_divide_up(B * Tk, 8), 0, NULL); /* bytes */
    for (ptrdiff_t k = 0; k < B * Tk; k++)
        mask[k] = k % 5 != 2;
    attnc_pairs probability = dense;
    probability.data = add_numbers(all, size, 0.5, NULL);
    add_half(all, probability.data, size);
    for (int masked = 0; masked < 2; masked++) {
        attnc_monotonic m = {.count = B, .Tq = Tq, .Tk = Tk, .probability = probability};
        m.alignment = m.reach = m.dprobability = m.dalignment = dense;
        m.previous = m.dprevious = keys;
        if (masked) {
            m.previous.data = add_numbers(all, B * Tk, 1.0 / (double)Tk, NULL);
            m.key_mask = mask;
            m.mask_row = Tk;
            m.dprevious.data = add_result(all, B * Tk, "dprevious");
        }
        m.alignment.data = add_result(all, size, "alignment");
        m.reach.data = add_result(all, size, "reach");
        m.missing = add_result(all, B * Tq, "missing");
        m.range = range;
        m.dalignment.data = add_numbers(all, size, 1, NULL);
        m.dmissing = masked ? add_numbers(all, B * Tq, 1, NULL) : NULL;
        m.dprobability.data = add_result(all, size, "dprobability");
        attnc_chunkwise c = {.count = B, .Tq = Tq, .Tk = Tk, .alignment = m.alignment};
        c.width = masked ? 5 : 1 + Tk / 2;
        c.key_mask = m.key_mask;
        c.mask_row = m.mask_row;
        c.scores = c.weights = c.dweights = c.dalignment = c.dscores = dense;
        c.scores.data = add_numbers(all, size, 8, NULL);
        c.weights.data = add_result(all, size, "weights");
        c.dweights.data = m.dalignment.data;
        c.dalignment.data = add_result(all, size, "dalignment");
        c.dscores.data = add_result(all, size, "dscores");
        for (int backward = 0; backward < 2; backward++)
            if (attnc_call_monotonic(all->f32, &m, backward, NULL) < 0 ||
                attnc_call_chunkwise(all->f32, &c, backward, NULL) < 0)
                exit(2);
    }
    attnc_products each = {.each = {.a = probability.data, .b = probability.data},
                           .count = B,
                           .a_step = Tq * Tk,
                           .b_step = Tq * Tk,
                           .out_step = Tq * Tq};
    each.each.M = each.each.N = each.each.out_row = Tq;
    each.each.K = each.each.a_row = each.each.b_col = Tk; /* p p^T */
    each.each.a_col = each.each.b_row = 1;
    each.each.out = add_result(all, B * Tq * Tq, "products");
    if (attnc_call_products(all->f32, &each, NULL) < 0)
        exit(2);
}

/* The same inside a loop, of a sequences, b steps, size c: energies, where queries stop, chunks and
 * what they read, forward and back; and hard choices. */
static void run_stops(const step_problem *p, arrays *all)
{
    const attnc_kernels *k = attnc_kernels_for(all->f32);
    const ptrdiff_t B = p->a, T = p->b, D = p->c, Tk = 2 * T + 1, size = B * T * Tk;
    unsigned char *mask = add_array(all, attnc_divide_up(B * Tk, 8), 0, NULL); /* bytes */
    for (ptrdiff_t j = 0; j < B * Tk; j++)
        mask[j] = j % 5 != 2;
    void *key = add_numbers(all, B * Tk * D, 1, NULL);
    attnc_operation forward[4] = {{.type = &attnc_operation_energies},
                                  {.type = &attnc_operation_monotonic},
                                  {.type = &attnc_operation_chunkwise},
                                  {.type = &attnc_operation_read}};
    attnc_loop_energies *e = &forward[0].energies;
    *e = (attnc_loop_energies){.score = p->additive ? ATTNC_ADDITIVE : ATTNC_DOT,
                               .Tk = Tk,
                               .D = D,
                               .query = rows_of(add_numbers(all, B * T * D, 1, NULL), B, T, D),
                               .key = rows_of(key, B, Tk, D),
                               .scale = 0.5,
                               .scores = add_result(all, size, "scores"),
                               .probability = add_result(all, size, "probability"),
                               .offset = -0.25,
                               .noise = add_numbers(all, size, 1, NULL)};
    if (p->additive) {
        const ptrdiff_t padded = attnc_divide_up(D, k->lanes) * k->lanes;
        e->score_vector = add_numbers(all, D, 1, NULL);
        e->transforms = (attnc_key_transforms){.key = key,
                                               .small = add_result(all, B * Tk * padded, NULL),
                                               .large = add_result(all, B * Tk * padded, NULL),
                                               .top = add_result(all, B, NULL),
                                               .count = B,
                                               .Tk = Tk,
                                               .D = D};
        attnc_parallel_for(k->transform_keys, &e->transforms, B, attnc_get_num_threads(), NULL, 0);
    }
    attnc_loop_monotonic *m = &forward[1].monotonic;
    *m = (attnc_loop_monotonic){.Tk = Tk,
                                .probability = e->probability,
                                .alignment = add_result(all, size, "alignment"),
                                .reach = add_result(all, size, "reach"),
                                .previous = add_numbers(all, B * Tk, 0.5, NULL),
                                .key_mask = mask};
    attnc_loop_chunkwise *c = &forward[2].chunkwise;
    *c = (attnc_loop_chunkwise){.Tk = Tk,
                                .width = 3,
                                .alignment = m->alignment,
                                .scores = e->scores,
                                .weights = add_result(all, size, "weights"),
                                .key_mask = mask};
    attnc_loop_read *r = &forward[3].read;
    *r = (attnc_loop_read){.Tk = Tk,
                           .Dv = D,
                           .weights = c->weights,
                           .value = rows_of(key, B, Tk, D),
                           .context = add_result(all, B * T * D, "context"),
                           .key_mask = mask};
    attnc_loop loop = {
        .f32 = all->f32, .steps = T, .batch = B, .operations = 4, .operation = forward};
    run_loop(&loop);

    attnc_operation backward[4] = {forward[3], forward[2], forward[1], forward[0]};
    r = &backward[0].read;
    backward[0].type = &attnc_operation_read_back;
    r->dcontext = rows_of(add_numbers(all, B * T * D, 1, NULL), B, T, D);
    r->dweights = rows_of(add_numbers(all, size, 1, NULL), B, T, Tk);
    r->dtotal = add_result(all, size, "dtotal");
    c = &backward[1].chunkwise;
    backward[1].type = &attnc_operation_chunkwise_back;
    c->dweights = r->dtotal;
    c->dalignment = add_result(all, size, "dalignment");
    c->dscores = add_result(all, size, "dscores");
    m = &backward[2].monotonic;
    backward[2].type = &attnc_operation_monotonic_back;
    m->dalignment = c->dalignment;
    m->dprobability = add_result(all, size, "dprobability");
    m->dprevious = add_numbers(all, B * Tk, 1, "dprevious");
    e = &backward[3].energies;
    backward[3].type = &attnc_operation_energies_back;
    e->scores = c->dscores;
    e->dprobability = m->dprobability;
    e->adds = 1;
    e->dquery = rows_of(add_result(all, B * T * D, "dquery"), T, B, D);
    loop.operation = backward;
    loop.backward = 1;
    run_loop(&loop);

    attnc_operation hard = {.type = &attnc_operation_hard};
    hard.hard = (attnc_loop_hard){.energies = forward[0].energies,
                                  .chunk = forward[0].energies,
                                  .width = 3,
                                  .key_mask = mask,
                                  .position = add_numbers(all, B * Tk, 0, "position"),
                                  .weights = add_result(all, size, "hard weights")};
    for (ptrdiff_t n = 0; n < B; n++) /* at the first key */
        if (all->f32)
            ((float *)hard.hard.position)[n * Tk] = 1;
        else
            ((double *)hard.hard.position)[n * Tk] = 1;
    loop.operation = &hard;
    loop.operations = 1;
    loop.backward = 0;
    run_loop(&loop);
}

static const step_problem step_problems[] = {
    {"RNN", run_layer, ATTNC_RNN, 37, 5, 45, 0},
    {"GRU", run_layer, ATTNC_GRU, 37, 5, 45, 0},
    {"LSTM", run_layer, ATTNC_LSTM, 37, 5, 45, 0},
    {"RNN, one unit", run_layer, ATTNC_RNN, 20, 3, 1, 0},
    {"GRU, one sequence", run_layer, ATTNC_GRU, 1, 4, 67, 0},
    {"LSTM, many sequences", run_layer, ATTNC_LSTM, 150, 3, 20, 0},
    {"LSTM, many units", run_layer, ATTNC_LSTM, 18, 2, 190, 0},
    {"decoder, cosine", run_decoder, ATTNC_GRU, 19, 4, 37, 0},
    {"decoder, additive", run_decoder, ATTNC_GRU, 20, 3, 24, 1},
    {"decoder, one sequence", run_decoder, ATTNC_GRU, 1, 5, 70, 1},
    {"decoder, coverage inside", run_decoder, ATTNC_GRU, 20, 3, 24, 2},
    {"decoder, coverage inside, one sequence", run_decoder, ATTNC_GRU, 1, 6, 35, 2},
    {"stops, dot", run_stops, 0, 19, 6, 37, 0},
    {"stops, additive", run_stops, 0, 20, 5, 24, 1},
    {"stops, one sequence", run_stops, 0, 1, 7, 70, 1},
    {"cross-entropy", run_loss, 0, 100, 301, 0, 0},
    {"cross-entropy, one class", run_loss, 0, 40, 1, 0, 0},
    {"product", run_product, 0, 67, 300, 131, 0},
    {"product, one column", run_product, 0, 100, 5, 1, 0},
    {"rows", run_rows, 0, 200, 133, 0, 0},
    {"rows of one", run_rows, 0, 300, 1, 0, 0},
    {"a long row", run_rows, 0, 1, 5000, 0, 0},
    {"rotary", run_rotary, 0, 3, 130, 22, 0},
    {"rotary, one row each", run_rotary, 0, 200, 1, 64, 0},
    {"monotonic", run_monotonic, 0, 37, 9, 67, 0},
    {"monotonic, one sequence", run_monotonic, 0, 1, 20, 130, 0},
    {"monotonic, one key", run_monotonic, 0, 20, 3, 1, 0},
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
    const step_caller_args *args = ((const caller *)data)->args;
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

/* With the argument 2 every other problem is in double and the others are in float, in half of the
 * time; without it all are in both. */
int main(int count, char **words)
{
    const int share = count > 1 ? atoi(words[1]) : 1;
    int done = 0;
    if (share < 1)
        return 2;
    check_arena();
    for (int f32 = 0; f32 < 2; f32++) {
        for (int k = f32 % share; k < PROBLEMS; k += share, done++)
            check(&problems[k], f32);
        for (int k = f32 % share; k < STEP_PROBLEMS; k += share, done++)
            check_step(&step_problems[k], f32);
    }
    printf("%d problems in float or double, %d instruction sets, %d failures, %ld blocks left\n",
           done, attnc_isa_count(), atomic_load(&failures), attnc_allocation_count());
    return atomic_load(&failures) != 0 || attnc_allocation_count() != 0;
}
