"""What nobody can need any more is deleted; what it takes to compute again what was paid never is (ADR 44)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.utils import timezone

from marketplace.artifacts import services as artifacts
from marketplace.artifacts import store
from marketplace.artifacts.models import Artifact
from marketplace.chain.alarms import end_alarm, raise_alarm
from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Audit, Checkpoint, Contribution, Round

SENT = (Artifact.Kind.DATASET, Artifact.Kind.PSEUDO_GRADIENT, Artifact.Kind.AUDIT)
"""Kinds that strangers send; what the coordinator makes is public, and stays."""
UNNAMED, DRAFTED = timedelta(days=1), timedelta(days=7)
"""How long what no row names is kept, and for how long a draft names its data sets."""
MOST_AT_ONCE = 1000


def forget() -> int:
    """Delete what was sent and is not named any more, and what killed processes have left; returns how many artifacts."""
    store.forget_broken_off(seconds=UNNAMED.total_seconds())
    left = unnamed(timezone.now())[:MOST_AT_ONCE]
    for sha256 in left:
        artifacts.forget(sha256=sha256)
    return len(left)


def unnamed(now: datetime) -> list[str]:
    """Hashes of what was sent a day ago or longer, and that nothing names. A name counts whatever it is a name of: who sends a
    job's first checkpoint as a data set before the job has made it does not take it away."""
    found = Artifact.objects.filter(kind__in=SENT, created_at__lt=now - UNNAMED)
    for names in names_of(now):
        found = found.exclude(pk__in=names)
    jobs = Job.objects.filter(~Q(state=Job.State.DRAFT) | Q(created_at__gt=now - DRAFTED))
    data = {sha256 for spec in jobs.values_list("spec", flat=True) for sha256 in spec["data"]["files"].values()}
    return [sha256 for sha256 in found.values_list("sha256", flat=True) if sha256 not in data]


def names_of(now: datetime) -> list[QuerySet[Any, Any]]:
    """Columns that name artifacts. Evidence of an audit that was passed is needed until the round's challenge window is over."""
    window = timedelta(seconds=int(settings.HYPERGPU.deployment["terms"]["market"]["challengeWindow"]))
    over = Q(state=Audit.State.PASSED, contribution__round__settled_at__lt=now - window, contribution__case=None)
    return [
        Contribution.objects.values("artifact"),
        Assignment.objects.filter(state__in=(*Assignment.HELD, Assignment.State.CARRIED)).values("committed_sha256"),
        Audit.objects.exclude(over).values("evidence"),
        Job.objects.values("spec_hash"),
        *(Round.objects.values(column) for column in ("evidence", "settlement")),
        *(Checkpoint.objects.values(column) for column in ("params", "outer_state", "delta", "aggregate")),
    ]


def watch_disk() -> None:
    """Raise an alarm while the disk has less room than it should."""
    free, least = store.free_bytes(), settings.HYPERGPU.least_free_bytes
    if free >= least:
        end_alarm("disk.low", "artifacts")
        return
    text = f"{free / 2**30:.1f} GiB of the disk are free, less than {least / 2**30:.1f}: data sets are refused."
    raise_alarm("disk.low", "artifacts", text)
