/* attention: the handlers of XLA that run the attention functions, on its buffers and its threads,
 * without Python. A plan (plan.h) says what to run. Nothing that a program holds is trusted: the
 * plan and every buffer are held against each other before any of them is read.
 *
 * defines: attnc_xla_attention_forward, attnc_xla_attention_backward
 */
#ifndef ATTNC_JAX_ATTENTION_H
#define ATTNC_JAX_ATTENTION_H

#include "ffi.h"
#include "plan.h"

/* Arguments: the operands of the plan. Results: what it returns, and with the attribute `save`
 * (bits as in `saves`) what backward needs: the context as computed, stats, scores. */
attnc_ffi_error *attnc_xla_attention_forward(attnc_ffi_call *call);

/* Arguments: the operands of the plan; the gradients of what `incoming` (bits as in `returns`)
 * names; what was saved, as `save` says. Results: the gradients of the operands that `wanted` (bits
 * as in `operands`) names. */
attnc_ffi_error *attnc_xla_attention_backward(attnc_ffi_call *call);

#endif
