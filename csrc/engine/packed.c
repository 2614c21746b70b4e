/* packed: batches of sequences of any length behind one another, without padding (pass.h). Every
 * kernel runs over each sequence as over a call of its own, whose arguments are made here where a
 * thread meets it; so each has the bits of that call. What is packed is the tasks: those of all
 * sequences are one list, and threads share it, however short the sequences are. */
#include "pass.h"

#include <stdlib.h>

/* ---- the list ---- */

attnc_sequence attnc_sequence_of(const attnc_inputs *in, ptrdiff_t b)
{
    if (!attnc_is_packed(in))
        return (attnc_sequence){.Tq = in->Tq, .Tk = in->Tk};
    const ptrdiff_t query = (ptrdiff_t)in->query_offsets[b], key = (ptrdiff_t)in->key_offsets[b];
    return (attnc_sequence){.index = b,
                            .query = query,
                            .Tq = (ptrdiff_t)in->query_offsets[b + 1] - query,
                            .key = key,
                            .Tk = (ptrdiff_t)in->key_offsets[b + 1] - key};
}

/* The longest first, so that no thread is left with one when the others are done. */
static int by_pairs(const void *one, const void *other)
{
    const attnc_sequence *a = one, *b = other;
    const double of_a = (double)a->Tq * (double)a->Tk, of_b = (double)b->Tq * (double)b->Tk;
    if (of_a != of_b)
        return of_a > of_b ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

int attnc_pass_list_sequences(attnc_pass *p)
{
    const attnc_inputs *in = p->in;
    p->sequences = &p->whole;
    p->sequence_count = 1;
    p->whole = (attnc_sequence){.Tq = in->Tq, .Tk = in->Tk};
    if (!attnc_is_packed(in))
        return 0;
    p->sequence_count = in->sequences;
    p->sequences = attnc_take(&p->team.arena, (size_t)in->sequences, sizeof *p->sequences);
    if (!p->sequences)
        return -1;
    ptrdiff_t scores = 0;
    for (ptrdiff_t b = 0; b < in->sequences; b++) {
        p->sequences[b] = attnc_sequence_of(in, b);
        p->sequences[b].scores = scores;
        scores += attnc_saved_scores(in, &p->sequences[b]);
    }
    qsort(p->sequences, (size_t)in->sequences, sizeof *p->sequences, by_pairs);
    return 0;
}

/* ---- what a sequence has of its own ---- */

ptrdiff_t attnc_key_splits(const attnc_pass *p, const attnc_sequence *s)
{
    if (p->in->center.data || p->in->normalizer != ATTNC_SOFTMAX ||
        s->Tq > p->team.k->max_unpacked_queries)
        return 1;
    return p->team.k->segments(s->Tk);
}

ptrdiff_t attnc_segments(const attnc_pass *p, const attnc_sequence *s)
{
    return p->team.k->segments(s->Tk);
}

ptrdiff_t attnc_query_parts(const attnc_pass *p, const attnc_sequence *s)
{
    return p->in->center.data ? 1 : attnc_segments(p, s);
}

int attnc_is_direct(const attnc_pass *p, const attnc_sequence *s)
{
    return p->direct_dquery && attnc_query_parts(p, s) == 1;
}

int attnc_saves_scores(const attnc_inputs *in, const attnc_sequence *s)
{
    /* Additive scores are the dear ones. Where they take no more memory than the query does,
     * backward reads them instead of computing them again. */
    return in->mechanism->score == ATTNC_ADDITIVE && s->Tk <= in->D &&
           in->normalizer == ATTNC_SOFTMAX;
}

ptrdiff_t attnc_saved_scores(const attnc_inputs *in, const attnc_sequence *s)
{
    return attnc_saves_scores(in, s) ? s->Tq * s->Tk : 0;
}

/* Where the sequence's own begins: elements of lead, that many rows each before it, columns. */
static ptrdiff_t block_at(const attnc_pass *p, ptrdiff_t rows, ptrdiff_t columns)
{
    return p->a.lead.count * rows * columns;
}

ptrdiff_t attnc_padded(const attnc_pass *p, ptrdiff_t N)
{
    return attnc_divide_up(N, p->team.k->lanes) * p->team.k->lanes;
}

ptrdiff_t attnc_part_size(const attnc_pass *p)
{
    return (attnc_padded(p, p->a.Dv) + 2 * p->team.k->lanes) * (p->a.tangents ? 2 : 1);
}

/* ---- the arguments of a sequence ---- */

/* The place of element k of an array of results; NULL stays that. */
static void *at(const attnc_pass *p, const void *data, ptrdiff_t k)
{
    return data ? (char *)(uintptr_t)data + k * (ptrdiff_t)p->team.item : NULL;
}

static attnc_result result_at(const attnc_pass *p, attnc_result x, ptrdiff_t k)
{
    const ptrdiff_t size = (ptrdiff_t)attnc_stored_size(x.stored, p->team.item);
    return (attnc_result){x.data ? (char *)x.data + k * size : NULL, x.stored};
}

/* The view from row `first` on. Of a sequence without rows nothing is read, and its place may be
 * behind the last one. */
static attnc_view rows_from(const attnc_pass *p, attnc_view view, ptrdiff_t first, ptrdiff_t rows)
{
    const ptrdiff_t size = (ptrdiff_t)attnc_stored_size(view.stored, p->team.item);
    if (view.data && rows > 0)
        view.data = (char *)view.data + first * view.row * size;
    return view;
}

static attnc_problem problem_of(const attnc_pass *p, const attnc_sequence *s)
{
    const attnc_inputs *in = p->in;
    attnc_problem a = p->a;
    a.Tq = a.queries = s->Tq;
    a.Tk = a.length = s->Tk;
    a.causal_offset = in->from_start ? in->causal_offset : s->Tk - s->Tq;
    a.dropout_first = s->index * in->lead.count;
    a.query = rows_from(p, a.query, s->query, s->Tq);
    a.key = rows_from(p, a.key, s->key, s->Tk);
    a.value = rows_from(p, a.value, s->key, s->Tk);
    if (a.key_mask.data && s->Tk > 0)
        a.key_mask.data = (char *)a.key_mask.data + s->key * a.key_mask.col;
    if (a.center.data)
        a.center.data = (double *)a.center.data + s->query * a.center.row;
    return a;
}

/* a, one sequence's, gets the tangents that belong to it. */
static void tangents_of(const attnc_pass *p, const attnc_sequence *s, attnc_sequence_args *to)
{
    attnc_tangent_views *t = &to->tangents;
    if (!p->a.tangents)
        return;
    *t = p->tangents;
    to->problem.tangents = t;
    t->query = rows_from(p, t->query, s->query, s->Tq);
    t->key = rows_from(p, t->key, s->key, s->Tk);
    t->value = rows_from(p, t->value, s->key, s->Tk);
    if (t->center.data)
        t->center.data = (double *)t->center.data + s->query * t->center.row;
}

const void *attnc_forward_of_sequence(const attnc_pass *p, const void *args,
                                      const attnc_sequence *s, attnc_sequence_args *to)
{
    attnc_attention_fwd *f = &to->fwd;
    to->problem = problem_of(p, s);
    tangents_of(p, s, to);
    *f = *(const attnc_attention_fwd *)args;
    f->problem = &to->problem;
    f->key_splits = attnc_key_splits(p, s);
    f->parts = at(p, f->parts, block_at(p, s->parts, attnc_part_size(p)));
    f->context = result_at(p, f->context, s->query * p->a.Dv);
    f->lse = at(p, f->lse, s->query);
    f->context_copy = at(p, f->context_copy, s->query * p->a.Dv);
    f->context_tangent = result_at(p, f->context_tangent, s->query * p->a.Dv);
    f->lse_tangent = at(p, f->lse_tangent, s->query);
    f->stats = at(p, f->stats, 2 * s->query);
    f->scores_copy =
        attnc_saves_scores(p->in, s) ? at(p, f->scores_copy, block_at(p, s->scores, 1)) : NULL;
    return f;
}

const void *attnc_backward_of_sequence(const attnc_pass *p, const void *args,
                                       const attnc_sequence *s, attnc_sequence_args *to)
{
    attnc_attention_bwd *b = &to->bwd;
    to->problem = problem_of(p, s);
    tangents_of(p, s, to);
    *b = *(const attnc_attention_bwd *)args;
    b->problem = &to->problem;
    b->dcontext = rows_from(p, b->dcontext, s->query, s->Tq);
    b->dlse = rows_from(p, b->dlse, s->query, s->Tq);
    b->saved_context = at(p, b->saved_context, s->query * p->a.Dv);
    b->saved_stats = at(p, b->saved_stats, 2 * s->query);
    b->saved_scores =
        attnc_saves_scores(p->in, s) ? at(p, b->saved_scores, block_at(p, s->scores, 1)) : NULL;
    b->delta = at(p, b->delta, s->query);
    b->segments = attnc_segments(p, s);
    b->dquery_direct = attnc_is_direct(p, s);
    b->dquery_parts = b->dquery_direct
                          ? at(p, p->direct_dquery, s->query * p->a.D)
                          : at(p, b->dquery_parts, block_at(p, s->parts, attnc_padded(p, p->a.D)));
    b->dquery_more = at(p, b->dquery_more, block_at(p, s->parts, attnc_padded(p, p->a.D)));
    if (b->dquery_more && !b->dquery_direct)
        b->dquery_more = at(p, b->dquery_more, block_at(p, s->Tq, attnc_padded(p, p->a.D)));
    b->dkey_padded = at(p, b->dkey_padded, s->key * attnc_padded(p, p->a.D));
    b->dvalue_padded = at(p, b->dvalue_padded, s->key * attnc_padded(p, p->a.Dv));
    if (b->dcenter_parts)
        b->dcenter_parts += block_at(p, s->center_parts, 1);
    b->dkey = result_at(p, b->dkey, s->key * p->a.D);
    b->dvalue = result_at(p, b->dvalue, s->key * p->a.Dv);
    b->dscore_vector_parts =
        at(p, b->dscore_vector_parts, block_at(p, s->segment_parts, attnc_padded(p, p->a.D)));
    if (b->dslope_parts)
        b->dslope_parts += block_at(p, s->segment_parts, 1);
    if (b->dsink_parts)
        b->dsink_parts += block_at(p, s->index, 1);
    if (b->second) {
        attnc_second_order *second = &to->second;
        *second = *b->second;
        b->second = second;
        second->dcontext = rows_from(p, second->dcontext, s->query, s->Tq);
        second->dlse = rows_from(p, second->dlse, s->query, s->Tq);
        second->rows = at(p, second->rows, s->query * p->team.k->row_tangents);
        if (second->dscale_parts)
            second->dscale_parts += block_at(p, s->segment_parts, 1);
    }
    return b;
}

const void *attnc_sum_of_sequence(const attnc_pass *p, const void *args, const attnc_sequence *s,
                                  attnc_sequence_args *to)
{
    attnc_sum *sum = &to->sum;
    *sum = *(const attnc_sum *)args;
    to->with = rows_from(p, *sum->with, s->query, s->Tq);
    sum->with = &to->with;
    if (attnc_is_direct(p, s))
        sum->U = 0; /* there are no parts */
    sum->rows = s->Tq;
    sum->segments = attnc_query_parts(p, s);
    sum->parts = at(p, sum->parts, block_at(p, s->parts, sum->ld));
    sum->out = result_at(p, sum->out, s->query * sum->N);
    sum->row_dot = sum->row_dot ? sum->row_dot + s->query : NULL;
    return sum;
}

/* ---- one list of tasks ---- */

typedef struct {
    const attnc_pass *p;
    const attnc_step *step;
    const ptrdiff_t *first_task; /* of each sequence, and behind the last */
} task_list;

/* The last sequence that begins at or before that task. */
static ptrdiff_t sequence_of_task(const task_list *list, ptrdiff_t task)
{
    ptrdiff_t low = 0, high = list->p->sequence_count;
    while (high - low > 1) {
        const ptrdiff_t middle = low + (high - low) / 2;
        if (list->first_task[middle] <= task)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void run_tasks(const void *args, ptrdiff_t begin, ptrdiff_t end, void *scratch)
{
    const task_list *list = args;
    const attnc_step *step = list->step;
    attnc_sequence_args of_one;
    for (ptrdiff_t b = sequence_of_task(list, begin); begin < end; b++) {
        const ptrdiff_t first = list->first_task[b], behind = list->first_task[b + 1];
        const ptrdiff_t here = end < behind ? end : behind;
        if (begin == here)
            continue;
        const attnc_sequence *s = &list->p->sequences[b];
        const void *its = step->of_sequence(list->p, step->args, s, &of_one);
        step->kernel(its, begin - first, here - first, scratch);
        begin = here;
    }
}

int attnc_pass_run(attnc_pass *p, const attnc_step *step, double work)
{
    size_t scratch = 0;
    if (!attnc_is_packed(p->in)) {
        if (step->scratch)
            scratch = step->scratch(p, step->args);
        return attnc_team_run(&p->team, step->kernel, step->args, step->tasks(p, step->args), work,
                              scratch);
    }
    const ptrdiff_t count = p->sequence_count;
    ptrdiff_t *first_task = attnc_take(&p->team.arena, (size_t)count + 1, sizeof *first_task);
    if (!first_task)
        return -1;
    first_task[0] = 0;
    for (ptrdiff_t b = 0; b < count; b++) {
        attnc_sequence_args of_one;
        const void *its = step->of_sequence(p, step->args, &p->sequences[b], &of_one);
        const ptrdiff_t tasks = step->tasks(p, its);
        const size_t bytes = tasks > 0 && step->scratch ? step->scratch(p, its) : 0;
        scratch = bytes > scratch ? bytes : scratch;
        first_task[b + 1] = first_task[b] + tasks;
    }
    const task_list list = {p, step, first_task};
    return attnc_team_run(&p->team, run_tasks, &list, first_task[count], work, scratch);
}
