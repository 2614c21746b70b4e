"""Tensors as arrays and arrays as tensors, in the same memory.

A tensor that attnc cannot read where it is, on another device or in another layout, is refused by
name: a copy would cost more than the call, and nobody would see it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__all__ = ["array_of", "require_dense", "shared_tensor_of", "tensor_of"]


def array_of(where: str, name: str, tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor as an array, in its memory.

    Parameters
    ----------
    where, name : str
        What the error text begins with: ``<where>: <name> must ...``.
    tensor : Tensor
        Its gradient is none of this function's business.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If the tensor is on another device than the CPU, sparse, nested or quantised; if it is of
        bfloat16 and ml_dtypes is not installed.
    NotImplementedError
        If PyTorch has batched it in its older way, without torch.func.
    """
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):  # many are good nevertheless, and this costs others nothing
        return _other_array(where, name, tensor)


def _other_array(where: str, name: str, tensor: torch.Tensor) -> np.ndarray:
    """The array of a tensor that PyTorch does not make one of by itself."""
    if torch._C._functorch.is_legacy_batchedtensor(tensor):
        raise NotImplementedError(
            f"{where}: is_grads_batched=True and vectorize=True of torch.autograd are not there; "
            "torch.func has vmap, jacrev, jacfwd and hessian for the same"
        )
    require_dense(where, name, tensor)
    if tensor.device.type != "cpu":
        fix = "" if tensor.device.type == "meta" else f"; pass {name}.cpu()"
        raise TypeError(
            f"{where}: {name} must be on the CPU, where attnc computes, got device "
            f"{tensor.device}{fix}"
        )
    if tensor.is_quantized:
        raise TypeError(
            f"{where}: {name} must not be quantised, got {tensor.dtype}; {name}.dequantize() is "
            "float32"
        )
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.dtype is torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(_bfloat16(where, name))
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{where}: {name} must have a dtype that NumPy knows, or bfloat16, got {tensor.dtype}"
        ) from error


def require_dense(where: str, name: str, tensor: torch.Tensor) -> None:
    """Refuse sparse and nested tensors.

    Parameters
    ----------
    where, name : str
        What the error text begins with.
    tensor : Tensor

    Raises
    ------
    TypeError
        If it is one.
    """
    if tensor.is_nested:
        raise TypeError(
            f"{where}: {name} must be a dense tensor, got a nested one; {name}.to_padded_tensor(0) "
            "is one, and lengths say what is padding"
        )
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise TypeError(
            f"{where}: {name} must be a dense tensor, got layout {layout}; {name}.to_dense() is one"
        )


def _bfloat16(where: str, name: str) -> Any:
    try:
        import ml_dtypes  # here, because only bfloat16 needs it
    except ImportError as error:
        raise TypeError(
            f"{where}: {name} must have another dtype than bfloat16 where ml_dtypes is not "
            f"installed: pip install ml_dtypes, or pass {name}.float()"
        ) from error
    return ml_dtypes.bfloat16


def tensor_of(array: Any) -> torch.Tensor:
    """An array that attnc made, as a tensor in its memory.

    Parameters
    ----------
    array : ndarray or NumPy number

    Returns
    -------
    Tensor
    """
    try:
        return torch.from_numpy(array)
    except (TypeError, ValueError):
        return _other_tensor(np.asarray(array))


def _other_tensor(array: np.ndarray) -> torch.Tensor:
    """The tensor of a number, or of an array of a dtype that PyTorch knows under another name."""
    if array.dtype.name == "bfloat16":
        return _bfloat16_tensor(array)
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def _bfloat16_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)


def shared_tensor_of(array: Any) -> torch.Tensor | None:
    """A tensor in the memory of an array, or None where there can be none.

    Parameters
    ----------
    array : object
        What a forward pass saved.

    Returns
    -------
    Tensor or None
        None for what is no array, may not be written to or has negative strides.
    """
    if type(array) is not np.ndarray or not array.flags.writeable:
        return None
    try:
        return torch.from_numpy(array)
    except TypeError:
        return _bfloat16_tensor(array) if array.dtype.name == "bfloat16" else None
    except ValueError:
        return None
