"""Batches, the attestations over them, and one payment for each accepted contribution."""

from __future__ import annotations

from django.db import models

from marketplace.common.models import AmountField
from marketplace.jobs.models import Job
from marketplace.training.models import Contribution, Round


class Batch(models.Model):
    """The receipts of a round as one `settleRound` call."""

    class State(models.TextChoices):
        ATTESTING = "attesting"
        QUEUED = "queued"
        SENT = "sent"
        INCLUDED = "included"
        FINAL = "final"
        FAILED = "failed"

    round = models.OneToOneField(Round, on_delete=models.PROTECT, related_name="batch")
    state = models.CharField(max_length=12, choices=State, default=State.ATTESTING, db_index=True)
    packed = models.BinaryField()
    receipts_hash = models.CharField(max_length=66)
    evidence = models.CharField(max_length=64)
    # Grows when the batch has to be sent again: changed, or because somebody else was first.
    attempt = models.IntegerField(default=0)
    intent_key = models.CharField(max_length=160, unique=True)
    tx_hash = models.CharField(max_length=66, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    driven_at = models.DateTimeField(null=True)


class Attestation(models.Model):
    """An attestor's signature over a batch, or its refusal."""

    batch = models.ForeignKey(Batch, on_delete=models.PROTECT, related_name="attestations")
    attestor = models.CharField(max_length=42)
    signature = models.CharField(max_length=132, blank=True)
    refusal = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["batch", "attestor"], name="attestation_once")]


class Payment(models.Model):
    """What a contribution earned, from the attestation to finality."""

    State = Batch.State

    contribution = models.OneToOneField(Contribution, on_delete=models.PROTECT, related_name="payment")
    batch = models.ForeignKey(Batch, on_delete=models.PROTECT, related_name="payments")
    node_id = models.BigIntegerField()
    operator = models.CharField(max_length=42, db_index=True)
    units = models.BigIntegerField()
    rate = AmountField()
    quality = models.IntegerField()
    amount = AmountField()
    state = models.CharField(max_length=12, choices=Batch.State, default=Batch.State.ATTESTING, db_index=True)
    tx_hash = models.CharField(max_length=66, blank=True)
    block = models.BigIntegerField(null=True)
    sent_at = models.DateTimeField(null=True)
    included_at = models.DateTimeField(null=True)
    final_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True)


class Closure(models.Model):
    """The end of a job's money: attested that all is settled, the rest refunded."""

    job = models.OneToOneField(Job, on_delete=models.PROTECT, related_name="closure")
    intent_key = models.CharField(max_length=160, unique=True)
    at = models.DateTimeField(auto_now_add=True)
