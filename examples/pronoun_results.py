"""How well pronoun.py finds the noun that "it" means, where "it" looks, and a picture of that."""

import numpy as np
from pronoun_sentences import PATTERNS, TOKENS, Sentence, arrays

from attnc.plot import links


def answers(model, sentences):
    """Return which of its two nouns the model takes for "it", of each sentence."""
    tokens, lengths, _ = arrays(sentences)
    return [
        max([s.meant, s.other], key=lambda noun: scores[TOKENS[noun]])
        for s, scores in zip(sentences, model(tokens, lengths), strict=True)
    ]


def looks_at(model, sentences, noun):
    """Return the share of sentences in which "it" has its largest weight on a noun.

    The noun is that which is "meant", or the "other" one; the shares are (layers, heads).
    """
    tokens, lengths, _ = arrays(sentences)
    at = np.array([s.words.index(getattr(s, noun)) for s in sentences])
    largest = model.weights(tokens, lengths).argmax(axis=-1)
    return (largest == at[:, None, None]).mean(axis=0)


def report(models, test, validation):
    """Print how good the models are, and where the first one looks."""
    meant = [s.meant for s in test]
    right = [np.array(answers(model, test)) == meant for model in models.values()]
    print('\nWhich of the two nouns is "it"? Right answers, sentences of the test\n')
    print(f"{'sentences':>38}" + "".join(f"{name:>15}" for name in models))
    for name in [*PATTERNS, "all"]:
        rows = np.array([name in (s.pattern, "all") for s in test])
        shares = "".join(f"{found[rows].mean():15.1%}" for found in right)
        print(f"  {name:24}{rows.sum():12,}{shares}")
    print("""
  A bag can know which adjectives go with animals, and which with ways. Where both nouns are of one
  kind, the same words in another order mean the other noun, and a bag has no order: its best guess
  is right half of the time.

Where does "it" look? Sentences of the test in which its largest weight is on the noun meant
""")
    model = next(iter(models.values()))
    shares, other = (looks_at(model, test, noun) for noun in ("meant", "other"))
    print(" " * 9 + "".join(f"{f'head {head}':>10}" for head in range(shares.shape[1])))
    for layer, row in enumerate(shares):
        print(f"  layer {layer}" + "".join(f"{share:10.1%}" for share in row))
    known = looks_at(model, validation, "meant")
    layer, head = best = np.unravel_index(known.argmax(), known.shape)
    print(f"""
  Layer {layer}, head {head} does best in sentences of the validation. In the test it looks at the
  noun meant {shares[best]:.1%} of the time, and at the other one {other[best]:.1%}.""")


def show(model, sentences, mistakes=3):
    """Print some sentences with the answers, and some that are answered wrongly."""
    found = answers(model, sentences)
    wrong = [n for n, s in enumerate(sentences) if found[n] != s.meant]
    print(f"\nSentences of the test; {len(wrong)} of {len(sentences):,} answers are wrong\n")
    for n in [*range(5), *[n for n in wrong if n >= 5][:mistakes]]:
        remark = f" (wrong: the {sentences[n].meant})" if n in wrong else ""
        print(f"  {' '.join(sentences[n].words)}: the {found[n]}{remark}")
    print()


def picture(model, layer, path):
    """Draw the links of "it" in all heads of a layer, in two sentences that differ in one word."""
    start = "the animal did not cross the street because it was too "
    pair = [
        Sentence(f"{start}{adjective}".split(), meant, other, adjective, None)
        for adjective, meant, other in (("tired", "animal", "street"), ("wide", "street", "animal"))
    ]
    tokens, lengths, _ = arrays(pair)
    weights = model.weights(tokens, lengths)[:, layer]  # (2, heads, T)
    at, heads = pair[0].words.index("it"), weights.shape[1]
    rows = np.zeros((*weights.shape, weights.shape[-1]))
    rows[:, :, at] = weights
    words = [s.words for s in pair for _ in range(heads)]
    titles = [f"{s.adjective}: head {head}" for s in pair for head in range(heads)]
    tired, wide = answers(model, pair)
    axes = links(
        rows.reshape(-1, *rows.shape[2:]),
        words,
        words,
        query=at,
        titles=titles,
        columns=heads,
        title=f'What "it" looks at in layer {layer}. Too tired: the {tired}. Too wide: the {wide}.',
    )
    axes[0].figure.savefig(path, dpi=150)
    return axes
