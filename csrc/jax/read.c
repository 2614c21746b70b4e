/* read: see read.h. */
#include "read.h"

#include "call.h"
#include "../engine/values.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- what operands are ---- */

typedef enum { REAL, REAL_OR_HALF, SCALE, DOUBLES, BOOLS, INTEGERS, OFFSETS, KEY } kind;

static const struct {
    const char *name;
    size_t place; /* in attnc_inputs */
    kind kind;
    int leads; /* it has leading axes */
    attnc_plan_axis axes[2];
    int ones; /* its own axes may be 1 */
} operands[] = {
#define ROW_OF_OPERAND(NAME, PLACE, KIND, LEADS, FIRST, SECOND, ONES)                              \
    {#NAME, offsetof(attnc_inputs, PLACE), KIND, LEADS, {ATTNC_AXIS_##FIRST, ATTNC_AXIS_##SECOND}, \
     ONES},
    ATTNC_PLAN_OPERANDS(ROW_OF_OPERAND)
#undef ROW_OF_OPERAND
};

/* Where the gradient of an operand goes, and its tangent. Of gradients that are a pointer alone,
 * only that is set. */
typedef struct {
    size_t gradient, tangent;
} places;
#define AT(NAME)                                                                                   \
    [ATTNC_PLAN_##NAME] = {offsetof(attnc_gradients, NAME), offsetof(attnc_tangents, NAME)}
static const places places_of[ATTNC_PLAN_OPERAND_COUNT] = {
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

typedef attnc_xla_run run;

static int fail(run *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->said, sizeof r->said, format, arguments);
    va_end(arguments);
    r->code = ATTNC_FFI_INVALID_ARGUMENT;
    return -1;
}

int attnc_xla_fail_memory(run *r)
{
    snprintf(r->said, sizeof r->said, "attnc: there is not enough memory");
    r->code = ATTNC_FFI_RESOURCE_EXHAUSTED;
    return -1;
}

int attnc_xla_fail_plan(run *r, const char *what)
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

/* The product of sizes, of which none is negative; -1 where that of those but 0 is more than a size
 * can say: NumPy has no such arrays either. */
static ptrdiff_t product(const ptrdiff_t *sizes, int64_t count)
{
    ptrdiff_t all = 1;
    int empty = 0;
    for (int64_t d = 0; d < count; d++)
        if (sizes[d] == 0)
            empty = 1;
        else if (__builtin_mul_overflow(all, sizes[d], &all))
            return -1;
    return empty ? 0 : all;
}

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
    const int f32 = p->f32 != 0;
    const int64_t sizes[] = {p->Tq, p->Tk, p->Dq, p->Dk, p->D, p->Dv, p->offset_count};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        if (!is_size(sizes[k]))
            return 0;
    return p->operands >> ATTNC_PLAN_OPERAND_COUNT == 0 && p->normalizer >= ATTNC_SOFTMAX &&
           p->normalizer <= ATTNC_ENTMAX15 && attnc_is_in(attnc_softcap_range(f32), p->softcap) &&
           p->softcap >= 0 && p->dropout >= 0 && p->dropout < 1 && p->length >= 0 &&
           p->length <= p->Tk && p->query_length >= 0 && p->query_length <= p->Tq &&
           p->causal_offset == attnc_cut_offset(p->causal_offset) && p->left >= -1 &&
           p->left <= ATTNC_FURTHEST && p->right >= -1 && p->right <= ATTNC_FURTHEST &&
           (attnc_is_in(attnc_scale_range(f32), p->scale) || p->mechanism == ATTNC_PLAN_GIVEN) &&
           isfinite(p->slope) && !isnan(p->sigma);
}

/* Copies the plan: what an attribute holds need not be aligned. */
static int read_plan(run *r)
{
    size_t size = 0;
    const char *words = attnc_ffi_array_attribute(r->call, "plan", &size);
    attnc_plan *p = &r->plan;
    if (!words || size < ATTNC_PLAN_WORDS)
        return attnc_xla_fail_plan(r, "attribute `plan`");
    memcpy(p, words, sizeof *p);
    if (p->version != ATTNC_PLAN_VERSION)
        return fail(r,
                    "attnc: the plan must be of version %d, got one of another attnc; trace the "
                    "program again",
                    ATTNC_PLAN_VERSION);
    if (p->ndim < 0 || p->ndim > ATTNC_MAX_LEAD || size != ATTNC_PLAN_WORDS + (size_t)p->ndim ||
        p->mechanism < 0 || p->mechanism >= ATTNC_PLAN_MECHANISMS)
        return attnc_xla_fail_plan(r, "size");
    attnc_lead *lead = &r->in.lead;
    *lead = (attnc_lead){(int)p->ndim, 0, r->lead};
    for (int d = 0; d < lead->ndim; d++) {
        int64_t axis;
        memcpy(&axis, words + (size_t)(ATTNC_PLAN_WORDS + d) * sizeof axis, sizeof axis);
        if (!is_size(axis))
            return attnc_xla_fail_plan(r, "leading axis");
        r->lead[d] = (ptrdiff_t)axis;
    }
    if ((lead->count = product(r->lead, lead->ndim)) < 0)
        return attnc_xla_fail_plan(r, "number of leading axes");
    if (!has_values_in_range(r) || !has_its_operands(r) || !has_options_that_go_together(r))
        return attnc_xla_fail_plan(r, "option");
    return 0;
}

/* ---- buffers ---- */

static ptrdiff_t axis_size(const run *r, attnc_plan_axis a)
{
    const attnc_plan *p = &r->plan;
    const int64_t sizes[] = {0, p->Tq, p->Tk, p->Dq, p->Dk, p->D, p->Dv, p->offset_count, 2};
    return (ptrdiff_t)sizes[a];
}

void *attnc_xla_data_of(const attnc_ffi_buffer *buffer)
{
    static char nothing[64]; /* what an empty buffer points to, which has no memory */
    return buffer->data ? buffer->data : nothing;
}

/* Its dimensions as a shape: both are signed words. */
static const ptrdiff_t *shape_of(const attnc_ffi_buffer *buffer)
{
    _Static_assert(sizeof(ptrdiff_t) == sizeof(int64_t), "XLA is for 64-bit systems");
    return (const ptrdiff_t *)buffer->dims;
}

attnc_operand attnc_xla_operand_of(const attnc_ffi_buffer *buffer, attnc_stored stored)
{
    return (attnc_operand){attnc_xla_data_of(buffer), shape_of(buffer), NULL, stored};
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
    return product(shape_of(buffer), buffer->rank);
}

/* Whether the buffer has these axes: leading ones that broadcast or, of what belongs to the whole
 * call, all of them; then its own. */
static int has_shape(const run *r, const attnc_ffi_buffer *buffer, int leads, int whole,
                     const attnc_plan_axis *own, int ones_too)
{
    int64_t d = 0;
    const int64_t lead = leads ? r->in.lead.ndim : 0;
    const int64_t rank = lead + (own[0] != ATTNC_AXIS_NONE) + (own[1] != ATTNC_AXIS_NONE);
    if (buffer->rank != rank)
        return 0;
    for (; d < lead; d++)
        if (buffer->dims[d] != r->lead[d] && (whole || buffer->dims[d] != 1))
            return 0;
    for (; d < rank; d++)
        if (buffer->dims[d] != axis_size(r, own[d - lead]) && !(ones_too && buffer->dims[d] == 1))
            return 0;
    return count_of(buffer) >= 0;
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
        attnc_xla_fail_memory(r);
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
        attnc_xla_fail_plan(r, name);
        return NULL;
    }
}

static double *doubles_of(run *r, const attnc_ffi_buffer *buffer, const char *name)
{
    const ptrdiff_t count = count_of(buffer);
    double *out = attnc_take(&r->arena, (size_t)count, sizeof *out);
    if (!out) {
        attnc_xla_fail_memory(r);
        return NULL;
    }
    if (buffer->dtype == ATTNC_FFI_F32)
        READ_AS(float, out);
    else if (buffer->dtype == ATTNC_FFI_F64)
        READ_AS(double, out);
    else {
        attnc_xla_fail_plan(r, name);
        return NULL;
    }
    return out;
}

/* ---- operands ---- */

static void *place_of(run *r, attnc_plan_operand k) { return (char *)&r->in + operands[k].place; }

/* Real numbers as the engine reads them: an operand's, or its tangent's. */
static int reals_of(run *r, attnc_plan_operand k, const attnc_ffi_buffer *buffer, attnc_operand *to)
{
    const char *name = operands[k].name;
    const int stored = stored_as(r, buffer->dtype, operands[k].kind == REAL_OR_HALF);
    if (operands[k].kind == DOUBLES) {
        *to = attnc_xla_operand_of(buffer, ATTNC_AS_COMPUTED);
        return (to->data = doubles_of(r, buffer, name)) ? 0 : -1;
    }
    if (stored < 0)
        return attnc_xla_fail_plan(r, name);
    *to = attnc_xla_operand_of(buffer, (attnc_stored)stored);
    return 0;
}

static double number_of(const run *r, const attnc_operand *one)
{
    return r->plan.f32 ? *(const float *)one->data : *(const double *)one->data;
}

static int read_operand(run *r, attnc_plan_operand k)
{
    const attnc_ffi_buffer *buffer = next_of(&r->call->arguments, &r->argument);
    const char *name = operands[k].name;
    if (!buffer || !has_shape(r, buffer, operands[k].leads, 0, operands[k].axes, operands[k].ones))
        return attnc_xla_fail_plan(r, name);
    attnc_operand operand = attnc_xla_operand_of(buffer, ATTNC_AS_COMPUTED);
    switch (operands[k].kind) {
    case SCALE:
        if (reals_of(r, k, buffer, &operand) < 0)
            return -1;
        r->in.scale = number_of(r, &operand);
        return 0;
    case OFFSETS:
        return (*(const int64_t **)place_of(r, k) = integers_of(r, buffer, name)) ? 0 : -1;
    case KEY: {
        const uint32_t *halves = operand.data;
        if (buffer->dtype != ATTNC_FFI_U32)
            return attnc_xla_fail_plan(r, name);
        r->in.dropout_key = (uint64_t)halves[1] << 32 | halves[0];
        return 0;
    }
    case BOOLS:
        if (buffer->dtype != ATTNC_FFI_PRED)
            return attnc_xla_fail_plan(r, name);
        break;
    case INTEGERS:
        if (!(operand.data = integers_of(r, buffer, name)))
            return -1;
        break;
    default:
        if (reals_of(r, k, buffer, &operand) < 0)
            return -1;
    }
    *(attnc_operand *)place_of(r, k) = operand;
    return 0;
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
        const attnc_operand *of = lengths[k].of;
        if (of->data &&
            attnc_check_lengths(lengths[k].name, of->data, product(of->shape, r->in.lead.ndim),
                                lengths[k].most, lengths[k].what, said) < 0)
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
        const ptrdiff_t count = product(r->in.offset.shape, r->in.lead.ndim);
        for (ptrdiff_t k = 0; k < count; k++)
            offset[k] = attnc_cut_offset(offset[k]);
    }
    return 0;
}

int attnc_xla_read_inputs(run *r)
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
    return check_values(r);
}

/* The operands that an attribute names: of those that are given, some that have a gradient. -1 with
 * an error. */
static int64_t bits_of_operands(run *r, const char *attribute)
{
    const int64_t bits = attnc_ffi_bits(r->call, attribute);
    if (bits >= 0 && !(bits & ~(r->plan.operands & with_gradient)))
        return bits;
    attnc_xla_fail_plan(r, attribute);
    return -1;
}

/* Whether a gradient or a tangent has the shape of its operand, which has been read. */
static const attnc_ffi_buffer *like_operand(const run *r, attnc_plan_operand k,
                                            const attnc_ffi_buffer *buffer)
{
    const uint64_t before = (uint64_t)r->plan.operands & (((uint64_t)1 << k) - 1);
    const attnc_ffi_buffer *operand = r->call->arguments.values[__builtin_popcountll(before)];
    return buffer && buffer->rank == operand->rank &&
                   memcmp(buffer->dims, operand->dims,
                          (size_t)operand->rank * sizeof *operand->dims) == 0
               ? operand
               : NULL;
}

int attnc_xla_read_tangents(run *r, attnc_tangents *tangents)
{
    const int64_t moving = bits_of_operands(r, "moving");
    if (moving < 0)
        return -1;
    for (attnc_plan_operand k = 0; k < ATTNC_PLAN_OPERAND_COUNT; k++) {
        if (!(moving >> k & 1))
            continue;
        const attnc_ffi_buffer *buffer = next_of(&r->call->arguments, &r->argument);
        attnc_operand tangent;
        if (!like_operand(r, k, buffer))
            return attnc_xla_fail_plan(r, operands[k].name);
        if (reals_of(r, k, buffer, &tangent) < 0)
            return -1;
        if (operands[k].kind == SCALE)
            tangents->scale = number_of(r, &tangent);
        else
            *(attnc_operand *)(void *)((char *)tangents + places_of[k].tangent) = tangent;
    }
    return 0;
}

int attnc_xla_read_wanted(run *r, attnc_gradients *gradients)
{
    const int64_t wanted = bits_of_operands(r, "wanted");
    if (wanted < 0)
        return -1;
    for (attnc_plan_operand k = 0; k < ATTNC_PLAN_OPERAND_COUNT; k++) {
        if (!(wanted >> k & 1))
            continue;
        const attnc_ffi_buffer *buffer = next_of(&r->call->results, &r->result);
        const attnc_ffi_buffer *operand = like_operand(r, k, buffer);
        const int halves = operands[k].kind == REAL_OR_HALF;
        const int stored = operand ? stored_as(r, buffer->dtype, halves) : -1;
        if (stored < 0 || (halves && buffer->dtype != operand->dtype))
            return attnc_xla_fail_plan(r, operands[k].name);
        void *place = (char *)gradients + places_of[k].gradient;
        *(void **)place = attnc_xla_data_of(buffer); /* an attnc_result's first member as well */
        if (halves)
            ((attnc_result *)place)->stored = (attnc_stored)stored;
    }
    return 0;
}

/* ---- what belongs to the whole call ---- */

const attnc_ffi_buffer *attnc_xla_next_whole(run *r, int of_results, attnc_plan_axis first,
                                             attnc_plan_axis second, attnc_stored *stored,
                                             const char *name)
{
    const attnc_ffi_call *call = r->call;
    const attnc_ffi_buffer *buffer =
        of_results ? next_of(&call->results, &r->result) : next_of(&call->arguments, &r->argument);
    const attnc_plan_axis own[] = {first, second};
    const int as = buffer ? stored_as(r, buffer->dtype, stored != NULL) : -1;
    if (as < 0 || !has_shape(r, buffer, 1, 1, own, 0)) {
        attnc_xla_fail_plan(r, name);
        return NULL;
    }
    if (stored)
        *stored = (attnc_stored)as;
    return buffer;
}

int attnc_xla_check_all_taken(run *r)
{
    if (r->argument == r->call->arguments.size && r->result == r->call->results.size)
        return 0;
    return attnc_xla_fail_plan(r, "number of arrays");
}
