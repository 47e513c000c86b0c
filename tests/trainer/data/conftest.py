import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def idx_files(tmp_path):
    """60 small images whose first pixel is their number, and labels 0..2; images packed, labels not."""
    images = np.random.RandomState(0).randint(0, 256, (60, 4, 5))
    images[:, 0, 0] = np.arange(60)
    (tmp_path / "images").write_bytes(gzip.compress(idx_bytes(images)))
    (tmp_path / "labels").write_bytes(idx_bytes(np.arange(60) % 3))
    return {"images": tmp_path / "images", "labels": tmp_path / "labels"}


@pytest.fixture
def write(tmp_path):
    def write_file(content: bytes, name: str = "file") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file
