"""A Sphinx extension: what single backticks in docstrings and pages become.

A name of this package is a link to its page, by whichever path it is written: `attnc.Linear` and
`attnc.layers.Linear` are one thing. A name that begins with ``attnc.`` and is not there is a
warning, as is a role such as ``{py:func}`` to what is not there. Other names, of arguments or of
other libraries, are shown as code.
"""

import importlib
import re

from docutils import nodes
from sphinx.util.nodes import make_refnode

import attnc

# Their functions are those of `attnc.functional`, under the same names.
BRIDGES = re.compile(r"attnc\.(torch|jax|autograd)(\.|$)")


def found(path):
    """The object at a dotted path, or None."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        try:
            for name in parts[count:]:
                thing = getattr(thing, name)
        except AttributeError:
            return None
        return thing
    return None


def documented(env):
    """{id of an object: its name on the site}, made once a build."""
    if not hasattr(env, "attnc_documented"):
        domain = env.get_domain("py")
        things = {name: found(name) for name in domain.objects}
        env.attnc_documented = {
            id(thing): (name, thing) for name, thing in things.items() if thing is not None
        }
    return env.attnc_documented


def resolve(app, env, node, contnode):
    """A link for a name that Sphinx does not find as it is written, or the name as code."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].removesuffix("()")
    module, owner = node.get("py:module"), node.get("py:class")
    paths = [target, f"attnc.{target}"]
    paths += [f"{where}.{target}" for where in (owner, module, f"{module}.{owner}") if where]
    domain = env.get_domain("py")
    for path in paths:
        if not path.startswith("attnc") or BRIDGES.match(path):
            continue
        thing = found(path)
        name, _ = (
            documented(env).get(id(thing), (None, None)) if thing is not None else (None, None)
        )
        if name and callable(thing) or name == path:
            there = domain.objects[name]
            return make_refnode(
                app.builder, node["refdoc"], there.docname, there.node_id, contnode, name
            )
    strict = node["reftype"] != "obj" or target.startswith("attnc.") and not BRIDGES.match(target)
    if strict and found(target) is None:
        return None  # Sphinx warns
    if isinstance(contnode, nodes.literal):
        return contnode
    return nodes.literal("", contnode.astext())


def chinese(app, pagename, templatename, context, doctree):
    """Browsers choose the shapes of characters by the language of the page."""
    if pagename.startswith("course/zh"):
        context["html_lang_attr"] = context["language"] = "zh-CN"


def public_bases(app, name, thing, options, bases):
    """Show the first base that is public in the place of one that is not."""
    shown = {each for each in vars(attnc.layers).values() if isinstance(each, type)}
    for k, base in enumerate(bases):
        if getattr(base, "__module__", "").partition(".")[0] == "attnc" and base not in shown:
            bases[k] = next((each for each in base.__mro__ if each in shown), object)


def back_links(app, pagename, templatename, context, doctree):
    """Links from sources to the pages of names, where Sphinx takes the module for another.

    It believes that all names of a file are documented under one module, but ``vjp`` is
    `attnc.vjp`, and ``Pullback``, from the same file, `attnc.gradients.Pullback`.
    """

    def right(found):
        page, anchor = found[1], found[2]
        own = page.rpartition(".")[2]
        return f"names/{page}.html#{page}{anchor.partition('.' + own)[2]}"

    if pagename.startswith("_modules/attnc/"):
        context["body"] = re.sub(r"names/([\w.]+)\.html#([\w.]+)", right, context["body"])


def setup(app):
    app.connect("autodoc-process-bases", public_bases)
    app.connect("html-page-context", back_links)
    app.connect("missing-reference", resolve, priority=600)
    app.connect("html-page-context", chinese)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
