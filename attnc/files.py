"""Files of arrays: written whole or not at all, read with errors that name the file.

An ``.npz`` file is a zip archive with a file ``<name>.npy`` for each array. What it says of sizes
is held against what it has before any memory is taken.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import IO

import numpy as np

from attnc.typing import Array, Path

__all__ = ["read_arrays", "replacing", "write_arrays"]

MODEL = "attnc"  # the array that a file of `attnc.save` has, and one of `Layer.save` has not


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new binary file that takes the place of `path` when the block has ended without an error.

    It is written beside it under a name of its own, so that writers at the same time do not mix,
    and removed after an error or an interrupt. An earlier file keeps its permissions, a symbolic
    link its target's name. What `open` refuses for writing is refused alike.

    Parameters
    ----------
    path : str, bytes or os.PathLike

    Yields
    ------
    file

    Raises
    ------
    OSError
        If the file cannot be written.
    ValueError
        If `path` is there and no regular file, such as a device: it would be lost.
    """
    target = os.path.realpath(os.fsdecode(path))
    temporary = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.part")
    try:
        with open(target, "r+b") as earlier:
            mode = os.fstat(earlier.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"path must be a regular file or a new one, got {path!r}")
    except FileNotFoundError:
        mode = None
    try:
        try:
            file = open(temporary, "x+b")
        except OSError as error:  # name the file that was meant
            raise type(error)(error.errno, error.strerror, path) from None
        with file:
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            yield file
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
        raise


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays by name to an ``.npz`` file without pickles.

    Parameters
    ----------
    path : str, bytes or os.PathLike
    arrays : mapping of str to ndarray

    Raises
    ------
    OSError
        If the file cannot be written; an earlier one is then as it was.
    ValueError
        If a name has a null character, which ends names in such files.
    """
    for name in arrays:
        if "\0" in name:
            raise ValueError(f"names of arrays must have no null character, got {name!r}")
    own = {name: arrays[name] for name in ("file", "allow_pickle") if name in arrays}
    with replacing(path) as file:
        others = {name: array for name, array in arrays.items() if name not in own}
        np.savez(file, **others)  # type: ignore[arg-type]
        if own:  # names that np.savez takes for its own arguments
            import zipfile  # here, because hardly a file needs it

            with zipfile.ZipFile(file, "a") as archive:
                for name, array in own.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)


def read_arrays(where: str, path: Path, *, stored: bool = False) -> dict[str, Array]:
    """Read the arrays of an ``.npz`` file.

    Parameters
    ----------
    where : str
        What the error text begins with.
    path : str, bytes or os.PathLike
    stored : bool
        Refuse what is compressed: arrays then take no more memory than the file has bytes.

    Returns
    -------
    dict of str to ndarray
        Read-only.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no such file, damaged, or holds pickles.
    """
    import zipfile  # here, because hardly a program needs it

    with open(os.fsdecode(path), "rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                sizes = sum(entry.file_size for entry in entries)
                if stored and (
                    any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
                    or sizes > os.fstat(file.fileno()).st_size
                ):
                    raise ValueError("arrays must be stored as they are, not compressed")
                arrays = {}
                for entry in entries:
                    name = entry.filename.removesuffix(".npy")
                    if name == entry.filename or name in arrays:
                        raise ValueError(f"names must differ and end in .npy, got {entry.filename}")
                    with archive.open(entry) as content:
                        arrays[name] = _read_array(name, content, entry.file_size)
                return arrays
        except MemoryError:
            raise
        except Exception as error:  # zipfile, zlib, struct and NumPy have one each
            raise ValueError(
                f"{where}: path must be a whole .npz file of arrays without pickles, got {path!r} "
                f"({type(error).__name__}: {error})"
            ) from error


def _read_array(name: str, file: IO[bytes], size: int) -> Array:
    """The array in an ``.npy`` file of so many bytes, all of which are read: that checks them."""
    form = np.lib.format
    read_header = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    shape, in_columns, dtype = read_header[form.read_magic(file)](file)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, which need allow_pickle")
    wanted, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if wanted != there:
        raise ValueError(f"{name} needs {wanted} bytes for its shape {shape}, there are {there}")
    return np.ndarray(shape, dtype, file.read(), order="F" if in_columns else "C")
