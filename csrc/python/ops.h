/* ops: the mechanisms, one op_NAME.c each, and the projection that two of them share.
 *
 * defines: attnc_dot_product, attnc_multiplicative, attnc_additive, attnc_cosine, attnc_attend,
 *          attnc_project, attnc_project_backward, attnc_rows, attnc_features
 */
#ifndef ATTNC_OPS_H
#define ATTNC_OPS_H

#include "run.h"

/* What does not go by the row of functions of attnc_mechanism, as Python calls it. */
PyObject *attnc_empty(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_matrix_product(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_additive_key_forms(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_recurrent_panels(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_recurrent_loop(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_recurrent_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_recurrent_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);

extern const attnc_mechanism attnc_dot_product, attnc_multiplicative, attnc_additive, attnc_cosine,
    attnc_attend;

/* x W for all rows of an operand: a block (rows, N), or NULL with an error. */
void *attnc_project(attnc_call *c, attnc_operand *operand, attnc_operand *weight);

/* From the gradient of x W: dx = dprojected W^T, dweight = x^T dprojected. A row that no gradient
 * reaches is not read. */
int attnc_project_backward(attnc_call *c, const attnc_operand *operand, const attnc_operand *weight,
                           const void *dprojected, void *dx, void *dweight);

/* out (N) = the sum of the rows of x (rows, N) */
int attnc_sum_rows(attnc_call *c, const void *x, ptrdiff_t rows, ptrdiff_t N, void *out);

/* Rows and features of an operand as one matrix. */
ptrdiff_t attnc_rows(const attnc_operand *operand);
ptrdiff_t attnc_features(const attnc_operand *operand);

#endif
