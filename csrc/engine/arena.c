/* arena: see arena.h. */
#include "arena.h"

#include "scratch.h"

/* What stands before a piece that is a block of its own. It takes ATTNC_ARENA_ALIGNMENT bytes. */
typedef struct {
    void *before;
} link;

void *attnc_take_block(attnc_arena *arena, size_t bytes)
{
    if (__builtin_add_overflow(bytes, (size_t)ATTNC_ARENA_ALIGNMENT, &bytes))
        return NULL;
    char *block = attnc_allocate(bytes);
    if (!block)
        return NULL;
    ((link *)(void *)block)->before = arena->chain;
    arena->chain = block;
    return block + ATTNC_ARENA_ALIGNMENT;
}

void attnc_give_back(attnc_arena *arena)
{
    while (arena->chain) {
        void *block = arena->chain;
        arena->chain = ((link *)block)->before;
        attnc_release(block);
    }
}
