/* projection: x W and its gradients, for the mechanisms that have weights (ops.h). */
#include "ops.h"

ptrdiff_t attnc_features(const attnc_operand *operand)
{
    return PyArray_DIM(operand->array, PyArray_NDIM(operand->array) - 1);
}

ptrdiff_t attnc_rows(const attnc_operand *operand)
{
    return attnc_own_count(operand) * PyArray_DIM(operand->array, PyArray_NDIM(operand->array) - 2);
}

void *attnc_project(attnc_call *c, attnc_operand *operand, attnc_operand *weight)
{
    const ptrdiff_t rows = attnc_rows(operand), K = attnc_features(operand);
    const ptrdiff_t N = attnc_features(weight);
    if (attnc_make_contiguous(operand) < 0 || attnc_make_contiguous(weight) < 0)
        return NULL;
    void *out = attnc_block(c, rows * N);
    attnc_product p = {.out = out,
                       .a = PyArray_DATA(operand->array),
                       .b = PyArray_DATA(weight->array),
                       .M = rows,
                       .N = N,
                       .K = K,
                       .out_row = N,
                       .a_row = K,
                       .a_col = 1,
                       .b_row = N,
                       .b_col = 1};
    return out && attnc_run_product(c, &p) == 0 ? out : NULL;
}

int attnc_project_backward(attnc_call *c, const attnc_operand *operand, const attnc_operand *weight,
                           const void *dprojected, void *dx, void *dweight)
{
    const ptrdiff_t rows = attnc_rows(operand), K = attnc_features(operand);
    const ptrdiff_t N = attnc_features(weight);
    const attnc_product to_x = {.out = dx,
                                .a = dprojected,
                                .b = PyArray_DATA(weight->array),
                                .M = rows,
                                .N = K,
                                .K = N,
                                .out_row = K,
                                .a_row = N,
                                .a_col = 1,
                                .b_row = 1,
                                .b_col = N};
    const attnc_product to_weight = {.out = dweight,
                                     .a = PyArray_DATA(operand->array),
                                     .b = dprojected,
                                     .M = K,
                                     .N = N,
                                     .K = rows,
                                     .out_row = N,
                                     .a_row = 1,
                                     .a_col = K,
                                     .b_row = N,
                                     .b_col = 1,
                                     .skip_zero_rows = 1};
    return attnc_run_product(c, &to_x) < 0 ? -1 : attnc_run_product(c, &to_weight);
}

int attnc_sum_rows(attnc_call *c, const void *x, ptrdiff_t rows, ptrdiff_t N, void *out)
{
    /* a row of ones times x */
    void *ones = attnc_block(c, 1);
    if (!ones)
        return -1;
    if (c->f32)
        *(float *)ones = 1;
    else
        *(double *)ones = 1;
    const attnc_product p = {.out = out,
                             .a = ones,
                             .b = x,
                             .M = 1,
                             .N = N,
                             .K = rows,
                             .out_row = N,
                             .b_row = N,
                             .b_col = 1};
    return attnc_run_product(c, &p);
}
