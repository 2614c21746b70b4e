"""Pages of the bridges, from their sources, whether PyTorch, JAX and autograd are there or not.

Nothing of a bridge is imported. Its module docstring and the docstrings and signatures of what it
defines itself are read by `ast`; numpydoc makes their sections.
"""

import ast

# Page, title, module, and what is shown of which file: {file: names}.
BRIDGES = [
    (
        "torch",
        "PyTorch",
        "attnc.torch",
        "torch/__init__.py",
        {
            "torch/bridge.py": ["wrap"],
            "torch/sdpa.py": ["scaled_dot_product_attention"],
            "torch/replacing.py": ["replace"],
            "torch/nn.py": ["LayerModule"],
        },
    ),
    ("jax", "JAX", "attnc.jax", "jax/__init__.py", {"jax/__init__.py": ["of"]}),
    ("autograd", "HIPS autograd", "attnc.autograd", "autograd.py", {"autograd.py": ["wrap"]}),
]
WHERE = {"LayerModule": "attnc.torch.nn"}  # what is not in the module itself


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def indented(text, by=3):
    return "\n".join(" " * by + line if line else "" for line in text.split("\n"))


def signature(node):
    """The arguments as they are called: without annotations, and without self."""
    arguments = node.args
    for each in ast.walk(arguments):
        if isinstance(each, ast.arg):
            each.annotation = None
    text = ast.unparse(arguments)
    return text.removeprefix("self").removeprefix(", ")


def described(node, module):
    """The directive of a function or a class, with its docstring as numpydoc writes it."""
    from numpydoc.docscrape import FunctionDoc
    from numpydoc.docscrape_sphinx import SphinxFunctionDoc

    is_class = isinstance(node, ast.ClassDef)
    call = node
    if is_class:
        call = next(each for each in node.body if getattr(each, "name", "") == "__init__")
    doc = SphinxFunctionDoc(None, doc=ast.get_docstring(node), config={})
    assert isinstance(doc, FunctionDoc)
    doc["Signature"] = ""
    kind = "class" if is_class else "function"
    head = f".. py:{kind}:: {module}.{node.name}({signature(call)})\n\n"
    return head + indented(str(doc)) + "\n\n"


def pages(package):
    """(name, text) of each page."""
    for page, title, module, source, shown in BRIDGES:
        text = f"{title}\n{'=' * len(title)}\n\n.. py:module:: {module}\n\n"
        text += ast.get_docstring(parsed(package / source)) + "\n\n"
        for file, names in shown.items():
            for node in parsed(package / file).body:
                if getattr(node, "name", None) in names:
                    text += described(node, WHERE.get(node.name, module))
        yield page, text
