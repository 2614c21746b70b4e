"""The site as Sphinx builds it: `make docs`. CONTRIBUTING.md says how a page is added."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import attnc  # noqa: E402

# ---- what is built -------------------------------------------------------------------------------

project = "attnc"
author = "attnc developers"
copyright = "attnc developers"
version = release = attnc.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "references",
    "words",
]
exclude_patterns = ["_ipython", "_top", "course/README*"]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb", ".ipynb": "myst-nb"}
nitpicky = True
add_function_parentheses = False
default_role = "py:obj"  # `references` says what becomes of names that are no links
suppress_warnings = ["toc.empty_glob"]  # of pages that are named before they are written

# ---- the API, from docstrings --------------------------------------------------------------------

autodoc_typehints = "none"  # types and shapes are in the docstrings
autodoc_member_order = "bysource"
autodoc_default_options = {"show-inheritance": True}
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# ---- notebooks, and pages with code, are run -----------------------------------------------------

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two of them are run at a time
os.environ["IPYTHONDIR"] = str(HERE / "_ipython")
nb_execution_mode = "force"
nb_execution_timeout = 300  # seconds a cell; a notebook takes less than 60 on a machine of its own
nb_execution_raise_on_error = False  # a warning, so that all of them are reported
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "show"
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# ---- how it looks; nothing comes from another host -----------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = "attnc"
html_static_path = ["_static"]
html_css_files = ["attnc.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which browsers refuse from a folder
html_context = {"default_mode": "auto"}  # light or dark as the system is
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "navigation_depth": 2,
    "show_nav_level": 1,
    "header_links_before_dropdown": 8,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "article_footer_items": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {name: [] for name in ("index", "kernel", "start")}  # pages without a section
mathjax_path = "mathjax.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}


def spread(app, env, docnames):
    """Deal pages to the processes that read them so that each gets as many that are run."""
    docnames.sort(key=lambda name: name.startswith("api/"))
    docnames[:] = [name for first in range(16) for name in docnames[first::16]]


def setup(app):
    app.connect("env-before-read-docs", spread)
