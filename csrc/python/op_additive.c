/* op_additive: glue of additive_attention and additive_scores. s = v . tanh(q Wq + k Wk + b); a
 * weight that is not given means already projected. */
#include "ops.h"

static int check(attnc_call *c)
{
    if (attnc_check_sequences(c, 0) < 0 || attnc_check_vector(c, &c->score_vector) < 0)
        return -1;
    const npy_intp H = PyArray_DIM(c->score_vector.array, 0);
    if (attnc_check_parameter(c, &c->query_weight, attnc_features(&c->query), H, "(Dq, H)") < 0 ||
        attnc_check_parameter(c, &c->key_weight, attnc_features(&c->key), H, "(Dk, H)") < 0 ||
        attnc_check_parameter(c, &c->score_bias, H, -1, "(H,)") < 0 ||
        (!c->query_weight.array && attnc_check_projected(c, &c->query, H, "query_weight") < 0) ||
        (!c->key_weight.array && attnc_check_projected(c, &c->key, H, "key_weight") < 0))
        return -1;
    c->in.D = H;
    return 0;
}

const attnc_function attnc_additive_function = {
    "additive_attention",
    &attnc_additive,
    7,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(value, attnc_read),
     ATTNC_OWN(score_vector, attnc_read), ATTNC_OWN(query_weight, attnc_read_optional),
     ATTNC_OWN(key_weight, attnc_read_optional), ATTNC_OWN(score_bias, attnc_read_optional)},
    .check = check};

const attnc_function attnc_additive_scores_function = {
    "additive_scores",
    &attnc_additive,
    6,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(score_vector, attnc_read),
     ATTNC_OWN(query_weight, attnc_read_optional), ATTNC_OWN(key_weight, attnc_read_optional),
     ATTNC_OWN(score_bias, attnc_read_optional)},
    .check = check,
    .scores_alone = 1};
