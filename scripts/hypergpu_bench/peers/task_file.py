"""The peers' task from the product's own functions: starting weights, every worker's batches in order, the held-out text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.hypergpu_bench.report import ROOT
from scripts.hypergpu_demo.supervise import StackError
from trainer.data import Split, load_dataset, shard_batches
from trainer.models import build_model
from trainer.models.gpt import Config
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import order_seed
from trainer.protocol.spec import JobSpec, parse_spec

TEXT = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
WORKERS = 2
INNER_STEPS = 20


def job_spec(*, rounds: int, seed: int, **more: Any) -> JobSpec:
    """HyperGPU's job; `more` are sections that replace the defaults. Raises StackError without the text."""
    if not TEXT.is_file():
        raise StackError(f"This bench trains on Tiny Shakespeare: put the text into {TEXT}.")
    return parse_spec({
        "seed": seed,
        "model": {"architecture": "gpt"},
        "data": {"kind": "text", "files": {"text": sha256_hex(TEXT.read_bytes())}, "sequence_length": 64},
        "inner": {"steps": INNER_STEPS, "batch_size": 8, "learning_rate": 2e-3},
        "rounds": {"rounds": rounds, "nodes": WORKERS, "quorum": 1, "deadline_seconds": 120},
        "target": {"metric": "loss", "value": 5.0},
        **more,
    })  # fmt: skip


def write_task(path: Path, spec: JobSpec) -> int:
    """What task.py reads; returns the number of the model's parameters."""
    dataset = load_dataset(spec.data, files={"text": TEXT})
    model = build_model(spec.model, dataset.info, seed=spec.seed)
    config = Config.model_validate(spec.model.config)
    inner = spec.inner
    recipe = {
        "model": {"layers": config.layers, "heads": config.heads, "width": config.width, "length": dataset.info.shape[0]},
        "learning_rate": inner.learning_rate, "warmup_steps": inner.warmup_steps, "weight_decay": inner.weight_decay,
        "clip_norm": inner.clip_norm,
    }  # fmt: skip
    np.savez(
        path, recipe=np.array(json.dumps(recipe)),
        batches=torch.stack([batches_of(worker, spec, dataset.train) for worker in range(spec.rounds.nodes)]).numpy(),
        held_out=torch.stack([dataset.eval.inputs, dataset.eval.targets]).numpy(),
        **{name: value.numpy() for name, value in model.state_dict().items()},
    )  # fmt: skip
    return sum(parameter.numel() for parameter in model.parameters())


def batches_of(worker: int, spec: JobSpec, train: Split) -> torch.Tensor:
    """(steps of the whole job, 2, batch, length) uint8: what the worker's orders give it, round after round."""
    pairs = [
        torch.stack([inputs, targets]).to(torch.uint8)
        for number in range(spec.rounds.rounds)
        for inputs, targets in shard_batches(
            train, shard=worker, shards=spec.rounds.nodes, seed=order_seed(spec, number, worker),
            steps=spec.inner.steps, batch_size=spec.inner.batch_size,
        )
    ]  # fmt: skip
    return torch.stack(pairs)
