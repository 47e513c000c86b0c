"""Several jobs share the operators: by price, fit and deadline, the same from the same bids, with a reason for each node.

Deferred acceptance (Gale and Shapley 1962, "College admissions and the stability of marriage"): nodes go where they earn most a
second, and where two jobs pay about the same, to the one with less time; jobs keep the best of who comes. No node and job are
left that would both rather have each other, and no job waits that could have its quorum beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.network.facts import Reason

ABOUT_THE_SAME = 1.1
"""Earnings whose ratio is less count as equal, or a deadline would never decide: measured speeds are never the same. (They are
put in classes, each so much wider than the one below: a difference across a border counts, whatever its size.)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """A node's bid on a job: `rate` base units a sample, `samples_per_second` that it does of it, transfers and all; `brings`:
    those that others do more by way of it; `health` 0..1."""

    node_id: int
    rate: int
    samples_per_second: float
    brings: float = 0.0
    health: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A job that needs nodes: at least `quorum`, at most `nodes`. `samples` are left to do; `seconds` until it is to be finished,
    None without a deadline. `fastest`: it wants the fastest nodes, whatever they ask within its rate."""

    job_id: int
    quorum: int
    nodes: int
    max_rate: int
    samples: int
    seconds: float | None = None
    fastest: bool = False
    offers: Sequence[Offer] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Assigned:
    """Nodes by job, and by job and node why it was taken or not."""

    nodes: dict[int, tuple[int, ...]]
    reasons: dict[tuple[int, int], Reason] = field(default_factory=dict)


def assign(jobs: Sequence[Wanted]) -> Assigned:
    """Each node to at most one job, each job at least its quorum or nobody.

    Nodes prefer what pays most a second, of about equals what has less time to spare. A job prefers the cheapest, or the fastest
    where it says so or would miss its deadline with the cheapest; healthier ones where these are equal, then who does and brings
    most. While a job has fewer than its quorum, of those the one with the most time to spare gives its nodes to the others, and
    gets them back where that helped none.
    """
    by_id = {job.job_id: job for job in jobs}
    fitting = {
        job.job_id: {o.node_id: o for o in job.offers if 0 < o.rate <= job.max_rate and o.samples_per_second > 0} for job in jobs
    }
    ranks = {job.job_id: ranking(job, list(fitting[job.job_id].values())) for job in jobs}
    spare = {job.job_id: slack(job, fitting[job.job_id]) for job in jobs}
    given_up: list[int] = []

    def without_given_up() -> tuple[dict[int, set[int]], list[int]]:
        """Nodes by job, and jobs with fewer than their quorum."""
        held = matched({job: by_id[job].nodes for job in sorted(by_id) if job not in given_up}, fitting, ranks, spare)
        return held, [job for job, nodes in held.items() if len(nodes) < by_id[job].quorum]

    held, short = without_given_up()
    while short:
        given_up.append(max(short, key=lambda job: (spare[job], job)))
        held, short = without_given_up()
    for job in sorted(given_up, key=lambda job: (spare[job], job)):
        given_up.remove(job)
        again, short = without_given_up()
        if short:
            given_up.append(job)
        else:
            held = again
    nodes = {job: tuple(sorted(held.get(job, ()))) for job in sorted(by_id)}
    return Assigned(nodes=nodes, reasons=explained(jobs, nodes, fitting, given_up))


def matched(
    places: Mapping[int, int],
    fitting: Mapping[int, Mapping[int, Offer]],
    ranks: Mapping[int, Mapping[int, int]],
    spare: Mapping[int, float],
) -> dict[int, set[int]]:
    """Nodes by job after deferred acceptance."""
    wishes = {
        node: sorted(
            (job for job in places if node in fitting[job]), key=lambda job: preference(fitting[job][node], spare[job], job)
        )
        for node in sorted({node for job in places for node in fitting[job]})
    }
    held: dict[int, set[int]] = {job: set() for job in places}
    free = list(wishes)
    while free:
        node = free.pop()
        if not wishes[node]:
            continue
        job = wishes[node].pop(0)
        held[job].add(node)
        if len(held[job]) > places[job]:
            worst = max(held[job], key=lambda one: ranks[job][one])
            held[job].discard(worst)
            free.append(worst)
    return held


def earning(offer: Offer) -> float:
    """Base units a second."""
    return offer.rate * offer.samples_per_second


def preference(offer: Offer, spare: float, job: int) -> tuple[int, float, float, int]:
    """A node's, the least first: what pays most, of about equals what has less time to spare."""
    paid = earning(offer)
    return -math.floor(math.log(paid, ABOUT_THE_SAME)), spare, -paid, job


def ranking(job: Wanted, offers: Sequence[Offer]) -> dict[int, int]:
    """Place of each node in the job's order, the best first."""
    if job.fastest or urgent(job, offers):
        ordered = sorted(offers, key=lambda o: (-o.samples_per_second, o.rate, -o.health, o.node_id))
    else:
        ordered = sorted(offers, key=lambda o: (o.rate, -o.health, -(o.samples_per_second + o.brings), o.node_id))
    return {offer.node_id: place for place, offer in enumerate(ordered)}


def urgent(job: Wanted, offers: Sequence[Offer]) -> bool:
    """Whether its cheapest nodes would miss its deadline."""
    cheapest = sorted(offers, key=lambda o: (o.rate, o.node_id))[: job.nodes]
    speed = math.fsum(offer.samples_per_second for offer in cheapest)
    return job.seconds is not None and speed * job.seconds < job.samples


def slack(job: Wanted, offers: Mapping[int, Offer]) -> float:
    """Seconds to spare if the fastest nodes took it; infinity without a deadline."""
    if job.seconds is None:
        return math.inf
    fastest = sorted((offer.samples_per_second for offer in offers.values()), reverse=True)[: job.nodes]
    return job.seconds - job.samples / speed if (speed := math.fsum(fastest)) > 0 else -math.inf


def explained(
    jobs: Sequence[Wanted],
    nodes: Mapping[int, tuple[int, ...]],
    fitting: Mapping[int, Mapping[int, Offer]],
    given_up: Sequence[int],
) -> dict[tuple[int, int], Reason]:
    at = {node: job for job, members in nodes.items() for node in members}
    spare = {job.job_id: slack(job, fitting[job.job_id]) for job in jobs}
    orders = {job.job_id: order_of(job, list(fitting[job.job_id].values())) for job in jobs}
    return {
        (job.job_id, offer.node_id): why(job, offer, at, fitting, spare, given_up, order=orders[job.job_id])
        for job in jobs for offer in job.offers
    }  # fmt: skip


def order_of(job: Wanted, offers: Sequence[Offer]) -> str:
    """`ranking` in words."""
    if job.fastest:
        return "fastest first, as the requester wants"
    return "fastest first: with the cheapest it would miss its deadline" if urgent(job, offers) else "cheapest first"


def why(
    job: Wanted, offer: Offer, at: Mapping[int, int], fitting: Mapping[int, Mapping[int, Offer]], spare: Mapping[int, float],
    given_up: Sequence[int], *, order: str,
) -> Reason:  # fmt: skip
    pays = f"{offer.rate} base units a sample at {offer.samples_per_second:.3g} samples/s"
    if offer.brings:
        pays += f", and {offer.brings:.3g} more of others, whose uploads go by way of it"
    if at.get(offer.node_id) == job.job_id:
        return Reason(code="assign.taken", text=f"Taken ({order}): {pays}.")
    if offer.rate > job.max_rate:
        return Reason(
            code="assign.too_dear", text=f"It asks {offer.rate} base units a sample, the job pays {job.max_rate} at most."
        )
    if offer.node_id not in fitting[job.job_id]:
        return Reason(code="assign.no_speed", text=f"Nothing is to be expected of it: {pays}.")
    if job.job_id in given_up:
        text = f"Fewer than its quorum of {job.quorum} would come to the job now: it leaves them to the others."
        return Reason(code="assign.no_quorum", text=text)
    other = at.get(offer.node_id)
    if other is None:
        return Reason(code="assign.outbid", text=f"Others are ahead of it ({order}): {pays}.")
    there = fitting[other][offer.node_id]
    ours, theirs = preference(offer, spare[job.job_id], job.job_id), preference(there, spare[other], other)
    earns = f"{earning(there):.4g} base units a second there, {earning(offer):.4g} here"
    if theirs > ours:
        return Reason(code="assign.outbid", text=f"Others are ahead of it ({order}): {pays}. It works for job {other}.")
    if theirs[0] == ours[0] and theirs[1] < ours[1]:
        text = f"Job {other} has less time to spare until its deadline, and pays about the same: {earns}."
        return Reason(code="assign.less_time", text=text)
    text = f"Job {other} pays it {'as much, and is older' if earning(there) == earning(offer) else 'more'}: {earns}."
    return Reason(code="assign.elsewhere", text=text)
