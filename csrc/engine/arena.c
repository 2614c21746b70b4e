/* arena: see arena.h. */
#include "arena.h"

#include "scratch.h"

enum { ALIGNMENT = 64 };

/* What stands before a piece that is a block of its own. It takes ALIGNMENT bytes. */
typedef struct {
    void *before;
} link;

attnc_arena attnc_arena_in(void *first, size_t bytes) { return (attnc_arena){first, bytes, NULL}; }

void *attnc_take(attnc_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)ALIGNMENT, &bytes))
        return NULL;
    const size_t rounded = (bytes - 1) / ALIGNMENT * ALIGNMENT;
    if (arena->next && rounded <= arena->left) {
        char *piece = arena->next;
        arena->next += rounded;
        arena->left -= rounded;
        return piece;
    }
    char *block = attnc_allocate(bytes);
    if (!block)
        return NULL;
    ((link *)(void *)block)->before = arena->chain;
    arena->chain = block;
    return block + ALIGNMENT;
}

void attnc_give_back(attnc_arena *arena)
{
    while (arena->chain) {
        void *block = arena->chain;
        arena->chain = ((link *)block)->before;
        attnc_release(block);
    }
}
