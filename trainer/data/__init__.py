"""Datasets: untrusted files in, fixed splits and seeded shards out.

Read `sample.py` (what comes out), `splits.py` (how it is cut), `shards.py` (who trains on what), then one file per kind.
"""

from __future__ import annotations

from pathlib import Path

from trainer.data.cifar10 import load_cifar10
from trainer.data.digits import load_digits
from trainer.data.idx import load_idx
from trainer.data.npz import load_npz
from trainer.data.sample import Dataset, SampleInfo, Split
from trainer.data.shards import shard_batches, shard_indices
from trainer.data.text import load_text
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import DataSpec

__all__ = ["Dataset", "SampleInfo", "Split", "load_dataset", "shard_batches", "shard_indices"]

LOADERS = {"digits": load_digits, "idx": load_idx, "cifar10": load_cifar10, "npz": load_npz}


def load_dataset(spec: DataSpec, *, files: dict[str, Path]) -> Dataset:
    """The dataset of `spec`, from local copies of its files by role. Whoever fetched them has checked their hashes.

    Raises HyperGPUError `data.missing_file`, `data.malformed` or `data.too_large`.
    """
    missing = sorted(role for role in spec.files if role not in files or not files[role].is_file())
    if missing:
        raise HyperGPUError("data.missing_file", f"Fetch the data file(s) first: {', '.join(missing)}.", roles=missing)
    named = {role: files[role] for role in spec.files}
    if spec.kind == "text":
        return load_text(named, sequence_length=spec.sequence_length)
    return LOADERS[spec.kind](named)
