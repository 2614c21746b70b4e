"""attnc's functions for HIPS autograd: on its boxes, with its derivatives of any kind.

Every function of `attnc.registry` is here by its name, and `wrap` takes one of your own::

    from autograd import grad
    from attnc.autograd import dot_product_attention

    def loss(query, key, value):
        return np.sum(dot_product_attention(query, key, value, causal=True) ** 2)

    dquery, dkey, dvalue = grad(loss, (0, 1, 2))(query, key, value)

Gradients go to every real array, in lists and tuples and by option, with its shape and dtype; one
backward pass in C makes all of them. What may be differentiated, by the record of the function::

    value(x)           reverse: pullback(g, x)       forward: push(t, x)
    pullback(g, x)     reverse: push and second      forward: second
    push(t, x)         reverse: pullback and second  forward: push and push_twice

Here `push` is the record's jvp, `second(t, g, dg, x)` its backward_jvp and `push_twice(t, s, x)`
its jvp_jvp. That reverse mode needs no others is symmetry. As derivatives of <g, f(x)>: the
gradient of <u, pullback(g, x)> is push(u, x) with respect to g and second(u, g, 0, x) with respect
to x; and that of <g, push(t, x)> is pullback(g, x) with respect to t and second(t, g, 0, x) with
respect to x. So `grad`, `jacobian`, `hessian_vector_product`, `make_jvp` of a gradient and of
`make_jvp` work; third derivatives raise by name.

A call that gets no boxes is the plain function. Named tuples come back as such, with boxes in them:
a function to be differentiated as a whole returns ``autograd.builtins.tuple`` of one.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

try:
    from autograd.builtins import SequenceBox
    from autograd.builtins import tuple as _tuple
    from autograd.core import defjvp_argnums
    from autograd.extend import Box, JVPNode, VJPNode, defvjp_argnums, primitive, vspace
    from autograd.numpy.numpy_boxes import ArrayBox
    from autograd.tracer import getval, new_box
except ImportError as error:
    if (error.name or "").partition(".")[0] != "autograd":
        raise
    raise ImportError(
        "attnc.autograd: autograd must be installed; pip install autograd, or pip install "
        "attnc[autograd]"
    ) from error

from attnc import estimators  # noqa: F401  it registers functions
from attnc.registry import Record, record_of, records

# ---- a call, with the places of its boxes --------------------------------------------------------


class _Call:
    """One call of a function, whose boxes are arguments of the functions below.

    What follows takes the values of the boxes, in their order, as plain arrays. The real arrays of
    the output come one by one: `outputs` says of each which output it is of, the number of its
    incoming gradient, and which array of several, if it is a tuple.
    """

    kept: Any = None  # what forward saved for backward
    tangents: Any = None  # of the boxes, where they are known before the call is run
    tangent: Any = None  # of the output, from these
    rng: Any = None  # the generator as it was, and the one that goes on
    drawing: Any = None
    outputs: Sequence[tuple[int, int, int | None]] = ((0, 0, None),)
    single = True

    def __init__(
        self, known: _Known, arguments: Sequence[Any], options: dict[str, Any], boxes: list[Any]
    ) -> None:
        self.known, self.arguments, self.options, self.boxes = known, arguments, options, boxes

    @property
    def record(self) -> Record:
        return self.known.record

    def paths(self) -> Iterator[tuple[int, ...]]:
        """Of each box: which array of the record it is in, and where in that."""
        for name, x in self.known.named(self.arguments, self.options):
            if name in self.known.numbers:
                yield from _paths(x, (self.known.numbers[name],))

    def draw_once(self) -> None:
        """Let passes after the first begin with the generator as it was."""
        options, names = self.options, self.known.names
        if "dropout" not in names or options.get("dropout"):
            rng = options.get("rng")
            if rng is None or isinstance(rng, np.random.Generator):
                self.drawing = np.random.default_rng(rng)
                self.rng = copy.deepcopy(self.drawing)

    def _filled(self, values: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments and options with the values in the places of the boxes."""
        for value in values:
            if type(value) is not np.ndarray:
                values = self._arrays(values)
                break
        following = iter(values)
        arguments = [
            next(following)
            if type(x) is ArrayBox
            else x
            if type(x) is np.ndarray
            else _replaced(x, following)
            for x in self.arguments
        ]
        if not self.options and self.rng is None:
            return arguments, self.options
        options = {name: _replaced(x, following) for name, x in self.options.items()}
        if self.rng is not None:
            options["rng"] = self.drawing or copy.deepcopy(self.rng)
            self.drawing = None
        return arguments, options

    def _arrays(self, values: Sequence[Any]) -> list[Any]:
        """Numbers as arrays, for then they have gradients; as numbers they leave dtypes alone."""
        given = [*values, *_items(self.arguments), *_items(self.options.values())]
        dtypes = [x.dtype for x in given if type(x) is np.ndarray and x.dtype.kind not in "biu"]
        number = np.result_type(*dtypes or [np.float64])
        return [x if type(x) is np.ndarray else np.asarray(x, number) for x in values]

    # ---- forward ----

    def value(self, values: Sequence[Any]) -> Any:
        """The real arrays of the output, one or a tuple."""
        arguments, options = self._filled(values)
        if self.tangents is None:
            output, saved, static = self.known.record.forward(*arguments, **options)
            self.kept = saved, static
            return self._parted(output) if isinstance(output, tuple) else output
        output, tangent = self._jvp()(self._by_name(self.tangents), *arguments, **options)
        flat = self._parted(output) if isinstance(output, tuple) else output
        self.tangent = self._flat(tangent)
        return flat

    def _parted(self, output: Any) -> Any:
        """The real arrays of an output of several; keep what the rest is."""
        incoming = self.record.incoming
        outputs: list[tuple[int, int, int | None]] = []
        self.outputs, self.rest = outputs, [*output]
        self.single, self.kind = False, type(output)
        names = getattr(output, "_fields", None)
        for k, item in enumerate(output):
            name = f"d{names[k]}" if names else incoming[k] if k < len(incoming) else ""
            if name not in incoming or item is None:
                continue
            number = incoming.index(name)
            if isinstance(item, tuple):
                outputs += [(k, number, i) for i in range(len(item))]
            else:
                outputs.append((k, number, None))
            self.rest[k] = None
        return self._flat(output)

    def _flat(self, output: Any) -> Any:
        """The real arrays of what is built like the output."""
        if self.single:
            return output
        return tuple([output[k] if i is None else output[k][i] for k, _, i in self.outputs])

    def built(self, flat: Any) -> Any:
        """The output, from its real arrays."""
        if self.single:
            return flat
        items = list(self.rest)
        for j, (k, _, i) in enumerate(self.outputs):
            items[k] = flat[j] if i is None else (*(items[k] or ()), flat[j])
        return self.kind(*items) if hasattr(self.kind, "_fields") else tuple(items)

    def _jvp(self) -> Callable[..., Any]:
        if self.record.jvp is None:
            raise NotImplementedError(
                f"{self.record.name}: has no forward mode, which second derivatives need too: its "
                "record has no jvp"
            )
        return self.record.jvp

    def push(self, tangents: Sequence[Any], values: Sequence[Any]) -> Any:
        """The tangents of the real outputs."""
        arguments, options = self._filled(values)
        output, tangent = self._jvp()(self._by_name(tangents), *arguments, **options)
        return self._flat(tangent)

    def push_twice(
        self, tangents: Sequence[Any], others: Sequence[Any], values: Sequence[Any]
    ) -> Any:
        """The tangents of these tangents, when the boxes move along others."""
        if self.record.jvp_jvp is None:
            raise NotImplementedError(
                f"{self.record.name}: has no forward mode of forward mode: its record has no "
                "jvp_jvp; the gradient of make_jvp, or make_jvp of a gradient, gives second "
                "derivatives"
            )
        arguments, options = self._filled(values)
        moves = self._by_name(tangents), self._by_name(others)
        return self._flat(self.record.jvp_jvp(*moves, *arguments, **options))

    def _by_name(self, tangents: Sequence[Any]) -> dict[str, Any]:
        """Tangents of the boxes as those of the arrays that they are in."""
        following = iter(tangents)
        found: dict[str, Any] = {}
        for name, argument in self.known.named(self.arguments, self.options):
            tangent = _tangent(argument, following)
            if tangent is not None:
                found[name] = tangent
        return found

    # ---- back ----

    def pullback(self, incoming: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
        """The gradients of the boxes."""
        if self.kept is None:
            arguments, options = self._filled(values)
            _, *self.kept = self.record.forward(*arguments, **options)
        gradients = self._incoming(incoming)
        if all(gradient is None for gradient in gradients):
            return tuple([vspace(value).zeros() for value in values])
        return self._picked(self.record.backward(*self.kept, *gradients), values)

    def _incoming(self, flat: Sequence[Any]) -> list[Any]:
        """The incoming gradients as the record takes them; what is 0 is not given."""
        found: list[Any] = [None] * len(self.record.incoming)
        if self.single:
            found[0] = flat[0]
            return found
        nonzero = {number for (_, number, _), g in zip(self.outputs, flat, strict=True) if _any(g)}
        for (_, number, i), g in zip(self.outputs, flat, strict=True):
            if number in nonzero:
                found[number] = g if i is None else (*(found[number] or ()), g)
        return found

    def _picked(self, gradients: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
        """Those of the boxes, from those of all arrays."""
        found = []
        for path, value in zip(self.paths(), values, strict=True):
            gradient = gradients[path[0]]
            for k in path[1:]:
                gradient = gradient[k]
            if type(value) is not np.ndarray:
                gradient = np.asarray(gradient, vspace(value).dtype)
            found.append(gradient)
        return tuple(found)

    def second(
        self,
        tangents: Sequence[Any],
        incoming: Sequence[Any],
        dincoming: Sequence[Any],
        values: Sequence[Any],
    ) -> tuple[Any, ...]:
        """The tangents of the gradients of the boxes."""
        by_name = self._by_name(tangents)
        if not by_name or not any(map(_any, incoming)):  # backward is linear in what comes in
            return self.pullback(dincoming, values)
        if self.record.backward_jvp is None:
            raise NotImplementedError(
                f"{self.record.name}: has no second derivatives: its record has no backward_jvp"
            )
        arguments, options = self._filled(values)
        given = self._incoming(incoming), self._incoming(dincoming)
        found = self.record.backward_jvp(by_name, *given, *arguments, **options)
        return self._picked(found, values)


def _paths(x: Any, path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if type(x) in _BOXES:
        yield path
    elif isinstance(x, list | tuple):
        for k, item in enumerate(x):
            yield from _paths(item, (*path, k))


def _replaced(x: Any, values: Iterator[Any]) -> Any:
    """x with the next values in the places of its boxes."""
    if type(x) in _BOXES:
        return next(values)
    if type(x) is list:
        return [_replaced(item, values) for item in x]
    if type(x) is tuple:
        return tuple([_replaced(item, values) for item in x])
    return x


def _tangent(x: Any, tangents: Iterator[Any]) -> Any:
    """The next tangents in the places of its boxes; None where all are 0."""
    if type(x) in _BOXES:
        tangent = next(tangents)
        return tangent if _any(tangent) else None
    if isinstance(x, list | tuple):
        found = [_tangent(item, tangents) for item in x]
        return None if all(tangent is None for tangent in found) else found
    return None


def _items(arguments: Any) -> Iterator[Any]:
    """What is in lists and tuples, within each other."""
    for x in arguments:
        if isinstance(x, list | tuple):
            yield from _items(x)
        else:
            yield x


def _any(x: Any) -> bool:
    """Whether anything of it is not 0."""
    return x is not None and bool(np.any(x))


# ---- what autograd differentiates ----------------------------------------------------------------
#
# Each has the arrays by position, as many as the call has boxes and real outputs. The values of
# these are what the call was made with, also where they are boxes of another derivative.


@primitive
def _value(call: _Call, *values: Any) -> Any:
    return call.value(values)


@primitive
def _pullback(call: _Call, *arrays: Any) -> Any:
    return call.pullback(*_split(call, arrays, "gx"))


@primitive
def _push(call: _Call, *arrays: Any) -> Any:
    return call.push(*_split(call, arrays, "tx"))


@primitive
def _push_twice(call: _Call, *arrays: Any) -> Any:
    return call.push_twice(*_split(call, arrays, "ttx"))


@primitive
def _second(call: _Call, *arrays: Any) -> Any:
    return call.second(*_split(call, arrays, "tggx"))


def _split(call: _Call, arrays: Sequence[Any], kinds: str) -> list[Sequence[Any]]:
    """The arrays by kind: g of outputs, t and x of the boxes."""
    found, start = [], 0
    for kind in kinds:
        end = start + len(call.outputs if kind == "g" else call.boxes)
        found.append(arrays[start:end])
        start = end
    return found


def _each(call: _Call, output: Any) -> list[Any]:
    """One for each real output, from one or a tuple of them."""
    return [output] if call.single else [output[k] for k in range(len(call.outputs))]


def _value_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *values = args

    def vjp(g: Any) -> Any:
        found = _pullback(call, *_each(call, g), *values)
        return [found[k - 1] for k in argnums]

    return vjp


def _value_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *values = args
    if call.tangent is not None:
        return call.tangent
    return _push(call, *_spread(argnums, gs, len(values)), *values)


def _pullback_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    incoming, values = _split(call, arrays, "gx")
    count = len(incoming)

    def vjp(u: Any) -> Any:
        us = [u[k] for k in range(len(values))]
        found: list[Any] = [None] * (1 + len(arrays))
        if any(k <= count for k in argnums):
            found[1 : 1 + count] = _each(call, _push(call, *us, *values))
        if any(k > count for k in argnums):
            second = _second(call, *us, *incoming, *[None] * count, *values)
            found[1 + count :] = [second[k] for k in range(len(values))]
        return [found[k] for k in argnums]

    return vjp


def _pullback_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    incoming, values = _split(call, arrays, "gx")
    dincoming, tangents = _split(call, _spread(argnums, gs, len(arrays)), "gx")
    return _second(call, *tangents, *incoming, *dincoming, *values)


def _push_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    tangents, values = _split(call, arrays, "tx")
    count = len(tangents)

    def vjp(g: Any) -> Any:
        incoming = _each(call, g)
        found: list[Any] = [None] * (1 + len(arrays))
        if any(k <= count for k in argnums):
            pulled = _pullback(call, *incoming, *values)
            found[1 : 1 + count] = [pulled[k] for k in range(count)]
        if any(k > count for k in argnums):
            nothing = [None] * len(incoming)
            second = _second(call, *tangents, *incoming, *nothing, *values)
            found[1 + count :] = [second[k] for k in range(len(values))]
        return [found[k] for k in argnums]

    return vjp


def _push_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    tangents, values = _split(call, arrays, "tx")
    dtangents, others = _split(call, _spread(argnums, gs, len(arrays)), "tx")
    terms = []
    if any(k <= len(tangents) for k in argnums):
        terms.append(_push(call, *dtangents, *values))
    if any(k > len(tangents) for k in argnums):
        terms.append(_push_twice(call, *tangents, *others, *values))
    return _sum(call, terms)


def _push_twice_vjp(argnums: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    *pair, values = _split(call, arrays, "ttx")
    count = len(values)
    if any(k > 2 * count for k in argnums):
        _third(argnums, args, kwargs)

    def vjp(g: Any) -> Any:
        incoming = _each(call, g)
        found: list[Any] = [None]
        for tangents in reversed(pair):  # the gradient of either is linear in the other
            second = _second(call, *tangents, *incoming, *[None] * len(incoming), *values)
            found += [second[k] for k in range(count)]
        return [found[k] for k in argnums]

    return vjp


def _push_twice_jvp(argnums: Any, gs: Any, ans: Any, args: Any, kwargs: Any) -> Any:
    call, *arrays = args
    first, second, values = _split(call, arrays, "ttx")
    count = len(values)
    if any(k > 2 * count for k in argnums):
        _third(argnums, args, kwargs)
    dfirst, dsecond, _ = _split(call, _spread(argnums, gs, len(arrays)), "ttx")
    terms = []
    if any(k <= count for k in argnums):
        terms.append(_push_twice(call, *dfirst, *second, *values))
    if any(k > count for k in argnums):
        terms.append(_push_twice(call, *first, *dsecond, *values))
    return _sum(call, terms)


def _third(argnums: Any, *rest: Any) -> Any:
    call = rest[-2][0]
    raise NotImplementedError(f"{call.record.name}: has no third derivatives")


def _sum(call: _Call, terms: list[Any]) -> Any:
    """The sum of one or two, each built like the real outputs."""
    if len(terms) == 1:
        return terms[0]
    sums = [x + y for x, y in zip(*(_each(call, term) for term in terms), strict=True)]
    return sums[0] if call.single else _tuple(sums)


def _spread(argnums: Any, gs: Any, count: int) -> list[Any]:
    """Tangents by the number of their argument, which begin at 1; None for the others."""
    found: list[Any] = [None] * count
    for k, g in zip(argnums, gs, strict=True):
        found[k - 1] = g
    return found


for _function, _vjp, _jvp in (
    (_value, _value_vjp, _value_jvp),
    (_pullback, _pullback_vjp, _pullback_jvp),
    (_push, _push_vjp, _push_jvp),
    (_push_twice, _push_twice_vjp, _push_twice_jvp),
    (_second, _third, _third),
):
    defvjp_argnums(_function, _vjp)
    defjvp_argnums(_function, _jvp)

# ---- the functions -------------------------------------------------------------------------------


class _Known(NamedTuple):
    """What is known of a function before it is called."""

    record: Record
    names: tuple[str, ...]  # of its arguments
    numbers: dict[str, int]  # of its real arrays
    draws: bool

    def named(self, arguments: Sequence[Any], options: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """All arguments with their names."""
        yield from zip(self.names, arguments, strict=False)
        yield from options.items()

    def found(self, name: str, x: Any, boxes: list[Any]) -> Any:
        """An argument, whose boxes are added to the others.

        Sequences in a box become lists of boxes, and what has no gradient is taken out of its box.
        """
        if name in self.record.fixed:
            return getval(x)
        return self._found(x, boxes) if name in self.numbers else x

    def _found(self, x: Any, boxes: list[Any]) -> Any:
        if type(x) is SequenceBox:
            x = [x[k] for k in range(len(x))]
        if type(x) in _BOXES:
            boxes.append(x)
        elif type(x) is list:
            return [self._found(item, boxes) for item in x]
        elif isinstance(x, tuple):
            return tuple([self._found(item, boxes) for item in x])
        return x


_BOXES = Box.types
_FIRST = range(1, sys.maxsize)


def _boxed(
    known: _Known, arguments: Sequence[Any], options: dict[str, Any], boxes: list[Any]
) -> Any:
    """The output of a call with boxes, in boxes."""
    call = _Call(known, arguments, options, boxes)
    if known.draws:
        call.draw_once()
    trace, values, nodes = boxes[0]._trace, [], []
    for box in boxes:
        if box._trace != trace or type(box._value) in _BOXES:
            return call.built(_value(call, *boxes))
        values.append(box._value)
        nodes.append(box._node)
    # All are of one derivative: what `_value` would do, in less time.
    node = type(nodes[0])
    if node is JVPNode and not any(type(each.g) in _BOXES for each in nodes):
        call.tangents = [each.g for each in nodes]
    output = call.value(values)
    made = node(output, _value, [call, *values], None, _FIRST[: len(boxes)], nodes)
    return call.built(new_box(output, trace, made))


def _quickly(known: _Known, arguments: Sequence[Any], boxes: list[Any]) -> Any:
    """The same where there is nothing but arrays, and boxes of arrays for one reverse pass."""
    trace, values, nodes = boxes[0]._trace, [], []
    for box in boxes:
        value, node = box._value, box._node
        if type(value) is not np.ndarray or type(node) is not VJPNode or box._trace != trace:
            return None
        values.append(value)
        nodes.append(node)
    call = _Call(known, arguments, {}, boxes)
    output, saved, static = known.record.forward(
        *[x._value if type(x) is ArrayBox else x for x in arguments]
    )
    call.kept = saved, static
    flat = call._parted(output) if isinstance(output, tuple) else output
    made = VJPNode(flat, _value, [call, *values], None, _FIRST[: len(boxes)], nodes)
    if type(flat) is np.ndarray:
        return ArrayBox(flat, trace, made)
    return call.built(new_box(flat, trace, made))


def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that `attnc.registry` knows, for arrays and boxes: as the functions here are made.

    Parameters
    ----------
    function : callable
        A function of the package, or one of your own after `attnc.registry.register`.

    Returns
    -------
    callable
        With the same arguments.

    Raises
    ------
    TypeError
        If the function has no record.

    Examples
    --------
    >>> import numpy as np, attnc.autograd
    >>> from autograd import grad
    >>> relu = attnc.autograd.wrap(attnc.functional.relu)
    >>> grad(lambda x: relu(x).sum())(np.array([-1.0, 2.0]))
    array([0., 1.])
    """
    record = record_of(function)
    if record is None:
        raise TypeError(
            "wrap: function must be one of attnc.registry, got "
            f"{getattr(function, '__name__', function)!r}; attnc.registry.register adds one"
        )
    names = tuple(inspect.signature(function).parameters)
    numbers = {name: k for k, name in enumerate(record.arrays)}
    known = _Known(record, names, numbers, "rng" in names)
    # How many boxes of arrays come first; none where something is drawn in every call.
    quick = next((k for k, name in enumerate(names) if name not in numbers), len(names))
    quick = 0 if known.draws and "dropout" not in names else quick

    @functools.wraps(function)
    def bridged(*arguments: Any, **options: Any) -> Any:
        boxes: list[Any] = []
        taken: Sequence[Any] = arguments
        for x in arguments:
            if type(x) is ArrayBox:
                boxes.append(x)
            elif type(x) is not np.ndarray:
                break
        else:  # the same as below, in less time
            if not options and not boxes:
                return function(*arguments)
            if not options and len(arguments) <= quick:
                output = _quickly(known, arguments, boxes)
                if output is not None:
                    return output
        boxes = []
        if len(arguments) <= len(names):  # else the function will say what is wrong
            taken = [known.found(*each, boxes) for each in zip(names, arguments, strict=False)]
            options = {name: known.found(name, x, boxes) for name, x in options.items()}
        return _boxed(known, taken, options, boxes) if boxes else function(*taken, **options)

    bridged.__module__ = __name__
    return bridged


for _record in records():
    globals()[_record.name] = wrap(_record.function)

__all__ = ["wrap", *[record.name for record in records()]]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


def __dir__() -> list[str]:  # completion offers what is public
    return __all__
