/* attention: see attention.h. */
#include "attention.h"

#include "call.h"
#include "executor.h"
#include "../engine/values.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- what operands are ---- */

typedef enum { NONE, TQ, TK, DQ, DK, D, DV, OFFSET, TWO } axis;
typedef enum { REAL, REAL_OR_HALF, SCALE, DOUBLES, BOOLS, INTEGERS, OFFSETS, KEY } kind;

static const struct {
    const char *name;
    size_t place; /* in attnc_inputs */
    kind kind;
    int leads; /* it has leading axes */
    axis axes[2];
    int ones; /* its own axes may be 1 */
} operands[] = {
#define ROW_OF_OPERAND(NAME, PLACE, KIND, LEADS, FIRST, SECOND, ONES)                              \
    {#NAME, offsetof(attnc_inputs, PLACE), KIND, LEADS, {FIRST, SECOND}, ONES},
    ATTNC_PLAN_OPERANDS(ROW_OF_OPERAND)
#undef ROW_OF_OPERAND
};

/* Where the gradient of an operand goes. Of those that are a pointer alone, only that is set. */
#define AT(NAME) [ATTNC_PLAN_##NAME] = offsetof(attnc_gradients, NAME)
static const size_t gradient_places[ATTNC_PLAN_OPERAND_COUNT] = {
    AT(query),        AT(key),          AT(value),      AT(scores),     AT(weight),
    AT(score_vector), AT(query_weight), AT(key_weight), AT(score_bias), AT(scale),
    AT(bias),         AT(slope),        AT(sink),       AT(center)};
#undef AT
static const int64_t with_gradient = (ATTNC_PLAN_BIT(center) << 1) - 1;

/* Each with the names of its functions, for messages. */
static const struct {
    const attnc_mechanism *mechanism;
    const char *function, *scores;
} mechanisms[] = {
    [ATTNC_PLAN_DOT_PRODUCT] = {&attnc_dot_product, "dot_product_attention", "dot_product_scores"},
    [ATTNC_PLAN_MULTIPLICATIVE] = {&attnc_multiplicative, "multiplicative_attention",
                                   "multiplicative_scores"},
    [ATTNC_PLAN_ADDITIVE] = {&attnc_additive, "additive_attention", "additive_scores"},
    [ATTNC_PLAN_COSINE] = {&attnc_cosine, "cosine_attention", "cosine_scores"},
    [ATTNC_PLAN_GIVEN] = {&attnc_given_scores, "attend", NULL},
};

/* ---- one call ---- */

enum { FIRST_BYTES = 4096 }; /* lengths and offsets of a small batch */

typedef struct {
    attnc_ffi_call *call;
    attnc_plan plan;
    ptrdiff_t lead[ATTNC_MAX_LEAD];
    attnc_inputs in;
    int64_t argument, result; /* the next ones */
    int64_t save;
    double slope, sink, center;         /* where they are numbers */
    ptrdiff_t ones[ATTNC_MAX_LEAD + 1]; /* their shape */
    attnc_arena arena;
    fenv_t before;             /* how the thread computes */
    int code;                  /* of the error */
    char said[2 * ATTNC_SAID]; /* of a function's name too */
} run;

static int fail(run *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->said, sizeof r->said, format, arguments);
    va_end(arguments);
    r->code = ATTNC_FFI_INVALID_ARGUMENT;
    return -1;
}

static int fail_memory(run *r)
{
    snprintf(r->said, sizeof r->said, "attnc: there is not enough memory");
    r->code = ATTNC_FFI_RESOURCE_EXHAUSTED;
    return -1;
}

/* What attnc's own Python never makes. */
static int fail_plan(run *r, const char *what)
{
    return fail(r, "attnc: the program must fit its plan, got another %s", what);
}

/* A value of the caller's, said as the function in Python says it. */
static int fail_value(run *r, const char *said)
{
    const int scores = r->plan.returns == ATTNC_PLAN_SCORES;
    const char *const name =
        scores ? mechanisms[r->plan.mechanism].scores : mechanisms[r->plan.mechanism].function;
    return fail(r, "%s: %s", name, said);
}

static int given(const run *r, int64_t bit) { return (r->plan.operands & bit) != 0; }

/* ---- the plan ---- */

static int is_size(int64_t size) { return size >= 0 && size <= PTRDIFF_MAX / 16; }

static int has_its_operands(const run *r)
{
    const attnc_plan *p = &r->plan;
    const int64_t scored = ATTNC_PLAN_BIT(query) | ATTNC_PLAN_BIT(key);
    const int64_t own = p->operands & (ATTNC_PLAN_BIT(bias) - 1);
    const int64_t value = p->returns == ATTNC_PLAN_SCORES ? 0 : ATTNC_PLAN_BIT(value);
    const int64_t without_scale = own & ~ATTNC_PLAN_BIT(scale);
    switch (p->mechanism) {
    case ATTNC_PLAN_DOT_PRODUCT:
    case ATTNC_PLAN_COSINE:
        return without_scale == (scored | value) && p->Dq == p->D && p->Dk == p->D;
    case ATTNC_PLAN_MULTIPLICATIVE:
        return own == (scored | value | ATTNC_PLAN_BIT(weight)) && p->Dk == p->D;
    case ATTNC_PLAN_ADDITIVE: {
        const int64_t optional =
            ATTNC_PLAN_BIT(query_weight) | ATTNC_PLAN_BIT(key_weight) | ATTNC_PLAN_BIT(score_bias);
        return (own & ~optional) == (scored | value | ATTNC_PLAN_BIT(score_vector)) &&
               (given(r, ATTNC_PLAN_BIT(query_weight)) || p->Dq == p->D) &&
               (given(r, ATTNC_PLAN_BIT(key_weight)) || p->Dk == p->D);
    }
    default: /* given */
        return own == (ATTNC_PLAN_BIT(scores) | ATTNC_PLAN_BIT(value)) && value && p->D == 0;
    }
}

static int has_options_that_go_together(const run *r)
{
    const attnc_plan *p = &r->plan;
    const int64_t centered = (p->operands | p->numbers) & ATTNC_PLAN_BIT(center);
    const int64_t sinks = (p->operands | p->numbers) & ATTNC_PLAN_BIT(sink);
    const int64_t not_packed = ATTNC_PLAN_BIT(mask) | ATTNC_PLAN_BIT(key_lengths) |
                               ATTNC_PLAN_BIT(query_lengths) | ATTNC_PLAN_BIT(causal_offset) |
                               ATTNC_PLAN_BIT(bias);
    const int packed = given(r, ATTNC_PLAN_BIT(query_offsets));
    const int64_t outputs = ATTNC_PLAN_CONTEXT | ATTNC_PLAN_WEIGHTS | ATTNC_PLAN_LSE;
    if (p->returns != ATTNC_PLAN_SCORES &&
        ((p->returns & ~outputs) || !(p->returns & ATTNC_PLAN_CONTEXT)))
        return 0;
    if (p->numbers & ~(ATTNC_PLAN_BIT(slope) | ATTNC_PLAN_BIT(sink) | ATTNC_PLAN_BIT(center)))
        return 0;
    if (p->numbers & p->operands)
        return 0;
    if (centered ? !p->window || !(p->sigma > 0) : p->renormalize != 0)
        return 0;
    if (p->normalizer != ATTNC_SOFTMAX &&
        (sinks || centered || packed || (p->returns & ATTNC_PLAN_LSE)))
        return 0;
    if (given(r, ATTNC_PLAN_BIT(key_offsets)) && !packed)
        return 0;
    if (packed && ((p->operands & not_packed) || p->mechanism == ATTNC_PLAN_GIVEN ||
                   (p->returns & ATTNC_PLAN_WEIGHTS) || p->offset_count < 1))
        return 0;
    if (packed && !given(r, ATTNC_PLAN_BIT(key_offsets)) && p->Tq != p->Tk)
        return 0;
    if (p->returns == ATTNC_PLAN_SCORES &&
        (packed || centered || sinks || p->normalizer != ATTNC_SOFTMAX || p->dropout > 0 ||
         (p->operands & (ATTNC_PLAN_BIT(bias) | ATTNC_PLAN_BIT(slope))) || p->numbers))
        return 0;
    return given(r, ATTNC_PLAN_BIT(rng)) == (p->dropout > 0);
}

static int has_values_in_range(const run *r)
{
    const attnc_plan *p = &r->plan;
    const int64_t sizes[] = {p->Tq, p->Tk, p->Dq, p->Dk, p->D, p->Dv, p->offset_count};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        if (!is_size(sizes[k]))
            return 0;
    return p->operands >> ATTNC_PLAN_OPERAND_COUNT == 0 && p->normalizer >= ATTNC_SOFTMAX &&
           p->normalizer <= ATTNC_ENTMAX15 && p->softcap >= 0 && isfinite(p->softcap) &&
           p->dropout >= 0 && p->dropout < 1 && p->length >= 0 && p->length <= p->Tk &&
           p->query_length >= 0 && p->query_length <= p->Tq &&
           p->causal_offset == attnc_cut_offset(p->causal_offset) && p->left >= -1 &&
           p->left <= ATTNC_FURTHEST && p->right >= -1 && p->right <= ATTNC_FURTHEST &&
           (isfinite(p->scale) || p->mechanism == ATTNC_PLAN_GIVEN) && !isnan(p->sigma);
}

/* Copies the plan: what an attribute holds need not be aligned. */
static int read_plan(run *r)
{
    size_t size = 0;
    const int64_t *words = attnc_ffi_array_attribute(r->call, "plan", &size);
    attnc_plan *p = &r->plan;
    if (!words || size < ATTNC_PLAN_WORDS)
        return fail_plan(r, "attribute `plan`");
    memcpy(p, words, sizeof *p);
    if (p->version != ATTNC_PLAN_VERSION)
        return fail(r,
                    "attnc: the plan must be of version %d, got one of another attnc; trace the "
                    "program again",
                    ATTNC_PLAN_VERSION);
    if (p->ndim < 0 || p->ndim > ATTNC_MAX_LEAD || size != ATTNC_PLAN_WORDS + (size_t)p->ndim ||
        p->mechanism < 0 || p->mechanism >= ATTNC_PLAN_MECHANISMS)
        return fail_plan(r, "size");
    attnc_lead *lead = &r->in.lead;
    *lead = (attnc_lead){(int)p->ndim, 1, r->lead};
    for (int d = 0; d < lead->ndim; d++) {
        int64_t axis;
        memcpy(&axis, words + ATTNC_PLAN_WORDS + d, sizeof axis);
        if (!is_size(axis))
            return fail_plan(r, "leading axis");
        r->lead[d] = (ptrdiff_t)axis;
        if (axis == 0)
            lead->count = 0;
    }
    for (int d = 0; d < lead->ndim && lead->count > 0; d++)
        if (__builtin_mul_overflow(lead->count, r->lead[d], &lead->count))
            return fail_plan(r, "number of leading axes");
    if (!has_values_in_range(r) || !has_its_operands(r) || !has_options_that_go_together(r))
        return fail_plan(r, "option");
    return 0;
}

/* ---- buffers ---- */

static ptrdiff_t axis_size(const run *r, axis a)
{
    const attnc_plan *p = &r->plan;
    const int64_t sizes[] = {0, p->Tq, p->Tk, p->Dq, p->Dk, p->D, p->Dv, p->offset_count, 2};
    return (ptrdiff_t)sizes[a];
}

/* What an empty buffer points to, which has no memory. */
static char nothing[64];

static void *data_of(const attnc_ffi_buffer *buffer)
{
    return buffer->data ? buffer->data : nothing;
}

static const attnc_ffi_buffer *next_of(const attnc_ffi_values *all, int64_t *next)
{
    const int64_t k = (*next)++;
    return k < all->size && all->types[k] == ATTNC_FFI_BUFFER ? all->values[k] : NULL;
}

/* How reals of the dtype lie in memory; -1 where they do not fit what is computed in. */
static int stored_as(const run *r, int dtype, int halves)
{
    if (dtype == (r->plan.f32 ? ATTNC_FFI_F32 : ATTNC_FFI_F64))
        return ATTNC_AS_COMPUTED;
    if (halves && r->plan.f32 && dtype == ATTNC_FFI_F16)
        return ATTNC_FLOAT16;
    if (halves && r->plan.f32 && dtype == ATTNC_FFI_BF16)
        return ATTNC_BFLOAT16;
    return -1;
}

static ptrdiff_t count_of(const attnc_ffi_buffer *buffer)
{
    ptrdiff_t count = 1;
    for (int64_t d = 0; d < buffer->rank; d++)
        count *= (ptrdiff_t)buffer->dims[d];
    return count;
}

/* Whether the buffer has these axes: leading ones that broadcast or, of what belongs to the whole
 * call, all of them; then its own. */
static int has_shape(const run *r, const attnc_ffi_buffer *buffer, int leads, int whole,
                     const axis *own, int ones_too)
{
    int64_t d = 0;
    const int64_t lead = leads ? r->in.lead.ndim : 0;
    const int64_t rank = lead + (own[0] != NONE) + (own[1] != NONE);
    if (buffer->rank != rank)
        return 0;
    for (; d < lead; d++)
        if (buffer->dims[d] != r->lead[d] && (whole || buffer->dims[d] != 1))
            return 0;
    for (; d < rank; d++)
        if (buffer->dims[d] != axis_size(r, own[d - lead]) && !(ones_too && buffer->dims[d] == 1))
            return 0;
    return 1;
}

#define READ_AS(TYPE, OUT)                                                                         \
    do {                                                                                           \
        const TYPE *from = buffer->data;                                                           \
        for (ptrdiff_t k = 0; k < count; k++)                                                      \
            (OUT)[k] = from[k];                                                                    \
    } while (0)

/* Integers as the engine reads them, in memory of the call; NULL with an error. */
static int64_t *integers_of(run *r, const attnc_ffi_buffer *buffer, const char *name)
{
    const ptrdiff_t count = count_of(buffer);
    int64_t *out = attnc_take(&r->arena, (size_t)count, sizeof *out);
    if (!out) {
        fail_memory(r);
        return NULL;
    }
    switch (buffer->dtype) {
    case ATTNC_FFI_S8:
        READ_AS(int8_t, out);
        return out;
    case ATTNC_FFI_S16:
        READ_AS(int16_t, out);
        return out;
    case ATTNC_FFI_S32:
        READ_AS(int32_t, out);
        return out;
    case ATTNC_FFI_S64:
        READ_AS(int64_t, out);
        return out;
    case ATTNC_FFI_U8:
        READ_AS(uint8_t, out);
        return out;
    case ATTNC_FFI_U16:
        READ_AS(uint16_t, out);
        return out;
    case ATTNC_FFI_U32:
        READ_AS(uint32_t, out);
        return out;
    case ATTNC_FFI_U64: {
        const uint64_t *from = buffer->data;
        for (ptrdiff_t k = 0; k < count; k++)
            out[k] = from[k] > (uint64_t)ATTNC_FURTHEST ? ATTNC_FURTHEST : (int64_t)from[k];
        return out;
    }
    default:
        fail_plan(r, name);
        return NULL;
    }
}

static double *doubles_of(run *r, const attnc_ffi_buffer *buffer, const char *name)
{
    const ptrdiff_t count = count_of(buffer);
    double *out = attnc_take(&r->arena, (size_t)count, sizeof *out);
    if (!out) {
        fail_memory(r);
        return NULL;
    }
    if (buffer->dtype == ATTNC_FFI_F32)
        READ_AS(float, out);
    else if (buffer->dtype == ATTNC_FFI_F64)
        READ_AS(double, out);
    else {
        fail_plan(r, name);
        return NULL;
    }
    return out;
}

/* ---- operands ---- */

static void *place_of(run *r, attnc_plan_operand k) { return (char *)&r->in + operands[k].place; }

/* Its dimensions as a shape: both are signed words. */
static const ptrdiff_t *shape_of(const attnc_ffi_buffer *buffer)
{
    _Static_assert(sizeof(ptrdiff_t) == sizeof(int64_t), "XLA is for 64-bit systems");
    return (const ptrdiff_t *)buffer->dims;
}

static int read_operand(run *r, attnc_plan_operand k)
{
    const attnc_ffi_buffer *buffer = next_of(&r->call->arguments, &r->argument);
    const char *name = operands[k].name;
    const kind kind = operands[k].kind;
    if (!buffer || !has_shape(r, buffer, operands[k].leads, 0, operands[k].axes, operands[k].ones))
        return fail_plan(r, name);
    attnc_operand operand = {data_of(buffer), shape_of(buffer), NULL, ATTNC_AS_COMPUTED};
    if (kind == REAL || kind == REAL_OR_HALF || kind == SCALE) {
        const int stored = stored_as(r, buffer->dtype, kind == REAL_OR_HALF);
        if (stored < 0)
            return fail_plan(r, name);
        operand.stored = (attnc_stored)stored;
    }
    else if (kind == BOOLS && buffer->dtype != ATTNC_FFI_PRED)
        return fail_plan(r, name);
    else if (kind == INTEGERS && !(operand.data = integers_of(r, buffer, name)))
        return -1;
    else if (kind == DOUBLES && !(operand.data = doubles_of(r, buffer, name)))
        return -1;
    switch (kind) {
    case SCALE:
        r->in.scale = r->plan.f32 ? *(const float *)operand.data : *(const double *)operand.data;
        return 0;
    case OFFSETS:
        return (*(const int64_t **)place_of(r, k) = integers_of(r, buffer, name)) ? 0 : -1;
    case KEY: {
        const uint32_t *halves = operand.data;
        if (buffer->dtype != ATTNC_FFI_U32)
            return fail_plan(r, name);
        r->in.dropout_key = (uint64_t)halves[1] << 32 | halves[0];
        return 0;
    }
    default:
        *(attnc_operand *)place_of(r, k) = operand;
        return 0;
    }
}

/* What shapes do not show, by the name that Python knows. */
static int check_values(run *r)
{
    const attnc_plan *p = &r->plan;
    char said[ATTNC_SAID];
    const struct {
        const attnc_operand *of;
        const char *name, *what;
        ptrdiff_t most;
    } lengths[] = {{&r->in.lengths, "key_lengths", "keys", (ptrdiff_t)p->Tk},
                   {&r->in.query_lengths, "query_lengths", "queries", (ptrdiff_t)p->Tq}};
    for (int k = 0; k < 2; k++) {
        ptrdiff_t count = 1;
        for (int d = 0; lengths[k].of->data && d < r->in.lead.ndim; d++)
            count *= lengths[k].of->shape[d];
        if (lengths[k].of->data && attnc_check_lengths(lengths[k].name, lengths[k].of->data, count,
                                                       lengths[k].most, lengths[k].what, said))
            return fail_value(r, said);
    }
    if (r->in.query_offsets &&
        attnc_check_offsets("query_offsets", r->in.query_offsets, (ptrdiff_t)p->offset_count,
                            (ptrdiff_t)p->Tq, "queries", said) < 0)
        return fail_value(r, said);
    if (r->in.query_offsets && r->in.key_offsets != r->in.query_offsets &&
        attnc_check_offsets("key_offsets", r->in.key_offsets, (ptrdiff_t)p->offset_count,
                            (ptrdiff_t)p->Tk, "keys", said) < 0)
        return fail_value(r, said);
    if (r->in.offset.data) { /* our copy */
        int64_t *offset = (int64_t *)(uintptr_t)r->in.offset.data;
        ptrdiff_t count = 1;
        for (int d = 0; d < r->in.lead.ndim; d++)
            count *= r->in.offset.shape[d];
        for (ptrdiff_t k = 0; k < count; k++)
            offset[k] = attnc_cut_offset(offset[k]);
    }
    return 0;
}

/* From the plan and the first arguments to what the engine reads. */
static int read_inputs(run *r)
{
    if (read_plan(r) < 0)
        return -1;
    const attnc_plan *p = &r->plan;
    const attnc_lead lead = r->in.lead;
    r->in = (attnc_inputs){.mechanism = mechanisms[p->mechanism].mechanism,
                           .f32 = p->f32 != 0,
                           .lead = lead,
                           .Tq = (ptrdiff_t)p->Tq,
                           .Tk = (ptrdiff_t)p->Tk,
                           .Dv = (ptrdiff_t)p->Dv,
                           .D = (ptrdiff_t)p->D,
                           .scale = p->scale,
                           .sigma = p->sigma,
                           .renormalize = p->renormalize != 0,
                           .length = (ptrdiff_t)p->length,
                           .query_length = (ptrdiff_t)p->query_length,
                           .causal_offset = (ptrdiff_t)p->causal_offset,
                           .causal = p->causal != 0,
                           .window = p->window != 0,
                           .left = (ptrdiff_t)p->left,
                           .right = (ptrdiff_t)p->right,
                           .normalizer = (attnc_normalizer)p->normalizer,
                           .softcap = p->softcap,
                           .dropout = p->dropout,
                           .sequences = (ptrdiff_t)p->offset_count - 1,
                           .from_start = p->from_start != 0};
    for (attnc_plan_operand k = 0; k < ATTNC_PLAN_OPERAND_COUNT; k++)
        if (p->operands >> k & 1 && read_operand(r, k) < 0)
            return -1;
    if (!r->in.key_offsets)
        r->in.key_offsets = r->in.query_offsets;
    if (!r->in.query_offsets)
        r->in.sequences = 0;
    const struct {
        int64_t bit;
        double *to, value;
        attnc_operand *operand;
    } numbers[] = {{ATTNC_PLAN_BIT(slope), &r->slope, p->slope, &r->in.slope},
                   {ATTNC_PLAN_BIT(sink), &r->sink, p->sink, &r->in.sink},
                   {ATTNC_PLAN_BIT(center), &r->center, p->center, &r->in.center}};
    for (int d = 0; p->numbers && d <= lead.ndim; d++)
        r->ones[d] = 1;
    for (int k = 0; k < 3; k++)
        if (p->numbers & numbers[k].bit) {
            *numbers[k].to = numbers[k].value;
            *numbers[k].operand = (attnc_operand){numbers[k].to, r->ones, NULL, ATTNC_AS_COMPUTED};
        }
    r->save = attnc_ffi_bits(r->call, "save");
    const int64_t all = ATTNC_PLAN_CONTEXT | ATTNC_PLAN_STATS | ATTNC_PLAN_SAVED_SCORES;
    if (r->save < 0 || r->save & ~all)
        return fail_plan(r, "attribute `save`");
    return check_values(r);
}

/* What backward needs has to be saved, and a sparse normalizer has weights alone. A context that
 * forward returns as it was computed need not be saved beside it. */
static int check_save(run *r, int returned)
{
    const attnc_saves saves = attnc_what_is_saved(&r->in);
    const int64_t bits = r->save | (returned ? ATTNC_PLAN_CONTEXT * (saves.context >= 0) : 0);
    const int sparse = r->in.normalizer != ATTNC_SOFTMAX;
    if (sparse ? bits == ATTNC_PLAN_SAVED_SCORES
               : bits & ATTNC_PLAN_STATS && (saves.context < 0 || bits & ATTNC_PLAN_CONTEXT) &&
                     !(r->in.query_offsets && bits & ATTNC_PLAN_SAVED_SCORES))
        return 0;
    return fail_plan(r, "attribute `save`");
}

/* The next array of the whole call, as it is computed, or, where `stored` is given, in halves too:
 * leading axes, and its own. NULL with an error. */
static const attnc_ffi_buffer *whole(run *r, int of_results, axis first, axis second,
                                     attnc_stored *stored, const char *name)
{
    const attnc_ffi_call *call = r->call;
    const attnc_ffi_buffer *buffer =
        of_results ? next_of(&call->results, &r->result) : next_of(&call->arguments, &r->argument);
    const axis own[] = {first, second};
    const int as = buffer ? stored_as(r, buffer->dtype, stored != NULL) : -1;
    if (as < 0 || !has_shape(r, buffer, 1, 1, own, 0)) {
        fail_plan(r, name);
        return NULL;
    }
    if (stored)
        *stored = (attnc_stored)as;
    return buffer;
}

static int check_all_taken(run *r)
{
    if (r->argument == r->call->arguments.size && r->result == r->call->results.size)
        return 0;
    return fail_plan(r, "number of arrays");
}

static attnc_ffi_error *end(run *r, int status)
{
    attnc_give_back(&r->arena);
    attnc_ffi_arithmetic_end(&r->before);
    return status < 0 ? attnc_ffi_fail(r->call, r->code, r->said) : NULL;
}

/* ---- forward ---- */

static int result_of(run *r, axis first, axis second, attnc_result *to, const char *name)
{
    const attnc_ffi_buffer *buffer = whole(r, 1, first, second, &to->stored, name);
    to->data = buffer ? data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

static int computed_of(run *r, axis first, axis second, void **to, const char *name)
{
    const attnc_ffi_buffer *buffer = whole(r, 1, first, second, NULL, name);
    *to = buffer ? data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

static int outputs_of(run *r, attnc_outputs *out)
{
    const int64_t returns = r->plan.returns, save = r->save;
    if (returns == ATTNC_PLAN_SCORES)
        return save ? fail_plan(r, "attribute `save`")
                    : result_of(r, TQ, TK, &out->scores, "scores");
    if (save && check_save(r, 1) < 0)
        return -1;
    if (result_of(r, TQ, DV, &out->context, "context") < 0 ||
        (returns & ATTNC_PLAN_WEIGHTS && result_of(r, TQ, TK, &out->weights, "weights") < 0) ||
        (returns & ATTNC_PLAN_LSE && computed_of(r, TQ, NONE, &out->lse, "lse") < 0) ||
        (save & ATTNC_PLAN_CONTEXT && computed_of(r, TQ, DV, &out->saved_context, "saved") < 0) ||
        (save & ATTNC_PLAN_STATS && computed_of(r, TQ, TWO, &out->saved_stats, "saved") < 0) ||
        (save & ATTNC_PLAN_SAVED_SCORES && computed_of(r, TQ, TK, &out->saved_scores, "saved") < 0))
        return -1;
    return 0;
}

attnc_ffi_error *attnc_xla_attention_forward(attnc_ffi_call *call)
{
    _Alignas(64) char first[FIRST_BYTES];
    if (attnc_ffi_answers(call))
        return NULL;
    run r = {.call = call,
             .arena = attnc_arena_in(first, FIRST_BYTES),
             .before = attnc_ffi_arithmetic_begin()};
    attnc_outputs out = {0};
    const attnc_executor executor = attnc_xla_executor(call);
    if (read_inputs(&r) < 0 || outputs_of(&r, &out) < 0 || check_all_taken(&r) < 0)
        return end(&r, -1);
    return end(&r, attnc_attention_forward(&r.in, &out, &executor) < 0 ? fail_memory(&r) : 0);
}

/* ---- backward ---- */

static int incoming_of(run *r, axis first, axis second, attnc_stored *stored, attnc_operand *to,
                       const char *name)
{
    const attnc_ffi_buffer *buffer = whole(r, 0, first, second, stored, name);
    if (buffer)
        *to = (attnc_operand){data_of(buffer), shape_of(buffer), NULL, ATTNC_AS_COMPUTED};
    if (buffer && stored)
        to->stored = *stored;
    return buffer ? 0 : -1;
}

static int saved_of(run *r, axis first, axis second, const void **to)
{
    const attnc_ffi_buffer *buffer = whole(r, 0, first, second, NULL, "saved array");
    *to = buffer ? data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

static int read_incoming(run *r, attnc_incoming *incoming)
{
    const int64_t bits = attnc_ffi_bits(r->call, "incoming"), save = r->save;
    attnc_stored stored;
    if (bits <= 0 || bits & ~r->plan.returns)
        return fail_plan(r, "attribute `incoming`");
    if (bits == ATTNC_PLAN_SCORES)
        return save ? fail_plan(r, "attribute `save`")
                    : incoming_of(r, TQ, TK, &stored, &incoming->scores, "gradient");
    if (check_save(r, 0) < 0 ||
        (bits & ATTNC_PLAN_CONTEXT &&
         incoming_of(r, TQ, DV, &stored, &incoming->context, "gradient") < 0) ||
        (bits & ATTNC_PLAN_WEIGHTS &&
         incoming_of(r, TQ, TK, &stored, &incoming->weights, "gradient") < 0) ||
        (bits & ATTNC_PLAN_LSE && incoming_of(r, TQ, NONE, NULL, &incoming->lse, "gradient") < 0) ||
        (save & ATTNC_PLAN_CONTEXT && saved_of(r, TQ, DV, &incoming->saved_context) < 0) ||
        (save & ATTNC_PLAN_STATS && saved_of(r, TQ, TWO, &incoming->saved_stats) < 0) ||
        (save & ATTNC_PLAN_SAVED_SCORES && saved_of(r, TQ, TK, &incoming->saved_scores) < 0))
        return -1;
    return 0;
}

/* Gradients have the shape of their operand, and lie as it does; those of what is read in double
 * are as computed. */
static int read_wanted(run *r, attnc_gradients *gradients)
{
    const int64_t wanted = attnc_ffi_bits(r->call, "wanted");
    int64_t argument = 0;
    if (wanted < 0 || wanted & ~(r->plan.operands & with_gradient))
        return fail_plan(r, "attribute `wanted`");
    for (attnc_plan_operand k = 0; k < ATTNC_PLAN_OPERAND_COUNT; k++) {
        if (!(r->plan.operands >> k & 1))
            continue;
        const attnc_ffi_buffer *like = r->call->arguments.values[argument++];
        if (!(wanted >> k & 1))
            continue;
        const attnc_ffi_buffer *buffer = next_of(&r->call->results, &r->result);
        void *place = (char *)gradients + gradient_places[k];
        const int halves = operands[k].kind == REAL_OR_HALF;
        const int stored = buffer ? stored_as(r, buffer->dtype, halves) : -1;
        if (stored < 0 || buffer->rank != like->rank ||
            memcmp(buffer->dims, like->dims, (size_t)like->rank * sizeof *like->dims) != 0 ||
            (halves && buffer->dtype != like->dtype))
            return fail_plan(r, operands[k].name);
        *(void **)place = data_of(buffer); /* the first member of an attnc_result as well */
        if (halves)
            ((attnc_result *)place)->stored = (attnc_stored)stored;
    }
    return 0;
}

attnc_ffi_error *attnc_xla_attention_backward(attnc_ffi_call *call)
{
    _Alignas(64) char first[FIRST_BYTES];
    if (attnc_ffi_answers(call))
        return NULL;
    run r = {.call = call,
             .arena = attnc_arena_in(first, FIRST_BYTES),
             .before = attnc_ffi_arithmetic_begin()};
    attnc_incoming incoming = {0};
    attnc_gradients gradients = {0};
    const attnc_executor executor = attnc_xla_executor(call);
    if (read_inputs(&r) < 0 || read_incoming(&r, &incoming) < 0 ||
        read_wanted(&r, &gradients) < 0 || check_all_taken(&r) < 0)
        return end(&r, -1);
    return end(&r, attnc_attention_backward(&r.in, &incoming, &gradients, &executor) < 0
                       ? fail_memory(&r)
                       : 0);
}
