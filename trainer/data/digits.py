"""Real handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 (UCI Optical Recognition of Handwritten Digits)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.data.sample import Dataset
from trainer.data.splits import image_dataset


def load_digits(files: dict[str, Path]) -> Dataset:
    from sklearn import datasets  # noqa: PLC0415 - a second of imports that no other kind of data needs

    bundled = datasets.load_digits()
    images = (bundled.images / 16).astype(np.float32)[:, None]
    return image_dataset(images, bundled.target)
