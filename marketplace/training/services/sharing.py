"""Which nodes a job takes when others could use them too: idle ones first, shared as `trainer.network.assignment` says."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from marketplace.jobs.models import Job, Seat
from marketplace.operators.facts import facts_of
from marketplace.operators.models import Bid
from marketplace.operators.selectors import usable_bids
from trainer.network.assignment import Offer, Wanted, assign


def in_order(job: Job, bids: Mapping[int, Bid]) -> list[Bid]:
    """`bids` (by node, the cheapest first) in the order in which the job should take them: idle nodes that no other job that is
    still short of nodes should rather have, other idle ones, then those that work for another job already."""
    others = Job.objects.filter(state=Job.State.RUNNING).exclude(pk=job.pk)
    busy = set(Seat.objects.filter(job__in=others).values_list("node_id", flat=True))
    idle = bids.keys() - busy
    short = [other for other in others if other.seats.count() < other.parsed_spec.rounds.nodes]
    ours = set(assign([wanted(one, idle) for one in (job, *short)]).nodes[job.pk]) if short else idle
    return sorted(bids.values(), key=lambda bid: (bid.node_id in busy, bid.node_id not in ours))


def wanted(job: Job, nodes: Collection[int]) -> Wanted:
    """What the job still needs, and what those of `nodes` that bid on it offer."""
    spec = job.parsed_spec
    found = usable_bids(chain_job_id=job.chain_id or 0, max_rate=job.max_rate, units=spec.units_per_round)
    bids = {bid.node_id: bid for bid in reversed(found) if bid.node_id in nodes}
    facts = facts_of([bid.node for bid in bids.values()], spec)
    seats = job.seats.count()
    return Wanted(
        job_id=job.pk, quorum=max(spec.rounds.quorum - seats, 1), nodes=max(spec.rounds.nodes - seats, 1),
        max_rate=int(job.max_rate),
        samples=(spec.rounds.rounds - job.round) * spec.rounds.nodes * spec.units_per_round,
        offers=[
            Offer(node_id=fact.node_id, rate=int(bids[fact.node_id].rate), samples_per_second=fact.samples_per_second.value)
            for fact in facts
        ],
    )  # fmt: skip
