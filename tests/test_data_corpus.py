"""The real sentences that the examples find on a system: messages and documentation."""

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))
from corpus import documentation_pairs, message_pairs  # noqa: E402

from attnc.data import read_pairs  # noqa: E402


def page(*blocks):
    return f"<html><head><title>1. T</title></head><body>{''.join(blocks)}</body></html>"


ENGLISH = page(
    "<h2>Chapter 5. Network setup</h2><h3>5.1. The <em>basics</em></h3>",
    "<p>One.\n  Two two! Three?</p><pre>$ ls\nnot this</pre>",
    "<table><tr><td>size</td><td>same</td></tr></table><ul><li><p>An item</p></li></ul>",
    "<p>Some. Others.</p>",
)
FRENCH = page(
    "<h2>Chapitre 5. Configuration du réseau</h2><h3>5.1. Les <em>bases</em></h3>",
    "<p>Un. Deux deux ! Trois ?</p><pre>$ ls\nni ceci</pre>",
    "<table><tr><td>taille</td><td>same</td></tr></table><ul><li><p>Un élément</p></li></ul>",
    "<p>Quelques-uns, et d'autres.</p>",
)


def test_documentation(tmp_path, capsys):
    files = {
        "ch05.en": ENGLISH,
        "ch05.fr": FRENCH,
        "ch06.en": page("<p>a</p><p>b</p>"),
        "ch06.fr": page("<p>c</p>"),
        "ch07.en": page("<p>alone</p>"),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
    assert documentation_pairs("fr", tmp_path) == [
        ("Network setup", "Configuration du réseau"),
        ("The basics", "Les bases"),
        ("One.", "Un."),
        ("Two two!", "Deux deux !"),
        ("Three?", "Trois ?"),
        ("size", "taille"),
        ("An item", "Un élément"),
        ("Some. Others.", "Quelques-uns, et d'autres."),  # not as many sentences
    ]
    assert "ch06.fr.html has other elements than the original" in capsys.readouterr().err


def test_messages(tmp_path, capsys):
    polib = pytest.importorskip("polib", reason="comes with attnc[data]")
    folder = tmp_path / "fr" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    for name, pairs in {"a": [("Go", "Va"), ("Hi", "Salut")], "b": [("Go", "Va")], "c": []}.items():
        catalogue = polib.POFile()
        catalogue.extend(polib.POEntry(msgid=source, msgstr=target) for source, target in pairs)
        catalogue.save_as_mofile(str(folder / f"{name}.mo"))
    assert message_pairs("fr", tmp_path) == [("Go", "Va"), ("Hi", "Salut")]
    assert "c.mo: the catalogue has no translated entry" in capsys.readouterr().err
    assert message_pairs("de", tmp_path) == []


def test_the_command(tmp_path):
    command = [sys.executable, str(EXAMPLES / "corpus.py"), "documentation", "xx"]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "corpus.py: found no documentation in xx on this machine\n"


@pytest.mark.parametrize("language", ["fr", "de"])
def test_what_is_installed(tmp_path, language):
    """The whole way, on a system that has the packages: thousands of pairs, read back from TSV."""
    pairs = documentation_pairs(language)
    if not pairs:
        pytest.skip(f"needs the package debian-reference-{language}")
    assert len(pairs) > 4000 and len(set(pairs)) == len(pairs)
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{s}\t{t}\n" for s, t in pairs), encoding="utf-8")
    assert read_pairs(path) == pairs
