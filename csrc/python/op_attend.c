/* op_attend: glue of attend. s is the caller's own. */
#include "ops.h"

enum { SCORES, VALUE, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read(c, &c->scores, "scores", args[SCORES]) < 0 ||
        attnc_read(c, &c->value, "value", args[VALUE]) < 0 || attnc_read_options(c, options) < 0 ||
        attnc_convert(c) < 0 || attnc_check_given_scores(c) < 0)
        return -1;
    return attnc_read_masks(c, options);
}

static int prepare(attnc_call *c)
{
    c->a.score = ATTNC_GIVEN;
    attnc_view_of(c, &c->scores, &c->a.scores);
    attnc_view_of(c, &c->value, &c->a.value);
    return 0;
}

/* (dscores, dvalue, dbias) */
static int backward(attnc_call *c, attnc_gradients *g)
{
    attnc_gradient_targets to = {0};
    to.scores = attnc_want(c, g, &c->scores);
    to.value = attnc_want(c, g, &c->value);
    to.bias = attnc_want(c, g, &c->bias);
    return attnc_run_backward(c, g, &to);
}

const attnc_mechanism attnc_attend = {"attend", ARRAYS, read_args, prepare, backward};
