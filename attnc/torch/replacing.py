"""A model's own modules, computed by `attnc`: `replace(model)`.

A module stays the object it is; only its class becomes one of those here, each a subclass of
PyTorch's with another ``forward``. So its Parameters, their optimiser, hooks, the keys of the
state_dict and all who hold the module see no difference.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from attnc import functional
from attnc.torch.bridge import wrap

__all__ = ["Replacement", "replace"]

_attention = wrap(functional.dot_product_attention)
_RECURRENT = {  # by PyTorch's name of the mode
    "GRU": wrap(functional.gru),
    "LSTM": wrap(functional.lstm),
    "RNN_TANH": wrap(functional.rnn),
}
_TYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


class Replacement(NamedTuple):
    """What `replace` did.

    Parameters
    ----------
    replaced : tuple of str
        The names of the modules whose class was changed; '' is the model itself.
    kept : dict of str to str
        The names of modules of these kinds that were left as they are, and why.
    """

    replaced: tuple[str, ...]
    kept: dict[str, str]


def replace(model: torch.nn.Module, *, undo: bool = False) -> Replacement:
    """Let `attnc` compute the recurrent and multi-head attention modules of a model, in place.

    Every `torch.nn.GRU`, `LSTM`, `RNN` and `MultiheadAttention` within the model, and the model
    itself if it is one, gets a class of `attnc.torch.replace`, a subclass of its own. It is called
    as before and computes the same, within rounding, with the same Parameters: optimisers, hooks,
    `state_dict`, `deepcopy` and pickle go on. What the functions of `attnc` can do, the modules can
    too: second derivatives, forward mode, `torch.func`, `torch.compile`. Calling it again changes
    nothing.

    - The modules take sequences that are packed, padded or single, batch first or not, masks as
      PyTorch means them (True: not attended to; floats are added), and what it raises for wrong
      shapes they raise.
    - Random choices of dropout come from PyTorch's generator, but are others than PyTorch's. The
      weights that `MultiheadAttention` returns are those before dropout.
    - A query that may attend to nothing has context 0, where PyTorch may give NaN.
    - float16 and bfloat16 are computed in float32 and rounded once, at the end; under autocast too,
      where PyTorch's modules round within, and with the dtypes that these return.
    - On another device than the CPU, with nested tensors, tensor subclasses or complex numbers,
      a module calls PyTorch's own ``forward``. So does `MultiheadAttention` where
      `torch.nn.TransformerEncoderLayer` takes its fast path, in evaluation without gradients: it
      does not call the module, but computes with its Parameters.
    - `torch.compile` leaves recurrent modules to Python, as it does PyTorch's; ``fullgraph=True``
      takes them with ``torch._dynamo.config.allow_rnn = True``, unless sequences are packed.
    - `torch.jit.script` compiles PyTorch's classes alone: undo before.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.
    undo : bool
        Give all modules of `attnc.torch.replace` in the model PyTorch's classes back.

    Returns
    -------
    Replacement
        ``(replaced, kept)``, by the names of ``model.named_modules()``. Kept are the modules whose
        class is not PyTorch's own but a subclass, or parametrised, and what `attnc` lacks: an LSTM
        with `proj_size`, an RNN with relu, dropout 1.

    Raises
    ------
    TypeError
        If the model is no module.

    Examples
    --------
    >>> import attnc.torch, torch
    >>> model = torch.nn.Sequential(torch.nn.GRU(4, 8), torch.nn.RNN(8, 8, nonlinearity="relu"))
    >>> attnc.torch.replace(model)
    Replacement(replaced=('0',), kept={'1': "attnc has no RNN with nonlinearity='relu'"})
    >>> isinstance(model[0], torch.nn.GRU)
    True
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"replace: model must be a torch.nn.Module, got {type(model).__name__}")
    replaced, kept = [], {}
    for name, module in model.named_modules():
        if undo:
            theirs = _THEIRS.get(type(module))
            if theirs is not None:
                module.__class__ = theirs
                replaced.append(name)
        elif isinstance(module, tuple(_OURS)) and type(module) not in _THEIRS:
            why = _why_not(module)
            if why is None:
                module.__class__ = _OURS[type(module)]
                replaced.append(name)
            else:
                kept[name] = why
    return Replacement(tuple(replaced), kept)


def _why_not(module: Any) -> str | None:
    """Why a module has to stay as it is; None if it has not."""
    if type(module) not in _OURS:
        return f"{type(module).__name__} is a subclass, which may have a forward of its own"
    return _lacking(module)


def _lacking(module: Any) -> str | None:
    """What attnc has not that a module needs; None if it has all."""
    if getattr(module, "proj_size", 0):
        return f"attnc has no LSTM with proj_size={module.proj_size}"
    if getattr(module, "nonlinearity", "tanh") != "tanh":
        return f"attnc has no RNN with nonlinearity={module.nonlinearity!r}"
    if not module.dropout < 1:
        return f"attnc drops with probabilities below 1, got dropout={module.dropout}"
    return None


def _for_attnc(inputs: Any, weights: Any) -> bool:
    """Whether tensors are such that attnc takes them: the inputs, None among them, and weights."""
    inputs = [x for x in inputs if x is not None]
    tensors = [*inputs, *weights]
    dtypes = {x.dtype for x in tensors} - {torch.bool}
    return (
        all(x.device.type == "cpu" and x.layout is torch.strided for x in tensors)
        and not any(x.is_nested for x in inputs)
        and dtypes <= _TYPES
        and (len(dtypes) == 1 or torch.is_autocast_enabled("cpu"))
        and not torch.overrides.has_torch_function(tensors)
    )


# ---- recurrent modules ---------------------------------------------------------------------------


class _Recurrent:
    """The forward pass that GRU, LSTM and RNN share."""

    def forward(self: Any, input: Any, hx: Any = None) -> Any:
        """Outputs and last state, as PyTorch's module returns them.

        Parameters
        ----------
        input : Tensor or PackedSequence
        hx : Tensor, or a pair of them for the LSTM, optional

        Returns
        -------
        output : Tensor or PackedSequence
        hx : Tensor, or a pair of them

        Raises
        ------
        ValueError, RuntimeError
            As PyTorch's module does.
        """
        packed = input if isinstance(input, PackedSequence) else None
        x = input if packed is None else packed.data
        weights = [getattr(self, name) for name in self._flat_weights_names]
        several = self.mode == "LSTM"
        state = () if hx is None else tuple(hx) if several else (hx,)
        if (
            _lacking(self) is not None
            or not _for_attnc((x, *state), weights)
            or not self._fits(x, state, packed)
        ):
            return super().forward(input, hx)  # type: ignore[misc]

        lengths: Any = None
        alone = packed is None and x.ndim == 2
        batch_axis = 0 if self.batch_first else 1
        if alone:
            x, state = x.unsqueeze(batch_axis), tuple(part.unsqueeze(1) for part in state)
        if packed is not None:
            if packed.sorted_indices is not None:
                state = tuple(part.index_select(1, packed.sorted_indices) for part in state)
            in_order = PackedSequence(x, packed.batch_sizes)
            x, lengths = pad_packed_sequence(in_order, batch_first=True)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        given = None if not state else state if several else state[0]
        output, last = self._run(x, weights, given, lengths)
        states = tuple(last) if several else (last,)

        if packed is not None:
            output = pack_padded_sequence(output, lengths, batch_first=True)
            output = PackedSequence(output.data, *packed[1:])
            if packed.unsorted_indices is not None:
                states = tuple(part.index_select(1, packed.unsorted_indices) for part in states)
        elif not self.batch_first:
            output = output.transpose(0, 1).contiguous()
        if alone:
            output = output.squeeze(batch_axis)
            states = tuple(part.squeeze(1) for part in states)
        return output, states if several else states[0]

    def _fits(self: Any, x: Any, state: Any, packed: Any) -> bool:
        """Whether all shapes are right; for wrong ones PyTorch's module has the errors."""
        if x.ndim not in ((2, 3) if packed is None else (2,)) or x.shape[-1] != self.input_size:
            return False
        rows: tuple[int, ...] = (self.num_layers * (1 + self.bidirectional),)
        if packed is not None:
            rows += (int(packed.batch_sizes[0]),)
        elif x.ndim == 3:
            rows += (x.shape[0 if self.batch_first else 1],)
        parts = 0 if not state else 2 if self.mode == "LSTM" else 1
        return len(state) == parts and all(
            tuple(part.shape) == (*rows, self.hidden_size) for part in state
        )

    def _run(self: Any, x: Any, weights: Any, state: Any, lengths: Any) -> Any:
        """Outputs (B, T, H * directions) and last state of a batch (B, T, E)."""
        parameters = []
        step = 4 if self.bias else 2
        for k in range(0, len(weights), step):
            input_weight, state_weight, *biases = weights[k : k + step]
            if not biases:
                biases = [input_weight.new_zeros(len(input_weight))] * 2
            parameters += [input_weight.t(), state_weight.t(), *biases]
        options: dict[str, Any] = {"bidirectional": self.bidirectional}
        if self.training and self.dropout and self.num_layers > 1:
            options["dropout"] = self.dropout
        if lengths is not None:
            options["lengths"] = lengths
        output, last = _RECURRENT[self.mode](x, parameters, state, **options)
        if not torch.is_autocast_enabled("cpu"):
            return output, last
        # PyTorch's modules have narrow products there, and all else in the dtype of the state.
        dtype = torch.get_autocast_dtype("cpu")
        if self.mode != "RNN_TANH":
            carried = x if state is None else state[0] if self.mode == "LSTM" else state
            dtype = torch.promote_types(carried.dtype, dtype)
        several = self.mode == "LSTM"
        return output.to(dtype), tuple(h.to(dtype) for h in last) if several else last.to(dtype)


class GRU(_Recurrent, torch.nn.GRU):
    """`torch.nn.GRU`, computed by `attnc.torch.gru`; see `replace`.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.GRU`.
    """


class LSTM(_Recurrent, torch.nn.LSTM):
    """`torch.nn.LSTM`, computed by `attnc.torch.lstm`; see `replace`.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.LSTM`; with a `proj_size` it computes as PyTorch does.
    """


class RNN(_Recurrent, torch.nn.RNN):
    """`torch.nn.RNN` with tanh, computed by `attnc.torch.rnn`; see `replace`.

    Parameters
    ----------
    *args, **kwargs
        As of `torch.nn.RNN`; with another nonlinearity it computes as PyTorch does.
    """


# ---- attention -----------------------------------------------------------------------------------


class MultiheadAttention(torch.nn.MultiheadAttention):
    """`torch.nn.MultiheadAttention`, computed by `attnc.torch.dot_product_attention`.

    See `replace`. The projections are PyTorch's.

    Parameters
    ----------
    embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first
    device, dtype
        As of `torch.nn.MultiheadAttention`.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention, called as PyTorch's module is.

        Parameters
        ----------
        query : Tensor, shape (L, E), (L, N, E) or, batch first, (N, L, E)
        key, value : Tensor
            Likewise, of S steps.
        key_padding_mask : Tensor, shape (S,) or (N, S), optional
            Of bools, True: the key is not attended to; or of floats that are added.
        need_weights : bool
            Whether to return the weights, before dropout.
        attn_mask : Tensor, shape (L, S) or (N * heads, L, S), optional
            Of bools, True: not attended to; or of floats that are added.
        average_attn_weights : bool
            Whether the weights are averaged over the heads.
        is_causal : bool
            A hint that `attn_mask`, which has to be given, is causal.

        Returns
        -------
        output : Tensor
            Of the shape of the query.
        weights : Tensor or None
            ``(N, L, S)``, or with all heads ``(N, heads, L, S)``; without N for inputs without.

        Raises
        ------
        RuntimeError, AssertionError
            As PyTorch's module does.
        """
        if (
            _lacking(self) is not None
            or not _for_attnc((query, key, value, key_padding_mask, attn_mask), self._weights())
            or not self._fits(query, key, value, key_padding_mask, attn_mask)
            or is_causal
            and attn_mask is None
        ):
            return super().forward(
                query, key, value, key_padding_mask, need_weights, attn_mask,
                average_attn_weights, is_causal,
            )  # fmt: skip
        time = -2 if self.batch_first or query.ndim == 2 else 0  # its axis
        projected = [self._by_head(x, time) for x in self._projected(query, key, value, time)]
        options = self._masks(
            key_padding_mask, attn_mask, is_causal and not need_weights, projected
        )
        if self.training and self.dropout:
            options["dropout"] = self.dropout
        found = _attention(*projected, return_weights=need_weights, **options)
        context, weights = found if need_weights else (found, None)
        # (N, H, L, D) to the axes of the query
        context = context.movedim(1, -2).flatten(-2)
        context = context[0] if query.ndim == 2 else context if time else context.transpose(0, 1)
        output = linear(context, self.out_proj.weight, self.out_proj.bias)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights[0] if query.ndim == 2 else weights
        return output, weights

    def _weights(self) -> list[torch.Tensor]:
        """All Parameters, or what stands in their places."""
        names = "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"
        every = [getattr(self, name) for name in (*names, "in_proj_bias", "bias_k", "bias_v")]
        every += [self.out_proj.weight, self.out_proj.bias]
        return [weight for weight in every if weight is not None]

    def _fits(self, query: Any, key: Any, value: Any, padding: Any, mask: Any) -> bool:
        """Whether all shapes are right; for wrong ones PyTorch's module has the errors."""
        rank = query.ndim
        if rank not in (2, 3) or key.ndim != rank or value.ndim != rank:
            return False
        time = -2 if self.batch_first or rank == 2 else 0
        L, S = query.shape[time], key.shape[time]
        batch = query.shape[1 + time] if rank == 3 and time == 0 else query.shape[:-2].numel()
        sizes = self.embed_dim, self.kdim, self.vdim
        steps = L, S, S
        for x, size, n in zip((query, key, value), sizes, steps, strict=True):
            shape = (n, size) if rank == 2 else (n, batch, size) if time == 0 else (batch, n, size)
            if tuple(x.shape) != shape:
                return False
        if padding is not None and tuple(padding.shape) != ((S,) if rank == 2 else (batch, S)):
            return False
        return mask is None or tuple(mask.shape) in ((L, S), (batch * self.num_heads, L, S))

    def _projected(self, query: Any, key: Any, value: Any, time: int) -> list[torch.Tensor]:
        """The three by their weights; and steps that the module itself adds to the last two."""
        weight, bias, size = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if self._qkv_same_embed_dim and query is key and key is value:
            projected = list(linear(query, weight, bias).chunk(3, -1))
        elif self._qkv_same_embed_dim and key is value:
            weights = weight.split([size, 2 * size])
            biases = (None, None) if bias is None else bias.split([size, 2 * size])
            projected = [
                linear(query, weights[0], biases[0]),
                *linear(key, weights[1], biases[1]).chunk(2, -1),
            ]
        else:
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            if self._qkv_same_embed_dim:
                weights = weight.chunk(3)
            biases = (None,) * 3 if bias is None else bias.chunk(3)
            projected = [
                linear(x, w, b)
                for x, w, b in zip((query, key, value), weights, biases, strict=True)
            ]
        added: list[list[Any]] = [[], []]
        if self.bias_k is not None and self.bias_v is not None:
            added = [[self.bias_k.reshape(-1)], [self.bias_v.reshape(-1)]]
        if self.add_zero_attn:
            added = [[*steps, projected[1].new_zeros(size)] for steps in added]
        for k, steps in enumerate(added, start=1):
            shape = list(projected[k].shape)
            shape[time] = 1
            rows = [step.to(projected[k].dtype).expand(shape) for step in steps]
            projected[k] = torch.cat([projected[k], *rows], time) if rows else projected[k]
        return projected

    def _by_head(self, x: torch.Tensor, time: int) -> torch.Tensor:
        """(N, L, E), (L, N, E) or (L, E) as (N, H, L, D), in place."""
        x = x.unflatten(-1, (self.num_heads, self.head_dim))
        x = x.unsqueeze(0) if x.ndim == 3 else x if time else x.transpose(0, 1)
        return x.transpose(1, 2)

    def _masks(self, padding: Any, mask: Any, causal: bool, projected: Any) -> dict[str, Any]:
        """The options of attention: what is allowed, and what is added."""
        options: dict[str, Any] = {}
        if causal and padding is None:
            return {"causal": True, "causal_offset": 0}
        batch, heads, L, _ = projected[0].shape
        more = projected[1].shape[2]  # with the steps that were added, which are never masked
        biases = []
        if padding is not None:
            padding = _allowed(padding.reshape(batch, 1, 1, padding.shape[-1]), more)
            if padding.dtype is torch.bool:
                options["key_mask"] = padding.flatten(1, 2)
            else:
                biases.append(padding)
        if mask is not None:
            shape = (1, 1) if mask.ndim == 2 else (batch, heads)
            mask = _allowed(mask.reshape(*shape, L, mask.shape[-1]), more)
            if mask.dtype is torch.bool:
                options["mask"] = mask
            else:
                biases.append(mask)
        if biases:
            options["bias"] = sum(biases[1:], start=biases[0]).to(projected[0].dtype)
        return options


def _allowed(mask: torch.Tensor, size: int) -> torch.Tensor:
    """A mask of PyTorch's as attnc takes it: bools, True where allowed, or floats to be added.

    Floats become bools where they are 0 and -inf alone, as PyTorch's layers make them of bools:
    what is excluded then costs nothing. The last axis gets `size` steps.
    """
    if mask.dtype is torch.bool:
        mask = ~mask
    elif not (
        mask.requires_grad
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        excluded = mask == -math.inf
        if bool((excluded | (mask == 0)).all()):
            mask = ~excluded
    more = size - mask.shape[-1]
    return (
        torch.nn.functional.pad(mask, (0, more), value=mask.dtype is torch.bool) if more else mask
    )


_OURS: dict[type, type] = {
    torch.nn.GRU: GRU,
    torch.nn.LSTM: LSTM,
    torch.nn.RNN: RNN,
    torch.nn.MultiheadAttention: MultiheadAttention,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
