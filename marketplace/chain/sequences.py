"""Events that count without gaps. A missing number proves that a node kept an event from us."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from marketplace.chain.models import ChainLog
from marketplace.chain.projections import LogEntry

COUNTED = {
    "NodeRegistered": ("nodes", "node_id"),
    "JobCreated": ("jobs", "job_id"),
    "EpochBegun": ("epochs", "epoch"),
    "registry.AttestorJoined": ("attestors", "attestor_id"),
    "registry.EpochBegun": ("drawings", "epoch"),
    # The court counts faults that it decides at once and cases that it hears in one row.
    "court.ReceiptFaultProven": ("cases", "case_id"),
    "court.AttestorFaultProven": ("cases", "case_id"),
    "court.CaseOpened": ("cases", "case_id"),
}
"""Events that are numbered from 1: their row of numbers, and which argument is the number."""


def sequence_of(entry: LogEntry) -> str:
    """The row of numbers that the event belongs to; empty for most."""
    if entry.name == "RoundSettled":
        return f"rounds:{entry.args['job_id']}"
    return COUNTED[entry.name][0] if entry.name in COUNTED else ""


def follows(entry: LogEntry, before: ChainLog | None) -> bool:
    """Whether the event is the next of its row after `before` (None: the first)."""
    if entry.name in COUNTED:
        last = before.args[COUNTED[before.name][1]] if before else 0
        return bool(entry.args[COUNTED[entry.name][1]] == last + 1)
    position = entry.args["round"], entry.args["batch"]
    if before is None:
        return position == (0, 0)
    return position == next_position(before.args)


def next_position(args: dict[str, Any]) -> tuple[int, int]:
    return (args["round"] + 1, 0) if args["last"] else (args["round"], args["batch"] + 1)


def last_before(entry: LogEntry, sequence: str) -> ChainLog | None:
    earlier: QuerySet[ChainLog] = ChainLog.objects.filter(
        Q(block__lt=entry.block) | Q(block=entry.block, log_index__lt=entry.log_index), sequence=sequence
    )
    return earlier.order_by("block", "log_index").last()
