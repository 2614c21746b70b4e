"""attnc through its bridge to JAX, compiled, as a contender of attnc itself."""

import jax
import numpy as np

import attnc.jax


def version():
    return jax.__version__


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments. There is one way here."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    function = getattr(attnc.jax, case.mechanism + "_attention")
    arguments, dcontext = [jax.numpy.asarray(x) for x in inputs.arguments], inputs.dcontext
    dcontext = jax.numpy.asarray(dcontext)

    @jax.jit
    def forward(*arguments):
        return (function(*arguments),)

    @jax.jit
    def forward_and_backward(*arguments):
        context, pullback = jax.vjp(function, *arguments)
        return context, *pullback(dcontext)

    run = forward_and_backward if case.backward else forward
    return {"": lambda: jax.block_until_ready(run(*arguments))}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    return [np.asarray(array) for array in output]
