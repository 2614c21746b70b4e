/* kernels.h: the contract between the engine and the kernels (kernels/).
 *
 * A kernel is a function over the tasks [begin, end) of one call: it reads an argument struct,
 * writes outputs that no other task writes, and works in the scratch block it is handed. Kernels
 * allocate nothing, cannot fail, know no Python, and give the same bits for any split of the tasks.
 * Outputs are overwritten, unless an argument says that they are added to.
 *
 * One set of kernels is compiled per instruction set and element type (targets/), from one source.
 *
 * defines: attnc_lead, attnc_stored, attnc_stored_size, attnc_view, attnc_result,
 *          attnc_key_transforms, attnc_normalizer, attnc_tangent_views, attnc_problem,
 *          attnc_attention_fwd, attnc_choice, attnc_hard_fwd, attnc_second_order,
 *          attnc_attention_bwd,
 *          attnc_attention_dbias, attnc_product, attnc_sum, attnc_narrow, attnc_normalize,
 *          attnc_cross_entropy, attnc_rotary, attnc_norm, attnc_activation_kind,
 *          attnc_activation, attnc_add_dropout, attnc_adam, attnc_square_sums,
 *          attnc_products, attnc_pairs, attnc_monotonic, attnc_chunkwise, attnc_cut,
 *          attnc_panels, attnc_term, attnc_linear, attnc_recurrence, attnc_cell_step, attnc_cells,
 *          attnc_attend_step,
 *          attnc_energies_step, attnc_read_step, attnc_hard_step, attnc_kernels, attnc_kernel_fn
 */
#ifndef ATTNC_KERNELS_H
#define ATTNC_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if __FINITE_MATH_ONLY__
#error "attnc needs infinities and NaN: build it without -ffast-math"
#endif

enum { ATTNC_MAX_LEAD = 62 }; /* NumPy allows 64 axes, two of them are (time, feature) */
enum { ATTNC_SUM_ROWS = 64 }; /* rows of a task of attnc_sum */

/* The leading axes (batch, heads, ...) of a call, after broadcasting. */
typedef struct {
    int ndim;
    ptrdiff_t count; /* product of shape */
    const ptrdiff_t *shape;
} attnc_lead;

/* How real numbers lie in memory: in the type that is computed in, or in halves, which go with
 * float. */
typedef enum { ATTNC_AS_COMPUTED, ATTNC_FLOAT16, ATTNC_BFLOAT16 } attnc_stored;

/* Bytes of an element; computed: those of the computing type. */
static inline size_t attnc_stored_size(attnc_stored stored, size_t computed)
{
    return stored == ATTNC_AS_COMPUTED ? computed : sizeof(uint16_t);
}

/* An operand: strides in elements, 0 where the operand broadcasts. data == NULL: not given.
 * col is 1 for real operands except where the last axis broadcasts (masks, bias): 0. */
typedef struct {
    void *data;
    ptrdiff_t row, col;
    const ptrdiff_t *lead; /* a stride for each leading axis */
    attnc_stored stored;   /* of real operands */
} attnc_view;

/* Where a result goes; data NULL: it is not wanted. */
typedef struct {
    void *data;
    attnc_stored stored;
} attnc_result;

/* How the score of a pair comes about. */
typedef enum {
    ATTNC_DOT,      /* scale * q_i . k_j */
    ATTNC_ADDITIVE, /* v . tanh(q_i + k_j + b), q and k already projected */
    ATTNC_GIVEN     /* the caller's own */
} attnc_score;

/* Transforms of the keys of additive attention, made once for many queries that come one at a time
 * (additive.inc). */
typedef struct {
    const void *key;     /* (count, Tk, D) */
    void *small, *large; /* (count, Tk, padded D): expm1(2 key) and exp(2 key) */
    void *top;           /* (count): largest magnitude of the keys; infinity: some are not finite */
    ptrdiff_t count, Tk, D;
} attnc_key_transforms;

/* How scores become weights. */
typedef enum {
    ATTNC_SOFTMAX,
    ATTNC_SPARSEMAX, /* of these two the weights are mostly 0 (sparse.inc) */
    ATTNC_ENTMAX15
} attnc_normalizer;

/* Forward mode: the tangents of what attention is computed from, of the sizes of those members of
 * attnc_problem that have the same names; data NULL, or 0: there is none. */
typedef struct {
    attnc_view query, key, value, scores;
    double scale;
    const void *score_vector, *score_bias;
    attnc_view bias;
    attnc_view slope, sink, center;
} attnc_tangent_views;

/* What attention is computed from, read by forward and backward: the mechanisms differ in `score`
 * alone. Sizes: query (lead, Tq, D), key (lead, Tk, D), value (lead, Tk, Dv), scores
 * (lead, Tq, Tk). */
typedef struct {
    attnc_score score;
    attnc_lead lead;
    ptrdiff_t Tq, Tk, D, Dv;
    /* Rows between the elements of lead in contiguous arrays: Tq and Tk, or, of one sequence of a
     * packed batch, those of all of them. */
    ptrdiff_t query_rows, key_rows;
    int one_by_one; /* queries come one at a time (attnc_attend_step) */

    attnc_view query, key, value, scores;
    double scale;                               /* 1 but for ATTNC_DOT */
    const void *score_vector;                   /* (D) ATTNC_ADDITIVE, else NULL */
    const void *score_bias;                     /* (D) or NULL, ATTNC_ADDITIVE */
    const attnc_key_transforms *key_transforms; /* or NULL, ATTNC_ADDITIVE with one_by_one */
    /* or NULL, the same: coverage (lead, Tq, Tk) times this vector (D) is added inside the tanh */
    const void *coverage, *coverage_vector;

    /* which pairs are allowed (mask.inc is the one reader), and what is added to their score */
    attnc_view mask;          /* bytes (lead, Tq, Tk) */
    attnc_view key_mask;      /* bytes (lead, 1, Tk) */
    attnc_view lengths;       /* int64 (lead): keys behind are excluded */
    attnc_view query_lengths; /* int64 (lead): queries behind are padding */
    attnc_view offset;        /* int64 (lead) */
    attnc_view bias;          /* real (lead, Tq, Tk) */
    attnc_view slope, sink;   /* double (lead), whatever is computed in */
    attnc_view center;        /* double (lead, Tq): the window is around it (center.inc) */
    double sigma;             /* of the Gaussian around the center; infinity: none */
    int renormalize;          /* it is part of the softmax, else a factor of the weights */
    /* where lengths, query_lengths, offset hold no data */
    ptrdiff_t length, queries, causal_offset;
    int causal;
    ptrdiff_t left, right;       /* of the window; -1: open */
    double softcap;              /* 0: none */
    attnc_normalizer normalizer; /* a sparse one goes without sink, center, lse and key_splits */
    double dropout;              /* 0: none */
    uint64_t dropout_key;
    ptrdiff_t dropout_first;             /* what element 0 of lead counts as */
    const attnc_tangent_views *tangents; /* NULL: no tangents are wanted */
} attnc_problem;

/* The forward pass: how it is cut into tasks, and where its outputs go. */
typedef struct {
    const attnc_problem *problem;
    ptrdiff_t query_chunk; /* queries of one task; no bit depends on it */
    /* With few queries the keys are cut into this many runs, each its own task; 1: not cut. */
    ptrdiff_t key_splits;
    void *parts; /* where key_splits > 1: what attention_merge puts together, (lead, key_splits, Tq,
                    padded Dv + 2 lanes), with tangents twice as many columns */

    /* outputs, contiguous over (lead, query_rows, ...) */
    attnc_result context; /* (lead, Tq, Dv) */
    void *lse;            /* (lead, Tq) or NULL */
    void *weights;        /* (lead, Tq, Tk) or NULL: they hold scores before */
    /* The weights once more, where they are wanted in halves, or the first are kept for
       backward. */
    attnc_result narrow_weights;
    /* for backward, or NULL */
    void *context_copy; /* (lead, Tq, Dv), unless rows fit a tile */
    void *stats;        /* (lead, Tq, 2): maximum of the scores and sum of exp(s - maximum). Their
                           lse would be rounded to the scores' magnitude, and weights computed from
                           it as wrong as that. */
    void *scores_copy;  /* (lead, Tq, Tk): what the mechanism computed, before softcap and bias */
    /* (lead, Tq, Tk) or none: the scores alone are wanted, 0 where not allowed. Then there is no
     * value and no other output. */
    attnc_result scores;

    /* Forward mode, with problem->tangents: the tangents of the outputs above, of the same sizes.
     * Those of the weights need the weights. */
    attnc_result context_tangent, narrow_weights_tangent, scores_tangent;
    void *lse_tangent, *weights_tangent;
} attnc_attention_fwd;

/* How hard attention comes to the one key of a query (hard.inc). */
typedef enum { ATTNC_SAMPLED, ATTNC_LARGEST, ATTNC_FORCED } attnc_choosing;

typedef struct {
    attnc_choosing how;
    uint64_t key;          /* ATTNC_SAMPLED: the key of the call */
    const int64_t *forced; /* ATTNC_FORCED: (lead, Tq), in -1..Tk-1 */
} attnc_choice;

enum { ATTNC_HARD_QUERIES = 16 }; /* of a task */

/* Hard attention: one key a query. Outputs, contiguous over lead and queries. */
typedef struct {
    const attnc_problem *problem;
    attnc_choice choice;
    attnc_result context; /* (lead, Tq, Dv): the chosen value */
    int64_t *index;       /* (lead, Tq): -1 where no key can be chosen; forced: only where
                                        that is what was to be chosen */
    void *log_probability, *entropy; /* (lead, Tq) */
    void *stats;                     /* (lead, Tq, 2), as of attnc_attention_fwd; or NULL */
    /* forward mode, with problem->tangents: of the outputs above */
    attnc_result context_tangent;
    void *log_probability_tangent, *entropy_tangent;
} attnc_hard_fwd;

/* Second order: the tangents of what comes into the backward pass, as there; data NULL: 0. */
typedef struct {
    attnc_view dcontext, dweights, dlse, dscores_given, dlog_probability, dentropy;
    void *rows; /* (lead, query_rows, row_tangents): attention_row_tangents fills it; NULL where
                   scores are had alone */
    double *dscale_parts; /* (lead, segments) or NULL */
} attnc_second_order;

/* The backward pass: what comes in, what the forward pass saved, and where gradients go. */
typedef struct {
    const attnc_problem *problem;
    attnc_view dcontext, dweights, dlse; /* incoming gradients; data NULL: none */
    attnc_view dscores_given;            /* of scores that were wanted alone; then no other one */
    /* hard attention: the keys that were chosen (lead, Tq), or NULL; then dweights and dlse are not
     * there, but perhaps these */
    const int64_t *chosen;
    attnc_view dlog_probability, dentropy;
    const void *saved_entropy; /* (lead, Tq) */
    const void *saved_context, *saved_stats;
    const void *saved_scores;  /* or NULL: computed again */
    const void *saved_weights; /* (lead, Tq, Tk): in the place of stats, of a sparse normalizer */
    void *delta; /* (lead, query_rows): sum_j weights_ij * (gradient of weights_ij), less dlse_i;
                    attention_delta fills it, or attention_bwd where rows fit a tile; NULL: not
                    needed */

    /* Outputs, contiguous. Segments: the keys are cut into `segments` runs, a function of Tk alone;
     * each has its own partial of everything that sums over keys. */
    ptrdiff_t segments;
    void *dquery_parts; /* (lead, segments, Tq, padded D), for attnc_sum to add up; or, where
                           dquery_direct, (lead, query_rows, D) = dquery itself */
    int dquery_direct;
    attnc_result dkey;         /* (lead, key_rows, D) */
    attnc_result dvalue;       /* (lead, key_rows, Dv) */
    void *dscore_vector_parts; /* (lead, segments, padded D) */
    attnc_result dscores;      /* (lead, Tq, Tk) zeroed, or none: before softcap and bias */
    attnc_result dbias;        /* (lead, Tq, Tk) zeroed, or none */
    double *dslope_parts;      /* (lead, segments) or NULL */
    /* With a center, a query has parts from the segments that its window meets: the first of them
     * writes to dquery_parts (lead, Tq, padded D), or to dquery itself; the k-th behind it to block
     * k - 1 of dquery_more (segments - 1, lead, Tq, padded D). attention_gather puts them together,
     * and so those of dcenter_parts (segments, lead, Tq), or NULL, in its first block. */
    void *dquery_more;
    double *dcenter_parts;
    /* Then where dkey and dvalue are added up unless that is in place: (lead, key_rows, padded D)
     * and (..., padded Dv); or NULL. */
    void *dkey_padded, *dvalue_padded;
    double *dsink_parts; /* (lead) or NULL; then delta is there for rows that fit a tile too */

    /* Or NULL. With it, and tangents of the problem, everything that is written is the tangent of
     * what it is without: all gradients above, to which attnc_sum has no factor to apply. What
     * comes in may be missing where its tangent is there, and no delta is needed. */
    const attnc_second_order *second;
} attnc_attention_bwd;

/* The gradient of a bias, or scores, that broadcasts, summed over its axes. */
typedef struct {
    const attnc_attention_bwd *bwd; /* what comes in and what was saved */
    void *out;                      /* (own lead, own Tq, own Tk), zeroed */
    ptrdiff_t own_count;            /* number of its own leading elements */
    ptrdiff_t own_Tq, own_Tk;       /* 1 or the full size */
    const ptrdiff_t *own_first;     /* (own_count): the first element of lead that maps to it */
    const ptrdiff_t *offsets;       /* (offset_count): from that one to all of them, in C order */
    ptrdiff_t offset_count;
    int of_scores; /* the gradient before softcap and bias: of `scores`, not of `bias` */
} attnc_attention_dbias;

/* out (M, N) = sum over k of a[m, k] * b[k, n]; any strides in a and b, out rows ld_out apart.
 * skip_zero_rows: a row k of b that is all zero adds nothing, whatever a holds there. */
typedef struct {
    void *out;
    const void *a, *b;
    ptrdiff_t M, N, K;
    ptrdiff_t out_row, a_row, a_col, b_row, b_col;
    attnc_stored a_stored; /* in halves: a_row or a_col is 1 */
    int skip_zero_rows;
    int accumulate;  /* out += that; not with skip_zero_rows */
    ptrdiff_t tasks; /* into how many to cut it, if it is large enough; there may be more */
} attnc_product;

/* Products of one shape: the n-th is `each` with its arrays n steps, in elements, further on. */
typedef struct {
    attnc_product each;
    ptrdiff_t count, out_step, a_step, b_step;
} attnc_products;

/* out[u, r, :] = factor * sum over g, s of parts[own_first[u] + offsets[g], s, r, :]
 * and, where row_dot is given, row_dot[u, r] = sum_c of that (without factor) times with[u, r, c].
 * columns (N) multiplies each column where given. */
typedef struct {
    attnc_result out;  /* (U, out_rows, N) */
    double *row_dot;   /* (U, out_rows) or NULL */
    const void *parts; /* (lead, segments, rows, ld) */
    const void *columns;
    const attnc_view *with;
    const attnc_lead *with_lead; /* own leading axes of `with`, U elements */
    ptrdiff_t U, rows, out_rows, N, ld, segments;
    const ptrdiff_t *own_first, *offsets;
    ptrdiff_t offset_count;
    double factor;
} attnc_sum;

enum { ATTNC_NARROW_COUNT = 1 << 14 }; /* elements of a task */

/* out[k] = x[k], rounded to the type in which out is stored */
typedef struct {
    attnc_result out;
    const void *x;
    ptrdiff_t count;
} attnc_narrow;

/* Cosine: out = x / |x| row by row (0 where |x| = 0), norm its lengths; and back. */
typedef struct {
    attnc_result out; /* (rows, D); forward: as computed */
    void *norm;       /* (rows) */
    attnc_view x;     /* backward: or none; read where the norm is no normal number */
    attnc_lead lead;  /* of x itself */
    ptrdiff_t T, D;
    const void *dout; /* backward: (rows, D), may be `out` where that is as computed */
    attnc_stored dout_stored;
    const void *unit; /* backward: the forward's out */
    /* second order: tangents of dout and of x, that of x or none; out gets that of the gradient */
    const void *dout_tangent;
    attnc_view x_tangent;
} attnc_normalize;

enum { ATTNC_LOSS_ROWS = 16 }; /* rows of a task */

/* Softmax cross-entropy of logits (rows, classes). */
typedef struct {
    const void *logits;
    const int64_t *targets; /* (rows), below 0: the row does not count */
    ptrdiff_t rows, classes;
    double smoothing;
    double *losses; /* (rows) */
    void *stats;    /* (rows, 2): maximum, sum of exp(x - maximum) */
    void *dlogits;  /* backward: factor times the gradient of the sum of all losses */
    double factor;
} attnc_cross_entropy;

enum { ATTNC_ROTARY_ROWS = 64 }; /* rows of a task */

/* Rotary positions: out = x with its pairs of channels turned by the angles of its rows. */
typedef struct {
    attnc_result out; /* (lead, T, D), stored as x */
    attnc_view x;     /* (lead, T, D) */
    attnc_view table; /* (lead, T, D) as computed: D/2 cosines and D/2 sines */
    attnc_lead lead;
    ptrdiff_t T, D;
    int interleaved; /* pairs 2k and 2k + 1, else k and D/2 + k */
    int back;        /* by the angles below 0 */
} attnc_rotary;

/* ---- rows and single numbers between products ---- */

enum { ATTNC_PART_ROWS = 64 }; /* rows of a task, and of a part of a sum over rows */

/* Layer norm, or RMS norm where not centred (norm.inc), of x (rows, n). */
typedef struct {
    ptrdiff_t rows, n;
    int center;
    double epsilon;
    const void *x, *weight, *bias; /* (n) or NULL */
    void *y;
    void *stats; /* (rows, 3): what forward leaves for backward */
    const void *dy;
    void *dx;
    void *parts; /* (ceil(rows / ATTNC_PART_ROWS), 2, n): gradients of weight and bias, to be added
                    up; or NULL */
} attnc_norm;

typedef enum { ATTNC_RELU, ATTNC_GELU, ATTNC_GELU_TANH, ATTNC_SILU } attnc_activation_kind;

/* y = f(x + bias) * (up + up_bias) * keep (activation.inc), of `count` numbers in rows of n, the
 * last of which may be shorter. */
typedef struct {
    attnc_activation_kind kind;
    ptrdiff_t count, n;
    void *x, *up; /* up may be NULL; forward writes x + bias where a bias (n) is given */
    const void *bias, *up_bias;
    double dropout; /* 0: none */
    uint64_t key;
    void *y;
    const void *dy;
    void *dx, *dup;         /* dx may be dy */
    void *dbias, *dup_bias; /* (ceil(rows / ATTNC_PART_ROWS), n), to be added up; or NULL */
} attnc_activation;

enum { ATTNC_DROPOUT_NUMBERS = 1 << 13 }; /* of a task, whole blocks of add_dropout.inc */

/* out = residual + keep * y; residual may be NULL, out may be y or residual */
typedef struct {
    ptrdiff_t count;
    const void *residual, *y;
    void *out;
    double dropout; /* 0: none */
    uint64_t key;
} attnc_add_dropout;

enum { ATTNC_ADAM_NUMBERS = 1 << 14 }; /* of a task */

/* A step of Adam (adam.inc). */
typedef struct {
    ptrdiff_t count;
    void *parameter, *m, *v;
    const void *gradient;
    double beta1, beta2, rate, epsilon, keep;
} attnc_adam;

typedef struct {
    ptrdiff_t count;
    const void *x;
    double *sums; /* (ceil(count / ATTNC_ADAM_NUMBERS)) */
} attnc_square_sums;

/* ---- monotonic attention ---- */

/* A number for each pair, (count, Tq, Tk), or for each key, (count, Tk): steps from element to
 * element and from query to query, in numbers; keys are side by side. data NULL: not given. */
typedef struct {
    void *data;
    ptrdiff_t element, row;
} attnc_pairs;

/* Expected monotonic alignments (monotonic.inc), forward and back. */
typedef struct {
    ptrdiff_t count, Tq, Tk;
    attnc_pairs probability;
    attnc_pairs previous;          /* (count, Tk); not given: all at the first key */
    const unsigned char *key_mask; /* (count, Tk), rows mask_row apart, or NULL */
    ptrdiff_t mask_row;
    attnc_pairs alignment;
    attnc_pairs reach; /* the chance to reach a key: forward leaves it for backward, if given */
    void *missing;     /* (count, Tq) or NULL */
    double *range;     /* (ceil(count / lanes), 2) or NULL: least and largest probability, and 0 */
    /* backward */
    attnc_pairs dalignment; /* may be not given */
    const void *dmissing;   /* (count, Tq) or NULL */
    /* (count, Tk), and may be one: what the query after the last says of its `previous`, if given;
     * and the same of the first query */
    attnc_pairs dnext, dprevious;
    attnc_pairs dprobability;
} attnc_monotonic;

enum { ATTNC_CHUNK_ROWS = 4 }; /* queries of a task */

/* The weights of chunkwise attention (chunkwise.inc), forward and back. */
typedef struct {
    ptrdiff_t count, Tq, Tk, width;
    attnc_pairs alignment, scores;
    const unsigned char *key_mask; /* as above */
    ptrdiff_t mask_row;
    attnc_pairs weights;
    attnc_pairs dweights, dalignment, dscores; /* backward */
} attnc_chunkwise;

/* ---- one step of a loop over time (recurrent.inc, decoder.inc; engine/loop.h) ---- */

enum { ATTNC_BIAS_ROWS = 16 }; /* rows of a step whose bias gradients are added up in one part */

/* How a step of cells, or a sum of products, is cut into tasks; no bit depends on it. rows: a
 * multiple of ATTNC_BIAS_ROWS, at most max_cut_rows; columns: whole panels. */
typedef struct {
    ptrdiff_t rows, columns;
} attnc_cut;

typedef enum { ATTNC_RNN, ATTNC_GRU, ATTNC_LSTM } attnc_cell;

/* A matrix as products read it: x (K, gates * N) with element (k, n) at x[k * row + n * col], row
 * or col 1, in panels of some columns of one gate each. A matrix of no gates counts as one. */
typedef struct {
    void *out;
    const void *x;
    ptrdiff_t row, col, K, N, gates;
} attnc_panels;

/* rows of a (rows, K), a_row apart, times a matrix in panels. Rows behind the last add nothing. */
typedef struct {
    const void *a, *panels;
    ptrdiff_t a_row, rows, K, gates;
} attnc_term;

enum { ATTNC_MAX_TERMS = 4 };

/* out (rows, N) = tanh of the terms + add, where tanh is asked for; where tanh_of is given, times
 * 1 - tanh_of^2. add may be out. */
typedef struct {
    void *out;
    ptrdiff_t out_row, rows, N;
    int terms;
    attnc_term term[ATTNC_MAX_TERMS];
    const void *add, *tanh_of;
    ptrdiff_t add_row, tanh_row;
    int tanh;
    attnc_cut cut;
} attnc_linear;

/* One cell over all steps of a batch. Rows: those of step 0, then those of step 1, ...; h and c
 * have `batch` rows of the state before step 0 in front of them. */
typedef struct {
    attnc_cell kind;
    ptrdiff_t gate_count, H, batch;
    /* gates (rows, gate_count * H) gets the values of the gates. gates_hold_input: it holds the
     * products of the inputs before; else it holds nothing. */
    void *gates;
    int gates_hold_input;
    void *saved;                         /* (rows, H) GRU: h U_n + c_n; LSTM: tanh(c); RNN: NULL */
    void *h, *c;                         /* (batch + rows, H); c: LSTM */
    const void *input_bias, *state_bias; /* (gate_count * H) */
    /* outputs: h once more, or NULL; doutputs: their gradient, or NULL. place[r]: which of their
     * rows belongs to row r. */
    void *outputs;
    const void *doutputs;
    ptrdiff_t outputs_row, doutputs_row;
    const ptrdiff_t *place;
    /* backward: dinput and dproduct (rows, gate_count * H) get the gradients of x W + b and of
     * h U + c: one array but for the GRU */
    void *dinput, *dproduct;
    void *dh, *dc; /* (batch, H) in: of the last state; out: of the first */
    /* (ceil(batch / ATTNC_BIAS_ROWS), gate_count * H), zeroed: parts to be added up; dstate_bias:
     * GRU */
    void *dinput_bias, *dstate_bias;
} attnc_recurrence;

/* One step of a recurrence. */
typedef struct {
    const attnc_recurrence *cell;
    ptrdiff_t first, before; /* its first row, and that of the state before in h and c */
    int terms;               /* forward: the state, then what is fed; backward: what reaches h */
    attnc_term term[ATTNC_MAX_TERMS];
    /* backward: arrays (rows, H), rows add_row apart, that are added to the gradient of h */
    int adds;
    const void *add[2];
    ptrdiff_t add_row[2];
} attnc_cell_step;

/* A step of several recurrences of one cell and size, side by side. */
typedef struct {
    int count;
    ptrdiff_t rows;
    const attnc_cell_step *step;
    attnc_cut cut;
} attnc_cells;

/* One query, i, of every element of lead (decoder.inc): attention inside a recurrent loop. The
 * context, weights and the rest go to the places that attention over all queries would use. */
typedef struct {
    const attnc_attention_fwd *fwd; /* backward: problem and weights alone */
    ptrdiff_t i;
    /* coverage: what earlier queries gave each key, summed: the weights, times coverage_rate where
     * there is one; NULL: none. Times coverage_weight it becomes coverage_bias, which is the bias
     * of the problem; or the coverage of a problem that has a coverage_vector. */
    void *coverage;                /* (lead, Tk); backward: its gradient */
    void *coverage_bias;           /* (lead, Tq, Tk) */
    const void *coverage_rate;     /* (lead, Tk) or NULL */
    double coverage_weight;        /* 1 where there is a coverage_vector */
    attnc_view dcontext, dweights; /* backward */
    void *dquery;                  /* (Tq, lead, D) */
    void *dweights_total; /* (lead, Tq, Tk): dweights and what comes from later coverage; or NULL */
    /* backward, added to: (lead, Tk), where there is a rate; and where there is a coverage_vector
     * (lead, Tk, D) and twice (lead, D) */
    void *dcoverage_rate, *dkey, *dscore_vector, *dcoverage_vector;
    /* Where the problem has a center, (lead, Tq): it is there already, or predicted and written
     *   center = last sigmoid(position . position_vector)    position a tanh, (lead, Tq, P)
     * Backward writes the gradient of center, and, where it was predicted, of what the tanh is
     * of. */
    double *center;
    const double *last;          /* (lead) */
    attnc_view position;         /* data NULL: it is there */
    const void *position_vector; /* (P) */
    ptrdiff_t P;
    double *dcenter; /* (lead, Tq) */
    void *dposition; /* (Tq, lead, P) */
} attnc_attend_step;

/* The energies of one query, i, of every element of lead (energies.inc). Backward: scores are their
 * gradient; `adds` says that they hold a part of it. */
typedef struct {
    const attnc_problem *problem;
    ptrdiff_t i;
    void *scores;      /* (lead, Tq, Tk) */
    void *probability; /* (lead, Tq, Tk) or NULL: sigmoid(score + offset + noise) */
    double offset;
    const void *noise; /* (lead, Tq, Tk) or NULL */
    /* backward */
    const void *dprobability; /* as probability */
    int adds;                 /* 1 where there is no probability */
    void *dquery;             /* (Tq, lead, D), of these strides */
    ptrdiff_t dquery_step, dquery_row;
} attnc_energies_step;

/* What one query, i, of every element of lead reads (energies.inc). */
typedef struct {
    const attnc_problem *problem; /* lead, Tq, Tk, Dv and value */
    ptrdiff_t i;
    void *weights; /* (lead, Tq, Tk) */
    void *context; /* (lead, Tq, Dv) */
    /* backward */
    const unsigned char *key_mask; /* (lead, Tk) or NULL */
    attnc_view dcontext, dweights; /* dweights may be not given */
    void *dtotal;                  /* (lead, Tq, Tk): the whole gradient of the weights */
} attnc_read_step;

/* Where one query, i, of every element of lead stops for sure (energies.inc). */
typedef struct {
    const attnc_problem *problem, *chunk; /* of the energies; of the scores of a chunk, or NULL */
    ptrdiff_t i, width;
    double offset;
    const unsigned char *key_mask; /* (lead, Tk) or NULL */
    void *position;                /* (lead, Tk): 1 at the last stop; read, and written */
    void *weights;                 /* (lead, Tq, Tk) */
} attnc_hard_step;

typedef void (*attnc_kernel_fn)(const void *args, ptrdiff_t begin, ptrdiff_t end, void *scratch);

/* One instruction set and element type. `*_scratch` says how many bytes of scratch a thread needs.
 * Tasks: attention_fwd lead.count * ceil(Tq / query_chunk) * key_splits, attention_merge
 * lead.count, hard_fwd lead.count * ceil(Tq / ATTNC_HARD_QUERIES), attention_delta and
 * attention_row_tangents lead.count * ceil(Tq / bwd_query_block), attention_bwd lead.count *
 * segments, attention_gather lead.count * ceil(Tq / ATTNC_SUM_ROWS), attention_dbias own_count *
 * ceil(own_Tq / bwd_query_block), product product_tasks, sum U * ceil(rows / ATTNC_SUM_ROWS),
 * narrow ceil(count / ATTNC_NARROW_COUNT), normalize lead.count, cross_entropy ceil(rows /
 * ATTNC_LOSS_ROWS), rotary ceil(lead.count * T / ATTNC_ROTARY_ROWS), products count * product_tasks
 * of each, monotonic ceil(count / lanes), chunkwise ceil(count * Tq / ATTNC_CHUNK_ROWS), norm and
 * activation ceil(rows / ATTNC_PART_ROWS), add_dropout, adam and square_sums ceil(count /
 * ATTNC_..._NUMBERS). */
typedef struct {
    const char *isa;
    int lanes;
    attnc_kernel_fn attention_fwd, attention_merge, attention_delta, attention_bwd, attention_dbias;
    attnc_kernel_fn attention_row_tangents, attention_gather, hard_fwd;
    attnc_kernel_fn product, products, sum, narrow;
    attnc_kernel_fn normalize_fwd, normalize_bwd; /* scratch: 2 padded D reals, where one is in
                                                     halves */
    attnc_kernel_fn normalize_hvp;                /* scratch: 2 padded D reals */
    attnc_kernel_fn cross_entropy_fwd, cross_entropy_bwd;
    attnc_kernel_fn rotary;
    attnc_kernel_fn norm_fwd, norm_bwd, activation_fwd, activation_bwd, add_dropout;
    attnc_kernel_fn adam, square_sums;
    attnc_kernel_fn monotonic_fwd, monotonic_bwd, chunkwise_fwd, chunkwise_bwd;
    ptrdiff_t query_block; /* query_chunk should be a multiple of it */
    ptrdiff_t bwd_query_block;
    ptrdiff_t row_tangents; /* numbers of a row */
    /* Up to so many queries read keys and values where they lie, and key_splits may be above 1. */
    ptrdiff_t max_unpacked_queries;
    ptrdiff_t (*product_tasks)(const attnc_product *);
    size_t (*fwd_scratch)(const attnc_attention_fwd *); /* attention_fwd, attention_merge */
    size_t (*hard_scratch)(const attnc_problem *);      /* hard_fwd */
    size_t (*bwd_scratch)(const attnc_attention_bwd *); /* the other kernels of attention */
    size_t (*product_scratch)(const attnc_product *);
    size_t (*rotary_scratch)(const attnc_rotary *);
    size_t (*monotonic_scratch)(const attnc_monotonic *);
    size_t (*chunkwise_scratch)(const attnc_chunkwise *);
    /* steps of loops: pack_panels has a task for every `panel` columns of a gate */
    attnc_kernel_fn pack_panels, linear, cells_fwd, cells_bwd;
    ptrdiff_t panel, max_cut_rows;
    ptrdiff_t (*panels_size)(const attnc_panels *); /* in elements */
    ptrdiff_t (*linear_tasks)(const attnc_linear *);
    ptrdiff_t (*cells_tasks)(const attnc_cells *);
    size_t cells_scratch;           /* bytes, for linear, cells_fwd and cells_bwd */
    attnc_kernel_fn transform_keys; /* tasks: count */
    /* tasks: lead.count; scratch fwd_scratch and attend_step_scratch */
    attnc_kernel_fn attend_step_fwd, attend_step_bwd;
    size_t (*attend_step_scratch)(const attnc_problem *);
    attnc_kernel_fn energies_step_fwd, energies_step_bwd, read_step_fwd, read_step_bwd, hard_step;
    /* of energies_step_fwd, energies_step_bwd and both read_steps */
    size_t (*one_query_scratch)(const attnc_problem *);
    size_t (*energies_bwd_scratch)(const attnc_problem *);
    size_t (*read_step_scratch)(const attnc_problem *);
    size_t (*hard_step_scratch)(const attnc_hard_step *);
    ptrdiff_t (*segments)(ptrdiff_t Tk);
    /* Then backward needs no saved_context, delta and attention_delta. */
    int (*rows_fit_a_tile)(ptrdiff_t Tk);
    /* private hooks of the tests: y[i] = f(x[i]) */
    void (*map_exp)(const void *x, void *y, ptrdiff_t n);
    void (*map_exp_negative)(const void *x, void *y, ptrdiff_t n);
    void (*map_expm1)(const void *x, void *y, ptrdiff_t n);
    void (*map_tanh)(const void *x, void *y, ptrdiff_t n);
} attnc_kernels;

/* a / b rounded up: how many pieces of size b hold a elements. */
static inline ptrdiff_t attnc_divide_up(ptrdiff_t a, ptrdiff_t b) { return (a + b - 1) / b; }

/* The element of a leading-axes operand that belongs to n, the C-order index into lead. */
static inline ptrdiff_t attnc_lead_offset(const attnc_lead *lead, const ptrdiff_t *stride,
                                          ptrdiff_t n)
{
    ptrdiff_t offset = 0;
    for (int d = lead->ndim - 1; d >= 0; d--) {
        offset += n % lead->shape[d] * stride[d];
        n /= lead->shape[d];
    }
    return offset;
}

#endif
