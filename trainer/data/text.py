"""A text file as bytes: any encoding, no tokenizer."""

from __future__ import annotations

from pathlib import Path

from trainer.data.limits import read_file
from trainer.data.sample import Dataset
from trainer.data.splits import text_dataset


def load_text(files: dict[str, Path], *, sequence_length: int) -> Dataset:
    return text_dataset(read_file("text", files["text"]), sequence_length=sequence_length)
