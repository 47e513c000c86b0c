"""A round's plan in the live system: what is known of each node, the policy's word on it, and the bounds that money sets.

Everything decided here is written down with its reason (`Decision.record`, `Part.reasons`), and what a round really took is held
against it: the prediction's error is one of the facts of the next plan.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from django.conf import settings
from django.utils import timezone

from marketplace.artifacts.models import Artifact
from marketplace.common.times import iso
from marketplace.jobs.models import Job, Seat
from marketplace.operators.facts import facts_of
from marketplace.operators.models import Node
from marketplace.training.models import Assignment, Checkpoint, Contribution, Round
from marketplace.training.services import overheads, versions
from marketplace.training.services.late import NO_BUDGET, hopeless, newest, refusal
from marketplace.training.services.overheads import both_known, overhead, total
from trainer.network.facts import NodeFacts, Reason
from trainer.network.health import Standing, assess, parts_of, recent
from trainer.network.planner import forecast
from trainer.network.policy import Ahead, Late, Plan, plan_round
from trainer.network.predict import Prediction, left_of, relative_errors
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.protocol.types import QUALITY_ONE

MEMORY = 16
"""Rounds of a job that say how a node keeps its orders."""
ABSENT = 64
"""Nodes that are not there whose standings a job remembers, those that were there last."""
PRIORITY = ("high", "normal", "low", "probation", "excluded")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The round that opens: the policy's plan, late work that it takes and that it cannot take (with code and text), when it
    closes (`seconds`, with `quorum`), and all of it as the database keeps it. `health` is of every node that could take part."""

    plan: Plan
    carried: list[Assignment]
    refused: list[tuple[Assignment, str, str]]
    quorum: int
    seconds: float
    health: dict[int, dict[str, Any]]
    record: dict[str, Any]

    @property
    def places(self) -> int:
        return len(self.plan.parts) + len(self.carried)


class History(NamedTuple):
    """What a job's closed rounds say of a node, newest first: its slots, and the quality of what it handed in (0..1)."""

    slots: list[Assignment]
    qualities: list[float]


def decide(*, job: Job, seats: Sequence[Seat], late: Sequence[Assignment]) -> Decision:
    """Who does what in the job's next round, and when it closes. `late` work is taken first, as long as everybody else can have
    the least that the job asks for: steps of a round sum up to nodes x inner.steps at most, which is what its escrow covers."""
    spec, policy = job.parsed_spec, settings.HYPERGPU.network
    known = histories(job, [seat.node_id for seat in seats])
    facts = known_facts(job, seats, known)
    standings = standings_of(job, facts, known)
    chosen = places(seats, standings, spec, waited=waiting(job, known))
    refused = hopeless(late, number=job.round, nodes=chosen)
    gone = [slot for slot, _, _ in refused]
    welcome = [slot for slot in late if slot.node_id in chosen and slot not in gone]
    carried, beyond, budget = taken(spec, late=welcome, others=len(chosen))
    busy = {slot.node_id for slot in carried}
    plan = plan_round(
        [facts[node] for node in chosen if node not in busy], spec, count=job.parameters or 1, number=job.round,
        standings=standings,
        before={node: EncodingSpec.model_validate(past.slots[0].encoding) for node, past in known.items() if past.slots},
        fetch_bytes=to_fetch(job, known), ahead=ahead_of(job, facts, known), budget=budget, settings=policy,
        limits={seat.node_id: seat.capacity // spec.inner.batch_size for seat in seats},
        late=still_to_come(spec, carried, facts, number=job.round),
    )  # fmt: skip
    quorum, seconds, reasons = closing(spec, plan, count=len(plan.parts) + len(carried))
    health = health_of(facts, standings)
    steps = sum(part.steps for part in plan.parts.values())
    record = {
        "policy": spec.network.policy, "quorum": quorum, "deadline_seconds": round(seconds, 2),
        "predicted_seconds": None if plan.predicted_s is None else round(min(plan.predicted_s, seconds), 2),
        "steps": steps + sum(slot.steps for slot in carried), "most_steps": spec.rounds.nodes * spec.inner.steps,
        "reasons": [asdict(reason) for reason in (*plan.reasons, *reasons)],
        "excluded": [{"node_id": node, **asdict(reason)} for node, reason in plan.excluded.items()],
        "health": [*({"node_id": node, **health[node]} for node in sorted(health)), *absent(job, facts)],
    }  # fmt: skip
    return Decision(
        plan=plan, carried=carried, refused=[*refused, *beyond], quorum=quorum, seconds=seconds, health=health, record=record
    )


def places(seats: Sequence[Seat], standings: Mapping[int, Standing], spec: JobSpec, *, waited: Mapping[int, int]) -> list[int]:
    """Nodes that the plan is made for: as many as the job wants, the best first, and those left out, so that it says why. Where
    the quorum stands without it, one place is for who has `waited` on probation (rounds): it could not recover unseen."""
    nodes = [seat.node_id for seat in seats]
    if spec.network.policy == "equal":
        return nodes[: spec.rounds.nodes]
    best = sorted(nodes, key=lambda node: PRIORITY.index(standings[node].level))
    out = [node for node in best if standings[node].level == "excluded"]
    able = [node for node in best if node not in out]
    chosen, others = able[: spec.rounds.nodes], able[spec.rounds.nodes :]
    untried = [node for node in others if standings[node].level == "probation" and waited[node]]
    if untried and spec.rounds.quorum < spec.rounds.nodes and standings[chosen[-1]].level != "probation":
        chosen[-1] = max(untried, key=lambda node: waited[node])
    return [*chosen, *out]


def taken(
    spec: JobSpec, *, late: Sequence[Assignment], others: int
) -> tuple[list[Assignment], list[tuple[Assignment, str, str]], int]:
    """Late work that the round takes, what it cannot, and the steps that are left for the others."""
    least = math.ceil(spec.network.least_steps * spec.inner.steps)
    left = spec.rounds.nodes * spec.inner.steps
    carried: list[Assignment] = []
    refused: list[tuple[Assignment, str, str]] = []
    for slot in late:
        if left - slot.steps >= (others - len(carried) - 1) * least:
            left -= slot.steps
            carried.append(slot)
        else:
            text = f"Its {slot.steps} steps do not fit beside the least that the others are given in one round."
            refused.append((slot, NO_BUDGET, text))
    return carried, refused, left


def closing(spec: JobSpec, plan: Plan, *, count: int) -> tuple[int, float, list[Reason]]:
    """Quorum and seconds to the deadline, within the job's own."""
    own, least = float(spec.rounds.deadline_seconds), settings.HYPERGPU.least_deadline_seconds
    if spec.network.policy == "equal" or plan.deadline_s is None:
        return spec.rounds.quorum, own, []
    quorum = max(spec.rounds.quorum, min(plan.quorum, count))
    seconds = min(max(plan.deadline_s, least), own)
    text = f"It is left open for {seconds:.0f} s at least: what the coordinator itself takes is not in the prediction."
    return quorum, seconds, [Reason(code="deadline.least", text=text)] if plan.deadline_s < seconds else []


def foreseen(job: Job, nodes: Sequence[int], *, rates: Mapping[int, int]) -> dict[str, Any] | None:
    """What all rounds of the job come to with these nodes, as far as is known before the first one (`Job.predicted`)."""
    spec = job.parsed_spec
    facts = facts_of(list(Node.objects.filter(pk__in=nodes).order_by("id")), spec, rates=rates)
    found = overheads.expected(facts, spec)
    one = forecast(found.facts, spec, count=job.parameters or 1, overhead=found.between, settings=settings.HYPERGPU.network)
    if one is None:
        return None
    rounds, lasting = spec.rounds.rounds, one.round_s
    return {
        "at": iso(timezone.now()), "nodes": len(one.nodes), "rounds": rounds, "seconds": round(rounds * lasting.expected, 1),
        "low_seconds": round(rounds * lasting.low, 1), "high_seconds": round(rounds * (lasting.high or 0.0), 1),
        "price": str(rounds * one.round_price), "basis": found.basis,
    }  # fmt: skip


# What is known.


def histories(job: Job, nodes: Sequence[int]) -> dict[int, History]:
    """Of the newest `MEMORY` rounds."""
    found = {node: History([], []) for node in nodes}
    recent = {"round__job": job, "round__number__gte": job.round - MEMORY, "node_id__in": nodes}
    slots = Assignment.objects.filter(origin=None, **recent).exclude(round__state=Round.State.OPEN)
    for slot in slots.select_related("round").order_by("-round__number"):
        found[slot.node_id].slots.append(slot)
    judged = Contribution.objects.filter(state__in=(Contribution.State.ACCEPTED, Contribution.State.REJECTED), **recent)
    for node, quality in judged.order_by("-round__number").values_list("node_id", "quality"):
        found[node].qualities.append((quality or 0) / QUALITY_ONE)
    return found


def known_facts(job: Job, seats: Sequence[Seat], known: Mapping[int, History]) -> dict[int, NodeFacts]:
    """Measured facts of link and machine, with what the job's rounds say of the node and of what was predicted of it."""
    nodes = list(Node.objects.filter(pk__in=[seat.node_id for seat in seats]).order_by("id"))
    uptimes = {node.pk: node.uptime for node in nodes}
    measured = facts_of(nodes, job.parsed_spec, rates={seat.node_id: int(seat.rate) for seat in seats})
    new = [fact for fact in measured if not both_known(known[fact.node_id].slots)]
    first = {fact.node_id: fact for fact in overheads.expected(new, job.parsed_spec).facts}
    return {
        fact.node_id: replace(
            first.get(fact.node_id) or replace(fact, overhead_s=overhead(known[fact.node_id].slots)),
            uptime=uptimes[fact.node_id], spread=recent(errors_of(known[fact.node_id].slots), unknown=0.0),
            reliability=recent([float(was_kept(slot)) for slot in known[fact.node_id].slots]),
            quality=recent(known[fact.node_id].qualities),
        )
        for fact in measured
    }  # fmt: skip


def was_kept(slot: Assignment) -> bool:
    """Whether it was handed in in time; a part for several rounds, whether it is on its way or was."""
    if slot.state in (Assignment.State.LATE, Assignment.State.CARRIED) and slot.rounds > 1:
        return newest(slot).state in (*Assignment.HELD, Assignment.State.HANDED_IN)
    return slot.state == Assignment.State.HANDED_IN


def errors_of(slots: Sequence[Assignment]) -> list[float]:
    """Relative errors of what was predicted of a node's slots, newest first."""
    pairs = [(total(predicted), total(actual)) for predicted, actual in both_known(slots)]
    return relative_errors([(expected, took) for expected, took in pairs if took > 0])


def standings_of(job: Job, facts: Mapping[int, NodeFacts], known: Mapping[int, History]) -> dict[int, Standing]:
    """Each node's health for the round that opens, from its health in the round before."""
    before = {entry["node_id"]: standing(entry) for entry in newest_health(job)}
    median = median_speed(facts)
    return {
        node: assess(
            fact, before.get(node), round=job.round, median_speed=median, kept=kept_last(known[node], before.get(node)),
            settings=settings.HYPERGPU.network.health,
        )
        for node, fact in facts.items()
    }  # fmt: skip


def kept_last(past: History, before: Standing | None) -> bool | None:
    """Whether a node's last order was kept. What it was left out for is not held against it on probation a second time."""
    slot = next(iter(past.slots), None)
    if slot is None or (before and before.level == "probation" and slot.round.number < before.until):
        return None
    return was_kept(slot)


def waiting(job: Job, known: Mapping[int, History]) -> dict[int, int]:
    """Rounds since each node's last slot; all that are remembered, where it has none."""
    return {node: job.round - 1 - past.slots[0].round.number if past.slots else MEMORY for node, past in known.items()}


def newest_health(job: Job) -> list[dict[str, Any]]:
    """As the newest round's plan recorded it."""
    before = Round.objects.filter(job=job).order_by("-number").first()
    health: list[dict[str, Any]] = before.plan.get("health", []) if before else []
    return health


def absent(job: Job, facts: Mapping[int, NodeFacts]) -> list[dict[str, Any]]:
    """What is to be remembered of nodes that are not there as the round opens: going away for a while ends no exclusion."""
    gone = [entry for entry in newest_health(job) if entry["node_id"] not in facts]
    return [entry for entry in gone if entry["exclusions"] or entry["level"] == "probation"][:ABSENT]


def standing(entry: Mapping[str, Any]) -> Standing:
    """As a round's record has it."""
    return Standing(
        level=entry["level"], score=entry["score"], until=entry["until"], exclusions=entry["exclusions"],
        reason=Reason(**entry["reason"]),
    )  # fmt: skip


def health_of(facts: Mapping[int, NodeFacts], standings: Mapping[int, Standing]) -> dict[int, dict[str, Any]]:
    """Standings with the parts of their scores, as pages and the next round read them."""
    median = median_speed(facts)
    return {node: {**asdict(standings[node]), "parts": parts_of(fact, median_speed=median)} for node, fact in facts.items()}


def left_out(job: Job) -> set[int]:
    """Nodes that the newest round's plan leaves out of the next one too: others may have their places."""
    return {entry["node_id"] for entry in newest_health(job) if entry["level"] == "excluded" and job.round < entry["until"]}


def median_speed(facts: Mapping[int, NodeFacts]) -> float:
    return statistics.median(fact.samples_per_second.value for fact in facts.values()) if facts else 1.0


def to_fetch(job: Job, known: Mapping[int, History]) -> dict[int, float]:
    """Bytes that each node has to fetch before it can begin: the outer steps since its last order or the checkpoint, whichever is
    less (in the first round the model follows from the seed); and the data, the first time."""
    checkpoint = Checkpoint.objects.filter(job=job, number=job.round).first()
    if checkpoint is None:
        return {}
    files = [*job.parsed_spec.data.files.values(), checkpoint.params]
    sizes = dict(Artifact.objects.filter(sha256__in=files).values_list("sha256", "size"))
    whole = sizes.pop(checkpoint.params, 0) if job.round else 0
    steps = versions.newest_steps(job, number=job.round)

    def to_base(past: History) -> int:
        missing = versions.between(steps, held=versions.held_by(past.slots), whole=whole)
        return whole if missing is None else sum(step.delta_size for step in missing)

    return {node: float(to_base(past) + (0 if past.slots else sum(sizes.values()))) for node, past in known.items()}


def ahead_of(job: Job, facts: Mapping[int, NodeFacts], known: Mapping[int, History]) -> dict[int, Ahead]:
    """Nodes that are at the coming round's orders already (`network.overlap` eager): since they committed to their work of the
    round before, for as many steps again at most."""
    spec, now, found = job.parsed_spec, timezone.now(), {}
    for node, past in known.items():
        last, speed = next(iter(past.slots), None), facts[node].samples_per_second.value
        if spec.network.overlap != "eager" or last is None or last.committed_at is None or speed <= 0:
            continue
        if last.state == Assignment.State.HANDED_IN and last.round.number == job.round - 1:
            most = last.steps * spec.inner.batch_size / speed
            found[node] = Ahead(seconds=min((now - last.committed_at).total_seconds(), most), steps=last.steps)
    return found


def still_to_come(
    spec: JobSpec, carried: Sequence[Assignment], facts: Mapping[int, NodeFacts], *, number: int
) -> dict[int, Late]:
    """What is left of carried work that round `number` waits for, by what its node's heartbeats have told."""
    found = {}
    for slot in carried:
        late = number - slot.began.round.number
        if slot.predicted and refusal(slot, into=number + 1):
            worth = slot.steps / (1 + spec.network.stale_discount * late)
            rest = left(slot, Prediction(**slot.predicted))
            found[slot.node_id] = Late(left=rest, worth=worth, reliability=facts[slot.node_id].reliability)
    return found


def left(slot: Assignment, predicted: Prediction) -> Prediction:
    """What is left now of work under way."""
    now = timezone.now()
    return left_of(
        predicted, computed=slot.step / slot.steps,
        gone_s=(now - slot.leased_at).total_seconds() if slot.leased_at else 0.0,
        sending_s=(now - slot.committed_at).total_seconds() if slot.committed_at else None,
    )  # fmt: skip


# What it really took.


def took(slot: Assignment, *, seconds: float, received_at: datetime) -> dict[str, float] | None:
    """Seconds by phase of a slot whose receipt has come, by the coordinator's clock but for those of the steps, which are the
    node's word, within what passed: from lease to commitment it fetched and computed, from there on it sent up."""
    if slot.leased_at is None or slot.committed_at is None:
        return None
    working = max((slot.committed_at - slot.leased_at).total_seconds(), 0.0)
    computing = min(max(seconds, 0.0), working) if math.isfinite(seconds) else 0.0
    sending = max((received_at - slot.committed_at).total_seconds(), 0.0)
    return {"fetch_s": round(working - computing, 3), "compute_s": round(computing, 3), "upload_s": round(sending, 3)}
