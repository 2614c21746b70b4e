"""What the translators of this folder share: from text to numbers and back, training, keeping.

A translator is a layer of `attnc` between the words of two languages, or pieces of words: a
`Seq2Seq` or a `Transformer`, which are called with sources, targets and lengths, and have
`translate`.
"""

import collections
import contextlib
import os
import time

import numpy as np

import attnc
from attnc.data import Subwords, Vocabulary, batches, detokenise, normalise, pad, tokenise

# ---- Text to text --------------------------------------------------------------------------------


class Translator:
    """A layer, the words of both its languages, and the settings of the run that trained it.

    Parameters
    ----------
    model : Layer
    source, target : Vocabulary or Subwords
        The numbers of words, or of pieces of words.
    settings : dict
        What a training is told: see `command.SETTINGS`. Here "lower" counts: whether capitals
        become small letters.
    known : ndarray of int
        The pairs of neighbours in the sources of the training: see `neighbours`.
    usual : float
        The share of its neighbours that a source may have which are not known.
    """

    def __init__(self, model, source, target, settings, known=(), usual=1.0):
        self.model, self.source, self.target = model, source, target
        self.settings, self.known, self.usual = settings, known, usual

    def normalised(self, text):
        """Write a text as the model reads and writes it."""
        return normalise(text, lower=self.settings["lower"])

    def words(self, text):
        """Cut a text into words."""
        return tokenise(self.normalised(text))

    def numbers(self, pairs):
        """Turn pairs of texts into what the model is trained on: a list of pairs of arrays."""
        return [
            (
                self.source.encode(self.words(source), end=True),
                self.target.encode(self.words(target), start=True, end=True),
            )
            for source, target in pairs
        ]

    def loss(self, pairs, **options):
        """Return the loss a word of predicting each from those before it, and the way back.

        `pairs` are of arrays; label_smoothing, train and rng are options of the model.
        """
        source, lengths = pad([source for source, _ in pairs])
        target, _ = pad([target for _, target in pairs])
        outputs, pullback = attnc.vjp(
            self.model, source, target[:, :-1], lengths, labels=target[:, 1:], **options
        )
        return outputs.loss, pullback

    def mean_loss(self, pairs):
        """Return the loss a word over many pairs of arrays."""
        total = count = 0
        for rows in batches([len(source) for source, _ in pairs], 64, shuffle=False):
            some = [pairs[row] for row in rows]
            words = sum(len(target) - 1 for _, target in some)
            total, count = total + words * self.loss(some)[0], count + words
        return float(total / count)

    def translate(self, texts, batch_size=128, beam_width=1):
        """Translate texts, always by the most probable next word or by beam search.

        Returns a `Translation` for each; a text without words becomes an empty one.
        """
        words = [self.words(text) for text in texts]
        numbers = [self.source.encode(some, end=True) for some in words]
        translations = [Translation(text, "", ["(end)"], [], np.zeros((0, 1))) for text in texts]
        there = [row for row, text in enumerate(texts) if text.strip()]
        lengths = [len(numbers[row]) for row in there]
        for batch in batches(lengths, batch_size, shuffle=False):
            rows = [there[n] for n in batch]
            source, lengths = pad([numbers[row] for row in rows])
            tokens, weights = self.model.translate(
                source,
                lengths,
                start=Vocabulary.start,
                end=Vocabulary.end,
                max_length=limit(source.shape[1]),
                beam_width=beam_width,
            )
            for row, target, looked in zip(rows, tokens, weights, strict=True):
                length = len(numbers[row])
                target = self.target.decode(target[: limit(length)])
                shown = (target + ["(end)"])[: limit(length)]
                # A piece of a word for each number, or the word as it was written.
                cut = words[row] if len(words[row]) == length - 1 else self.pieces(numbers[row])
                translations[row] = Translation(
                    texts[row],
                    detokenise(target),
                    cut + ["(end)"],
                    shown,
                    looked[..., : len(shown), :length],
                )
        return translations

    @property
    def has_attention(self):
        """Whether the model looks at the words of the source; `attnc.Seq2Seq` may do without."""
        return self.settings.get("attention") != "none"

    def pieces(self, numbers):
        """Name each of the numbers of a source but its end."""
        return [piece for number in numbers[:-1] for piece in self.source.decode([number])]

    def unknown_words(self, text):
        """List the words of a text that the vocabulary has not."""
        return [word for word in self.words(text) if word.strip() and word not in self.source]

    def is_strange(self, text):
        """Say whether too many neighbours in this text were never neighbours in the training.

        So is a date whose parts are in another order, though every word of it is known.
        """
        found = neighbours(self.source.encode(self.words(text), end=True), len(self.source))
        return bool(np.mean(~np.isin(found, self.known)) > self.usual)

    def learn_what_is_usual(self, training, validation):
        """Remember the neighbours in the training, and how many others a source may have.

        That is what 99 of 100 held-out sources have at most, so none in generated dates, and
        most in prose.
        """
        size = len(self.source)
        self.known = np.unique(np.concatenate([neighbours(source, size) for source, _ in training]))
        shares = [np.mean(~np.isin(neighbours(s, size), self.known)) for s, _ in validation]
        self.usual = float(np.quantile(shares, 0.99))


# Source and translation as texts and as words; the weights of the attention, with a row for each
# word of the translation: (rows, columns), or of a Transformer (layers, heads, rows, columns).
Translation = collections.namedtuple(
    "Translation", ["source", "target", "source_words", "target_words", "weights"]
)


def limit(length):
    """Say how many words a translation may have: a decoder that never ends must be stopped."""
    return 2 * length + 10


def neighbours(numbers, size):
    """Return a number for each two neighbours in a source, the start and the end among them."""
    numbers = np.concatenate([[Vocabulary.start], numbers])
    return numbers[:-1] * size + numbers[1:]


def vocabularies(words, settings):
    """Make the vocabularies of the words of both sides, or of the pieces that the words consist of.

    A model that is tied has one for both sides.
    """
    sides = [words[0] + words[1]] if settings["tied"] else words
    if settings["subwords"]:
        made = [Subwords.build(side, max_words=settings["subwords"]) for side in sides]
    else:
        made = [Vocabulary.build(side, max_words=settings["words"]) for side in sides]
    return made * 2 if settings["tied"] else made


# ---- Training ------------------------------------------------------------------------------------

# The losses of all steps; (step, loss) on the validation pairs; the step of the best of these.
History = collections.namedtuple("History", ["losses", "checks", "best"])

CHECKS = 40  # of the validation loss in a training
PATIENCE = 8  # so many checks without a lower loss end it


def rising_then_falling(step, done, settings):
    """Return the factor of the rate: it rises for `warmup` steps, falls over the second half."""
    return min(step / settings["warmup"], 1, 2 - 2 * done)


def train(
    translator,
    training,
    validation,
    settings,
    rng,
    optimizer,
    history=None,
    schedule=rising_then_falling,
):
    """Train for so many seconds, or steps; leave the best parameters in the translator.

    The best are those with the lowest loss on the validation pairs. The training ends early when
    that has not become lower for a fifth of it, or by Ctrl-C.

    Parameters
    ----------
    translator : Translator
    training, validation : list of pairs of arrays
    settings : dict
        seconds, steps, batch, rate, warmup, smoothing: see `command.SETTINGS`.
    rng : numpy.random.Generator
    optimizer : Adam
        Of the translator's model; left as it was at the best step.
    history : History, optional
        Of an earlier training that this one goes on with.
    schedule : callable
        ``schedule(step, done, settings)`` returns the factor of the rate at a step, from 1 on,
        where this share of the training is done.

    Returns
    -------
    History
    """
    from tqdm import tqdm

    model = translator.model
    lengths = [len(source) for source, _ in training]
    losses, checks, best = [], [], None
    if history:  # up to the best model, which only a better one replaces
        losses = history.losses[: history.best]
        checks = [check for check in history.checks if check[0] < history.best]
        checks.append((history.best, translator.mean_loss(validation)))
        best = checks[-1], model.state_dict(), optimizer.state_dict()
    first = len(losses)
    start, done, next_check = time.perf_counter(), 0, 1 / CHECKS
    bar_format = "{percentage:3.0f} % |{bar}| {elapsed}, {remaining} left{postfix}"
    bar = tqdm(total=100, disable=None, bar_format=bar_format)
    reason = ""
    try:
        while done < 1 and not reason:
            for rows in batches(lengths, settings["batch"], rng=rng):
                loss, back = translator.loss(
                    [training[row] for row in rows],
                    label_smoothing=settings["smoothing"],
                    train=True,
                    rng=rng,
                )
                optimizer.zero_grad()
                back()
                attnc.optim.clip_gradients(model, 1.0)
                taken = len(losses) - first
                factor = schedule(taken + 1, done, settings)
                optimizer.learning_rate = settings["rate"] * factor
                optimizer.step()
                losses.append(float(loss))
                spent = (time.perf_counter() - start) / settings["seconds"]
                done = min((taken + 1) / settings["steps"] if settings["steps"] else spent, 1)
                if done >= next_check or done == 1:
                    next_check = done + 1 / CHECKS
                    checks.append((len(losses), translator.mean_loss(validation)))
                    if best is None or checks[-1][1] < best[0][1]:
                        best = checks[-1], model.state_dict(), optimizer.state_dict()
                    elif sum(step > best[0][0] for step, _ in checks) >= PATIENCE:
                        reason = ", early: the validation loss no longer fell"
                shown = f", validation {checks[-1][1]:.4f}" if checks else ""
                bar.set_postfix_str(f"loss {np.mean(losses[-20:]):.4f}{shown}", refresh=False)
                bar.update(100 * done - bar.n)
                if done == 1 or reason:
                    break
    except KeyboardInterrupt:
        reason = ", stopped by Ctrl-C"
    bar.close()
    spent = time.perf_counter() - start
    if best is None:  # stopped before the first check
        checks.append((len(losses), translator.mean_loss(validation)))
        best = checks[-1], model.state_dict(), optimizer.state_dict()
    (step, loss), parameters, moments = best
    model.load_state_dict(parameters)
    optimizer.load_state_dict(moments)
    print(
        f"Trained {len(losses) - first} steps in {spent:.1f} s{reason}.\n"
        f"Kept is the model after step {step}, of the lowest validation loss: {loss:.4f}."
    )
    return History(losses, checks, step)


# ---- Keeping -------------------------------------------------------------------------------------


def new_folder(name):
    """Make the folder of a run; of the same name with a number, where an earlier run has it."""
    folder, count = name, 1
    while os.path.exists(os.path.join(folder, "model.npz")):
        count += 1
        folder = f"{name}-{count}"
    os.makedirs(folder, exist_ok=True)
    return folder


@contextlib.contextmanager
def unless_empty(folder):
    """Around what fills a folder: it goes away again if nothing came of it."""
    try:
        yield
    finally:
        if not os.listdir(folder):
            os.rmdir(folder)


class Run:
    """What the file of a model keeps beside it: settings, losses, and what sources are usual."""

    def __init__(self, settings, history, known, usual):
        self.settings, self.history, self.known, self.usual = settings, history, known, usual

    def state(self):
        """Return a dict that JSON holds, for `attnc.save`."""
        return {
            "settings": self.settings,
            "losses": self.history.losses,
            "checks": [list(check) for check in self.history.checks],
            "best": self.history.best,
            "known": np.asarray(self.known).tolist(),
            "usual": self.usual,
        }

    @classmethod
    def from_state(cls, state):
        """Make again what `state` was of, for `attnc.load`."""
        checks = [tuple(check) for check in state["checks"]]
        history = History(state["losses"], checks, state["best"])
        return cls(state["settings"], history, np.array(state["known"], np.int64), state["usual"])


def save_run(translator, optimizer, history, folder):
    """Write a translator and its training into a folder."""
    run = Run(translator.settings, history, translator.known, translator.usual)
    attnc.save(
        os.path.join(folder, "model.npz"),
        translator.model,
        optimizer=optimizer,
        vocabularies={"source": translator.source, "target": translator.target, "run": run},
        step=history.best,
    )


def load_run(path):
    """Read what `save_run` wrote, from its folder or the model there.

    Returns the translator, the optimiser and the history.
    """
    file = os.path.join(path, "model.npz") if os.path.isdir(path) else path
    try:
        kept = attnc.load(file, classes=[Run])
        source, target, run = (kept.vocabularies[name] for name in ("source", "target", "run"))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a model of a translator: {error}") from error
    translator = Translator(kept.layer, source, target, run.settings, run.known, run.usual)
    return translator, kept.optimizer, run.history
