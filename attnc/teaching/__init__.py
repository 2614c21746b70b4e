"""For courses: attention stage by stage, checks of what students write, and puzzles.

`stages` keeps every intermediate array of a call, and the gradient at each. `check` holds a
student's function against attnc's and names the mistake. `puzzles` are fifteen exercises.
"""

from typing import TYPE_CHECKING

from attnc.teaching.stages import (
    DecoderStages,
    MultiHeadStages,
    RecurrentStages,
    Stages,
    stages,
)

if TYPE_CHECKING:
    from attnc.teaching import puzzles
    from attnc.teaching.checker import check

__all__ = [
    "DecoderStages",
    "MultiHeadStages",
    "RecurrentStages",
    "Stages",
    "check",
    "puzzles",
    "stages",
]


def __getattr__(name):
    # What `stages` does not need is imported when it is first used.
    import importlib

    if name == "puzzles":
        return importlib.import_module("attnc.teaching.puzzles")
    if name == "check":
        return importlib.import_module("attnc.teaching.checker").check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
