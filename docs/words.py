"""A Sphinx extension: the words of the search, in English and in Chinese on the same site.

Chinese is written without spaces. Each pair of neighbouring characters is a word of the index, and
what is looked for is taken apart in the same way, here and in the browser: 注意力 is 注意 and 意力.
"""

import re

from sphinx.search.en import SearchEnglish

HAN = "\u3400-\u4dbf\u4e00-\u9fff"
PARTS = re.compile(rf"[{HAN}]+|[^\W{HAN}]+")


def words(text):
    """The words of a text, in order."""
    for part in PARTS.findall(text):
        if re.match(f"[{HAN}]", part):
            yield from (part[k : k + 2] for k in range(max(1, len(part) - 1)))
        else:
            yield part


# The same in the browser; Sphinx's own function is used where this one is not defined.
SPLITTER = rf"""
function splitQuery(query) {{
  const parts = query.match(/[{HAN}]+|(?:(?![{HAN}])[\p{{L}}\p{{N}}\p{{M}}_])+/gu);
  return (parts || []).flatMap(function (part) {{
    if (!/^[{HAN}]/.test(part)) return [part];
    const pairs = [];
    for (let k = 0; k < Math.max(1, part.length - 1); k++) pairs.push(part.slice(k, k + 2));
    return pairs;
  }});
}}
"""


class Words(SearchEnglish):
    """English with its stems and stop words, and pairs of Chinese characters."""

    js_splitter_code = SPLITTER

    def split(self, text):
        return list(words(text))


def setup(app):
    app.add_search_language(Words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
