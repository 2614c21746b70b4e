"""Stages of one step of recurrent layers and of decoders: the layer's own numbers, and what each
formula says.

`MEANING` writes each formula once more, as a line of NumPy: names are those of the stages and
arguments, and ``d_`` stands before gradients.
"""

import copy
import pickle

import numpy as np
import pytest
from checks import assert_agree, assert_same, assert_unchanged

import attnc

GATES = {
    "a = x W + b + h U + e": "x @ W + b + h @ U + e",
    "h' = tanh(a)": "tanh(preactivation)",
    "r = sigmoid(a_r)": "sigmoid(reset_preactivation)",
    "z = sigmoid(a_z)": "sigmoid(update_preactivation)",
    "q_n = h U_n + e_n": "h @ gate(U, 2) + gate(e, 2)",
    "a_n = x W_n + b_n + r * q_n": "x @ gate(W, 2) + gate(b, 2) + reset_gate * state_product",
    "n = tanh(a_n)": "tanh(candidate_preactivation)",
    "h' = (1 - z) * n + z * h": "(1 - update_gate) * candidate + update_gate * h",
    "i = sigmoid(a_i)": "sigmoid(input_preactivation)",
    "f = sigmoid(a_f)": "sigmoid(forget_preactivation)",
    "g = tanh(a_g)": "tanh(cell_preactivation)",
    "o = sigmoid(a_o)": "sigmoid(output_preactivation)",
    "c' = f * c + i * g": "forget_gate * c + input_gate * cell_input",
    "h' = o * tanh(c')": "output_gate * tanh(new_cell_state)",
    "da = dh' * (1 - h'^2)": "d_new_state * (1 - new_state**2)",
    "dn = dh' * (1 - z)": "d_new_state * (1 - update_gate)",
    "da_n = dn * (1 - n^2)": "d_candidate * (1 - candidate**2)",
    "dq_n = da_n * r": "d_candidate_preactivation * reset_gate",
    "dz = dh' * (h - n)": "d_new_state * (h - candidate)",
    "da_z = dz * z * (1 - z)": "d_update_gate * update_gate * (1 - update_gate)",
    "dr = da_n * q_n": "d_candidate_preactivation * state_product",
    "da_r = dr * r * (1 - r)": "d_reset_gate * reset_gate * (1 - reset_gate)",
    "do = dh' * tanh(c')": "d_new_state * tanh(new_cell_state)",
    "dc' = dh' * o * (1 - tanh(c')^2)": "through_cell",
    "dc' = dh' * o * (1 - tanh(c')^2) + given": "through_cell + given_c",
    "dg = dc' * i": "d_new_cell_state * input_gate",
    "df = dc' * c": "d_new_cell_state * c",
    "di = dc' * g": "d_new_cell_state * cell_input",
    "da_o = do * o * (1 - o)": "d_output_gate * output_gate * (1 - output_gate)",
    "da_g = dg * (1 - g^2)": "d_cell_input * (1 - cell_input**2)",
    "da_f = df * f * (1 - f)": "d_forget_gate * forget_gate * (1 - forget_gate)",
    "da_i = di * i * (1 - i)": "d_input_gate * input_gate * (1 - input_gate)",
    "dc = dc' * f": "d_new_cell_state * forget_gate",
    "m = 1 / (1 - 0.3) where a number is kept, 0 where it is dropped": "(kept != 0) / 0.7",
}
for k, letter in enumerate("rz"):
    GATES[f"a_{letter} = x W_{letter} + b_{letter} + h U_{letter} + e_{letter}"] = (
        f"x @ gate(W, {k}) + gate(b, {k}) + h @ gate(U, {k}) + gate(e, {k})"
    )
for k, letter in enumerate("ifgo"):
    for x in ("x", "h'_l0"):
        GATES[f"a_{letter} = {x} W_{letter} + b_{letter} + h U_{letter} + e_{letter}"] = (
            f"x @ gate(W, {k}) + gate(b, {k}) + h @ gate(U, {k}) + gate(e, {k})"
        )
for side, p, q in (
    ("da", "of_x", "of_h"),
    ("[da_r; da_z; da_n]", "of_x", ""),
    ("[da_r; da_z; dq_n]", "", "of_h"),
    ("[da_i; da_f; da_g; da_o]", "of_x", "of_h"),
):
    if p:
        for x in ("x", "h'_l0"):
            GATES[f"dW = {x}^T {side}"] = f"x.T @ {p}"
        GATES[f"dx = {side} W^T"] = f"{p} @ W.T"
        GATES[f"db = {side}, summed over the batch"] = f"{p}.sum(0)"
    if q:
        GATES[f"dh = {side} U^T"] = f"{q} @ U.T"
        GATES[f"dh = {side} U^T + dquery"] = f"{q} @ U.T + d_query"
        GATES[f"dh = {side} U^T + dh' * z"] = f"{q} @ U.T + d_new_state * update_gate"
        GATES[f"dh = {side} U^T + dh' * z + dquery"] = (
            f"{q} @ U.T + d_new_state * update_gate + d_query"
        )
        GATES[f"dU = h^T {side}"] = f"h.T @ {q}"
        GATES[f"de = {side}, summed over the batch"] = f"{q}.sum(0)"

SIDES = {
    "RNN": (["preactivation"], ["preactivation"]),
    "GRU": (
        ["reset_preactivation", "update_preactivation", "candidate_preactivation"],
        ["reset_preactivation", "update_preactivation", "state_product"],
    ),
    "LSTM": ([f"{n}_preactivation" for n in ("input", "forget", "cell", "output")],) * 2,
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gate(array, k):
    """The part of gate k, of 6 units."""
    return array[..., 6 * k : 6 * k + 6]


def namespace(kind, values, gradients, **given):
    """The names of one cell."""
    names = {"sigmoid": sigmoid, "tanh": np.tanh, "gate": gate, "np": np, **values, **given}
    names |= {"d_" + name: x for name, x in gradients.items()}
    if gradients:
        for name, parts in zip(("of_x", "of_h"), SIDES[kind], strict=True):
            names[name] = np.concatenate([gradients[part] for part in parts], -1)
        if kind == "LSTM":
            names["through_cell"] = (
                names["d_new_state"]
                * names["output_gate"]
                * (1 - np.tanh(names["new_cell_state"]) ** 2)
            )
    return names


def assert_meant(meaning, formula, array, names, what):
    with np.errstate(all="ignore"):
        assert_agree(array, eval(meaning[formula], dict(names)), f"{what}: {formula}")


# ---- Recurrent layers ----------------------------------------------------------------------------

RECURRENT = (attnc.RNN, attnc.GRU, attnc.LSTM)
CALLS = {
    "plain": {},
    "deep": {"layers": 3},
    "both ways": {"bidirectional": True},
    "all": {"layers": 2, "bidirectional": True, "dropout": 0.3},
}


def one_step(kind, rng, **options):
    """A layer with random biases, an input and a state."""
    layer = kind(5, 6, rng=0, dtype="float64", **options)
    for name, parameter in layer.parameters.items():
        layer.parameters[name] = parameter + 0.3 * rng.standard_normal(parameter.shape)
    shape = (len(layer.cells), 2, 6)
    state = rng.standard_normal(shape)
    if kind is attnc.LSTM:
        state = state, rng.standard_normal(shape)
    return layer, rng.standard_normal((2, 5)), state


def ending(layer, k):
    if len(layer.cells) == 1:
        return ""
    number, side = divmod(k, 1 + layer.bidirectional)
    return f"_l{number}" + "_reverse" * side


@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", RECURRENT)
def test_a_step_is_that_of_the_layer(kind, call, with_state, rng):
    layer, x, state = one_step(kind, rng, **CALLS[call])
    last = state
    state = state if with_state else None
    given = {"train": True, "rng": 4}
    with assert_unchanged(x, last, layer.state_dict()):
        s = attnc.stages(layer, x, state, **given)
        (outputs, new), pullback = attnc.vjp(layer, x[:, None], state, **given)
        pair = kind is attnc.LSTM
        for k in range(len(layer.cells)):
            assert_agree(getattr(s, "new_state" + ending(layer, k)), (new[0] if pair else new)[k])
        if len(layer.cells) > 1:
            assert_agree(s.output, outputs[:, 0])
        doutput = rng.standard_normal(outputs[:, 0].shape)
        d = {"doutput": doutput}, {"dstate": last}, {"doutput": doutput, "dstate": last}
        for incoming in d:
            layer.zero_grad()
            theirs = {"doutputs": doutput[:, None]} if "doutput" in incoming else {}
            expected = pullback(**theirs, dstate=incoming.get("dstate"))
            got = s.gradients(**incoming)
            assert_agree(got.x, expected.x[:, 0])
            for name, gradient in layer.gradients.items():
                _, k, own = name.split(".")
                assert_agree(getattr(got, own + ending(layer, int(k))), gradient, name)
            if with_state:
                parts = expected.state if pair else (expected.state,)
                for name, part in zip(("state", "cell_state"), parts, strict=False):
                    for k in range(len(layer.cells)):
                        assert_agree(getattr(got, name + ending(layer, k)), part[k], name)


@pytest.mark.parametrize("kind", RECURRENT)
def test_each_formula_of_a_step_says_what_is_computed(kind, rng):
    layer, x, state = one_step(kind, rng)
    s = attnc.stages(layer, x, state)
    pair = kind is attnc.LSTM
    last = tuple(rng.standard_normal((1, 2, 6)) for _ in range(1 + pair))
    g = s.gradients(x[:, :1] * np.ones(6), last if pair else last[0])
    values = {name: getattr(s, name) for name in s.formulas}
    gradients = {name: getattr(g, name) for name in g.formulas}
    given = dict(zip("WUbe", layer.parameters.values(), strict=True))
    given |= {"x": x, "h": state[0][0] if pair else state[0]}
    given |= {"c": state[1][0], "given_c": last[1][0]} if pair else {}
    names = namespace(kind.__name__, values, gradients, **given)
    for table in (s, g):
        for name, formula in table.formulas.items():
            if formula != "dh' = given + given":
                assert_meant(GATES, formula, getattr(table, name), names, name)
    assert_agree(g.new_state, x[:, :1] + last[0][0])


def test_layers_say_where_gradients_come_from(rng):
    layer, x, state = one_step(attnc.LSTM, rng, layers=2, bidirectional=True, dropout=0.3)
    s = attnc.stages(layer, x, state, train=True, rng=3)
    g = s.gradients(np.ones((2, 12)))
    assert s.formulas["x_l1"] == "x = m * [h'; h'_reverse] of layer 0"
    assert_agree(s.x_l1, s.kept_l1 * np.concatenate([s.new_state_l0, s.new_state_l0_reverse], -1))
    assert set(np.unique(s.kept_l1)) == {0, 1 / 0.7}
    assert s.formulas["output"] == "output = [h'; h'_reverse] of layer 1"
    assert_same(s.output, np.concatenate([s.new_state_l1, s.new_state_l1_reverse], -1))
    assert g.formulas["new_state_l1"] == "dh' = its part of doutput"
    assert g.formulas["new_state_l0_reverse"] == "dh' = its part of m * dx of layer 1"
    assert_agree(g.new_state_l0_reverse, (s.kept_l1 * g.x_l1)[:, 6:])


@pytest.mark.parametrize("kind", RECURRENT)
def test_steps_copy_pickle_and_print(kind, rng):
    layer, x, state = one_step(kind, rng, layers=2, dropout=0.5)
    s = attnc.stages(layer, x, state, train=True, rng=np.random.default_rng(1)).shown(digits=2)
    g = s.gradients(np.ones((2, 6)))
    for twin in (copy.copy(s), copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        assert repr(twin) == repr(s) and twin._repr_html_() == s._repr_html_()
        assert repr(twin.gradients(np.ones((2, 6)))) == repr(g)
    for name in layer.parameters:
        layer.parameters[name] *= 0
    assert repr(s.gradients(np.ones((2, 6)))) == repr(g)
    assert repr(s).startswith(f"Stages of one step of {kind.__name__}\n")
    empty = attnc.stages(layer, x[:0])
    assert "no numbers" in repr(empty) and empty._repr_html_()
    broken = attnc.stages(layer, x * [np.nan, np.inf, 1, 1, 1])
    assert "nan" in repr(broken) and "nan" in broken._repr_html_()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda a, x, h: attnc.stages(a, x, h, [1, 1]), ValueError, "stages: lengths must be None"),
        (lambda a, x, h: attnc.stages(a, x[:, None], h), ValueError, r"stages: x must have shape"),
        (lambda a, x, h: attnc.stages(a, x[:, :3], h), ValueError, "x must have shape"),
        (lambda a, x, h: attnc.stages(a, x, h[:, :1]), ValueError, "state must have shape"),
        (lambda a, x, h: attnc.stages(a, x, train=1), TypeError, "train must be"),
        (lambda a, x, h: attnc.stages(a, x).gradients(), TypeError, "must get doutput or dstate"),
        (
            lambda a, x, h: attnc.stages(a, x).gradients(x),
            ValueError,
            r"gradients: doutput must have shape \(2, 6\), got \(2, 5\)",
        ),
        (
            lambda a, x, h: attnc.stages(a, x).gradients(dstate=x),
            ValueError,
            r"gradients: dstate must have shape \(1, 2, 6\), got \(2, 5\)",
        ),
        (
            lambda a, x, h: attnc.stages(a, x).shown(queries=["a"]),
            ValueError,
            "shown: queries must be None for Stages of one step of GRU",
        ),
    ],
)
def test_wrong_steps(call, error, message, rng):
    with pytest.raises(error, match=message):
        call(*one_step(attnc.GRU, rng))


# ---- Decoders ------------------------------------------------------------------------------------

# Of one query: a row of it stands for the query, memory for keys and values.
ATTENTION = {
    "memory_j, 0 where key j is masked": "where(valid[..., None], given_memory, 0)",
    "q = query Wq": "query @ query_weight",
    "q = query W": "query @ weight",
    "q = query / |query|": "query / norm(query)",
    "k_j = memory_j Wk": "memory @ key_weight",
    "k_j = memory_j Wk + C_j coverage_vector": (
        "memory @ key_weight + coverage[..., None] * coverage_vector"
    ),
    "k_j = memory_j / |memory_j|": "memory / norm(memory)",
    "u_j = tanh(q + k_j)": "tanh(projected_query[:, None] + projected_key)",
    "p_j = query . memory_j": "dot(query, memory)",
    "p_j = q . memory_j = query W memory_j": "dot(projected_query, memory)",
    "p_j = q . k_j": "dot(query_direction, key_direction)",
    "s_j = v_a . u_j": "units @ score_vector",
    "s_j = p_j": "products",
    "s_j = scale p_j": "scale * products",
    "l_j = s_j: nothing is masked": "scores",
    "l_j = s_j, -inf where key j is masked": "where(allowed, scores, -inf)",
    "l_j = s_j + coverage_weight C_j, -inf where key j is masked": (
        "where(allowed, scores + coverage_weight * coverage, -inf)"
    ),
    "l_j = s_j - (j - center)^2 / (2 sigma^2), -inf where key j is masked": (
        "where(allowed, scores - (far / sigma) ** 2 / 2, -inf)"
    ),
    "w_j = exp(l_j) / sum_j exp(l_j): softmax over j": "softmax_of(masked)",
    "P_j = exp(l_j) / sum_j exp(l_j): softmax over j": "softmax_of(masked)",
    "g_j = exp(-(j - center)^2 / (2 sigma^2))": "np.exp(-((far / sigma) ** 2) / 2)",
    "w_j = P_j g_j": "softmax * gaussian",
    "w_j = 1 for the last key that is not masked, else 0": "is_last",
    "context = sum_j w_j memory_j": "(weights[..., None] * memory).sum(1)",
    "C_j: before the step": "coverage",
    "C'_j = C_j + w_j": "coverage + weights",
    "C'_j = C_j + w_j / Phi_j": "coverage + weights / fertility",
    "Phi_j = max_fertility sigmoid(memory_j . fertility_vector)": (
        "2.0 * sigmoid(memory @ fertility_vector)"
    ),
    "t = tanh(query position_weight)": "tanh(query @ position_weight)",
    "center = last sigmoid(position_vector . t), last: the last key that is not masked": (
        "last * sigmoid(position_units @ position_vector)[:, None]"
    ),
    "center = the number of steps before this one": "0 * center",
    "x = [input; context]": "beside(input, context)",
    "x = input": "input",
    "x = [input; the output before]": "beside(input, feed)",
    "output = tanh([context; h'] W_c)": "tanh(beside(context, new_state) @ readout_weight)",
    "output = h'": "new_state",
    "query: the state h of the top layer before the step": "h",
    "query: the state h of the top layer after the step": "new_state",
    # and back
    "doutput: given": "given",
    "doutput = given + given (feed)": "given + given_feed",
    "dh' = doutput + given": "d_output + given_h",
    "dh' = dquery + its part of e W_c^T + given, e = doutput * (1 - output^2)": (
        "d_query + of_readout[:, -6:] + given_h"
    ),
    "dh' = its part of e W_c^T + given, e = doutput * (1 - output^2)": (
        "of_readout[:, -6:] + given_h"
    ),
    "dcontext = its part of dx": "d_x[:, 5:11]",
    "dcontext = its part of e W_c^T, e = doutput * (1 - output^2)": "of_readout[:, :6]",
    "dw_j = dcontext . memory_j + given, 0 where key j is masked": (
        "where(allowed, dot(d_context, memory) + given_weights, 0)"
    ),
    "dw_j = dcontext . memory_j + given + dC'_j, 0 where key j is masked": (
        "where(allowed, dot(d_context, memory) + given_weights + d_new_coverage, 0)"
    ),
    "dw_j = dcontext . memory_j + given + dC'_j / Phi_j, 0 where key j is masked": (
        "where(allowed, dot(d_context, memory) + given_weights + d_new_coverage / fertility, 0)"
    ),
    "dg_j = P_j dw_j": "softmax * d_weights",
    "dP_j = g_j dw_j": "gaussian * d_weights",
    "dl_j = w_j (dw_j - sum_j w_j dw_j)": "weights * (d_weights - rows(weights * d_weights))",
    "dl_j = P_j (dP_j - sum_j P_j dP_j)": "softmax * (d_softmax - rows(softmax * d_softmax))",
    "ds_j = dl_j": "d_masked",
    "dp_j = ds_j": "d_scores",
    "dp_j = scale ds_j": "scale * d_scores",
    "du_j = ds_j v_a": "d_scores[..., None] * score_vector",
    "dq = sum_j du_j * (1 - u_j^2)": "(d_units * (1 - units**2)).sum(1)",
    "dk_j = du_j * (1 - u_j^2)": "d_units * (1 - units**2)",
    "dq = sum_j dp_j memory_j": "(d_products[..., None] * memory).sum(1)",
    "dq = sum_j dp_j k_j": "(d_products[..., None] * key_direction).sum(1)",
    "dk_j = dp_j q": "d_products[..., None] * query_direction[:, None]",
    "dquery = dq Wq^T": "d_projected_query @ query_weight.T",
    "dquery = dq Wq^T + (dt * (1 - t^2)) position_weight^T": (
        "d_projected_query @ query_weight.T + d_position_units * (1 - position_units**2) "
        "@ position_weight.T"
    ),
    "dquery = dq W^T": "d_projected_query @ weight.T",
    "dquery = sum_j dp_j memory_j": "(d_products[..., None] * memory).sum(1)",
    "dquery = (dq - (q . dq) q) / |query|": (
        "(d_query_direction - rows(query_direction * d_query_direction) * query_direction) "
        "/ norm(query)"
    ),
    "dkey_j = (dk_j - (k_j . dk_j) k_j) / |memory_j|": (
        "(d_key_direction - rows(key_direction * d_key_direction) * key_direction) / norm(memory)"
    ),
    "dkey_j = dk_j Wk^T": "d_projected_key @ key_weight.T",
    "dkey_j = dp_j q": "d_products[..., None] * projected_query[:, None]",
    "dkey_j = dp_j query": "d_products[..., None] * query[:, None]",
    "dvalue_j = w_j dcontext": "weights[..., None] * d_context[:, None]",
    "dC'_j: given": "given_coverage",
    "dPhi_j = -dC'_j w_j / Phi_j^2": "-d_new_coverage * weights / fertility**2",
    "dcenter = sum_j w_j dw_j (j - center) / sigma^2": (
        "rows(weights * d_weights * far) / sigma**2"
    ),
    "dcenter = sum_j dl_j (j - center) / sigma^2": "rows(d_masked * far) / sigma**2",
    "dt = dcenter center (1 - center / last) position_vector": (
        "d_center * center * (1 - center / last) * position_vector"
    ),
    "dinput = its part of dx": "d_x[:, :5]",
    "dinput = dx": "d_x",
    "dmemory_j = dkey_j + dvalue_j": "d_key + d_value",
    "dmemory_j = dkey_j + dvalue_j, 0 where key j is masked": (
        "where(valid[..., None], d_key + d_value, 0)"
    ),
    "dmemory_j = dvalue_j": "d_value",
    "dmemory_j = dkey_j + dvalue_j + dPhi_j Phi_j (1 - Phi_j / max_fertility) fertility_vector, "
    "0 where key j is masked": (
        "where(valid[..., None], d_key + d_value + of_fertility * fertility_vector, 0)"
    ),
    "dC_j = dC'_j + coverage_weight dl_j": "d_new_coverage + coverage_weight * d_masked",
    "dC_j = dC'_j + dk_j . coverage_vector": "d_new_coverage + d_projected_key @ coverage_vector",
    "dcoverage_weight = sum_j C_j dl_j, summed over the batch": "(coverage * d_masked).sum()",
    "dcoverage_vector = sum_j C_j dk_j, summed over the batch": (
        "(coverage[..., None] * d_projected_key).sum((0, 1))"
    ),
    "dfertility_vector = sum_j dPhi_j Phi_j (1 - Phi_j / max_fertility) memory_j, "
    "summed over the batch": "(of_fertility * memory).sum((0, 1))",
    "dposition_vector = dcenter center (1 - center / last) t, summed over the batch": (
        "(d_center * center * (1 - center / last) * position_units).sum(0)"
    ),
    "dposition_weight = query^T (dt * (1 - t^2)), summed over the batch": (
        "query.T @ (d_position_units * (1 - position_units**2))"
    ),
    "dfeed = its part of dx": "d_x[:, 5:]",
    "dv_a = sum_j ds_j u_j, summed over the batch": "(d_scores[..., None] * units).sum((0, 1))",
    "dWq = query^T dq, summed over the batch": "query.T @ d_projected_query",
    "dW = query^T dq, summed over the batch": "query.T @ d_projected_query",
    "dWk = sum_j memory_j^T dk_j, summed over the batch": (
        "np.einsum('bjm,bja->ma', memory, d_projected_key)"
    ),
    "dscale = sum_j ds_j p_j, summed over the batch": "(d_scores * products).sum()",
    "dW_c = [context; h']^T e, e = doutput * (1 - output^2)": (
        "beside(context, new_state).T @ (d_output * (1 - output**2))"
    ),
}
MEANING = GATES | ATTENTION


def softmax_of(x):
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


TOOLS = {
    "dot": lambda query, rows: np.einsum("bd,bjd->bj", query, rows),
    "norm": lambda x: np.where(x.any(-1, keepdims=True), np.linalg.norm(x, axis=-1)[..., None], 1),
    "rows": lambda x: x.sum(-1, keepdims=True),
    "where": np.where,
    "inf": np.inf,
    "softmax_of": softmax_of,
    "beside": lambda *arrays: np.concatenate(arrays, -1),
    "sigma": 1.0,
}
DECODERS = {
    "additive": {},
    "multiplicative": {"attention": "multiplicative", "cell": "lstm"},
    "dot": {"attention": "dot", "cell": "rnn"},
    "cosine": {"attention": "cosine", "order": "luong"},
    "luong": {"order": "luong", "attention": "multiplicative", "cell": "lstm"},
    "feeding": {"order": "luong", "input_feeding": True},
    "coverage": {"coverage": True},
    "coverage inside": {"coverage": "tanh", "order": "luong", "cell": "rnn"},
    "fertility": {"coverage": "fertility"},
    "window": {"window": 2},
    "predicted": {"window": 2, "position": "predictive"},
    "renormalized": {"window": 2, "position": "predictive", "renormalize": True},
    "none": {"attention": "none"},
    "none after": {"attention": "none", "order": "luong", "cell": "lstm"},
}


def decoder_step(rng, **options):
    """A decoder, an input, a memory, a state with everything, and masks."""
    decoder = attnc.AttentionDecoder(5, 6, 6, rng=0, dtype="float64", **options)
    for name, parameter in decoder.parameters.items():
        decoder.parameters[name] = parameter + 0.3 * rng.standard_normal(parameter.shape)
    x, memory, masks = (
        rng.standard_normal((2, 5)),
        rng.standard_normal((2, 7, 6)),
        {"key_lengths": [7, 5]},
    )
    state = decoder.step(x, memory, decoder.step(x, memory, **masks).state, **masks).state
    if options.get("window") and options.get("position") is None:
        state = (*state[:-1], state[-1] * 0)
    return decoder, x, memory, state, masks


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("case", DECODERS)
def test_a_step_is_that_of_the_decoder(case, layers, rng):
    decoder, x, memory, last, masks = decoder_step(rng, **DECODERS[case], layers=layers)
    for state in (None, last):
        with assert_unchanged(x, memory, last, decoder.state_dict()):
            s = attnc.stages(decoder, x, memory, state, **masks)
            output, pullback = attnc.vjp(decoder, x[:, None], memory, state, **masks)
            assert_agree(s.output, output.outputs[:, 0])
            assert_agree(s.weights, output.weights[:, 0])
            doutput = rng.standard_normal(s.output.shape)
            dweights = rng.standard_normal(s.weights.shape)
            dstate = tuple(rng.standard_normal(part.shape) for part in as_tuple(last))
            dstate = dstate if isinstance(last, tuple) else dstate[0]
            for incoming in (
                (doutput, None, None),
                (None, dweights, None),
                (doutput, None, dstate),
            ):
                if case.startswith("none") and incoming[0] is None:
                    continue
                decoder.zero_grad()
                own, of_weights, of_state = incoming
                expected = pullback(
                    None if own is None else own[:, None],
                    None if of_weights is None else of_weights[:, None],
                    of_state,
                )
                got = s.gradients(own, dweights=of_weights, dstate=of_state)
                assert all(got.formulas.values())
                assert_agree(got.input, expected.inputs[:, 0])
                assert_agree(got.memory, expected.memory)
                for name, gradient in decoder.gradients.items():
                    *_, k, own_name = ["", *name.split(".")]
                    if name.startswith("cells") and layers > 1:
                        own_name += f"_l{k}"
                    if not (name.startswith("initial") and state is not None):
                        assert_agree(getattr(got, own_name), gradient, name)


@pytest.mark.parametrize("case", DECODERS)
def test_each_formula_of_a_decoder_says_what_is_computed(case, rng):
    decoder, x, memory, state, masks = decoder_step(rng, **DECODERS[case])
    s = attnc.stages(decoder, x, memory, state, **masks)
    given, given_weights = rng.standard_normal((2, 6)), rng.standard_normal((2, 7))
    dstate = tuple(rng.standard_normal(part.shape) for part in as_tuple(state))
    g = s.gradients(
        given, dweights=given_weights, dstate=dstate if isinstance(state, tuple) else dstate[0]
    )
    kind = decoder.cell.upper()
    parts = dict(zip(decoder._decoder().state_shapes(2, 7), as_tuple(state), strict=True))
    own = {name.rpartition(".")[2]: array for name, array in decoder.parameters.items()}
    own |= {
        "input": x,
        "memory": memory,
        "given_memory": memory,
        "h": parts["h"][0],
        "given": given,
    }
    own |= {"given_weights": given_weights, "given_h": dstate[0][0]}
    own |= dict(zip("WUbe", [own[n] for n in attnc.functional.recurrent.PARAMETERS], strict=True))
    if kind == "LSTM":
        own |= {"c": parts["c"][0], "given_c": dstate[1][0]}
    own |= {name: parts[name] for name in ("feed", "coverage") if name in parts}
    own |= {f"given_{n}": d for n, d in zip(parts, dstate, strict=True) if n not in "hc"}
    values = {name: getattr(s, name) for name in s.formulas}
    gradients = {name: getattr(g, name) for name in g.formulas}
    names = namespace(kind, values, gradients, **{n: a for n, a in own.items() if n not in values})
    names |= TOOLS
    valid = np.arange(7) < np.array([7, 5])[:, None]
    names |= {"valid": valid, "allowed": valid, "last": np.array([[6.0], [4.0]])}
    names["is_last"] = np.arange(7) == names["last"]
    if decoder.window:
        names["far"] = np.arange(7) - s.center
        names["allowed"] = valid & (abs(np.arange(7) - np.floor(s.center)) <= 2)
    if decoder.order == "luong":
        names["of_readout"] = (g.output * (1 - s.output**2)) @ own["readout_weight"].T
    if "fertility" in values:
        names["of_fertility"] = (g.fertility * s.fertility * (1 - s.fertility / 2))[..., None]
    for table in (s, g):
        for name, formula in table.formulas.items():
            assert_meant(MEANING, formula, getattr(table, name), names, name)


def test_a_window_masks_keys(rng):
    decoder, x, memory, *_ = decoder_step(rng, window=2)
    s = attnc.stages(decoder, x, memory)
    assert s.formulas["masked"] == "l_j = s_j, -inf where key j is masked"
    assert_same(s.masked == -np.inf, np.broadcast_to(np.arange(7) > 2, (2, 7)))
    decoder, x, memory, *_ = decoder_step(rng, window=8)
    assert attnc.stages(decoder, x, memory).formulas["masked"] == "l_j = s_j: nothing is masked"


def test_decoders_print_with_words(rng):
    decoder, x, memory, state, masks = decoder_step(rng, coverage=True)
    words = ["the", "cat", "猫", "sat", "on", "<mat>", "."]
    s = attnc.stages(decoder, x, memory, state, **masks).shown(keys=words, at=1, digits=3)
    g = s.gradients(s.output)
    for table in (s, g):
        assert "[1] of (2,)" in repr(table) and "<mat>" in repr(table)
        assert "&lt;mat&gt;" in table._repr_html_()
        for twin in (copy.copy(table), copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
            assert repr(twin) == repr(table)
    for name in decoder.parameters:
        decoder.parameters[name] *= 0
    assert repr(s.gradients(s.output)) == repr(g)


@pytest.mark.parametrize(
    "options, call, error, message",
    [
        ({"alignment": "monotonic"}, {}, ValueError, "stages: decoder must have alignment='soft'"),
        ({}, {"hard": True}, ValueError, "stages: hard must be False"),
        ({}, {"key_lengths": 3.5}, TypeError, "key_lengths must be"),
        ({}, {"state": np.ones(3)}, ValueError, "state must have shape"),
        (
            {"attention": "none", "summary": "first_state"},
            {},
            ValueError,
            "stages: state must be given for summary='first_state'",
        ),
    ],
)
def test_wrong_steps_of_decoders(options, call, error, message, rng):
    decoder = attnc.AttentionDecoder(5, 6, 6, rng=0, dtype="float64", **options)
    with pytest.raises(error, match=message):
        attnc.stages(decoder, np.ones((2, 5)), np.ones((2, 7, 6)), **call)


def test_wrong_gradients_of_decoders(rng):
    decoder, x, memory, state, masks = decoder_step(rng)
    with pytest.raises(TypeError, match="stages: memory must be an array, got a prepared memory"):
        attnc.stages(decoder, x, decoder.prepare(memory))
    s = attnc.stages(decoder, x, memory, state, **masks)
    with pytest.raises(TypeError, match="must get doutput or dweights or dstate"):
        s.gradients()
    with pytest.raises(ValueError, match=r"gradients: doutput must have shape \(2, 6\), got"):
        s.gradients(x)
    with pytest.raises(ValueError, match=r"gradients: dstate must have shape \(1, 2, 6\), got"):
        s.gradients(dstate=x)
