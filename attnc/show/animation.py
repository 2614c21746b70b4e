"""`Animation`: pictures one after the other, as one HTML file or one GIF."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable
from typing import Any

from attnc import _arguments as arguments
from attnc.arrays import flag, integer, number
from attnc.show import _text, _words
from attnc.show.picture import WIDTH, Picture

__all__ = ["Animation"]

MOST = 1000  # frames: a page of more takes minutes to open
PIXELS = 100  # an inch of the GIF


class Animation(Picture):
    """Pictures one after the other, which play without a script.

    A page moves them by a style sheet (CSS keyframes) and stops while the mouse is on them. Where
    the reader prefers no motion, on paper, and where a notebook takes style sheets away, all of
    them stand below each other instead.

    Parameters
    ----------
    frames : sequence
        Pictures of `attnc.show`, or other objects with a method ``svg()`` that returns a string.
    titles : sequence of str, optional
        What to write above each.
    seconds : float
        How long each is shown.
    title : str, optional
        Above all of them.

    Raises
    ------
    TypeError
        If a frame has no ``svg``, or another argument is of a wrong kind.
    ValueError
        If there are no frames or more than 1000, or a title is missing or left over, or `seconds`
        is not in 0.05..3600.

    Examples
    --------
    >>> from attnc.show import Alignment
    >>> frames = [Alignment(np.eye(3) ** n) for n in range(2)]
    >>> animation = Animation(frames, ["before", "after"], seconds=0.5)
    >>> animation
    <Animation of 2 frames, 1 s>
    >>> "<script" in animation.html()
    False
    """

    def __init__(
        self,
        frames: Iterable[Any],
        titles: Iterable[object] | None = None,
        seconds: float = 1.0,
        *,
        title: str | None = None,
    ) -> None:
        where = "Animation"
        if not hasattr(frames, "__iter__"):
            raise TypeError(f"{where}: frames must be a sequence of pictures, got {frames!r}")
        self.frames = list(frames)
        for n, frame in enumerate(self.frames):
            if not callable(getattr(frame, "svg", None)) or isinstance(frame, type):
                got = "a class" if isinstance(frame, type) else type(frame).__name__
                raise TypeError(
                    f"{where}: frames must have a method svg(), got {got} as frames[{n}]"
                )
            if isinstance(frame, Animation):
                raise TypeError(
                    f"{where}: frames must be pictures that stand, got an Animation as frames[{n}] "
                    f"(its frames: *frames[{n}].frames)"
                )
        if not 1 <= len(self.frames) <= MOST:
            raise ValueError(f"{where}: frames must be 1..{MOST}, got {len(self.frames)}")
        self.titles = arguments.titles(where, "titles", titles, len(self.frames), "", "frame")
        self.titles = list(map(_words.visible, self.titles))
        self.seconds = number(
            where, "seconds", seconds, "lie in 0.05..3600", lambda x: 0.05 <= x <= 3600
        )
        self.title = "" if title is None else _words.visible(title)

    def __repr__(self) -> str:
        return f"<Animation of {self._count()}, {len(self.frames) * self.seconds:g} s>"

    def _label(self) -> str:
        return self.title or f"animation of {self._count()}"

    def _count(self) -> str:
        count = len(self.frames)
        return f"{count} frame{'s'[: count != 1]}"

    def _heading(self, n: int) -> str:
        """What stands above a frame: its number, and its title."""
        title = f": {self.titles[n]}" if self.titles[n] else ""
        return f"{n + 1} of {len(self.frames)}{title}"

    def html(self, *, numbers: bool = False) -> str:
        """The animation as HTML: a fragment that plays by itself.

        Parameters
        ----------
        numbers : bool
            Write the numbers into the cells of frames that are maps.

        Returns
        -------
        str
            With a style sheet whose names no other animation has, no script and no links.
        """
        numbers = flag("Animation.html", "numbers", numbers)
        frames = [
            frame.svg(numbers=numbers) if isinstance(frame, Picture) else frame.svg()
            for frame in self.frames
        ]
        for n, frame in enumerate(frames):
            if not isinstance(frame, str):
                raise TypeError(
                    f"Animation.html: svg() of frames must return a str, got "
                    f"{type(frame).__name__} from frames[{n}]"
                )
        count, total = len(frames), len(frames) * self.seconds
        digest = hashlib.sha256(repr((frames, self.titles, self.title, total)).encode("utf-8"))
        name = "attnc" + digest.hexdigest()[:12]
        parts = []
        for n, frame in enumerate(frames):
            heading = _words.escape(self._heading(n))
            delay = f"{n * self.seconds - total:g}s"  # below zero: all have their turns at once
            parts.append(
                f'<div class="{name}-frame" style="animation-delay:{delay}">'
                f'<div dir="auto" style="font-size:13px;opacity:0.8;margin:4px 0">{heading}</div>'
                f"{frame}</div>"
            )
        style = "" if count == 1 else f"<style>{_style(name, count, total)}</style>"
        head = ""
        if self.title:
            title = _words.escape(self.title)
            head = f'<div dir="auto" style="font-weight:bold">{title}</div>'
        return (
            f'{style}<div class="{name}" role="group" aria-label="{_words.escape(self._label())}" '
            f'tabindex="0" style="font-family:sans-serif;color:inherit">{head}'
            f'<div class="{name}-stage">{"".join(parts)}</div></div>'
        )

    def svg(self, *, numbers: bool = False) -> str:
        """Refused: an SVG of many frames would need a script or would not stop.

        `numbers` changes nothing.

        Raises
        ------
        TypeError
            Always; ``html()`` plays, and ``frames[n].svg()`` is one of them.
        """
        raise TypeError("Animation.svg: an animation is HTML or a GIF; use frames[n].svg()")

    def text(self, width: int = WIDTH, *, ascii: bool = False, numbers: bool = False) -> str:
        """All frames as text, one below the other.

        Parameters
        ----------
        width, ascii, numbers
            As in `Alignment.text`.

        Returns
        -------
        str
        """
        width = integer("Animation.text", "width", width, least=20)
        parts = _text.wrapped(self.title, width) if self.title else []
        for n, frame in enumerate(self.frames):
            text = "(a picture)"
            if isinstance(frame, Picture):
                text = frame.text(width, ascii=ascii, numbers=numbers)
            parts += [*_text.wrapped(self._heading(n), width), text, ""]
        return "\n".join(parts[:-1])

    def _formats(self) -> dict[str, Any]:
        formats = super()._formats()
        return {".html": formats[".html"], ".txt": formats[".txt"], ".gif": self._gif}

    def _gif(self) -> bytes:
        where = "Animation.save"
        for n, frame in enumerate(self.frames):
            if not isinstance(frame, Picture):
                raise TypeError(
                    f"{where}: frames of a GIF must be pictures of attnc.show, got "
                    f"{type(frame).__name__} as frames[{n}] (path can end in .html)"
                )
        try:
            import matplotlib  # noqa: F401
            from PIL import Image
        except ImportError as error:
            raise ImportError(
                f"{where}: a GIF needs matplotlib and Pillow: pip install attnc[plot]"
            ) from error
        images = []
        for n, frame in enumerate(self.frames):
            figure = frame._drawing().figure(self._heading(n) if len(self.frames) > 1 else "")
            with io.BytesIO() as file:
                figure.savefig(file, format="png", dpi=PIXELS)
                images.append(Image.open(file).convert("RGB"))
        size = max(image.width for image in images), max(image.height for image in images)
        pages = []
        for image in images:  # all of one size, on white
            page = Image.new("RGB", size, "white")
            page.paste(image, (0, 0))
            pages.append(page.quantize(colors=256, dither=Image.Dither.NONE))
        with io.BytesIO() as file:
            pages[0].save(
                file,
                format="GIF",
                save_all=True,
                append_images=pages[1:],
                duration=max(10 * round(100 * self.seconds), 50),  # GIFs count in hundredths
                loop=0,
                disposal=1,
                optimize=False,
            )
            return file.getvalue()


def _style(name: str, count: int, total: float) -> str:
    """One frame after the other, in the same place; only on screens that may move."""
    share = math.floor(1e6 / count) / 1e4
    return (
        f"@keyframes {name}{{0%{{visibility:visible}}{share:g}%{{visibility:hidden}}"
        "100%{visibility:hidden}}"
        "@media screen and (prefers-reduced-motion:no-preference){"
        f".{name}-stage{{display:grid}}"
        f".{name}-frame{{grid-area:1/1;animation:{name} {total:g}s step-end infinite}}"
        f".{name}:hover .{name}-frame,.{name}:focus .{name}-frame{{animation-play-state:paused}}"
        "}"
    )
