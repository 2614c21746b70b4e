"""The example that listens: its sounds, its voices, its pyramid, its measures, its command."""

import ctypes.util
import functools
import itertools
import os
import pathlib
import subprocess
import sys
import wave

import numpy as np
import pytest
from layer_checks import randomize

for package in ("matplotlib", "scipy", "tqdm"):
    pytest.importorskip(package)

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import listen  # noqa: E402
import listen_measures as measures  # noqa: E402
import listen_model as model  # noqa: E402
import listen_results as results  # noqa: E402
import speech  # noqa: E402
import spoken  # noqa: E402
import voices  # noqa: E402
from training import Check  # noqa: E402

import attnc  # noqa: E402

try:
    voices.espeak()
    WITH_ESPEAK = True
except ImportError:
    WITH_ESPEAK = False
speaking = pytest.mark.skipif(not WITH_ESPEAK, reason="espeak-ng is not installed")


def run(*arguments):
    command = [sys.executable, EXAMPLES / "listen.py", "--quick", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# ---- The command ---------------------------------------------------------------------------------


@speaking
def test_a_quick_run_prints_its_tables_and_draws(tmp_path):
    write(tmp_path / "a.wav", np.sin(np.arange(8000) / 3) * 2**14, 2, 8000)
    done = run("--output", tmp_path / "a.png", "--wav", tmp_path / "a.wav", "--sampling", "0.1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    for name in results.NAMES.values():
        assert f"\n{name} " in done.stdout and f"\n  {name} " in done.stdout
    assert f"\n{tmp_path / 'a.wav'}:\n" in done.stdout and "nan" not in done.stdout
    assert "unseen sequences" in done.stdout and "unseen voice" in done.stdout


def settings_of(monkeypatch, *arguments):
    """What the command makes of these options."""
    monkeypatch.setattr(sys, "argv", ["listen.py", *arguments])
    settings = listen.read_settings()
    settings.files = {}
    return settings


@speaking
def test_a_run_is_repeatable(monkeypatch):
    options = "--quick", "--kinds", "none", "--no-recorded", "--steps", "3"
    settings = settings_of(monkeypatch, *options)
    first, second, other = (listen.run(seed, settings) for seed in (0, 0, 1))
    assert first.said == second.said != other.said and set(first.said) == {
        "unseen sequences",
        "unseen voice",
    }
    losses = [[each.loss for each in x.outcomes["none"].checks] for x in (first, second, other)]
    assert losses[0] == losses[1] != losses[2] and len(losses[0]) == 3
    assert first.outcomes["none"].texts == second.outcomes["none"].texts


@pytest.mark.parametrize(
    "wrong",
    ["--steps=0", "--seed=-1", "--seeds=0", "--units=1", "--layers=0", "--kinds=hard",
     "--short-first=2", "--sampling=1.5"],
)  # fmt: skip
def test_wrong_options(monkeypatch, capsys, wrong):
    with pytest.raises(SystemExit) as error:
        settings_of(monkeypatch, wrong)
    printed = capsys.readouterr().err
    assert error.value.code == 2 and printed.count("\n") == 1
    assert f"argument {wrong.partition('=')[0]}: " in printed


def test_a_file_that_is_no_sound(tmp_path):
    (tmp_path / "a.wav").write_text("seven")
    done = run("--wav", tmp_path / "a.wav")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"listen.py: read_wav: {tmp_path / 'a.wav'} must be a WAV file")


@pytest.mark.long
@speaking
def test_attention_learns_to_spell_and_its_twin_does_not(monkeypatch):
    """As the command does by default."""
    settings = settings_of(monkeypatch)
    outcomes = listen.run(0, settings).outcomes
    right = {kind: outcome.right for kind, outcome in outcomes.items()}
    assert right["soft"]["unseen sequences"] > 0.9 and right["soft"]["unseen voice"] > 0.6, right
    assert outcomes["soft"].checks[-1].found.on_word > 0.85
    assert right["monotonic"]["unseen sequences"] > 0.5, right
    assert right["none"]["unseen sequences"] < 0.55, right


def test_sequences_grow():
    settings = argparse_like(steps=100, short_first=0.5)
    found = [listen.sizes(step, settings) for step in range(1, 101)]
    assert found[0] == (1, 2) and found[50:] == 50 * [(3, 6)]
    assert all(a <= b for a, b in itertools.pairwise(found))
    assert listen.sizes(1, argparse_like(steps=100, short_first=0.0)) == (3, 6)


def argparse_like(**settings):
    return type("Settings", (), settings)


# ---- Sounds --------------------------------------------------------------------------------------


def write(path, samples, width, rate):
    """A WAV file of integers (samples,) or (samples, channels), by the standard library."""
    samples = np.asarray(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        sign = width > 1
        numbers = map(int, samples.ravel() + (0 if sign else 128))
        file.writeframes(b"".join(x.to_bytes(width, "little", signed=sign) for x in numbers))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_of_all_widths(tmp_path, rng, width, channels):
    top = 2 ** (8 * width - 1)
    samples = rng.integers(-top, top, (500, channels))
    samples[:2, 0] = -top, top - 1
    write(tmp_path / "a.wav", samples, width, 8000)
    got = speech.read_wav(tmp_path / "a.wav")
    assert got.dtype == np.float32 and np.abs(got).max() <= 1
    np.testing.assert_allclose(got, (samples / top).mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("rate", [4000, 11025, 44100, 48000])
def test_another_rate(tmp_path, rate):
    tone = 2**14 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    write(tmp_path / "a.wav", tone.round(), 2, rate)
    got = speech.read_wav(tmp_path / "a.wav")
    assert len(got) == 8000
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    np.testing.assert_allclose(got[500:-500], wanted[500:-500], atol=0.01)


def test_wrong_wav_files(tmp_path, rng):
    path = tmp_path / "a.wav"
    write(path, rng.integers(-100, 100, 1000), 2, 8000)
    whole = path.read_bytes()
    coded = bytearray(whole)
    coded[20] = 6  # A-law
    wrongs = {
        b"": "must be a WAV file",
        b"seven": "must be a WAV file",
        whole[:20]: "must be a WAV file",
        bytes(coded): "unknown format: 6",
        whole[:-100]: "must be whole, got 950 of 1000 samples",
    }
    for wrong, message in wrongs.items():
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=message):
            speech.read_wav(path)
    write(path, np.zeros(0), 2, 8000)
    with pytest.raises(ValueError, match="must have samples, got 0"):
        speech.read_wav(path)
    with pytest.raises(FileNotFoundError):
        speech.read_wav(tmp_path / "b.wav")


def test_silence_is_cut_off():
    sound = np.concatenate([np.zeros(50), [0.005, 1, 0.1, -0.5, 0.005], np.zeros(9)])
    np.testing.assert_array_equal(speech.trimmed(sound), [1, 0.1, -0.5])
    np.testing.assert_array_equal(speech.trimmed(np.zeros(3)), np.zeros(3))


@pytest.mark.parametrize("hertz", [200, 440, 1000, 2500, 3500])
def test_a_tone_is_in_the_band_of_its_frequency(hertz):
    bands = speech.log_mel(np.sin(2 * np.pi * hertz * np.arange(8000) / 8000))
    assert bands.shape == (1 + (8000 - 200) // 80, 40)

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    middles = np.linspace(mel(50), mel(4000), 42)[1:-1]
    nearest = np.abs(middles - mel(hertz)).argmin()
    assert (np.abs(bands.argmax(axis=1) - nearest) <= 1).all()
    loud = np.exp(bands).mean(axis=0)
    assert loud[np.abs(np.arange(40) - nearest) > 4].max() < 1e-2 * loud.max()


def test_features_by_hand(rng):
    """One frame, by sums instead of a fast transform; and what is done to each band."""
    samples = rng.standard_normal(1000)
    frame = samples[160:360] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200))
    waves = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(200)) / 256)
    power = np.abs(waves @ frame) ** 2
    mels = np.linspace(*2595 * np.log10(1 + np.array([50, 4000]) / 700), 42)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.arange(129) * 8000 / 256
    bands = [np.interp(frequencies, edges[n : n + 3], [0, 1, 0]) @ power for n in range(40)]
    np.testing.assert_allclose(speech.log_mel(samples)[2], np.log(bands), rtol=1e-4, atol=1e-4)
    found = speech.features(7 * samples)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(found.std(axis=0), 1, atol=1e-2)
    np.testing.assert_allclose(found, speech.features(samples), atol=1e-3)
    assert speech.features(np.zeros(10)).shape == (1, 40)  # shorter than a frame


# ---- Voices --------------------------------------------------------------------------------------


@speaking
def test_every_voice_is_another():
    """espeak-ng takes an unknown timbre for none: two names would be one voice."""
    names = voices.TRAINING + voices.UNSEEN
    seconds = []
    for name in names:
        said = voices.synthesised(name)
        assert list(said) == voices.WORDS and len(voices.WORDS) == 36
        seconds += [len(sound) / speech.RATE for sound in said.values()]
    assert 0.1 < min(seconds) and max(seconds) < 1.2
    different = {voices.synthesised(name)["seven"].tobytes() for name in names}
    assert len(different) == len(names)
    trained, unseen = ([set(part) for part in zip(*(name.split("+") for name in some), strict=True)]
                       for some in (voices.TRAINING, voices.UNSEEN))  # fmt: skip
    assert all(a.isdisjoint(b) for a, b in zip(trained, unseen, strict=True))
    with pytest.raises(ValueError, match="voice must be one of espeak-ng's, got 'tlh'"):
        voices.espeak().set_voice("tlh", 150, 50)


@speaking
def test_a_voice_is_the_same_in_every_process():
    """Also one with breath, which is noise."""
    code = "import voices; print(hash(voices.synthesised('en-us+f3')['seven'].tobytes()))"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    found = [subprocess.run(command, capture_output=True, text=True, check=True, cwd=EXAMPLES,
                            env=environment).stdout for _ in range(2)]  # fmt: skip
    assert found[0] == found[1]


@pytest.mark.skipif(not ctypes.util.find_library("espeak-ng"), reason="no espeak-ng of the system")
def test_the_library_of_the_system_does_as_well():
    code = """
        import sys
        sys.modules["espeakng_loader"] = None  # cannot be imported
        import voices
        print(len(voices.synthesised("en-us+m1")["seven"]), len(voices.synthesised("en+f1")["b"]))
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in code.split("\n"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr
    assert all(800 < int(samples) < 9600 for samples in done.stdout.split())


def test_recorded_prompts(tmp_path, rng):
    read = voices.recorded.__wrapped__  # without what it keeps
    assert read(tmp_path) == {}
    folder = tmp_path / "en_US"
    for n, word in enumerate(voices.WORDS):
        name = f"digits/{n}.wav" if n < 10 else f"letters/{word}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if word != "z":
            write(folder / name, 500 * (n + 1) * np.sign(rng.standard_normal(500)), 2, 8000)
    assert read(tmp_path) == {}, "z is missing"
    write(folder / "letters/z.wav", 100 * np.sign(rng.standard_normal(500)), 2, 8000)
    said = read(tmp_path)
    assert list(said) == voices.WORDS
    assert all(np.abs(np.abs(sound) - 1).max() < 1e-5 for sound in said.values())


# ---- Sequences -----------------------------------------------------------------------------------


def tones():
    """Two voices without espeak-ng: each word is a tone of its own."""
    time = np.arange(2400) / 8000
    return [
        {word: np.float32(1.4) * np.sin(2 * np.pi * (200 + pitch * n) * time).astype(np.float32)
         for n, word in enumerate(voices.WORDS)}
        for pitch in (60, 70)
    ]  # fmt: skip


def test_words_are_where_the_spans_say(rng):
    (voice, _) = tones()
    for _ in range(20):
        samples, spans = spoken.say([voice[word] for word in ("one", "b", "nine")], rng)
        assert spans.shape == (3, 2) and (np.diff(spans.ravel()) > 0).all()
        lengths = np.diff(spans)[:, 0] * 8000 / 2400
        assert 1 / 1.1 - 0.01 < lengths.min() and lengths.max() < 1 / 0.9 + 0.01
        assert np.ptp(lengths) < 0.01, "one speed a sequence"
        inside = np.zeros(len(samples), bool)
        for start, end in (spans * 8000).round().astype(int):
            inside[start:end] = True
        power = [np.mean(np.square(samples[part])) for part in (inside, ~inside)]
        assert 10 < power[0] / power[1] < 10**4


def test_sequences_are_not_those_that_are_avoided(rng, monkeypatch):
    monkeypatch.setattr(spoken, "DIGITS", ["one"])
    monkeypatch.setattr(spoken, "LETTERS", ["a"])
    avoided = set(itertools.product(["one", "a"], repeat=3)) - {("a", "one", "a")}
    speakers = spoken.Speakers(tones(), avoided)
    assert {speakers.sequence(rng, 3, 3) for _ in range(5)} == {("a", "one", "a")}
    assert speakers.said == {("a", "one", "a")}


def test_a_batch_says_what_is_heard(rng):
    said = spoken.Speakers(tones()).utterances(rng, 40)
    words = [word for each in said for word in each.words]
    assert {len(each.words) for each in said} == {3, 4, 5, 6}
    assert 0.35 < np.mean([word in voices.DIGITS for word in words]) < 0.65
    sounds, lengths, before, after = spoken.batch(said)
    vocabulary = spoken.CHARACTERS
    for n, each in enumerate(said):
        np.testing.assert_array_equal(sounds[n, : lengths[n]], each.features)
        assert "".join(vocabulary.decode(after[n])) == each.text == " ".join(each.words)
        count = len(each.text)
        assert after[n, count] == vocabulary.end and not after[n, count + 1 :].any()
        assert before[n, 0] == vocabulary.start
        np.testing.assert_array_equal(before[n, 1 : count + 1], after[n, :count])
        assert 0 < each.spans.min() and each.spans.max() < (lengths[n] + 3) * 0.01


# ---- The model -----------------------------------------------------------------------------------

LENGTHS = [11, 4, 9, 1]


def test_gradient_of_the_pyramid(rng):
    pyramid = randomize(model.Pyramid(3, 2, rng=0, dtype="float64"), rng, 0.2)
    x = rng.standard_normal((4, 11, 3))
    assert attnc.check_gradients(pyramid, None, x, lengths=LENGTHS) < 1e-8
    output, pullback = attnc.vjp(pyramid, x, LENGTHS)
    assert output.memory.shape == (4, 2, 4) and output.summary.shape == (4, 4)
    for one in ({"dmemory": np.ones((4, 2, 4))}, {"dsummary": np.ones((4, 4))}):
        for gradient, length in zip(pullback(**one).x, LENGTHS, strict=True):
            assert gradient[:length].any() and not gradient[length:].any()


@pytest.mark.parametrize("padding", [0.0, np.nan])
def test_a_sound_is_heard_the_same_alone_and_in_a_batch(rng, padding):
    pyramid = randomize(model.Pyramid(3, 4, rng=0, dtype="float64"), rng, 0.2)
    x = rng.standard_normal((4, 11, 3))
    for n, length in enumerate(LENGTHS):
        x[n, length:] = padding
    memory, summary = pyramid(x, LENGTHS)
    steps = model.shortened(LENGTHS, 3)
    assert steps.tolist() == [2, 1, 2, 1]
    for n, length in enumerate(LENGTHS):
        alone = pyramid(x[n : n + 1, :length], [length])
        assert alone.memory.shape[1] == steps[n]
        np.testing.assert_allclose(memory[n, : steps[n]], alone.memory[0], atol=1e-12)
        np.testing.assert_allclose(summary[n], alone.summary[0], atol=1e-12)
        assert not memory[n, steps[n] :].any()


def test_the_pyramid_joins_neighbours(rng):
    """One layer, of which the input is joined by hand; the odd frame has zeros beside it."""
    pyramid = model.Pyramid(3, 4, 1, rng=0)
    x = rng.standard_normal((1, 5, 3)).astype(np.float32)
    pairs = np.array([[*x[0, 0], *x[0, 1]], [*x[0, 2], *x[0, 3]], [*x[0, 4], 0, 0, 0]])
    outputs, (h, _) = pyramid.lstms[0](pairs[None])
    memory, summary = pyramid(x, [5])
    np.testing.assert_allclose(memory, outputs, atol=1e-6)
    np.testing.assert_allclose(summary[0], [*h[0, 0], *h[1, 0]], atol=1e-6)


every = pytest.mark.parametrize("kind", model.Speller.KINDS)


def speller(kind, rng):
    made = model.Speller(kind, 9, bands=3, size=2, rng=0, dtype="float64")
    inputs = (
        rng.standard_normal((4, 11, 3)), LENGTHS, rng.integers(4, 9, (4, 5)),
        np.array([[4, 5, 6, 7, 2], [8, 2, 0, 0, 0], [5, 5, 5, 2, 0], [6, 7, 2, 0, 0]]),
    )  # fmt: skip
    return randomize(made, rng, 0.3), inputs


@every
def test_gradients_of_all_parameters(kind, rng):
    """Of the whole model, against differences."""
    made, inputs = speller(kind, rng)
    _, pullback = attnc.vjp(made, *inputs)
    pullback()
    got = {name: gradient.copy() for name, gradient in made.gradients.items()}
    for name, value in made.state_dict().items():
        step, found = rng.standard_normal(value.shape), []
        for h in (1e-5, -1e-5):
            made.parameters[name] = value + h * step
            found.append(made(*inputs)[0])
        made.parameters[name] = value
        wanted = (found[0] - found[1]) / 2e-5
        np.testing.assert_allclose((got[name] * step).sum(), wanted, rtol=1e-5, atol=1e-8)


@every
def test_padding_is_neither_heard_nor_spelt(kind, rng):
    made, (x, lengths, before, after) = speller(kind, rng)
    loss, weights = made(x, lengths, before, after)
    before[after == 0] = 3
    for n, length in enumerate(lengths):
        x[n, length:] = np.nan
    again, _ = made(x, lengths, before, after)
    np.testing.assert_allclose(loss, again, rtol=1e-12)
    if kind == "none":
        assert weights.shape[2] == 1
    else:
        steps = np.arange(weights.shape[2])
        behind = steps >= model.shortened(lengths, 3)[:, None]
        assert behind.any() and not (weights * behind[:, None]).any()


@every
def test_transcripts_are_greedy(kind, rng):
    made, (x, lengths, _, _) = speller(kind, rng)
    tokens, weights = made.transcribe(x, lengths, longest=7)
    assert tokens.shape[0] == 4 and tokens.shape[1] <= 7
    if kind == "monotonic":  # it decides, and does not go back
        assert set(np.unique(weights)) <= {0.0, 1.0}
        places = [row.argmax(axis=-1)[row.any(axis=-1)] for row in weights]
        assert all((np.diff(row) >= 0).all() for row in places)
        return
    count = tokens.shape[1]  # of soft ones the call with these characters finds the same
    before = np.concatenate([np.ones((4, 1), int), tokens[:, :-1]], axis=1)
    heard = made.listener(x, lengths)
    memory, there = made.remember(heard, lengths)
    outputs = made.decoder(made.embedding(before), memory, **there).outputs
    best = made.output(outputs).argmax(axis=-1)
    running = np.cumsum(tokens == 2, axis=1) - (tokens == 2) == 0
    assert best.shape == (4, count)
    np.testing.assert_array_equal(best[running], tokens[running])


# ---- Measures ------------------------------------------------------------------------------------


def test_distances_are_the_shortest(rng):
    @functools.cache
    def shortest(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(shortest(a[1:], b) + 1, shortest(a, b[1:]) + 1,
                   shortest(a[1:], b[1:]) + (a[0] != b[0]))  # fmt: skip

    for _ in range(100):
        a, b = (tuple(rng.choice(list("xyz"), rng.integers(7)).tolist()) for _ in range(2))
        assert measures.edits(a, b) == measures.edits(b, a) == shortest(a, b)


def test_word_accuracy():
    said = ["one two three", "a b c"]
    assert measures.word_accuracy(said, said) == 1
    assert measures.word_accuracy(said, ["one too three", "a c"]) == pytest.approx(4 / 6)
    assert measures.word_accuracy(said, ["", ""]) == 0
    assert measures.word_accuracy(["a"], ["b c d"]) == -2


def test_weight_on_the_word():
    """Two words of a second each, half a second apart, over 32 steps of 80 ms."""
    spans = np.array([[0.0, 0.96], [1.52, 2.48]])
    each = spoken.Utterance(("no", "b"), np.zeros((256, 40)), spans)
    weights = np.zeros((4, 32))
    weights[0, 3] = 1  # n: on the word
    weights[1, 17] = 1  # o: between the words
    weights[2, 30] = 1  # the space: does not count
    weights[3, [25, 0, 18]] = 0.5, 0.3, 0.2  # b: half on the word, a fifth within a step of it
    assert measures.on_word(weights, each, 3) == pytest.approx((1 + 0 + 0.7) / 3)
    inside = [13, 13, 14]  # steps of the word and one to each side, where there is one
    assert measures.by_chance(each, 3) == pytest.approx(np.mean(inside) / 32)


def test_what_is_concluded():
    looks = [measures.Look(0.1, share, np.ones((3, 2))) for share in (0.6, 0.2, 0.6, 0.7)]
    checks = [
        Check(step, 1.0, 0.5, look) for step, look in zip((10, 20, 30, 40), looks, strict=True)
    ]
    assert results.appears(checks) == 30 and results.appears(checks[:2]) is None
    parts = {"unseen sequences": 0.9, "unseen voice": 0.5}
    soft = listen.Outcome(checks, parts, {})
    none = listen.Outcome(checks, {name: x - 0.3 for name, x in parts.items()}, {})
    runs = [listen.Run({"soft": soft, "none": none}, dict.fromkeys(parts, []), [], 3)] * 2
    text = "\n".join(results.conclusions(runs))
    assert "on its word from step 30 on, from step 30 on." in text
    assert text.count("no attention has 30.0 points less than soft attention") == 2
