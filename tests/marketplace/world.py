"""A small world for tests: operators with stake and nodes, a requester with a funded job, all through the services."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.test import Client, override_settings
from eth_account import Account
from eth_account.signers.local import LocalAccount
from pydantic import SecretStr

from marketplace.chain.projections import LogEntry
from marketplace.chain.services import domain
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators import services as operators
from marketplace.operators.models import Bid, Node
from marketplace.settlement import tasks
from marketplace.settlement.models import AttestorSet, Batch
from marketplace.settlement.services import attestations, epochs
from tests.settings import ATTESTORS, test_key
from trainer.protocol import eip712
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.requests import sign_request
from trainer.protocol.spec import parse_spec
from trainer.protocol.types import Bid as SignedBid
from trainer.protocol.types import Receipt

HOST = "testserver"
SMALL = {
    "inner": {"steps": 4, "batch_size": 8},
    "rounds": {"rounds": 2, "nodes": 2, "quorum": 1, "deadline_seconds": 60},
}


def wallet(name: str) -> LocalAccount:
    account: LocalAccount = Account.from_key(test_key(name))
    return account


@dataclass
class TestNode:
    """A node with its keys, and the requests that its agent would send."""

    __test__ = False
    id: int
    operator: LocalAccount
    hot: LocalAccount

    @property
    def row(self) -> Node:
        return Node.objects.get(pk=self.id)

    def call(
        self, method: str, path: str, body: Any = None, *, key: str | None = None, raw: bytes | None = None, **extra: Any
    ) -> HttpResponse:
        """One signed request; `raw` sends bytes, `key` signs with another key than the node's."""
        data = raw if raw is not None else (json.dumps(body).encode() if body is not None else b"")
        bare, _, query = path.partition("?")
        headers = sign_request(
            method=method, path=bare, query=query, body_sha256=sha256_hex(data), audience=HOST, private_key=key or self.hot.key
        )
        kind = "application/octet-stream" if raw is not None else "application/json"
        return Client().generic(method, path, data, content_type=kind, headers={**headers, **extra})  # type: ignore[return-value]

    def bid(self, *, rate: int = 5, job_id: int = 0, **changes: Any) -> Bid:
        message = SignedBid(
            **{
                "job_id": job_id,
                "node_id": self.id,
                "rate": rate,
                "capacity": 10**6,
                "expires_at": int(time.time()) + 3600,
                "nonce": 0,
            }
            | changes
        )
        return operators.post_bid(message=message, signature=eip712.sign(domain(), message, self.operator.key))

    def receipt(self, order: dict[str, Any], artifact: str, **changes: Any) -> dict[str, Any]:
        """A receipt for `order`, as it goes over the wire."""
        fields = {
            "job_id": order["job_id"], "round": order["round"], "node_id": self.id,
            "units": order["steps"] * order["spec"]["inner"]["batch_size"],
            "base": "0x" + order["base"], "artifact": "0x" + artifact,
        } | changes  # fmt: skip
        return fields

    def sign(self, receipt: dict[str, Any], key: str | None = None) -> str:
        return eip712.sign(domain(), Receipt(**receipt), key or self.hot.key)


def register(node_id: int, *, stake: int = 10**7, online: bool = True) -> TestNode:
    """An operator with a stake and a node, as the indexer would record them; online as after a hello."""
    operator, hot = wallet(f"operator {node_id}"), wallet(f"hot {node_id}")
    operators.record_stake(operator=operator.address, added=stake)
    operators.record_registration(
        node_id=node_id, operator=operator.address, hot_key=hot.address, expires_at=int(time.time()) + 86_400
    )
    node = TestNode(id=node_id, operator=operator, hot=hot)
    if online:
        operators.greet(node=node.row, device="cpu", software={}, samples_per_second=None)
    return node


def fund(
    *, spec: dict[str, Any] | None = None, chain_id: int = 1, max_rate: int = 10, escrow: int = 10**6, **beside: Any
) -> Job:  # fmt: skip
    """A job whose escrow is final; `beside` its specification: goal, finish_by."""
    parsed = parse_spec(SMALL | (spec or {}))
    requester = wallet("requester").address
    job = jobs.draft_job(requester=requester, name="a job", spec=parsed, max_rate=max_rate, escrow=escrow, **beside)
    jobs.record_creation(chain_id=chain_id, requester=requester, spec="0x" + parsed.sha256(), escrow=escrow, max_rate=max_rate)
    job.refresh_from_db()
    return job


def begin_epoch(epoch: int = 1, names: Sequence[str] = ATTESTORS, *, quorum: int = 2) -> AttestorSet:
    """A set of attestors, as the indexer would record it."""
    said = {"epoch": epoch, "members": [wallet(name).address for name in names], "quorum": quorum}
    now = int(time.time())
    epochs.record_epoch(LogEntry(name="EpochBegun", args=said, block=1, block_hash="", tx_hash="", log_index=0, timestamp=now))
    return AttestorSet.objects.get(epoch=epoch)


@contextmanager
def worker_of(name: str) -> Iterator[None]:
    """Settings of this attestor's worker: the only process with its key."""
    with override_settings(HYPERGPU=settings.HYPERGPU.model_copy(update={"attestor_key": SecretStr(test_key(name))})):
        yield


def ask(batch: Batch, *names: str) -> Batch:
    """These attestors' workers take their next step, as if the coordinator had asked them."""
    for name in names:
        with worker_of(name):
            tasks.attest(batch_id=batch.pk)
    batch.refresh_from_db()
    return batch


def attest(batch: Batch, *names: str) -> Batch:
    """Commit, then open: the whole of a batch's attestation."""
    ask(batch, *(names or ATTESTORS))
    attestations.press(batch_id=batch.pk)
    return ask(batch, *(names or ATTESTORS))
