/* op_multiplicative: glue of multiplicative_attention and multiplicative_scores. s = q W k */
#include "ops.h"

static int check(attnc_call *c)
{
    if (attnc_check_sequences(c, 0) < 0)
        return -1;
    return attnc_check_parameter(c, &c->weight, attnc_features(&c->query), c->in.D, "(Dq, Dk)");
}

const attnc_function attnc_multiplicative_function = {
    "multiplicative_attention",
    &attnc_multiplicative,
    4,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(value, attnc_read),
     ATTNC_OWN(weight, attnc_read)},
    .check = check};

const attnc_function attnc_multiplicative_scores_function = {
    "multiplicative_scores",
    &attnc_multiplicative,
    3,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(weight, attnc_read)},
    .check = check,
    .scores_alone = 1};
