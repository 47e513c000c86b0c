"""Jobs as pages see them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from marketplace.common.times import iso
from marketplace.jobs.models import Job
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import parse_spec


class MetricSerializer(serializers.Serializer):
    loss = serializers.FloatField()
    accuracy = serializers.FloatField()


class TargetSerializer(serializers.Serializer):
    metric = serializers.ChoiceField(["accuracy", "loss"])
    value = serializers.FloatField()


class PredictedSerializer(serializers.Serializer):
    """What all rounds were expected to come to when the first one opened (`at`): seconds until the last one is aggregated, and
    base units at full quality, the most, with the nodes that it had then. `low_seconds` to `high_seconds`: if all rounds last as
    eight of ten do. `basis`: each of the nodes had kept orders here, others had, or nobody had and it was assumed."""

    at = serializers.CharField()
    nodes = serializers.IntegerField()
    rounds = serializers.IntegerField()
    seconds = serializers.FloatField()
    low_seconds = serializers.FloatField(required=False)
    high_seconds = serializers.FloatField(required=False)
    price = serializers.CharField()
    basis = serializers.ChoiceField(["nodes", "others", "assumed"], required=False)


class JobSerializer(serializers.ModelSerializer):
    rounds = serializers.SerializerMethodField()
    target = serializers.SerializerMethodField()
    reached_target = serializers.BooleanField()
    data_source = serializers.SerializerMethodField()
    start_metric = serializers.SerializerMethodField()
    metric = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    shortfall = serializers.SerializerMethodField()
    checkpoint = serializers.SerializerMethodField()
    spec = serializers.DictField()
    finish_by = serializers.SerializerMethodField()
    parameters = serializers.IntegerField(allow_null=True, read_only=True)
    predicted = serializers.SerializerMethodField()
    created_at = serializers.SerializerMethodField()
    funded_at = serializers.SerializerMethodField()
    first_step_at = serializers.SerializerMethodField()
    completed_at = serializers.SerializerMethodField()
    closed_at = serializers.SerializerMethodField()

    class Meta:
        model = Job
        fields = [
            "id", "chain_id", "name", "state", "reason", "requester", "spec", "spec_hash", "escrow", "spent", "max_rate",
            "runway", "shortfall",
            "refund", "round", "rounds", "start_metric", "metric", "target", "reached_target", "data_source", "checkpoint",
            "finish_by", "goal", "parameters", "predicted",
            "created_at", "funded_at", "first_step_at", "completed_at", "closed_at",
        ]  # fmt: skip

    def get_rounds(self, job: Job) -> int:
        return job.parsed_spec.rounds.rounds

    @extend_schema_field(TargetSerializer)
    def get_target(self, job: Job) -> dict[str, Any]:
        return job.parsed_spec.target.model_dump()

    def get_data_source(self, job: Job) -> str:
        return job.parsed_spec.data.kind

    @extend_schema_field(MetricSerializer(allow_null=True))
    def get_start_metric(self, job: Job) -> dict[str, float] | None:
        return job.start_metric

    @extend_schema_field(MetricSerializer(allow_null=True))
    def get_metric(self, job: Job) -> dict[str, float] | None:
        return job.metric

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_reason(self, job: Job) -> str | None:
        return job.reason or None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_shortfall(self, job: Job) -> str | None:
        return str(job.shortfall) if job.state == Job.State.PAUSED else None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_checkpoint(self, job: Job) -> str | None:
        return job.checkpoint or None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_finish_by(self, job: Job) -> str | None:
        return iso(job.finish_by)

    @extend_schema_field(PredictedSerializer(allow_null=True))
    def get_predicted(self, job: Job) -> dict[str, Any] | None:
        return job.predicted

    def get_created_at(self, job: Job) -> str:
        return iso(job.created_at) or ""

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_funded_at(self, job: Job) -> str | None:
        return iso(job.funded_at)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_first_step_at(self, job: Job) -> str | None:
        return iso(job.first_step_at)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_completed_at(self, job: Job) -> str | None:
        return iso(job.completed_at)

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_closed_at(self, job: Job) -> str | None:
        return iso(job.closed_at)


# Making the fields of a serializer costs far more than showing a row with them: one serves every row.
JOB = JobSerializer()


def job_json(job: Job) -> dict[str, Any]:
    return dict(JOB.to_representation(job))


class WantedSerializer(serializers.Serializer):
    """What is to be trained, and what the requester wants of it beside."""

    spec = serializers.DictField(default=dict)
    goal = serializers.ChoiceField(
        Job.Goal.choices, default=Job.Goal.PRICE, help_text="Which nodes it takes first: the cheapest, or the fastest."
    )
    finish_by = serializers.DateTimeField(
        default=None, allow_null=True, help_text="RFC 3339. Gives the job priority, ends nothing; may be left out."
    )  # fmt: skip

    def validate_spec(self, value: Any) -> Any:
        if not isinstance(value, dict):
            raise HyperGPUError("spec.invalid", "The specification is a JSON object.")
        return parse_spec(value)


class PostJobSerializer(WantedSerializer):
    name = serializers.CharField(max_length=120)
    max_rate = serializers.IntegerField(min_value=1, max_value=2**100)
    escrow = serializers.IntegerField(min_value=1, max_value=2**120)
