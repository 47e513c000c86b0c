"""Several jobs share the operators: by price, fit and deadline; nobody waits without a reason."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.network.assignment import Offer, Wanted, assign, earning, matched, preference, ranking, slack

offers = st.lists(
    st.builds(Offer, node_id=st.integers(0, 9), rate=st.integers(1, 5), samples_per_second=st.sampled_from([1.0, 2.0, 8.0])),
    max_size=8, unique_by=lambda offer: offer.node_id,
)  # fmt: skip
jobs = st.lists(
    st.tuples(offers, st.integers(1, 3), st.integers(0, 2), st.one_of(st.none(), st.floats(1, 100))), min_size=1, max_size=4
).map(
    lambda found: [
        Wanted(job_id=job, quorum=quorum, nodes=quorum + more, max_rate=4, samples=100, seconds=seconds, offers=bids)
        for job, (bids, quorum, more, seconds) in enumerate(found)
    ]
)


def fitting(job: Wanted) -> dict[int, Offer]:
    return {offer.node_id: offer for offer in job.offers if offer.rate <= job.max_rate}


@given(jobs)
@settings(max_examples=200, deadline=None)
def test_an_assignment_keeps_quorums_and_explains_itself(wanted):
    found = assign(wanted)
    taken = [node for nodes in found.nodes.values() for node in nodes]
    assert len(taken) == len(set(taken))
    for job in wanted:
        nodes = found.nodes[job.job_id]
        assert not nodes or job.quorum <= len(nodes) <= job.nodes
        assert set(nodes) <= set(fitting(job))
        assert {node for number, node in found.reasons if number == job.job_id} == {offer.node_id for offer in job.offers}
        for node in nodes:
            assert found.reasons[job.job_id, node].code == "assign.taken"
    assert found == assign(wanted[::-1])


@given(jobs)
@settings(max_examples=200, deadline=None)
def test_no_node_and_job_would_both_rather_have_each_other(wanted):
    """Among jobs that have nodes: whom a job refuses is behind all of its own, or does better elsewhere, as its reason says."""
    found = assign(wanted)
    at = {node: job for job, nodes in found.nodes.items() for node in nodes}
    by_id = {job.job_id: job for job in wanted}
    for job in wanted:
        nodes, bids = found.nodes[job.job_id], fitting(job)
        ranks = ranking(job, list(bids.values()))
        for node in set(bids) - set(nodes) if nodes else ():
            if len(nodes) == job.nodes and all(ranks[node] > ranks[one] for one in nodes):
                continue
            other = by_id[at[node]]
            here = preference(bids[node], slack(job, bids), job.job_id)
            there = preference(fitting(other)[node], slack(other, fitting(other)), other.job_id)
            assert there < here
            assert found.reasons[job.job_id, node].code in ("assign.elsewhere", "assign.less_time")


@given(jobs)
@settings(max_examples=200, deadline=None)
def test_nobody_waits_that_could_have_its_quorum_beside_the_others(wanted):
    found = assign(wanted)
    bids = {job.job_id: fitting(job) for job in wanted}
    ranks = {job.job_id: ranking(job, list(bids[job.job_id].values())) for job in wanted}
    spare = {job.job_id: slack(job, bids[job.job_id]) for job in wanted}
    at_work = [job for job in wanted if found.nodes[job.job_id]]
    for job in wanted:
        if job not in at_work:
            held = matched({one.job_id: one.nodes for one in [*at_work, job]}, bids, ranks, spare)
            assert any(len(held[one.job_id]) < one.quorum for one in [*at_work, job])
            assert all(found.reasons[job.job_id, node].code == "assign.no_quorum" for node in bids[job.job_id])


def wanted(job_id: int, bids: list[Offer], **changes: object) -> Wanted:
    values = {"quorum": 2, "nodes": 2, "max_rate": 100, "samples": 1000, "offers": bids} | changes
    return Wanted(job_id=job_id, **values)  # type: ignore[arg-type]


def test_jobs_share_by_price_and_a_near_deadline_takes_the_fast():
    bids = [Offer(node_id=node, rate=10 + node, samples_per_second=1.0 + node) for node in range(4)]
    assert assign([wanted(0, bids)]).nodes == {0: (0, 1)}
    assert assign([wanted(0, bids, seconds=200.0)]).nodes == {0: (2, 3)}
    dearer = [dataclasses.replace(bid, rate=bid.rate + 5) for bid in bids]
    both = assign([wanted(0, bids), wanted(1, dearer)])
    assert both.nodes == {0: (2, 3), 1: (0, 1)}
    assert both.reasons[0, 0].code == "assign.elsewhere" and earning(dearer[0]) > earning(bids[0])
    assert both.reasons[1, 3].code == "assign.outbid"


def test_a_job_without_its_quorum_gives_its_nodes_to_the_one_with_less_time():
    bids = [Offer(node_id=node, rate=10, samples_per_second=1.0) for node in range(3)]
    found = assign([wanted(0, bids), wanted(1, bids, seconds=600.0)])
    assert found.nodes == {0: (), 1: (0, 1)} and found.reasons[0, 2].code == "assign.no_quorum"
    assert assign([wanted(0, bids, max_rate=9)]).reasons[0, 0].code == "assign.too_dear"


def test_where_two_jobs_pay_about_the_same_the_one_with_less_time_gets_the_nodes():
    bids = [Offer(node_id=node, rate=10, samples_per_second=1.0) for node in range(4)]
    a_little_more = [dataclasses.replace(bid, samples_per_second=1.04) for bid in bids]
    found = assign([wanted(0, a_little_more[:2]), wanted(1, bids[:2], seconds=600.0)])
    assert found.nodes == {0: (), 1: (0, 1)}
    found = assign([wanted(0, a_little_more, nodes=3), wanted(1, bids, seconds=600.0, nodes=2)])
    assert found.nodes == {0: (2, 3), 1: (0, 1)} and found.reasons[0, 0].code == "assign.less_time"
    much_more = [dataclasses.replace(bid, samples_per_second=2.0) for bid in bids]
    assert assign([wanted(0, much_more), wanted(1, bids, seconds=600.0)]).nodes[0] == (0, 1)


def test_a_job_that_gave_its_nodes_away_for_nothing_gets_them_back():
    """The first gives up, having more time, before the second turns out to have too few bids for its quorum anyway."""
    bids = [Offer(node_id=node, rate=10, samples_per_second=1.0) for node in range(3)]
    assert assign([wanted(0, bids), wanted(1, bids, quorum=5, nodes=5, seconds=600.0)]).nodes == {0: (0, 1), 1: ()}


def test_of_equal_prices_who_carries_for_others_is_taken_for_what_that_brings_them():
    """Never before who asks less, and where the fastest are wanted by its own speed alone."""
    plain = Offer(node_id=1, rate=3, samples_per_second=8.0)
    carrier = Offer(node_id=2, rate=3, samples_per_second=6.0, brings=3.0)
    job = Wanted(job_id=1, quorum=1, nodes=1, max_rate=4, samples=100, offers=[plain, carrier])
    found = assign([job])
    assert found.nodes[1] == (2,) and found.reasons[1, 2].text.endswith("and 3 more of others, whose uploads go by way of it.")
    for change in ({"offers": [plain, dataclasses.replace(carrier, rate=4)]}, {"fastest": True},
                   {"offers": [plain, dataclasses.replace(carrier, brings=1.0)]}):  # fmt: skip
        assert assign([dataclasses.replace(job, **change)]).nodes[1] == (1,)


def test_a_nodes_preference_rises_with_pay_and_a_later_deadline_waits():
    slow, fast = (Offer(node_id=0, rate=10, samples_per_second=speed) for speed in (1.0, 3.0))
    assert preference(fast, math.inf, 2) < preference(slow, 0.0, 1)
    assert preference(slow, 10.0, 2) < preference(slow, 20.0, 1) < preference(slow, math.inf, 0)
