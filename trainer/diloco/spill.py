"""Parts of a trace on disk as soon as they are made: six bytes a parameter and segment border are no machine's memory to hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple, overload

from trainer.protocol.merkle import leaf_hash


class Part(NamedTuple):
    """Where in a file, and the hash as a leaf."""

    offset: int
    size: int
    leaf: bytes


class Spill:
    """A new file in `folder`, which vanishes with this object unless it is kept; or one that is there, to be read."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        self.path: Path | None = None
        self.file: IO[bytes]
        if name is not None:
            self.file = (folder / name).open("rb")
            return
        handle, path = tempfile.mkstemp(dir=folder, prefix=".")
        self.path, self.file = Path(path), os.fdopen(handle, "w+b")

    def __del__(self) -> None:
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)

    def add(self, data: bytes) -> int:
        """Behind what is there; where that begins."""
        offset = self.file.seek(0, os.SEEK_END)
        self.file.write(data)
        return offset

    def read(self, offset: int, size: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(size)

    def keep(self, final: Path) -> None:
        """Under this name from now on. Raises FileNotFoundError when it has been deleted to make room."""
        assert self.path is not None
        self.file.flush()
        os.replace(self.path, final)
        self.path = None


class Parts(Sequence[bytes]):
    """Some parts of a file, in their order."""

    def __init__(self, spill: Spill, parts: Sequence[Part] = ()) -> None:
        self.spill, self.parts = spill, list(parts)

    def append(self, data: bytes) -> None:
        leaf = leaf_hash(data)
        self.parts.append(Part(self.spill.add(data), len(data), leaf))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self.spill.read(part.offset, part.size) for part in self.parts[index]]
        part = self.parts[index]
        return self.spill.read(part.offset, part.size)

    def __len__(self) -> int:
        return len(self.parts)
