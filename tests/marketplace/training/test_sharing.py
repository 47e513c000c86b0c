"""Several jobs share the operators."""

from __future__ import annotations

import pytest

from marketplace.jobs.models import Job
from marketplace.operators.models import Bid
from marketplace.training.services import rounds, sharing
from tests.marketplace.training.work import started
from tests.marketplace.world import TestNode, fund, register

pytestmark = pytest.mark.django_db


def running(chain_id: int, **changes: int) -> Job:
    return started(fund(chain_id=chain_id, spec={"seed": chain_id}, **changes))


def four(nodes: list[TestNode]) -> None:
    for node_id in (3, 4):
        register(node_id).bid(rate=6)


def members(job: Job) -> list[int]:
    return sorted(job.seats.values_list("node_id", flat=True))


def test_a_second_job_takes_the_nodes_that_are_idle_though_they_ask_more(nodes: list[TestNode]) -> None:
    four(nodes)
    first, second = running(1), running(2)
    for job in (first, second):
        rounds.open_round(job_id=job.pk)
    assert (members(first), members(second)) == ([1, 2], [3, 4])


def test_with_too_few_nodes_jobs_share_them(nodes: list[TestNode]) -> None:
    first, second = running(1), running(2)
    for job in (first, second):
        rounds.open_round(job_id=job.pk)
    assert members(first) == members(second) == [1, 2]


def test_of_two_jobs_that_are_short_the_second_leaves_the_first_its_own(nodes: list[TestNode]) -> None:
    four(nodes)
    first, second = running(1), running(2)
    first.seats.all().delete()
    second.seats.all().delete()
    bids = {bid.node_id: bid for bid in Bid.objects.order_by("rate", "node_id")}
    assert [bid.node_id for bid in sharing.in_order(first, bids)] == [1, 2, 3, 4]
    assert [bid.node_id for bid in sharing.in_order(second, bids)] == [3, 4, 1, 2]
