/* pool: parallel_for over a small pool of threads.
 *
 * The pool starts at the first call that wants more than one thread and survives fork: a child
 * starts without workers and makes its own when it needs them. One call uses the pool at a time; a
 * second caller, or a nested one, runs its tasks itself instead of waiting, so nothing can
 * deadlock. Which thread runs a task never matters to its result (kernels.h).
 *
 * With ATTNC_NO_THREADS the calling thread runs every task, and nothing here needs a library of
 * threads. The number of threads can be set all the same, and changes nothing.
 *
 * defines: attnc_parallel_for, attnc_threads_for, attnc_get_num_threads, attnc_set_num_threads,
 *          attnc_set_thread_limit, ATTNC_MAX_THREADS, ATTNC_NO_THREADS where the system implies it
 */
#ifndef ATTNC_POOL_H
#define ATTNC_POOL_H

#include "../kernels.h"

/* WebAssembly has threads only where the whole program is built for them (emcc -pthread). */
#if defined(__EMSCRIPTEN__) && !defined(__EMSCRIPTEN_PTHREADS__) && !defined(ATTNC_NO_THREADS)
#define ATTNC_NO_THREADS
#endif

enum { ATTNC_MAX_THREADS = 256 };

/* Runs tasks [0, tasks) on up to `threads` threads; thread t works in scratch + t * stride. */
void attnc_parallel_for(attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks, int threads,
                        char *scratch, size_t stride);

/* How many threads are worth it for `tasks` tasks of `work` multiply-adds in all. */
int attnc_threads_for(ptrdiff_t tasks, double work);

/* The number of threads that calls of this thread may use, 1 .. ATTNC_MAX_THREADS: the limit of the
 * thread where it has one, else the default of the process, which attnc_set_num_threads sets. */
int attnc_get_num_threads(void);
void attnc_set_num_threads(int threads);
/* Sets the limit of the calling thread, 0: none. Returns the one before. */
int attnc_set_thread_limit(int threads);

#endif
