"""attnc: attention mechanisms on NumPy arrays, forward and backward, in C.

Functions: `dot_product_attention`, `multiplicative_attention`, `additive_attention`,
`cosine_attention`, `attend`, `hard_attention`, `merge_attention`, `monotonic_alignment`,
`chunkwise_attention`, `rotary`; the scores alone: `dot_product_scores`, `multiplicative_scores`,
`additive_scores`, `cosine_scores`; their gradients: `vjp`; derivatives in one direction, first and
second: `jvp`, `hvp`. Layers: `attnc.layers`. Training:
`attnc.losses`, `attnc.estimators`, `attnc.optim`, `attnc.schedules`, `attnc.data`; `save` and
`load` keep a model, `summary` lists its parameters. For teaching: `attnc.teaching`,
pictures in `attnc.plot` and `attnc.show`, the formulas in plain NumPy in `attnc.reference`.
"""

try:
    from attnc import _core  # noqa: F401
except ImportError as error:
    import pathlib

    here = pathlib.Path(__file__).parent
    if any(here.glob("_core.*.so")) or any(here.glob("_core.*.pyd")):
        raise
    # Python looks into the folder that it is started in first, and finds the sources there even
    # where attnc is installed.
    raise ImportError(
        f"attnc: the sources in {here.parent} are not built: start Python in another folder to use "
        "an installed attnc, or build them here with: pip install --editable ."
    ) from error

from typing import TYPE_CHECKING

from attnc import functional, gradients, layers, losses, registry
from attnc.functional.alibi import alibi_slopes
from attnc.functional.attention import *  # noqa: F403
from attnc.functional.chunkwise import chunkwise_attention
from attnc.functional.hard import *  # noqa: F403
from attnc.functional.monotonic import monotonic_alignment
from attnc.functional.rotary import rotary
from attnc.functional.scores import *  # noqa: F403
from attnc.gradients import vjp
from attnc.layers import *  # noqa: F403
from attnc.threads import get_num_threads, set_num_threads

if TYPE_CHECKING:
    from attnc import data, estimators, optim, plot, reference, schedules, show, teaching
    from attnc.checking import check_gradients
    from attnc.counting import summary
    from attnc.directions import hvp, jvp
    from attnc.saving import load, save
    from attnc.teaching.stages import stages

# What most programs do not need is imported when it is first used: {name: the module it is in}.
_LATER = {
    "check_gradients": "attnc.checking",
    "data": "attnc",
    "estimators": "attnc",
    "hvp": "attnc.directions",
    "jvp": "attnc.directions",
    "load": "attnc.saving",
    "optim": "attnc",
    "plot": "attnc",
    "reference": "attnc",
    "save": "attnc.saving",
    "schedules": "attnc",
    "show": "attnc",
    "stages": "attnc.teaching.stages",
    "summary": "attnc.counting",
    "teaching": "attnc",
}

__version__ = "0.1.0"

__all__ = [
    *functional.attention.__all__,
    *functional.hard.__all__,
    *functional.scores.__all__,
    *layers.__all__,
    "alibi_slopes",
    "check_gradients",
    "chunkwise_attention",
    "data",
    "estimators",
    "functional",
    "get_num_threads",
    "gradients",
    "hvp",
    "jvp",
    "layers",
    "load",
    "losses",
    "monotonic_alignment",
    "optim",
    "plot",
    "reference",
    "registry",
    "rotary",
    "save",
    "schedules",
    "set_num_threads",
    "show",
    "stages",
    "summary",
    "teaching",
    "vjp",
]


def __getattr__(name):
    # Python calls this only where there is no such name yet.
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    where = _LATER[name]
    if where == __name__:  # a module of this package
        return importlib.import_module(f"{where}.{name}")
    value = globals()[name] = getattr(importlib.import_module(where), name)
    return value


def __dir__():  # completion offers what is public
    return [*__all__, "__version__", "__doc__", "__file__", "__name__", "__path__"]
