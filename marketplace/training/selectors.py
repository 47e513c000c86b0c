"""Reads of training: what the engine needs, what pages show, and what has stalled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.db.models import Max, QuerySet

from marketplace.artifacts import store
from marketplace.chain.models import Cursor, Intent
from marketplace.common.driving import drivable
from marketplace.jobs.models import Job
from marketplace.training import calibration
from marketplace.training.models import Assignment, Audit, Checkpoint, Contribution, Round
from marketplace.training.services import audits, leases, recording
from trainer.protocol.draws import DELAY
from trainer.protocol.orders import order_seed
from trainer.protocol.rounds import AuditWork, Earlier, JobWork, RoundWork, Standing, Submission, remembered
from trainer.protocol.spec import EncodingSpec

SHOWN_AUDITS = 500


def job_work(job: Job) -> JobWork:
    spec = job.parsed_spec
    return JobWork(spec=spec, files={name: store.path_of(sha256) for name, sha256 in spec.data.files.items()})


def round_work(round_: Round) -> RoundWork:
    """Everything that decides the round's outcome. Raises HyperGPUError `artifact.unknown`."""
    checkpoint = Checkpoint.objects.get(job_id=round_.job_id, number=round_.number)
    checked, job = Contribution.objects.filter(round=round_, checked_at__isnull=False), round_.job
    return RoundWork(
        job=job_work(round_.job), chain_job_id=round_.job.chain_id or 0, number=round_.number, base=round_.base,
        params=store.read(checkpoint.params), outer_state=store.read(checkpoint.outer_state),
        previous_aggregate=store.read(checkpoint.aggregate) if checkpoint.aggregate else None,
        submissions=submissions(checked), standings=standings(round_),
        earlier={number: submissions(accepted(job, number)) for number in remembered(job.parsed_spec, round_.number)},
        before=Round.objects.get(job=job, number=round_.number - 1).evidence if round_.number else None,
    )  # fmt: skip


def accepted(job: Job, number: int) -> QuerySet[Contribution]:
    return Contribution.objects.filter(round__job=job, round__number=number, state=Contribution.State.ACCEPTED)


def submissions(contributions: QuerySet[Contribution]) -> list[Submission]:
    """In the order of their commitments. Raises HyperGPUError `artifact.unknown`."""
    return [submission(one) for one in contributions.select_related("assignment").order_by("committed_at", "node_id")]


def checkpoint_after(round_id: int) -> Checkpoint:
    """That which the round made."""
    round_ = Round.objects.get(pk=round_id)
    return Checkpoint.objects.get(job_id=round_.job_id, number=round_.number + 1)


def submission(contribution: Contribution) -> Submission:
    """A contribution as it was handed in, with what was ordered. Raises HyperGPUError `artifact.unknown`."""
    assignment, round_ = contribution.assignment, contribution.round
    began = assignment.began.round
    return Submission(
        node_id=contribution.node_id, units=contribution.units, artifact=contribution.artifact,
        data=store.read(contribution.artifact), shard=assignment.shard,
        seed=order_seed(round_.job.parsed_spec, began.number, assignment.shard), steps=assignment.steps,
        encoding=EncodingSpec.model_validate(assignment.encoding), origin=None if began == round_ else began.number,
    )  # fmt: skip


def standings(round_: Round) -> dict[int, Standing]:
    """What the job's earlier rounds say of each node: its newest verdict's word."""
    judged = Contribution.objects.filter(round__job=round_.job, round__number__lt=round_.number, standing__isnull=False)
    return {c.node_id: Standing(**(c.standing or {})) for c in judged.order_by("round__number").only("node_id", "standing")}


def stalled_jobs() -> Iterable[dict[str, Any]]:
    """Funded jobs whose start is lost."""
    return [{"job_id": pk} for pk in drivable(Job.objects.filter(state=Job.State.FUNDED))]


def stalled_drafts() -> Iterable[dict[str, Any]]:
    """Drafts whose sizing is lost."""
    return [{"job_id": pk} for pk in drivable(Job.unsized())]


def stalled_rounds() -> Iterable[dict[str, Any]]:
    return [{"round_id": pk} for pk in drivable(Round.objects.filter(state=Round.State.AGGREGATING))]


def unmeasured_rounds() -> Iterable[dict[str, Any]]:
    """Rounds of checkpoints whose measurement is lost."""
    return [{"round_id": one.made_by.pk} for one in Checkpoint.objects.filter(pk__in=drivable(Checkpoint.unmeasured()))]


def stalled_contributions() -> Iterable[dict[str, Any]]:
    return [{"contribution_id": pk} for pk in drivable(Contribution.objects.filter(state=Contribution.State.RECEIVED))]


def audit_work(audit: Audit) -> AuditWork:
    """All that decides the audit's outcome. Raises HyperGPUError `artifact.unknown`."""
    contribution = audit.contribution
    round_, batch = contribution.round, contribution.round.job.parsed_spec.inner.batch_size
    order = leases.work_order(contribution.assignment).as_trained
    return AuditWork(
        job=job_work(round_.job), order=order, params=store.read(order.checkpoint),
        segment=audit.segment, upload=store.read(contribution.artifact), steps=contribution.units // batch,
        before=earlier(contribution), evidence=store.read(audit.evidence),
        operator_class=audit.operator_class, honest_errors=calibration.honest_errors(audit.precision, audit.operator_class),
    )  # fmt: skip


def earlier(contribution: Contribution) -> Earlier | None:
    """What the node had handed in for the job before."""
    round_ = contribution.round
    mine = Contribution.objects.filter(round__job=round_.job_id, round__number__lt=round_.number, node_id=contribution.node_id)
    before = mine.order_by("-round__number").select_related("round", "assignment__round__job").first()
    if before is None:
        return None
    order = leases.work_order(before.assignment).as_trained
    return Earlier(
        order=order, upload=store.read(before.artifact), steps=before.units // order.spec.inner.batch_size,
        params=store.read(order.checkpoint) if order.spec.network.overlap == "eager" else None,
        bound=before.round.number == round_.number - 1 and before.state == Contribution.State.ACCEPTED,
    )  # fmt: skip


def audits_of(**of: Any) -> QuerySet[Audit]:
    """As pages show them, oldest first: the newest `SHOWN_AUDITS`."""
    newest = list(Audit.objects.filter(**of).order_by("-id").values_list("pk", flat=True)[:SHOWN_AUDITS])
    return Audit.objects.filter(pk__in=newest).select_related("contribution__round", "contribution__case").order_by("id")


def drawable_rounds() -> Iterable[dict[str, Any]]:
    """Settled rounds whose audits were not drawn yet, and now can be: the block that draws is final."""
    final = Cursor.objects.aggregate(newest=Max("finalized"))["newest"] or 0
    due = Round.objects.filter(state=Round.State.SETTLED, drawn_at=None, settled_block__lte=final - DELAY)
    return [{"round_id": pk} for pk in due.values_list("pk", flat=True)[:100]]


def suspect_rounds() -> Iterable[dict[str, Any]]:
    """Rounds with paid work of convicted nodes that is to be audited after all."""
    return [{"round_id": pk} for pk in audits.suspects().values_list("round", flat=True).distinct()[:100]]


def stalled_audits() -> Iterable[dict[str, Any]]:
    """Answered audits whose replay is lost."""
    return [{"audit_id": pk} for pk in drivable(Audit.objects.filter(state=Audit.State.ANSWERED))]


def unrecorded_contributions(**of: int) -> Iterable[dict[str, Any]]:
    """Mode `per-receipt`: contributions to unsettled rounds whose recording was never promised, since the seat had no place;
    of one job (`job_id`) or all."""
    if settings.HYPERGPU.settlement_mode != "per-receipt":
        return []
    waiting = Contribution.objects.filter(recorded_tx="", round__state__in=recording.UNSETTLED, state__in=recording.GOOD)
    waiting = waiting.filter(**{f"round__{name}": value for name, value in of.items()})
    keys = {recording.key_of(one.round, one.node_id): one.pk for one in waiting.select_related("round__job")[:1000]}
    promised = set(Intent.objects.filter(key__in=keys).values_list("key", flat=True))
    return [{"contribution_id": pk} for key, pk in keys.items() if key not in promised]


def nodes_of(round_id: int) -> list[int]:
    return list(Assignment.objects.filter(round_id=round_id).values_list("node_id", flat=True))


def vias_of(round_id: int) -> dict[int, int]:
    """By node of a round whose upload is to go by way of another node: that node."""
    gathered = Assignment.objects.filter(round_id=round_id).exclude(via=None)
    return {node: via for node, via in gathered.values_list("node_id", "via") if via is not None}


def step_size(round_: Round) -> int:
    """Bytes of the outer step that leads to a round's base."""
    return Checkpoint.objects.values_list("delta_size", flat=True).get(job_id=round_.job_id, number=round_.number)


def job_of_round(round_id: int) -> int:
    return Round.objects.values_list("job_id", flat=True).get(pk=round_id)
