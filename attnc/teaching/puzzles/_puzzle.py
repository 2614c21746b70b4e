"""`Puzzle`: a task, its specification in loops, inputs, a drawn example, and the check."""

from __future__ import annotations

import contextlib
import html
import inspect
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from attnc.teaching._calls import one_line
from attnc.teaching.puzzles import _drawing

__all__ = ["Puzzle", "puzzle"]

# Roundings of the largest number by which another order of the same sums may be off.
FLOOR = 1000


class Solved:
    """What `check` returns: true, one line when printed, and the solution itself when called."""

    def __init__(self, name: str, cases: int, solution: Callable[..., Any]) -> None:
        self.name, self.cases, self.solution = name, cases, solution

    def __bool__(self) -> bool:
        return True

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.solution(*arguments, **named)

    def __repr__(self) -> str:
        return f"solved: {self.name}"

    def __str__(self) -> str:
        return f"solved: {self.name}, right on {self.cases} inputs"


class Puzzle:
    """One puzzle. Printed, it says what to do and shows an example.

    Attributes
    ----------
    name : str
    task : str
        What to compute, in words.
    specification : function
        The same in plain loops.
    """

    def __init__(
        self,
        specification: Callable[..., Any],
        inputs: Callable[[np.random.Generator], Iterable[tuple[Any, ...]]],
        shapes: str,
        outputs: str,
        task: str,
    ) -> None:
        self.name, self.specification = specification.__name__, specification
        self.task, self.shapes = " ".join(task.split()), shapes
        self._inputs, self.outputs = inputs, outputs.split()

    # ---- to look at

    @property
    def signature(self) -> str:
        """What to define: ``def name(arguments):``."""
        arguments = ", ".join(inspect.signature(self.specification).parameters)
        return f"def {self.name}({arguments}):"

    def source(self) -> str:
        """The specification as Python source, without its docstring.

        Returns
        -------
        str
            Empty where Python cannot find the source.
        """
        try:
            source = inspect.getsource(self.specification)
        except (OSError, TypeError):
            return ""
        source = source[source.index("def ") :]
        return re.sub(r'\n    """.*?"""', "", source, count=1, flags=re.DOTALL).rstrip()

    def example(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The inputs and the wanted outputs of the example, by name.

        Returns
        -------
        (dict, dict)
        """
        arguments = next(self._cases(0))
        names = inspect.signature(self.specification).parameters
        return dict(zip(names, arguments, strict=True)), self._named(self._wanted(arguments))

    def __repr__(self) -> str:
        inputs, outputs = self.example()
        lines = [f"Puzzle {self.name}", *textwrap.wrap(self.task, 88), "", f"    {self.signature}"]
        lines += [f"        # {line}" for line in self.shapes.split("; ")]
        if self.source():
            lines += ["", "In loops:", "", textwrap.indent(self.source(), "    ")]
        lines += ["", "For example:", "", _drawing.text(inputs), "gives", _drawing.text(outputs)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        inputs, outputs = self.example()
        code = f"{self.signature}\n    # " + "\n    # ".join(self.shapes.split("; "))
        source = html.escape(self.source())
        task = re.sub("`(.+?)`", r"<code>\1</code>", html.escape(self.task))
        return (
            f"<div style='max-width:50em'><b>{self.name}</b><p>{task}</p>"
            f"<pre>{html.escape(code)}</pre>"
            + (f"<details><summary>in loops</summary><pre>{source}</pre></details>" * bool(source))
            + f"<div>{_drawing.markup(inputs)}<span style='font-size:150%'>&rarr;</span> "
            + f"{_drawing.markup(outputs)}</div></div>"
        )

    # ---- to solve

    def _cases(self, seed):
        """The arguments of all calls; no zero in them, which are rounded, is -0."""
        for arguments in self._inputs(_generator(seed)):
            yield tuple(
                x + 0.0 if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
                for x in arguments
            )

    def _wanted(self, arguments):
        with np.errstate(all="ignore"):
            return self.specification(*_copied(arguments))

    def _named(self, result):
        parts = result if len(self.outputs) > 1 else (result,)
        return dict(zip(self.outputs, parts, strict=True))

    def check(self, solution: Callable[..., Any], *, seed: int = 0) -> Solved:
        """Run a solution on awkward inputs, the smallest first.

        Parameters
        ----------
        solution : callable
            Also below it, as a decorator: ``@puzzles.causal.check``.
        seed : int, default 0

        Returns
        -------
        Solved
            True, and to be called like the solution.

        Raises
        ------
        AssertionError
            If it is wrong: one line with the smallest input that shows it, what it gives and what
            is wanted.
        TypeError
            If `solution` is not a function.
        """
        __tracebackhide__ = True  # pytest shows the line that called this
        if not callable(solution):
            kind = type(solution).__name__
            raise TypeError(f"{self.name}: solution must be a function, got {kind}")
        cases = sorted(self._cases(seed), key=_size)
        for arguments in cases:
            fault = self._fault(solution, arguments)
            if fault:
                raise AssertionError(one_line(f"{self.name}: {fault}", 1000))
        return Solved(self.name, len(cases), solution)

    def __call__(self, solution: Callable[..., Any]) -> Callable[..., Any]:
        """The `solution` itself, checked, so that ``@puzzles.causal`` decorates it."""
        __tracebackhide__ = True
        self.check(solution)
        return solution

    def _fault(self, solution, arguments):
        """What is wrong with a solution on these arguments, or ""."""
        given = _copied(arguments)
        names = list(inspect.signature(self.specification).parameters)
        shown = ", ".join(
            f"{name} = {_drawing.inline(x)}" for name, x in zip(names, arguments, strict=True)
        )
        try:
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with np.errstate(all="ignore"):
                    result = solution(*given)
        except (Exception, SystemExit) as error:
            said = one_line(error, 200)
            return f"for {shown} it raised {type(error).__name__}" + (f": {said}" if said else "")
        for name, now, before in zip(names, given, arguments, strict=True):
            if isinstance(before, np.ndarray) and not _equal(now, before):
                return f"it writes into {name}: copy it first"
        if inspect.iscoroutine(result):
            result.close()  # else Python warns that nobody awaited it
            return "it returns a coroutine: leave out async"
        if result is None:
            return "it returns None: a return is missing"
        if len(self.outputs) > 1 and not (
            isinstance(result, (tuple, list)) and len(result) == len(self.outputs)
        ):
            return f"it must return {', '.join(self.outputs)}, got {_kind(result)}"
        got = self._named(result)
        for name, wanted in self._named(self._wanted(arguments)).items():
            fault = _difference(got[name], np.asarray(wanted))
            if fault == "wrong":
                numbers = _numbers(got[name], np.asarray(wanted))
                return f"for {shown} {name} is wrong: {numbers}"
            if fault:
                return f"for {shown} {name} must be {fault}"
        return ""


def _generator(seed):
    return np.random.Generator(np.random.Philox(seed))


def _copied(arguments):
    return tuple(x.copy() if isinstance(x, np.ndarray) else x for x in arguments)


def _size(arguments):
    return sum(x.size if isinstance(x, np.ndarray) else int(x) for x in arguments)


def _kind(x):
    if isinstance(x, (tuple, list)):
        return f"a {type(x).__name__} of {len(x)}"
    return f"an array of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__


def _equal(x, y):
    return np.array_equal(x, y, equal_nan=y.dtype.kind == "f")


def _difference(got, wanted):
    """What it must be and is not, "wrong" if it is only the numbers, or ""."""
    if isinstance(got, (int, float, np.generic)):
        return f"of shape {wanted.shape}, got a number"
    if type(got) is not np.ndarray:
        kind = type(got).__name__ if isinstance(got, np.ndarray) else _kind(got)
        return f"a NumPy array, got {kind}"
    if got.shape != wanted.shape:
        return f"of shape {wanted.shape}, got {got.shape}"
    if got.dtype.kind != wanted.dtype.kind:
        return f"of dtype {wanted.dtype}, got {got.dtype}"
    if wanted.dtype.kind == "b":
        return "" if (got == wanted).all() else "wrong"
    finite = np.isfinite(wanted)
    if not _equal(got[~finite], wanted[~finite]):
        return "wrong"
    largest = np.abs(wanted[finite]).max(initial=1)
    with np.errstate(all="ignore"):
        off = np.abs(got[finite] - wanted[finite])
    if (off <= FLOOR * np.finfo(np.float64).eps * largest).all():
        return ""
    if got.dtype.itemsize < wanted.dtype.itemsize and np.allclose(got, wanted, atol=1e-2):
        return f"of dtype {wanted.dtype}, got {got.dtype}"
    return "wrong"


def _numbers(got, wanted):
    """Both arrays, or the place that is off by most, where they look the same."""
    shown = [_drawing.inline(x) for x in (got, wanted)]
    if shown[0] != shown[1] or not wanted.ndim:
        return f"got {shown[0]}, wanted {shown[1]}"
    with np.errstate(all="ignore"):
        off = np.nan_to_num(np.abs(got - wanted), posinf=0.0)  # the same infinities give NaN
    place = np.unravel_index(int(off.argmax()), off.shape)
    index = ", ".join(map(str, place))
    return f"at [{index}] got {got[place]:.12g}, wanted {wanted[place]:.12g}"


def puzzle(
    inputs: Callable[[np.random.Generator], Iterable[tuple[Any, ...]]], shapes: str, outputs: str
) -> Callable[[Callable[..., Any]], Puzzle]:
    """Make a puzzle of its specification, whose first comment-free text is the task.

    Parameters
    ----------
    inputs : callable
        From a generator to the arguments of all calls; the first one is drawn.
    shapes : str
        Of what comes in and goes out, parts separated by ``"; "``.
    outputs : str
        The names of what is returned.

    Returns
    -------
    callable
        A decorator.
    """

    def make(specification):
        task = (inspect.getdoc(specification) or "").strip()  # none with python -OO
        return Puzzle(specification, inputs, shapes, outputs, task)

    return make
