"""Modules of PyTorch around the layers of `attnc`: one mechanism for all of them.

`LayerModule` is a `torch.nn.Module` whose Parameters are the layer's own arrays: both see every
change of the other. A call runs the layer's ``_vjp``, and PyTorch's backward pass its pullback,
whose gradients of parameters go to PyTorch instead of the layer. ``attnc.torch.nn.GRU(...)`` is
short for ``LayerModule(attnc.GRU(...))``, and so with every layer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from attnc import layers
from attnc.gradients import vjp
from attnc.layers.base import Layer, caught_gradients
from attnc.layers.named import place
from attnc.torch.arrays import array_of
from attnc.torch.calls import limited

__all__ = ["LayerModule"]

_DTYPES: dict[Any, Any] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}


# ---- between tensors and arrays ------------------------------------------------------------------


def _array(where: str, name: str, tensor: torch.Tensor) -> Any:
    """The numbers of a tensor where they lie; those of bfloat16, which NumPy lacks, as float32.

    The layers compute in their own dtype whatever they get.
    """
    return array_of(where, name, tensor.float() if tensor.dtype is torch.bfloat16 else tensor)


class _Place(int):
    """The index of the tensor that was here."""


def _without(x: Any, kind: Any, found: list[Any]) -> Any:
    """x with places where things of this kind are, which are added to `found`."""
    if isinstance(x, kind):
        found.append(x)
        return _Place(len(found) - 1)
    if isinstance(x, (tuple, list)):
        return _rebuilt(x, [_without(item, kind, found) for item in x])
    if type(x) is dict:
        return {name: _without(item, kind, found) for name, item in x.items()}
    return x


def _with(x: Any, things: Any) -> Any:
    """What `_without` took apart, with these things in the places."""
    if isinstance(x, _Place):
        return things[x]
    if isinstance(x, (tuple, list)):
        return _rebuilt(x, [_with(item, things) for item in x])
    if type(x) is dict:
        return {name: _with(item, things) for name, item in x.items()}
    return x


def _rebuilt(x: Any, items: list[Any]) -> Any:
    """A sequence of the kind of x."""
    if type(x) in (tuple, list):
        return type(x)(items)
    return type(x)._make(items) if hasattr(x, "_make") else tuple(items)


def _places(x: Any) -> list[_Place]:
    """All places in a structure, in order."""
    if isinstance(x, _Place):
        return [x]
    if isinstance(x, dict):
        x = list(x.values())
    return [p for item in x for p in _places(item)] if isinstance(x, (tuple, list)) else []


def _owned(array: Any, others: list[Any]) -> torch.Tensor:
    """An array as a tensor on the same memory, or on a copy where that is the memory of others.

    What PyTorch changes in place afterwards must then be nobody else's.
    """
    array = np.asarray(array)
    strides = array.strides
    if (
        not array.flags.writeable
        or any(step < 0 for step in strides)
        or any(np.may_share_memory(array, other) for other in others)
    ):
        array = array.copy()
    others.append(array)
    return torch.from_numpy(array)


# ---- parameters ----------------------------------------------------------------------------------


class _Group(torch.nn.Module):
    """The Parameters of a layer within a layer, so that their names have dots."""

    def __getitem__(self, index: int) -> Any:
        """Those of a layer in a list."""
        return self._modules[str(index)]


class _Slot:
    """A Parameter: the module that holds it, its name there, and where layers have its array.

    `sites` are (layer, name there, whether it is transposed there); `pointer` is where the array
    of the layers lies, 0 if it has to be set.
    """

    def __init__(self, holder: torch.nn.Module, name: str) -> None:
        self.holder, self.name = holder, name
        self.sites: list[tuple[Layer, str, bool]] = []
        self.pointer = 0

    def __getstate__(self) -> dict[str, Any]:  # a copy has arrays of its own, which lie elsewhere
        return {**vars(self), "pointer": 0}

    @property
    def tensor(self) -> Any:
        """The Parameter, or what stands in its place: parametrised, or of functional_call."""
        found = self.holder._parameters.get(self.name)
        return getattr(self.holder, self.name) if found is None else found

    def set(self, array: Any) -> None:
        """Let the layers have this array, and gradients of its dtype."""
        for layer, name, transposed in self.sites:
            own = array.T if transposed else array
            layer._parameters[name] = own
            if layer._gradients[name].dtype != array.dtype:
                layer._gradients[name] = np.zeros_like(own)

    def freeze(self, frozen: bool) -> None:
        """Let the layers compute its gradient or not."""
        for layer, name, _ in self.sites:
            layer._frozen[name].value = frozen

    def gradient(self, found: Mapping[tuple[int, str], Any]) -> torch.Tensor:
        """The sum of what pullbacks added at all of its sites; zeros where they added nothing."""
        total = None
        for layer, name, transposed in self.sites:
            d = found.get((id(layer), name))
            if d is not None:
                d = d.T if transposed else d
                total = d if total is None else total + d
        if total is None:
            layer, name, transposed = self.sites[0]
            array = layer._parameters[name]
            total = np.zeros_like(array.T if transposed else array)
        return torch.from_numpy(total)


class LayerModule(torch.nn.Module):
    """A layer of `attnc` as a module of PyTorch.

    A call takes the arguments of the layer's, with tensors for arrays, and returns what the layer
    returns, with tensors for arrays. It computes in the dtype of the Parameters, float32 or
    float64, whatever the inputs are, under autocast too; outputs have that dtype, gradients those
    of their inputs. `train` is the module's ``training`` unless given, and where a layer draws
    random numbers they come from PyTorch's generator: `torch.manual_seed` repeats them, and so does
    `torch.utils.checkpoint`. `rng` may also be a `torch.Generator`.

    The Parameters have the layer's names and share the memory of its arrays, so that the methods of
    ``module.layer`` (``step``, ``generate``, a cache...) go with what PyTorch trains. They are the
    masters: after ``load_state_dict(assign=True)``, ``double()`` or an assignment to one of them
    the layer follows. One with ``requires_grad=False`` is frozen: its gradient is not computed. A
    parameter that the layer has under several names is one Parameter; a name that it has transposed
    is in the `state_dict` alone. Gradients go to ``Parameter.grad``, not to ``layer.gradients``.

    Gradients have no gradients here: a second backward pass raises. The functions of `attnc.torch`
    have them. Under `torch.compile` a call is not compiled but left to Python: it breaks the graph,
    so that ``fullgraph=True`` raises.

    Parameters
    ----------
    layer : attnc.Layer
        Of this package or of one's own.

    Raises
    ------
    TypeError
        If it is no layer.
    ValueError
        If parameters overlap in part.

    Examples
    --------
    >>> import attnc, torch
    >>> encoder = attnc.torch.nn.GRU(4, 8, bidirectional=True)
    >>> outputs, state = encoder(torch.ones(2, 5, 4), lengths=[5, 3])
    >>> outputs.sum().backward()
    >>> outputs.shape, encoder.cells[0].input_weight.grad.shape
    (torch.Size([2, 5, 16]), torch.Size([4, 24]))
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        if not isinstance(layer, Layer):
            raise TypeError(f"LayerModule: layer must be a layer of attnc, got {layer!r}")
        self._layer = layer
        self._slots: list[_Slot] = []
        self._mirrors: dict[str, str] = {}  # names of transposed parameters: the names of others
        self._register(layer)

    def _register(self, layer: Layer) -> None:
        """Make Parameters on the memory of the layer's arrays."""
        by_place: dict[Any, list[tuple[str, Layer, str]]] = {}
        for name, (owner, own) in layer._owners().items():
            by_place.setdefault(place(owner._parameters[own]), []).append((name, owner, own))
        for sites in by_place.values():
            arrays = {name: owner._parameters[own] for name, owner, own in sites}
            first = next((a for a in arrays.values() if a.flags.c_contiguous), None)
            first = next(iter(arrays.values())) if first is None else first
            turned = [name for name, a in arrays.items() if a.strides != first.strides]
            parameter = torch.nn.Parameter(torch.from_numpy(first))
            parameter.requires_grad_(not sites[0][1]._frozen[sites[0][2]].value)
            straight = [name for name in arrays if name not in turned]
            for name in straight:
                holder, last = self._holder(name)
                holder.register_parameter(last, parameter)
            slot = _Slot(*self._holder(straight[0]))
            slot.sites = [(owner, own, name in turned) for name, owner, own in sites]
            slot.sites = list(dict.fromkeys(slot.sites))  # a layer may be in two places
            slot.pointer = parameter.data_ptr()
            self._slots.append(slot)
            self._mirrors.update(dict.fromkeys(turned, straight[0]))

    def _holder(self, name: str) -> tuple[torch.nn.Module, str]:
        """The module that holds the Parameter of this dotted name, and its name there."""
        *path, last = name.split(".")
        holder: torch.nn.Module = self
        for part in path:
            # Not by add_module, which refuses names of attributes: `layer`, in `Residual`.
            holder = holder._modules.setdefault(part, _Group())
        return holder, last

    @property
    def layer(self) -> Any:
        """attnc.Layer: the layer, with the Parameters as they are now."""
        self._bind([slot.tensor for slot in self._slots])
        return self._layer

    def _bind(self, tensors: Any, learned: Any = None) -> None:
        """Let the layer have the numbers of these tensors, and know which of them are learned."""
        learned = [t.requires_grad for t in tensors] if learned is None else learned
        moved = False
        for slot, tensor, wanted in zip(self._slots, tensors, learned, strict=True):
            layer, name, _ = slot.sites[0]
            if layer._frozen[name].value is wanted:
                slot.freeze(not wanted)
            moved = moved or slot.pointer != tensor.data_ptr()
        if moved:
            self._rebind(tensors)

    def _rebind(self, tensors: Any) -> None:
        where = type(self._layer).__name__
        dtypes = {tensor.dtype for tensor in tensors}
        if len(dtypes) > 1 or not dtypes <= set(_DTYPES):
            found = ", ".join(sorted(map(str, dtypes)))
            raise TypeError(
                f"{where}: parameters must all be float32 or all float64, got {found} (inputs may "
                "be narrower)"
            )
        arrays = [
            _array(where, slot.name, tensor)
            for slot, tensor in zip(self._slots, tensors, strict=True)
        ]
        for slot, array in zip(self._slots, arrays, strict=True):
            layer, name, transposed = slot.sites[0]
            shape = layer._parameters[name].shape[:: -1 if transposed else 1]
            if array.shape != shape:
                raise ValueError(f"{where}: {slot.name} must have shape {shape}, got {array.shape}")
        for slot, tensor, array in zip(self._slots, tensors, arrays, strict=True):
            whole = array.flags.c_contiguous  # as the layers expect; a copy is made at every call
            slot.set(array if whole else np.ascontiguousarray(array))
            slot.pointer = tensor.data_ptr() if whole else -1
        for dtype in dtypes:
            for _, layer in self._layer._walk():
                layer.dtype = _DTYPES[dtype]

    # ---- Calls -----------------------------------------------------------------------------------

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the layer returns, with tensors for arrays.

        It is not compiled under `torch.compile`, where it breaks the graph.

        Parameters
        ----------
        *inputs, **options
            As the layer takes them, with tensors for arrays.

        Returns
        -------
        Tensor, or a named tuple of them
            As the layer's.

        Raises
        ------
        TypeError, ValueError
            As the layer does, naming the argument; if a tensor is not on the CPU.
        """
        if torch.compiler.is_compiling():
            return _uncompiled(self, inputs, options)
        return self._call(inputs, options)

    def _call(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        names, taken = _signature(type(self._layer))
        if "train" in taken:
            options.setdefault("train", self.training)
        if "rng" in taken:
            rng = options.get("rng")
            draws = options.get("sampling") or options.get("train") and _draws(self._layer, options)
            if isinstance(rng, torch.Generator) or rng is None and draws:
                options["rng"] = _key(rng)
        tensors: list[torch.Tensor] = []
        structure = _without((inputs, options), torch.Tensor, tensors)
        parameters = [slot.tensor for slot in self._slots]
        _require_plain(type(self._layer).__name__, [*parameters, *tensors])
        call = _Call(self, structure, len(parameters))
        if torch.is_grad_enabled() and any(t.requires_grad for t in (*parameters, *tensors)):
            found = _Apply.apply(call, *parameters, *tensors)
        else:
            found = call.run(parameters, tensors, None)
        return _with(call.output, found)

    # ---- What PyTorch does with modules ----------------------------------------------------------

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        for slot in self._slots[:1]:
            probe = fn(torch.zeros(1, dtype=slot.tensor.dtype))
            if probe.device.type != "cpu" or probe.dtype not in _DTYPES:
                raise TypeError(
                    f"{type(self._layer).__name__}: parameters must stay on the CPU, in float32 or "
                    f"float64, got {probe.dtype} on {probe.device}"
                )
        super()._apply(fn, recurse)
        self._bind([slot.tensor for slot in self._slots])
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for mirror, name in self._mirrors.items():
            holder, last = self._holder(name)
            tensor = getattr(holder, last)
            destination[prefix + mirror] = (tensor if keep_vars else tensor.detach()).t()

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool,
        missing_keys: Any, unexpected_keys: Any, error_msgs: Any,
    ) -> None:  # fmt: skip
        for key, value in state_dict.items():
            if key.startswith(prefix) and isinstance(value, np.ndarray):  # of a layer
                state_dict[key] = torch.from_numpy(np.ascontiguousarray(value))
        for mirror, name in self._mirrors.items():
            value, other = state_dict.pop(prefix + mirror, None), state_dict.get(prefix + name)
            if value is None:
                if strict:
                    missing_keys.append(prefix + mirror)
            elif other is None or not torch.equal(value.t().to(other), other):
                error_msgs.append(
                    f"{type(self._layer).__name__}: {mirror} must be {name} transposed, as they "
                    "are one parameter, got different values"
                )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def __repr__(self) -> str:
        return repr(self._layer)


def _signature(kind: type[Layer]) -> tuple[tuple[str, ...], frozenset[str]]:
    """The names of the layer's inputs in their order, and of all that it takes."""
    if kind not in _SIGNATURES:
        parameters = list(inspect.signature(kind._vjp).parameters.values())[1:]
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        _SIGNATURES[kind] = tuple(positional), frozenset(p.name for p in parameters)
    return _SIGNATURES[kind]


_SIGNATURES: dict[type[Layer], tuple[tuple[str, ...], frozenset[str]]] = {}


def _require_plain(where: str, tensors: list[torch.Tensor]) -> None:
    """Refuse what would take a module for a constant, or lose a tangent."""
    what = None
    if torch.jit.is_tracing():
        what = "torch.jit.trace"
    elif torch._C._are_functorch_transforms_active():
        what = "the transforms of torch.func"
    elif forward_ad._current_level >= 0:
        if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
            what = "forward mode"
    if what is not None:
        raise NotImplementedError(
            f"{where}: {what} must not meet a module of attnc.torch.nn; the functions of "
            "attnc.torch, and modules of PyTorch's after attnc.torch.replace, go with it"
        )


def _draws(layer: Layer, options: dict[str, Any]) -> bool:
    """Whether a layer may draw random numbers in training; what is not attnc's always may."""
    for _, part in layer._walk():
        kind, own = type(part), vars(part)
        if "rng" not in _signature(kind)[1]:
            continue
        if not kind.__module__.startswith("attnc."):
            return True
        if isinstance(part, layers.HardAttention):
            if options.get("index") is None:
                return True
        elif isinstance(part, layers.AttentionDecoder):
            if part.alignment != "soft" and part.energy_noise != 0:
                return True
        elif own.get("dropout") or own.get("rate") or own.get("noise"):
            return True
    return False


def _key(generator: torch.Generator | None) -> int:
    """A seed of PyTorch's generator."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def _uncompiled(module: LayerModule, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A call that the compiler leaves to Python."""
    return torch.compiler.disable(module._call)(inputs, options)


# What `torch.compiler.disable` writes on a function: here it is not called before it is needed, for
# it imports the compiler, which takes seconds.
_uncompiled._torchdynamo_disable = True  # type: ignore[attr-defined]


# ---- one call and its way back -------------------------------------------------------------------


class _Call:
    """A call of a layer: its arguments but the tensors, and what its output looks like."""

    def __init__(self, module: LayerModule, arguments: Any, count: int) -> None:
        self.module, self.arguments, self.count = module, arguments, count
        self.where = type(module._layer).__name__
        self.output: Any = None

    def run(self, parameters: Any, tensors: Any, keep: Any) -> list[torch.Tensor]:
        """The outputs that are arrays, as tensors; `keep` gets the pullback, if there is one."""
        layer = self.module._layer
        self.module._bind(parameters)
        arrays = [_array(self.where, self.name_of(k)[0], x) for k, x in enumerate(tensors)]
        inputs, options = _with(self.arguments, arrays)
        if keep is None:
            output = limited(layer, inputs, options)
        else:
            output, keep.pullback = limited(vjp, (layer, *inputs), options)
        found: list[Any] = []
        self.output = _without(output, (np.ndarray, float, np.floating), found)
        dtype: Any = layer.dtype
        numbers = [np.asarray(x, dtype) if isinstance(x, float) else np.asarray(x) for x in found]
        return [_owned(array, arrays) for array in numbers]

    def gradients(self, pullback: Any, incoming: list[Any], shapes: list[Any]) -> Any:
        """What the pullback returns, from the gradients of the outputs or None."""

        def part(structure: Any) -> Any:
            """The gradient of a part of the output; None if there is none."""
            places = _places(structure)
            if all(incoming[p] is None for p in places):
                return None
            given = [
                np.zeros(shapes[p]) if d is None and p in places else d
                for p, d in enumerate(incoming)
            ]
            return _with(structure, given)

        if isinstance(self.output, _Place):
            return pullback(part(self.output))
        if hasattr(self.output, "_fields"):
            named = zip(self.output._fields, map(part, self.output), strict=True)
            return pullback(**{f"d{name}": d for name, d in named if d is not None})
        return pullback(*map(part, self.output))

    def name_of(self, k: int) -> tuple[str, Any]:
        """The argument that tensor k is, or is in, and the structure of that argument."""
        inputs, options = self.arguments
        names, _ = _signature(type(self.module._layer))
        every = {**dict(zip(names, inputs, strict=False)), **options}
        return next((name, x) for name, x in every.items() if k in _places(x))


class _Apply(torch.autograd.Function):
    """A call of a layer, with the way back."""

    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: torch.Tensor) -> Any:
        """The outputs. What the pullback needs goes with a tensor that PyTorch saves and frees."""
        keep: Any = torch.empty(0)
        parameters, inputs = tensors[: call.count], tensors[call.count :]
        outputs = call.run(parameters, inputs, keep)
        ctx.call, ctx.shapes = call, [tuple(y.shape) for y in outputs]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(y for y in outputs if not y.is_floating_point()))
        # The pullback refers to the memory of all of these: PyTorch then sees changes in place.
        ctx.save_for_backward(keep, *tensors, *(y for y in outputs if y.is_floating_point()))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *incoming: torch.Tensor | None) -> Any:
        keep, *saved = ctx.saved_tensors
        call, needed = ctx.call, ctx.needs_input_grad[1:]
        tensors = saved[: len(needed)]
        nothing = (None,) * (1 + len(needed))
        if all(d is None for d in incoming):
            return nothing
        found = _pulled(call, keep, tensors, needed, incoming, ctx.shapes)
        if torch.is_grad_enabled():  # a graph of the gradients is asked for
            wanted = [d for d in found if d is not None]
            given = [d for d in incoming if d is not None]
            once = iter(_Once.apply(call.where, len(wanted), *wanted, *given, *tensors))
            found = [None if d is None else next(once) for d in found]
        return (None, *found)


def _pulled(
    call: _Call, keep: Any, tensors: Any, needed: Any, incoming: Any, shapes: Any
) -> list[torch.Tensor | None]:
    """The gradients of the tensors of a call, None where none is needed."""
    parameters, inputs = tensors[: call.count], tensors[call.count :]
    module, where = call.module, call.where
    with torch.no_grad():
        if not hasattr(keep, "pullback"):  # a copy of what was saved: hooks, checkpoints
            call.run(parameters, inputs, keep)
        module._bind(parameters, needed[: call.count])
        arrays = [None if d is None else _array(where, "gradient", d) for d in incoming]
        with caught_gradients() as caught:
            gradients = limited(call.gradients, (keep.pullback, arrays, shapes), {})
        others = [array for array in arrays if array is not None]
        found: list[torch.Tensor | None] = [
            slot.gradient(caught) if wanted else None
            for slot, wanted in zip(module._slots, needed, strict=False)
        ]
        for k, (tensor, wanted) in enumerate(zip(inputs, needed[call.count :], strict=True)):
            if not wanted:
                found.append(None)
                continue
            name, structure = call.name_of(k)
            gradient = vars(gradients).get(name)
            if gradient is None:
                raise TypeError(
                    f"{where}: {name} must not require a gradient, got a tensor that does; it has "
                    "none (tensor.detach())"
                )
            found.append(_owned(_at(structure, gradient, k), others).to(tensor.dtype))
    return found


def _at(structure: Any, gradient: Any, k: int) -> Any:
    """The gradient of tensor k in an argument, from that of the argument."""
    if isinstance(structure, _Place):
        return gradient
    return next(_at(x, d, k) for x, d in zip(structure, gradient, strict=True) if k in _places(x))


class _Once(torch.autograd.Function):
    """Gradients as they are; their own gradients are refused by name."""

    @staticmethod
    def forward(ctx: Any, where: str, count: int, *tensors: Any) -> Any:
        ctx.where = where
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *incoming: Any) -> Any:
        raise NotImplementedError(
            f"{ctx.where}: its gradients have no gradients in PyTorch (functions of attnc.torch "
            "have them)"
        )


# ---- a module for every layer --------------------------------------------------------------------


class _Made(LayerModule):
    """What the modules of single layers share: a constructor that makes the layer."""

    _kind: type[Layer]

    def __init__(self, *args: Any, **options: Any) -> None:
        taken = inspect.signature(self._kind).parameters
        if "rng" in taken and options.get("rng") is None:
            options["rng"] = _key(None)
        if "dtype" in taken:
            dtype = options.get("dtype", torch.get_default_dtype())
            options["dtype"] = _DTYPES.get(dtype, dtype)
        super().__init__(self._kind(*args, **options))


_DOC = """

It is a module of PyTorch, a `LayerModule`, which says how it is called; the examples here show the
layer. Initial weights come from PyTorch's generator unless `rng` is given, and dtype, also one of
PyTorch's, is `torch.get_default_dtype()` unless given.

"""


def _module_of(name: str, kind: type[Layer]) -> type[_Made]:
    summary, blank, rest = (inspect.getdoc(kind) or "").partition("\n\n")  # "" under python -OO
    contents = {
        "__doc__": summary + _DOC + rest if blank else None,
        "__module__": __name__,
        "__signature__": inspect.signature(kind),
        "_kind": kind,
    }
    return type(name, (_Made,), contents)


for _name in layers.__all__:
    _layer = getattr(layers, _name)
    if isinstance(_layer, type) and issubclass(_layer, Layer) and _layer is not Layer:
        globals()[_name] = _module_of(_name, _layer)
        __all__.append(_name)


def __getattr__(name: str) -> Any:
    # For checkers of types: the modules of single layers are made above.
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
