"""Rounds, assignments and contributions as pages see them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from marketplace.common.times import iso
from marketplace.jobs.serializers import MetricSerializer
from marketplace.operators.serializers import HealthSerializer, PhasesSerializer, PredictionSerializer, ReasonSerializer
from marketplace.training.models import Assignment, Audit, Case, Contribution, Round
from trainer.network.encodings import named
from trainer.protocol.spec import EncodingSpec

NULLABLE_TIME = serializers.CharField(allow_null=True)


class VersionSerializer(serializers.Serializer):
    """What a round made: the model's version (Merkle root), its checkpoint, and the outer step that each node fetches."""

    version = serializers.CharField()
    checkpoint = serializers.CharField()
    delta = serializers.CharField(allow_null=True)
    delta_bytes = serializers.IntegerField()


class ExcludedSerializer(ReasonSerializer):
    node_id = serializers.IntegerField()


class NodeHealthSerializer(HealthSerializer):
    node_id = serializers.IntegerField()


class SeatingSerializer(ReasonSerializer):
    node_id = serializers.IntegerField()
    taken = serializers.BooleanField()


class PlanSerializer(serializers.Serializer):
    """How a round was decided: when it closes, who has no part, and why. `predicted_seconds`: when the last that it waits for was
    expected, or it closes without. `steps` are all that were given, `most_steps` what they may sum up to. `seating`: nodes that
    were taken for the job as the round opened, or passed over."""

    policy = serializers.ChoiceField(["adaptive", "equal"])
    quorum = serializers.IntegerField()
    deadline_seconds = serializers.FloatField()
    predicted_seconds = serializers.FloatField(allow_null=True)
    steps = serializers.IntegerField()
    most_steps = serializers.IntegerField()
    reasons = ReasonSerializer(many=True)
    excluded = ExcludedSerializer(many=True)
    seating = SeatingSerializer(many=True)
    health = NodeHealthSerializer(many=True)


class RoundSerializer(serializers.ModelSerializer):
    plan = serializers.SerializerMethodField()
    expected = serializers.SerializerMethodField()
    accepted = serializers.SerializerMethodField()
    metric = serializers.SerializerMethodField()
    after = serializers.SerializerMethodField()
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
            "id", "number", "state", "base", "after", "evidence", "settlement", "metric", "expected", "accepted", "plan",
            "opened_at", "deadline", "closed_at", "aggregated_at", "settled_at", "accepted_at",
        ]  # fmt: skip

    @extend_schema_field(PlanSerializer(allow_null=True))
    def get_plan(self, round_: Round) -> dict[str, Any] | None:
        return {"seating": [], **round_.plan} if round_.plan else None

    def get_expected(self, round_: Round) -> int:
        return round_.assignments.count()

    def get_accepted(self, round_: Round) -> int:
        return round_.contributions.filter(state=Contribution.State.ACCEPTED).count()

    @extend_schema_field(MetricSerializer(allow_null=True))
    def get_metric(self, round_: Round) -> dict[str, float] | None:
        return round_.metric

    @extend_schema_field(VersionSerializer(allow_null=True))
    def get_after(self, round_: Round) -> dict[str, Any] | None:
        after = round_.job.checkpoints.filter(number=round_.number + 1).first()
        if after is None:
            return None
        delta = {"delta": after.delta or None, "delta_bytes": after.delta_size}
        return {"version": after.version, "checkpoint": after.params, **delta}

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
    encoding = serializers.SerializerMethodField()
    reasons = ReasonSerializer(many=True)
    predicted = serializers.SerializerMethodField()
    actual = serializers.SerializerMethodField()
    origin = serializers.SerializerMethodField()

    class Meta:
        model = Assignment
        fields = [
            "id", "round", "node_id", "state", "attempt", "step", "steps", "encoding", "reasons", "predicted", "actual", "origin",
            "losses", "leased_at", "reason",
        ]  # fmt: skip

    def get_encoding(self, assignment: Assignment) -> str:
        """As it is named to people: int4, or top 64 of 4096."""
        return named(EncodingSpec.model_validate(assignment.encoding))

    @extend_schema_field(PredictionSerializer(allow_null=True))
    def get_predicted(self, assignment: Assignment) -> dict[str, float] | None:
        return assignment.predicted

    @extend_schema_field(PhasesSerializer(allow_null=True))
    def get_actual(self, assignment: Assignment) -> dict[str, float] | None:
        return assignment.actual

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_origin(self, assignment: Assignment) -> int | None:
        """The round in which late work was begun."""
        return None if assignment.origin is None else assignment.began.round.number

    def get_steps(self, assignment: Assignment) -> int:
        return assignment.steps

    @extend_schema_field(NULLABLE_TIME)
    def get_leased_at(self, assignment: Assignment) -> str | None:
        return iso(assignment.leased_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_reason(self, assignment: Assignment) -> str | None:
        return assignment.reason or None


class CaseSerializer(serializers.ModelSerializer):
    """A case at the dispute court. `chain_id` is the court's number of it, `until` the end of its stage (unix seconds), `paid`
    and `finding` are qualities in basis points (null: nobody has found anything), `taken` what the node lost, in base units."""

    members = serializers.SerializerMethodField()
    committed = serializers.SerializerMethodField()
    revealed = serializers.SerializerMethodField()
    taken = serializers.CharField()
    reason = serializers.SerializerMethodField()

    class Meta:
        model = Case
        fields = [
            "chain_id", "state", "until", "members", "committed", "revealed", "paid", "finding", "upheld", "taken", "reason"
        ]  # fmt: skip

    def get_members(self, case: Case) -> int:
        return len(case.members)

    def get_committed(self, case: Case) -> int:
        return len(case.votes)

    def get_revealed(self, case: Case) -> int:
        return case.revealed

    @extend_schema_field(NULLABLE_TIME)
    def get_reason(self, case: Case) -> str | None:
        return case.reason or None


class AuditSerializer(serializers.ModelSerializer):
    round = serializers.IntegerField(source="contribution.round.number")
    job_id = serializers.IntegerField(source="contribution.round.job_id")
    evidence_bytes = serializers.IntegerField(source="evidence_size", allow_null=True)
    requested_at = serializers.SerializerMethodField()
    deadline = serializers.SerializerMethodField()
    answered_at = serializers.SerializerMethodField()
    judged_at = serializers.SerializerMethodField()
    code = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    case = serializers.SerializerMethodField()

    class Meta:
        model = Audit
        fields = [
            "id", "contribution_id", "job_id", "round", "node_id", "segment", "state", "shadow", "block", "block_hash", "error",
            "encoding_error", "tolerance", "precision", "operator_class", "auditor_class", "evidence",
            "evidence_bytes", "proven", "code", "reason", "case", "requested_at", "deadline", "answered_at", "judged_at",
        ]  # fmt: skip

    def get_requested_at(self, audit: Audit) -> str:
        return iso(audit.requested_at) or ""

    def get_deadline(self, audit: Audit) -> str:
        return iso(audit.deadline) or ""

    @extend_schema_field(NULLABLE_TIME)
    def get_answered_at(self, audit: Audit) -> str | None:
        return iso(audit.answered_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_judged_at(self, audit: Audit) -> str | None:
        return iso(audit.judged_at)

    @extend_schema_field(NULLABLE_TIME)
    def get_code(self, audit: Audit) -> str | None:
        return audit.code or None

    @extend_schema_field(NULLABLE_TIME)
    def get_reason(self, audit: Audit) -> str | None:
        return audit.reason or None

    @extend_schema_field(CaseSerializer(allow_null=True))
    def get_case(self, audit: Audit) -> dict[str, Any] | None:
        """About the pay of the contribution, which all of its audits share: shown where one has failed."""
        case: Case | None = getattr(audit.contribution, "case", None)
        return case_json(case) if case and audit.state == Audit.State.FAILED else None


class ScoreSerializer(serializers.Serializer):
    loss_before = serializers.FloatField()
    loss_after = serializers.FloatField()
    improvement = serializers.FloatField()


class StandingSerializer(serializers.Serializer):
    """Rounds of the job in which the node's work was held against its data, and the share of them, recent ones first, in which it
    gained more on the data assigned to it than on other data."""

    rounds = serializers.IntegerField()
    owned = serializers.FloatField()


class ContributionSerializer(serializers.ModelSerializer):
    round = serializers.IntegerField(source="round.number")
    bytes = serializers.IntegerField(source="size")
    score = serializers.SerializerMethodField()
    standing = serializers.SerializerMethodField()
    received_at = serializers.SerializerMethodField()
    recorded_tx = serializers.SerializerMethodField()
    recorded_at = serializers.SerializerMethodField()
    code = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()

    class Meta:
        model = Contribution
        fields = [
            "id", "round", "node_id", "state", "units", "artifact", "bytes", "received_at", "score", "quality", "weight",
            "standing", "code", "reason", "signature", "recorded_tx", "recorded_at",
        ]  # fmt: skip

    @extend_schema_field(ScoreSerializer(allow_null=True))
    def get_score(self, contribution: Contribution) -> dict[str, float] | None:
        return contribution.score

    @extend_schema_field(StandingSerializer(allow_null=True))
    def get_standing(self, contribution: Contribution) -> dict[str, float] | None:
        return contribution.standing

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
AUDIT = AuditSerializer()
CASE = CaseSerializer()


def part_json(assignment: Assignment) -> dict[str, Any]:
    """What a node was given in a round, as the page of the node shows it."""
    shown = assignment_json(assignment)
    names = ("round", "origin", "steps", "encoding", "reasons", "predicted", "actual")
    return {"job_id": assignment.round.job_id, **{name: shown[name] for name in names}}


def round_json(round_: Round) -> dict[str, Any]:
    return dict(ROUND.to_representation(round_))


def assignment_json(assignment: Assignment) -> dict[str, Any]:
    return dict(ASSIGNMENT.to_representation(assignment))


def contribution_json(contribution: Contribution) -> dict[str, Any]:
    return dict(CONTRIBUTION.to_representation(contribution))


def audit_json(audit: Audit) -> dict[str, Any]:
    return dict(AUDIT.to_representation(audit))


def case_json(case: Case) -> dict[str, Any]:
    return dict(CASE.to_representation(case))
