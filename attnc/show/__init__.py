"""Pictures of attention that need no other package: text, HTML, SVG and LaTeX.

`attnc.plot` draws with matplotlib; what is here prints in a terminal, shows in a notebook without
a script and without a network, and goes into slides.
"""

from attnc.show.alignment import Alignment
from attnc.show.heads import Heads

__all__ = ["Alignment", "Heads"]
