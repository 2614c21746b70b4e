"""How many threads a call may use, and which instruction set, from the environment."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from typing import Self

from attnc import _core
from attnc.arrays import integer

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """The number of threads that a call of this thread may use.

    Returns
    -------
    int
        Inside a block of `set_num_threads` its number, else the default of the process. That is at
        the start the smallest of the processors this process may run on, its CPU quota and
        ``OMP_NUM_THREADS``, or ``ATTNC_NUM_THREADS`` where that is set.
    """
    return _core.get_num_threads()


# The numbers that calls have set, the default of the process last. A call stays in the list for as
# long as it, or an earlier one, may still turn out to open a block.
_calls: list[list[int]] = []
_lock = threading.RLock()  # a collection of garbage may come in between and call __del__
_inside = threading.local()  # limits: what each block that this thread is in found there


class set_num_threads:  # a function to its users; the class is what makes `with` work
    """Set the number of threads that a call may use, for good or inside a ``with`` block.

    The plain call sets the default of the whole process. A ``with`` block holds for the thread that
    runs it and for no other; inside it a plain call changes the default, which this thread comes
    back to at the end of the block.

    Parameters
    ----------
    n : int
        1 or more. Results have the same bits for any number.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer in ``1..256``.

    Examples
    --------
    >>> import attnc
    >>> with attnc.set_num_threads(1):
    ...     attnc.get_num_threads()
    1
    """

    def __init__(self, n: int) -> None:
        n = integer("set_num_threads", "n", n, 1, _core.MAX_THREADS)
        self._call = [n]  # a list, to be told from the same number of another call
        with _lock:
            _calls.append(self._call)
            _core.set_num_threads(n)

    def __enter__(self) -> Self:
        with _lock:  # it was no plain call: the default is what it would be without it
            _calls[:] = [call for call in _calls if call is not self._call]
            _core.set_num_threads(*_calls[-1])
        before = _core.set_thread_limit(*self._call)
        _inside.limits = [*getattr(_inside, "limits", ()), before]
        return self

    def __exit__(self, *exception: object) -> None:
        _core.set_thread_limit(_inside.limits.pop())

    def __del__(self) -> None:
        # Nobody can make a block of it any more: what was set before it does not come back.
        with _lock:
            for index, call in enumerate(_calls):
                if call is getattr(self, "_call", None):
                    del _calls[:index]
                    break

    def __repr__(self) -> str:
        return f"set_num_threads({self._call[0]})"


def _cpu_quota() -> float:
    """The CPUs that the control group grants, or infinity. Version 2, then version 1."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return math.inf if quota == "max" else float(quota) / float(period)
    except (OSError, ValueError):
        pass
    try:
        with open("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") as file:
            microseconds = float(file.read())
        with open("/sys/fs/cgroup/cpu/cpu.cfs_period_us") as file:
            of = float(file.read())
        return microseconds / of if microseconds > 0 and of > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def _available() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _configure(environment: Mapping[str, str]) -> None:
    """Read the environment, once, when the package is imported."""
    threads = min(_available(), math.ceil(_cpu_quota()) if _cpu_quota() < math.inf else 10**6)
    # OpenMP allows a list, one number for each level of nesting; the first is ours.
    outer = environment.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if outer.isdecimal() and int(outer) > 0:
        threads = min(threads, int(outer))
    own = environment.get("ATTNC_NUM_THREADS", "")
    if own:
        if not own.isdecimal() or not 1 <= int(own) <= _core.MAX_THREADS:
            raise ImportError(
                f"ATTNC_NUM_THREADS must be an integer in 1..{_core.MAX_THREADS}, got {own!r}"
            )
        threads = int(own)
    set_num_threads(max(1, min(threads, _core.MAX_THREADS)))

    isa = environment.get("ATTNC_ISA", "")
    if isa:
        if isa not in _core.isa_names():
            names = ", ".join(_core.isa_names())
            raise ImportError(f"ATTNC_ISA must be one of {names} on this machine, got {isa!r}")
        _core.set_isa(isa)


_configure(os.environ)
