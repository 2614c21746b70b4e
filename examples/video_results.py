"""How good the captions of video.py are, where their words look, and the pictures of that."""

import numpy as np
from clips import END, FRAMES, GRID, MOVES, WORDS, cells, slots, text

import attnc


def where(weights, clips):
    """Name: (share of a word's weights, share of the regions) that lie where it says."""
    at = slots(clips.words)
    digit, first, _, second = (weights[np.arange(len(at)), column] for column in at.T)
    before = (np.arange(MOVES) < clips.turn[:, None])[..., None]
    moves = np.diff(clips.moving, axis=1).any(axis=2)
    rests = ~moves.all(axis=1)
    moving, still = cells(clips.moving[:, 1:]), cells(clips.still)[:, None]
    asked = {
        "first direction: before the turn": (first, before),
        "second direction: after the turn": (second, ~before),
        "digit: on the digit that moves": (digit, moving),
        "digit: on the digit that lies still": (digit, still),
        "digit: while it moves, of those that also stay": (digit[rests], moves[rests][..., None]),
    }
    return {
        name: ((w * there).sum(axis=(1, 2)).mean(), np.broadcast_to(there, w.shape).mean())
        for name, (w, there) in asked.items()
    }


def report(runs, seeds):
    """Print the tables of the runs, one for each seed."""
    names = [f"seed {seed}" for seed in seeds]
    print("Captions without a mistake, and words that are right, of digits not seen in training\n")
    columns = [*names, "mean", "digit", "first", "then", "second"]
    print(" " * 12 + "".join(f"{name:>8}" for name in columns) + "  parameters  seconds")
    for way in runs[0]:
        found = [each[way] for each in runs]
        exact = [each.exact for each in found]
        shares = [*exact, np.mean(exact), *np.mean([each.words for each in found], axis=0)]
        seconds = np.mean([each.seconds for each in found])
        print(f"{way:12}" + "".join(f"{share:8.1%}" for share in shares)
              + f"{found[0].parameters:12,}{seconds:9.0f}")  # fmt: skip
    print(f"\nCaptions without a mistake in validation, {names[0]}, after so many steps\n")
    checks = next(iter(runs[0].values())).checks
    print(" " * 12 + "".join(f"{check.step:8,}" for check in checks))
    for way, found in runs[0].items():
        print(f"{way:12}" + "".join(f"{check.found:8.1%}" for check in found.checks))
    if "attention" in runs[0]:
        print("\nWhere words look: the share of their weights, and the share of regions\n")
        looks = [each["attention"].looks for each in runs]
        for name in looks[0]:
            weight, share = np.mean([each[name] for each in looks], axis=0)
            print(f"{name:50}{weight:8.1%}{share:8.1%}")


def draw(clip, path):
    """Draw where each word of a caption looked: a row of frames for each, digits in black.

    A clip: its frames, the weights, the words that were written, and those that are right.
    """
    frames, weights, words, wanted = clip
    count = max(1, (np.append(words, END) == END).argmax())
    maps = np.zeros((count, FRAMES, GRID, GRID))  # the first frame is seen beside the second alone
    maps[:, 1:] = weights[:count].reshape(count, MOVES, GRID, GRID)
    title = text(words) if (words == wanted).all() else f"{text(words)} (in truth: {text(wanted)})"
    said = [WORDS[word] for word in words[:count]]
    axes = attnc.plot.strip(1 - frames, maps, said, title=title, cmap="Reds", alpha=0.6)
    axes[0, 0].figure.savefig(path, dpi=120)
