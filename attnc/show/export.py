"""`bertviz`: weights in the shape that BertViz takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from attnc import _arguments as arguments
from attnc.arrays import flag, integer

__all__ = ["bertviz"]


def bertviz(weights: Any, *, sequence: int = 0, torch: bool = False) -> list[Any]:
    """Weights of all layers in the shape that BertViz takes.

    Parameters
    ----------
    weights : array_like, sequence of array_like, or a result with ``weights``
        What a model, a layer or a function of attnc returns with ``return_weights=True``, or a
        model's weights of shape ``(B, layers, H, Tq, Tk)``; those of one sequence,
        ``(layers, H, Tq, Tk)``; of one layer, ``(H, Tq, Tk)``; or a list over layers of
        ``(H, Tq, Tk)``, ``(1, H, Tq, Tk)`` or ``(B, H, Tq, Tk)``.
    sequence : int
        Which of B sequences.
    torch : bool
        Return tensors of PyTorch, as ``bertviz.head_view`` and ``bertviz.model_view`` take them.

    Returns
    -------
    list of ndarray or torch.Tensor, shape (1, H, Tq, Tk)
        One a layer: copies, float32, C-contiguous.

    Raises
    ------
    ImportError
        If `torch` is asked for and PyTorch is not installed.
    TypeError
        If weights are not real, or masked arrays.
    ValueError
        If a shape does not fit, layers differ, there are none, `sequence` is out of range, or a
        result has weights of several kinds: pass one of them.

    Notes
    -----
    BertViz (Vig 2019, "A multiscale visualization of attention in the transformer model") shows
    them in a notebook that may run scripts and reach a network:
    ``head_view(bertviz(weights, torch=True), tokens)``, for attention to a source
    ``head_view(cross_attention=..., encoder_tokens=..., decoder_tokens=...)``, with
    ``encoder_attention`` and ``decoder_attention`` if they are to be seen.

    Examples
    --------
    >>> encoder = attnc.TransformerEncoder(3, 8, 2, 16, rng=0)
    >>> result = encoder(np.ones((2, 5, 8)), return_weights=True)
    >>> [layer.shape for layer in bertviz(result, sequence=1)]
    [(1, 2, 5, 5), (1, 2, 5, 5), (1, 2, 5, 5)]
    """
    where = "bertviz"
    torch = flag(where, "torch", torch)
    sequence = integer(where, "sequence", sequence, least=0)
    layers = _layers(where, _of_result(where, weights), sequence)
    first = layers[0].shape
    for n, layer in enumerate(layers):
        if layer.shape != first:
            raise ValueError(
                f"{where}: weights must have one shape in all layers, got {first} in layer 0 and "
                f"{layer.shape} in layer {n}"
            )
    with np.errstate(all="ignore"):  # rounding is meant
        arrays = [np.array(layer[None], np.float32, order="C") for layer in layers]
    if not torch:
        return arrays
    try:
        import torch as pytorch
    except ImportError as error:
        raise ImportError(f"{where}: torch=True needs PyTorch: pip install attnc[torch]") from error
    return [pytorch.from_numpy(array) for array in arrays]


def _of_result(where: str, weights: Any) -> Any:
    """The weights in what a model returned; or what was given."""
    fields = getattr(weights, "_fields", ())
    if not fields:
        return weights
    named = [name for name in fields if name.endswith("weights")]
    there = [name for name in named if getattr(weights, name) is not None]
    if not there:
        raise ValueError(
            f"{where}: weights must be there, got a result without (return_weights=True)"
        )
    if len(there) > 1:
        fix = ", ".join(f"result.{name}" for name in there)
        raise ValueError(f"{where}: weights must be of one kind, got a result with {fix}")
    found = getattr(weights, there[0])
    # What has a context is one layer, whose first of four axes is the batch; so is what has a
    # state, a decoder of one head.
    if "state" in fields:
        return [found[:, None]]
    return [found] if "context" in fields else found


def _layers(where: str, weights: Any, sequence: int) -> list[Any]:
    """A list over layers of (H, Tq, Tk)."""
    if isinstance(weights, (list, tuple)) and all(np.ndim(layer) >= 3 for layer in weights):
        if not weights:
            raise ValueError(f"{where}: weights must have at least one layer, got none")
        return [
            _of_sequence(where, f"weights[{n}]", layer, sequence) for n, layer in enumerate(weights)
        ]
    shapes = ["(B, layers, H, Tq, Tk)", "(layers, H, Tq, Tk)", "(H, Tq, Tk)"]
    array = arguments.shaped(where, "weights", weights, shapes)
    if array.ndim == 5:
        array = array[_index(where, "weights", sequence, len(array))]
    elif sequence:
        raise ValueError(f"{where}: sequence must be 0 for weights of one, got {sequence}")
    return [array] if array.ndim == 3 else list(array)


def _of_sequence(where: str, name: str, layer: Any, sequence: int) -> Any:
    """One layer's weights of one sequence."""
    array = arguments.shaped(where, name, layer, ["(B, H, Tq, Tk)", "(H, Tq, Tk)"])
    if array.ndim == 3:
        if sequence:
            raise ValueError(f"{where}: sequence must be 0 for weights of one, got {sequence}")
        return array
    return array[_index(where, name, sequence, len(array))]


def _index(where: str, name: str, sequence: int, count: int) -> int:
    if sequence >= count:
        raise ValueError(f"{where}: sequence must lie in 0..{count - 1} for {name}, got {sequence}")
    return sequence
