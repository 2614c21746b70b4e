/* team: see team.h. */
#include "team.h"

#include "dispatch.h"
#include "pool.h"
#include "scratch.h"
#include "work.h"

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

int attnc_team_product(attnc_team *t, const attnc_product *p)
{
    return attnc_team_run(t, t->k->product, p, t->k->product_tasks(p), attnc_product_work(p),
                          t->k->product_scratch(p));
}

void *attnc_team_block(attnc_team *t, ptrdiff_t a, ptrdiff_t b, ptrdiff_t c)
{
    size_t count;
    if (__builtin_mul_overflow((size_t)a, (size_t)b, &count) ||
        __builtin_mul_overflow(count, (size_t)c, &count))
        return NULL;
    return attnc_take(&t->arena, count, t->item);
}
