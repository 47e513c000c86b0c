"""Reading a stretch of finalized blocks so that nothing can be missing without our noticing.

A node behind a load balancer may lag, and answers `eth_getLogs` beyond its head with what it has, silently (seen on
Monad and go-ethereum, issue 24078). So the logs and the proof that the node has the blocks come in one batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marketplace.chain import abi
from marketplace.chain.models import Cursor
from marketplace.chain.projections import LogEntry
from marketplace.chain.rpc import FINALIZED, Block, Call, Rpc, block_call, number, parse_block
from trainer.protocol.errors import HyperGPUError

WINDOW = 200
"""Blocks per read: a minute of Monad, and below every provider's limit."""


@dataclass(frozen=True, slots=True)
class Window:
    """The events of all blocks up to and with `end`, in chain order."""

    end: Block
    entries: list[LogEntry]


def read_window(node: Rpc, cursor: Cursor, market: str) -> Window | None:
    """What follows the cursor; None when nothing new is final.

    Raises HyperGPUError `chain.node_behind` when the node does not have all of it, `chain.history_changed` when its
    blocks do not continue those that were read before.
    """
    finalized = node.block(FINALIZED)
    if finalized.number < cursor.block:
        raise behind(cursor.block)
    if finalized.number == cursor.block:
        check_continues(cursor, finalized.hash)
        return None
    first, last = cursor.block + 1, min(cursor.block + WINDOW, finalized.number)
    query = {"fromBlock": hex(first), "toBlock": hex(last), "address": market}
    answers = node.read(block_call(FINALIZED), block_call(first), block_call(last), ("eth_getLogs", [query]))
    head, begin, end = (parse_block(answer) for answer in answers[:3])
    if head is None or head.number < last or begin is None or end is None:
        raise behind(last)
    check_continues(cursor, begin.parent)
    return Window(end, decode(node, answers[3], market, range(first, last + 1)))


def check_continues(cursor: Cursor, hash: str) -> None:
    if cursor.block_hash not in ("", hash):
        raise HyperGPUError(
            "chain.history_changed",
            f"Block {cursor.block} is not the one that was read before: the node serves another chain, or this one was reset. "
            "Correct HYPERGPU_RPC_URL, or begin with an empty database.",
        )


def decode(node: Rpc, logs: list[dict[str, Any]], market: str, blocks: range) -> list[LogEntry]:
    """Entries in chain order, each in the canonical block of its height. Events of other versions are left out."""
    headers = headers_of(node, {number(log["blockNumber"]) for log in logs})
    entries = []
    for log in logs:
        block = headers[number(log["blockNumber"])]
        if block.number not in blocks or block.hash != log["blockHash"] or log["address"].lower() != market.lower():
            raise HyperGPUError("chain.bad_answer", f"The node's logs from block {blocks.start} on do not fit its blocks.")
        if (decoded := abi.decode_log(log["topics"], log["data"])) is not None:
            name, args = decoded
            where = block.number, block.hash, log["transactionHash"], number(log["logIndex"]), block.timestamp
            entries.append(LogEntry(name, args, *where))
    return sorted(entries, key=lambda entry: (entry.block, entry.log_index))


def headers_of(node: Rpc, heights: set[int]) -> dict[int, Block]:
    calls: list[Call] = [block_call(height) for height in sorted(heights)]
    blocks = [parse_block(answer) for at in range(0, len(calls), 50) for answer in node.read(*calls[at : at + 50])]
    found = {block.number: block for block in blocks if block}
    if missing := heights - found.keys():
        raise behind(max(missing))
    return found


def behind(block: int) -> HyperGPUError:
    return HyperGPUError("chain.node_behind", f"The node does not have all blocks up to {block}; nothing of them is read yet.")
