"""The functions, forward and backward in C. `attnc.vjp` gives the gradients of all of them.

- `attention`: the attention functions, and merging what they gave over disjoint sets of keys;
- `hard`: attention to one key that is drawn;
- `scores`: their scores as arrays;
- `rotary`: rotary positions of queries and keys; `alibi`: slopes for linear biases of distance;
- `norm`, `activation`: normalisation of rows, and functions of single numbers;
- `monotonic`, `chunkwise`: attention that goes over the keys from left to right;
- `recurrent`: recurrent cells over whole sequences;
- `decoder`: a recurrent decoder that attends to a memory at every step.
"""

from attnc.functional import activation, alibi, attention, decoder, hard, norm, recurrent, scores
from attnc.functional.activation import *  # noqa: F403
from attnc.functional.alibi import *  # noqa: F403
from attnc.functional.attention import *  # noqa: F403
from attnc.functional.chunkwise import chunkwise_attention
from attnc.functional.decoder import *  # noqa: F403
from attnc.functional.hard import *  # noqa: F403
from attnc.functional.monotonic import monotonic_alignment
from attnc.functional.norm import *  # noqa: F403
from attnc.functional.recurrent import *  # noqa: F403
from attnc.functional.rotary import rotary
from attnc.functional.scores import *  # noqa: F403

__all__ = [
    *activation.__all__,
    *alibi.__all__,
    *attention.__all__,
    "chunkwise_attention",
    *decoder.__all__,
    *hard.__all__,
    "monotonic_alignment",
    *norm.__all__,
    *recurrent.__all__,
    "rotary",
    *scores.__all__,
]
