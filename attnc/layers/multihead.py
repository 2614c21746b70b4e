"""Multi-head attention: attention several times side by side, each in a subspace of its own."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple, Unpack, overload

import numpy as np

from .. import _core, functional
from ..arrays import flag, generator, like, number, probability, quiet, sum_rows
from ..functional.attention import FullResult, LseResult, WeightsResult
from ..functional.options import LayerOptions, Masks, takes_options
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, DType, Real, Seed, Shape
from .attention import for_function
from .base import glorot, positive
from .heads import lift_options, merge_heads, split_heads
from .linear import weight_gradient
from .torch_weights import TorchArray, TorchWeights, flat, prefixed, stacked, transposed


class _Inputs(NamedTuple):
    """The arrays of a call; without a key it is the query, without a value the key."""

    query: Array
    key: Array | None
    value: Array | None


class MultiHeadAttention(TorchWeights):
    """Attention of H heads: ``sum_h softmax(scale Q_h K_h^T) V_h W_h^O``.

    ``Q_h = query W_h^Q, K_h = key W_h^K, V_h = value W_h^V``: Vaswani et al. (2017), "Attention is
    all you need", section 3.2.2. Concatenating the heads and multiplying by ``W^O``, as the paper
    writes it, is this sum. ``layer(x)`` is self-attention, ``layer(x, memory)`` cross-attention
    with the memory for keys and values, ``layer(query, key, value)`` the general case.

    Fewer heads of keys and values than of queries (`num_kv_heads`) are shared by groups of them:
    Ainslie et al. (2023), "GQA: training generalized multi-query transformer models from multi-head
    checkpoints"; one is Shazeer (2019), "Fast transformer decoding". Query head h goes with head
    ``h // (num_heads / num_kv_heads)`` of the keys.

    Parameters
    ----------
    query_size : int
        Size of a step of the query.
    num_heads : int
        How many heads.
    key_size : int, optional
        Size of a step of the key; query_size unless given.
    value_size : int, optional
        Size of a step of the value; key_size unless given.
    output_size : int, optional
        Size of a step of the output; query_size unless given.
    head_size : int, optional
        Size of queries, keys and values within a head; query_size / num_heads unless given.
    num_kv_heads : int, optional
        How many heads of keys and values, a divisor of num_heads; num_heads unless given.
    projection_bias : bool
        Whether the four projections add a bias. Default False, as in the paper.
    scale : float, optional
        Factor of the scores; 1 / sqrt(head_size) unless given.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial weights, uniform after Glorot and Bengio (2010), with the sizes of each projection
        of all heads as one matrix; biases start at zero.
    dtype : float32 or float64
        Of the parameters; the inputs are cast to it.

    Attributes
    ----------
    parameters : dict
        ``query_weight (query_size, num_heads, head_size)``, ``key_weight (key_size, num_kv_heads,
        head_size)``, ``value_weight (value_size, num_kv_heads, head_size)``, ``output_weight
        (num_heads, head_size, output_size)``: ``W_h^Q`` is ``query_weight[:, h]``. With
        `projection_bias` also ``query_bias (num_heads, head_size)``, ``key_bias`` and ``value_bias
        (num_kv_heads, head_size)``, ``output_bias (output_size,)``.

    Raises
    ------
    ValueError
        If a size is not a positive integer, num_heads does not divide query_size and no head_size
        is given, num_kv_heads does not divide num_heads, or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    Examples
    --------
    >>> import numpy as np, attnc
    >>> layer = attnc.MultiHeadAttention(query_size=16, num_heads=4, rng=0)
    >>> x = np.ones((2, 5, 16))
    >>> context, weights = layer(x, causal=True, return_weights=True)
    >>> context.shape, weights.shape
    ((2, 5, 16), (2, 4, 5, 5))
    >>> context, pullback = attnc.vjp(layer, x, np.ones((2, 7, 16)), key_lengths=[7, 3])
    >>> dx, dmemory = pullback(np.ones_like(context))  # and adds into layer.gradients
    """

    def __init__(
        self,
        query_size: int,
        num_heads: int,
        *,
        key_size: int | None = None,
        value_size: int | None = None,
        output_size: int | None = None,
        head_size: int | None = None,
        num_kv_heads: int | None = None,
        projection_bias: bool = False,
        scale: float | None = None,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        where = type(self).__name__
        query_size, num_heads = positive(self, query_size=query_size, num_heads=num_heads)
        if head_size is None and query_size % num_heads:
            raise self._error(
                f"num_heads must divide query_size {query_size}, got {num_heads}; or give head_size"
            )
        key_size = query_size if key_size is None else key_size
        self.query_size, self.num_heads = query_size, num_heads
        self.key_size, self.value_size, self.output_size, self.head_size, self.num_kv_heads = (
            positive(
                self,
                key_size=key_size,
                value_size=key_size if value_size is None else value_size,
                output_size=query_size if output_size is None else output_size,
                head_size=query_size // num_heads if head_size is None else head_size,
                num_kv_heads=num_heads if num_kv_heads is None else num_kv_heads,
            )
        )
        if num_heads % self.num_kv_heads:
            raise self._error(
                f"num_kv_heads must divide num_heads {num_heads}, got {self.num_kv_heads}"
            )
        self.projection_bias = flag(where, "projection_bias", projection_bias)
        if scale is not None:
            scale = number(where, "scale", scale, "be None or a finite number", math.isfinite)
        self.scale = scale
        self.dropout = probability(where, "dropout", dropout)

        rng, D = generator(where, rng), self.head_size
        maps = {
            "query": (query_size, num_heads),
            "key": (self.key_size, self.num_kv_heads),
            "value": (self.value_size, self.num_kv_heads),
        }
        for name, (size, heads) in maps.items():
            self.add_parameter(f"{name}_weight", glorot(rng, size, heads * D).reshape(-1, heads, D))
        output = glorot(rng, num_heads * D, self.output_size)
        self.add_parameter("output_weight", output.reshape(num_heads, D, -1))
        if self.projection_bias:
            for name, (_, heads) in maps.items():
                self.add_parameter(f"{name}_bias", np.zeros((heads, D)))
            self.add_parameter("output_bias", np.zeros(self.output_size))

    @property
    def _heads(self) -> tuple[Shape, Shape]:
        """The axes of heads in the arrays of attention: of queries, and of keys and values."""
        shared = self.num_heads // self.num_kv_heads
        if shared == 1:
            return (self.num_heads,), (self.num_heads,)
        return (self.num_kv_heads, shared), (self.num_kv_heads, 1)

    @overload
    def __call__(
        self,
        query: Real,
        key: Real | None = ...,
        value: Real | None = ...,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[Masks],
    ) -> Array: ...
    @overload
    def __call__(
        self,
        query: Real,
        key: Real | None = ...,
        value: Real | None = ...,
        *,
        train: bool = ...,
        rng: Seed = ...,
        **options: Unpack[LayerOptions],
    ) -> Any: ...
    @partial(takes_options, without=("dropout",))
    def __call__(
        self,
        query: Real,
        key: Real | None = None,
        value: Real | None = None,
        *,
        train: bool = False,
        rng: Seed = None,
        **options: Unpack[LayerOptions],
    ) -> Any:
        """Attend: compute, and remember nothing.

        Parameters
        ----------
        query : array_like, shape (..., Tq, query_size)
        key : array_like, shape (..., Tk, key_size), optional
            The query itself unless given: self-attention.
        value : array_like, shape (..., Tk, value_size), optional
            The key itself unless given.
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.
        mask, key_mask, key_lengths, bias, causal, causal_offset, window, softcap
            As in `attnc.functional`; a mask is boolean and True where attending is allowed. Those
            that are arrays have the axes of the layer's inputs, such as ``(B, Tq, Tk)``, or one
            more for heads, ``(B, H, Tq, Tk)``.
        return_weights, return_lse : bool
            Return a named tuple (context, weights, lse) of what was asked for, weights ``(..., H,
            Tq, Tk)`` and lse ``(..., H, Tq)`` of each head.

        Returns
        -------
        ndarray, shape (..., Tq, output_size), or a named tuple

        Raises
        ------
        TypeError, ValueError
            As `attnc.dot_product_attention` does, naming the argument and the fix.
        """
        return self._vjp(query, key, value, train=train, rng=rng, **options)[0]

    @quiet
    def _vjp(self, query, key=None, value=None, *, train=False, rng=None, **options):
        given = {"query": query, "key": key, "value": value}
        inputs = self._inputs(query, key, value)
        outputs, back = self._attend(inputs, train, rng, options)
        shapes = [None if output is None else output.shape for output in outputs]

        @quiet
        def pullback(dcontext=None, *, dweights=None, dlse=None):
            incoming = {"dcontext": dcontext, "dweights": dweights, "dlse": dlse}
            require_incoming(type(self).__name__, **incoming)
            for (name, gradient), shape in zip(incoming.items(), shapes, strict=True):
                if gradient is not None:
                    if shape is None:
                        raise self._error(
                            f"{name} must be None without return_{name[1:]}, got a gradient"
                        )
                    incoming[name] = self._real(name, gradient, *shape)
            found = back(**incoming)
            required = {
                name: like(gradient, given[name])
                for name, gradient in zip(_Inputs._fields, found, strict=False)
            }
            optional = {
                name: like(gradient, options[name])
                for name, gradient in vars(found).items()
                if name not in required
            }
            return Gradients(required, optional)

        return _named(*outputs), pullback

    def _forward(self, query, key=None, value=None, *, train=False, rng=None, **options):
        """(context, weights or None), and the way back, which adds the gradients of parameters.

        For layers made with this one, which have checked the arrays: they are as `_real` returns
        them. ``back(dcontext, dweights=None)`` returns `Gradients` of the arrays that were given,
        and of options by name.
        """
        (context, weights, _), back = self._attend(_Inputs(query, key, value), train, rng, options)
        return context, weights, back

    def _inputs(self, query, key, value):
        """The three arrays, checked."""
        query = self._real("query", query, ..., "Tq", self.query_size)
        if key is None:
            if value is not None:
                raise self._error("key must be given with value, got None", TypeError)
            for name, size in (("key", self.key_size), ("value", self.value_size)):
                if size != self.query_size:
                    raise self._error(
                        f"{name} must be given, as {name}_size {size} is not query_size "
                        f"{self.query_size}, got None"
                    )
            return _Inputs(query, None, None)
        key = self._real("key", key, ..., "Tk", self.key_size)
        if value is not None:
            value = self._real("value", value, ..., "Tk", self.value_size)
        elif self.value_size != self.key_size:
            raise self._error(
                f"value must be given, as value_size {self.value_size} is not key_size "
                f"{self.key_size}, got None"
            )
        self._check_lead(query, key, key if value is None else value)
        return _Inputs(query, key, value)

    def _check_lead(self, query, key, value):
        """Leading axes are equal or 1, and there is a value for every key."""
        for name, array in (("key", key), ("value", value)):
            pairs = zip(query.shape[:-2], array.shape[:-2], strict=False)
            if array.ndim != query.ndim or any(m != n and 1 not in (m, n) for m, n in pairs):
                raise self._error(
                    f"{name} must have the leading axes of query {query.shape}, each equal or 1, "
                    f"got {array.shape}"
                )
        if value.shape[-2] != key.shape[-2]:
            raise self._error(
                f"value must have as many steps as key {key.shape}, got {value.shape}"
            )

    def _attend(self, inputs, train, rng, options):
        """(context, weights, lse), None where not asked for, and the way back."""
        query, key, value = inputs
        options = for_function(self, train, rng, options)
        given = {name: getattr(option, "shape", ()) for name, option in options.items()}
        of_queries, of_keys = self._heads
        keys = query if key is None else key
        values = keys if value is None else value
        lead = np.broadcast_shapes(*(x.shape[:-2] for x in (query, keys, values)))
        options = lift_options(
            type(self).__name__, options, lead, query.shape[-2], keys.shape[-2], of_queries
        )
        q, query_back = self._project("query", query, of_queries)
        k, key_back = self._project("key", keys, of_keys)
        v, value_back = self._project("value", values, of_keys)
        attention: Any = functional.dot_product_attention
        output, attention_back = vjp(attention, q, k, v, scale=self.scale, **options)
        context, output_back = self._output(output[0] if isinstance(output, tuple) else output)
        weights, lse = getattr(output, "weights", None), getattr(output, "lse", None)
        by_head = (*lead, self.num_heads)
        if weights is not None:
            weights = weights.reshape(*by_head, *weights.shape[-2:])
        if lse is not None:
            lse = lse.reshape(*by_head, lse.shape[-1])

        def back(dcontext=None, dweights=None, dlse=None):
            found = attention_back(
                None if dcontext is None else output_back(dcontext),
                dweights=None if dweights is None else dweights.reshape(output.weights.shape),
                dlse=None if dlse is None else dlse.reshape(output.lse.shape),
            )
            dquery, dkey, dvalue = query_back(found[0]), key_back(found[1]), value_back(found[2])
            if value is None:
                dkey += dvalue
            if key is None:
                dquery += dkey
            required = {"query": dquery}
            if key is not None:
                required["key"] = dkey
            if value is not None:
                required["value"] = dvalue
            # An option that has a gradient was only given axes (`lift_options`).
            optional = {
                name: gradient.reshape(given[name])
                for name, gradient in vars(found).items()
                if name in options
            }
            return Gradients(required, optional)

        return (context, weights, lse), back

    def _project(self, name, x, heads):
        """x W + b by head, (..., T, E) to (..., *heads, T, D), and the way back to dx."""
        y, back = self._affine(name, x.reshape(-1, x.shape[-1]), 1)
        y = split_heads(y.reshape(*x.shape[:-1], y.shape[-1]), heads)
        return y, lambda d: back(merge_heads(d, heads)).reshape(x.shape)

    def _output(self, context):
        """sum_h context_h W_h^O + b, (..., *heads, T, D) to (..., T, Eo), and the way back."""
        heads, _ = self._heads
        rows = merge_heads(context, heads)
        y, back = self._affine("output", rows.reshape(-1, rows.shape[-1]), 2)

        def back_to_context(dy):
            return split_heads(back(dy).reshape(rows.shape), heads)

        return y.reshape(*rows.shape[:-1], self.output_size), back_to_context

    def _affine(self, name, x, inputs):
        """Rows x times the weight, whose first `inputs` axes are those of x; and the way back."""
        weight = self._parameters[f"{name}_weight"]
        matrix = weight.reshape(math.prod(weight.shape[:inputs]), -1)
        y = _core.product(x, matrix)
        if self.projection_bias:
            y += self._parameters[f"{name}_bias"].reshape(-1)

        def back(dy):
            dy = dy.reshape(y.shape)
            if not self._frozen[f"{name}_weight"].value:
                found = weight_gradient(x, dy)
                self.add_gradient(f"{name}_weight", found.reshape(weight.shape))
            if self.projection_bias:
                bias = self._parameters[f"{name}_bias"]
                self.add_gradient(f"{name}_bias", sum_rows(dy).reshape(bias.shape))
            return _core.product(dy, matrix.T)

        return y, back

    def _torch_arrays(self) -> dict[str, TorchArray]:
        """Those of `torch.nn.MultiheadAttention`, which has one weight for three equal sizes."""
        size = self.query_size
        for name, got, wanted in (
            ("output_size", self.output_size, size),
            ("num_heads * head_size", self.num_heads * self.head_size, size),
            ("num_kv_heads", self.num_kv_heads, self.num_heads),
            ("scale", self.scale, None),
        ):
            if got != wanted:
                raise self._error(
                    f"{name} must be {wanted}, as in torch.nn.MultiheadAttention, got {got}"
                )
        three = "query", "key", "value"
        weights = [transposed(self._parameters[f"{name}_weight"]) for name in three]
        arrays = {}
        if self.key_size == self.value_size == size:
            arrays["in_proj_weight"] = stacked(weights)
        else:
            names = [f"{name[0]}_proj_weight" for name in three]
            arrays.update(zip(names, weights, strict=True))
        output = {"weight": transposed(self._parameters["output_weight"], 2)}
        if self.projection_bias:
            biases = [flat(self._parameters[f"{name}_bias"]) for name in three]
            arrays["in_proj_bias"] = stacked(biases)
            output["bias"] = flat(self._parameters["output_bias"])
        return arrays | prefixed("out_proj", output)


def _named(context, weights, lse):
    """The outputs as the functions return them."""
    if weights is None:
        return context if lse is None else LseResult(context, lse)
    return WeightsResult(context, weights) if lse is None else FullResult(context, weights, lse)
