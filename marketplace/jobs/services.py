"""Writes of demand: drafts, what the chain says of their money, and their states."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.artifacts.models import Artifact
from marketplace.chain.services import domain, enqueue
from marketplace.chain.signer import private_key
from marketplace.common.models import clamped
from marketplace.common.times import iso
from marketplace.events.services import emit
from marketplace.jobs.models import Job, Seat
from marketplace.jobs.serializers import job_json
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import refuse_too_large, upload_limit
from trainer.protocol.packing import reward
from trainer.protocol.spec import JobSpec
from trainer.protocol.types import QUALITY_ONE, Bid

log = logging.getLogger(__name__)

MOST_DRAFTS, DRAFTS_PER = 30, timedelta(hours=1)
"""Drafts of one requester that wait for their escrow, of the last hour: each costs nothing, and has a worker build its model."""

MOST_UNUSED = 4
"""Data sets of the largest size, of one requester, that no funded job names."""


def topics_of(job: Job) -> list[str]:
    """A draft is on no list yet."""
    own = f"job.{job.pk}"
    return [own] if job.state == Job.State.DRAFT else [own, "market"]


def announce(job: Job, type: str) -> None:
    """Tell the pages, and start what follows; call inside the transaction of the change."""
    job.refresh_from_db()
    emit(type, topics=topics_of(job), changes={"job": job_json(job)}, refs={"job_id": job.pk})


def room_for_data(*, requester: str) -> int:
    """Bytes of data sets that a wallet may upload yet. Wallets and uploads cost nothing, so what no funded job of its names is
    bounded."""
    funded = Job.objects.filter(requester=requester).exclude(state=Job.State.DRAFT)
    used = {sha256 for spec in funded.values_list("spec", flat=True) for sha256 in spec["data"]["files"].values()}
    mine = Artifact.objects.filter(kind=Artifact.Kind.DATASET, owner=requester).values_list("sha256", "size")
    return MOST_UNUSED * settings.HYPERGPU.max_body_bytes - sum(size for sha256, size in mine if sha256 not in used)


def round_cost(spec: JobSpec, *, rate: int) -> int:
    """Base units if every node of one round is paid in full at `rate`."""
    return reward(units=spec.units_per_round, rate=rate, quality=QUALITY_ONE) * spec.rounds.nodes


def worst_case_cost(spec: JobSpec, *, rate: int) -> int:
    """Base units if every round costs the most it can."""
    return round_cost(spec, rate=rate) * spec.rounds.rounds


def draft_job(
    *, requester: str, name: str, spec: JobSpec, max_rate: int, escrow: int, finish_by: datetime | None = None,
    goal: str = Job.Goal.PRICE,
) -> Job:  # fmt: skip
    """A job that waits for its escrow, to be finished by then.

    Raises HyperGPUError `job.underfunded` when the escrow cannot pay one full round, `job.deadline_passed` when `finish_by`
    is not ahead, `spec.invalid` for files that are not here, `job.too_many_drafts` for more than `MOST_DRAFTS` in an hour.
    """
    if finish_by is not None and finish_by <= timezone.now():
        raise HyperGPUError("job.deadline_passed", f"{iso(finish_by)} has passed: name a time to come to finish by, or none.")
    waiting = Job.objects.filter(requester=requester, state=Job.State.DRAFT, created_at__gt=timezone.now() - DRAFTS_PER)
    if waiting.count() >= MOST_DRAFTS:
        text = f"{MOST_DRAFTS} of your drafts of the last hour wait for their escrow: fund one of them, or come back later."
        raise HyperGPUError("job.too_many_drafts", text, most=MOST_DRAFTS)
    one_round = round_cost(spec, rate=max_rate)
    if escrow < one_round:
        raise HyperGPUError(
            "job.underfunded",
            f"The escrow must cover at least one round: {one_round} base units at this rate.",
            needed=str(one_round),
        )
    missing = [name for name, sha256 in spec.data.files.items() if not Artifact.objects.filter(sha256=sha256).exists()]
    if missing:
        raise HyperGPUError("spec.invalid", f"Upload these files first: {', '.join(missing)}.", problems=missing)
    with transaction.atomic():
        job = Job.objects.create(
            requester=requester,
            name=name,
            spec=spec.model_dump(mode="json"),
            spec_hash=spec.sha256(),
            max_rate=max_rate,
            escrow=escrow,
            finish_by=finish_by,
            goal=goal,
            driven_at=timezone.now(),
        )
        announce(job, "job.drafted")
    return job


# What the chain says. Each runs in the indexer's transaction, once per log.


def record_creation(*, chain_id: int, requester: str, spec: str, escrow: int, max_rate: int) -> None:
    """The escrow of a draft is final: the job may run. A job that nobody described here is left to others."""
    drafts = Job.objects.filter(requester=requester, spec_hash=spec.removeprefix("0x"), state=Job.State.DRAFT)
    # The one with this money, of several the newest: name and deadline are not in the hash, and may have been changed.
    job = drafts.filter(escrow=escrow, max_rate=max_rate).order_by("-id").first() or drafts.order_by("-id").first()
    if job is None:
        log.warning("job %s on chain has no draft here (spec %s)", chain_id, spec)
        return
    Job.objects.filter(pk=job.pk, state=Job.State.DRAFT).update(
        chain_id=chain_id,
        escrow=escrow,
        max_rate=max_rate,
        state=Job.State.FUNDED,
        funded_at=timezone.now(),
        driven_at=timezone.now(),
        worker="",
        drives=0,
    )
    announce(job, "job.funded")


def record_funding(*, chain_id: int, escrow: int) -> None:
    for job in Job.objects.filter(chain_id=chain_id):
        Job.objects.filter(pk=job.pk).update(escrow=escrow)
        announce(job, "job.changed")


def record_spending(*, chain_id: int, amount: int) -> None:
    for job in Job.objects.select_for_update().filter(chain_id=chain_id):
        Job.objects.filter(pk=job.pk).update(spent=job.spent + amount)
        announce(job, "job.changed")


def record_restitution(*, chain_id: int, amount: int) -> None:
    """A dispute gives an open job base units back: what was spent is less, and what is above that raises the escrow."""
    for job in Job.objects.select_for_update().filter(chain_id=chain_id).exclude(state=Job.State.CLOSED):
        unspent = min(int(job.spent), amount)
        Job.objects.filter(pk=job.pk).update(spent=job.spent - unspent, escrow=job.escrow + amount - unspent)
        announce(job, "job.changed")


def record_exit_notice(*, chain_id: int) -> None:
    """The requester is leaving: what runs is finished and paid within the notice, nothing new begins."""
    for job in Job.objects.filter(chain_id=chain_id):
        end(job_id=job.pk, state=Job.State.STOPPED, reason="The requester has given notice to leave with the rest of the escrow.")


def record_closing(*, chain_id: int, refund: int) -> None:
    for job in Job.objects.filter(chain_id=chain_id):
        # A requester may exit while the job runs; then nothing more can be paid, so nothing more may run.
        ended = {} if job.state in Job.ENDED else {"reason": "The requester left with the rest of the escrow."}
        Job.objects.filter(pk=job.pk).update(state=Job.State.CLOSED, refund=refund, closed_at=timezone.now(), **ended)
        announce(job, "job.closed")


def record_seat(*, chain_id: int, node_id: int, rate: int, capacity: int) -> None:
    job = Job.objects.filter(chain_id=chain_id).first()
    if job is not None:
        Seat.objects.update_or_create(
            job=job, node_id=node_id, defaults={"rate": rate, "capacity": clamped(capacity), "taken": True}
        )


def record_recording(*, chain_id: int, round: int, node_id: int, units: int) -> None:
    """A receipt is recorded: its most is reserved until it is paid or lapses."""
    seats = Seat.objects.filter(job__chain_id=chain_id, node_id=node_id)
    seats.update(recorded_round=clamped(round), recorded_units=clamped(units))


def record_release(*, chain_id: int, round: int, node_id: int) -> None:
    """The record of `round` was paid or has lapsed."""
    seats = Seat.objects.filter(job__chain_id=chain_id, node_id=node_id, recorded_round=clamped(round))
    seats.update(recorded_round=None, recorded_units=0)


# States.


def stale_reserve(job: Job, *, settled: int) -> int:
    """Base units reserved for records that the first `settled` rounds left out: kept until they lapse."""
    left_out = Seat.objects.filter(job=job, recorded_round__lt=settled)
    return sum(reward(units=seat.recorded_units, rate=int(seat.rate), quality=QUALITY_ONE) for seat in left_out)


def seat_nodes(*, job: Job, bids: Iterable[dict[str, Any]]) -> None:
    """Take bids on chain for nodes without a seat, as the coordinator. Each: the Bid message as a dict, plus its `signature`
    and `bid_id`."""
    most = job.parsed_spec.most_units
    for bid in bids:
        if Seat.objects.filter(job=job, node_id=bid["node_id"]).exists():
            continue
        Seat.objects.create(job=job, node_id=bid["node_id"], rate=bid["rate"], capacity=min(bid["capacity"], most))
        # One call for each, so that one bid that cannot be taken does not keep the others from their seats.
        message = Bid(**{name: bid[name] for name in ("job_id", "node_id", "rate", "capacity", "expires_at", "nonce")})
        enqueue(
            key=f"take:{job.chain_id}:{bid['node_id']}:{bid['bid_id']}",
            function="takeBids",
            args=[job.chain_id, [message.as_dict()], [bid["signature"]], most, consent(job, [message])],
            group=f"job:{job.chain_id}",
        )


def consent(job: Job, bids: list[Bid]) -> str:
    """The coordinator's signature that these bids may take seats: nobody seats itself, and none may claim more units than
    are ordered of a node."""
    message = eip712.seating(job_id=job.chain_id or 0, max_units=job.parsed_spec.most_units, bids=bids)
    return eip712.sign(domain(), message, private_key(settings.HYPERGPU.coordinator_key))


def begin(
    *, job_id: int, checkpoint: str, version: str, metric: dict[str, float], upload_limit: int, evaluation_rate: float | None
) -> bool:
    """FUNDED -> RUNNING with its first checkpoint; False when another worker was first."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=job_id, state=Job.State.FUNDED).update(
            state=Job.State.RUNNING,
            checkpoint=checkpoint,
            version=version,
            start_metric=metric,
            metric=metric,
            reason="",
            upload_limit=upload_limit,
            evaluation_rate=evaluation_rate,
        )
        if moved:
            announce(Job.objects.get(pk=job_id), "job.started")
    return bool(moved)


def note_size(*, job_id: int, parameters: int) -> None:
    """Of a draft's model, which a worker has built: nobody funds what cannot run, and the planner knows what travels.

    Raises HyperGPUError `model.too_large` for one whose files this installation does not take.
    """
    refuse_too_large(parameters, most=settings.HYPERGPU.max_artifact_bytes)
    with transaction.atomic():
        limit = upload_limit(parameters)
        if Job.objects.filter(pk=job_id, upload_limit=None).update(upload_limit=limit):
            announce(Job.objects.get(pk=job_id), "job.changed")


def note_prediction(*, job_id: int, predicted: dict[str, Any] | None) -> None:
    """Of all of its rounds, as the first one opens. Call inside the transaction that opens it."""
    Job.objects.filter(pk=job_id).update(predicted=predicted)


def note_first_step(*, job_id: int) -> None:
    with transaction.atomic():
        if Job.objects.filter(pk=job_id, first_step_at=None).update(first_step_at=timezone.now()):
            announce(Job.objects.get(pk=job_id), "job.changed")


LOW_RUNWAY = 3
"""Rounds; a job that is covered for fewer, and needs more, warns."""


def note_runway(*, job: Job, runway: int, needed: int) -> None:
    """Remember for how many more rounds the escrow is good, and warn early when they are few; `needed` are to come."""
    low = min(LOW_RUNWAY, needed)
    with transaction.atomic():
        if Job.objects.filter(pk=job.pk).exclude(runway=runway).update(runway=runway):
            announce(job, "job.runway_low" if runway < low else "job.changed")


def pause(*, job_id: int, shortfall: int) -> None:
    """RUNNING -> PAUSED: nothing that could not be paid is begun. `shortfall` base units more, and it goes on."""
    reason = f"The escrow does not cover another round: fund {shortfall} more base units to go on."
    with transaction.atomic():
        moved = Job.objects.filter(pk=job_id, state=Job.State.RUNNING).update(
            state=Job.State.PAUSED, reason=reason, shortfall=shortfall, paused_at=timezone.now()
        )
        if moved:
            announce(Job.objects.get(pk=job_id), "job.paused")


def resume(*, job_id: int) -> None:
    """PAUSED -> RUNNING: the escrow covers another round again."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=job_id, state=Job.State.PAUSED).update(
            state=Job.State.RUNNING, reason="", shortfall=0, paused_at=None
        )
        if moved:
            announce(Job.objects.get(pk=job_id), "job.resumed")


def explain(*, job_id: int, reason: str) -> None:
    """Say why a job waits."""
    with transaction.atomic():
        if Job.objects.filter(pk=job_id).exclude(reason=reason).update(reason=reason):
            announce(Job.objects.get(pk=job_id), "job.changed")


def advance(*, job: Job, checkpoint: str, version: str) -> None:
    """One more round is aggregated; call inside its transaction. The last one completes the job."""
    rounds = job.round + 1
    Job.objects.filter(pk=job.pk).update(round=rounds, checkpoint=checkpoint, version=version, reason="")
    done = rounds >= job.parsed_spec.rounds.rounds
    completed = done and Job.objects.filter(pk=job.pk, state=Job.State.RUNNING).update(
        state=Job.State.COMPLETED, completed_at=timezone.now()
    )
    announce(job, "job.completed" if completed else "job.changed")


def note_metric(*, job_id: int, metric: dict[str, float]) -> None:
    """Of the newest checkpoint that was measured. Call inside the transaction that records it."""
    Job.objects.filter(pk=job_id).update(metric=metric)


def end(*, job_id: int, state: str, reason: str) -> bool:
    """RUNNING, PAUSED or FUNDED -> STOPPED or FAILED; what is accepted is still paid, the rest refunded."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=job_id, state__in=[Job.State.RUNNING, Job.State.PAUSED, Job.State.FUNDED]).update(
            state=state, reason=reason[:300], completed_at=timezone.now()
        )
        if moved:
            announce(Job.objects.get(pk=job_id), f"job.{state}")
    return bool(moved)
