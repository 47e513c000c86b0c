"""What the database says of money is what the contract says, after everything that can happen to a job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import override_settings

from marketplace.chain.indexer import index_once
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node, Operator
from marketplace.settlement.models import AttestorSet
from tests.marketplace.world import SMALL
from tests.support.anvil import chain_settings, start_anvil
from tests.support.market import LocalMarket, account, busy_job
from trainer.protocol.spec import parse_spec

pytestmark = [pytest.mark.chain, pytest.mark.django_db]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[LocalMarket]:
    """The contract on a chain of its own, and settings that name it."""
    with start_anvil() as anvil:
        market = LocalMarket.deploy(anvil)
        terms = {"market": {"challengeWindow": 3600}, "registry": {"epochLength": 3600}}
        deployment = {"chainId": 31337, "market": market.address, "token": market.token, "block": 0, "terms": terms}
        (tmp_path / "deployment.json").write_text(json.dumps(deployment))
        with override_settings(HYPERGPU=chain_settings(anvil, tmp_path)):
            yield market


def draft() -> None:
    """A draft that waits for the escrow which `LocalMarket.post_job` brings."""
    spec = parse_spec(SMALL).model_dump(mode="json")
    Job.objects.create(requester=account("requester"), name="a job", spec=spec, spec_hash="5e" * 32, max_rate=1, escrow=1)


def read_everything(market: LocalMarket) -> None:
    market.anvil.mine(3)
    while index_once():
        pass


def compare(market: LocalMarket) -> None:
    for job in Job.objects.all():
        told = market.view("getJob", job.chain_id)
        assert (int(job.escrow), int(job.spent)) == (told["escrow"], told["spent"])
        assert (job.state == Job.State.CLOSED) == told["closed"]
        recorded = Seat.objects.filter(job=job, recorded_round__isnull=False)
        assert recorded.count() == told["records"]
        assert sum(seat.recorded_units * int(seat.rate) for seat in recorded) == told["reserved"]
    for node in Node.objects.all():
        told = market.view("getNodeMetrics", node.pk)
        mine = {name: int(getattr(node, name)) for name in ("rounds", "units", "quality_sum", "faults", "credit", "earned")}
        assert mine == {name: told[name] for name in mine}
    for operator in Operator.objects.all():
        assert int(operator.stake) == market.view("getOperator", operator.address)["stake"]
    newest, told = AttestorSet.objects.order_by("-epoch").first(), market.view("getAttestors")
    assert newest is not None
    assert (newest.pk, newest.members, newest.quorum) == (told["epoch"], told["members"], told["quorum"])


def test_after_records_batches_disputes_and_the_end(market: LocalMarket) -> None:
    draft()
    busy_job(market)
    read_everything(market)
    assert Job.objects.get().state == Job.State.CLOSED
    assert Node.objects.count() == 3
    assert sum(Node.objects.values_list("faults", flat=True)) == 1
    compare(market)


def test_while_records_stand_and_credit_is_taken_out(market: LocalMarket) -> None:
    draft()
    job = market.post_job(escrow=100_000)
    one, two = market.register("one"), market.register("two")
    for node in (one, two):
        market.take_seat(job, node, rate=3)
        market.record(job, 0, node, 100)
    read_everything(market)
    compare(market)
    assert Seat.objects.exclude(recorded_round=None).count() == 2
    market.settle(market.batch(job, {one: 100}, [[9_000], [8_000], [10_000]]))
    free = market.view("getNodeMetrics", one.id)["withdrawable"]
    market.call("withdraw", one.id, free, one.wallet.address, sender=one.wallet.address)
    read_everything(market)
    compare(market)
    assert Seat.objects.get(node_id=two.id).recorded_round == 0, "left out, and still reserved"
    assert int(Node.objects.get(pk=one.id).earned) == 270
