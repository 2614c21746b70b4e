"""attnc through its bridge to autograd, as a contender of attnc itself."""

from importlib.metadata import version as installed

import autograd
import numpy as np
from autograd.extend import VJPNode
from autograd.tracer import new_box

import attnc.autograd


def version():
    return installed("autograd")


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    function = getattr(attnc.autograd, case.mechanism + "_attention")
    arguments, dcontext = inputs
    boxes = [new_box(array, 0, VJPNode.new_root()) for array in arguments]

    def forward():
        return (function(*boxes)._value,)

    def of_all(arguments):
        return function(*arguments)

    def forward_and_backward():
        pullback, context = autograd.make_vjp(of_all)(arguments)
        return context, *pullback(dcontext)

    return {"": forward_and_backward if case.backward else forward}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    return [np.asarray(array) for array in output]
