"""How an intent changes state: a compare-and-set, with its projections in the same transaction."""

from __future__ import annotations

import logging
from typing import Any

from django.db import transaction

from marketplace.chain.models import Intent
from marketplace.chain.projections import project_intent

log = logging.getLogger(__name__)

IN_FLIGHT = [Intent.State.PENDING, Intent.State.SENT]
OPEN = [*IN_FLIGHT, Intent.State.INCLUDED]


def move(intent: Intent, to: Intent.State, *, when: dict[str, Any], **changes: Any) -> bool:
    """Move the intent if it still is as `when` says (model filters); False when another process was first."""
    changes.setdefault("reason", "")
    with transaction.atomic():
        if not Intent.objects.filter(pk=intent.pk, **when).update(state=to, **changes):
            return False
        intent.refresh_from_db()
        project_intent(intent)
    log.log(logging.WARNING if to == Intent.State.FAILED else logging.INFO, "%s %s", intent, intent.reason)
    return True


def note(intent: Intent, reason: str) -> None:
    """Say why an intent waits, where people look; the log gets each reason once."""
    reason = reason[:300]
    if Intent.objects.filter(pk=intent.pk, state__in=IN_FLIGHT).exclude(reason=reason).update(reason=reason):
        log.warning("%s waits: %s", intent, reason)
