"""Long texts with a line that says what they are about: what summarise.py learns from.

Docstrings of the Python modules that are installed: the body is the text, the first line its
summary (PEP 257). Descriptions of Debian's packages: of each there is a long and a short one. Both
are read where they lie; no module is imported. Or pairs of a file.
"""

import ast
import itertools
import pathlib
import re
import subprocess
import sysconfig
import warnings
from collections import namedtuple

from attnc.data import read_pairs, split

# The words of a text, which are a name, a colon and the `body`; and those of its line.
Pair = namedtuple("Pair", ["source", "body", "line"])

LONGEST = 60  # words of a text that are read
LINE = range(3, 16)  # words of a line
LEAST = 10  # words of a body

WORD = re.compile(r"\w+|[.,:;()'-]")  # no other signs: they are mostly markup
SECOND_PART = re.compile(r"_+|(?<=[a-z\d])(?=[A-Z])")  # of a name such as get_params or MaxPool
# What is no prose: a test with its output; a directive; a line of signs alone; a role, as :func:.
MARKUP = [
    (re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.M | re.S), ""),
    (re.compile(r"^ *\.\. .*$|^\W+$", re.M), ""),
    (re.compile(r":[\w:+-]+:(?=`)|[`*]"), ""),
]


def words(text):
    """The words and signs of a text, in small letters."""
    return WORD.findall(text.lower())


def parts(data="docstrings", file=None, most=None, least=100):
    """Pairs for training, validation and test, without near-copies across: `attnc.data.split`.

    The first `most` that are found, or all.
    """
    if file:
        found = (("", *pair) for pair in read_pairs(file))
    else:
        found = {"docstrings": docstrings, "packages": packages}[data]()
    pairs = itertools.islice(filter(None, itertools.starmap(pair_of, found)), most)
    pairs = without_copies(pairs)
    if len(pairs) < least:
        raise ValueError(f"needs at least {least} texts with a line each, got {len(pairs)}")
    by_text = {(" ".join(pair.source), " ".join(pair.line)): pair for pair in pairs}
    some = min(len(pairs) // 10, 1000)
    cut = split(list(by_text), validation=some // 2, test=some)
    return tuple([by_text[texts] for texts in part] for part in cut[:3])


def pair_of(name, text, line):
    """The words of a text and its line; None where they are too few or too many, or no sentence.

    The text loses its markup, and whatever repeats the line word for word.
    """
    for pattern, instead in MARKUP:
        text, line = pattern.sub(instead, text), pattern.sub(instead, line)
    several = re.search(r"[.!?]\s", line.strip())  # sentences
    heading, line = words(SECOND_PART.sub(" ", name)), words(line.strip().rstrip("."))
    if several or len(line) not in LINE:
        return None
    body = without(words(text), line)[:LONGEST]
    if sum(map(str.isalpha, body)) < LEAST:
        return None
    return Pair([*heading, ":", *body][:LONGEST] if heading else body, body, line)


def without(body, line):
    """The words of a body but for each run of them that is the whole line."""
    kept, t = [], 0
    while t < len(body):
        here = body[t : t + len(line)] == line
        if not here:
            kept.append(body[t])
        t += len(line) if here else 1
    return kept


def without_copies(pairs):
    """Of pairs with equal lines, or equal texts, the first; but for signs and digits."""
    seen: set[tuple] = set()
    kept = []
    for pair in pairs:
        sides = {(n, *filter(str.isalpha, side)) for n, side in enumerate((pair.body, pair.line))}
        if not sides & seen:
            kept.append(pair)
        seen |= sides
    return kept


# ---- Docstrings ----------------------------------------------------------------------------------

LEFT_OUT = {"test", "tests", "site-packages", "_vendor", "lib2to3", "idlelib"}
LIBRARIES = "PIL babel joblib matplotlib mpl_toolkits networkx numpy scipy sklearn".split()


def docstrings(folders=None):
    """Yield (name, body, first line) of what is documented in the modules of some folders.

    Unless told those of the standard library, and of `LIBRARIES` that are installed.
    """
    standard, installed = map(sysconfig.get_path, ("stdlib", "purelib"))
    folders = folders or [standard, *(f"{installed}/{name}" for name in LIBRARIES)]
    for folder in map(pathlib.Path, folders):
        for path in sorted(folder.rglob("*.py")):
            if LEFT_OUT & {*path.relative_to(folder).parts}:
                continue
            try:
                with warnings.catch_warnings(action="ignore"):  # of what is not our code
                    tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, ValueError):  # a template, or another encoding
                continue
            for name, docstring in documented(tree):
                line, _, body = docstring.partition("\n\n")
                yield name, body, line


def documented(node, owner=""):
    """Yield the name and the docstring of each class and function in a node of a tree.

    The name of a method begins with that of its class.
    """
    for child in getattr(node, "body", ()):
        name = owner
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name = child.name if isinstance(child, ast.ClassDef) else ""
            docstring = ast.get_docstring(child)
            if docstring:
                yield f"{owner} {child.name}".strip(), docstring
        yield from documented(child, name)


# ---- Descriptions of packages --------------------------------------------------------------------

LISTS = "/var/lib/dpkg/status", "/var/lib/apt/lists/*_Translation-en*"
APT_HELPER = "/usr/lib/apt/apt-helper"  # reads what apt has compressed


def packages(patterns=LISTS):
    """Yield (name, long description, short one) of the packages that dpkg and apt know.

    apt has long ones where its ``Acquire::Languages`` says so.
    """
    for pattern in patterns:
        for path in sorted(pathlib.Path("/").glob(pattern.lstrip("/"))):
            for stanza in text_of(path).split("\n\n"):
                name = re.search(r"^Package: (.+)$", stanza, re.M)
                found = re.search(r"^Description(?:-en)?: (.+)((?:\n .*)*)", stanza, re.M)
                if name and found:
                    body = re.sub(
                        r"^ (\.$)?", "", found[2], flags=re.M
                    )  # a dot stands for an empty line
                    yield name[1], body, found[1]


def text_of(path):
    """The text of a list of packages, also of one that apt keeps compressed."""
    if path.suffix in {".lz4", ".gz", ".xz", ".zst", ".bz2"}:
        done = subprocess.run([APT_HELPER, "cat-file", path], capture_output=True, check=False)
        return done.stdout.decode(errors="replace")
    return path.read_text(encoding="utf-8", errors="replace")
