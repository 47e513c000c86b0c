"""What a node has made, on disk: a finished order is handed in again after a crash, never computed again."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from trainer.operator.config import Home, write_json
from trainer.protocol.canonical import canonical_sha256, sha256_hex
from trainer.protocol.orders import WorkOrder

MAX_POINTS = 64
"""Loss points that are reported for one order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkResult:
    """`base` is the model version that the worker found itself to start from; `sha256` and `size` (bytes) name the artifact;
    `losses` are (step from 1, loss in nats); `seconds` of training, in which `ahead` steps were done before the order came."""

    base: str
    sha256: str
    size: int
    units: int
    steps_done: int
    losses: list[list[float]]
    seconds: float
    ahead: int = 0
    handed_in: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What an audit is shown of an order of job `job_id`: `sha256` and `size` (bytes) name the file."""

    sha256: str
    size: int
    job_id: int
    round: int


def order_key(order: WorkOrder) -> str:
    """64 hex digits over all that decides the result: the same for each lease of a slot, whatever its fence and deadline, and
    wherever late work is handed in."""
    return canonical_sha256(order.as_trained.model_dump(mode="json", exclude={"fence", "deadline"}))


def save_artifact(home: Home, data: bytes) -> str:
    """Store bytes under their SHA-256, whole or not at all."""
    sha256 = sha256_hex(data)
    temporary = home.artifacts / f".{sha256}.{os.getpid()}"
    temporary.write_bytes(data)
    os.replace(temporary, home.artifacts / sha256)
    return sha256


def save_result(home: Home, order: WorkOrder, result: WorkResult) -> None:
    write_json(home.results / f"{order_key(order)}.json", asdict(result))


def find_result(home: Home, order: WorkOrder) -> WorkResult | None:
    """The result of an earlier run of `order` that was never handed in, if its artifact is still here and intact.

    An order that is given out again after its receipt was taken belongs to another world (a new test chain): do it anew.
    """
    path = home.results / f"{order_key(order)}.json"
    if not path.exists():
        return None
    result = WorkResult(**json.loads(path.read_text()))
    artifact = home.artifacts / result.sha256
    if result.handed_in or not artifact.exists() or sha256_hex(artifact.read_bytes()) != result.sha256:
        return None
    return result


def mark_handed_in(home: Home, order: WorkOrder, result: WorkResult) -> None:
    save_result(home, order, replace(result, handed_in=True))


def was_handed_in(home: Home, key: str) -> bool:
    path = home.results / f"{key}.json"
    return path.exists() and bool(json.loads(path.read_text())["handed_in"])


def loss_points(losses: Sequence[float], *, steps: int) -> list[list[float]]:
    """At most 64 of the losses of an order of `steps` steps, evenly spread, as [step from 1, loss]; the last always."""
    return [point(step, loss) for step, loss in enumerate(losses, 1) if is_point(step, steps=steps)]


def point(step: int, loss: float) -> list[float]:
    """As a curve shows it: five digits, since every one of them travels."""
    return [step, float(f"{loss:.5g}")]


def is_point(step: int, *, steps: int) -> bool:
    return (steps - step) % -(-steps // MAX_POINTS) == 0
