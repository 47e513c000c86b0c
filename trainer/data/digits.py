"""Real handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 (UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from trainer.data.sample import Dataset
from trainer.data.splits import image_dataset
from trainer.protocol.errors import HyperGPUError


def load_digits(files: dict[str, Path]) -> Dataset:
    """Raises HyperGPUError `data.missing_file` where scikit-learn is not installed."""
    table = np.loadtxt(bundled_file(), delimiter=",", dtype=np.float32)
    return image_dataset((table[:, :64] / 16).reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64))


def bundled_file() -> Path:
    """The file that `sklearn.datasets.load_digits` reads; importing that takes a second and half of SciPy."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise HyperGPUError("data.missing_file", "The digits come with scikit-learn: pip install scikit-learn.")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
