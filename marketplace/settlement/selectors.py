"""Reads of settlement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import Q, QuerySet
from django.utils import timezone

from marketplace.jobs.models import Job
from marketplace.settlement.models import Batch, Payment
from marketplace.training.models import Round
from marketplace.training.selectors import STALL, claim


def payments() -> QuerySet[Payment]:
    return Payment.objects.select_related("contribution__round")


def stalled_batches() -> Iterable[dict[str, Any]]:
    late = Q(driven_at=None) | Q(driven_at__lt=timezone.now() - STALL)
    return [{"batch_id": pk} for pk in claim(Batch.objects.filter(late, state=Batch.State.ATTESTING))]


def unbatched_rounds() -> Iterable[dict[str, Any]]:
    """Aggregated rounds whose batch was never built, because the event that asks for it was lost with its worker."""
    late = Q(driven_at__lt=timezone.now() - STALL)
    return [{"round_id": pk} for pk in claim(Round.objects.filter(late, state=Round.State.AGGREGATED, batch=None))]


def unclosed_jobs() -> Iterable[dict[str, Any]]:
    """Ended jobs whose escrow still waits for its refund."""
    late = Q(driven_at=None) | Q(driven_at__lt=timezone.now() - STALL)
    return [{"job_id": pk} for pk in claim(Job.objects.filter(late, state__in=Job.ENDED, chain_id__isnull=False, closure=None))]
