"""Payments as pages see them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from marketplace.common.times import iso
from marketplace.settlement.models import Payment

NULLABLE = serializers.CharField(allow_null=True)


class PaymentSerializer(serializers.ModelSerializer):
    contribution_id = serializers.IntegerField()
    job_id = serializers.IntegerField(source="contribution.round.job_id")
    round = serializers.IntegerField(source="contribution.round.number")
    tx_hash = serializers.SerializerMethodField()
    reason = serializers.SerializerMethodField()
    handed_in_at = serializers.SerializerMethodField()
    sent_at = serializers.SerializerMethodField()
    included_at = serializers.SerializerMethodField()
    final_at = serializers.SerializerMethodField()
    amount = serializers.CharField(allow_null=True)
    recorded_tx = serializers.SerializerMethodField()

    class Meta:
        model = Payment
        fields = [
            "id", "contribution_id", "job_id", "round", "node_id", "operator", "units", "rate", "quality", "amount", "state",
            "tx_hash", "block", "recorded_tx", "reason", "handed_in_at", "sent_at", "included_at", "final_at",
        ]  # fmt: skip

    @extend_schema_field(NULLABLE)
    def get_tx_hash(self, payment: Payment) -> str | None:
        return payment.tx_hash or None

    @extend_schema_field(NULLABLE)
    def get_recorded_tx(self, payment: Payment) -> str | None:
        return payment.contribution.recorded_tx or None

    @extend_schema_field(NULLABLE)
    def get_reason(self, payment: Payment) -> str | None:
        return payment.reason or None

    def get_handed_in_at(self, payment: Payment) -> str:
        return iso(payment.contribution.received_at) or ""

    @extend_schema_field(NULLABLE)
    def get_sent_at(self, payment: Payment) -> str | None:
        return iso(payment.sent_at)

    @extend_schema_field(NULLABLE)
    def get_included_at(self, payment: Payment) -> str | None:
        return iso(payment.included_at)

    @extend_schema_field(NULLABLE)
    def get_final_at(self, payment: Payment) -> str | None:
        return iso(payment.final_at)


# Making the fields of a serializer costs far more than showing a row with them: one serves every row.
PAYMENT = PaymentSerializer()


def payment_json(payment: Payment) -> dict[str, Any]:
    return dict(PAYMENT.to_representation(payment))
