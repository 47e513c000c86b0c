"""A node's work in a test: really trained, handed in over HTTP."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import cache
from typing import Any

from django.utils import timezone

from marketplace.artifacts import store
from marketplace.jobs.models import Job
from marketplace.training import engine, selectors
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.services import verdicts
from tests.marketplace.world import TestNode
from trainer.data import load_dataset
from trainer.diloco.checkpoint import load_checkpoint
from trainer.diloco.local import NodeState
from trainer.diloco.trace import Contributed
from trainer.diloco.trace import contribute as contribute_to
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder

HASH = "0x" + "5e" * 32
AUDITED = {"audit": {"rate": 0.0, "newcomer_rate": 1.0, "newcomer_rounds": 2, "stride": 2, "segments": 1}}


def started(job: Job) -> Job:
    """The job with its first checkpoint: running."""
    verdicts.record_start(job_id=job.pk, prepared=engine.prepare(selectors.job_work(job)))
    job.refresh_from_db()
    return job


def overdue() -> None:
    """Every round is past its planned deadline, and past the job's own."""
    past = timezone.now() - timedelta(hours=1)
    Round.objects.update(deadline=past, opened_at=past - timedelta(days=1))


def lease(node: TestNode) -> dict[str, Any]:
    answer = node.call("POST", "/agent/v1/leases", {"link": {"rtt": [1.5]}})
    assert answer.status_code == 200, answer.content
    return answer.json()  # type: ignore[attr-defined, no-any-return]


@cache
def trained(order_json: str) -> Contributed:
    """A fresh node's work on an order; the same order is trained once per test run."""
    order = WorkOrder.model_validate_json(order_json)
    dataset = load_dataset(order.spec.data, files={})
    state = NodeState(order.spec, dataset.info)
    base = load_checkpoint(store.read(order.checkpoint), shapes=state.shapes)
    return contribute_to(state, order, base, dataset)


def train(leased: dict[str, Any]) -> bytes:
    return worked(leased).upload


def worked(leased: dict[str, Any]) -> Contributed:
    return trained(WorkOrder.model_validate(leased["order"]).model_dump_json())


def path(leased: dict[str, Any], verb: str) -> str:
    return f"/agent/v1/assignments/{leased['assignment_id']}/{verb}"


def commit(node: TestNode, leased: dict[str, Any], data: bytes, **changes: Any):  # type: ignore[no-untyped-def]
    body = {"fence": leased["fence"], "sha256": sha256_hex(data), "size": len(data)} | changes
    return node.call("POST", path(leased, "commit"), body)


def upload(node: TestNode, leased: dict[str, Any], data: bytes):  # type: ignore[no-untyped-def]
    return node.call("PUT", path(leased, f"artifact?fence={leased['fence']}"), raw=data)


def hand_in(
    node: TestNode, leased: dict[str, Any], data: bytes, *, key: str | None = None, fence: int | None = None, **changes: Any
):  # type: ignore[no-untyped-def]
    receipt = node.receipt(leased["order"], sha256_hex(data), **changes)
    body = {"fence": fence or leased["fence"], "receipt": receipt, "signature": node.sign(receipt, key), "seconds": 0.1}
    return node.call("POST", path(leased, "receipt"), body)


def at_once(node: TestNode, leased: dict[str, Any], data: bytes, **changes: Any):  # type: ignore[no-untyped-def]
    """Commitment, bytes and receipt in one request."""
    receipt = node.receipt(leased["order"], sha256_hex(data), **changes)
    body = {"fence": leased["fence"], "receipt": receipt, "signature": node.sign(receipt), "seconds": 0.1}
    return node.call("PUT", path(leased, "contribution"), raw=json.dumps(body).encode() + b"\n" + data)


def contribute(node: TestNode, data: bytes | None = None):  # type: ignore[no-untyped-def]
    """The whole of a slot: lease, train (or send `data`), commit, upload, receipt."""
    return hand_in_all(node, lease(node), data)


def hand_in_all(node: TestNode, leased: dict[str, Any], data: bytes | None = None):  # type: ignore[no-untyped-def]
    """What follows a lease."""
    data = train(leased) if data is None else data
    assert commit(node, leased, data).status_code == 200
    assert upload(node, leased, data).status_code == 200
    return hand_in(node, leased, data)


def paid(job: Job, number: int, node_ids: tuple[int, ...] = (1, 2), *, block: int = 100) -> Round:
    """A settled round of these nodes' work."""
    round_ = Round.objects.create(
        job=job, number=number, base="00" * 32, deadline=timezone.now(), state=Round.State.SETTLED, settled_block=block
    )
    for node_id in node_ids:
        slot = Assignment.objects.create(round=round_, node_id=node_id, shard=0, steps=7, encoding={}, state="handed_in")
        Contribution.objects.create(
            assignment=slot, round=round_, node_id=node_id, state=Contribution.State.ACCEPTED, units=1, size=1, seconds=1,
            artifact=f"{job.pk}{number}{node_id}".rjust(64, "a"), signature=f"0x{number}{node_id}", committed_at=timezone.now(),
        )  # fmt: skip
    return round_
