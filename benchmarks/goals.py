"""What attnc is to reach, case by case, and whether it does.

A goal is a ratio to other libraries, a part of what the machine can do, or both, of which one is
enough: where a peer is already close to the limit, no ratio is possible, and where no limit is
known, a ratio is all there is.
"""

from dataclasses import dataclass

from benchmarks.figures import digits

LIBRARIES = ("PyTorch", "torch.compile", "JAX")


@dataclass(frozen=True)
class Goal:
    """One goal of a case."""

    ratio: float | None = None  # times as fast as the fastest of `peers`
    peers: tuple[str, ...] = ("PyTorch",)
    percent: float | None = None  # of the machine's limit
    megabytes: float | None = None  # of extra memory, at most
    most: float | None = None  # times the time of `of` that `peers`, attnc by other ways, take
    microseconds: float | None = None  # more than `of` that `peers` take, at most
    of: str = "attnc"

    def __str__(self):
        peers = self.peers[0] if len(self.peers) == 1 else "the best of " + ", ".join(self.peers)
        parts = []
        if self.ratio:
            parts.append(f"{self.ratio:g} × {peers}")
        if self.percent:
            parts.append(f"{self.percent:g} % of the limit")
        if self.megabytes:
            parts.append(f"{self.megabytes:g} MB")
        if self.most:
            parts.append(f"{peers} in {self.most:g} × the time of {self.of}")
        if self.microseconds:
            parts.append(f"{peers} in {self.microseconds:g} µs more than {self.of}")
        return " or ".join(parts)

    def judge(self, figures):
        """Whether it is reached: "yes", or "no" and by how much.

        Parameters
        ----------
        figures : Figures or Mean

        Returns
        -------
        str
            "not measured" where there is nothing to compare with. A peer that is missing is named
            where it could change the answer.
        """
        if self.megabytes:
            used = figures.memory()
            if used is None:
                return "not measured"
            return "yes" if used <= self.megabytes else f"no ({digits(used)} MB)"
        if self.most or self.microseconds:
            return self._judge_way(figures)
        if self.percent and (percent := figures.percent()):
            if percent >= self.percent:
                return "yes"
        else:
            percent = None
        ratios = {name: figures.ratio(name) for name in self.peers} if self.ratio else {}
        missing = [name for name, ratio in ratios.items() if ratio is None]
        ratio = min((ratio for ratio in ratios.values() if ratio is not None), default=None)
        without = f", without {', '.join(missing)}" if missing else ""
        if ratio is not None and ratio >= self.ratio:
            return "yes" + without
        if ratio is None and percent is None:
            return "not measured"
        short = [] if ratio is None else [f"{ratio:.2f} ×"]
        short += [] if percent is None else [f"{percent:.1f} %"]
        return f"no ({', '.join(short)})" + without

    def _judge_way(self, figures):
        """Whether another way to call attnc takes no longer than it may."""
        (name,) = self.peers
        seconds, plain = figures.seconds(name), figures.seconds(self.of)
        if seconds is None or plain is None:
            return "not measured"
        if self.most:
            return "yes" if seconds <= self.most * plain else f"no ({seconds / plain:.2f} ×)"
        more = 1e6 * (seconds - plain)
        return "yes" if more <= self.microseconds else f"no ({digits(more)} µs)"


def goals_of(kind, case, isa):
    """The goals of a case, by the name of its kind and the instruction set.

    Those of other instruction sets than AVX2 are the goals with AVX-512.
    """
    narrow = goals_on_avx2(kind, case) if isa == "avx2" else None
    return goals_anywhere(kind, case) if narrow is None else narrow


def goals_anywhere(kind, case):
    """The goals of a case that do not depend on the instruction set, or are those with AVX-512."""
    backward = case.backward
    if kind in ("forward", "backward"):
        return goals_of_row(case)
    if kind == "padding":
        return [Goal(ratio=2)]
    if kind == "packed":
        return [Goal(ratio=2.4), Goal(1.7 if case.causal else 1.35, ("attnc padded keys",))]
    if kind == "decode" and case.Tk == 4096:
        return [Goal(percent=75)]
    if kind == "halves" and case.Tq == 1:  # half as much to read
        return [Goal(1.8, ("attnc in float32",))]
    if kind == "monotonic" and backward and case.B * case.Tq > 1000:
        return [Goal(10)]
    if kind == "local" and backward and case.Tq == case.Tk:
        return [Goal(20, ("attnc global",))]
    if kind == "additive" and case.Tq > 1:
        large = case.D > 128
        ratio = (15 if backward else 10) if large else 4
        return [Goal(ratio, LIBRARIES)]
    if kind == "recurrent" and backward:
        encoder = {128: 1.8, 256: 1.4, 512: 1.2}
        ratio = {"encoder": encoder[case.D], "decoder": 2, "training": 1.5}[case.mechanism]
        return [Goal(ratio, ("PyTorch", "JAX"))]
    if kind == "multihead":
        return [Goal(1.2 if case.Tk == 512 else 1.4, percent=80)]
    if kind == "layer":
        return [Goal(1.25, LIBRARIES, percent=80)]
    if kind == "transformer":
        return [Goal(1.3, ("PyTorch", "JAX"), percent=75)]
    if kind == "generation":
        return [Goal(1.5, percent=80)]
    if kind == "jvp":  # six products, or four, beside two
        most = {"all": 3.4, "query": 2.3}[case.tangents]
        return [Goal(round(1 / most, 3), ("attnc forward",)), Goal(2)]
    if kind == "overhead":
        more = {"attnc in PyTorch": 12 if backward else 4}
        more |= {} if backward else {"attnc in JAX": 10, "attnc in autograd": 5}
        return [Goal(microseconds=most, peers=(name,)) for name, most in more.items()]
    if kind == "bridges":
        through = ("attnc in PyTorch",)
        if case.mechanism == "training":
            return [Goal(most=round(1 / 1.4, 3), peers=through, of="PyTorch")]
        return [Goal(most=1.05, peers=through)]
    if kind == "growth" and case.Tk == 32768:
        return [Goal(megabytes=150)]
    return []


def goals_of_row(case):
    """The goals of the dot-product rows."""
    backward = case.backward
    if case.Tk == 8:  # here all is overhead
        return [Goal(ratio=8 if backward else 3)]
    goals = [Goal(ratio=1.2, percent=86) if backward else Goal(ratio=1.15, percent=88)]
    if case.Tk >= 512 and case.D >= 64 and not case.causal:
        goals.append(Goal(percent=88))
    if case.Tk >= 1024 and case.causal:
        goals.append(Goal(percent=75))
    return goals


def goals_on_avx2(kind, case):
    """The goals with AVX2 where they are others, also fewer; None where they are not."""
    backward = case.backward
    long = case.Tk >= 384 and not case.causal
    if kind in ("forward", "backward") and long:
        return [Goal(1.25 if backward else 1.2, percent=82)]
    if kind == "decode" and case.Tk == 4096:
        return [Goal(percent=85)]
    if kind == "additive" and case.Tq > 1:
        ratio = 4.5 if case.D <= 128 else 15 if backward else 16
        return [Goal(ratio, LIBRARIES)]
    if kind == "recurrent" and backward and case.mechanism == "encoder":
        ratio = {128: 2, 256: 1.5, 512: 1.35}[case.D]
        return [Goal(ratio, ("PyTorch", "JAX"), percent=80)]
    return None


def goals_of_mean(kind, isa):
    """The goals of the geometric mean over the rows of a kind."""
    backward = kind == "backward"
    if isa == "avx2":
        return [Goal(ratio=2.0 if backward else 1.7)]
    return [Goal(ratio=1.8 if backward else 1.55)]


def verdicts(goals, figures):
    """Goals and whether they are reached, for a cell of a table."""
    return "; ".join(f"{goal}: {goal.judge(figures)}" for goal in goals)
