"""What the tests of the layers assert: a check of values and gradients, one of everything else."""

import inspect

import numpy as np
from checks import assert_same, assert_unchanged

import attnc
from attnc.layers.named import place


def arrays_of(value):
    """The arrays of an output or state: of an array, or of nested tuples of them."""
    if isinstance(value, tuple):
        return [array for item in value for array in arrays_of(item)]
    return [value]


def like_random(rng, value):
    """Random numbers in the shape of an output or state."""
    if isinstance(value, tuple):
        return tuple(like_random(rng, item) for item in value)
    return rng.standard_normal(value.shape)


def moved(value, step, direction):
    if isinstance(value, tuple):
        return tuple(moved(x, step, t) for x, t in zip(value, direction, strict=True))
    return value + step * direction


def inner(left, right):
    """Sum of products, where the right is finite (the lse of an empty row is -inf)."""
    pairs = zip(arrays_of(left), arrays_of(right), strict=True)
    return sum((x * np.where(np.isfinite(y), y, 0)).sum() for x, y in pairs)


def randomize(layer, rng, spread=0.4):
    """Parameters with nothing special about them (biases and initial states start at zero)."""
    for name, parameter in layer.parameters.items():
        layer.parameters[name] = parameter + spread * rng.standard_normal(parameter.shape)
    return layer


def check_layer(layer, inputs, options, rng):
    """A float64 layer on its inputs, forward and back.

    Gradients of every real input and of every parameter against central differences in one random
    direction each; a call gives what vjp gives, to the bit; a second pullback adds the same again;
    inputs and parameters are left alone. Returns output and gradients.
    """
    layer.zero_grad()
    with assert_unchanged(inputs, options, layer.state_dict()):
        output, pullback = attnc.vjp(layer, *inputs, **options)
        d = like_random(rng, output)
        named = hasattr(output, "_fields")
        keywords = {f"d{f}": x for f, x in zip(output._fields, d, strict=True)} if named else None
        gradients = pullback(**keywords) if named else pullback(d)
    assert_same(layer(*inputs, **options), output)
    assert all(x.dtype == layer.dtype and x.flags.writeable for x in arrays_of(output))

    once = {name: array.copy() for name, array in layer.gradients.items()}
    again = pullback(**keywords) if named else pullback(d)
    assert_same(vars(again), vars(gradients), "second pullback")
    assert_same(dict(layer.gradients), {name: 2 * g for name, g in once.items()}, "accumulation")

    arguments = inspect.signature(layer).bind(*inputs, **options).arguments
    parameters = layer.parameters
    h = 2e-5
    size = sum(np.abs(x).sum() for x in arrays_of(d))

    def check(name, gradient, value, evaluate):
        assert [x.shape for x in arrays_of(gradient)] == [x.shape for x in arrays_of(value)], name
        t = like_random(rng, value)
        f = {step: inner(d, evaluate(moved(value, step * h, t))) for step in (-2, -1, 1, 2)}
        # Fourth order: errs by h^4 / 30 times a fifth derivative, which a cosine makes large, plus
        # eps / h. A wrong formula is off by the size of the gradient itself.
        numeric = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
        analytic = inner(t, gradient)
        assert abs(numeric - analytic) <= 1e-7 * (size + abs(analytic)), (
            f"{layer}: gradient of {name}: numeric {numeric}, analytic {analytic}"
        )

    def with_parameter(name):
        def evaluate(value):
            kept = parameters[name].copy()
            parameters[name] = value
            output = layer(*inputs, **options)
            parameters[name] = kept
            return output

        return evaluate

    for name, gradient in vars(gradients).items():
        check(name, gradient, arguments[name], lambda x, n=name: layer(**{**arguments, n: x}))
    for name, gradient in once.items():
        check(name, gradient, parameters[name].copy(), with_parameter(name))
    if type(layer).__module__.startswith("attnc."):
        check_directions(layer, inputs, options, (output, keywords or d, vars(gradients) | once))
    return output, gradients


def check_directions(layer, inputs, options, call):
    """`attnc.jvp` and `attnc.hvp` of a call with this output, d and gradients by name.

    For a direction t the inner product of d and the tangent of the output is that of t and the
    gradients; and as second derivatives are symmetric, so are the products of each of two
    directions with the hvp of the other. Both hold but for roundings of their terms.
    """
    output, d, gradients = call
    rng, parameters = np.random.default_rng(0), layer.parameters
    names = {
        place(parameters[n]): n for n in [*parameters][::-1] if n not in layer.frozen_parameters
    }
    names = [*(n for n in gradients if n not in parameters), *names.values()]  # each array once
    first, second = ({n: like_random(rng, gradients[n]) for n in names} for _ in range(2))

    def products(direction, of):
        pairs = [zip(arrays_of(direction[n]), arrays_of(of[n]), strict=True) for n in names]
        terms = np.concatenate([np.zeros(1), *((x * y).ravel() for pair in pairs for x, y in pair)])
        return terms.sum(), 1e-11 * (1 + np.abs(terms).sum())

    got, tangent = attnc.jvp(layer, inputs, first, **options)
    assert_same(got, output)
    forward = inner(tuple(d.values()) if isinstance(d, dict) else d, tangent)
    backward, allowed = products(first, gradients)
    assert abs(forward - backward) <= allowed, f"{layer}: forward {forward}, backward {backward}"
    of_first, of_second = (vars(attnc.hvp(layer, inputs, t, d, **options)) for t in (first, second))
    (left, allowed), (right, _) = products(second, of_first), products(first, of_second)
    assert abs(left - right) <= allowed, f"{layer}: hvp is not symmetric, {left} and {right}"


def check_house(layer, tmp_path):
    """repr, state_dict, save and load: what every layer can do."""
    twin = eval(repr(layer), vars(attnc).copy())
    assert type(twin) is type(layer) and repr(twin) == repr(layer)
    assert twin.dtype == layer.dtype
    assert {n: p.shape for n, p in twin.parameters.items()} == {
        n: p.shape for n, p in layer.parameters.items()
    }
    assert list(layer.gradients) == list(layer.parameters)
    state = layer.state_dict()
    for name, copy in state.items():
        assert not np.shares_memory(copy, layer.parameters[name])
    twin.load_state_dict(state)
    assert_same(twin.state_dict(), state)
    layer.save(tmp_path / "layer.npz")
    other = eval(repr(layer), vars(attnc).copy())
    assert other.load(tmp_path / "layer.npz") is other
    assert_same(other.state_dict(), state)
    assert [path.name for path in tmp_path.iterdir()] == ["layer.npz"]


def check_float32(layer, inputs, options):
    """The same layer as made by default: computes in float32, gradients in the inputs' dtype."""
    assert layer.dtype == np.float32
    assert all(p.dtype == np.float32 for p in layer.parameters.values())
    output, pullback = attnc.vjp(layer, *inputs, **options)
    assert all(x.dtype == np.float32 for x in arrays_of(output))
    first = output[0] if isinstance(output, tuple) else output
    gradients = pullback(np.ones_like(first))
    for gradient, given in zip(gradients, inputs, strict=False):
        assert gradient.dtype == given.dtype
    assert all(g.dtype == np.float32 for g in layer.gradients.values())
