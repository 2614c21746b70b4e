/* projection: x W and its gradients, for the mechanisms that have weights (pass.h). */
#include "pass.h"

#include "work.h"

#include <string.h>

/* Whether an array of the shape has its elements in C order without gaps. */
static int is_contiguous(const ptrdiff_t *shape, const ptrdiff_t *stride, int ndim)
{
    ptrdiff_t step = 1;
    for (int d = ndim - 1; d >= 0 && stride; d--) {
        if (shape[d] != 1 && stride[d] != step)
            return 0;
        step *= shape[d];
    }
    return 1;
}

const void *attnc_rows_without_gaps(attnc_pass *p, const attnc_operand *x)
{
    const attnc_lead own = attnc_pass_own_lead(p, x);
    if (is_contiguous(x->shape, x->stride, own.ndim + 2))
        return x->data;
    const ptrdiff_t T = x->shape[own.ndim], N = x->shape[own.ndim + 1];
    const ptrdiff_t item = (ptrdiff_t)attnc_stored_size(x->stored, p->team.item);
    char *copy = attnc_take(&p->team.arena, (size_t)(own.count * T * N), (size_t)item);
    const size_t bytes = (size_t)(N * item);
    for (ptrdiff_t n = 0; copy && n < own.count; n++)
        for (ptrdiff_t t = 0; t < T; t++) {
            const ptrdiff_t at = attnc_lead_offset(&own, x->stride, n) + t * x->stride[own.ndim];
            memcpy(copy + (size_t)(n * T + t) * bytes, (const char *)x->data + at * item, bytes);
        }
    return copy;
}

static ptrdiff_t row_stride(const attnc_operand *weight)
{
    return weight->stride ? weight->stride[0] : weight->shape[1];
}

static attnc_product product_of(const attnc_projection *projection, void *out)
{
    return (attnc_product){.out = out,
                           .a = projection->x,
                           .b = projection->weight->data,
                           .M = projection->rows,
                           .N = projection->N,
                           .K = projection->K,
                           .out_row = projection->N,
                           .a_row = projection->K,
                           .a_col = 1,
                           .a_stored = projection->stored,
                           .b_row = row_stride(projection->weight),
                           .b_col = 1};
}

int attnc_project(attnc_pass *p, const attnc_operand *x, const attnc_operand *weight, ptrdiff_t T,
                  attnc_view *view, attnc_projection *projection)
{
    const ptrdiff_t rows = attnc_pass_rows(p, x), K = attnc_pass_features(p, x);
    const ptrdiff_t N = weight->shape[1];
    *projection = (attnc_projection){.x = attnc_rows_without_gaps(p, x),
                                     .stored = x->stored,
                                     .weight = weight,
                                     .rows = rows,
                                     .K = K,
                                     .N = N};
    void *out = projection->x ? attnc_team_block(&p->team, rows, N, 1) : NULL;
    const attnc_product product = product_of(projection, out);
    if (!out || attnc_team_product(&p->team, &product) < 0)
        return -1;
    return attnc_pass_view_of_block(p, x, out, T, N, view);
}

int attnc_project_tangent(attnc_pass *p, attnc_projection *projection, const attnc_operand *x,
                          const attnc_operand *x_tangent, const attnc_operand *weight_tangent,
                          ptrdiff_t T, attnc_view *view)
{
    attnc_projection moved = *projection;
    projection->x_tangent = x_tangent;
    projection->weight_tangent = weight_tangent;
    if (!x_tangent->data && !weight_tangent->data)
        return 0;
    void *out = attnc_team_block(&p->team, projection->rows, projection->N, 1);
    if (!out)
        return -1;
    if (x_tangent->data) {
        moved.x = attnc_rows_without_gaps(p, x_tangent);
        moved.stored = x_tangent->stored;
        const attnc_product product = product_of(&moved, out);
        if (!moved.x || attnc_team_product(&p->team, &product) < 0)
            return -1;
    }
    if (weight_tangent->data) {
        moved = *projection;
        moved.weight = weight_tangent;
        attnc_product product = product_of(&moved, out);
        product.accumulate = x_tangent->data != NULL;
        if (attnc_team_product(&p->team, &product) < 0)
            return -1;
    }
    return attnc_pass_view_of_block(p, x, out, T, projection->N, view);
}

/* out (rows, K) = dprojected W^T */
static attnc_product product_to_x(const attnc_projection *projection, const void *dprojected,
                                  void *out)
{
    return (attnc_product){.out = out,
                           .a = dprojected,
                           .b = projection->weight->data,
                           .M = projection->rows,
                           .N = projection->K,
                           .K = projection->N,
                           .out_row = projection->K,
                           .a_row = projection->N,
                           .a_col = 1,
                           .b_row = 1,
                           .b_col = row_stride(projection->weight)};
}

/* out (K, N) = x^T dprojected */
static attnc_product product_to_weight(const attnc_projection *projection, const void *dprojected,
                                       void *out)
{
    return (attnc_product){.out = out,
                           .a = projection->x,
                           .b = dprojected,
                           .M = projection->K,
                           .N = projection->N,
                           .K = projection->rows,
                           .out_row = projection->N,
                           .a_row = 1,
                           .a_col = projection->K,
                           .a_stored = projection->stored,
                           .b_row = projection->N,
                           .b_col = 1,
                           .skip_zero_rows = 1};
}

int attnc_project_backward(attnc_pass *p, const attnc_projection *projection,
                           const void *dprojected, attnc_result dx, void *dweight)
{
    const ptrdiff_t rows = projection->rows, K = projection->K;
    const attnc_result computed = attnc_pass_as_computed(p, dx, rows, K);
    const attnc_product to_x = product_to_x(projection, dprojected, computed.data);
    const attnc_product to_weight = product_to_weight(projection, dprojected, dweight);
    if (dx.data && (!computed.data || attnc_team_product(&p->team, &to_x) < 0 ||
                    attnc_pass_narrow(p, dx, computed, rows * K) < 0))
        return -1;
    return dweight ? attnc_team_product(&p->team, &to_weight) : 0;
}

/* out (rows, N) = the sum of the two parts (2, rows, N). */
static int add_parts(attnc_pass *p, const void *parts, ptrdiff_t rows, ptrdiff_t N, void *out)
{
    const ptrdiff_t zero = 0;
    const attnc_sum sum = {.out.data = out,
                           .parts = parts,
                           .U = 1,
                           .rows = rows,
                           .out_rows = rows,
                           .N = N,
                           .ld = N,
                           .segments = 2,
                           .own_first = &zero,
                           .offsets = &zero,
                           .offset_count = 1,
                           .factor = 1};
    return attnc_team_run(&p->team, p->team.k->sum, &sum, attnc_divide_up(rows, ATTNC_SUM_ROWS),
                          attnc_sum_work(&sum), 0);
}

int attnc_project_hvp(attnc_pass *p, const attnc_projection *projection, const void *dprojected,
                      const void *dprojected_tangent, attnc_result dx, void *dweight)
{
    const attnc_operand *x_tangent = projection->x_tangent;
    const attnc_operand *weight_tangent = projection->weight_tangent;
    const ptrdiff_t rows = projection->rows, K = projection->K, N = projection->N;
    attnc_projection moved = *projection;
    if (dx.data) {
        const attnc_result computed = attnc_pass_as_computed(p, dx, rows, K);
        attnc_product to_x = product_to_x(projection, dprojected_tangent, computed.data);
        if (!computed.data || attnc_team_product(&p->team, &to_x) < 0)
            return -1;
        moved.weight = weight_tangent;
        if (weight_tangent->data) {
            to_x = product_to_x(&moved, dprojected, computed.data);
            to_x.accumulate = 1;
            if (attnc_team_product(&p->team, &to_x) < 0)
                return -1;
        }
        if (attnc_pass_narrow(p, dx, computed, rows * K) < 0)
            return -1;
    }
    if (!dweight)
        return 0;
    char *parts = dweight;
    if (x_tangent->data && !(parts = attnc_team_block(&p->team, 2, K, N)))
        return -1;
    attnc_product to_weight = product_to_weight(projection, dprojected_tangent, parts);
    if (attnc_team_product(&p->team, &to_weight) < 0)
        return -1;
    if (!x_tangent->data)
        return 0;
    moved.x = attnc_rows_without_gaps(p, x_tangent);
    moved.stored = x_tangent->stored;
    to_weight = product_to_weight(&moved, dprojected, parts + K * N * (ptrdiff_t)p->team.item);
    return !moved.x || attnc_team_product(&p->team, &to_weight) < 0
               ? -1
               : add_parts(p, parts, K, N, dweight);
}

int attnc_sum_rows(attnc_pass *p, const void *x, ptrdiff_t rows, ptrdiff_t N, void *out)
{
    /* a row of ones times x */
    static const float one_float = 1;
    static const double one_double = 1;
    const attnc_product product = {.out = out,
                                   .a = p->in->f32 ? (const void *)&one_float : &one_double,
                                   .b = x,
                                   .M = 1,
                                   .N = N,
                                   .K = rows,
                                   .out_row = N,
                                   .b_row = N,
                                   .b_col = 1};
    return attnc_team_product(&p->team, &product);
}
