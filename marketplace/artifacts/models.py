"""What is stored, and who may read it."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class Artifact(models.Model):
    """Bytes in the store. `public` ones are served to anyone; the rest only to nodes and their owner."""

    class Kind(models.TextChoices):
        CHECKPOINT = "checkpoint"
        OUTER_STATE = "outer_state"
        DELTA = "delta"
        PSEUDO_GRADIENT = "pseudo_gradient"
        DATASET = "dataset"
        EVIDENCE = "evidence"
        SPECIFICATION = "specification"
        SETTLEMENT = "settlement"
        AUDIT = "audit"

    sha256 = models.CharField(max_length=64, primary_key=True)
    size = models.BigIntegerField()
    kind = models.CharField(max_length=20, choices=Kind)
    public = models.BooleanField(default=False)
    name = models.CharField(max_length=200, blank=True)
    # The wallet that uploaded a data set.
    owner = models.CharField(max_length=42, blank=True, db_index=True)
    # When it last came.
    created_at = models.DateTimeField(default=timezone.now)
