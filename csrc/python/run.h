/* run: from a checked call to its results: makes their arrays, runs the engine without the GIL
 * where that pays, and returns them. The same for every attention function; what differs is its
 * row, attnc_function, in op_NAME.c.
 *
 * defines: attnc_forward, attnc_backward, attnc_scores_forward, attnc_scores_backward,
 *          attnc_checked, ATTNC_CALL_BYTES; for results that are a function's own
 *          attnc_output_type, attnc_new_rows, attnc_in_output_dtype, attnc_read_incoming,
 *          attnc_saved_array
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

/* What stands before a run: the call, read, checked and as the engine reads it, to be cleared by
 * attnc_call_clear also after an error, -1. first: ATTNC_CALL_BYTES, aligned to 64, that outlive
 * it: a cache line for shape and strides of each of 16 arrays. */
enum { ATTNC_CALL_BYTES = 16 * 64 };
int attnc_checked(attnc_call *c, const attnc_function *f, void *first, PyObject *const *args,
                  Py_ssize_t count, PyObject *names);

/* ---- for attnc_own_results (op_hard.c) ---- */

/* The type in which context and weights are made: halves, or the computing one. */
int attnc_output_type(const attnc_call *c);
/* A new array (lead, Tq) or, with columns >= 0, (lead, Tq, columns) of the type; its memory goes to
 * *data. */
PyArrayObject *attnc_new_rows(const attnc_call *c, ptrdiff_t columns, int type, void **data);
/* A new reference to the array in the dtype of the results. */
PyObject *attnc_in_output_dtype(const attnc_call *c, PyArrayObject *array);
/* The gradient of an output of that shape, kept in *array while the call lasts. */
int attnc_read_incoming(attnc_call *c, PyObject *object, const char *name, const char *output,
                        int ndim, const npy_intp *shape, PyArrayObject **array,
                        attnc_operand *operand);
/* The array (lead, Tq) or, with columns >= 0, (lead, Tq, columns) that the forward call saved,
 * passed back untouched; or NULL. */
const void *attnc_saved_array(const attnc_call *c, PyObject *object, int type, ptrdiff_t columns);

#endif
