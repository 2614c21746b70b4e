"""Lays out in one folder what the site is made of, for Sphinx reads one folder alone.

``python docs/prepare.py build/docs-source`` copies `docs`, the notebooks of the course, the texts
at the top of the tree and MathJax there, and writes the lists of the API, one for each module.
Files that are there already and the same are left alone, so that only what changed is built anew.
"""

import importlib
import importlib.metadata
import inspect
import pathlib
import re
import sys

import bridges

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Included by pages of docs, or linked to by them.
TEXTS = ("CHANGELOG.md", "CITATION.cff", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
# Their links, which are right in the sources, as they are on the pages that include them.
LINKS = {"](CONTRIBUTING.md)": "](building.md)", "](docs/": "]("}
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".pytest_cache"}

# The lists of the API in the order of the site: title, name of the module, name of the page.
MODULES = [
    ("Functions", "attnc.functional", "functions"),
    ("Gradients and directions", "attnc.gradients", "gradients"),
    ("Layers", "attnc.layers", "layers"),
    ("Losses", "attnc.losses", "losses"),
    ("Estimators", "attnc.estimators", "estimators"),
    ("Optimisers", "attnc.optim", "optim"),
    ("Learning rates", "attnc.schedules", "schedules"),
    ("Data", "attnc.data", "data"),
    ("Models in files", "attnc.saving", "saving"),
    ("Teaching", "attnc.teaching", "teaching"),
    ("Pictures with matplotlib", "attnc.plot", "plot"),
    ("Pictures without packages", "attnc.show", "show"),
    ("Formulas in plain NumPy", "attnc.reference", "reference"),
    ("Records", "attnc.registry", "registry"),
    ("Threads", "attnc.threads", "threads"),
]
LONG = {"attnc.functional", "attnc.layers", "attnc.reference"}
# The sections of long lists, by the file that a name is from; all others are parts of networks.
SECTIONS = {
    "Attention": "attention attention_over_attention chunkwise gated hard hierarchical local"
    " monotonic multihead pooling",
    "Scores": "scores",
    "Recurrent networks and decoders": "decoder decoding recurrent seq2seq",
    "Transformers and language models": "cache language_model transformer transformer_layer"
    " transformer_stack",
    "Positions": "alibi positions relative rotary",
    "Images": "convolution image_pooling regions",
    "Losses": "losses",
    "Parts of networks": "",
}
# What `attnc` has from modules that have no page of their own, by the page where it is shown.
ELSEWHERE = {"check_gradients": "gradients", "hvp": "gradients", "jvp": "gradients"}
ELSEWHERE |= {"summary": "saving"}


def write(path, content):
    """Write bytes or text where the file is not there or holds something else."""
    content = content if isinstance(content, bytes) else content.encode()
    if not (path.is_file() and path.read_bytes() == content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return path


def without_missing(text, folders):
    """The text of a page without the lines of its ``:glob:`` toctrees that match no page.

    So a list may name pages, in their order, before they are written.
    """

    def matches(pattern):
        found = (path.name for folder in folders for path in folder.glob(pattern + ".*"))
        return any(name.endswith((".md", ".ipynb")) and name != "index.md" for name in found)

    def kept(block):
        lines = block[0].split("\n")
        return "\n".join(line for line in lines if not set("*[") & set(line) or matches(line))

    return re.sub(r"^```\{toctree\}\n(?:.*\n)*?:glob:\n(?:.*\n)*?```$", kept, text, flags=re.M)


def copied(source, target):
    """The files of a folder, copied: the paths of the copies."""
    for path in sorted(source.rglob("*")):
        if not path.is_file() or LEFT_OUT & set(path.parts):
            continue
        copy, content = target / path.relative_to(source), path.read_bytes()
        if path.name == "index.md":
            there = path.parent.relative_to(source)
            content = without_missing(content.decode(), (path.parent, ROOT / "examples" / there))
        yield write(copy, content)


def included(path):
    text = path.read_text(encoding="utf-8")
    for link, there in LINKS.items():
        text = text.replace(link, there)
    return text


def mathjax():
    """The one file of MathJax that draws formulas as SVG, without fonts: from a package."""
    for path in importlib.metadata.files("sphinx-mathjax-offline"):
        if path.name == "tex-svg.js":
            return path.locate().read_bytes()
    raise FileNotFoundError("docs: the package sphinx-mathjax-offline must have tex-svg.js")


# ---- the lists of the API ------------------------------------------------------------------------


def public(module):
    """The names that users write: ``attnc.Linear`` rather than ``attnc.layers.Linear``."""
    import attnc

    for name in module.__all__:
        thing = getattr(module, name)
        short = getattr(attnc, name, None) is thing and name in attnc.__all__
        yield f"attnc.{name}" if short else f"{module.__name__}.{name}"


def listed():
    """{page: [title, name of the module, public names]} of everything public, each name once."""
    import attnc

    pages, seen = {}, set()
    for title, module_name, page in MODULES:
        module = importlib.import_module(module_name)
        names = [
            *public(module),
            *(f"attnc.{n}" for n, where in ELSEWHERE.items() if where == page),
        ]
        pages[page] = [title, module_name, [name for name in names if name not in seen]]
        seen |= set(names)
    whole = {f"attnc.{name}" for name in attnc.__all__}
    lacking = {name for name in whole - seen if not inspect.ismodule(getattr(attnc, name[6:]))}
    if lacking:
        raise ValueError(f"docs: MODULES must have a page for {sorted(lacking)}")
    return pages


def headed(text, line="="):
    return f"{text}\n{line * len(text)}\n\n"


def thing_of(name):
    module, _, own = name.rpartition(".")
    return getattr(importlib.import_module(module), own)


def section_of(name):
    file = thing_of(name).__module__.rpartition(".")[2]
    found = [title for title, files in SECTIONS.items() if file in files.split()]
    return found[0] if found else "Parts of networks"


def api_page(title, module_name, names):
    """The docstring of a module, and its names with their first lines."""
    text = headed(title) + f".. automodule:: {module_name}\n\n"
    names = sorted(names, key=lambda name: name.rpartition(".")[2].lower())
    if module_name in LONG:
        for section in SECTIONS:
            own = [name for name in names if section_of(name) == section]
            text += headed(section, "-") + "".join(map(entry, own)) if own else ""
    else:
        text += "".join(map(entry, names))
    if names:
        text += ".. toctree::\n   :hidden:\n\n" + "".join(
            f"   {name.rpartition('.')[2]} <names/{name}>\n" for name in names
        )
    return text


def entry(name):
    """A link and the first line of the docstring."""
    summary = inspect.getdoc(thing_of(name)).partition("\n")[0].rstrip(":")
    return f":py:obj:`{name.rpartition('.')[2]} <{name}>`\n   {summary}\n\n"


def name_page(name):
    """The page of one function or class, or of a module within a module."""
    module, _, own = name.rpartition(".")
    text = headed(name) + f".. currentmodule:: {module}\n\n"
    if inspect.ismodule(thing_of(name)):
        return f"{headed(name)}.. automodule:: {name}\n   :members:\n"
    if inspect.isclass(thing_of(name)):
        return f"{text}.. autoclass:: {own}\n   :members:\n   :special-members: __call__\n"
    return f"{text}.. autofunction:: {own}\n"


def main(target):
    target = pathlib.Path(target)
    made = [
        *copied(ROOT / "examples" / "course", target / "course"),
        *copied(ROOT / "docs", target),
    ]
    made += [write(target / "_top" / name, included(ROOT / name)) for name in TEXTS]
    made += [write(target / "_static" / "mathjax.js", mathjax())]
    for page, (title, module, names) in listed().items():
        made.append(write(target / "api" / f"{page}.rst", api_page(title, module, names)))
        made += [write(target / "api" / "names" / f"{name}.rst", name_page(name)) for name in names]
    for page, text in bridges.pages(ROOT / "attnc"):
        made.append(write(target / "api" / f"{page}.rst", text))
    for path in {path for path in target.rglob("*") if path.is_file()} - set(made):
        path.unlink()  # an earlier run left it


if __name__ == "__main__":
    main(*sys.argv[1:])
