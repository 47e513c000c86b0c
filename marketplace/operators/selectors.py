"""Reads of supply."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from marketplace.operators.models import Bid, Node


def online_since() -> datetime:
    """Nodes heard after this moment count as online."""
    return timezone.now() - timedelta(seconds=settings.HYPERGPU.offline_seconds)


def state_of(node: Node) -> str:
    """retired, registered (never heard), online, or offline."""
    if node.retired:
        return "retired"
    if node.last_seen is None:
        return "registered"
    return "online" if node.last_seen >= online_since() else "offline"


def topics_of(node: Node) -> list[str]:
    """Where the pages that show the node listen."""
    return ["market", f"operator.{node.operator_id.lower()}", *(f"job.{job_id}" for job_id in node.jobs)]


def usable_bids(*, chain_job_id: int, max_rate: int, units: int) -> QuerySet[Bid]:
    """Open bids that fit a job, of nodes that are online now, cheapest first; a bid for this very job before a standing one."""
    now = timezone.now()
    return (
        Bid.objects.select_related("node__operator")
        .filter(
            Q(chain_job_id=chain_job_id) | Q(chain_job_id=0),
            state=Bid.State.OPEN,
            rate__lte=max_rate,
            capacity__gte=units,
            expires_at__gt=now + timedelta(minutes=1),
            node__retired=False,
            node__key_expires_at__gt=now,
            node__last_seen__gte=online_since(),
        )
        .exclude(node__suspended_until__gt=now)
        .order_by("rate", "-chain_job_id", "node_id")
    )
