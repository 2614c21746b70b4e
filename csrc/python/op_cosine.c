/* op_cosine: glue of cosine_attention and cosine_scores. s = scale * q . k / (|q| |k|) */
#include "ops.h"

static int check(attnc_call *c) { return attnc_check_sequences(c, 1); }

const attnc_function attnc_cosine_function = {
    "cosine_attention",
    &attnc_cosine,
    4,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN(value, attnc_read),
     ATTNC_OWN_SCALE(attnc_read_scale)},
    .check = check};

const attnc_function attnc_cosine_scores_function = {
    "cosine_scores",
    &attnc_cosine,
    3,
    {ATTNC_OWN(query, attnc_read), ATTNC_OWN(key, attnc_read), ATTNC_OWN_SCALE(attnc_read_scale)},
    .check = check,
    .scores_alone = 1};
