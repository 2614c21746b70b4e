/* arena: the memory of one call. Pieces are taken one by one and given back all at once, so nobody
 * has to keep a list of them.
 *
 * defines: attnc_arena, attnc_arena_in, attnc_take, attnc_give_back
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

/* An arena without pieces. first: so many bytes, aligned to 64, that outlive the arena. */
attnc_arena attnc_arena_in(void *first, size_t bytes);

/* Room for count times size bytes, aligned to 64; NULL for want of memory, or where the product is
 * more than a size can say. */
void *attnc_take(attnc_arena *arena, size_t count, size_t size);

/* Every piece at once. */
void attnc_give_back(attnc_arena *arena);

#endif
