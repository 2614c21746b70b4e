/* attention: the handlers of XLA that run the attention functions, on its buffers and its threads,
 * without Python: the four passes of engine/attention.h. A plan (plan.h) says what to run, and
 * what is read of it and of the buffers is checked (read.h).
 *
 * Attributes are the plan and sets of bits: `save` as `saves` of the plan, `incoming` and
 * `dincoming` as `returns`, `moving` and `wanted` as `operands`. The arguments are the operands of
 * the plan, and behind them what each handler says; the arrays of a set come in the order of its
 * bits.
 *
 * defines: attnc_xla_attention_forward, attnc_xla_attention_jvp, attnc_xla_attention_backward,
 *          attnc_xla_attention_hvp
 */
#ifndef ATTNC_JAX_ATTENTION_H
#define ATTNC_JAX_ATTENTION_H

#include "ffi.h"

/* Results: what the plan returns, and what backward needs, as `save` says: the context as computed,
 * stats, scores. */
attnc_ffi_error *attnc_xla_attention_forward(attnc_ffi_call *call);

/* Arguments: the tangents of the operands `moving`. Results: those of what the plan returns. */
attnc_ffi_error *attnc_xla_attention_jvp(attnc_ffi_call *call);

/* Arguments: the gradients of the outputs `incoming`; what was saved, as `save` says. Results: the
 * gradients of the operands `wanted`. */
attnc_ffi_error *attnc_xla_attention_backward(attnc_ffi_call *call);

/* Arguments: the gradients of the outputs `incoming`, the tangents of the operands `moving`, those
 * of the gradients `dincoming`. Results: the tangents of the gradients of the operands `wanted`. */
attnc_ffi_error *attnc_xla_attention_hvp(attnc_ffi_call *call);

#endif
