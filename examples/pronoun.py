"""Who is "it"? A small Transformer learns which noun of a sentence a pronoun stands for.

    python pronoun.py                        about a minute; pictures in pronoun/
    python pronoun.py --layers 1             with one layer it cannot be learnt: see below

"The animal did not cross the street because it was too tired": or too wide, and "it" is the street
(Uszkoreit 2017, "Transformer: a novel neural network architecture for language understanding";
Levesque et al. 2012, "The Winograd schema challenge"). The model is told which noun is meant, and
nothing of where to look::

    words -> Embedding + SinusoidalPositions -> TransformerEncoder -> at "it": Linear -> the noun

It learns which nouns and adjectives go together (animals get tired, streets are wide), and who does
what: a box that does not fit is too large, the one that it does not fit in is too small. It is
tested with adjectives that it has never seen together with one of the nouns. Beside it learns a
twin without attention and positions, for which a sentence is a bag: the sum of its words.

There is a picture for each layer: how much each word counts for "it", in each head. Two layers are
needed: before "it" can look for the noun that fits, it has to look for the adjective.
"""

import argparse
import os
import sys

try:
    import matplotlib
    import numpy as np
    from pronoun_results import picture, report, show
    from pronoun_sentences import TOKENS, arrays, draw, pairs, split
    from tqdm import tqdm

    import attnc
    from attnc.losses import softmax_cross_entropy
except ImportError as error:
    sys.exit(f"pronoun.py: {error}; install it with: pip install {error.name}")

matplotlib.use("Agg")  # pictures go to files, with or without a screen

# ---- The models ----------------------------------------------------------------------------------


class Reader(attnc.Layer):
    """Scores of every word to be the noun meant, from the tokens of sentences with one "it"."""

    def __init__(self, size, rng, dtype="float32"):
        super().__init__(dtype)
        count, made = 1 + len(TOKENS), {"rng": rng, "dtype": dtype}
        self.embedding = attnc.Embedding(count, size, padding_index=0, **made)
        self.output = attnc.Linear(size, count, **made)

    def _vjp(self, tokens, lengths):
        x, back_to_tokens = attnc.vjp(self.embedding, tokens)
        read, back_to_x = self.read(x, tokens, lengths)
        logits, back_to_read = attnc.vjp(self.output, read)

        def pullback(dlogits):
            (dread,) = back_to_read(dlogits)
            return back_to_tokens(back_to_x(dread))

        return logits, pullback


class Bag(Reader):
    """What it reads of a sentence is the sum of its words."""

    def read(self, x, tokens, lengths):
        return x.sum(axis=1), lambda dread: np.broadcast_to(dread[:, None], x.shape)


class Attentive(Reader):
    """What it reads is what a Transformer makes of the word "it"."""

    def __init__(self, size, rng, layers, heads, dtype="float32"):
        super().__init__(size, rng, dtype)
        self.positions = attnc.SinusoidalPositions(size, dtype=dtype)
        self.encoder = attnc.TransformerEncoder(
            layers, size, heads, feedforward_size=2 * size, rng=rng, dtype=dtype
        )
        # Small weights to begin with: the rule, not a list of cases, and in fewer steps.
        for name, weight in self.encoder.parameters.items():
            if weight.ndim > 1:
                self.encoder.parameters[name] = 0.35 * weight

    def placed(self, x):
        """Vectors of words with their positions, which shall not count for more than the words."""
        return self.positions(x * x.shape[-1] ** 0.5)

    def read(self, x, tokens, lengths):
        y, back = attnc.vjp(self.encoder, self.placed(x), key_lengths=lengths)

        def back_to_x(dread):
            dy = np.zeros_like(y)
            dy[tokens == TOKENS["it"]] = dread
            return back(dy).x * x.shape[-1] ** 0.5

        return y[tokens == TOKENS["it"]], back_to_x

    def weights(self, tokens, lengths):
        """Return how much each word counts for "it", (B, layers, heads, T)."""
        x = self.placed(self.embedding(tokens))
        weights = self.encoder(x, key_lengths=lengths, return_weights=True).weights
        return np.moveaxis(weights, 3, 1)[tokens == TOKENS["it"]]


def train(model, rng, parts, steps, title):
    """Train the model; return the (noun, adjective) that were in its sentences."""
    optimizer, seen = attnc.optim.Adam(model), set()
    for step in tqdm(range(steps), desc=title, bar_format="{desc}: {percentage:3.0f} % |{bar}|"):
        sentences = draw(rng, parts, "training", 64)
        seen |= pairs(sentences)
        tokens, lengths, meant = arrays(sentences)
        logits, pullback = attnc.vjp(model, tokens, lengths)
        _, back_to_logits = attnc.vjp(softmax_cross_entropy, logits, meant)
        optimizer.zero_grad()
        pullback(*back_to_logits())
        attnc.optim.clip_gradients(model, 1.0)
        optimizer.learning_rate = 0.002 * min(1, (step + 1) / 100, 2 - 2 * step / steps)
        optimizer.step()
    return seen


# ---- The command ---------------------------------------------------------------------------------


def main():
    parser = argparse.ArgumentParser(description='Learn who is "it", and draw where it looks.')
    add = parser.add_argument
    add("--steps", type=int, default=2500, help="of training, 64 sentences each (default: 2500)")
    add("--layers", type=int, default=2, help="of the Transformer (default: 2)")
    add("--heads", type=int, default=4, help="of each layer (default: 4)")
    add("--output", metavar="DIR", default="pronoun", help="for the pictures (default: pronoun)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--quick", action="store_true", help="a few steps, for tests")
    args = parser.parse_args()
    if args.steps < 1:
        parser.error(f"argument --steps: must be at least 1, got {args.steps}")
    os.makedirs(args.output, exist_ok=True)
    rng, steps = np.random.default_rng(args.seed), min(args.steps, 40) if args.quick else args.steps

    parts = split(rng)
    validation, test = (
        list(dict.fromkeys(draw(rng, parts, part, 100 if args.quick else 2000)))  # each once
        for part in ("validation", "test")
    )
    models = {
        "attention": Attentive(64, rng, args.layers, args.heads),
        "bag of words": Bag(64, rng),
    }
    seen = set()
    for name, model in models.items():
        seen |= train(model, rng, parts, steps, name)
    tested = pairs(test)
    assert not seen & tested  # a noun and an adjective of the test were never seen together
    print(f"\n{len(seen):,} pairs of a noun and an adjective were seen together in training. The "
          f"{len(test):,} sentences of\nthe test have {len(tested):,} others.")  # fmt: skip
    report(models, test, validation)
    show(models["attention"], test)
    for layer in range(args.layers):
        path = f"{args.output}/layer-{layer}.png"
        picture(models["attention"], layer, path)
        print(path)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"pronoun.py: {error}")
    except KeyboardInterrupt:
        sys.exit("pronoun.py: stopped by Ctrl-C")
