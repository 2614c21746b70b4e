/* scratch: see scratch.h. */
#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };

/* Blocks of these sizes are kept: at most SLOTS * KEEP_AT_MOST bytes in all. */
enum { SLOTS = 4, KEEP_FROM = 64 << 10 };
#ifdef __SANITIZE_ADDRESS__
static const size_t KEEP_AT_MOST = 0; /* or a use after release would not be seen */
#else
static const size_t KEEP_AT_MOST = (size_t)8 << 20;
#endif

/* What stands before an aligned block. */
typedef struct {
    void *allocated;
    size_t bytes;
} header;

static atomic_long fail_in;
static atomic_long handed_out;
static _Atomic(void *) slots[SLOTS];
static atomic_uint next_slot;

void attnc_fail_allocation(long n) { atomic_store(&fail_in, n); }
long attnc_allocation_count(void) { return atomic_load(&handed_out); }

static header *header_of(void *block) { return (header *)block - 1; }

static void release_to_system(void *block)
{
    if (block)
        free(header_of(block)->allocated);
}

static int is_kept(size_t bytes) { return bytes >= KEEP_FROM && bytes <= KEEP_AT_MOST; }

/* A block that is wasted on no request much smaller than it is; or NULL. */
static void *take_kept(size_t bytes)
{
    for (int k = 0; k < SLOTS; k++) {
        void *block = atomic_exchange(&slots[k], NULL);
        if (block && header_of(block)->bytes >= bytes && header_of(block)->bytes / 4 <= bytes)
            return block;
        release_to_system(atomic_exchange(&slots[k], block));
    }
    return NULL;
}

/* The block that has been kept for longest makes room. */
static void keep(void *block)
{
    for (int k = 0; k < SLOTS && block; k++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&slots[k], &empty, block))
            block = NULL;
    }
    if (block)
        release_to_system(atomic_exchange(&slots[atomic_fetch_add(&next_slot, 1) % SLOTS], block));
}

void *attnc_allocate(size_t bytes)
{
    if (atomic_load(&fail_in) > 0 && atomic_fetch_sub(&fail_in, 1) == 1)
        return NULL;
    if (bytes > SIZE_MAX - ALIGNMENT - sizeof(header))
        return NULL;
    void *block = is_kept(bytes) ? take_kept(bytes) : NULL;
    if (!block) {
        char *allocated = malloc(bytes + ALIGNMENT + sizeof(header));
        if (!allocated)
            return NULL;
        uintptr_t address = (uintptr_t)allocated + sizeof(header);
        block = allocated + sizeof(header) + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
        *header_of(block) = (header){allocated, bytes};
    }
    atomic_fetch_add(&handed_out, 1);
    return block;
}

void attnc_release(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub(&handed_out, 1);
    if (is_kept(header_of(block)->bytes))
        keep(block);
    else
        release_to_system(block);
}
