/* calls: what is one kernel, over the threads: the matrix product, the softmax cross-entropy,
 * rotary positions, rounding to halves, what is done to rows and single numbers, and monotonic
 * alignments.
 *
 * defines: attnc_call_product, attnc_call_cross_entropy, attnc_call_rotary, attnc_call_narrow,
 *          attnc_call_norm, attnc_call_activation, attnc_call_add_dropout, attnc_call_adam,
 *          attnc_call_square_sums, attnc_call_products, attnc_call_monotonic,
 *          attnc_call_chunkwise
 */
#ifndef ATTNC_CALLS_H
#define ATTNC_CALLS_H

#include "team.h"

/* f32: arrays hold float, else double. executor may be NULL. 0, or -1 for want of memory. */
int attnc_call_product(int f32, const attnc_product *p, const attnc_executor *executor);
int attnc_call_cross_entropy(int f32, const attnc_cross_entropy *c, int backward,
                             const attnc_executor *executor);
int attnc_call_rotary(int f32, const attnc_rotary *r, const attnc_executor *executor);
int attnc_call_narrow(const attnc_narrow *n, const attnc_executor *executor); /* of floats */
int attnc_call_norm(int f32, const attnc_norm *n, int backward, const attnc_executor *executor);
int attnc_call_activation(int f32, const attnc_activation *a, int backward,
                          const attnc_executor *executor);
int attnc_call_add_dropout(int f32, const attnc_add_dropout *a, const attnc_executor *executor);
int attnc_call_adam(int f32, const attnc_adam *a, const attnc_executor *executor);
int attnc_call_square_sums(int f32, const attnc_square_sums *s, const attnc_executor *executor);
int attnc_call_products(int f32, const attnc_products *p, const attnc_executor *executor);
int attnc_call_monotonic(int f32, const attnc_monotonic *m, int backward,
                         const attnc_executor *executor);
int attnc_call_chunkwise(int f32, const attnc_chunkwise *c, int backward,
                         const attnc_executor *executor);

#endif
