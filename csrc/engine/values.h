/* values: what the numbers in lengths and offsets, and constants, have to be, and what is said
 * where they are not: the rules that no shape shows, for every face of the engine.
 *
 * Each check returns 0, or -1 with the rest of the message in `said`: what comes behind
 * "<function>: ".
 *
 * defines: ATTNC_SAID, ATTNC_FURTHEST, attnc_check_lengths, attnc_check_offsets,
 *          attnc_cut_offset, attnc_range, attnc_scale_range, attnc_softcap_range, attnc_is_in
 */
#ifndef ATTNC_VALUES_H
#define ATTNC_VALUES_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTNC_SAID = 512 }; /* bytes of a message */

/* Lengths in 0..T, the number of `what`. */
int attnc_check_lengths(const char *name, const int64_t *lengths, ptrdiff_t count, ptrdiff_t T,
                        const char *what, char *said);

/* Offsets of sequences, at least one of them: from 0, growing, to T, the number of `what`. */
int attnc_check_offsets(const char *name, const int64_t *offsets, ptrdiff_t count, ptrdiff_t T,
                        const char *what, char *said);

/* Positions further than that are all the same: no key is there. */
static const int64_t ATTNC_FURTHEST = (int64_t)1 << 60;
static inline int64_t attnc_cut_offset(int64_t offset)
{
    return offset > ATTNC_FURTHEST    ? ATTNC_FURTHEST
           : offset < -ATTNC_FURTHEST ? -ATTNC_FURTHEST
                                      : offset;
}

/* A constant must be 0 or a number of the computing dtype that leaves room for what the kernels
 * multiply it with; one that became infinite or subnormal would make rows NaN or wrong. */
typedef struct {
    double least, most; /* of its magnitude */
    const char *text;
} attnc_range;
/* The scale multiplies the query before the key does, the cap's inverse the scores. */
static inline attnc_range attnc_scale_range(int f32)
{
    return f32 ? (attnc_range){1e-30, 1e30, "1e-30..1e30"}
               : (attnc_range){1e-300, 1e300, "1e-300..1e300"};
}
static inline attnc_range attnc_softcap_range(int f32)
{
    return f32 ? (attnc_range){FLT_MIN, 1 / (double)FLT_MIN, "1.2e-38..8.5e37"}
               : (attnc_range){DBL_MIN, 1 / DBL_MIN, "2.3e-308..4.4e307"};
}
static inline int attnc_is_in(attnc_range range, double value)
{
    return value == 0 || (fabs(value) >= range.least && fabs(value) <= range.most);
}

#endif
