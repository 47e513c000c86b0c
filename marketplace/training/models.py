"""Rounds and what happens in them. Each state changes by compare-and-set on its row, never by assignment."""

from __future__ import annotations

from django.db import models

from marketplace.common.models import AmountField, Driven
from marketplace.jobs.models import Job


class Round(Driven):
    """One outer step of a job. Driven to be aggregated."""

    class State(models.TextChoices):
        OPEN = "open"
        AGGREGATING = "aggregating"
        AGGREGATED = "aggregated"
        SETTLED = "settled"
        ABANDONED = "abandoned"

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="rounds")
    number = models.IntegerField()
    state = models.CharField(max_length=12, choices=State, default=State.OPEN, db_index=True)
    # Model version that the round starts from: the Merkle root over its pages.
    base = models.CharField(max_length=64)
    opened_at = models.DateTimeField(auto_now_add=True)
    deadline = models.DateTimeField()
    # Contributions with which it may close at its deadline, and how this and all else was decided (services/planning.py).
    quorum = models.IntegerField(default=1)
    plan = models.JSONField(default=dict)
    extensions = models.IntegerField(default=0)
    closed_at = models.DateTimeField(null=True)
    aggregated_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)
    # When the requester made the settled round final, ahead of its challenge window.
    accepted_at = models.DateTimeField(null=True)
    # Block in which its last batch was settled: it schedules the one that draws the round's audits.
    settled_block = models.BigIntegerField(null=True)
    drawn_at = models.DateTimeField(null=True)
    metric = models.JSONField(null=True)
    evidence = models.CharField(max_length=64, blank=True)
    # The artifact with which anyone can settle the round; there once its batches are attested.
    settlement = models.CharField(max_length=64, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="round_once")]


class Assignment(models.Model):
    """A node's slot in a round: the work order, its lease and its progress. `fence` grows with every lease, so that
    whoever held an earlier one can no longer write."""

    class State(models.TextChoices):
        OPEN = "open"
        LEASED = "leased"
        COMMITTED = "committed"
        HANDED_IN = "handed_in"
        EXPIRED = "expired"
        FAILED = "failed"
        # Its round has closed without it, and the node works on: carried into the next round that opens.
        LATE = "late"
        CARRIED = "carried"

    LIVE = (State.LEASED, State.COMMITTED)
    HELD = (*LIVE, State.LATE)
    DONE = (State.HANDED_IN, State.EXPIRED, State.FAILED, State.LATE, State.CARRIED)

    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="assignments")
    node_id = models.BigIntegerField(db_index=True)
    shard = models.IntegerField()
    # What this node is to do, which may differ from the job's: local steps, and the encoding (an EncodingSpec).
    steps = models.IntegerField()
    encoding = models.JSONField()
    # Rounds that its part is for: the first ones do not wait for it.
    rounds = models.IntegerField(default=1)
    # The node by way of which its upload is to go; null: direct.
    via = models.BigIntegerField(null=True)
    # Why, as {code, text}, and the seconds by phase that it was expected to take and took (null: not known).
    reasons = models.JSONField(default=list)
    predicted = models.JSONField(null=True)
    actual = models.JSONField(null=True)
    # The slot of an earlier round whose late work this one is for.
    origin = models.OneToOneField("self", on_delete=models.PROTECT, null=True, related_name="carried_into")
    state = models.CharField(max_length=12, choices=State, default=State.OPEN, db_index=True)
    fence = models.BigIntegerField(default=0)
    attempt = models.IntegerField(default=0)
    leased_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    committed_sha256 = models.CharField(max_length=64, blank=True)
    committed_size = models.BigIntegerField(null=True)
    committed_at = models.DateTimeField(null=True)
    uploaded = models.BooleanField(default=False)
    step = models.IntegerField(default=0)
    losses = models.JSONField(default=list)
    reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "node_id"], name="assignment_once")]

    @property
    def began(self) -> Assignment:
        """The slot in which the work began: this one, unless it is for late work."""
        return self if self.origin is None else self.origin.began


class Contribution(Driven):
    """What a node handed in for its slot, and what became of it. Driven to be checked."""

    class State(models.TextChoices):
        RECEIVED = "received"
        CHECKED = "checked"
        ACCEPTED = "accepted"
        REJECTED = "rejected"

    assignment = models.OneToOneField(Assignment, on_delete=models.PROTECT, related_name="contribution")
    round = models.ForeignKey(Round, on_delete=models.PROTECT, related_name="contributions")
    node_id = models.BigIntegerField()
    state = models.CharField(max_length=12, choices=State, default=State.RECEIVED, db_index=True)
    units = models.BigIntegerField()
    artifact = models.CharField(max_length=64)
    size = models.BigIntegerField()
    signature = models.CharField(max_length=132)
    seconds = models.FloatField()
    committed_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)
    score = models.JSONField(null=True)
    quality = models.IntegerField(null=True)
    weight = models.FloatField(null=True)
    # What the job's rounds up to this one say of the node (trainer.protocol.rounds.Standing).
    standing = models.JSONField(null=True)
    code = models.CharField(max_length=60, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    # The transaction that put the signed receipt on chain as it arrived (mode `per-receipt`).
    recorded_tx = models.CharField(max_length=66, blank=True)
    recorded_at = models.DateTimeField(null=True)
    # Set when the first checks passed: only these take part in the round's end.
    checked_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["round", "node_id"], name="contribution_once")]


class Checkpoint(Driven):
    """The model after `number` rounds, with what the next outer step needs. Driven to be measured."""

    job = models.ForeignKey(Job, on_delete=models.PROTECT, related_name="checkpoints")
    number = models.IntegerField()
    version = models.CharField(max_length=64)
    params = models.CharField(max_length=64)
    outer_state = models.CharField(max_length=64)
    # The encoded outer step that leads here from the checkpoint before. Empty for the first, and where nothing was accepted.
    delta = models.CharField(max_length=64, blank=True)
    # What each node fetches to get here, in bytes.
    delta_size = models.BigIntegerField(default=0)
    # The aggregate that led here: a contribution that repeats it is a copy. Empty where `delta` is.
    aggregate = models.CharField(max_length=64, blank=True)
    # Measured after the next round has opened; null until then, empty where that was given up.
    metric = models.JSONField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "number"], name="checkpoint_once")]

    @classmethod
    def unmeasured(cls) -> models.QuerySet[Checkpoint]:
        """Those that rounds made, until a worker has measured them."""
        return cls.objects.filter(number__gt=0, metric__isnull=True)

    @property
    def made_by(self) -> Round:
        return Round.objects.select_related("job").get(job=self.job_id, number=self.number - 1)


class Audit(Driven):
    """A segment of a contribution that chance has chosen to be computed again (trainer.protocol.draws). Driven to be replayed."""

    class State(models.TextChoices):
        REQUESTED = "requested"
        ANSWERED = "answered"
        PASSED = "passed"
        SUSPICIOUS = "suspicious"
        FAILED = "failed"
        UNANSWERED = "unanswered"

    JUDGED = (State.PASSED, State.SUSPICIOUS, State.FAILED)

    contribution = models.ForeignKey(Contribution, on_delete=models.PROTECT, related_name="audits")
    segment = models.IntegerField()
    node_id = models.BigIntegerField(db_index=True)
    state = models.CharField(max_length=12, choices=State, default=State.REQUESTED, db_index=True)
    # The block that drew it: whoever has the chain draws it again.
    block = models.BigIntegerField()
    block_hash = models.CharField(max_length=66)
    deadline = models.DateTimeField()
    # When the node was last told of it.
    told_at = models.DateTimeField(null=True)
    # What the node gave to compute from. Public once the audit has failed.
    evidence = models.CharField(max_length=64, blank=True)
    evidence_size = models.BigIntegerField(null=True)
    # Relative L2 errors of the segment's states and of the upload, and what is tolerated of the former.
    error = models.FloatField(null=True)
    encoding_error = models.FloatField(null=True)
    tolerance = models.FloatField(null=True)
    # Whose tolerance counts: numbers agree as far as the machines' kinds do.
    precision = models.CharField(max_length=8)
    operator_class = models.CharField(max_length=120, blank=True)
    auditor_class = models.CharField(max_length=120, blank=True)
    # Recorded and shown, but without consequences: too few honest audits of its class are known.
    shadow = models.BooleanField(default=True)
    code = models.CharField(max_length=60, blank=True)
    reason = models.CharField(max_length=300, blank=True)
    requested_at = models.DateTimeField(auto_now_add=True)
    answered_at = models.DateTimeField(null=True)
    # The failure follows from what the upload binds: a committee of the court will find it too (trainer.scoring.calibration).
    proven = models.BooleanField(default=False)
    judged_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["contribution", "segment"], name="audit_once")]
        indexes = [models.Index(fields=["precision", "operator_class", "auditor_class", "state"], name="audit_class")]


class Case(models.Model):
    """A dispute about the pay of one contribution: a quality case of the court, ours or a stranger's, as its events tell it."""

    class State(models.TextChoices):
        PROMISED = "promised"
        REFUSED = "refused"
        DRAWING = "drawing"
        VOTING = "voting"
        DECIDED = "decided"
        APPEALED = "appealed"
        EXECUTED = "executed"

    UNDER_WAY = (State.DRAWING, State.VOTING, State.DECIDED, State.APPEALED)

    contribution = models.OneToOneField(Contribution, on_delete=models.PROTECT, related_name="case")
    state = models.CharField(max_length=12, choices=State, default=State.PROMISED, db_index=True)
    # The court's number of it; null until it is on chain.
    chain_id = models.BigIntegerField(null=True, db_index=True)
    challenger = models.CharField(max_length=42, blank=True)
    bond = AmountField(default=0)
    # Ends of the present stage, unix seconds; a vote's two steps have one each.
    commit_until = models.BigIntegerField(null=True)
    until = models.BigIntegerField(null=True)
    # Attestor ids, and what those that have committed have revealed (basis points; null: not yet), by id.
    members: models.JSONField[list[int], list[int]] = models.JSONField(default=list)
    votes: models.JSONField[dict[str, int | None], dict[str, int | None]] = models.JSONField(default=dict)
    # Qualities in basis points: paid, and found (null: nobody has found anything).
    paid = models.IntegerField(null=True)
    finding = models.IntegerField(null=True)
    upheld = models.BooleanField(null=True)
    # What the node lost by it, pay and penalty, from credit and stake.
    taken = AmountField(default=0)
    reason = models.CharField(max_length=300, blank=True)
    intent_key = models.CharField(max_length=160, blank=True, db_index=True)
    attempt = models.IntegerField(default=0)
    retry_at = models.DateTimeField(null=True)
    at = models.DateTimeField(auto_now_add=True)
    driven_at = models.DateTimeField(null=True)

    @property
    def revealed(self) -> int:
        """How many of the committee have shown what they found."""
        return sum(vote is not None for vote in self.votes.values())
