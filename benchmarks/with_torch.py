"""PyTorch as a contender, eager: its fused attention, and the formulas that it lacks."""

import re

import numpy as np
import torch
from torch.nn.functional import normalize, scaled_dot_product_attention

from benchmarks import isa, monotonic_torch, recurrent_torch, transformer_torch
from benchmarks.contenders import LeftOut
from benchmarks.inputs import (
    COSINE_SCALE,
    local_centers,
    padded,
    tangents,
    trimmed,
    valid_keys,
)

# The most pairs of local attention: every array of them that a larger case needs takes over 256 MB.
MOST_PAIRS = 2**26


def version():
    return torch.__version__


def instructions():
    """Of its own kernels, of oneDNN, and of MKL, which names them only on Intel's processors."""
    text = isa.said(
        "import torch; x = torch.ones(64, 64); x @ x; x.to_mkldnn()",
        ONEDNN_VERBOSE="1",
        MKL_VERBOSE="1",
    )
    parts = [torch.backends.cpu.get_cpu_capability()]
    for name, pattern in (
        ("oneDNN", r"cpu,isa:([^\n]*)"),
        ("MKL", r"\((Intel\(R\) AVX[^)]*)\) enabled processors"),
    ):
        parts += [f"{name}: {found}" for found in re.findall(pattern, text)[:1]]
    return ", ".join(parts)


def formulas(case):
    """The ways to compute a case, by name: functions of the tensors."""
    mask = valid_keys(case)
    options = {"is_causal": case.causal and not case.packed}
    if mask is not None:
        options["attn_mask"] = torch.from_numpy(mask)

    def dot_product(query, key, value):
        return scaled_dot_product_attention(query, key, value, **options)

    def multiplicative(query, key, value, weight):
        return scaled_dot_product_attention(query @ weight, key, value, scale=1.0)

    def cosine(query, key, value):
        query, key = normalize(query, dim=-1), normalize(key, dim=-1)
        return scaled_dot_product_attention(query, key, value, scale=COSINE_SCALE)

    def additive_product(query, key, value, score_vector):
        scores = torch.tanh(query[:, :, None, :] + key[:, None, :, :]) @ score_vector
        return torch.softmax(scores, -1) @ value

    def additive_sum(query, key, value, score_vector):
        scores = (torch.tanh(query[:, :, None, :] + key[:, None, :, :]) * score_vector).sum(-1)
        return torch.softmax(scores, -1) @ value

    def local(query, key, value):
        """The window as a mask, and the Gaussian over all pairs."""
        center = torch.from_numpy(local_centers(case)).to(query.dtype)[..., None]
        j = torch.arange(case.Tk)
        window = (j - center.floor()).abs() <= case.width
        scores = (query @ key.mT * case.D**-0.5).masked_fill(~window, -torch.inf)
        gaussian = torch.exp(-((j - center) ** 2) / (2 * (case.width / 2) ** 2))
        return (torch.softmax(scores, -1) * gaussian) @ value

    return {
        "dot_product": {"": dot_product},
        "local": {"": local},
        "multiplicative": {"": multiplicative},
        "cosine": {"": cosine},
        "additive": {"tanh(...) @ w": additive_product, "(tanh(...) * w).sum(-1)": additive_sum},
        "monotonic": {"": monotonic_torch.alignments},
    }[case.mechanism]


def prepare(case, inputs, formulas=formulas):
    """The ways to compute a case, by name: calls without arguments."""
    if case.recurrent:
        return recurrent_torch.prepare(case, inputs)
    if case.transformer:
        return transformer_torch.prepare(case, inputs)
    if case.mechanism == "local" and case.Tq * case.Tk > MOST_PAIRS:
        raise LeftOut(f"needs arrays of more than {MOST_PAIRS // 10**6} million numbers")
    torch.set_grad_enabled(case.backward)
    if case.tangents:
        return {"": forward_mode(case, inputs)}
    *arguments, dcontext = *inputs.arguments, inputs.dcontext
    if case.packed:
        *arguments, dcontext = (padded(case, x) for x in (*arguments, dcontext))
    tensors = [tensor(case, x).requires_grad_(case.backward) for x in arguments]
    dcontext = tensor(case, dcontext)

    def call(formula):
        def forward():
            return (formula(*tensors),)

        def forward_and_backward():
            context = formula(*tensors)
            return context, *torch.autograd.grad(context, tensors, dcontext)

        return forward_and_backward if case.backward else forward

    return {form: call(formula) for form, formula in formulas(case).items()}


def tensor(case, x):
    """An array as a tensor; of bfloat16, which NumPy does not know, by its bits."""
    if case.dtype == "bfloat16":
        return torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x)


def forward_mode(case, inputs):
    """torch.func.jvp of the formula: the fused attention has none."""

    def formula(query, key, value):
        return torch.softmax(query @ key.mT * case.D**-0.5, -1) @ value

    tensors = [torch.from_numpy(x) for x in inputs.arguments]
    directions = [torch.from_numpy(x) for x in tangents(case) if x is not None]
    moving, constant = tensors[: len(directions)], tensors[len(directions) :]

    def of_moving(*moving):
        return formula(*moving, *constant)

    return lambda: torch.func.jvp(of_moving, tuple(moving), tuple(directions))


def results(case, output):
    """What a call returned, as arrays: the context, then the gradients of the arguments."""
    if case.recurrent:
        return recurrent_torch.results(case, output)
    if case.transformer:
        return transformer_torch.results(case, output)
    if not case.compared:
        return []
    arrays = [x.detach().to(getattr(torch, case.computed)).numpy() for x in output]
    return [trimmed(case, x) for x in arrays] if case.packed else arrays
