/* work: how long kernels take, as far as shapes tell, in multiply-adds of a matrix product: whether
 * more threads pay, and whether it pays to give up Python's GIL. No bit of a result depends on it.
 *
 * The numbers are ratios of times, rounded to what a choice between one thread and two can feel;
 * none is a measurement of one machine.
 *
 * defines: ATTNC_WORK_PER_THREAD, ATTNC_GIL_MIN_WORK, attnc_product_work, attnc_normalize_work,
 *          attnc_cross_entropy_work, attnc_rotary_work, attnc_norm_work, attnc_activation_work,
 *          attnc_products_work, attnc_monotonic_work, attnc_chunkwise_work,
 *          attnc_add_dropout_work, ATTNC_ADAM_ELEMENT, ATTNC_SQUARE_ELEMENT, attnc_sum_work,
 *          attnc_pair_work, ATTNC_BACKWARD_PASSES, ATTNC_TANGENT_PASSES, ATTNC_DBIAS_PASSES,
 *          ATTNC_LOOP_FACTOR, ATTNC_SHARED_WEIGHTS, attnc_panels_work, attnc_key_transforms_work
 */
#ifndef ATTNC_WORK_H
#define ATTNC_WORK_H

#include "../kernels.h"

/* Below this many multiply-adds a call stays on its thread: waking another one costs about 20 us,
 * in which a core does some 10^6 of them. */
static const double ATTNC_WORK_PER_THREAD = 1e6;

/* Calls of fewer multiply-adds keep the GIL: releasing it costs more than they take. It stands for
 * about 4 us, at the same rate. */
static const double ATTNC_GIL_MIN_WORK = 2e5;

/* A unit row: a square, a sum, a division and a store for each number. */
static const double ATTNC_NORMALIZE_ELEMENT = 4;

/* A logit: its maximum is looked for, its exponential taken and summed. */
static const double ATTNC_CROSS_ENTROPY_ELEMENT = 8;

/* A channel that is turned: two multiply-adds, and its row passes from memory to memory. */
static const double ATTNC_ROTARY_ELEMENT = 8;

/* Numbers between products: a normalised row is read two or three times; activations, at most an
 * exponential and a polynomial; dropout, a quarter of Philox's ten rounds; Adam, four arrays that
 * come from memory. */
static const double ATTNC_NORM_ELEMENT = 8, ATTNC_ACTIVATION_ELEMENT = 16;
static const double ATTNC_DROPOUT_ELEMENT = 10, ATTNC_PLAIN_ELEMENT = 4;
static const double ATTNC_ADAM_ELEMENT = 16, ATTNC_SQUARE_ELEMENT = 4;

/* A pair of a monotonic alignment: a key waits for the one before it, three operations long, for as
 * many elements at a time as a vector has. Of chunkwise weights: two sums over windows, each of so
 * many exponentials as the width has binary digits. */
static const double ATTNC_MONOTONIC_ELEMENT = 12, ATTNC_CHUNKWISE_ELEMENT = 40;
static const double ATTNC_WINDOW_ELEMENT = 30;

/* A pair of query and key, beside its products: the exponential, the maximum and the sum. */
static const double ATTNC_PAIR_SOFTMAX = 8;

/* A channel of a pair: one multiply-add for the score or the context. With a few queries what
 * counts is how fast keys and values are read, which takes as long as ten. */
static const double ATTNC_PAIR_CHANNEL = 1, ATTNC_PAIR_CHANNEL_FEW = 10;

/* The same of an additive score, where it is a tanh: some ten operations, or forty where a key is
 * transformed for one query alone. */
static const double ATTNC_PAIR_TANH = 10, ATTNC_PAIR_TANH_FEW = 40;

/* Backward, next to the forward pass over all pairs: five products where that has two. The gradient
 * of a bias that broadcasts: its tiles are computed once more and added up in double. */
static const double ATTNC_BACKWARD_PASSES = 2.5, ATTNC_DBIAS_PASSES = 2;
/* The same of second order: attention_bwd, and attention_row_tangents before it. */
static const double ATTNC_HVP_PASSES = 7, ATTNC_HVP_ROW_PASSES = 8;

/* Forward mode, where all moves: six products. */
static const double ATTNC_TANGENT_PASSES = 3;

/* A number of the right operand of a product, which is read once: as long as so many rows take. */
static const double ATTNC_PRODUCT_READ = 10;

static inline double attnc_product_work(const attnc_product *p)
{
    const double rows = (double)p->M;
    return (rows > ATTNC_PRODUCT_READ ? rows : ATTNC_PRODUCT_READ) * (double)p->N * (double)p->K;
}

static inline double attnc_products_work(const attnc_products *p)
{
    return (double)p->count * attnc_product_work(&p->each);
}

static inline double attnc_monotonic_work(const attnc_monotonic *m)
{
    return (double)m->count * (double)m->Tq * (double)m->Tk * ATTNC_MONOTONIC_ELEMENT;
}

static inline double attnc_chunkwise_work(const attnc_chunkwise *c)
{
    double digits = 0;
    for (ptrdiff_t w = c->width < c->Tk ? c->width : c->Tk; w > 1; w /= 2)
        digits++;
    return (double)c->count * (double)c->Tq * (double)c->Tk *
           (ATTNC_CHUNKWISE_ELEMENT + digits * ATTNC_WINDOW_ELEMENT);
}

static inline double attnc_normalize_work(const attnc_normalize *n)
{
    return (double)n->lead.count * (double)n->T * (double)n->D * ATTNC_NORMALIZE_ELEMENT;
}

static inline double attnc_cross_entropy_work(const attnc_cross_entropy *c)
{
    return (double)c->rows * (double)c->classes * ATTNC_CROSS_ENTROPY_ELEMENT;
}

static inline double attnc_rotary_work(const attnc_rotary *r)
{
    return (double)r->lead.count * (double)r->T * (double)r->D * ATTNC_ROTARY_ELEMENT;
}

static inline double attnc_norm_work(const attnc_norm *n)
{
    return (double)n->rows * (double)n->n * ATTNC_NORM_ELEMENT;
}

static inline double attnc_activation_work(const attnc_activation *a)
{
    const double f = a->kind == ATTNC_RELU ? ATTNC_PLAIN_ELEMENT : ATTNC_ACTIVATION_ELEMENT;
    return (double)a->count * (f + (a->dropout > 0 ? ATTNC_DROPOUT_ELEMENT : 0));
}

static inline double attnc_add_dropout_work(const attnc_add_dropout *a)
{
    return (double)a->count * (a->dropout > 0 ? ATTNC_DROPOUT_ELEMENT : ATTNC_PLAIN_ELEMENT);
}

static inline double attnc_sum_work(const attnc_sum *s)
{
    return (double)s->U * (double)s->offset_count * (double)s->segments * (double)s->rows *
           (double)s->N;
}

/* One pass over `pairs` pairs of query and key: scores of D channels, or tanh of them, and contexts
 * of Dv. few: so few queries that keys and values are read once. */
static inline double attnc_pair_work(double pairs, ptrdiff_t D, ptrdiff_t Dv, int additive, int few)
{
    const double channel = few ? ATTNC_PAIR_CHANNEL_FEW : ATTNC_PAIR_CHANNEL;
    const double tanh = few ? ATTNC_PAIR_TANH_FEW : ATTNC_PAIR_TANH;
    const double score = (additive ? tanh : channel) * (double)D;
    return pairs * (score + channel * (double)Dv + ATTNC_PAIR_SOFTMAX);
}

/* ---- loops over time (loop.c) ---- */

/* A step of a loop next to a call of its own: its threads wait for the next step without sleeping,
 * so that several pay off at an eighth of the work. What this was measured on is not recorded. */
static const double ATTNC_LOOP_FACTOR = 8;

/* Bytes of weights, of what one region multiplies, that every thread may read whole: less than half
 * of a level-2 cache. The machine is not recorded. */
static const double ATTNC_SHARED_WEIGHTS = 800e3;

/* A number of a key that is transformed once for all queries of a loop: two exponentials. */
static const double ATTNC_KEY_FORMS_ELEMENT = 20;

static inline double attnc_panels_work(const attnc_panels *p)
{
    return (double)p->K * (double)p->N * (double)p->gates;
}

static inline double attnc_key_transforms_work(const attnc_key_transforms *f)
{
    return (double)f->count * (double)f->Tk * (double)f->D * ATTNC_KEY_FORMS_ELEMENT;
}

#endif
