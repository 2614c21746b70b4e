"""Formulas and small matrices as LaTeX, for slides: `Table.latex`.

A formula is read token by token. What stands between ` and ` is text; ``.`` is a dot product, ``*``
multiplies number by number, ``_ij`` are indices, and the gradient of x is dx.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attnc.show import _words
from attnc.teaching.numbers import aligned, label
from attnc.teaching.table import Matrix

HEAD = "% needs \\usepackage{amsmath}"
FUNCTIONS = {"exp": r"\exp", "tanh": r"\tanh", "max": r"\max"}
NAMED = "sigmoid", "rms", "mean"
SYMBOLS = {
    "sigma": r"\sigma",
    "tau": r"\tau",
    "Phi": r"\Phi",
    "inf": r"\infty",
    "Wq": "W_q",
    "Wk": "W_k",
    "dWq": r"\mathrm{d}W_q",
    "dWk": r"\mathrm{d}W_k",
}
# What a gradient may be of, besides single letters.
NAMES = (
    "scale bias slope sink center lse query key value memory input output context feed Phi "
    "query_scale key_scale coverage_weight coverage_vector fertility_vector position_vector "
    "position_weight"
).split()
TOKEN = re.compile(
    r"`(?P<text>[^`]*)`|(?P<number>\d+(\.\d+)?(e[+-]?\d+)?)|(?P<dots>\.\.\.)"
    r"|(?P<sum>sum_(\([^)]*\)|\w+))|(?P<name>[A-Za-z]+(_\w+)*'?(_\w+)?)(?P<power>(\^[A-Z])*)"
    r"|(?P<square>\^\d)|(?P<other>.)"
)
LARGEST = 8  # rows and columns of a matrix that fits


def formula_latex(formula: str) -> str:
    """A formula in LaTeX, for math mode.

    Parameters
    ----------
    formula : str

    Returns
    -------
    str

    Examples
    --------
    >>> from attnc.teaching.latex import formula_latex
    >>> print(formula_latex("w_ij = exp(l_ij) / sum_j exp(l_ij): `softmax over j`"))
    w_{ij} = \\frac{\\exp(l_{ij})}{\\sum_{j} \\exp(l_{ij})}:\\ \\text{softmax over j}
    """
    return ",\\ ".join(_clause(clause) for clause in _split(formula, ", "))


def _clause(formula: str) -> str:
    """One equation, or what stands beside it."""
    formula, colon, said = formula.partition(": `")
    left, equals, right = formula.partition(" = ")
    if not equals:
        left, right = "", formula
    parts = _split(right, " / ")
    if len(parts) == 2 and not any(
        len(_split(part, sign)) > 1 for part in parts for sign in (" + ", " - ", " `")
    ):
        sums = re.match(r"-?(sum_\w+ )*", parts[0])[0]  # type: ignore[index]
        top, bottom = _bare(parts[0].removeprefix(sums)), _bare(parts[1])
        written = f"{_tokens(sums)} \\frac{{{_tokens(top)}}}{{{_tokens(bottom)}}}".strip()
    else:
        written = _tokens(right)
    if equals:
        written = f"{_tokens(left)} = {written}"
    return written + (":" + _tokens("`" + said) if colon else "")


def _split(formula: str, separator: str) -> list[str]:
    """The parts between separators that are outside brackets and text."""
    parts, depth, start, text = [], 0, 0, False
    for k, c in enumerate(formula):
        text ^= c == "`"
        depth += (c in "([") - (c in ")]")
        if not depth and formula.startswith(separator, k) and (not text or separator[-1] == "`"):
            parts.append(formula[start:k])
            start = k + len(separator)
    return [*parts, formula[start:]]


def _bare(part: str) -> str:
    """Without brackets around all of it."""
    if part.startswith("(") and part.endswith(")"):
        depth = 0
        for c in part[:-1]:
            depth += (c == "(") - (c == ")")
            if depth == 0:
                return part
        return part[1:-1]
    return part


def _tokens(formula: str) -> str:
    formula = re.sub(r"(\w) // (\d+)", r"`floor`(\1 / \2)", formula)
    out = []
    for token in TOKEN.finditer(formula):
        kind = token.lastgroup if token.lastgroup != "power" else "name"
        if token["text"] is not None:
            kind = "text"
        out.append(_token(kind or "other", token))
    written = "".join(out).replace("\\text{floor}(", "\\lfloor(")
    written = re.sub(r"\\lfloor\(([^)]*)\)", r"\\lfloor \1 \\rfloor", written)
    written = _roots(written)
    written = re.sub(r"(\\mathrm\{[^}]{2,}\}(?:_\{\w*\})?) +(?=[\\A-Za-z(])", r"\1\\,", written)
    return re.sub(r"  +", " ", written).strip().removesuffix("\\").strip()


def _roots(written: str) -> str:
    """\\sqrt(x) as \\sqrt{x}; inside there are no other brackets."""
    return re.sub(r"\\sqrt\(([^()]*)\)", r"\\sqrt{\1}", written)


def _token(kind: str, token: re.Match[str]) -> str:
    text = token[0]
    if token["sum"]:
        over = token["sum"][4:].strip("()").replace(" of ", r" \in ")
        return f"\\sum_{{{over}}}"
    if token["name"]:
        name, power = _name(token["name"]), _power(token["power"])
        return f"{{{name}}}{power}" if power and "'" in name else name + power
    if kind == "text":
        said = token["text"]
        return f"\\ \\text{{{_words.latex(said)}}}\\ " if said != "floor" else "\\text{floor}"
    if token["square"]:
        return f"^{{{text[1:]}}}"
    if token["dots"]:
        return "\\dots"
    return {".": r"\cdot", "*": r"\odot", ";": r";\,", ",": r",\ "}.get(text, text)


def _power(power: str) -> str:
    letters = power.replace("^", "")
    return (
        f"^{{{letters[:-1]}\\top}}" if letters.endswith("T") else f"^{{{letters}}}" * bool(letters)
    )


def _name(name: str) -> str:
    """A symbol with its indices."""
    if name == "sqrt":
        return "\\sqrt"
    if name in FUNCTIONS:
        return FUNCTIONS[name]
    if name in NAMED:
        return f"\\operatorname{{{name}}}"
    if name in SYMBOLS:
        return SYMBOLS[name]
    bare = name.replace("'", "")
    base, _, index = bare.partition("_")
    whole = f"{base}_{index}"
    if whole in NAMES or whole.removeprefix("d") in NAMES or len(index) > 3 and len(base) > 1:
        base, index = whole, ""
    elif len(index) > 3:
        index = f"\\mathrm{{{index}}}"
    prime = "'" * ("'" in name)
    first = ""
    if base not in NAMES and len(base) > 1 and base[0] == "d":
        rest = base[1:]
        if len(rest) == 1 or rest in NAMES or rest in SYMBOLS:
            first, base = r"\mathrm{d}", rest
    base = SYMBOLS.get(base, base)
    if len(base) > 1 and not base.startswith("\\") and base not in ("W_q", "W_k"):
        base = f"\\mathrm{{{_words.latex(base)}}}"
    if index:
        base = f"{base}{prime}_{{{index}}}"
    else:
        base += prime
    return f"{first}{base} " if len(first) else base + (" " if base.startswith("\\") else "")


def matrix_latex(matrix: Matrix, digits: int) -> str:
    """A matrix in LaTeX, or "" if it is too large or empty; with words as a table of its own.

    Parameters
    ----------
    matrix : Matrix
    digits : int
        As in `aligned`.

    Returns
    -------
    str
    """
    numbers, rows, columns, _ = matrix
    if not numbers.size or max(numbers.shape) > LARGEST:
        return ""
    cells = [[_number(text.strip()) for text in line] for line in aligned(numbers, digits)]
    if rows is None and columns is None:
        body = r" \\ ".join(" & ".join(line) for line in cells)
        return f"\\begin{{bmatrix}} {body} \\end{{bmatrix}}"
    lines = []
    if columns is not None:
        heads = [_said(word) for word in columns]
        lines.append(" & ".join([*[""] * (rows is not None), *heads]) + r" \\ \hline")
    for i, line in enumerate(cells):
        lines.append(" & ".join([*([] if rows is None else [_said(rows[i])]), *line]) + r" \\")
    side = "r|" if rows is not None else ""
    return f"\\begin{{array}}{{{side}{'r' * numbers.shape[1]}}} {' '.join(lines)} \\end{{array}}"


def _said(word: str) -> str:
    return f"\\text{{{_words.latex(label(word))}}}"


def _number(text: str) -> str:
    """A number in math mode."""
    sign, text = ("-", text[1:]) if text.startswith("-") else ("", text)
    if text == "inf":
        return sign + r"\infty"
    if text == "nan":
        return r"\text{NaN}"
    mantissa, exponent, power = text.partition("e")
    return sign + mantissa + (f" \\cdot 10^{{{int(power)}}}" if exponent else "")


def table_latex(title: str, entries: Sequence[tuple[str, str, Matrix]], digits: int) -> str:
    """A table of stages: its name, its formula, and the matrix where it fits.

    Parameters
    ----------
    title : str
    entries : sequence of (name, formula, Matrix)
    digits : int

    Returns
    -------
    str
        A fragment that begins with a comment on the packages that it needs.
    """
    lines = [HEAD, "\\[", "\\renewcommand{\\arraystretch}{1.3}", "\\begin{array}{lll}"]
    lines.append(f"\\rlap{{\\textbf{{{_words.latex(title)}}}}} \\\\")
    for name, formula, matrix in entries:
        drawn = matrix_latex(matrix, digits)
        which = (
            f"\\;{{\\scriptstyle \\text{{{_words.latex(matrix.which)}}}}}"
            if drawn and matrix.which
            else ""
        )
        said = f"\\text{{{_words.latex(name)}}}"
        lines.append(f"{said} & {formula_latex(formula)} & {drawn}{which} \\\\ \\\\[-2ex]")
    lines += ["\\end{array}", "\\]"]
    return "\n".join(lines) + "\n"
