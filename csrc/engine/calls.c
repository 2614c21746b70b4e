/* calls: see calls.h. */
#include "calls.h"

#include "dispatch.h"
#include "work.h"

/* One kernel over its tasks, by a team of its own. */
static int run(int f32, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks, double work,
               size_t scratch, const attnc_executor *executor)
{
    attnc_team team;
    attnc_team_begin(&team, f32, executor, attnc_arena_in(NULL, 0));
    const int status = attnc_team_run(&team, kernel, args, tasks, work, scratch);
    attnc_team_end(&team);
    return status;
}

int attnc_call_product(int f32, const attnc_product *p, const attnc_executor *executor)
{
    attnc_team team; /* a long product takes more than one kernel */
    attnc_team_begin(&team, f32, executor, attnc_arena_in(NULL, 0));
    const int status = attnc_team_product(&team, p);
    attnc_team_end(&team);
    return status;
}

int attnc_call_products(int f32, const attnc_products *p, const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    const double work = attnc_products_work(p);
    attnc_products cut = *p;
    if (p->count > 0)
        cut.each.tasks = attnc_divide_up(attnc_tasks_for(work), p->count);
    return run(f32, k->products, &cut, p->count * k->product_tasks(&cut.each), work,
               k->product_scratch(&cut.each), executor);
}

int attnc_call_monotonic(int f32, const attnc_monotonic *m, int backward,
                         const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    return run(f32, backward ? k->monotonic_bwd : k->monotonic_fwd, m,
               attnc_divide_up(m->count, k->lanes), attnc_monotonic_work(m),
               k->monotonic_scratch(m), executor);
}

int attnc_call_chunkwise(int f32, const attnc_chunkwise *c, int backward,
                         const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    return run(f32, backward ? k->chunkwise_bwd : k->chunkwise_fwd, c,
               attnc_divide_up(c->count * c->Tq, ATTNC_CHUNK_ROWS), attnc_chunkwise_work(c),
               k->chunkwise_scratch(c), executor);
}

int attnc_call_cross_entropy(int f32, const attnc_cross_entropy *c, int backward,
                             const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    return run(f32, backward ? k->cross_entropy_bwd : k->cross_entropy_fwd, c,
               attnc_divide_up(c->rows, ATTNC_LOSS_ROWS), attnc_cross_entropy_work(c), 0, executor);
}

int attnc_call_rotary(int f32, const attnc_rotary *r, const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    return run(f32, k->rotary, r, attnc_divide_up(r->lead.count * r->T, ATTNC_ROTARY_ROWS),
               attnc_rotary_work(r), k->rotary_scratch(r), executor);
}

int attnc_call_narrow(const attnc_narrow *n, const attnc_executor *executor)
{
    return run(1, attnc_kernels_for(1)->narrow, n, attnc_divide_up(n->count, ATTNC_NARROW_COUNT),
               (double)n->count, 0, executor);
}

int attnc_call_norm(int f32, const attnc_norm *n, int backward, const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    return run(f32, backward ? k->norm_bwd : k->norm_fwd, n,
               attnc_divide_up(n->rows, ATTNC_PART_ROWS), attnc_norm_work(n), 0, executor);
}

int attnc_call_activation(int f32, const attnc_activation *a, int backward,
                          const attnc_executor *executor)
{
    const attnc_kernels *k = attnc_kernels_for(f32);
    const ptrdiff_t rows = attnc_divide_up(a->count, a->n);
    return run(f32, backward ? k->activation_bwd : k->activation_fwd, a,
               attnc_divide_up(rows, ATTNC_PART_ROWS), attnc_activation_work(a), 0, executor);
}

int attnc_call_add_dropout(int f32, const attnc_add_dropout *a, const attnc_executor *executor)
{
    return run(f32, attnc_kernels_for(f32)->add_dropout, a,
               attnc_divide_up(a->count, ATTNC_DROPOUT_NUMBERS), attnc_add_dropout_work(a), 0,
               executor);
}

int attnc_call_adam(int f32, const attnc_adam *a, const attnc_executor *executor)
{
    return run(f32, attnc_kernels_for(f32)->adam, a, attnc_divide_up(a->count, ATTNC_ADAM_NUMBERS),
               (double)a->count * ATTNC_ADAM_ELEMENT, 0, executor);
}

int attnc_call_square_sums(int f32, const attnc_square_sums *s, const attnc_executor *executor)
{
    return run(f32, attnc_kernels_for(f32)->square_sums, s,
               attnc_divide_up(s->count, ATTNC_ADAM_NUMBERS),
               (double)s->count * ATTNC_SQUARE_ELEMENT, 0, executor);
}
