/* arena: the memory of one call. Pieces are taken one by one and given back all at once, so nobody
 * has to keep a list of them.
 *
 * defines: attnc_arena, attnc_arena_in, attnc_take, attnc_take_block, attnc_give_back
 */
#ifndef ATTNC_ARENA_H
#define ATTNC_ARENA_H

#include <stddef.h>

/* Small pieces come out of memory of the caller's, on its stack; each of the others is a block of
 * scratch.c in a chain, however many there are. */
typedef struct {
    char *next;  /* free memory of the caller's */
    size_t left; /* bytes of it */
    void *chain; /* the last block, which leads to the one before */
} attnc_arena;

enum { ATTNC_ARENA_ALIGNMENT = 64 };

/* An arena without pieces. first: so many bytes, a multiple of 64 and aligned to
 * it, that outlive the arena. */
static inline attnc_arena attnc_arena_in(void *first, size_t bytes)
{
    return (attnc_arena){first, bytes, NULL};
}

/* A piece that is a block of its own, or NULL for want of memory. */
void *attnc_take_block(attnc_arena *arena, size_t bytes);

/* Room for count times size bytes, aligned to 64; NULL for want of memory, or where the product is
 * more than a size can say. */
static inline void *attnc_take(attnc_arena *arena, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    if (!arena->next || bytes > arena->left)
        return attnc_take_block(arena, bytes);
    /* what is left is a multiple of 64, so that there is room for the rounding */
    const size_t rounded =
        (bytes + ATTNC_ARENA_ALIGNMENT - 1) / ATTNC_ARENA_ALIGNMENT * ATTNC_ARENA_ALIGNMENT;
    char *piece = arena->next;
    arena->next += rounded;
    arena->left -= rounded;
    return piece;
}

/* Every piece at once. */
void attnc_give_back(attnc_arena *arena);

#endif
