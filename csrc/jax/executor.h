/* executor: the engine's tasks on the threads of XLA.
 *
 * A handler runs on a thread of a pool, and its caller may wait for all of it: who gives tasks to
 * the pool and waits for them can wait for ever. So the caller works through all chunks itself;
 * what it gives to the pool only helps, and it waits for chunks that somebody has begun, never for
 * tasks that may not have started. One that starts late finds nothing left.
 *
 * defines: attnc_xla_executor
 */
#ifndef ATTNC_EXECUTOR_H
#define ATTNC_EXECUTOR_H

#include "ffi.h"
#include "../engine/team.h"

/* For a call that is at work; it has to outlive the executor. */
attnc_executor attnc_xla_executor(const attnc_ffi_call *call);

#endif
