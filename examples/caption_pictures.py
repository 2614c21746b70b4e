"""Pictures of anyone's own with captions, for caption.py: from files, or the stamps of Tux Paint.

Debian's tuxpaint-stamps-default has small pictures on white with a sentence each, in many
languages. Defines: `read_captions`, `read_stamps`, `Pictures`.
"""

import pathlib

import numpy as np
from scenes import Batch

from attnc.data import Vocabulary, detokenise, normalise, pad, read_pairs, tokenise

STAMPS = "/usr/share/tuxpaint/stamps"
PACKAGE = "tuxpaint-stamps-default"
SHIFT = 2  # pixels, at most, in training
TEST, VALIDATION = 0.15, 0.1  # shares of the pictures
LEAST = 20  # pictures


def read_captions(folder, file):
    """Pairs of a path and a caption, from lines with a name in the folder, a tab and a caption."""
    pairs = [(pathlib.Path(folder, name), text) for name, text in read_pairs(file, format="tsv")]
    for path, _ in pairs:
        if not path.is_file():
            raise ValueError(f"{file}: names a picture that is not there: {path}")
    return pairs


def read_stamps(language, folder=STAMPS):
    """The same of the stamps of Tux Paint: beside a .png lies a .txt, its first line in English.

    Other lines are ``language.utf8=caption``. Drawings in SVG are left out.
    """
    texts = sorted(pathlib.Path(folder).rglob("*.txt"))
    if not texts:
        raise ValueError(f"{folder}: no stamps of Tux Paint; on Debian: apt install {PACKAGE}")
    pairs, languages = [], {"en"}
    for path in texts:
        english, *others = path.read_text(encoding="utf-8").splitlines() or [""]
        captions = dict(line.split(".utf8=", 1) for line in others if ".utf8=" in line)
        captions = {name.strip(): text for name, text in captions.items()} | {"en": english}
        languages |= captions.keys()
        picture = path.with_suffix(".png")
        if captions.get(language, "").strip() and picture.is_file():
            pairs.append((picture, captions[language]))
    if not pairs:
        known = ", ".join(sorted(languages))
        raise ValueError(f"the stamps of Tux Paint have no captions in {language}, but in {known}")
    return pairs


def read_picture(path, side):
    """A picture (3, side, side) in 0..1, where 0 is white: made smaller, and square by white."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA")
    except OSError as error:
        raise ValueError(f"{path}: no picture that Pillow reads ({error})") from None
    white = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(white, picture).convert("RGB")
    picture = ImageOps.pad(picture, (side, side), color="white")
    return 1 - np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def split(pairs, seed=0):
    """Lists of pairs for training, validation and test; the pairs of one picture stay together."""
    paths = sorted({path for path, _ in pairs})
    if len(paths) < LEAST:
        raise ValueError(f"needs at least {LEAST} pictures to learn from, got {len(paths)}")
    order = np.random.default_rng(seed).permutation(len(paths))
    bounds = [int(share * len(paths)) for share in (TEST, TEST + VALIDATION)]
    part = {paths[n]: k for k, rows in enumerate(np.split(order, bounds)) for n in rows}
    test, validation, training = ([p for p in pairs if part[p[0]] == k] for k in range(3))
    return training, validation, test


class Pictures:
    """Pictures with their captions, drawn for training a little out of place.

    Parameters
    ----------
    pairs : list of (path, str)
    side : int
        Of the squares that pictures are made.
    vocabulary : Vocabulary, optional
        That of the training, for others; unless given, the words of these captions.
    """

    channels = 3
    text = staticmethod(detokenise)

    def __init__(self, pairs, side=32, vocabulary=None):
        known = {path: read_picture(path, side) for path in {path for path, _ in pairs}}
        self.images = np.stack([known[path] for path, _ in pairs])
        self.captions = [tokenise(normalise(text)) for _, text in pairs]
        self.vocabulary = vocabulary or Vocabulary.build(self.captions)
        self.longest = max(map(len, self.captions)) + 1
        numbers = [self.vocabulary.encode(words, start=True, end=True) for words in self.captions]
        self.tokens = pad(numbers)[0]

    def batch(self, rows=None):
        """These pictures, or all, as they are."""
        rows = range(len(self.images)) if rows is None else rows
        tokens = self.tokens[rows]
        tokens = tokens[:, (tokens != Vocabulary.padding).any(axis=0)]
        return Batch(self.images[rows], [self.captions[row] for row in rows], tokens, None)

    def draw(self, rng, count, share=1.0):
        """Pictures to learn from; `share` makes no difference here."""
        found = self.batch(rng.integers(len(self.images), size=count))
        side, around = found.images.shape[-1], (SHIFT, SHIFT)
        padded = np.pad(found.images, ((0, 0), (0, 0), around, around))
        moved = np.empty_like(found.images)
        for image, whole, (row, column) in zip(
            moved, padded, rng.integers(2 * SHIFT + 1, size=(count, 2)), strict=True
        ):
            image[:] = whole[:, row : row + side, column : column + side]
        return found._replace(images=moved)

    def without_looking(self, test):
        """{what: captions for the pictures of a test} that ask for no model.

        The most frequent caption, and that of the picture with the most similar pixels.
        """
        often = max(self.captions, key=self.captions.count)
        flat, theirs = (x.reshape(len(x), -1) for x in (self.images, test.images))
        nearest = (flat**2).sum(axis=1) - 2 * theirs @ flat.T  # less what is the same for all
        return {
            "the most frequent caption": [often] * len(theirs),
            "that of the nearest picture": [self.captions[n] for n in nearest.argmin(axis=1)],
        }
