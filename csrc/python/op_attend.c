/* op_attend: glue of attend. s is the caller's own. */
#include "ops.h"

const attnc_function attnc_attend_function = {
    "attend",
    &attnc_given_scores,
    2,
    {ATTNC_OWN(scores, attnc_read), ATTNC_OWN(value, attnc_read)},
    .check = attnc_check_given_scores};
