/* attention: see attention.h. */
#include "attention.h"

#include "call.h"
#include "executor.h"
#include "read.h"

typedef attnc_xla_run run;

/* ---- arrays of the whole call ---- */

/* The next result, which may lie in halves; and one that is as computed. */
static int result_of(run *r, attnc_plan_axis first, attnc_plan_axis second, attnc_result *to,
                     const char *name)
{
    const attnc_ffi_buffer *buffer = attnc_xla_next_whole(r, 1, first, second, &to->stored, name);
    to->data = buffer ? attnc_xla_data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

static int computed_of(run *r, attnc_plan_axis first, attnc_plan_axis second, void **to,
                       const char *name)
{
    const attnc_ffi_buffer *buffer = attnc_xla_next_whole(r, 1, first, second, NULL, name);
    *to = buffer ? attnc_xla_data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

static int saved_of(run *r, attnc_plan_axis first, attnc_plan_axis second, const void **to)
{
    const attnc_ffi_buffer *buffer = attnc_xla_next_whole(r, 0, first, second, NULL, "saved array");
    *to = buffer ? attnc_xla_data_of(buffer) : NULL;
    return buffer ? 0 : -1;
}

/* The next argument, the gradient of an output or its tangent, which may lie in halves if its
 * output may. */
static int incoming_of(run *r, attnc_plan_axis first, attnc_plan_axis second, int halves,
                       attnc_operand *to)
{
    attnc_stored stored = ATTNC_AS_COMPUTED;
    const attnc_ffi_buffer *buffer =
        attnc_xla_next_whole(r, 0, first, second, halves ? &stored : NULL, "gradient");
    if (buffer)
        *to = attnc_xla_operand_of(buffer, stored);
    return buffer ? 0 : -1;
}

/* The gradients of those outputs that the attribute names, or their tangents. */
static int read_incoming(run *r, const char *attribute, attnc_incoming *incoming)
{
    const int64_t bits = attnc_ffi_bits(r->call, attribute);
    if (bits < 0 || bits & ~r->plan.returns)
        return attnc_xla_fail_plan(r, attribute);
    if ((bits & ATTNC_PLAN_SCORES &&
         incoming_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, 1, &incoming->scores) < 0) ||
        (bits & ATTNC_PLAN_CONTEXT &&
         incoming_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_DV, 1, &incoming->context) < 0) ||
        (bits & ATTNC_PLAN_WEIGHTS &&
         incoming_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, 1, &incoming->weights) < 0) ||
        (bits & ATTNC_PLAN_LSE &&
         incoming_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_NONE, 0, &incoming->lse) < 0))
        return -1;
    return 0;
}

/* Whether there is a gradient to go back from. */
static int check_some(run *r)
{
    return attnc_ffi_bits(r->call, "incoming") > 0 ? 0 : attnc_xla_fail_plan(r, "incoming");
}

/* ---- what is saved ---- */

/* The attribute `save`, or -1. Scores alone save nothing; for the others what backward needs has to
 * be there, where there is anything at all, and a sparse normalizer has weights alone. A context
 * that forward returns as it was computed need not be saved beside it. */
static int64_t read_save(run *r, int forward)
{
    const int64_t all = ATTNC_PLAN_CONTEXT | ATTNC_PLAN_STATS | ATTNC_PLAN_SAVED_SCORES;
    const int64_t save = attnc_ffi_bits(r->call, "save");
    const int alone = r->plan.returns == ATTNC_PLAN_SCORES;
    if (save == 0 && (forward || alone))
        return 0;
    if (save <= 0 || save & ~all || alone)
        return attnc_xla_fail_plan(r, "attribute `save`");
    const attnc_saves saves = attnc_what_is_saved(&r->in);
    const int64_t bits = save | (forward ? ATTNC_PLAN_CONTEXT * (saves.context >= 0) : 0);
    if (r->in.normalizer != ATTNC_SOFTMAX
            ? bits == ATTNC_PLAN_SAVED_SCORES
            : bits & ATTNC_PLAN_STATS && (saves.context < 0 || bits & ATTNC_PLAN_CONTEXT) &&
                  !(r->in.query_offsets && bits & ATTNC_PLAN_SAVED_SCORES))
        return save;
    return attnc_xla_fail_plan(r, "attribute `save`");
}

/* ---- the passes ---- */

static int forward(run *r, const attnc_executor *executor)
{
    attnc_outputs out = {0};
    const int64_t returns = r->plan.returns, save = read_save(r, 1);
    if (save < 0 ||
        (returns & ATTNC_PLAN_SCORES &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &out.scores, "scores") < 0) ||
        (returns & ATTNC_PLAN_CONTEXT &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_DV, &out.context, "context") < 0) ||
        (returns & ATTNC_PLAN_WEIGHTS &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &out.weights, "weights") < 0) ||
        (returns & ATTNC_PLAN_LSE &&
         computed_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_NONE, &out.lse, "lse") < 0) ||
        (save & ATTNC_PLAN_CONTEXT &&
         computed_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_DV, &out.saved_context, "saved") < 0) ||
        (save & ATTNC_PLAN_STATS &&
         computed_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TWO, &out.saved_stats, "saved") < 0) ||
        (save & ATTNC_PLAN_SAVED_SCORES &&
         computed_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &out.saved_scores, "saved") < 0) ||
        attnc_xla_check_all_taken(r) < 0)
        return -1;
    return attnc_attention_forward(&r->in, &out, executor) < 0 ? attnc_xla_fail_memory(r) : 0;
}

/* Room for an output as it is computed, of so many columns, that nobody asked for. */
static void *room_for(run *r, ptrdiff_t columns)
{
    const size_t rows = (size_t)(r->in.lead.count * r->in.Tq);
    return attnc_take(&r->arena, rows * (size_t)columns,
                      r->in.f32 ? sizeof(float) : sizeof(double));
}

/* The engine has the outputs and their tangents from one pass. The outputs have been computed by
 * forward, which may have run elsewhere and long ago. */
static int jvp(run *r, const attnc_executor *executor)
{
    attnc_tangents tangents = {0};
    attnc_outputs out = {0};
    attnc_output_tangents moved = {0};
    const int64_t returns = r->plan.returns;
    if (attnc_xla_read_tangents(r, &tangents) < 0 ||
        (returns & ATTNC_PLAN_SCORES &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &moved.scores, "tangent") < 0) ||
        (returns & ATTNC_PLAN_CONTEXT &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_DV, &moved.context, "tangent") < 0) ||
        (returns & ATTNC_PLAN_WEIGHTS &&
         result_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &moved.weights, "tangent") < 0) ||
        (returns & ATTNC_PLAN_LSE &&
         computed_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_NONE, &moved.lse, "tangent") < 0) ||
        attnc_xla_check_all_taken(r) < 0)
        return -1;
    /* No size overflows here: each is that of a tangent, which is there. */
    if ((moved.scores.data && !(out.scores.data = room_for(r, r->in.Tk))) ||
        (moved.context.data && !(out.context.data = room_for(r, r->in.Dv))) ||
        (moved.weights.data && !(out.weights.data = room_for(r, r->in.Tk))) ||
        (moved.lse && !(out.lse = room_for(r, 1))) ||
        attnc_attention_jvp(&r->in, &tangents, &out, &moved, executor) < 0)
        return attnc_xla_fail_memory(r);
    return 0;
}

static int backward(run *r, const attnc_executor *executor)
{
    attnc_incoming incoming = {0};
    attnc_gradients gradients = {0};
    const int64_t save = read_save(r, 0);
    if (save < 0 || check_some(r) < 0 || read_incoming(r, "incoming", &incoming) < 0 ||
        (save & ATTNC_PLAN_CONTEXT &&
         saved_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_DV, &incoming.saved_context) < 0) ||
        (save & ATTNC_PLAN_STATS &&
         saved_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TWO, &incoming.saved_stats) < 0) ||
        (save & ATTNC_PLAN_SAVED_SCORES &&
         saved_of(r, ATTNC_AXIS_TQ, ATTNC_AXIS_TK, &incoming.saved_scores) < 0) ||
        attnc_xla_read_wanted(r, &gradients) < 0 || attnc_xla_check_all_taken(r) < 0)
        return -1;
    return attnc_attention_backward(&r->in, &incoming, &gradients, executor) < 0
               ? attnc_xla_fail_memory(r)
               : 0;
}

static int hvp(run *r, const attnc_executor *executor)
{
    attnc_tangents tangents = {0};
    attnc_incoming incoming = {0}, dincoming = {0};
    attnc_gradients gradients = {0};
    if (check_some(r) < 0 || read_incoming(r, "incoming", &incoming) < 0 ||
        attnc_xla_read_tangents(r, &tangents) < 0 ||
        read_incoming(r, "dincoming", &dincoming) < 0 || attnc_xla_read_wanted(r, &gradients) < 0 ||
        attnc_xla_check_all_taken(r) < 0)
        return -1;
    return attnc_attention_hvp(&r->in, &tangents, &incoming, &dincoming, &gradients, executor) < 0
               ? attnc_xla_fail_memory(r)
               : 0;
}

/* ---- the handlers ---- */

static attnc_ffi_error *handle(attnc_ffi_call *call,
                               int (*pass)(run *r, const attnc_executor *executor))
{
    enum { FIRST_BYTES = 4096 }; /* lengths and offsets of a small batch */
    _Alignas(64) char first[FIRST_BYTES];
    if (attnc_ffi_answers(call))
        return NULL;
    const fenv_t before = attnc_ffi_arithmetic_begin();
    const attnc_executor executor = attnc_xla_executor(call);
    run r = {.call = call, .arena = attnc_arena_in(first, FIRST_BYTES)};
    const int status = attnc_xla_read_inputs(&r) < 0 ? -1 : pass(&r, &executor);
    attnc_give_back(&r.arena);
    attnc_ffi_arithmetic_end(&before);
    return status < 0 ? attnc_ffi_fail(call, r.code, r.said) : NULL;
}

attnc_ffi_error *attnc_xla_attention_forward(attnc_ffi_call *call) { return handle(call, forward); }
attnc_ffi_error *attnc_xla_attention_jvp(attnc_ffi_call *call) { return handle(call, jvp); }
attnc_ffi_error *attnc_xla_attention_backward(attnc_ffi_call *call)
{
    return handle(call, backward);
}
attnc_ffi_error *attnc_xla_attention_hvp(attnc_ffi_call *call) { return handle(call, hvp); }
