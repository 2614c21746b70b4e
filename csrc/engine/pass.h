/* pass: one pass of attention at work, forward or backward: what the entry points (attention.c),
 * the gradients (gradients.c) and the mechanisms (mechanisms.c) share. Nobody else includes it.
 *
 * Functions that return an int return 0, or -1 for want of memory.
 *
 * defines: attnc_pass, attnc_mechanism, attnc_projection, attnc_sequence, attnc_sequence_args,
 *          attnc_step, attnc_pass_*, and of packed batches what stands under packed.c
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
    const attnc_operand *x_tangent, *weight_tangent; /* with tangents: of both; data may be NULL */
} attnc_projection;

/* One sequence of a packed batch; or all that is not packed, as one. */
typedef struct {
    ptrdiff_t index;              /* in the batch */
    ptrdiff_t query, Tq, key, Tk; /* its first row and their number */
    /* What those before it have of each for every element of lead, in a block of all: scores that
     * are saved; rows of parts of context, or of dquery; segments of keys; parts of dcenter. */
    ptrdiff_t scores, parts, segment_parts, center_parts;
} attnc_sequence;

typedef struct {
    const attnc_inputs *in;
    attnc_team team;
    attnc_problem a;              /* what the kernels of both directions read */
    attnc_tangent_views tangents; /* forward mode: a.tangents */
    /* made by prepare, read by backward */
    attnc_projection query_projection, key_projection;
    attnc_normalize unit_query, unit_key;
    attnc_sequence *sequences; /* those with the most pairs first */
    ptrdiff_t sequence_count;
    attnc_sequence whole; /* the one of a batch that is not packed */
    /* of a backward pass alone */
    attnc_attention_bwd bwd;
    void *direct_dquery;     /* dquery where kernels can write to it, unless there are segments, or
                                windows around centers, which need few parts (attention_bwd) */
    ptrdiff_t segment_parts; /* of each element of lead: the segments of all sequences */
    attnc_second_order second; /* bwd.second, where that is not NULL */
} attnc_pass;

/* What the mechanisms differ in. */
struct attnc_mechanism {
    attnc_score score; /* what the kernels compute of the views that prepare makes */
    /* The views of all that scores are made of, and a.scale, where they have one; products and unit
     * rows are made here, once. */
    int (*prepare)(attnc_pass *p);
    /* Forward mode, after prepare: the same of their tangents, p->tangents. */
    int (*prepare_tangents)(attnc_pass *p, const attnc_tangents *t);
    /* The gradients, or of a pass of second order their tangents, by attnc_pass_backward and the
     * way back through prepare. */
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

/* ---- packed.c ---- */

static inline int attnc_is_packed(const attnc_inputs *in) { return in->query_offsets != NULL; }

/* Sequence b of a batch, packed or not. */
attnc_sequence attnc_sequence_of(const attnc_inputs *in, ptrdiff_t b);

/* Lists the sequences of a pass. */
int attnc_pass_list_sequences(attnc_pass *p);

/* Whether backward reads the scores of a sequence; how many, for each element of lead. */
int attnc_saves_scores(const attnc_inputs *in, const attnc_sequence *s);
ptrdiff_t attnc_saved_scores(const attnc_inputs *in, const attnc_sequence *s);

/* The arguments of a kernel for one sequence of a packed batch. */
typedef struct {
    attnc_problem problem;
    attnc_tangent_views tangents;
    attnc_second_order second;
    attnc_view with;
    union {
        attnc_attention_fwd fwd;
        attnc_attention_bwd bwd;
        attnc_sum sum;
    };
} attnc_sequence_args;

/* A kernel of a pass, with arguments as if all its sequences were one. */
typedef struct {
    attnc_kernel_fn kernel;
    const void *args;
    /* How many tasks there are, and bytes of scratch of a thread (NULL: none), with the arguments
     * of all or of one sequence. */
    ptrdiff_t (*tasks)(const attnc_pass *p, const void *args);
    size_t (*scratch)(const attnc_pass *p, const void *args);
    /* The arguments of one sequence, somewhere in `to`. */
    const void *(*of_sequence)(const attnc_pass *p, const void *args, const attnc_sequence *s,
                               attnc_sequence_args *to);
} attnc_step;

/* Runs it. The sequences of a packed batch are one list of tasks. work: multiply-adds in all. */
int attnc_pass_run(attnc_pass *p, const attnc_step *step, double work);

/* of_sequence of attnc_attention_fwd, attnc_attention_bwd and, over queries, attnc_sum. */
const void *attnc_forward_of_sequence(const attnc_pass *p, const void *args,
                                      const attnc_sequence *s, attnc_sequence_args *to);
const void *attnc_backward_of_sequence(const attnc_pass *p, const void *args,
                                       const attnc_sequence *s, attnc_sequence_args *to);
const void *attnc_sum_of_sequence(const attnc_pass *p, const void *args, const attnc_sequence *s,
                                  attnc_sequence_args *to);

/* Into how many runs the keys of a sequence are cut: for tasks of the forward pass, of the backward
 * one; how many parts of dquery there are to be summed; and whether it writes to dquery itself. */
ptrdiff_t attnc_key_splits(const attnc_pass *p, const attnc_sequence *s);
ptrdiff_t attnc_segments(const attnc_pass *p, const attnc_sequence *s);
ptrdiff_t attnc_query_parts(const attnc_pass *p, const attnc_sequence *s);
int attnc_is_direct(const attnc_pass *p, const attnc_sequence *s);

/* N in whole vectors; the size of a row of parts of context. */
ptrdiff_t attnc_padded(const attnc_pass *p, ptrdiff_t N);
ptrdiff_t attnc_part_size(const attnc_pass *p);

/* ---- gradients.c ---- */

/* Runs the kernels of backward and sums up their parts. to: gradients of what prepare made of query
 * and key, (own lead, T, D) each, and of everything that needs no way back. */
int attnc_pass_backward(attnc_pass *p, const attnc_gradients *to);

/* The same of first order, in a pass of second order: what the way back through prepare needs
 * beside the tangents. */
int attnc_pass_first_order(attnc_pass *p, const attnc_gradients *to);

/* ---- projection.c ---- */

/* The operand's rows without gaps: where they are, or a copy. NULL for want of memory. */
const void *attnc_rows_without_gaps(attnc_pass *p, const attnc_operand *x);

/* x W for all rows of an operand: its view, and in *projection what the way back needs. */
int attnc_project(attnc_pass *p, const attnc_operand *x, const attnc_operand *weight, ptrdiff_t T,
                  attnc_view *view, attnc_projection *projection);

/* Its tangent, xdot W + x Wdot: a view without data where neither moves. The projection keeps both
 * tangents. */
int attnc_project_tangent(attnc_pass *p, attnc_projection *projection, const attnc_operand *x,
                          const attnc_operand *x_tangent, const attnc_operand *weight_tangent,
                          ptrdiff_t T, attnc_view *view);

/* From the gradient of x W: dx = dprojected W^T, dweight = x^T dprojected; NULL: not wanted. A row
 * that no gradient reaches is not read. */
int attnc_project_backward(attnc_pass *p, const attnc_projection *projection,
                           const void *dprojected, attnc_result dx, void *dweight);

/* Second order: the tangents of both, from dprojected and its tangent:
 *   dx' = dprojected' W^T + dprojected W'^T    dweight' = x^T dprojected' + x'^T dprojected */
int attnc_project_hvp(attnc_pass *p, const attnc_projection *projection, const void *dprojected,
                      const void *dprojected_tangent, attnc_result dx, void *dweight);

/* out (N) = the sum of the rows of x (rows, N) */
int attnc_sum_rows(attnc_pass *p, const void *x, ptrdiff_t rows, ptrdiff_t N, void *out);

#endif
