"""Checks the site as it was built: every link leads somewhere, and nothing is loaded from afar.

``python docs/check.py build/docs`` reads every page and style sheet. A link within the site must
lead to a file, and to an anchor where it names one. What a browser loads by itself (scripts, style
sheets, pictures, frames, fonts) must be a file of the site; what scripts load, `browse.py` sees.
Links to other sites are listed, not opened: that needs a network.
"""

import html.parser
import pathlib
import re
import sys
import urllib.parse

# What a browser loads without being asked, by element: an <a> is followed by readers alone.
LOADED = {
    ("audio", "src"),
    ("embed", "src"),
    ("iframe", "src"),
    ("image", "href"),
    ("img", "src"),
    ("img", "srcset"),
    ("input", "src"),
    ("link", "href"),
    ("object", "data"),
    ("script", "src"),
    ("source", "src"),
    ("source", "srcset"),
    ("track", "src"),
    ("use", "href"),
    ("use", "xlink:href"),
    ("image", "xlink:href"),
    ("video", "poster"),
    ("video", "src"),
}
IN_STYLES = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(html.parser.HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads = set(), [], []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._inside = tag
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        for name, value in given.items():
            if (tag, name) in LOADED:
                parts = value.split(",") if name == "srcset" else [value]
                self.loads += [part.split()[0] for part in parts if part.strip()]
        self.loads += addresses(given.get("style", ""))
        if tag in {"a", "area"} and "href" in given:
            self.links.append(given["href"])

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "style":
            self.loads += addresses(data)


def addresses(style):
    """What a style sheet loads."""
    return [first or second for first, second in IN_STYLES.findall(style)]


def afar(address):
    """Whether an address is of another host."""
    split = urllib.parse.urlsplit(address)
    return bool(split.netloc) or split.scheme not in {"", "data", "file"}


def check(folder):
    """(pages, links within, links elsewhere, things loaded, faults) of a site."""
    folder = pathlib.Path(folder).resolve()
    paths = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    faults, within, elsewhere, loaded = [], 0, set(), 0

    def at(path, address):
        """The file of the site that an address on a page leads to, and its anchor."""
        split = urllib.parse.urlsplit(address)
        target = path.parent / urllib.parse.unquote(split.path) if split.path else path
        return target.resolve(), urllib.parse.unquote(split.fragment)

    def load(path, address):
        if afar(address):
            faults.append(f"{path.relative_to(folder)}: loads {address}")
        elif not address.startswith(("data:", "#")):
            target, _ = at(path, address)
            if not target.is_file():
                faults.append(f"{path.relative_to(folder)}: loads {address}, which is not there")

    for path, page in pages.items():
        for address in page.loads:
            loaded += 1
            load(path, address)
        for address in page.links:
            if afar(address):
                elsewhere.add(address)
                continue
            within += 1
            target, anchor = at(path, address)
            if not target.is_file() or folder not in target.parents:
                faults.append(f"{path.relative_to(folder)}: {address} is not there")
            elif anchor and target in pages and anchor not in pages[target].anchors:
                faults.append(f"{path.relative_to(folder)}: {address}: no such anchor")
    for path in folder.rglob("*.css"):
        for address in addresses(path.read_text(encoding="utf-8")):
            loaded += 1
            load(path, address)
    return len(pages), within, elsewhere, loaded, faults


def main(folder):
    pages, within, elsewhere, loaded, faults = check(folder)
    print(f"{pages} pages: {within} links within the site, {loaded} things loaded, all from it")
    print(f"{len(elsewhere)} links to other sites, not opened:", *sorted(elsewhere), sep="\n  ")
    if not pages:
        faults.append(f"{folder}: no pages; make docs builds them")
    if faults:
        sys.exit("\n".join(sorted(faults)))


if __name__ == "__main__":
    main(*sys.argv[1:])
