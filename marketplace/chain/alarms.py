"""What a person must see to. A row stands as long as the trouble lasts; the page shows it (/network), the log tells it once."""

from __future__ import annotations

import logging

from marketplace.chain.models import Alarm

log = logging.getLogger(__name__)


def raise_alarm(code: str, subject: str, message: str) -> None:
    """`subject` is what it is about (an address, an intent's key); one alarm of a code for each."""
    _, new = Alarm.objects.update_or_create(code=code, subject=subject[:120], defaults={"message": message[:300]})
    if new:
        log.error("alarm %s: %s", code, message)


def end_alarm(code: str, subject: str) -> None:
    if Alarm.objects.filter(code=code, subject=subject[:120]).delete()[0]:
        log.info("alarm %s of %s is over", code, subject)


def end_alarms(subject: str) -> None:
    """Every alarm about it."""
    for code in Alarm.objects.filter(subject=subject).values_list("code", flat=True):
        end_alarm(code, subject)
