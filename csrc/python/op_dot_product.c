/* op_dot_product: glue of dot_product_attention and dot_product_scores. s = scale * q . k */
#include "ops.h"

#include <math.h>

static int check(attnc_call *c)
{
    if (attnc_check_sequences(c, 1) < 0)
        return -1;
    if (!c->scale.array && isnan(c->in.scale))
        c->in.scale = c->in.D > 0 ? 1 / sqrt((double)c->in.D) : 1;
    return 0;
}

const attnc_function attnc_dot_product_function = {
    "dot_product_attention",
    &attnc_dot_product,
    4,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(value, attnc_read),
     ATTNC_OWN_SCALE(attnc_read_optional_scale)},
    .check = check};

const attnc_function attnc_dot_product_scores_function = {
    "dot_product_scores",
    &attnc_dot_product,
    3,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read),
     ATTNC_OWN_SCALE(attnc_read_optional_scale)},
    .check = check,
    .scores_alone = 1};
