"""Limits on data from strangers, and reading under them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from trainer.protocol.errors import HyperGPUError

MAX_FILE_BYTES = 1 << 30
"""Most bytes of one file, as it lies and as it inflates."""
MAX_RATIO = 200
"""Most an archive may inflate."""
MAX_CLASSES = 10_000
MAX_FEATURES = 1 << 20
"""Most values in one image."""
MIN_SAMPLES = 20
"""Fewer cannot be cut into train, score and evaluation splits."""

GZIP_MAGIC = b"\x1f\x8b"


def malformed(reason: str) -> HyperGPUError:
    return HyperGPUError("data.malformed", reason)


def too_large(name: str, size: int, limit: int) -> HyperGPUError:
    return HyperGPUError("data.too_large", f"{name} holds {size} bytes, more than the limit of {limit}.", size=size, limit=limit)


def check_size(name: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise too_large(name, size, MAX_FILE_BYTES)


def read_file(name: str, path: Path) -> bytes:
    """All bytes of `path`, unpacked when gzip (RFC 1952).

    Raises HyperGPUError `data.too_large` before more than `MAX_FILE_BYTES` are in memory, `data.malformed` for broken gzip.
    """
    check_size(name, path.stat().st_size)
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            file.seek(0)
            return file.read(MAX_FILE_BYTES + 1)
    limit = min(MAX_FILE_BYTES, MAX_RATIO * path.stat().st_size)
    try:
        with gzip.open(path) as stream:
            content = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise malformed(f"{name} is not valid gzip: {error}") from error
    if len(content) > limit:
        raise too_large(name, len(content), limit)
    return content
