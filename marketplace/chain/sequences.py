"""Events that count without gaps. A missing number proves that a node kept an event from us."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet

from marketplace.chain.models import ChainLog
from marketplace.chain.projections import LogEntry


def sequence_of(entry: LogEntry) -> str:
    """The row of numbers that the event belongs to; empty for most."""
    match entry.name:
        case "NodeRegistered":
            return "node"
        case "JobCreated":
            return "job"
        case "RoundSettled":
            return f"rounds:{entry.args['job_id']}"
        case "registry.AttestorJoined":
            return "attestor"
        case "registry.EpochBegun":
            return "epoch"
        case "court.CaseOpened" | "court.ReceiptFaultProven" | "court.AttestorFaultProven":
            return "case"
    return ""


def follows(args: dict[str, Any], before: dict[str, Any] | None, sequence: str) -> bool:
    """Whether `args` are the next of their sequence after `before` (None: the first)."""
    if not sequence.startswith("rounds:"):
        number = "epoch" if sequence == "epoch" else f"{sequence}_id"
        return bool(args[number] == (before[number] if before else 0) + 1)
    position = args["round"], args["batch"]
    if before is None:
        return position == (0, 0)
    return position == ((before["round"] + 1, 0) if before["last"] else (before["round"], before["batch"] + 1))


def last_before(entry: LogEntry, sequence: str) -> ChainLog | None:
    earlier: QuerySet[ChainLog] = ChainLog.objects.filter(
        Q(block__lt=entry.block) | Q(block=entry.block, log_index__lt=entry.log_index), sequence=sequence
    )
    return earlier.order_by("block", "log_index").last()
