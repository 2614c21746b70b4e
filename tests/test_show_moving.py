"""Animations, decodings, the flow of gradients, and the export to BertViz."""

import re
import sys

import numpy as np
import pytest
from markup import AWKWARD, Page, assert_laid_out, columns_of, elements, svg

import attnc
from attnc import show
from attnc.show import (
    Alignment,
    Animation,
    Decoding,
    Heads,
    _words,
    bertviz,
    gradient_flow,
)


@pytest.fixture
def alignments(rng):
    return [Alignment(weights, title=f"map {n}") for n, weights in enumerate(rng.random((3, 2, 4)))]


# ---- animations ----


def parts_of(text):
    """The style sheet and the rest of a fragment."""
    styles = re.findall(r"<style>(.*?)</style>", text)
    assert len(styles) == 1
    return styles[0], text.replace(f"<style>{styles[0]}</style>", "")


def test_animation_plays_by_style_alone(alignments):
    animation = Animation(alignments, ["<a>", "b", "c"], seconds=0.5, title="a & b")
    style, rest = parts_of(animation.html())
    page = Page(rest)
    assert "a & b" in page.text and "1 of 3: <a>" in page.text and page.tags.count("svg") == 3
    name = re.search(r"@keyframes (\w+)", style)[1]
    # Every rule is for names of this animation alone; motion is for those who do not refuse it.
    assert all(rule.startswith(f".{name}") for rule in re.findall(r"[{}](\.[^{}]*)", style))
    head, _, moving = style.partition("@media screen and (prefers-reduced-motion:no-preference)")
    assert head.startswith(f"@keyframes {name}") and "animation:" not in head
    assert f"animation:{name} 1.5s step-end infinite" in moving and "paused" in moving
    assert "33.3333%{visibility:hidden}" in head
    delays = re.findall(r"animation-delay:([-.\d]+)s", rest)
    assert delays == ["-1.5", "-1", "-0.5"]  # the first is seen first, and none is late
    assert style.count("{") == style.count("}")


def test_two_animations_share_no_name(alignments):
    names = {
        re.search(r"@keyframes (\w+)", Animation(frames, seconds=seconds).html())[1]
        for frames in (alignments, alignments[:2])
        for seconds in (1, 2)
    }
    assert len(names) == 4
    assert Animation(alignments).html() == Animation(alignments).html()


def test_animation_of_one_frame_stands(alignments):
    assert "<style" not in Animation(alignments[:1]).html()
    assert repr(Animation(alignments[:1])) == "<Animation of 1 frame, 1 s>"


def test_animation_takes_what_has_an_svg(alignments):
    class Other:
        def svg(self):
            return '<svg xmlns="http://www.w3.org/2000/svg"></svg>'

    animation = Animation([Other(), alignments[0]])
    assert Page(parts_of(animation.html())[1]).tags.count("svg") == 2
    assert "(a picture)" in animation.text()


def test_animation_files(alignments, tmp_path):
    animation = Animation(alignments, seconds=2)
    animation.save(tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.count("@keyframes") == 1
    animation.save(tmp_path / "a.txt")
    assert "2 of 3" in (tmp_path / "a.txt").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"must end in \.html or \.txt or \.gif, got"):
        animation.save(tmp_path / "a.svg")
    with pytest.raises(TypeError, match=r"^Animation\.svg: .*use frames\[n\]\.svg\(\)"):
        animation.svg()


def gif(path):
    frames = []
    with pytest.importorskip("PIL.Image").open(path) as image:
        for n in range(image.n_frames):
            image.seek(n)
            frames.append((np.asarray(image.convert("RGB"), int), image.info["duration"]))
        return frames, image.info.get("loop")


@pytest.fixture
def matplotlib():
    module = pytest.importorskip("matplotlib")
    module.use("Agg")
    return module


def test_gif(tmp_path, matplotlib):
    weights = np.eye(2)
    animation = Animation([Alignment(weights), Alignment(1 - weights)], seconds=0.25)
    animation.save(tmp_path / "a.gif")
    frames, loop = gif(tmp_path / "a.gif")
    assert len(frames) == 2 and loop == 0
    assert [duration for _, duration in frames] == [250, 250]
    (first, _), (second, _) = frames
    assert first.shape == second.shape
    # Where one is blue the other is pale, in the middle of each cell.
    root = svg(animation.frames[0].svg())
    cells = [[float(cell.get(n)) for n in ("x", "y")] for cell in elements(root, "rect")]
    scale = 100 / 72
    places = [(int((y + 20 + 7) * scale), int((x + 14) * scale)) for x, y in cells]
    blue = [[bool(f[place][0] < 80) for place in places] for f in (first, second)]
    assert blue == [[True, False, False, True], [False, True, True, False]]


def test_gif_of_every_picture(tmp_path, matplotlib, rng):
    x = rng.standard_normal((3, 4))
    flow = gradient_flow(attnc.stages(attnc.dot_product_attention, x, x, x), np.ones((3, 4)))
    decoding = Decoding("ab", "xyz", rng.random((3, 2)), states=x)
    heads = Heads(rng.random((2, 2, 2)), ["שלום", "注"])
    Animation([flow, decoding.frames[0], decoding, heads]).save(tmp_path / "a.gif")
    frames, _ = gif(tmp_path / "a.gif")
    assert len(frames) == 4
    assert len({frame.shape for frame, _ in frames}) == 1
    for frame, _ in frames:
        edge = np.concatenate([frame[0], frame[-1], frame[:, -1]])
        assert frame.min() < 100 and edge.min() > 200  # there is a picture, and none of it is cut
    decoding.save(tmp_path / "b.gif")
    assert len(gif(tmp_path / "b.gif")[0]) == 3


def test_words_that_no_font_has_are_not_cut_off(matplotlib):
    words = ["a", "\U000e0101\U0005e741\U0005e742\U0005e743"]
    figure = Alignment(np.eye(2), words, words)._drawing().figure()
    figure.canvas.draw()
    assert any("U+5E741" in text.get_text() for text in figure.axes[0].texts)
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0
        assert box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


def test_a_gif_says_what_it_needs(alignments, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^Animation\.save: a GIF needs .* attnc\[plot\]$"):
        Animation(alignments).save(tmp_path / "a.gif")

    class Other:
        svg = str

    with pytest.raises(TypeError, match=r"frames of a GIF must be pictures of attnc.show, got Oth"):
        Animation([Other()]).save(tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frames, options, error, message",
    [
        ([], {}, ValueError, r"Animation: frames must be 1\.\.1000, got 0"),
        (3, {}, TypeError, "Animation: frames must be a sequence of pictures, got 3"),
        ([3], {}, TypeError, r"frames must have a method svg\(\), got int as frames\[0\]"),
        (
            [Alignment],
            {},
            TypeError,
            r"frames must have a method svg\(\), got a class as frames\[0\]",
        ),
        (
            [Animation([Alignment([[1]])])],
            {},
            TypeError,
            r"pictures that stand, got an Animation as frames\[0\] \(its frames: \*frames\[0\]\.fr",
        ),
        ([Alignment([[1]])], {"titles": {"x"}}, TypeError, "Animation: titles must be in order"),
        ([Alignment([[1]])], {"titles": []}, ValueError, "titles must be 1, one a frame, got 0"),
        ([Alignment([[1]])], {"seconds": 0}, ValueError, r"seconds must lie in 0\.05\.\.3600"),
        ([Alignment([[1]])], {"seconds": "1"}, TypeError, "seconds must lie in"),
    ],
)
def test_errors_of_animations(frames, options, error, message):
    with pytest.raises(error, match=message):
        Animation(frames, **options)


def test_a_frame_that_is_no_string():
    class Numbers:
        def svg(self):
            return 3

    with pytest.raises(TypeError, match=r"svg\(\) of frames must return a str, got int from fr"):
        Animation([Numbers()]).html()


# ---- decodings ----


@pytest.fixture
def decoding(rng):
    scores = rng.standard_normal((4, 6))
    weights = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return Decoding(
        AWKWARD[:6],
        AWKWARD[8:12],
        weights,
        scores=scores,
        states=rng.standard_normal((4, 70)),
        contexts=rng.standard_normal((4, 5)),
        probabilities=rng.random(4),
        title="<title>",
    )


def test_each_step_has_what_was_given(decoding):
    assert len(decoding.frames) == 4 and [f.word for f in decoding.frames] == AWKWARD[8:12]
    for n, frame in enumerate(decoding.frames):
        root = assert_laid_out(frame.svg())
        titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
        j = 3
        word = AWKWARD[j]
        assert f"weights of {word}: {decoding.weights[n, j]}" in titles
        assert f"scores of {word}: {decoding.scores[n, j]}" in titles
        assert f"context 4: {decoding.contexts[n, 4]}" in titles
        mean = decoding.states[n, :3].sum() / 3
        found = next(t for t in titles if t.startswith("state 0–2: mean: "))
        np.testing.assert_allclose(float(found.split()[-1]), mean, rtol=1e-14)
        texts = [each.text for each in elements(root, "text")]
        assert f"p = {decoding.probabilities[n]:.2f}" in texts
        assert "state: each cell is the mean of 3 numbers" in texts
        assert {"state s_i", "scores e_ij", "weights α_ij", "context c_i", "word y_i"} <= set(texts)
        assert titles[0].startswith(f"<title>: step {n + 1} of 4 writes ")


def test_only_what_was_given_is_shown():
    frame = Decoding("ab", "xy", np.eye(2)).frames[1]
    texts = [each.text for each in elements(assert_laid_out(frame.svg()), "text")]
    expected = ["written", "x", "y", "source", "weights α_ij", *"a0b1", "word y_i", "y"]
    assert sorted(texts) == sorted(expected)


def test_bars_are_as_high_as_the_weights():
    frame = Decoding("abc", "x", np.array([[0.0, 0.25, 1.0]])).frames[0]
    root = svg(frame.svg())
    title = "{http://www.w3.org/2000/svg}title"
    high = {
        each.find(title).text.split(":")[0]: float(each.get("height"))
        for each in elements(root, "rect")
        if each.find(title) is not None and each.find(title).text.startswith("weight of")
    }
    assert high == {"weight of a": 0, "weight of b": 15, "weight of c": 60}


def test_long_sentences_are_broken(rng):
    weights = rng.dirichlet(np.ones(60), 60)
    frame = Decoding([f"source{j}" for j in range(60)], ["target"] * 60, weights).frames[59]
    root = assert_laid_out(frame.svg())
    assert float(root.get("width")) < 900
    texts = [each.text for each in elements(root, "text")]
    assert all(f"source{j}" in texts for j in range(60)) and texts.count("target") == 61


def test_decoding_as_text(decoding):
    for width in (30, 80):
        for ascii in (False, True):
            text = decoding.text(width, ascii=ascii)
            assert max(columns_of(text)) <= width
            assert ("█" in text) != ascii
    lines = decoding.frames[1].text().split("\n")
    assert lines[0] == "written: " + _words.visible(AWKWARD[8])
    assert lines[1].startswith("state: ")
    assert lines[2].split() == ["scores", "weights"]
    row = next(line for line in lines if line.startswith("&amp;"))
    assert row.split()[1:3] == [f"{decoding.scores[1, 1]:.2f}", f"{decoding.weights[1, 1]:.2f}"]
    assert lines[-1] == f"→ {AWKWARD[9]}  p = {decoding.probabilities[1]:.2f}"


def test_decoding_plays_in_a_notebook(decoding, tmp_path):
    style, rest = parts_of(decoding._repr_html_())
    page = Page(rest)
    assert page.tags.count("svg") == 4 and f"2 of 4: {AWKWARD[9]}" in page.text
    assert decoding.animation(seconds=3).seconds == 3
    assert "6s" in style
    assert decoding.svg() == decoding.alignment.svg()
    for end in ("html", "svg", "tex", "txt"):
        decoding.save(tmp_path / f"a.{end}")
    for frame in decoding.frames:
        Page(frame._repr_html_())


def test_decodings_with_what_is_not_finite():
    bad = np.array([[np.nan, np.inf], [-np.inf, 1e308]])
    decoding = Decoding("ab", "xy", bad, scores=bad, states=bad, probabilities=bad[0])
    for frame in decoding.frames:
        svg(frame.svg())
        frame.text()
    assert "NaN" in decoding.frames[0].text() and "∞" in decoding.frames[0].svg()


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        (("ab", "x", np.ones((2, 2))), {}, ValueError, "Decoding: target must be 2 labels"),
        (("a", "xy", np.ones((2, 2))), {}, ValueError, "Decoding: source must be 2 labels"),
        ((None, "xy", np.ones((2, 2))), {}, TypeError, "source must be a sequence of words, got N"),
        (("ab", "xy", np.ones((2, 2))), {"scores": np.ones(2)}, ValueError, r"shape \(2, 2\), got"),
        (
            ("ab", "xy", np.ones((2, 2))),
            {"states": np.ones((3, 5))},
            ValueError,
            r"Decoding: states must have shape \(2, N\), got \(3, 5\)",
        ),
        (("ab", "xy", np.ones((2, 2))), {"contexts": np.ones((2, 0))}, ValueError, "contexts must"),
        (("ab", "xy", np.ones((2, 2))), {"probabilities": 0.5}, ValueError, r"shape \(2,\), got"),
        (("ab", "xy", np.ones((2, 2))), {"states": [["a"]]}, TypeError, "Decoding: states must"),
    ],
)
def test_errors_of_decodings(arguments, options, error, message):
    with pytest.raises(error, match=message):
        Decoding(*arguments, **options)


# ---- the flow of gradients ----


def rms(x):
    return np.sqrt(np.mean(np.square(x[np.isfinite(x)])))


def test_flow_has_the_sizes_of_stages_and_gradients(rng):
    arrays = rng.standard_normal((3, 4, 5))
    bias = rng.standard_normal((4, 4))
    stages = attnc.stages(attnc.dot_product_attention, *arrays, bias=bias, causal=True)
    dcontext = rng.standard_normal((4, 5))
    flow = gradient_flow(stages, dcontext)
    gradients = stages.gradients(dcontext)
    for name in ("scores", "masked", "weights", "context"):
        np.testing.assert_allclose(flow.values[name], rms(getattr(stages, name)))
    for name, array in zip(("query", "key", "value"), arrays, strict=True):
        np.testing.assert_allclose(flow.values[name], rms(array))
    for name in ("query", "key", "value", "bias", "scores", "weights", "context"):
        np.testing.assert_allclose(flow.gradients[name], rms(getattr(gradients, name)))
    assert {("value", "context"), ("weights", "context"), ("bias", "masked")} <= set(flow.edges)
    assert_laid_out(flow.svg())
    assert max(columns_of(flow.text(40))) <= 40
    Page(flow.html())


def widths_of_arrows(root, colour):
    """How wide the shaft of each arrow is, by what it says."""
    found = {}
    for each in elements(root, "polygon"):
        if each.get("fill") == "rgb({},{},{})".format(*colour):
            points = np.array([p.split(",") for p in each.get("points").split()], float)
            title = each.find("{http://www.w3.org/2000/svg}title").text.rpartition(":")[0]
            found[title] = np.hypot(*(points[0] - points[-1]))
    return found


def test_arrows_are_as_wide_as_what_flows(rng):
    x = rng.standard_normal((4, 5))
    flow = gradient_flow(attnc.stages(attnc.dot_product_attention, x, x, x), np.ones((4, 5)))
    root = svg(flow.svg())
    for colour, sizes, title in (
        (show._values.ABOVE, flow.values, "{}"),
        (show._values.BELOW, flow.gradients, "gradient of {}"),
    ):
        widths = widths_of_arrows(root, colour)
        assert len(widths) == len(flow.edges)
        for source, _ in flow.edges:
            expected = max(9 * sizes[source] / max(sizes.values()), 0.75)
            np.testing.assert_allclose(widths[title.format(source)], expected, atol=0.02)


def test_flow_of_every_mechanism_and_of_heads(rng):
    x = rng.standard_normal((4, 5))
    v = rng.standard_normal(5)
    w = rng.standard_normal((5, 5))
    for function, arrays in (
        (attnc.dot_product_attention, (x, x, x)),
        (attnc.additive_attention, (x, x, x, v)),
        (attnc.multiplicative_attention, (x, x, x, w)),
        (attnc.cosine_attention, (x, x, x)),
        (attnc.attend, (x @ x.T, x)),
    ):
        stages = attnc.stages(function, *arrays, sink=np.zeros(()), softcap=3.0)
        flow = gradient_flow(stages, np.ones((4, 5)))
        assert all(np.isfinite(list(flow.values.values())))
        assert_laid_out(flow.svg())
    layer = attnc.MultiHeadAttention(6, 2, projection_bias=True, normalize_qk=True, rng=0)
    x = rng.standard_normal((2, 4, 6)).astype(np.float32)
    flow = gradient_flow(attnc.stages(layer, x), np.ones((2, 4, 6)))
    assert_laid_out(flow.svg())
    assert all(np.isfinite(list(flow.values.values()))) and flow.edges[-1][1] == "output"
    assert len({source for source, _ in flow.edges}) == len(flow.edges)  # each goes into one


def test_flow_with_what_is_not_finite(rng):
    x = rng.standard_normal((3, 2))
    x[0, 0] = np.nan
    flow = gradient_flow(attnc.stages(attnc.dot_product_attention, x, x, x), np.ones((3, 2)))
    svg(flow.svg())
    assert "?" in flow.text()


def test_a_flow_can_be_read_on_a_narrow_page(rng):
    layer = attnc.MultiHeadAttention(8, 2, rotary=True, rng=0)
    stages = attnc.stages(layer, rng.standard_normal((1, 3, 8)))
    flow = gradient_flow(stages, np.ones((1, 3, 8)))
    least = re.search(r"overflow-x:auto.*min-width:([\d.]+)px", flow.html())[1]
    assert float(least) == pytest.approx(0.75 * flow._drawing().width, abs=0.01)
    assert "min-width" not in flow.svg()


def test_errors_of_flow(rng):
    x = rng.standard_normal((3, 2))
    stages = attnc.stages(attnc.dot_product_attention, x, x, x)
    for wrong in (x, None, "stages", stages.gradients(x)):
        with pytest.raises(TypeError, match=r"^gradient_flow: stages must be those of"):
            gradient_flow(wrong, x)
    with pytest.raises(ValueError, match="dcontext must have shape"):
        gradient_flow(stages, x[:2])


# ---- BertViz ----


def assert_export(found, expected):
    assert isinstance(found, list) and len(found) == len(expected)
    for layer, wanted in zip(found, expected, strict=True):
        assert layer.dtype == np.float32 and layer.flags.c_contiguous and layer.flags.owndata
        np.testing.assert_array_equal(layer, wanted[None].astype(np.float32))


def test_bertviz_takes_every_shape(rng):
    weights = rng.random((3, 2, 4, 5, 5))  # (B, layers, H, T, T)
    assert_export(bertviz(weights, sequence=2), weights[2])
    assert_export(bertviz(weights[1]), weights[1])
    assert_export(bertviz(weights[1, 0]), weights[1, :1])
    by_layer = list(weights.swapaxes(0, 1))
    assert_export(bertviz(by_layer, sequence=1), weights[1])
    assert_export(bertviz([layer[:1] for layer in by_layer]), weights[0])
    assert_export(bertviz(tuple(weights[1])), weights[1])
    assert_export(bertviz(weights[1].tolist()), weights[1])
    assert_export(bertviz(weights[0, :, :, ::-1, :3] > 0.5), weights[0, :, :, ::-1, :3] > 0.5)


def test_bertviz_takes_what_models_return(rng):
    encoder = attnc.TransformerEncoder(3, 8, 2, 16, rng=0)
    result = encoder(rng.standard_normal((2, 5, 8)), return_weights=True)
    assert_export(bertviz(result, sequence=1), result.weights[1])
    model = attnc.LanguageModel(20, 8, num_heads=2, layers=2, rng=0)
    result = model(rng.integers(0, 20, (1, 6)), return_weights=True)
    assert_export(bertviz(result), result.weights[0])
    model = attnc.Transformer(20, 20, 8, num_heads=2, encoder_layers=2, decoder_layers=1, rng=0)
    result = model(np.array([[5, 7, 9]]), np.array([[1, 8]]), [3], return_weights=True)
    assert_export(bertviz(result.weights), result.weights[0])
    with pytest.raises(ValueError, match=r"of one kind, got .* result\.self_weights, "):
        bertviz(result)


def test_bertviz_knows_the_batch_of_one_layer(rng):
    x = rng.standard_normal((3, 5, 8))
    result = attnc.MultiHeadAttention(8, 2, rng=0)(x, return_weights=True)
    assert_export(bertviz(result, sequence=2), result.weights[2:])
    result = attnc.AttentionDecoder(8, 4, 8, rng=0)(x, x)
    assert_export(bertviz(result, sequence=1), result.weights[1, None, None])
    chosen = attnc.hard_attention(np.ones((5, 5)), x[0], rng=0)
    with pytest.raises(ValueError, match="weights must be there, got a result without"):
        bertviz(chosen)


def test_bertviz_gives_tensors(rng):
    torch = pytest.importorskip("torch")
    weights = rng.random((2, 3, 4, 4))
    for layer, wanted in zip(bertviz(weights, torch=True), weights, strict=True):
        assert layer.dtype == torch.float32 and layer.shape == (1, 3, 4, 4)
        np.testing.assert_array_equal(layer.numpy()[0], wanted.astype(np.float32))


def test_bertviz_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"^bertviz: torch=True needs PyTorch: pip install attnc"):
        bertviz(np.ones((1, 1, 2, 2)), torch=True)


@pytest.mark.parametrize(
    "weights, options, error, message",
    [
        (np.ones((2, 2)), {}, ValueError, r"bertviz: weights must have shape \(B, layers, H, Tq"),
        ([], {}, ValueError, "bertviz: weights must have at least one layer, got none"),
        ([np.ones((1, 2, 2)), np.ones((1, 2, 3))], {}, ValueError, "one shape in all layers, got"),
        ([np.ones((2,) * 5)], {}, ValueError, r"weights\[0\] must have shape \(B, H, Tq, Tk\) or"),
        (np.ones((1, 1, 1, 2, 2)), {"sequence": 1}, ValueError, r"sequence must lie in 0\.\.0 for"),
        (
            np.ones((1, 1, 2, 2)),
            {"sequence": 1},
            ValueError,
            "sequence must be 0 for weights",
        ),
        (np.ones((1, 1, 2, 2)), {"torch": 1}, TypeError, "bertviz: torch must be True or False"),
        (np.ones((1, 1, 2, 2)) * 1j, {}, TypeError, "bertviz: weights must be real"),
        (None, {}, TypeError, "bertviz: weights must be real"),
        (attnc.stages, {}, TypeError, "bertviz: weights must be real"),
    ],
)
def test_errors_of_bertviz(weights, options, error, message):
    with pytest.raises(error, match=message):
        bertviz(weights, **options)
