"""How good a translator is, in one table with what to conclude from it, and in pictures."""

import collections
import math

import numpy as np

# ---- Scores --------------------------------------------------------------------------------------

# Of some pairs: their number, the share of translations without a mistake, the share of right
# words, chrF and BLEU (None without sacrebleu), and the chrF of the sources themselves.
Scores = collections.namedtuple("Scores", ["pairs", "exact", "words", "chrf", "bleu", "copied"])


def score(translator, translations, targets):
    """Compare translations with the right texts.

    Words are counted as right by edit distance: 1 - edits / words, of the longer text.
    """
    got = [translation.target for translation in translations]
    right = [translator.normalised(target) for target in targets]
    sources = [translator.normalised(translation.source) for translation in translations]
    words = [(translator.words(a), translator.words(b)) for a, b in zip(got, right, strict=True)]
    wrong, total = sum(edits(a, b) for a, b in words), sum(max(map(len, pair)) for pair in words)
    exact = np.mean([a == b for a, b in zip(got, right, strict=True)])
    scores = *likeness(got, right), likeness(sources, right)[0]
    return Scores(len(got), exact, 1 - wrong / max(total, 1), *scores)


def likeness(got, right):
    """Return chrF and BLEU of texts, 0 to 100; None twice where sacrebleu is not installed."""
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        return None, None
    # No warning that a corpus of so few sentences has no stable score.
    metrics = CHRF(), BLEU(force=True)
    return tuple(metric.corpus_score(got, [right]).score for metric in metrics)


def edits(first, second):
    """Count the words to insert, delete or replace to make one list of words of the other."""
    words = np.array([hash(word) for word in second], dtype=np.int64)
    columns = np.arange(len(second) + 1)
    row = columns
    for n, word in enumerate(first, start=1):
        replaced = row[:-1] + (words != hash(word))
        row = np.concatenate([[n], np.minimum(replaced, row[1:] + 1)])
        row = np.minimum.accumulate(row - columns) + columns  # the insertions
    return int(row[-1])


# ---- The report ----------------------------------------------------------------------------------


def bins(longest):
    """Return the groups of lengths in the report: up to `longest` words, and longer ones."""
    width = math.ceil(longest / 4)
    held_out = [(low, min(low + width - 1, longest)) for low in range(1, longest + 1, width)]
    return held_out, [(longest + 1, longest + width), (longest + width + 1, 2 * longest)]


def report(translator, test, longer, history, beam=1):
    """Print how good the translations of held-out pairs are, by length, and what to conclude.

    Returns the translations of `test`, and the scores of all these.
    """
    settings = translator.settings
    held_out, beyond = bins(settings["longest"])
    print("\nHow good are translations of sources that were not in training?\n")
    print("  words in the source      pairs    exact    words    chrF    BLEU  copied")
    parts = [("held out", test, held_out)]
    if longer:
        parts.append(("longer than any in training", longer, beyond))
    results = []
    for name, pairs, groups in parts:
        print(f"  {name}")
        translations = translator.translate([source for source, _ in pairs], beam_width=beam)
        lengths = [len(translator.words(source)) for source, _ in pairs]
        for low, high in groups:
            rows = [n for n, length in enumerate(lengths) if low <= length <= high]
            if rows:
                some = [translations[n] for n in rows], [pairs[n][1] for n in rows]
                print(f"    {low:5} to {high:3}        {row(score(translator, *some))}")
        all_scores = score(translator, translations, [target for _, target in pairs])
        print(f"      all               {row(all_scores)}")
        results.append((translations, all_scores))
    print(
        "\n  exact: without a mistake. words: right words, by edit distance. chrF, BLEU: likeness"
        "\n  to the right text, 0 to 100. copied: the chrF of the source itself, to compare with."
    )
    if results[0][1].chrf is None:
        print("  chrF and BLEU need sacrebleu: pip install sacrebleu")
    unknown = share_unknown(translator, [source for source, _ in test])
    for line in conclusions(settings, results[0][1], history, unknown):
        print(line)
    if longer:
        for line in about_longer(settings, results[0][1], results[1][1]):
            print(line)
    return results[0]


def row(scores):
    """Write scores as a row of the table."""
    likeness = [scores.chrf, scores.bleu, scores.copied]
    numbers = "".join(
        f"{number:8.1f}" if number is not None else f"{'-':>8}" for number in likeness
    )
    return f"{scores.pairs:8,}{scores.exact:9.1%}{scores.words:9.1%}{numbers}"


def share_unknown(translator, sources):
    """Return the share of the words of some sources that the vocabulary has not."""
    words = sum(len(translator.words(source)) for source in sources)
    return sum(len(translator.unknown_words(source)) for source in sources) / max(words, 1)


FEW = 20_000  # pairs: with less, hardly a model of real text learns more than its phrases
OVERFITTED = 1.0  # so much higher, in nats a word, is the validation loss than that of training


def conclusions(settings, scores, history, unknown):
    """Say in a few lines what the scores mean, and what to try."""
    real, count = bool(settings["pairs"]), settings["count"]
    if scores.exact >= 0.9:
        yield "\nIt translates such sources: nine of ten or more without a mistake."
        return
    gained = scores.chrf - scores.copied if scores.chrf is not None else 100 * scores.words - 20
    if scores.words >= 0.6:
        yield "\nMost words are right; read what it writes before you use it."
    elif scores.words >= 0.45:
        yield "\nAbout half of the words are right: enough for the gist of a text, and no more."
    elif gained >= 10:
        yield "\nIt has learned phrases, and makes up the rest: of no use as a translation."
    else:
        yield "\nIt does not translate: a copy of the source is about as much like the right text."
    checks = dict(history.checks)
    learned = float(np.mean(history.losses[max(history.best - 200, 0) : history.best] or [0]))
    gap = checks[history.best] - learned
    yield "What to try:"
    if real and count < FEW:
        yield f"  More pairs: {count:,} are few. Real text takes {FEW:,}, or many more, of a kind."
    if real and unknown > 0.03 and not settings["subwords"]:
        yield (
            f"  --subwords {2000 if count < FEW else 8000}: {unknown:.0%} of the words of these "
            "sources are unknown; pieces of words are not."
        )
    if gap > OVERFITTED:
        yield (
            f"  --dropout {min(settings['dropout'] + 0.1, 0.6):.1f}: the loss is {learned:.2f} on "
            f"training pairs and {checks[history.best]:.2f} on others: it learns them by heart."
        )
    elif history.best == history.checks[-1][0]:
        yield "  --seconds, more of them: the validation loss was still falling at the end."
    if real and count < FEW and not settings["lower"]:
        yield "  --lower: without capitals there are fewer words to learn."
    if settings.get("attention") == "none":
        yield "  --attention additive: now one vector stands for all of a source."


def about_longer(settings, scores, longer):
    """Say why a Transformer translates sources worse that are longer than any in training."""
    if not settings.get("positions") or longer.words > scores.words - 0.05:
        return
    yield f"\nLonger sources come out worse: {longer.words:.0%} of their words are right."
    yield "  A Transformer learns each position, or each distance, by itself, and met none beyond"
    yield f"  {settings['longest']} words in training. --longest WORDS trains with longer pairs."


def show_samples(translator, pairs, beam=1):
    """Print some translations, and where one is wrong the right one."""
    print("\nSamples:")
    translations = translator.translate([source for source, _ in pairs], beam_width=beam)
    for got, (source, right) in zip(translations, pairs, strict=True):
        right = translator.normalised(right)
        remark = "" if got.target == right else f"\n    wrong, right is: {right}"
        print(f"  {source}\n    {got.target}{remark}")


# ---- Pictures ------------------------------------------------------------------------------------


def draw_alignment(got, path, right=None):
    """Draw what the decoder looked at for a translation; where it is wrong, say what is right.

    Of several layers and heads this is the one that `alignment` chooses, named in the title.
    """
    from attnc.plot import heat_map

    weights, name = alignment(got.weights)
    title = "\n".join(line for line in (name, remark(got, right)) if line)
    ax = heat_map(weights, got.target_words, got.source_words, title=title or None)
    ax.set(xlabel="source", ylabel="translation")
    ax.figure.savefig(path, dpi=150)


def draw_heads(got, path, right=None):
    """Draw what every head of every layer looked at, a row a layer; else as `draw_alignment`."""
    from attnc.plot import head_grid

    title = remark(got, right) or None
    words = got.target_words, got.source_words
    axes = head_grid(got.weights, *words, title=title, xlabel="source", ylabel="translation")
    axes[0, 0].figure.savefig(path, dpi=150)


def remark(got, right):
    """Say what is right, where a translation is wrong."""
    return "" if right in (None, got.target) else f"WRONG. Right is: {right}"


def alignment(weights):
    """Reduce the weights of a translation to one matrix, and name the head that it is of.

    Of (layers, heads, rows, columns) it is one head as it is, the one most like an alignment: for
    each word of the source take the largest weight that a word of the translation gives it; their
    mean is highest. It is 1 where every word of the source has a word of the translation that looks
    at nothing else, and 1 / columns where all look at one word, or evenly at all.
    """
    if weights.ndim == 2:
        return weights, ""
    likeness = weights.max(axis=-2).mean(axis=-1)
    layer, head = np.unravel_index(likeness.argmax(), likeness.shape)
    return weights[layer, head], f"layer {layer}, head {head}: the most like an alignment"


def most_crossing(translations, targets):
    """Choose what to draw: where there is one a right translation, with most words out of order.

    Returns the translation and its right text. Short ones, which can be read, come first.
    """

    def worth(pair):
        got, right = pair
        weights, _ = alignment(got.weights)
        rows, columns = weights.shape
        steps_back = np.sum(np.diff(weights.argmax(axis=-1)) < 0)
        return got.target == right, rows > 2, max(rows, columns) <= 20, steps_back

    pairs = [pair for pair in zip(translations, targets, strict=True) if pair[0].target_words]
    return max(pairs, key=worth)


def draw_losses(history, path, **axes):
    """Draw the loss of every step, and that on what is for validation; `axes` may have labels."""
    from attnc.plot import loss_curve

    ax = loss_curve(history.losses, history.checks)
    ax.set(**axes)
    ax.figure.savefig(path, dpi=150)
