"""The bundled file is read directly, because scikit-learn's own loader takes a second of imports."""

import numpy as np
import torch
from sklearn.datasets import load_digits as load_with_sklearn

from trainer.data.digits import load_digits
from trainer.data.splits import image_dataset


def test_digits_are_those_of_scikit_learns_loader():
    bundled = load_with_sklearn()
    expected = image_dataset((bundled.images / 16).astype(np.float32)[:, None], bundled.target)
    found = load_digits({})
    for split in ("train", "score", "eval"):
        ours, theirs = getattr(found, split), getattr(expected, split)
        every = torch.arange(len(theirs))
        for mine, other in zip(ours.take(every), theirs.take(every), strict=True):
            assert mine.dtype == other.dtype
            assert torch.equal(mine, other)
