"""The jobs that the demo posts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.hypergpu_demo.supervise import StackError

MODELS: dict[str, dict[str, dict[str, Any]]] = {
    "digits": {
        "mlp": {"architecture": "mlp", "config": {}},
        "mlp-wide": {"architecture": "mlp", "config": {"hidden": [512, 256]}},
        "mlp-large": {"architecture": "mlp", "config": {"hidden": [1024, 1024]}},
        "cnn": {"architecture": "cnn", "config": {}},
        "resnet": {"architecture": "resnet", "config": {}},
        "vgg": {"architecture": "vgg", "config": {}},
    },
    "text": {"gpt": {"architecture": "gpt", "config": {"layers": 2, "width": 64}}},
}
ROUNDS = {"digits": 12, "text": 10}
DEFAULT_MODEL = {"digits": "mlp", "text": "gpt"}
EMULATED_MODEL = {"digits": "mlp-wide", "text": "gpt"}
"""On emulated links: larger, so that headers and orders, whose bytes are scaled too, weigh little beside its files."""
EMULATED_ROUNDS = 6
UNAUDITED = {"audit": {"rate": 0, "newcomer_rate": 0}}
"""The evidence of an audit is as large as many updates: it would stand for gigabytes, which the virtual clock does not know."""
PLAIN = {
    "encoding": {"kind": "fp32"}, "downlink": {"kind": "fp32"}, "network": {"policy": "equal"},
}  # fmt: skip
"""DiLoCo as published: equal steps and dense fp32 both ways; with a quorum of all, everybody is waited for."""


def model_names() -> list[str]:
    return [name for models in MODELS.values() for name in models]


def spec(
    *, job: str, model: str | None, rounds: int | None, operators: int, files: dict[str, str], policy: str = "adaptive",
    emulated: bool = False, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The job's specification as POST /api/v1/jobs takes it; what is left out has the protocol's default."""
    known = MODELS[job]
    name = model or (EMULATED_MODEL if emulated else DEFAULT_MODEL)[job]
    if name not in known:
        raise StackError(f"There is no recipe for --model {name} with --job {job}: choose one of {', '.join(known)}.")
    common = {
        "model": known[name],
        "seed": seed,
        "rounds": {
            "rounds": rounds or (EMULATED_ROUNDS if emulated else ROUNDS[job]), "nodes": operators,
            "quorum": operators if policy == "equal" else max(1, operators // 2),
            "deadline_seconds": 600 if emulated else 120,
        },
    } | (PLAIN if policy == "equal" else {}) | (UNAUDITED if emulated else {})  # fmt: skip
    if job == "digits":
        return common | {"data": {"kind": "digits"}, "target": {"metric": "accuracy", "value": 0.95}}
    return common | {
        "data": {"kind": "text", "files": files, "sequence_length": 64},
        "inner": {"steps": 60, "batch_size": 16, "learning_rate": 4e-3},
        "target": {"metric": "loss", "value": 2.4},
    }


def data_files(*, job: str, data: Path | None) -> dict[str, Path]:
    """Files to upload, by role. Raises StackError when the job needs a file that is not there."""
    if job == "digits":
        return {}
    if data is None:
        raise StackError("--job text needs a text file: name one with --data PATH.")
    if not data.is_file():
        raise StackError(f"There is no file {data}.")
    return {"text": data}
