"""AttentionPooling: a sequence as one vector, by attention whose query is learned."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np

from .. import functional
from ..arrays import generator, like, probability, quiet
from ..functional.attention import WeightsResult
from ..gradients import Gradients, require_incoming, vjp
from ..typing import Array, Bools, DType, Integers, Real, Seed
from .attention import for_function
from .base import Layer, glorot, positive


class AttentionPooling(Layer):
    """A sequence as one vector: the mean of its steps, weighted by attention.

    ::

        u_t = tanh(x_t W + b)      a = softmax(u . u_w)      s = sum_t a_t x_t

    Yang et al. (2016), "Hierarchical attention networks for document classification", eq. 5-7: the
    softmax is over the steps t, and u_w a learned vector that asks which steps are informative. It
    is additive attention with a query that is the same for every sequence.

    Parameters
    ----------
    input_size : int
        Size of a step of x, and of what comes out.
    hidden_size : int, optional
        Size of u; input_size unless given.
    dropout : float
        Probability, in 0 <= dropout < 1, of dropping a weight when called with ``train=True``.
    rng : None, int or numpy.random.Generator
        Initial parameters, uniform after Glorot and Bengio (2010); b starts at zero.
    dtype : float32 or float64
        Of the parameters; the input is cast to it.

    Attributes
    ----------
    parameters : dict
        ``weight (input_size, hidden_size)``, ``bias (hidden_size,)`` and ``query (hidden_size,)``,
        which is u_w.

    Raises
    ------
    ValueError
        If a size is not a positive integer or dropout is out of range.
    TypeError
        If dtype is neither float32 nor float64, or another argument of a wrong kind.

    See Also
    --------
    HierarchicalAttention : words to sentences to a document

    Examples
    --------
    >>> import numpy as np, attnc
    >>> pooling = attnc.AttentionPooling(input_size=4, rng=0)
    >>> x = np.arange(24.0).reshape(2, 3, 4)  # 2 sequences of 3 and 1 steps
    >>> vector, pullback = attnc.vjp(pooling, x, key_lengths=[3, 1])
    >>> vector.shape, (vector[1] == x[1, 0]).all()
    ((2, 4), np.True_)
    >>> (dx,) = pullback(np.ones_like(vector))  # and adds into pooling.gradients
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        *,
        dropout: float = 0.0,
        rng: Seed = None,
        dtype: DType = "float32",
    ) -> None:
        super().__init__(dtype)
        hidden_size = input_size if hidden_size is None else hidden_size
        input_size, hidden_size = positive(self, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.dropout = probability(type(self).__name__, "dropout", dropout)
        rng = generator(type(self).__name__, rng)
        self.add_parameter("weight", glorot(rng, input_size, hidden_size))
        self.add_parameter("bias", np.zeros(hidden_size))
        self.add_parameter("query", glorot(rng, hidden_size, 1)[:, 0])

    @overload
    def __call__(
        self,
        x: Real,
        *,
        key_mask: Bools | None = ...,
        key_lengths: Integers | None = ...,
        return_weights: Literal[False] = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Array: ...
    @overload
    def __call__(
        self,
        x: Real,
        *,
        key_mask: Bools | None = ...,
        key_lengths: Integers | None = ...,
        return_weights: bool = ...,
        train: bool = ...,
        rng: Seed = ...,
    ) -> Any: ...
    def __call__(
        self,
        x: Real,
        *,
        key_mask: Bools | None = None,
        key_lengths: Integers | None = None,
        return_weights: bool = False,
        train: bool = False,
        rng: Seed = None,
    ) -> Any:
        """Pool: compute, and remember nothing.

        Parameters
        ----------
        x : array_like, shape (..., T, input_size)
        key_mask : array_like of bool, shape (..., T), optional
            True for the steps that count. The others are not read.
        key_lengths : int or array_like of int, shape (...), optional
            Valid steps of each sequence; with a mask both hold. A sequence without one is 0.
        return_weights : bool
            Return a named tuple (context, weights) with the weights a, (..., T).
        train : bool
            Whether to apply the layer's dropout to the weights.
        rng : None, int or numpy.random.Generator
            For the dropout.

        Returns
        -------
        ndarray, shape (..., input_size), or a named tuple

        Raises
        ------
        TypeError, ValueError
            If an array has a wrong type or shape, naming it.
        """
        return self._vjp(
            x,
            key_mask=key_mask,
            key_lengths=key_lengths,
            return_weights=return_weights,
            train=train,
            rng=rng,
        )[0]

    @quiet
    def _vjp(self, x, *, train=False, rng=None, return_weights=False, **masks):
        where, given, own = type(self).__name__, x, self._parameters
        for name in masks:
            if name not in ("key_mask", "key_lengths"):
                raise self._error(f"there is no argument {name!r}", TypeError)
        x = self._real("x", x, ..., "T", self.input_size)
        options = for_function(self, train, rng, {**masks, "return_weights": return_weights})
        # The one query is b, so that q + x_t W is what the tanh takes.
        query = own["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
        attention: Any = functional.additive_attention
        output, back = vjp(
            attention, query, x, x, own["query"], key_weight=own["weight"], **options
        )
        context, weights = output if isinstance(output, tuple) else (output, None)
        shape = context.shape

        @quiet
        def pullback(dcontext=None, *, dweights=None):
            require_incoming(where, dcontext=dcontext, dweights=dweights)
            if dcontext is not None:
                dcontext = self._real("dcontext", dcontext, *shape[:-2], shape[-1]).reshape(shape)
            if dweights is not None:
                if weights is None:
                    raise self._error("dweights must be None without return_weights, got some")
                steps = weights.shape[-1]
                dweights = self._real("dweights", dweights, *shape[:-2], steps)
                dweights = dweights.reshape(weights.shape)
            d = back(dcontext, dweights=dweights)
            self.add_gradient("weight", d.key_weight)
            self.add_gradient("bias", d.query.reshape(-1))
            self.add_gradient("query", d.score_vector)
            return Gradients({"x": like(d.key + d.value, given)})

        context = context.reshape(*shape[:-2], shape[-1])
        if weights is None:
            return context, pullback
        return WeightsResult(context, weights.reshape(*shape[:-2], weights.shape[-1])), pullback
