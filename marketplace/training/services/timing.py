"""The one clock of leases: the database's."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now


def lease_end() -> CombinedExpression:
    """When a lease that is given or renewed now runs out, by the database's clock."""
    return Now() + timedelta(seconds=settings.HYPERGPU.lease_seconds)
