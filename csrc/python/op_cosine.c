/* op_cosine: glue of cosine_attention. s = scale * q . k / (|q| |k|) */
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

static const attnc_gradient gradients[] = {ATTNC_GRADIENT(query), ATTNC_GRADIENT(key),
                                           ATTNC_GRADIENT(value), ATTNC_GRADIENT(scale),
                                           ATTNC_GRADIENT(bias)};

const attnc_function attnc_cosine_function = {
    "cosine_attention", &attnc_cosine, ARRAYS,
    read_args,          gradients,     sizeof gradients / sizeof *gradients};
