/* attention: see attention.h. Here are the entry points, how operands become views of the kernels,
 * and the forward pass; gradients.c has the backward one. */
#include "pass.h"

#include "dispatch.h"
#include "pool.h"
#include "work.h"

#include <stdint.h>

/* ---- views ---- */

/* The array's strides over lead, 0 where it broadcasts, or NULL for want of memory. Where the
 * caller's are just that, they serve. axes: the array's own, behind the leading ones. */
static const ptrdiff_t *lead_strides(attnc_pass *p, const attnc_operand *x, int axes)
{
    const int ndim = p->in->lead.ndim;
    int d = 0;
    while (x->stride && d < ndim && (x->shape[d] != 1 || x->stride[d] == 0))
        d++;
    if (x->stride && d == ndim)
        return x->stride;
    ptrdiff_t *lead = attnc_take(&p->team.arena, (size_t)ndim, sizeof *lead), step = 1;
    for (d = ndim + axes - 1; lead && d >= 0; step *= x->shape[d--])
        if (d < ndim)
            lead[d] = x->shape[d] == 1 ? 0 : x->stride ? x->stride[d] : step;
    return lead;
}

/* The stride of one of the array's own axes: the first behind the leading ones is 0. */
static ptrdiff_t own_stride(const attnc_pass *p, const attnc_operand *x, int axis, int axes)
{
    const int d = p->in->lead.ndim + axis;
    if (x->stride)
        return x->stride[d];
    return axis + 1 < axes ? x->shape[d + 1] : 1;
}

/* What data points to is only read, though views serve for other things too. */
static attnc_view view_with(const attnc_operand *x, const ptrdiff_t *lead)
{
    return (attnc_view){.data = (void *)(uintptr_t)x->data, .lead = lead, .stored = x->stored};
}

int attnc_pass_view(attnc_pass *p, const attnc_operand *x, attnc_view *view)
{
    const ptrdiff_t *lead = lead_strides(p, x, 2);
    *view = view_with(x, lead);
    view->row = own_stride(p, x, 0, 2);
    view->col = 1;
    return lead ? 0 : -1;
}

int attnc_pass_view_of_block(attnc_pass *p, const attnc_operand *like, void *block, ptrdiff_t rows,
                             ptrdiff_t columns, attnc_view *view)
{
    ptrdiff_t shape[ATTNC_MAX_LEAD + 2];
    const int ndim = p->in->lead.ndim;
    for (int d = 0; d < ndim; d++)
        shape[d] = like->shape[d];
    shape[ndim] = rows;
    shape[ndim + 1] = columns;
    return attnc_pass_view(p, &(attnc_operand){.data = block, .shape = shape}, view);
}

/* A mask, bias, length or offset: its own axes broadcast like the leading ones. Where it is not
 * given, the view stays empty. */
static int view_of_mask(attnc_pass *p, const attnc_operand *x, int with_query, int with_key,
                        attnc_view *view)
{
    const int ndim = p->in->lead.ndim, axes = with_query + with_key;
    if (!x->data)
        return 0;
    const ptrdiff_t *lead = lead_strides(p, x, axes);
    *view = view_with(x, lead);
    if (with_query && x->shape[ndim] != 1)
        view->row = own_stride(p, x, 0, axes);
    if (with_key && x->shape[ndim + with_query] != 1)
        view->col = own_stride(p, x, with_query, axes);
    return lead ? 0 : -1;
}

attnc_lead attnc_pass_own_lead(const attnc_pass *p, const attnc_operand *x)
{
    attnc_lead own = {p->in->lead.ndim, 1, x->shape};
    for (int d = 0; d < own.ndim; d++)
        own.count *= x->shape[d];
    return own;
}

ptrdiff_t attnc_pass_rows(const attnc_pass *p, const attnc_operand *x)
{
    return attnc_pass_own_lead(p, x).count * x->shape[p->in->lead.ndim];
}

ptrdiff_t attnc_pass_features(const attnc_pass *p, const attnc_operand *x)
{
    return x->shape[p->in->lead.ndim + 1];
}

/* ---- a pass ---- */

enum { FIRST_BYTES = 4096 }; /* of a small call: views, masks and projections of a few rows */

/* Begins the team and fills what forward and backward have in common. The team has to end, also
 * after a failure. */
static int begin(attnc_pass *p, const attnc_inputs *in, const attnc_executor *executor, void *first)
{
    attnc_problem *a = &p->a;
    p->in = in;
    attnc_team_begin(&p->team, in->f32, executor, attnc_arena_in(first, FIRST_BYTES));
    *a = (attnc_problem){.score = in->mechanism->score,
                         .lead = in->lead,
                         .Tq = in->Tq,
                         .Tk = in->Tk,
                         .query_rows = in->Tq,
                         .key_rows = in->Tk,
                         .D = in->D,
                         .Dv = in->Dv,
                         .scale = 1,
                         .length = in->length,
                         .queries = in->query_length,
                         .causal_offset = in->causal_offset,
                         .causal = in->causal,
                         .left = in->window ? in->left : -1,
                         .right = in->window ? in->right : -1,
                         .sigma = in->sigma,
                         .renormalize = in->renormalize,
                         .softcap = in->softcap,
                         .normalizer = in->normalizer,
                         .dropout = in->dropout,
                         .dropout_key = in->dropout_key};
    p->direct_dquery = NULL;
    if (attnc_pass_list_sequences(p) < 0 || in->mechanism->prepare(p) < 0 ||
        (in->value.data && attnc_pass_view(p, &in->value, &a->value) < 0) ||
        view_of_mask(p, &in->mask, 1, 1, &a->mask) < 0 ||
        view_of_mask(p, &in->key_mask, 0, 1, &a->key_mask) < 0 ||
        view_of_mask(p, &in->lengths, 0, 0, &a->lengths) < 0 ||
        view_of_mask(p, &in->query_lengths, 0, 0, &a->query_lengths) < 0 ||
        view_of_mask(p, &in->offset, 0, 0, &a->offset) < 0 ||
        view_of_mask(p, &in->bias, 1, 1, &a->bias) < 0 ||
        view_of_mask(p, &in->slope, 0, 0, &a->slope) < 0 ||
        view_of_mask(p, &in->sink, 0, 0, &a->sink) < 0 ||
        view_of_mask(p, &in->center, 1, 0, &a->center) < 0)
        return -1;
    if (a->bias.col) /* with one column only, its stride means nothing */
        a->bias.col = 1;
    return 0;
}

attnc_saves attnc_what_is_saved(const attnc_inputs *in)
{
    const attnc_kernels *k = attnc_kernels_for(in->f32);
    const ptrdiff_t count = attnc_is_packed(in) ? in->sequences : 1;
    attnc_saves saves = {-1, 2, -1, 0};
    if (in->normalizer != ATTNC_SOFTMAX)
        return (attnc_saves){-1, -1, in->Tk, 0};
    for (ptrdiff_t b = 0; b < count; b++) {
        const attnc_sequence s = attnc_sequence_of(in, b);
        if (!k->rows_fit_a_tile(s.Tk))
            saves.context = in->Dv;
        if (attnc_is_packed(in))
            saves.packed_scores += attnc_saved_scores(in, &s);
        else if (attnc_saved_scores(in, &s))
            saves.scores = in->Tk;
    }
    return saves;
}

/* How many keys a query has to do with: all, or about those of a window around a center. */
static double keys_of_query(const attnc_inputs *in, ptrdiff_t Tk)
{
    if (!in->center.data || in->left < 0 || in->right < 0)
        return (double)Tk;
    const double width = (double)in->left + (double)in->right + 1;
    return width < (double)Tk ? width : (double)Tk;
}

/* Time of one pass over all pairs. */
static double pass_work(const attnc_inputs *in)
{
    const attnc_kernels *k = attnc_kernels_for(in->f32);
    const ptrdiff_t count = attnc_is_packed(in) ? in->sequences : 1;
    double work = 0;
    for (ptrdiff_t b = 0; b < count; b++) {
        const attnc_sequence s = attnc_sequence_of(in, b);
        const int unpacked = s.Tq <= k->max_unpacked_queries;
        const double pairs = (double)in->lead.count * (double)s.Tq * keys_of_query(in, s.Tk);
        work += attnc_pair_work(in->causal && !unpacked ? pairs / 2 : pairs, in->D,
                                in->choice ? 0 : in->Dv, in->mechanism->score == ATTNC_ADDITIVE,
                                unpacked);
    }
    return work;
}

double attnc_pass_work(const attnc_pass *p) { return pass_work(p->in); }

double attnc_attention_work(const attnc_inputs *in, int backward)
{
    const attnc_operand *weights[] = {&in->weight, &in->query_weight, &in->key_weight};
    const ptrdiff_t rows[] = {in->Tq, in->Tq, in->Tk};
    double work = pass_work(in) * (backward ? ATTNC_BACKWARD_PASSES : 1);
    for (int k = 0; k < 3; k++)
        if (weights[k]->data) /* backward: the projection again, and two gradients */
            work += (double)in->lead.count * (double)rows[k] * (double)weights[k]->shape[0] *
                    (double)weights[k]->shape[1] * (backward ? 3 : 1);
    return work;
}

/* ---- forward ---- */

static int is_nothing_to_write(const attnc_inputs *in, const attnc_outputs *out)
{
    if (in->lead.count == 0 || in->Tq == 0)
        return 1;
    return in->Dv == 0 && !in->choice && !out->lse && !out->weights.data && !out->saved_stats &&
           !out->saved_scores && !out->scores.data;
}

static ptrdiff_t tasks_with(const attnc_pass *p, ptrdiff_t query_chunk)
{
    ptrdiff_t chunks = 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++)
        chunks += attnc_divide_up(p->sequences[b].Tq, query_chunk);
    return p->a.lead.count * chunks;
}

/* How the work is cut into tasks, and the memory of what is put together in the end. */
static int plan_forward(attnc_pass *p, attnc_attention_fwd *f)
{
    const attnc_problem *a = f->problem;
    const attnc_kernels *k = p->team.k;
    /* Packing the keys pays over many queries, but every thread wants some tasks. */
    ptrdiff_t share = a->Tq > k->query_block ? 8 : 1;
    while (share > 1 && tasks_with(p, share * k->query_block) < 4 * attnc_get_num_threads())
        share /= 2;
    f->query_chunk = share * k->query_block;
    f->key_splits = attnc_key_splits(p, &p->whole);
    const int sparse = a->normalizer != ATTNC_SOFTMAX;
    const int weights_move = f->weights_tangent || f->narrow_weights_tangent.data;
    /* Scores are no halves, and the weights are made where they stood. */
    if (!f->weights && (f->narrow_weights.data || sparse || weights_move) &&
        !(f->weights = attnc_team_block(&p->team, a->lead.count, a->Tq, a->Tk)))
        return -1;
    if (!f->weights_tangent && (weights_move || (sparse && a->tangents)) &&
        !(f->weights_tangent = attnc_team_block(&p->team, a->lead.count, a->Tq, a->Tk)))
        return -1;
    ptrdiff_t parts = 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++) {
        attnc_sequence *s = &p->sequences[b];
        const ptrdiff_t splits = attnc_key_splits(p, s);
        s->parts = parts;
        parts += splits > 1 ? splits * s->Tq : 0;
    }
    if (parts == 0 || f->scores.data)
        return 0;
    f->parts = attnc_team_block(&p->team, a->lead.count, parts, attnc_part_size(p));
    return f->parts ? 0 : -1;
}

static size_t forward_scratch(const attnc_pass *p, const void *args)
{
    return p->team.k->fwd_scratch(args);
}

static ptrdiff_t forward_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_fwd *f = args;
    return p->a.lead.count * attnc_divide_up(f->problem->Tq, f->query_chunk) * f->key_splits;
}

static ptrdiff_t merge_tasks(const attnc_pass *p, const void *args)
{
    const attnc_attention_fwd *f = args;
    return f->key_splits > 1 ? p->a.lead.count : 0;
}

static double forward_work(const attnc_pass *p)
{
    return attnc_pass_work(p) * (p->a.tangents ? ATTNC_TANGENT_PASSES : 1);
}

static int run_forward(attnc_pass *p, const attnc_attention_fwd *f)
{
    const attnc_kernels *k = p->team.k;
    const attnc_step forward = {k->attention_fwd, f, forward_tasks, forward_scratch,
                                attnc_forward_of_sequence};
    const attnc_step merge = {k->attention_merge, f, merge_tasks, forward_scratch,
                              attnc_forward_of_sequence};
    double to_merge = 0;
    if (attnc_pass_run(p, &forward, forward_work(p)) < 0)
        return -1;
    if (!f->parts)
        return 0;
    for (ptrdiff_t b = 0; b < p->sequence_count; b++)
        to_merge += (double)(attnc_key_splits(p, &p->sequences[b]) * p->sequences[b].Tq);
    to_merge *= (double)p->a.lead.count * (double)p->a.Dv;
    return attnc_pass_run(p, &merge, to_merge);
}

/* ---- hard attention ---- */

static int run_hard(attnc_pass *p, const attnc_outputs *out, const attnc_output_tangents *moved)
{
    attnc_hard_fwd f = {.problem = &p->a,
                        .choice = *p->in->choice,
                        .context = out->context,
                        .index = out->index,
                        .log_probability = out->log_probability,
                        .entropy = out->entropy,
                        .stats = out->saved_stats};
    if (moved) {
        f.context_tangent = moved->context;
        f.log_probability_tangent = moved->log_probability;
        f.entropy_tangent = moved->entropy;
    }
    return attnc_team_run(&p->team, p->team.k->hard_fwd, &f,
                          p->a.lead.count * attnc_divide_up(p->a.Tq, ATTNC_HARD_QUERIES),
                          forward_work(p), p->team.k->hard_scratch(&p->a));
}

/* Forward mode: the views of all tangents. */
static int begin_tangents(attnc_pass *p, const attnc_tangents *t)
{
    attnc_tangent_views *views = &p->tangents;
    *views = (attnc_tangent_views){0};
    p->a.tangents = views;
    if (p->in->mechanism->prepare_tangents(p, t) < 0 ||
        (t->value.data && attnc_pass_view(p, &t->value, &views->value) < 0) ||
        view_of_mask(p, &t->bias, 1, 1, &views->bias) < 0 ||
        view_of_mask(p, &t->slope, 0, 0, &views->slope) < 0 ||
        view_of_mask(p, &t->sink, 0, 0, &views->sink) < 0 ||
        view_of_mask(p, &t->center, 1, 0, &views->center) < 0)
        return -1;
    if (views->bias.col) /* as in begin */
        views->bias.col = 1;
    return 0;
}

/* tangents and moved may be NULL: the outputs alone. */
static int run(const attnc_inputs *in, const attnc_tangents *tangents, const attnc_outputs *out,
               const attnc_output_tangents *moved, const attnc_executor *executor)
{
    _Alignas(64) char first[FIRST_BYTES];
    attnc_pass p;
    if (is_nothing_to_write(in, out))
        return 0; /* even if there are 2^40 elements of it */
    int status = begin(&p, in, executor, first);
    if (status == 0 && tangents)
        status = begin_tangents(&p, tangents);
    /* context_copy is a copy because the caller may write to the context it gets. */
    attnc_attention_fwd f = {.problem = &p.a,
                             .context = out->context,
                             .lse = out->lse,
                             .context_copy = out->saved_context,
                             .stats = out->saved_stats,
                             .scores_copy = out->saved_scores,
                             .scores = out->scores};
    if (in->normalizer != ATTNC_SOFTMAX) {
        f.weights = out->saved_scores;
        f.scores_copy = NULL;
    }
    if (!f.weights && out->weights.stored == ATTNC_AS_COMPUTED)
        f.weights = out->weights.data;
    else
        f.narrow_weights = out->weights;
    if (moved) {
        f.context_tangent = moved->context;
        f.lse_tangent = moved->lse;
        f.scores_tangent = moved->scores;
        if (moved->weights.stored == ATTNC_AS_COMPUTED)
            f.weights_tangent = moved->weights.data;
        else
            f.narrow_weights_tangent = moved->weights;
    }
    if (status == 0 && in->choice)
        status = run_hard(&p, out, moved);
    else if (status == 0)
        status = plan_forward(&p, &f) < 0 ? -1 : run_forward(&p, &f);
    attnc_team_end(&p.team);
    return status;
}

int attnc_attention_forward(const attnc_inputs *in, const attnc_outputs *out,
                            const attnc_executor *executor)
{
    return run(in, NULL, out, NULL, executor);
}

int attnc_attention_jvp(const attnc_inputs *in, const attnc_tangents *tangents,
                        const attnc_outputs *out, const attnc_output_tangents *moved,
                        const attnc_executor *executor)
{
    return run(in, tangents, out, moved, executor);
}

/* ---- backward ---- */

static int view_of_incoming(attnc_pass *p, const attnc_operand *x, attnc_view *view)
{
    return x->data ? attnc_pass_view(p, x, view) : 0;
}

static int incoming_views(attnc_pass *p, const attnc_incoming *incoming)
{
    attnc_attention_bwd *b = &p->bwd;
    return view_of_incoming(p, &incoming->context, &b->dcontext) < 0 ||
                   view_of_incoming(p, &incoming->weights, &b->dweights) < 0 ||
                   view_of_incoming(p, &incoming->scores, &b->dscores_given) < 0 ||
                   view_of_mask(p, &incoming->lse, 1, 0, &b->dlse) < 0 ||
                   view_of_mask(p, &incoming->log_probability, 1, 0, &b->dlog_probability) < 0 ||
                   view_of_mask(p, &incoming->entropy, 1, 0, &b->dentropy) < 0
               ? -1
               : 0;
}

int attnc_attention_backward(const attnc_inputs *in, const attnc_incoming *incoming,
                             const attnc_gradients *gradients, const attnc_executor *executor)
{
    _Alignas(64) char first[FIRST_BYTES];
    attnc_pass p;
    int status = begin(&p, in, executor, first);
    p.bwd = (attnc_attention_bwd){.problem = &p.a,
                                  .chosen = incoming->saved_index,
                                  .saved_entropy = incoming->saved_entropy,
                                  .saved_context = incoming->saved_context,
                                  .saved_stats = incoming->saved_stats,
                                  .saved_scores = incoming->saved_scores};
    if (in->normalizer != ATTNC_SOFTMAX) {
        p.bwd.saved_weights = incoming->saved_scores;
        p.bwd.saved_scores = NULL;
    }
    if (status == 0 && incoming_views(&p, incoming) < 0)
        status = -1;
    if (status == 0)
        status = in->mechanism->backward(&p, gradients);
    attnc_team_end(&p.team);
    return status;
}

/* ---- second order ---- */

/* Room for what the forward pass leaves for backward, of which only that has to be there. */
static int make_outputs(attnc_pass *p, attnc_outputs *out)
{
    const attnc_problem *a = &p->a;
    const ptrdiff_t lead = a->lead.count;
    if (!(out->context.data = attnc_team_block(&p->team, lead, a->Tq, a->Dv)))
        return -1;
    if (a->normalizer != ATTNC_SOFTMAX)
        return (out->saved_scores = attnc_team_block(&p->team, lead, a->Tq, a->Tk)) ? 0 : -1;
    out->saved_stats = attnc_team_block(&p->team, lead, a->Tq, 2);
    if (!p->in->choice)
        return out->saved_stats ? 0 : -1;
    out->index = attnc_take(&p->team.arena, (size_t)(lead * a->Tq), sizeof *out->index);
    out->log_probability = attnc_team_block(&p->team, lead, a->Tq, 1);
    out->entropy = attnc_team_block(&p->team, lead, a->Tq, 1);
    return out->saved_stats && out->index && out->log_probability && out->entropy ? 0 : -1;
}

/* The forward pass once more; p->bwd gets what it leaves. */
static int forward_again(attnc_pass *p)
{
    attnc_outputs out = {0};
    const int sparse = p->in->normalizer != ATTNC_SOFTMAX;
    if (!p->in->value.data) /* scores alone: their gradients need nothing of it */
        return 0;
    if (make_outputs(p, &out) < 0)
        return -1;
    p->bwd.chosen = out.index;
    p->bwd.saved_entropy = out.entropy;
    p->bwd.saved_context = out.context.data;
    p->bwd.saved_stats = out.saved_stats;
    p->bwd.saved_weights = out.saved_scores;
    if (p->a.lead.count == 0 || p->a.Tq == 0)
        return 0;
    attnc_attention_fwd f = {.problem = &p->a,
                             .context = out.context,
                             .stats = out.saved_stats,
                             .weights = sparse ? out.saved_scores : NULL};
    if (p->in->choice)
        return run_hard(p, &out, NULL);
    return plan_forward(p, &f) < 0 ? -1 : run_forward(p, &f);
}

static int views_of_second(attnc_pass *p, const attnc_incoming *tangents)
{
    attnc_second_order *second = &p->second;
    return view_of_incoming(p, &tangents->context, &second->dcontext) < 0 ||
                   view_of_incoming(p, &tangents->weights, &second->dweights) < 0 ||
                   view_of_incoming(p, &tangents->scores, &second->dscores_given) < 0 ||
                   view_of_mask(p, &tangents->lse, 1, 0, &second->dlse) < 0 ||
                   view_of_mask(p, &tangents->log_probability, 1, 0, &second->dlog_probability) <
                       0 ||
                   view_of_mask(p, &tangents->entropy, 1, 0, &second->dentropy) < 0
               ? -1
               : 0;
}

int attnc_attention_hvp(const attnc_inputs *in, const attnc_tangents *tangents,
                        const attnc_incoming *incoming, const attnc_incoming *dincoming,
                        const attnc_gradients *gradients, const attnc_executor *executor)
{
    _Alignas(64) char first[FIRST_BYTES];
    attnc_pass p;
    int status = begin(&p, in, executor, first);
    p.bwd = (attnc_attention_bwd){.problem = &p.a};
    p.second = (attnc_second_order){.rows = NULL};
    if (status < 0 || forward_again(&p) < 0 || begin_tangents(&p, tangents) < 0 ||
        incoming_views(&p, incoming) < 0 || views_of_second(&p, dincoming) < 0)
        status = -1;
    p.bwd.second = &p.second;
    if (status == 0)
        status = in->mechanism->backward(&p, gradients);
    attnc_team_end(&p.team);
    return status;
}
