/* executor: see executor.h. */
#include "executor.h"

#include "call.h"
#include "../engine/pool.h"

#ifdef ATTNC_NO_THREADS

attnc_executor attnc_xla_executor(const attnc_ffi_call *call)
{
    (void)call;
    return (attnc_executor){.threads = 1};
}

#else

#include <pthread.h>
#include <stdatomic.h>

/* Tasks [0, tasks) of a kernel in chunks, which threads take one after the other. It is in use as
 * long as somebody holds it, the caller or a task of the pool; but kernel, args and scratch are the
 * caller's, and only touched by who has taken a chunk, for which the caller waits. */
typedef struct {
    attnc_kernel_fn kernel;
    const void *args;
    ptrdiff_t tasks, chunks;
    char *scratch;
    size_t stride;
    atomic_int holders, threads; /* threads: how many have joined; each has its own scratch */
    atomic_ptrdiff_t taken, done;
    pthread_mutex_t lock; /* of `done` reaching `chunks` */
    pthread_cond_t all_done;
    atomic_int in_use;
} job;

/* Calls at once that have helpers. Tasks of the pool that start late hold a job after its call has
 * returned; where they hold all, the pool is busy and more of them would not help. */
enum { JOBS = 64 };
static job jobs[JOBS];

/* Threads take at most so many chunks each, unless others are slower. */
static const ptrdiff_t CHUNKS_PER_THREAD = 8;

/* A job for one holder; NULL where there is none. */
static job *take_job(void)
{
    for (int k = 0; k < JOBS; k++) {
        job *j = &jobs[k];
        int unused = 0;
        if (!atomic_compare_exchange_strong(&j->in_use, &unused, 1))
            continue;
        if (pthread_mutex_init(&j->lock, NULL) == 0) {
            if (pthread_cond_init(&j->all_done, NULL) == 0) {
                atomic_store(&j->holders, 1);
                return j;
            }
            pthread_mutex_destroy(&j->lock);
        }
        atomic_store(&j->in_use, 0);
        return NULL;
    }
    return NULL;
}

static void let_go(job *j)
{
    if (atomic_fetch_sub(&j->holders, 1) > 1)
        return;
    pthread_cond_destroy(&j->all_done);
    pthread_mutex_destroy(&j->lock);
    atomic_store(&j->in_use, 0);
}

static void work_on(job *j)
{
    char *scratch = NULL;
    for (;;) {
        const ptrdiff_t chunk = atomic_fetch_add(&j->taken, 1);
        if (chunk >= j->chunks)
            return;
        if (!scratch)
            scratch = j->scratch + (size_t)atomic_fetch_add(&j->threads, 1) * j->stride;
        j->kernel(j->args, j->tasks * chunk / j->chunks, j->tasks * (chunk + 1) / j->chunks,
                  scratch);
        if (atomic_fetch_add(&j->done, 1) == j->chunks - 1) {
            pthread_mutex_lock(&j->lock);
            pthread_cond_signal(&j->all_done);
            pthread_mutex_unlock(&j->lock);
        }
    }
}

static void help(void *data)
{
    const fenv_t before = attnc_ffi_arithmetic_begin();
    work_on(data);
    attnc_ffi_arithmetic_end(&before);
    let_go(data);
}

/* Asks the pool for a helper; without one the others have more to do. */
static void ask_for_help(const attnc_ffi_call *call, job *j)
{
    attnc_ffi_schedule_args args = {sizeof args, NULL, call->context, help, j};
    atomic_fetch_add(&j->holders, 1);
    attnc_ffi_error *error = call->api->schedule(&args);
    if (!error)
        return;
    attnc_ffi_error_destroy_args destroy = {sizeof destroy, NULL, error};
    call->api->error_destroy(&destroy);
    let_go(j);
}

static void parallel_for(void *context, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                         double work, int threads, char *scratch, size_t stride)
{
    const int worth = tasks > 1 ? attnc_threads_for(tasks, work) : 1;
    job *j = NULL;
    threads = worth < threads ? worth : threads;
    if (threads <= 1 || !(j = take_job())) {
        kernel(args, 0, tasks, scratch);
        return;
    }
    const ptrdiff_t most = threads * CHUNKS_PER_THREAD;
    j->kernel = kernel;
    j->args = args;
    j->tasks = tasks;
    j->chunks = tasks < most ? tasks : most;
    j->scratch = scratch;
    j->stride = stride;
    atomic_store(&j->threads, 0);
    atomic_store(&j->taken, 0);
    atomic_store(&j->done, 0);
    for (int t = 1; t < threads; t++)
        ask_for_help(context, j);
    work_on(j);
    pthread_mutex_lock(&j->lock);
    while (atomic_load(&j->done) < j->chunks)
        pthread_cond_wait(&j->all_done, &j->lock);
    pthread_mutex_unlock(&j->lock);
    let_go(j);
}

attnc_executor attnc_xla_executor(const attnc_ffi_call *call)
{
    int64_t threads = 0;
    if (call->api->struct_size < sizeof *call->api) /* an XLA that has no pool to offer */
        return (attnc_executor){.threads = 1};
    attnc_ffi_num_threads_args args = {sizeof args, NULL, call->context, &threads};
    attnc_ffi_error *error = call->api->num_threads(&args);
    if (error) { /* there is no pool */
        attnc_ffi_error_destroy_args destroy = {sizeof destroy, NULL, error};
        call->api->error_destroy(&destroy);
        threads = 0;
    }
    const int own = attnc_get_num_threads();
    /* The calling thread is one more. */
    return (attnc_executor){.threads = threads + 1 < own ? (int)threads + 1 : own,
                            .parallel_for = parallel_for,
                            .context = (void *)(uintptr_t)call};
}

#endif
