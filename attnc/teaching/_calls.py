"""How `check` calls a student's function: what it takes, what it returns, what it must not do."""

from __future__ import annotations

import contextlib
import inspect
import io
import traceback
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from attnc.teaching._cases import OPTIONS, Case
from attnc.typing import Array

__all__ = ["Outcome", "Student", "call_of", "one_line"]

# In the order in which they are computed.
STAGES = ("scores", "capped", "masked", "weights", "context")
_ASIDE = ["dropout", "rng", "return_weights", "return_lse"]  # known, and not for every case

# Names that other libraries and books use.
_OTHERS = {
    "attn_mask": "mask",
    "attention_mask": "mask",
    "valid_lens": "key_lengths",
    "lengths": "key_lengths",
    "is_causal": "causal",
    "dropout_p": "dropout",
    "key_padding_mask": "key_mask (there True means allowed)",
    "padding_mask": "key_mask",
}

# What is written for tensors and raises with arrays, and what NumPy has for it.
_FOREIGN = {
    "torch.": "the inputs are NumPy arrays: torch.from_numpy(x) first, x.numpy() at the end",
    ".masked_fill": "NumPy has np.where(allowed, scores, -np.inf) for it",
    ".size(": "NumPy has x.shape[-1] for it",
    ".transpose(-": "NumPy has np.swapaxes(x, -1, -2) for it",
    "dim=": "NumPy says axis=-1, keepdims=True",
    ".softmax(": "NumPy has none: np.exp(x - x.max(axis=-1, keepdims=True)), divided by its sum",
}


def one_line(text: Any, most: int = 200) -> str:
    """A text in one line that is not too long.

    Parameters
    ----------
    text : object
    most : int

    Returns
    -------
    str
    """
    try:
        line = " ".join(str(text).split())
    except Exception:
        line = "(a text that cannot be printed)"
    return line if len(line) <= most else line[: most - 3] + "..."


def call_of(names: list[str], case: Case) -> str:
    """The inputs of a call in words.

    Parameters
    ----------
    names : list of str
        Those of the arrays.
    case : Case

    Returns
    -------
    str
        Such as ``query (3, 4), key (5, 4), value (5, 2), causal=True``.
    """
    shown = [f"{name} {array.shape}" for name, array in zip(names, case.arrays, strict=True)]
    for name, value in case.options.items():
        if isinstance(value, np.ndarray):
            shown.append(f"{name} {value.shape}")
        elif value is not None and value is not False:
            shown.append(f"{name}={value}")
    return ", ".join(shown) + (", float32" if case.arrays[0].dtype == np.float32 else "")


class Outcome(NamedTuple):
    """What a call gave: arrays by the names of stages, or what is wrong with it."""

    case: Case
    stages: dict[str, Array]
    complaint: str


class Student:
    """A function with what its signature says.

    Attributes
    ----------
    name : str
    taken, required : set of str
        Options of attnc that it takes, and those of them that have no default.
    left_out : list of str
        Options by which it is not tried: those that it does not take, and those that are never.
    notes : list of str
        What is no fault but worth knowing.
    """

    def __init__(self, function: Callable[..., Any], arrays: list[str], known: set[str]) -> None:
        self.function, self.arrays = function, arrays
        name = getattr(function, "__name__", type(function).__name__)
        self.name = "the function" if name == "<lambda>" else str(name)
        self.notes: list[str] = []
        self.printed = False
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            parameters = types.MappingProxyType({})
        self._read(parameters, known)

    def _read(self, parameters, known):
        kind = inspect.Parameter
        many = kind.VAR_POSITIONAL, kind.VAR_KEYWORD
        named = {n: p for n, p in parameters.items() if p.kind not in many}
        by_name = [n for n, p in named.items() if p.kind is not kind.POSITIONAL_ONLY]
        self.by_name = set(self.arrays) <= set(by_name)
        places = [n for n, p in named.items() if p.kind is not kind.KEYWORD_ONLY]
        any_number = any(p.kind is kind.VAR_POSITIONAL for p in parameters.values())
        first = self.arrays if self.by_name else places[: len(self.arrays)]
        options = {n: p for n, p in named.items() if n not in first}
        if parameters and not any_number and len(first) < len(self.arrays):
            raise AssertionError(
                f"{self.name}: it must take {', '.join(self.arrays)}, got ({', '.join(named)})"
            )
        takes = known | set(_ASIDE)
        unknown = [n for n in options if n not in takes]
        must = [n for n in unknown if options[n].default is kind.empty]
        if must:
            other = _OTHERS.get(must[0])
            fix = f"call it {other}" if other else "give it a default, or one of attnc's names"
            raise AssertionError(
                f"{self.name}: it must take {', '.join(self.arrays)} and options under attnc's "
                f"names, got an argument {must[0]} ({fix})"
            )
        for n in unknown:
            self.notes.append(
                f"{n} left alone" + (f" (in attnc {_OTHERS[n]})" if n in _OTHERS else "")
            )
        if any(p.kind is kind.VAR_KEYWORD for p in parameters.values()):
            self.notes.append("nothing passed by ** but what the signature names")
        self.aside = {n for n in options if n in _ASIDE}
        self.taken = {n for n in options if n in known and n in OPTIONS}
        self.required = {
            n for n in self.taken | self.aside if options[n].default is kind.empty and n != "rng"
        }
        tried = known & {*OPTIONS, "dropout"}
        self.left_out = sorted(
            (tried - set(options)) | (known & set(options) - tried - set(_ASIDE))
        )

    # ---- one call

    def call(self, arrays: tuple[Array, ...], options: dict[str, Any]) -> Any:
        """What the function returns for `arrays` and `options`; what it prints goes nowhere."""
        given = {**options}
        if "return_weights" in self.aside:
            given.setdefault("return_weights", True)
        if self.by_name:
            given |= dict(zip(self.arrays, arrays, strict=True))
            arrays = ()
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            result = self.function(*arrays, **given)
        self.printed |= bool(out.getvalue())
        return result

    def run(self, case: Case, strict: bool) -> Outcome:
        """What the function gives for a `case`; `strict`: its dtype must be that of the inputs."""
        arrays, options = _copies(case)
        try:
            result = self.call(arrays, options)
        except (Exception, SystemExit) as error:
            return Outcome(case, {}, self._raised(error, case))
        for name, given, kept in self._inputs(arrays, options, case):
            if not _same(given, kept):
                raise AssertionError(f"{self.name}: it writes into its input {name}: copy it first")
        try:
            stages = self._stages(result, case, strict)
        except (ValueError, TypeError, AttributeError, RuntimeError, LookupError) as error:
            kind = type(result).__name__
            stages = f"it returns a {kind} that cannot be read: {one_line(error, 120)}"
        if isinstance(stages, str):
            return Outcome(case, {}, stages)
        for stage, array in stages.items():
            for name, given, _ in self._inputs(arrays, options, case):
                if isinstance(given, np.ndarray) and np.may_share_memory(array, given):
                    return Outcome(
                        case, {}, f"{stage} is a view of the input {name}: return a copy"
                    )
        return Outcome(case, {name: np.array(x) for name, x in stages.items()}, "")

    def _inputs(self, arrays, options, case):
        """(name, as it is now, as it was) of all that was passed."""
        yield from zip(self.arrays, arrays, case.arrays, strict=True)
        for name, value in case.options.items():
            yield name, options[name], value

    def _raised(self, error, case):
        """An exception, with the line of the student's file that it came from."""
        text, said = f"it raised {type(error).__name__}", one_line(error, 120)
        text += f": {said}" if said else ""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if code is not None and f.filename == code.co_filename]
        if own and own[-1].line:
            text += f" in `{one_line(own[-1].line, 80)}`"
            if ".T" in own[-1].line and case.arrays[0].ndim > 2:
                text += " (.T turns all axes: np.swapaxes(x, -1, -2) turns the last two)"
            else:
                foreign = [fix for part, fix in _FOREIGN.items() if part in own[-1].line]
                text += f" ({foreign[0]})" if foreign else ""
        return text

    def _stages(self, result, case, strict):
        """Arrays by the names of stages, or what is wrong with them."""
        named = _by_name(result)
        if isinstance(named, str):
            return named
        shapes = _shapes(self.arrays, case)
        if set(named) == {"context", "weights"} and shapes["context"] != shapes["weights"]:
            got = np.shape(named["context"]), np.shape(named["weights"])
            if got == (shapes["weights"], shapes["context"]):
                raise AssertionError(
                    f"{self.name}: it returns (weights, context): return (context, weights)"
                )
        for stage, array in named.items():
            wrong = _no_array(array, case.arrays[0].dtype, strict)
            if not wrong and array.shape != shapes[stage]:
                wrong = f"must have shape {shapes[stage]}, got {array.shape}"
            if wrong:
                return f"{stage} {wrong}"
            if array.dtype != case.arrays[0].dtype:
                note = (
                    "float32 comes back as float64 (np.sqrt of an integer is float64: math.sqrt "
                    "keeps float32)"
                )
                if note not in self.notes:
                    self.notes.append(note)
        return named


def _copies(case):
    """Arrays and options that may be written to."""
    options = {n: x.copy() if isinstance(x, np.ndarray) else x for n, x in case.options.items()}
    return tuple(x.copy() for x in case.arrays), options


def _same(given, kept):
    if isinstance(kept, np.ndarray):
        return np.array_equal(given, kept, equal_nan=kept.dtype.kind == "f")
    return True


def _shapes(names, case):
    """The shapes of the stages."""
    given = dict(zip(names, case.arrays, strict=True))
    if "scores" in given:
        pairs = given["scores"].shape
    else:
        pairs = (*given["query"].shape[:-1], given["key"].shape[-2])
    shapes = dict.fromkeys(STAGES, pairs)
    return {**shapes, "context": (*pairs[:-1], given["value"].shape[-1])}


def _by_name(result):
    """The parts of what was returned, or what is wrong with it."""
    if result is None:
        return "it returns None: a return is missing"
    if isinstance(result, np.ndarray):
        return {"context": result}
    if inspect.iscoroutine(result):
        result.close()  # else Python warns that nobody awaited it
        return "it must return an array, got a coroutine: leave out async"
    if isinstance(result, Mapping):
        parts = dict(result)
    elif hasattr(result, "_fields"):
        parts = dict(zip(result._fields, result, strict=False))
    elif isinstance(result, tuple):
        if len(result) == 2:
            return dict(zip(("context", "weights"), result, strict=True))
        return f"it must return the context or (context, weights), got a tuple of {len(result)}"
    elif isinstance(result, (list, types.GeneratorType)):
        fix = " (np.array makes an array of it)" if isinstance(result, list) else ""
        return f"it must return an array, got a {type(result).__name__}{fix}"
    else:
        parts = {stage: getattr(result, stage, None) for stage in STAGES}
    named = {stage: parts[stage] for stage in STAGES if parts.get(stage) is not None}
    if not named:
        kind = type(result)
        shown = f"{kind.__module__}.{kind.__name__}".removeprefix("builtins.")
        keys = f" with {one_line(list(parts), 80)}" if isinstance(result, (Mapping, tuple)) else ""
        return (
            f"it must return an array, (context, weights), or any of {', '.join(STAGES)} by name, "
            f"got {shown}{keys}" + _numpy_of(kind)
        )
    return named


def _numpy_of(kind):
    """How a tensor of another library becomes an array, or ""."""
    if kind.__module__.partition(".")[0] == "torch":
        return " (x.detach().numpy() makes an array of it)"
    return ""


def _no_array(array, dtype, strict):
    """What keeps it from being an array of floats, or ""."""
    if type(array) is not np.ndarray:
        kind = f"{type(array).__module__}.{type(array).__name__}".removeprefix("builtins.")
        return f"must be a NumPy array, got {kind}" + _numpy_of(type(array))
    if array.dtype.kind != "f":
        return f"must be of dtype {dtype}, got {array.dtype}"
    if array.dtype not in ((dtype,) if strict else (dtype, np.float64)):
        return f"must have the dtype of the inputs, {dtype}, got {array.dtype}"
    return ""
