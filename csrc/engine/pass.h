/* pass: one pass of attention at work, forward or backward: what the entry points (attention.c),
 * the gradients (gradients.c) and the mechanisms (mechanisms.c) share. Nobody else includes it.
 *
 * Functions that return an int return 0, or -1 for want of memory.
 *
 * defines: attnc_pass, attnc_mechanism, attnc_projection, attnc_pass_*
 */
#ifndef ATTNC_PASS_H
#define ATTNC_PASS_H

#include "attention.h"

/* An operand times a weight: x (rows, K) W (K, N), and what its gradients need again. */
typedef struct {
    const void *x; /* contiguous */
    attnc_stored stored;
    const attnc_operand *weight;
    ptrdiff_t rows, K, N;
} attnc_projection;

typedef struct {
    const attnc_inputs *in;
    attnc_team team;
    attnc_problem a; /* what the kernels of both directions read */
    /* made by prepare, read by backward */
    attnc_projection query_projection, key_projection;
    attnc_normalize unit_query, unit_key;
    attnc_attention_bwd bwd; /* of a backward pass alone */
} attnc_pass;

/* What the mechanisms differ in. */
struct attnc_mechanism {
    attnc_score score; /* what the kernels compute of the views that prepare makes */
    /* The views of all that scores are made of, and a.scale, where they have one; products and unit
     * rows are made here, once. */
    int (*prepare)(attnc_pass *p);
    /* The gradients, by attnc_pass_backward and the way back through prepare. */
    int (*backward)(attnc_pass *p, const attnc_gradients *g);
};

/* The view of an operand (..., rows, columns) with contiguous rows. */
int attnc_pass_view(attnc_pass *p, const attnc_operand *x, attnc_view *view);

/* The view of a contiguous block of `rows` rows for each leading element of `like`. */
int attnc_pass_view_of_block(attnc_pass *p, const attnc_operand *like, void *block, ptrdiff_t rows,
                             ptrdiff_t columns, attnc_view *view);

/* The operand's own leading axes; its rows and its last axis. */
attnc_lead attnc_pass_own_lead(const attnc_pass *p, const attnc_operand *x);
ptrdiff_t attnc_pass_rows(const attnc_pass *p, const attnc_operand *x);
ptrdiff_t attnc_pass_features(const attnc_pass *p, const attnc_operand *x);

/* Time of one pass over all pairs, in multiply-adds. */
double attnc_pass_work(const attnc_pass *p);

/* Where a result (rows, columns) can be added up: where it is to be, or, of halves, in a block that
 * attnc_pass_narrow rounds into it. data is NULL for want of memory, and where it was. */
attnc_result attnc_pass_as_computed(attnc_pass *p, attnc_result result, ptrdiff_t rows,
                                    ptrdiff_t columns);
int attnc_pass_narrow(attnc_pass *p, attnc_result result, attnc_result computed, ptrdiff_t count);

/* Runs the kernels of backward and sums up their parts. to: gradients of what prepare made of query
 * and key, (own lead, T, D) each, and of everything that needs no way back. */
int attnc_pass_backward(attnc_pass *p, const attnc_gradients *to);

/* ---- projection.c ---- */

/* x W for all rows of an operand: its view, and in *projection what the way back needs. */
int attnc_project(attnc_pass *p, const attnc_operand *x, const attnc_operand *weight, ptrdiff_t T,
                  attnc_view *view, attnc_projection *projection);

/* From the gradient of x W: dx = dprojected W^T, dweight = x^T dprojected; NULL: not wanted. A row
 * that no gradient reaches is not read. */
int attnc_project_backward(attnc_pass *p, const attnc_projection *projection,
                           const void *dprojected, attnc_result dx, void *dweight);

/* out (N) = the sum of the rows of x (rows, N) */
int attnc_sum_rows(attnc_pass *p, const void *x, ptrdiff_t rows, ptrdiff_t N, void *out);

#endif
