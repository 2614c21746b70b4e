/* loop: see loop.h. A type of operation is a row of three functions, at the end of its section. */
#include "loop.h"

#include "pool.h"
#include "work.h"

/* A loop at work: where it is. */
typedef struct {
    const attnc_loop *l;
    attnc_team team;
    size_t scratch;  /* bytes a thread, for whichever operation needs most */
    ptrdiff_t t;     /* the step */
    ptrdiff_t first; /* its first row among those of all steps */
    ptrdiff_t rows;  /* how many it has */
} progress;

struct attnc_operation_type {
    /* Bytes of scratch a thread. */
    size_t (*scratch)(const progress *p, const attnc_operation *o);
    /* Step p->t of `count` operations in one region. -1 for want of memory. */
    int (*run)(progress *p, const attnc_operation *o, int count);
    /* After the last step; NULL: nothing is left. */
    int (*finish)(progress *p, const attnc_operation *o);
};

static ptrdiff_t rows_of_step(const attnc_loop *l, ptrdiff_t t)
{
    return l->counts ? l->counts[t] : l->batch;
}

static char *element(const progress *p, const void *x, ptrdiff_t index)
{
    return (char *)x + index * (ptrdiff_t)p->team.item;
}

static char *at_step(const progress *p, const attnc_rows *x)
{
    return element(p, x->data, p->t * x->stride);
}

/* work: multiply-adds of all tasks. */
static int run_region(progress *p, attnc_kernel_fn kernel, const void *args, ptrdiff_t tasks,
                      double work)
{
    return attnc_team_run(&p->team, kernel, args, tasks, work * ATTNC_LOOP_FACTOR, p->scratch);
}

/* How products of so many rows are cut into tasks; work: multiply-adds a row, one for each number
 * of the weights. Weights that fit in a core's own cache are read by every thread, each for rows of
 * its own: what it wrote in the step before, it finds in its cache. Larger ones are shared out. */
static attnc_cut cut_of(const progress *p, ptrdiff_t rows, ptrdiff_t columns, double work)
{
    const attnc_kernels *k = p->team.k;
    const int shared = work * (double)p->team.item <= ATTNC_SHARED_WEIGHTS;
    attnc_cut cut = {k->max_cut_rows, k->panel};
    if (shared && rows > ATTNC_BIAS_ROWS) {
        const ptrdiff_t each =
            attnc_divide_up(attnc_divide_up(rows, attnc_get_num_threads()), ATTNC_BIAS_ROWS);
        if (each * ATTNC_BIAS_ROWS < cut.rows)
            cut.rows = each * ATTNC_BIAS_ROWS;
        cut.columns = attnc_divide_up(columns, k->panel) * k->panel;
    }
    return cut;
}

/* ---- sums of products ---- */

static size_t cells_scratch(const progress *p, const attnc_operation *o)
{
    (void)o;
    return p->team.k->cells_scratch;
}

/* Appends what this step has of the terms. Returns how many multiply-adds a row of them takes, with
 * `gates` blocks of N columns each. */
static double add_terms(const progress *p, const attnc_loop_term *from, int count, ptrdiff_t gates,
                        ptrdiff_t N, attnc_term *term, int *terms)
{
    double work = 0;
    for (int k = 0; k < count; k++) {
        if (p->t >= from[k].x.size)
            continue;
        term[(*terms)++] = (attnc_term){.a = at_step(p, &from[k].x),
                                        .panels = from[k].panels,
                                        .a_row = from[k].x.row_stride,
                                        .rows = p->rows,
                                        .K = from[k].K,
                                        .gates = gates};
        work += (double)from[k].K * (double)(gates * N);
    }
    return work;
}

static int run_sum(progress *p, attnc_linear *linear, double work)
{
    const attnc_kernels *k = p->team.k;
    linear->cut = cut_of(p, linear->rows, linear->N, work);
    return run_region(p, k->linear, linear, k->linear_tasks(linear), (double)linear->rows * work);
}

static int run_linear(progress *p, const attnc_operation *operation, int count)
{
    const attnc_loop_linear *o = &operation->linear;
    attnc_linear linear = {.out = at_step(p, &o->out),
                           .out_row = o->out.row_stride,
                           .rows = p->rows,
                           .N = o->N,
                           .tanh = o->tanh};
    (void)count;
    const double work = add_terms(p, o->term, o->terms, 1, o->N, linear.term, &linear.terms);
    if (o->add.data && p->t < o->add.size) {
        linear.add = at_step(p, &o->add);
        linear.add_row = o->add.row_stride;
    }
    if (o->tanh_of.data) {
        linear.tanh_of = at_step(p, &o->tanh_of);
        linear.tanh_row = o->tanh_of.row_stride;
    }
    return run_sum(p, &linear, work);
}

const attnc_operation_type attnc_operation_linear = {cells_scratch, run_linear, NULL};

/* ---- cells ---- */

/* The state before the step, times U. */
static attnc_term state_term(const progress *p, const attnc_loop_cell *o, ptrdiff_t before)
{
    const attnc_recurrence *r = &o->recurrence;
    return (attnc_term){.a = element(p, r->h, before * r->H),
                        .panels = o->panels,
                        .a_row = r->H,
                        .rows = p->rows,
                        .K = r->H,
                        .gates = r->gate_count};
}

/* Rows [first, first + rows) of the gradient of h U, times U transposed: they reach h. */
static attnc_term state_term_back(const progress *p, const attnc_loop_cell *o, ptrdiff_t first,
                                  ptrdiff_t rows)
{
    const attnc_recurrence *r = &o->recurrence;
    const ptrdiff_t width = r->gate_count * r->H;
    return (attnc_term){.a = element(p, r->dproduct, first * width),
                        .panels = o->panels,
                        .a_row = width,
                        .rows = rows,
                        .K = width,
                        .gates = 1};
}

static double state_work(const attnc_recurrence *r)
{
    return (double)r->H * (double)(r->gate_count * r->H);
}

/* The first row of the state before this step, in h and c: of the last step's, or the initial. */
static ptrdiff_t first_before(const progress *p)
{
    return p->t == 0 ? 0 : p->l->batch + p->first - rows_of_step(p->l, p->t - 1);
}

static int run_cells(progress *p, attnc_kernel_fn kernel, const attnc_cell_step *step, int count,
                     double work)
{
    const attnc_kernels *k = p->team.k;
    const attnc_cells cells = {.count = count,
                               .rows = p->rows,
                               .step = step,
                               .cut = cut_of(p, p->rows, step[0].cell->H, work)};
    return run_region(p, kernel, &cells, k->cells_tasks(&cells), (double)p->rows * work);
}

static int run_cell(progress *p, const attnc_operation *operation, int count)
{
    attnc_cell_step step[ATTNC_MAX_BESIDE];
    double work = 0;
    for (int i = 0; i < count; i++) {
        const attnc_loop_cell *o = &operation[i].cell;
        const attnc_recurrence *r = &o->recurrence;
        attnc_cell_step *s = &step[i];
        *s = (attnc_cell_step){.cell = r, .first = p->first, .before = first_before(p)};
        s->term[s->terms++] = state_term(p, o, s->before);
        work += state_work(r);
        work += add_terms(p, o->term, o->terms, r->gate_count, r->H, s->term, &s->terms);
    }
    return run_cells(p, p->team.k->cells_fwd, step, count, work);
}

const attnc_operation_type attnc_operation_cell = {cells_scratch, run_cell, NULL};

static int run_cell_back(progress *p, const attnc_operation *operation, int count)
{
    attnc_cell_step step[ATTNC_MAX_BESIDE];
    double work = 0;
    for (int i = 0; i < count; i++) {
        const attnc_loop_cell *o = &operation[i].cell;
        attnc_cell_step *s = &step[i];
        *s =
            (attnc_cell_step){.cell = &o->recurrence, .first = p->first, .before = first_before(p)};
        if (p->t + 1 < p->l->steps)
            s->term[s->terms++] =
                state_term_back(p, o, p->first + p->rows, rows_of_step(p->l, p->t + 1));
        work += state_work(&o->recurrence);
        work += add_terms(p, o->term, o->terms, 1, o->recurrence.H, s->term, &s->terms);
        for (int k = 0; k < o->adds; k++)
            if (p->t < o->add[k].size) {
                s->add[s->adds] = at_step(p, &o->add[k]);
                s->add_row[s->adds++] = o->add[k].row_stride;
            }
    }
    return run_cells(p, p->team.k->cells_bwd, step, count, work);
}

/* dh += what step 0 passes to the state before it through the product with U. */
static int finish_cell_back(progress *p, const attnc_operation *operation)
{
    const attnc_loop_cell *o = &operation->cell;
    const attnc_recurrence *r = &o->recurrence;
    attnc_linear linear = {.out = r->dh,
                           .out_row = r->H,
                           .rows = p->rows,
                           .N = r->H,
                           .terms = 1,
                           .term = {state_term_back(p, o, 0, p->rows)},
                           .add = r->dh,
                           .add_row = r->H};
    return run_sum(p, &linear, state_work(r));
}

const attnc_operation_type attnc_operation_cell_back = {cells_scratch, run_cell_back,
                                                        finish_cell_back};

/* ---- attention ---- */

/* The operation as kernels read it: attention of all queries, one at a time. */
typedef struct {
    attnc_problem problem;
    attnc_attention_fwd fwd;
    attnc_attend_step step;
    struct {
        ptrdiff_t batch, query, key, value, key_mask, coverage_bias, dcontext, dweights;
        ptrdiff_t center, position;
    } lead; /* the only leading axis, and strides along it */
} attend_args;

static attnc_view view_of(const attnc_rows *x, ptrdiff_t *lead)
{
    *lead = x->stride;
    return (attnc_view){.data = x->data, .row = x->row_stride, .col = 1, .lead = lead};
}

static void attend_args_of(const attnc_loop *l, const attnc_loop_attend *o, attend_args *args)
{
    *args = (attend_args){
        .lead = {.batch = l->batch, .key_mask = o->Tk, .coverage_bias = l->steps * o->Tk}};
    attnc_problem *a = &args->problem;
    a->score = o->score;
    a->lead = (attnc_lead){1, l->batch, &args->lead.batch};
    a->Tq = a->query_rows = a->queries = l->steps;
    a->Tk = a->key_rows = a->length = o->Tk;
    a->D = o->D;
    a->Dv = o->Dv;
    a->one_by_one = 1;
    a->left = a->right = -1;
    if (o->center) {
        args->lead.center = l->steps;
        a->left = a->right = o->width;
        a->sigma = o->sigma;
        a->renormalize = o->renormalize;
        a->center = (attnc_view){.data = o->center, .row = 1, .col = 1, .lead = &args->lead.center};
    }
    a->query = view_of(&o->query, &args->lead.query);
    a->key = view_of(&o->key, &args->lead.key);
    a->value = view_of(&o->value, &args->lead.value);
    a->scale = o->scale;
    a->score_vector = o->score_vector;
    if (o->coverage_vector) {
        a->coverage = o->coverage_bias;
        a->coverage_vector = o->coverage_vector;
    }
    else if (o->score == ATTNC_ADDITIVE)
        a->key_transforms = &o->transforms;
    a->key_mask = (attnc_view){.data = (void *)o->key_mask, .col = 1, .lead = &args->lead.key_mask};
    if (o->coverage && !o->coverage_vector)
        a->bias = (attnc_view){
            .data = o->coverage_bias, .row = o->Tk, .col = 1, .lead = &args->lead.coverage_bias};
    args->fwd = (attnc_attention_fwd){.problem = a,
                                      .query_chunk = 1,
                                      .key_splits = 1,
                                      .context.data = o->context,
                                      .weights = o->weights,
                                      .stats = o->stats,
                                      .scores_copy = o->scores};
    args->step = (attnc_attend_step){.fwd = &args->fwd,
                                     .coverage = o->coverage,
                                     .coverage_bias = o->coverage_bias,
                                     .coverage_rate = o->coverage_rate,
                                     .coverage_weight = o->coverage_weight,
                                     .dcontext = view_of(&o->dcontext, &args->lead.dcontext),
                                     .dweights = view_of(&o->dweights, &args->lead.dweights),
                                     .dquery = o->dquery,
                                     .dweights_total = o->dweights_total,
                                     .dcoverage_rate = o->dcoverage_rate,
                                     .dkey = o->dkey,
                                     .dscore_vector = o->dscore_vector,
                                     .dcoverage_vector = o->dcoverage_vector,
                                     .center = o->center,
                                     .last = o->last,
                                     .position = view_of(&o->position, &args->lead.position),
                                     .position_vector = o->position_vector,
                                     .P = o->P,
                                     .dcenter = o->dcenter,
                                     .dposition = o->dposition};
}

static int attend(progress *p, const attnc_loop_attend *o, attnc_kernel_fn kernel)
{
    attend_args args;
    attend_args_of(p->l, o, &args);
    args.step.i = p->t;
    const double window = 2 * (double)o->width + 1, all = (double)o->Tk;
    const double pairs = (double)p->rows * (o->center && window < all ? window : all);
    return run_region(p, kernel, &args.step, p->rows,
                      attnc_pair_work(pairs, o->D, o->Dv, o->score == ATTNC_ADDITIVE, 1));
}

static size_t attend_scratch(const progress *p, const attnc_operation *o)
{
    attend_args args;
    attend_args_of(p->l, &o->attend, &args);
    return p->team.k->fwd_scratch(&args.fwd);
}

static int run_attend(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return attend(p, &o->attend, p->team.k->attend_step_fwd);
}

const attnc_operation_type attnc_operation_attend = {attend_scratch, run_attend, NULL};

static size_t attend_back_scratch(const progress *p, const attnc_operation *o)
{
    attend_args args;
    attend_args_of(p->l, &o->attend, &args);
    return p->team.k->attend_step_scratch(&args.problem);
}

static int run_attend_back(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return attend(p, &o->attend, p->team.k->attend_step_bwd);
}

const attnc_operation_type attnc_operation_attend_back = {attend_back_scratch, run_attend_back,
                                                          NULL};

/* ---- rows of length 1 ---- */

static size_t no_scratch(const progress *p, const attnc_operation *o)
{
    (void)p, (void)o;
    return 0;
}

/* args: the step's rows, each an element of the only leading axis. */
static int normalize(progress *p, attnc_normalize *args, attnc_kernel_fn kernel)
{
    args->lead = (attnc_lead){1, p->rows, &p->rows};
    args->T = 1;
    return run_region(p, kernel, args, p->rows, attnc_normalize_work(args));
}

static int run_normalize(progress *p, const attnc_operation *operation, int count)
{
    const attnc_loop_normalize *o = &operation->normalize;
    const ptrdiff_t row = p->t * p->l->batch;
    (void)count;
    attnc_normalize args = {.out.data = element(p, o->unit, row * o->D),
                            .norm = element(p, o->norm, row),
                            .D = o->D,
                            .x = {.data = at_step(p, &o->x), .col = 1, .lead = &o->x.row_stride}};
    return normalize(p, &args, p->team.k->normalize_fwd);
}

const attnc_operation_type attnc_operation_normalize = {no_scratch, run_normalize, NULL};

static int run_normalize_back(progress *p, const attnc_operation *operation, int count)
{
    const attnc_loop_normalize *o = &operation->normalize;
    const ptrdiff_t row = p->t * p->l->batch;
    (void)count;
    attnc_normalize args = {.out.data = element(p, o->dx, row * o->D),
                            .norm = element(p, o->norm, row),
                            .D = o->D,
                            .dout = element(p, o->dunit, row * o->D),
                            .unit = element(p, o->unit, row * o->D)};
    return normalize(p, &args, p->team.k->normalize_bwd);
}

const attnc_operation_type attnc_operation_normalize_back = {no_scratch, run_normalize_back, NULL};

/* ---- monotonic attention ---- */

/* What is asked and what is read, as kernels see it: one query at a time. The strides along the
 * only leading axis stand beside it. */
typedef struct {
    attnc_problem problem;
    struct {
        ptrdiff_t batch, query, key, value, dcontext, dweights;
    } lead;
} asked;

static void ask(const progress *p, ptrdiff_t Tk, asked *args)
{
    *args = (asked){.lead.batch = p->l->batch};
    attnc_problem *a = &args->problem;
    a->lead = (attnc_lead){1, p->l->batch, &args->lead.batch};
    a->Tq = a->query_rows = a->queries = p->l->steps;
    a->Tk = a->key_rows = a->length = Tk;
    a->one_by_one = 1;
    a->left = a->right = -1;
}

static void ask_energies(const progress *p, const attnc_loop_energies *o, asked *args)
{
    ask(p, o->Tk, args);
    attnc_problem *a = &args->problem;
    a->score = o->score;
    a->D = o->D;
    a->query = view_of(&o->query, &args->lead.query);
    a->key = view_of(&o->key, &args->lead.key);
    a->scale = o->scale;
    a->score_vector = o->score_vector;
    if (o->score == ATTNC_ADDITIVE)
        a->key_transforms = &o->transforms;
}

static double energies_work(const progress *p, const attnc_loop_energies *o)
{
    const double pairs = (double)p->rows * (double)o->Tk;
    return attnc_pair_work(pairs, o->D, 0, o->score == ATTNC_ADDITIVE, 1);
}

static int energies(progress *p, const attnc_operation *operation, attnc_kernel_fn kernel)
{
    const attnc_loop_energies *o = &operation->energies;
    asked args;
    ask_energies(p, o, &args);
    const attnc_energies_step step = {.problem = &args.problem,
                                      .i = p->t,
                                      .scores = o->scores,
                                      .probability = o->probability,
                                      .offset = o->offset,
                                      .noise = o->noise,
                                      .dprobability = o->dprobability,
                                      .adds = o->adds,
                                      .dquery = o->dquery.data,
                                      .dquery_step = o->dquery.stride,
                                      .dquery_row = o->dquery.row_stride};
    return run_region(p, kernel, &step, p->rows, energies_work(p, o));
}

static size_t energies_scratch(const progress *p, const attnc_operation *o)
{
    asked args;
    ask_energies(p, &o->energies, &args);
    return p->team.k->one_query_scratch(&args.problem);
}

static int run_energies(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return energies(p, o, p->team.k->energies_step_fwd);
}

static size_t energies_back_scratch(const progress *p, const attnc_operation *o)
{
    asked args;
    ask_energies(p, &o->energies, &args);
    return p->team.k->energies_bwd_scratch(&args.problem);
}

static int run_energies_back(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return energies(p, o, p->team.k->energies_step_bwd);
}

/* Row t of every sequence of x (batch, T, Tk); nothing where there is no x. */
static attnc_pairs pairs_at(const progress *p, void *x, ptrdiff_t t, ptrdiff_t Tk)
{
    return (attnc_pairs){x ? element(p, x, t * Tk) : NULL, p->l->steps * Tk, 0};
}

static attnc_monotonic monotonic_of(const progress *p, const attnc_loop_monotonic *o)
{
    const ptrdiff_t Tk = o->Tk;
    const attnc_pairs first = {o->previous, Tk, 0}, d = {o->dprevious, Tk, 0};
    return (attnc_monotonic){.count = p->rows,
                             .Tq = 1,
                             .Tk = Tk,
                             .probability = pairs_at(p, o->probability, p->t, Tk),
                             .previous = p->t > 0 ? pairs_at(p, o->alignment, p->t - 1, Tk) : first,
                             .key_mask = o->key_mask,
                             .mask_row = Tk,
                             .alignment = pairs_at(p, o->alignment, p->t, Tk),
                             .reach = pairs_at(p, o->reach, p->t, Tk),
                             .dalignment = pairs_at(p, o->dalignment, p->t, Tk),
                             .dnext = d,
                             .dprevious = d,
                             .dprobability = pairs_at(p, o->dprobability, p->t, Tk)};
}

static int monotonic(progress *p, const attnc_operation *o, attnc_kernel_fn kernel)
{
    const attnc_monotonic m = monotonic_of(p, &o->monotonic);
    return run_region(p, kernel, &m, attnc_divide_up(m.count, p->team.k->lanes),
                      attnc_monotonic_work(&m));
}

static size_t monotonic_scratch(const progress *p, const attnc_operation *o)
{
    const attnc_monotonic m = monotonic_of(p, &o->monotonic);
    return p->team.k->monotonic_scratch(&m);
}

static int run_monotonic(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return monotonic(p, o, p->team.k->monotonic_fwd);
}

static int run_monotonic_back(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return monotonic(p, o, p->team.k->monotonic_bwd);
}

static attnc_chunkwise chunkwise_of(const progress *p, const attnc_loop_chunkwise *o)
{
    const ptrdiff_t Tk = o->Tk;
    return (attnc_chunkwise){.count = p->rows,
                             .Tq = 1,
                             .Tk = Tk,
                             .width = o->width,
                             .alignment = pairs_at(p, o->alignment, p->t, Tk),
                             .scores = pairs_at(p, o->scores, p->t, Tk),
                             .key_mask = o->key_mask,
                             .mask_row = Tk,
                             .weights = pairs_at(p, o->weights, p->t, Tk),
                             .dweights = pairs_at(p, o->dweights, p->t, Tk),
                             .dalignment = pairs_at(p, o->dalignment, p->t, Tk),
                             .dscores = pairs_at(p, o->dscores, p->t, Tk)};
}

static int chunkwise(progress *p, const attnc_operation *o, attnc_kernel_fn kernel)
{
    const attnc_chunkwise c = chunkwise_of(p, &o->chunkwise);
    return run_region(p, kernel, &c, attnc_divide_up(c.count, ATTNC_CHUNK_ROWS),
                      attnc_chunkwise_work(&c));
}

static size_t chunkwise_scratch(const progress *p, const attnc_operation *o)
{
    const attnc_chunkwise c = chunkwise_of(p, &o->chunkwise);
    return p->team.k->chunkwise_scratch(&c);
}

static int run_chunkwise(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return chunkwise(p, o, p->team.k->chunkwise_fwd);
}

static int run_chunkwise_back(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return chunkwise(p, o, p->team.k->chunkwise_bwd);
}

static void ask_read(const progress *p, const attnc_loop_read *o, asked *args)
{
    ask(p, o->Tk, args);
    args->problem.Dv = o->Dv;
    args->problem.value = view_of(&o->value, &args->lead.value);
}

static int read_step(progress *p, const attnc_operation *operation, attnc_kernel_fn kernel)
{
    const attnc_loop_read *o = &operation->read;
    asked args;
    ask_read(p, o, &args);
    const attnc_read_step step = {.problem = &args.problem,
                                  .i = p->t,
                                  .weights = o->weights,
                                  .context = o->context,
                                  .key_mask = o->key_mask,
                                  .dcontext = view_of(&o->dcontext, &args.lead.dcontext),
                                  .dweights = view_of(&o->dweights, &args.lead.dweights),
                                  .dtotal = o->dtotal};
    const double pairs = (double)p->rows * (double)o->Tk;
    return run_region(p, kernel, &step, p->rows, attnc_pair_work(pairs, 0, o->Dv, 0, 1));
}

static size_t read_scratch(const progress *p, const attnc_operation *o)
{
    asked args;
    ask_read(p, &o->read, &args);
    return p->team.k->read_step_scratch(&args.problem);
}

static int run_read(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return read_step(p, o, p->team.k->read_step_fwd);
}

static int run_read_back(progress *p, const attnc_operation *o, int count)
{
    (void)count;
    return read_step(p, o, p->team.k->read_step_bwd);
}

static attnc_hard_step hard_of(const progress *p, const attnc_loop_hard *o, asked *own,
                               asked *chunk)
{
    const int chunked = o->width > 1;
    ask_energies(p, &o->energies, own);
    if (chunked)
        ask_energies(p, &o->chunk, chunk);
    return (attnc_hard_step){.problem = &own->problem,
                             .chunk = chunked ? &chunk->problem : NULL,
                             .i = p->t,
                             .width = o->width,
                             .offset = o->energies.offset,
                             .key_mask = o->key_mask,
                             .position = o->position,
                             .weights = o->weights};
}

static size_t hard_scratch(const progress *p, const attnc_operation *o)
{
    asked own, chunk;
    const attnc_hard_step step = hard_of(p, &o->hard, &own, &chunk);
    return p->team.k->hard_step_scratch(&step);
}

static int run_hard(progress *p, const attnc_operation *o, int count)
{
    asked own, chunk;
    const attnc_hard_step step = hard_of(p, &o->hard, &own, &chunk);
    (void)count;
    return run_region(p, p->team.k->hard_step, &step, p->rows, energies_work(p, &o->hard.energies));
}

const attnc_operation_type attnc_operation_energies = {energies_scratch, run_energies, NULL};
const attnc_operation_type attnc_operation_energies_back = {energies_back_scratch,
                                                            run_energies_back, NULL};
const attnc_operation_type attnc_operation_monotonic = {monotonic_scratch, run_monotonic, NULL};
const attnc_operation_type attnc_operation_monotonic_back = {monotonic_scratch, run_monotonic_back,
                                                             NULL};
const attnc_operation_type attnc_operation_chunkwise = {chunkwise_scratch, run_chunkwise, NULL};
const attnc_operation_type attnc_operation_chunkwise_back = {chunkwise_scratch, run_chunkwise_back,
                                                             NULL};
const attnc_operation_type attnc_operation_read = {read_scratch, run_read, NULL};
const attnc_operation_type attnc_operation_read_back = {read_scratch, run_read_back, NULL};
const attnc_operation_type attnc_operation_hard = {hard_scratch, run_hard, NULL};

/* ---- the loop ---- */

/* How many operations, from o on, are one region. */
static int region_of(const attnc_operation *o, const attnc_operation *end)
{
    int count = 1;
    if (o->type == &attnc_operation_cell || o->type == &attnc_operation_cell_back)
        while (count < ATTNC_MAX_BESIDE && o + count < end && o[count].type == o->type &&
               o[count].cell.beside)
            count++;
    return count;
}

static int run_step(progress *p)
{
    const attnc_operation *o = p->l->operation, *end = o + p->l->operations;
    while (o < end) {
        const int count = region_of(o, end);
        if (o->type->run(p, o, count) < 0)
            return -1;
        o += count;
    }
    return 0;
}

static int run_steps(progress *p)
{
    const attnc_loop *l = p->l;
    if (!l->backward)
        for (p->t = 0; p->t < l->steps; p->t++) {
            p->rows = rows_of_step(l, p->t);
            if (run_step(p) < 0)
                return -1;
            p->first += p->rows;
        }
    else {
        for (ptrdiff_t t = 0; t < l->steps; t++)
            p->first += rows_of_step(l, t);
        for (p->t = l->steps - 1; p->t >= 0; p->t--) {
            p->rows = rows_of_step(l, p->t);
            p->first -= p->rows;
            if (run_step(p) < 0)
                return -1;
        }
    }
    for (int i = 0; i < l->operations; i++)
        if (l->operation[i].type->finish && l->operation[i].type->finish(p, &l->operation[i]) < 0)
            return -1;
    return 0;
}

int attnc_loop_run(const attnc_loop *l, const attnc_executor *executor)
{
    progress p = {.l = l};
    if (!l->steps || !l->batch || !l->operations)
        return 0;
    attnc_team_begin(&p.team, l->f32, executor, attnc_arena_in(NULL, 0));
    for (int i = 0; i < l->operations; i++) {
        const size_t own = l->operation[i].type->scratch(&p, &l->operation[i]);
        p.scratch = own > p.scratch ? own : p.scratch;
    }
    const int status = run_steps(&p);
    attnc_team_end(&p.team);
    return status;
}
