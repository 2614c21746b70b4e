"""What the Transformer of the examples has of its own; what it shares is in test_translate.py."""

import os

import numpy as np
import pytest
from test_translate import PNG, TRANSFORMER, got, main, quick  # noqa: F401, its fixtures

import results  # isort: skip, found through test_translate
import translation  # isort: skip


@pytest.fixture(scope="module")
def program():
    return TRANSFORMER


# ---- The picture of an alignment -----------------------------------------------------------------


def test_the_head_most_like_an_alignment_is_chosen_as_it_is():
    crossing = np.eye(3)[[0, 2, 1]]
    one_word = np.eye(3)[[2, 2, 2]]
    weights = np.stack([[one_word, np.full((3, 3), 1 / 3)], [one_word, crossing]])
    chosen, name = results.alignment(weights)
    np.testing.assert_array_equal(chosen, crossing)
    assert name == "layer 1, head 1: the most like an alignment"
    chosen, name = results.alignment(crossing)
    assert chosen is crossing and name == ""


def test_the_translation_to_draw_is_chosen_by_that_head():
    crossing, straight = np.eye(3)[[0, 2, 1]], np.eye(3)
    crossed = got("a b", "c d", weights=np.array([[np.full((3, 3), 1 / 3), crossing]]))
    plain = got("a b", "c d", weights=np.array([[straight, crossing / 2 + 1 / 6]]))
    assert results.most_crossing([plain, crossed], ["c d"] * 2)[0] is crossed


@pytest.mark.parametrize("right, remark", [(None, ""), ("e", "WRONG. Right is: e")])
def test_pictures_name_heads_and_words(right, remark, tmp_path):
    from matplotlib import pyplot

    translation = got("a b", "c d", weights=np.broadcast_to(np.eye(3), (2, 4, 3, 3)))
    results.draw_alignment(translation, tmp_path / "a.png", right)
    first, _, second = pyplot.gcf().axes[0].get_title().partition("\n")
    assert (first, second) == ("layer 0, head 0: the most like an alignment", remark)
    results.draw_heads(translation, tmp_path / "heads.png", right)
    figure = pyplot.gcf()
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 2 * 4
    assert [ax.get_title() for ax in panels[:4]] == [f"head {n}" for n in range(4)]
    assert [ax.get_ylabel() for ax in panels[::4]] == [f"layer {n}\ntranslation" for n in (0, 1)]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == [" a", " b", "(end)"]
    assert [label.get_text() for label in panels[4].get_yticklabels()] == [" c", " d", "(end)"]
    assert remark in "".join(text.get_text() for text in figure.texts) + figure.get_suptitle()
    assert (tmp_path / "heads.png").read_bytes().startswith(PNG)
    pyplot.close("all")


# ---- The report ----------------------------------------------------------------------------------


def test_report_says_why_longer_sources_are_worse():
    def said(words, **settings):
        scores = [results.Scores(100, 0.9, share, 99, 98, 20) for share in (0.99, words)]
        return "\n".join(results.about_longer({"longest": 30} | settings, *scores))

    text = said(0.6, positions="sinusoidal")
    assert "60% of their words are right" in text and "none beyond\n  30 words" in text
    assert "--longest" in text
    assert said(0.98, positions="sinusoidal") == ""
    assert said(0.6, attention="additive") == ""  # not of a recurrent model


# ---- The command ---------------------------------------------------------------------------------


def test_picture_of_a_given_text_is_two(quick, main, tmp_path):  # noqa: F811
    main("--load", quick[0], "--picture", "here.png", "May 1, 2026")
    assert sorted(os.listdir(tmp_path)) == ["here-heads.png", "here.png"]
    for name in os.listdir(tmp_path):
        assert (tmp_path / name).read_bytes().startswith(PNG)


def test_settings_reach_the_model(main, tmp_path):  # noqa: F811
    out = main(
        "--quick", "--steps", "2", "--layers", "1", "--heads", "4", "--size", "16",
        "--feedforward", "24", "--norm", "post", "--positions", "alibi", "--warmup", "7",
    ).out  # fmt: skip
    assert "Training with norm: post, positions: alibi, for up to 2 steps" in out
    translator, optimizer, _ = translation.load_run(
        tmp_path / "transformer-translate-en-fr-post-alibi"
    )
    model = translator.model
    assert (model.encoder_layers, model.decoder_layers, model.num_heads) == (1, 1, 4)
    assert (model.size, model.feedforward_size) == (16, 24)
    assert (model.norm, model.positions) == ("post", "alibi")
    assert translator.settings["warmup"] == 7
    (found,) = translator.translate(["May 1, 2026"])
    assert found.weights.shape[:2] == (1, 4)


@pytest.mark.parametrize(
    "args, message",
    [
        (["--attention", "dot"], "unrecognized arguments: --attention"),
        (["--positions", "learned"], "argument --positions: invalid choice: 'learned'"),
        (["--heads", "0"], "argument --heads: must be a number from 1, got 0"),
        (["--quick", "--heads", "5"], "num_heads must"),
    ],
)
def test_wrong_options_are_one_line(main, capsys, args, message):  # noqa: F811
    with pytest.raises(SystemExit) as end:
        main(*args)
    said = end.value.code if isinstance(end.value.code, str) else capsys.readouterr().err
    assert said.startswith("transformer_translate.py: ") and message in said
