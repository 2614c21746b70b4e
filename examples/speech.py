"""Sounds as arrays: WAV files in, log-mel features out.

The mel filters are a few lines of NumPy here, and the Fourier transform and another rate come from
SciPy, which scikit-learn needs anyway. librosa, which is well kept, brings a compiler along for the
same few lines, and python_speech_features has had no release since 2017.

Defines: `RATE`, `STEP`, `read_wav`, `at_rate`, `trimmed`, `log_mel`, `features`.
"""

import math
import wave

import numpy as np
from scipy import fft, signal

RATE = 8000  # samples a second: a telephone's
WINDOW, STEP = RATE * 25 // 1000, RATE // 100  # samples of a frame, and from one to the next
POINTS = 256  # of the Fourier transform of a frame: the next power of two
BANDS = 40
LOWEST, HIGHEST = 50, RATE // 2  # Hz: below is hum


# ---- Samples -------------------------------------------------------------------------------------


def read_wav(path, rate=RATE):
    """Return the samples of a WAV file in -1 to 1, of all channels the mean, so many a second.

    Raises ValueError for what is no WAV file of such bits, has no samples, or ends early.
    """
    wanted = f"read_wav: {path} must be a WAV file of PCM samples with 8, 16, 24 or 32 bits"
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, own, count = file.getparams()[:4]
            data = file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{wanted}, got: {error or 'an end within its header'}") from error
    if width > 4:
        raise ValueError(f"{wanted}, got {8 * width} bits")
    if not count or own < 1:
        raise ValueError(f"read_wav: {path} must have samples, got {count} at {own} a second")
    if len(data) != count * channels * width:
        there = len(data) // (channels * width)
        raise ValueError(f"read_wav: {path} must be whole, got {there} of {count} samples")
    return at_rate(numbers(data, width).reshape(-1, channels).mean(axis=1), own, rate)


def numbers(data, width):
    """Return samples of so many bytes as float32: the first byte of a sample is the lowest."""
    if width == 1:  # these alone have no sign
        return np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    high = np.zeros((len(data) // width, 4), np.uint8)
    high[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return high.view("<i4")[:, 0].astype(np.float32) / 2**31


def at_rate(samples, own, rate=RATE):
    """Return a sound of `own` samples a second with `rate` of them."""
    common = math.gcd(own, rate)
    if own == rate:
        return samples
    return signal.resample_poly(samples, rate // common, own // common).astype(np.float32)


def trimmed(samples):
    """Return a sound without the silence around it: what is below a hundredth of the loudest."""
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0))
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


# ---- Features ------------------------------------------------------------------------------------


def mel_filters():
    """Return triangles of one width on the mel scale: (frequencies, BANDS).

    The scale follows the ear: mel(f) = 2595 log10(1 + f / 700), of f in Hz.
    """
    lowest, highest = 2595 * np.log10(1 + np.array([LOWEST, HIGHEST]) / 700)
    edges = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    f = fft.rfftfreq(POINTS, 1 / RATE)[:, None]
    triangles = np.minimum((f - low) / (middle - low), (high - f) / (high - middle))
    return np.maximum(0, triangles).astype(np.float32)


FILTERS = mel_filters()
BELL = signal.get_window("hann", WINDOW).astype(np.float32)


def log_mel(samples):
    """Return the logarithm of the power of a sound by frames and bands, (frames, BANDS)."""
    samples = np.asarray(samples, np.float32)
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::STEP]
    spectrum = fft.rfft(frames * BELL, POINTS)
    power = spectrum.real**2 + spectrum.imag**2
    return np.log(power @ FILTERS + 1e-8)  # of silence no infinity


def features(samples):
    """Return the same with a mean of 0 and a deviation of 1 in each band over the sound.

    So neither how loud it is matters, nor what a microphone does to all of it.
    """
    bands = log_mel(samples)
    return (bands - bands.mean(axis=0)) / (bands.std(axis=0) + 1e-3)
