"""Reads of settlement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from marketplace.jobs.models import Job
from marketplace.settlement.models import Batch, Payment
from marketplace.training.models import Round
from marketplace.training.selectors import claim


def payments() -> QuerySet[Payment]:
    return Payment.objects.select_related("contribution__round")


def stalled_batches() -> Iterable[dict[str, Any]]:
    return [{"batch_id": pk} for pk in claim(Batch.objects.filter(state=Batch.State.ATTESTING))]


def unbatched_rounds() -> Iterable[dict[str, Any]]:
    """Aggregated rounds whose batch was never built, because the event that asks for it was lost with its worker."""
    return [{"round_id": pk} for pk in claim(Round.objects.filter(state=Round.State.AGGREGATED, batch=None))]


def unclosed_jobs() -> Iterable[dict[str, Any]]:
    """Ended jobs whose escrow still waits for its refund."""
    return [{"job_id": pk} for pk in claim(Job.objects.filter(state__in=Job.ENDED, chain_id__isnull=False, closure=None))]
