"""How data is cut: by the data alone, so that every party cuts alike."""

from __future__ import annotations

import numpy as np
import torch

from trainer.data.limits import MAX_CLASSES, MAX_FEATURES, MIN_SAMPLES, malformed
from trainer.data.permutation import permutation
from trainer.data.sample import Dataset, SampleInfo, Split


def image_dataset(images: np.ndarray, labels: np.ndarray) -> Dataset:
    """70 % train, 10 % score, 20 % eval of a fixed shuffle. `images` (n, channels, height, width) uint8 or float32
    (finite), `labels` (n,) integers from 0. Raises HyperGPUError `data.malformed`."""
    count = len(images)
    if count != len(labels) or count < MIN_SAMPLES:
        raise malformed(f"{count} images and {len(labels)} labels: there must be as many of both, at least {MIN_SAMPLES}.")
    if not 1 <= int(np.prod(images.shape[1:])) <= MAX_FEATURES:
        raise malformed(f"An image of shape {images.shape[1:]} does not hold 1 to {MAX_FEATURES} values.")
    if images.dtype != np.uint8 and not np.isfinite(images).all():
        raise malformed("The images hold values that are not finite numbers.")
    if labels.min() < 0 or labels.max() >= MAX_CLASSES:
        raise malformed(f"Labels go from {labels.min()} to {labels.max()}; they must lie in 0..{MAX_CLASSES - 1}.")
    order = permutation(count, "splits").numpy()
    inputs = torch.from_numpy(np.ascontiguousarray(images[order]))
    targets = torch.from_numpy(labels[order].astype(np.int64))
    ends = (count * 7 // 10, count * 8 // 10, count)
    parts = [Split("image", inputs[a:b], targets[a:b]) for a, b in zip((0, *ends), ends, strict=False)]
    info = SampleInfo("image", tuple(inputs.shape[1:]), max(2, int(labels.max()) + 1))
    return Dataset(info, *parts)


def text_dataset(content: bytes, *, sequence_length: int) -> Dataset:
    """Windows of `sequence_length` bytes that do not overlap, in order: 90 % train, 5 % score, 5 % eval.

    Cut in one piece, not shuffled, so that no held-out passage has its neighbourhood in the train split.
    Raises HyperGPUError `data.malformed` when there are too few windows.
    """
    count = (len(content) - 1) // sequence_length
    if count < MIN_SAMPLES:
        raise malformed(f"The text makes {max(count, 0)} samples of {sequence_length} bytes; at least {MIN_SAMPLES} are needed.")
    stream = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    inputs = stream[: count * sequence_length].view(count, sequence_length)
    targets = stream[1 : count * sequence_length + 1].view(count, sequence_length)
    held_out = max(2, count // 10)
    ends = (count - held_out, count - held_out + held_out // 2, count)
    parts = [Split("bytes", inputs[a:b], targets[a:b]) for a, b in zip((0, *ends), ends, strict=False)]
    return Dataset(SampleInfo("bytes", (sequence_length,), 256), *parts)
