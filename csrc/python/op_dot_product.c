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
        c->in.scale = c->in.D > 0 ? 1 / sqrt((double)c->in.D) : 1;
    return attnc_read_masks(c, options);
}

static const attnc_gradient gradients[] = {ATTNC_GRADIENT(query), ATTNC_GRADIENT(key),
                                           ATTNC_GRADIENT(value), ATTNC_GRADIENT(scale),
                                           ATTNC_GRADIENT(bias)};

const attnc_function attnc_dot_product_function = {"dot_product_attention",
                                                   &attnc_dot_product,
                                                   ARRAYS,
                                                   read_args,
                                                   gradients,
                                                   sizeof gradients / sizeof *gradients};
