/* steps: see steps.h. */
#include "steps.h"

#include "pool.h"
#include "scratch.h"

/* ---- the team ---- */

/* Bytes of weights, for what one region multiplies, that every thread may read whole: less than
 * half of a level-2 cache. */
static const double SHARED_WEIGHTS = 800e3;

/* What one call works with: the number of threads is asked for once, scratch goes by it. */
typedef struct {
    const attnc_kernels *k;
    int threads;
    size_t stride;
    char *scratch;
} team;

static team team_of(const attnc_kernels *k, size_t scratch)
{
    team t = {k, attnc_get_num_threads(), (scratch + 63) / 64 * 64, NULL};
    t.scratch = attnc_allocate(t.stride * (size_t)t.threads);
    return t;
}

/* Threads wait for the next step without sleeping: steps pay off on several long before a call of
 * their own would. */
static void run_tasks(const team *t, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                      double work)
{
    const int threads = attnc_threads_for(tasks, 8 * work);
    attnc_parallel_for(kernel, args, tasks, threads < t->threads ? threads : t->threads, t->scratch,
                       t->stride);
}

/* Into tasks. Weights that fit in a core's own cache are read by every thread, each for rows of its
 * own: what it wrote in the step before, it finds in its cache. Larger ones are shared out. */
static attnc_cut cut_of(const team *t, ptrdiff_t rows, ptrdiff_t columns, double weight_bytes)
{
    const ptrdiff_t panel = t->k->panel;
    attnc_cut cut = {t->k->max_step_rows, panel};
    if (weight_bytes <= SHARED_WEIGHTS && rows > ATTNC_SUM_STEP) {
        const ptrdiff_t each = attnc_divide_up(attnc_divide_up(rows, t->threads), ATTNC_SUM_STEP);
        if (each * ATTNC_SUM_STEP < cut.rows)
            cut.rows = each * ATTNC_SUM_STEP;
        cut.columns = attnc_divide_up(columns, panel) * panel;
    }
    return cut;
}

/* ---- a recurrent layer ---- */

static const void *row_of(const void *x, ptrdiff_t row, ptrdiff_t width, size_t item)
{
    return (const char *)x + (size_t)(row * width) * item;
}

/* The first row of every step's state before, then of the last step's state: in h and c. */
static ptrdiff_t before_step(const attnc_recurrence *r, ptrdiff_t t, ptrdiff_t first)
{
    return t == 0 ? 0 : r->sweep[0].batch + first - r->counts[t - 1];
}

static double step_work(const attnc_recurrence *r, ptrdiff_t rows)
{
    const attnc_sweep *s = &r->sweep[0];
    return (double)r->sweeps * (double)rows * (double)s->H * (double)(s->gate_count * s->H);
}

static void run_recurrence(const team *team, attnc_kernel_fn kernel, const attnc_recurrence *r,
                           ptrdiff_t t, const attnc_step *step)
{
    const double bytes = step_work(r, 1) * (double)r->item;
    const attnc_steps steps = {.sweeps = r->sweeps,
                               .rows = r->counts[t],
                               .sweep = r->sweep,
                               .step = step,
                               .cut = cut_of(team, r->counts[t], r->sweep[0].H, bytes)};
    run_tasks(team, kernel, &steps, team->k->steps_tasks(&steps), step_work(r, r->counts[t]));
}

int attnc_recurrence_forward(const attnc_recurrence *r)
{
    const attnc_kernels *k = r->kernels;
    const team team = team_of(k, k->step_scratch);
    if (!team.scratch)
        return -1;

    ptrdiff_t first = 0;
    for (ptrdiff_t t = 0; t < r->steps; first += r->counts[t++]) {
        attnc_step step[ATTNC_MAX_SWEEPS];
        for (int i = 0; i < r->sweeps; i++) {
            const attnc_sweep *s = &r->sweep[i];
            const ptrdiff_t before = before_step(r, t, first);
            step[i] = (attnc_step){.first = first, .before = before, .terms = 1};
            step[i].term[0] = (attnc_term){.a = row_of(s->h, before, s->H, r->item),
                                           .panels = r->panels[i],
                                           .a_row = s->H,
                                           .rows = r->counts[t],
                                           .K = s->H,
                                           .groups = s->gate_count};
        }
        run_recurrence(&team, k->cell_fwd, r, t, step);
    }
    attnc_release(team.scratch);
    return 0;
}

/* What step t passes to the state before it through the product with U. */
static attnc_term product_bwd(const attnc_recurrence *r, int i, ptrdiff_t first, ptrdiff_t rows)
{
    const ptrdiff_t width = r->sweep[i].gate_count * r->sweep[i].H;
    return (attnc_term){.a = row_of(r->sweep[i].dproduct, first, width, r->item),
                        .panels = r->panels[i],
                        .a_row = width,
                        .rows = rows,
                        .K = width,
                        .groups = 1};
}

int attnc_recurrence_backward(const attnc_recurrence *r)
{
    const attnc_kernels *k = r->kernels;
    const team team = team_of(k, k->step_scratch);
    if (!team.scratch)
        return -1;

    ptrdiff_t first = 0;
    for (ptrdiff_t t = 0; t < r->steps; t++)
        first += r->counts[t];
    for (ptrdiff_t t = r->steps - 1; t >= 0; t--) {
        const ptrdiff_t next = first;
        attnc_step step[ATTNC_MAX_SWEEPS];
        first -= r->counts[t];
        for (int i = 0; i < r->sweeps; i++) {
            step[i] = (attnc_step){.first = first, .before = before_step(r, t, first)};
            if (t + 1 < r->steps)
                step[i].term[step[i].terms++] = product_bwd(r, i, next, r->counts[t + 1]);
        }
        run_recurrence(&team, k->cell_bwd, r, t, step);
    }
    for (int i = 0; r->steps > 0 && i < r->sweeps; i++) {
        const attnc_sweep *s = &r->sweep[i];
        attnc_linear initial = {.out = s->dh,
                                .out_row = s->H,
                                .rows = r->counts[0],
                                .N = s->H,
                                .terms = 1,
                                .term = {product_bwd(r, i, 0, r->counts[0])},
                                .add = s->dh,
                                .add_row = s->H};
        initial.cut = cut_of(&team, initial.rows, initial.N, step_work(r, 1) * (double)r->item);
        run_tasks(&team, k->linear, &initial, k->linear_tasks(&initial),
                  step_work(r, r->counts[0]));
    }
    attnc_release(team.scratch);
    return 0;
}

/* ---- a loop of several operations ---- */

static void *at_step(const attnc_loop *l, const attnc_series *s, ptrdiff_t t)
{
    return (char *)s->data + t * s->step * (ptrdiff_t)l->item;
}

/* The terms that step t has; returns how many multiply-adds a row of `width` results takes. */
static double terms_at(const attnc_loop *l, const attnc_operation *o, ptrdiff_t t, ptrdiff_t width,
                       int *terms, attnc_term *term)
{
    double work = 0;
    *terms = 0;
    for (int k = 0; k < o->terms; k++) {
        const attnc_series_term *s = &o->term[k];
        if (t >= s->a.steps)
            continue;
        term[(*terms)++] = (attnc_term){.a = at_step(l, &s->a, t),
                                        .panels = s->panels,
                                        .a_row = s->a.row,
                                        .rows = l->batch,
                                        .K = s->K,
                                        .groups = s->groups};
        work += (double)s->K * (double)width;
    }
    return work;
}

static void run_linear(const attnc_loop *l, const team *team, const attnc_operation *o, ptrdiff_t t)
{
    attnc_linear linear = {.out = at_step(l, &o->out, t),
                           .out_row = o->out.row,
                           .rows = l->batch,
                           .N = o->N,
                           .tanh = o->tanh};
    const double work = terms_at(l, o, t, o->N, &linear.terms, linear.term);
    if (o->adds && t < o->add[0].steps) {
        linear.add = at_step(l, &o->add[0], t);
        linear.add_row = o->add[0].row;
    }
    if (o->tanh_of.data) {
        linear.tanh_of = at_step(l, &o->tanh_of, t);
        linear.tanh_row = o->tanh_of.row;
    }
    linear.cut = cut_of(team, linear.rows, linear.N, work * (double)l->item);
    run_tasks(team, l->kernels->linear, &linear, l->kernels->linear_tasks(&linear),
              (double)l->batch * work);
}

static void run_cell(const attnc_loop *l, const team *team, const attnc_operation *o, ptrdiff_t t)
{
    const attnc_sweep *s = &o->sweep;
    attnc_step step = {.first = t * l->batch, .before = t * l->batch, .fresh = o->fresh};
    const double work = terms_at(l, o, t, s->gate_count * s->H, &step.terms, step.term);
    for (int k = 0; k < o->adds; k++)
        if (t < o->add[k].steps) {
            step.add[step.adds] = at_step(l, &o->add[k], t);
            step.add_row[step.adds++] = o->add[k].row;
        }
    const attnc_steps steps = {.sweeps = 1,
                               .rows = l->batch,
                               .sweep = s,
                               .step = &step,
                               .cut = cut_of(team, l->batch, s->H, work * (double)l->item)};
    run_tasks(team, o->kind == ATTNC_CELL ? l->kernels->cell_fwd : l->kernels->cell_bwd, &steps,
              l->kernels->steps_tasks(&steps), (double)l->batch * work);
}

static void run_attend(const attnc_loop *l, const team *team, attnc_operation *o, ptrdiff_t t)
{
    const attnc_problem *a = &o->problem;
    const double score = a->score == ATTNC_ADDITIVE ? 40 : 10;
    o->attend.fwd = &o->attention;
    o->attend.i = t;
    run_tasks(team,
              o->kind == ATTNC_ATTEND ? l->kernels->attend_step_fwd : l->kernels->attend_step_bwd,
              &o->attend, l->batch,
              (double)l->batch * (double)a->Tk * (score * (double)a->D + 10 * (double)a->Dv));
}

static void run_normalize(const attnc_loop *l, const team *team, const attnc_operation *o,
                          ptrdiff_t t)
{
    attnc_normalize n = {.out.data = at_step(l, &o->out, t),
                         .norm = (char *)o->norm + t * l->batch * (ptrdiff_t)l->item,
                         .lead = {1, l->batch, &l->batch},
                         .T = 1,
                         .D = o->N,
                         .x = {.data = at_step(l, &o->x, t), .col = 1, .lead = &o->x.row}};
    if (o->kind == ATTNC_NORMALIZE_BACK) {
        n.dout = n.x.data;
        n.x.data = NULL;
        n.unit = at_step(l, &o->unit, t);
    }
    run_tasks(team,
              o->kind == ATTNC_NORMALIZE ? l->kernels->normalize_fwd : l->kernels->normalize_bwd,
              &n, l->batch, (double)l->batch * (double)o->N * 4);
}

int attnc_loop_run(attnc_loop *l)
{
    const attnc_kernels *k = l->kernels;
    size_t scratch = k->step_scratch;
    for (int i = 0; i < l->operations; i++) {
        const attnc_operation *o = &l->operation[i];
        size_t own = o->kind == ATTNC_ATTEND        ? k->fwd_scratch(&o->attention)
                     : o->kind == ATTNC_ATTEND_BACK ? k->attend_step_scratch(&o->problem)
                                                    : 0;
        scratch = own > scratch ? own : scratch;
    }
    const team team = team_of(k, scratch);
    if (!team.scratch)
        return -1;
    for (ptrdiff_t step = 0; step < l->steps; step++) {
        const ptrdiff_t t = l->backward ? l->steps - 1 - step : step;
        for (int i = 0; i < l->operations; i++) {
            attnc_operation *o = &l->operation[i];
            switch (o->kind) {
            case ATTNC_LINEAR:
                run_linear(l, &team, o, t);
                break;
            case ATTNC_CELL:
            case ATTNC_CELL_BACK:
                run_cell(l, &team, o, t);
                break;
            case ATTNC_ATTEND:
            case ATTNC_ATTEND_BACK:
                run_attend(l, &team, o, t);
                break;
            case ATTNC_NORMALIZE:
            case ATTNC_NORMALIZE_BACK:
                run_normalize(l, &team, o, t);
                break;
            }
        }
    }
    attnc_release(team.scratch);
    return 0;
}
