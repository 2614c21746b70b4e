/* team: who works on a call, and in what memory.
 *
 * defines: attnc_executor, attnc_team, attnc_team_begin, attnc_team_run, attnc_team_product,
 *          attnc_tasks_for, attnc_team_block, attnc_team_end
 */
#ifndef ATTNC_TEAM_H
#define ATTNC_TEAM_H

#include "../kernels.h"
#include "arena.h"

/* How the caller wants tasks to be spread over threads. All zero, or no executor at all: over the
 * pool's, as many as attnc_get_num_threads says. No bit of a result depends on it. */
typedef struct {
    int threads; /* at most so many; 0: no cap of its own */
    /* The caller's own threads in place of the pool; NULL: the pool. Calls the kernel for ranges
     * that make up [0, tasks) and returns when all are done. Calls at one time are `threads` at
     * most and work in different places, scratch + t * stride with t < threads. work: multiply-adds
     * of all tasks, by which attnc_threads_for says how many threads are worth it. */
    void (*parallel_for)(void *context, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                         double work, int threads, char *scratch, size_t stride);
    void *context;
} attnc_executor;

/* One call at work: kernels of one type, their threads, and the memory between them. */
typedef struct {
    const attnc_kernels *k;
    size_t item; /* bytes of an element */
    attnc_executor executor;
    int limit_before;
    attnc_arena arena;
    char *scratch; /* of kernels, for every thread; grows with what they ask for */
    size_t scratch_bytes;
} attnc_team;

/* executor may be NULL. Every team that begins ends, whatever fails between. */
void attnc_team_begin(attnc_team *t, int f32, const attnc_executor *executor, attnc_arena arena);
void attnc_team_end(attnc_team *t);

/* A kernel over its tasks, with so many bytes of scratch a thread. work: multiply-adds in all
 * (work.h). -1 for want of memory. */
int attnc_team_run(attnc_team *t, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                   double work, size_t scratch);

int attnc_team_product(attnc_team *t, const attnc_product *p);

/* Into how many tasks it pays to cut this work: several for each of the threads that it gets, one
 * where it gets one. work: multiply-adds. */
ptrdiff_t attnc_tasks_for(double work);

/* Room for (a, b, c) elements until the team ends, or NULL. */
void *attnc_team_block(attnc_team *t, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c);

#endif
