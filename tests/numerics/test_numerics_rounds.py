"""Golden losses of short jobs: a change to any numeric step shows here, whatever the shapes say.

After a change that is meant to move them: WRITE_FIXTURE=1 pytest tests/numerics, and review the difference.
"""

import json
import os
from pathlib import Path

import pytest
import torch

from trainer.diloco.reference import run_job
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import JobSpec, parse_spec

FIXTURE = Path(__file__).with_name("rounds.json")
TOLERANCE = 1e-4
"""Nats: room for other vector units and thread counts, none for another algorithm."""
CONVOLUTIONS = 5e-3
"""Nats: the residual network's convolutions take other kernels on other processors; 1.4e-3 was measured between two."""
SHORT = {"inner": {"steps": 12, "batch_size": 16}, "rounds": {"rounds": 4, "nodes": 3}}
JOBS = {
    "mlp, int4, nesterov, geometric median": {},
    "cnn, topk, sgd, geometric median": {
        "model": {"architecture": "cnn", "config": {"channels": [8], "hidden": 16}},
        "encoding": {"kind": "topk", "chunk": 64, "k": 8, "error_decay": 0.95},
        "downlink": {"kind": "topk", "chunk": 64, "k": 16, "error_decay": 0.95},
        "outer": {"optimizer": "sgd", "learning_rate": 1.0},
    },
    "resnet, fp32, nesterov, weighted mean": {
        "model": {"architecture": "resnet", "config": {"width": 8}},
        "encoding": {"kind": "fp32"},
        "downlink": {"kind": "fp32"},
        "aggregation": {"rule": "weighted_mean"},
        "rounds": {"rounds": 2, "nodes": 2},
    },
    "gpt, int8, nesterov, geometric median": {
        "model": {"architecture": "gpt", "config": {"layers": 1, "heads": 2, "width": 32}},
        "data": {"kind": "text", "files": {"text": "0" * 64}, "sequence_length": 32},
        "encoding": {"kind": "int8"},
        "downlink": {"kind": "int8"},
    },
}


@pytest.fixture
def text(tmp_path) -> dict[str, Path]:
    """A text with something to learn: the squares, written out."""
    path = tmp_path / "text"
    path.write_text("".join(f"{number} times {number} is {number * number}. " for number in range(900)))
    return {"text": path}


def losses(spec: JobSpec, files: dict[str, Path]) -> list[float]:
    torch.set_num_threads(1)
    return [round(report.result.metric["loss"], 7) for report in run_job(JobWork(spec=spec, files=files))]


@pytest.mark.parametrize("name", JOBS)
def test_evaluation_losses_are_those_recorded(name, text):
    measured = losses(parse_spec(SHORT | JOBS[name]), text)
    recorded = json.loads(FIXTURE.read_text()) if FIXTURE.exists() else {}
    if os.environ.get("WRITE_FIXTURE") == "1":
        FIXTURE.write_text(json.dumps(recorded | {name: measured}, indent=2, sort_keys=True) + "\n")
        recorded = json.loads(FIXTURE.read_text())
    tolerance = CONVOLUTIONS if name.startswith("resnet") else TOLERANCE
    assert measured == pytest.approx(recorded[name], abs=tolerance)
    assert measured[-1] < measured[0]
