"""Voices that say digits and letters: recorded prompts, and those that espeak-ng synthesises.

    pip install espeakng-loader                      espeak-ng; Debian's espeak-ng will do, too
    apt install asterisk-core-sounds-en-wav          a recorded voice, of one speaker

A voice of espeak-ng is an accent with a timbre. What is said by those of `UNSEEN`, which share
neither with the others, is for tests alone.

Defines: `DIGITS`, `LETTERS`, `WORDS`, `TRAINING`, `UNSEEN`, `recorded`, `synthesised`.
"""

import ctypes
import ctypes.util
import functools
import pathlib
import string

import numpy as np
from speech import at_rate, read_wav, trimmed

DIGITS = "zero one two three four five six seven eight nine".split()
LETTERS = list(string.ascii_lowercase)
WORDS = DIGITS + LETTERS

TRAINING = [
    f"{accent}+{timbre}"
    for timbre in ("m1", "f1", "m3", "f3", "m5", "f5", "m7", "f2")
    for accent in ("en-us", "en", "en-gb-x-rp", "en-us-nyc")
]
UNSEEN = ["en-gb-x-gbcwmd+m2", "en-gb-x-gbcwmd+f4", "en-gb-x-gbcwmd+m4"]


def loudness_of_one(samples):
    """Return a sound, as float32, with a mean square of 1."""
    return (samples / np.sqrt(np.mean(np.square(samples, dtype=float)) + 1e-12)).astype(np.float32)


# ---- Recorded ------------------------------------------------------------------------------------


@functools.cache
def recorded(root="/usr/share/asterisk/sounds"):
    """Return {word: samples} of Debian's recorded prompts, {} where they are not installed."""
    for folder in sorted(pathlib.Path(root).glob("en*")):
        files = {word: folder / "digits" / f"{digit}.wav" for digit, word in enumerate(DIGITS)}
        files |= {word: folder / "letters" / f"{word}.wav" for word in LETTERS}
        if all(file.is_file() for file in files.values()):
            return {word: loudness_of_one(trimmed(read_wav(f))) for word, f in files.items()}
    return {}


# ---- Synthesised ---------------------------------------------------------------------------------

# Of speak_lib.h: how sound is delivered, what is set, how a text is given.
SYNCHRONOUS, RATE_OF_WORDS, PITCH = 2, 1, 3
DO_NOT_EXIT, UTF8, CHARACTER = 0x8000, 1, 1
CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Espeak:
    """espeak-ng of the package espeakng-loader, or where that is missing, of the system."""

    def __init__(self):
        try:
            import espeakng_loader

            path, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
        except ImportError:
            path, data = ctypes.util.find_library("espeak-ng"), None
            if path is None:
                raise
        self.library = ctypes.CDLL(path)
        self.rate = self.library.espeak_Initialize(
            SYNCHRONOUS, 0, data and data.encode(), DO_NOT_EXIT
        )
        if self.rate <= 0:
            raise OSError(f"Espeak: {path} must find its data, got error {self.rate}")
        self.heard = []
        self.callback = CALLBACK(self.receive)  # kept: the library has no more than its address
        self.library.espeak_SetSynthCallback(self.callback)

    def receive(self, samples, count, events):
        if samples and count > 0:
            self.heard.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # go on

    def set_voice(self, name, words_a_minute, pitch):
        if self.library.espeak_SetVoiceByName(name.encode()):
            raise ValueError(f"Espeak: voice must be one of espeak-ng's, got {name!r}")
        self.library.espeak_SetParameter(RATE_OF_WORDS, words_a_minute, 0)
        self.library.espeak_SetParameter(PITCH, pitch, 0)
        if hasattr(self.library, "espeak_ng_SetRandSeed"):  # from 1.52 on, for breath, a noise
            self.library.espeak_ng_SetRandSeed(ctypes.c_long(0))

    def say(self, text):
        """Return the samples of a text, at `rate` a second, -1 to 1."""
        self.heard.clear()
        encoded = text.encode()
        where = 0, CHARACTER, 0  # from the first character to the last
        self.library.espeak_Synth(encoded, len(encoded) + 1, *where, UTF8, None, None)
        return np.concatenate([np.zeros(0, np.int16), *self.heard]).astype(np.float32) / 2**15


@functools.cache
def espeak():
    """Return the one of this process: the library has one state."""
    return Espeak()


@functools.cache
def synthesised(name):
    """Return {word: samples} of a voice such as "en-us+f3".

    Its speed and pitch are its own, by its place in the lists, the same ones in every run. What
    the library said before may change a sample: voices are loaded in one order.
    """
    place = (TRAINING + UNSEEN).index(name)
    rng = np.random.default_rng(place)
    espeak().set_voice(name, int(rng.integers(130, 190)), int(rng.integers(30, 70)))
    said = {word: at_rate(espeak().say(word), espeak().rate) for word in WORDS}
    return {word: loudness_of_one(trimmed(samples)) for word, samples in said.items()}
