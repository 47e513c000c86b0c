"""Nodes and bids as pages see them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from marketplace.common.times import iso
from marketplace.operators import selectors
from marketplace.operators.facts import fact
from marketplace.operators.models import Bid, Measurement, Node


class FactSerializer(serializers.Serializer):
    """A measured value; `claimed`: the node's own word, which the coordinator has not seen itself."""

    value = serializers.FloatField()
    deviation = serializers.FloatField()
    at = serializers.CharField()
    source = serializers.CharField()  # type: ignore[assignment]  # DRF's own `source` is an option, this is a field
    claimed = serializers.BooleanField()
    samples = serializers.IntegerField()


class SpeedSerializer(FactSerializer):
    of = serializers.CharField()


class MeasuredSerializer(serializers.Serializer):
    """Of a node's link: seconds, bytes/s, part of the segments; of its machine: samples/s by architecture."""

    rtt = FactSerializer(required=False)
    up = FactSerializer(required=False)
    down = FactSerializer(required=False)
    loss = FactSerializer(required=False)
    reconnects = FactSerializer(required=False)
    speeds = SpeedSerializer(many=True, required=False)


class RateSerializer(serializers.Serializer):
    value = serializers.FloatField()
    at = serializers.CharField()


class WorkingOnSerializer(serializers.Serializer):
    job_id = serializers.IntegerField()
    round = serializers.IntegerField()


class RatingSerializer(serializers.Serializer):
    mu = serializers.FloatField()
    sigma = serializers.FloatField()


class SuspensionSerializer(serializers.Serializer):
    until = serializers.CharField()
    reason = serializers.CharField()


class ReasonSerializer(serializers.Serializer):
    code = serializers.CharField()
    text = serializers.CharField()


class PhasesSerializer(serializers.Serializer):
    """Seconds of a part of a round."""

    fetch_s = serializers.FloatField()
    compute_s = serializers.FloatField()
    upload_s = serializers.FloatField()


class PredictionSerializer(PhasesSerializer):
    """With the standard deviation of their sum; `overhead_s`, which neither link nor machine explains, is a part of `fetch_s`."""

    doubt_s = serializers.FloatField()
    overhead_s = serializers.FloatField()


class HealthPartsSerializer(serializers.Serializer):
    """What a health score is made of, each 0..1."""

    compute = serializers.FloatField()
    network = serializers.FloatField()
    quality = serializers.FloatField()
    uptime = serializers.FloatField()


class HealthSerializer(serializers.Serializer):
    """How the newest plan judged a node. `until` is a round's number: the first that it may have a part in again where its
    level is excluded, the one since which it is tried where it is probation, else 0. `exclusions`: times that it was left out
    since its level was last high or normal."""

    level = serializers.ChoiceField(["high", "normal", "low", "probation", "excluded"])
    score = serializers.FloatField()
    parts = HealthPartsSerializer()
    until = serializers.IntegerField()
    exclusions = serializers.IntegerField()
    reason = ReasonSerializer()


class PartSerializer(serializers.Serializer):
    """What a node was given in a round, and why; `origin` is the round in which late work was begun."""

    job_id = serializers.IntegerField()
    round = serializers.IntegerField()
    origin = serializers.IntegerField(allow_null=True)
    steps = serializers.IntegerField()
    encoding = serializers.CharField()
    reasons = ReasonSerializer(many=True)
    predicted = PredictionSerializer(allow_null=True)
    actual = PhasesSerializer(allow_null=True)


class ChoiceSerializer(ReasonSerializer):
    """Whether a job took the node for a place when it last looked for nodes, and why."""

    job_id = serializers.IntegerField()
    taken = serializers.BooleanField()
    at = serializers.CharField()


class MeasurementSerializer(FactSerializer):
    """A quantity of a node over time: `history` holds [unix seconds, value], oldest first, the older the farther apart."""

    node_id = serializers.IntegerField()
    quantity = serializers.ChoiceField(Measurement.Quantity.choices)
    unit = serializers.CharField()
    of = serializers.CharField(allow_blank=True)
    history = serializers.ListField(child=serializers.ListField(child=serializers.FloatField(), min_length=2, max_length=2))


class NodeSerializer(serializers.ModelSerializer):
    operator = serializers.CharField(source="operator_id")
    stake = serializers.CharField(source="operator.stake")
    state = serializers.SerializerMethodField()
    measured = serializers.SerializerMethodField()
    samples_per_second = serializers.SerializerMethodField()
    last_seen = serializers.SerializerMethodField()
    working_on = serializers.SerializerMethodField()
    rating = serializers.SerializerMethodField()
    suspension = serializers.SerializerMethodField()
    health = serializers.SerializerMethodField()
    part = serializers.SerializerMethodField()
    choices = serializers.SerializerMethodField()

    class Meta:
        model = Node
        fields = [
            "id", "operator", "hot_key", "name", "state", "device", "stake", "measured", "samples_per_second", "rounds", "units",
            "quality_sum", "faults", "earned", "credit", "last_seen", "working_on", "rating", "suspension",
            "health", "part", "choices",
        ]  # fmt: skip

    @extend_schema_field(serializers.ChoiceField(["registered", "online", "offline", "retired"]))
    def get_state(self, node: Node) -> str:
        return selectors.state_of(node)

    @extend_schema_field(MeasuredSerializer)
    def get_measured(self, node: Node) -> dict[str, Any]:
        return node.measured

    @extend_schema_field(RateSerializer(allow_null=True))
    def get_samples_per_second(self, node: Node) -> dict[str, Any] | None:
        if node.samples_per_second is None:
            return None
        return {"value": node.samples_per_second, "at": iso(node.samples_at)}

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_last_seen(self, node: Node) -> str | None:
        return iso(node.last_seen)

    @extend_schema_field(WorkingOnSerializer(allow_null=True))
    def get_working_on(self, node: Node) -> dict[str, Any] | None:
        return node.working_on

    @extend_schema_field(RatingSerializer(allow_null=True))
    def get_rating(self, node: Node) -> dict[str, float] | None:
        if node.rating_mu is None or node.rating_sigma is None:
            return None
        return {"mu": node.rating_mu, "sigma": node.rating_sigma}

    @extend_schema_field(SuspensionSerializer(allow_null=True))
    def get_suspension(self, node: Node) -> dict[str, Any] | None:
        """Also one that is over: the page compares its end with the time."""
        return None if node.suspended_until is None else {"until": iso(node.suspended_until), "reason": node.suspension_reason}

    @extend_schema_field(HealthSerializer(allow_null=True))
    def get_health(self, node: Node) -> dict[str, Any] | None:
        return node.health

    @extend_schema_field(PartSerializer(allow_null=True))
    def get_part(self, node: Node) -> dict[str, Any] | None:
        return node.part

    @extend_schema_field(ChoiceSerializer(many=True))
    def get_choices(self, node: Node) -> list[dict[str, Any]]:
        return [{"job_id": int(job), **choice} for job, choice in sorted(node.choices.items(), key=lambda item: -int(item[0]))]


class BidSerializer(serializers.ModelSerializer):
    job_id = serializers.IntegerField(source="chain_job_id")
    node_id = serializers.IntegerField()
    expires_at = serializers.SerializerMethodField()

    class Meta:
        model = Bid
        fields = ["id", "job_id", "node_id", "rate", "capacity", "expires_at", "nonce", "state"]

    def get_expires_at(self, bid: Bid) -> str:
        return iso(bid.expires_at) or ""


def measurement_json(row: Measurement) -> dict[str, Any]:
    return {
        **fact(row), "node_id": row.node_id, "quantity": row.quantity, "unit": Measurement.Quantity(row.quantity).label,
        "of": row.of, "history": row.history,
    }  # fmt: skip


# Making the fields of a serializer costs far more than showing a row with them: one serves every row.
NODE = NodeSerializer()
BID = BidSerializer()


def node_json(node: Node) -> dict[str, Any]:
    return dict(NODE.to_representation(node))


def bid_json(bid: Bid) -> dict[str, Any]:
    return dict(BID.to_representation(bid))
