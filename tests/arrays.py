"""What the tests put in: arguments of every function, awkward sizes, options and memory layouts."""

import numpy as np

from attnc import registry

# Every attention function: a new one has its record, and is tested here.
FUNCTIONS = tuple(
    record.name
    for record in registry.records()
    if record.incoming == ("dcontext", "dweights", "dlse")
)

# Distinct primes: with these no axis can be taken for another.
PRIMES = {"Tq": 5, "Tk": 7, "D": 11, "Dv": 13}

# Nothing, one, both sides of every vector width and of the usual tiles; one axis at a time.
EDGES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
SIZES = [{**PRIMES, axis: size} for axis in PRIMES for size in EDGES]

# Several tiles along every axis.
BIG = [
    {"Tq": 1, "Tk": 701, "D": 64, "Dv": 40},
    {"Tq": 700, "Tk": 2, "D": 1, "Dv": 3},
    {"Tq": 131, "Tk": 257, "D": 65, "Dv": 64},
    {"Tq": 200, "Tk": 63, "D": 16, "Dv": 200},
    {"Tq": 67, "Tk": 129, "D": 130, "Dv": 16},
    {"Tq": 33, "Tk": 65, "D": 200, "Dv": 130},
]

# Long sums: over keys, queries, features of a score, features of a value.
LONG = [
    {"Tq": 64, "Tk": 64, "D": 16, "Dv": 16, axis: size}
    for axis, size in [("Tk", 3000), ("Tq", 3000), ("D", 1000), ("Dv", 1000)]
]

# Leading axes of query, key and value.
LEADS = [
    ((), (), ()),
    ((2,), (1,), (2,)),
    ((1,), (3,), (1,)),
    ((1,), (1,), (3,)),
    ((2, 3), (1, 3), (2, 1)),
    ((2, 1), (1, 3), (1, 1)),
    ((2, 2, 3), (2, 2, 1), (2, 2, 1)),  # grouped queries: three heads of a query to one of a key
    ((2, 2, 1), (1, 2, 3), (2, 1, 3)),
    ((0,), (0,), (0,)),
    ((0,), (1,), (1,)),
    ((3, 0), (1, 1), (3, 0)),
]


def by_size(sizes):
    """Test ids: what differs from PRIMES."""
    return ",".join(f"{axis}={n}" for axis, n in sizes.items() if n != PRIMES[axis]) or "primes"


def inputs(name, rng, dtype=np.float64, *, Tq=5, Tk=7, D=11, Dv=13, leads=((2,), (2,), (2,))):
    """Random arguments of the function of this name: (arrays, options). Its scores are about 1.

    D is the number of features that are summed to a score; where query and key may have others,
    they do.
    """

    def normal(*shape, scale=1.0):
        return (scale * rng.standard_normal(shape)).astype(dtype)

    q_lead, k_lead, v_lead = leads
    value = normal(*v_lead, Tk, Dv)
    if name == "attend":
        return (normal(*np.broadcast_shapes(q_lead, k_lead), Tq, Tk), value), {}
    if name == "multiplicative_attention":
        query, key = normal(*q_lead, Tq, D), normal(*k_lead, Tk, D + 1)
        return (query, key, value, normal(D, D + 1, scale=1 / (D + 1))), {}
    if name == "additive_attention":
        query, key = normal(*q_lead, Tq, D + 1), normal(*k_lead, Tk, D + 2)
        options = {
            "query_weight": normal(D + 1, D, scale=(D + 1) ** -0.5),
            "key_weight": normal(D + 2, D, scale=(D + 2) ** -0.5),
            "score_bias": normal(D),
        }
        return (query, key, value, normal(D, scale=(D + 1) ** -0.5)), options
    query, key = normal(*q_lead, Tq, D), normal(*k_lead, Tk, D)
    if name == "cosine_attention":
        return (query, key, value), {"scale": np.array(3, dtype)}
    return (query, key, value), {}


def options(name, rng, dtype=np.float64, *, Tq=5, Tk=7, leads=((2,), (2,), (2,)), **_):
    """The keywords of this name for scores of these sizes."""
    return _options(rng, dtype, np.broadcast_shapes(*leads), Tq, Tk)[name]


def _options(rng, dtype, lead, Tq, Tk):
    ones = (1,) * len(lead)

    def some(*shape):
        return rng.random(shape) < 0.6

    def bias(*shape, masked=0.0):
        x = rng.standard_normal(shape)
        return np.asarray(np.where(rng.random(shape) < masked, -np.inf, x), dtype)

    def slope(*shape):
        return np.asarray(0.2 * rng.standard_normal(shape), dtype)

    def center(*shape):
        return rng.uniform(-2, Tk + 1, shape).astype(dtype)

    offsets = rng.integers(-Tq, Tk + 1, lead)
    return {
        "none": {},
        "mask": {"mask": some(*lead, Tq, Tk)},
        "mask of ones": {"mask": np.ones((*lead, Tq, Tk), bool)},
        "mask of zeros": {"mask": np.zeros((*ones, 1, 1), bool)},
        "mask by key": {"mask": some(*lead, 1, Tk)},
        "mask by query": {"mask": some(*lead, Tq, 1)},
        "mask for all leads": {"mask": some(*ones, Tq, Tk)},
        "key_mask": {"key_mask": some(*lead, Tk)},
        "key_mask for all leads": {"key_mask": some(*ones, Tk)},
        "key_lengths": {"key_lengths": rng.integers(0, Tk + 1, lead)},
        "key_lengths for all leads": {"key_lengths": rng.integers(0, Tk + 1, ones)},
        "key_lengths of one int": {"key_lengths": Tk // 2},
        "key_lengths of 0": {"key_lengths": 0},
        "bias": {"bias": bias(*lead, Tq, Tk)},
        "bias by key": {"bias": bias(*lead, 1, Tk)},
        "bias by query": {"bias": bias(*lead, Tq, 1)},
        "bias for all leads": {"bias": bias(*ones, Tq, Tk)},
        "bias for all": {"bias": bias(*ones, 1, 1)},
        "bias with -inf": {"bias": bias(*lead, Tq, Tk, masked=0.4)},
        "bias of -inf": {"bias": bias(*lead, Tq, Tk, masked=1.0)},
        "causal": {"causal": True},
        "causal from key 0": {"causal": True, "causal_offset": 0},
        "causal before key 0": {"causal": True, "causal_offset": -(Tq // 2)},
        "causal by lead": {"causal": True, "causal_offset": offsets},
        "window": {"window": (2, 1)},
        "window of one key": {"window": (0, 0), "causal_offset": 1},
        "window open left": {"window": (None, 0), "causal_offset": 0},
        "window by lead": {"window": (Tk // 3, None), "causal_offset": offsets},
        "window without end": {"window": (2**62, 2**62)},
        "window and causal": {"window": (3, 2), "causal": True},
        "softcap": {"softcap": 1.5},
        "slope": {"slope": slope(*lead)},
        "slope for all leads": {"slope": slope(*ones), "causal": True},
        "slope of one number": {"slope": 0.25},
        "slope without axes": {"slope": np.array(-0.125, dtype)},
        "slope by lead": {"slope": slope(*lead), "causal_offset": offsets},
        "sink": {"sink": bias(*lead)},
        "sink for all leads": {"sink": bias(*ones)},
        "sink of one number": {"sink": -0.5},
        "sink without axes": {"sink": np.array(0.5, dtype)},
        "sink with -inf": {"sink": bias(*lead, masked=0.5)},
        "dropout": {"dropout": 0.3, "rng": 2**40 + 7},
        "query_lengths": {"query_lengths": rng.integers(0, Tq + 1, lead)},
        "query_lengths for all leads": {"query_lengths": rng.integers(0, Tq + 1, ones)},
        "query_lengths of one int": {"query_lengths": Tq // 2},
        "query_lengths of 0": {"query_lengths": 0},
        "everything": {
            "mask": rng.random((*lead, Tq, Tk)) < 0.8,
            "key_mask": rng.random((*lead, Tk)) < 0.8,
            "key_lengths": rng.integers(0, Tk + 1, lead),
            "query_lengths": rng.integers(0, Tq + 1, lead),
            "bias": bias(*lead, Tq, Tk, masked=0.1),
            "causal": True,
            "causal_offset": Tk // 2,
            "window": (Tk // 2 + 1, None),
            "softcap": 2.0,
            "slope": slope(*lead),
            "sink": bias(*lead),
            "dropout": 0.2,
            "rng": 3,
        },
        "center": {"center": center(*lead, Tq), "window": (2, 1)},
        "center for all leads": {"center": center(*ones, Tq), "window": (2, None), "causal": True},
        "center by lead": {"center": center(*lead, 1), "window": (0, 3), "sigma": 1.5},
        "center of one number": {"center": Tk / 3, "window": (Tk, Tk // 2 + 1)},
        "center without axes": {
            "center": np.array(0.6, dtype),
            "window": (3, 3),
            "renormalize": True,
        },
        "center in the softmax": {
            "center": center(*lead, Tq),
            "window": (3, 2),
            "sigma": 1.2,
            "renormalize": True,
        },
        "center alone": {"center": center(*lead, Tq), "window": (2, 2), "sigma": np.inf},
        "center and others": {
            "center": center(*lead, Tq),
            "window": (None, 2),
            "sigma": 2.0,
            "mask": rng.random((*lead, Tq, Tk)) < 0.8,
            "bias": bias(*ones, Tq, 1),
            "softcap": 2.0,
            "slope": slope(*lead),
            "dropout": 0.2,
            "rng": 5,
        },
    }


OPTIONS = tuple(_options(np.random.default_rng(0), np.float64, (), 1, 1))


# ---- Layouts: the same numbers otherwise in memory -----------------------------------------------


def _sliced(x):
    """Every second element of an array whose others are poison."""
    whole = np.full([2 * n for n in x.shape], np.nan if x.dtype.kind == "f" else 1).astype(x.dtype)
    part = whole[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    return part


def _reversed(x):
    return np.flip(np.flip(x).copy())


def _transposed(x):
    return x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if x.ndim > 1 else _sliced(x)


def _repeated(x):
    """Stride 0: the first row (of a vector: the first number) again and again."""
    first = x[..., :1, :] if x.ndim > 1 else x[:1]
    return np.broadcast_to(first, x.shape) if first.size else x


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
    unaligned = memory.view(x.dtype).reshape(x.shape)
    unaligned[...] = x
    return unaligned


def _byte_swapped(x):
    return x.astype(x.dtype.newbyteorder())


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "transposed": _transposed,
    "sliced": _sliced,
    "reversed": _reversed,
    "repeated": _repeated,
    "read-only": _read_only,
    "unaligned": _unaligned,
    "byte-swapped": _byte_swapped,
}


def lay_out(layout, x):
    """x in this layout, if x is an array with axes; anything else as it is."""
    return LAYOUTS[layout](x) if isinstance(x, np.ndarray) and x.ndim else x
