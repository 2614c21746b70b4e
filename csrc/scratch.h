/* scratch: memory for kernels, aligned to 64 bytes.
 *
 * Every block of the package comes through attnc_allocate, so that a test can make any of them
 * fail. The block of the last call is kept for the next one, up to a limit: asking the system for
 * it anew would cost more than a small call.
 *
 * defines: attnc_allocate, attnc_release, attnc_scratch_take, attnc_scratch_give,
 *          attnc_fail_allocation, attnc_allocation_count
 */
#ifndef ATTNC_SCRATCH_H
#define ATTNC_SCRATCH_H

#include <stddef.h>

/* bytes bytes aligned to 64, or NULL. attnc_release takes NULL too. */
void *attnc_allocate(size_t bytes);
void attnc_release(void *block);

/* The same, but reuses the block last given back where it is large enough. */
void *attnc_scratch_take(size_t bytes);
void attnc_scratch_give(void *block);

/* For tests: the n-th allocation from now on fails (n >= 1; 0: none), and how many blocks live. */
void attnc_fail_allocation(long n);
long attnc_allocation_count(void);

#endif
