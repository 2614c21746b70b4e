/* gradients: the backward pass of attention between what prepare made of query and key and what
 * comes in (pass.h): the kernels, and the sums over what they leave in parts. */
#include "pass.h"

#include "work.h"

#include <string.h>

/* ---- results in halves ---- */

attnc_result attnc_pass_as_computed(attnc_pass *p, attnc_result result, ptrdiff_t rows,
                                    ptrdiff_t columns)
{
    if (!result.data || result.stored == ATTNC_AS_COMPUTED)
        return result;
    return (attnc_result){.data = attnc_team_block(&p->team, rows, columns, 1)};
}

int attnc_pass_narrow(attnc_pass *p, attnc_result result, attnc_result computed, ptrdiff_t count)
{
    const attnc_narrow n = {.out = result, .x = computed.data, .count = count};
    if (result.data == computed.data)
        return 0;
    return attnc_team_run(&p->team, p->team.k->narrow, &n,
                          attnc_divide_up(count, ATTNC_NARROW_COUNT), (double)count, 0);
}

/* ---- sums over the axes along which an argument was broadcast ---- */

/* Which elements of lead an operand's own leading element stands for: first[u] + offsets[0..]. */
typedef struct {
    attnc_lead own;
    ptrdiff_t offset_count, *first, *offsets;
} own_map;

/* Every sum over the axes in `axes`, in C order: out[k] = sum of coordinate * stride. */
static void enumerate(const attnc_lead *lead, const ptrdiff_t *axes, ptrdiff_t count,
                      ptrdiff_t *out)
{
    for (ptrdiff_t k = 0; k < count; k++) {
        ptrdiff_t rest = k, stride = 1, offset = 0;
        for (int d = lead->ndim - 1; d >= 0; d--) {
            offset += rest % axes[d] * stride;
            rest /= axes[d];
            stride *= lead->shape[d];
        }
        out[k] = offset;
    }
}

static int map_own(attnc_pass *p, const attnc_operand *x, own_map *map)
{
    const attnc_lead *lead = &p->in->lead;
    ptrdiff_t others[ATTNC_MAX_LEAD];
    map->own = attnc_pass_own_lead(p, x);
    map->offset_count = 1;
    for (int d = 0; d < lead->ndim; d++) {
        others[d] = x->shape[d] == 1 ? lead->shape[d] : 1;
        map->offset_count *= others[d];
    }
    map->first = attnc_take(&p->team.arena, (size_t)map->own.count, sizeof *map->first);
    map->offsets = attnc_take(&p->team.arena, (size_t)map->offset_count, sizeof *map->offsets);
    if (!map->first || !map->offsets)
        return -1;
    enumerate(lead, x->shape, map->own.count, map->first);
    enumerate(lead, others, map->offset_count, map->offsets);
    return 0;
}

static ptrdiff_t sum_tasks(const attnc_pass *p, const void *args)
{
    const attnc_sum *s = args;
    (void)p;
    return s->U * attnc_divide_up(s->rows, ATTNC_SUM_ROWS);
}

static int run_sum(attnc_pass *p, attnc_sum s, const own_map *map)
{
    s.U = map->own.count;
    s.own_first = map->first;
    s.offsets = map->offsets;
    s.offset_count = map->offset_count;
    return attnc_team_run(&p->team, p->team.k->sum, &s, sum_tasks(p, &s), attnc_sum_work(&s), 0);
}

/* ---- keys and values: whole rows for each element of lead ---- */

/* The gradient of key or value, (own lead, Tk, N). The kernels write to it where the argument has
 * all of lead, else to a block (lead, Tk, N) that is summed. */
typedef struct {
    own_map map;
    attnc_result target, written;
    ptrdiff_t N;
} key_rows;

static int plan_key_rows(attnc_pass *p, const attnc_operand *x, ptrdiff_t N, attnc_result target,
                         key_rows *rows)
{
    rows->target = target;
    rows->N = N;
    if (map_own(p, x, &rows->map) < 0)
        return -1;
    rows->written = target;
    if (!target.data || rows->map.offset_count != 1)
        rows->written =
            (attnc_result){.data = attnc_team_block(&p->team, p->in->lead.count, p->in->Tk, N)};
    return rows->written.data ? 0 : -1;
}

static int sum_key_rows(attnc_pass *p, const key_rows *rows)
{
    if (!rows->target.data || rows->written.data == rows->target.data)
        return 0;
    return run_sum(p,
                   (attnc_sum){.out = rows->target,
                               .parts = rows->written.data,
                               .rows = p->in->Tk,
                               .out_rows = p->in->Tk,
                               .N = rows->N,
                               .ld = rows->N,
                               .segments = 1,
                               .factor = 1},
                   &rows->map);
}

/* With windows around centers a segment's rows are added up as a whole (attention_bwd): where that
 * is not possible in place, in a block of their own. */
static int plan_padded(attnc_pass *p, const key_rows *rows, void **padded)
{
    const ptrdiff_t N = attnc_padded(p, rows->N);
    if (!p->in->center.data || (rows->written.stored == ATTNC_AS_COMPUTED && N == rows->N))
        return 0;
    *padded = attnc_team_block(&p->team, p->in->lead.count, p->in->Tk, N);
    return *padded ? 0 : -1;
}

/* ---- bias and given scores: an element for each pair ---- */

/* The gradient of bias or scores. direct: the kernels' main pass writes to it, because nothing
 * broadcasts; else a pass of its own adds up `sums`. */
typedef struct {
    own_map map;
    const attnc_operand *x;
    attnc_result target, direct, sums;
    ptrdiff_t count;
} pair_rows;

static int plan_pairs(attnc_pass *p, const attnc_operand *x, attnc_result target, int zeroed,
                      pair_rows *pairs)
{
    const int ndim = p->in->lead.ndim;
    pairs->x = x;
    pairs->target = target;
    pairs->direct = pairs->sums = (attnc_result){0};
    if (!target.data)
        return 0;
    if (map_own(p, x, &pairs->map) < 0)
        return -1;
    const ptrdiff_t Tq = x->shape[ndim], Tk = x->shape[ndim + 1];
    attnc_result *written = &pairs->direct;
    pairs->count = pairs->map.own.count * Tq * Tk;
    if (pairs->map.offset_count == 1 && Tq == p->in->Tq && Tk == p->in->Tk)
        pairs->direct = target;
    else {
        written = &pairs->sums;
        pairs->sums = attnc_pass_as_computed(p, target, pairs->count, 1);
        if (!pairs->sums.data)
            return -1;
    }
    if (!zeroed || written->data != target.data) /* kernels skip tiles that are not allowed */
        memset(written->data, 0,
               (size_t)pairs->count * attnc_stored_size(written->stored, p->team.item));
    return 0;
}

static int run_pairs(attnc_pass *p, const pair_rows *pairs, int of_scores)
{
    if (!pairs->sums.data)
        return 0;
    const int ndim = p->in->lead.ndim;
    const attnc_attention_dbias d = {.bwd = &p->bwd,
                                     .out = pairs->sums.data,
                                     .own_count = pairs->map.own.count,
                                     .own_Tq = pairs->x->shape[ndim],
                                     .own_Tk = pairs->x->shape[ndim + 1],
                                     .own_first = pairs->map.first,
                                     .offsets = pairs->map.offsets,
                                     .offset_count = pairs->map.offset_count,
                                     .of_scores = of_scores};
    if (attnc_team_run(&p->team, p->team.k->attention_dbias, &d,
                       d.own_count * attnc_divide_up(d.own_Tq, p->team.k->bwd_query_block),
                       ATTNC_DBIAS_PASSES * attnc_pass_work(p),
                       p->team.k->bwd_scratch(&p->bwd)) < 0)
        return -1;
    return attnc_pass_narrow(p, pairs->target, pairs->sums, pairs->count);
}

/* ---- queries: parts for each segment of the keys ---- */

static int plan_query(attnc_pass *p, const attnc_gradients *to, own_map *map)
{
    const attnc_problem *a = &p->a;
    attnc_attention_bwd *b = &p->bwd;
    const ptrdiff_t Dp = attnc_padded(p, a->D);
    if (map_own(p, &p->in->query, map) < 0)
        return -1;
    if (to->query.data && to->query.stored == ATTNC_AS_COMPUTED && map->offset_count == 1 &&
        a->D == Dp && !to->scale)
        p->direct_dquery = to->query.data;
    ptrdiff_t rows = 0;
    for (ptrdiff_t k = 0; k < p->sequence_count; k++) {
        attnc_sequence *s = &p->sequences[k];
        s->parts = rows;
        rows += ((a->center.data ? attnc_segments(p, s) : attnc_query_parts(p, s)) -
                 attnc_is_direct(p, s)) *
                s->Tq;
    }
    b->dquery_direct = attnc_is_direct(p, &p->whole);
    const int direct = b->dquery_direct && !attnc_is_packed(p->in);
    void *parts = p->direct_dquery;
    if ((!direct || rows > 0) && !(parts = attnc_team_block(&p->team, a->lead.count, rows, Dp)))
        return -1;
    b->dquery_parts = direct ? p->direct_dquery : parts;
    if (a->center.data) /* of a sequence, packed.c finds the place of both */
        b->dquery_more = attnc_is_packed(p->in) || direct
                             ? parts
                             : (char *)parts + a->lead.count * a->Tq * Dp * (ptrdiff_t)p->team.item;
    return 0;
}

static void store_number(const attnc_pass *p, void *target, ptrdiff_t u, double x)
{
    if (p->in->f32)
        ((float *)target)[u] = (float)x;
    else
        ((double *)target)[u] = x;
}

/* Whether any sequence leaves parts of dquery. */
static int has_query_parts(const attnc_pass *p)
{
    for (ptrdiff_t b = 0; b < p->sequence_count; b++)
        if (!attnc_is_direct(p, &p->sequences[b]))
            return 1;
    return 0;
}

/* dquery, and with it dscale: forward s = scale * q . k, so dscale = sum_i q_i . (dq_i / scale).
 * Second order has dscale from its tiles, and no factor is left to apply. */
static int sum_query(attnc_pass *p, const attnc_gradients *to, const own_map *map)
{
    const attnc_problem *a = &p->a;
    const attnc_attention_bwd *b = &p->bwd;
    const ptrdiff_t rows = map->own.count * a->Tq;
    const int with_scale = to->scale && !b->second;
    attnc_result target = to->query;
    double *row_dot = NULL, dscale = 0;
    if (!with_scale && (!to->query.data || !has_query_parts(p)))
        return 0;
    if (!target.data && !(target.data = attnc_team_block(&p->team, rows, a->D, 1)))
        return -1;
    if (with_scale && !(row_dot = attnc_take(&p->team.arena, (size_t)rows, sizeof *row_dot)))
        return -1;
    const attnc_sum sum = {.out = target,
                           .row_dot = row_dot,
                           .U = map->own.count,
                           .own_first = map->first,
                           .offsets = map->offsets,
                           .offset_count = map->offset_count,
                           .parts = b->dquery_parts,
                           .columns = b->second ? NULL : a->score_vector,
                           /* its strides serve its own shape too: axes of size 1 have stride 0 */
                           .with = &a->query,
                           .with_lead = &map->own,
                           .rows = a->Tq,
                           .out_rows = a->Tq,
                           .N = a->D,
                           .ld = attnc_padded(p, a->D),
                           .segments = attnc_query_parts(p, &p->whole),
                           .factor = b->second ? 1 : a->scale};
    const attnc_step step = {p->team.k->sum, &sum, sum_tasks, NULL, attnc_sum_of_sequence};
    if (attnc_pass_run(p, &step, attnc_sum_work(&sum)) < 0)
        return -1;
    for (ptrdiff_t r = 0; row_dot && r < rows; r++)
        dscale += row_dot[r];
    if (with_scale)
        store_number(p, to->scale, 0, dscale);
    return 0;
}

/* Counts the segments of all sequences, which have their own parts of what sums over everything. */
static void plan_segments(attnc_pass *p)
{
    ptrdiff_t parts = 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++) {
        p->sequences[b].segment_parts = parts;
        parts += attnc_segments(p, &p->sequences[b]);
    }
    p->segment_parts = parts;
}

/* One vector for all elements of lead, and all sequences. */
static int plan_score_vector(attnc_pass *p)
{
    if (!p->a.score_vector)
        return 0;
    p->bwd.dscore_vector_parts =
        attnc_team_block(&p->team, p->a.lead.count, p->segment_parts, attnc_padded(p, p->a.D));
    return p->bwd.dscore_vector_parts ? 0 : -1;
}

static int sum_score_vector(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_problem *a = &p->a;
    const ptrdiff_t parts = a->lead.count * p->segment_parts;
    ptrdiff_t zero = 0;
    own_map all = {.own = {.count = 1}, .offset_count = parts, .first = &zero};
    if (!to->score_vector)
        return 0;
    if (!(all.offsets = attnc_take(&p->team.arena, (size_t)parts, sizeof *all.offsets)))
        return -1;
    for (ptrdiff_t n = 0; n < parts; n++)
        all.offsets[n] = n;
    return run_sum(p,
                   (attnc_sum){.out.data = to->score_vector,
                               .parts = p->bwd.dscore_vector_parts,
                               .rows = 1,
                               .out_rows = 1,
                               .N = a->D,
                               .ld = attnc_padded(p, a->D),
                               .segments = 1,
                               .factor = 1},
                   &all);
}

/* ---- slope and sink: a number for each element of lead ---- */

/* Room for (lead, each) doubles. */
static double *new_parts(attnc_pass *p, ptrdiff_t each)
{
    size_t count;
    if (__builtin_mul_overflow((size_t)p->a.lead.count, (size_t)each, &count))
        return NULL;
    return attnc_take(&p->team.arena, count, sizeof(double));
}

static int plan_slope(attnc_pass *p, const attnc_gradients *to)
{
    if (to->slope)
        p->bwd.dslope_parts = new_parts(p, p->segment_parts);
    return to->slope && !p->bwd.dslope_parts ? -1 : 0;
}

static int plan_sink(attnc_pass *p, const attnc_gradients *to)
{
    if (to->sink)
        p->bwd.dsink_parts = new_parts(p, p->sequence_count);
    return to->sink && !p->bwd.dsink_parts ? -1 : 0;
}

/* Of one sequence, what its segments left for element n of lead. */
static double sum_of_segments(const attnc_pass *p, const double *parts, const attnc_sequence *s,
                              ptrdiff_t n)
{
    const ptrdiff_t segments = attnc_segments(p, s);
    double total = 0;
    parts += p->a.lead.count * s->segment_parts + n * segments;
    for (ptrdiff_t k = 0; k < segments; k++)
        total += parts[k];
    return total;
}

/* What element n of lead gets from one sequence: dslope, or dsink. */
static double dslope_of(const attnc_pass *p, const attnc_sequence *s, ptrdiff_t n)
{
    return sum_of_segments(p, p->bwd.dslope_parts, s, n);
}

static double dsink_of(const attnc_pass *p, const attnc_sequence *s, ptrdiff_t n)
{
    return p->bwd.dsink_parts[p->a.lead.count * s->index + n];
}

/* target (own lead) = the sums of them over all that an element stands for. */
static int sum_numbers(attnc_pass *p, const attnc_operand *x, void *target,
                       double (*part)(const attnc_pass *p, const attnc_sequence *s, ptrdiff_t n))
{
    own_map map;
    if (!target)
        return 0;
    if (map_own(p, x, &map) < 0)
        return -1;
    for (ptrdiff_t u = 0; u < map.own.count; u++) {
        double total = 0;
        for (ptrdiff_t b = 0; b < p->sequence_count; b++)
            for (ptrdiff_t g = 0; g < map.offset_count; g++)
                total += part(p, &p->sequences[b], map.first[u] + map.offsets[g]);
        store_number(p, target, u, total);
    }
    return 0;
}

/* ---- scale, in second order: one number ---- */

static int plan_scale(attnc_pass *p, const attnc_gradients *to)
{
    if (!p->bwd.second || !to->scale)
        return 0;
    p->second.dscale_parts = new_parts(p, p->segment_parts);
    return p->second.dscale_parts ? 0 : -1;
}

static void sum_scale(attnc_pass *p, const attnc_gradients *to)
{
    double total = 0;
    if (!p->bwd.second || !to->scale)
        return;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++)
        for (ptrdiff_t n = 0; n < p->a.lead.count; n++)
            total += sum_of_segments(p, p->second.dscale_parts, &p->sequences[b], n);
    store_number(p, to->scale, 0, total);
}

/* ---- center: a number for each query ---- */

static int plan_center(attnc_pass *p, const attnc_gradients *to)
{
    ptrdiff_t parts = 0;
    if (!to->center)
        return 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++) {
        attnc_sequence *s = &p->sequences[b];
        s->center_parts = parts;
        parts += attnc_segments(p, s) * s->Tq;
    }
    p->bwd.dcenter_parts = new_parts(p, parts);
    return p->bwd.dcenter_parts ? 0 : -1;
}

/* dcenter (own lead, own Tq) from what attention_gather left, over all that an element stands
 * for. */
static int sum_center(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_operand *x = &p->in->center;
    own_map map;
    if (!to->center)
        return 0;
    const ptrdiff_t own_Tq = x->shape[p->in->lead.ndim], lead = p->a.lead.count;
    const ptrdiff_t count = attnc_pass_own_lead(p, x).count * own_Tq;
    double *totals = attnc_take(&p->team.arena, (size_t)count, sizeof *totals);
    if (!totals || map_own(p, x, &map) < 0)
        return -1;
    memset(totals, 0, (size_t)count * sizeof *totals);
    for (ptrdiff_t b = 0; b < p->sequence_count; b++) {
        const attnc_sequence *s = &p->sequences[b];
        const double *parts = p->bwd.dcenter_parts + lead * s->center_parts;
        for (ptrdiff_t u = 0; u < map.own.count; u++)
            for (ptrdiff_t g = 0; g < map.offset_count; g++) {
                const double *of_queries = parts + (map.first[u] + map.offsets[g]) * s->Tq;
                for (ptrdiff_t i = 0; i < s->Tq; i++)
                    totals[u * own_Tq + (own_Tq == 1 ? 0 : s->query + i)] += of_queries[i];
            }
    }
    for (ptrdiff_t k = 0; k < count; k++)
        store_number(p, to->center, k, totals[k]);
    return 0;
}

/* ---- all of it ---- */

static size_t backward_scratch(const attnc_pass *p, const void *args)
{
    return p->team.k->bwd_scratch(args);
}

static ptrdiff_t backward_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_bwd *b = args;
    return p->a.lead.count * b->segments;
}

/* Where a row of weights is seen whole by one task, nobody needs delta; but a sparse one's is made
 * in one way only. */
static ptrdiff_t delta_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_bwd *b = args;
    const attnc_kernels *k = p->team.k;
    return k->rows_fit_a_tile(b->problem->Tk) && p->in->normalizer == ATTNC_SOFTMAX
               ? 0
               : p->a.lead.count * attnc_divide_up(b->problem->Tq, k->bwd_query_block);
}

/* Delta, or what second order has in its place. */
static int plan_delta(attnc_pass *p, const attnc_gradients *to)
{
    int wanted = to->sink != NULL || p->in->normalizer != ATTNC_SOFTMAX;
    if (p->bwd.second) {
        p->second.rows =
            attnc_team_block(&p->team, p->a.lead.count, p->a.Tq, p->team.k->row_tangents);
        return p->second.rows ? 0 : -1;
    }
    if (p->bwd.chosen) /* hard attention: its scores have a gradient without any mean */
        return 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++)
        wanted |= !p->team.k->rows_fit_a_tile(p->sequences[b].Tk);
    if (wanted)
        p->bwd.delta = attnc_team_block(&p->team, p->a.lead.count, p->a.Tq, 1);
    return wanted && !p->bwd.delta ? -1 : 0;
}

static ptrdiff_t row_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_bwd *b = args;
    return p->a.lead.count * attnc_divide_up(b->problem->Tq, p->team.k->bwd_query_block);
}

static ptrdiff_t gather_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_bwd *b = args;
    return p->a.lead.count * attnc_divide_up(b->problem->Tq, ATTNC_SUM_ROWS);
}

static int run_kernels(attnc_pass *p)
{
    const attnc_problem *a = &p->a;
    const attnc_attention_bwd *b = &p->bwd;
    const attnc_kernels *k = p->team.k;
    const attnc_step delta = {k->attention_delta, b, delta_tasks, backward_scratch,
                              attnc_backward_of_sequence};
    const attnc_step backward = {k->attention_bwd, b, backward_tasks, backward_scratch,
                                 attnc_backward_of_sequence};
    const attnc_step row_tangents = {k->attention_row_tangents, b, row_tasks, backward_scratch,
                                     attnc_backward_of_sequence};
    const double rows = (double)a->lead.count * (double)a->Tq;
    const double passes = b->second ? ATTNC_HVP_PASSES : ATTNC_BACKWARD_PASSES;
    const int over_pairs = b->dweights.data || a->normalizer != ATTNC_SOFTMAX;
    if (b->second && p->second.rows &&
        attnc_pass_run(p, &row_tangents, ATTNC_HVP_ROW_PASSES * attnc_pass_work(p)) < 0)
        return -1;
    if (b->delta &&
        attnc_pass_run(p, &delta, over_pairs ? attnc_pass_work(p) : rows * (double)a->Dv) < 0)
        return -1;
    if (attnc_pass_run(p, &backward, passes * attnc_pass_work(p)) < 0)
        return -1;
    const attnc_step gather = {k->attention_gather, b, gather_tasks, NULL,
                               attnc_backward_of_sequence};
    return a->center.data ? attnc_pass_run(p, &gather, rows * (double)a->D) : 0;
}

int attnc_pass_first_order(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_attention_bwd before = p->bwd;
    p->bwd.second = NULL;
    p->a.tangents = NULL;
    const int status = attnc_pass_backward(p, to);
    p->bwd = before;
    p->a.tangents = &p->tangents;
    p->direct_dquery = NULL;
    return status;
}

int attnc_pass_backward(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_problem *a = &p->a;
    attnc_attention_bwd *b = &p->bwd;
    const attnc_inputs *in = p->in;
    const int compares = a->score != ATTNC_GIVEN; /* there are query and key */
    const int attends = in->value.data != NULL;   /* else the scores were had alone */
    own_map query;
    key_rows key, value;
    pair_rows bias, scores;

    /* 1. where the kernels write */
    b->segments = attnc_segments(p, &p->whole);
    if ((attends && (plan_key_rows(p, &in->value, a->Dv, to->value, &value) < 0 ||
                     plan_padded(p, &value, &b->dvalue_padded) < 0)) ||
        plan_pairs(p, &in->bias, to->bias, to->zeroed, &bias) < 0 ||
        plan_pairs(p, &in->scores, to->scores, to->zeroed, &scores) < 0 ||
        (compares &&
         (plan_query(p, to, &query) < 0 || plan_key_rows(p, &in->key, a->D, to->key, &key) < 0 ||
          plan_padded(p, &key, &b->dkey_padded) < 0)))
        return -1;
    if (attends)
        b->dvalue = value.written;
    if (compares)
        b->dkey = key.written;
    b->dbias = bias.direct;
    b->dscores = scores.direct;
    plan_segments(p);
    if ((attends && plan_delta(p, to) < 0) || plan_score_vector(p) < 0 || plan_slope(p, to) < 0 ||
        plan_sink(p, to) < 0 || plan_center(p, to) < 0 || plan_scale(p, to) < 0)
        return -1;

    /* 2. the kernels */
    if (run_kernels(p) < 0 || run_pairs(p, &bias, 0) < 0 || run_pairs(p, &scores, 1) < 0)
        return -1;

    /* 3. the sums of what they left in parts */
    if ((attends && sum_key_rows(p, &value) < 0) ||
        sum_numbers(p, &in->slope, to->slope, dslope_of) < 0 ||
        sum_numbers(p, &in->sink, to->sink, dsink_of) < 0 || sum_center(p, to) < 0)
        return -1;
    sum_scale(p, to);
    if (compares && (sum_key_rows(p, &key) < 0 || sum_query(p, to, &query) < 0))
        return -1;
    return a->score_vector ? sum_score_vector(p, to) : 0;
}
