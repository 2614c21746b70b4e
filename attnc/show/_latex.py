"""Maps as LaTeX: a tabular with coloured cells."""

from __future__ import annotations

from attnc.show import _words
from attnc.show._map import Map
from attnc.show._values import hue, short

__all__ = ["HEAD", "map_latex"]

HEAD = "% needs \\usepackage[T1]{fontenc}, \\usepackage{textcomp}, \\usepackage[table]{xcolor}"
TURN = " and \\usepackage{graphicx}"
OTHERS = "% has letters that pdflatex may lack: use xelatex or lualatex with a font that has them"
LONGEST = 24


def map_latex(drawn: Map, numbers: bool) -> str:
    """A map as one tabular, after a comment that names the packages that it needs."""
    rows, columns = drawn.values.shape
    keys = [_words.shorten(key, LONGEST) for key in drawn.keys]
    queries = [_words.shorten(query, LONGEST) for query in drawn.queries]
    turned = max(map(_words.width, keys)) > 6
    lines = [HEAD + (TURN if turned else "")]
    if any(ord(c) > 0x17F and c not in "…–∞−→↓" for word in (*keys, *queries) for c in word):
        lines.append(OTHERS)
    # The words around the map are in a table around it: in its own they would widen a column.
    group = "\\begingroup\\setlength{\\tabcolsep}{4pt}\\renewcommand{\\arraystretch}{1.2}%"
    lines += ["\\noindent" + group, "\\begin{tabular}{@{}l@{}}"]
    if drawn.title:
        lines.append(f"\\textbf{{{_words.latex(drawn.title)}}} \\\\")
    lines.append(f"\\begin{{tabular}}{{@{{}}r*{{{columns}}}{{c}}}}")
    names = [_words.latex(name) for name in drawn.names]
    above = [_words.latex(key) for key in keys]
    if turned:
        above = [f"\\rotatebox{{90}}{{{key}}}" for key in above]
    corner = f"{{\\footnotesize {names[0]} $\\downarrow$ {names[1]} $\\rightarrow$}}"
    lines.append(" & ".join([corner, *above]) + " \\\\")
    for i in range(rows):
        cells = [_cell(drawn, i, j, numbers) for j in range(columns)]
        lines.append(" & ".join([_words.latex(queries[i]), *cells]) + " \\\\")
    notes = [_words.latex(note).replace("±", "$\\pm$") for note in drawn.notes()]
    lines.append("\\end{tabular} \\\\")
    lines.append(" \\\\\n".join(f"{{\\footnotesize {note}}}" for note in notes))
    lines.append("\\end{tabular}\\endgroup")
    return "\n".join(lines) + "\n"


def _cell(drawn: Map, i: int, j: int, numbers: bool) -> str:
    strength = float(drawn.strengths[i, j])
    colour, opaque = hue(strength)
    # What a colour over white paper is.
    parts = ",".join(f"{1 - opaque * (1 - part / 255):.3f}" for part in colour)
    text = "\\phantom{0}"
    if numbers or strength != strength:
        text = f"\\footnotesize {_words.latex(short(float(drawn.values[i, j])))}"
    return f"\\cellcolor[rgb]{{{parts}}}{text}"
