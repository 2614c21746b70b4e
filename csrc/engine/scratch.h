/* scratch: memory for kernels and between them, aligned to 64 bytes.
 *
 * Every block of the package comes through attnc_allocate, so that a test can make any of them
 * fail. Some blocks, 128 MB at most, are kept for the next call: the system hands out fresh memory
 * page by page at the first touch, which would cost more than many a call, and a fifth of the time
 * of a matrix product into 60 MB.
 *
 * defines: attnc_allocate, attnc_release, attnc_is_kept, attnc_block_size, attnc_fail_allocation,
 *          attnc_allocation_count
 */
#ifndef ATTNC_SCRATCH_H
#define ATTNC_SCRATCH_H

#include <stddef.h>

/* bytes bytes aligned to 64, or NULL. attnc_release takes NULL too. */
void *attnc_allocate(size_t bytes);
void attnc_release(void *block);

/* Whether a block of that size is kept when it is released; what a block has room for. */
int attnc_is_kept(size_t bytes);
size_t attnc_block_size(void *block);

/* For tests: the n-th allocation from now on fails (n >= 1; 0: none), and how many blocks are
 * handed out. */
void attnc_fail_allocation(long n);
long attnc_allocation_count(void);

#endif
