"""A model in one file: `save` writes all that is needed to use it, `load` makes it again.

The file is an ``.npz`` archive without pickles, which `numpy.load` opens too::

    attnc                the text below, JSON in UTF-8, as numbers of 8 bits
    parameters.<name>    the parameters; one with several names, tied, is there once
    optimizer.<name>     what the optimiser's `state_dict` has
    arguments.<sum>      arrays among the constructor arguments, by checksum

    {"format": "attnc.save", "version": 1,
     "layer": {"class": "attnc.Linear", "arguments": {"input_size": 3, ...}},
     "changed": what was changed of the layers inside, "tied": ..., "frozen": ...,
     "optimizer": ..., "vocabularies": ..., "step": ..., "arrays": a checksum of each}

A layer is made as its `repr` says, by its constructor arguments, and then gets its parameters.
Nothing in a file is run or imported: classes are looked up by name among those of this package and
those that the caller of `load` passes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

import attnc
from attnc import data, layers, optim
from attnc.arrays import integer
from attnc.files import MODEL, read_arrays, write_arrays
from attnc.layers.base import Layer, constructor_arguments
from attnc.layers.named import distinct, place
from attnc.optim import _Optimizer
from attnc.typing import Array, Path

__all__ = ["Saved", "load", "save"]

FORMAT, VERSION = "attnc.save", 1


class Saved(NamedTuple):
    """What `load` returns.

    Parameters
    ----------
    layer : Layer
        With its parameters; tied and frozen as they were.
    optimizer : Optimizer or None
        Of that layer, with all that it remembers.
    vocabularies : dict
        By name; empty where none were saved.
    step : int or None
    """

    layer: Any
    optimizer: Any
    vocabularies: dict[str, Any]
    step: int | None


def save(
    path: Path,
    layer: Layer,
    *,
    optimizer: Any = None,
    vocabularies: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> None:
    """Write a model, and what training it further needs, into one file.

    The file appears whole or not at all, under exactly the name that is given. Before it is
    written, the model is made again from it, as `load` will do: what could not be loaded is refused
    now. This takes the memory of a second model for a moment.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    layer : Layer
        Any: also one of layers, or of a class of one's own. Written are its constructor arguments,
        which it has to keep as attributes of the same names, its parameters, and which of them are
        tied or frozen; of the layers inside, constructor arguments that were changed too, such as
        ``model.encoder.dropout``. Gradients and other attributes are not.
    optimizer : optional
        One of `attnc.optim`, of `layer` or of layers inside. Written are its numbers and what it
        remembers of each parameter. Its learning rate is that of now: a schedule
        (`attnc.schedules`) is the caller's, and goes on by ``optimizer.steps``.
    vocabularies : mapping of str to Vocabulary, optional
        Or to other things that have ``state()``, a dict that JSON holds, and the class method
        ``from_state(state)``.
    step : int, optional
        How many steps were made, at least 0.

    Raises
    ------
    OSError
        If the file cannot be written; an earlier one is then as it was.
    TypeError
        If an argument is of a wrong kind, or a constructor argument of a layer is nothing that a
        file can hold: a function, for one, unless it is the default.
    ValueError
        If `load` would not make the same of it: a constructor argument that is no attribute, a
        layer that its constructor does not make, an optimiser of other layers.

    See Also
    --------
    load : the way back
    Layer.save : the parameters alone

    Notes
    -----
    A random generator stays the caller's. Training goes on with the same bits where each step has
    its own, ``rng = np.random.default_rng([seed, step])``, as `step` is kept; or where
    ``rng.bit_generator.state``, a dict that JSON holds, is kept beside the file.

    Examples
    --------
    >>> import os, tempfile, attnc
    >>> model = attnc.Sequential(attnc.Linear(4, 8, rng=0), attnc.Linear(8, 2, rng=1))
    >>> optimizer = attnc.optim.Adam(model, 0.01)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.npz")
    ...     attnc.save(path, model, optimizer=optimizer, step=0)
    ...     saved = attnc.load(path)
    >>> saved.layer, saved.step
    (Sequential(Linear(input_size=4, output_size=8), Linear(input_size=8, output_size=2)), 0)
    """
    where, writer = "save", _Writer()
    if not isinstance(layer, Layer):
        fix = " (Sequential holds several)" if isinstance(layer, (list, tuple, dict)) else ""
        raise TypeError(f"{where}: layer must be a Layer, got {type(layer).__name__}{fix}")
    if step is not None:
        step = integer(where, "step", step, 0)
    tied = _tied(where, layer)
    stored = {name: array for name, array in layer.parameters.items() if name not in tied}
    writer.arrays |= {f"parameters.{name}": array for name, array in stored.items()}
    model: dict[str, Any] = {"format": FORMAT, "version": VERSION, "attnc": attnc.__version__}
    model |= {"step": step, "tied": tied, "frozen": list(layer.frozen_parameters), "changed": {}}
    model["layer"] = writer.call(layer)
    model["optimizer"] = None if optimizer is None else _optimizer(writer, optimizer, layer)
    model["vocabularies"] = _vocabularies(writer, {} if vocabularies is None else vocabularies)
    try:
        twin = _Reader(model, writer.arrays, writer.classes).call(model["layer"])
        model["changed"] = _changed(writer, layer, twin)
        model["arrays"] = {name: _checksum(array) for name, array in writer.arrays.items()}
        text = json.dumps(model)
        again = _Reader(json.loads(text), writer.arrays, writer.classes).saved(twin)
        _check_twin(layer, again.layer)
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(
            f"{where}: what is written must make the same again, got of {type(layer).__name__} "
            f"({type(error).__name__}: {error})"
        ) from error
    for name, vocabulary in again.vocabularies.items():
        if vocabulary.state() != model["vocabularies"][name]["state"]:
            raise ValueError(
                f"{where}: vocabularies must be made again by from_state(state()), got another "
                f"state of {name}"
            )
    write_arrays(path, {MODEL: np.frombuffer(text.encode(), np.uint8), **writer.arrays})


def load(path: Path, *, classes: Iterable[type] = ()) -> Saved:
    """Make a model again from a file that `save` wrote.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    classes : iterable of type
        The classes in the file that are not of this package: layers, optimisers, vocabularies. They
        are found by their ``__name__``, and called with the constructor arguments in the file.

    Returns
    -------
    Saved
        The named tuple ``(layer, optimizer, vocabularies, step)``.

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError
        If `classes` holds anything but such classes.
    ValueError
        If the file is none of `save`, such as one of `Layer.save`, which ``layer.load(path)``
        reads; if it is of a later version, or damaged, or does not fit together; if it has a class
        that is not among `classes`. Nothing in a file is run or imported, and it takes no more
        memory than a few times its size.

    See Also
    --------
    save : writes the file, and has an example
    """
    where, known = "load", _by_name("load", classes)
    arrays = read_arrays(where, path, stored=True)
    text = arrays.pop(MODEL, np.empty(0))
    if text.dtype != np.uint8 or text.ndim != 1:
        raise ValueError(
            f"{where}: path must be a file of attnc.save, got {path!r}, which has arrays alone "
            "(of Layer.save? make the layer, then layer.load(path))"
        )
    try:
        model = json.loads(text.tobytes().decode())
        if model["format"] != FORMAT or type(model["version"]) is not int:
            raise ValueError(f"the format is {model['format']!r}")
        if model["version"] < 1:
            raise ValueError(f"the version is {model['version']}")
        if model["version"] > VERSION:
            raise _Unreadable(
                f"{where}: path must be of version {VERSION} or before, got {path!r} of version "
                f"{model['version']} (a later attnc wrote it)"
            )
        if {name: _checksum(array) for name, array in arrays.items()} != model["arrays"]:
            raise ValueError("its arrays are not those that were written")
        return _Reader(model, arrays, known).saved()
    except (MemoryError, _Unreadable):
        raise
    except Exception as error:  # whatever does not fit, anywhere in the file
        raise ValueError(
            f"{where}: path must be a whole file of attnc.save, got {path!r} "
            f"({type(error).__name__}: {error})"
        ) from error


class _Unreadable(ValueError):
    """What the caller can do something about; its text says all."""


def _checksum(array):
    """What an array of other numbers, type or shape has not: the zip's own sums know no names."""
    found = hashlib.blake2b(f"{array.dtype.str} {array.shape} ".encode(), digest_size=16)
    found.update(array.tobytes())
    return found.hexdigest()


# ---- Classes by name -----------------------------------------------------------------------------


def _own_classes():
    """{name in a file: class} of this package."""
    exported = {"attnc": layers, "attnc.optim": optim, "attnc.data": data}
    found = {
        f"{prefix}.{name}": getattr(module, name)
        for prefix, module in exported.items()
        for name in module.__all__
    }
    return {name: thing for name, thing in found.items() if _is_kept(thing)}


def _is_kept(cls):
    """Whether this is a class of things that a file may have."""
    return isinstance(cls, type) and (
        issubclass(cls, (Layer, _Optimizer)) or callable(getattr(cls, "from_state", None))
    )


def _by_name(where, classes):
    """{name in a file: class} of a caller's classes."""
    found: dict[str, type] = {}
    if isinstance(classes, type) or not isinstance(classes, Iterable):
        raise TypeError(f"{where}: classes must be a tuple of classes, got {classes!r}")
    for cls in classes:
        if not _is_kept(cls):
            raise TypeError(
                f"{where}: classes must be of layers, optimisers or things with from_state, got "
                f"{cls!r}"
            )
        if found.setdefault(cls.__name__, cls) is not cls:
            raise ValueError(f"{where}: classes must differ in names, got two {cls.__name__}")
    return found


# ---- From a model to text and arrays -------------------------------------------------------------

_PLAIN = bool, int, float, str, type(None)


class _Writer:
    """What is written: the arrays, and the classes that are not of this package, both by name."""

    def __init__(self, nested=True):
        self._nested = nested  # whether layers among arguments are written too
        self.arrays: dict[str, Array] = {}
        self.classes: dict[str, type] = {}
        self._own = {cls: name for name, cls in _own_classes().items()}
        self._above: list[Any] = []  # the layers whose arguments are being written

    def name(self, cls):
        """What a class is called in the file."""
        if cls in self._own:
            return self._own[cls]
        self.classes = _by_name("save", [*self.classes.values(), cls])
        return cls.__name__

    def call(self, thing, without=("rng",)):
        """The constructor call that makes a thing like this one."""
        owner = type(thing).__name__
        if any(thing is each for each in self._above):
            raise ValueError(f"save: layers must not hold themselves, got {owner}")
        arguments, self._above = {}, [*self._above, thing]
        for parameter, value in constructor_arguments(thing, without):
            name = f"{owner}.{parameter.name}"
            if value is ...:
                raise ValueError(
                    f"save: {name} must be an attribute that keeps the constructor argument, got "
                    "none"
                )
            try:
                arguments[parameter.name] = self.value(name, value)
            except TypeError:
                if value is not parameter.default:
                    raise
        self._above = self._above[:-1]
        return {"class": self.name(type(thing)), "arguments": arguments}

    def value(self, name, value):
        """A constructor argument as JSON has it; what JSON has not is a dict of one entry."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is list:
            return [self.value(name, item) for item in value]
        if kind is tuple:
            return {"tuple": [self.value(name, item) for item in value]}
        if kind is dict:
            return {"dict": [[self.value(name, part) for part in item] for item in value.items()]}
        if isinstance(value, Layer) and self._nested:
            return self.call(value)
        if isinstance(value, np.dtype) and value.names is None:
            return {"dtype": value.str}
        if kind is np.ndarray or isinstance(value, np.generic):
            array = np.asarray(value)
            if array.dtype.kind in "biufcSU":
                key = f"arguments.{_checksum(array)}"
                self.arrays[key] = array
                return {"array" if kind is np.ndarray else "scalar": key}
        raise TypeError(
            f"save: {name} must be None, a number, string, array, dtype or layer, or a "
            f"list, tuple or dict of them, got {value!r}"
        )


def _optimizer(writer, optimizer, layer):
    """An optimiser, and where in `layer` its layers are."""
    where = "save"
    if not isinstance(optimizer, _Optimizer):
        raise TypeError(
            f"{where}: optimizer must be one of attnc.optim, got {type(optimizer).__name__}"
        )
    optimizer._check()  # numbers may be changed between steps
    places = {id(part): prefix for prefix, part in reversed(layer._walk())}
    if any(id(part) not in places for part in optimizer._layers.values()):
        raise ValueError(
            f"{where}: optimizer must be of the layer that is saved or of layers inside, got one "
            "of others"
        )
    for name, array in optimizer.state_dict().items():
        writer.arrays[f"optimizer.{name}"] = array
    found = [places[id(part)] for part in optimizer._layers.values()]
    return {
        **writer.call(optimizer, without=("layers",)),
        "layers": found[0] if "" in optimizer._layers else found,
    }


def _vocabularies(writer, vocabularies):
    """The classes and states of vocabularies by name."""
    where, found = "save", {}
    if not isinstance(vocabularies, Mapping):
        raise TypeError(
            f"{where}: vocabularies must be a dict of them by name, got "
            f"{type(vocabularies).__name__}"
        )
    for name, vocabulary in vocabularies.items():
        cls = type(vocabulary)
        if not isinstance(name, str):
            raise TypeError(f"{where}: vocabularies must have strings for names, got {name!r}")
        if not callable(getattr(cls, "state", None)) or not _is_kept(cls):
            raise TypeError(
                f"{where}: vocabularies must have state() and from_state(state), got "
                f"{cls.__name__} for {name}"
            )
        state = vocabulary.state()
        try:
            same = json.loads(json.dumps(state)) == state
        except (TypeError, ValueError):
            same = False
        if not same:
            raise TypeError(
                f"{where}: vocabularies must have states that JSON holds, got {cls.__name__} "
                f"for {name}"
            )
        found[name] = {"class": writer.name(cls), "state": state}
    return found


def _tied(where, layer):
    """{name: (name of the array that it is tied to, whether transposed)}."""
    parameters, gradients = layer.parameters, layer.gradients
    distinct(where, [(name, array, gradients[name]) for name, array in parameters.items()])
    groups: dict[Any, list[str]] = {}
    for name, array in parameters.items():
        groups.setdefault(place(array), []).append(name)
    tied = {}
    for names in groups.values():
        # A transpose is made of the array that owns the memory, as it was.
        source = next((n for n in names if parameters[n].flags.c_contiguous), names[0])
        for name in names:
            one, other = parameters[name], parameters[source]
            if name != source:
                tied[name] = [source, (one.shape, one.strides) != (other.shape, other.strides)]
    return tied


def _changed(writer, layer, twin):
    """{what names begin with: {argument: value}} of layers inside that are not as made."""
    ours, made, changed = dict(layer._walk()), dict(twin._walk()), {}
    for prefix, part in ours.items():
        other = made.get(prefix)
        if type(part) is not type(other):
            got = "none" if other is None else type(other).__name__
            raise ValueError(
                f"the constructor of {type(layer).__name__} makes {got} where {prefix[:-1]} is a "
                f"{type(part).__name__} (write a class whose constructor makes it)"
            )
        was = {parameter.name: value for parameter, value in constructor_arguments(other)}
        values = {}
        for parameter, value in constructor_arguments(part):
            name = parameter.name
            texts = [_text_of(each) for each in (value, was[name])]
            if None not in texts and texts[0] != texts[1]:
                values[name] = writer.value(f"{prefix}{name}", value)
        if values:
            changed[prefix] = values
    return changed


def _text_of(value):
    """What a file has of a constructor argument, or None: of layers inside, and of functions."""
    try:  # layers are compared one by one
        return json.dumps(_Writer(nested=False).value("", value))
    except TypeError:
        return None


def _check_twin(layer, twin):
    """Raise unless `twin`, which was made from what is written, is like `layer`."""
    where = type(layer).__name__
    for what, ours, made in (
        ("layers", [prefix for prefix, _ in layer._walk()], [prefix for prefix, _ in twin._walk()]),
        ("tied parameters", _tied(where, layer), _tied(where, twin)),
        ("frozen parameters", layer.frozen_parameters, twin.frozen_parameters),
    ):
        if ours != made:
            raise ValueError(f"other {what}: {made} instead of {ours}")


# ---- And back ------------------------------------------------------------------------------------


class _Draws(np.random.Generator):
    """Initial values of layers that get others at once: no more of them than there is reason for.

    Else a file of a few bytes, with large sizes for arguments, would take all memory. `blank` ones
    are 0, which takes less time; a constructor that is not of this package may need real ones.
    """

    def __init__(self, most, blank):
        super().__init__(np.random.PCG64(0))
        self._left, self._blank = most, blank

    def _drawn(self, draw, size):
        self._left -= 1 if size is None else math.prod(np.atleast_1d(size).tolist())
        if self._left < 0:
            raise ValueError("constructor arguments ask for more parameters than there are")
        return draw() if size is None or not self._blank else np.zeros(size)

    def random(self, size=None, *args, **options):
        return self._drawn(lambda: super(_Draws, self).random(size, *args, **options), size)

    def uniform(self, low=0.0, high=1.0, size=None):
        return self._drawn(lambda: super(_Draws, self).uniform(low, high, size), size)

    def normal(self, loc=0.0, scale=1.0, size=None):
        return self._drawn(lambda: super(_Draws, self).normal(loc, scale, size), size)

    def standard_normal(self, size=None, *args, **options):
        return self._drawn(
            lambda: super(_Draws, self).standard_normal(size, *args, **options), size
        )


class _Reader:
    """Makes things from a model as the file has it, which may be wrong anywhere."""

    def __init__(self, model, arrays, classes):
        self._model, self._arrays = model, arrays
        self._own = _own_classes()
        self._classes = {**self._own, **classes}
        prefix = "parameters."
        self._stored = {
            name.removeprefix(prefix): array
            for name, array in arrays.items()
            if name.startswith(prefix)
        }
        numbers = sum(array.size for array in self._stored.values())
        numbers += sum(self._stored[source].size for source, _ in model["tied"].values())
        # A constructor may draw more than it keeps; some thousands do no harm.
        most = 4 * numbers + 100_000
        self._rngs = [_Draws(most, blank) for blank in (False, True)]

    def cls(self, name, kind=object):
        """The class of this name, of the kind that is needed there."""
        cls = self._classes.get(name)
        if cls is None and isinstance(name, str) and name.isidentifier():
            raise _Unreadable(
                f"load: classes must hold {name}, which the file has "
                f"(attnc.load(path, classes=({name},)))"
            )
        if cls is None or not issubclass(cls, kind):
            raise ValueError(f"there is no class {name!r} for its place")
        return cls

    def call(self, call, kind=Layer, **given):
        """What a constructor call makes."""
        if not isinstance(call["arguments"], dict):
            raise ValueError("arguments are no dict")
        arguments = {name: self.value(value) for name, value in call["arguments"].items()}
        return self._called(self.cls(call["class"], kind), {**arguments, **given})

    def _called(self, cls, arguments):
        """``cls(...)`` with arguments by name, those of ``*layers`` and ``**options`` as one."""
        parameters = inspect.signature(cls).parameters
        if "rng" in parameters:
            arguments = {**arguments, "rng": self._rngs[cls in self._own.values()]}
        unknown = arguments.keys() - parameters.keys()
        if unknown:
            raise ValueError(f"{cls.__name__} takes no {', '.join(sorted(unknown))}")
        given = inspect.signature(cls).bind_partial()
        given.arguments.update({name: arguments[name] for name in parameters if name in arguments})
        given.apply_defaults()
        return cls(*given.args, **given.kwargs)

    def value(self, value):
        """A constructor argument, of what `_Writer.value` made of it."""
        if type(value) in _PLAIN:
            return value
        if type(value) is list:
            return [self.value(item) for item in value]
        if "class" in value:
            return self.call(value)
        ((kind, content),) = value.items()
        if kind == "tuple":
            return tuple(self.value(content))
        if kind == "dict":
            return dict(self.value(content))
        if kind == "dtype" and isinstance(content, str):
            return np.dtype(content)
        if kind in ("array", "scalar") and content.startswith("arguments."):
            array = self._arrays[content]
            return array.copy() if kind == "array" else array[()]
        raise ValueError(f"{kind} is no kind of argument")

    def saved(self, layer=None):
        """All that was saved; `layer` may have been made already."""
        model = self._model
        layer = self.call(model["layer"]) if layer is None else layer
        inside = dict(layer._walk())
        for prefix, values in model["changed"].items():
            self._change(inside[prefix], values)
        self._fill(layer)
        optimizer = step = None
        if model["optimizer"] is not None:
            optimizer = self._optimizer(model["optimizer"], inside)
        vocabularies = {
            name: self.cls(each["class"]).from_state(each["state"])
            for name, each in model["vocabularies"].items()
        }
        if model["step"] is not None:
            step = integer("load", "step", model["step"], 0)
        return Saved(layer, optimizer, vocabularies, step)

    def _change(self, part, values):
        """Give constructor arguments of a layer inside other values, which a new one would take."""
        arguments = {
            parameter.name: value
            for parameter, value in constructor_arguments(part)
            if value is not ...
        }
        values = {name: self.value(value) for name, value in values.items()}
        if values.keys() - arguments.keys():
            raise ValueError(f"{type(part).__name__} has no {', '.join(values)}")
        twin = self._called(type(part), {**arguments, **values})
        if _shapes(twin) != _shapes(part):
            raise ValueError(f"{type(part).__name__} has other parameters with {values}")
        for name, value in values.items():
            setattr(part, name, value)

    def _fill(self, layer):
        """Set, tie and freeze the parameters."""
        model, state = self._model, dict(self._stored)
        for name, (source, transposed) in model["tied"].items():
            array = self._stored[source]
            state[name] = array.T if transposed else array
        layer.load_state_dict(state)
        for name, (source, transposed) in model["tied"].items():
            parameters = layer.parameters  # a constructor may have tied them
            if place(parameters[name]) != place(parameters[source]):
                layer.tie(name, layer, source, transpose=transposed)
        if any(state[name].dtype != array.dtype for name, array in layer.parameters.items()):
            raise ValueError(f"parameters are of another dtype than {layer.dtype}")
        if not layer.parameters.keys() >= set(model["frozen"]):
            raise ValueError("there are no such parameters to freeze")
        if model["frozen"]:
            layer.freeze(*model["frozen"])

    def _optimizer(self, saved, inside):
        places, prefix = saved["layers"], "optimizer."
        one = isinstance(places, str)
        optimized = inside[places] if one else [inside[place] for place in places]
        optimizer = self.call(saved, _Optimizer, layers=optimized)
        optimizer.load_state_dict(
            {
                name.removeprefix(prefix): array
                for name, array in self._arrays.items()
                if name.startswith(prefix)
            }
        )
        return optimizer


def _shapes(layer):
    return {name: (array.shape, array.dtype) for name, array in layer.parameters.items()}
