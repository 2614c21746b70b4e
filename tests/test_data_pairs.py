"""Sentence pairs from catalogues of gettext, TMX and Moses' two files."""

import struct
import sys
import time

import pytest

from attnc.data import read_pairs

# ---- which format --------------------------------------------------------------------------------


def test_the_format_is_chosen_by_the_name(tmp_path):
    tmx = tmx_file(("en", "a"), ("fr", "b"))
    for name, content in {
        "x.tsv": "a\tb\n",
        "x.txt": "a\tb\n",
        "x": "a\tb\n",
        "x.TMX": tmx,
    }.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert read_pairs(tmp_path / name) == [("a", "b")]
    (tmp_path / "y").write_text(tmx, encoding="utf-8")
    assert read_pairs(tmp_path / "y", format="tmx") == [("a", "b")]
    with pytest.raises(ValueError, match="y, line 1: found no tab"):
        read_pairs(tmp_path / "y")


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"format": "csv"}, ValueError, "format must be one of .*'tmx'.*, got 'csv'"),
        ({"format": 3}, ValueError, "format must be one of "),
        ({"format": ["tsv"]}, ValueError, "format must be one of "),
        ({"source": 3, "target": "fr"}, TypeError, "source must be a language code, got 3"),
        ({"target": b"fr"}, TypeError, "target must be a language code, got b'fr'"),
        ({"format": "moses", "source": "en"}, ValueError, "source and target must name the two"),
        ({"source": "en"}, ValueError, "source and target must be left out for format='tsv'"),
        (
            {"format": "po", "source": "en", "target": "fr"},
            ValueError,
            "source and target must be left out for format='po'",
        ),
    ],
)
def test_wrong_options(tmp_path, options, error, message):
    (tmp_path / "x").write_text("a\tb\n", encoding="utf-8")
    with pytest.raises(error, match=f"^read_pairs: {message}"):
        read_pairs(tmp_path / "x", **options)


# ---- Moses ---------------------------------------------------------------------------------------


def moses(tmp_path, source, target):
    (tmp_path / "c.en").write_bytes(source)
    (tmp_path / "c.fr").write_bytes(target)
    return read_pairs(tmp_path / "c", source="en", target="fr")


def test_moses(tmp_path):
    expected = [("Go.", "Va !"), ("Hi.", "Salut\u2028!")]
    target = "Va !\nSalut\u2028!".encode()  # one line to Moses
    assert moses(tmp_path, b"Go.\nHi.\n", target + b"\n") == expected
    assert moses(tmp_path, b"\xef\xbb\xbfGo.\r\n Hi. \r\n", target) == expected
    assert read_pairs(tmp_path / "c", format="moses", source="fr", target="en") == [
        (target, source) for source, target in expected
    ]


def test_moses_skips_what_is_blank_on_a_side(tmp_path):
    assert moses(tmp_path, b"a\n\nb\n \nc\n\n", b"A\nB\n\t\n\nC\n\n") == [("a", "A"), ("c", "C")]


@pytest.mark.parametrize(
    "source, target, message",
    [
        (b"a\nb\n", b"A\n", r"c.fr, line 1: the file ends here, but .*c.en has 2 lines; line n"),
        (b"a\n", b"A\nB\nC", r"c.en, line 1: the file ends here, but .*c.fr has 3 lines; line n"),
        (b"a\n\n", b"\nB\n", r"c.en, line 2: the file ends without a single sentence"),
        (b"", b"", r"c.en, line 0: the file ends without a single sentence"),
        (b"a\nb\n", b"A\n\xe9\n", r"c.fr, line 2: not UTF-8 text \(byte 0xe9"),
    ],
)
def test_wrong_moses(tmp_path, source, target, message):
    with pytest.raises(ValueError, match=message):
        moses(tmp_path, source, target)


def test_moses_without_a_file(tmp_path):
    (tmp_path / "c.en").write_text("a\n", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="c.fr"):
        read_pairs(tmp_path / "c", source="en", target="fr")


# ---- catalogues ----------------------------------------------------------------------------------

HEADER = r"""# A translation
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n > 1);\n"

"""

CATALOGUE = (
    HEADER
    + r"""
#: main.c:12
msgid "File not found"
msgstr "Fichier introuvable"

#, fuzzy
msgid "File"
msgstr "Filet"

msgid "Not translated"
msgstr ""

msgctxt "verb"
msgid "Open"
msgstr "Ouvrir"

msgctxt "state"
msgid "Open"
msgstr "Ouvert"

#, c-format
msgid "%d file in \"%s\"\n"
msgid_plural ""
"%d files "
"in \"%s\"\n"
msgstr[0] "%d fichier dans « %s »\n"
msgstr[1] "%d fichiers dans « %s »\n"

msgid ""
"two\n"
"\tlines"
msgstr "deux lignes"

msgid "_Save as"
msgstr "Enregistrer _sous"

#~ msgid "Old"
#~ msgstr "Vieux"
"""
)

PAIRS = [
    ("File not found", "Fichier introuvable"),
    ("Open", "Ouvrir"),
    ("Open", "Ouvert"),
    ('%d file in "%s"', "%d fichier dans « %s »"),
    ('%d files in "%s"', "%d fichiers dans « %s »"),
    ("two lines", "deux lignes"),
    ("Save as", "Enregistrer sous"),
]


@pytest.fixture
def polib():
    return pytest.importorskip("polib", reason="comes with attnc[data]")


def write_po(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "fr.po"
    path.write_bytes(text.encode(encoding))
    return path


def write_mo(polib, tmp_path, text, encoding="utf-8"):
    path = tmp_path / "fr.mo"
    polib.pofile(str(write_po(tmp_path, text, encoding)), encoding=encoding).save_as_mofile(path)
    return path


def test_po(polib, tmp_path):
    assert read_pairs(write_po(tmp_path, CATALOGUE)) == PAIRS


def test_mo(polib, tmp_path):
    path = write_mo(polib, tmp_path, CATALOGUE)
    assert sorted(read_pairs(path)) == sorted(PAIRS)
    assert read_pairs(path.rename(tmp_path / "fr.gmo"))[0] in PAIRS


@pytest.mark.parametrize("kind", ["po", "mo"])
def test_a_catalogue_in_another_encoding(polib, tmp_path, kind):
    text = HEADER.replace("UTF-8", "ISO-8859-1") + 'msgid "summer"\nmsgstr "été"\n'
    path = write_po(tmp_path, text, "latin-1")
    if kind == "mo":
        path = write_mo(polib, tmp_path, text, "latin-1")
    assert read_pairs(path) == [("summer", "été")]


@pytest.mark.parametrize(
    "plural, forms, expected",
    [
        # Russian: 1; 2 to 4; 5 and more.
        (
            "nplurals=3; plural=(n%10==1 && n%100!=11 ? 0 : n%10>=2 && n%10<=4 && (n%100<10 || "
            "n%100>=20) ? 1 : 2);",
            ["%d файл", "%d файла", "%d файлов"],
            ["%d файл", "%d файлов"],
        ),
        ("nplurals=1; plural=0;", ["%d ファイル"], ["%d ファイル"] * 2),  # Japanese
        # Arabic's first form is for none, its second for one.
        (
            "nplurals=6; plural=n==0 ? 0 : n==1 ? 1 : n==2 ? 2 : n%100>=3 && n%100<=10 ? 3 : 4;",
            ["0", "1", "2", "3-10", "11-"],
            ["1", "3-10"],
        ),
        ("", ["one", "many"], ["one", "many"]),
        ("nplurals=2; plural=n / 0;", ["one", "many"], ["one", "many"]),
        ("nplurals=2; plural=__import__('os');", ["one", "many"], ["one", "many"]),
        (f"nplurals=2; plural={'(' * 5000}n{')' * 5000};", ["one", "many"], ["one", "many"]),
    ],
)
def test_plural_forms(polib, tmp_path, plural, forms, expected):
    text = HEADER.replace("nplurals=2; plural=(n > 1);", plural)
    text += 'msgid "%d file"\nmsgid_plural "%d files"\n'
    text += "".join(f'msgstr[{k}] "{form}"\n' for k, form in enumerate(forms))
    sources = ["%d file", "%d files"]
    pairs = list(zip(sources, expected, strict=False))
    assert read_pairs(write_po(tmp_path, text)) == pairs
    assert read_pairs(write_mo(polib, tmp_path, text)) == pairs


def test_a_plural_form_that_is_not_translated(polib, tmp_path):
    text = HEADER + 'msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "%d fichier"\n'
    for more in ("", 'msgstr[1] ""\n'):
        assert read_pairs(write_po(tmp_path, text + more)) == [("%d file", "%d fichier")]


@pytest.mark.parametrize(
    "given, expected",
    [
        (("_Open", "_Ouvrir"), ("Open", "Ouvrir")),
        (("E_xit", "_Quitter"), ("Exit", "Quitter")),
        (("_Exit", "Q_uitter"), ("Exit", "Quitter")),
        (("&Open ...", "Ö&ffnen ..."), ("Open ...", "Öffnen ...")),
        (("_Save", "保存(_S)"), ("Save", "保存")),
        (("&Save:", "保存 (&S):"), ("Save:", "保存:")),
        (("_OK", "_OK"), ("OK", "OK")),
        # None of these is an accelerator.
        (("in file_name", "dans file_name"), ("in file_name", "dans file_name")),
        (("file_name", "nom_fichier"), ("file_name", "nom_fichier")),
        (("size of _start", "taille de _start"), ("size of _start", "taille de _start")),
        (("R&D", "R&D"), ("R&D", "R&D")),
        (("a < &lt;", "un < &lt;"), ("a < &lt;", "un < &lt;")),
        (("_a_b", "_c_d"), ("_a_b", "_c_d")),
        (("_Open", "Ouvrir"), ("_Open", "Ouvrir")),
        (("this & that", "ceci & cela"), ("this & that", "ceci & cela")),
    ],
)
def test_accelerators(polib, tmp_path, given, expected):
    text = HEADER + 'msgid "{}"\nmsgstr "{}"\n'.format(*given)
    assert read_pairs(write_po(tmp_path, text)) == [expected]


@pytest.mark.parametrize(
    "text, message",
    [
        (HEADER + 'msgid "a"\nmsgstr "b" "c"\n', r"line 8: not a .po file \(unescaped double"),
        (HEADER + 'msgid "a"\nmsgstr "b"\nnonsense\n', r"line 9: not a .po file \(syntax error\)"),
        (HEADER + 'msgstr "b"\n', r"line 7: not a .po file"),
        (HEADER + 'msgid "a"\nmsgstr[x] "b"\n', r"line 8: not a .po file"),
        ("Go.\tVa !\n", r"line 1: not a .po file"),
        (
            HEADER + 'msgid "a"\nmsgstr "\udcff"\n',
            r"line 8: not UTF-8 text \(byte 0xff\); the chars",
        ),
        (HEADER + 'msgid "a"\n\0msgstr "b"\n', "line 8: found a zero byte"),
        (HEADER + 'msgid "a"\nmsgstr ""\n', "has no translated entry that is not fuzzy"),
        (HEADER, "has no translated entry"),
        ("", "has no translated entry"),
    ],
)
def test_wrong_po(polib, tmp_path, text, message):
    path = tmp_path / "fr.po"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=message) as error:
        read_pairs(path)
    assert str(error.value).startswith(str(path))


def mo(count, sources, targets, strings, magic=b"\xde\x12\x04\x95"):
    """A .mo file with these two tables of (length, start), the starts counted from `strings`."""
    start = 28 + 16 * len(sources)
    head = struct.pack("<6I", 0, count, 28, 28 + 8 * len(sources), 0, 0)
    table = [number for length, at in (*sources, *targets) for number in (length, start + at)]
    return magic + head + struct.pack(f"<{len(table)}I", *table) + strings


def test_a_mo_file_made_by_hand(polib, tmp_path):
    path = tmp_path / "x.mo"
    path.write_bytes(mo(1, [(1, 0)], [(1, 2)], b"a\0b\0"))
    assert read_pairs(path) == [("a", "b")]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not a .mo file"),
        (b"a\tb\n", "not a .mo file"),
        (mo(1, [(1, 0)], [(1, 2)], b"a\0b\0", b"\x95\x04\x12\xde"), "shorter than its table"),
        (mo(1, [(1, 0)], [(1, 2)], b"a\0b\0")[:30], "shorter than its table"),
        (mo(2**32 - 1, [(1, 0)], [(1, 2)], b"a\0b\0"), "shorter than its table"),
        (mo(1, [(1, 0)], [(2**32 - 1, 2)], b"a\0b\0"), "shorter than its table"),
        (mo(1, [(1, 0)], [(1, 1000)], b"a\0b\0"), "shorter than its table"),
        (mo(1, [(1, 0)], [(1, 2)], b"a\0\xff\0"), r"entry b'\\xff': not utf-8 text"),
        (mo(1, [(0, 0)], [(0, 0)], b"\0"), "has no translated entry"),
    ],
)
def test_wrong_mo(polib, tmp_path, content, message):
    path = tmp_path / "x.mo"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_pairs(path)
    assert str(error.value).startswith(str(path))


def test_a_small_catalogue_that_stands_for_much_text(polib, tmp_path):
    """Forty thousand entries, each of half a million characters: twenty gigabytes."""
    text = b"x" * 500_000
    entries = [(len(text) - k, k) for k in range(40_000)]
    path = tmp_path / "bomb.mo"
    path.write_bytes(mo(len(entries), entries, entries, text))
    start = time.process_time()
    with pytest.raises(ValueError, match="has a text twice"):
        read_pairs(path)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", ["mo", "po", "tmx"])
def test_every_byte_of_a_file_may_be_wrong(polib, tmp_path, kind, rng):
    """Whatever the damage: pairs of strings, or an error that names the file."""
    content = {
        "mo": write_mo(polib, tmp_path, CATALOGUE).read_bytes(),
        "po": CATALOGUE.encode(),
        "tmx": tmx_file(("en", "a <hi>b</hi>"), ("fr", "c")).encode(),
    }[kind]
    path = tmp_path / f"damaged.{kind}"
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(len(content), size=2):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            pairs = read_pairs(path)
        except ValueError as error:
            assert str(error).startswith(str(path))
        else:
            assert all(isinstance(text, str) and text for pair in pairs for text in pair)


@pytest.mark.parametrize("name", ["x.po", "x.mo"])
def test_polib_is_asked_for_by_name(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "polib", None)
    message = r'^read_pairs: reading catalogues needs polib; install it with: pip install "attnc'
    with pytest.raises(ImportError, match=message):
        read_pairs(tmp_path / name)


# ---- TMX -----------------------------------------------------------------------------------------


def tmx_file(*segments, header='srclang="en"', declarations=""):
    units = "".join(
        f'<tuv xml:lang="{language}"><seg>{text}</seg></tuv>' for language, text in segments
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{declarations}<tmx version="1.4">'
        f"<header {header}/>\n<body>\n<tu>{units}</tu>\n</body></tmx>\n"
    )


def read_tmx(tmp_path, text, encoding="utf-8", **languages):
    path = tmp_path / "x.tmx"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return read_pairs(path, **languages)


def test_tmx(tmp_path):
    text = """<?xml version="1.0"?>
        <!DOCTYPE tmx SYSTEM "tmx14.dtd">
        <tmx version="1.4"><header srclang="en-US"><note>not text</note></header><body>
        <tu tuid="1"><note>nor this</note>
            <tuv xml:lang="EN_us"><prop type="x">nor this</prop><seg> Go\n  now. </seg></tuv>
            <tuv xml:lang="fr-FR"><seg>Va &amp; pars&#160;!</seg></tuv>
        </tu>
        <tu><tuv xml:lang="en-US"><seg>Only one</seg></tuv></tu>
        <tu><tuv xml:lang="en-US"><seg>Empty</seg></tuv><tuv xml:lang="fr-FR"><seg/></tuv></tu>
        <tu><tuv lang="en-US"><seg>A <bpt i="1">&lt;b></bpt>bold<ept i="1">&lt;/b></ept> <ph>{0}
            <sub>title</sub></ph><hi>word</hi></seg></tuv>
            <tuv lang="fr-FR"><seg>Un <it pos="begin">x</it>mot<ut>y</ut> <![CDATA[<gras>]]></seg>
        </tuv></tu></body></tmx>"""
    expected = [("Go now.", "Va & pars !"), ("A bold word", "Un mot <gras>")]
    assert read_tmx(tmp_path, text) == expected
    assert read_tmx(tmp_path, text, source="en", target="FR_fr") == expected
    assert read_tmx(tmp_path, text, source="fr", target="en") == [(t, s) for s, t in expected]


def test_languages_of_tmx(tmp_path):
    segments = ("en-GB", "colour"), ("en", "color"), ("fr", "couleur"), ("de", "Farbe")
    text = tmx_file(*segments)
    assert read_tmx(tmp_path, text, target="fr") == [("color", "couleur")]  # just "en" first
    assert read_tmx(tmp_path, text, source="en-gb", target="de") == [("colour", "Farbe")]
    with pytest.raises(ValueError, match=r"2 languages besides 'en'; pass target=, one of: de, fr"):
        read_tmx(tmp_path, text)
    with pytest.raises(
        ValueError, match=r"no unit in both 'en' and 'es'; .* are: de, en, en-gb, f"
    ):
        read_tmx(tmp_path, text, target="es")
    with pytest.raises(ValueError, match=r"no unit in both 'en' and 'e'"):  # no part of a code
        read_tmx(tmp_path, text, target="e")
    for header in ('srclang="*all*"', ""):
        with pytest.raises(ValueError, match="the header names no one source language; pass sou"):
            read_tmx(tmp_path, tmx_file(*segments, header=header), target="fr")
    with pytest.raises(ValueError, match="0 languages besides 'en'; .* one of: none"):
        read_tmx(tmp_path, tmx_file(("en", "a")))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_encodings_of_tmx(tmp_path, encoding):
    text = tmx_file(("en", "summer"), ("fr", "été")).replace("UTF-8", encoding)
    assert read_tmx(tmp_path, text, encoding) == [("summer", "été")]


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"line 1: not well-formed XML \(no element found\)"),
        ("a\tb\n", r"line 1: not well-formed XML \(syntax error\)"),
        (tmx_file(("en", "a"))[:-9], r"line 5: not well-formed XML \(unclosed token\)"),
        (tmx_file(("en", "a <b")), r"line 4: not well-formed XML"),
        (tmx_file(("en", "\udcff")), r"line 4: not well-formed XML \(not well-formed \(invalid"),
        (tmx_file(("en", "a")).replace("UTF-8", "klingon"), r"line 1: not .*XML"),
        ("<html><body/></html>", r"line 1: the root of a TMX file must be <tmx>, got <html>"),
        (tmx_file(("", "a")), r'line 4: a <tuv> must have a language, as in <tuv xml:lang="en">'),
        (tmx_file(("en", "&eacute;")), r"line 4: not well-formed XML \(undefined entity\)"),
        (
            tmx_file(("en", "&eacute;"), declarations='<!DOCTYPE tmx SYSTEM "tmx14.dtd">'),
            r"line 4: the entity &eacute; is not known; write the character itself",
        ),
    ],
)
def test_wrong_tmx(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_tmx(tmp_path, text, target="fr")
    assert str(error.value).startswith(str(tmp_path / "x.tmx"))


LAUGHS = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 30))


@pytest.mark.parametrize(
    "declarations, text",
    [
        (f'<!DOCTYPE tmx [<!ENTITY l0 "ha">{LAUGHS}]>', "&l29;"),  # a billion laughs, and more
        (f'<!DOCTYPE tmx [<!ENTITY l "{"x" * 100_000}">]>', "&l;" * 100_000),  # quadratic
        ('<!DOCTYPE tmx [<!ENTITY l SYSTEM "secret.txt">]>', "&l;"),
        ('<!DOCTYPE tmx [<!ENTITY % l SYSTEM "secret.txt"> %l;]>', "a"),
        ("<!DOCTYPE tmx [<!ENTITY % l \"<!ENTITY m 'ha'>\"> %l;]>", "&m;"),
    ],
)
def test_hostile_tmx(tmp_path, declarations, text):
    (tmp_path / "secret.txt").write_text("the secret", encoding="utf-8")
    start = time.process_time()
    with pytest.raises(ValueError, match="line 2: declares the entity 'l0?', which could expand"):
        read_tmx(tmp_path, tmx_file(("en", text), ("fr", "b"), declarations=declarations))
    assert time.process_time() - start < 5


def test_tmx_of_a_great_depth_or_length(tmp_path):
    deep = "<hi>" * 100_000 + "deep" + "</hi>" * 100_000
    long = "<!-- " + "-x" * 5_000_000 + " --> long " + "word " * 1_000_000
    start = time.process_time()
    pairs = read_tmx(tmp_path, tmx_file(("en", deep), ("fr", long)))
    assert time.process_time() - start < 20
    assert pairs == [("deep", "long " + " ".join(["word"] * 1_000_000))]
