"""For courses: attention stage by stage.

`stages` keeps every intermediate array of a call, and the gradient at each.
"""

from attnc.teaching.stages import (
    DecoderStages,
    MultiHeadStages,
    RecurrentStages,
    Stages,
    stages,
)

__all__ = ["DecoderStages", "MultiHeadStages", "RecurrentStages", "Stages", "stages"]
