"""Dot-product attention with the signature of `torch.nn.functional`, so that a line switches."""

from __future__ import annotations

import math
from typing import Any

import torch

from attnc.functional import dot_product_attention
from attnc.torch.arrays import require_dense
from attnc.torch.bridge import wrap

__all__ = ["scaled_dot_product_attention"]

_WHERE = "scaled_dot_product_attention"
_attention = wrap(dot_product_attention)


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Attention by the dot product, called as PyTorch's function of this name is.

    ``softmax(scale * query @ key.T + attn_mask) @ value``: what
    `torch.nn.functional.scaled_dot_product_attention` computes, in the kernels of `attnc`. Reverse
    mode, forward mode, second order and the transformations of `torch.func` are those of
    `attnc.torch.dot_product_attention`, which has more options.

    Parameters
    ----------
    query : Tensor, shape (..., Hq, L, E)
        Of two axes or more; leading axes broadcast with those of the others.
    key : Tensor, shape (..., H, S, E)
    value : Tensor, shape (..., H, S, Ev)
    attn_mask : Tensor, optional
        Broadcasts to ``(..., Hq, L, S)``. Of bools: True where a query may attend to a key. Of
        floats: added to the scores; it may require a gradient.
    dropout_p : float
        Probability, in 0 <= dropout_p < 1, of dropping a weight, whether in training or not. The
        choice comes from PyTorch's generator, but is not that of PyTorch's function.
    is_causal : bool
        Query i attends to keys ``j <= i``, counted from the first of each, whatever L and S are.
        Not with `attn_mask`.
    scale : float, optional
        1 / sqrt(E) unless given.
    enable_gqa : bool
        The heads of key and value, axis -3, may be fewer than those of the query, whose number
        theirs divide: query head h attends with head ``h // (Hq / H)``. Nothing is repeated in
        memory.

    Returns
    -------
    Tensor, shape (..., Hq, L, Ev)
        Of the dtype of the query. A query that may attend to nothing gets 0 and adds nothing to any
        gradient, where PyTorch gives 0 or NaN by the way it chose.

    Raises
    ------
    TypeError
        If an argument is not a tensor where it has to be one, or not on the CPU, sparse or nested.
    RuntimeError
        As PyTorch's function does: if dtypes differ, a shape does not fit, `dropout_p` is out of
        range, or `attn_mask` and `is_causal` are given both.

    Examples
    --------
    >>> import attnc.torch, torch
    >>> x = torch.ones(2, 4, 5, 8)  # two sequences, four heads, five steps
    >>> attnc.torch.scaled_dot_product_attention(x, x, x, is_causal=True).shape
    torch.Size([2, 4, 5, 8])
    """
    if torch.is_autocast_enabled("cpu"):
        query, key, value, attn_mask = _autocast(query, key, value, attn_mask)
    _check(query, key, value, attn_mask, dropout_p, is_causal)
    rank = max(query.ndim, key.ndim, value.ndim)
    query, key, value = (_of_rank(x, rank) for x in (query, key, value))
    lead = _lead(query, key, value, enable_gqa)
    groups = 1
    if enable_gqa and not query.shape[-3] == key.shape[-3] == value.shape[-3]:
        query, key, value, groups = _grouped(query, key, value)
    options: dict[str, Any] = {}
    if attn_mask is not None:
        mask = _mask(attn_mask, (*lead, query.shape[-2], key.shape[-2]), groups)
        options["mask" if mask.dtype == torch.bool else "bias"] = mask
    if is_causal:
        options |= {"causal": True, "causal_offset": 0}
    if dropout_p:
        options["dropout"] = float(dropout_p)
    context = _attention(query, key, value, scale=scale, **options)
    return context if groups == 1 else context.flatten(-4, -3)


def _error(text: str) -> RuntimeError:
    return RuntimeError(f"{_WHERE}: {text}")


def _check(query: Any, key: Any, value: Any, mask: Any, dropout_p: Any, is_causal: Any) -> None:
    """What does not depend on heads."""
    tensors = {"query": query, "key": key, "value": value}
    for name, tensor in {**tensors, "attn_mask": mask}.items():
        if not isinstance(tensor, torch.Tensor) and not (name == "attn_mask" and tensor is None):
            raise TypeError(f"{_WHERE}: {name} must be a tensor, got {type(tensor).__name__}")
    for name, tensor in tensors.items():
        require_dense(_WHERE, name, tensor)
        if tensor.ndim < 2:
            raise _error(f"{name} must have at least 2 axes, got shape {tuple(tensor.shape)}")
        if tensor.dtype != query.dtype:
            raise _error(f"{name} must have the dtype of query, {query.dtype}, got {tensor.dtype}")
    if not query.is_floating_point():
        raise _error(f"query must be of floats, got {query.dtype}")
    if key.shape[-1] != query.shape[-1]:
        raise _error(
            f"key must have the last axis of query, {query.shape[-1]}, got shape {tuple(key.shape)}"
        )
    if value.shape[-2] != key.shape[-2]:
        raise _error(
            f"value must have as many steps as key, {key.shape[-2]}, got shape {tuple(value.shape)}"
        )
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise _error(f"attn_mask must be of bool or {query.dtype}, got {mask.dtype}")
    if mask is not None and is_causal:
        raise _error(
            "attn_mask must be None with is_causal=True, got a tensor (it may exclude what comes "
            "later itself)"
        )
    if not 0 <= dropout_p < 1:
        raise _error(f"dropout_p must lie in 0 <= dropout_p < 1, got {dropout_p}")


def _autocast(*tensors: Any) -> list[Any]:
    """The tensors in the dtype of autocast, as PyTorch's function takes them there."""
    dtype = torch.get_autocast_dtype("cpu")
    return [
        x.to(dtype)
        if isinstance(x, torch.Tensor) and x.dtype in (torch.float32, torch.float16, torch.bfloat16)
        else x
        for x in tensors
    ]


def _of_rank(x: torch.Tensor, rank: int) -> torch.Tensor:
    return x if x.ndim == rank else x.reshape((1,) * (rank - x.ndim) + tuple(x.shape))


def _lead(query: Any, key: Any, value: Any, enable_gqa: bool) -> tuple[int, ...]:
    """The leading axes of the context."""
    shapes = [tuple(x.shape[:-2]) for x in (query, key, value)]
    if enable_gqa:
        if query.ndim < 3:
            raise _error(
                "query must have heads, axis -3, with enable_gqa=True, got shape "
                f"{tuple(query.shape)}"
            )
        heads = shapes[0][-1]
        for name, shape in zip(("key", "value"), shapes[1:], strict=True):
            if not shape[-1] or heads % shape[-1]:
                raise _error(
                    f"{name} must have a number of heads, axis -3, that divides the {heads} of "
                    f"query with enable_gqa=True, got {shape[-1]}"
                )
        shapes = [(*shape[:-1], heads) for shape in shapes]
    try:
        return tuple(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        raise _error(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} "
            "must have leading axes that broadcast" + ("" if enable_gqa else
            " (heads that divide those of query: enable_gqa=True)")
        ) from None  # fmt: skip


def _grouped(query: Any, key: Any, value: Any) -> tuple[Any, Any, Any, int]:
    """Query heads in groups (..., H, G, L, E) that share a head (..., H, 1, S, E) of the others."""
    counts = key.shape[-3], value.shape[-3]
    shared = math.lcm(*counts)
    if shared != counts[0] or shared != counts[1]:  # rare: heads of key and value differ
        key, value = (
            x if x.shape[-3] == shared else x.repeat_interleave(shared // x.shape[-3], -3)
            for x in (key, value)
        )
    groups = query.shape[-3] // shared
    if groups == 1:
        return query, key, value, 1
    return query.unflatten(-3, (shared, groups)), key.unsqueeze(-3), value.unsqueeze(-3), groups


def _mask(mask: Any, shape: tuple[int, ...], groups: int) -> Any:
    """The mask with all axes, of their size or 1; its heads in groups as those of the query."""
    given = tuple(mask.shape)
    full = (1,) * (len(shape) - len(given)) + given
    if len(full) != len(shape) or any(
        n not in (1, size) for n, size in zip(full, shape, strict=True)
    ):
        raise _error(f"attn_mask must broadcast to {shape}, got {given}")
    mask = _of_rank(mask, len(shape))
    if groups == 1:
        return mask
    heads = mask.shape[-3]
    return mask.unsqueeze(-3) if heads == 1 else mask.unflatten(-3, (heads // groups, groups))
