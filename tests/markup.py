"""What pictures of attnc.show are read with: parsers that refuse, and where their words stand."""

import html.parser
import xml.etree.ElementTree

from attnc.show import _drawing, _words

# Words that break what is written around them, or columns.
AWKWARD = [
    "<script>alert(1)</script>",
    "&amp;",
    "\"quoted\" 'twice'",
    "</td></table>",
    "]]><!--",
    "two\nlines\ttab",
    "\x00\x1b[31m\x7f\x85\ufffe",
    "\ud800",
    "\u202eabc\u2066",
    "👨‍👩‍👧 ❤️ 🇩🇪 👍🏽",
    "مرحبا بالعالم",
    "שלום",
    "注意力机制",
    "e\u0301\u0323 नमस्ते",
    "x" * 10_000,
    "",
    "  spaces  ",
    r"\input{x} $ % # _ ^ ~ { } | `--'",
]


class Page(html.parser.HTMLParser):
    """Refuses what is not balanced, scripts and links; keeps texts, titles and styles."""

    VOID = {"col", "meta", "br"}
    ATTRIBUTES = set("title style dir scope span role aria-label tabindex class".split())
    ATTRIBUTES |= set("charset name content".split())  # of whole pages
    ATTRIBUTES |= set("xmlns width height viewbox font-family font-size font-weight".split())
    ATTRIBUTES |= set("x y points fill fill-opacity stroke stroke-width stroke-opacity".split())
    ATTRIBUTES |= {"text-anchor", "transform"}

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.titles, self.tags, self.styles = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "link", "iframe", "object", "img"}
        assert all(name[:2] != "on" and name not in {"href", "src"} for name, _ in attributes)
        names = [name for name, _ in attributes]
        assert len(set(names)) == len(names) and set(names) <= self.ATTRIBUTES, names
        self.tags.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]
        self.styles += [value for name, value in attributes if name == "style"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def svg(text):
    root = xml.etree.ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<script" not in text and "href" not in text and "<style" not in text
    return root


def elements(root, name):
    return root.iter(f"{{http://www.w3.org/2000/svg}}{name}")


def columns_of(text):
    return [_words.width(line) for line in text.split("\n")]


def boxes(root):
    """(text, left, top, right, bottom) of the level words of a drawing."""
    for each in elements(root, "text"):
        if each.get("transform") or not (each.text or "").strip():
            continue
        x, y, size = (float(each.get(name)) for name in ("x", "y", "font-size"))
        wide = _drawing.measure(each.text, size)
        left = x - {"start": 0, "middle": wide / 2, "end": wide}[each.get("text-anchor", "start")]
        yield each.text, left, y - 0.75 * size, left + wide, y + 0.2 * size


def assert_laid_out(text):
    """No word is in the way of another, and none is cut off."""
    root = svg(text)
    _, _, width, height = map(float, root.get("viewBox").split())
    found = list(boxes(root))
    for k, (word, left, top, right, bottom) in enumerate(found):
        assert left > -1 and top > -1 and right < width + 1 and bottom < height + 1, word
        for other, x, y, end, low in found[:k]:
            apart = left >= end - 1 or x >= right - 1 or top >= low - 1 or y >= bottom - 1
            assert apart, (word, other)
    for each in elements(root, "rect"):
        x, y, w, h = (float(each.get(name)) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    return root
