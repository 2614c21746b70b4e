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

static const attnc_gradient gradients[] = {ATTNC_GRADIENT(scores), ATTNC_GRADIENT(value),
                                           ATTNC_GRADIENT(bias)};

const attnc_function attnc_attend_function = {"attend",  &attnc_given_scores,
                                              ARRAYS,    read_args,
                                              gradients, sizeof gradients / sizeof *gradients};
