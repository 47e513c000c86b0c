"""Gather, compute, record: each task does these three and no more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from django.conf import settings
from django.db import transaction

from marketplace.artifacts import store
from marketplace.common.driving import under_way
from marketplace.common.tasks import each, slow_task, task
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators import services as operators
from marketplace.training import selectors, waiting
from marketplace.training.models import Assignment, Audit, Checkpoint, Contribution, Round
from marketplace.training.services import audits, forgetting, leases, recording, rounds, verdicts
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import parameters_of, refuse_too_large


@slow_task()
def start_job(job_id: int) -> None:
    from marketplace.training import engine  # noqa: PLC0415  (the one door to torch, kept out of web processes)

    with under_way(Job.objects.filter(state=Job.State.FUNDED), job_id) as job:
        if job is None:
            return
        try:
            prepared = engine.prepare(selectors.job_work(job))
            refuse_too_large(parameters_of(prepared.upload_limit), most=settings.HYPERGPU.max_artifact_bytes)
        except HyperGPUError as refusal:
            jobs.end(job_id=job_id, state=Job.State.FAILED, reason=refusal.message)
            return
        verdicts.record_start(job_id=job_id, prepared=prepared)


@slow_task()
def size_job(job_id: int) -> None:
    """Build a draft's model, as far as its size goes, before anybody pays for it."""
    from marketplace.training import engine  # noqa: PLC0415

    with under_way(Job.unsized(), job_id) as job:
        if job is None:
            return
        try:
            jobs.note_size(job_id=job_id, parameters=engine.parameters(selectors.job_work(job)))
        except HyperGPUError as refusal:
            jobs.explain(job_id=job_id, reason=refusal.message[:300])


@task()
def open_round(job_id: int) -> None:
    rounds.open_round(job_id=job_id)


@task()
def open_next_round(round_id: int) -> None:
    rounds.open_round(job_id=Round.objects.get(pk=round_id).job_id)


@slow_task()
def check_contribution(contribution_id: int) -> None:
    from marketplace.training import engine  # noqa: PLC0415

    received = Contribution.objects.select_related("round__job", "assignment").filter(state=Contribution.State.RECEIVED)
    with under_way(received, contribution_id) as contribution:
        if contribution is None:
            return
        refusal: HyperGPUError | None = None
        try:
            job, number = selectors.job_work(contribution.round.job), contribution.round.number
            engine.check(job, selectors.submission(contribution), number=number)
        except HyperGPUError as error:
            refusal = error
        verdicts.record_check(contribution_id=contribution_id, refusal=refusal)


@task()
def record_contribution(contribution_id: int) -> None:
    with transaction.atomic():
        recording.record_on_chain(Contribution.objects.select_related("round__job").get(pk=contribution_id))


@task()
def record_waiting_contributions(job_id: int) -> None:
    """A round is settled: its nodes' seats have place for the next record."""
    for unrecorded in selectors.unrecorded_contributions(job_id=job_id):
        record_contribution(**unrecorded)


@task()
def close_round_if_complete(round_id: int) -> None:
    rounds.close_round_if_complete(round_id=round_id)


@slow_task()
def aggregate_round(round_id: int) -> None:
    from marketplace.training import engine  # noqa: PLC0415

    with under_way(Round.objects.select_related("job").filter(state=Round.State.AGGREGATING), round_id) as round_:
        if round_ is None:
            return
        work = selectors.round_work(round_)
        result = engine.close_round(work, measured=False)  # nobody waits for the metric: the next round opens first
        verdicts.record_round(round_id=round_id, result=result, evidence=engine.evidence(work, result))


@slow_task()
def evaluate_round(round_id: int) -> None:
    """What the round made, on the whole evaluation split."""
    from marketplace.training import engine  # noqa: PLC0415

    with under_way(Checkpoint.unmeasured().select_related("job"), selectors.checkpoint_after(round_id).pk) as checkpoint:
        if checkpoint is None:
            return
        metric = engine.metric(selectors.job_work(checkpoint.job), store.read(checkpoint.params))
        verdicts.record_metric(round_id=round_id, metric=metric)


@task()
def draw_audits(round_id: int) -> None:
    audits.draw_audits(round_id=round_id)


@task()
def audit_suspects(round_id: int) -> None:
    audits.audit_suspects(round_id=round_id)


@task()
def nudge_audited_nodes(round_id: int) -> None:
    waiting.nudge(Audit.objects.filter(contribution__round=round_id, state=Audit.State.REQUESTED))


@slow_task()
def replay_audit(audit_id: int) -> None:
    """On the queue `audit`: any machine with the database, the artifacts and the data may take it, best one of another owner."""
    from marketplace.training import engine  # noqa: PLC0415

    answered = Audit.objects.select_related("contribution__round__job", "contribution__assignment")
    with under_way(answered.filter(state=Audit.State.ANSWERED), audit_id) as audit:
        if audit is not None:
            audits.record_verdict(audit_id=audit_id, found=engine.replay_audit(selectors.audit_work(audit)))


@task()
def tick() -> None:
    """What only time brings about: leases that run out, nodes that fall silent, deadlines, rounds that wait for nodes."""
    steps: list[Callable[[], object]] = [
        leases.expire_leases, operators.forget_old_requests, verdicts.give_up, rounds.give_up, audits.expire, audits.give_up,
        operators.announce_silent_nodes, rounds.close_complete_rounds,
        partial(rounds.watch_runways, pause_limit=timedelta(seconds=settings.HYPERGPU.pause_limit_seconds)),
        rounds.open_due_rounds,
    ]  # fmt: skip
    each(steps, lambda step: step())


@task()
def forget() -> None:
    forgetting.forget()
    forgetting.watch_disk()


@task()
def nudge_nodes(round_id: int) -> None:
    waiting.nudge(Assignment.objects.filter(round=round_id))
