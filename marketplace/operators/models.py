"""Operators and nodes as the chain registered them, and what the coordinator hears from them."""

from __future__ import annotations

from typing import Any

from django.db import models

from marketplace.common.models import AmountField


class Operator(models.Model):
    """A wallet with a stake. Everything here is read off the chain."""

    address = models.CharField(max_length=42, primary_key=True)
    stake = AmountField(default=0)


class Node(models.Model):
    """One GPU: its chain id is the primary key."""

    id = models.BigIntegerField(primary_key=True)
    operator = models.ForeignKey(Operator, on_delete=models.PROTECT, related_name="nodes")
    hot_key = models.CharField(max_length=42, unique=True)
    key_expires_at = models.DateTimeField()
    retired = models.BooleanField(default=False)
    min_bid_nonce = models.BigIntegerField(default=0)

    earned = AmountField(default=0)
    credit = AmountField(default=0)
    units = models.BigIntegerField(default=0)
    rounds = models.IntegerField(default=0)
    # Sum over settled receipts, in basis points; divided by `rounds` it is the mean.
    quality_sum = models.BigIntegerField(default=0)
    # Faults that disputes have proven.
    faults = models.IntegerField(default=0)

    # Long-term rating (trainer.scoring.rating) over all jobs; once a round.
    rating_mu = models.FloatField(null=True)
    rating_sigma = models.FloatField(null=True)
    # Left out of rounds until then: an audit failed, or two in a row went unanswered.
    suspended_until = models.DateTimeField(null=True)
    suspension_reason = models.CharField(max_length=300, blank=True)

    name = models.CharField(max_length=80, blank=True)
    device = models.CharField(max_length=120, blank=True)
    software = models.JSONField(default=dict)
    # Where other nodes reach this one, if they do (http://host:port).
    endpoint = models.CharField(max_length=200, blank=True)
    last_seen = models.DateTimeField(null=True)
    # The best of its `Measurement`s by quantity, as pages show them (links.summary).
    measured = models.JSONField(default=dict)
    # The node's benchmark, before its first order.
    samples_per_second = models.FloatField(null=True)
    samples_at = models.DateTimeField(null=True)
    # Part of the time in which it was heard, recent days first.
    uptime = models.FloatField(default=1.0)
    # Its health in the last round that was planned with it: level, score and the score's parts (trainer.network.health).
    health = models.JSONField(null=True)
    # Its newest part of a round: what it was given and why, what that was predicted to take and took.
    part = models.JSONField(null=True)
    # By job id (a string) whether it was taken for that job or passed over, and why: {taken, code, text, at}.
    choices: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    # Last state that was announced to the pages, so that a change is announced once.
    announced = models.CharField(max_length=12, default="registered")
    working_on = models.JSONField(null=True)
    # Paid by a batch whose receipts are being read; told when all of them are.
    untold_earning = models.BooleanField(default=False, db_index=True)
    # Jobs whose pages show this node, from its seat to the job's closing.
    jobs = models.JSONField(default=list)


class Bid(models.Model):
    """A signed offer of a node (EIP-712 `Bid`). `chain_job_id` 0 stands for any job."""

    class State(models.TextChoices):
        OPEN = "open"
        TAKEN = "taken"
        CANCELLED = "cancelled"

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="bids")
    chain_job_id = models.BigIntegerField()
    rate = AmountField()
    capacity = models.BigIntegerField()
    expires_at = models.DateTimeField()
    nonce = models.BigIntegerField()
    signature = models.CharField(max_length=132)
    state = models.CharField(max_length=12, choices=State, default=State.OPEN)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["signature"], name="bid_once")]


class Measurement(models.Model):
    """What is known of one quantity of a node: the estimate now (trainer.network.estimators), and a history that thins with
    age. The node's own word (`claimed`) and what the coordinator saw are kept apart."""

    class Quantity(models.TextChoices):
        """With its unit."""

        RTT = "rtt", "s"
        UP = "up", "bytes/s"
        DOWN = "down", "bytes/s"
        LOSS = "loss", "part of the segments"
        RECONNECTS = "reconnects", "since the agent's start"
        SPEED = "speed", "samples/s"
        PEER_RTT = "peer_rtt", "s"

    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="measurements")
    quantity = models.CharField(max_length=10, choices=Quantity)
    # The architecture that a speed is of; the node that a round trip goes to, by way of which files went up, or that gave them.
    of = models.CharField(max_length=40, blank=True)
    claimed = models.BooleanField()
    # A trainer.network.facts.Source.
    source = models.CharField(max_length=10)
    value = models.FloatField()
    deviation = models.FloatField(default=0.0)
    samples = models.IntegerField(default=0)
    at = models.DateTimeField()
    # [unix seconds, value], oldest first.
    history = models.JSONField(default=list)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["node", "quantity", "of", "claimed"], name="measurement_once")]


class RequestNonce(models.Model):
    """Nonces of signed requests, kept for twice the accepted clock skew: a replay meets its own row."""

    hot_key = models.CharField(max_length=42)
    nonce = models.CharField(max_length=64)
    at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["hot_key", "nonce"], name="request_once")]
