/* ops: the functions of the module, in op_NAME.c: a row for each attention function, which run.c
 * goes by, and the others as Python calls them.
 *
 * defines: attnc_NAME_function, attnc_empty, attnc_matrix_product, attnc_cross_entropy_*,
 *          attnc_additive_key_forms, attnc_pack_panels, attnc_run_loop
 */
#ifndef ATTNC_OPS_H
#define ATTNC_OPS_H

#include "run.h"

PyObject *attnc_empty(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_matrix_product(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_additive_key_forms(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_pack_panels(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_run_loop(PyObject *module, PyObject *const *args, Py_ssize_t count);

extern const attnc_function attnc_dot_product_function, attnc_multiplicative_function,
    attnc_additive_function, attnc_cosine_function, attnc_attend_function;

#endif
