"""All that a chain has to say about one job: its events, the transactions that made them, and what the market keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from trainer.ledger.abi import OF_CASES, OF_JOBS, OF_SIGNERS, VIEW, hexed, unhex
from trainer.ledger.batches import Batch, batches_of_calldata
from trainer.ledger.rpc import Block, Call, Fault, Progress, Rpc, number
from trainer.protocol.errors import HyperGPUError

Step = Callable[[str], Progress]
"""Names a stretch of work; what it returns is told how far it is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the market, where it stands in the chain, and the time of its block."""

    name: str
    args: dict[str, Any]
    block: int
    index: int
    time: int
    tx: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What views tell at the head: the job, (digest, settledAt, accepted) of each of its rounds, and whom the market lets
    name attestors and decide disputes."""

    job: dict[str, Any]
    rounds: list[dict[str, Any]]
    registry: str
    court: str


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """`entries` in chain order from block `first` to `head`; `batches` are what transactions carried, by their hash."""

    chain_id: int
    market: str
    job_id: int
    first: int
    head: Block
    kept: Kept
    entries: list[Entry]
    batches: dict[str, list[Batch]]


def read_history(rpc: Rpc, market: str, job_id: int, *, first: int | None, step: Step) -> History:
    """Everything up to the newest final block. `first` None: from the block that brought the market.

    Raises HyperGPUError `ledger.no_market`, `ledger.unknown_job`, `ledger.bad_answer`, and those of Rpc.
    """
    chain_id, head = rpc.chain_id(), rpc.finalized()
    market = require_market(rpc, market, head)
    # Before the long reading: full nodes forget the state of a block within minutes.
    kept = read_kept(rpc, market, job_id, head)
    first = rpc.first_block_of(market, head=head.number) if first is None else first
    entries = read_entries(rpc, market, job_id, first, head, step("blocks"))
    settling = list(dict.fromkeys(entry.tx for entry in entries if entry.name == "RoundSettled"))
    batches = read_batches(rpc, market, settling, step("transactions"))
    return History(
        chain_id=chain_id, market=market, job_id=job_id, first=first, head=head, kept=kept, entries=entries, batches=batches
    )


def require_market(rpc: Rpc, market: str, head: Block) -> str:
    """The market's checksummed address. Raises HyperGPUError `ledger.no_market`."""
    if not is_address(market):
        raise HyperGPUError("ledger.no_market", f"{market} is not an address: 0x and 40 hex digits.")
    if rpc.ask("eth_getCode", market, hex(head.number)) == "0x":
        raise HyperGPUError("ledger.no_market", f"There is no contract at {market} on chain {rpc.chain_id()}.")
    return to_checksum_address(market)


def read_kept(rpc: Rpc, market: str, job_id: int, head: Block) -> Kept:
    views = Views(rpc, market, hex(head.number))
    if not 0 < job_id <= views.one("jobCount")["count"]:
        raise HyperGPUError("ledger.unknown_job", f"The market at {market} has no job {job_id} at block {head.number}.")
    job = views.one("getJob", job_id)
    started = job["round"] + (1 if job["batch"] else 0)
    return Kept(
        job=job, rounds=views.many("getRound", [(job_id, round) for round in range(started)]),
        registry=views.one("registry")["at"], court=views.one("court")["at"],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Views:
    """The market's views at one block."""

    rpc: Rpc
    market: str
    block: str

    def one(self, name: str, *args: Any) -> dict[str, Any]:
        return self.many(name, [args])[0]

    def many(self, name: str, calls: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """One answer for each call. Raises HyperGPUError `ledger.no_market` when the contract does not know the view."""
        view = VIEW[name]
        asked: list[Call] = [("eth_call", [{"to": self.market, "data": view.call(*args)}, self.block]) for args in calls]
        answers = self.rpc.answers(asked)
        refused = next((answer for answer in answers if isinstance(answer, Fault)), None)
        if refused or "0x" in answers:
            why = f": {refused.message}" if refused else ""
            raise HyperGPUError("ledger.no_market", f"The contract at {self.market} did not answer {name}{why}. Is it a market?")
        return [view.decode(answer) for answer in answers]


def read_entries(rpc: Rpc, market: str, job_id: int, first: int, head: Block, progress: Progress) -> list[Entry]:
    """Events of the job, of its nodes' keys and of the attestors' epochs, in chain order."""
    job = hexed(job_id.to_bytes(32, "big"))
    awarded, slashed = OF_CASES
    queries: list[dict[str, Any]] = [
        {"address": market, "topics": [list(OF_JOBS), job]},
        {"address": market, "topics": [awarded, None, job]},
        {"address": market, "topics": [slashed, None, None, job]},
        {"address": market, "topics": [list(OF_SIGNERS)]},
    ]
    logs = list(rpc.logs(queries, first=first, last=head.number, progress=progress))
    known = OF_JOBS | OF_CASES | OF_SIGNERS
    decoded = [(known[log["topics"][0]], log) for log in logs if log["topics"][0] in known]
    entries = [(event.name, event.decode(log["topics"], log["data"]), log) for event, log in decoded]
    seated = {args["nodeId"] for name, args, _ in entries if name == "BidTaken"}
    # Of the keys only those of the job's nodes: there may be very many others.
    wanted = [(name, args, log) for name, args, log in entries if args.get("nodeId") in seated | {None}]
    headers = {block.number: block for block in rpc.blocks(sorted({number(log["blockNumber"]) for *_, log in wanted}))}
    found = []
    for name, args, log in wanted:
        block = headers[number(log["blockNumber"])]
        if log["blockHash"] != block.hash or log["address"].lower() != market.lower():
            raise HyperGPUError("ledger.bad_answer", f"The node's logs of block {block.number} do not fit the block itself.")
        found.append(Entry(name, args, block.number, number(log["logIndex"]), block.timestamp, log["transactionHash"]))
    return sorted(found, key=lambda entry: (entry.block, entry.index))


def read_batches(rpc: Rpc, market: str, hashes: Sequence[str], progress: Progress) -> dict[str, list[Batch]]:
    """The calls of `settleRound` in each transaction: its own, or those that other contracts made in it, if the node can
    trace; none when they cannot be had."""
    found = {}
    for index, tx in enumerate(hashes):
        answer = rpc.ask("eth_getTransactionByHash", tx)
        if answer is None or answer["hash"] != tx:
            raise HyperGPUError("rpc.behind", f"The node does not have transaction {tx}; try another --rpc.")
        calls = [answer["input"]] if (answer["to"] or "").lower() == market.lower() else traced_calls(rpc, market, tx)
        found[tx] = [batch for call in calls for batch in batches_of_calldata(unhex(call))]
        progress(index + 1, len(hashes))
    return found


def traced_calls(rpc: Rpc, market: str, tx: str) -> list[str]:
    """Calldata of the calls to the market within a transaction (geth's callTracer)."""
    trace = rpc.answers([("debug_traceTransaction", [tx, {"tracer": "callTracer"}])])[0]
    return [] if isinstance(trace, Fault) or trace is None else list(calls_to(market.lower(), trace))


def calls_to(market: str, trace: Mapping[str, Any]) -> list[str]:
    """In their order. What the market calls in itself is left out: its outer call holds it already."""
    waiting, found = [trace], []
    while waiting:
        call = waiting.pop(0)
        if call.get("error"):
            continue
        if call.get("type") == "CALL" and (call.get("to") or "").lower() == market:
            found.append(call["input"])
        else:
            waiting[:0] = call.get("calls", ())
    return found
