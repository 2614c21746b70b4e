"""The same with pytest, a test for each part.

python -m pytest test_attention.py --tb=line        # one line for each failure
"""

import attention as submission
import numpy as np

import attnc
from attnc.teaching import check, puzzles


def test_attention():
    check(submission.attention, attnc.dot_product_attention, options=["mask"])


def test_pullback():
    query, key, value = np.random.default_rng(0).standard_normal((3, 5, 4))

    def pullback(dcontext):
        return submission.attention_pullback(query, key, value, dcontext)

    attnc.check_gradients(submission.attention, pullback, query, key, value)


def test_causal():
    puzzles.causal.check(submission.causal)
