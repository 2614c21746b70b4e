/* steps: the loops over time of recurrent layers, one parallel region a step.
 *
 * Sequences are sorted, the longest first: counts[t] of them take part in step t. Memory that the
 * loops need (weights in panels) comes from scratch.c; they fail only for want of it.
 *
 * A decoder's loop, in which attention, cells and readout wait for each other, is a list of
 * operations that every step goes through; attnc/functional/decoder.py writes it.
 *
 * defines: attnc_recurrence, attnc_recurrence_forward, attnc_recurrence_backward, attnc_series,
 *          attnc_operation, attnc_loop, attnc_loop_run
 */
#ifndef ATTNC_STEPS_H
#define ATTNC_STEPS_H

#include "../kernels.h"

enum { ATTNC_MAX_SWEEPS = 2 };

/* Sweeps of one size over the same steps: the directions of a layer. */
typedef struct {
    const attnc_kernels *kernels;
    size_t item; /* bytes of an element */
    int sweeps;
    attnc_sweep sweep[ATTNC_MAX_SWEEPS];
    const void *panels[ATTNC_MAX_SWEEPS]; /* of the state weights: forward U, each gate a group;
                                             backward U transposed */
    ptrdiff_t steps;
    const ptrdiff_t *counts;
} attnc_recurrence;

/* 0, or -1 for want of memory. */
int attnc_recurrence_forward(const attnc_recurrence *r);
int attnc_recurrence_backward(const attnc_recurrence *r);

/* ---- loops of several operations ---- */

/* An array (steps, batch, features), features side by side; data NULL: not given. Step t >= steps
 * does not exist. Strides are in elements. */
typedef struct {
    void *data;
    ptrdiff_t steps, step, row;
} attnc_series;

typedef struct {
    attnc_series a;
    const void *panels;
    ptrdiff_t K, groups;
} attnc_series_term;

typedef enum {
    ATTNC_LINEAR,
    ATTNC_CELL,
    ATTNC_CELL_BACK,
    ATTNC_ATTEND,
    ATTNC_ATTEND_BACK,
    ATTNC_NORMALIZE,
    ATTNC_NORMALIZE_BACK
} attnc_operation_kind;

typedef struct {
    attnc_operation_kind kind;
    int terms, adds;
    attnc_series_term term[ATTNC_MAX_TERMS];
    attnc_series add[2];
    ptrdiff_t N;
    attnc_series out, tanh_of; /* linear; normalize: out is the unit vectors, back: dx */
    int tanh;
    attnc_sweep sweep; /* cells; first and before of a step follow from t */
    int fresh;
    attnc_problem problem;
    attnc_attention_fwd attention;
    struct {
        ptrdiff_t batch, query, key, value, key_mask, coverage_bias, dcontext, dweights;
    } lead; /* of problem, which points here: its only leading axis, and strides along it */
    attnc_key_transforms forms;
    attnc_attend_step attend;
    attnc_series x, unit; /* normalize; back: x is the gradient of the unit vectors */
    void *norm;           /* (steps, batch) */
} attnc_operation;

typedef struct {
    const attnc_kernels *kernels;
    size_t item;
    ptrdiff_t steps, batch;
    int operations, backward; /* backward: the last step first */
    attnc_operation *operation;
} attnc_loop;

int attnc_loop_run(attnc_loop *l);

#endif
