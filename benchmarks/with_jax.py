"""JAX as a contender, compiled by XLA: its fused attention, and the formulas that it lacks."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import isa, monotonic_jax, recurrent_jax, transformer_jax
from benchmarks.inputs import COSINE_SCALE, valid_keys


def version():
    return jax.__version__


def instructions():
    """The newest that XLA compiles for, which it keeps beside what it has compiled."""
    features = isa.said(
        "import jax; compiled = jax.jit(lambda x: x + 1).lower(1.0).compile();"
        "print(compiled.runtime_executable().serialize())"
    )
    return next((name for name in ("avx512f", "avx2", "avx") if f"+{name}," in features), "")


def formulas(case):
    """The ways to compute a case, by name: functions of the arrays. Heads are the third axis."""
    attention = jax.nn.dot_product_attention
    mask = valid_keys(case)

    def dot_product(query, key, value):
        return attention(query, key, value, mask=mask, is_causal=case.causal)

    def multiplicative(query, key, value, weight):
        return attention(query @ weight, key, value, scale=1.0)

    def cosine(query, key, value):
        query /= jnp.linalg.norm(query, axis=-1, keepdims=True)
        key /= jnp.linalg.norm(key, axis=-1, keepdims=True)
        return attention(query, key, value, scale=COSINE_SCALE)

    def additive_product(query, key, value, score_vector):
        scores = jnp.tanh(query[:, :, None, :] + key[:, None, :, :]) @ score_vector
        return jax.nn.softmax(scores, -1) @ value

    def additive_sum(query, key, value, score_vector):
        scores = (jnp.tanh(query[:, :, None, :] + key[:, None, :, :]) * score_vector).sum(-1)
        return jax.nn.softmax(scores, -1) @ value

    return {
        "dot_product": {"": dot_product},
        "multiplicative": {"": multiplicative},
        "cosine": {"": cosine},
        "additive": {"tanh(...) @ w": additive_product, "(tanh(...) * w).sum(-1)": additive_sum},
        "monotonic": monotonic_jax.FORMS,
    }[case.mechanism]


def prepare(case, inputs):
    """The ways to compute a case, by name: calls without arguments, compiled already."""
    jax.config.update("jax_enable_x64", case.dtype == "float64")
    if case.recurrent:
        return recurrent_jax.prepare(case, inputs)
    if case.transformer:
        return transformer_jax.prepare(case, inputs)
    arrays = [jnp.asarray(swap_heads(x)) for x in inputs.arguments]
    dcontext = jnp.asarray(swap_heads(inputs.dcontext))

    def call(formula):
        def forward(*arrays):
            return (formula(*arrays),)

        def forward_and_backward(dcontext, *arrays):
            context, pullback = jax.vjp(formula, *arrays)
            return context, *pullback(dcontext)

        function = forward_and_backward if case.backward else forward
        arguments = (dcontext, *arrays) if case.backward else arrays
        compiled = jax.jit(function).lower(*arguments).compile()
        return lambda: jax.block_until_ready(compiled(*arguments))

    return {form: call(formula) for form, formula in formulas(case).items()}


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    if case.recurrent:
        return recurrent_jax.results(case, output)
    if case.transformer:
        return transformer_jax.results(case, output)
    return [swap_heads(np.asarray(x)) for x in output] if case.compared else []


def swap_heads(x):
    """From (B, H, T, D) to (B, T, H, D), and back."""
    return np.ascontiguousarray(x.swapaxes(1, 2)) if x.ndim == 4 else x
