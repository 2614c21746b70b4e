"""The formulas of one step of an RNN, a GRU and an LSTM, as `stages` shows them.

x is the input, h the state, c the state of the cell; h' and c' are the new ones. The gates stand
side by side in W and U, the weights of x and h, and in b and e, the biases of both, which the
layers call input_bias and state_bias. a_r is what the gate r is a function of. ``*`` multiplies
number by number, and the gradient of x is dx.
"""

from __future__ import annotations

# FORWARD has the stages of each kind of cell.
FORWARD = {
    "rnn": {
        "preactivation": "a = x W + b + h U + e",
        "new_state": "h' = tanh(a)",
    },
    "gru": {
        "reset_preactivation": "a_r = x W_r + b_r + h U_r + e_r",
        "reset_gate": "r = sigmoid(a_r)",
        "update_preactivation": "a_z = x W_z + b_z + h U_z + e_z",
        "update_gate": "z = sigmoid(a_z)",
        "state_product": "q_n = h U_n + e_n",
        "candidate_preactivation": "a_n = x W_n + b_n + r * q_n",
        "candidate": "n = tanh(a_n)",
        "new_state": "h' = (1 - z) * n + z * h",
    },
    "lstm": {
        "input_preactivation": "a_i = x W_i + b_i + h U_i + e_i",
        "forget_preactivation": "a_f = x W_f + b_f + h U_f + e_f",
        "cell_preactivation": "a_g = x W_g + b_g + h U_g + e_g",
        "output_preactivation": "a_o = x W_o + b_o + h U_o + e_o",
        "input_gate": "i = sigmoid(a_i)",
        "forget_gate": "f = sigmoid(a_f)",
        "cell_input": "g = tanh(a_g)",
        "output_gate": "o = sigmoid(a_o)",
        "new_cell_state": "c' = f * c + i * g",
        "new_state": "h' = o * tanh(c')",
    },
}

# BACKWARD has their gradients, in the order in which they are computed.
BACKWARD = {
    "rnn": {
        "new_state": "dh'",
        "preactivation": "da = dh' * (1 - h'^2)",
    },
    "gru": {
        "new_state": "dh'",
        "candidate": "dn = dh' * (1 - z)",
        "candidate_preactivation": "da_n = dn * (1 - n^2)",
        "state_product": "dq_n = da_n * r",
        "update_gate": "dz = dh' * (h - n)",
        "update_preactivation": "da_z = dz * z * (1 - z)",
        "reset_gate": "dr = da_n * q_n",
        "reset_preactivation": "da_r = dr * r * (1 - r)",
    },
    "lstm": {
        "new_state": "dh'",
        "output_gate": "do = dh' * tanh(c')",
        "new_cell_state": "dc' = dh' * o * (1 - tanh(c')^2)",
        "cell_input": "dg = dc' * i",
        "forget_gate": "df = dc' * c",
        "input_gate": "di = dc' * g",
        "output_preactivation": "da_o = do * o * (1 - o)",
        "cell_preactivation": "da_g = dg * (1 - g^2)",
        "forget_preactivation": "da_f = df * f * (1 - f)",
        "input_preactivation": "da_i = di * i * (1 - i)",
    },
}

_SIDES = {
    "rnn": ("da", "da"),
    "gru": ("[da_r; da_z; da_n]", "[da_r; da_z; dq_n]"),
    "lstm": ("[da_i; da_f; da_g; da_o]", "[da_i; da_f; da_g; da_o]"),
}


def of_arguments(kind: str) -> dict[str, str]:
    """The gradients of what a step of this kind of cell takes, in terms of those of its stages.

    Parameters
    ----------
    kind : {'rnn', 'gru', 'lstm'}

    Returns
    -------
    dict of str to str
    """
    p, q = _SIDES[kind]
    found = {"x": f"dx = {p} W^T", "state": f"dh = {q} U^T" + " + dh' * z" * (kind == "gru")}
    if kind == "lstm":
        found["cell_state"] = "dc = dc' * f"
    return found | {
        "input_weight": f"dW = x^T {p}",
        "state_weight": f"dU = h^T {q}",
        "input_bias": f"db = {p}, `summed over the batch`",
        "state_bias": f"de = {q}, `summed over the batch`",
    }
