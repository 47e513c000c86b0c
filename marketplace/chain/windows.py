"""Reading a stretch of finalized blocks so that nothing can be missing without our noticing.

A node behind a load balancer may lag, and answers `eth_getLogs` beyond its head with what it has, silently (seen on
Monad and go-ethereum, issue 24078). So the logs and the proof that the node has the blocks come in one batch; a second
provider, where one is configured, is asked the same and must say the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marketplace.chain import abi
from marketplace.chain.models import Cursor
from marketplace.chain.projections import LogEntry
from marketplace.chain.rpc import FINALIZED, UNREACHABLE, Block, Call, Rpc, block_call, number, parse_block
from marketplace.chain.values import checksummed
from trainer.protocol.errors import HyperGPUError

BEHIND = "chain.node_behind"
Watched = Mapping[str, abi.Contract]


@dataclass(frozen=True, slots=True)
class Window:
    """The events of all blocks up to and with `end`, in chain order. `finalized` is the node's newest final block."""

    end: Block
    entries: list[LogEntry]
    finalized: int


class HistoryChanged(Exception):
    """The node's blocks do not continue those that were read before."""


def read_window(node: Rpc, cursor: Cursor, watched: Watched) -> Window | None:
    """What follows the cursor, at most `cursor.span` blocks; None when nothing new is final.

    Raises HistoryChanged, and HyperGPUError `chain.node_behind` when the node does not have all of it,
    `chain.bad_answer`, `chain.providers_differ`, `chain.unreachable`.
    """
    finalized = node.block(FINALIZED)
    if finalized.number < cursor.block:
        raise behind(cursor.block)
    if finalized.number == cursor.block:
        check_continues(cursor, finalized.hash)
        return None
    blocks = range(cursor.block + 1, min(cursor.block + cursor.span, finalized.number) + 1)
    begin, window = read_blocks(node, blocks, watched)
    check_continues(cursor, begin.parent)
    for other in node.others():
        cross_check(window, other, blocks, watched)
    return window


def read_blocks(node: Rpc, blocks: range, watched: Watched) -> tuple[Block, Window]:
    """The events of these blocks, and the first of them, from one node that has them all and calls them final."""
    query = {"fromBlock": hex(blocks[0]), "toBlock": hex(blocks[-1]), "address": list(watched)}
    answers = node.read(block_call(FINALIZED), block_call(blocks[0]), block_call(blocks[-1]), ("eth_getLogs", [query]))
    head, begin, end = (parse_block(answer) for answer in answers[:3])
    if head is None or head.number < blocks[-1] or begin is None or end is None:
        raise behind(blocks[-1])
    return begin, Window(end, decode(node, answers[3], watched, blocks), head.number)


def cross_check(window: Window, other: Rpc, blocks: range, watched: Watched) -> None:
    """One provider that keeps an event back is found out by another. One that lags or is away says nothing."""
    try:
        _, theirs = read_blocks(other, blocks, watched)
    except HyperGPUError as error:
        if error.code in (BEHIND, UNREACHABLE):
            return
        raise
    if (window.end.hash, window.entries) != (theirs.end.hash, theirs.entries):
        raise HyperGPUError(
            "chain.providers_differ",
            f"Two providers differ about the events of blocks {blocks[0]} to {blocks[-1]} ({len(window.entries)} and "
            f"{len(theirs.entries)} events); nothing of them is read. If it lasts, take the wrong one out of HYPERGPU_RPC_URLS.",
        )


def check_continues(cursor: Cursor, hash: str) -> None:
    if cursor.block_hash not in ("", hash):
        raise HistoryChanged


def decode(node: Rpc, logs: list[dict[str, Any]], watched: Watched, blocks: range) -> list[LogEntry]:
    """Entries in chain order, each once, in the canonical block of its height. Events of other versions are left out."""
    headers = headers_of(node, {number(log["blockNumber"]) for log in logs})
    entries = {}
    for log in logs:
        block, contract = headers[number(log["blockNumber"])], watched.get(checksummed(log["address"]))
        if block.number not in blocks or block.hash != log["blockHash"] or contract is None:
            raise HyperGPUError("chain.bad_answer", f"The node's logs from block {blocks.start} on do not fit its blocks.")
        if (decoded := abi.decode_log(contract, log["topics"], log["data"])) is not None:
            name, args = decoded
            where = block.number, block.hash, log["transactionHash"], number(log["logIndex"]), block.timestamp
            entries[block.number, where[3]] = LogEntry(name, args, *where)
    return [entries[place] for place in sorted(entries)]


def headers_of(node: Rpc, heights: set[int]) -> dict[int, Block]:
    """The canonical blocks at these heights. Raises HyperGPUError `chain.node_behind`."""
    calls: list[Call] = [block_call(height) for height in sorted(heights)]
    blocks = [parse_block(answer) for at in range(0, len(calls), 50) for answer in node.read(*calls[at : at + 50])]
    found = {block.number: block for block in blocks if block}
    if missing := heights - found.keys():
        raise behind(max(missing))
    return found


def behind(block: int) -> HyperGPUError:
    return HyperGPUError(BEHIND, f"The node does not have all blocks up to {block}; nothing of them is read yet.")
