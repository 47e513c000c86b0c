"""Batches, what the attestors give for them, and one payment for each accepted contribution."""

from __future__ import annotations

from typing import Any

from django.db import models

from marketplace.common.models import AmountField
from marketplace.jobs.models import Job
from marketplace.training.models import Contribution, Round


class AttestorSet(models.Model):
    """Who attests in an epoch, as the chain drew it: an address's place in `members` is its number in the set."""

    epoch = models.BigIntegerField(primary_key=True)
    members: models.JSONField[list[str], list[str]] = models.JSONField()
    quorum = models.IntegerField()
    # When the next epoch is due: after its length, or as soon as a member cannot serve any more.
    over_at = models.DateTimeField()

    def member(self, address: str) -> int | None:
        """The number of `address` in the set; None for a stranger."""
        return self.members.index(address) if address in self.members else None


class Pause(models.Model):
    """What the guardian has stopped, and until when at most: the one row."""

    new_jobs_until = models.DateTimeField(null=True)
    settlement_until = models.DateTimeField(null=True)


class Batch(models.Model):
    """Up to `services.BATCH_RECEIPTS` receipts of a round, as one `settleRound` call."""

    class State(models.TextChoices):
        ATTESTING = "attesting"
        QUEUED = "queued"
        SENT = "sent"
        INCLUDED = "included"
        FINAL = "final"
        FAILED = "failed"

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="batches")
    number = models.IntegerField()
    last = models.BooleanField()
    epoch = models.ForeignKey(AttestorSet, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=12, choices=State, default=State.ATTESTING, db_index=True)
    packed = models.BinaryField()
    receipts_hash = models.CharField(max_length=66)
    evidence = models.CharField(max_length=64)
    # The list of commitments by member, once it is fixed: from then on it never changes, since attestors sign it.
    commitments: models.JSONField[Any, Any] = models.JSONField(null=True)
    # When the quorum of the present step (commitments, then openings) stood; the others get a little longer.
    quorum_at = models.DateTimeField(null=True)
    # Grows when the same attested batch has to be sent again.
    attempt = models.IntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    intent_key = models.CharField(max_length=160, unique=True)
    tx_hash = models.CharField(max_length=66, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    driven_at = models.DateTimeField(null=True)
    drives = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "number"], name="batch_once")]


class Attestation(models.Model):
    """One attestor's part in a batch: its commitment, later what opens it; or why it gives none."""

    batch = models.ForeignKey(Batch, on_delete=models.PROTECT, related_name="attestations")
    member = models.IntegerField()
    attestor = models.CharField(max_length=42)
    commitment = models.CharField(max_length=66, blank=True)
    salt = models.CharField(max_length=66, blank=True)
    scores = models.BinaryField(default=bytes)
    signature = models.CharField(max_length=132, blank=True)
    refusal = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["batch", "member"], name="attestation_once")]


class Payment(models.Model):
    """What a contribution earned, from its batch to finality. Quality and amount are known when the attestors have shown
    their scores: the median counts."""

    State = Batch.State

    contribution = models.OneToOneField(Contribution, on_delete=models.PROTECT, related_name="payment")
    batch = models.ForeignKey(Batch, on_delete=models.PROTECT, related_name="payments")
    node_id = models.BigIntegerField()
    operator = models.CharField(max_length=42, db_index=True)
    units = models.BigIntegerField()
    rate = AmountField()
    quality = models.IntegerField(null=True)
    amount = AmountField(null=True)  # type: ignore[misc]  # None until the quality is known
    state = models.CharField(max_length=12, choices=Batch.State, default=Batch.State.ATTESTING, db_index=True)
    tx_hash = models.CharField(max_length=66, blank=True)
    block = models.BigIntegerField(null=True)
    sent_at = models.DateTimeField(null=True)
    included_at = models.DateTimeField(null=True)
    final_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=300, blank=True)


class Closure(models.Model):
    """The end of a job's money: attestors sign that all is settled, the rest is refunded. One row for each try."""

    class State(models.TextChoices):
        SIGNING = "signing"
        QUEUED = "queued"
        REFUSED = "refused"

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="closures")
    state = models.CharField(max_length=12, choices=State, default=State.SIGNING, db_index=True)
    epoch = models.ForeignKey(AttestorSet, on_delete=models.PROTECT, related_name="+")
    rounds = models.BigIntegerField()
    spent = AmountField()
    intent_key = models.CharField(max_length=160, unique=True)
    at = models.DateTimeField(auto_now_add=True)
    driven_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job"], condition=models.Q(state__in=["signing", "queued"]), name="one_closure_under_way"
            )
        ]


class ClosureSignature(models.Model):
    """One attestor's signature of a closure."""

    closure = models.ForeignKey(Closure, on_delete=models.CASCADE, related_name="signatures")
    member = models.IntegerField()
    signature = models.CharField(max_length=132)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["closure", "member"], name="closure_signature_once")]
