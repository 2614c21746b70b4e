/* pool: see pool.h. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* Below this many multiply-adds a call stays on its thread: waking another one costs about 20 us,
 * in which a core does some 10^6 of them. */
static const double WORK_PER_THREAD = 1e6;

/* So long a thread looks for the next job, or for the end of this one, before it sleeps: calls come
 * one after the other, and waking up takes longer than a small one. */
static const long SPIN_NANOSECONDS = 50000;

static atomic_int wanted_threads = 1;

/* The call that the workers help with. Written by its caller under `lock`. */
typedef struct {
    attnc_kernel_fn kernel;
    const void *args;
    ptrdiff_t tasks;
    char *scratch;
    size_t stride;
    int helpers; /* how many workers may join; worker w joins as thread w + 1 if w < helpers */
} job;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_posted = PTHREAD_COND_INITIALIZER;
static pthread_cond_t job_left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
/* Written under `lock`: */
static job current;
static atomic_ulong posted; /* counts jobs, so that a worker knows a new one */
static int workers;         /* threads started */
static atomic_int inside;   /* workers inside the current job */
static int busy;
static atomic_ptrdiff_t next_task;

int attnc_get_num_threads(void) { return atomic_load(&wanted_threads); }
void attnc_set_num_threads(int threads) { atomic_store(&wanted_threads, threads); }

int attnc_threads_for(ptrdiff_t tasks, double work)
{
    int threads = attnc_get_num_threads();
    if (threads > tasks)
        threads = tasks > 0 ? (int)tasks : 1;
    if (work < WORK_PER_THREAD * threads)
        threads = work < 2 * WORK_PER_THREAD ? 1 : (int)(work / WORK_PER_THREAD);
    return threads;
}

static inline void pause_a_little(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int time_is_up(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - start->tv_sec) * 1000000000L + now.tv_nsec - start->tv_nsec >
           SPIN_NANOSECONDS;
}

/* Looks for the condition to end, but not for long. */
#define SPIN_WHILE(CONDITION)                                                                      \
    do {                                                                                           \
        struct timespec start;                                                                     \
        clock_gettime(CLOCK_MONOTONIC, &start);                                                    \
        while ((CONDITION) && !time_is_up(&start))                                                 \
            pause_a_little();                                                                      \
    } while (0)

static void run_tasks(const job *j, int thread)
{
    char *scratch = j->scratch + (size_t)thread * j->stride;
    for (;;) {
        ptrdiff_t task = atomic_fetch_add(&next_task, 1);
        if (task >= j->tasks)
            return;
        j->kernel(j->args, task, task + 1, scratch);
    }
}

static void *worker(void *index)
{
    const int me = (int)(intptr_t)index;
    unsigned long seen = 0;
    pthread_mutex_lock(&lock);
    for (;;) {
        while (posted == seen || !busy || me >= current.helpers) {
            seen = posted;
            pthread_cond_wait(&job_posted, &lock);
        }
        seen = posted;
        inside++;
        job mine = current;
        pthread_mutex_unlock(&lock);
        run_tasks(&mine, me + 1);
        pthread_mutex_lock(&lock);
        if (--inside == 0)
            pthread_cond_signal(&job_left);
        pthread_mutex_unlock(&lock);
        SPIN_WHILE(atomic_load(&posted) == seen);
        pthread_mutex_lock(&lock);
    }
    return NULL;
}

/* ---- fork: the child has no workers, whatever they were doing ---- */

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork_parent(void) { pthread_mutex_unlock(&lock); }
static void after_fork_child(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&job_posted, NULL);
    pthread_cond_init(&job_left, NULL);
    workers = inside = busy = 0;
}
static void install_fork_handlers(void)
{
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* Called under `lock`. A thread that cannot be started is a thread less, not an error. */
static void start_workers(int count)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    while (workers < count) {
        pthread_t thread;
        if (pthread_create(&thread, &attributes, worker, (void *)(intptr_t)workers) != 0)
            break;
        workers++;
    }
    pthread_attr_destroy(&attributes);
}

void attnc_parallel_for(attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks, int threads,
                        char *scratch, size_t stride)
{
    if (tasks <= 0)
        return;
    if (threads <= 1) {
        kernel(args, 0, tasks, scratch);
        return;
    }
    pthread_once(&once, install_fork_handlers);
    pthread_mutex_lock(&lock);
    if (busy) { /* another call has the pool, or this one comes from inside it */
        pthread_mutex_unlock(&lock);
        kernel(args, 0, tasks, scratch);
        return;
    }
    start_workers(threads - 1);
    busy = 1;
    current =
        (job){kernel, args, tasks, scratch, stride, threads - 1 < workers ? threads - 1 : workers};
    atomic_store(&next_task, 0);
    posted++;
    job mine = current;
    pthread_cond_broadcast(&job_posted);
    pthread_mutex_unlock(&lock);

    run_tasks(&mine, 0);
    SPIN_WHILE(atomic_load(&inside) > 0);

    pthread_mutex_lock(&lock);
    while (inside > 0)
        pthread_cond_wait(&job_left, &lock);
    busy = 0; /* a worker that wakes only now sees no job */
    pthread_mutex_unlock(&lock);
}
