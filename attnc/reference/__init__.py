"""Every function of `attnc.functional` and every loss once more, in plain NumPy: the formulas as
the papers write them, and their derivatives by hand, in float64 and without a trick.

These files are for reading: `attention` has the mechanisms, `hard` the choice of one key,
`multihead` the heads, `monotonic` attention from left to right, `recurrent` the cells and the
attention decoder, `rotary` rotary positions, `norm`, `activation` and `positions` the small parts
of a Transformer, `transformer` the whole of it, `losses` the losses. The fast kernels are tested
against them. `vjp` gives the gradients.
"""

from attnc.reference import activation, attention, losses, monotonic, norm, positions, recurrent
from attnc.reference.activation import *  # noqa: F403
from attnc.reference.attention import *  # noqa: F403
from attnc.reference.hard import hard_attention
from attnc.reference.losses import *  # noqa: F403
from attnc.reference.monotonic import *  # noqa: F403
from attnc.reference.multihead import multi_head_attention
from attnc.reference.norm import *  # noqa: F403
from attnc.reference.positions import *  # noqa: F403
from attnc.reference.recurrent import *  # noqa: F403
from attnc.reference.rotary import rotary
from attnc.reference.transformer import (
    language_model,
    transformer,
    transformer_decoder,
    transformer_decoder_layer,
    transformer_encoder,
    transformer_encoder_layer,
)

__all__ = [
    *activation.__all__,
    *attention.__all__,
    "hard_attention",
    "language_model",
    *losses.__all__,
    *monotonic.__all__,
    "multi_head_attention",
    *norm.__all__,
    *positions.__all__,
    *recurrent.__all__,
    "rotary",
    "transformer",
    "transformer_decoder",
    "transformer_decoder_layer",
    "transformer_encoder",
    "transformer_encoder_layer",
]
