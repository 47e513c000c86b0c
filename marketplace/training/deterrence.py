"""Whether cheating pays, in numbers: what an audit finds, what a case takes, and how far verdicts can be trusted."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node
from marketplace.training import calibration
from marketplace.training.calibration import Calibration
from trainer.protocol.draws import count_of
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import evidence_limit
from trainer.protocol.packing import reward
from trainer.protocol.spec import JobSpec
from trainer.protocol.types import QUALITY_ONE
from trainer.scoring.deterrence import (
    CASE_TAKES,
    COST_SHARE,
    HONEST_AUDITS,
    SAFETY,
    AuditPolicy,
    deterrence,
    needed_at_stake,
    needed_rate,
)

LAZY = 0.1
"""The part of its work that the lazy one of the examples does not do."""
MISSED = 0.01
"""Part of the replays of false segments that is assumed to pass: 0.8 % of lazy ones did (docs/benchmarks/audits.json)."""


def policy_of(spec: JobSpec, rate: float) -> AuditPolicy:
    audit = spec.audit
    return AuditPolicy(
        rate=rate, segments=count_of(audit, spec.inner.steps), audited=audit.segments, miss_rate=MISSED
    )  # fmt: skip


class NodeAtStakeSerializer(serializers.Serializer):
    """Base units: full pay of a round; what a case about it takes (`at_stake`) of what the node has, which is its own credit that
    was not withdrawn and its operator's stake; what it must lose to be deterred (null: no audits, so nothing deters)."""

    node_id = serializers.IntegerField()
    pay = serializers.CharField()
    at_stake = serializers.CharField()
    stake = serializers.CharField()
    withheld = serializers.CharField()
    needed = serializers.CharField(allow_null=True)
    enough = serializers.BooleanField()


class AssumedSerializer(serializers.Serializer):
    cost = serializers.FloatField()
    missed = serializers.FloatField()
    safety = serializers.FloatField()


class AuditClassSerializer(serializers.Serializer):
    precision = serializers.CharField()
    operator_class = serializers.CharField()
    auditor_class = serializers.CharField()
    honest = serializers.IntegerField()
    false_alarms = serializers.IntegerField()
    highest_rate = serializers.FloatField()
    calibrated = serializers.BooleanField()


class DeterrenceSerializer(serializers.Serializer):
    """Rates are parts of the contributions; `caught_*` the chance that one cheated round is found; `left_*` what is left of the
    pay of a node's first `newcomer_rounds` if it cheats in all of them and loses all once it is found. `auditing*` is the work
    of auditors for each unit of the operators'; `shown_bytes` what a node sends at most for an audited contribution (null
    before the model is built). `case_takes` how often a round's pay a case takes, `deterring_rate` the audits with which that is
    just enough (above 1: none are)."""

    rate = serializers.FloatField()
    newcomer_rate = serializers.FloatField()
    newcomer_rounds = serializers.IntegerField()
    segments = serializers.IntegerField()
    stride = serializers.IntegerField()
    segments_of_round = serializers.IntegerField()
    lazy_part = serializers.FloatField()
    caught_lazy = serializers.FloatField()
    caught_idle = serializers.FloatField()
    left_lazy = serializers.FloatField()
    left_idle = serializers.FloatField()
    auditing = serializers.FloatField()
    auditing_newcomers = serializers.FloatField()
    shown_bytes = serializers.IntegerField(allow_null=True)
    case_takes = serializers.FloatField()
    deterring_rate = serializers.FloatField()
    assumed = AssumedSerializer()
    honest_audits_needed = serializers.IntegerField()
    nodes = NodeAtStakeSerializer(many=True)
    classes = AuditClassSerializer(many=True)


class DeterrenceView(APIView):
    @extend_schema(operation_id="getDeterrence", responses=DeterrenceSerializer)
    def get(self, request: Request, job_id: int) -> Response:
        job = Job.objects.filter(pk=job_id).first()
        if job is None:
            raise HyperGPUError("job.unknown", f"There is no job {job_id}.")
        return Response(figures(job))


def figures(job: Job) -> dict[str, Any]:
    spec, rounds = job.parsed_spec, job.parsed_spec.audit.newcomer_rounds
    policy, newcomers = policy_of(spec, spec.audit.rate), policy_of(spec, spec.audit.newcomer_rate)
    segments = min(policy.audited, policy.segments)
    return {
        "rate": policy.rate, "newcomer_rate": spec.audit.newcomer_rate, "newcomer_rounds": rounds,
        "segments": segments, "stride": spec.audit.stride, "segments_of_round": policy.segments,
        "lazy_part": LAZY, "caught_lazy": deterrence(LAZY, policy, at_stake=0).caught,
        "caught_idle": deterrence(1.0, policy, at_stake=0).caught,
        "left_lazy": (1 - deterrence(LAZY, newcomers, at_stake=0).caught) ** rounds,
        "left_idle": (1 - deterrence(1.0, newcomers, at_stake=0).caught) ** rounds,
        "auditing": policy.compute_share, "auditing_newcomers": newcomers.compute_share,
        "shown_bytes": None if job.parameters is None else segments * evidence_limit(job.parameters),
        "case_takes": CASE_TAKES, "deterring_rate": needed_rate(miss_rate=MISSED),
        "assumed": {"cost": COST_SHARE, "missed": MISSED, "safety": SAFETY},
        "honest_audits_needed": HONEST_AUDITS,
        "nodes": [at_stake(seat, spec, policy) for seat in Seat.objects.filter(job=job).order_by("node_id")],
        "classes": [class_json(one) for one in calibration.classes_of(job_id=job.pk)],
    }  # fmt: skip


def at_stake(seat: Seat, spec: JobSpec, policy: AuditPolicy) -> dict[str, Any]:
    node = Node.objects.select_related("operator").get(pk=seat.node_id)
    pay = reward(units=spec.units_per_round, rate=int(seat.rate), quality=QUALITY_ONE)
    rounds, has = needed_at_stake(policy), int(node.operator.stake) + int(node.credit)
    taken = min(int(CASE_TAKES * pay), has)
    needed = math.ceil(rounds * pay) if math.isfinite(rounds) else None
    return {
        "node_id": node.pk, "pay": str(pay), "at_stake": str(taken), "stake": str(node.operator.stake),
        "withheld": str(node.credit), "needed": None if needed is None else str(needed),
        "enough": needed is not None and taken >= needed,
    }  # fmt: skip


def class_json(one: Calibration) -> dict[str, Any]:
    return {**asdict(one), "highest_rate": one.highest_rate, "calibrated": one.calibrated}
