"""NumPy archives with two arrays: `x` (samples) and `y` (labels). Headers are read here, before anything is inflated."""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from trainer.data.limits import MAX_RATIO, check_size, malformed, too_large
from trainer.data.sample import Dataset
from trainer.data.splits import image_dataset

END_RECORD = struct.Struct("<4s4H2IH")
"""End of central directory (PKWARE APPNOTE 4.3.16), last in a file without comment."""
MAX_DIRECTORY_BYTES = 4096
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError, RecursionError,
              MemoryError, SyntaxError, tokenize.TokenError)  # fmt: skip
"""What zipfile and NumPy's header reader raise for bytes that are neither an archive nor an array."""

HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def load_npz(files: dict[str, Path]) -> Dataset:
    """`x` (n, features), (n, height, width), or images with channels first, or last where only the last axis is 1, 3 or 4;
    `y` (n,) integers. Raises HyperGPUError `data.malformed` or `data.too_large`."""
    path = files["npz"]
    check_size("npz", path.stat().st_size)
    check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            if names != ["x.npy", "y.npy"]:
                raise malformed(f"The archive must hold exactly the arrays x and y, not {names[:8]}.")
            images, labels = (read_member(archive, name) for name in names)
    except UNREADABLE as error:
        raise malformed(f"This is not a readable .npz archive: {error}") from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise malformed(f"y must be one integer per sample, not {labels.dtype} of shape {labels.shape}.")
    return image_dataset(as_images(images), labels)


def check_directory(path: Path) -> None:
    """A short one: zipfile would build an object for each of the millions of entries that a gigabyte can list."""
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, END_RECORD.size), 2)
        tail = file.read()
    if len(tail) < END_RECORD.size:
        raise malformed("This is not a .npz archive.")
    signature, *_, directory, _, comment = END_RECORD.unpack(tail)
    if signature != b"PK\x05\x06" or comment or directory > MAX_DIRECTORY_BYTES:
        raise malformed("This is not an .npz archive with two arrays.")


def read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """One array, if its header, its declared size and its bytes agree; never an object array."""
    entry = archive.getinfo(name)
    check_size(name, entry.file_size)
    if entry.file_size > MAX_RATIO * max(1, entry.compress_size):
        raise too_large(name, entry.file_size, MAX_RATIO * entry.compress_size)
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size + 1)
    buffer = io.BytesIO(content)
    reader = HEADER_READERS.get(npy.read_magic(buffer))
    if reader is None:
        raise malformed(f"{name} has an unknown .npy version.")
    shape, fortran, dtype = reader(buffer)
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise malformed(f"{name} is of {dtype}; only integers and floating-point numbers are taken.")
    if math.prod(shape) * dtype.itemsize != len(content) - buffer.tell():
        raise malformed(f"{name} announces shape {shape} of {dtype} but holds {len(content) - buffer.tell()} bytes.")
    flat = np.frombuffer(content, dtype=dtype, offset=buffer.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def as_images(array: np.ndarray) -> np.ndarray:
    """(n, channels, height, width), uint8 or float32; integers other than uint8 keep their values as float32."""
    if array.ndim not in (2, 3, 4):
        raise malformed(f"x has {array.ndim} dimensions; samples are vectors, or images with or without channels.")
    if array.ndim == 2:
        array = array[:, None, None]
    elif array.ndim == 3:
        array = array[:, None]
    elif array.shape[3] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        array = np.moveaxis(array, 3, 1)
    return array if array.dtype == np.uint8 else array.astype(np.float32)
