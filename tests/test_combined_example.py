"""The example that combines attentions: its tasks, its models, its table and picture."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import randomize

matplotlib = pytest.importorskip("matplotlib")

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import combined  # noqa: E402
import combined_models as models  # noqa: E402
import combined_tasks as tasks  # noqa: E402

import attnc  # noqa: E402

every = pytest.mark.parametrize("structure", combined.STRUCTURES, ids=lambda s: s.model.__name__)


def test_a_quick_run_prints_a_table_and_draws_it(tmp_path):
    command = [sys.executable, EXAMPLES / "combined.py", "--quick", "--output", tmp_path / "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for structure in combined.STRUCTURES:
        assert structure.name in done.stdout and structure.without in done.stdout
    assert done.stdout.count("%") == 2 * len(combined.STRUCTURES)


@pytest.mark.parametrize("wrong", ["--steps=0", "--steps=x", "--seed=-1", "--example=x"])
def test_wrong_arguments(wrong):
    command = [sys.executable, EXAMPLES / "combined.py", "--quick", wrong]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert wrong[2:6] in done.stderr


@pytest.mark.long
@every
def test_it_is_learnt_with_the_structure_and_not_without(structure):
    """As the command does by default."""
    found, _ = combined.compare(structure, 300, seed=0)
    (before, after, right, *_), (*_, other, _, _) = found.values()
    assert after < before / 3 and right > 0.9
    assert right > other + 0.03


# ---- Tasks, by a reader who knows the answer -----------------------------------------------------


def test_documents(rng):
    (words, lengths), labels = tasks.documents(rng, 50)
    for document, ends, label in zip(words, lengths, labels, strict=True):
        sentences = [row[:n].tolist() for row, n in zip(document, ends, strict=True)]
        (cued,) = [s for s in sentences if 5 in s]
        assert [w for w in cued if 0 < w < 5] == [label + 1]
        assert all(sum(0 < w < 5 for w in s) == 1 for s in sentences)
        assert not any(row[n:].any() for row, n in zip(document, ends, strict=True))


def test_claims(rng):
    (names, claimed, held, answers), labels = tasks.claims(rng, 50)
    for n in range(50):
        known = dict(zip(held[n], answers[n], strict=True))
        right = [known[name] == claim for name, claim in zip(names[n], claimed[n], strict=True)]
        assert right == labels[n].tolist()
    assert 0.3 < labels.mean() < 0.7


def test_clozes(rng):
    (question, document), labels = tasks.clozes(rng, 50)
    for asked, words, label in zip(question, document, labels, strict=True):
        assert [w for w in asked if w <= 16] == [label]
        assert (words == label).sum() == 1 and np.bincount(words).max() == 5


def test_near_and_far(rng):
    (asked, names, answers), labels = tasks.near_and_far(rng, 50)
    near = 0
    for n, place in np.ndindex(50, 8):
        name, beside = asked[n, place] % 8, asked[n, place] >= 8
        found = np.flatnonzero(names[n] == name)
        assert len(found) == 1 or len(found) == 2 and found[1] - found[0] > 2
        if beside:
            found = found[np.abs(found - place) < 2]
        (at,) = found
        assert labels[n, place] == answers[n, at]
        near += beside
    assert 100 < near < 300


def test_sortings(rng):
    (words, lengths, before), labels = tasks.sortings(rng, 50)
    assert before.shape == labels.shape == (50, 9)
    for row, n, given, label in zip(words, lengths, before, labels, strict=True):
        assert label[: n + 1].tolist() == [*sorted(row[:n].tolist()), 3]
        assert (label[n + 1 :] == -1).all()
        assert given[: n + 1].tolist() == [3, *label[:n].tolist()]


def test_regions(rng):
    (topic, name, topics, names, answers), labels = tasks.regions(rng, 50)
    for n in range(50):
        found = (topics[n] == topic[n]) & (names[n] == name[n])
        assert answers[n][found].tolist() == labels[n].tolist()
        assert len(set(topics[n, ::4])) == 4 and (np.diff(topics[n].reshape(4, 4)) == 0).all()


def test_partners(rng):
    (tags, answers), labels = tasks.partners(rng, 50)
    for tag, answer, label in zip(tags, answers, labels, strict=True):
        known = {t: a for t, a in zip(tag, answer, strict=True) if a}
        assert [known[t] - 1 for t in tag] == label.tolist() and (answer == 0).sum() == 4


def test_repeats(rng):
    (asked, names, answers), labels = tasks.repeats(rng, 50)
    for n in range(50):
        known = dict(zip(names[n], answers[n], strict=True))
        found = [known[name] for name in asked[n]]
        again = [answer in found[t + 1 :] for t, answer in enumerate(found)]
        assert labels[n].tolist() == [2 * a + b for a, b in zip(found, again, strict=True)]


# ---- Models --------------------------------------------------------------------------------------


class Fixed:
    """A generator that always draws 2."""

    def integers(self, _, size):
        return np.full(size, 2)


@every
@pytest.mark.parametrize("whole", [True, False])
def test_gradients(structure, whole, rng):
    """Of every parameter, against differences; of what is drawn see the test below."""
    model = randomize(structure.model(whole, np.random.default_rng(0), dtype="float64"), rng, 0.1)
    inputs, _ = structure.task(rng, 5)
    if isinstance(model, models.Regions):  # one region for all: it is chosen without a gradient
        model.combined, model.rng = False, Fixed()
    (logits, _), pullback = attnc.vjp(model, *inputs)
    dlogits = rng.standard_normal(logits.shape)
    pullback(dlogits, np.zeros(5)) if hasattr(model, "hard") else pullback(dlogits)
    got = {name: g.copy() for name, g in model.gradients.items()}
    for name, value in model.state_dict().items():
        step, found = rng.standard_normal(value.shape), []
        for h in (1e-5, -1e-5):
            model.parameters[name] = value + h * step
            found.append((model(*inputs)[0] * dlogits).sum())
        model.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-5
        np.testing.assert_allclose((got[name] * step).sum(), wanted, rtol=1e-5, atol=1e-6)


def test_the_choice_of_a_region_goes_by_the_reward(rng):
    """One region has a reward: after one step of gradients it is likelier for each question."""
    model = models.Regions(True, np.random.default_rng(0), dtype="float64")
    inputs, _ = tasks.regions(rng, 200)
    (logits, weights), pullback = attnc.vjp(model, *inputs, train=True)
    region = weights[:, 0].reshape(200, 4, 4).sum(axis=2)
    np.testing.assert_allclose(np.sort(region), [[0, 0, 0, 1]] * 200, atol=1e-12)
    meant = inputs[2].reshape(200, 4, 4)[:, :, 0] == inputs[0]  # the region of the topic
    reward = (region * meant).sum(axis=1)[:, None]
    pullback(np.zeros_like(logits), reward)
    assert model.baseline.value == 0.9 * -np.log(4) + 0.1 * reward.mean()

    def share():
        query = model.topics(inputs[0]) + model.words(inputs[1])
        memory = model.topics(inputs[2]) + model.memory(*inputs[3:])[0]
        means = memory.reshape(200, 4, 4, -1).mean(axis=2)
        return model.choice.attention(query, means, return_weights=True).weights[:, 0][meant].mean()

    before = share()
    for name, gradient in model.gradients.items():
        model.parameters[name] -= 0.5 * gradient
    assert share() > before


def test_the_picture(rng, tmp_path):
    panels = [
        ("one", np.eye(2), ["a", "b"], ["c", "d"]),
        ("other", np.ones((1, 3)) / 3, ["e"], ["f", "g", "h"]),
    ]
    axes = combined.draw(panels, tmp_path / "a.png")
    assert [ax.get_title() for ax in axes] == ["one", "other"]
    assert [t.get_text() for t in axes[1].get_xticklabels()] == ["f", "g", "h"]
    matplotlib.pyplot.close("all")
