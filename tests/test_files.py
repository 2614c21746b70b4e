"""Files of parameters: whole or not at all, under the name and with the permissions of others."""

import os
import pickle
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from checks import assert_same

import attnc
from attnc.layers.base import Layer


class Named(Layer):
    """A layer with parameters of any names."""

    def __init__(self, *names):
        super().__init__()
        for k, name in enumerate(names):
            self.add_parameter(name, [k + 1.0, k])


def saved(path, seed=0):
    layer = attnc.Linear(3, 2, rng=seed)
    layer.save(path)
    return layer.state_dict()


def loaded(path):
    return attnc.Linear(3, 2, rng=99).load(path).state_dict()


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_every_kind_of_path(kind, tmp_path):
    path = kind(str(tmp_path / "no extension, ümlaut"))
    assert_same(saved(path), loaded(path))
    assert [found.name for found in tmp_path.iterdir()] == ["no extension, ümlaut"]


@pytest.mark.parametrize("call", ["save", "load"])
def test_only_paths(call):
    for path in (None, 3, True):
        with pytest.raises(TypeError):
            getattr(attnc.Linear(3, 2), call)(path)


def test_every_name(tmp_path):
    names = ["file", "allow_pickle", "args", "self", "a/b", " ", "ü", "arr_0", "kwds"]
    layer, twin = Named(*names), Named(*names)
    for name in names:
        twin.parameters[name] = [0, 0]
    layer.save(tmp_path / "layer")
    twin.load(tmp_path / "layer")
    assert_same(twin.state_dict(), layer.state_dict())
    with np.load(tmp_path / "layer") as file:
        assert sorted(file) == sorted(names)


def test_names_that_differ_in_npy_alone(tmp_path):
    layer, twin = Named(), Named()
    for each in (layer, twin):
        each.x = Named("npy")
        each.add_parameter("x", [7.0, 8.0])
    layer.parameters["x"] = [5, 6]
    layer.save(tmp_path / "layer")
    assert_same(twin.load(tmp_path / "layer").state_dict(), layer.state_dict())


def test_names_without_an_end(tmp_path):
    with pytest.raises(ValueError, match="no null character"):
        Named("a\0b").save(tmp_path / "layer")
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target.npz", tmp_path / "link.npz"
    link.symlink_to(target)
    for seed in (0, 1):  # the target is not there, then it is
        assert_same(saved(link, seed), loaded(target))
        assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2 and len(list(target.parent.iterdir())) == 1


def test_permissions_are_those_of_other_files(tmp_path):
    path = tmp_path / "layer.npz"
    mask = os.umask(0o027)
    try:
        saved(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        saved(path, seed=1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(mask)


def test_what_open_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/layer.npz"):
        saved(tmp_path / "nowhere" / "layer.npz")
    with pytest.raises(IsADirectoryError):
        saved(tmp_path)
    if os.geteuid():
        saved(tmp_path / "layer.npz")
        (tmp_path / "layer.npz").chmod(0o444)
        with pytest.raises(PermissionError):
            saved(tmp_path / "layer.npz")
    with pytest.raises(ValueError, match="path must be a regular file or a new one, got '/dev/nul"):
        saved("/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_in_the_middle_leaves_the_earlier_file_alone(error, tmp_path, monkeypatch):
    path = tmp_path / "layer.npz"
    before = saved(path)

    def fail(file, array, **options):
        file.write(b"half")
        raise error

    for module in (np.lib.format, getattr(np.lib, "_format_impl", np.lib.format)):
        monkeypatch.setattr(module, "write_array", fail)
    with pytest.raises(type(error) if isinstance(error, OSError) else error):
        saved(path, seed=1)
    monkeypatch.undo()
    assert_same(loaded(path), before)
    assert [found.name for found in tmp_path.iterdir()] == ["layer.npz"]


def test_writers_at_the_same_time_do_not_mix(tmp_path):
    path = tmp_path / "layer.npz"
    states = [attnc.Linear(60, 50, rng=seed) for seed in range(4)]
    weights = [state.parameters["weight"].tobytes() for state in states]

    def write(layer):
        for _ in range(25):
            layer.save(path)

    threads = [threading.Thread(target=write, args=(layer,)) for layer in states]
    states[0].save(path)
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        weight = attnc.Linear(60, 50, rng=99).load(path).parameters["weight"]
        assert weight.tobytes() in weights
    for thread in threads:
        thread.join()
    assert [found.name for found in tmp_path.iterdir()] == ["layer.npz"]


def hostile(tmp_path):
    """(what it is, path) of files that no save wrote."""
    saved(tmp_path / "good")
    good = (tmp_path / "good").read_bytes()
    contents = {
        "empty": b"",
        "text": b"not an archive",
        "half": good[: len(good) // 2],
        "headless": good[10:],
        "flipped": good[:150] + bytes([good[150] ^ 255]) + good[151:],
        "pickle": pickle.dumps({"weight": 1}),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "objects.npz", weight=np.array([{}], dtype=object), bias=np.ones(2))
    return [*contents, "one.npy", "objects.npz"]


def test_load_names_the_file_that_is_none(tmp_path):
    layer = attnc.Linear(3, 2, rng=5)
    before = layer.state_dict()
    for name in hostile(tmp_path):
        with pytest.raises(ValueError, match=f"Linear.load: path must be .*{name}"):
            layer.load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="nothing.npz"):
        layer.load(tmp_path / "nothing.npz")
    assert_same(layer.state_dict(), before)


def test_load_of_a_damaged_file_changes_nothing(tmp_path):
    """Every way in which one byte can be wrong."""
    good = saved(tmp_path / "good")
    content = (tmp_path / "good").read_bytes()
    layer = attnc.Linear(3, 2, rng=5)
    before = layer.state_dict()
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "bad").write_bytes(damaged)
        try:
            layer.load(tmp_path / "bad")
        except ValueError:
            assert_same(layer.state_dict(), before)
        else:  # a byte that carries nothing, such as a date
            assert_same(layer.state_dict(), good)
            layer.load_state_dict(before)
