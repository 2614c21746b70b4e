"""The private module in C: what attnc.functional, attnc.arrays and attnc.threads call.

An attention function takes its own arrays, by position in the order of its signature or by name,
and the options that all of them share by name; `rng` is the key of the dropout itself. What it is
given is checked and converted (csrc/python/args.c, options.c), so real arrays may be of any kind
that `numpy.asarray` takes. ``<function>`` returns the context, or a tuple of what was asked for;
``<function>_saving`` always the tuple (context, weights, lse, saved), None where not asked for.
``<function>_backward`` takes the gradients of the outputs (None: zero), the arrays of `saved`, and
the arguments of the forward call. It returns the gradients of the function's own arguments in their
order and those of `bias`, `slope` and `sink`, None for those not given as arrays.
``<function>_jvp`` takes a dict of tangents by the name of their array, and the arguments of the
forward call, and returns the pair (output, tangent), each as ``<function>`` returns the output.
``<function>_hvp`` takes the same dict, a tuple with the gradient of each output, one with the
tangents of these (None: zero), and the arguments of the forward call. It returns the tangents of
what ``<function>_backward`` returns.

Hard attention returns (context, index, log_probability, entropy), and with them what is saved; its
own arguments are scores, value, sample, index and the key of the draws.

The recurrent loops, the loss and the product take arrays that attnc.functional and attnc.losses
have checked and made, all of one float type; here they are only held against each other.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, Unpack

import numpy as np
import numpy.typing as npt

from attnc.functional.options import AttentionOptions, Pairs

_Real: TypeAlias = npt.ArrayLike | None
_Array: TypeAlias = npt.NDArray[Any]
_Saved: TypeAlias = tuple[_Array | None, _Array, _Array | None]
_Outputs: TypeAlias = _Array | tuple[_Array, ...]
_OutputsAndSaved: TypeAlias = tuple[_Array, _Array | None, _Array | None, _Saved]
_Gradients: TypeAlias = tuple[_Array | None, ...]
_Tangents: TypeAlias = dict[str, _Array | None]
_Incoming: TypeAlias = tuple[_Real | None, ...]

class _Forward(Protocol):
    def __call__(self, *arrays: _Real, **options: Unpack[AttentionOptions]) -> _Outputs: ...

class _Saving(Protocol):
    def __call__(self, *arrays: _Real, **options: Unpack[AttentionOptions]) -> _OutputsAndSaved: ...

class _Backward(Protocol):
    def __call__(
        self,
        dcontext: _Real,
        dweights: _Real,
        dlse: _Real,
        /,
        *arrays: _Real,
        **options: Unpack[AttentionOptions],
    ) -> _Gradients: ...

class _JVP(Protocol):
    def __call__(
        self, tangents: _Tangents, /, *arrays: _Real, **options: Unpack[AttentionOptions]
    ) -> tuple[_Outputs, _Outputs]: ...

class _HVP(Protocol):
    def __call__(
        self,
        tangents: _Tangents,
        incoming: _Incoming,
        dincoming: _Incoming,
        /,
        *arguments: Any,
        **options: Unpack[AttentionOptions],
    ) -> _Gradients: ...

class _Hard(Protocol):
    def __call__(
        self, *arguments: Any, **options: Unpack[AttentionOptions]
    ) -> tuple[_Array, _Array, _Array, _Array]: ...

class _HardSaving(Protocol):
    def __call__(
        self, *arguments: Any, **options: Unpack[AttentionOptions]
    ) -> tuple[_Array, _Array, _Array, _Array, tuple[_Array, _Array, _Array]]: ...

class _ScoresBackward(Protocol):
    def __call__(self, dscores: _Real, /, *arrays: _Real, **masks: Unpack[Pairs]) -> _Gradients: ...

class _ScoresJVP(Protocol):
    def __call__(
        self, tangents: _Tangents, /, *arrays: _Real, **masks: Unpack[Pairs]
    ) -> tuple[_Array, _Array]: ...

class _HardJVP(Protocol):
    def __call__(
        self, tangents: _Tangents, /, *arguments: Any, **options: Unpack[AttentionOptions]
    ) -> tuple[tuple[_Array, _Array, _Array, _Array], tuple[_Array, None, _Array, _Array]]: ...

class _Scores(Protocol):
    def __call__(self, *arrays: _Real, **masks: Unpack[Pairs]) -> _Array: ...

MAX_THREADS: Final[int]
BIAS_ROWS: Final[int]

# ---- attention ----

dot_product_attention: _Forward
dot_product_attention_saving: _Saving
dot_product_attention_backward: _Backward
dot_product_attention_jvp: _JVP
dot_product_attention_hvp: _HVP
multiplicative_attention: _Forward
multiplicative_attention_saving: _Saving
multiplicative_attention_backward: _Backward
multiplicative_attention_jvp: _JVP
multiplicative_attention_hvp: _HVP
additive_attention: _Forward
additive_attention_saving: _Saving
additive_attention_backward: _Backward
additive_attention_jvp: _JVP
additive_attention_hvp: _HVP
cosine_attention: _Forward
cosine_attention_saving: _Saving
cosine_attention_backward: _Backward
cosine_attention_jvp: _JVP
cosine_attention_hvp: _HVP
attend: _Forward
attend_saving: _Saving
attend_backward: _Backward
attend_jvp: _JVP
attend_hvp: _HVP
hard_attention: _Hard
hard_attention_saving: _HardSaving
hard_attention_backward: _Backward
hard_attention_jvp: _HardJVP
hard_attention_hvp: _HVP

# ---- scores alone: their functions take masks, and backward the gradient of the scores first ----

dot_product_scores: _Scores
dot_product_scores_backward: _ScoresBackward
dot_product_scores_jvp: _ScoresJVP
dot_product_scores_hvp: _HVP
multiplicative_scores: _Scores
multiplicative_scores_backward: _ScoresBackward
multiplicative_scores_jvp: _ScoresJVP
multiplicative_scores_hvp: _HVP
additive_scores: _Scores
additive_scores_backward: _ScoresBackward
additive_scores_jvp: _ScoresJVP
additive_scores_hvp: _HVP
cosine_scores: _Scores
cosine_scores_backward: _ScoresBackward
cosine_scores_jvp: _ScoresJVP
cosine_scores_hvp: _HVP

def option_defaults() -> dict[str, Any]:
    """Names and defaults of the options, in the order of their documentation."""

# ---- what an object is: where and name begin the error texts ----

def plain_array(where: str, name: str, value: object, /) -> _Array: ...
def real_array(where: str, name: str, value: object, /) -> _Array: ...
def integer_array(where: str, name: str, value: object, /) -> _Array: ...
def boolean_mask(
    where: str, name: str, value: object, shape: tuple[int, ...], axes: str, /
) -> npt.NDArray[np.bool_]: ...

# ---- products and loops ----

def empty(like: _Array, shape: tuple[int, ...], /) -> _Array: ...
def product(a: _Array, b: _Array, /) -> _Array: ...
def products(a: _Array, b: _Array, /) -> _Array: ...
def transform_keys(key: _Array, /) -> tuple[_Array, _Array, _Array]: ...
def panels(matrix: _Array, gates: int, /) -> _Array: ...
def loop(
    like: _Array,
    steps: int | _Array,
    batch: int,
    operations: tuple[tuple[Any, ...], ...],
    backward: bool,
    /,
) -> None: ...
def cross_entropy(
    logits: _Array, targets: _Array, smoothing: float, /
) -> tuple[_Array, _Array]: ...
def cross_entropy_backward(
    logits: _Array,
    targets: _Array,
    smoothing: float,
    saved: _Array,
    factor: float,
    in_place: bool,
    /,
) -> _Array: ...
def rotary(x: _Array, table: _Array, interleaved: bool, back: bool, /) -> _Array: ...

# ---- monotonic attention ----

def monotonic(
    probability: _Array, previous: _Array | None, key_mask: _Array | None, save: bool, /
) -> tuple[_Array, _Array, _Array | None, float, float]: ...
def monotonic_backward(
    dalignment: _Array | None,
    dmissing: _Array | None,
    probability: _Array,
    reach: _Array,
    key_mask: _Array | None,
    previous: bool,
    /,
) -> tuple[_Array, _Array | None]: ...
def chunkwise(
    alignment: _Array, scores: _Array, key_mask: _Array | None, width: int, /
) -> _Array: ...
def chunkwise_backward(
    alignment: _Array,
    scores: _Array,
    key_mask: _Array | None,
    width: int,
    dweights: _Array,
    /,
) -> tuple[_Array, _Array]: ...

# ---- rows and single numbers ----

def norm(
    x: _Array, weight: _Array | None, bias: _Array | None, epsilon: float, center: bool, /
) -> tuple[_Array, _Array]: ...
def norm_backward(
    dy: _Array, x: _Array, weight: _Array | None, stats: _Array, center: bool, sums: bool, /
) -> tuple[_Array, _Array | None]: ...
def activation(
    kind: str,
    x: _Array,
    up: _Array | None,
    bias: _Array | None,
    up_bias: _Array | None,
    dropout: float,
    key: int,
    /,
) -> _Array: ...
def activation_backward(
    kind: str,
    dy: _Array,
    x: _Array,
    up: _Array | None,
    dropout: float,
    key: int,
    sums: bool,
    /,
) -> tuple[_Array, _Array | None, _Array | None, _Array | None]: ...
def add_dropout(residual: _Array | None, y: _Array, dropout: float, key: int, /) -> _Array: ...
def adam(
    parameter: _Array,
    gradient: _Array,
    m: _Array,
    v: _Array,
    beta1: float,
    beta2: float,
    rate: float,
    epsilon: float,
    keep: float,
    /,
) -> None: ...
def sum_of_squares(x: _Array, /) -> float: ...

# ---- for attnc.jax (csrc/python/op_jax.c) ----

# The words of the plan, the bits of its operands, and of what backward needs.
def jax_plan(
    name: str, arrays: tuple[Any, ...], options: dict[str, Any], /
) -> tuple[bytes, int, int]: ...
def jax_callback(run: Callable[..., None], /) -> None: ...
def jax_handlers() -> dict[str, Any]: ...  # capsules
def jax_operands() -> tuple[str, ...]: ...

# ---- threads and instruction sets ----

def get_num_threads() -> int: ...
def set_num_threads(n: int, /) -> None: ...
def set_thread_limit(n: int, /) -> int: ...
def isa_names() -> tuple[str, ...]: ...
def get_isa() -> str: ...
def set_isa(name: str, /) -> None: ...

# ---- hooks of the tests ----

def map_real(name: str, x: _Array, /) -> _Array:
    """exp, expm1 or tanh of a contiguous float32 or float64 array, by the kernels."""

def fail_allocation(n: int, /) -> None:
    """Make the n-th allocation from now on fail; 0: none."""

def allocation_count() -> int:
    """How many blocks of memory the module holds."""
