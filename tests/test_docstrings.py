"""Every public name has a numpydoc docstring that fits its signature, and its examples run."""

import doctest
import importlib
import inspect
import pkgutil
import re

import numpy as np
import pytest
from arrays import FUNCTIONS

import attnc


def modules():
    """All but the bridges to what is not installed."""
    for module in pkgutil.walk_packages(attnc.__path__, "attnc."):
        if module.name.rpartition(".")[2].startswith("_"):
            continue
        try:
            yield importlib.import_module(module.name)
        except ImportError as error:
            if "must be installed" not in str(error):
                raise


MODULES = list(modules())
SECTIONS = [
    "Parameters",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "See Also",
    "Notes",
    "Examples",
]


def section(docstring, title):
    """The body of a section, or None."""
    found = re.search(
        rf"^{title}\n-{{{len(title)}}}\n(.*?)(?=^[^\n]+\n---+$|\Z)", docstring, re.M | re.S
    )
    return found and found[1]


def entries(body):
    """The names that a section of parameters documents: 'queries, keys : sequence' has two."""
    lines = [line for line in body.split("\n") if line and not line.startswith(" ")]
    names = [name for line in lines for name in re.split(r", *", line.partition(" : ")[0])]
    return [name.lstrip("*").strip() for name in names]


def public():
    """(name, object) of everything public, a class followed by its public methods."""
    seen = set()
    for module in [attnc, *MODULES]:
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if inspect.ismodule(thing) or id(thing) in seen:
                continue
            seen.add(id(thing))
            yield f"{thing.__module__}.{name}", thing
            if not inspect.isclass(thing):
                continue
            for base in thing.__mro__[:-1]:
                if base.__module__.partition(".")[0] != "attnc":  # PyTorch's, and theirs to say
                    continue
                for attribute, value in vars(base).items():
                    value = getattr(value, "__func__", value)  # of a class method
                    shown = not attribute.startswith("_") or attribute == "__call__"
                    if shown and inspect.isfunction(value) and id(value) not in seen:
                        seen.add(id(value))
                        yield f"{value.__module__}.{value.__qualname__}", value


PUBLIC = dict(public())
OWN = {"self", "cls"}
COMMON = set(attnc.functional.options.DEFAULTS) | {"dtype"}


def returns_something(function):
    source = inspect.getsource(function)
    return re.search(r"^ +(return|yield) ", source.rpartition('"""')[2], re.M)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_module(module):
    assert inspect.getdoc(module)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring(name):
    thing = PUBLIC[name]
    doc = inspect.getdoc(thing)
    assert doc, "no docstring"
    summary = doc.split("\n\n")[0]
    assert summary.endswith((".", "::")) and "\n" not in summary, f"not one sentence: {summary}"

    arguments = [each for each in inspect.signature(thing).parameters if each not in OWN]
    documented = section(doc, "Parameters")
    if documented is not None:
        names = set(entries(documented))
        if thing.__module__ == "attnc.reference.attention" and "common" in names:
            arguments = [each for each in arguments if each not in COMMON] + ["common"]
        assert names == set(arguments)
    elif re.search(r"\.\w*[A-Z]\w*\.\w+$", name):  # a method may say it in a sentence
        assert all(f"`{each}`" in doc for each in arguments if each not in {"inputs", "options"})
    else:
        assert not arguments, "no Parameters"
    if inspect.isfunction(thing) and returns_something(thing):
        said = re.search(r"^(Returns|Yields)\n---", doc, re.M) or re.search("eturn|utput", summary)
        assert said, "no Returns"

    titles = [title for title in re.findall(r"^(.+)\n---+$", doc, re.M) if title in SECTIONS]
    assert titles == sorted(titles, key=SECTIONS.index), f"the order of {titles}"


# What the docstring of a mechanism has to name: its formula and the paper.
MECHANISMS = {
    ("dot_product_attention", "DotProductAttention"): ("s_ij = ", "Vaswani", "Luong"),
    ("multiplicative_attention", "MultiplicativeAttention"): ("s_ij = ", "Luong"),
    ("additive_attention", "AdditiveAttention"): ("s_ij = ", "tanh", "Bahdanau"),
    ("cosine_attention", "CosineAttention"): ("s_ij = ", "Graves"),
    ("attend",): ("softmax",),
    ("dot_product_scores",): ("s_ij = ", "Vaswani", "Luong"),
    ("multiplicative_scores",): ("s_ij = ", "Luong"),
    ("additive_scores",): ("s_ij = ", "tanh", "Bahdanau"),
    ("cosine_scores",): ("s_ij = ", "Graves"),
    ("rotary",): ("angle", "Su et al."),
    ("monotonic_alignment", "MonotonicAttention"): (" = ", "Raffel"),
    ("chunkwise_attention", "ChunkwiseAttention"): ("b_il = ", "Chiu and Raffel"),
    ("SelfAttention",): ("softmax", "Vaswani"),
    ("LocalAttention",): ("exp(-(j - c_i)^2 / (2 sigma^2))", "Luong"),
    ("MultiHeadAttention",): ("softmax", "Vaswani", "Ainslie"),
    ("AttentionDecoder",): ("s_t = ", "Bahdanau", "Luong"),
    ("AttentionPooling", "HierarchicalAttention"): ("softmax(u . u_w)", "Yang et al."),
    ("AttentionOnAttention",): ("sigmoid([q; c] W_g + b_g)", "Huang et al."),
    ("AttentionOverAttention",): ("mean over j of (softmax over i of m_ij)", "Cui et al."),
    ("GatedAttention",): ("g * c + (1 - g) * d", "See et al."),
    ("RNN",): ("h_t = ", "Elman"),
    ("GRU",): ("h_t = ", "Cho"),
    ("LSTM",): ("h_t = ", "Hochreiter"),
    ("Convolution2d",): ("y[o, i, j] = ", "LeCun"),
    ("MaxPool2d",): ("y[i, j] = max", "Ranzato"),
    ("AveragePool2d",): ("y[i, j] = mean", "LeCun"),
    ("ImageRegions",): ("r[W i + j] = ", "Xu et al."),
    ("FeatureMap",): ("y[:, i, j] = ", "Zhang et al."),
    ("layer_norm", "LayerNorm"): ("y = ", "Ba, Kiros"),
    ("rms_norm", "RMSNorm"): ("y = ", "Zhang and Sennrich"),
    ("gelu",): ("x P(x)", "tanh", "Hendrycks and Gimpel"),
    ("silu",): ("sigmoid(x)", "Ramachandran"),
    ("swiglu", "FeedForward"): ("silu(", "Shazeer"),
    ("SinusoidalPositions",): ("sin(", "cos(", "Vaswani"),
    ("TransformerEncoderLayer",): ("norm(x + dropout", "Vaswani", "Xiong"),
    ("TransformerDecoderLayer",): ("norm(x + dropout", "memory", "Vaswani"),
    ("Transformer",): ("sqrt(size)", "Vaswani", "Press"),
    ("LanguageModel",): ("sqrt(size)", "Radford", "Press"),
    ("Adam",): (" = ", "Kingma"),
}


def test_every_mechanism_is_among_them():
    assert set(FUNCTIONS) <= {name for names in MECHANISMS for name in names}


@pytest.mark.parametrize("names, words", MECHANISMS.items())
def test_mechanisms_name_their_formula_and_paper(names, words):
    documented = [thing for name, thing in PUBLIC.items() if name.rpartition(".")[2] in names]
    assert documented
    for thing in documented:
        missing = [word for word in words if word not in inspect.getdoc(thing)]
        assert not missing, thing
        assert "attend" in names or re.search(r"\b(19|20)\d\d\b", inspect.getdoc(thing)), "a year"


@pytest.mark.parametrize("module", [attnc, *MODULES], ids=lambda module: module.__name__)
def test_examples_run(module):
    if module.__name__ == "attnc.plot":
        pytest.importorskip("matplotlib").use("Agg")
    failed, _ = doctest.testmod(module, extraglobs={"np": np, "attnc": attnc}, report=True)
    assert not failed, "see the output"
