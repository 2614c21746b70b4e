/* plan: a call of an attention function as a vector of 64-bit words, an attribute of the program
 * that XLA runs. Python makes it while it traces, from a call that args.c has checked on arrays of
 * these shapes; the handler (attention.c) puts its buffers in and runs the engine. It holds no
 * pointer and nothing of one process, so that a program may be kept on disk.
 *
 * defines: ATTNC_PLAN_OPERANDS, attnc_plan_operand, attnc_plan_axis, attnc_plan,
 *          attnc_plan_mechanism, ATTNC_PLAN_VERSION, ATTNC_PLAN_WORDS
 */
#ifndef ATTNC_PLAN_H
#define ATTNC_PLAN_H

#include "../engine/attention.h"

/* What may be an array, in the order of the arguments of a handler, which has those that are given:
 * where attnc_inputs has it, how it lies in its buffer, the axes of its own behind the leading
 * ones, and whether these may be 1. The last has no place in attnc_inputs: it is a key of 64 bits,
 * lower half first. */
#define ATTNC_PLAN_OPERANDS(ROW)                                                                   \
    ROW(query, query, REAL_OR_HALF, 1, TQ, DQ, 0)                                                  \
    ROW(key, key, REAL_OR_HALF, 1, TK, DK, 0)                                                      \
    ROW(value, value, REAL_OR_HALF, 1, TK, DV, 0)                                                  \
    ROW(scores, scores, REAL_OR_HALF, 1, TQ, TK, 0)                                                \
    ROW(weight, weight, REAL, 0, DQ, DK, 0)                                                        \
    ROW(score_vector, score_vector, REAL, 0, D, NONE, 0)                                           \
    ROW(query_weight, query_weight, REAL, 0, DQ, D, 0)                                             \
    ROW(key_weight, key_weight, REAL, 0, DK, D, 0)                                                 \
    ROW(score_bias, score_bias, REAL, 0, D, NONE, 0)                                               \
    ROW(scale, scale, SCALE, 0, NONE, NONE, 0)                                                     \
    ROW(bias, bias, REAL_OR_HALF, 1, TQ, TK, 1)                                                    \
    ROW(slope, slope, DOUBLES, 1, NONE, NONE, 0)                                                   \
    ROW(sink, sink, DOUBLES, 1, NONE, NONE, 0)                                                     \
    ROW(center, center, DOUBLES, 1, TQ, NONE, 1)                                                   \
    ROW(mask, mask, BOOLS, 1, TQ, TK, 1)                                                           \
    ROW(key_mask, key_mask, BOOLS, 1, TK, NONE, 1)                                                 \
    ROW(key_lengths, lengths, INTEGERS, 1, NONE, NONE, 0)                                          \
    ROW(query_lengths, query_lengths, INTEGERS, 1, NONE, NONE, 0)                                  \
    ROW(causal_offset, offset, INTEGERS, 1, NONE, NONE, 0)                                         \
    ROW(query_offsets, query_offsets, OFFSETS, 0, OFFSET, NONE, 0)                                 \
    ROW(key_offsets, key_offsets, OFFSETS, 0, OFFSET, NONE, 0)                                     \
    ROW(rng, dropout_key, KEY, 0, TWO, NONE, 0)

#define ATTNC_NAME_OPERAND(NAME, ...) ATTNC_PLAN_##NAME,
typedef enum {
    ATTNC_PLAN_OPERANDS(ATTNC_NAME_OPERAND) ATTNC_PLAN_OPERAND_COUNT
} attnc_plan_operand;
#define ATTNC_PLAN_BIT(NAME) ((int64_t)1 << ATTNC_PLAN_##NAME)

/* What is as long as an axis: a size of the plan, or a number. */
typedef enum {
    ATTNC_AXIS_NONE,
    ATTNC_AXIS_TQ,
    ATTNC_AXIS_TK,
    ATTNC_AXIS_DQ,
    ATTNC_AXIS_DK,
    ATTNC_AXIS_D,
    ATTNC_AXIS_DV,
    ATTNC_AXIS_OFFSET,
    ATTNC_AXIS_TWO
} attnc_plan_axis;

typedef enum {
    ATTNC_PLAN_DOT_PRODUCT,
    ATTNC_PLAN_MULTIPLICATIVE,
    ATTNC_PLAN_ADDITIVE,
    ATTNC_PLAN_COSINE,
    ATTNC_PLAN_GIVEN,
    ATTNC_PLAN_MECHANISMS
} attnc_plan_mechanism;

/* Bits of what is returned, what backward gets gradients of, and what is saved. */
enum { ATTNC_PLAN_CONTEXT = 1, ATTNC_PLAN_WEIGHTS = 2, ATTNC_PLAN_LSE = 4, ATTNC_PLAN_STATS = 8 };
enum { ATTNC_PLAN_SAVED_SCORES = 16, ATTNC_PLAN_SCORES = 32 };

/* Grows with every change of what follows. */
enum { ATTNC_PLAN_VERSION = 1 };

/* Every member is one word. Behind it come the leading axes, `ndim` words. */
typedef struct {
    int64_t version, mechanism, f32;
    int64_t operands; /* bits: which arrays are given */
    int64_t numbers;  /* the same of slope, sink and center where they are numbers */
    int64_t returns;  /* bits: context, weights and lse, or the scores alone */
    int64_t saves;    /* bits: context, stats and scores, or the weights as scores */
    int64_t Tq, Tk, Dq, Dk, D, Dv, offset_count;
    double scale, slope, sink, center, sigma, softcap, dropout;
    int64_t length, query_length, causal_offset, from_start;
    int64_t causal, window, left, right, renormalize, normalizer;
    int64_t ndim;
} attnc_plan;

enum { ATTNC_PLAN_WORDS = sizeof(attnc_plan) / sizeof(int64_t) };

#endif
