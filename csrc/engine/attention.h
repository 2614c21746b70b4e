/* attention: attention over the caller's memory, forward and backward, with every score and every
 * option. Nothing here knows Python: it is what the module of NumPy and any other face stand on.
 *
 *     s_ij    = softcap(score(q_i, k_j)) - slope |j - p| + bias_ij    -inf where a mask excludes it
 *     weights = exp(s_ij - lse_i) g_ij            lse_i = log(exp(sink) + sum_j exp(s_ij))
 *     context = dropout(weights) value            g_ij = exp(-(j - center_i)^2 / (2 sigma^2)), or 1
 * or, where attention is hard, the value of one key that is chosen by the weights.
 *
 * The caller describes its arrays (attnc_inputs), says where results go (attnc_outputs,
 * attnc_gradients) and who works (attnc_executor, team.h). A call plans and runs: it decides how to
 * cut the work, takes memory for what lies between kernels, hands them to the threads, and gives
 * the memory back. It fails for want of memory only, by -1; what the results hold then means
 * nothing.
 *
 * Nobody checks here: shapes fit, lengths lie in 0..Tk and 0..Tq, and offsets of sequences grow
 * from 0 to Tq and Tk, or memory beside the arrays is read.
 *
 * Scores may be had alone, and their gradients given: then there is no value and nothing follows
 * the score.
 *
 * defines: attnc_operand, attnc_mechanism, attnc_dot_product, attnc_multiplicative, attnc_additive,
 *          attnc_cosine, attnc_given_scores, attnc_inputs, attnc_saves, attnc_outputs,
 *          attnc_tangents, attnc_output_tangents, attnc_incoming, attnc_gradients,
 *          attnc_what_is_saved, attnc_attention_work, attnc_attention_forward,
 *          attnc_attention_jvp, attnc_attention_backward,
 *          attnc_attention_hvp
 */
#ifndef ATTNC_ATTENTION_H
#define ATTNC_ATTENTION_H

#include "../kernels.h"
#include "team.h"

/* An array of the caller's, with all of its axes. Where the call has larger leading axes, or more
 * queries or keys than a mask or bias has, axes of size 1 broadcast. */
typedef struct {
    const void *data;        /* NULL: not given */
    const ptrdiff_t *shape;  /* leading axes, as many as the call has, then its own */
    const ptrdiff_t *stride; /* in elements; NULL: C-contiguous */
    attnc_stored stored;     /* how real numbers lie there */
} attnc_operand;

/* How a score comes about. */
typedef struct attnc_mechanism attnc_mechanism;
extern const attnc_mechanism attnc_dot_product;    /* scale * q_i . k_j */
extern const attnc_mechanism attnc_multiplicative; /* q_i W k_j */
extern const attnc_mechanism attnc_additive;       /* v . tanh(q_i Wq + k_j Wk + b) */
extern const attnc_mechanism attnc_cosine;         /* scale * q_i . k_j / (|q_i| |k_j|) */
extern const attnc_mechanism attnc_given_scores;   /* the caller's own */

/* What attention is computed from. All zero is: nothing given, every option off; but length,
 * query_length and causal_offset, and scale where there is one, have to be set. */
typedef struct {
    const attnc_mechanism *mechanism;
    int f32;         /* computed in float, else in double */
    attnc_lead lead; /* leading axes after broadcasting */
    ptrdiff_t Tq, Tk, Dv;
    ptrdiff_t D; /* size of the rows that are compared: of key; additive: of score_vector */

    /* Real arrays whose last axis is contiguous. These and the bias, and what belongs to them in
     * outputs and gradients, may be stored in halves where the call is computed in float; all other
     * arrays hold what is computed in. */
    attnc_operand query, key, value; /* (..., Tq, Dq), (..., Tk, Dk), (..., Tk, Dv) */
    attnc_operand scores;            /* (..., Tq, Tk): given scores, which need no query and key */
    double scale;                    /* dot product, cosine */
    attnc_operand weight;            /* (Dq, Dk): multiplicative */
    attnc_operand score_vector;      /* (D): additive */
    attnc_operand query_weight, key_weight, score_bias; /* (Dq, D), (Dk, D), (D): additive, or not
                                                           given */

    /* Which pairs are allowed, and what is added to their score. */
    attnc_operand mask;          /* bytes (..., Tq, Tk), any strides */
    attnc_operand key_mask;      /* bytes (..., Tk), any stride */
    attnc_operand lengths;       /* int64 (...) of keys */
    attnc_operand query_lengths; /* int64 (...) of queries: those behind are padding */
    attnc_operand offset; /* int64 (...), for causal, window, slope: query i is at i + offset */
    attnc_operand bias;   /* real (..., Tq, Tk), last axis contiguous or 1 */
    attnc_operand slope;  /* double (...): taken off the score for each step between j and p */
    attnc_operand sink;   /* double (...): a logit of every query that has no value */
    attnc_operand center; /* double (..., Tq): the window counts from floor(center) */
    double sigma;         /* > 0, with a center: of the Gaussian around it; infinity: none */
    int renormalize;      /* it is part of the softmax, not a factor of the weights */
    /* where lengths, query_lengths, offset are not given: Tk, Tq, Tk - Tq say */
    ptrdiff_t length, query_length, causal_offset;
    int causal, window;
    ptrdiff_t left, right; /* of the window; -1: open */

    /* A sparse one: no sink, center, lse and packed batch. */
    attnc_normalizer normalizer;
    double softcap, dropout; /* 0: none */
    uint64_t dropout_key;

    /* Hard attention: one key a query, and how it is chosen; NULL: attention is soft. Then there
     * are no sink and no dropout. */
    const attnc_choice *choice;

    /* A packed batch: `sequences` of them behind one another along the axes of time. Queries
     * query_offsets[b] .. query_offsets[b + 1] - 1 meet the keys of the same sequence, and both are
     * counted from its first one. Then there are no mask, lengths, query_lengths, offset and bias,
     * weights and scores of the caller's, and length and query_length are not read. NULL: one batch
     * of sequences of Tq and Tk. */
    const int64_t *query_offsets, *key_offsets; /* (sequences + 1) */
    ptrdiff_t sequences;
    int from_start; /* causal_offset holds for all; else it is Tk - Tq of each sequence */
} attnc_inputs;

/* Which arrays backward needs of forward beside its outputs: how many columns they have. */
typedef struct {
    /* (lead, Tq, columns) each; -1: none. With a sparse normalizer scores are the weights. */
    ptrdiff_t context, stats, scores;
    ptrdiff_t packed_scores; /* scores of a packed batch: (lead.count, so many); 0: none */
} attnc_saves;
attnc_saves attnc_what_is_saved(const attnc_inputs *in);

/* Where forward writes: C-contiguous arrays, overwritten; NULL: not wanted. */
typedef struct {
    attnc_result context;                             /* (lead, Tq, Dv), always */
    attnc_result weights;                             /* (lead, Tq, Tk) */
    void *lse;                                        /* (lead, Tq) */
    void *saved_context, *saved_stats, *saved_scores; /* as attnc_what_is_saved says; the first is
                                                         what context gets */
    /* Hard attention, (lead, Tq) each, in the place of weights and lse; it saves stats, and
     * backward takes index and entropy too. */
    int64_t *index;
    void *log_probability, *entropy;
    attnc_result scores; /* (lead, Tq, Tk): the scores alone, 0 where a pair is not allowed; then
                            nothing else, and a batch that is not packed */
} attnc_outputs;

/* Forward mode: the tangents of the arrays of attnc_inputs, each of its argument's whole shape and
 * stored as that may be; data NULL, or 0: it does not move. Those of slope, sink and center are
 * double. */
typedef struct {
    attnc_operand query, key, value, scores, bias;
    attnc_operand weight, score_vector, query_weight, key_weight, score_bias;
    attnc_operand slope, sink, center;
    double scale;
} attnc_tangents;

/* Where the tangents of the outputs go: as the outputs of the same names. */
typedef struct {
    attnc_result context, weights;
    void *lse;
    void *log_probability, *entropy; /* hard attention */
    attnc_result scores;
} attnc_output_tangents;

/* What backward starts from: gradients of the outputs, where there are any, and what was saved. */
typedef struct {
    attnc_operand context, weights, lse; /* of their output's whole shape; the last axis of the
                                            first two, which may be in halves, is contiguous */
    const void *saved_context, *saved_stats, *saved_scores; /* NULL: it was not to be saved */
    attnc_operand log_probability, entropy; /* hard attention, in the place of weights and lse */
    const int64_t *saved_index;
    const void *saved_entropy;
    attnc_operand scores; /* of scores that were had alone: (lead, Tq, Tk), which may be in halves;
                             not read where a pair is not allowed. Then nothing else. */
} attnc_incoming;

/* Where backward writes: C-contiguous arrays of their argument's own shape, overwritten; NULL: not
 * wanted. */
typedef struct {
    attnc_result query, key, value, scores, bias;
    void *scale, *weight, *score_vector, *query_weight, *key_weight, *score_bias, *slope, *sink;
    void *center;
    int zeroed; /* scores and bias hold zeros already: memory from calloc */
} attnc_gradients;

/* How much work a call is, in multiply-adds (work.h). */
double attnc_attention_work(const attnc_inputs *in, int backward);

/* executor may be NULL. 0, or -1 for want of memory. */
int attnc_attention_forward(const attnc_inputs *in, const attnc_outputs *out,
                            const attnc_executor *executor);
/* The outputs and their tangents, in one pass. */
int attnc_attention_jvp(const attnc_inputs *in, const attnc_tangents *tangents,
                        const attnc_outputs *out, const attnc_output_tangents *moved,
                        const attnc_executor *executor);
int attnc_attention_backward(const attnc_inputs *in, const attnc_incoming *incoming,
                             const attnc_gradients *gradients, const attnc_executor *executor);
/* Second order, forward over reverse: the tangents of what attnc_attention_backward writes, in
 * `gradients`, from those of the arrays and, in dincoming, of the incoming gradients. Nothing that
 * is saved is read: the forward pass runs again. An incoming gradient may be missing where its
 * tangent is there, and the other way round. */
int attnc_attention_hvp(const attnc_inputs *in, const attnc_tangents *tangents,
                        const attnc_incoming *incoming, const attnc_incoming *dincoming,
                        const attnc_gradients *gradients, const attnc_executor *executor);

#endif
