"""Every formula that stages show, written once more in NumPy by hand: it says what is computed.

`MEANING` has one row for each formula, so that a new one has to be given its meaning here. What a
row gives is summed along the axes along which the array was broadcast, where the formula says so.
"""

import types

import numpy as np
import pytest
from arrays import FUNCTIONS, inputs
from checks import assert_agree

import attnc
from attnc.teaching import formulas


def T(x):
    return np.swapaxes(x, -1, -2)


def rows(x, over):
    """The sum over an axis, kept."""
    return x.sum(axis=over, keepdims=True)


def softmax(a, sink=None):
    top = np.maximum(a.l.max(-1, keepdims=True), -1e9)
    powers = np.exp(a.l - top)
    total = rows(powers, -1) + (0 if sink is None else np.exp(sink[..., None, None] - top))
    return np.where(total == 0, 0, powers / np.where(total == 0, 1, total))


def or_zero(a, x):
    """x, and 0 in the rows of queries that may attend to no key."""
    return np.where(a.allowed.any(-1, keepdims=True), x, 0)


def threshold(z, power):
    """tau of a row with which max(z - tau, 0)^power sums to 1, by halving."""
    high = z.max(-1, keepdims=True)
    low = high - 1
    for _ in range(200):
        middle = (low + high) / 2
        more = rows(np.maximum(z - middle, 0) ** power, -1) > 1
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return low


def lengths(x):
    return np.sqrt(rows(x * x, -1))


def rms(x):
    return np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)


def distance(a, offset=0):
    Tq, Tk = a.l.shape[-2:]
    return np.abs(np.arange(Tk) - np.arange(Tq)[:, None] - offset)


def from_center(a):
    return np.arange(a.l.shape[-1]) - a.center[..., None]


def before_tanh(a):
    return a.du * (1 - a.u**2)


def of_norm(x, after, scale):
    n, e = x / rms(x), after * scale
    return (e - (e * n).mean(-1, keepdims=True) * n) / rms(x)


# In these, a.x is the array with the letter x, a.dx its gradient, and arguments have their names.
# Pairs have the axes (..., i, j); `dc_i . v_j` of all pairs is dc v^T.
FORWARD = {
    "p_ij = q_i . k_j": lambda a: a.q @ T(a.k),
    "x_i = q_i W": lambda a: a.q @ a.weight,
    "p_ij = x_i . k_j = q_i W k_j": lambda a: a.q @ a.weight @ T(a.k),
    "x_i = q_i Wq": lambda a: a.q @ a.query_weight,
    "y_j = k_j Wk": lambda a: a.k @ a.key_weight,
    "u_ij = tanh(x_i + y_j + b)": lambda a: np.tanh(
        a.x[..., None, :] + a.y[..., None, :, :] + a.score_bias
    ),
    "u_ij = tanh(q_i + y_j)": lambda a: np.tanh(a.q[..., None, :] + a.y[..., None, :, :]),
    "u_ij = tanh(x_i + k_j)": lambda a: np.tanh(a.x[..., None, :] + a.k[..., None, :, :]),
    "u_ij = tanh(q_i + k_j + b)": lambda a: np.tanh(
        a.q[..., None, :] + a.k[..., None, :, :] + a.score_bias
    ),
    "x_i = q_i / |q_i|": lambda a: a.q / lengths(a.q),
    "y_j = k_j / |k_j|": lambda a: a.k / lengths(a.k),
    "p_ij = x_i . y_j": lambda a: a.x @ T(a.y),
    "s_ij = p_ij": lambda a: a.p,
    "s_ij = scale p_ij": lambda a: a.scale * a.p,
    "s_ij = scale p_ij, scale = 1 / sqrt(D)": lambda a: a.p / np.sqrt(a.q.shape[-1]),
    "s_ij = v_a . u_ij": lambda a: (a.u * a.score_vector).sum(-1),
    "s_ij: given": lambda a: a.given_scores,
    "t_ij = s_ij: there is no softcap": lambda a: a.s,
    "t_ij = 1.5 tanh(s_ij / 1.5)": lambda a: 1.5 * np.tanh(a.s / 1.5),
    "l_ij = t_ij: nothing is masked": lambda a: a.t,
    "l_ij = t_ij, -inf where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.t, -np.inf
    ),
    "l_ij = t_ij - slope |j - i - 2| + bias_ij: nothing is masked": lambda a: (
        a.t - a.slope[..., None, None] * distance(a, 2) + a.bias
    ),
    "l_ij = t_ij - slope |j - i + 3|, -inf where query i may not attend to key j": lambda a: (
        np.where(a.allowed, a.t - a.slope[..., None, None] * distance(a, -3), -np.inf)
    ),
    "l_ij = t_ij + bias_ij, -inf where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.t + a.bias, -np.inf
    ),
    "l_ij = t_ij - (j - center_i)^2 / (2 sigma^2), -inf where query i may not attend to key j": (
        lambda a: np.where(a.allowed, a.t - from_center(a) ** 2 / (2 * a.sigma**2), -np.inf)
    ),
    "w_ij = exp(l_ij) / sum_j exp(l_ij): softmax over j": softmax,
    "w_ij = exp(l_ij) / sum_j exp(l_ij): softmax over j, 0 where query i may attend to no key": (
        softmax
    ),
    "w_ij = exp(l_ij) / (exp(sink) + sum_j exp(l_ij)): softmax over j": lambda a: softmax(
        a, a.sink
    ),
    "P_ij = exp(l_ij) / (exp(sink) + sum_j exp(l_ij)): softmax over j": lambda a: softmax(
        a, a.sink
    ),
    "w_ij = max(l_ij - tau_i, 0), which sum to 1: sparsemax over j": lambda a: np.maximum(
        a.l - threshold(a.l, 1), 0
    ),
    "w_ij = max(l_ij - tau_i, 0), which sum to 1: sparsemax over j, "
    "0 where query i may attend to no key": lambda a: or_zero(
        a, np.maximum(a.l - threshold(a.l, 1), 0)
    ),
    "w_ij = max(l_ij / 2 - tau_i, 0)^2, which sum to 1: 1.5-entmax over j, "
    "0 where query i may attend to no key": lambda a: or_zero(
        a, np.maximum(a.l / 2 - threshold(a.l / 2, 2), 0) ** 2
    ),
    "w_ij = max(l_ij / 2 - tau_i, 0)^2, which sum to 1: 1.5-entmax over j": lambda a: (
        np.maximum(a.l / 2 - threshold(a.l / 2, 2), 0) ** 2
    ),
    "g_ij = exp(-(j - center_i)^2 / (2 sigma^2))": lambda a: np.exp(
        -(from_center(a) ** 2) / (2 * a.sigma**2)
    ),
    "w_ij = P_ij g_ij": lambda a: a.P * a.g,
    "m_ij = 1 / (1 - 0.3) where a weight is kept, 0 where it is dropped": lambda a: (
        (a.m != 0) / (1 - 0.3)
    ),
    "c_i = sum_j w_ij v_j": lambda a: a.w @ a.v,
    "c_i = sum_j m_ij w_ij v_j": lambda a: (a.m * a.w) @ a.v,
}
BACKWARD = {
    "dc_i: given": lambda a: a.dcontext,
    "dc_i = 0": lambda a: 0 * a.c,
    "dw_ij = dc_i . v_j": lambda a: a.dc @ T(a.v),
    "dw_ij = given": lambda a: a.dweights,
    "dw_ij = dc_i . v_j + given, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.dc @ T(a.v) + a.dweights, 0
    ),
    "dw_ij = dc_i . v_j, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.dc @ T(a.v), 0
    ),
    "dw_ij = m_ij dc_i . v_j + given, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.m * (a.dc @ T(a.v)) + a.dweights, 0
    ),
    "dw_ij = dc_i . v_j + given": lambda a: a.dc @ T(a.v) + a.dweights,
    "dg_ij = P_ij dw_ij": lambda a: a.P * a.dw,
    "dP_ij = g_ij dw_ij": lambda a: a.g * a.dw,
    "dl_ij = w_ij (dw_ij - sum_j w_ij dw_ij)": lambda a: a.w * (a.dw - rows(a.w * a.dw, -1)),
    "dl_ij = w_ij (dw_ij - sum_j w_ij dw_ij + dlse_i)": lambda a: (
        a.w * (a.dw - rows(a.w * a.dw, -1) + a.dlse[..., None])
    ),
    "dl_ij = P_ij (dP_ij - sum_j P_ij dP_ij + dlse_i)": lambda a: (
        a.P * (a.dP - rows(a.P * a.dP, -1) + a.dlse[..., None])
    ),
    "dl_ij = dw_ij - the mean of dw_ij over all w_ij > 0; 0 where w_ij = 0": lambda a: np.where(
        a.w > 0, a.dw - rows(a.dw * (a.w > 0), -1) / rows(a.w > 0, -1), 0
    ),
    "dl_ij = r_ij (dw_ij - sum_j r_ij dw_ij / sum_j r_ij), r_ij = sqrt(w_ij)": lambda a: (
        np.sqrt(a.w) * (a.dw - rows(np.sqrt(a.w) * a.dw, -1) / rows(np.sqrt(a.w), -1))
    ),
    "dl_ij = r_ij (dw_ij - sum_j r_ij dw_ij / sum_j r_ij), r_ij = sqrt(w_ij), "
    "0 where query i may attend to no key": lambda a: or_zero(
        a, np.sqrt(a.w) * (a.dw - rows(np.sqrt(a.w) * a.dw, -1) / rows(np.sqrt(a.w), -1))
    ),
    "dt_ij = dl_ij": lambda a: a.dl,
    "ds_ij = dt_ij": lambda a: a.dt,
    "ds_ij = dt_ij (1 - tanh(s_ij / 1.5)^2)": lambda a: a.dt / np.cosh(a.s / 1.5) ** 2,
    "dp_ij = ds_ij": lambda a: a.ds,
    "dp_ij = scale ds_ij": lambda a: a.scale * a.ds,
    "dq_i = sum_j dp_ij k_j": lambda a: a.dp @ a.k,
    "dk_j = sum_i dp_ij q_i": lambda a: T(a.dp) @ a.q,
    "dscale = sum_ij ds_ij p_ij": lambda a: (a.ds * a.p).sum((-1, -2)),
    "dx_i = sum_j dp_ij k_j": lambda a: a.dp @ a.k,
    "dq_i = dx_i W^T": lambda a: a.dx @ a.weight.T,
    "dk_j = sum_i dp_ij x_i": lambda a: T(a.dp) @ a.x,
    "dW = sum_i q_i^T dx_i": lambda a: T(a.q) @ a.dx,
    "du_ij = ds_ij v_a": lambda a: a.ds[..., None] * a.score_vector,
    "dx_i = sum_j du_ij * (1 - u_ij^2)": lambda a: before_tanh(a).sum(-2),
    "dy_j = sum_i du_ij * (1 - u_ij^2)": lambda a: before_tanh(a).sum(-3),
    "dq_i = sum_j du_ij * (1 - u_ij^2)": lambda a: before_tanh(a).sum(-2),
    "dk_j = sum_i du_ij * (1 - u_ij^2)": lambda a: before_tanh(a).sum(-3),
    "dq_i = dx_i Wq^T": lambda a: a.dx @ a.query_weight.T,
    "dk_j = dy_j Wk^T": lambda a: a.dy @ a.key_weight.T,
    "dv_a = sum_ij ds_ij u_ij": lambda a: (a.ds[..., None] * a.u).sum((-2, -3)),
    "dWq = sum_i q_i^T dx_i": lambda a: T(a.q) @ a.dx,
    "dWk = sum_j k_j^T dy_j": lambda a: T(a.k) @ a.dy,
    "db = sum_ij du_ij * (1 - u_ij^2)": lambda a: before_tanh(a).sum((-2, -3)),
    "dx_i = sum_j dp_ij y_j": lambda a: a.dp @ a.y,
    "dy_j = sum_i dp_ij x_i": lambda a: T(a.dp) @ a.x,
    "dq_i = (dx_i - (x_i . dx_i) x_i) / |q_i|": lambda a: (
        (a.dx - rows(a.x * a.dx, -1) * a.x) / lengths(a.q)
    ),
    "dk_j = (dy_j - (y_j . dy_j) y_j) / |k_j|": lambda a: (
        (a.dy - rows(a.y * a.dy, -1) * a.y) / lengths(a.k)
    ),
    "dv_j = sum_i w_ij dc_i": lambda a: T(a.w) @ a.dc,
    "dv_j = sum_i m_ij w_ij dc_i": lambda a: T(a.m * a.w) @ a.dc,
    "dbias_ij = dl_ij": lambda a: a.dl,
    "dslope = -sum_ij dl_ij |j - i - 2|": lambda a: -(a.dl * distance(a, 2)).sum((-1, -2)),
    "dslope = -sum_ij dl_ij |j - i + 3|": lambda a: -(a.dl * distance(a, -3)).sum((-1, -2)),
    "dsink = -sum_i (1 - sum_j w_ij) sum_j w_ij dw_ij": lambda a: (
        -((1 - a.w.sum(-1)) * (a.w * a.dw).sum(-1)).sum(-1)
    ),
    "dsink = sum_i (1 - sum_j w_ij) (dlse_i - sum_j w_ij dw_ij) over all i < query_lengths": (
        lambda a: (
            (np.arange(a.l.shape[-2]) < a.query_lengths[..., None])
            * (1 - a.w.sum(-1))
            * (a.dlse - (a.w * a.dw).sum(-1))
        ).sum(-1)
    ),
    "dsink = sum_i (1 - sum_j P_ij) (dlse_i - sum_j P_ij dP_ij)": lambda a: (
        (1 - a.P.sum(-1)) * (a.dlse - (a.P * a.dP).sum(-1))
    ).sum(-1),
    "dcenter_i = sum_j w_ij dw_ij (j - center_i) / sigma^2": lambda a: (
        a.w * a.dw * from_center(a) / a.sigma**2
    ).sum(-1),
    "dcenter_i = sum_j dl_ij (j - center_i) / sigma^2": lambda a: (
        a.dl * from_center(a) / a.sigma**2
    ).sum(-1),
    "dcenter_i = 0: there is no Gaussian": lambda a: 0 * a.center,
}
LETTERS = {
    "projected_query": "x",
    "query_direction": "x",
    "projected_key": "y",
    "key_direction": "y",
    "products": "p",
    "units": "u",
    "scores": "s",
    "capped": "t",
    "masked": "l",
    "softmax": "P",
    "gaussian": "g",
    "weights": "w",
    "kept": "m",
    "context": "c",
}


def sum_to(x, shape):
    """x summed to the shape of what was broadcast; and whether anything was summed."""
    short = (1,) * (x.ndim - len(shape)) + shape
    axes = tuple(k for k, (a, b) in enumerate(zip(x.shape, short, strict=True)) if a != b)
    return x.sum(axis=axes, keepdims=True).reshape(shape), bool(axes)


def assert_formulas(table, meaning, a):
    """Each array of a table is what its formula says."""
    for name, formula in table.formulas.items():
        core, says, over = formula.partition(", summed over ")
        array = getattr(table, name)
        with np.errstate(all="ignore"):
            found = np.asarray(meaning[core](a), float)
        shape = array.shape
        if over == "h":  # of all heads alike
            shape = (shape[0], 1, *shape[1:])
        expected, summed = sum_to(found, shape)
        assert_agree(array, expected.reshape(array.shape), f"{name}: {formula}")
        assert summed == bool(says), (name, formula)


def world(name, arrays, options, stages):
    """Everything by its letter; of gradients nothing yet."""
    required = list(attnc.registry.record_of(getattr(attnc, name)).required)
    a = types.SimpleNamespace(**dict(zip(required, arrays, strict=True)), **options)
    if name == "attend":
        a.given_scores = arrays[0]
    else:
        a.q, a.k = arrays[:2]
        a.scale = options.get("scale", 1 / np.sqrt(arrays[0].shape[-1]))
    a.v = a.value
    for stage in stages.formulas:
        setattr(a, LETTERS[stage], getattr(stages, stage))
    a.allowed = np.broadcast_to(options.get("mask", True), a.l.shape)
    return a


mask = np.random.default_rng(5).random((2, 5, 7)) < 0.6
mask[:, 0, 0] = True
empty = mask.copy()
empty[1, 2] = False
center = np.random.default_rng(6).uniform(1, 5, (2, 5))
near = np.abs(np.floor(center)[..., None] - np.arange(7)) <= 2
normal = np.random.default_rng(7).standard_normal
D = 11
CASES = {
    "dot": ("dot_product_attention", {}, "c"),
    "dot, weights alone": ("dot_product_attention", {}, "w"),
    "dot with everything": (
        "dot_product_attention",
        {
            "scale": np.array(0.7),
            "softcap": 1.5,
            "mask": mask,
            "bias": normal((1, 5, 1)),
            "dropout": 0.3,
            "rng": 3,
        },
        "cwl",
    ),
    "multiplicative": ("multiplicative_attention", {}, "c"),
    "additive": ("additive_attention", {"mask": mask}, "c"),
    "additive, projected query": (
        "additive_attention",
        {"query_weight": None, "score_bias": None},
        "c",
    ),
    "additive, projected key": (
        "additive_attention",
        {"key_weight": None, "score_bias": None},
        "c",
    ),
    "additive, both projected": (
        "additive_attention",
        {"query_weight": None, "key_weight": None},
        "c",
    ),
    "cosine": ("cosine_attention", {}, "c"),
    "slope and sink": (
        "attend",
        {"slope": normal(2), "bias": normal((2, 5, 7)), "sink": normal(1)},
        "c",
    ),
    "offset and padding": (
        "attend",
        {
            "slope": normal(2),
            "causal_offset": -3,
            "sink": normal(2),
            "query_lengths": np.array([2, 5]),
        },
        "cwl",
    ),
    "gaussian": (
        "attend",
        {"center": center, "window": (2, 2), "sigma": 1.3, "sink": normal(2)},
        "cl",
    ),
    "gaussian inside": (
        "dot_product_attention",
        {"center": center, "window": (2, 2), "sigma": 1.3, "renormalize": True},
        "c",
    ),
    "window": ("attend", {"center": center, "window": (2, 2), "sigma": np.inf}, "c"),
    "softmax with an empty row": ("attend", {"mask": empty}, "c"),
    "sparsemax with an empty row": ("attend", {"mask": empty, "normalizer": "sparsemax"}, "c"),
    "entmax with an empty row": ("attend", {"mask": empty, "normalizer": "entmax15"}, "c"),
    "sparsemax": ("attend", {"normalizer": "sparsemax"}, "cw"),
    "entmax": ("attend", {"normalizer": "entmax15"}, "c"),
}
MEANING = FORWARD | BACKWARD


def test_every_mechanism_has_formulas():
    assert set(formulas.FORWARD) == set(formulas.BACK_TO) == set(FUNCTIONS)


@pytest.mark.parametrize("leads", ["own", "broadcast"])
@pytest.mark.parametrize("case", CASES)
def test_each_formula_says_what_is_computed(case, leads, rng):
    name, own, given = CASES[case]
    of = ((2,), (2,), (2,)) if leads == "own" else ((1,), (2,), (1,))
    arrays, options = inputs(name, rng, D=D, leads=of)
    options |= own
    if name == "additive_attention":  # what is projected already has the size of the others
        shapes = [(*arrays[k].shape[:-1], D) for k in range(2)]
        arrays = tuple(
            normal(shapes[k])
            if k < 2 and options[("query_weight", "key_weight")[k]] is None
            else array
            for k, array in enumerate(arrays)
        )
        options = {n: x for n, x in options.items() if x is not None}
    s = attnc.stages(getattr(attnc, name), *arrays, **options)
    a = world(name, arrays, options, s)
    if "center" in options:
        a.allowed = near
    if "query_lengths" in options:
        a.allowed = np.broadcast_to(
            np.arange(5)[:, None] < options["query_lengths"][:, None, None], a.l.shape
        )
    assert_formulas(s, MEANING, a)
    assert ("attend to no key" in s.formulas["weights"]) == case.endswith("an empty row")

    d = {"dcontext": rng.standard_normal(s.context.shape)}
    d["dweights"] = rng.standard_normal(s.weights.shape)
    d["dlse"] = rng.standard_normal(s.weights.shape[:-1])
    d = {n: x for n, x in d.items() if n[1] in given}
    g = s.gradients(**d)
    for n, x in d.items():
        setattr(a, n, x)
    for stage in g.formulas:
        setattr(a, "d" + LETTERS.get(stage, stage), getattr(g, stage))
    assert_formulas(g, MEANING, a)
    assert all(g.formulas.values())


def test_formulas_of_scores_say_that_they_serve_the_whole_batch(rng):
    scores, value = rng.standard_normal((1, 5, 7)), rng.standard_normal((2, 7, 3))
    s = attnc.stages(attnc.attend, scores, value)
    g = s.gradients(rng.standard_normal((2, 5, 3)))
    assert g.formulas["scores"] == "ds_ij = dt_ij, summed over the batch"
    np.testing.assert_allclose(g.scores, g.capped.sum(0, keepdims=True))


# ---- A layer with heads --------------------------------------------------------------------------


def used(a, x):
    """The heads of keys or values, each as often as it is used."""
    return np.repeat(x, a.w.shape[-3] // x.shape[-3], axis=-3)


def served(a, d):
    """The sum over the heads that a head of keys serves."""
    return d.reshape(*d.shape[:-3], a.k.shape[-3], -1, *d.shape[-2:]).sum(-3)


def projected(x, weight, bias=None):
    """x W_h + b_h of each head h."""
    product = np.stack([x @ weight[:, h] for h in range(weight.shape[1])], -3)
    return product if bias is None else product + bias[:, None]


def unprojected(d, weight):
    """sum_h dx_h W_h^T"""
    return sum(d[..., h, :, :] @ weight[:, h].T for h in range(weight.shape[1]))


def of_weight(x, d):
    """x^T dx_h of each head h."""
    return np.stack([T(x) @ d[..., h, :, :] for h in range(d.shape[-3])], -2)


def side_by_side(x):
    return np.concatenate(list(np.moveaxis(x, -3, 0)), axis=-1)


def turned(x, start, by=1):
    """Each row of channels turned by the angles of its position: pairs are D / 2 apart."""
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-np.arange(half) / half)
    angles = by * (start + np.arange(x.shape[-2]))[:, None] * rates
    a, b = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos], -1)


def both(formula):
    """A formula of keys or values where each head has its own, and where several share one."""
    yield formula
    yield formula.replace("_g", "_h").replace("sum_g ", "sum_h ").replace("sum_(h of g) ", "")


OF_HEADS = {
    formula.replace("_ij", "_hij").replace("_i", "_hi").replace("_hhi", "_hi"): meaning
    for formula, meaning in MEANING.items()
    if formula.lstrip("d").startswith(("t_ij", "l_ij", "w_ij", "s_ij", "p_ij", "m_ij", "bias"))
}
for formula, meaning in {
    "q_hi = query_i W_h^Q": lambda a: projected(a.query, a.query_weight),
    "x_hi = query_i W_h^Q": lambda a: projected(a.query, a.query_weight),
    "x_hi = query_i W_h^Q + b_h^Q": lambda a: projected(a.query, a.query_weight, a.query_bias),
    "k_gj = key_j W_g^K": lambda a: projected(a.key, a.key_weight),
    "y_gj = key_j W_g^K": lambda a: projected(a.key, a.key_weight),
    "y_gj = key_j W_g^K + b_g^K": lambda a: projected(a.key, a.key_weight, a.key_bias),
    "v_gj = value_j W_g^V": lambda a: projected(a.value, a.value_weight),
    "v_gj = value_j W_g^V + b_g^V": lambda a: projected(a.value, a.value_weight, a.value_bias),
    "q_hi = query_scale * x_hi / rms(x_hi)": lambda a: a.query_scale * a.x / rms(a.x),
    "u_hi = query_scale * x_hi / rms(x_hi)": lambda a: a.query_scale * a.x / rms(a.x),
    "k_gj = key_scale * y_gj / rms(y_gj)": lambda a: a.key_scale * a.y / rms(a.y),
    "z_gj = key_scale * y_gj / rms(y_gj)": lambda a: a.key_scale * a.y / rms(a.y),
    "q_hi = x_hi turned to position i + 2": lambda a: turned(a.x, 2),
    "q_hi = u_hi turned to position i - 1": lambda a: turned(a.u, -1),
    "k_gj = y_gj turned to position j": lambda a: turned(a.y, 0),
    "k_gj = z_gj turned to position j": lambda a: turned(a.z, 0),
    "p_hij = q_hi . k_gj": lambda a: a.q @ T(used(a, a.k)),
    "p_hij = q_hi . k_gj, g = h // 2": lambda a: a.q @ T(used(a, a.k)),
    "p_hij = q_hi . k_gj, g = h // 4": lambda a: a.q @ T(used(a, a.k)),
    "s_hij = scale p_hij, scale = 1 / sqrt(D)": lambda a: a.p / np.sqrt(a.q.shape[-1]),
    "l_hij = t_hij + bias_hij, -inf where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.t + a.bias[:, None], -np.inf
    ),
    "c_hi = sum_j w_hij v_gj": lambda a: a.w @ used(a, a.v),
    "c_hi = sum_j m_hij w_hij v_gj": lambda a: (a.m * a.w) @ used(a, a.v),
    "c_1i, c_2i, ... side by side": lambda a: side_by_side(a.c),
    "o_i = sum_h c_hi W_h^O": lambda a: np.einsum("bhid,hde->bie", a.c, a.output_weight),
    "o_i = sum_h c_hi W_h^O + b^O": lambda a: (
        np.einsum("bhid,hde->bie", a.c, a.output_weight) + a.output_bias
    ),
    "do_i: given": lambda a: a.doutput,
    "do_i = 0": lambda a: 0 * a.output,
    "dc_1i, dc_2i, ... side by side": lambda a: side_by_side(a.dc),
    "dc_hi = do_i W_h^O^T": lambda a: np.einsum("bie,hde->bhid", a.do, a.output_weight),
    "dw_hij = dc_hi . v_gj + given, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.dc @ T(used(a, a.v)) + a.dweights, 0
    ),
    "dw_hij = dc_hi . v_gj, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.dc @ T(used(a, a.v)), 0
    ),
    "dw_hij = m_hij dc_hi . v_gj, 0 where query i may not attend to key j": lambda a: np.where(
        a.allowed, a.m * (a.dc @ T(used(a, a.v))), 0
    ),
    "dq_hi = sum_j dp_hij k_gj": lambda a: a.dp @ used(a, a.k),
    "dk_gj = sum_(h of g) sum_i dp_hij q_hi": lambda a: served(a, T(a.dp) @ a.q),
    "dv_gj = sum_(h of g) sum_i w_hij dc_hi": lambda a: served(a, T(a.w) @ a.dc),
    "dv_gj = sum_(h of g) sum_i m_hij w_hij dc_hi": lambda a: served(a, T(a.m * a.w) @ a.dc),
    "dx_hi = dq_hi turned back by the same angles": lambda a: turned(a.dq, a.start, -1),
    "du_hi = dq_hi turned back by the same angles": lambda a: turned(a.dq, a.start, -1),
    "dy_gj = dk_gj turned back by the same angles": lambda a: turned(a.dk, 0, -1),
    "dz_gj = dk_gj turned back by the same angles": lambda a: turned(a.dk, 0, -1),
    "dx_hi = (e - mean(e * n) n) / rms(x_hi), e = dq_hi * query_scale, n = x_hi / rms(x_hi)": (
        lambda a: of_norm(a.x, a.dq, a.query_scale)
    ),
    "dx_hi = (e - mean(e * n) n) / rms(x_hi), e = du_hi * query_scale, n = x_hi / rms(x_hi)": (
        lambda a: of_norm(a.x, a.du, a.query_scale)
    ),
    "dy_gj = (e - mean(e * n) n) / rms(y_gj), e = dk_gj * key_scale, n = y_gj / rms(y_gj)": (
        lambda a: of_norm(a.y, a.dk, a.key_scale)
    ),
    "dy_gj = (e - mean(e * n) n) / rms(y_gj), e = dz_gj * key_scale, n = y_gj / rms(y_gj)": (
        lambda a: of_norm(a.y, a.dz, a.key_scale)
    ),
    "dquery_scale = sum_hi dq_hi * x_hi / rms(x_hi)": lambda a: (a.dq * a.x / rms(a.x)).sum((1, 2)),
    "dquery_scale = sum_hi du_hi * x_hi / rms(x_hi)": lambda a: (a.du * a.x / rms(a.x)).sum((1, 2)),
    "dkey_scale = sum_gj dk_gj * y_gj / rms(y_gj)": lambda a: (a.dk * a.y / rms(a.y)).sum((1, 2)),
    "dkey_scale = sum_gj dz_gj * y_gj / rms(y_gj)": lambda a: (a.dz * a.y / rms(a.y)).sum((1, 2)),
    "dquery_i = sum_h dq_hi W_h^Q^T": lambda a: unprojected(a.dq, a.query_weight),
    "dquery_i = sum_h dx_hi W_h^Q^T": lambda a: unprojected(a.dx, a.query_weight),
    "dW_h^Q = sum_i query_i^T dq_hi": lambda a: of_weight(a.query, a.dq),
    "dW_h^Q = sum_i query_i^T dx_hi": lambda a: of_weight(a.query, a.dx),
    "db_h^Q = sum_i dx_hi": lambda a: a.dx.sum(-2),
    "dkey_j = sum_g dk_gj W_g^K^T": lambda a: unprojected(a.dk, a.key_weight),
    "dkey_j = sum_g dy_gj W_g^K^T": lambda a: unprojected(a.dy, a.key_weight),
    "dW_g^K = sum_j key_j^T dk_gj": lambda a: of_weight(a.key, a.dk),
    "dW_g^K = sum_j key_j^T dy_gj": lambda a: of_weight(a.key, a.dy),
    "db_g^K = sum_j dy_gj": lambda a: a.dy.sum(-2),
    "dvalue_j = sum_g dv_gj W_g^V^T": lambda a: unprojected(a.dv, a.value_weight),
    "dW_g^V = sum_j value_j^T dv_gj": lambda a: of_weight(a.value, a.dv),
    "db_g^V = sum_j dv_gj": lambda a: a.dv.sum(-2),
    "dW_h^O = sum_i c_hi^T do_i": lambda a: np.einsum("bhid,bie->bhde", a.c, a.do),
    "db^O = sum_i do_i": lambda a: a.do.sum(-2),
}.items():
    OF_HEADS |= dict.fromkeys(both(formula), meaning)

HEAD_LETTERS = LETTERS | {
    "queries": "q",
    "keys": "k",
    "values": "v",
    "projected_queries": "x",
    "projected_keys": "y",
    "normalised_queries": "u",
    "normalised_keys": "z",
    "contexts": "c",
    "output": "o",
}
LAYERS = {
    "plain": ({}, {"softcap": 1.5}, "oc"),
    "groups": ({"num_kv_heads": 2, "projection_bias": True, "normalize_qk": True}, {}, "owl"),
    "rotary": ({"num_kv_heads": 1, "rotary": True, "dropout": 0.3}, {"train": True, "rng": 3}, "o"),
    "all": (
        {"rotary": True, "projection_bias": True, "normalize_qk": True},
        {"causal_offset": -1},
        "ow",
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_each_formula_of_heads_says_what_is_computed(case, rng):
    own, options, given = LAYERS[case]
    layer = attnc.MultiHeadAttention(16, 4, dtype="float64", **own)
    for name, parameter in layer.parameters.items():
        layer.parameters[name] = parameter + 0.4 * rng.standard_normal(parameter.shape)
    query, key, value = (rng.standard_normal((2, n, 16)) for n in (5, 7, 7))
    bias = rng.standard_normal((2, 5, 7))
    s = attnc.stages(layer, query, key, value, causal=True, bias=bias, **options)
    a = types.SimpleNamespace(query=query, key=key, value=value, bias=bias, **layer.parameters)
    a.scale, a.start = 1 / 2, options.get("causal_offset", 2)
    a.allowed = np.tri(5, 7, a.start, bool)
    for stage in s.formulas:
        setattr(a, HEAD_LETTERS.get(stage, stage), getattr(s, stage))
    assert_formulas(s, OF_HEADS, a)

    d = {"doutput": rng.standard_normal(s.output.shape)}
    d["dweights"] = rng.standard_normal(s.weights.shape)
    d["dlse"] = rng.standard_normal(s.weights.shape[:-1])
    d = {n: x for n, x in d.items() if n[1] in given}
    g = s.gradients(**d)
    for n, x in d.items():
        setattr(a, n, x)
    for stage in g.formulas:
        setattr(a, "d" + HEAD_LETTERS.get(stage, stage), getattr(g, stage))
    assert_formulas(g, OF_HEADS, a)
    assert all(g.formulas.values())


@pytest.mark.parametrize("sizes", [(0, 2, 3), (2, 0, 3), (2, 2, 0)], ids=str)
def test_gradients_of_heads_without_a_row_are_zero(sizes):
    B, Tq, Tk = sizes
    layer = attnc.MultiHeadAttention(8, 4, num_kv_heads=2, projection_bias=True, rng=0)
    query, key = np.ones((B, Tq, 8)), np.ones((B, Tk, 8))
    g = attnc.stages(layer, query, key).gradients(np.ones((B, Tq, 8)))
    assert g.query.shape == query.shape and g.key.shape == key.shape
    for name, parameter in layer.parameters.items():
        gradient = getattr(g, name)
        assert gradient.shape == parameter.shape
        assert name.startswith("output") or not gradient.any()
