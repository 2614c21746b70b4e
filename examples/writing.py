"""What writes: a language model with its characters, its loss, its samples and its speed."""

import os
import time

import numpy as np
import translation

import attnc
from attnc.data import Vocabulary

SHOWN = 300  # characters of a sample


class Writer:
    """A language model, its characters, and the settings of the run that trained it."""

    def __init__(self, model, vocabulary, settings):
        self.model, self.vocabulary, self.settings = model, vocabulary, settings

    def loss(self, windows, train=False, rng=None, label_smoothing=0.0):
        """Return the bits a character of predicting each from those before it, and the way back.

        `windows` are pairs of arrays, the second one character later. The way back is that of nats.
        """
        tokens, labels = map(np.stack, zip(*windows, strict=True))
        options = {"label_smoothing": label_smoothing, "train": train, "rng": rng}
        loss, pullback = attnc.vjp(self.model, tokens, labels=labels, **options)
        return loss / np.log(2), pullback

    def mean_loss(self, windows):
        """Return the bits a character over many windows; padding does not count."""
        total, count = 0.0, 0
        for n in range(0, len(windows), 64):
            some = windows[n : n + 64]
            characters = sum(int(np.count_nonzero(labels)) for _, labels in some)
            total += characters * self.loss(some)[0]
            count += characters
        return float(total / count)

    def go_on(self, prompt, count, **options):
        """Write so many characters after a prompt; of each are seen as many as in training."""

        def characters_alone(logits, _):
            logits[:, : Vocabulary.unknown + 1] = -np.inf
            return logits

        cache = self.model.new_cache(window=self.settings["length"])
        options |= {"max_length": count, "cache": cache, "logits_hook": characters_alone}
        (tokens,) = self.model.generate([self.vocabulary.encode(list(prompt))], **options)
        return "".join(self.vocabulary.decode(tokens))


# ---- Keeping -------------------------------------------------------------------------------------


def save(writer, history, folder):
    """Write a model and its training into a folder."""
    run = translation.Run(writer.settings, history, [], 1.0)
    kept = {"characters": writer.vocabulary, "run": run}
    attnc.save(f"{folder}/model.npz", writer.model, vocabularies=kept, step=history.best)


def load(path):
    """Return the writer that `save` kept, from its folder or the model there."""
    file = os.path.join(path, "model.npz") if os.path.isdir(path) else path
    try:
        kept = attnc.load(file, classes=[translation.Run])
        vocabulary, run = kept.vocabularies["characters"], kept.vocabularies["run"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{file}: not a model of language_model.py: {error}") from error
    return Writer(kept.layer, vocabulary, run.settings)


# ---- The report ----------------------------------------------------------------------------------


def prompt_of(writer, held):
    """Return the beginning of a held-out text, half a window of it if there is as much."""
    return held[: min(writer.settings["length"], len(held)) // 2]


def show_samples(writer, held):
    """Print how the model goes on with a held-out text, by several ways to choose."""
    prompt, seed = prompt_of(writer, held), writer.settings["seed"]
    ways = {
        "always the most probable character": {"temperature": 0},
        "drawn, temperature 0.8": {"temperature": 0.8, "rng": seed},
        "drawn from the most probable 90 %, top_p 0.9": {"top_p": 0.9, "rng": seed},
    }
    written = {"the text itself": held[len(prompt) :][:SHOWN]}
    written |= {way: writer.go_on(prompt, SHOWN, **options) for way, options in ways.items()}
    print(f"\nSamples, how this goes on:\n{indented(prompt)}")
    for way, text in written.items():
        print(f"- {way}:\n{indented(text)}")


def indented(text):
    return "\n".join(f"    {line}" for line in text.split("\n"))


def show_speed(writer, held, count):
    """Print how fast the model writes the same text with and without a cache."""
    model, prompt = writer.model, prompt_of(writer, held)
    tokens = writer.vocabulary.encode(list(prompt))
    cache, start = model.new_cache(), time.perf_counter()
    (quickly,) = model.generate([tokens], max_length=count, temperature=0, cache=cache)
    middle = time.perf_counter()
    for _ in range(count):  # all of the text again for each character
        tokens = np.append(tokens, model(tokens[None])[0, -1].argmax())
    end = time.perf_counter()
    same = np.mean(quickly == tokens[-count:])
    print(f"\nSpeed, {count} most probable characters after {len(prompt)}:")
    print(f"  {count / (middle - start):7,.0f} a second with a cache, of {cache.nbytes:,} bytes")
    print(f"  {count / (end - middle):7,.0f} a second without; {same:.0%} of them are the same")
