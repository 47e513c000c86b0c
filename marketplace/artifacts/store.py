"""The folder of blobs. A blob appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from django.conf import settings

from trainer.protocol.errors import HyperGPUError


def path_of(sha256: str) -> Path:
    root: Path = settings.HYPERGPU.state_dir / "artifacts"
    return root / sha256[:2] / sha256


def incoming() -> Path:
    """Where a file is written until it is whole."""
    folder: Path = settings.HYPERGPU.state_dir / "artifacts" / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def forget_broken_off(*, seconds: float) -> None:
    """Remove files of processes that were killed while they wrote: nothing was added to them for so long."""
    for path in incoming().iterdir():
        with suppress(FileNotFoundError):  # it is whole by now, or another process forgets, too
            if path.stat().st_mtime < time.time() - seconds:
                path.unlink()


def free_bytes() -> int:
    """Of the disk that holds the artifacts."""
    return shutil.disk_usage(settings.HYPERGPU.state_dir).free


def write_stream(
    chunks: Iterable[bytes], *, limit: int, expected_sha256: str | None = None, expected_size: int | None = None
) -> tuple[str, int]:
    """Store a stream under its own hash, hashing while it is written; returns (sha256, size in bytes).

    Raises HyperGPUError `artifact.too_large`, `artifact.truncated` or `artifact.hash_mismatch`; then nothing is stored.
    """
    handle, temporary = tempfile.mkstemp(dir=incoming())
    try:
        with os.fdopen(handle, "wb") as file:
            sha256, size = copy_checked(chunks, file, limit=limit, expected_sha256=expected_sha256, expected_size=expected_size)
        final = path_of(sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, final)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return sha256, size


def copy_checked(
    chunks: Iterable[bytes], file: BinaryIO, *, limit: int, expected_sha256: str | None, expected_size: int | None
) -> tuple[str, int]:
    """Write a stream to a file on disk, hashing it; returns (sha256, size in bytes). Raises as `write_stream`."""
    digest, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise HyperGPUError("artifact.too_large", f"The upload is larger than the {limit} bytes allowed.", limit=limit)
        digest.update(chunk)
        file.write(chunk)
    file.flush()
    os.fsync(file.fileno())
    sha256 = digest.hexdigest()
    if expected_size is not None and size < expected_size:
        raise HyperGPUError("artifact.truncated", f"Only {size} of {expected_size} bytes arrived; upload again.")
    if expected_sha256 is not None and sha256 != expected_sha256:
        raise HyperGPUError("artifact.hash_mismatch", f"The bytes hash to {sha256}, not to the committed {expected_sha256}.")
    return sha256, size


def read(sha256: str) -> bytes:
    """Raises HyperGPUError `artifact.unknown` when the blob is not in the store."""
    try:
        return path_of(sha256).read_bytes()
    except FileNotFoundError as error:
        raise HyperGPUError("artifact.unknown", f"There is no artifact {sha256} here.") from error
