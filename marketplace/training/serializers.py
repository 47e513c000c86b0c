"""Rounds, assignments and contributions as pages see them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from marketplace.common.times import iso
from marketplace.jobs.serializers import MetricSerializer
from marketplace.training.models import Assignment, Contribution, Round

NULLABLE_TIME = serializers.CharField(allow_null=True)


class RoundSerializer(serializers.ModelSerializer):
    expected = serializers.SerializerMethodField()
    accepted = serializers.SerializerMethodField()
    metric = serializers.SerializerMethodField()
    checkpoint = serializers.SerializerMethodField()
    evidence = serializers.SerializerMethodField()
    settlement = serializers.SerializerMethodField()
    opened_at = serializers.SerializerMethodField()
    deadline = serializers.SerializerMethodField()
    closed_at = serializers.SerializerMethodField()
    aggregated_at = serializers.SerializerMethodField()
    settled_at = serializers.SerializerMethodField()
    accepted_at = serializers.SerializerMethodField()

    class Meta:
        model = Round
        fields = [
            "id", "number", "state", "base", "checkpoint", "evidence", "settlement", "metric", "expected", "accepted",
            "opened_at", "deadline", "closed_at", "aggregated_at", "settled_at", "accepted_at",
        ]  # fmt: skip

    def get_expected(self, round_: Round) -> int:
        return round_.assignments.count()

    def get_accepted(self, round_: Round) -> int:
        return round_.contributions.filter(state=Contribution.State.ACCEPTED).count()

    @extend_schema_field(MetricSerializer(allow_null=True))
    def get_metric(self, round_: Round) -> dict[str, float] | None:
        return round_.metric

    @extend_schema_field(NULLABLE_TIME)
    def get_checkpoint(self, round_: Round) -> str | None:
        checkpoint = round_.job.checkpoints.filter(number=round_.number + 1).first()
        return checkpoint.params if checkpoint else None

    @extend_schema_field(NULLABLE_TIME)
    def get_evidence(self, round_: Round) -> str | None:
        return round_.evidence or None

    @extend_schema_field(NULLABLE_TIME)
    def get_settlement(self, round_: Round) -> str | None:
        return round_.settlement or None

    def get_opened_at(self, round_: Round) -> str:
        return iso(round_.opened_at) or ""

    def get_deadline(self, round_: Round) -> str:
        return iso(round_.deadline) or ""

    @extend_schema_field(NULLABLE_TIME)
    def get_closed_at(self, round_: Round) -> str | None:
        return iso(round_.closed_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_aggregated_at(self, round_: Round) -> str | None:
        return iso(round_.aggregated_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_settled_at(self, round_: Round) -> str | None:
        return iso(round_.settled_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_accepted_at(self, round_: Round) -> str | None:
        return iso(round_.accepted_at)


class AssignmentSerializer(serializers.ModelSerializer):
    round = serializers.IntegerField(source="round.number")
    steps = serializers.SerializerMethodField()
    losses = serializers.ListField(child=serializers.ListField(child=serializers.FloatField()))
    leased_at = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()

    class Meta:
        model = Assignment
        fields = ["id", "round", "node_id", "state", "attempt", "step", "steps", "losses", "leased_at", "reason"]

    def get_steps(self, assignment: Assignment) -> int:
        return assignment.steps

    @extend_schema_field(NULLABLE_TIME)
    def get_leased_at(self, assignment: Assignment) -> str | None:
        return iso(assignment.leased_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_reason(self, assignment: Assignment) -> str | None:
        return assignment.reason or None


class ScoreSerializer(serializers.Serializer):
    loss_before = serializers.FloatField()
    loss_after = serializers.FloatField()
    improvement = serializers.FloatField()


class ContributionSerializer(serializers.ModelSerializer):
    round = serializers.IntegerField(source="round.number")
    bytes = serializers.IntegerField(source="size")
    score = serializers.SerializerMethodField()
    received_at = serializers.SerializerMethodField()
    recorded_tx = serializers.SerializerMethodField()
    recorded_at = serializers.SerializerMethodField()
    code = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()

    class Meta:
        model = Contribution
        fields = [
            "id", "round", "node_id", "state", "units", "artifact", "bytes", "received_at", "score", "quality", "weight",
            "code", "reason", "signature", "recorded_tx", "recorded_at",
        ]  # fmt: skip

    @extend_schema_field(ScoreSerializer(allow_null=True))
    def get_score(self, contribution: Contribution) -> dict[str, float] | None:
        return contribution.score

    def get_received_at(self, contribution: Contribution) -> str:
        return iso(contribution.received_at) or ""

    @extend_schema_field(NULLABLE_TIME)
    def get_recorded_tx(self, contribution: Contribution) -> str | None:
        return contribution.recorded_tx or None

    @extend_schema_field(NULLABLE_TIME)
    def get_recorded_at(self, contribution: Contribution) -> str | None:
        return iso(contribution.recorded_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_code(self, contribution: Contribution) -> str | None:
        return contribution.code or None

    @extend_schema_field(NULLABLE_TIME)
    def get_reason(self, contribution: Contribution) -> str | None:
        return contribution.reason or None


# Making the fields of a serializer costs far more than showing a row with them: one serves every row.
ROUND = RoundSerializer()
ASSIGNMENT = AssignmentSerializer()
CONTRIBUTION = ContributionSerializer()


def round_json(round_: Round) -> dict[str, Any]:
    return dict(ROUND.to_representation(round_))


def assignment_json(assignment: Assignment) -> dict[str, Any]:
    return dict(ASSIGNMENT.to_representation(assignment))


def contribution_json(contribution: Contribution) -> dict[str, Any]:
    return dict(CONTRIBUTION.to_representation(contribution))
