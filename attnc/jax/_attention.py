"""Calls that run without Python: attention functions, by plans for the handlers in C.

While JAX traces, `attnc._core` reads the call as it reads any other, on arrays of its shapes, and
so raises what it always raises; what it has read becomes a plan, a vector of integers that is part
of the program. `csrc/jax/plan.h` says what is in it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attnc import _core
from attnc.registry import Record

__all__ = ["Attention", "is_attention", "with_all_axes"]

OPERANDS: tuple[str, ...] = _core.jax_operands()
"""What may be an array of a plan, in its order."""

# Bits of what is returned and saved, as in plan.h.
CONTEXT, WEIGHTS, LSE, STATS, SAVED_SCORES, SCORES = (1 << k for k in range(6))
_BIT_OF = {"context": CONTEXT, "weights": WEIGHTS, "lse": LSE, "scores": SCORES}

_LENGTHS = ("key_lengths", "query_lengths", "causal_offset")
_NUMBERS = ("slope", "sink", "center")
# Those that the kernels read in halves. Others are float32 before they come there.
_HALVES = ("query", "key", "value", "scores", "bias")


def is_attention(record: Record) -> bool:
    """Whether a function is one of those in C, and not one of the user's of that name.

    Parameters
    ----------
    record : Record

    Returns
    -------
    bool
    """
    return record.function in _functions()


@functools.cache
def _functions() -> frozenset[Any]:
    from attnc.functional import attention, scores

    names = [name for name in scores.__all__ if name.endswith("_scores")]
    return frozenset([*attention.MECHANISMS, *(getattr(scores, name) for name in names)])


def with_all_axes(names: list[str], operands: list[Any]) -> list[Any]:
    """The operands, of which one number for all gets as many axes as the call has.

    Parameters
    ----------
    names : list of str
        The arguments that they are.
    operands : list of jax.Array

    Returns
    -------
    list of jax.Array
    """
    first = next((x for x, name in zip(operands, names, strict=True) if name != "rng"), None)
    lead = 0 if first is None else max(first.ndim - 2, 0)
    wanted = dict.fromkeys((*_LENGTHS, *_NUMBERS), lead) | {"center": lead + 1}
    return [
        jnp.reshape(x, (1,) * wanted[name]) if x.ndim == 0 and name in wanted else x
        for x, name in zip(operands, names, strict=True)
    ]


class Attention:
    """A call of an attention function as the handlers in C take it.

    Parameters
    ----------
    call : Call
    """

    def __init__(self, call: Any) -> None:
        self.call = call
        order = [slot.name for slot in call.operands]
        # A key is an operand of the plan where something is dropped.
        given = {name: k for k, name in enumerate(order) if name != "rng" or self._drops}
        self.order = tuple(given[name] for name in OPERANDS if name in given)
        self.names = tuple(name for name in OPERANDS if name in given)

    @property
    def _drops(self) -> bool:
        return any(slot.name == "dropout" and slot.value for slot in self.call.slots)

    # ---- the plan ----

    @functools.cached_property
    def _planned(self) -> tuple[np.ndarray, int]:
        call = self.call
        drops = self._drops
        if drops and not call.draws:
            raise TypeError(
                f"{call.record.name}: rng must be given with dropout, a key of JAX, "
                "jax.random.key(0), or an integer in 0..2**64-1, got None"
            )
        args, options = call.filled([self._stand_in(k) for k in range(len(call.operands))])
        options.pop("rng", None)
        if drops:
            options["rng"] = 0
        words, _, saves = _core.jax_plan(call.record.name, tuple(args), options)
        return np.frombuffer(words, np.int64), saves

    def _stand_in(self, k: int) -> Any:
        """An array of the operand's shape, of which C reads no number but offsets."""
        slot, array = self.call.operands[k], self.call.arrays[k]
        shape, name = array.shape, slot.name
        if name in ("query_offsets", "key_offsets"):
            stand_in = np.zeros(shape, array.dtype)
            if len(shape) == 1 and shape[0] > 0:
                axis = -2  # of time, in query and key
                of = "query" if name == "query_offsets" else "key"
                along = next(
                    (
                        x.shape[axis]
                        for s, x in zip(self.call.operands, self.call.arrays, strict=True)
                        if s.name == of and len(x.shape) >= 2
                    ),
                    0,
                )
                stand_in[-1] = along
            return stand_in
        dtype = array.dtype
        if slot.role == "real" and dtype.itemsize < 4 and name not in _HALVES:
            dtype = np.dtype(np.float32)
        # One row serves for all: the last axis has to be contiguous, or C would make a copy.
        return np.broadcast_to(np.zeros(shape[-1:], dtype), shape)

    @property
    def plan(self) -> np.ndarray:
        """ndarray of int64: the plan."""
        return self._planned[0]

    def check(self) -> None:
        """Refuse arguments that do not fit.

        Raises
        ------
        TypeError, ValueError
            As the function itself says it.
        """
        _ = self._planned

    # ---- what is saved ----

    @property
    def context_is_kept(self) -> bool:
        """bool: whether backward takes the context that forward returns.

        In halves it is not what was computed, which is then saved beside it.
        """
        return bool(self._planned[1] & CONTEXT) and self.call.outputs[0].dtype.itemsize >= 4

    @property
    def _saved_bits(self) -> int:
        saves = self._planned[1]
        return saves & ~CONTEXT if self.context_is_kept else saves

    @functools.cached_property
    def saved(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """tuple of jax.ShapeDtypeStruct: what forward leaves beside its outputs."""
        bits = self._saved_bits
        if not bits:
            return ()
        context = self.call.outputs[0]
        computed = np.result_type(np.float32, context.dtype)
        rows, keys = context.shape[:-1], self._count_of_keys()
        shapes = {CONTEXT: context.shape, STATS: (*rows, 2), SAVED_SCORES: (*rows, keys)}
        return tuple(
            jax.ShapeDtypeStruct(shape, computed) for bit, shape in shapes.items() if bits & bit
        )

    def _count_of_keys(self) -> int:
        (value,) = (
            x
            for slot, x in zip(self.call.operands, self.call.arrays, strict=True)
            if slot.name == "value"
        )
        return value.shape[-2]

    # ---- running ----

    def forward(self, call_in_c: Any, operands: Any, save: bool) -> list[Any]:
        """The outputs, and what is saved.

        Parameters
        ----------
        call_in_c : callable
            ``call_in_c(target, results, arguments, **attributes)``.
        operands : sequence of jax.Array
        save : bool

        Returns
        -------
        list of jax.Array
        """
        results = [*self.call.outputs, *(self.saved if save else ())]
        return call_in_c(
            "attnc_attention_forward",
            results,
            self._arguments(operands),
            plan=self.plan,
            save=np.int64(self._saved_bits if save else 0),
        )

    def backward(
        self,
        call_in_c: Any,
        operands: Any,
        incoming: dict[int, Any],
        kept: Any,
        wanted: tuple[int, ...],
    ) -> list[Any]:
        """The gradients of the operands `wanted`.

        Parameters
        ----------
        call_in_c : callable
        operands : sequence of jax.Array
        incoming : dict
            Gradients by the number of the output.
        kept : sequence of jax.Array
            What forward left: its context, if `context_is_kept`, and what was saved.
        wanted : tuple of int

        Returns
        -------
        list of jax.Array
        """
        found = call_in_c(
            "attnc_attention_backward",
            [self._computed(k) for k in self.order if k in wanted],
            [*self._arguments(operands), *(incoming[k] for k in sorted(incoming)), *kept],
            plan=self.plan,
            save=np.int64(self._planned[1]),
            incoming=self._bits_of_outputs(incoming),
            wanted=self._bits_of_operands(wanted),
        )
        return self._in_order_of(wanted, found)

    def jvp(self, call_in_c: Any, operands: Any, tangents: dict[int, Any]) -> list[Any]:
        """The tangents of the outputs.

        Parameters
        ----------
        call_in_c : callable
        operands : sequence of jax.Array
        tangents : dict
            By the number of the operand, at least one; the others are 0.

        Returns
        -------
        list of jax.Array
        """
        found: list[Any] = call_in_c(
            "attnc_attention_jvp",
            self.call.outputs,
            [*self._arguments(operands), *self._tangents(tangents)],
            plan=self.plan,
            moving=self._bits_of_operands(tangents),
        )
        return found

    def backward_jvp(
        self,
        call_in_c: Any,
        operands: Any,
        incoming: dict[int, Any],
        tangents: dict[int, Any],
        dincoming: dict[int, Any],
        wanted: tuple[int, ...],
    ) -> list[Any]:
        """The tangents of the gradients of the operands `wanted`.

        Parameters
        ----------
        call_in_c : callable
        operands : sequence of jax.Array
        incoming, dincoming : dict
            Gradients of outputs, at least one, and their tangents, by the number of the output.
        tangents : dict
            By the number of the operand; the others are 0.
        wanted : tuple of int

        Returns
        -------
        list of jax.Array
        """
        found = call_in_c(
            "attnc_attention_hvp",
            [self._computed(k) for k in self.order if k in wanted],
            [
                *self._arguments(operands),
                *(incoming[k] for k in sorted(incoming)),
                *self._tangents(tangents),
                *(dincoming[k] for k in sorted(dincoming)),
            ],
            plan=self.plan,
            incoming=self._bits_of_outputs(incoming),
            moving=self._bits_of_operands(tangents),
            dincoming=self._bits_of_outputs(dincoming),
            wanted=self._bits_of_operands(wanted),
        )
        return self._in_order_of(wanted, found)

    def _bits_of_outputs(self, numbers: Any) -> np.int64:
        return np.int64(sum(_BIT_OF[self.call.output_names[k]] for k in numbers))

    def _bits_of_operands(self, numbers: Any) -> np.int64:
        names = [self.call.operands[k].name for k in numbers]
        return np.int64(sum(1 << OPERANDS.index(name) for name in names))

    def _in_order_of(self, wanted: tuple[int, ...], found: list[Any]) -> list[Any]:
        """Gradients, which come in the order of the plan, in this one and as JAX wants them."""
        by_number = dict(zip([k for k in self.order if k in wanted], found, strict=True))
        return [by_number[k].astype(self.call.arrays[k].dtype) for k in wanted]

    def _computed(self, k: int) -> jax.ShapeDtypeStruct:
        """An operand, or its gradient, as C has it."""
        array, name = self.call.arrays[k], self.call.operands[k].name
        dtype = array.dtype
        if name in _NUMBERS:  # whatever their dtype, gradients are as computed
            first = next(self.call.arrays[i].dtype for i in self.call.real)
            dtype = np.result_type(np.float32, first)
        elif name not in _HALVES:
            dtype = np.result_type(np.float32, dtype)
        return jax.ShapeDtypeStruct(array.shape, dtype)

    def _arguments(self, operands: Any) -> list[Any]:
        return [self._as_read(k, operands[k]) for k in self.order]

    def _tangents(self, tangents: dict[int, Any]) -> list[Any]:
        return [self._as_read(k, tangents[k]) for k in self.order if k in tangents]

    def _as_read(self, k: int, operand: Any) -> Any:
        slot = self.call.operands[k]
        if slot.role == "real" and operand.dtype.itemsize < 4 and slot.name not in _HALVES:
            return operand.astype(jnp.float32)
        return operand
