/* op_additive: glue of additive_attention. s = v . tanh(q Wq + k Wk + b); a weight that is not
 * given means already projected. */
#include "ops.h"

enum { SCORE_VECTOR = SEQUENCES, QUERY_WEIGHT, KEY_WEIGHT, SCORE_BIAS, ARRAYS };

static int read_args(attnc_call *c, PyObject *const *args)
{
    PyObject *const *options = args + ARRAYS;
    if (attnc_read_sequences(c, args) < 0 ||
        attnc_read(c, &c->score_vector, "score_vector", args[SCORE_VECTOR]) < 0 ||
        attnc_read_optional(c, &c->query_weight, "query_weight", args[QUERY_WEIGHT]) < 0 ||
        attnc_read_optional(c, &c->key_weight, "key_weight", args[KEY_WEIGHT]) < 0 ||
        attnc_read_optional(c, &c->score_bias, "score_bias", args[SCORE_BIAS]) < 0 ||
        attnc_read_options(c, options) < 0 || attnc_convert(c) < 0 ||
        attnc_check_sequences(c, 0) < 0 || attnc_check_vector(c, &c->score_vector) < 0)
        return -1;
    const npy_intp H = PyArray_DIM(c->score_vector.array, 0);
    if (attnc_check_parameter(c, &c->query_weight, attnc_features(&c->query), H, "(Dq, H)") < 0 ||
        attnc_check_parameter(c, &c->key_weight, attnc_features(&c->key), H, "(Dk, H)") < 0 ||
        attnc_check_parameter(c, &c->score_bias, H, -1, "(H,)") < 0 ||
        (!c->query_weight.array && attnc_check_projected(c, &c->query, H, "query_weight") < 0) ||
        (!c->key_weight.array && attnc_check_projected(c, &c->key, H, "key_weight") < 0))
        return -1;
    c->in.D = H;
    return attnc_read_masks(c, options);
}

static const attnc_gradient gradients[] = {
    ATTNC_GRADIENT(query),        ATTNC_GRADIENT(key),          ATTNC_GRADIENT(value),
    ATTNC_GRADIENT(score_vector), ATTNC_GRADIENT(query_weight), ATTNC_GRADIENT(key_weight),
    ATTNC_GRADIENT(score_bias),   ATTNC_GRADIENT(bias)};

const attnc_function attnc_additive_function = {"additive_attention",
                                                &attnc_additive,
                                                ARRAYS,
                                                read_args,
                                                gradients,
                                                sizeof gradients / sizeof *gradients};
