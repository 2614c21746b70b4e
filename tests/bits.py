"""Print a hash of all results of many calls: before and after a change that should change none.

::

    python tests/bits.py > before       # in the checkout as it was
    python tests/bits.py > after        # in the changed one
    diff before after

A line is the name of a call and the hash of every output and gradient: dtype, shape and bytes. An
exception takes the place of the hash, so that error texts are compared as well. With ``--parts``
every output and gradient has a line of its own, which says *what* of a call changed. All of it runs
with every instruction set of the machine and takes about a minute and a half; a part of the names,
as in ``python tests/bits.py gru/float32``, chooses some.

`attnc` is the one of the current directory, if there is one; the script may belong to another
checkout. Its inputs come from NumPy alone, and it calls the public functions and layers only, so
that it runs on both sides of a change of everything behind them. Hashes depend on the processor and
on NumPy: compare what one machine printed.

A case is a generator function that gets a `Draw` and yields pairs (name, results); each pair is a
line. `case` puts it on the list.
"""

import argparse
import hashlib
import os
import sys
import warnings
import zlib
from functools import partial
from typing import NamedTuple

import ml_dtypes
import numpy as np

sys.path[0] = os.getcwd()  # not the folder of this file, whose checkout may be another one

import attnc  # noqa: E402
from attnc import functional, losses  # noqa: E402

# ---- The list of calls, and their hashes ---------------------------------------------------------


class Case(NamedTuple):
    name: str
    run: object  # generator function: Draw -> pairs (name, results)
    threads: tuple = (1,)
    arithmetic: bool = True  # whether it depends on the instruction set


CASES = []


def case(name, run, **how):
    CASES.append(Case(name, run, **how))


def parts(value, name=""):
    """(name, array or None) of all that is in a result: arrays, tuples, named tuples, dicts."""
    if isinstance(value, dict):
        items = value.items()
    elif hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, (tuple, list)):
        items = enumerate(value)
    else:
        yield name, value
        return
    for key, item in items:
        yield from parts(item, f"{name}.{key}" if name else str(key))


def digest(found):
    """The hash of (name, array) pairs."""
    state = hashlib.blake2b(digest_size=8)
    for name, value in found:
        if value is None:
            state.update(f"{name} None;".encode())
            continue
        array = np.array(value, order="C")
        if array.dtype.kind not in "iub":
            array[np.isnan(array)] = np.nan  # whichever NaN it is does not count
        state.update(f"{name} {array.dtype.name} {array.shape};".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def show(label, one, each):
    """Print the lines of one case."""
    draw = Draw(zlib.crc32(one.name.encode()))
    try:
        for name, results in one.run(draw):
            found = list(parts(results))
            if not each:
                print(f"{label}/{name} {digest(found)}")
                continue
            for part, value in found:
                print(f"{label}/{name}/{part or 'output'} {digest([(part, value)])}")
    except Exception as error:
        print(f"{label} {type(error).__name__}: {' '.join(str(error).split())}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("filter", nargs="?", default="", help="part of the names of calls to run")
    parser.add_argument("--isa", help="run with this instruction set alone")
    parser.add_argument("--parts", action="store_true", help="a line for each output and gradient")
    arguments = parser.parse_args()
    print(attnc.__file__, file=sys.stderr)
    warnings.simplefilter("ignore")
    core = getattr(attnc, "_core", None)
    choose = getattr(core, "set_isa", None)
    isas = core.isa_names() if choose else ("default",)
    for isa in isas if arguments.isa is None else [arguments.isa]:
        if choose:
            choose(isa)
        for one in CASES:
            if one.arithmetic and arguments.filter in one.name:
                for threads in one.threads:
                    attnc.set_num_threads(threads)
                    suffix = f"/threads={threads}" if len(one.threads) > 1 else ""
                    show(f"{isa}/{one.name}{suffix}", one, arguments.parts)
    for one in CASES:
        if not one.arithmetic and arguments.filter in one.name:
            show(one.name, one, arguments.parts)


# ---- Inputs --------------------------------------------------------------------------------------


class Draw:
    """Random arrays: float64, booleans and integers."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape, scale=1.0):
        return scale * self.rng.standard_normal(shape)

    def bools(self, *shape, share=0.6):
        return self.rng.random(shape) < share

    def integers(self, low, high, *shape):
        """In low..high, the ends included."""
        return self.rng.integers(low, high + 1, shape)


def integers(x, place):
    return np.rint(2 * x).astype(np.int64) if np.isfinite(x).all() else x


def as_type(x, place, types):
    return x.astype(types[place % len(types)])


# How a float64 array is handed over; `place` is its place among the arrays of the call.
DTYPES = {
    "float32": partial(as_type, types=[np.float32]),
    "float64": partial(as_type, types=[np.float64]),
    "float16": partial(as_type, types=[np.float16]),
    "bfloat16": partial(as_type, types=[ml_dtypes.bfloat16]),
    "float32+float64": partial(as_type, types=[np.float32, np.float64]),
    "float64+float32": partial(as_type, types=[np.float64, np.float32]),
    "float16+float32": partial(as_type, types=[np.float16, np.float32]),
    "integers": integers,
    "lists": lambda x, place: x.tolist(),
}
FLOATS = "float32", "float64"


def hand_over(arrays, dtype):
    """A dict of float64 arrays as the call gets them. What has no float64 array stays as it is."""
    return {
        name: DTYPES[dtype](x, place) if is_real(x) else x
        for place, (name, x) in enumerate(arrays.items())
    }


def is_real(x):
    return isinstance(x, np.ndarray) and x.dtype == np.float64


def incoming(draw, output, dtype, prepare=lambda name, x: x):
    """Gradients to give to a pullback, (first, others by name), for outputs of these shapes."""
    dtype = dtype if dtype not in ("integers", "lists") else "float64"

    def like(name, value, place):
        if isinstance(value, (tuple, list)):
            return tuple(like(name, item, place) for item in value)
        return DTYPES[dtype](prepare(name, draw.normal(*np.shape(value))), place)

    if not hasattr(output, "_fields"):
        return like("", output, 0), {}
    fields = zip(output._fields, output, strict=True)
    first, *others = [(f"d{n}", like(n, x, k)) for k, (n, x) in enumerate(fields)]
    return first[1], dict(others)


def named(gradients, names):
    """All of what a pullback returned: in order, and by name where there is one."""
    found = {"required": tuple(gradients)}
    for name in names:
        try:
            found[name] = gradients[name]
        except (AttributeError, KeyError):  # a list, or what is no array
            found[name] = None
    return found


def transposed(x):
    return x.swapaxes(-1, -2).copy().swapaxes(-1, -2) if x.ndim > 1 else sliced(x)


def sliced(x):
    whole = np.ones([2 * n for n in x.shape]).astype(x.dtype)
    part = whole[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    return part


def repeated(x):
    first = x[..., :1, :] if x.ndim > 1 else x[:1]
    return np.broadcast_to(first, x.shape) if first.size else x


def unaligned(x):
    found = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    found[...] = x
    return found


LAYOUTS = {
    "transposed": transposed,
    "sliced": sliced,
    "reversed": lambda x: np.flip(np.flip(x).copy()),
    "repeated": repeated,
    "unaligned": unaligned,
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "Fortran": np.asfortranarray,
}


# ---- Attention -----------------------------------------------------------------------------------

FUNCTIONS = (
    "dot_product_attention",
    "multiplicative_attention",
    "additive_attention",
    "cosine_attention",
    "attend",
)


class Sizes(NamedTuple):
    """Sizes of the arrays of attention; the leading axes of query, key and value may differ."""

    query_lead: tuple
    key_lead: tuple
    value_lead: tuple
    Tq: int
    Tk: int
    D: int
    Dv: int

    @property
    def lead(self):
        return np.broadcast_shapes(self.query_lead, self.key_lead, self.value_lead)


def alike(*lead, Tq, Tk, D, Dv):
    return Sizes(lead, lead, lead, Tq, Tk, D, Dv)


SMALL = alike(2, 3, Tq=5, Tk=7, D=11, Dv=13)
MEDIUM = alike(2, Tq=67, Tk=129, D=33, Dv=20)
SHAPES = {
    "tiny": alike(1, 1, Tq=8, Tk=8, D=16, Dv=16),
    "rank 2": alike(Tq=4, Tk=5, D=6, Dv=7),
    "rank 3": alike(3, Tq=9, Tk=17, D=8, Dv=4),
    "rank 5": alike(2, 1, 3, Tq=4, Tk=6, D=5, Dv=3),
    "grouped": Sizes((2, 2, 3), (2, 2, 1), (2, 2, 1), 5, 9, 8, 8),
    "crossed": Sizes((2, 1), (1, 3), (1, 1), 5, 9, 8, 8),
    "one key batch": Sizes((3,), (1,), (1,), 20, 33, 16, 24),
    "one query batch": Sizes((1,), (3,), (3,), 20, 33, 16, 24),
    "one value batch": Sizes((3,), (3,), (1,), 20, 33, 16, 24),
    "one query": alike(3, 2, Tq=1, Tk=50, D=32, Dv=32),
    "one key": alike(2, Tq=40, Tk=1, D=16, Dv=16),
    "one feature": alike(2, Tq=18, Tk=19, D=1, Dv=1),
    "wide": alike(1, Tq=33, Tk=65, D=200, Dv=130),
    "many values": alike(2, Tq=70, Tk=63, D=16, Dv=200),
    "many queries": alike(1, Tq=1500, Tk=33, D=16, Dv=8),
    "tiles": alike(1, 2, Tq=128, Tk=256, D=64, Dv=64),
    "no keys": alike(2, Tq=3, Tk=0, D=4, Dv=5),
    "no queries": alike(2, Tq=0, Tk=3, D=4, Dv=5),
    "no batch": alike(0, 2, Tq=3, Tk=4, D=5, Dv=6),
    "no features": alike(2, Tq=3, Tk=4, D=0, Dv=5),
    "no values": alike(2, Tq=3, Tk=4, D=5, Dv=0),
}
LARGE = {
    "long": alike(1, 2, Tq=700, Tk=700, D=64, Dv=64),
    "many keys": alike(1, 2, Tq=1, Tk=4096, D=64, Dv=64),
    "few queries, many keys": Sizes((2, 4), (2, 1), (2, 1), 3, 2500, 32, 48),
}


def required_of(function, draw, sizes):
    """Names and float64 arrays of the arguments without which it cannot be called."""
    q, k, v, Tq, Tk, D, Dv = sizes
    value = draw.normal(*v, Tk, Dv)
    if function == "attend":
        return {"scores": draw.normal(*np.broadcast_shapes(q, k), Tq, Tk), "value": value}
    more = {"multiplicative_attention": 1, "additive_attention": 2}.get(function, 0)
    query = draw.normal(*q, Tq, D + (more == 2))
    arrays = {"query": query, "key": draw.normal(*k, Tk, D + more), "value": value}
    if function == "multiplicative_attention":
        arrays["weight"] = draw.normal(D, D + 1, scale=1 / (D + 1))
    if function == "additive_attention":
        arrays["score_vector"] = draw.normal(D, scale=(D + 1) ** -0.5)
    return arrays


def parameters_of(function, draw, sizes):
    """What it usually gets beside: the weights of additive attention, the scale of cosine."""
    D = sizes.D
    if function == "additive_attention":
        return {
            "query_weight": draw.normal(D + 1, D, scale=(D + 1) ** -0.5),
            "key_weight": draw.normal(D + 2, D, scale=(D + 2) ** -0.5),
            "score_bias": draw.normal(D),
        }
    return {"scale": np.array(3.0)} if function == "cosine_attention" else {}


def some_bias(draw, *shape, excluded=0.0):
    return np.where(draw.bools(*shape, share=excluded), -np.inf, draw.normal(*shape))


def one_row_masked(draw, s):
    mask = draw.bools(*s.lead, s.Tq, s.Tk)
    mask[..., :1, :] = False
    return mask


def everything(draw, s):
    return {
        "mask": draw.bools(*s.lead, s.Tq, s.Tk, share=0.8),
        "key_mask": draw.bools(*s.lead, s.Tk, share=0.8),
        "key_lengths": draw.integers(s.Tk // 2, s.Tk, *s.lead),
        "bias": some_bias(draw, *s.lead, s.Tq, s.Tk, excluded=0.1),
        "causal": True,
        "causal_offset": s.Tk // 2,
        "window": (s.Tk // 2 + 1, None),
        "softcap": 2.0,
        "dropout": 0.2,
        "rng": 3,
    }


def ones(s):
    return (1,) * len(s.lead)


def some_centers(draw, sizes, *shape):
    return np.float64(sizes.Tk) * (0.5 + 0.4 * some_bias(draw, *shape))


OPTIONS = {
    "plain": lambda d, s: {},
    "mask": lambda d, s: {"mask": d.bools(*s.lead, s.Tq, s.Tk)},
    "mask with an empty row": lambda d, s: {"mask": one_row_masked(d, s)},
    "mask of nothing": lambda d, s: {"mask": np.zeros((*ones(s), 1, 1), bool)},
    "mask by key": lambda d, s: {"mask": d.bools(*s.lead, 1, s.Tk)},
    "mask by query": lambda d, s: {"mask": d.bools(*s.lead, s.Tq, 1)},
    "mask for all": lambda d, s: {"mask": d.bools(*ones(s), s.Tq, s.Tk)},
    "key_mask": lambda d, s: {"key_mask": d.bools(*s.lead, s.Tk)},
    "key_mask for all": lambda d, s: {"key_mask": d.bools(*ones(s), s.Tk)},
    "key_lengths": lambda d, s: {"key_lengths": d.integers(0, s.Tk, *s.lead)},
    "key_lengths for all": lambda d, s: {"key_lengths": d.integers(1, s.Tk, *ones(s))},
    "one key_lengths": lambda d, s: {"key_lengths": s.Tk // 2},
    "key_lengths 0": lambda d, s: {"key_lengths": 0},
    "query_lengths": lambda d, s: {"query_lengths": d.integers(0, s.Tq, *s.lead)},
    "query_lengths for all": lambda d, s: {"query_lengths": d.integers(1, s.Tq, *ones(s))},
    "one query_lengths": lambda d, s: {"query_lengths": s.Tq // 2, "causal": True},
    "bias": lambda d, s: {"bias": some_bias(d, *s.lead, s.Tq, s.Tk)},
    "bias by key": lambda d, s: {"bias": some_bias(d, *s.lead, 1, s.Tk)},
    "bias by query": lambda d, s: {"bias": some_bias(d, *s.lead, s.Tq, 1)},
    "bias for all": lambda d, s: {"bias": some_bias(d, *ones(s), s.Tq, s.Tk)},
    "one bias": lambda d, s: {"bias": some_bias(d, *ones(s), 1, 1)},
    "bias with -inf": lambda d, s: {"bias": some_bias(d, *s.lead, s.Tq, s.Tk, excluded=0.4)},
    "bias of -inf": lambda d, s: {"bias": np.full((*ones(s), s.Tq, s.Tk), -np.inf)},
    "causal": lambda d, s: {"causal": True},
    "causal from 0": lambda d, s: {"causal": True, "causal_offset": 0},
    "causal before 0": lambda d, s: {"causal": True, "causal_offset": -(s.Tq // 2)},
    "causal by batch": lambda d, s: {
        "causal": True,
        "causal_offset": d.integers(-s.Tq, s.Tk, *s.lead),
    },
    "window": lambda d, s: {"window": (2, 1)},
    "window of one": lambda d, s: {"window": (0, 0), "causal_offset": 1},
    "window open left": lambda d, s: {"window": (None, 0), "causal_offset": 0},
    "window by batch": lambda d, s: {
        "window": (s.Tk // 3, None),
        "causal_offset": d.integers(-s.Tq, s.Tk, *s.lead),
    },
    "window and causal": lambda d, s: {"window": (3, 2), "causal": True},
    "softcap": lambda d, s: {"softcap": 1.5},
    "slope": lambda d, s: {"slope": some_bias(d, *s.lead)},
    "slope by head": lambda d, s: {"slope": some_bias(d, *ones(s)), "causal": True},
    "one slope": lambda d, s: {"slope": 0.25, "causal_offset": -3},
    "sink": lambda d, s: {"sink": some_bias(d, *s.lead)},
    "one sink": lambda d, s: {"sink": 0.25, "mask": one_row_masked(d, s)},
    "slope, sink, everything": lambda d, s: {
        **everything(d, s),
        "slope": some_bias(d, *s.lead),
        "sink": some_bias(d, *s.lead),
    },
    "center": lambda d, s: {"center": some_centers(d, s, *s.lead, s.Tq), "window": (2, 1)},
    "center of all": lambda d, s: {
        "center": some_centers(d, s, *ones(s), s.Tq),
        "window": (3, None),
        "renormalize": True,
        "causal": True,
    },
    "center, dropout": lambda d, s: {
        "center": some_centers(d, s, *s.lead, 1),
        "window": (9, 20),
        "dropout": 0.3,
        "rng": 7,
    },
    "dropout": lambda d, s: {"dropout": 0.3, "rng": 2**40 + 7},
    "dropout, causal": lambda d, s: {"dropout": 0.5, "rng": 11, "causal": True},
    "masks": lambda d, s: {
        "mask": d.bools(*s.lead, s.Tq, s.Tk, share=0.8),
        "key_mask": d.bools(*ones(s), s.Tk, share=0.8),
        "key_lengths": d.integers(0, s.Tk, *s.lead),
    },
    "bias, softcap, causal": lambda d, s: {
        "bias": some_bias(d, *s.lead, s.Tq, s.Tk),
        "softcap": 3.0,
        "causal": True,
    },
    "everything": everything,
}


def attention(function, sizes, dtype, options, layout=None, spoil=None, change=None):
    """A case of one of the `FUNCTIONS`: the call, and the gradients without and with more outputs.

    `options` makes them of a `Draw` and the sizes; `change`, the arrays and all options, in place;
    `spoil` makes NaN of what the masks exclude.
    """

    def run(draw):
        arrays = required_of(function, draw, sizes)
        names = list(arrays)
        keywords = parameters_of(function, draw, sizes) | options(draw, sizes)
        if change:
            change(draw, arrays, keywords)
        allowed = allowed_of(sizes, keywords) if spoil else None
        given = hand_over(arrays | keywords, dtype)
        if spoil:
            given = {name: spoiled(name, x, allowed) for name, x in given.items()}
        if layout:
            given = {name: laid_out(layout, x) for name, x in given.items()}

        def prepare(name, x):
            x = spoiled("d" + name, x, allowed) if spoil else x
            return laid_out(layout, x)

        arrays = [given.pop(name) for name in names]
        names += [name for name in keywords if is_real(keywords[name])]
        call = getattr(attnc, function)
        yield "call", call(*arrays, **given)
        output, pullback = attnc.vjp(call, *arrays, **given)
        dcontext, _ = incoming(draw, output, dtype, prepare)
        gradients = pullback(dcontext)
        yield "vjp", {"context": output, **named(gradients, names)}
        given |= {"return_weights": True, "return_lse": True}
        output, pullback = attnc.vjp(call, *arrays, **given)
        dcontext, others = incoming(draw, output, dtype, prepare)
        gradients = pullback(dcontext, **others)
        yield "vjp of all", {**output._asdict(), **named(gradients, names)}

    return run


def laid_out(layout, x):
    return LAYOUTS[layout](x) if layout and isinstance(x, np.ndarray) and x.ndim else x


def allowed_of(s, options):
    """Which pairs of query and key the masks allow, (*lead, Tq, Tk). Knows no causal or window."""
    allowed = np.ones((*s.lead, s.Tq, s.Tk), bool)
    if "mask" in options:
        allowed &= options["mask"]
    if "key_mask" in options:
        allowed &= options["key_mask"][..., None, :]
    if "key_lengths" in options:
        allowed &= (np.arange(s.Tk) < np.asarray(options["key_lengths"])[..., None])[..., None, :]
    return allowed


def spoiled(name, x, allowed):
    """NaN wherever no allowed pair reads the array of this name."""
    unread = {
        "query": ~allowed.any(axis=-1)[..., None],
        "key": ~allowed.any(axis=-2)[..., None],
        "scores": ~allowed,
        "bias": ~allowed,
        "dcontext": ~allowed.any(axis=-1)[..., None],
        "dweights": ~allowed,
        "dlse": ~allowed.any(axis=-1),
    }
    unread["value"], unread["d"] = unread["key"], unread["dcontext"]
    if name not in unread:
        return x
    x = np.array(x)
    x[np.broadcast_to(unread[name], x.shape)] = np.nan
    return x


def masks_to_spoil(draw, s):
    mask = one_row_masked(draw, s)
    mask[..., s.Tk // 3 : s.Tk // 3 + 2] = False
    lengths = draw.integers(s.Tk // 2, s.Tk, *s.lead)
    return {"mask": mask, "key_lengths": lengths, "bias": draw.normal(*s.lead, s.Tq, s.Tk)}


def outputs_asked_for(function, dtype, how):
    """Each flag alone, and each incoming gradient alone."""

    def run(draw):
        arrays = required_of(function, draw, SMALL)
        names = list(arrays)
        keywords = parameters_of(function, draw, SMALL) | {"causal": True}
        given = hand_over(arrays | keywords, dtype)
        arrays = [given.pop(name) for name in names]
        call, s = getattr(attnc, function), SMALL
        flag = {"return_weights": True} if how == "weights" else {"return_lse": True}
        yield "call", call(*arrays, **given, **flag)
        output, pullback = attnc.vjp(call, *arrays, **given, **flag)
        dcontext, others = incoming(draw, output, dtype)
        assert np.shape(dcontext) == (*s.lead, s.Tq, s.Dv)
        yield "vjp", named(pullback(dcontext, **others), names)
        yield "without dcontext", named(pullback(None, **others), names)
        yield "dcontext alone", named(pullback(dcontext), names)

    return run


def extreme(draw, arrays, keywords):
    """Scores far beyond what exp can take, zero vectors, the largest numbers in a bias."""
    for name in ("query", "scores"):
        if name in arrays:
            arrays[name] *= 300
    for name in ("query", "key"):
        if name in arrays:
            arrays[name][..., 1, :] = 0
    keywords["bias"][..., 0] = -60000
    keywords["bias"][..., 2, :] = -60000


def not_finite(draw, arrays, keywords):
    """Infinity and NaN where they are read."""
    first = next(iter(arrays))
    arrays[first][..., 0, 0] = np.inf
    arrays[first][..., 1, 1] = -np.inf
    arrays["value"][..., 2, 0] = np.nan
    arrays["value"][..., 3, 1] = np.inf
    keywords["bias"][..., 3, 2] = np.nan


def projected(draw, arrays, keywords):
    """Additive attention of what is projected already."""
    size = arrays["score_vector"].size
    for name in ("query", "key"):
        arrays[name] = arrays[name][..., :size].copy()
    for name in ("query_weight", "key_weight", "score_bias"):
        del keywords[name]


def half_projected(draw, arrays, keywords):
    arrays["query"] = arrays["query"][..., : arrays["score_vector"].size].copy()
    del keywords["query_weight"]


def with_scale(scale):
    def change(draw, arrays, keywords):
        keywords.pop("scale", None)
        if scale is not None:
            keywords["scale"] = scale

    return change


def attention_cases():
    random_bias = OPTIONS["bias"]
    for function in FUNCTIONS:
        add = partial(attention, function)
        for dtype in DTYPES:
            for name, options in OPTIONS.items():
                case(f"{function}/{dtype}/small/{name}", add(SMALL, dtype, options))
                if dtype in ("float32", "float64", "float16"):
                    case(f"{function}/{dtype}/medium/{name}", add(MEDIUM, dtype, options))
            for how in ("weights", "lse"):
                run = outputs_asked_for(function, dtype, how)
                case(f"{function}/{dtype}/small/return_{how}", run)
        for dtype in ("float32", "float64", "float16", "bfloat16"):
            for shape, sizes in SHAPES.items():
                for name in ("plain", "causal", "everything"):
                    run = add(sizes, dtype, OPTIONS[name])
                    case(f"{function}/{dtype}/{shape}/{name}", run)
            for shape, sizes in {"small": SMALL, "medium": MEDIUM}.items():
                run = add(sizes, dtype, masks_to_spoil, spoil=True)
                case(f"{function}/{dtype}/{shape}/NaN where masked", run)
            for change in (extreme, not_finite):
                run = add(SMALL, dtype, random_bias, change=change)
                case(f"{function}/{dtype}/small/{change.__name__}", run)
        for dtype in ("float32", "float64", "float16"):
            for layout in LAYOUTS:
                run = add(SMALL, dtype, everything, layout=layout)
                case(f"{function}/{dtype}/small/{layout}", run)
        for dtype in FLOATS:
            for shape, sizes in LARGE.items():
                if function == "additive_attention":  # a tanh for every feature of every pair
                    sizes = sizes._replace(D=12)
                for name in ("plain", "causal", "everything"):
                    run = add(sizes, dtype, OPTIONS[name])
                    case(f"{function}/{dtype}/{shape}/{name}", run, threads=(1, 2))
    for dtype in DTYPES:
        for change in (projected, half_projected):
            run = attention("additive_attention", SMALL, dtype, OPTIONS["causal"], change=change)
            case(f"additive_attention/{dtype}/small/{change.__name__}", run)
        scales = {"none": None, "number": 0.7, "array": np.array(0.7), "scalar": np.float32(0.7)}
        for function in ("dot_product_attention", "cosine_attention"):
            for name, scale in scales.items():
                run = attention(function, SMALL, dtype, OPTIONS["causal"], change=with_scale(scale))
                case(f"{function}/{dtype}/small/scale {name}", run)


def sparse(function, dtype, sizes, normalizer, options):
    def run(draw):
        given = required_of(function, draw, sizes)
        names = list(given)
        given |= parameters_of(function, draw, sizes) | options(draw, sizes)
        given = {n: x for n, x in given.items() if n not in ("sink", "center")}
        given = hand_over(given, dtype)
        arrays = [given.pop(x) for x in names]
        given["normalizer"] = normalizer
        yield "call", getattr(attnc, function)(*arrays, **given)
        output, pullback = attnc.vjp(
            getattr(attnc, function), *arrays, **given, return_weights=True
        )
        dcontext, others = incoming(draw, output, dtype)
        yield "vjp", {"output": output, **named(pullback(dcontext, **others), names)}

    return run


def sparse_cases():
    for function in FUNCTIONS:
        for normalizer in ("sparsemax", "entmax15"):
            for dtype in ("float32", "float64", "float16"):
                for shape in ("rank 2", "crossed", "one query", "tiles", "no keys"):
                    for name in ("plain", "everything"):
                        run = sparse(function, dtype, SHAPES[shape], normalizer, OPTIONS[name])
                        what = f"{normalizer}/{function}/{dtype}/{shape}/{name}"
                        case(what, run, threads=(1, 2))


def scores_alone(function, dtype, sizes, masked):
    name = function.replace("_attention", "_scores")

    def run(draw):
        given = required_of(function, draw, sizes)
        del given["value"]
        names = list(given)
        given = hand_over(given | parameters_of(function, draw, sizes), dtype)
        options = {}
        if masked:
            options = {
                "mask": draw.bools(*sizes.lead, sizes.Tq, sizes.Tk),
                "query_lengths": draw.integers(0, sizes.Tq, *sizes.lead),
                "causal": True,
                "causal_offset": sizes.Tk // 2,
            }
        arrays = [given.pop(x) for x in names]
        scores, pullback = attnc.vjp(getattr(attnc, name), *arrays, **given, **options)
        yield "call", getattr(attnc, name)(*arrays, **given, **options)
        dscores, _ = incoming(draw, scores, dtype)
        yield "vjp", {"output": scores, **named(pullback(dscores), names)}

    return run


def scores_cases():
    for function in FUNCTIONS:
        if function == "attend":
            continue
        for dtype in DTYPES:
            for shape in ("rank 2", "rank 5", "crossed", "one query", "tiles"):
                for how in ("plain", "masked"):
                    run = scores_alone(function, dtype, SHAPES[shape], how == "masked")
                    case(f"scores/{function}/{dtype}/{shape}/{how}", run, threads=(1, 2))


PACKED = {
    "self": ([30, 0, 1, 70, 2], None),
    "cross": ([30, 0, 1, 70, 2], [20, 3, 600, 0, 210]),
    "many keys": ([9, 40], [700, 530]),
}
PACKED_OPTIONS = {
    "plain": lambda d, s: {},
    "causal": lambda d, s: {"causal": True, "softcap": 3.0},
    "window": lambda d, s: {"window": (7, 2), "causal_offset": 3},
    "masked": lambda d, s: {"key_mask": d.bools(*s.lead, s.Tk), "dropout": 0.3, "rng": 9},
}


def packed(function, dtype, lengths, options, layout):
    queries, keys = lengths
    s = SMALL._replace(Tq=sum(queries), Tk=sum(keys or queries))

    def run(draw):
        arrays = required_of(function, draw, s)
        names = list(arrays)
        given = hand_over(arrays | parameters_of(function, draw, s), dtype)
        arrays = [laid_out(layout if k < 3 else None, given.pop(x)) for k, x in enumerate(names)]
        given |= options(draw, s)
        given["query_offsets"] = np.append(0, np.cumsum(queries))
        if keys:
            given["key_offsets"] = np.append(0, np.cumsum(keys))
        call = getattr(attnc, function)
        yield "call", call(*arrays, **given)
        output, pullback = attnc.vjp(call, *arrays, **given, return_lse=True)
        dcontext, others = incoming(draw, output, dtype)
        yield "vjp", {"output": output, **named(pullback(dcontext, **others), names)}

    return run


def packed_cases():
    for function in FUNCTIONS:
        if function == "attend":
            continue
        for dtype in DTYPES:
            for shape, lengths in PACKED.items():
                for name, options in PACKED_OPTIONS.items():
                    for layout in (None, "transposed") if dtype in FLOATS else (None,):
                        run = packed(function, dtype, lengths, options, layout)
                        how = f"{name}, {layout}" if layout else name
                        case(f"packed/{function}/{dtype}/{shape}/{how}", run, threads=(1, 2))


def merge(shape, count, dtype, return_lse, excluded):
    def run(draw):
        contexts = [draw.normal(*shape) for _ in range(count)]
        lses = [some_bias(draw, *shape[:-1], excluded=excluded) for _ in range(count)]
        contexts = [DTYPES[dtype](x, k) for k, x in enumerate(contexts)]
        lses = [DTYPES[dtype](x, k) for k, x in enumerate(lses)]
        options = {"return_lse": return_lse}
        output, pullback = attnc.vjp(attnc.merge_attention, contexts, lses, **options)
        yield "call", attnc.merge_attention(contexts, lses, **options)
        dcontext, others = incoming(draw, output, dtype)
        gradients = pullback(dcontext, **others)
        yield "vjp", {"output": output, **named(gradients, ["contexts", "lses"])}

    return run


def merge_cases():
    shapes = {"rank 2": (3, 4), "rank 4": (2, 3, 5, 7), "many queries": (2, 300, 40)}
    for dtype in DTYPES:
        for name, shape in shapes.items():
            for count in (1, 2, 5):
                for return_lse in (False, True):
                    for excluded in (0, 0.4):
                        case(
                            f"merge_attention/{dtype}/{name}/{count} parts"
                            + ("/lse" if return_lse else "")
                            + ("/some empty" if excluded else ""),
                            merge(shape, count, dtype, return_lse, excluded),
                        )


# ---- Hard attention and its kin ------------------------------------------------------------------


def hard(function, dtype, Tk, how, masked):
    def run(draw):
        arrays = typed([draw.normal(2, 9, Tk), draw.normal(2, Tk, 5)], dtype)
        options = dict(how)
        if masked:
            options["mask"] = draw.integers(0, 3, 2, 9, Tk) > 0
            options["bias"] = typed([draw.normal(2, 1, Tk)], dtype)[0]
        yield "call", function(*arrays, **options)
        output, pullback = attnc.vjp(function, *arrays, **options)
        gradients = pullback(np.cos(np.asarray(output[0], np.float64)))
        yield "vjp", named(gradients, ["scores", "value"])
        if function is attnc.hard_attention:
            d = [np.cos(np.asarray(x, np.float64)) for x in output[2:]]
            yield "all gradients", named(pullback(None, *d), ["scores", "value"])

    return run


def hard_cases():
    functions = {
        "hard_attention": (attnc.hard_attention, {"rng": 7}),
        "hard_attention, largest": (attnc.hard_attention, {"sample": False}),
        "straight_through": (attnc.estimators.straight_through, {"rng": 7}),
        "gumbel_softmax": (attnc.estimators.gumbel_softmax, {"rng": 7, "temperature": 0.5}),
        "gumbel_softmax, hard": (attnc.estimators.gumbel_softmax, {"rng": 7, "hard": True}),
    }
    for dtype in DTYPES:
        for name, (function, how) in functions.items():
            for Tk in (7, 700):
                for masked in (False, True):
                    case(
                        f"{name}/{dtype}/{Tk} keys" + ("/masked" if masked else ""),
                        hard(function, dtype, Tk, how, masked),
                        threads=(1, 3),
                    )


# ---- Recurrent functions -------------------------------------------------------------------------

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


def rotary(shape, dtype, given):
    def run(draw):
        (x,) = typed([draw.normal(*shape)], dtype)
        options = {
            "offset": draw.integers(0, 99, *shape[:-2]),
            "position": draw.integers(0, 99, *shape[:-1]),
            "interleaved": True,
        }
        options = {name: options[name] for name in given}
        yield "call", attnc.rotary(x, **options)
        output, pullback = attnc.vjp(attnc.rotary, x, **options)
        yield "vjp", {"y": output, "dx": pullback(np.cos(np.asarray(output, np.float64))).x}

    return run


def rotary_cases():
    for dtype in DTYPES:
        for name, shape in {"small": (2, 5, 6), "large": (3, 2, 200, 64)}.items():
            for given in ((), ("interleaved",), ("position", "offset")):
                run = rotary(shape, dtype, given)
                case(f"rotary/{dtype}/{name}/{' '.join(given) or 'plain'}", run, threads=(1, 2))


def monotonic(shape, dtype, given, width):
    """An alignment, and attention to chunks by it."""

    def run(draw):
        *lead, _, Tk = shape
        p = 1 / (1 + np.exp(-draw.normal(*shape)))
        scores, value, previous = draw.normal(*shape), draw.normal(*lead, Tk, 9), p[..., 0, :] / Tk
        p, scores, value, previous = typed([p, scores, value, previous], dtype)
        options = {
            "key_mask": draw.bools(*lead, Tk),
            "key_lengths": draw.integers(0, Tk, *lead),
        }
        options = {name: options[name] for name in given}
        arrays = (p, previous) if given else (p,)
        output, pullback = attnc.vjp(attnc.monotonic_alignment, *arrays, **options)
        yield "alignment", output._asdict()
        yield "alignment, backward", vars(pullback(scores, output.missing))
        output, pullback = attnc.vjp(
            attnc.chunkwise_attention,
            output.alignment,
            scores,
            value,
            width,
            return_weights=True,
            **options,
        )
        yield "chunks", output._asdict()
        yield "chunks, backward", vars(pullback(output.context, dweights=output.weights))

    return run


def monotonic_cases():
    for dtype in DTYPES:
        for name, shape in {"small": (2, 5, 6), "large": (3, 7, 20, 70)}.items():
            for given in ((), ("key_mask", "key_lengths")):
                for width in (1, 4, 100):
                    run = monotonic(shape, dtype, given, width)
                    what = f"monotonic/{dtype}/{name}/{' '.join(given) or 'plain'}/{width}"
                    case(what, run, threads=(1, 2))


def rows(name, shape, dtype, options, others=()):
    """A function of rows or single numbers; `others` are its arrays beside x."""

    def run(draw):
        shapes = [shape, *((shape if other == "up" else shape[-1:]) for other in others)]
        arrays = typed([draw.normal(*each, scale=2) for each in shapes], dtype)
        function = getattr(functional, name)
        yield "call", function(*arrays, **options)
        output, pullback = attnc.vjp(function, *arrays, **options)
        yield "vjp", {"y": output, **vars(pullback(np.cos(np.asarray(output, np.float64))))}

    return run


def rows_cases():
    kinds = {
        "layer_norm": ({}, ("weight", "bias")),
        "layer_norm/plain": ({"epsilon": 0.1}, ()),
        "rms_norm": ({}, ("weight",)),
        "relu": ({}, ()),
        "gelu": ({}, ()),
        "gelu/approximate": ({"approximate": True}, ()),
        "silu": ({}, ()),
        "swiglu": ({}, ("up",)),
    }
    for dtype in DTYPES:
        for name, (options, others) in kinds.items():
            for shape in ((7,), (2, 5, 33), (150, 700)):
                run = rows(name.partition("/")[0], shape, dtype, options, others)
                case(f"{name}/{dtype}/{shape}", run, threads=(1, 2))


def recurrent_parameters(draw, kind, sizes, H):
    """Four arrays of every cell; `sizes` are those of their inputs."""
    width = GATES[kind] * H
    shapes = [shape for n in sizes for shape in ((n, width), (H, width), (width,), (width,))]
    return [draw.normal(*shape, scale=shape[0] ** -0.5) for shape in shapes]


def typed(arrays, dtype):
    return list(hand_over(dict(enumerate(arrays)), dtype).values())


class Recurrence(NamedTuple):
    """What a case of `rnn`, `gru`, `lstm` is about."""

    layers: int = 1
    bidirectional: bool = False
    state: bool = False
    lengths: bool = False
    dropout: float = 0.0


RECURRENCES = {
    "plain": Recurrence(),
    "state": Recurrence(state=True),
    "lengths": Recurrence(lengths=True),
    "bidirectional": Recurrence(bidirectional=True),
    "bidirectional, lengths": Recurrence(bidirectional=True, lengths=True),
    "layers": Recurrence(layers=2),
    "dropout": Recurrence(layers=2, dropout=0.4),
    "everything": Recurrence(3, True, True, True, 0.3),
}


def recurrent(kind, B, T, size, H, dtype, how):
    def run(draw):
        directions = 1 + how.bidirectional
        sizes = [size] * directions + [directions * H] * (directions * (how.layers - 1))
        x = draw.normal(B, T, size)
        options = {"bidirectional": how.bidirectional}
        if how.lengths:
            options["lengths"] = lengths = draw.integers(0, T, B)
            x[np.arange(T) >= lengths[:, None]] = np.nan
        if how.dropout:
            options |= {"dropout": how.dropout, "rng": 5}
        x, *parameters = typed([x, *recurrent_parameters(draw, kind, sizes, H)], dtype)
        if how.state:
            shape = (len(sizes), B, H)
            h, c = typed([draw.normal(*shape, scale=0.5), draw.normal(*shape)], dtype)
            options["state"] = (h, c) if kind == "lstm" else h
        function = getattr(functional, kind)
        yield "call", function(x, parameters, **options)
        output, pullback = attnc.vjp(function, x, parameters, **options)
        doutputs, others = incoming(draw, output, dtype)
        names = ["x", "parameters", "state"]
        yield "vjp", {"output": output, **named(pullback(doutputs, **others), names)}
        yield "doutputs alone", named(pullback(doutputs), names)
        yield "dstate alone", named(pullback(None, **others), names)

    return run


def recurrent_cases():
    shapes = {"small": (3, 5, 4, 6), "one": (1, 7, 8, 16), "medium": (37, 9, 20, 40)}
    shapes |= {"no time": (2, 0, 4, 6), "no batch": (0, 5, 4, 6), "one unit": (2, 5, 1, 1)}
    for kind in GATES:
        for shape, sizes in shapes.items():
            for dtype in DTYPES if shape == "small" else FLOATS:
                for name, how in RECURRENCES.items():
                    if dtype in ("integers", "lists") and how.lengths:
                        continue  # NaN is no integer
                    threads = (1, 2) if shape == "medium" else (1,)
                    run = recurrent(kind, *sizes, dtype, how)
                    case(f"{kind}/{dtype}/{shape}/{name}", run, threads=threads)


# ---- The decoder function ------------------------------------------------------------------------


class Decoding(NamedTuple):
    """Which of the legal decoders a case has."""

    attention: str
    order: str
    cell: str
    input_feeding: bool
    coverage: bool

    def __str__(self):
        more = [name for name in ("input_feeding", "coverage") if getattr(self, name)]
        return "/".join([self.attention, self.order, self.cell, *more])


DECODERS = [
    Decoding(attention, order, cell, feeding, coverage)
    for attention in ("additive", "multiplicative", "dot", "cosine", "none")
    for order in ("bahdanau", "luong")
    for cell in GATES
    for feeding in (False, True)[: 1 + (order == "luong")]
    for coverage in (False, True)[: 1 + (attention != "none")]
]


class Decoded(NamedTuple):
    """Sizes of a decoder: batch, steps, keys, input, state, score, layers."""

    B: int = 3
    T: int = 4
    Tk: int = 6
    E: int = 5
    H: int = 8
    A: int = 7
    layers: int = 1


def decoder_arrays(draw, how, s):
    """The arrays of a call, float64: inputs, memory, those of the cells, and the rest by name."""
    H, E, A = s.H, s.E, s.A
    M = H if how.attention in ("dot", "cosine") else H - 2
    fed = M if how.order == "bahdanau" else H * how.input_feeding
    cells = recurrent_parameters(draw, how.cell, [E + fed] + [H] * (s.layers - 1), H)
    rest = {
        "additive": {"query_weight": (H, A), "key_weight": (M, A), "score_vector": (A,)},
        "multiplicative": {"weight": (H, M)},
        "cosine": {"scale": ()},
    }.get(how.attention, {})
    rest = {name: draw.normal(*shape, scale=0.4) for name, shape in rest.items()}
    rest |= {"coverage_weight": np.array(-0.3)} if how.coverage else {}
    rest |= {"readout_weight": draw.normal(M + H, H, scale=0.3)} if how.order == "luong" else {}
    return draw.normal(s.B, s.T, E), draw.normal(s.B, s.Tk, M), cells, rest


def decoder(how, s, dtype, masked):
    def run(draw):
        inputs, memory, cells, rest = decoder_arrays(draw, how, s)
        options = {name: getattr(how, name) for name in ("attention", "order", "cell")}
        options["input_feeding"] = how.input_feeding
        if masked:
            options["key_lengths"] = lengths = draw.integers(1, s.Tk, s.B)
            options["key_mask"] = key_mask = draw.bools(s.B, s.Tk, share=0.8)
            allowed = key_mask & (np.arange(s.Tk) < lengths[:, None])
            memory[~allowed] = np.nan
        inputs, memory, *cells = typed([inputs, memory, *cells], dtype)
        options |= hand_over(rest, dtype)
        call = functional.attention_decoder
        names = ["inputs", "memory", "cells", "state", *rest]
        output, pullback = attnc.vjp(call, inputs, memory, cells, **options)
        doutputs, others = incoming(draw, output, dtype)
        yield "vjp", {"output": output, **named(pullback(doutputs, **others), names)}
        options["state"] = output.state
        yield "from a state", call(inputs, memory, cells, **options)
        output, pullback = attnc.vjp(call, inputs, memory, cells, **options)
        doutputs, others = incoming(draw, output, dtype)
        yield "vjp from a state", {"output": output, **named(pullback(doutputs, **others), names)}
        yield "doutputs alone", named(pullback(doutputs), names)

    return run


def decoder_cases():
    large = Decoded(B=9, T=5, Tk=40, E=16, H=32, A=24)
    for how in DECODERS:
        for dtype in FLOATS:
            for masked in (False, True):
                name = f"attention_decoder/{how}/{dtype}" + ("/masked" if masked else "")
                case(name, decoder(how, Decoded(), dtype, masked))
                case(f"{name}/layers", decoder(how, Decoded(layers=2), dtype, masked))
        if how.cell == "gru":
            name = f"attention_decoder/{how}"
            for dtype in ("float16", "bfloat16", "float32+float64"):
                case(f"{name}/{dtype}", decoder(how, Decoded(), dtype, True))
            case(f"{name}/float32/large", decoder(how, large, "float32", True), threads=(1, 2))


# ---- Losses --------------------------------------------------------------------------------------


def softmax_loss(shape, classes, dtype, options):
    def run(draw):
        logits = DTYPES[dtype](draw.normal(*shape, classes, scale=3), 0)
        targets = draw.integers(0, classes - 1, *shape)
        call = losses.softmax_cross_entropy
        yield "call", call(logits, targets, **options)
        output, pullback = attnc.vjp(call, logits, targets, **options)
        gradients = {dloss: named(pullback(dloss), ["logits"]) for dloss in (1.0, 0.37)}
        yield "vjp", {"loss": output, **gradients}

    return run


def linear_loss(shape, D, classes, dtype, bias, options):
    def run(draw):
        x, weight = draw.normal(*shape, D), draw.normal(D, classes, scale=D**-0.5)
        x, weight, row = typed([x, weight, draw.normal(classes)], dtype)
        targets = draw.integers(0, classes - 1, *shape)
        given = {"bias": row, **options} if bias else options
        call = losses.linear_cross_entropy
        yield "call", call(x, weight, targets, **given)
        output, pullback = attnc.vjp(call, x, weight, targets, **given)
        names = ["x", "weight", "bias"]
        gradients = {dloss: named(pullback(dloss), names) for dloss in (1.0, 0.37)}
        yield "vjp", {"loss": output, **gradients}

    return run


def mean_loss(name, shape, dtype, given):
    def run(draw):
        x, t = draw.normal(*shape), 0.4 * draw.bools(*shape) + 0.05  # 0 and 1 as integers
        weights, mask = 1 + draw.bools(*shape), draw.bools(*shape[:-1], *[1] * (len(shape) > 0))
        arrays = typed([x, t, weights.astype(np.float64)], dtype)
        options = {"weights": arrays.pop(), "mask": mask}
        options = {option: options[option] for option in given}
        call = getattr(losses, name)
        yield "call", call(*arrays, **options)
        output, pullback = attnc.vjp(call, *arrays, **options)
        gradients = {dloss: vars(pullback(dloss)) for dloss in (1.0, 0.37)}
        yield "vjp", {"loss": output, **gradients}

    return run


def loss_cases():
    options = {
        "plain": {},
        "ignore_index": {"ignore_index": 0},
        "label_smoothing": {"label_smoothing": 0.1},
        "both": {"ignore_index": 1, "label_smoothing": 0.2},
    }
    shapes = {"one": ((), 2), "few": ((2, 3), 7), "many": ((40,), 1003), "none": ((0,), 3)}
    for name, (shape, classes) in shapes.items():
        for dtype in DTYPES:
            if dtype == "lists" and not all(shape):
                continue  # a list of nothing has one axis only
            for option, given in options.items():
                end = f"{dtype}/{name}/{option}"
                run = softmax_loss(shape, classes, dtype, given)
                case(f"softmax_cross_entropy/{end}", run, threads=(1, 2))
                for bias in (False, True):
                    run = linear_loss(shape, 12, classes, dtype, bias, given)
                    case(f"linear_cross_entropy/{end}" + ("/bias" if bias else ""), run)
    for name in ("mean_squared_error", "binary_cross_entropy"):
        for dtype in DTYPES:
            for shape in ((), (7,), (3, 40)):
                for given in ((), ("weights",), ("mask",), ("weights", "mask")):
                    end = f"{dtype}/{len(shape)}/{' '.join(given) or 'plain'}"
                    case(f"{name}/{end}", mean_loss(name, shape, dtype, given))


# ---- Layers --------------------------------------------------------------------------------------


def layer(make, inputs, names=(), dtype="float32"):
    """A case of a layer: parameters as made, the call, the gradients, the gradients of parameters.

    `make` returns it; `inputs`, of a `Draw`, its arrays and options. Parameters are drawn, because
    many are 0 at first.
    """

    def run(draw):
        made = make()
        yield "parameters as made", dict(made.parameters)
        made.load_state_dict(
            {name: draw.normal(*x.shape, scale=0.4) for name, x in made.parameters.items()}
        )
        arrays, options = inputs(draw)
        yield "call", made(*arrays, **options)
        output, pullback = attnc.vjp(made, *arrays, **options)
        first, others = incoming(draw, output, dtype)
        gradients = named(pullback(first, **others), names)
        found = {"output": output, **gradients}
        yield "vjp", found | {"parameters": dict(made.gradients)}

    return run


def layer_options(draw, *lead, Tq, Tk):
    """The options of attention layers, each as (name, keywords)."""
    yield "plain", {}
    yield "return_weights", {"return_weights": True}
    yield (
        "masks",
        {
            "mask": draw.bools(*lead, Tq, Tk, share=0.8),
            "key_mask": draw.bools(*lead, Tk, share=0.8),
            "key_lengths": draw.integers(1, Tk, *lead),
        },
    )
    yield (
        "bias",
        {
            "bias": draw.normal(*lead, Tq, Tk).astype(np.float32),
            "softcap": 2.0,
            "return_lse": True,
        },
    )
    yield (
        "causal",
        {"causal": True, "causal_offset": 1, "window": (3, None), "return_weights": True},
    )
    yield "dropout", {"train": True, "rng": 3, "return_weights": True, "return_lse": True}


def attention_layer_cases():
    for dtype in FLOATS:
        common = {"dropout": 0.3, "dtype": dtype}
        makers = {
            "DotProductAttention": lambda c=common: attnc.DotProductAttention(**c),
            "DotProductAttention, scale 1": lambda c=common: attnc.DotProductAttention(1.0, **c),
            "MultiplicativeAttention": lambda c=common: attnc.MultiplicativeAttention(
                8, 8, rng=1, **c
            ),
            "AdditiveAttention": lambda c=common: attnc.AdditiveAttention(8, 8, 6, rng=1, **c),
            "AdditiveAttention, score_bias": lambda c=common: attnc.AdditiveAttention(
                8, 8, 6, score_bias=True, rng=1, **c
            ),
            "CosineAttention": lambda c=common: attnc.CosineAttention(5.0, **c),
        }
        for made, make in makers.items():
            for name, options in layer_options(Draw(0), 2, Tq=5, Tk=7):
                for value in (True, False):
                    end = f"{dtype}/{name}" + ("" if value else "/memory alone")
                    names = ["query", "key", "value", "bias"]
                    arrays = partial(sequences, value=value, dtype=dtype, options=options)
                    case(f"{made}/{end}", layer(make, arrays, names, dtype))
        for name, options in layer_options(Draw(0), 2, Tq=7, Tk=7):
            for made, sizes in {"square": (8,), "sizes": (8, 6, 5)}.items():
                make = partial(attnc.SelfAttention, *sizes, rng=1, **common)
                x = partial(one_array, shape=(2, 7, 8), dtype=dtype, options=options)
                case(f"SelfAttention, {made}/{dtype}/{name}", layer(make, x, ["x", "bias"], dtype))
            for made, more in HEADS.items():
                make = partial(attnc.MultiHeadAttention, 8, 4, rng=1, **common, **more)
                x = partial(one_array, shape=(2, 7, 8), dtype=dtype, options=options)
                names = ["query", "bias"]
                case(f"MultiHeadAttention, {made}/{dtype}/{name}", layer(make, x, names, dtype))


def monotonic_layer_cases():
    for dtype in FLOATS:
        for score in ("additive", "multiplicative", "dot", "cosine"):
            common = {"score": score, "rng": 1, "dtype": dtype}
            makers = {
                "MonotonicAttention": partial(attnc.MonotonicAttention, 8, 8, **common),
                "ChunkwiseAttention": partial(attnc.ChunkwiseAttention, 8, 8, 3, **common),
            }
            for made, make in makers.items():
                for name, options in {
                    "plain": {},
                    "lengths, noise": {"key_lengths": [7, 3], "train": True, "rng": 5},
                }.items():
                    arrays = partial(sequences, value=True, dtype=dtype, options=options)
                    names = ["query", "key", "value"]
                    case(f"{made}, {score}/{dtype}/{name}", layer(make, arrays, names, dtype))


HEADS = {
    "plain": {},
    "groups": {"num_kv_heads": 2, "projection_bias": True, "normalize_qk": True},
    "rotary": {"num_kv_heads": 1, "rotary": True, "head_size": 6, "output_size": 5},
}


def sequences(draw, value, dtype, options):
    shapes = [(2, 5, 8), (2, 7, 8), (2, 7, 3)][: 2 + value]
    return typed([draw.normal(*shape) for shape in shapes], dtype), options


def on_attention(size, rng, dtype):
    return attnc.AttentionOnAttention(attnc.DotProductAttention(dtype=dtype), size, rng=rng)


def gated(size, rng, dtype):
    made = attnc.DotProductAttention(dtype=dtype), attnc.CosineAttention(dtype=dtype)
    return attnc.GatedAttention(*made, size, rng=rng)


def some_arrays(draw, shapes, dtype, options):
    return typed([draw.normal(*shape) for shape in shapes], dtype), options


def one_array(draw, shape, dtype, options):
    return typed([draw.normal(*shape)], dtype), options


def simple_layer_cases():
    for dtype in FLOATS:
        for bias in (False, True):
            make = partial(attnc.Linear, 6, 9, bias, rng=1, dtype=dtype)
            for shape in ((6,), (4, 6), (2, 3, 6), (0, 6), (300, 6)):
                for given in (dtype, "float16", "lists") if all(shape) else (dtype,):
                    x = partial(one_array, shape=shape, dtype=given, options={})
                    name = f"Linear/{dtype}/{given} {shape}" + ("/bias" if bias else "")
                    case(name, layer(make, x, ["x"], dtype))
        for padding in (None, 0):
            for shape in ((5,), (4, 30), (0,), ()):
                make = partial(attnc.Embedding, 11, 6, padding, rng=1, dtype=dtype)
                tokens = partial(some_tokens, shapes=[shape], options={})
                case(f"Embedding/{dtype}/padding {padding}/{shape}", layer(make, tokens, (), dtype))
        for kind, make in {
            "LayerNorm": partial(attnc.LayerNorm, 6),
            "RMSNorm": partial(attnc.RMSNorm, 6),
            "FeedForward/relu": partial(attnc.FeedForward, 6, 40, dropout=0.2, rng=1),
            "FeedForward/gelu": partial(attnc.FeedForward, 6, 40, activation="gelu", rng=1),
            "FeedForward/swiglu": partial(
                attnc.FeedForward, 6, 40, activation="swiglu", dropout=0.2, bias=False, rng=1
            ),
            "SinusoidalPositions": partial(attnc.SinusoidalPositions, 6),
            "LearnedPositions": partial(attnc.LearnedPositions, 99, 6, rng=1),
            "Dropout": partial(attnc.Dropout, 0.3),
        }.items():
            for shape in ((1, 6), (2, 3, 6), (70, 6)):
                options = {"train": True, "rng": 5} if "F" in kind or kind == "Dropout" else {}
                x = partial(one_array, shape=shape, dtype=dtype, options=options)
                case(f"{kind}/{dtype}/{shape}", layer(partial(make, dtype=dtype), x, ["x"], dtype))
        size = {"stride": (1, 2), "padding": 1, "rng": 1}
        for kind, make, shape in (
            ("Convolution2d", partial(attnc.Convolution2d, 3, 40, (3, 2), **size), (2, 3, 9, 8)),
            ("Convolution2d/one", partial(attnc.Convolution2d, 3, 4, 1, rng=1), (3, 2, 5)),
            ("MaxPool2d", partial(attnc.MaxPool2d, 3, stride=2), (2, 3, 9, 8)),
            ("AveragePool2d", partial(attnc.AveragePool2d, 2), (2, 3, 9, 8)),
            ("ImageRegions", attnc.ImageRegions, (2, 3, 4, 5)),
            ("FeatureMap", partial(attnc.FeatureMap, 4, 5), (2, 20, 3)),
        ):
            x = partial(one_array, shape=shape, dtype=dtype, options={})
            case(f"{kind}/{dtype}/{shape}", layer(partial(make, dtype=dtype), x, ["x"], dtype))
        for kind, make, shapes, options in (
            ("AttentionPooling", attnc.AttentionPooling, ((2, 7, 6),), {"key_lengths": [5, 0]}),
            (
                "HierarchicalAttention",
                partial(attnc.HierarchicalAttention, state_size=4),
                ((2, 3, 5, 6),),
                {"word_lengths": [[5, 2, 0], [1, 4, 3]]},
            ),
            ("AttentionOnAttention", on_attention, ((2, 5, 6), (2, 7, 6)), {"key_lengths": [5, 0]}),
            ("GatedAttention", gated, ((2, 5, 6), (2, 7, 6)), {"query_lengths": [5, 2]}),
            (
                "AttentionOverAttention",
                lambda size, rng, dtype: attnc.AttentionOverAttention(dtype=dtype),
                ((2, 5, 6), (2, 7, 6)),
                {"key_lengths": [5, 2]},
            ),
        ):
            for name, given in (("plain", {}), ("masked", options)):
                given = {**given, "return_weights": True}
                arrays = partial(some_arrays, shapes=shapes, dtype=dtype, options=given)
                names = ["x"] if len(shapes) == 1 else ["query", "key"]
                made = partial(make, 6, rng=1, dtype=dtype)
                case(f"{kind}/{dtype}/{name}", layer(made, arrays, names, dtype))
        for kind in ("RNN", "GRU", "LSTM"):
            for name, how in RECURRENCES.items():
                make = partial(
                    getattr(attnc, kind), 5, 6, how.layers, how.bidirectional,
                    dropout=how.dropout, rng=1, dtype=dtype,
                )  # fmt: skip
                arrays = partial(recurrent_layer_inputs, kind=kind, how=how, dtype=dtype)
                case(f"{kind}/{dtype}/{name}", layer(make, arrays, ["x", "state"], dtype))


def some_tokens(draw, shapes, options):
    return [draw.integers(0, 10, *shape) for shape in shapes], options


def recurrent_layer_inputs(draw, kind, how, dtype):
    options = {"train": True, "rng": 4} if how.dropout else {}
    if how.lengths:
        options["lengths"] = draw.integers(0, 7, 3)
    if how.state:
        shape = (how.layers * (1 + how.bidirectional), 3, 6)
        h, c = typed([draw.normal(*shape), draw.normal(*shape)], dtype)
        options["state"] = (h, c) if kind == "LSTM" else h
    return typed([draw.normal(3, 7, 5)], dtype), options


def decoder_layer_inputs(draw, M, masked, dtype):
    options = {"key_lengths": [5, 3, 6], "key_mask": draw.bools(3, 6)} if masked else {}
    return typed([draw.normal(3, 4, 5), draw.normal(3, 6, M)], dtype), options


def decoder_steps(make, M, dtype):
    """A decoder layer step by step, and from the state that it returned."""

    def run(draw):
        made = make()
        made.load_state_dict(
            {name: draw.normal(*x.shape, scale=0.4) for name, x in made.parameters.items()}
        )
        (inputs, memory), _ = decoder_layer_inputs(draw, M, False, dtype)
        prepared = made.prepare(memory, key_lengths=[5, 3, 6])
        state, found = None, []
        for t in range(inputs.shape[1]):
            output, weights, state = made.step(inputs[:, t], prepared, state)
            found.append((output, weights, state))
        yield "step", found
        output, pullback = attnc.vjp(made, inputs, memory, state)
        first, others = incoming(draw, output, dtype)
        gradients = named(pullback(first, **others), ["inputs", "memory", "state"])
        yield "from a state", {"output": output, **gradients, "parameters": dict(made.gradients)}

    return run


def decoder_layer_cases():
    for how in DECODERS:
        summaries = ("every_step", "first_state")[: 1 + (how.attention == "none")]
        for summary in summaries:
            for layers in (1, 2):
                M = 8 if how.attention in ("dot", "cosine") else 6
                dtype = FLOATS[layers - 1]
                keywords = how._asdict() | {"layers": layers, "summary": summary}
                make = partial(attnc.AttentionDecoder, 5, 8, M, rng=1, dtype=dtype, **keywords)
                name = f"AttentionDecoder/{how}/{dtype}/{summary}/{layers} layers"
                for masked in (False, True):
                    arrays = partial(decoder_layer_inputs, M=M, masked=masked, dtype=dtype)
                    run = layer(make, arrays, ["inputs", "memory"], dtype)
                    case(name + ("/masked" if masked else ""), run)
                case(f"{name}/steps", decoder_steps(make, M, dtype))


SEQ2SEQ = {
    "default": {},
    "one direction": {"bidirectional": False},
    "lstm, luong": {
        "cell": "lstm",
        "attention": "multiplicative",
        "order": "luong",
        "input_feeding": True,
    },
    "rnn, none": {"cell": "rnn", "attention": "none"},
    "lstm, none, luong": {"cell": "lstm", "attention": "none", "order": "luong"},
    "dot, coverage": {"attention": "dot", "coverage": True},
    "coverage in the tanh": {"coverage": "tanh"},
    "fertility": {"attention": "multiplicative", "coverage": "fertility", "order": "luong"},
    "monotonic": {"alignment": "monotonic"},
    "chunkwise": {"alignment": "chunkwise", "order": "luong", "input_feeding": True},
    "chunkwise, cosine": {"alignment": "chunkwise", "attention": "cosine", "chunk_width": 3},
    "cosine, luong": {"attention": "cosine", "order": "luong"},
    "layers, dropout": {"layers": 2, "dropout": 0.3},
    "lstm, layers": {"cell": "lstm", "layers": 2, "attention_size": 5, "padding_index": None},
}


def seq2seq_inputs(draw, options):
    source, target = draw.integers(2, 10, 4, 7), draw.integers(2, 12, 4, 6)
    lengths = np.array([7, 3, 5, 1])
    source[np.arange(7) >= lengths[:, None]] = 0
    target[1, 4:] = 0
    target[3, 2:] = 0
    given = {"labels": target[:, 1:], "label_smoothing": 0.1, **options}
    if options.get("labels", True) is None:
        given.pop("label_smoothing")
    return (source, target[:, :-1], lengths), given


def translation(make, options):
    def run(draw):
        made = make()
        made.load_state_dict(
            {name: draw.normal(*x.shape, scale=0.6) for name, x in made.parameters.items()}
        )
        (source, _, lengths), _ = seq2seq_inputs(draw, {})
        yield "", made.translate(source, lengths, start=1, end=2, max_length=9, **options)

    return run


def seq2seq_cases():
    calls = {
        "loss": {},
        "logits": {"labels": None},
        "train": {"train": True, "rng": 6},
        "sampling": {"train": True, "rng": 6, "sampling": 0.5},
    }
    translations = {
        "greedy": {},
        "beam": {"beam_width": 3},
        "best of the beam": {"beam_width": 4, "n_best": 3, "length_penalty": 1.0},
    }
    for name, keywords in SEQ2SEQ.items():
        for dtype in FLOATS:
            keywords = {"padding_index": 0} | keywords
            make = partial(attnc.Seq2Seq, 11, 13, 6, 8, rng=1, dtype=dtype, **keywords)
            for call, options in calls.items():
                inputs = partial(seq2seq_inputs, options=options)
                case(f"Seq2Seq/{name}/{dtype}/{call}", layer(make, inputs, (), dtype))
            for call, options in translations.items():
                case(f"Seq2Seq/{name}/{dtype}/translate, {call}", translation(make, options))


TRANSFORMERS = {
    "default": {},
    "pre, gelu": {"norm": "pre", "activation": "gelu", "dropout": 0.3},
    "rotary, rms, swiglu": {
        "positions": "rotary",
        "normalization": "rms",
        "activation": "swiglu",
        "bias": False,
        "num_kv_heads": 1,
    },
    "alibi": {"positions": "alibi", "final_norm": True},
    "learned": {"positions": "learned", "max_length": 12},
}


def language_model_inputs(draw, options):
    tokens = draw.integers(2, 10, 4, 7)
    return (tokens[:, :-1], [6, 2, 4, 1]), {"return_weights": True, **options(tokens[:, 1:])}


def generation(make, options):
    def run(draw):
        made = make()
        made.load_state_dict(
            {name: draw.normal(*x.shape, scale=0.6) for name, x in made.parameters.items()}
        )
        yield "", made.generate(draw.integers(2, 10, 3, 5), [5, 1, 3], max_length=6, **options)

    return run


def transformer_cases():
    calls = {"loss": {}, "logits": {"labels": None}, "train": {"train": True, "rng": 6}}
    for name, keywords in TRANSFORMERS.items():
        for dtype in FLOATS:
            shared = {"tied": False, "padding_index": 0, "feedforward_size": 12, "rng": 1}
            shared |= {"dtype": dtype, **keywords}
            make = partial(
                attnc.Transformer, 11, 13, 8, 2, encoder_layers=2, decoder_layers=2, **shared
            )
            for call, options in calls.items():
                inputs = partial(seq2seq_inputs, options={"return_weights": True, **options})
                case(f"Transformer/{name}/{dtype}/{call}", layer(make, inputs, (), dtype))
            for call, options in {"greedy": {}, "beam": {"beam_width": 3}}.items():
                run = translation(make, options)
                case(f"Transformer/{name}/{dtype}/translate, {call}", run)
            make = partial(attnc.LanguageModel, 11, 8, 2, 2, **shared)
            inputs = partial(language_model_inputs, options=lambda labels: {"labels": labels})
            case(f"LanguageModel/{name}/{dtype}/loss", layer(make, inputs, (), dtype))
            inputs = partial(language_model_inputs, options=lambda _: {"train": True, "rng": 6})
            case(f"LanguageModel/{name}/{dtype}/train", layer(make, inputs, (), dtype))
            for call, options in {"greedy": {"temperature": 0}, "drawn": {"rng": 3}}.items():
                case(f"LanguageModel/{name}/{dtype}/{call}", generation(make, options))


# ---- Wrong calls: what they raise ----------------------------------------------------------------


def wrong(name, call, *arrays, **options):
    def run(draw):
        call(*arrays, **options)
        yield "raised nothing", None

    case(f"wrong/{name}", run, arithmetic=False)


def wrong_attention_cases():
    one = np.ones
    right = {"query": one((2, 3, 4)), "key": one((2, 5, 4)), "value": one((2, 5, 6))}
    heads = {"query": one((2, 4, 3, 8)), "key": one((2, 4, 5, 8)), "value": one((2, 4, 5, 8))}
    changes = {
        "query None": {"query": None},
        "query complex": {"query": one((2, 3, 4), complex)},
        "key object": {"key": one((2, 5, 4), object)},
        "value longdouble": {"value": one((2, 5, 6), np.longdouble)},
        "query text": {"query": [["a", "b"]]},
        "query ragged": {"query": [[1.0, 2.0], [3.0]]},
        "key masked": {"key": np.ma.ones((2, 5, 4))},
        "query of one axis": {"query": one(4)},
        "value a number": {"value": 1.0},
        "query of two axes": {"query": one((2, 4))},
        "key of two axes": {"key": one((5, 4))},
        "value of four axes": {"value": one((1, 2, 5, 6))},
        "key of other features": {"key": one((2, 5, 3))},
        "value of other length": {"value": one((2, 4, 6))},
        "key of other batch": {"key": one((3, 5, 4))},
        "mask int8": {"mask": one((2, 3, 5), np.int8)},
        "mask float": {"mask": one((2, 3, 5))},
        "key_mask float": {"key_mask": one((2, 5))},
        "mask of keys": {"mask": one((2, 5), bool)},
        "mask without batch": {"mask": one((3, 5), bool)},
        "mask of other queries": {"mask": one((2, 4, 5), bool)},
        "mask without heads": {**heads, "mask": one((2, 3, 5), bool)},
        "key_mask without batch": {"key_mask": one(5, bool)},
        "key_mask without heads": {**heads, "key_mask": one((2, 5), bool)},
        "bias without batch": {"bias": one((3, 5))},
        "bias complex": {"bias": one((2, 3, 5), complex)},
        "key_lengths too long": {"key_lengths": [5, 6]},
        "key_lengths negative": {"key_lengths": -1},
        "query_lengths too long": {"query_lengths": [3, 4]},
        "query_lengths float": {"query_lengths": [1.0, 2.0]},
        "query_lengths without heads": {**heads, "query_lengths": [1, 2]},
        "key_lengths float": {"key_lengths": [1.0, 2.0]},
        "key_lengths of other batch": {"key_lengths": [1, 2, 3]},
        "key_lengths without heads": {**heads, "key_lengths": [1, 2]},
        "causal_offset alone": {"causal_offset": 0},
        "causal_offset float": {"causal": True, "causal_offset": 0.5},
        "causal 1": {"causal": 1},
        "return_weights None": {"return_weights": None},
        "window a number": {"window": 3},
        "window of three": {"window": (1, 2, 3)},
        "window negative": {"window": (-1, 2)},
        "window float": {"window": (1, 2.5)},
        "softcap 0": {"softcap": 0},
        "softcap text": {"softcap": "2"},
        "dropout 1": {"dropout": 1},
        "dropout None": {"dropout": None},
        "rng negative": {"dropout": 0.5, "rng": -1},
        "rng text": {"dropout": 0.5, "rng": "seed"},
        "scale text": {"scale": "1"},
        "scale of one axis": {"scale": one(2)},
        "unknown option": {"masks": None},
    }
    for name, change in changes.items():
        wrong(f"dot_product/{name}", attnc.dot_product_attention, **{**right, **change})
    arrays = list(right.values())
    wrong("dot_product/too few", attnc.dot_product_attention, *arrays[:2])
    wrong("dot_product/too many", attnc.dot_product_attention, *arrays, None)
    wrong("vjp/window", attnc.vjp, attnc.dot_product_attention, *arrays, window=1)
    wrong("vjp/not a function of attnc", attnc.vjp, np.sum, *arrays)
    wrong("vjp/class", attnc.vjp, attnc.Linear, *arrays)
    multiplicative, additive = attnc.multiplicative_attention, attnc.additive_attention
    wrong("multiplicative/weight", multiplicative, *arrays, one((4, 3)))
    wrong("multiplicative/weight missing", multiplicative, *arrays)
    wrong("additive/score_vector of two axes", additive, *arrays, one((1, 4)))
    wrong("additive/not projected", additive, *arrays, one(3))
    wrong("additive/query_weight", additive, *arrays, one(4), query_weight=one((3, 4)))
    wrong("additive/score_bias", additive, *arrays, one(4), score_bias=one(5))
    wrong("cosine/features", attnc.cosine_attention, arrays[0], one((2, 5, 3)), arrays[2])
    wrong("attend/value", attnc.attend, one((2, 3, 5)), one((2, 4, 6)))
    contexts, lses = [one((2, 3)), one((2, 3))], [one(2), one(2)]
    wrong("merge/nothing", attnc.merge_attention, [], [])
    wrong("merge/lses too few", attnc.merge_attention, contexts, lses[:1])
    wrong("merge/shapes", attnc.merge_attention, contexts, [one(2), one(3)])
    wrong("merge/no sequence", attnc.merge_attention, 1.0, lses)
    _, pullback = attnc.vjp(attnc.dot_product_attention, *arrays, return_weights=True)
    wrong("pullback/shape of dcontext", pullback, one((2, 3, 5)))
    wrong("pullback/dtype of dcontext", pullback, one((2, 3, 6), complex))
    wrong("pullback/lse not asked for", pullback, one((2, 3, 6)), dlse=one((2, 3)))
    gradients = pullback(one((2, 3, 6)))
    wrong("gradients/no such name", getattr, gradients, "bias")


def wrong_other_cases():
    one = np.ones
    x = one((2, 5, 4))
    gru, parameters = functional.gru, [one((4, 9)), one((3, 9)), one(9), one(9)]
    wrong("gru/x of two axes", gru, x[0], parameters)
    wrong("gru/x of other size", gru, one((2, 5, 3)), parameters)
    wrong("gru/parameters too few", gru, x, parameters[:3])
    wrong("gru/shape of a parameter", gru, x, [*parameters[:3], one(8)])
    wrong("gru/state", gru, x, parameters, one((2, 2, 3)))
    wrong("gru/lengths too long", gru, x, parameters, lengths=[5, 6])
    wrong("gru/lengths float", gru, x, parameters, lengths=[1.0, 2.0])
    wrong("gru/dropout", gru, x, parameters, dropout=1.5)
    wrong("lstm/state", functional.lstm, x, [one((4, 12)), one((3, 12)), one(12), one(12)], x)
    _, pullback = attnc.vjp(gru, x, parameters)
    wrong("pullback/shape of doutputs", pullback, one((2, 5, 4)))
    inputs, memory = one((2, 3, 4)), one((2, 5, 6))
    cells = [one((10, 24)), one((8, 24)), one(24), one(24)]
    call = partial(functional.attention_decoder, inputs, memory)
    general = {"attention": "multiplicative", "weight": one((8, 6))}
    wrong("attention_decoder/cell", call, cells, cell="elman", **general)
    wrong("attention_decoder/attention", call, cells, attention="general")
    wrong("attention_decoder/order", call, cells, order="none", **general)
    wrong("attention_decoder/input_feeding", call, cells, input_feeding=True, **general)
    wrong("attention_decoder/weight missing", call, cells, attention="multiplicative")
    wrong("attention_decoder/scale", call, cells, scale=1.0, **general)
    wrong("attention_decoder/dot", call, cells, attention="dot")
    wrong("attention_decoder/cells", call, cells[:3], **general)
    wrong("attention_decoder/key_mask", call, cells, key_mask=one((2, 4), bool), **general)
    wrong("attention_decoder/key_lengths", call, cells, key_lengths=[5, 6], **general)
    wrong("attention_decoder/state", call, cells, one((1, 2, 7)), **general)
    loss, linear = losses.softmax_cross_entropy, losses.linear_cross_entropy
    wrong("softmax_cross_entropy/targets float", loss, one((2, 4)), [1.0, 2.0])
    wrong("softmax_cross_entropy/targets too large", loss, one((2, 4)), [1, 4])
    wrong("softmax_cross_entropy/shapes", loss, one((2, 4)), [1, 2, 3])
    wrong("softmax_cross_entropy/smoothing", loss, one((2, 4)), [1, 2], label_smoothing=1)
    wrong("softmax_cross_entropy/logits complex", loss, one((2, 4), complex), [1, 2])
    wrong("linear_cross_entropy/weight", linear, one((2, 4)), one((3, 5)), [1, 2])
    wrong("linear_cross_entropy/bias", linear, one((2, 4)), one((4, 5)), [1, 2], bias=one(4))
    wrong("Linear/size", attnc.Linear, 0, 3)
    wrong("Linear/dtype", attnc.Linear, 3, 3, dtype="float16")
    wrong("Linear/x", attnc.Linear(3, 2, rng=0), one((4, 5)))
    wrong("Embedding/tokens float", attnc.Embedding(5, 3, rng=0), [1.0, 2.0])
    wrong("Embedding/tokens too large", attnc.Embedding(5, 3, rng=0), [4, 5])
    wrong("Embedding/padding_index", attnc.Embedding, 5, 3, padding_index=5)
    wrong("AdditiveAttention/query", attnc.AdditiveAttention(4, 6, 8, rng=0), x[..., :3], x)
    wrong("DotProductAttention/dropout", attnc.DotProductAttention, dropout=1.0)
    wrong("SelfAttention/mask", attnc.SelfAttention(4, rng=0), x, mask=one((2, 5), bool))
    wrong("GRU/lengths", attnc.GRU(4, 3, rng=0), x, lengths=[9, 1])
    wrong("AttentionDecoder/dot", attnc.AttentionDecoder, 4, 8, 6, attention="dot")
    decoder = partial(attnc.AttentionDecoder, 4, 8, 6)
    wrong("AttentionDecoder/coverage", decoder, attention="none", coverage=True)
    wrong("AttentionDecoder/summary", decoder, summary="first_state")
    wrong("AttentionDecoder/memory", decoder(rng=0), inputs, memory[:1])
    wrong("Seq2Seq/state_size", attnc.Seq2Seq, 9, 9, 4, 7)
    model = attnc.Seq2Seq(9, 9, 4, 6, rng=0)
    wrong("Seq2Seq/tokens", model, [[1, 9]], [[1, 2]])
    wrong("Seq2Seq/smoothing without labels", model, [[1, 2]], [[1, 2]], label_smoothing=0.1)
    wrong("Seq2Seq/beam", model.translate, [[1, 2]], start=1, end=2, max_length=3, n_best=2)


attention_cases()
packed_cases()
scores_cases()
sparse_cases()
merge_cases()
hard_cases()
rotary_cases()
monotonic_cases()
rows_cases()
recurrent_cases()
decoder_cases()
loss_cases()
simple_layer_cases()
attention_layer_cases()
monotonic_layer_cases()
decoder_layer_cases()
seq2seq_cases()
transformer_cases()
wrong_attention_cases()
wrong_other_cases()

if __name__ == "__main__":
    main()
