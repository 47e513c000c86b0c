"""What checks and scores decided, written down: each verdict once, together with all that follows from it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.db import transaction
from django.utils import timezone

from marketplace.artifacts import services as artifacts
from marketplace.artifacts.models import Artifact
from marketplace.common.driving import MAX_DRIVES, hopeless
from marketplace.common.tasks import each
from marketplace.events.services import emit
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.jobs.serializers import job_json
from marketplace.operators import services as operators
from marketplace.training.models import Checkpoint, Contribution, Round
from marketplace.training.serializers import contribution_json, round_json
from marketplace.training.services.rounds import topic_of
from trainer.protocol.canonical import canonical_bytes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Prepared, RoundResult
from trainer.scoring.rating import ranking


def record_start(*, job_id: int, prepared: Prepared) -> None:
    """The first checkpoint exists: the job runs. Safe to call twice."""
    params = artifacts.store_bytes(data=prepared.params, kind=Artifact.Kind.CHECKPOINT, public=True)
    outer = artifacts.store_bytes(data=prepared.outer_state, kind=Artifact.Kind.OUTER_STATE, public=True)
    # Under the hash that the chain holds: who has the job's number there finds all else from here.
    spec = canonical_bytes(Job.objects.get(pk=job_id).parsed_spec.model_dump(mode="json"))
    artifacts.store_bytes(data=spec, kind=Artifact.Kind.SPECIFICATION, public=True)
    Checkpoint.objects.get_or_create(
        job_id=job_id, number=0,
        defaults={"version": prepared.base, "params": params.pk, "outer_state": outer.pk, "metric": prepared.metric},
    )  # fmt: skip
    jobs.begin(
        job_id=job_id, checkpoint=params.pk, version=prepared.base, metric=prepared.metric,
        upload_limit=prepared.upload_limit, evaluation_rate=prepared.evaluation_rate,
    )  # fmt: skip


def record_check(*, contribution_id: int, refusal: HyperGPUError | None) -> None:
    """RECEIVED -> CHECKED or REJECTED."""
    state = Contribution.State.CHECKED
    told: dict[str, Any] = {"checked_at": timezone.now()}
    if refusal is not None:
        state, told = Contribution.State.REJECTED, {"code": refusal.code, "reason": refusal.message[:300]}
    with transaction.atomic():
        moved = Contribution.objects.filter(pk=contribution_id, state=Contribution.State.RECEIVED).update(state=state, **told)
        if not moved:
            return
        contribution = Contribution.objects.select_related("round__job").get(pk=contribution_id)
        emit(
            "contribution.checked" if refusal is None else "contribution.rejected",
            topics=[topic_of(contribution.round.job_id)],
            changes={"contributions": [contribution_json(contribution)]},
            refs={"round_id": contribution.round_id},
        )


def give_up() -> None:
    """Contributions whose check never ends are refused: one upload must not hold up a round. A round that cannot be measured
    says nothing of its model."""
    refusal = HyperGPUError("contribution.unreadable", f"Checking it failed {MAX_DRIVES} times.")
    received = hopeless(Contribution.objects.filter(state=Contribution.State.RECEIVED))
    each(received, lambda contribution: record_check(contribution_id=contribution.pk, refusal=refusal))
    each(hopeless(Checkpoint.unmeasured()), lambda checkpoint: record_unmeasured(checkpoint=checkpoint))


def record_round(*, round_id: int, result: RoundResult, evidence: dict[str, Any]) -> None:
    """AGGREGATING -> AGGREGATED with its new checkpoint, scores and evidence. Safe to call twice: the first result stands."""
    round_ = Round.objects.select_related("job").get(pk=round_id)
    stored = store_result(result, evidence)
    with transaction.atomic():
        moved = Round.objects.filter(pk=round_id, state=Round.State.AGGREGATING).update(
            state=Round.State.AGGREGATED, aggregated_at=timezone.now(), evidence=stored["evidence"]
        )
        if not moved:
            return
        judged = record_verdicts(round_, result)
        artifacts.publish(sha256s=[contribution.artifact for contribution in judged])
        Checkpoint.objects.create(
            job=round_.job, number=round_.number + 1, version=result.version, params=stored["params"],
            outer_state=stored["outer_state"], delta=stored["delta"], delta_size=len(result.delta),
            aggregate=stored["aggregate"], driven_at=timezone.now(),
        )  # fmt: skip
        jobs.advance(job=Job.objects.get(pk=round_.job_id), checkpoint=stored["params"], version=result.version)
        round_.refresh_from_db()
        emit(
            "round.aggregated",
            topics=[topic_of(round_.job_id)],
            changes={
                "job": job_json(Job.objects.get(pk=round_.job_id)),
                "rounds": [round_json(round_)],
                "contributions": [contribution_json(contribution) for contribution in judged],
            },
            refs={"round_id": round_id},
        )
        rate_nodes(result)  # told last: the next round need not wait for the pages


def rate_nodes(result: RoundResult) -> None:
    """The round as a match: by improvement, refused work last. Call inside the transaction that ends it."""
    improvements = {verdict.node_id: verdict.score["improvement"] for verdict in result.verdicts if verdict.score}
    refused = [verdict.node_id for verdict in result.verdicts if verdict.code]
    operators.rate(ranking(improvements, refused))
    operators.announce_all([verdict.node_id for verdict in result.verdicts])


def record_metric(*, round_id: int, metric: dict[str, float]) -> None:
    """How good the round's checkpoint is; the newest one's metric is the job's. Safe to call twice."""
    with transaction.atomic():
        if not Round.objects.filter(pk=round_id, metric__isnull=True).update(metric=metric):
            return
        round_ = Round.objects.select_related("job").get(pk=round_id)
        Checkpoint.objects.filter(job=round_.job, number=round_.number + 1).update(metric=metric)
        if not Round.objects.filter(job=round_.job, number__gt=round_.number, metric__has_key="loss").exists():
            jobs.note_metric(job_id=round_.job_id, metric=metric)
        emit(
            "round.evaluated",
            topics=[topic_of(round_.job_id)],
            changes={"job": job_json(Job.objects.get(pk=round_.job_id)), "rounds": [round_json(round_)]},
        )


def record_unmeasured(*, checkpoint: Checkpoint) -> None:
    """A round goes without a metric: each attempt to measure what it made has failed."""
    round_ = checkpoint.made_by
    with transaction.atomic():
        if not Round.objects.filter(pk=round_.pk, metric__isnull=True).update(metric={}):
            return
        Checkpoint.objects.filter(pk=checkpoint.pk).update(metric={})
        jobs.explain(
            job_id=round_.job_id, reason=f"What round {round_.number} made could not be measured in {MAX_DRIVES} attempts."
        )
        round_.refresh_from_db()
        emit("round.evaluated", topics=[topic_of(round_.job_id)], changes={"rounds": [round_json(round_)]})


def store_result(result: RoundResult, evidence: dict[str, Any]) -> dict[str, str]:
    """Hashes of the round's public artifacts; empty for those that there are none of."""
    blobs = {
        "params": (result.params, Artifact.Kind.CHECKPOINT),
        "outer_state": (result.outer_state, Artifact.Kind.OUTER_STATE),
        "aggregate": (result.aggregate, Artifact.Kind.CHECKPOINT),
        "delta": (result.delta, Artifact.Kind.DELTA),
        "evidence": (canonical_bytes(evidence), Artifact.Kind.EVIDENCE),
    }
    stored = artifacts.store_together({name: blob for name, blob in blobs.items() if blob[0]})
    return {name: stored[name].pk if name in stored else "" for name in blobs}


def record_verdicts(round_: Round, result: RoundResult) -> list[Contribution]:
    """CHECKED -> ACCEPTED or REJECTED for every contribution of the round."""
    judged = []
    for verdict in result.verdicts:
        changes: dict[str, Any] = {"score": verdict.score, "quality": verdict.quality, "weight": verdict.weight}
        changes["standing"] = asdict(verdict.standing)
        if verdict.code:
            changes |= {"state": Contribution.State.REJECTED, "code": verdict.code, "reason": verdict.reason[:300]}
        else:
            changes |= {"state": Contribution.State.ACCEPTED}
        Contribution.objects.filter(round=round_, node_id=verdict.node_id, state=Contribution.State.CHECKED).update(**changes)
        judged.append(Contribution.objects.select_related("round").get(round=round_, node_id=verdict.node_id))
    return judged
