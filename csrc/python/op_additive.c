/* op_additive: glue of additive_attention. s = v . tanh(q Wq + k Wk + b): queries and keys are
 * projected once; a weight that is not given means already projected. */
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
    c->a.D = H;
    return attnc_read_masks(c, options);
}

/* The view of an operand, projected if it has a weight. */
static int project(attnc_call *c, attnc_operand *operand, attnc_operand *weight, ptrdiff_t T,
                   attnc_view *view)
{
    if (!weight->array) {
        attnc_view_of(c, operand, view);
        return 0;
    }
    void *projected = attnc_project(c, operand, weight);
    if (!projected)
        return -1;
    attnc_view_of_block(c, operand, projected, T, c->a.D, view);
    return 0;
}

static int prepare(attnc_call *c)
{
    attnc_attention *a = &c->a;
    a->score = ATTNC_ADDITIVE;
    a->score_vector = PyArray_DATA(c->score_vector.array);
    a->score_bias = c->score_bias.array ? PyArray_DATA(c->score_bias.array) : NULL;
    attnc_view_of(c, &c->value, &a->value);
    if (project(c, &c->query, &c->query_weight, a->Tq, &a->query) < 0)
        return -1;
    return project(c, &c->key, &c->key_weight, a->Tk, &a->key);
}

/* (dquery, dkey, dvalue, dscore_vector, dquery_weight, dkey_weight, dscore_bias, dbias) */
static int backward(attnc_call *c, attnc_gradients *g)
{
    attnc_gradient_targets to = {0};
    void *dquery = attnc_want(c, g, &c->query), *dkey = attnc_want(c, g, &c->key);
    to.value = attnc_want(c, g, &c->value);
    to.score_vector = attnc_want(c, g, &c->score_vector);
    void *dquery_weight = attnc_want(c, g, &c->query_weight);
    void *dkey_weight = attnc_want(c, g, &c->key_weight);
    void *dscore_bias = attnc_want(c, g, &c->score_bias);
    to.bias = attnc_want(c, g, &c->bias);
    /* what the kernels give is the gradient of the projected rows */
    to.query = c->query_weight.array ? attnc_block(c, attnc_rows(&c->query) * c->a.D) : dquery;
    to.key = c->key_weight.array ? attnc_block(c, attnc_rows(&c->key) * c->a.D) : dkey;
    if (!to.query || !to.key || attnc_run_backward(c, g, &to) < 0)
        return -1;
    /* the bias was added to every projected query */
    if (dscore_bias && attnc_sum_rows(c, to.query, attnc_rows(&c->query), c->a.D, dscore_bias) < 0)
        return -1;
    if (c->query_weight.array &&
        attnc_project_backward(c, &c->query, &c->query_weight, to.query, dquery, dquery_weight) < 0)
        return -1;
    if (c->key_weight.array &&
        attnc_project_backward(c, &c->key, &c->key_weight, to.key, dkey, dkey_weight) < 0)
        return -1;
    return 0;
}

const attnc_mechanism attnc_additive = {"additive_attention", ARRAYS, read_args, prepare, backward};
