"""The whole path with the real processes: from a bid to money that is final, and every step told on the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scripts.hypergpu_demo import report
from scripts.hypergpu_demo.market import Market
from tests.flow.test_without_trust import hypergpu
from tests.support.stack import finished, running_stack

pytestmark = pytest.mark.processes

SPEC = {
    "rounds": {"rounds": 3, "nodes": 2, "quorum": 2, "deadline_seconds": 60},
    "target": {"metric": "accuracy", "value": 0.75},
}
LIFE = [
    "job.funded", "job.started", "round.opened", "assignment.leased", "assignment.committed", "contribution.received",
    "round.closed", "round.aggregated", "payment.attesting", "payment.queued", "payment.sent", "payment.final", "round.settled",
]  # fmt: skip


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with running_stack(operators=2) as market:
        yield market


def test_a_job_is_trained_settled_and_paid_to_the_last_unit(market: Market):
    job = market.post_job("lifecycle", SPEC)
    snapshot = finished(market, job["id"], seconds=300)

    assert snapshot["job"]["state"] == "closed", snapshot["job"]["reason"]
    assert snapshot["job"]["round"] == 3
    assert report.improved(snapshot["job"])
    assert [c["state"] for c in snapshot["contributions"]] == ["accepted"] * 6
    assert {p["state"] for p in snapshot["payments"]} == {"final"}

    ledger = report.read_ledger(market.chain, snapshot)
    assert ledger.problems == []
    assert ledger.closed
    assert ledger.receipts == 6
    assert ledger.transactions == 3
    assert ledger.paid == ledger.spent == sum(int(p["amount"]) for p in snapshot["payments"]) == int(snapshot["job"]["spent"])
    assert int(snapshot["job"]["refund"]) == ledger.escrow - ledger.spent

    types = [event["type"] for event in market.api.get("events", topic=f"job.{job['id']}", limit=500)["events"]]
    first_seen = [types.index(name) for name in LIFE]
    assert first_seen == sorted(first_seen), dict(zip(LIFE, first_seen, strict=True))

    withdrawn = withdraw_everything(market, number=1)
    assert withdrawn > 0
    assert report.read_ledger(market.chain, snapshot).problems == []


def test_a_job_whose_fragments_are_synchronised_in_turn_is_trained_and_paid(market: Market):
    """Each upload and outer step is of a part of the model; agents, coordinator and attestors agree on every version."""
    network = {"fragments": 2, "most_stale": 0, "overlap": "eager"}
    rounds = {**SPEC["rounds"], "rounds": 4}
    job = market.post_job("fragments", {"rounds": rounds, "target": {"metric": "accuracy", "value": 1.0}, "network": network})
    snapshot = finished(market, job["id"], seconds=300)
    assert snapshot["job"]["state"] == "closed", snapshot["job"]["reason"]
    assert [c["state"] for c in snapshot["contributions"]] == ["accepted"] * 8
    losses = [round_["metric"]["loss"] for round_ in snapshot["rounds"]]
    assert losses[-1] < losses[0] - 0.1, losses
    ledger = report.read_ledger(market.chain, snapshot)
    assert ledger.problems == [] and ledger.receipts == 8 and ledger.paid == ledger.spent > 0
    audited = hypergpu(market, "audit", str(snapshot["job"]["chain_id"]), "--coordinator", market.stack.url)
    assert audited.returncode == 0, audited.stdout + audited.stderr


def withdraw_everything(market: Market, *, number: int) -> int:
    """The operator's own transaction: its credit becomes tokens in its wallet. The amount in base units."""
    wallet = market.stack.keys.wallet(f"operator-{number}")
    view, node = market.chain.market.functions, market.node_of(wallet.address)
    credit = view.getNodeMetrics(node).call()[4]
    before = market.chain.token.functions.balanceOf(wallet.address).call()
    market.chain.send(wallet, view.withdraw(node, credit, wallet.address))
    return int(market.chain.token.functions.balanceOf(wallet.address).call() - before)
