"""A test file of otter-grader in its other format: a function that raises where it is wrong."""

import numpy as np
from otter.test_files import test_case

import attnc

OK_FORMAT = False

name = "pullback"
points = 2


@test_case(points=2)
def test_pullback(attention, attention_pullback):
    query, key, value = np.random.default_rng(0).standard_normal((3, 5, 4))

    def pullback(dcontext):
        return attention_pullback(query, key, value, dcontext)

    attnc.check_gradients(attention, pullback, query, key, value)
