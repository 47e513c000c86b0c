"""Who wants to know what the chain says. Handlers run inside the transaction that records it: all of it, or none.

Names are the market's events ("NodeRegistered"), those of other contracts ("registry.EpochBegun"), and what becomes of
an intent ("intent.sent", "intent.included", "intent.final", "intent.failed"). A handler of an event gets a LogEntry, once
per log; a handler of an intent gets the Intent row, and may see a state again after a reorganisation, or a later state
without those before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import InterfaceError, OperationalError

from marketplace.chain import abi
from marketplace.chain.models import Intent
from trainer.protocol.errors import HyperGPUError

INTENT_STATES = {f"intent.{state}" for state in Intent.State.values if state != Intent.State.PENDING}


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A finalized event of our contracts: `args` has snake_case names and plain values; `timestamp` is in unix seconds."""

    name: str
    args: dict[str, Any]
    block: int
    block_hash: str
    tx_hash: str
    log_index: int
    timestamp: int


Handler = Callable[[Any], None]
_handlers: dict[str, list[Handler]] = {}


def register(name: str, handler: Handler) -> None:
    """Raises HyperGPUError `chain.unknown_event` for a name that never comes. Registering twice is registering once."""
    if name not in INTENT_STATES and name not in abi.event_names():
        raise HyperGPUError("chain.unknown_event", f"No contract has an event {name}, and an intent no such state.")
    handlers = _handlers.setdefault(name, [])
    if handler not in handlers:
        handlers.append(handler)


FAILED = "chain.projection_failed"


def project(entry: LogEntry) -> None:
    """Raises HyperGPUError `chain.projection_failed` when a handler cannot take the event."""
    tell(entry.name, entry, where=f"{entry.name} of block {entry.block}, log {entry.log_index}")


def project_intent(intent: Intent) -> None:
    """Raises HyperGPUError `chain.projection_failed` when a handler cannot take the state."""
    tell(f"intent.{intent.state}", intent, where=str(intent))


def tell(name: str, subject: LogEntry | Intent, *, where: str) -> None:
    for handler in _handlers.get(name, []):
        try:
            handler(subject)
        except (OperationalError, InterfaceError):
            raise  # an outage of the database is nobody's fault: the transaction is tried again
        except Exception as error:
            # A fault of ours must not look like one of the chain, and must say which fact it chokes on.
            raise HyperGPUError(FAILED, f"{where} cannot be applied, and nothing after it is: {error!r}") from error
