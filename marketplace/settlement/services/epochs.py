"""Sets of attestors: what the chain says of them, and that the next one begins when it is due, since anyone may see to it."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from marketplace.chain.projections import LogEntry
from marketplace.chain.services import contract_address, enqueue
from marketplace.common.times import from_unix
from marketplace.settlement.models import AttestorSet

TRY_SECONDS = 60
"""The registry may refuse (a second too early, nobody to draw from, a draw in two steps): it is asked again this often."""


def record_epoch(log: LogEntry) -> None:
    """EpochBegun of the market. Call inside the indexer's transaction."""
    said, length = log.args, timedelta(seconds=int(settings.HYPERGPU.deployment["terms"]["registry"]["epochLength"]))
    kept = {"members": said["members"], "quorum": said["quorum"], "over_at": from_unix(log.timestamp) + length}
    AttestorSet.objects.get_or_create(epoch=said["epoch"], defaults=kept)


def record_attestor_gone(log: LogEntry) -> None:
    """An attestor leaves or was slashed: if it is of the set, a new one is due."""
    newest = AttestorSet.objects.order_by("-epoch").first()
    if newest is not None:
        AttestorSet.objects.filter(pk=newest.pk, over_at__gt=timezone.now()).update(over_at=timezone.now())


def begin_epoch(*, epoch: int) -> None:
    """Ask the registry for the epoch after `epoch`, once in `TRY_SECONDS`."""
    registry, turn = contract_address("registry"), int(timezone.now().timestamp()) // TRY_SECONDS
    with transaction.atomic():
        enqueue(key=f"epoch:{registry}:{epoch + 1}:{turn}", function="beginEpoch", args=[], contract="registry")
