"""What must survive a crash on the way to the chain and back: the outbox, its signed bytes, and the log we have read."""

from __future__ import annotations

from django.db import models
from django.db.models import Q


class SenderAccount(models.Model):
    """An account that pays gas and has no authority. `next_nonce` only ever grows."""

    address = models.CharField(max_length=42, unique=True)
    next_nonce = models.PositiveBigIntegerField(default=0)


class Intent(models.Model):
    """One call that must happen exactly once. It owns one nonce from the moment it gets one, whatever happens.

    Only a receipt decides: `included` can still be reorganised away, `final` and `failed` are for good.
    """

    class State(models.TextChoices):
        PENDING = "pending"
        SENT = "sent"
        INCLUDED = "included"
        FINAL = "final"
        FAILED = "failed"

    key = models.CharField(max_length=200, unique=True)
    kind = models.CharField(max_length=60)
    group = models.CharField(max_length=100, blank=True)
    to = models.CharField(max_length=42)
    data = models.TextField()
    gas_limit = models.PositiveBigIntegerField(null=True)
    sender = models.ForeignKey(SenderAccount, null=True, on_delete=models.PROTECT)
    nonce = models.PositiveBigIntegerField(null=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    tx_hash = models.CharField(max_length=66, null=True)
    block = models.PositiveBigIntegerField(null=True)
    block_hash = models.CharField(max_length=66, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    sent_at = models.DateTimeField(null=True)
    included_at = models.DateTimeField(null=True)
    final_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sender", "nonce"], condition=Q(nonce__isnull=False), name="one_intent_per_nonce"),
        ]
        indexes = [models.Index(fields=["state", "id"]), models.Index(fields=["group", "state"])]

    def __str__(self) -> str:
        return f"{self.key} ({self.state})"


class Attempt(models.Model):
    """Signed bytes for an intent's nonce. The row is committed before the bytes leave, so none is ever unknown to us."""

    intent = models.ForeignKey(Intent, on_delete=models.CASCADE, related_name="attempts")
    number = models.PositiveSmallIntegerField()
    hash = models.CharField(max_length=66, unique=True)
    raw = models.TextField()
    max_fee = models.PositiveBigIntegerField()
    priority_fee = models.PositiveBigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    broadcast_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["number"]
        # Two senders that sign at the same moment must not both count as the same attempt.
        constraints = [models.UniqueConstraint(fields=["intent", "number"], name="one_attempt_per_number")]


class Cursor(models.Model):
    """The last block that is wholly applied; its hash proves that the next one continues the same chain.

    `finalized` is the newest final block that a node has shown, `span` how many blocks the next read asks for.
    """

    name = models.CharField(max_length=120, unique=True)
    block = models.PositiveBigIntegerField()
    block_hash = models.CharField(max_length=66, blank=True)
    finalized = models.PositiveBigIntegerField(default=0)
    span = models.PositiveIntegerField(default=100)


class Alarm(models.Model):
    """What a person must see to, as long as it lasts: a sender that runs out of gas money, a price above the ceiling."""

    code = models.CharField(max_length=60)
    subject = models.CharField(max_length=120)
    message = models.CharField(max_length=300)
    since = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["code", "subject"], name="one_alarm_per_subject")]


class ChainLog(models.Model):
    """A finalized event of our contracts, exactly once. Names of others than the market's are "registry.EpochBegun"."""

    block = models.PositiveBigIntegerField()
    block_hash = models.CharField(max_length=66)
    tx_hash = models.CharField(max_length=66, db_index=True)
    log_index = models.PositiveIntegerField()
    name = models.CharField(max_length=60, db_index=True)
    args = models.JSONField()
    timestamp = models.PositiveBigIntegerField()
    # Events that count without gaps ("rounds:7") name their row of numbers here, so that a lost one shows.
    sequence = models.CharField(max_length=100, blank=True, db_index=True)

    class Meta:
        ordering = ["block", "log_index"]
        constraints = [models.UniqueConstraint(fields=["block_hash", "log_index"], name="one_row_per_log")]
