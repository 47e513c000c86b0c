"""Questions to a chain node: plain JSON-RPC over HTTP, for programs that read much and trust little.

A node behind a load balancer may lag, and answers `eth_getLogs` beyond its head with what it has, silently (Monad;
go-ethereum issue 24078). So what proves that the node has the blocks is asked in one batch with the logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from trainer.operator.config import is_loopback
from trainer.protocol.errors import HyperGPUError

TIMEOUT_SECONDS = 20
TRIES = 6
FIRST_PAUSE_SECONDS = 0.25
BATCH = 50
"""Calls in one request; public providers take 100 and more."""
FIRST_WINDOW = 1_000
"""Blocks in one `eth_getLogs`; Monad's nodes refuse more."""
WIDEST_WINDOW = 64_000

Call = tuple[str, Sequence[Any]]
Progress = Callable[[int, int], None]
"""Told how many blocks are read, of how many."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A node's refusal of one call; `data` is the revert data (0x-hex), if any."""

    message: str
    data: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """`timestamp` in unix seconds, `base_fee` in wei per gas."""

    number: int
    hash: str
    timestamp: int
    base_fee: int


class Rpc:
    """One node, or a load balancer before several. What fails by the way is asked again; reading does no harm twice."""

    def __init__(self, url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        on_this_machine = is_loopback(urlsplit(url).hostname or "")
        self.client = httpx.Client(timeout=TIMEOUT_SECONDS, transport=transport, trust_env=not on_this_machine)

    def answers(self, calls: Sequence[Call]) -> list[Any]:
        """One answer or Fault for each call, in order, as raw JSON; at most BATCH calls by one node at a time.

        Raises HyperGPUError `rpc.unreachable` when the node gives no whole answer.
        """
        found: list[Any] = []
        for at in range(0, len(calls), BATCH):
            found += self.batch(calls[at : at + BATCH])
        return found

    def batch(self, calls: Sequence[Call]) -> list[Any]:
        body = [
            {"jsonrpc": "2.0", "id": index, "method": method, "params": list(params)}
            for index, (method, params) in enumerate(calls)
        ]
        replies = self.post(body)
        by_id = {reply.get("id"): reply for reply in replies} if isinstance(replies, list) else {}
        if by_id.keys() != set(range(len(calls))):
            raise self.unreachable("it did not answer every call of a batch")
        ordered = (by_id[index] for index in range(len(calls)))
        return [fault(reply["error"]) if reply.get("error") else reply.get("result") for reply in ordered]

    def post(self, body: Any) -> Any:
        """The answer's JSON; asks again, ever more slowly, while the node is busy or gone."""
        why = ""
        for attempt in range(TRIES):
            if attempt:
                time.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                response = self.client.post(self.url, json=body)
                if response.status_code == 429 or response.status_code >= 500:
                    why = f"status {response.status_code}"
                    continue
                return response.json()
            except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
                why = type(error).__name__
        raise self.unreachable(why)

    def read(self, *calls: Call) -> list[Any]:
        """Answers without a Fault. Raises HyperGPUError `rpc.refused`, `rpc.unreachable`."""
        answers = self.answers(calls)
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, Fault):
                raise HyperGPUError("rpc.refused", f"The node refused {method}: {answer.message}", method=method)
        return answers

    def ask(self, method: str, *params: Any) -> Any:
        return self.read((method, params))[0]

    def chain_id(self) -> int:
        return number(self.ask("eth_chainId"))

    def finalized(self) -> Block:
        return self.blocks(["finalized"])[0]

    def blocks(self, tags: Sequence[int | str]) -> list[Block]:
        """Headers, in order. Raises HyperGPUError `rpc.behind` when the node lacks one."""
        found = [parse_block(answer) for answer in self.read(*(block_call(tag) for tag in tags))]
        missing = [tag for tag, block in zip(tags, found, strict=True) if block is None]
        if missing:
            raise behind(missing[0])
        return [block for block in found if block is not None]

    def logs(self, queries: Sequence[Mapping[str, Any]], *, first: int, last: int, progress: Progress) -> Iterator[Any]:
        """The raw logs of each query in the finalized blocks `first` to `last`, both counted.

        The window narrows when the node refuses its width, and widens while it does not.
        Raises HyperGPUError `rpc.refused` when even one block is too much, `rpc.behind`, `rpc.unreachable`.
        """
        begin, width, widest = first, FIRST_WINDOW, WIDEST_WINDOW
        while begin <= last:
            end = min(begin + width - 1, last)
            window = {"fromBlock": hex(begin), "toBlock": hex(end)}
            calls: list[Call] = [("eth_getLogs", [{**query, **window}]) for query in queries]
            head, edge, *pages = self.answers([block_call("finalized"), block_call(end), *calls])
            refused = next((page for page in pages if isinstance(page, Fault)), None)
            if refused and width > 1:
                width = widest = (end - begin + 1) // 2 or 1
                continue
            if refused:
                raise HyperGPUError("rpc.refused", f"The node refused the logs of block {begin}: {refused.message}")
            if has_not(head, end) or has_not(edge, end):
                raise behind(end)
            for page in pages:
                yield from page
            progress(end - first + 1, last - first + 1)
            begin, width = end + 1, min(width * 2, widest)

    def first_block_of(self, contract: str, *, head: int) -> int:
        """The block that brought the contract's code, by bisection; 0 when the node does not keep so old a state."""
        low, high = 0, head
        while low < high:
            middle = (low + high) // 2
            code = self.answers([("eth_getCode", [contract, hex(middle)])])[0]
            if isinstance(code, Fault):
                return 0
            low, high = (middle + 1, high) if code in ("0x", None) else (low, middle)
        return low

    def unreachable(self, why: str) -> HyperGPUError:
        # The path and the user part of an RPC address often are its password.
        host = self.url.split("://")[-1].split("@")[-1].split("/")[0]
        return HyperGPUError("rpc.unreachable", f"The chain node at {host} gives no answer ({why}); check --rpc.")


def has_not(answer: Any, height: int) -> bool:
    block = None if isinstance(answer, Fault) else parse_block(answer)
    return block is None or block.number < height


def block_call(tag: int | str) -> Call:
    return "eth_getBlockByNumber", (tag if isinstance(tag, str) else hex(tag), False)


def parse_block(answer: Any) -> Block | None:
    if answer is None:
        return None
    return Block(
        number=number(answer["number"]), hash=answer["hash"], timestamp=number(answer["timestamp"]),
        base_fee=number(answer.get("baseFeePerGas") or "0x0"),
    )  # fmt: skip


def number(answer: str) -> int:
    return int(answer, 16)


def fault(error: Mapping[str, Any]) -> Fault:
    data = error.get("data")
    return Fault(message=str(error.get("message", "no reason given")), data=data if isinstance(data, str) else "")


def behind(block: int | str) -> HyperGPUError:
    text = f"The node does not have block {block}: it is behind, or forgets old blocks. Try again, or use another --rpc."
    return HyperGPUError("rpc.behind", text)
