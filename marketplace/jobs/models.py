"""Jobs and seats."""

from __future__ import annotations

from functools import cached_property

from django.db import models

from marketplace.common.models import AmountField, Driven
from trainer.protocol.limits import parameters_of
from trainer.protocol.spec import JobSpec


class Job(Driven):
    """A training job. `draft` until its escrow is final on chain; then the chain's word counts for money. Driven to be sized,
    then to be started."""

    class State(models.TextChoices):
        DRAFT = "draft"
        FUNDED = "funded"
        RUNNING = "running"
        PAUSED = "paused"
        COMPLETED = "completed"
        FAILED = "failed"
        STOPPED = "stopped"
        CLOSED = "closed"

    class Goal(models.TextChoices):
        PRICE = "price"
        TIME = "time"

    ENDED = (State.COMPLETED, State.FAILED, State.STOPPED)

    name = models.CharField(max_length=120)
    requester = models.CharField(max_length=42, db_index=True)
    spec = models.JSONField()
    spec_hash = models.CharField(max_length=64, db_index=True)
    state = models.CharField(max_length=12, choices=State, default=State.DRAFT, db_index=True)
    reason = models.CharField(max_length=300, blank=True)

    chain_id = models.BigIntegerField(null=True, unique=True)
    escrow = AmountField()
    max_rate = AmountField()
    spent = AmountField(default=0)
    # Rounds that the escrow still covers at their most, beside what is not settled yet; None before the first round.
    runway = models.IntegerField(null=True)
    # While paused: base units that are missing for one more round.
    shortfall = AmountField(default=0)
    paused_at = models.DateTimeField(null=True)
    refund = AmountField(null=True)  # type: ignore[misc]  # None until the job is closed

    # When its requester wants it finished: it gives it priority, and ends nothing.
    finish_by = models.DateTimeField(null=True)
    # Which nodes it takes first: the cheapest, or the fastest.
    goal = models.CharField(max_length=5, choices=Goal, default=Goal.PRICE)
    # What all of its rounds were expected to come to when the first one opened (services/planning.py: foreseen).
    predicted = models.JSONField(null=True)

    # Rounds aggregated so far; the number of the next round.
    round = models.IntegerField(default=0)
    start_metric = models.JSONField(null=True)
    metric = models.JSONField(null=True)
    checkpoint = models.CharField(max_length=64, blank=True)
    # Merkle root over the pages of that checkpoint's parameters: what the next round's receipts name as their base.
    version = models.CharField(max_length=64, blank=True)

    created_at = models.DateTimeField(auto_now_add=True)
    funded_at = models.DateTimeField(null=True)
    first_step_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)
    # Largest contribution in bytes; known once a worker has built the draft's model.
    upload_limit = models.BigIntegerField(null=True)
    # Samples/s at which the coordinator evaluated the model before the first round.
    evaluation_rate = models.FloatField(null=True)

    @cached_property
    def parsed_spec(self) -> JobSpec:
        return JobSpec.model_validate(self.spec)

    @classmethod
    def unsized(cls) -> models.QuerySet[Job]:
        """Drafts whose model a worker is to build, and has neither built nor refused."""
        return cls.objects.filter(state=cls.State.DRAFT, upload_limit=None, reason="")

    @property
    def parameters(self) -> int | None:
        """Of its model: what a dense file of it holds. None until a worker has built it."""
        return None if self.upload_limit is None else parameters_of(self.upload_limit)

    @property
    def reached_target(self) -> bool:
        """Whether the newest evaluation is past the target."""
        if self.metric is None:
            return False
        target = self.parsed_spec.target
        if target.metric == "accuracy":
            return bool(self.metric["accuracy"] >= target.value)
        return bool(self.metric["loss"] <= target.value)


class Seat(models.Model):
    """A node's place in a job at the rate it bid. `taken` once the chain has it."""

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="seats")
    node_id = models.BigIntegerField()
    rate = AmountField()
    capacity = models.BigIntegerField()
    taken = models.BooleanField(default=False)
    # The receipt that is recorded on chain and not yet paid: its most is reserved in the escrow.
    recorded_round = models.BigIntegerField(null=True)
    recorded_units = models.BigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "node_id"], name="seat_once")]
