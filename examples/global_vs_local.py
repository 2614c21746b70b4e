"""Global against local attention, on dates of which it is known what belongs to what.

    python global_vs_local.py                    four minutes; the picture is global-vs-local.png
    python global_vs_local.py --quick            a few seconds, smaller models

The attentions of Luong, Pham and Manning (2015), "Effective approaches to attention-based neural
machine translation", translate lists of dates from English to French, character by character::

    source -> Embedding -> GRU in both directions -> memory, a vector for each character
    target so far -> Embedding -> GRU -> h_t -> attention to the memory: context c_t
    o_t = tanh([c_t; h_t] W_c) -> Linear -> the next character

All models have one setting, and begin with the same parameters where they have them in common.
*Global* attention scores every character of the source, by its content (dot, general) or by its
place alone (location); *local* attention scores the window of D characters to both sides of one
place: that of the target (local-m), or one that the model predicts from h_t (local-p).
"""

import argparse
import os
import pathlib
import sys
import time

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import matplotlib
    import numpy as np
    from aligned_dates import aligned_pairs, alignment_error
    from command import check_numbers, errors_in_a_line
    from tqdm import tqdm

    import attnc
    from attnc.data import Vocabulary, batches, pad
    from attnc.losses import softmax_cross_entropy
    from attnc.plot import heat_maps
except ImportError as error:
    sys.exit(f"global_vs_local.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # the picture goes to a file, with or without a screen

# ---- The models ----------------------------------------------------------------------------------


class LocationAttention(attnc.Layer):
    """Luong's location score: weights from the query alone, ``softmax(W_a q_t)``, eq. 8.

    The score of place j is the j-th number of W_a q_t, whatever is there. There are numbers for
    `longest` places: what a longer memory has beyond is not attended to.
    """

    def __init__(self, query_size, longest, *, rng=None, dtype="float32"):
        super().__init__(dtype)
        self.query_size, self.longest = query_size, longest
        self.score = attnc.Linear(query_size, longest, bias=False, rng=rng, dtype=dtype)

    def _vjp(self, query, memory, *, key_lengths=None, return_weights=False):
        places, back_to_query = attnc.vjp(self.score, query)
        Tk = memory.shape[-2]
        scores = np.zeros((*places.shape[:-1], Tk), places.dtype)
        scores[..., : self.longest] = places[..., :Tk]
        lengths = np.minimum(Tk if key_lengths is None else key_lengths, self.longest)
        lengths = np.broadcast_to(lengths, memory.shape[:-2])
        output, back = attnc.vjp(
            attnc.attend, scores, memory, key_lengths=lengths, return_weights=return_weights
        )

        def pullback(dcontext=None, *, dweights=None):
            dscores, dmemory = back(
                dcontext, **({} if dweights is None else {"dweights": dweights})
            )
            dplaces = np.zeros_like(places)
            dplaces[..., :Tk] = dscores[..., : self.longest]
            return attnc.gradients.Gradients({"query": back_to_query(dplaces).x, "memory": dmemory})

        return output, pullback


class Translator(attnc.Layer):
    """Encoder and decoder after Luong, without input feeding: all steps attend at once."""

    def __init__(self, sizes, size, attention, rng, dtype="float32"):
        super().__init__(dtype)
        made = {"rng": rng, "dtype": dtype}
        self.source = attnc.Embedding(sizes[0], size // 2, padding_index=0, **made)
        self.target = attnc.Embedding(sizes[1], size // 2, padding_index=0, **made)
        self.encoder = attnc.GRU(size // 2, size // 2, bidirectional=True, **made)
        self.decoder = attnc.GRU(size // 2, size, **made)
        self.readout = attnc.Linear(2 * size, size, bias=False, **made)
        self.output = attnc.Linear(size, sizes[1], **made)
        self.attention = attention

    def _vjp(self, source, lengths, target, labels):
        x, back_to_source = attnc.vjp(self.source, source)
        (memory, final), back_to_x = attnc.vjp(self.encoder, x, lengths=lengths)
        first = np.concatenate(list(final), axis=-1)[None]  # both directions side by side
        y, back_to_target = attnc.vjp(self.target, target)
        (h, _), back_to_y = attnc.vjp(self.decoder, y, first)
        (c, weights), back_to_h = attnc.vjp(
            self.attention, h, memory, key_lengths=lengths, return_weights=True
        )
        pair, back_to_pair = attnc.vjp(self.readout, np.concatenate([c, h], axis=-1))
        o = np.tanh(pair)
        logits, back_to_o = attnc.vjp(self.output, o)
        loss, back_to_logits = attnc.vjp(
            softmax_cross_entropy, logits, labels, ignore_index=Vocabulary.padding
        )

        def pullback():
            (do,) = back_to_o(*back_to_logits())
            dc, dh = np.split(back_to_pair(do * (1 - o * o)).x, 2, axis=-1)
            of_query, dmemory = back_to_h(dc)
            down = back_to_y(dh + of_query)
            back_to_target(down.x)
            dfinal = np.stack(np.split(down.state[0], 2, axis=-1))
            back_to_source(back_to_x(dmemory, dfinal).x)
            return attnc.gradients.Gradients({})

        return (loss, logits, weights), pullback

    def translate(self, source, lengths, longest):
        """Always the most probable next character: (tokens, weights)."""
        memory, final = self.encoder(self.source(source), lengths=lengths)
        state = np.concatenate(list(final), axis=-1)[None]
        B = len(source)
        tokens, h = np.full((B, 1), Vocabulary.start), np.zeros((B, 0, state.shape[-1]), self.dtype)
        done = np.zeros(B, bool)
        while not done.all() and tokens.shape[1] <= longest:
            step, state = self.decoder(self.target(tokens[:, -1:]), state)
            h = np.concatenate([h, step], axis=1)  # so that a step knows its number
            c, weights = self.attention(h, memory, key_lengths=lengths, return_weights=True)
            o = np.tanh(self.readout(np.concatenate([c[:, -1:], step], axis=-1)))
            best = self.output(o)[:, 0].argmax(axis=-1)
            tokens = np.concatenate([tokens, np.where(done, 0, best)[:, None]], axis=1)
            done |= best == Vocabulary.end
        return tokens[:, 1:], weights


def attentions(size, longest, width, rng, dtype="float32"):
    """Return {name: attention}; each begins as if it were alone."""

    def made(kind, *sizes, **options):
        return kind(*sizes, rng=np.random.default_rng(rng), dtype=dtype, **options)

    found = {
        "global, dot": attnc.DotProductAttention(scale=1.0, dtype=dtype),
        "global, general": made(attnc.MultiplicativeAttention, size, size),
        "global, location": made(LocationAttention, size, longest),
    }
    for name, position in (("local-m", "monotonic"), ("local-p", "predictive")):
        for score in ("dot", "general"):
            options = {"score": SCORES[score], "position": position, "width": width}
            found[f"{name}, {score}"] = made(attnc.LocalAttention, size, size, **options)
    return found


SCORES = {"dot": "dot", "general": "multiplicative"}  # by Luong's names


# ---- Training and measuring ----------------------------------------------------------------------

RATE = 0.005  # of learning, at its highest


class Data:
    """Pairs of aligned dates as arrays: characters as numbers, with the end of each side."""

    def __init__(self, pairs, source, target):
        self.pairs, self.vocabularies = pairs, (source, target)
        self.sides = [
            (
                source.encode(list(p.source), end=True),
                target.encode(list(p.target), start=True, end=True),
            )
            for p in pairs
        ]

    def __len__(self):
        return len(self.pairs)

    def batches(self, size, rng=None):
        """Yield rows and (source, lengths, target, labels) of pairs with sources of like length."""
        for rows in batches(
            [len(s) for s, _ in self.sides], size, shuffle=rng is not None, rng=rng
        ):
            source, lengths = pad([self.sides[row][0] for row in rows])
            target, _ = pad([self.sides[row][1] for row in rows])
            yield rows, (source, lengths, target[:, :-1], target[:, 1:])


def train(model, data, steps, rng, title):
    """Train by Adam, the rate falling to 0; return the processor time of a step, in seconds."""
    optimizer, start = attnc.optim.Adam(model), time.process_time()
    with tqdm(total=steps, desc=title, bar_format="{desc}: {percentage:3.0f} % |{bar}|") as bar:
        while bar.n < steps:
            for _, batch in data.batches(64, rng):
                _, pullback = attnc.vjp(model, *batch)
                optimizer.zero_grad()
                pullback()
                attnc.optim.clip_gradients(model, 1.0)
                optimizer.learning_rate = RATE * min(1, (bar.n + 1) / 50, 2 - 2 * bar.n / steps)
                optimizer.step()
                bar.update()
                if bar.n == steps:
                    break
    return (time.process_time() - start) / steps


def measure(model, data):
    """Return perplexity a character, share of exact translations, alignment error, and weights.

    The weights are those with the right characters so far, as for the perplexity.
    """
    total = count = exact = 0
    looked, pictures = [None] * len(data), [None] * len(data)
    for rows, (source, lengths, target, labels) in data.batches(128):
        loss, _, weights = model(source, lengths, target, labels)
        there = labels != Vocabulary.padding
        total, count = total + loss * there.sum(), count + there.sum()
        tokens, _ = model.translate(source, lengths, labels.shape[1] + 5)
        for row, got, w in zip(rows, tokens, weights, strict=True):
            pair = data.pairs[row]
            exact += "".join(data.vocabularies[1].decode(got)) == pair.target
            pictures[row] = w[: len(pair.target), : len(pair.source)]
            looked[row] = w[: len(pair.target)].argmax(axis=-1)
    error = alignment_error(looked, data.pairs)
    return np.exp(total / count), exact / len(data), error, pictures


# ---- The command ---------------------------------------------------------------------------------


def draw(pair, weights, path):
    """Draw the known alignment of a pair, and what each model looks at for it."""
    known = np.where(pair.sure, 1.0, 0.4 * pair.possible)
    panels = {"known: sure, possible": known, **weights}
    rows, columns = ([c.replace(" ", "_") for c in text] for text in (pair.target, pair.source))
    axes = heat_maps(list(panels.values()), rows, columns, titles=list(panels), xlabel=None)
    # A name without an ending gets none: the file is where it was asked for.
    axes[0].figure.savefig(path, dpi=150, format=pathlib.Path(path).suffix[1:] or "png")
    return axes


def compare(args):
    """Train and measure all models, print the table, draw the picture."""
    rng = np.random.default_rng(args.seed)
    pairs = aligned_pairs("en", "fr", 400 if args.quick else 12_000, rng, args.dates)
    size, steps = (16, min(args.steps, 10)) if args.quick else (128, args.steps)
    tested = min(len(pairs) // 5, 1000)
    words = [Vocabulary.build([list(pair[side]) for pair in pairs]) for side in (0, 1)]
    test, training = (Data(some, *words) for some in (pairs[:tested], pairs[tested:]))
    lengths = np.array([len(pair.source) + 1 for pair in pairs])  # with the end
    print(
        f"{len(training):,} pairs to train with, {len(test):,} to test, of up to {lengths.max()} "
        f"characters;\n{steps} steps of 64 pairs. Such as:"
    )
    print(f"  {pairs[0].source}\n  {pairs[0].target}")
    print(f"\n{'':20}perplexity     exact   alignment error   characters scored   ms a step")
    # The picture is of a long pair that still can be read.
    shown = max(range(tested), key=lambda n: (len(pairs[n].source) <= 30, len(pairs[n].source)))
    drawn = {}
    for name, attention in attentions(size, lengths.max(), args.window, args.seed).items():
        model = Translator(
            [len(w) for w in words], size, attention, np.random.default_rng(args.seed)
        )
        spent = train(model, training, steps, np.random.default_rng(args.seed), name)
        perplexity, exact, error, weights = measure(model, test)
        seen = lengths if "global" in name else np.minimum(lengths, 2 * args.window + 1)
        print(f"{name:20}{perplexity:10.4f}{exact:10.1%}{error:18.3f}{seen.mean():20.1f}"
              f"{1000 * spent:12.0f}")  # fmt: skip
        drawn[name] = weights[shown]
    draw(pairs[shown], drawn, args.output)
    print(
        "\n  perplexity: of a character, after the right ones. exact: written without a mistake."
        "\n  alignment error: of the largest weights, against the known alignment; 0 is best."
        "\n  characters scored: of the source, for each written. ms: processor time in training."
        f"\n\n{time.process_time():.0f} seconds of processor time in all.\n"
        f"{args.output}, of: {pairs[shown].source}"
    )


def main():
    parser = argparse.ArgumentParser(description="Global against local attention, on dates.")
    add = parser.add_argument
    add("--steps", type=int, default=800, help="of training, 64 pairs each (default: 800)")
    add("--dates", type=int, default=1, metavar="N", help="in a list, at most (default: 1)")
    add("--window", type=int, default=5, metavar="D", help="to both sides (default: 5)")
    add("--output", metavar="FILE", default="global-vs-local.png", help="the picture")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="small models, a few seconds, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "dates": 1, "window": 1, "seed": 0})
    with errors_in_a_line("global_vs_local.py"):
        compare(args)


if __name__ == "__main__":
    main()
