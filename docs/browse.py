"""Opens every page of the site in headless Chromium, from its folder and without a network.

``python docs/browse.py build/docs build/docs-screenshots`` looks at each page as wide as a phone
and as a desk, light and dark, and fails where

- the console has an error, or a script raises,
- anything is asked for that is no file of the site,
- the page has no heading, or is wider than the phone,
- a formula is not typeset, or MathJax refuses it,
- a colour scheme is not the one that was asked for.

And the search must find a function, from a page as well as from its address. One page of each
kind is kept as pictures, to be looked at. Where there is no Chromium it says so and does nothing.

``--sample 6`` opens one in six of the pages that are made of docstrings and sources, and all of
the others.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import sys
import time

WIDTHS = {"phone": 390, "desk": 1280}
SCHEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# One page of each kind, as far as there are any: what its address begins with.
KINDS = ["index", "start", "kernel", "guides/index", "guides/", "mechanisms/index", "mechanisms/"]
KINDS += ["course/index", "course/en/index", "course/en/", "course/en/solutions/", "course/zh/"]
KINDS += ["course/zh/solutions/", "api/index", "api/functions", "api/names/attnc.additive_att"]
KINDS += ["api/names/attnc.Linear", "api/reference", "api/torch", "_modules/attnc/ref", "building"]
KINDS += ["changelog", "cite", "genindex"]
MADE = ("api/names/", "_modules/")  # of docstrings and sources, all alike
LOOKED_FOR = "additive_attention"
IN_CHINESE = "注意力"  # to be found if the course is there

# What is asked of a page once it is there.
STATE = """() => ({
    headings: document.querySelectorAll("h1").length,
    text: document.body.innerText.length,
    width: document.documentElement.scrollWidth,
    scheme: document.documentElement.dataset.theme,
    formulas: document.querySelectorAll("span.math, div.math").length,
    typeset: document.querySelectorAll("span.math mjx-container, div.math mjx-container").length,
    refused: document.querySelectorAll("mjx-merror, [data-mml-node=merror]").length,
    broken: [...document.images].filter(each => each.complete && !each.naturalWidth).length,
})"""
SCHEME_IS = "scheme => document.documentElement.dataset.theme === scheme"
TYPESET = "() => window.MathJax && MathJax.startup && MathJax.startup.promise.then(() => true)"


def faults_of(state, width, scheme):
    """What is wrong with a page, from its state."""
    if not state["headings"] or state["text"] < 20:
        yield "is empty"
    if state["width"] > width:
        yield f"is {state['width']} wide"
    if state["scheme"] != scheme:
        yield f"is {state['scheme']}"
    if state["typeset"] < state["formulas"]:
        yield f"{state['formulas'] - state['typeset']} of {state['formulas']} formulas not typeset"
    if state["refused"]:
        yield f"{state['refused']} formulas refused"
    if state["broken"]:
        yield f"{state['broken']} pictures are broken"


class Window:
    """A window of the browser, and what its pages have done wrong."""

    def __init__(self, browser, folder):
        self.folder = folder
        self.page = browser.new_context(offline=True).new_page()
        self.said = []
        self.page.on("console", lambda each: each.type == "error" and self.said.append(each.text))
        self.page.on("pageerror", lambda each: self.said.append(str(each)))
        self.page.on("request", lambda each: self.asked(each.url))

    def asked(self, url):
        if not url.startswith((self.folder.as_uri(), "data:", "blob:", "about:")):
            self.said.append(f"asks for {url}")

    def looks(self):
        """(place, width, scheme) of every look, with the window made so."""
        for place, width in WIDTHS.items():
            self.page.set_viewport_size({"width": width, "height": 844})
            for scheme in SCHEMES:
                self.page.emulate_media(color_scheme=scheme)
                yield place, width, scheme

    def open(self, address):
        """Go to a page and wait for its formulas."""
        self.said.clear()
        self.page.goto(address)
        if self.page.evaluate("document.querySelectorAll('script[src*=mathjax]').length"):
            self.page.wait_for_function("() => window.MathJax && MathJax.startup.promise")
            self.page.evaluate(TYPESET)

    def visit(self, path, pictures=None):
        """Look at a page in all ways: the number of formulas, and the faults.

        It is loaded once and changes with the window; where pictures are kept it is loaded anew for
        each, as it is for its readers.
        """
        from playwright import sync_api

        name, faults, formulas = path.relative_to(self.folder).as_posix(), [], 0
        self.page.emulate_media(color_scheme=SCHEMES[0])
        self.page.set_viewport_size({"width": min(WIDTHS.values()), "height": 844})
        self.open(path.as_uri())
        for place, width, scheme in self.looks():
            if pictures:
                faults += [f"{name}: {each}" for each in self.said]
                self.open(path.as_uri())
            with contextlib.suppress(sync_api.TimeoutError):
                self.page.wait_for_function(SCHEME_IS, arg=scheme, timeout=2_000)
            state = self.page.evaluate(STATE)
            formulas = state["typeset"]
            wrong = faults_of(state, width, scheme)
            faults += [f"{name}, {width} px, {scheme}: {each}" for each in wrong]
            if pictures:
                self.page.screenshot(path=f"{pictures}-{place}-{scheme}.png")
        return formulas, faults + [f"{name}: {each}" for each in self.said]

    def search(self, pictures):
        """Look a function up, from the address of the search and in its field: the faults."""
        links, faults = "#search-results li a", []
        for place, _, scheme in self.looks():
            self.open((self.folder / "search.html").as_uri() + f"?q={LOOKED_FOR}")
            self.page.wait_for_selector(links, timeout=30_000)
            found = self.page.eval_on_selector_all(links, "all => all.map(each => each.href)")
            if f"names/attnc.{LOOKED_FOR}.html" not in found[0]:
                faults.append(f"search: {LOOKED_FOR} first leads to {found[0]}")
            self.page.screenshot(path=pictures / f"search-{place}-{scheme}.png")
            faults += [f"search: {each}" for each in self.said]
        if any((self.folder / "course" / "zh").glob("0*.html")):
            self.open((self.folder / "search.html").as_uri() + f"?q={IN_CHINESE}")
            self.page.wait_for_selector(f"{links}[href*='course/zh/']", timeout=30_000)
        self.open((self.folder / "index.html").as_uri())
        self.page.keyboard.press("Control+k")
        self.page.keyboard.type(LOOKED_FOR)
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector(links, timeout=30_000)
        return faults + [f"search from a page: {each}" for each in self.said]


def kept(pages, folder):
    """{page: its name as a picture}: one of each kind."""
    names = [page.relative_to(folder).as_posix() for page in pages]
    chosen = {}
    for kind in KINDS:
        of_kind = [name for name in names if name.startswith(kind) and name not in chosen]
        if not kind.endswith("index"):
            of_kind = [name for name in of_kind if not name.endswith("index.html")] or of_kind
        if of_kind:
            chosen.setdefault(of_kind[0], of_kind[0].removesuffix(".html").replace("/", "-"))
    return chosen


def chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def launched(playwright, executable):
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # whom Chromium gives no sandbox
    return playwright.chromium.launch(
        executable_path=executable, args=["--no-sandbox"] if root else []
    )


def sampled(pages, folder, sample):
    """Pages to visit: one in `sample` of those that are made, and all others."""
    names = [page.relative_to(folder).as_posix() for page in pages]
    made = [page for page, name in zip(pages, names, strict=True) if name.startswith(MADE)]
    left_out = set(made) - set(made[::sample]) - {folder / name for name in kept(pages, folder)}
    return [page for page in pages if page not in left_out]


def browse(folder, pictures, executable, sample=1):
    """Visit the pages: how many, formulas on them, and faults."""
    from playwright.sync_api import sync_playwright

    folder, pictures = pathlib.Path(folder).resolve(), pathlib.Path(pictures)
    pages = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    shown = kept(pages, folder)
    pages = sampled(pages, folder, sample)
    formulas, faults = 0, []
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = launched(playwright, executable)
        window = Window(browser, folder)
        for path in pages:
            name = shown.get(path.relative_to(folder).as_posix())
            count, wrong = window.visit(path, name and pictures / name)
            formulas, faults = formulas + count, faults + wrong
        faults += window.search(pictures)
        browser.close()
    return len(pages), formulas, faults


def main(folder, pictures, sample):
    executable = chromium()
    if executable is None:
        print("no Chromium: pages are not opened; apt install chromium")
        return
    start = time.monotonic()
    pages, formulas, faults = browse(folder, pictures, executable, sample)
    looks = len(WIDTHS) * len(SCHEMES)
    print(
        f"{pages} pages in {looks} ways each ({', '.join(WIDTHS)}; {', '.join(SCHEMES)}): "
        f"{formulas} formulas typeset, {looks + 1} searches, {len(faults)} faults, "
        f"{time.monotonic() - start:.0f} s"
    )
    print(f"pictures: {pictures}")
    if faults or not pages:
        sys.exit("\n".join(faults) or f"{folder}: no pages; make docs builds them")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Open the pages of the site in Chromium.")
    parser.add_argument("folder")
    parser.add_argument("pictures")
    parser.add_argument("--sample", type=int, default=1, metavar="N")
    main(**vars(parser.parse_args()))
