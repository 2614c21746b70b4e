"""`check`: holds a student's attention against attnc's, and says in one line what is wrong.

The inputs are in `_cases`, the call in `_calls`, the usual mistakes in `mistakes`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from attnc import functional, reference
from attnc.arrays import flag, integer
from attnc.functional.attention import MECHANISMS
from attnc.registry import record_of
from attnc.teaching import mistakes
from attnc.teaching._calls import STAGES, Outcome, Student, call_of
from attnc.teaching._cases import EXTREME, TRAITS, cases
from attnc.teaching._dropout import dropout_fault
from attnc.teaching._unfused import Unfused
from attnc.typing import Array

__all__ = ["check"]

_NAMES = [function.__name__ for function in MECHANISMS]

# A student's result may be wrong by so many times the error of the plain formula in the same dtype,
# and by so many roundings of the largest number: for another order of the same sums.
TIMES, FLOOR = 8, 32


class Checked:
    """What `check` returns for a function that is right: true, and one line when printed.

    Attributes
    ----------
    function : str
        The name of the student's function.
    reference : str
        That of attnc's.
    cases : int
        How many calls were compared.
    left_out : list of str
        The options of attnc's function that were not tried: that the student's does not take, or
        that never are.
    notes : list of str
        What is no fault but worth knowing.
    """

    def __init__(
        self, function: str, reference: str, cases: int, left_out: list[str], notes: list[str]
    ) -> None:
        self.function, self.reference, self.cases = function, reference, cases
        self.left_out, self.notes = left_out, notes

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        # The same for all who are right, so that the output of a doctest can be fixed.
        return f"right: {self.reference}"

    def __str__(self) -> str:
        text = f"{self.function}: right in {self.cases} calls of {self.reference}"
        if self.left_out:
            text += f"; without {', '.join(self.left_out)}"
        return "; ".join([text, *self.notes])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))  # in a notebook


def check(
    student: Callable[..., Any],
    reference: Callable[..., Any],
    *,
    skip: Iterable[str] = (),
    options: Iterable[str] = (),
    strict: bool = False,
    seed: int = 0,
) -> Checked:
    """Hold a student's attention function against one of attnc's, on awkward inputs.

    Where it is wrong, the formula is run with each usual mistake, and the error names the one that
    gives the same numbers. If none does, it names the first stage that differs, where the function
    returns its stages, or the input, the place and both numbers.

    Parameters
    ----------
    student : callable
        Takes the arrays of `reference` in its order, or by its names, and any of its options by
        name; what its signature does not name is not tried. Returns the context, or
        ``(context, weights)``, or any of ``scores``, ``capped``, ``masked``, ``weights`` and
        ``context`` in a dict or named tuple, as in `attnc.stages`.
    reference : function
        `attnc.dot_product_attention`, `attnc.multiplicative_attention`,
        `attnc.additive_attention`, `attnc.cosine_attention` or `attnc.attend`.
    skip : iterable of str, optional
        What not to try: ``"sequence"`` (inputs without batch axes), ``"batch"`` (with one),
        ``"heads"`` (with two), ``"length 1"``, ``"float32"``, ``"large scores"``,
        ``"empty rows"`` (queries that may attend to nothing), ``"masked nan"``,
        ``"zero vector"``.
    options : iterable of str, optional
        Options that the function must take.
    strict : bool, default False
        Ask for all that attnc itself promises: also NaN in masked values, which weights of 0 do
        not stop, masks with axes of size 1, and float32 results for float32 inputs.
    seed : int, default 0
        Of the inputs.

    Returns
    -------
    Checked
        True, with what was left out; printed, it is one line.

    Raises
    ------
    AssertionError
        If the function is wrong; its text is one line.
    TypeError, ValueError
        If what to check, or against what, cannot be told.

    Notes
    -----
    The error that is allowed is a small multiple of that of the plain formula in the dtype of the
    inputs, which is measured for each of them. What the function prints is not shown.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> def softmax(x, axis):
    ...     powers = np.exp(x - x.max(axis=axis, keepdims=True))
    ...     return powers / powers.sum(axis=axis, keepdims=True)
    >>> def mine(query, key, value):
    ...     scores = query @ np.swapaxes(key, -1, -2) / query.shape[-1] ** 0.5
    ...     return softmax(scores, axis=-1) @ value
    >>> attnc.teaching.check(mine, attnc.dot_product_attention)
    right: dot_product_attention
    >>> def mine(query, key, value):
    ...     scores = query @ np.swapaxes(key, -1, -2) / query.shape[-1] ** 0.5
    ...     return softmax(scores, axis=-2) @ value
    >>> attnc.teaching.check(mine, attnc.dot_product_attention)
    Traceback (most recent call last):
        ...
    AssertionError: mine: the softmax runs over the queries (axis -2): it must run over the keys, \
axis -1
    """
    __tracebackhide__ = True  # pytest shows the line that called this
    name = _mechanism(reference)
    if not callable(student):
        raise TypeError(f"check: student must be a function, got {type(student).__name__}")
    left_out = _among("skip", skip, TRAITS)
    strict = flag("check", "strict", strict)
    seed = integer("check", "seed", seed, 0)
    arrays, known = _arrays_and_options(reference)
    wanted = _among("options", options, known)
    try:
        theirs = Student(student, arrays, known)
        line, count = _fault(theirs, name, wanted, left_out, strict, seed)
    except AssertionError as error:
        line, count = str(error), 0
    if line:
        raise AssertionError(line)
    notes = theirs.notes + ["what it prints is not shown"] * theirs.printed
    return Checked(theirs.name, name, count, theirs.left_out, notes)


def _mechanism(reference):
    """The name of a function that can be checked against."""
    name = getattr(reference, "__name__", None)
    if name in _NAMES and getattr(functional, name) is reference:
        return name
    shown = name or type(reference).__name__
    raise TypeError(
        f"check: reference must be one of {', '.join(f'attnc.{n}' for n in _NAMES)}, got {shown}"
    )


def _arrays_and_options(function):
    """The names of its arrays, and of what else can be tried."""
    parameters = inspect.signature(function).parameters
    record = record_of(function)
    assert record is not None
    arrays = list(record.required)
    return arrays, set(parameters) - set(arrays)


def _among(argument, names, known):
    """A set of names, each of which is known."""
    if isinstance(names, str):
        names = [names]
    names = set(names)
    for name in names:
        if name not in known:
            listed = ", ".join(known if isinstance(known, dict) else sorted(known))
            raise ValueError(f"check: {argument} must be among {listed}, got {name!r}")
    return names


def _fault(student, name, wanted, skip, strict, seed):
    """What is wrong, in one line, or ""; and how many calls were right."""
    missing = sorted(wanted - student.taken - student.aside)
    if missing:
        return f"{student.name}: it must take {missing[0]}, which is not in its signature", 0
    tried = list(cases(name, student.taken, student.required, skip, strict, seed))
    if not tried:
        raise ValueError("check: skip must leave something to try, got all that there is")
    outcomes = [student.run(case, strict) for case in tried]
    again = student.run(tried[0], strict)
    if outcomes[0].stages.keys() == again.stages.keys() and any(
        not np.array_equal(x, again.stages[stage], equal_nan=True)
        for stage, x in outcomes[0].stages.items()
    ):
        return f"{student.name}: a second call with the same inputs gives another result", 0
    compared = [_Compared(name, o) for o in outcomes if not o.complaint]
    wrong = [c for c in compared if c.stage]
    # Where the formula itself is wrong, what becomes of extremes says nothing.
    if any(not c.outcome.case.traits & EXTREME for c in wrong):
        compared = [c for c in compared if not c.outcome.case.traits & EXTREME]
        wrong = [c for c in compared if c.stage]
    if wrong:
        known = _usual(name, compared)
        return f"{student.name}: {known or _place(student, compared, wrong)}", 0
    raised = [o for o in outcomes if o.complaint]
    if raised:
        return f"{student.name}: {_complaint(student, outcomes, raised)}", 0
    if "dropout" in student.aside:
        fault = dropout_fault(student, name, seed)
        if fault:
            return f"{student.name}: {fault}", 0
    return "", len(outcomes)


# ---- comparing


class _Compared:
    """An outcome next to what it must be; `stage` is the first that is wrong, "" where none is."""

    def __init__(self, name: str, outcome: Outcome) -> None:
        self.outcome, case = outcome, outcome.case
        function, dtype = getattr(reference, name), case.arrays[0].dtype
        wide = np.float64 if dtype == np.float32 else np.longdouble
        options = {n: x for n, x in case.options.items() if not n.startswith("return_")}
        self.exact, naive = (
            reference.vjp(function, *case.arrays, **options, dtype=kind)[1].stages
            for kind in (wide, dtype.type)
        )
        # Scores, biases and values of these cases are finite where they are not masked.
        self.allowed = np.isfinite(self.exact["masked"])
        score = _largest(self.exact["capped"][self.allowed])
        value = _largest(case.arrays[1 if name == "attend" else 2])
        self.tolerance = {}
        for stage in outcome.stages:
            size = {"context": value, "weights": 1.0}.get(stage, score)
            error = _largest(self.read(stage, naive[stage]) - self.read(stage, self.exact[stage]))
            # A weight cannot be better than its score, which rounds by eps times its own size.
            rounding = (FLOOR + 4 * score) * np.finfo(dtype).eps * size
            self.tolerance[stage] = TIMES * error + rounding
        self.differences = {
            stage: self.from_right(stage, got) for stage, got in outcome.stages.items()
        }
        self.stage = next((s for s in STAGES if self.is_wrong(s)), "")

    def is_wrong(self, stage: str) -> bool:
        """Whether there is such a stage, and it is off by more than it may be."""
        if stage not in self.differences:
            return False
        return not (self.differences[stage] <= self.tolerance[stage]).all()

    def read(self, stage: str, x: Array) -> Array:
        """The stage with 0 where it is not read: before the softmax, where it is masked."""
        return x if stage in ("weights", "context") else np.where(self.allowed, x, 0)

    def from_right(self, stage: str, got: Array) -> Array:
        """|got - exact|, inf where that is no number."""
        with np.errstate(all="ignore"):
            d = np.abs(self.read(stage, got) - self.read(stage, self.exact[stage]))
        d = np.where(np.isfinite(d), d, np.inf)
        if stage == "masked":  # -inf, or what some take for it
            d = np.where(self.allowed | (got <= -1e4), d, np.inf)
        return d

    @np.errstate(all="ignore")
    def is_made_by(self, mistake: type[Unfused], name: str) -> bool:
        """Whether a mistake gives the student's numbers."""
        case, stages = self.outcome.case, self.outcome.stages
        # Where float32 became float64 on the way, exp overflows later.
        dtype = np.result_type(*case.arrays, *stages.values())
        try:
            made = mistake(name, [x.astype(dtype) for x in case.arrays], case.options)
            for stage in stages.keys() - {"capped"}:
                theirs, its = (self.read(stage, x) for x in (stages[stage], getattr(made, stage)()))
                # One that changes little must be met the more closely.
                most = self.tolerance[stage] + 1e-3 * _largest(self.differences[stage])
                numbers = np.isfinite(theirs)
                if its.shape != theirs.shape or (numbers != np.isfinite(its)).any():
                    return False
                if not _largest(np.where(numbers, theirs - its, 0)) <= most:
                    return False
        except (ValueError, IndexError, TypeError):
            return False
        return True


def _largest(x: Array) -> float:
    """The largest absolute value of the finite numbers."""
    return float(np.abs(x[np.isfinite(x)]).max(initial=0))


# ---- what to say


def _usual(name: str, compared: list[_Compared]) -> str:
    """The usual mistake, or the two, that give the student's numbers; "" if none does."""
    compared = sorted(compared, key=lambda c: not c.stage)  # the wrong ones first
    tried = [c.outcome.case for c in compared]
    usual = mistakes.usual(
        name, {given for case in tried for given in (*case.options, *case.traits)}
    )
    for group in (usual, mistakes.pairs(usual)):
        for mistake in group:
            if all(c.is_made_by(mistake, name) for c in compared):
                return str(mistake.__doc__)
    return ""


def _place(student: Student, compared: list[_Compared], wrong: list[_Compared]) -> str:
    """The smallest input that is wrong, the stage, the place and both numbers."""
    least = min(wrong, key=lambda c: sum(x.size for x in c.outcome.case.arrays))
    stage, d = least.stage, least.differences[least.stage]
    index = tuple(int(i) for i in np.unravel_index(int(d.argmax()), d.shape))
    got, must = (float(x[index]) for x in (least.outcome.stages[stage], least.exact[stage]))
    before = [s for s in STAGES if s in least.outcome.stages]
    before = before[: before.index(stage)]
    first = f"{', '.join(before)} right, " if before else ""
    if len(least.outcome.stages) > 1:
        first += f"{stage} is the first stage that differs: "
    place = f"{stage}[{', '.join(map(str, index))}] is {got:.9g}, must be {must:.9g}"
    only = _only([c.outcome for c in compared], [c.outcome for c in wrong])
    return f"{first}{place}, for {call_of(student.arrays, least.outcome.case)}{only}"


def _complaint(student, outcomes, raised):
    """The first call that gave nothing to compare."""
    outcome = min(raised, key=lambda o: len(o.case.arrays[0].shape))
    text = f"{outcome.complaint}, for {call_of(student.arrays, outcome.case)}"
    return text + _only(outcomes, raised)


def _only(outcomes, wrong):
    """What all wrong calls have in common that no other has, such as batch axes."""
    theirs = {id(o) for o in wrong}
    if len(theirs) == len(outcomes):
        return ""
    common = frozenset.intersection(*[o.case.traits for o in wrong])
    others = frozenset().union(*[o.case.traits for o in outcomes if id(o) not in theirs])
    told = [TRAITS[trait] for trait in TRAITS if trait in common - others]
    batches = {"batch", "heads"}
    if not told and all(o.case.traits & batches for o in wrong) and not others & batches:
        told = ["inputs with batch axes"]
    return f" (right but for {told[0]})" if told else ""
