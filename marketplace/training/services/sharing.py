"""Which nodes a job takes when others could use them too: idle ones first, shared as `trainer.network.assignment` says; and why
each was taken or passed over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from django.utils import timezone

from marketplace.jobs.models import Job, Seat
from marketplace.operators.facts import facts_of
from marketplace.operators.models import Bid
from marketplace.operators.selectors import usable_bids
from trainer.network.assignment import Assigned, Offer, Wanted, assign
from trainer.network.facts import NodeFacts, Reason
from trainer.network.predict import predict
from trainer.protocol.spec import JobSpec
from trainer.protocol.wire import encoded_bytes

FULL = Reason(code="assign.full", text="The job has as many nodes as it wants.")


class Choice(NamedTuple):
    """Whether a bid is taken, and why."""

    bid: Bid
    taken: bool
    reason: Reason


def open_bids(job: Job) -> dict[int, Bid]:
    """Of each node that is online, its cheapest bid that fits the job; the cheapest nodes first."""
    found: dict[int, Bid] = {}
    for bid in usable_bids(chain_job_id=job.chain_id or 0, max_rate=job.max_rate, units=job.parsed_spec.units_per_round):
        if bid.nonce >= bid.node.min_bid_nonce:
            found.setdefault(bid.node_id, bid)
    return found


def choose(job: Job, bids: Mapping[int, Bid], *, places: int) -> list[Choice]:
    """Whom of `bids` (`open_bids` of nodes without a seat) the job takes for its open `places`: idle nodes that no other job that
    is still short of nodes should rather have, other idle ones, then those that work for another job already."""
    if not bids or places <= 0:
        return [Choice(bid, False, FULL) for bid in bids.values()]
    others = Job.objects.filter(state=Job.State.RUNNING).exclude(pk=job.pk)
    working = defaultdict(list)
    for node_id, other in Seat.objects.filter(job__in=others).order_by("job").values_list("node_id", "job"):
        working[node_id].append(other)
    idle = bids.keys() - working.keys()
    short = [other for other in others if other.seats.count() < other.parsed_spec.rounds.nodes]
    shared = assign([wanted(job, bids, idle), *(wanted(other, open_bids(other), idle) for other in short)])
    ours = shared.nodes[job.pk]
    order = sorted(bids.values(), key=lambda bid: (bid.node_id in working, bid.node_id not in ours))
    taken = [(bid, place < places) for place, bid in enumerate(order)]
    return [Choice(bid, is_in, why(job, bid.node_id, shared, working, taken=is_in)) for bid, is_in in taken]


def why(job: Job, node: int, shared: Assigned, working: Mapping[int, list[int]], *, taken: bool) -> Reason:
    if node in working:
        at = f"It works for job {', '.join(map(str, working[node]))} already"
        if taken:
            return Reason(code="assign.shared", text=f"{at}, and is taken all the same: too few nodes are idle.")
        return Reason(code="assign.busy", text=f"{at}, and the job has found enough idle nodes.")
    reason = shared.reasons[job.pk, node]
    if taken and node not in shared.nodes[job.pk]:
        return Reason(code="assign.place_left", text=f"Taken all the same, since the job has places left. {reason.text}")
    return reason


def wanted(job: Job, bids: Mapping[int, Bid], nodes: Collection[int]) -> Wanted:
    """What the job still needs, and what those of `nodes` that bid on it offer. A deadline that has passed gives no claim any
    more: nobody is kept from making theirs by what is too late already."""
    spec, left = job.parsed_spec, None
    if job.finish_by is not None and (seconds := (job.finish_by - timezone.now()).total_seconds()) > 0:
        left = seconds
    mine = {node: bid for node, bid in bids.items() if node in nodes}
    count, seats = job.parameters or 1, job.seats.count()
    facts = facts_of([bid.node for bid in mine.values()], spec)
    brings = brought(facts, spec, count=count)
    return Wanted(
        job_id=job.pk, quorum=max(spec.rounds.quorum - seats, 1), nodes=max(spec.rounds.nodes - seats, 1),
        max_rate=int(job.max_rate), seconds=left, fastest=job.goal == Job.Goal.TIME,
        samples=(spec.rounds.rounds - job.round) * spec.rounds.nodes * spec.units_per_round,
        offers=[
            Offer(
                node_id=fact.node_id, rate=int(mine[fact.node_id].rate), samples_per_second=pace(fact, spec, count=count),
                brings=brings.get(fact.node_id, 0.0),
            )
            for fact in facts
        ],
    )  # fmt: skip


def brought(facts: Collection[NodeFacts], spec: JobSpec, *, count: int) -> Mapping[int, float]:
    """Samples a second that nodes do more by way of each that has carried an upload of theirs, by the best such way: its thanks
    for carrying, as the coordinator measured it (docs/adr/0040)."""
    found: dict[int, float] = defaultdict(float)
    for fact in facts:
        direct = pace(fact, spec, count=count)
        gains = {peer: pace(replace(fact, up=way), spec, count=count) - direct for peer, way in fact.via.items()}
        if gains and gains[best := max(gains, key=lambda peer: (gains[peer], -peer))] > 0:
            found[best] += gains[best]
    return found


def pace(fact: NodeFacts, spec: JobSpec, *, count: int) -> float:
    """Samples a second that a node does of a job with `count` parameters, transfers and all."""
    samples = spec.units_per_round
    down, up = encoded_bytes(count, spec.downlink), encoded_bytes(count, spec.encoding)
    return samples / predict(fact, samples=samples, fetch_bytes=down, upload_bytes=up).total_s
