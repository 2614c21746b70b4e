"""Stages as SVG and LaTeX: every formula is one that TeX reads, every cell is drawn."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from test_stage_formulas import CASES, LAYERS
from test_stage_steps import DECODERS, RECURRENT, decoder_step, one_step

import attnc
from attnc.teaching.latex import formula_latex

SVG = "{http://www.w3.org/2000/svg}"


def tables(rng):
    """Stages and gradients of everything that has formulas of its own."""
    for name, options, given in CASES.values():
        from arrays import inputs

        arrays, own = inputs(name, rng)
        own = {n: x for n, x in (own | options).items() if x is not None}
        if name == "additive_attention" and len(own) < 3 + len(options):
            continue
        s = attnc.stages(getattr(attnc, name), *arrays, **own)
        d = {"dcontext": s.context, "dweights": s.weights, "dlse": s.weights[..., 0]}
        yield from (s, s.gradients(**{n: x for n, x in d.items() if n[1] in given}))
    for own, options, given in LAYERS.values():
        layer = attnc.MultiHeadAttention(16, 4, dtype="float64", **own)
        s = attnc.stages(layer, rng.standard_normal((2, 5, 16)), causal=True, **options)
        d = {"doutput": s.output, "dweights": s.weights, "dlse": s.weights[..., 0]}
        yield from (s, s.gradients(**{n: x for n, x in d.items() if n[1] in given}))
    for kind in RECURRENT:
        for options in ({}, {"layers": 2, "bidirectional": True, "dropout": 0.5}):
            layer, x, state = one_step(kind, rng, **options)
            s = attnc.stages(layer, x, state, train=True)
            yield from (s, s.gradients(np.ones((2, layer.output_size)), state))
    for options in DECODERS.values():
        decoder, x, memory, state, masks = decoder_step(rng, **options, layers=2)
        s = attnc.stages(decoder, x, memory, state, **masks)
        yield from (s, s.gradients(s.output, dweights=s.weights, dstate=state))


@pytest.mark.parametrize(
    "formula, expected",
    [
        ("p_ij = q_i . k_j", r"p_{ij} = q_{i} \cdot k_{j}"),
        ("dWq = sum_i q_i^T dx_i", r"\mathrm{d}W_q = \sum_{i} q_{i}^{\top} \mathrm{d}x_{i}"),
        ("x_i = q_i / |q_i|", r"x_{i} = \frac{q_{i}}{|q_{i}|}"),
        ("h' = o * tanh(c')", r"h' = o \odot \tanh(c')"),
        ("s = scale p, scale = 1 / sqrt(D)", None),
        ("dk_gj = sum_(h of g) dp_hij", r"\mathrm{d}k_{gj} = \sum_{h \in g} \mathrm{d}p_{hij}"),
        ("g = h // 2", r"g = \lfloor h / 2 \rfloor"),
        ("d = sum_i a_i / b_i", r"d = \sum_{i} \frac{a_{i}}{b_{i}}"),
        ("s_ij: `given`", r"s_{ij}:\ \text{given}"),
    ],
)
def test_formulas_in_latex(formula, expected):
    if expected is None:
        expected = r"s = \mathrm{scale}\,p,\ \mathrm{scale} = \frac{1}{\sqrt{D}}"
    assert formula_latex(formula) == expected


def test_every_formula_is_read_by_a_parser_of_tex(rng):
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser, seen = mathtext.MathTextParser("path"), set()
    for table in tables(rng):
        for formula in table._formulas.values():
            assert formula.count("`") % 2 == 0
            written = formula_latex(formula)
            assert "`" not in written and written.count("{") == written.count("}")
            if written not in seen:
                parser.parse(f"${written}$")
            seen.add(written)
    assert len(seen) > 150


def test_latex_is_compiled(rng, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("there is no LaTeX")
    parts = []
    for k, table in enumerate(tables(rng)):
        if k % 12 < 2:
            parts += [table.latex(names=[name]) for name in table.formulas]
    s = attnc.stages(attnc.attend, np.array([[1, -np.inf], [np.nan, 1e-9]]), np.eye(2))
    s = s.shown(queries=["a_b", "50 % & $x$"], keys=["{", "\\"])
    parts += [s.latex(), s.gradients(np.ones((2, 2))).latex()]
    head = (
        r"\documentclass{article}\usepackage{amsmath}\usepackage[T1]{fontenc}\usepackage{textcomp}"
    )
    text = head + "\n\\begin{document}\n" + "\n".join(parts) + "\n\\end{document}\n"
    (tmp_path / "slides.tex").write_text(text)
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "slides.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_small_matrices_are_written_out(rng):
    scores = np.array([[0.5, -np.inf, np.nan]])
    s = attnc.stages(attnc.attend, scores, np.eye(3))
    row = s.latex(names=["scores"]).splitlines()[5]
    assert r"\begin{bmatrix} 0.5 & -\infty & \text{NaN} \end{bmatrix}" in row
    labelled = s.shown(queries=["q_1"], keys=["a", "b", "c"]).latex(names=["scores"])
    assert r"\begin{array}{r|rrr}  & \text{a} & \text{b} & \text{c} \\ \hline" in labelled
    assert r"\text{q\_1} & 0.5" in labelled
    large = attnc.stages(attnc.attend, rng.standard_normal((9, 2)), np.eye(2))
    assert "matrix" not in large.latex(names=["scores", "weights"])
    assert large.latex(names=["weights"]).count(r"\text{weights}") == 1


def test_every_cell_is_drawn(rng):
    layer = attnc.MultiHeadAttention(8, 4, dtype="float64", rng=0)
    s = attnc.stages(layer, rng.standard_normal((2, 3, 8))).shown(
        queries=["le", "<chat>", "שלום"], keys=["猫", "&", "c" * 40], at=(1, 2), digits=3
    )
    for table, names in ((s, list(s.formulas)), (s.gradients(s.output), None)):
        for numbers in (False, True):
            root = ET.fromstring(table.svg(names=names, numbers=numbers))
            sizes = [table._matrix(name).numbers for name in table.formulas]
            cells = list(root.iter(SVG + "rect"))
            assert len(cells) == sum(min(m.shape[0], 12) * min(m.shape[1], 12) for m in sizes)
            words = [text.text for text in root.iter(SVG + "text")]
            assert "<chat>" in words and "猫" in words and "[1] of (2,), head 2 of 4" in words
            assert set(table.formulas) <= set(words) and words.count("→") == len(sizes) - 1
            written = sum(bool(re.fullmatch(r"-?\d+(\.\d\d)?", word)) for word in words)
            assert written == (len(cells) if numbers else 0)
            width, height = (float(root.get(side)) for side in ("width", "height"))
            corners = np.array([[float(r.get(side)) for side in ("x", "y")] for r in cells])
            sides = np.array([[float(r.get(s)) for s in ("width", "height")] for r in cells])
            apart = (corners[:, None] >= corners + sides).any(-1)
            assert (apart | apart.T | np.eye(len(cells), dtype=bool)).all()
            for rect in cells:
                assert 0 <= float(rect.get("x")) <= width - float(rect.get("width"))
                assert 0 <= float(rect.get("y")) <= height - float(rect.get("height"))
    titles = [t.text for rect in cells for t in rect.iter(SVG + "title")]
    assert float(titles[0]) == s.gradients(s.output).output[1, 0, 0]


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 2, 3), (1, 1), (30, 40)])
def test_pictures_of_any_shape(shape):
    scores = np.full(shape, np.nan)
    s = attnc.stages(attnc.attend, scores, np.zeros((*shape[:-2], shape[-1], 2)))
    for table in (s, s.gradients(np.ones_like(s.context))):
        text = table.svg(numbers=True)
        ET.fromstring(text)
        assert table.latex().count("\\begin{array}") >= 1
        if shape == (30, 40):
            assert "the first (12, 12) of (30, 40)" in text


@pytest.mark.parametrize("method", ["svg", "latex"])
@pytest.mark.parametrize(
    "names, error, message",
    [
        ("weights", TypeError, "names must be a sequence of names, got 'weights'"),
        (3, TypeError, "names must be a sequence of names, got 3"),
        ([["weights"]], ValueError, r"names must be of scores, capped, .*, got \['weights'\]"),
        (["weight"], ValueError, "names must be of scores, capped, .*, got 'weight'"),
    ],
)
def test_wrong_names(method, names, error, message):
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
    with pytest.raises(error, match=f"^{method}: {message}"):
        getattr(s, method)(names=names)


def test_wrong_numbers():
    s = attnc.stages(attnc.attend, np.eye(2), np.eye(2))
    with pytest.raises(TypeError, match="^svg: numbers must be"):
        s.svg(numbers=1)
    with pytest.raises(AttributeError, match="weigths is not in Stages of attend, which has scor"):
        _ = s.weigths
