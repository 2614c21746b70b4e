/* op_multiplicative: glue of multiplicative_attention. s = q W k */
#include "ops.h"

enum { WEIGHT = SEQUENCES, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read_sequences(c, args) < 0 ||
        attnc_read(c, &c->weight, "weight", args[WEIGHT]) < 0 ||
        attnc_read_options(c, options) < 0 || attnc_convert(c) < 0 ||
        attnc_check_sequences(c, 0) < 0 ||
        attnc_check_parameter(c, &c->weight, attnc_features(&c->query), c->in.D, "(Dq, Dk)") < 0)
        return -1;
    return attnc_read_masks(c, options);
}

static const attnc_gradient gradients[] = {ATTNC_GRADIENT(query), ATTNC_GRADIENT(key),
                                           ATTNC_GRADIENT(value), ATTNC_GRADIENT(weight),
                                           ATTNC_GRADIENT(bias)};

const attnc_function attnc_multiplicative_function = {
    "multiplicative_attention",          &attnc_multiplicative, ARRAYS, read_args, gradients,
    sizeof gradients / sizeof *gradients};
