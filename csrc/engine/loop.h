/* loop: computations over time, where every step waits for the one before: recurrent layers, and
 * decoders that attend.
 *
 * A loop is a list of operations. Each step goes through the list; an operation is one parallel
 * region, and begins when the one before it in the list is done. Forward the steps run from first
 * to last, backward from last to first.
 *
 * Sequences of different lengths stand in a batch sorted by them, the longest first: counts[t] of
 * them take part in step t, always the first ones.
 *
 * The caller describes its arrays (attnc_operation) and says who works (attnc_executor, team.h). A
 * loop fails for want of memory only, by -1; what the arrays hold then means nothing. Nobody checks
 * here: arrays are as large as said, or memory beside them is read and written.
 * attnc/functional/operations.py has the formulas.
 *
 * defines: attnc_rows, attnc_loop_term, attnc_loop_linear, attnc_loop_cell, attnc_loop_attend,
 *          attnc_loop_normalize, attnc_loop_energies, attnc_loop_monotonic, attnc_loop_chunkwise,
 *          attnc_loop_read, attnc_loop_hard, attnc_operation, attnc_operation_*, attnc_loop,
 *          attnc_loop_run
 */
#ifndef ATTNC_LOOP_H
#define ATTNC_LOOP_H

#include "../kernels.h"
#include "team.h"

/* An array of three axes: (steps, batch, features) or, where attention reads it, (batch, time,
 * features). Features are side by side; strides, of the first two axes, are in elements. Steps from
 * `size` on do not exist: an array from its second step on, x[1:], has for step t what step t + 1
 * left in x, and for the last step nothing. */
typedef struct {
    void *data; /* NULL: not given */
    ptrdiff_t size, stride, row_stride;
} attnc_rows;

/* x_t (batch, K) times a matrix in panels. A step that x does not have adds nothing. */
typedef struct {
    attnc_rows x;
    const void *panels;
    ptrdiff_t K;
} attnc_loop_term;

/* out_t = tanh of the sum of terms and add_t, where tanh is asked for; times 1 - tanh_of_t^2, where
 * that is given. */
typedef struct {
    attnc_rows out;
    ptrdiff_t N; /* columns of out, add and tanh_of */
    int terms;
    attnc_loop_term term[ATTNC_MAX_TERMS];
    attnc_rows add, tanh_of;
    int tanh;
} attnc_loop_linear;

/* A step of a cell, forward or back. */
typedef struct {
    attnc_recurrence recurrence;
    const void *panels; /* of the state weight U, every gate; backward: of its transpose */
    int terms;          /* forward: what is fed; backward: what reaches the state beside U */
    attnc_loop_term term[ATTNC_MAX_TERMS - 1];
    int adds; /* backward: gradients of the state, as they are */
    attnc_rows add[2];
    int beside; /* this step is taken together with the operation before it in the list, in one
                   region: a cell of the same kind and size, in the same direction */
} attnc_loop_cell;
enum { ATTNC_MAX_BESIDE = 2 }; /* cells of one region */

/* The query of step t attends to all keys of its sequence; backward: the gradient of that query. */
typedef struct {
    attnc_score score; /* ATTNC_DOT, ATTNC_ADDITIVE */
    ptrdiff_t Tk, D, Dv;
    attnc_rows query, key, value; /* (batch, T, D), (batch, Tk, D), (batch, Tk, Dv) */
    double scale;
    const void *score_vector; /* (D), additive, like transforms */
    attnc_key_transforms transforms;
    void *weights;               /* (batch, T, Tk) */
    double coverage_weight;      /* see attnc_attend_step; 0 where there is no coverage */
    const void *coverage_vector; /* (D) or NULL, additive; then no transforms */
    const void *coverage_rate;   /* (batch, Tk) or NULL */
    void *coverage;              /* (batch, Tk) or NULL; backward: its gradient */
    void *coverage_bias;         /* (batch, T, Tk), where there is coverage; backward: where there
                                    is a coverage_vector */
    const void *key_mask;        /* bytes (batch, Tk) or NULL; forward, like all that follows */
    void *context;               /* (batch, T, Dv) */
    void *stats, *scores;        /* (batch, T, 2), and (batch, T, Tk) or NULL: saved for backward */
    attnc_rows dcontext;         /* backward, like all that follows: (batch, T, Dv) */
    attnc_rows dweights;         /* (batch, T, Tk), or not given */
    void *dquery;                /* (T, batch, D) */
    void *dweights_total;        /* (batch, T, Tk) or NULL: dweights and what later coverage adds */
    void *dcoverage_rate; /* (batch, Tk), where there is a rate; added to, like all that follows */
    void *dkey;           /* (batch, Tk, D), where there is a coverage_vector, like the next two */
    void *dscore_vector, *dcoverage_vector; /* (batch, D) */
    /* Local, where there is a center (batch, T): see attnc_attend_step. */
    ptrdiff_t width; /* the window: keys on either side */
    double sigma;
    int renormalize;
    double *center, *last;
    attnc_rows position; /* (batch, T, P), or not given */
    const void *position_vector;
    ptrdiff_t P;
    double *dcenter;
    void *dposition; /* (T, batch, P) */
} attnc_loop_attend;

/* unit_t = x_t / |x_t|, norm_t = |x_t|; backward: dx from dunit, unit and norm. */
typedef struct {
    ptrdiff_t D;
    attnc_rows x; /* forward */
    void *unit;   /* (steps, batch, D), like dunit and dx */
    void *norm;   /* (steps, batch) */
    const void *dunit;
    void *dx;
} attnc_loop_normalize;

/* The energies of the query of step t, or their gradients (attnc_energies_step). */
typedef struct {
    attnc_score score; /* ATTNC_DOT, ATTNC_ADDITIVE */
    ptrdiff_t Tk, D;
    attnc_rows query, key; /* (batch, T, D), (batch, Tk, D) */
    double scale;
    const void *score_vector; /* (D), additive, like transforms */
    attnc_key_transforms transforms;
    void *scores, *probability; /* (batch, T, Tk); probability or NULL */
    double offset;
    const void *noise, *dprobability; /* (batch, T, Tk), or NULL */
    int adds;
    attnc_rows dquery; /* (T, batch, D) */
} attnc_loop_energies;

/* A step of an alignment (attnc_monotonic), or back. */
typedef struct {
    ptrdiff_t Tk;
    void *probability, *alignment, *reach; /* (batch, T, Tk) */
    void *previous;                        /* (batch, Tk): before step 0 */
    const unsigned char *key_mask;         /* (batch, Tk) or NULL */
    void *dalignment, *dprobability;       /* backward, like what follows */
    void *dprevious; /* (batch, Tk): of the last alignment; then of previous */
} attnc_loop_monotonic;

/* A step of chunkwise attention (attnc_chunkwise), or back. */
typedef struct {
    ptrdiff_t Tk, width;
    void *alignment, *scores, *weights; /* (batch, T, Tk) */
    const unsigned char *key_mask;      /* (batch, Tk) or NULL */
    void *dweights, *dalignment, *dscores;
} attnc_loop_chunkwise;

/* The context of step t from its weights, or back (attnc_read_step). */
typedef struct {
    ptrdiff_t Tk, Dv;
    void *weights;    /* (batch, T, Tk) */
    attnc_rows value; /* (batch, Tk, Dv) */
    void *context;    /* (batch, T, Dv) */
    const unsigned char *key_mask;
    attnc_rows dcontext, dweights;
    void *dtotal; /* (batch, T, Tk) */
} attnc_loop_read;

/* Where the query of step t stops for sure (attnc_hard_step). */
typedef struct {
    attnc_loop_energies energies, chunk; /* as they read queries and keys; chunk: where width > 1 */
    ptrdiff_t width;
    const unsigned char *key_mask;
    void *position, *weights;
} attnc_loop_hard;

/* What an operation does. */
typedef struct attnc_operation_type attnc_operation_type;
extern const attnc_operation_type attnc_operation_linear;
extern const attnc_operation_type attnc_operation_cell, attnc_operation_cell_back;
extern const attnc_operation_type attnc_operation_attend, attnc_operation_attend_back;
extern const attnc_operation_type attnc_operation_normalize, attnc_operation_normalize_back;
extern const attnc_operation_type attnc_operation_energies, attnc_operation_energies_back;
extern const attnc_operation_type attnc_operation_monotonic, attnc_operation_monotonic_back;
extern const attnc_operation_type attnc_operation_chunkwise, attnc_operation_chunkwise_back;
extern const attnc_operation_type attnc_operation_read, attnc_operation_read_back;
extern const attnc_operation_type attnc_operation_hard;

typedef struct {
    const attnc_operation_type *type;
    union {
        attnc_loop_linear linear;
        attnc_loop_cell cell;
        attnc_loop_attend attend;
        attnc_loop_normalize normalize;
        attnc_loop_energies energies;
        attnc_loop_monotonic monotonic;
        attnc_loop_chunkwise chunkwise;
        attnc_loop_read read;
        attnc_loop_hard hard;
    };
} attnc_operation;

typedef struct {
    int f32; /* real arrays hold float, else double */
    ptrdiff_t steps, batch;
    const ptrdiff_t *counts; /* (steps), falling; NULL: every step has the whole batch */
    int backward;
    int operations;
    const attnc_operation *operation;
} attnc_loop;

/* executor may be NULL. 0, or -1 for want of memory. */
int attnc_loop_run(const attnc_loop *l, const attnc_executor *executor);

#endif
