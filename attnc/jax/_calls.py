"""One call of a function as JAX traces it: which arguments are arrays, and what comes out.

A `Call` is a function, how its arguments are built, and the shapes and dtypes of the arrays among
them, which are its *operands*. Everything else, numbers, strings and flags, is part of the program.
Calls are interned, so that two that are equal are one object.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct as Array

from attnc.jax._attention import Attention, is_attention, with_all_axes
from attnc.registry import Output, Record

__all__ = ["Array", "Call", "bind", "is_none", "jax_dtype", "key_of", "leaves"]


class Slot(NamedTuple):
    """One thing among the arguments: an operand, or a constant.

    Parameters
    ----------
    name : str
        The argument that it is, or belongs to.
    role : {'real', 'fixed', 'key', 'constant'}
        An array with a gradient, one without, the key of random numbers, or no array at all.
    value : object
        Of a constant. None for the others.
    """

    name: str
    role: str
    value: Any = None


def is_none(x: Any) -> bool:
    """Whether it is None: one that stands for an array has its place.

    Parameters
    ----------
    x : object

    Returns
    -------
    bool
    """
    return x is None


def leaves(tree: Any) -> list[Any]:
    """What is in nested tuples, lists and dicts, None included.

    Parameters
    ----------
    tree : object

    Returns
    -------
    list
    """
    return jax.tree.leaves(tree, is_leaf=is_none)


def jax_dtype(dtype: Any) -> np.dtype[Any]:
    """The dtype as JAX has it: of 32 bits where ``jax_enable_x64`` is off.

    Parameters
    ----------
    dtype : dtype_like

    Returns
    -------
    numpy.dtype
    """
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


RULE_OF_KEYS = "{}: rng must be a key of JAX, jax.random.key(0), or an integer in 0..2**64-1"
MOST_ZEROS = 2**20  # some milliseconds of a product, in what is called while tracing

# ---- from arguments to operands ----


def key_of(name: str, rng: Any) -> Any:
    """The 64-bit key of a call, lower half first, as an operand: uint32 (2,); or None.

    Parameters
    ----------
    name : str
        The function.
    rng : None, int or array
        An integer is the key itself, as everywhere in attnc; of a key of JAX, new or raw, its 64
        bits are it.

    Returns
    -------
    array or None

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If an integer has more than 64 bits, or a key of JAX other than 64.
    """
    rule = RULE_OF_KEYS.format(name)
    if rng is None:
        return None
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        if not 0 <= rng < 2**64:
            raise ValueError(f"{rule}, got {rng}")
        return np.array([int(rng) & 0xFFFFFFFF, int(rng) >> 32], np.uint32)
    if isinstance(rng, np.random.Generator):
        raise TypeError(f"{rule}, got a Generator, which a compiled program cannot ask again")
    if not isinstance(rng, (jax.Array, np.ndarray)):
        raise TypeError(f"{rule}, got {type(rng).__name__}")
    got = f"an array of shape {rng.shape} and dtype {rng.dtype}"
    if jnp.issubdtype(rng.dtype, jax.dtypes.prng_key):
        if rng.shape:
            raise ValueError(f"{rule}, got {got}; jax.vmap goes over several keys")
        rng = jax.random.key_data(rng)
    elif rng.shape == () and jnp.issubdtype(rng.dtype, jnp.integer):
        # One that is traced may be below 0, which nobody would see.
        raise TypeError(f"{rule}, got {got}; jax.random.key(rng) makes a key of it")
    if rng.dtype != np.uint32 or rng.shape != (2,):
        words = rng.dtype == np.uint32 and len(rng.shape) == 1
        fix = "; a key has 64 bits, as jax.random.key(0, impl='threefry2x32') has" if words else ""
        raise ValueError(f"{rule}, got {got}{fix}")
    return rng[::-1]  # JAX makes key 7 of the words 0, 7


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _arguments(record: Record, args: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """All that was given, by name."""
    signature = _signature(record.function)
    try:
        bound = signature.bind(*args, **options)
    except TypeError as error:
        raise TypeError(f"{record.name}: {error}") from None
    arguments = dict(bound.arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def _slot(record: Record, name: str, leaf: Any, listed: bool) -> tuple[Slot, Any]:
    """What a leaf of an argument is, and it as an operand. Whether it is in a list or the like."""
    if isinstance(leaf, np.generic):
        leaf = leaf.item()  # a number, as in attnc
    if leaf is None or isinstance(leaf, (bool, int, float, str)):
        array = name in record.required or (listed and name in record.arrays)
        if array and leaf is not None:
            got = f"a list with {type(leaf).__name__}" if listed else type(leaf).__name__
            raise TypeError(
                f"{record.name}: {name} must be an array of JAX, got {got}; jax.numpy.asarray "
                "makes one"
            )
        return Slot(name, "constant", leaf), None
    if not isinstance(leaf, jax.Array) and type(leaf) is not np.ndarray:
        raise TypeError(
            f"{record.name}: {name} must be an array of JAX, a number or a string, got "
            f"{type(leaf).__module__}.{type(leaf).__name__}"
        )
    real = name in record.arrays
    if not real and name not in record.fixed:
        raise TypeError(
            f"{record.name}: {name} must be a constant of the program, got an array or a traced "
            "value; close over it, or name it in static_argnames of jax.jit"
        )
    array = jnp.asarray(leaf)
    weak_integer = array.weak_type and jnp.issubdtype(array.dtype, jnp.integer)
    if real and not (weak_integer or jnp.issubdtype(array.dtype, jnp.floating)):
        raise TypeError(
            f"{record.name}: {name} must hold real numbers of a float dtype, got dtype "
            f"{array.dtype}; write {name}.astype(jax.numpy.float32)"
        )
    return Slot(name, "real" if real else "fixed"), array


def bind(
    record: Record, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[Call, list[jax.Array]]:
    """A call, and its operands.

    Parameters
    ----------
    record : Record
    args : tuple
    options : dict
        The arguments of the function.

    Returns
    -------
    call : Call
    operands : list of jax.Array

    Raises
    ------
    TypeError
        If an argument is no array and no constant, or dtypes are mixed.
    """
    arguments = _arguments(record, args, options)
    slots: list[Slot] = []
    operands: list[jax.Array] = []
    trees = []
    for name, argument in arguments.items():
        if name == "rng":
            argument = key_of(record.name, argument)
        elif isinstance(argument, (list, tuple)) and name in record.fixed:
            argument = jnp.asarray(argument)
        found, tree = jax.tree.flatten(argument, is_leaf=is_none)
        trees.append((name, tree))
        for leaf in found:
            if name == "rng" and leaf is not None:
                slot, operand = Slot(name, "key"), jnp.asarray(leaf)
            else:
                listed = not jax.tree_util.treedef_is_leaf(tree)
                slot, operand = _slot(record, name, leaf, listed)
            slots.append(slot)
            if slot.role != "constant":
                operands.append(operand)
    operands = _without_weak_types([s for s in slots if s.role != "constant"], operands)
    if is_attention(record):
        names = [slot.name for slot in slots if slot.role != "constant"]
        operands = with_all_axes(names, operands)
    arrays = tuple(Array(x.shape, x.dtype) for x in operands)
    return Call.of(record, tuple(trees), tuple(slots), arrays), operands


def _without_weak_types(slots: list[Slot], operands: list[Any]) -> list[Any]:
    """Numbers of Python that are traced get the dtype of the other arrays, as everywhere in JAX."""
    real = [slot.role == "real" for slot in slots]
    strong = [
        x.dtype for x, counts in zip(operands, real, strict=True) if counts and not x.weak_type
    ]
    dtype = strong[0] if strong else jax_dtype(np.float64)
    return [
        x.astype(dtype) if counts and x.weak_type and x.dtype != dtype else x
        for x, counts in zip(operands, real, strict=True)
    ]


# ---- a call ----

_calls: dict[Any, Call] = {}
_names: dict[tuple[str, str], list[Any]] = {}


def _identity(function: Any) -> tuple[str, str, int]:
    """A function by name; a number tells it from others of that name, in their order."""
    name = function.__module__, function.__qualname__
    known = _names.setdefault(name, [])
    if function not in known:
        known.append(function)
    return (*name, known.index(function))


class _NoKey:
    """In the place of `rng` where none was given: what draws nothing does not mind."""

    def __repr__(self) -> str:
        return "None; a program of JAX draws nothing by itself: give a key, rng=jax.random.key(0)"


class Call:
    """A function, the tree of its arguments, and its operands.

    Parameters
    ----------
    record : Record
        Of the function.
    trees : tuple of (str, PyTreeDef)
        The names of the arguments that were given, and how each is built.
    slots : tuple of Slot
        What is at their leaves.
    arrays : tuple of jax.ShapeDtypeStruct
        The operands: those of the slots that are no constants.
    """

    def __init__(
        self,
        record: Record,
        trees: tuple[tuple[str, Any], ...],
        slots: tuple[Slot, ...],
        arrays: tuple[Array, ...],
    ) -> None:
        self.record, self.trees, self.slots, self.arrays = record, trees, slots, arrays
        self.operands = tuple(slot for slot in slots if slot.role != "constant")
        self.real = tuple(k for k, slot in enumerate(self.operands) if slot.role == "real")
        self._check_dtypes()

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{s.name} {x.shape}" for s, x in zip(self.operands, self.arrays, strict=True)
        )
        return f"{self.record.name}({shapes})"

    @staticmethod
    def of(*parts: Any) -> Call:
        """The one call that is made of these.

        Parameters
        ----------
        *parts
            As the class takes them.

        Returns
        -------
        Call
        """
        record, trees, slots, arrays = parts
        constants = tuple((*slot, type(slot.value)) for slot in slots)
        shapes = tuple((x.shape, x.dtype) for x in arrays)
        x64 = jax_dtype(np.int64)
        passes = record.forward, record.backward, record.jvp, record.backward_jvp, record.jvp_jvp
        key = record.function, passes, record.outputs, trees, constants, shapes, x64
        call = _calls.get(key)
        return _calls.setdefault(key, Call(*parts)) if call is None else call

    def with_arrays(self, arrays: tuple[Array, ...]) -> Call:
        """The same call of other operands.

        Parameters
        ----------
        arrays : tuple of jax.ShapeDtypeStruct

        Returns
        -------
        Call
        """
        return Call.of(self.record, self.trees, self.slots, arrays)

    def filled(self, operands: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the function with these operands.

        Parameters
        ----------
        operands : sequence
            One for each.

        Returns
        -------
        args : list
        options : dict
        """
        rest = iter(operands)
        values = iter(
            [slot.value if slot.role == "constant" else next(rest) for slot in self.slots]
        )
        arguments = {
            name: jax.tree.unflatten(tree, [next(values) for _ in range(tree.num_leaves)])
            for name, tree in self.trees
        }
        args = [arguments.pop(name) for name in self.record.required if name in arguments]
        return args, arguments

    def by_argument(self, values: dict[int, Any]) -> dict[str, Any]:
        """Arrays for some operands, nested as their arguments are, by argument.

        Parameters
        ----------
        values : dict
            By the number of the operand.

        Returns
        -------
        dict
            None stands for the other operands of an argument, and for constants.
        """
        nested: dict[str, Any] = {}
        k = at = 0
        for name, tree in self.trees:
            found = []
            for _ in range(tree.num_leaves):
                operand = self.slots[at].role != "constant"
                found.append(values.get(k) if operand else None)
                k, at = k + operand, at + 1
            if any(x is not None for x in found):
                nested[name] = jax.tree.unflatten(tree, found)
        return nested

    def of_real(self, gradients: tuple[Any, ...]) -> dict[int, Any]:
        """Gradients as a record returns them, by the number of their operand.

        Parameters
        ----------
        gradients : tuple
            In the order of ``record.arrays``.

        Returns
        -------
        dict
        """
        by_name = dict(zip(self.record.arrays, gradients, strict=True))
        found: dict[int, Any] = {}
        k = at = 0
        for name, tree in self.trees:
            gradient = by_name.get(name)
            inner = [None] * tree.num_leaves if gradient is None else leaves(gradient)
            for value in inner:
                if self.slots[at].role == "real":
                    found[k] = value
                k, at = k + (self.slots[at].role != "constant"), at + 1
        return found

    # ---- dtypes and outputs ----

    def _check_dtypes(self) -> None:
        """Refuse dtypes that would be promoted, which JAX does and attnc does, but differently."""
        for output in self._output_leaves():
            named = [(self.operands[k].name, self.arrays[k].dtype) for k in self._counting(output)]
            dtypes = {dtype for _, dtype in named}
            if output.kind == "computed":  # in float32, of halves with float32 too
                dtypes = {np.result_type(np.float32, dtype) for dtype in dtypes}
            if output.kind != "integer" and len(dtypes) > 1:
                shown = ", ".join(f"{name} {dtype}" for name, dtype in dict(named).items())
                raise TypeError(
                    f"{self.record.name}: arrays must have one dtype, got {shown}; convert some of "
                    "them, .astype(jax.numpy.float32)"
                )

    def _counting(self, output: Output) -> list[int]:
        """The operands whose dtype counts for that of an output."""
        return [k for k in self.real if output.of is None or self.operands[k].name in output.of]

    @functools.cached_property
    def _nested_outputs(self) -> Any:
        record = self.record
        if record.outputs is None:
            raise NotImplementedError(
                f"{record.name}: there is no `outputs` in its record, which attnc.jax needs to "
                "trace it; see attnc.registry.register"
            )
        if self.attention is not None:
            self.attention.check()
        elif record.function.__module__.startswith("attnc."):
            self._check_by_a_call()  # nobody knows whether others take zeros
        args, options = self.filled(self.arrays)
        try:
            return record.outputs(*args, **options)
        except (AttributeError, IndexError, TypeError, ValueError):
            self._call_on_zeros()  # something does not fit, and the function knows how to say it
            raise

    def _check_by_a_call(self) -> None:
        """Refuse arguments that do not fit, as the function says it, before any program runs.

        It is called with nothing along one axis, for which there is nothing to compute, and where
        it minds, with zeros, whose shapes it may name. Where there is no such axis, as in a mean,
        it is called with zeros, unless that would take long.
        """
        empty, sizes = self._without_elements()
        if not sizes and sum(math.prod(x.shape) for x in self.arrays) > MOST_ZEROS:
            return
        if len(sizes) == 1:  # else the batch has two sizes, and the function says so
            try:
                return self._call_on(empty)
            except (AttributeError, IndexError, TypeError, ValueError):
                pass
        self._call_on_zeros()

    def _call_on_zeros(self) -> None:
        self._call_on([np.zeros(x.shape, x.dtype) for x in self.arrays])

    def _without_elements(self) -> tuple[list[np.ndarray], set[int]]:
        """Arrays for the operands, with one more leading axis, or with a batch axis, of size 0; and
        which sizes this axis had, if there is one."""
        arrays, sizes = [], set()
        for slot, x in zip(self.operands, self.arrays, strict=True):
            shape = list(x.shape)
            axis = self.record.batch_axes.get(slot.name)
            if slot.name in self.record.leading:
                shape.insert(0, 0)
                sizes.add(0)
            elif axis is not None and -len(shape) <= axis < len(shape):
                sizes.add(shape[axis])
                shape[axis] = 0
            arrays.append(np.zeros(shape, x.dtype))
        return arrays, sizes

    def _call_on(self, arrays: list[np.ndarray]) -> None:
        args, options = self.filled(arrays)
        try:
            self.record.function(*args, **self.run_options(options))
        except TypeError:
            given = self.run_options(options)
            if self.draws or "rng" not in given:
                raise
            self.record.function(*args, **given | {"rng": 0})
            raise TypeError(
                f"{RULE_OF_KEYS.format(self.record.name)}, got None; a compiled program draws "
                "nothing by itself"
            ) from None

    def _output_leaves(self) -> list[Output]:
        return jax.tree.leaves(self._nested_outputs, is_leaf=lambda x: isinstance(x, Output))

    @functools.cached_property
    def outputs(self) -> tuple[Array, ...]:
        """tuple of jax.ShapeDtypeStruct: what the function returns, flat."""
        return tuple(Array(x.shape, self._dtype(x)) for x in self._output_leaves())

    @functools.cached_property
    def output_tree(self) -> Any:
        """PyTreeDef: how that is built."""
        return jax.tree.structure(self._nested_outputs, is_leaf=lambda x: isinstance(x, Output))

    @functools.cached_property
    def output_names(self) -> tuple[str, ...]:
        """tuple of str: of each leaf of the output, the name of the output that it belongs to."""
        outputs = self._nested_outputs
        if isinstance(outputs, Output):
            return (self.record.incoming[0].removeprefix("d"),)
        names = []
        for name in outputs._fields:
            inner = jax.tree.leaves(getattr(outputs, name), is_leaf=lambda x: isinstance(x, Output))
            names += [name] * len(inner)
        return tuple(names)

    @functools.cached_property
    def real_outputs(self) -> tuple[int, ...]:
        """tuple of int: the leaves of the output that have gradients."""
        known = self.record.incoming
        return tuple(k for k, name in enumerate(self.output_names) if f"d{name}" in known)

    def _dtype(self, output: Output) -> np.dtype[Any]:
        if output.kind == "integer":
            return jax_dtype(np.int64)
        dtypes = [self.arrays[k].dtype for k in self._counting(output)]
        return np.result_type(*dtypes, *[np.float32] * (output.kind == "computed"))

    def incoming(self, gradients: dict[int, Any]) -> tuple[Any, ...]:
        """Gradients of leaves of the output as a record takes them: nested, None for 0.

        Parameters
        ----------
        gradients : dict
            By the number of the leaf.

        Returns
        -------
        tuple
        """
        found = [gradients.get(k) for k in range(len(self.outputs))]
        nested = jax.tree.unflatten(self.output_tree, found)
        if isinstance(self._nested_outputs, Output):
            return (nested, *self.record.others)
        parts = []
        for name in self.record.incoming:
            part = getattr(nested, name.removeprefix("d"), None)
            parts.append(None if all(x is None for x in leaves(part)) else part)
        return tuple(parts)

    # ---- how it is run ----

    @functools.cached_property
    def attention(self) -> Attention | None:
        """Attention or None: the call as a plan, where the function is one in C alone."""
        return Attention(self) if is_attention(self.record) else None

    @functools.cached_property
    def digest(self) -> str:
        """str: what tells the call from all others, the same in every process."""
        what = (
            *_identity(self.record.function),
            [(name, str(tree)) for name, tree in self.trees],
            [(*slot, type(slot.value).__name__) for slot in self.slots],
            [(x.shape, str(x.dtype)) for x in self.arrays],
            [(x.shape, str(x.dtype)) for x in self.outputs],
        )
        return hashlib.sha256(repr(what).encode()).hexdigest()

    @property
    def draws(self) -> bool:
        """bool: whether random numbers take part."""
        return any(slot.role == "key" for slot in self.operands)

    def run_options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options as the function in Python takes them: the key as one number.

        Parameters
        ----------
        options : dict

        Returns
        -------
        dict
        """
        if "rng" not in _signature(self.record.function).parameters:
            return options
        key = options.get("rng")
        number = _NoKey() if key is None else int(key[0]) | int(key[1]) << 32
        return options | {"rng": number}
