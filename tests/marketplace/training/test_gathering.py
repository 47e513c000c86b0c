"""Uploads by way of near nodes: planned from what was measured, told to both ends, and judged by what they took."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from marketplace.jobs.models import Job
from marketplace.operators import links
from marketplace.operators.facts import facts_of
from marketplace.operators.links import LinkReport
from marketplace.operators.models import Measurement, Node
from marketplace.training.models import Assignment
from marketplace.training.services import rounds
from tests.marketplace.training.test_pieces import piece_of
from tests.marketplace.training.work import commit, hand_in, lease, path, started, train, upload
from tests.marketplace.world import TestNode, fund
from trainer.network.facts import architecture_of
from trainer.network.regions import MOST_GAIN
from trainer.network.transfers import connection_rate

pytestmark = pytest.mark.django_db
RTT, LOSS, NEAR = 0.4, 0.02, 0.005
BY_TCP = connection_rate(RTT, LOSS)
LONG = {"inner": {"steps": 16, "batch_size": 8}, "rounds": {"rounds": 9, "nodes": 2, "quorum": 1, "deadline_seconds": 60}}


def measure(node: int, of: str = "", **values: float) -> None:
    for quantity, value in values.items():
        Measurement.objects.update_or_create(
            node_id=node, quantity=quantity, of=of, claimed=False,
            defaults={"source": "transfer", "value": value, "samples": 9, "at": timezone.now()},
        )  # fmt: skip


@pytest.fixture
def job(nodes: list[TestNode]) -> Job:
    """Node 2 is near node 1, whose own way is good; its own is long and loses packets."""
    job = started(fund(spec=LONG))
    measure(1, up=1e7, down=1e7, rtt=0.02)
    measure(2, up=BY_TCP, down=1e7, rtt=RTT, loss=LOSS)
    for node in (1, 2):
        measure(node, of=architecture_of(job.parsed_spec), speed=100.0)
    measure(2, of="1", peer_rtt=NEAR)
    Node.objects.filter(pk=1).update(endpoint="http://203.0.113.1:7070")
    return job


def opened(job: Job) -> dict[int, Assignment]:
    rounds.open_round(job_id=job.pk)
    return {slot.node_id: slot for slot in Assignment.objects.filter(round__job=job, round__number=0)}


def test_what_was_measured_decides_and_both_ends_are_told_with_the_reason(nodes: list[TestNode], job: Job) -> None:
    slots = opened(job)
    assert {node: slot.via for node, slot in slots.items()} == {1: None, 2: 1}
    gathers, gathered = lease(nodes[0]), lease(nodes[1])
    assert gathers["peers"] == {"carry": [Node.objects.get(pk=2).hot_key]}
    assert gathered["peers"]["gather"] == {"node": 1, "url": "http://203.0.113.1:7070"}
    assert any("by way of node 1" in reason for reason in gathered["reasons"])
    assert any("passes on the uploads of 1 near node" in reason for reason in gathers["reasons"])
    assert slots[2].predicted["upload_s"] < RTT + len(train(gathered)) / BY_TCP


@pytest.mark.parametrize("why", ["no endpoint", "far", "equal"])
def test_without_a_near_node_that_can_be_reached_all_goes_direct(nodes: list[TestNode], job: Job, why: str) -> None:
    if why == "no endpoint":
        Node.objects.filter(pk=1).update(endpoint="")
    elif why == "far":
        measure(2, of="1", peer_rtt=0.9 * RTT)
    else:
        job.spec["network"]["policy"] = "equal"
        job.save()
    assert {slot.via for slot in opened(job).values()} == {None}
    assert "carry" not in lease(nodes[0]).get("peers", {}) and "gather" not in lease(nodes[1]).get("peers", {})


def test_who_is_not_there_is_near_nobody(nodes: list[TestNode], job: Job) -> None:
    (alone,) = facts_of([Node.objects.get(pk=2)], job.parsed_spec)
    assert alone.near == {}
    Node.objects.filter(pk=1).update(last_seen=timezone.now() - timedelta(days=1))
    assert facts_of(list(Node.objects.order_by("id")), job.parsed_spec)[1].near == {}


def ways(node: int) -> dict[str, Any]:
    return {row.of: row for row in Measurement.objects.filter(node_id=node, quantity="up", claimed=False)}


@pytest.mark.parametrize("via", ["1", "7", ""])
def test_a_way_that_no_order_named_is_the_nodes_own(nodes: list[TestNode], job: Job, via: str) -> None:
    """Else a node that says so is never measured."""
    Node.objects.filter(pk=1).update(endpoint="")
    assert opened(job)[2].via is None
    leased = lease(nodes[1])
    data, fence = train(leased), leased["fence"]
    commit(nodes[1], leased, data)
    for index in range(2):
        assert nodes[1].call("PUT", path(leased, f"pieces/2/{index}?fence={fence}&via={via}"), raw=piece_of(data, 2, index))
    assert ways(2)[""].samples == 10


@pytest.mark.parametrize("in_pieces", [False, True])
def test_an_upload_that_came_by_it_says_nothing_of_the_direct_way(nodes: list[TestNode], job: Job, in_pieces: bool) -> None:
    opened(job)
    leased = lease(nodes[1])
    data, fence = train(leased), leased["fence"]
    commit(nodes[1], leased, data)
    if in_pieces:
        for index in range(2):
            target = path(leased, f"pieces/2/{index}?fence={fence}&via=1")
            assert nodes[1].call("PUT", target, raw=piece_of(data, 2, index)).status_code == 200
    else:
        assert nodes[1].call("PUT", path(leased, f"artifact?fence={fence}&via=1"), raw=data).status_code == 200
    assert hand_in(nodes[1], leased, data).status_code == 200
    assert ways(2)[""].samples == 9 and ways(2)["1"].samples == 1
    (_, fact) = facts_of(list(Node.objects.order_by("id")), job.parsed_spec)
    assert fact.via[1].value == pytest.approx(ways(2)["1"].value) and fact.up.value == BY_TCP


def test_an_upload_that_fell_back_counts_alone_so_that_the_next_goes_direct(nodes: list[TestNode], job: Job) -> None:
    opened(job)
    measure(2, of="1", up=MOST_GAIN * BY_TCP)
    leased = lease(nodes[1])
    data = train(leased)
    commit(nodes[1], leased, data)
    Assignment.objects.filter(node_id=2).update(committed_at=timezone.now() - timedelta(seconds=100))
    assert upload(nodes[1], leased, data).status_code == 200
    assert hand_in(nodes[1], leased, data).status_code == 200
    assert ways(2)["1"].samples == 1 and ways(2)["1"].value == pytest.approx(len(data) / 100, rel=0.1)
    again = Job.objects.get(pk=job.pk)
    decided = facts_of(list(Node.objects.order_by("id")), again.parsed_spec)[1]
    assert decided.via[1].value < decided.up.value


def test_what_a_node_says_of_shared_steps_is_its_word(nodes: list[TestNode], job: Job) -> None:
    links.record_report(node_id=2, report=LinkReport(shared={1: (10**6, 0.5)}))
    fact = facts_of(list(Node.objects.order_by("id")), job.parsed_spec)[1]
    assert (fact.shared[1].value, fact.shared[1].claimed) == (2e6, True)
    assert fact.down.value == 1e7
