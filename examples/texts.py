"""The text that a language model learns from, and the bits that simple methods need for it."""

import importlib
import os
import sysconfig

import numpy as np

from attnc.data import Vocabulary

LICENCES = ("LICENSE.txt", "LICENSE")  # as they are called, in the folder of the library or above


def read(paths, least):
    """Read files, or what Python brings if there are none; say what was read.

    What stands there twice would make held-out text easy, as a copy of it is in training: of equal
    paragraphs the first is kept. (Topics of Python's help share one paragraph in five.) Fewer
    characters than `least` are refused.
    """
    texts = {path: read_file(path) for path in paths} or own_text()
    for name, text in texts.items():
        print(f"Read {len(text):,} characters of {name}.")
    paragraphs = "\n\n".join(texts.values()).split("\n\n")
    kept = "\n\n".join(dict.fromkeys(paragraphs))
    if repeated := len(paragraphs) - len(set(paragraphs)):
        print(f"Left out {repeated:,} of {len(paragraphs):,} paragraphs, copies of others.")
    if len(kept) < least:
        raise ValueError(
            f"{', '.join(texts)}: needs at least {least:,} characters to learn from, got "
            f"{len(kept):,}"
        )
    return kept


def read_file(path):
    try:
        with open(path, encoding="utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8, at byte {error.start:,}") from error


def own_text():
    """Return the texts by name that this Python has: its licence and the topics of its help."""
    texts, folder = {}, sysconfig.get_path("stdlib")
    for path in [f"{up}/{name}" for up in (folder, f"{folder}/..") for name in LICENCES]:
        if os.path.isfile(path):
            texts["Python's licence"] = read_file(path)
            break
    try:
        topics = importlib.import_module("pydoc_data.topics").topics
        texts["the topics of Python's help"] = "\n\n".join(topics.values())
    except ImportError:  # some distributions leave them out
        pass
    if not texts:
        raise ValueError("this Python has neither licence nor help topics: name a file to learn")
    return texts


# ---- Windows -------------------------------------------------------------------------------------


def windows(tokens, length, step):
    """Return windows of so many tokens and those one later, one from every `step` tokens on."""
    starts = range(0, len(tokens) - length, step)
    return [(tokens[n : n + length], tokens[n + 1 : n + length + 1]) for n in starts]


def half_read(tokens, first, length):
    """Return windows in which each token from `first` on counts once, after half a window."""
    half = length // 2
    tokens = np.pad(tokens[first - half - 1 :], (0, half), constant_values=Vocabulary.padding)
    later = np.arange(2 * half) >= half
    return [(x, np.where(later, y, Vocabulary.padding)) for x, y in windows(tokens, 2 * half, half)]


# ---- Bits a character of other methods -----------------------------------------------------------


def others(text, tokens, size, first):
    """Return by name the bits a character of text[first:] that others need, who know the rest.

    `tokens` are its characters as numbers below `size`, those that training has not as one number;
    compressors get the text itself.
    """
    found = {
        "the frequency of each character": counted(tokens, size, first, 1),
        "counts of what followed the four before": counted(tokens, size, first, 5),
    }
    for name in ("bz2", "lzma"):
        try:
            module = importlib.import_module(name)
        except ImportError:  # not every Python has them
            continue
        known, whole = (len(module.compress(part.encode())) for part in (text[:first], text))
        found[name] = 8 * (whole - known) / (len(text) - first)
    return found


def counted(tokens, size, first, order):
    """Return the bits a character of tokens[first:] by how often each followed those before it.

    The probability after a context that was seen s times, with d different characters, c times with
    this one, is ``(c + d p) / (s + d)``, where p is that after the context without its first
    character. Witten and Bell 1991, "The zero-frequency problem", method C, as Chen and Goodman
    1999, "An empirical study of smoothing techniques for language modeling", interpolate it.
    """
    context, p = np.zeros(len(tokens), np.int64), np.full(len(tokens) - first, 1 / size)
    for _ in range(order):
        _, pair = np.unique(context * size + tokens, return_inverse=True)
        known, at = pair[:first], np.unique(pair[:first], return_index=True)[1]
        c, s, d = (
            np.bincount(some, minlength=len(tokens) + 1)[asked[first:]]
            for some, asked in ((known, pair), (context[:first], context), (context[at], context))
        )
        p = np.where(s, (c + d * p) / np.maximum(s + d, 1), p)
        context = np.concatenate([[len(tokens)], pair[:-1]])  # one more character before the next
    return float(np.log2(1 / p).mean())
