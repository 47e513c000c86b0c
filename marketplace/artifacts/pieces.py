"""Uploads in pieces: each is kept as it comes, whatever breaks meanwhile; enough of them make the file.

`pieces` plain ones are the file; redundant ones (trainer.network.erasure) stand in for any of them. An upload has a name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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


def root_of(upload: str) -> Path:
    root: Path = settings.HYPERGPU.state_dir / "artifacts" / "pieces"
    return root / upload


def folder_of(upload: str, sha256: str, pieces: int) -> Path:
    return root_of(upload) / f"{sha256}-{pieces}"


def held(upload: str, *, sha256: str, pieces: int) -> list[int]:
    """Numbers of the pieces that have come."""
    try:
        return sorted(int(path.name) for path in folder_of(upload, sha256, pieces).iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return []


@contextmanager
def alone(upload: str) -> Iterator[None]:
    """Wait until nobody else, thread or process, changes what has come of an upload, and keep it so. The lock is on the upload's
    folder: the kernel frees it however its holder ends."""
    folder = root_of(upload)
    lock = lock_of(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty, or forgotten
            folder.rmdir()
        os.close(lock)


def lock_of(folder: Path) -> int:
    """A locked descriptor of the folder that is there, not of one that was forgotten while this one waited."""
    while True:
        with suppress(FileNotFoundError, FileExistsError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if folder.exists() and os.path.samestat(os.fstat(lock), folder.stat()):
                return lock
            os.close(lock)


def keep(upload: str, *, sha256: str, size: int, pieces: int, index: int, chunks: Iterable[bytes], piece_sha256: str) -> None:
    """Store piece `index` of a file of `size` bytes with hash `sha256`. Another division of the file, or another file, replaces
    what has come of the upload before.

    Raises HyperGPUError `upload.no_such_piece`, and as `store.write_stream`.
    """
    if not 1 < pieces <= min(MOST_PIECES, size) or not 0 <= index < 2 * pieces:
        text = f"A file of {size} bytes has no piece {index} of {pieces}: 2 to {MOST_PIECES} pieces, and as many redundant ones."
        raise HyperGPUError("upload.no_such_piece", text)
    expected = piece_span(size, pieces, index)[1] if index < pieces else piece_size(size, pieces)
    handle, temporary = tempfile.mkstemp(dir=store.incoming())
    try:
        with os.fdopen(handle, "wb") as file:
            store.copy_checked(chunks, file, limit=expected, expected_sha256=piece_sha256, expected_size=expected)
        with alone(upload):
            folder = folder_of(upload, sha256, pieces)
            for other in set(folder.parent.glob("*")) - {folder}:
                shutil.rmtree(other, ignore_errors=True)
            if not folder.exists():
                forget_old(folder.parents[1])
            folder.mkdir(exist_ok=True)
            os.replace(temporary, folder / str(index))
    finally:
        Path(temporary).unlink(missing_ok=True)


def joined(upload: str, *, sha256: str, size: int, pieces: int) -> Iterator[bytes]:
    """The file's bytes from the pieces that have come, for who is `alone`. Raises HyperGPUError `upload.incomplete`."""
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
    written = {index: tempfile.mkstemp(dir=folder) for index in missing}
    files = {index: (folder / str(index)).open("rb") for index in used} | {
        index: os.fdopen(handle, "wb") for index, (handle, _) in written.items()
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
    for index, (_, path) in written.items():
        os.replace(path, folder / str(index))


def forget(upload: str) -> None:
    """Remove what has come of an upload, for who is `alone`."""
    shutil.rmtree(root_of(upload), ignore_errors=True)


def forget_old(root: Path) -> None:
    """Remove uploads that nobody goes on with."""
    for folder in root.glob("*/*"):
        with suppress(FileNotFoundError):  # another process forgets, too
            if folder.stat().st_mtime < time.time() - GIVEN_UP_SECONDS:
                shutil.rmtree(folder.parent, ignore_errors=True)
