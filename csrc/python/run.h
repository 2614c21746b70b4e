/* run: from a checked call to its results: makes their arrays, runs the engine without the GIL
 * where that pays, and returns them. The same for every attention function; what differs is its
 * row, attnc_function, in op_NAME.c.
 *
 * defines: attnc_forward, attnc_backward, attnc_scores_forward, attnc_scores_backward, attnc_jvp,
 *          attnc_scores_jvp; for results that are a function's own attnc_output_type,
 *          attnc_new_rows, attnc_in_output_dtype, attnc_read_incoming, attnc_saved_array; for
 *          jvp.c, hvp.c and op_jax.c ATTNC_CALL_BYTES, attnc_call_begin, attnc_argument_at,
 *          attnc_read_whole_call, attnc_results_of; attnc_hvp, ATTNC_MOVING, attnc_read_tangents,
 *          attnc_make_gradients, attnc_narrow_gradients, attnc_check_choice
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

/* Forward mode (jvp.c): a dict of tangents by the name of their argument, None or not there: 0;
 * then the arguments of the forward call. Returns (output, tangent), each as the forward call gives
 * the output. */
PyObject *attnc_jvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names);
PyObject *attnc_scores_jvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                           PyObject *names);

/* Second order (hvp.c): the same dict; a tuple with the gradient of each output, None: 0; one with
 * their tangents; then the arguments of the forward call. A tuple of the tangents of what backward
 * returns. For functions that give scores alone too. */
PyObject *attnc_hvp(const attnc_function *f, PyObject *const *args, Py_ssize_t count,
                    PyObject *names);

/* ---- for jvp.c, hvp.c and op_jax.c ---- */

/* What a small call needs for shapes and strides: a cache line for each of 16 arrays. */
enum { ATTNC_CALL_BYTES = 16 * 64 };
/* first: so many bytes, where shapes and strides go. */
void attnc_call_begin(attnc_call *c, const attnc_function *f, void *first);
attnc_argument *attnc_argument_at(attnc_call *c, size_t place);
/* Whatever stands before a run: the checked call, as the engine reads it. */
int attnc_read_whole_call(attnc_call *c, const attnc_function *f, PyObject *const *args,
                          Py_ssize_t count, PyObject *names);
const attnc_own_results *attnc_results_of(const attnc_function *f);
/* Arguments that may have a tangent: a function's own, bias, slope, sink and center. */
enum { ATTNC_MOVING = ATTNC_OWN_MOST + 4 };
/* Reads a dict of tangents; arrays are kept in held (ATTNC_MOVING), for the caller to drop. */
int attnc_read_tangents(attnc_call *c, const attnc_function *f, PyObject *tangents,
                        attnc_tangents *t, PyArrayObject **held);
/* A tuple of new arrays for the gradients, None where there is no argument; their memory goes to
 * *gradients. */
PyObject *attnc_make_gradients(attnc_call *c, const attnc_function *f, attnc_gradients *gradients);
/* Each gradient in its argument's dtype. */
int attnc_narrow_gradients(attnc_call *c, const attnc_function *f, attnc_gradients *gradients,
                           PyObject *result);
/* Hard attention: whether the keys that the caller has chosen can be. -1 with an error. */
int attnc_check_choice(attnc_call *c, const attnc_function *f);

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
