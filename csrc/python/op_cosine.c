/* op_cosine: glue of cosine_attention. s = scale * q . k / (|q| |k|): rows are made unit rows once,
 * the rest is the dot product. */
#include "ops.h"

enum { SCALE = SEQUENCES, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read_sequences(c, args) < 0 || attnc_read_scale(c, args[SCALE], 0) < 0 ||
        attnc_read_options(c, options) < 0 || attnc_convert(c) < 0 ||
        attnc_check_sequences(c, 1) < 0)
        return -1;
    return attnc_read_masks(c, options);
}

/* The unit rows of an operand, and how to get back. */
static int normalize(attnc_call *c, const attnc_operand *operand, ptrdiff_t T, attnc_view *view,
                     attnc_normalize *n)
{
    const ptrdiff_t rows = attnc_rows(operand);
    n->T = T;
    n->D = c->a.D;
    n->lead.ndim = c->a.lead.ndim;
    n->lead.count = attnc_own_count(operand);
    for (int d = 0; d < n->lead.ndim; d++)
        n->lead.shape[d] = PyArray_DIM(operand->array, d);
    attnc_view_of(c, operand, &n->x);
    n->out = attnc_block(c, rows * n->D);
    n->norm = n->out ? attnc_block(c, rows) : NULL;
    if (!n->norm || attnc_run_normalize(c, n, 0) < 0)
        return -1;
    attnc_view_of_block(c, operand, n->out, T, n->D, view);
    return 0;
}

static int prepare(attnc_call *c)
{
    c->a.score = ATTNC_DOT;
    attnc_view_of(c, &c->value, &c->a.value);
    if (normalize(c, &c->query, c->a.Tq, &c->a.query, &c->unit_query) < 0)
        return -1;
    return normalize(c, &c->key, c->a.Tk, &c->a.key, &c->unit_key);
}

static int normalize_backward(attnc_call *c, attnc_normalize *n, const void *dunit, void *out)
{
    n->unit = n->out;
    n->dout = dunit;
    n->out = out;
    return attnc_run_normalize(c, n, 1);
}

/* (dquery, dkey, dvalue, dscale, dbias) */
static int backward(attnc_call *c, attnc_gradients *g)
{
    attnc_gradient_targets to = {0};
    to.query = attnc_want(c, g, &c->query); /* first of the unit rows, then of the rows */
    to.key = attnc_want(c, g, &c->key);
    to.value = attnc_want(c, g, &c->value);
    to.scale = attnc_want(c, g, &c->scale);
    to.bias = attnc_want(c, g, &c->bias);
    if (attnc_run_backward(c, g, &to) < 0 ||
        normalize_backward(c, &c->unit_query, to.query, to.query) < 0)
        return -1;
    return normalize_backward(c, &c->unit_key, to.key, to.key);
}

const attnc_mechanism attnc_cosine = {"cosine_attention", ARRAYS, read_args, prepare, backward};
