/* run: from a checked call to its results: makes their arrays, runs the engine without the GIL
 * where that pays, and returns them. The same for every attention function; what differs is its
 * row, attnc_function, in op_NAME.c.
 *
 * defines: attnc_forward, attnc_backward, attnc_scores_forward, attnc_scores_backward
 */
#ifndef ATTNC_RUN_H
#define ATTNC_RUN_H

#include "args.h"

/* The arguments of an attention function, as METH_FASTCALL | METH_KEYWORDS passes them. The result
 * is the context, or a tuple of what was asked for; with save it is always (context, weights, lse,
 * saved), None where not asked for. */
PyObject *attnc_forward(const attnc_function *f, int save, PyObject *const *args, Py_ssize_t count,
                        PyObject *names);

/* Positional arguments: the gradients of the outputs, None: zero; the three arrays that the forward
 * call saved; then those of the forward call. Options by name. A tuple of the gradients of the
 * function's own arguments, then of bias, slope and sink; None for those not given as arrays. */
enum { D_CONTEXT, D_WEIGHTS, D_LSE, SAVED_CONTEXT, SAVED_STATS, SAVED_SCORES, BACKWARD_FIRST };
PyObject *attnc_backward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                         PyObject *names);

/* The same of a function that gives scores alone: forward the scores; backward takes their gradient
 * and then the arguments of the forward call, and returns the gradients of its own arguments. */
PyObject *attnc_scores_forward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                               PyObject *names);
PyObject *attnc_scores_backward(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                                PyObject *names);

#endif
