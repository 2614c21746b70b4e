/* op_dot_product: glue of dot_product_attention. s = scale * q . k */
#include "ops.h"

#include <math.h>

enum { SCALE = SEQUENCES, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read_sequences(c, args) < 0 || attnc_read_scale(c, args[SCALE], 1) < 0 ||
        attnc_read_options(c, options) < 0 || attnc_convert(c) < 0 ||
        attnc_check_sequences(c, 1) < 0)
        return -1;
    if (args[SCALE] == Py_None)
        c->scale_value = c->a.D > 0 ? 1 / sqrt((double)c->a.D) : 1;
    return attnc_read_masks(c, options);
}

static int prepare(attnc_call *c)
{
    c->a.score = ATTNC_DOT;
    attnc_view_of(c, &c->query, &c->a.query);
    attnc_view_of(c, &c->key, &c->a.key);
    attnc_view_of(c, &c->value, &c->a.value);
    return 0;
}

/* (dquery, dkey, dvalue, dscale, dbias) */
static int backward(attnc_call *c, attnc_gradients *g)
{
    attnc_gradient_targets to = {0};
    to.query = attnc_want(c, g, &c->query);
    to.key = attnc_want(c, g, &c->key);
    to.value = attnc_want(c, g, &c->value);
    to.scale = attnc_want(c, g, &c->scale);
    to.bias = attnc_want(c, g, &c->bias);
    return attnc_run_backward(c, g, &to);
}

const attnc_mechanism attnc_dot_product = {"dot_product_attention", ARRAYS, read_args, prepare,
                                           backward};
