"""The private module in C: what attnc.functional and attnc.threads call.

Everything is positional, and nothing has a default. The functions check and convert what they are
given (csrc/python/args.c), so real arrays may be of any kind that `numpy.asarray` takes.

``<function>`` takes its arrays, the options that all functions share, and `save`. It returns the
context, or a tuple of what was asked for; with `save` the tuple (context, weights, lse, saved),
None where not asked for. ``<function>_backward`` takes `saved`, the gradients of the outputs (None:
zero), and the arguments of the forward call without `save`. It returns the gradients of all real
arguments, None for those not given.

The recurrent loops, the loss and the product take arrays that attnc.functional and attnc.losses
have checked and made, all of one float type; here they are only held against each other.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

_Real: TypeAlias = npt.ArrayLike
_Bools: TypeAlias = npt.NDArray[np.bool_] | None
_Integers: TypeAlias = npt.ArrayLike | None
_Window: TypeAlias = tuple[int | None, int | None] | None
_Array: TypeAlias = npt.NDArray[Any]
_Saved: TypeAlias = tuple[_Array | None, _Array, _Array | None]
_Outputs: TypeAlias = _Array | tuple[_Array | _Saved | None, ...]
_Gradients: TypeAlias = tuple[_Array | None, ...]

MAX_THREADS: Final[int]
BIAS_ROWS: Final[int]

def dot_product_attention(
    query: _Real,
    key: _Real,
    value: _Real,
    scale: _Real | None,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    save: bool,
    /,
) -> _Outputs: ...
def dot_product_attention_backward(
    saved: _Saved,
    dcontext: _Real | None,
    dweights: _Real | None,
    dlse: _Real | None,
    query: _Real,
    key: _Real,
    value: _Real,
    scale: _Real | None,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    /,
) -> _Gradients: ...
def multiplicative_attention(
    query: _Real,
    key: _Real,
    value: _Real,
    weight: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    save: bool,
    /,
) -> _Outputs: ...
def multiplicative_attention_backward(
    saved: _Saved,
    dcontext: _Real | None,
    dweights: _Real | None,
    dlse: _Real | None,
    query: _Real,
    key: _Real,
    value: _Real,
    weight: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    /,
) -> _Gradients: ...
def additive_attention(
    query: _Real,
    key: _Real,
    value: _Real,
    score_vector: _Real,
    query_weight: _Real | None,
    key_weight: _Real | None,
    score_bias: _Real | None,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    save: bool,
    /,
) -> _Outputs: ...
def additive_attention_backward(
    saved: _Saved,
    dcontext: _Real | None,
    dweights: _Real | None,
    dlse: _Real | None,
    query: _Real,
    key: _Real,
    value: _Real,
    score_vector: _Real,
    query_weight: _Real | None,
    key_weight: _Real | None,
    score_bias: _Real | None,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    /,
) -> _Gradients: ...
def cosine_attention(
    query: _Real,
    key: _Real,
    value: _Real,
    scale: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    save: bool,
    /,
) -> _Outputs: ...
def cosine_attention_backward(
    saved: _Saved,
    dcontext: _Real | None,
    dweights: _Real | None,
    dlse: _Real | None,
    query: _Real,
    key: _Real,
    value: _Real,
    scale: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    /,
) -> _Gradients: ...
def attend(
    scores: _Real,
    value: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    save: bool,
    /,
) -> _Outputs: ...
def attend_backward(
    saved: _Saved,
    dcontext: _Real | None,
    dweights: _Real | None,
    dlse: _Real | None,
    scores: _Real,
    value: _Real,
    mask: _Bools,
    key_mask: _Bools,
    key_lengths: _Integers,
    bias: _Real | None,
    causal: bool,
    causal_offset: _Integers,
    window: _Window,
    softcap: float | None,
    dropout: float,
    rng: int,
    return_weights: bool,
    return_lse: bool,
    /,
) -> _Gradients: ...

# ---- threads and instruction sets ----

def empty(like: _Array, shape: tuple[int, ...], /) -> _Array: ...
def product(a: _Array, b: _Array, /) -> _Array: ...
def key_forms(key: _Array, /) -> tuple[_Array, _Array, _Array]: ...
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
