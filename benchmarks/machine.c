/* The machine's limits: fused multiply-adds a second, and reading memory.
 *
 * machine.py compiles this for the machine it runs on (-march=native) and times the calls. The
 * vectors are those of GCC and Clang, with no intrinsics, so that one source serves every
 * processor. -ffp-contract=fast makes a * x + y one instruction. */
#define _GNU_SOURCE /* for the processors of a thread */
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

/* The widest vectors there are. They are asked for explicitly: left to choose, gcc takes 32 bytes
 * also where there are 64. */
#if defined __AVX512F__
enum { BYTES = 64 };
#elif defined __AVX__
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif

/* Clang takes half of the width nevertheless, if the function does not insist. */
#if __has_attribute(min_vector_width)
#define WIDE __attribute__((min_vector_width(8 * BYTES)))
#else
#define WIDE
#endif

/* Independent sums that hide the latency of the instruction: latency * instructions a cycle is 8 to
 * 16 on today's processors. They stay in registers, of which there are 32 or 16. */
#if defined __AVX512F__ || defined __aarch64__
enum { SUMS = 24 };
#else
enum { SUMS = 12 };
#endif

enum { MAX_THREADS = 256 };

/* ---- arithmetic ---- */

/* FMA(f32, float) defines fma_f32. The factor is below 1, so the sums converge: no infinity, no
 * subnormal number. Their starting values differ, so that none can take the place of another. */
#define FMA(NAME, REAL)                                                                            \
    typedef REAL vec_##NAME __attribute__((vector_size(BYTES)));                                   \
                                                                                                   \
    WIDE static double fma_##NAME(ptrdiff_t steps)                                                 \
    {                                                                                              \
        volatile REAL factor = (REAL)0.999, term = (REAL)0.001;                                    \
        vec_##NAME x = (vec_##NAME){0} + factor, y = (vec_##NAME){0} + term, sum[SUMS];            \
        for (int i = 0; i < SUMS; i++) {                                                           \
            sum[i] = y + (REAL)i;                                                                  \
        }                                                                                          \
        for (ptrdiff_t step = 0; step < steps; step++) {                                           \
            _Pragma("GCC unroll 24") for (int i = 0; i < SUMS; i++) { sum[i] = sum[i] * x + y; }   \
        }                                                                                          \
        for (int i = 1; i < SUMS; i++) {                                                           \
            sum[0] += sum[i];                                                                      \
        }                                                                                          \
        return sum[0][0];                                                                          \
    }

FMA(f32, float)
FMA(f64, double)

/* ---- memory ---- */

typedef uint32_t vec_bits __attribute__((vector_size(BYTES)));

/* Each thread reads at several places in turn, so that more requests are under way. */
WIDE static double read_bytes(const char *memory, ptrdiff_t bytes)
{
    enum { PLACES = 4, LINE = 64, VECTORS = LINE / BYTES };
    const ptrdiff_t part = bytes / PLACES;
    vec_bits sum[PLACES * VECTORS] = {{0}};
    for (ptrdiff_t at = 0; at < part; at += LINE) {
        for (int i = 0; i < PLACES * VECTORS; i++) {
            sum[i] += *(const vec_bits *)(memory + i / VECTORS * part + at + i % VECTORS * BYTES);
        }
    }
    for (int i = 1; i < PLACES * VECTORS; i++) {
        sum[0] += sum[i];
    }
    return sum[0][0];
}

/* ---- threads ---- */

/* A thread that starts where its parent runs may stay there for milliseconds, while another
 * processor is idle. So each is put on a processor of its own, where the system has calls for
 * that. */
#if defined __linux__
typedef cpu_set_t processors;

static processors allowed(void)
{
    processors set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) {
        CPU_ZERO(&set);
    }
    return set;
}

static void stay_on(processors set) { sched_setaffinity(0, sizeof set, &set); }

/* Keeps the calling thread on the processor of this number, of those that it may use. */
static void stay_on_one(processors set, int number)
{
    const int count = CPU_COUNT(&set);
    int before = count > 0 ? number % count : 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set) && before-- == 0) {
            CPU_ZERO(&set);
            CPU_SET(cpu, &set);
            stay_on(set);
            return;
        }
    }
}
#else
typedef int processors;
static processors allowed(void) { return 0; }
static void stay_on(processors set) { (void)set; }
static void stay_on_one(processors set, int number) { (void)set, (void)number; }
#endif

typedef struct {
    int itemsize;       /* 4 or 8: multiply-adds of this type; 0: read */
    ptrdiff_t count;    /* steps, or bytes */
    const char *memory; /* where to read, a multiple of 64 */
    processors allowed; /* all that the process may use */
    int number;         /* which of them, counted by those */
    double result;      /* returned, so that nothing of the work can be left out */
} task;

static void *perform(void *argument)
{
    task *t = argument;
    stay_on_one(t->allowed, t->number);
    t->result = t->itemsize == 4   ? fma_f32(t->count)
                : t->itemsize == 8 ? fma_f64(t->count)
                                   : read_bytes(t->memory, t->count);
    return NULL;
}

static double on_threads(task *tasks, int threads)
{
    const processors before = allowed();
    pthread_t handles[MAX_THREADS];
    double result = 0;
    int started = 1; /* the calling thread is the first */
    for (int i = 0; i < threads; i++) {
        tasks[i].allowed = before;
        tasks[i].number = i;
    }
    while (started < threads &&
           !pthread_create(&handles[started], NULL, perform, &tasks[started])) {
        started++;
    }
    perform(&tasks[0]);
    for (int i = 0; i < started; i++) {
        if (i > 0) {
            pthread_join(handles[i], NULL);
        }
        result += tasks[i].result;
    }
    stay_on(before);
    return started < threads ? -1 : result;
}

/* ---- what machine.py calls ---- */

int bytes_of_vector(void) { return BYTES; }

/* Floating-point operations of one step on one thread. */
ptrdiff_t flop_of_step(int itemsize) { return 2 * (ptrdiff_t)SUMS * BYTES / itemsize; }

/* Steps of multiply-adds on each thread. Negative: there are not so many threads. */
double multiply_add(int itemsize, ptrdiff_t steps, int threads)
{
    task tasks[MAX_THREADS];
    if (threads > MAX_THREADS) {
        return -1;
    }
    for (int i = 0; i < threads; i++) {
        tasks[i] = (task){.itemsize = itemsize, .count = steps};
    }
    return on_threads(tasks, threads);
}

/* Read the memory once, an equal part on each thread. Negative as above. */
double read_memory(const char *memory, ptrdiff_t bytes, int threads)
{
    task tasks[MAX_THREADS];
    if (threads > MAX_THREADS) {
        return -1;
    }
    const ptrdiff_t part = bytes / threads / 4096 * 4096;
    for (int i = 0; i < threads; i++) {
        tasks[i] = (task){.count = part, .memory = memory + i * part};
    }
    return on_threads(tasks, threads);
}
