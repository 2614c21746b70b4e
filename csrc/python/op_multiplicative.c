/* op_multiplicative: glue of multiplicative_attention. s = q W k = (q W) . k: the queries are
 * projected once, the rest is the dot product. */
#include "ops.h"

enum { WEIGHT = SEQUENCES, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read_sequences(c, args) < 0 ||
        attnc_read(c, &c->weight, "weight", args[WEIGHT]) < 0 ||
        attnc_read_options(c, options) < 0 || attnc_convert(c) < 0 ||
        attnc_check_sequences(c, 0) < 0 ||
        attnc_check_parameter(c, &c->weight, attnc_features(&c->query), c->a.D, "(Dq, Dk)") < 0)
        return -1;
    c->scale_value = 1;
    return attnc_read_masks(c, options);
}

static int prepare(attnc_call *c)
{
    c->a.score = ATTNC_DOT;
    void *projected = attnc_project(c, &c->query, &c->weight);
    if (!projected)
        return -1;
    attnc_view_of_block(c, &c->query, projected, c->a.Tq, c->a.D, &c->a.query);
    attnc_view_of(c, &c->key, &c->a.key);
    attnc_view_of(c, &c->value, &c->a.value);
    return 0;
}

/* (dquery, dkey, dvalue, dweight, dbias) */
static int backward(attnc_call *c, attnc_gradients *g)
{
    attnc_gradient_targets to = {0};
    void *dquery = attnc_want(c, g, &c->query);
    to.key = attnc_want(c, g, &c->key);
    to.value = attnc_want(c, g, &c->value);
    void *dweight = attnc_want(c, g, &c->weight);
    to.bias = attnc_want(c, g, &c->bias);
    to.query = attnc_block(c, attnc_rows(&c->query) * c->a.D);
    if (!to.query || attnc_run_backward(c, g, &to) < 0)
        return -1;
    return attnc_project_backward(c, &c->query, &c->weight, to.query, dquery, dweight);
}

const attnc_mechanism attnc_multiplicative = {"multiplicative_attention", ARRAYS, read_args,
                                              prepare, backward};
