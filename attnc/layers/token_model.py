"""What models over tokens share: checks of tokens and labels, the output layer, and the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import integer_array, integer_lengths, number, quiet
from ..gradients import Gradients, require_incoming, vjp
from ..losses import linear_cross_entropy
from ..typing import Array
from .base import Layer
from .compose import Dropout
from .embedding import check_tokens
from .linear import Linear


class TokenModel(Layer):
    """Base of the models from tokens to scores of tokens.

    A subclass has `output`, the layer that scores; `tied`, whether its weight is the transposed
    table of an embedding; and `padding_index`, a token or None.
    """

    output: Linear
    tied: bool
    padding_index: int | None
    dropout: float

    # ---- What is given ---------------------------------------------------------------------------

    def _tokens(self, name: str, tokens: Any) -> Array:
        """Tokens (B, T) as an array of integers."""
        axes = "(B, Ts)" if name == "source" else "(B, T)"
        tokens = integer_array(type(self).__name__, name, tokens)
        if tokens.ndim != 2:
            fix = f" (one sequence is {name}[None])" if tokens.ndim == 1 else ""
            raise self._error(f"{name} must have shape {axes}, got {tokens.shape}{fix}")
        return tokens

    def _known_tokens(
        self, name: str, tokens: Any, lengths_name: str, lengths: Any, vocabulary_size: int
    ) -> tuple[Array, Array | None, Array | None]:
        """Tokens to be read, their lengths, and the mask (B, T) of what is attended to.

        Tokens of the vocabulary stand for padding; lengths and mask are None where all is valid.
        Without lengths, sequences end after the last token that is not padding.
        """
        where, mask = type(self).__name__, None
        tokens = self._tokens(name, tokens)
        B, T = tokens.shape
        if lengths is not None:
            lengths = integer_lengths(where, lengths_name, lengths, B, T)
            valid = np.arange(T) < lengths[:, None]
            tokens = np.where(valid, tokens, tokens.dtype.type(0))  # padding is not read
        elif self.padding_index is not None:
            valid = tokens != self.padding_index
            if not valid.all():
                lengths, mask = after_last(valid), valid
        check_tokens(where, name, tokens, vocabulary_size)
        return tokens, lengths, mask

    def _labels(self, labels: Any, name: str, tokens: Array, vocabulary_size: int) -> Array:
        """The labels of tokens, which are called `name`, checked."""
        labels = self._tokens("labels", labels)
        if labels.shape != tokens.shape:
            raise self._error(
                f"labels must have the shape of {name}, {tokens.shape}, got {labels.shape}"
            )
        check_tokens(type(self).__name__, "labels", labels[self._counted(labels)], vocabulary_size)
        return labels

    def _counted(self, labels: Array) -> Array:
        """Which labels count in the loss: (B, T) bool."""
        if self.padding_index is None:
            return np.ones(labels.shape, bool)
        return labels != self.padding_index

    def _smoothing(self, label_smoothing: Any, labels: Any) -> float:
        """label_smoothing, checked."""
        label_smoothing = number(
            type(self).__name__, "label_smoothing", label_smoothing,
            "lie in 0 <= label_smoothing < 1", lambda e: 0 <= e < 1,
        )  # fmt: skip
        if labels is None and label_smoothing:
            raise self._error("label_smoothing must go with labels=, got none")
        return label_smoothing

    # ---- What the models do ----------------------------------------------------------------------

    def _drop(self, x: Array, train: bool, rng: Any) -> tuple[Array, Callable[[Array], Array]]:
        """x, in training with dropout, and the way back."""
        if not (train and self.dropout):
            return x, lambda dx: dx
        y, pullback = vjp(Dropout(self.dropout, dtype=self.dtype), x, train=True, rng=rng)
        return y, lambda dy: pullback(dy).x

    def _logits(self, outputs: Array) -> tuple[Array, Callable[[Array], Array]]:
        """The output layer, and the way back to outputs."""
        logits, pullback = vjp(self.output, outputs)

        def back(dlogits):
            if self.tied and self.padding_index is not None:
                # Padding may have a bias, but its vector is 0 and not learned.
                if self.output.bias:
                    bias = np.zeros_like(dlogits, shape=dlogits.shape[-1])
                    bias[self.padding_index] = dlogits[..., self.padding_index].sum()
                    self.output.add_gradient("bias", bias)
                dlogits = dlogits.copy()
                dlogits[..., self.padding_index] = 0
            return pullback(dlogits).x

        return logits, back

    def _loss(
        self, outputs: Array, labels: Array, label_smoothing: float, ignore_index: int | None
    ) -> tuple[Any, Callable[[Any], Any]]:
        """The loss, and the way back to outputs: output layer and loss in one."""
        parameters = self.output.parameters
        loss, pullback = vjp(
            linear_cross_entropy,
            outputs,
            parameters["weight"],
            labels,
            bias=parameters.get("bias"),
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )

        def back(dloss):
            if dloss is None:
                return None
            d = pullback(dloss)
            if self.tied and self.padding_index is not None:
                d.weight[:, self.padding_index] = 0  # its vector is 0 and not learned
            self.output.add_gradient("weight", d.weight)
            if self.output.bias:
                self.output.add_gradient("bias", d.bias)
            return d.x

        return loss, back

    def _scored(
        self,
        read: Array,
        labels: Array | None,
        label_smoothing: float,
        back_to_parameters: Callable[..., None],
        others: tuple[str, ...] = (),
        *,
        ignore_index: int | None,
    ) -> tuple[Any, Callable[..., Gradients]]:
        """Logits, or with labels the loss, of what the output layer reads; and the pullback.

        ``back_to_parameters(dread, dweights, **others)`` goes on from there. dread is None where
        nothing comes back through the scores; `others` are the names of further gradients.
        """
        where = type(self).__name__

        def go_on(dread, dweights, further):
            for name in further:
                if name not in others:
                    known = ", ".join(("dweights", *others))
                    raise self._error(f"pullback takes {known}, got {name!r}", TypeError)
            back_to_parameters(dread, dweights, **further)
            return Gradients({})  # tokens are integers: no gradient

        if labels is not None:
            loss, back_to_read = self._loss(read, labels, label_smoothing, ignore_index)

            @quiet
            def pullback(dloss=None, dweights=None, **further):
                if dloss is not None:
                    dloss = number(where, "dloss", dloss, "be a number", lambda d: True)
                elif dweights is None and not further:
                    dloss = 1.0
                return go_on(back_to_read(dloss), dweights, further)

            return loss, pullback

        logits, back_to_read = self._logits(read)

        @quiet  # type: ignore[no-redef]
        def pullback(dlogits=None, dweights=None, **further):
            require_incoming(where, dlogits=dlogits, dweights=dweights, **further)
            dlogits = self._incoming("dlogits", dlogits, logits.shape)
            return go_on(None if dlogits is None else back_to_read(dlogits), dweights, further)

        return logits, pullback


def after_last(valid: Array) -> Array:
    """How long each sequence is: up to the last step that is valid (B, T), 0 without any."""
    T = valid.shape[1]
    return np.where(valid.any(axis=1), T - valid[:, ::-1].argmax(axis=1), 0)
