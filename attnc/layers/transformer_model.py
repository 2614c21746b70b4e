"""What models of Transformer layers share: vectors of tokens, positions, the output layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict

from ..arrays import integer, integer_array
from ..functional.alibi import alibi_slopes
from ..functional.decoder import check_choice
from ..functional.dropout import add_dropout
from ..gradients import vjp
from ..typing import Array, Seed
from .cache import ModelCache
from .embedding import Embedding, check_tokens
from .linear import Linear
from .positions import LearnedPositions, SinusoidalPositions
from .token_model import TokenModel
from .transformer_decoding import TokenState


class ModelOptions(TypedDict, total=False):
    """Options by keyword, of calls of the models."""

    label_smoothing: float
    cache: ModelCache | None
    return_weights: bool
    train: bool
    rng: Seed


# SMALL is the standard deviation of a table that is also the weight of the output layer: the first
# scores are then about equal, while vectors of length 1 would make that of a token itself very
# large. It is the one of GPT-2.
SMALL = 0.02


class TransformerModel(TokenModel):
    """Base of `Transformer` and `LanguageModel`."""

    size: int
    num_heads: int
    positions: str | None
    max_length: int | None

    # ---- Parts -----------------------------------------------------------------------------------

    def _embedding(self, vocabulary_size: int, rng: Any) -> Embedding:
        """A table of vectors; its numbers are small where it is tied to the output layer."""
        embedding = Embedding(
            vocabulary_size, self.size, self.padding_index, rng=rng, dtype=self.dtype
        )
        if self.tied:
            embedding._parameters["weight"] *= SMALL * self.size**0.5
        return embedding

    def _output(self, embedding: Embedding, bias: bool, rng: Any) -> Linear:
        """The output layer, tied to this table where that is asked for."""
        rows, columns = self.size, embedding.vocabulary_size
        output = Linear(rows, columns, bias, rng=rng, dtype=self.dtype)
        output._parameters["weight"] *= SMALL / (2 / (rows + columns)) ** 0.5
        if self.tied:
            output.tie("weight", embedding, "weight", transpose=True)
        return output

    def _set_positions(self, positions: Any, max_length: Any) -> None:
        """The two arguments of the constructor, checked."""
        where = type(self).__name__
        if positions is not None:
            names = ("sinusoidal", "learned", "rotary", "alibi")
            check_choice(where, "positions", positions, names)
        if max_length is not None:
            max_length = integer(where, "max_length", max_length, 1)
        elif positions == "learned":
            raise self._error("max_length must be given for positions='learned', got None")
        self.positions, self.max_length = positions, max_length

    def _position_layer(self, rng: Any) -> SinusoidalPositions | LearnedPositions | None:
        """What adds positions to vectors; None where attention alone knows them."""
        if self.positions == "learned" and self.max_length is not None:
            return LearnedPositions(self.max_length, self.size, rng=rng, dtype=self.dtype)
        if self.positions == "sinusoidal":
            return SinusoidalPositions(self.size, dtype=self.dtype)
        return None

    # ---- Calls -----------------------------------------------------------------------------------

    def _check_length(self, name: str, length: int) -> None:
        if self.max_length is not None and length > self.max_length:
            raise self._error(
                f"{name} must have at most max_length={self.max_length} tokens, got {length}"
            )

    def _slopes(self) -> dict[str, Array]:
        """The option of self-attention by which ALiBi knows positions."""
        if self.positions != "alibi":
            return {}
        return {"slope": alibi_slopes(self.num_heads)[None]}

    def _embedded(
        self, embedding: Embedding, positions: Any, tokens: Array, rng: Any, offset: Any = 0
    ) -> tuple[Array, Callable[[Array], None]]:
        """``dropout(sqrt(size) * vectors of the tokens + positions)``, and the way back.

        Vaswani et al. (2017), "Attention is all you need", sections 3.4 and 5.4.
        """
        x, back_to_vectors = vjp(embedding, tokens)
        scale = x.dtype.type(self.size**0.5)
        x *= scale
        if positions is not None:
            x, back_to_scaled = positions._forward(x, offset)
        drops = rng is not None and self.dropout
        if drops:
            x, back_to_sum = add_dropout(None, x, self.dropout, rng)

        def back(dx):
            if drops:
                dx = back_to_sum(dx)
            if positions is not None:
                dx = back_to_scaled(dx)
            back_to_vectors(dx * scale)

        return x, back

    def _embedded_step(
        self, embedding: Embedding, positions: Any, tokens: Any, state: TokenState
    ) -> Array:
        """The vectors (B, size) of the next token of each sequence, after those of a state."""
        where = type(self).__name__
        tokens = integer_array(where, "input", tokens)
        if tokens.shape != state.lengths.shape:
            raise self._error(f"input must have shape ({len(state)},), got {tokens.shape}")
        check_tokens(where, "input", tokens, embedding.vocabulary_size)
        self._check_length("input", int(state.lengths.max(initial=0)) + 1)
        x, _ = self._embedded(embedding, positions, tokens[:, None], None, state.lengths)
        return x[:, 0]

    def _weights_gradient(self, name: str, gradient: Any, weights: Array | None) -> Array | None:
        """An incoming gradient of weights; None where it was not given."""
        if gradient is not None and weights is None:
            raise self._error(f"{name} must be None without return_weights=True, got a gradient")
        return self._incoming(name, gradient, () if weights is None else weights.shape)
