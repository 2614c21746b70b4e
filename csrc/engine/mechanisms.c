/* mechanisms: how each score comes about from the caller's arrays, and the way back (pass.h). Where
 * a score is a dot product of rows that are made once, no kernel has to know of it. */
#include "pass.h"

#include "work.h"

/* A block for the gradient of the rows that scores are made of, where the way back starts. */
static attnc_result new_rows(attnc_pass *p, const attnc_operand *x)
{
    return (attnc_result){.data = attnc_team_block(&p->team, attnc_pass_rows(p, x), p->in->D, 1)};
}

/* ---- dot product: s = scale * q . k ---- */

static int dot_product_prepare(attnc_pass *p)
{
    p->a.scale = p->in->scale;
    return attnc_pass_view(p, &p->in->query, &p->a.query) < 0
               ? -1
               : attnc_pass_view(p, &p->in->key, &p->a.key);
}

/* attnc_pass_backward; before it, in a pass of second order, the gradients themselves of those rows
 * that `inner` has a place for. */
static int run_backward(attnc_pass *p, const attnc_gradients *inner, const attnc_gradients *to)
{
    if ((inner->query.data || inner->key.data) && attnc_pass_first_order(p, inner) < 0)
        return -1;
    return attnc_pass_backward(p, to);
}

/* Room for the gradients of projected rows in a pass of second order, which asks for their tangents
 * besides; -1 for want of memory. */
static int make_inner(attnc_pass *p, const attnc_operand *x, const attnc_operand *weight,
                      attnc_result *inner)
{
    if (!p->bwd.second || !weight->data)
        return 0;
    *inner = new_rows(p, x);
    return inner->data ? 0 : -1;
}

/* From the gradients of projected rows to those of x and W; second order: from these, inner, and
 * their tangents to the tangents. */
static int way_back(attnc_pass *p, const attnc_projection *projection, attnc_result inner,
                    attnc_result rows, attnc_result dx, void *dweight)
{
    return p->bwd.second ? attnc_project_hvp(p, projection, inner.data, rows.data, dx, dweight)
                         : attnc_project_backward(p, projection, rows.data, dx, dweight);
}

/* The view of a tangent; empty where there is none. */
static int tangent_view(attnc_pass *p, const attnc_operand *x, attnc_view *view)
{
    return x->data ? attnc_pass_view(p, x, view) : 0;
}

static int dot_product_tangents(attnc_pass *p, const attnc_tangents *t)
{
    p->tangents.scale = t->scale;
    return tangent_view(p, &t->query, &p->tangents.query) < 0
               ? -1
               : tangent_view(p, &t->key, &p->tangents.key);
}

const attnc_mechanism attnc_dot_product = {ATTNC_DOT, dot_product_prepare, dot_product_tangents,
                                           attnc_pass_backward};

/* ---- multiplicative: s = q W k = (q W) . k ---- */

static int multiplicative_prepare(attnc_pass *p)
{
    if (attnc_project(p, &p->in->query, &p->in->weight, p->in->Tq, &p->a.query,
                      &p->query_projection) < 0)
        return -1;
    return attnc_pass_view(p, &p->in->key, &p->a.key);
}

static int multiplicative_tangents(attnc_pass *p, const attnc_tangents *t)
{
    return attnc_project_tangent(p, &p->query_projection, &p->in->query, &t->query, &t->weight,
                                 p->in->Tq, &p->tangents.query) < 0
               ? -1
               : tangent_view(p, &t->key, &p->tangents.key);
}

static int multiplicative_backward(attnc_pass *p, const attnc_gradients *g)
{
    attnc_gradients to = *g, inner = {0};
    to.query = new_rows(p, &p->in->query);
    if (!to.query.data || make_inner(p, &p->in->query, &p->in->weight, &inner.query) < 0 ||
        run_backward(p, &inner, &to) < 0)
        return -1;
    return way_back(p, &p->query_projection, inner.query, to.query, g->query, g->weight);
}

const attnc_mechanism attnc_multiplicative = {ATTNC_DOT, multiplicative_prepare,
                                              multiplicative_tangents, multiplicative_backward};

/* ---- additive: s = v . tanh(q Wq + k Wk + b); without a weight it is projected already ---- */

static int projected_view(attnc_pass *p, const attnc_operand *x, const attnc_operand *weight,
                          ptrdiff_t T, attnc_view *view, attnc_projection *projection)
{
    return weight->data ? attnc_project(p, x, weight, T, view, projection)
                        : attnc_pass_view(p, x, view);
}

static int additive_prepare(attnc_pass *p)
{
    const attnc_inputs *in = p->in;
    p->a.score_vector = in->score_vector.data;
    p->a.score_bias = in->score_bias.data;
    return projected_view(p, &in->query, &in->query_weight, in->Tq, &p->a.query,
                          &p->query_projection) < 0
               ? -1
               : projected_view(p, &in->key, &in->key_weight, in->Tk, &p->a.key,
                                &p->key_projection);
}

static int additive_tangents(attnc_pass *p, const attnc_tangents *t)
{
    const attnc_inputs *in = p->in;
    p->tangents.score_vector = t->score_vector.data;
    p->tangents.score_bias = t->score_bias.data;
    if ((in->query_weight.data
             ? attnc_project_tangent(p, &p->query_projection, &in->query, &t->query,
                                     &t->query_weight, in->Tq, &p->tangents.query)
             : tangent_view(p, &t->query, &p->tangents.query)) < 0)
        return -1;
    return in->key_weight.data ? attnc_project_tangent(p, &p->key_projection, &in->key, &t->key,
                                                       &t->key_weight, in->Tk, &p->tangents.key)
                               : tangent_view(p, &t->key, &p->tangents.key);
}

static int additive_backward(attnc_pass *p, const attnc_gradients *g)
{
    const attnc_inputs *in = p->in;
    const ptrdiff_t query_rows = attnc_pass_rows(p, &in->query);
    attnc_gradients to = *g, inner = {0};
    if (make_inner(p, &in->query, &in->query_weight, &inner.query) < 0 ||
        make_inner(p, &in->key, &in->key_weight, &inner.key) < 0)
        return -1;
    /* What the kernels give is the gradient of the projected rows. */
    if (in->query_weight.data || (g->score_bias && !g->query.data))
        to.query = new_rows(p, &in->query);
    else if (g->score_bias) /* it is read once more */
        to.query = attnc_pass_as_computed(p, g->query, query_rows, in->D);
    if (in->key_weight.data)
        to.key = new_rows(p, &in->key);
    if ((in->query_weight.data && !to.query.data) || (in->key_weight.data && !to.key.data) ||
        (g->score_bias && !to.query.data) || run_backward(p, &inner, &to) < 0)
        return -1;
    /* The bias was added to every projected query. */
    if (g->score_bias && attnc_sum_rows(p, to.query.data, query_rows, in->D, g->score_bias) < 0)
        return -1;
    if (in->query_weight.data
            ? way_back(p, &p->query_projection, inner.query, to.query, g->query, g->query_weight) <
                  0
            : g->query.data && attnc_pass_narrow(p, g->query, to.query, query_rows * in->D) < 0)
        return -1;
    return in->key_weight.data
               ? way_back(p, &p->key_projection, inner.key, to.key, g->key, g->key_weight)
               : 0;
}

const attnc_mechanism attnc_additive = {ATTNC_ADDITIVE, additive_prepare, additive_tangents,
                                        additive_backward};

/* ---- cosine: s = scale * q . k / (|q| |k|), the dot product of unit rows ---- */

/* Bytes of two rows, which kernels need where one is in halves. */
static size_t row_scratch(const attnc_pass *p, const attnc_normalize *n)
{
    const int halves = n->x.stored != ATTNC_AS_COMPUTED || n->out.stored != ATTNC_AS_COMPUTED ||
                       n->dout_stored != ATTNC_AS_COMPUTED;
    return halves ? 2 * (size_t)attnc_padded(p, n->D) * p->team.item : 0;
}

/* The unit rows of an operand, and in *n what the way back needs. */
static int normalize(attnc_pass *p, const attnc_operand *x, ptrdiff_t T, attnc_view *view,
                     attnc_normalize *n)
{
    *n = (attnc_normalize){.lead = attnc_pass_own_lead(p, x), .T = T, .D = p->in->D};
    n->out.data = attnc_team_block(&p->team, n->lead.count, T, n->D);
    n->norm = attnc_team_block(&p->team, n->lead.count, T, 1);
    if (!n->out.data || !n->norm || attnc_pass_view(p, x, &n->x) < 0 ||
        attnc_team_run(&p->team, p->team.k->normalize_fwd, n, n->lead.count,
                       attnc_normalize_work(n), row_scratch(p, n)) < 0)
        return -1;
    return attnc_pass_view_of_block(p, x, n->out.data, T, n->D, view);
}

static int normalize_backward(attnc_pass *p, attnc_normalize n, const void *dunit, attnc_result out)
{
    if (!out.data)
        return 0;
    n.unit = n.out.data;
    n.dout = dunit;
    n.out = out;
    return attnc_team_run(&p->team, p->team.k->normalize_bwd, &n, n.lead.count,
                          attnc_normalize_work(&n), row_scratch(p, &n));
}

static int cosine_prepare(attnc_pass *p)
{
    const attnc_inputs *in = p->in;
    p->a.scale = in->scale;
    return normalize(p, &in->query, in->Tq, &p->a.query, &p->unit_query) < 0
               ? -1
               : normalize(p, &in->key, in->Tk, &p->a.key, &p->unit_key);
}

/* The tangent of unit rows: that map is its own transpose, so the kernel of the way back makes
 * it. */
static int normalize_tangent(attnc_pass *p, attnc_normalize *n, const attnc_operand *x,
                             const attnc_operand *tangent, attnc_view *view)
{
    if (!tangent->data)
        return 0;
    void *out = attnc_team_block(&p->team, n->lead.count, n->T, n->D);
    const void *rows = attnc_rows_without_gaps(p, tangent);
    attnc_normalize map = *n;
    map.dout_stored = tangent->stored;
    if (!out || !rows || normalize_backward(p, map, rows, (attnc_result){.data = out}) < 0 ||
        attnc_pass_view(p, tangent, &n->x_tangent) < 0) /* which second order reads */
        return -1;
    return attnc_pass_view_of_block(p, x, out, n->T, n->D, view);
}

static int cosine_tangents(attnc_pass *p, const attnc_tangents *t)
{
    const attnc_inputs *in = p->in;
    p->tangents.scale = t->scale;
    return normalize_tangent(p, &p->unit_query, &in->query, &t->query, &p->tangents.query) < 0
               ? -1
               : normalize_tangent(p, &p->unit_key, &in->key, &t->key, &p->tangents.key);
}

/* Second order: from the gradients of the unit rows and their tangents to the tangents of those of
 * the rows. */
static int normalize_hvp(attnc_pass *p, attnc_normalize n, const void *dunit,
                         const void *dunit_tangent, attnc_result out)
{
    if (!out.data)
        return 0;
    n.unit = n.out.data;
    n.dout = dunit;
    n.dout_tangent = dunit_tangent;
    n.out = out;
    return attnc_team_run(&p->team, p->team.k->normalize_hvp, &n, n.lead.count,
                          2 * attnc_normalize_work(&n),
                          2 * (size_t)attnc_padded(p, n.D) * p->team.item);
}

static int cosine_hvp(attnc_pass *p, const attnc_gradients *g)
{
    const attnc_operand *query = &p->in->query, *key = &p->in->key;
    const attnc_gradients inner = {.query = new_rows(p, query), .key = new_rows(p, key)};
    attnc_gradients to = *g;
    to.query = new_rows(p, query);
    to.key = new_rows(p, key);
    if (!inner.query.data || !inner.key.data || !to.query.data || !to.key.data ||
        run_backward(p, &inner, &to) < 0 ||
        normalize_hvp(p, p->unit_query, inner.query.data, to.query.data, g->query) < 0)
        return -1;
    return normalize_hvp(p, p->unit_key, inner.key.data, to.key.data, g->key);
}

/* The gradients, unless they are in halves, hold those of the unit rows first, then those of the
 * rows. */
static int cosine_backward(attnc_pass *p, const attnc_gradients *g)
{
    attnc_gradients to = *g;
    if (p->bwd.second)
        return cosine_hvp(p, g);
    to.query = attnc_pass_as_computed(p, g->query, attnc_pass_rows(p, &p->in->query), p->in->D);
    to.key = attnc_pass_as_computed(p, g->key, attnc_pass_rows(p, &p->in->key), p->in->D);
    if ((g->query.data && !to.query.data) || (g->key.data && !to.key.data) ||
        attnc_pass_backward(p, &to) < 0 ||
        normalize_backward(p, p->unit_query, to.query.data, g->query) < 0)
        return -1;
    return normalize_backward(p, p->unit_key, to.key.data, g->key);
}

const attnc_mechanism attnc_cosine = {ATTNC_DOT, cosine_prepare, cosine_tangents, cosine_backward};

/* ---- given scores ---- */

static int given_scores_prepare(attnc_pass *p)
{
    return attnc_pass_view(p, &p->in->scores, &p->a.scores);
}

static int given_scores_tangents(attnc_pass *p, const attnc_tangents *t)
{
    return tangent_view(p, &t->scores, &p->tangents.scores);
}

const attnc_mechanism attnc_given_scores = {ATTNC_GIVEN, given_scores_prepare,
                                            given_scores_tangents, attnc_pass_backward};
