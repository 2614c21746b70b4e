"""What belongs to what: word alignments out of a translator with attention, and a dictionary.

    python align.py                             two minutes; the picture is align.png
    python align.py --quick                     a few seconds, too little training
    python align.py --pairs documentation.tsv   sentence pairs of your own: see corpus.py

A translator is trained in each direction, and then told the right words: the weights by which it
looks at the source before it writes a word say which words belong together, though nobody told it.
Bahdanau's decoder looks before its state has read the last word, and Luong's after that. In both
the weights of a step are for the word that it writes.

Generated dates and phrases have a known alignment, and so an alignment error rate. Beside attention
stands IBM model 1, which counts what words are in the same pairs, and knows no places. Real
sentences have no known alignment: there the dictionary shows what was found, in the order of Luong,
and words that are the same in both languages, such as names, have to be linked.
"""

import argparse
import os
import sys

# Matrices this small gain nothing from threads, which wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
try:
    import align_results as results
    import numpy as np
    from align_prose import learn_prose
    from align_results import Found
    from aligned_dates import aligned_pairs
    from aligners import BEST, Settings, both_ways, counted, looked_at, translator
    from alignments import crosses, in_words, rates
    from command import Parser, check_numbers, errors_in_a_line
    from lexicon import dictionary, right
    from phrases import aligned_phrases
    from training import Course, with_seeds

    from attnc.data import detokenise
except ImportError as error:
    sys.exit(f"align.py: {error}; install it with: pip install {error.name}")

TASKS = {
    "dates": lambda count, rng: [in_words(x) for x in aligned_pairs("en", "fr", count, rng)],
    "phrases": aligned_phrases,
}
ORDERS = ("Bahdanau", "Luong")

# ---- Pairs of known alignment --------------------------------------------------------------------


def measure(seed, task, count, settings, threshold):
    """Learn generated pairs in both directions and orders, and align those that are held out."""
    pairs, ways = TASKS[task](count, np.random.default_rng([seed, 0])), ("en", "fr")
    held = len(pairs) // 10
    test, words = pairs[:held], [pair[:2] for pair in pairs]
    texts = [(detokenise(source), detokenise(target)) for source, target in words]
    weights, exact = {}, {}
    for name in ORDERS:
        settings = settings._replace(order=name.lower())
        weights[name], exact[name] = zip(
            *(
                learned(some, held, settings, seed, f"{name}, {task}, seed {seed}")
                for some in (texts, [pair[::-1] for pair in texts])
            ),
            strict=True,
        )
    weights["IBM model 1"] = counted(words[held:], words)
    found, beside, dictionaries = {}, {}, {}
    for name, both in weights.items():
        links = both_ways(both, ways, threshold)
        found[name] = {way: rates(some[:held], test) for way, some in links.items()}
        forward = next(iter(links.values()))[:held]
        beside[name] = [rates([moved(x, by) for x in forward], test).error for by in (-1, 1)]
        entries = dictionary(words[held:], links[BEST][held:])
        dictionaries[name] = entries, right(entries, pairs[held:])
    n = max(range(held), key=lambda n: worth_seeing(test[n]))
    maps = {f"{name}, en → fr": there[n][:, :-1] for name, (there, _) in weights.items()}
    maps["Luong, fr → en"] = weights["Luong"][1][n][:, :-1].T
    return Found(len(pairs) - held, held, found, beside, exact, dictionaries, (test[n], maps))


def learned(texts, held, settings, seed, name):
    """Learn but the first `held` texts; return the weights for all, and how many come out right."""
    model = translator(texts[held:], settings, seed, name)
    got = model.translate([source for source, _ in texts[:held]])
    exact = np.mean([a.target == b for a, (_, b) in zip(got, texts[:held], strict=True)])
    return looked_at(model, texts), exact


def moved(links, by):
    """Give the links of each word of the target to the word so many places later, 1 or -1."""
    return np.pad(links, ((1, 1), (0, 0)))[1 - by :][: len(links)]


def worth_seeing(pair):
    """What makes a pair the one to draw: short, with crossing links, and one word for several."""
    several = (pair.possible & ~pair.sure).any()
    return len(pair.target) <= 10, crosses(pair.sure).any() and several, crosses(pair.sure).sum()


def of_one_seed(seed, *arguments):
    """Return {task: Found}."""
    return {task: measure(seed, task, *arguments) for task in TASKS}


# ---- The command ---------------------------------------------------------------------------------


def run(args):
    size: dict = {"embedding": 16, "state": 32} if args.quick else {}
    if args.pairs:
        course = Course(args.steps or (10 if args.quick else 2000), 32, 0.002)
        size = size or {"embedding": 128, "state": 128}
        settings = Settings(course, **size, dropout=0.3, order="luong", lower=True, least=2)
        prose = learn_prose(args.pairs, args.longest or 25, settings, args.seed, args.threshold)
        results.report_prose(prose)
        entries, shown = prose.dictionaries[0], [prose.shown]
    else:
        course = Course(args.steps or (20 if args.quick else 600), 64, 0.004)
        settings = Settings(course, **size, dropout=0.1)
        count = 400 if args.quick else 6000
        seeds = range(args.seed, args.seed + (args.seeds or (1 if args.quick else 3)))
        found = with_seeds(of_one_seed, seeds, count, settings, args.threshold)
        for task in TASKS:
            results.report(task, [each[task] for each in found])
        entries, _ = found[0]["phrases"].dictionary["Luong"]
        shown = [found[0][task].shown for task in TASKS]
    results.show_dictionary(entries)
    if args.dictionary:
        results.write_dictionary(entries, args.dictionary)
    results.draw(shown, args.output)
    spent = sum(os.times()[:4])  # with those of the processes of seeds
    print(f"\n{spent:.0f} seconds of processor time in all.\n{args.output}")


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="align.py", description=__doc__, formatter_class=raw)
    add = parser.add_argument
    add("--pairs", metavar="FILE", help="sentence pairs: .tsv, .po, .mo, .tmx, or Moses'")
    add("--longest", type=int, metavar="WORDS", help="in sources of the file (default: 25)")
    add("--threshold", type=float, metavar="WEIGHT", help="of links, in place of the largest")
    add("--steps", type=int, help="of training (default: 600; with --pairs 2000)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, metavar="N", help="so many, from --seed on (default: 3)")
    add("--output", metavar="FILE", default="align.png", help="the picture")
    add("--dictionary", metavar="FILE", help="write all entries: words, count, p, score")
    add("--quick", action="store_true", help="a few steps of small models, for tests")
    args = parser.parse_args()
    given = {name: value for name, value in vars(args).items() if value is not None}
    check_numbers(parser, given, {"longest": 1, "steps": 1, "seed": 0, "seeds": 1})
    if args.threshold is not None and not 0 < args.threshold < 1:
        parser.error(f"argument --threshold: must lie between 0 and 1, got {args.threshold}")
    if args.pairs and args.seeds:
        parser.error("argument --seeds: does nothing with --pairs, which trains once")
    if args.longest and not args.pairs:
        parser.error("argument --longest: does nothing without --pairs")
    with errors_in_a_line("align.py"):
        run(args)


if __name__ == "__main__":
    main()
