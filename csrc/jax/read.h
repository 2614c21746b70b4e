/* read: from a call of XLA to what the engine reads: its plan (plan.h), and the buffers that belong
 * to it. Nothing that a program holds is trusted: the plan and every buffer are held against each
 * other before any of them is read, and refused where they do not fit.
 *
 * Functions that return int return 0, or -1 with what is to be said in the run.
 *
 * defines: attnc_xla_run, attnc_xla_fail_plan, attnc_xla_fail_memory, attnc_xla_read_inputs,
 *          attnc_xla_read_tangents, attnc_xla_read_wanted, attnc_xla_next_whole,
 *          attnc_xla_data_of, attnc_xla_operand_of, attnc_xla_check_all_taken
 */
#ifndef ATTNC_JAX_READ_H
#define ATTNC_JAX_READ_H

#include "ffi.h"
#include "plan.h"
#include "../engine/arena.h"
#include "../engine/values.h"

/* One call, as far as it is read. */
typedef struct {
    attnc_ffi_call *call;
    attnc_plan plan;
    ptrdiff_t lead[ATTNC_MAX_LEAD];
    attnc_inputs in;
    int64_t argument, result;           /* the next ones */
    double slope, sink, center;         /* where they are numbers */
    ptrdiff_t ones[ATTNC_MAX_LEAD + 1]; /* their shape */
    attnc_arena arena;
    int code;                  /* of the error */
    char said[2 * ATTNC_SAID]; /* of a function's name too */
} attnc_xla_run;

/* The program is none that attnc's own Python makes. Returns -1, as the next one does. */
int attnc_xla_fail_plan(attnc_xla_run *r, const char *what);
int attnc_xla_fail_memory(attnc_xla_run *r);

/* The plan, and the first arguments: the operands. */
int attnc_xla_read_inputs(attnc_xla_run *r);

/* The next arguments: tangents of the operands that the attribute `moving` names, of the shape of
 * their operand. */
int attnc_xla_read_tangents(attnc_xla_run *r, attnc_tangents *tangents);

/* The next results: gradients of the operands that the attribute `wanted` names, which have the
 * shape of their operand and lie as it does; those of what is read in double are as computed. */
int attnc_xla_read_wanted(attnc_xla_run *r, attnc_gradients *gradients);

/* The next argument, or result, that belongs to the whole call: it has all leading axes and its
 * own. It lies as is computed or, where `stored` is given, in halves too. NULL with an error. */
const attnc_ffi_buffer *attnc_xla_next_whole(attnc_xla_run *r, int of_results,
                                             attnc_plan_axis first, attnc_plan_axis second,
                                             attnc_stored *stored, const char *name);

/* Its memory, which is somewhere even where it is empty; and it as an operand that lies so. */
void *attnc_xla_data_of(const attnc_ffi_buffer *buffer);
attnc_operand attnc_xla_operand_of(const attnc_ffi_buffer *buffer, attnc_stored stored);

/* Whether there are no more arguments and results. */
int attnc_xla_check_all_taken(attnc_xla_run *r);

#endif
