"""Calls of every function that has a record: what tests put in that go over all of the registry.

defines: CALLS (pairs of a function's name and a case), call (the arguments of one)
"""

import numpy as np
import test_decoder_alignment
import test_decoder_functions
import test_recurrent_functions
from arrays import FUNCTIONS, PRIMES, inputs, options

from attnc import registry

LEADS = {"one": ((2,), (2,), (2,)), "two": ((2, 1), (1, 3), (2, 3)), "none": ((), (), ())}
RETURNS = {"": {}, " weights": {"return_weights": True}, " lse": {"return_lse": True}}
RETURNS[" both"] = RETURNS[" weights"] | RETURNS[" lse"]
ATTENTION = [
    *(f"{case} {leads}" for case in ("none", "everything", "center") for leads in LEADS),
    *(f"none one{returns}" for returns in RETURNS if returns),
    *("packed", "packed lse", "sparsemax", "entmax15 weights"),
]
SCORES = ["none", "mask", "key_lengths", "query_lengths", "causal by lead", "window"]
HARD = ["none", "bias", "slope", "center", "key_lengths", "index"]
RECURRENT = ["plain", "state", "lengths", "both ways", "layers", "dropout", "part of a state"]
COVERED = {"none": [False], "additive": [False, True, "tanh", "fertility"]}
DECODER = [
    *(
        f"{attention} {order} {cell} {layers} {coverage}"
        for attention in ("additive", "multiplicative", "dot", "cosine", "none")
        for order, cell, layers in (("bahdanau", "gru", 2), ("luong", "rnn", 1), ("fed", "lstm", 1))
        for coverage in COVERED.get(attention, [False, True, "fertility"])
    ),
    *(
        f"{alignment} {attention} {order}"
        for alignment in ("monotonic", "chunkwise")
        for attention in ("additive", "multiplicative", "dot", "cosine")
        for order in ("bahdanau", "luong", "fed")
    ),
    *(
        f"window {position} {order} {coverage}"
        for position in ("monotonic", "predictive", "renormalized")
        for order in ("bahdanau", "luong", "fed")
        for coverage in (False, True)
    ),
    *("without a state", "part of a state", "key_lengths", "noise"),
]
CASES = {
    **dict.fromkeys(FUNCTIONS, ATTENTION),
    "attend": [case for case in ATTENTION if "packed" not in case],
    **dict.fromkeys((r.name for r in registry.records() if r.name.endswith("_scores")), SCORES),
    "hard_attention": HARD,
    "merge_attention": ["one", "three", "both"],
    **dict.fromkeys(("relu", "silu", "swiglu"), ["one", "none", "three"]),
    "gelu": ["one", "none", "three", "approximate"],
    **dict.fromkeys(("layer_norm", "rms_norm"), ["plain", "weight", "one row", "large epsilon"]),
    "monotonic_alignment": ["plain", "previous", "one previous", "key_mask", "key_lengths"],
    "chunkwise_attention": ["plain", "one", "all", "weights", "broadcast", "key_lengths"],
    "rotary": ["plain", "interleaved", "positions", "offsets"],
    **dict.fromkeys(("rnn", "gru", "lstm"), RECURRENT),
    "attention_decoder": DECODER,
    "softmax_cross_entropy": ["plain", "ignored", "smoothed"],
    "linear_cross_entropy": ["plain", "bias", "ignored", "smoothed"],
    "mean_squared_error": ["plain", "weights", "mask", "weights and mask"],
    "binary_cross_entropy": ["plain", "weights", "mask", "weights and mask"],
    "coverage_loss": ["plain", "mask"],
}
CALLS = [(r.name, case) for r in registry.records() for case in CASES.get(r.name, [])]


def call(name, case, rng, dtype=np.float64):
    """The arguments of one call: (arrays, options). Random, but for their shapes."""

    def normal(*shape, scale=1.0):
        return np.asarray(scale * rng.standard_normal(shape), dtype)

    if name in FUNCTIONS:
        return _attention(name, case, rng, dtype)
    if name.endswith("_scores"):
        twin = name.replace("scores", "attention")
        (query, key, _, *parameters), own = inputs(twin, rng, dtype)
        return (query, key, *parameters), own | options(case, rng, dtype)
    if name == "hard_attention":
        (scores, value), _ = inputs("attend", rng, dtype)
        more = {} if case == "index" else options(case, rng, dtype)
        more |= {"index": rng.integers(0, 7, (2, 5))} if case == "index" else {"rng": 3}
        return (scores, value), more
    if name == "merge_attention":
        parts = range({"one": 1}.get(case, 3))
        contexts = tuple(normal(2, 5, 3) for _ in parts)
        return (contexts, tuple(normal(2, 5) for _ in parts)), {"return_lse": case == "both"}
    if name in ("relu", "gelu", "silu", "swiglu"):
        shape = {"none": (), "three": (2, 3, 5)}.get(case, (7,))
        arrays = tuple(normal(*shape) for _ in range(1 + (name == "swiglu")))
        return arrays, {"approximate": True} if case == "approximate" else {}
    if name in ("layer_norm", "rms_norm"):
        lead = () if case == "one row" else (2, 3)
        more = {"weight": normal(6)} | ({"bias": normal(6)} if name == "layer_norm" else {})
        more = more if case == "weight" else {}
        return (normal(*lead, 6),), more | ({"epsilon": 0.5} if case == "large epsilon" else {})
    if name == "monotonic_alignment":
        more = {} if "key" not in case else options(case, rng, dtype)
        if "previous" in case:
            size = 1 if case == "one previous" else 2
            more["previous"] = rng.dirichlet(np.ones(8), size)[:, :7].astype(dtype)
        return (rng.uniform(0.1, 0.9, (2, 5, 7)).astype(dtype),), more
    if name == "chunkwise_attention":
        more = options(case, rng, dtype) if case == "key_lengths" else {}
        more |= {"return_weights": True} if case == "weights" else {}
        width, lead = {"one": 1, "all": 9}.get(case, 3), 1 if case == "broadcast" else 2
        alignment = rng.dirichlet(np.ones(8), (2, 5))[..., :7].astype(dtype)
        return (alignment, normal(lead, 5, 7), normal(2, 7, 4), width), more
    if name == "rotary":
        more = {
            "interleaved": {"interleaved": True, "base": 50.0},
            "positions": {"position": rng.uniform(0, 30, (2, 1, 5))},
            "offsets": {"offset": rng.integers(0, 30, (2, 1))},
        }
        return (normal(2, 3, 5, 6),), more.get(case, {})
    if name in ("rnn", "gru", "lstm"):
        return _recurrent(name, case, rng, dtype)
    if name == "attention_decoder":
        return _decoder(case, rng, dtype)
    return _loss(name, case, rng, dtype, normal)


def _attention(name, case, rng, dtype):
    first, *rest = case.split(" ", 1)
    returns = RETURNS.get(f" {case.split()[-1]}", {})
    if first == "packed":
        sizes = PRIMES | {"leads": ((2,), (1,), (2,))}
        arrays, own = inputs(name, rng, dtype, **sizes)
        return arrays, own | returns | {
            "query_offsets": np.array([0, 2, 2, 5]), "key_offsets": np.array([0, 4, 6, 7])
        }  # fmt: skip
    if first in ("sparsemax", "entmax15"):
        arrays, own = inputs(name, rng, dtype)
        return arrays, own | returns | {"normalizer": first}
    sizes = PRIMES | {"leads": LEADS[rest[0].split()[0]]}
    arrays, own = inputs(name, rng, dtype, **sizes)
    return arrays, own | returns | options(first, rng, dtype, **sizes)


def _recurrent(name, case, rng, dtype):
    many = case in ("layers", "dropout", "lengths")
    kind = {"layers": 2 if many else 1, "bidirectional": case in ("both ways", "lengths")}
    x, parameters, state = test_recurrent_functions.arrays_for(name, rng, dtype, **kind)
    more = {"bidirectional": kind["bidirectional"]}
    if case == "lengths":
        more["lengths"] = np.array([3, 0, 6, 2])
    if case == "dropout":
        more |= {"dropout": 0.4, "rng": 5}
    if case == "part of a state" and name == "lstm":
        state = state[0], None
    return (x, parameters), more if case == "plain" else more | {"state": state}


def _decoder(case, rng, dtype):
    first, *rest = case.split(" ")
    order = "luong" if "luong" in rest or "fed" in rest else "bahdanau"
    problem_of = test_decoder_functions.Problem
    if first in ("monotonic", "chunkwise"):
        Problem = test_decoder_alignment.Problem
        problem = Problem(rng, first, rest[0], order, "fed" in rest, dtype=dtype)
    elif first == "noise":
        Problem = test_decoder_alignment.Problem
        problem = Problem(rng, "monotonic", "additive", order, False, dtype=dtype)
        problem.options["noise"] = problem.noise
    elif first == "window":
        coverage = rest[2] == "True"
        problem = problem_of(rng, "multiplicative", order, "fed" in rest, "gru", coverage, 1, dtype)
        problem.options["window"] = 2
        if rest[0] != "monotonic":
            problem.options |= {"position": "predictive", "renormalize": rest[0] == "renormalized"}
            more = {"position_weight": (7, 4), "position_vector": (4,)}
            for name, shape in more.items():
                problem.named[name] = rng.standard_normal(shape).astype(dtype)
        elif isinstance(problem.arrays[3], tuple):
            count = np.full((3, 1), 1, dtype)
            problem.arrays = (*problem.arrays[:3], (*problem.arrays[3], count))
    elif len(rest) == 4:
        cell, layers, coverage = rest[1], int(rest[2]), rest[3]
        coverage = {"False": False, "True": True}.get(coverage, coverage)
        fed = "fed" in rest
        problem = problem_of(rng, first, order, fed, cell, coverage, layers, dtype)
    else:
        problem = problem_of(rng, coverage=True, dtype=dtype)
    more = problem.options | problem.named
    arrays, state = problem.arrays[:3], problem.arrays[3]
    if case == "without a state":
        return arrays, more
    if case == "part of a state":
        state = state[0]
    if case == "key_lengths":
        more["key_lengths"] = np.array([6, 0, 2])
    return arrays, more | {"state": state}


def _loss(name, case, rng, dtype, normal):
    more = {}
    if name == "coverage_loss":
        weights = rng.dirichlet(np.ones(5), (2, 4)).astype(dtype)
        return (weights,), {"mask": rng.random((2, 4)) < 0.6} if case == "mask" else {}
    if name.endswith("cross_entropy") and name != "binary_cross_entropy":
        targets = rng.integers(1, 6, (2, 4))
        if case == "ignored":
            targets[0, 1:3], more["ignore_index"] = 0, 0
        more |= {"label_smoothing": 0.2} if case == "smoothed" else {}
        if name == "softmax_cross_entropy":
            return (normal(2, 4, 6), targets), more
        more |= {"bias": normal(6)} if case == "bias" else {}
        return (normal(2, 4, 3), normal(3, 6), targets), more
    if "weights" in case:
        more["weights"] = rng.uniform(0.5, 2, (2, 1)).astype(dtype)
    if "mask" in case:
        more["mask"] = rng.random((2, 5)) < 0.7
    second = normal(2, 5) if name[0] == "m" else rng.uniform(0.1, 0.9, (2, 5)).astype(dtype)
    return (normal(2, 5), second), more
