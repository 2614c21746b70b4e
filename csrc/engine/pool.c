/* pool: see pool.h. */
#define _POSIX_C_SOURCE 200809L
#include "pool.h"

#include "work.h"

#include <stdatomic.h>

/* ---- how many ---- */

static atomic_int wanted_threads = 1;  /* of the process */
static _Thread_local int thread_limit; /* of the calling thread; 0: none */

int attnc_get_num_threads(void)
{
    return thread_limit ? thread_limit : atomic_load(&wanted_threads);
}
void attnc_set_num_threads(int threads) { atomic_store(&wanted_threads, threads); }
int attnc_set_thread_limit(int threads)
{
    const int before = thread_limit;
    thread_limit = threads;
    return before;
}

#ifdef ATTNC_NO_THREADS

int attnc_threads_for(ptrdiff_t tasks, double work)
{
    (void)tasks, (void)work;
    return 1;
}

void attnc_parallel_for(attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks, int threads,
                        char *scratch, size_t stride)
{
    (void)threads, (void)stride;
    if (tasks > 0)
        kernel(args, 0, tasks, scratch);
}

#else
#include <pthread.h>
#include <time.h>

int attnc_threads_for(ptrdiff_t tasks, double work)
{
    int threads = attnc_get_num_threads();
    if (threads > tasks)
        threads = tasks > 0 ? (int)tasks : 1;
    if (work < ATTNC_WORK_PER_THREAD * threads)
        threads = work < 2 * ATTNC_WORK_PER_THREAD ? 1 : (int)(work / ATTNC_WORK_PER_THREAD);
    return threads;
}

/* ---- the pool ---- */

/* STACK_BYTES of a worker, for no system's default is the same: 8 MiB with glibc, 512 KiB on macOS,
 * 128 KiB with musl. The deepest kernel takes 5 KiB, the frames of its longest chain of calls added
 * up (gcc -fstack-usage -fcallgraph-info=su); 53 KiB at -O0, 100 KiB with both sanitizers. The rest
 * is for what the system puts on the same stack: frames of signals, and, with glibc, the variables
 * per thread of all libraries in the process. What is not touched takes addresses, no memory. */
enum { STACK_BYTES = 1 << 20 };

/* So long a thread looks for the next job, or for the end of this one, before it sleeps: calls come
 * one after the other, and waking up takes longer than a small one. */
static const long SPIN_NANOSECONDS = 50000;

/* The call that the workers help with. */
typedef struct {
    attnc_kernel_fn kernel;
    const void *args;
    ptrdiff_t tasks;
    char *scratch;
    size_t stride;
    int helpers; /* how many workers may join; worker w joins as thread w + 1 if w < helpers */
} job;

/* The next task of a thread's share. On a cache line of its own: each counts for itself. */
typedef struct {
    _Alignas(64) atomic_ptrdiff_t task;
} share;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t job_posted = PTHREAD_COND_INITIALIZER;
static pthread_cond_t job_left = PTHREAD_COND_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
/* Written under `lock`: */
static int workers; /* threads started */
static int claimed; /* a caller has the pool */
/* A worker enters (inside), then looks whether the job is open, then reads it; the caller closes it
 * and waits until nobody is inside before it writes another. So neither needs the lock. */
static job current;
static atomic_int open_job;
static atomic_int inside;   /* workers that may be in the job */
static atomic_ulong posted; /* counts jobs, so that a worker knows a new one */
static share next_of[ATTNC_MAX_THREADS];
/* Who sleeps. Each sets its mark, then looks once more for what it waits for; the other changes
 * that first and then looks for the mark. */
static atomic_int sleepers;
static atomic_int caller_sleeps;

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
        for (int looks = 1; (CONDITION) && (looks % 16 != 0 || !time_is_up(&start)); looks++)      \
            pause_a_little();                                                                      \
    } while (0)

static ptrdiff_t share_begin(const job *j, int thread)
{
    return j->tasks * thread / (j->helpers + 1);
}

/* Each thread begins with a share of its own, the same in every call: what it needs may still be in
 * its caches. Then it helps the others with theirs. */
static void run_tasks(const job *j, int thread)
{
    char *scratch = j->scratch + (size_t)thread * j->stride;
    for (int k = 0; k <= j->helpers; k++) {
        const int owner = (thread + k) % (j->helpers + 1);
        const ptrdiff_t end = share_begin(j, owner + 1);
        ptrdiff_t task;
        while ((task = atomic_fetch_add(&next_of[owner].task, 1)) < end)
            j->kernel(j->args, task, task + 1, scratch);
    }
}

static void *worker(void *index)
{
    const int me = (int)(intptr_t)index;
    unsigned long seen = 0;
    for (;;) {
        SPIN_WHILE(atomic_load(&posted) == seen);
        if (atomic_load(&posted) == seen) {
            pthread_mutex_lock(&lock);
            atomic_fetch_add(&sleepers, 1);
            while (atomic_load(&posted) == seen)
                pthread_cond_wait(&job_posted, &lock);
            atomic_fetch_sub(&sleepers, 1);
            pthread_mutex_unlock(&lock);
        }
        seen = atomic_load(&posted);
        atomic_fetch_add(&inside, 1);
        if (atomic_load(&open_job) && me < current.helpers)
            run_tasks(&current, me + 1);
        if (atomic_fetch_sub(&inside, 1) == 1 && atomic_load(&caller_sleeps)) {
            pthread_mutex_lock(&lock);
            pthread_cond_signal(&job_left);
            pthread_mutex_unlock(&lock);
        }
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
    workers = claimed = 0;
    atomic_store(&open_job, 0);
    atomic_store(&inside, 0);
    atomic_store(&sleepers, 0);
    atomic_store(&caller_sleeps, 0);
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
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
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
    if (claimed) { /* another call has the pool, or this one comes from inside it */
        pthread_mutex_unlock(&lock);
        kernel(args, 0, tasks, scratch);
        return;
    }
    claimed = 1;
    start_workers(threads - 1);
    current =
        (job){kernel, args, tasks, scratch, stride, threads - 1 < workers ? threads - 1 : workers};
    pthread_mutex_unlock(&lock);
    for (int t = 0; t <= current.helpers; t++)
        atomic_store(&next_of[t].task, share_begin(&current, t));
    atomic_store(&open_job, 1);
    atomic_fetch_add(&posted, 1);
    if (atomic_load(&sleepers) > 0) {
        pthread_mutex_lock(&lock);
        pthread_cond_broadcast(&job_posted);
        pthread_mutex_unlock(&lock);
    }

    run_tasks(&current, 0);
    atomic_store(&open_job, 0);
    SPIN_WHILE(atomic_load(&inside) > 0);

    pthread_mutex_lock(&lock);
    atomic_store(&caller_sleeps, 1);
    while (atomic_load(&inside) > 0)
        pthread_cond_wait(&job_left, &lock);
    atomic_store(&caller_sleeps, 0);
    claimed = 0;
    pthread_mutex_unlock(&lock);
}

#endif
