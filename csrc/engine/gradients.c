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

static int run_sum(attnc_pass *p, attnc_sum s, const own_map *map)
{
    s.U = map->own.count;
    s.own_first = map->first;
    s.offsets = map->offsets;
    s.offset_count = map->offset_count;
    return attnc_team_run(&p->team, p->team.k->sum, &s,
                          s.U * attnc_divide_up(s.rows, ATTNC_SUM_ROWS), attnc_sum_work(&s), 0);
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
                               .N = rows->N,
                               .ld = rows->N,
                               .segments = 1,
                               .factor = 1},
                   &rows->map);
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
                       ATTNC_DBIAS_PASSES * attnc_pass_work(p), p->team.k->bwd_scratch(&p->a)) < 0)
        return -1;
    return attnc_pass_narrow(p, pairs->target, pairs->sums, pairs->count);
}

/* ---- queries: parts for each segment of the keys ---- */

static int plan_query(attnc_pass *p, const attnc_gradients *to, own_map *map)
{
    const attnc_problem *a = &p->a;
    attnc_attention_bwd *b = &p->bwd;
    const ptrdiff_t Dp = attnc_divide_up(a->D, p->team.k->lanes) * p->team.k->lanes;
    if (map_own(p, &p->in->query, map) < 0)
        return -1;
    b->dquery_direct = to->query.data && to->query.stored == ATTNC_AS_COMPUTED &&
                       b->segments == 1 && map->offset_count == 1 && a->D == Dp && !to->scale;
    b->dquery_parts = b->dquery_direct
                          ? to->query.data
                          : attnc_team_block(&p->team, a->lead.count, b->segments * a->Tq, Dp);
    return b->dquery_parts ? 0 : -1;
}

static void store_number(const attnc_pass *p, void *target, ptrdiff_t u, double x)
{
    if (p->in->f32)
        ((float *)target)[u] = (float)x;
    else
        ((double *)target)[u] = x;
}

/* dquery, and with it dscale: forward s = scale * q . k, so dscale = sum_i q_i . (dq_i / scale). */
static int sum_query(attnc_pass *p, const attnc_gradients *to, const own_map *map)
{
    const attnc_problem *a = &p->a;
    const attnc_attention_bwd *b = &p->bwd;
    const ptrdiff_t lanes = p->team.k->lanes, rows = map->own.count * a->Tq;
    attnc_result target = to->query;
    double *row_dot = NULL, dscale = 0;
    if (b->dquery_direct || (!to->query.data && !to->scale))
        return 0;
    if (!target.data && !(target.data = attnc_team_block(&p->team, rows, a->D, 1)))
        return -1;
    if (to->scale && !(row_dot = attnc_take(&p->team.arena, (size_t)rows, sizeof *row_dot)))
        return -1;
    const attnc_sum sum = {.out = target,
                           .row_dot = row_dot,
                           .parts = b->dquery_parts,
                           .columns = a->score_vector,
                           /* its strides serve its own shape too: axes of size 1 have stride 0 */
                           .with = &a->query,
                           .with_lead = &map->own,
                           .rows = a->Tq,
                           .N = a->D,
                           .ld = attnc_divide_up(a->D, lanes) * lanes,
                           .segments = b->segments,
                           .factor = a->scale};
    if (run_sum(p, sum, map) < 0)
        return -1;
    for (ptrdiff_t r = 0; row_dot && r < rows; r++)
        dscale += row_dot[r];
    if (to->scale)
        store_number(p, to->scale, 0, dscale);
    return 0;
}

/* One vector for all elements of lead. */
static int sum_score_vector(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_problem *a = &p->a;
    const attnc_attention_bwd *b = &p->bwd;
    const ptrdiff_t lanes = p->team.k->lanes;
    ptrdiff_t zero = 0;
    own_map all = {.own = {.count = 1}, .offset_count = a->lead.count, .first = &zero};
    if (!to->score_vector)
        return 0;
    if (!(all.offsets = attnc_take(&p->team.arena, (size_t)a->lead.count, sizeof *all.offsets)))
        return -1;
    for (ptrdiff_t n = 0; n < a->lead.count; n++)
        all.offsets[n] = n;
    return run_sum(p,
                   (attnc_sum){.out.data = to->score_vector,
                               .parts = b->dscore_vector_parts,
                               .rows = 1,
                               .N = a->D,
                               .ld = attnc_divide_up(a->D, lanes) * lanes,
                               .segments = b->segments,
                               .factor = 1},
                   &all);
}

/* ---- slope and sink: a number for each element of lead ---- */

static int plan_numbers(attnc_pass *p, const void *target, ptrdiff_t each, double **parts)
{
    size_t count;
    *parts = NULL;
    if (!target)
        return 0;
    if (__builtin_mul_overflow((size_t)p->a.lead.count, (size_t)each, &count))
        return -1;
    *parts = attnc_take(&p->team.arena, count, sizeof **parts);
    return *parts ? 0 : -1;
}

/* target (own lead) = the sums of parts (lead, each) */
static int sum_numbers(attnc_pass *p, const attnc_operand *x, const double *parts, ptrdiff_t each,
                       void *target)
{
    own_map map;
    if (!target)
        return 0;
    if (map_own(p, x, &map) < 0)
        return -1;
    for (ptrdiff_t u = 0; u < map.own.count; u++) {
        double total = 0;
        for (ptrdiff_t g = 0; g < map.offset_count; g++)
            for (ptrdiff_t k = 0; k < each; k++)
                total += parts[(map.first[u] + map.offsets[g]) * each + k];
        store_number(p, target, u, total);
    }
    return 0;
}

/* ---- all of it ---- */

/* attention_delta, where a row of weights is not seen whole by one task, then attention_bwd. */
static int run_kernels(attnc_pass *p)
{
    const attnc_problem *a = &p->a;
    const attnc_attention_bwd *b = &p->bwd;
    const attnc_kernels *k = p->team.k;
    const ptrdiff_t N = a->lead.count;
    const size_t scratch = k->bwd_scratch(a);
    if (!k->rows_fit_a_tile(a->Tk) &&
        attnc_team_run(
            &p->team, k->attention_delta, b, N * attnc_divide_up(a->Tq, k->bwd_query_block),
            b->dweights.data ? attnc_pass_work(p) : (double)N * (double)a->Tq * (double)a->Dv,
            scratch) < 0)
        return -1;
    return attnc_team_run(&p->team, k->attention_bwd, b, N * b->segments,
                          ATTNC_BACKWARD_PASSES * attnc_pass_work(p), scratch);
}

int attnc_pass_backward(attnc_pass *p, const attnc_gradients *to)
{
    const attnc_problem *a = &p->a;
    attnc_attention_bwd *b = &p->bwd;
    const attnc_inputs *in = p->in;
    const attnc_kernels *k = p->team.k;
    const int compares = a->score != ATTNC_GIVEN; /* there are query and key */
    own_map query;
    key_rows key, value;
    pair_rows bias, scores;

    /* 1. where the kernels write */
    b->segments = k->segments(a->Tk);
    if (plan_key_rows(p, &in->value, a->Dv, to->value, &value) < 0 ||
        plan_pairs(p, &in->bias, to->bias, to->zeroed, &bias) < 0 ||
        plan_pairs(p, &in->scores, to->scores, to->zeroed, &scores) < 0 ||
        (compares &&
         (plan_query(p, to, &query) < 0 || plan_key_rows(p, &in->key, a->D, to->key, &key) < 0)))
        return -1;
    b->dvalue = value.written;
    if (compares)
        b->dkey = key.written;
    b->dbias = bias.direct;
    b->dscores = scores.direct;
    if (plan_numbers(p, to->slope, b->segments, &b->dslope_parts) < 0 ||
        plan_numbers(p, to->sink, 1, &b->dsink_parts) < 0)
        return -1;
    if ((!k->rows_fit_a_tile(a->Tk) || b->dsink_parts) &&
        !(b->delta = attnc_team_block(&p->team, a->lead.count, a->Tq, 1)))
        return -1;
    const ptrdiff_t Dp = attnc_divide_up(a->D, k->lanes) * k->lanes;
    if (a->score_vector &&
        !(b->dscore_vector_parts = attnc_team_block(&p->team, a->lead.count, b->segments, Dp)))
        return -1;

    /* 2. the kernels */
    if (run_kernels(p) < 0 || run_pairs(p, &bias, 0) < 0 || run_pairs(p, &scores, 1) < 0)
        return -1;

    /* 3. the sums of what they left in parts */
    if (sum_key_rows(p, &value) < 0 ||
        sum_numbers(p, &in->slope, b->dslope_parts, b->segments, to->slope) < 0 ||
        sum_numbers(p, &in->sink, b->dsink_parts, 1, to->sink) < 0)
        return -1;
    if (compares && (sum_key_rows(p, &key) < 0 || sum_query(p, to, &query) < 0))
        return -1;
    return a->score_vector ? sum_score_vector(p, to) : 0;
}
