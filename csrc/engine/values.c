/* values: see values.h. */
#include "values.h"

#include <stdio.h>

int attnc_check_lengths(const char *name, const int64_t *lengths, ptrdiff_t count, ptrdiff_t T,
                        const char *what, char *said)
{
    for (ptrdiff_t k = 0; k < count; k++)
        if (lengths[k] < 0 || lengths[k] > T) {
            snprintf(said, ATTNC_SAID, "%s must lie in 0..%td, the number of %s, got %lld", name, T,
                     what, (long long)lengths[k]);
            return -1;
        }
    return 0;
}

int attnc_check_offsets(const char *name, const int64_t *offsets, ptrdiff_t count, ptrdiff_t T,
                        const char *what, char *said)
{
    if (offsets[0] != 0) {
        snprintf(said, ATTNC_SAID, "%s must begin with 0, got %lld", name, (long long)offsets[0]);
        return -1;
    }
    for (ptrdiff_t b = 1; b < count; b++)
        if (offsets[b - 1] > offsets[b]) {
            snprintf(said, ATTNC_SAID, "%s must not decrease, got %lld and then %lld at index %td",
                     name, (long long)offsets[b - 1], (long long)offsets[b], b);
            return -1;
        }
    if (offsets[count - 1] == T)
        return 0;
    snprintf(said, ATTNC_SAID,
             "%s must end with %td, the number of %s, got %lld; offsets of lengths are "
             "np.append(0, np.cumsum(lengths))",
             name, T, what, (long long)offsets[count - 1]);
    return -1;
}
