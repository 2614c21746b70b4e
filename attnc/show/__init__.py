"""Pictures of attention that need no other package: text, HTML, SVG and LaTeX.

`attnc.plot` draws with matplotlib; what is here prints in a terminal, shows in a notebook without
a script and without a network, and goes into slides.

`Alignment` is the weights of one head, `Heads` those of several; `gradient_flow` draws how large
the stages of attention and their gradients are; `Decoding` is one sentence decoded step by step,
and `Animation` any pictures one after the other. `bertviz` gives weights to BertViz. Each picture
has ``text()``, ``html()``, ``svg()`` and ``save(path)``, and shows itself in a notebook.
"""

from attnc.show.alignment import Alignment
from attnc.show.animation import Animation
from attnc.show.decoding import Decoding
from attnc.show.export import bertviz
from attnc.show.flow import gradient_flow
from attnc.show.heads import Heads

__all__ = ["Alignment", "Animation", "Decoding", "Heads", "bertviz", "gradient_flow"]
