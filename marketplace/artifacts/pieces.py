"""Uploads in pieces: each is kept as it comes, whatever breaks meanwhile; enough of them make the file.

`pieces` plain ones are the file; redundant ones (trainer.network.erasure) stand in for any of them. An upload has a name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from marketplace.artifacts import store
from trainer.network.erasure import rebuild
from trainer.network.transfers import MOST_PIECES, piece_size, piece_span
from trainer.protocol.errors import HyperGPUError

STRIPE = 2**16
"""Bytes of each piece that are rebuilt at a time, so that memory does not grow with the file."""
GIVEN_UP_SECONDS = 7 * 24 * 3600
"""An upload of which nothing has come for so long is forgotten when another one begins: no round lasts that long."""


def folder_of(upload: str, sha256: str, pieces: int) -> Path:
    root: Path = settings.HYPERGPU.state_dir / "artifacts" / "pieces"
    return root / upload / f"{sha256}-{pieces}"


def held(upload: str, *, sha256: str, pieces: int) -> list[int]:
    """Numbers of the pieces that have come."""
    folder = folder_of(upload, sha256, pieces)
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.is_dir() else []


def keep(
    upload: str, *, sha256: str, size: int, pieces: int, index: int, chunks: Iterable[bytes], piece_sha256: str
) -> list[int]:
    """Store piece `index` of a file of `size` bytes with hash `sha256`, and say which have come. Another division of the file, or
    another file, replaces what has come of the upload before.

    Raises HyperGPUError `upload.no_such_piece`, and as `store.write_stream`.
    """
    if not 1 < pieces <= min(MOST_PIECES, size) or not 0 <= index < 2 * pieces:
        text = f"A file of {size} bytes has no piece {index} of {pieces}: 2 to {MOST_PIECES} pieces, and as many redundant ones."
        raise HyperGPUError("upload.no_such_piece", text)
    expected = piece_span(size, pieces, index)[1] if index < pieces else piece_size(size, pieces)
    folder = folder_of(upload, sha256, pieces)
    for other in set(folder.parent.glob("*")) - {folder}:
        shutil.rmtree(other, ignore_errors=True)
    if not folder.exists():
        forget_old(folder.parents[1])
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            store.copy_checked(chunks, file, limit=expected, expected_sha256=piece_sha256, expected_size=expected)
        os.replace(temporary, folder / str(index))
    finally:
        Path(temporary).unlink(missing_ok=True)
    return held(upload, sha256=sha256, pieces=pieces)


def joined(upload: str, *, sha256: str, size: int, pieces: int) -> Iterator[bytes]:
    """The file's bytes from the pieces that have come. Raises HyperGPUError `upload.incomplete`."""
    there = held(upload, sha256=sha256, pieces=pieces)
    if len(there) < pieces:
        raise HyperGPUError("upload.incomplete", f"{len(there)} of {pieces} pieces are here.")
    folder = folder_of(upload, sha256, pieces)
    missing = sorted(set(range(pieces)) - set(there))
    if missing:
        fill(folder, there, missing, size=size, pieces=pieces)
    for index in range(pieces):
        with (folder / str(index)).open("rb") as file:
            while chunk := file.read(STRIPE):
                yield chunk


def fill(folder: Path, there: list[int], missing: list[int], *, size: int, pieces: int) -> None:
    """Write the plain pieces that have not come, from redundant ones."""
    each = piece_size(size, pieces)
    used = [index for index in there if index < pieces] + [index for index in there if index >= pieces][: len(missing)]
    with_names = {index: folder / f".{index}" for index in missing}
    files = {index: (folder / str(index)).open("rb") for index in used} | {
        index: path.open("wb") for index, path in with_names.items()
    }
    try:
        for offset in range(0, each, STRIPE):
            length = min(STRIPE, each - offset)
            found = {index: files[index].read(length).ljust(length, b"\0") for index in used}
            plain = rebuild(found, pieces)
            for index in missing:
                files[index].write(plain[index][: max(0, piece_span(size, pieces, index)[1] - offset)])
    finally:
        for file in files.values():
            file.close()
    for index, path in with_names.items():
        os.replace(path, folder / str(index))


def forget(upload: str) -> None:
    """Remove what has come of an upload."""
    root = settings.HYPERGPU.state_dir / "artifacts" / "pieces" / upload
    shutil.rmtree(root, ignore_errors=True)


def forget_old(root: Path) -> None:
    """Remove uploads that nobody goes on with."""
    for folder in root.glob("*/*"):
        with suppress(FileNotFoundError):  # another process forgets, too
            if folder.stat().st_mtime < time.time() - GIVEN_UP_SECONDS:
                shutil.rmtree(folder.parent, ignore_errors=True)
