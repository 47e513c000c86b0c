"""Opening and closing rounds."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction
from django.utils import timezone

from marketplace.chain.models import Intent
from marketplace.common.driving import MAX_DRIVES, hopeless
from marketplace.common.tasks import each
from marketplace.events.services import emit
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.jobs.serializers import job_json
from marketplace.operators import services as operators
from marketplace.operators.models import Bid, Node
from marketplace.operators.selectors import online_since
from marketplace.training.models import Assignment, Contribution, Round
from marketplace.training.serializers import assignment_json, part_json, round_json
from marketplace.training.services import late, planning, sharing

log = logging.getLogger(__name__)

SETTLING = timedelta(minutes=5)
"""What a settlement may take at the worst."""
MAX_EXTENSIONS = 3
"""A round that misses its quorum gets a new deadline this often; then the job fails and its escrow goes back."""


SHOWN_PASSED = 64
"""Nodes that a round's plan says it has passed over; each node's own row says it too."""


def topic_of(job_id: int) -> str:
    return f"job.{job_id}"


def seat_bidders(*, job: Job) -> tuple[list[Seat], dict[int, dict[str, Any]]]:
    """Seats for fitting bids of nodes that are online, until the job has as many as it wants (`sharing.choose`), and by node why
    it was taken now or passed over."""
    seated = set(online_seats(job).values_list("node_id", flat=True))
    unseated = {node_id: bid for node_id, bid in sharing.open_bids(job).items() if node_id not in seated}
    choices = sharing.choose(job, unseated, places=job.parsed_spec.rounds.nodes - len(seated - planning.left_out(job)))
    picks = [choice.bid for choice in choices if choice.taken]
    reasons = {choice.bid.node_id: {"taken": choice.taken, **asdict(choice.reason)} for choice in choices}
    with transaction.atomic():
        jobs.seat_nodes(job=job, bids=[as_message(bid) for bid in picks])
        operators.note_choices(job_id=job.pk, choices=reasons)
        for bid in picks:
            operators.join_job(node_id=bid.node_id, job_id=job.pk)
    return list(online_seats(job)), reasons


def release_seats(*, chain_id: int) -> None:
    """A closed job's page no longer follows the nodes, and theirs no longer say why they serve it. Call inside the indexer's
    transaction."""
    for seat in Seat.objects.filter(job__chain_id=chain_id):
        operators.leave_job(node_id=seat.node_id, job_id=seat.job_id)
    for job in Job.objects.filter(chain_id=chain_id):
        operators.forget_job(job_id=job.pk)


def as_message(bid: Bid) -> dict[str, object]:
    return {
        "job_id": bid.chain_job_id, "node_id": bid.node_id, "rate": int(bid.rate), "capacity": bid.capacity,
        "expires_at": int(bid.expires_at.timestamp()), "nonce": bid.nonce, "signature": bid.signature, "bid_id": bid.pk,
    }  # fmt: skip


def online_seats(job: Job):  # type: ignore[no-untyped-def]
    """Seats whose nodes could start now, in the order in which they were taken."""
    # The key must still be good when the round is settled, or the contract would refuse the receipt.
    needed = timezone.now() + timedelta(seconds=2 * job.parsed_spec.rounds.deadline_seconds) + SETTLING
    online = Node.objects.filter(last_seen__gte=online_since(), retired=False, key_expires_at__gt=needed)
    online = online.exclude(suspended_until__gt=timezone.now())
    return Seat.objects.filter(job=job, node_id__in=online.values("pk")).order_by("id")


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
    every_seat = list(Seat.objects.filter(job=round_.job).order_by("id").values_list("node_id", flat=True))
    return carried + [
        Assignment.objects.create(
            round=round_, node_id=node_id, shard=every_seat.index(node_id) % round_.job.parsed_spec.rounds.nodes,
            steps=part.steps, encoding=part.encoding.model_dump(mode="json"), rounds=part.rounds, via=part.via,
            reasons=[asdict(reason) for reason in part.reasons], predicted=asdict(part.predicted) if part.predicted else None,
        )
        for node_id, part in decided.plan.parts.items()
    ]  # fmt: skip


def seating(choices: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """As the round's plan keeps it: who was taken for it, and the first of those that were passed over for a place."""
    rows = [{"node_id": node, **choice} for node, choice in choices.items() if choice["code"] != sharing.FULL.code]
    return [row for row in rows if row["taken"]] + [row for row in rows if not row["taken"]][:SHOWN_PASSED]


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
    if is_over or not pending.exists():
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


def extend_or_fail(round_: Round) -> None:
    """Too few contributions: give the slots that did not deliver another try, or give up."""
    retry = Assignment.objects.filter(round=round_).exclude(state=Assignment.State.HANDED_IN)
    if round_.extensions >= MAX_EXTENSIONS or not retry.exists():
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
        again_ids = retry.filter(state__in=[Assignment.State.FAILED, Assignment.State.EXPIRED])
        ids = list(again_ids.values_list("pk", flat=True))
        Assignment.objects.filter(pk__in=ids).update(state=Assignment.State.OPEN, attempt=0)
        round_.refresh_from_db()
        again = Assignment.objects.filter(pk__in=ids)
        emit(
            "round.extended",
            topics=[topic_of(round_.job_id)],
            changes={"rounds": [round_json(round_)], "assignments": [assignment_json(a) for a in again]},
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


def record_failed_seat(intent: Intent) -> None:
    """A bid could not be taken on chain (cancelled, expired): its seat is free again, and the bid is not tried again."""
    if intent.kind != "takeBids" or intent.reason.startswith("AlreadySeated"):
        return
    _, chain_id, node_id, bid_id = intent.key.split(":")
    for seat in Seat.objects.filter(job__chain_id=int(chain_id), node_id=int(node_id), taken=False):
        operators.leave_job(node_id=seat.node_id, job_id=seat.job_id)
        seat.delete()
    operators.withdraw_bid(bid_id=int(bid_id))


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
