"""Opening and closing rounds."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from marketplace.common.driving import MAX_DRIVES, hopeless
from marketplace.common.tasks import each
from marketplace.events.services import emit
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.jobs.serializers import job_json
from marketplace.operators import services as operators
from marketplace.operators.models import Node
from marketplace.operators.selectors import online_since
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.serializers import assignment_json, part_json, round_json
from marketplace.training.services import late, planning
from marketplace.training.services.seats import seat_bidders, seating

log = logging.getLogger(__name__)

MAX_EXTENSIONS = 3
"""A round that misses its quorum gets a new deadline this often; then the job fails and its escrow goes back."""


def topic_of(job_id: int) -> str:
    return f"job.{job_id}"


def open_round(*, job_id: int) -> Round | None:
    """The next round of a running job, with a slot for each node of its seats; None when it cannot be opened now.

    Idempotent: the round's number is unique in the job, so a second caller finds it open already.
    """
    job = Job.objects.get(pk=job_id)
    if job.state != Job.State.RUNNING or Round.objects.filter(job=job, number=job.round).exists():
        return None
    spec = job.parsed_spec
    if (money := runway(job)).rounds < 1:
        wait_for_money(job, money)
        return None
    seats, choices = seat_bidders(job=job)
    if len(seats) < spec.rounds.quorum:
        wait_for_nodes(job, f"{len(seats)} of at least {spec.rounds.quorum} are online with a fitting bid.")
        return None
    decided = planning.decide(job=job, seats=seats, late=late.waiting(job))
    if decided.places < spec.rounds.quorum:
        why = " ".join(f"Node {node}: {reason.text}" for node, reason in decided.plan.excluded.items())
        wait_for_nodes(job, f"{decided.places} of at least {spec.rounds.quorum} can take part. {why}")
        return None
    predicted = foreseen(job, seats, decided) if job.round == 0 else None
    with transaction.atomic():
        round_, created = Round.objects.get_or_create(
            job=job, number=job.round,
            defaults={
                "base": job.version, "deadline": timezone.now() + timedelta(seconds=decided.seconds),
                "quorum": decided.quorum, "plan": decided.record | {"seating": seating(choices)},
            },
        )  # fmt: skip
        if not created:
            return None
        assignments = give_places(round_, decided)
        if round_.number == 0:
            jobs.note_prediction(job_id=job.pk, predicted=predicted)
        operators.note_health(health=decided.health)
        operators.note_parts(parts={assignment.node_id: part_json(assignment) for assignment in assignments})
        Job.objects.filter(pk=job.pk).update(reason="")
        job.refresh_from_db()
        moved = [*decided.carried] + [slot for slot, _, _ in decided.refused]
        for slot in moved:
            slot.refresh_from_db()
        emit(
            "round.opened",
            topics=[topic_of(job.pk)],
            changes={
                "job": job_json(job),
                "rounds": [round_json(round_)],
                "assignments": [assignment_json(a) for a in (*moved, *assignments)],
            },
            refs={"round_id": round_.pk},
        )
        # Told last: the nodes need not wait for the pages.
        working = [assignment.node_id for assignment in assignments]
        free = [slot.node_id for slot, _, _ in decided.refused if slot.node_id not in working]
        operators.assign_work(node_ids=free, working_on=None)
        operators.assign_work(node_ids=working, working_on={"job_id": job.pk, "round": round_.number})
        operators.announce_all([node for node in decided.health if node not in working])
    return round_


def foreseen(job: Job, seats: list[Seat], decided: planning.Decision) -> dict[str, Any] | None:
    """What all rounds come to with the first one's nodes. Pages show it and nothing goes by it: a job starts without it too."""
    try:
        rates = {seat.node_id: int(seat.rate) for seat in seats}
        return planning.foreseen(job, list(decided.plan.parts), rates=rates)
    except Exception:
        log.exception("what job %s will come to cannot be foreseen", job.pk)
        return None


def give_places(round_: Round, decided: planning.Decision) -> list[Assignment]:
    """The slots of a round as they were decided. Call inside the transaction that opens it."""
    for one, code, text in decided.refused:
        late.expire(one, code, text)
    carried = [slot for slot in (late.carry(one, into=round_) for one in decided.carried) if slot is not None]
    shards = shards_of(round_, list(decided.plan.parts), taken={slot.shard for slot in carried})
    return carried + [
        Assignment.objects.create(
            round=round_, node_id=node_id, shard=shards[node_id],
            steps=part.steps, encoding=part.encoding.model_dump(mode="json"), rounds=part.rounds, via=part.via,
            reasons=[asdict(reason) for reason in part.reasons], predicted=asdict(part.predicted) if part.predicted else None,
        )
        for node_id, part in decided.plan.parts.items()
    ]  # fmt: skip


def shards_of(round_: Round, nodes: list[int], *, taken: set[int]) -> dict[int, int]:
    """A shard for each node, that of its seat where that is free: two with one shard would train alike, and one of them would be
    refused as a copy."""
    count = round_.job.parsed_spec.rounds.nodes
    every_seat = list(Seat.objects.filter(job=round_.job).order_by("id").values_list("node_id", flat=True))
    found: dict[int, int] = {}
    for node in sorted(nodes, key=every_seat.index):  # who came first keeps its own
        own = every_seat.index(node) % count
        free = set(range(count)) - taken - set(found.values())
        found[node] = own if own in free or not free else min(free)
    return found


def wait_for_nodes(job: Job, text: str) -> None:
    jobs.explain(job_id=job.pk, reason=f"Waiting for nodes: {text}"[:300])


class Runway(NamedTuple):
    """Rounds that the escrow covers beside the `unsettled` ones, and base units that lack for one if it is none."""

    rounds: int
    shortfall: int
    unsettled: int


def runway(job: Job) -> Runway:
    """What is spent, reserved for records that were left out, or may be owed for unsettled rounds, counts at its most: work
    that could not be paid must not begin."""
    unsettled = Round.objects.filter(job=job, state__in=[Round.State.OPEN, Round.State.AGGREGATING, Round.State.AGGREGATED])
    first = unsettled.order_by("number").values_list("number", flat=True).first()
    reserved = jobs.stale_reserve(job, settled=job.round if first is None else first)
    most = jobs.round_cost(job.parsed_spec, rate=int(job.max_rate))
    free = int(job.escrow) - int(job.spent) - reserved - unsettled.count() * most
    return Runway(max(free // most, 0), max(most - free, 0), unsettled.count())


def wait_for_money(job: Job, money: Runway) -> None:
    """Rounds that are being settled may cost less than their most; once all are, a job that cannot pay another one pauses."""
    if money.unsettled:
        jobs.explain(job_id=job.pk, reason="Waiting until the rounds so far are settled: the escrow may not cover another one.")
    else:
        jobs.pause(job_id=job.pk, shortfall=money.shortfall)


def watch_runways(*, pause_limit: timedelta) -> None:
    """Tell how long each job's money lasts; a paused one goes on when it has been funded, and ends when it never is."""
    live = Job.objects.filter(state__in=[Job.State.RUNNING, Job.State.PAUSED])
    each(live, partial(watch_runway, pause_limit=pause_limit))


def watch_runway(job: Job, *, pause_limit: timedelta) -> None:
    covered = runway(job).rounds
    jobs.note_runway(job=job, runway=covered, needed=job.parsed_spec.rounds.rounds - job.rounds.count())
    if job.state == Job.State.PAUSED and covered:
        jobs.resume(job_id=job.pk)
    elif job.state == Job.State.PAUSED and job.paused_at and job.paused_at < timezone.now() - pause_limit:
        jobs.end(job_id=job.pk, state=Job.State.STOPPED, reason="It was paused for too long without being funded.")


def open_due_rounds() -> None:
    """Of every running job whose next round can open now."""
    running = Job.objects.filter(state=Job.State.RUNNING).values_list("pk", flat=True)
    each(running, lambda job_id: open_round(job_id=job_id))


def close_complete_rounds() -> None:
    """Those that only time completes."""
    open_ = Round.objects.filter(state=Round.State.OPEN).values_list("pk", flat=True)
    each(open_, lambda round_id: close_round_if_complete(round_id=round_id))


def close_round_if_complete(*, round_id: int) -> bool:
    """OPEN -> AGGREGATING when nothing more can come in: every slot is done and every contribution checked, or the quorum
    stands and the rest is past the deadline or offline. A missed quorum extends the deadline, then fails the job."""
    with transaction.atomic():
        # Under the round's lock: with receipts coming in between two looks, work that is about to be checked would look missing.
        round_ = Round.objects.select_for_update(of=("self",)).select_related("job").get(pk=round_id)
        return round_.state == Round.State.OPEN and close_if_complete(round_)


def close_if_complete(round_: Round) -> bool:
    contributions = Contribution.objects.filter(round=round_)
    if contributions.filter(state=Contribution.State.RECEIVED).exists():
        return False
    good = contributions.filter(state=Contribution.State.CHECKED).count()
    if round_.job.state in (Job.State.FAILED, Job.State.CLOSED):
        return begin_aggregation(round_) if good else abandon(round_)
    pending = Assignment.objects.filter(round=round_).exclude(state__in=Assignment.DONE)
    online = pending.filter(node_id__in=Node.objects.filter(last_seen__gte=online_since()).values("pk"))
    reachable = any(map(late.is_awaited, online.select_related("round__job", "origin__round")))
    own, now = round_.job.parsed_spec.rounds, timezone.now()
    enough = 1 if round_.job.state == Job.State.STOPPED else own.quorum
    # Between the planned deadline and the job's own, the planned quorum has to stand.
    last = max(round_.deadline, round_.opened_at + timedelta(seconds=own.deadline_seconds))
    is_over = now >= last or (now >= round_.deadline and good >= max(round_.quorum, enough))
    if good >= enough and (is_over or not reachable):
        return begin_aggregation(round_)
    if round_.job.state == Job.State.STOPPED and (is_over or not reachable):
        return abandon(round_)
    if round_.job.state == Job.State.RUNNING:
        hand_on(round_)
    if is_over or (lost(round_).exists() and not pending.exists()):
        extend_or_fail(round_)
    return False


def begin_aggregation(round_: Round) -> bool:
    """OPEN -> AGGREGATING, unless a receipt came in since we looked."""
    with transaction.atomic():
        Round.objects.select_for_update().get(pk=round_.pk)
        if Contribution.objects.filter(round=round_, state=Contribution.State.RECEIVED).exists():
            return False
        return end_round(round_, state=Round.State.AGGREGATING, event="round.closed", reason="The round closed without it.")


def abandon(round_: Round) -> bool:
    """OPEN -> ABANDONED: its job has ended and nothing was handed in."""
    with transaction.atomic():
        end_round(round_, state=Round.State.ABANDONED, event="round.abandoned", reason="The job has ended.")
    return False


def end_round(round_: Round, *, state: str, event: str, reason: str) -> bool:
    """Nothing more comes in: work that goes on is late, other slots that did not deliver expire, their nodes are free. Call
    inside a transaction."""
    now = timezone.now()
    if not Round.objects.filter(pk=round_.pk, state=Round.State.OPEN).update(state=state, closed_at=now, driven_at=now):
        return False
    slots = Assignment.objects.filter(round=round_)
    left = list(slots.exclude(state__in=Assignment.DONE).values_list("pk", flat=True))
    if state == Round.State.AGGREGATING:
        late.keep_late(round_)
    slots.filter(pk__in=left).exclude(state__in=Assignment.DONE).update(state=Assignment.State.EXPIRED, reason=reason)
    free = slots.exclude(state=Assignment.State.LATE)
    operators.assign_work(node_ids=list(free.values_list("node_id", flat=True)), working_on=None)
    round_.refresh_from_db()
    emit(
        event,
        topics=[topic_of(round_.job_id)],
        changes={"rounds": [round_json(round_)], "assignments": [assignment_json(a) for a in slots.filter(pk__in=left)]},
        refs={"round_id": round_.pk},
    )
    return True


def hand_on(round_: Round) -> None:
    """Refused work frees its place: where the quorum cannot stand without it, other nodes get the same orders in the same round,
    which waits for them as it waits for its own, up to its extensions. Call under the round's lock."""
    slots = Assignment.objects.filter(round=round_)
    refused = slots.filter(contribution__state=Contribution.State.REJECTED)
    kept = slots.exclude(pk__in=refused.values("pk"))
    if kept.count() >= (quorum := round_.job.parsed_spec.rounds.quorum):
        return
    free = {slot.shard: slot for slot in refused if slot.shard not in kept.values_list("shard", flat=True)}
    new = [replacement(slot, node) for slot, node in zip(free.values(), stand_ins(round_, slots, refused), strict=False)]
    if lacking := quorum - kept.count():
        wait_for_nodes(
            round_.job, f"work of round {round_.number} was refused; {lacking} more must be online with a fitting bid."
        )
    if not new:
        return
    if not lacking:
        jobs.explain(job_id=round_.job_id, reason="")
    operators.note_parts(parts={slot.node_id: part_json(slot) for slot in new})
    announce_extended(round_, new)
    operators.assign_work(node_ids=[slot.node_id for slot in new], working_on={"job_id": round_.job_id, "round": round_.number})


def stand_ins(round_: Round, slots: QuerySet[Assignment], refused: QuerySet[Assignment]) -> list[int]:
    """Nodes that have nothing to do for the job in this round: of its seats, or of bids that are taken now."""
    seats, _ = seat_bidders(job=round_.job, besides=set(refused.values_list("node_id", flat=True)))
    held = Assignment.objects.filter(round__job=round_.job_id, state__in=Assignment.HELD)
    busy = {*slots.values_list("node_id", flat=True), *held.values_list("node_id", flat=True), *planning.left_out(round_.job)}
    return [seat.node_id for seat in seats if seat.node_id not in busy]


def replacement(slot: Assignment, node_id: int) -> Assignment:
    """A slot of `slot`'s round for another node, with no more steps than every bid promises."""
    spec = slot.round.job.parsed_spec
    text = f"What node {slot.node_id} handed in was refused: its place is given on, so that the round reaches its quorum."
    return Assignment.objects.create(
        round=slot.round, node_id=node_id, shard=slot.shard, steps=min(slot.steps, spec.inner.steps), encoding=slot.encoding,
        reasons=[{"code": "place.handed_on", "text": text}],
    )  # fmt: skip


def lost(round_: Round) -> QuerySet[Assignment]:
    """Slots that were given up, and may be tried again."""
    return Assignment.objects.filter(round=round_, state__in=[Assignment.State.FAILED, Assignment.State.EXPIRED])


def extend_or_fail(round_: Round) -> None:
    """Too few contributions: more time, and another try for the slots that did not deliver; or give up."""
    if round_.extensions >= MAX_EXTENSIONS:
        reason = f"Round {round_.number} did not reach its quorum of accepted work; the rest of the escrow goes back."
        jobs.end(job_id=round_.job_id, state=Job.State.FAILED, reason=reason)
        return
    seconds = round_.job.parsed_spec.rounds.deadline_seconds
    with transaction.atomic():
        moved = Round.objects.filter(pk=round_.pk, state=Round.State.OPEN, extensions=round_.extensions).update(
            extensions=round_.extensions + 1, deadline=timezone.now() + timedelta(seconds=seconds)
        )
        if not moved:
            return
        ids = list(lost(round_).values_list("pk", flat=True))
        Assignment.objects.filter(pk__in=ids).update(state=Assignment.State.OPEN, attempt=0)
        announce_extended(round_, Assignment.objects.filter(pk__in=ids))


def announce_extended(round_: Round, again: Iterable[Assignment]) -> None:
    """Some are to work for the round that were not before. Call inside the transaction of the change."""
    round_.refresh_from_db()
    emit(
        "round.extended",
        topics=[topic_of(round_.job_id)],
        changes={"rounds": [round_json(round_)], "assignments": [assignment_json(a) for a in again]},
        refs={"round_id": round_.pk},
    )


def give_up() -> None:
    """What kills every worker that touches it is taken out of the way, with a reason."""
    each(hopeless(Round.objects.filter(state=Round.State.AGGREGATING)), give_up_round)
    unsized = f"How large its model is could not be found out in {MAX_DRIVES} attempts."
    each(hopeless(Job.unsized()), lambda job: jobs.explain(job_id=job.pk, reason=unsized))
    unstarted = f"The job could not be started after {MAX_DRIVES} attempts."
    funded = hopeless(Job.objects.filter(state=Job.State.FUNDED))
    each(funded, lambda job: jobs.end(job_id=job.pk, state=Job.State.FAILED, reason=unstarted))


def give_up_round(round_: Round) -> None:
    reason = f"Round {round_.number} could not be aggregated after {MAX_DRIVES} attempts."
    jobs.end(job_id=round_.job_id, state=Job.State.FAILED, reason=reason)
    Round.objects.filter(pk=round_.pk, state=Round.State.AGGREGATING).update(state=Round.State.ABANDONED)


def record_settlement_bundle(*, round_id: int, sha256: str) -> None:
    """Name the artifact with which anyone can settle the round. Call inside a transaction."""
    Round.objects.filter(pk=round_id).update(settlement=sha256)
    round_ = Round.objects.select_related("job").get(pk=round_id)
    emit("round.attested", topics=[topic_of(round_.job_id)], changes={"rounds": [round_json(round_)]})


def record_acceptance(*, chain_id: int, round: int) -> None:
    """The requester has made a settled round final. Call inside the indexer's transaction."""
    for round_ in Round.objects.select_related("job").filter(job__chain_id=chain_id, number=round):
        round_.accepted_at = timezone.now()
        round_.save(update_fields=["accepted_at"])
        emit("round.accepted", topics=[topic_of(round_.job_id)], changes={"rounds": [round_json(round_)]})


def mark_settled(*, round_id: int, block: int) -> None:
    """AGGREGATED -> SETTLED: its last batch is final on chain. Call inside the indexer's transaction."""
    if Round.objects.filter(pk=round_id, state=Round.State.AGGREGATED).update(
        state=Round.State.SETTLED, settled_at=timezone.now(), settled_block=block
    ):
        round_ = Round.objects.select_related("job").get(pk=round_id)
        emit(
            "round.settled",
            topics=[topic_of(round_.job_id)],
            changes={"rounds": [round_json(round_)]},
            refs={"job_id": round_.job_id},
        )
