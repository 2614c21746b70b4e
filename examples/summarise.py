"""What attention is for: a long text to one line, with words copied from the text by attention.

    python summarise.py                      docstrings of installed modules to their first line
    python summarise.py --data packages      descriptions of Debian's packages to the short ones
    python summarise.py --pairs FILE         a text, a tab and its line, in each line of the file
    python summarise.py --quick              seconds, few steps
    python summarise.py --seeds 3            with three seeds, side by side

A recurrent network reads the text, and a decoder writes the line. At each step it writes a word of
its vocabulary or copies one of the text, by its attention; so it can write names that it has never
seen. In a last phase of the training it also learns not to look twice at the same words: See, Liu
and Manning (2017). The model is in summarise_model.py. The report holds it against the first words
of the text, the line of the most similar text, and the same model without copying, and without the
last phase.
"""

import copy
import sys

try:
    import numpy as np
    import summaries
    import summarise_results as results
    from command import Parser, check_numbers, errors_in_a_line
    from summarise_model import PointerGenerator
    from summarise_scores import Line, rouge
    from training import Course, learn, with_seeds

    import attnc
    from attnc.data import ExtendedVocabulary, Vocabulary, batches, pad
except ImportError as error:
    sys.exit(f"summarise.py: {error}; install it with: pip install {error.name}")

BATCH = 32
BEAM = 4
RATE = 0.003
LAST = 8  # the last phase has one in so many of the steps


class Task:
    """The pairs, the vocabulary of what is trained on, and the settings of the models."""

    def __init__(self, parts, words, steps, sizes):
        self.training, self.validation, self.test = parts
        texts = [side for pair in self.training for side in (pair.source, pair.line)]
        self.vocabulary = Vocabulary.build(texts, min_count=2, max_words=words)
        self.steps, self.sizes = steps, sizes

    def arrays(self, pairs):
        """What a model takes for some pairs; and the vocabulary of each, with its own words."""
        each = [ExtendedVocabulary(self.vocabulary, pair.source) for pair in pairs]
        source, lengths = pad([e.encode(p.source) for e, p in zip(each, pairs, strict=True)])
        labels, _ = pad([e.encode(p.line, end=True) for e, p in zip(each, pairs, strict=True)])
        before = np.pad(labels[:, :-1], ((0, 0), (1, 0)), constant_values=Vocabulary.start)
        return (source, lengths, before, labels), each


def train(model, task, course, coverage, seed, name):
    """Train a model, with the coverage loss times a factor; return the checks of `learn`."""
    rng = np.random.default_rng(seed)

    def forever():
        while True:
            yield from batches([len(pair.line) for pair in task.training], course.batch, rng=rng)

    rows = forever()

    def loss(step):
        inputs, _ = task.arrays([task.training[row] for row in next(rows)])
        reading, pullback = attnc.vjp(model, *inputs, coverage=coverage, rng=rng)
        pullback()
        return reading.loss

    def check():
        inputs, _ = task.arrays(task.validation[:200])
        return float(model(*inputs).loss)

    return learn(model, loss, course, check, checks=4, name=name)


def write(model, task, pairs, beam=BEAM):
    """Lines for the texts of some pairs by beam search: their words, and which were copied."""
    lines = []
    for rows in batches([len(pair.source) for pair in pairs], 50, shuffle=False):
        some = [pairs[row] for row in rows]
        (source, lengths, *_), each = task.arrays(some)
        memory, state = model.prepare_source(source, lengths, max(map(len, each)))
        found = attnc.beam_search(
            model, memory=memory, state=state, start=Vocabulary.start, end=Vocabulary.end,
            min_length=summaries.LINE[0], max_length=summaries.LINE[-1] + 1, beam_width=beam,
        )  # fmt: skip
        texts = [e.decode(row[0]) for e, row in zip(each, found.tokens, strict=True)]
        written = [pair._replace(line=text) for pair, text in zip(some, texts, strict=True)]
        reading = model(*task.arrays(written)[0])
        for n, row in enumerate(rows):
            lines.append((row, Line(texts[n], *(x[n] for x in reading[1:]))))
    return [line for _, line in sorted(lines, key=lambda each: each[0])]


def run(seed, task):
    """Train the models with a seed; return what each writes for the test, and what was trained."""
    first, last = task.steps - task.steps // LAST, max(task.steps // LAST, 1)
    found, curves = {}, {}
    for name, copies in (("no copying", False), ("copying", True)):
        made = {"copies": copies, "rng": seed} | task.sizes
        model = PointerGenerator(len(task.vocabulary), **made)
        checks = train(model, task, Course(first, BATCH, RATE), 0.0, [seed, 1], name)
        for phase, factor in {"": 0.0, " and coverage": 1.0}.items():
            if factor and not copies:
                continue
            longer = copy.deepcopy(model)
            if factor:
                longer.decoder.unfreeze("coverage_vector")
            course = Course(last, BATCH, RATE / 4)
            more = train(longer, task, course, factor, [seed, 2], name + phase)
            seconds = checks[-1].seconds + more[-1].seconds
            curves[name + phase] = checks[-1].found, more[-1].found, seconds
            found[name + phase] = write(longer, task, task.test)
    return found, curves


def main():
    parser = Parser(prog="summarise.py", description="A long text to one line, by attention.")
    add = parser.add_argument
    add("--data", choices=["docstrings", "packages"], default="docstrings", help="what is read")
    add("--pairs", metavar="FILE", help="texts and lines, tab-separated, instead")
    add("--steps", type=int, default=2000, help=f"of {BATCH} texts (default: 2000)")
    add("--seed", type=int, default=0, help="for all that is random (default: 0)")
    add("--seeds", type=int, default=1, metavar="N", help="so many seeds, from that one on")
    add("--output", metavar="FILE", default="summarise.png", help="the picture")
    add("--quick", action="store_true", help="few steps and a small model, for tests")
    args = parser.parse_args()
    check_numbers(parser, vars(args), {"steps": 1, "seed": 0, "seeds": 1})
    with errors_in_a_line("summarise.py"):
        scorer = rouge()  # before the training, if it is not installed
        parts = summaries.parts(args.data, args.pairs, most=1200 if args.quick else None)
        sizes, words, steps = {"size": 128, "dropout": 0.2}, 4000, args.steps
        if args.quick:
            parts = [part[:1000] if n == 0 else part[:50] for n, part in enumerate(parts)]
            sizes, words, steps = {"size": 32, "embedding": 16}, 500, min(steps, 40)
        task = Task(parts, words, steps, sizes)
        results.describe(task)
        seeds = range(args.seed, args.seed + args.seeds)
        found = with_seeds(run, seeds, task)
        results.report(found, task, scorer, args.output)


if __name__ == "__main__":
    main()
