"""CIFAR-10 in its binary version: records of one label byte and 3 x 32 x 32 pixel bytes (cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.data.limits import check_size, malformed, read_file
from trainer.data.sample import Dataset
from trainer.data.splits import image_dataset

RECORD = 1 + 3 * 32 * 32


def load_cifar10(files: dict[str, Path]) -> Dataset:
    """All batches of `files`, in the order of their names."""
    check_size("cifar10", sum(path.stat().st_size for path in files.values()))
    records = np.concatenate([parse_batch(name, read_file(name, path)) for name, path in sorted(files.items())])
    return image_dataset(records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0])


def parse_batch(name: str, content: bytes) -> np.ndarray:
    """Records (n, 3073) uint8. Raises HyperGPUError `data.malformed`."""
    if not content or len(content) % RECORD:
        raise malformed(f"{name} holds {len(content)} bytes, which are not whole CIFAR-10 records of {RECORD}.")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        raise malformed(f"{name} holds the label {records[:, 0].max()}; CIFAR-10 has labels 0 to 9.")
    return records
