/* ops: the functions of the module, in op_NAME.c: a row for each attention function, which run.c
 * goes by, and the others as Python calls them.
 *
 * defines: ATTNC_ATTENTION_FUNCTIONS, ATTNC_SCORES_FUNCTIONS, attnc_NAME_function,
 *          attnc_NAME_scores_function, attnc_empty, attnc_matrix_product, attnc_cross_entropy_*,
 *          attnc_turn_pairs, attnc_norm_*, attnc_activation_*,
 *          attnc_dropout_added, attnc_adam_step, attnc_sum_of_squares, attnc_transform_keys,
 *          attnc_pack_panels, attnc_run_loop, attnc_matrix_products, attnc_monotonic_*,
 *          attnc_chunkwise_*, attnc_jax_*
 */
#ifndef ATTNC_OPS_H
#define ATTNC_OPS_H

#include "run.h"

PyObject *attnc_empty(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_matrix_product(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_matrix_products(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_monotonic_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_monotonic_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_chunkwise_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_chunkwise_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_cross_entropy_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_turn_pairs(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_norm_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_norm_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_activation_forward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_activation_backward(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_dropout_added(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_adam_step(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_sum_of_squares(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_transform_keys(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_pack_panels(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_run_loop(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_jax_plan(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *attnc_jax_callback(PyObject *module, PyObject *run);
PyObject *attnc_jax_handlers(PyObject *module, PyObject *none);
PyObject *attnc_jax_operands(PyObject *module, PyObject *none);

/* Every attention function: attnc_NAME_function is its row, in op_NAME.c; what Python calls it. */
#define ATTNC_ATTENTION_FUNCTIONS(ROW)                                                             \
    ROW(dot_product, "dot_product_attention")                                                      \
    ROW(multiplicative, "multiplicative_attention")                                                \
    ROW(additive, "additive_attention")                                                            \
    ROW(cosine, "cosine_attention")                                                                \
    ROW(attend, "attend")                                                                          \
    ROW(hard, "hard_attention")
/* And every function that gives the scores of one of them alone. */
#define ATTNC_SCORES_FUNCTIONS(ROW)                                                                \
    ROW(dot_product_scores, "dot_product_scores")                                                  \
    ROW(multiplicative_scores, "multiplicative_scores")                                            \
    ROW(additive_scores, "additive_scores")                                                        \
    ROW(cosine_scores, "cosine_scores")
#define ATTNC_DECLARE(NAME, IN_PYTHON) extern const attnc_function attnc_##NAME##_function;
ATTNC_ATTENTION_FUNCTIONS(ATTNC_DECLARE)
ATTNC_SCORES_FUNCTIONS(ATTNC_DECLARE)

#endif
