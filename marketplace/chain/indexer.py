"""From the chain to the database: every finalized event of our contracts, in order, once."""

from __future__ import annotations

import logging

from django.conf import settings
from django.db import transaction
from django.db.models import F

from marketplace.chain.models import ChainLog, Cursor
from marketplace.chain.pace import paced
from marketplace.chain.projections import LogEntry, project
from marketplace.chain.rpc import Rpc, rpc
from marketplace.chain.sequences import follows, last_before, sequence_of
from marketplace.chain.services import contract_address, watched
from marketplace.chain.windows import BEHIND, HistoryChanged, Window, headers_of, read_window
from trainer.protocol.errors import HyperGPUError

log = logging.getLogger(__name__)


class Gap(Exception):
    """An event is missing between block `after` and the one that was being applied."""

    def __init__(self, entry: LogEntry, after: int) -> None:
        super().__init__(f"{entry.name} {entry.args} does not follow what was read before")
        self.after = after


def index_once() -> int:
    """Apply the next stretch of finalized blocks. Returns how many blocks the cursor moved.

    Raises HyperGPUError `chain.node_behind`, `chain.bad_answer`, `chain.providers_differ`, `chain.history_changed`,
    `chain.gap`, `chain.not_deployed`, `chain.unreachable`; nothing is applied then.
    """
    contracts, node = watched(), rpc()
    cursor = open_cursor(contract_address("market"), node)
    try:
        with paced(cursor):
            window = read_window(node, cursor, contracts)
    except HistoryChanged as change:
        rewind(cursor, node)
        raise HyperGPUError("chain.rewound", f"Block {cursor.block} was undone after a node called it final.") from change
    except HyperGPUError as error:
        if error.code in (BEHIND, "chain.bad_answer"):
            node.turn()
        raise
    if window is None:
        return 0
    try:
        applied = apply(window, cursor)
    except Gap as gap:
        reread(cursor, gap)
        node.turn()
        raise HyperGPUError("chain.gap", f"{gap}; a node kept an event back. Reading again from block {gap.after}.") from gap
    return window.end.number - cursor.block if applied else 0


def has_more() -> bool:
    """Whether there are final blocks that are not read."""
    return Cursor.objects.filter(block__lt=F("finalized")).exists()


def open_cursor(market: str, node: Rpc) -> Cursor:
    """The cursor of a market and what belongs to it; a new one stands before the block of its deployment."""
    name = f"market:{market}"
    existing = Cursor.objects.filter(name=name).first()
    if existing:
        return existing
    if node.ask("eth_getCode", market, "latest") == "0x":
        raise HyperGPUError("chain.not_deployed", f"The chain has no contract at {market}; run `manage.py deploy_contracts`.")
    return Cursor.objects.get_or_create(name=name, defaults={"block": start_block()})[0]


def start_block() -> int:
    return max(int(settings.HYPERGPU.deployment["block"]) - 1, 0)


def rewind(cursor: Cursor, node: Rpc) -> None:
    """Step back to the newest block that still is what it was, if no event was read above it; else only a person can help.

    What was read is applied, and cannot be unapplied. So final blocks may be undone as long as they told us nothing.
    Raises HyperGPUError `chain.history_changed`.
    """
    newest = ChainLog.objects.filter(block__lte=cursor.block).order_by("block", "log_index").last()
    block, hash_ = (newest.block, newest.block_hash) if newest else (start_block(), "")
    if newest and headers_of(node, {block})[block].hash != hash_:
        raise HyperGPUError(
            "chain.history_changed",
            f"Block {block}, whose events were applied, is not the one that was read: the node serves another chain, or this one "
            "was reset. Correct HYPERGPU_RPC_URLS, or begin with an empty database.",
        )
    Cursor.objects.filter(pk=cursor.pk, block=cursor.block, block_hash=cursor.block_hash).update(block=block, block_hash=hash_)
    log.warning("final blocks above %s were undone; none of them had told us anything, so they are read again", block)


def apply(window: Window, cursor: Cursor) -> bool:
    """Rows, projections and cursor in one transaction; False when another indexer was first."""
    with transaction.atomic():
        # The cursor first: its compare-and-set is the lock that keeps a second indexer out.
        unmoved = Cursor.objects.filter(pk=cursor.pk, block=cursor.block, block_hash=cursor.block_hash)
        if not unmoved.update(block=window.end.number, block_hash=window.end.hash, finalized=window.finalized):
            return False
        known = set(
            ChainLog.objects.filter(block__gt=cursor.block, block__lte=window.end.number).values_list("block_hash", "log_index")
        )
        for entry in window.entries:
            if (entry.block_hash, entry.log_index) not in known:
                record(entry)
    return True


def record(entry: LogEntry) -> None:
    """Raises Gap when the event's sequence lacks a number."""
    sequence = sequence_of(entry)
    before = last_before(entry, sequence) if sequence else None
    if sequence and not follows(entry, before):
        raise Gap(entry, after=before.block if before else start_block())
    ChainLog.objects.create(
        block=entry.block, block_hash=entry.block_hash, tx_hash=entry.tx_hash, log_index=entry.log_index, name=entry.name,
        args=entry.args, timestamp=entry.timestamp, sequence=sequence,
    )  # fmt: skip
    project(entry)


def reread(cursor: Cursor, gap: Gap) -> None:
    """Step back to where the sequence was whole. What is already recorded is passed over, what was lost is found."""
    back = min(max(gap.after - 1, 0), cursor.block)
    Cursor.objects.filter(pk=cursor.pk, block=cursor.block).update(block=back, block_hash="")
    log.warning("%s", gap)
