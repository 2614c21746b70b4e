/* scratch: see scratch.h. */
#define _DEFAULT_SOURCE /* for madvise */
#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

enum { ALIGNMENT = 64, PAGE = 4096, HUGE_FROM = 4 << 20 };

/* Blocks of KEEP_FROM to KEEP_AT_MOST bytes are kept, up to SLOTS of them and KEEP_IN_ALL bytes. */
enum { SLOTS = 32, KEEP_FROM = 64 << 10, KEEP_AT_MOST = 64 << 20 };
#ifdef __SANITIZE_ADDRESS__
enum { KEEP_IN_ALL = 0 }; /* or a use after release would not be seen */
#else
enum { KEEP_IN_ALL = 128 << 20 };
#endif

/* What stands before an aligned block. */
typedef struct {
    void *allocated;
    size_t bytes;
} header;

static atomic_long fail_in;
static atomic_long handed_out;
static _Atomic(void *) slots[SLOTS];
static atomic_size_t kept_bytes;
static atomic_uint next_slot;

void attnc_fail_allocation(long n) { atomic_store(&fail_in, n); }
long attnc_allocation_count(void) { return atomic_load(&handed_out); }

static header *header_of(void *block) { return (header *)block - 1; }
size_t attnc_block_size(void *block) { return header_of(block)->bytes; }
int attnc_is_kept(size_t bytes) { return bytes >= KEEP_FROM && bytes <= KEEP_AT_MOST; }

/* The block of slot k, if any, is now the caller's. */
static void *empty_slot(int k)
{
    void *block = atomic_exchange(&slots[k], NULL);
    if (block)
        atomic_fetch_sub(&kept_bytes, attnc_block_size(block));
    return block;
}

/* Into an empty slot, if there is one and the sum allows it. Returns whether. */
static int put_in_slot(void *block)
{
    const size_t bytes = attnc_block_size(block);
    if (atomic_fetch_add(&kept_bytes, bytes) + bytes <= KEEP_IN_ALL)
        for (int k = 0; k < SLOTS; k++) {
            void *empty = NULL;
            if (atomic_compare_exchange_strong(&slots[k], &empty, block))
                return 1;
        }
    atomic_fetch_sub(&kept_bytes, bytes);
    return 0;
}

static void release_to_system(void *block)
{
    if (block)
        free(header_of(block)->allocated);
}

/* A kept block that is wasted on no request much smaller than it is; or NULL. */
static void *take_kept(size_t bytes)
{
    for (int k = 0; k < SLOTS; k++) {
        void *block = empty_slot(k);
        if (block && attnc_block_size(block) >= bytes && attnc_block_size(block) / 4 <= bytes)
            return block;
        if (block && !put_in_slot(block))
            release_to_system(block);
    }
    return NULL;
}

/* Others make room, in turn. */
static void keep(void *block)
{
    for (int tries = 0; tries < SLOTS; tries++) {
        if (put_in_slot(block))
            return;
        release_to_system(empty_slot((int)(atomic_fetch_add(&next_slot, 1) % SLOTS)));
    }
    release_to_system(block);
}

/* Memory of several megabytes in pages of two: the system hands them out faster, and the processor
 * finds them at once. NumPy does the same. */
static void prefer_huge_pages(void *block, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const uintptr_t begin = ((uintptr_t)block + PAGE - 1) / PAGE * PAGE;
    const uintptr_t end = ((uintptr_t)block + bytes) / PAGE * PAGE;
    if (bytes >= HUGE_FROM)
        madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)block, (void)bytes;
#endif
}

void *attnc_allocate(size_t bytes)
{
    if (atomic_load(&fail_in) > 0 && atomic_fetch_sub(&fail_in, 1) == 1)
        return NULL;
    if (bytes > SIZE_MAX - ALIGNMENT - sizeof(header))
        return NULL;
    void *block = attnc_is_kept(bytes) ? take_kept(bytes) : NULL;
    if (!block) {
        char *allocated = malloc(bytes + ALIGNMENT + sizeof(header));
        if (!allocated)
            return NULL;
        uintptr_t address = (uintptr_t)allocated + sizeof(header);
        block = allocated + sizeof(header) + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
        *header_of(block) = (header){allocated, bytes};
        prefer_huge_pages(block, bytes);
    }
    atomic_fetch_add(&handed_out, 1);
    return block;
}

void attnc_release(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub(&handed_out, 1);
    if (attnc_is_kept(attnc_block_size(block)))
        keep(block);
    else
        release_to_system(block);
}
