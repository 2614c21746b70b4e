/* values: what the numbers in lengths and offsets have to be, and what is said where they are not:
 * the rules that no shape shows, for every face of the engine.
 *
 * Each function returns 0, or -1 with the rest of the message in `said`: what comes behind
 * "<function>: ".
 *
 * defines: ATTNC_SAID, ATTNC_FURTHEST, attnc_check_lengths, attnc_check_offsets,
 *          attnc_cut_offset
 */
#ifndef ATTNC_VALUES_H
#define ATTNC_VALUES_H

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

#endif
