/* scratch: see scratch.h. */
#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

enum { ALIGNMENT = 64 };
static const size_t KEEP_AT_MOST = (size_t)16 << 20;

/* What stands before an aligned block. */
typedef struct {
    void *allocated;
    size_t bytes;
} header;

static atomic_long fail_in;
static atomic_long live;
static _Atomic(void *) kept;

void attnc_fail_allocation(long n)
{
    attnc_release(atomic_exchange(&kept, NULL)); /* or a kept block would hide the allocation */
    atomic_store(&fail_in, n);
}

long attnc_allocation_count(void) { return atomic_load(&live) - (atomic_load(&kept) != NULL); }

static header *header_of(void *block) { return (header *)block - 1; }

void *attnc_allocate(size_t bytes)
{
    if (atomic_load(&fail_in) > 0 && atomic_fetch_sub(&fail_in, 1) == 1)
        return NULL;
    if (bytes > SIZE_MAX - ALIGNMENT - sizeof(header))
        return NULL;
    char *allocated = malloc(bytes + ALIGNMENT + sizeof(header));
    if (!allocated)
        return NULL;
    uintptr_t address = (uintptr_t)allocated + sizeof(header);
    char *block = allocated + sizeof(header) + (ALIGNMENT - address % ALIGNMENT) % ALIGNMENT;
    *header_of(block) = (header){allocated, bytes};
    atomic_fetch_add(&live, 1);
    return block;
}

void attnc_release(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub(&live, 1);
    free(header_of(block)->allocated);
}

void *attnc_scratch_take(size_t bytes)
{
    void *block = atomic_exchange(&kept, NULL);
    if (block && header_of(block)->bytes >= bytes)
        return block;
    attnc_release(block);
    return attnc_allocate(bytes);
}

void attnc_scratch_give(void *block)
{
    if (block && header_of(block)->bytes <= KEEP_AT_MOST)
        block = atomic_exchange(&kept, block);
    attnc_release(block);
}
