/* team: see team.h. */
#include "team.h"

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"
#include "work.h"

#include <string.h>

void attnc_team_begin(attnc_team *t, int f32, const attnc_executor *executor, attnc_arena arena)
{
    t->k = attnc_kernels_for(f32);
    t->item = f32 ? sizeof(float) : sizeof(double);
    t->executor = executor ? *executor : (attnc_executor){0};
    t->arena = arena;
    t->scratch = NULL;
    t->scratch_bytes = 0;
    int *cap = &t->executor.threads;
    if (*cap > ATTNC_MAX_THREADS)
        *cap = ATTNC_MAX_THREADS;
    /* A cap takes threads of the pool away and adds none; the caller's own are all its own. */
    if (*cap > 0 && !t->executor.parallel_for && *cap > attnc_get_num_threads())
        *cap = 0;
    if (*cap > 0)
        t->limit_before = attnc_set_thread_limit(*cap);
}

void attnc_team_end(attnc_team *t)
{
    if (t->executor.threads > 0)
        attnc_set_thread_limit(t->limit_before);
    attnc_release(t->scratch);
    attnc_give_back(&t->arena);
}

static int has_scratch(attnc_team *t, size_t stride, int threads)
{
    size_t bytes;
    if (__builtin_mul_overflow(stride, (size_t)threads, &bytes))
        return 0;
    if (bytes <= t->scratch_bytes)
        return 1;
    attnc_release(t->scratch);
    t->scratch = attnc_allocate(bytes);
    t->scratch_bytes = t->scratch ? bytes : 0;
    return t->scratch != NULL;
}

int attnc_team_run(attnc_team *t, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                   double work, size_t scratch)
{
    const attnc_executor *e = &t->executor;
    const size_t stride = (scratch + 63) / 64 * 64;
    if (tasks == 0)
        return 0;
    int threads = tasks > 1 ? attnc_threads_for(tasks, work) : 1;
    if (e->parallel_for)
        threads = attnc_get_num_threads() < tasks ? attnc_get_num_threads() : (int)tasks;
    if (!has_scratch(t, stride, threads))
        return -1;
    if (e->parallel_for)
        e->parallel_for(e->context, kernel, args, tasks, work, threads, t->scratch, stride);
    else
        attnc_parallel_for(kernel, args, tasks, threads, t->scratch, stride);
    return 0;
}

/* TASKS_A_THREAD: each copies and packs, so that with one thread one is best; with two, four each
 * leave an eighth to wait for, should one begin late. Not measured against others. */
enum { TASKS_A_THREAD = 4 };

ptrdiff_t attnc_tasks_for(double work)
{
    const int threads = attnc_threads_for(PTRDIFF_MAX, work);
    return threads > 1 ? threads * TASKS_A_THREAD : 1;
}

static int run_product(attnc_team *t, const attnc_product *p)
{
    const double work = attnc_product_work(p);
    attnc_product cut = *p;
    cut.tasks = attnc_tasks_for(work);
    return attnc_team_run(t, t->k->product, &cut, t->k->product_tasks(&cut), work,
                          t->k->product_scratch(&cut));
}

/* LONGEST_SUM, 64 of the kernel's blocks of 128 terms, is what one run of the kernel adds up. It
 * adds one block after the other to what it has: over a million equal terms, as in the gradient of
 * a weight that met so many rows, float would be off by 1e-4; run by run it is by 1e-6. */
static const ptrdiff_t LONGEST_SUM = 64 * 128;

/* out = the sum of the products of runs of K, on top of what it was where they accumulate. */
static int run_long_product(attnc_team *t, const attnc_product *p)
{
    const ptrdiff_t size = p->M * p->N, zero = 0;
    const ptrdiff_t a_item = (ptrdiff_t)attnc_stored_size(p->a_stored, t->item);
    char *parts = attnc_team_block(t, 2, p->M, p->N); /* the sum so far, the next product */
    attnc_sum sum = {.out.data = parts,
                     .parts = parts,
                     .U = 1,
                     .rows = p->M,
                     .out_rows = p->M,
                     .N = p->N,
                     .ld = p->N,
                     .segments = 2,
                     .own_first = &zero,
                     .offsets = &zero,
                     .offset_count = 1,
                     .factor = 1};
    if (!parts)
        return -1;
    if (p->accumulate)
        memcpy(parts, p->out, (size_t)size * t->item);
    for (ptrdiff_t k = 0; k < p->K; k += LONGEST_SUM) {
        const int first = k == 0 && !p->accumulate;
        attnc_product run = *p;
        run.accumulate = 0;
        run.a = (const char *)p->a + k * p->a_col * a_item;
        run.b = (const char *)p->b + k * p->b_row * (ptrdiff_t)t->item;
        run.K = p->K - k < LONGEST_SUM ? p->K - k : LONGEST_SUM;
        run.out = first ? parts : parts + size * (ptrdiff_t)t->item;
        if (run_product(t, &run) < 0)
            return -1;
        if (run.K == p->K - k)
            sum.out.data = p->out; /* the last one */
        if (!first && attnc_team_run(t, t->k->sum, &sum, attnc_divide_up(sum.rows, ATTNC_SUM_ROWS),
                                     attnc_sum_work(&sum), 0) < 0)
            return -1;
    }
    return 0;
}

int attnc_team_product(attnc_team *t, const attnc_product *p)
{
    const int is_long = p->K > LONGEST_SUM && p->out_row == p->N;
    return is_long ? run_long_product(t, p) : run_product(t, p);
}

void *attnc_team_block(attnc_team *t, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c)
{
    size_t count;
    if (__builtin_mul_overflow((size_t)a, (size_t)b, &count) ||
        __builtin_mul_overflow(count, (size_t)c, &count))
        return NULL;
    return attnc_take(&t->arena, count, t->item);
}
