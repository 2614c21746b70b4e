"""The plainest grader: asserts at the end of a file, or of a notebook.

python with_asserts.py              # says what is wrong in its last line
"""

import numpy as np
from attention import attention, attention_pullback, causal

import attnc
from attnc.teaching import check, puzzles

assert check(attention, attnc.dot_product_attention, options=["mask"])

query, key, value = np.random.default_rng(0).standard_normal((3, 5, 4))
assert attnc.check_gradients(
    attention, lambda dcontext: attention_pullback(query, key, value, dcontext), query, key, value
)

assert puzzles.causal.check(causal)
print("all right")
