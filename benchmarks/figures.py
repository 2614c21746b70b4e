"""From the seconds of every round to rates, ratios and per cent of the machine's limit."""

import math
from statistics import geometric_mean, median

from benchmarks.cases import KINDS, as_case

UNITS = {"GFLOP/s": 1e9, "G terms/s": 1e9, "GB/s": 1e9}


class Figures:
    """The figures of one case. What was not measured is None.

    Parameters
    ----------
    record : dict
        One of the "results" of a file like results-avx2.json.
    """

    def __init__(self, record):
        self.record = record
        self.kind, self.case = KINDS[record["kind"]], as_case(record["case"])

    def seconds(self, name="attnc"):
        """Of one call: the median of the rounds."""
        timed = self.record["contenders"].get(name)
        return median(timed["seconds"]) if timed else None

    def rate(self):
        """Of attnc, in the unit of the kind."""
        seconds = self.seconds()
        if seconds is None or self.kind.rate is None:
            return None
        work = self.case.bytes_read if self.kind.rate == "GB/s" else self.case.work
        return work / seconds / UNITS[self.kind.rate]

    def limit(self):
        """Of the machine, in the same unit and measured in the same rounds."""
        limit = self.record["limit"]
        return limit and limit["work"] / median(limit["seconds"]) / UNITS[self.kind.rate]

    def percent(self):
        """Of the limit that attnc reaches."""
        return self.limit() and 100 * self.rate() / self.limit()

    def ratio(self, name):
        """How many times as fast as a peer attnc is."""
        seconds = self.seconds(name)
        return seconds and seconds / self.seconds()

    def best_peer(self):
        """The name of the fastest other contender."""
        peers = [name for name in self.record["contenders"] if name != "attnc"]
        return min(peers, key=self.seconds, default=None)

    def memory(self, name="attnc"):
        """The peak of the extra memory in megabytes."""
        used = self.record["memory"].get(name)
        return None if used is None else used / 1e6


class Mean:
    """The geometric means of the ratios of several cases.

    Parameters
    ----------
    figures : list of Figures
    """

    def __init__(self, figures):
        self.figures = figures

    def _mean(self, ratios):
        return geometric_mean(ratios) if ratios and None not in ratios else None

    def ratio(self, name):
        return self._mean([each.ratio(name) for each in self.figures])

    def ratio_to_best(self):
        return self._mean([each.ratio(each.best_peer()) for each in self.figures])

    def percent(self):
        return None


def limits(results):
    """What the machine can do, over all cases: median of each limit, by name and unit."""
    found = {}
    for figures in map(Figures, results):
        if figures.limit():
            name = figures.kind.limit
            if name == "FMA peak":
                name += f" {figures.case.computed}"
            found.setdefault((name, figures.kind.rate), []).append(figures.limit())
    return {key: median(values) for key, values in found.items()}


def digits(number, count=3):
    """A positive number with so many digits that count, never with an exponent."""
    if not number:
        return "0"
    decimals = count - 1 - math.floor(math.log10(number))
    return f"{round(number, decimals):.{max(0, decimals)}f}"


def duration(seconds):
    """A time with its unit."""
    units = (("s", 1), ("ms", 1e-3), ("µs", 1e-6))
    unit, size = next((each for each in units if seconds >= each[1]), units[-1])
    return f"{digits(seconds / size)} {unit}"
