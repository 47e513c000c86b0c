"""The two tasks on real files that benchmarks train on, each with eight nodes: a byte GPT on tiny Shakespeare, a CNN on MNIST."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.hypergpu_bench.report import ROOT
from scripts.hypergpu_demo.supervise import StackError
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import parse_spec

NODES = 8
FOLDER = "HYPERGPU_BENCH_DATA"


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """`files` by role, as names in the data folder; `spec` is a job's specification but for seed and encodings."""

    files: Mapping[str, str]
    spec: Mapping[str, Any]

    def job(self, **overrides: Any) -> JobWork:
        """The job with `overrides` of its specification's fields, ready to run. Raises StackError when a file is missing."""
        files = {role: data_file(name) for role, name in self.files.items()}
        data = dict(self.spec["data"]) | {"files": {role: sha256_hex(path.read_bytes()) for role, path in files.items()}}
        return JobWork(spec=parse_spec({**self.spec, "data": data, **overrides}), files=files)


TASKS = {
    "text": Task(
        files={"text": "tinyshakespeare.txt"},
        spec={
            "model": {"architecture": "gpt", "config": {"layers": 2, "width": 64}},
            "data": {"kind": "text", "sequence_length": 64},
            "inner": {"steps": 20, "batch_size": 8, "learning_rate": 3e-3},
            "rounds": {"rounds": 20, "nodes": NODES, "quorum": NODES},
        },
    ),
    "images": Task(
        files={"images": "t10k-images-idx3-ubyte.gz", "labels": "t10k-labels-idx1-ubyte.gz"},
        spec={
            "model": {"architecture": "cnn", "config": {"channels": [8, 16], "hidden": 32}},
            "data": {"kind": "idx"},
            "inner": {"steps": 20, "batch_size": 16, "learning_rate": 1e-3},
            "rounds": {"rounds": 20, "nodes": NODES, "quorum": NODES},
        },
    ),
}


def data_file(name: str) -> Path:
    """A file of the data folder: `HYPERGPU_BENCH_DATA`, or ../shared/data beside the repository. Raises StackError."""
    folder = Path(os.environ.get(FOLDER) or ROOT.parent / "shared" / "data")
    if not (path := folder / name).is_file():
        raise StackError(
            f"There is no {name} in {folder}. Benchmarks train on tiny Shakespeare (char-rnn's example) and on MNIST's test part "
            f"(IDX): put {name} into a folder and name it with {FOLDER}."
        )
    return path
