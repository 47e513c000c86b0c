"""IDX files of the MNIST family (format as described at yann.lecun.com/exdb/mnist), plain or gzip."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from trainer.data.limits import check_size, malformed, read_file
from trainer.data.sample import Dataset
from trainer.data.splits import image_dataset

UNSIGNED_BYTE = 0x08


def load_idx(files: dict[str, Path]) -> Dataset:
    """`images` (n, height, width) and `labels` (n,), both of unsigned bytes."""
    images = parse_idx("images", read_file("images", files["images"]), dimensions=3)
    labels = parse_idx("labels", read_file("labels", files["labels"]), dimensions=1)
    return image_dataset(images[:, None], labels)


def parse_idx(name: str, content: bytes, *, dimensions: int) -> np.ndarray:
    """The uint8 array in `content`. Raises HyperGPUError `data.malformed` or `data.too_large`."""
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(content) < start:
        raise malformed(f"{name} is not an IDX file of unsigned bytes with {dimensions} dimension(s).")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    size = int(np.prod(shape, dtype=object))
    check_size(name, size)
    if len(content) - start != size:
        raise malformed(f"{name} announces {size} bytes of shape {shape} but holds {len(content) - start}.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
