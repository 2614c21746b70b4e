"""What every layer shares: parameters and gradients by name, saving, checks of the inputs.

A layer computes; it keeps no state between calls. What a backward pass needs lives in the pullback
that `attnc.vjp` returns, so that a forward pass for validation disturbs no training.
"""

from __future__ import annotations

import contextlib
import fnmatch
import inspect
import os
import reprlib
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ..arrays import contiguous, flag, integer, integer_array, is_dual, real_array
from ..files import MODEL, read_arrays, write_arrays
from ..functional.options import nearest
from ..typing import Array, DType, Integers, Path, Real, Shape
from .named import Arrays, Frozen, cast, copy_arrays, place

# ADDING is held for each addition to a gradient. One lock serves the whole process: tied layers
# share their arrays, and a lock in a layer could be neither copied nor pickled. More would not make
# additions faster, which memory bounds. A fork waits for it, so that no child inherits it taken.
ADDING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=ADDING.acquire, after_in_parent=ADDING.release, after_in_child=ADDING.release
    )


class _Caught(threading.local):
    """Where this thread's `Layer.add_gradient` puts gradients in the place of the layers."""

    into: dict[tuple[int, str], Array] | None = None


_caught = _Caught()


@contextlib.contextmanager
def caught_gradients() -> Iterator[dict[tuple[int, str], Array]]:
    """Catch what pullbacks of this thread add to gradients, instead of adding it to the layers.

    For those who keep gradients elsewhere, such as PyTorch. Other threads are not concerned; of two
    such blocks within each other the inner one catches.

    Yields
    ------
    dict
        ``{(id(layer), name): array}``: sums of their own, by the layer that has the parameter and
        the parameter's name there. What is frozen is not in it, nor what got nothing.
    """
    found: dict[tuple[int, str], Array] = {}
    outer, _caught.into = _caught.into, found
    try:
        yield found
    finally:
        _caught.into = outer


class Layer:
    """Base of the layers: something with parameters that `attnc.vjp` can differentiate.

    To write a layer: call ``super().__init__(dtype)``, keep each constructor argument as an
    attribute of the same name, add arrays with `add_parameter` and layers as plain attributes (or
    in lists, tuples and dicts), then write ``_vjp(*inputs, **options)``, which returns the output
    and a pullback. The pullback adds the gradients of the parameters by `add_gradient`, so that it
    may be called from several threads, and returns `attnc.gradients.Gradients` of the inputs.
    `attnc.jvp` and `attnc.hvp` run both on dual numbers, which the functions of NumPy that
    `attnc.dual` lists, and `attnc.vjp`, take for arrays; another function raises there, by name.

    Layers may share parameters: by being one layer in two places, ``model.target_embedding =
    model.source_embedding``, or by `tie`. Such a parameter has several names in `parameters`, and
    optimisers change it once. ``copy.deepcopy`` and pickle keep what is shared; ``copy.copy`` gives
    a second layer with the same arrays. Parameters that `freeze` names are not trained.

    Parameters
    ----------
    dtype : float32 or float64
        Type of the parameters; real inputs are cast to it.

    Examples
    --------
    >>> class Scale(Layer):
    ...     def __init__(self, size, dtype="float32"):
    ...         super().__init__(dtype)
    ...         self.size = size
    ...         self.add_parameter("factor", np.ones(size))
    ...
    ...     def _vjp(self, x):
    ...         factor = self.parameters["factor"]
    ...
    ...         def pullback(dy):
    ...             self.add_gradient("factor", (x * dy).reshape(-1, self.size).sum(0))
    ...             return Gradients({"x": dy * factor})
    ...         return x * factor, pullback
    """

    # `_joint` stands between the names of a layer inside and of its parameters: "query.weight".
    # With "_" these have names like parameters of the layer around: "query_weight".
    _joint: ClassVar[str] = "."

    def __init__(self, dtype: DType = "float32") -> None:
        got = dtype
        if dtype is not None:  # NumPy takes None for float64
            with contextlib.suppress(TypeError):
                got = np.dtype(dtype)
        if got not in (np.float32, np.float64):
            raise TypeError(f"{type(self).__name__}: dtype must be float32 or float64, got {got}")
        self.dtype = got
        self._parameters: dict[str, Array] = {}
        self._gradients: dict[str, Array] = {}
        self._frozen: dict[str, Frozen] = {}
        self._tied: set[str] = set()  # names of parameters here that others share

    def add_parameter(self, name: str, value: Real) -> None:
        """Add the parameter `name`, `value` in the layer's dtype, and its gradient, zero."""
        where = f"{type(self).__name__}.add_parameter"
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"{where}: name must be a str without dots, got {name!r}")
        if name in self._tied:
            raise ValueError(f"{where}: name must not be that of a tied parameter, got {name!r}")
        value = cast(where, name, value, self.dtype)
        self._parameters[name] = value
        self._gradients[name] = np.zeros_like(value)
        self._frozen[name] = Frozen()

    def tie(self, name: str, other: Layer, other_name: str, *, transpose: bool = False) -> None:
        """Make the parameter `name` one with a parameter of another layer: one array, one gradient.

        This layer takes the values of the other. So an output layer gets the table of an embedding
        (Press and Wolf 2017, "Using the output embedding to improve language models"), and a step
        of an optimiser goes by the sum of both gradients. It is frozen if one of the two was.

        Parameters
        ----------
        name : str
            Of this layer, dotted for layers inside.
        other : Layer
        other_name : str
            Of `other`, likewise: a parameter of the same dtype and shape.
        transpose : bool
            Whether this layer sees the other's parameter transposed.

        Raises
        ------
        KeyError
            If there is no such parameter.
        TypeError
            If `other` is no layer.
        ValueError
            If dtype or shape differ, or this parameter is tied already: tie the others to it.

        Examples
        --------
        >>> import attnc
        >>> embedding, output = attnc.Embedding(9, 4), attnc.Linear(4, 9)
        >>> output.tie("weight", embedding, "weight", transpose=True)
        >>> embedding.parameters["weight"] += 1  # changes output.parameters["weight"]
        """
        where = f"{type(self).__name__}.tie"
        if not isinstance(other, Layer):
            raise TypeError(f"{where}: other must be a Layer, got {type(other).__name__}")
        mine, own = self._owner(where, name)
        theirs, source = other._owner(where, other_name)
        if own in mine._tied or (mine is theirs and own == source):
            raise ValueError(f"{where}: {name} must not be tied yet, got one that is")
        arrays = [getattr(theirs, kind)[source] for kind in ("_parameters", "_gradients")]
        if flag(where, "transpose", transpose):
            arrays = [array.T for array in arrays]
        was, now = mine._parameters[own], arrays[0]
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            raise ValueError(
                f"{where}: {other_name} must have shape {was.shape} and dtype {was.dtype} like "
                f"{name}, got {now.shape} and {now.dtype}{' transposed' if transpose else ''}"
            )
        frozen = theirs._frozen[source]
        if mine._frozen[own].value and not frozen.value:
            frozen.value = True
            arrays[1].fill(0)
        mine._parameters[own], mine._gradients[own] = arrays
        mine._frozen[own] = frozen
        mine._tied.add(own)
        theirs._tied.add(source)

    def _owner(self, where, name):
        """The layer that has the parameter with this dotted name, and its name there."""
        owners = self._owners()
        if name not in owners:
            raise KeyError(
                f"{where}: name must be one of {', '.join(owners) or 'none'}; got {name!r}"
            )
        return owners[name]

    def _owners(self):
        """{dotted name: (layer that has it, name there)} of every parameter."""
        owners: dict[str, tuple[Layer, str]] = {}
        for prefix, layer in self._walk():
            for name in layer._parameters:
                if prefix + name in owners:
                    raise self._error(
                        f"parameters must differ in names, got two called {prefix + name}"
                    )
                owners[prefix + name] = layer, name
        return owners

    def _walk(self, prefix: str = "", above: tuple[Layer, ...] = ()) -> list[tuple[str, Layer]]:
        """(what the names of its parameters begin with, layer): of this one, then those inside."""
        found, above = [(prefix, self)], (*above, self)
        for attribute, value in vars(self).items():
            if isinstance(value, _HOLDERS):
                for name, layer in _layers_in(prefix + attribute, value):
                    if layer not in above:  # a layer may hold the one around it
                        found += layer._walk(name + self._joint, above)
        return found

    @property
    def parameters(self) -> Arrays:
        """dict of str to ndarray: the parameters; those of layers inside have dotted names."""
        owners = self._owners().items()
        return Arrays("parameters", {name: layer._parameters[own] for name, (layer, own) in owners})

    @parameters.setter
    def parameters(self, value: Mapping[str, Real]) -> None:
        # ``layer.parameters |= ...`` ends with this assignment; any other must name all parameters.
        copy_arrays(f"{type(self).__name__}.parameters", self.parameters, value)

    @property
    def gradients(self) -> Arrays:
        """dict of str to ndarray: the gradients that pullbacks have added up since `zero_grad`."""
        owners = self._owners().items()
        return Arrays("gradients", {name: layer._gradients[own] for name, (layer, own) in owners})

    @gradients.setter
    def gradients(self, value: Mapping[str, Real]) -> None:
        copy_arrays(f"{type(self).__name__}.gradients", self.gradients, value)

    @property
    def parameter_count(self) -> int:
        """int: how many numbers the parameters are, tied ones counted once; see `attnc.summary`."""
        return sum({place(array): array.size for array in self.parameters.values()}.values())

    # ---- Freezing --------------------------------------------------------------------------------

    def freeze(self, *patterns: str) -> Self:
        """Let training leave parameters alone: those that the patterns name.

        A frozen parameter gets no gradient: `add_gradient` drops what comes to it, and `Linear` and
        `Embedding` do not compute it. Optimisers change neither it nor what they remember of it,
        and `optim.clip_gradients` does not count it. It can be set like any other. Where it is
        tied, it is frozen under all of its names. Copies, pickle and `attnc.save` keep this.

        Parameters
        ----------
        *patterns : str
            Names in `parameters`, or patterns such as ``"encoder.*"`` as `fnmatch` has them, where
            ``*`` stands for anything, dots too. None of them: every parameter.

        Returns
        -------
        Layer
            This one.

        Raises
        ------
        KeyError
            If a pattern fits no name; no parameter is then frozen.
        TypeError
            If a pattern is not a string.

        Examples
        --------
        >>> import attnc
        >>> model = attnc.Sequential(attnc.Linear(4, 8), attnc.Linear(8, 2)).freeze("layers.0.*")
        >>> model.frozen_parameters
        ('layers.0.weight', 'layers.0.bias')
        """
        self._set_frozen("freeze", patterns, True)
        return self

    def unfreeze(self, *patterns: str) -> Self:
        """Let training change parameters again: the opposite of `freeze`, with its arguments.

        Parameters
        ----------
        *patterns : str
            As in `freeze`.

        Returns
        -------
        Layer
            This one.

        Raises
        ------
        KeyError
            If a pattern fits no name; nothing is then changed.
        TypeError
            If a pattern is not a string.
        """
        self._set_frozen("unfreeze", patterns, False)
        return self

    @property
    def frozen_parameters(self) -> tuple[str, ...]:
        """tuple of str: the names of the parameters that training leaves alone."""
        owners = self._owners().items()
        return tuple(name for name, (layer, own) in owners if layer._frozen[own].value)

    def _set_frozen(self, method, patterns, value):
        where, owners = f"{type(self).__name__}.{method}", self._owners()
        found = [fitting(where, pattern, owners) for pattern in patterns] or [owners]
        for name in (name for names in found for name in names):
            layer, own = owners[name]
            with ADDING:
                layer._frozen[own].value = value
                if value:
                    layer._gradients[own].fill(0)

    # ---- Gradients -------------------------------------------------------------------------------

    def add_gradient(self, name: str, d: Real, rows: Integers | None = None) -> None:
        """Add `d` to the gradient of the parameter `name`: the one safe way from a pullback.

        Pullbacks may run in several threads: every addition is whole, and none is lost, also where
        layers share an array. They come in the order in which the threads arrive; as sums of floats
        depend on their order, the last bits may differ from run to run.
        (``layer.gradients[name] += d`` is for one thread alone.) To a frozen parameter nothing is
        added.

        Parameters
        ----------
        name : str
            A name in `gradients`, dotted for layers inside.
        d : array_like
            Of the parameter's shape; with `rows`, of the shape of those rows.
        rows : array_like of int, shape (n,), optional
            The rows of the parameter that `d` holds; the others get nothing. A row that is there
            several times adds up.

        Raises
        ------
        KeyError
            If there is no such parameter.
        TypeError
            If `d` is not real or `rows` are not integers.
        ValueError
            If the shape of `d` does not fit, or a row is not there.
        """
        where = f"{type(self).__name__}.add_gradient"
        layer, own = (self, name) if name in self._gradients else self._owner(where, name)
        gradient = layer._gradients[own]
        shape, distinct = gradient.shape, True
        if type(d) is not np.ndarray or d.dtype != gradient.dtype:
            d = _real_array(where, name, d)
        if rows is not None:
            if gradient.ndim == 0:
                raise ValueError(f"{where}: rows must be None for {name}, a number, got {rows}")
            rows = integer_array(where, "rows", rows)
            if rows.ndim != 1:
                raise ValueError(f"{where}: rows must have shape (n,), got {rows.shape}")
            if rows.size and not 0 <= rows.min() <= rows.max() < shape[0]:
                raise ValueError(
                    f"{where}: rows must lie in 0..{shape[0] - 1}, got {rows.min()}..{rows.max()}"
                )
            rows = rows.astype(np.intp, copy=False)
            distinct = len(np.unique(rows)) == len(rows)
            shape = (len(rows), *shape[1:])
        if d.shape != shape:
            raise ValueError(f"{where}: {name} must have shape {shape}, got {d.shape}")
        if layer._frozen[own].value:
            return
        # What forward mode adds goes to arrays of its own, and is for nobody else.
        into, key = None if is_dual(gradient) else _caught.into, (id(layer), own)
        if into is None:
            with ADDING:
                _add(gradient, d, rows, distinct)
        elif key not in into and rows is None:
            into[key] = np.array(d, gradient.dtype, order="C")
        else:
            if key not in into:
                into[key] = np.zeros(gradient.shape, gradient.dtype)
            _add(into[key], d, rows, distinct)

    def zero_grad(self) -> None:
        """Set every gradient to zero.

        What a pullback adds at the same time in another thread may come before or after: wait for
        the pullbacks first.
        """
        gradients = self.gradients.values()
        with ADDING:
            for gradient in gradients:
                gradient.fill(0)

    def state_dict(self) -> dict[str, Array]:
        """Copies of the parameters by name.

        Returns
        -------
        dict of str to ndarray
        """
        return {name: array.copy() for name, array in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, Real]) -> None:
        """Set every parameter from `state`, casting to the layer's dtype.

        Parameters
        ----------
        state : mapping of str to array_like
            Exactly the names and shapes of `parameters`.

        Raises
        ------
        ValueError
            If names are missing or unexpected or shapes differ; all of them are listed, and the
            layer is unchanged.
        """
        copy_arrays(f"{type(self).__name__}.load_state_dict", self.parameters, state)

    def save(self, path: Path) -> None:
        """Write the parameters to `path`, an ``.npz`` file without pickles.

        The file appears whole or not at all: an error or interrupt leaves an earlier one as it was,
        and nothing else. It has exactly the name that is given. `attnc.save` also writes how the
        layer is made.
        """
        write_arrays(path, self.parameters)

    def load(self, path: Path) -> Self:
        """Set the parameters from `path`, a file that `save` wrote, and return the layer.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged or no such file, or holds pickles, or other names or shapes (see
            `load_state_dict`); the layer is unchanged.
        """
        where = f"{type(self).__name__}.load"
        arrays = read_arrays(where, path)
        if MODEL in arrays and arrays[MODEL].dtype == np.uint8:
            raise ValueError(
                f"{where}: path must be a file of parameters alone, got {path!r}, which attnc.save "
                "wrote (attnc.load reads it)"
            )
        self.load_state_dict(arrays)
        return self

    # ---- Python's own protocols ------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """The attributes, for copies and pickle, which would make arrays of their own of views."""
        views = {
            kind: {name: owner_of(array) for name, array in getattr(self, kind).items()}
            for kind in ("_parameters", "_gradients")
        }
        return {**vars(self), **views, "_frozen": dict(self._frozen), "_tied": set(self._tied)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for kind in ("_parameters", "_gradients"):
            for name, (array, transposed) in getattr(self, kind).items():
                getattr(self, kind)[name] = array.T if transposed else array

    def __setattr__(self, name: str, value: Any) -> None:
        if self._is_parameter(name):
            raise AttributeError(
                f"{type(self).__name__}: {name} must be set by layer.parameters[{name!r}] = ..., "
                "got an assignment to an attribute (one of this name comes before add_parameter)"
            )
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        # Python calls this only where there is no such attribute.
        where = type(self).__name__
        if name in ("_parameters", "_gradients", "_frozen", "_tied", "dtype"):
            raise RuntimeError(
                f"{where}: __init__ must begin with super().__init__(dtype), got a layer without"
            )
        fix = f" (the parameter is layer.parameters[{name!r}])" if self._is_parameter(name) else ""
        raise AttributeError(f"{where!r} object has no attribute {name!r}{fix}")

    def _is_parameter(self, name: str) -> bool:
        """Whether `name`, which has no dots, is that of a parameter."""
        if "_parameters" not in vars(self):  # `Layer.__init__` has not run yet
            return False
        return name in (self._parameters if self._joint == "." else self._owners())

    @reprlib.recursive_repr("...")
    def __repr__(self) -> str:
        """The constructor call that makes a layer like this one (with fresh parameters)."""
        arguments = []
        for parameter, value in constructor_arguments(self):
            name, default = parameter.name, parameter.default
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                if isinstance(value, dict):
                    arguments += [f"{key}={item!r}" for key, item in value.items()]
                elif value is not ...:
                    arguments += map(repr, value)
                continue
            if name == "dtype" and isinstance(value, np.dtype):
                value, default = value.name, np.dtype(default).name
            if parameter.default is parameter.empty or not _same(value, default):
                shown = "..." if value is ... else repr(value)
                arguments.append(f"{name}={shown}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    # ---- Calls -----------------------------------------------------------------------------------

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """The output alone. Computes and remembers nothing; for gradients use `attnc.vjp`."""
        return self._vjp(*inputs, **options)[0]

    def _vjp(self, *inputs: Any, **options: Any) -> tuple[Any, Callable[..., Any]]:
        """Output and pullback, for `attnc.vjp`."""
        raise NotImplementedError(f"{type(self).__name__}: _vjp is not written")

    def _error(self, text: str, kind: type[Exception] = ValueError) -> Exception:
        return kind(f"{type(self).__name__}: {text}")

    def _real(self, name: str, value: Any, *shape: Any) -> Array:
        """`value` as an array of the layer's dtype and `shape` (ints match, strings are free)."""
        array = _real_array(type(self).__name__, name, value)
        self._check_shape(name, array.shape, shape)
        return contiguous(array, self.dtype)

    def _check_shape(self, name: str, got: Shape, shape: tuple[Any, ...]) -> None:
        leading = shape[:1] == (Ellipsis,)
        tail = shape[1:] if leading else shape
        fits = len(got) >= len(tail) if leading else len(got) == len(tail)
        if fits and all(
            isinstance(want, str) or want == size
            for want, size in zip(tail, got[len(got) - len(tail) :], strict=True)
        ):
            return
        wanted = ", ".join("..." if size is Ellipsis else str(size) for size in shape)
        one = not leading and len(got) == len(shape) - 1 > 0
        fix = f" (one sequence is {name}[None])" if one else ""
        raise self._error(f"{name} must have shape ({wanted}), got {got}{fix}")

    def _incoming(self, name: str, value: Any, shape: Shape) -> Array | None:
        """An incoming gradient in the layer's dtype; None stands for zeros and stays None."""
        return None if value is None else self._real(name, value, *shape)


def _real_array(where: str, name: str, value: Any) -> Array:
    """`value` as an array of real numbers, or the dual number that it is."""
    return value if is_dual(value) else real_array(where, name, value)


def _add(gradient, d, rows, distinct):
    """Add `d` to an array, or to some rows of it."""
    with np.errstate(all="ignore"):
        if rows is None:
            gradient += d
        elif distinct:
            gradient[rows] += d
        else:
            np.add.at(gradient, rows, d)


def constructor_arguments(
    thing: Any, without: tuple[str, ...] = ("rng",)
) -> Iterator[tuple[inspect.Parameter, Any]]:
    """(parameter, value) of the constructor call that makes a thing like this one.

    The value is the attribute of the parameter's name: of ``*layers`` a list or tuple, of
    ``**options`` a dict; ... where it was forgotten.
    """
    kinds: dict[Any, Any] = {
        inspect.Parameter.VAR_POSITIONAL: (list, tuple),
        inspect.Parameter.VAR_KEYWORD: dict,
    }
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        if name in without:
            continue
        try:
            value = getattr(thing, name)
        except (AttributeError, RuntimeError):
            value = ...
        yield parameter, value if isinstance(value, kinds.get(parameter.kind, object)) else ...


def fitting(where: str, pattern: str, names: Iterable[str]) -> list[str]:
    """Those of `names` that a name or a pattern means."""
    if not isinstance(pattern, str):
        raise TypeError(f"{where}: patterns must be strings, got {pattern!r}")
    found = [name for name in names if name == pattern or fnmatch.fnmatchcase(name, pattern)]
    if not found:
        inside = any(name.startswith(f"{pattern}.") for name in names)
        fix = f"; did you mean '{pattern}.*'?" if inside else nearest(pattern, names)
        raise KeyError(f"{where}: patterns must fit the name of a parameter, got {pattern!r}{fix}")
    return found


_HOLDERS = Layer, list, tuple, dict, set, frozenset  # attributes of these kinds may hold layers


def _layers_in(name, value):
    """(name, layer) of a layer, or of those in lists, tuples and dicts within each other."""
    if isinstance(value, Layer):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            if isinstance(item, _HOLDERS):
                yield from _layers_in(f"{name}.{key}", item)
    elif isinstance(value, (set, frozenset)) and any(isinstance(item, Layer) for item in value):
        raise TypeError(f"{name} must be a list, tuple or dict of layers, got a set (no order)")


def owner_of(array):
    """(array, False), or (owner, True) for the transpose of an array that owns its memory."""
    owner = array.base
    if isinstance(owner, np.ndarray):
        for view, transposed in ((owner, False), (owner.T, True)):
            if (view.ctypes.data, view.shape, view.strides, view.dtype) == (
                array.ctypes.data,
                array.shape,
                array.strides,
                array.dtype,
            ):
                return owner, transposed
    return array, False


def _same(value, default):
    try:
        return bool(value == default)
    except ValueError:  # an array of truth values has none itself
        return False


def method_of(cls: type, function: Any) -> Any:
    """A copy of a method, under the name of this class: Python's errors then name it."""
    copy = types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__annotations__ = function.__annotations__
    copy.__kwdefaults__, copy.__doc__ = function.__kwdefaults__, function.__doc__
    copy.__qualname__ = f"{cls.__qualname__}.{function.__name__}"
    return copy


def positive(layer: Layer, **sizes: Any) -> list[int]:
    """The sizes as ints, each checked to be an integer of at least 1."""
    where, checked = type(layer).__name__, []
    for name, size in sizes.items():
        try:
            checked.append(integer(where, name, size, 1))
        except (TypeError, ValueError):
            raise layer._error(f"{name} must be a positive integer, got {size!r}") from None
    return checked


def glorot(rng: np.random.Generator, rows: int, columns: int, blocks: int = 1) -> Array:
    """Uniform weights (rows, blocks * columns) after Glorot and Bengio (2010), eq. 16.

    `blocks` is the number of separate matrices side by side, such as the gates of a cell.
    """
    rows, columns = int(rows), int(columns)  # sums of narrow integers overflow
    bound = np.sqrt(6 / max(rows + columns, 1))
    return rng.uniform(-bound, bound, (rows, blocks * columns))


def orthogonal(rng: np.random.Generator, size: int, blocks: int = 1) -> Array:
    """`blocks` random orthogonal matrices side by side (Saxe et al. 2014): they keep lengths."""
    matrices = []
    for _ in range(blocks):
        drawn = rng.standard_normal((size, size))
        if not drawn.any():  # of `attnc.load`, which overwrites them
            matrices.append(drawn)
            continue
        q, r = np.linalg.qr(drawn)
        matrices.append(q * np.sign(np.diag(r)))
    return np.concatenate(matrices, axis=1)
