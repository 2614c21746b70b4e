/* calls: what is one kernel, over the threads: the matrix product, the softmax cross-entropy,
 * rotary positions, and rounding to halves.
 *
 * defines: attnc_call_product, attnc_call_cross_entropy, attnc_call_rotary, attnc_call_narrow
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

#endif
