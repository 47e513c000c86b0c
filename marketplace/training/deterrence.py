"""Why cheating does not pay, in numbers: what an audit finds, what a node has to lose, and how far verdicts can be trusted."""

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
from trainer.protocol.packing import reward
from trainer.protocol.spec import AuditSpec
from trainer.protocol.types import QUALITY_ONE

LAZY = 0.1
"""The part of its segments in which the lazy one of the examples does not do its work."""
COST = 0.7
"""Part of the pay that honest work is assumed to cost, so what not doing it saves."""
MISSED = 0.01
"""Part of replays of cheated segments that is assumed to pass."""
SAFETY = 3
"""Times over that being caught is to cost more than cheating saves."""


def caught(spec: AuditSpec, *, steps: int, part: float) -> float:
    """The chance that an audit replays a segment in which the work was not done, if that is `part` of the segments."""
    count = count_of(spec, steps)
    cheated, replayed = math.ceil(part * count), min(spec.segments, count)
    return 1 - math.comb(count - cheated, replayed) / math.comb(count, replayed)


def stake_needed(spec: AuditSpec, *, pay: int) -> int:
    """Base units that a node must have to lose so that no part of cheating pays, if it is paid `pay` a round: what the rounds save
    until it is caught, `SAFETY` times. Skipping all work is the worst case: replayed segments are drawn without repetition, so a
    part of it is found at least as often as its share."""
    if spec.rate == 0:
        return 0
    return math.ceil(SAFETY * COST * pay / (spec.rate * (1 - MISSED)))


class NodeAtStakeSerializer(serializers.Serializer):
    """Base units: full pay of a round, what the node could lose (its operator's stake, its own credit that was not withdrawn), and
    what it must have to lose."""

    node_id = serializers.IntegerField()
    pay = serializers.CharField()
    stake = serializers.CharField()
    withheld = serializers.CharField()
    needed = serializers.CharField()
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
    """Rates are parts of the contributions; `caught_*` the chance that one cheated round is found."""

    rate = serializers.FloatField()
    newcomer_rate = serializers.FloatField()
    newcomer_rounds = serializers.IntegerField()
    segments = serializers.IntegerField()
    stride = serializers.IntegerField()
    segments_of_round = serializers.IntegerField()
    lazy_part = serializers.FloatField()
    caught_lazy = serializers.FloatField()
    caught_idle = serializers.FloatField()
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
        return Response(deterrence(job))


def deterrence(job: Job) -> dict[str, Any]:
    spec = job.parsed_spec
    audit, steps = spec.audit, spec.inner.steps
    return {
        "rate": audit.rate, "newcomer_rate": audit.newcomer_rate, "newcomer_rounds": audit.newcomer_rounds,
        "segments": min(audit.segments, count_of(audit, steps)), "stride": audit.stride,
        "segments_of_round": count_of(audit, steps), "lazy_part": LAZY,
        "caught_lazy": audit.rate * (1 - MISSED) * caught(audit, steps=steps, part=LAZY),
        "caught_idle": audit.rate * (1 - MISSED) * caught(audit, steps=steps, part=1.0),
        "assumed": {"cost": COST, "missed": MISSED, "safety": SAFETY},
        "honest_audits_needed": calibration.HONEST_AUDITS,
        "nodes": [at_stake(seat, job) for seat in Seat.objects.filter(job=job).order_by("node_id")],
        "classes": [class_json(one) for one in calibration.classes_of(job_id=job.pk)],
    }  # fmt: skip


def at_stake(seat: Seat, job: Job) -> dict[str, Any]:
    node = Node.objects.select_related("operator").get(pk=seat.node_id)
    pay = reward(units=job.parsed_spec.units_per_round, rate=int(seat.rate), quality=QUALITY_ONE)
    needed, has = stake_needed(job.parsed_spec.audit, pay=pay), int(node.operator.stake) + int(node.credit)
    return {
        "node_id": node.pk, "pay": str(pay), "stake": str(node.operator.stake), "withheld": str(node.credit),
        "needed": str(needed), "enough": has >= needed,
    }  # fmt: skip


def class_json(one: Calibration) -> dict[str, Any]:
    return {**asdict(one), "highest_rate": one.highest_rate, "calibrated": one.calibrated}
