"""Questions to chain nodes (JSON-RPC). The only module that imports web3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings
from requests import RequestException
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from trainer.protocol.errors import HyperGPUError

TIMEOUT_SECONDS = 5
FINALIZED = "finalized"
LATEST = "latest"
UNREACHABLE = "chain.unreachable"

Call = tuple[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A node's refusal of one call; `data` is the revert data (0x-hex), if any."""

    code: int
    message: str
    data: str = ""

    @property
    def is_revert(self) -> bool:
        """Whether the contract refused, rather than the node (geth, reth, anvil and Monad answer 3)."""
        return self.code == 3 or self.data.startswith("0x") or "revert" in self.message.lower()


@dataclass(frozen=True, slots=True)
class Block:
    number: int
    hash: str
    parent: str
    timestamp: int
    base_fee: int


class Node:
    """One provider's address; behind it may be a load balancer: only what is asked in one batch is answered by one node."""

    def __init__(self, url: str, chain_id: int) -> None:
        # The caller owns retries: a hidden one would repeat a broadcast, and stretch an outage over every question.
        self.provider = HTTPProvider(url, {"timeout": TIMEOUT_SECONDS}, exception_retry_configuration=None)
        self.url, self.chain_id, self.checked = url, chain_id, False

    def answers(self, calls: Sequence[Call]) -> list[Any]:
        """One answer or Fault for each call, in order, as raw JSON.

        Raises HyperGPUError `chain.unreachable` when the node gives no whole answer, `chain.wrong_chain` when it serves
        another chain than the settings name.
        """
        if not self.checked:
            self.check()
        return self.request(calls)

    def check(self) -> None:
        actual = number(self.request([("eth_chainId", [])])[0])
        if actual != self.chain_id:
            advice = "correct HYPERGPU_RPC_URLS or HYPERGPU_CHAIN_ID"
            raise HyperGPUError("chain.wrong_chain", f"{self} serves chain {actual}, the settings say {self.chain_id}; {advice}.")
        self.checked = True

    def request(self, calls: Sequence[Call]) -> list[Any]:
        if not calls:
            return []
        try:
            replies = self.provider.make_batch_request([(RPCEndpoint(method), list(params)) for method, params in calls])
        except (RequestException, ValueError) as error:
            raise self.unreachable(type(error).__name__) from error
        if not isinstance(replies, list) or len(replies) != len(calls):
            raise self.unreachable("it did not answer every call of a batch")
        return [fault(reply["error"]) if "error" in reply else reply.get("result") for reply in replies]

    def unreachable(self, why: str) -> HyperGPUError:
        return HyperGPUError("chain.unreachable", f"{self} gives no answer ({why}); check HYPERGPU_RPC_URLS.")

    def __str__(self) -> str:
        # The path and the user part of an RPC address often are its password.
        host = self.url.split("://")[-1].split("@")[-1].split("/")[0]
        return f"The chain node at {host}"


class Rpc:
    """The providers of the settings as one: asked in turn until one answers, from the one that answered last."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)

    def answers(self, calls: Sequence[Call]) -> list[Any]:
        """As `Node.answers`, of the first node that gives any. Raises the last refusal when none does."""
        for _ in self.nodes[1:]:
            try:
                return self.nodes[0].answers(calls)
            except HyperGPUError as error:
                if error.code != UNREACHABLE:
                    raise
                self.turn()
        return self.nodes[0].answers(calls)

    def turn(self) -> None:
        """Ask another provider from now on."""
        self.nodes = [*self.nodes[1:], self.nodes[0]]  # one assignment: threads share this

    def others(self) -> list[Rpc]:
        """The providers that are not asked now, each on its own."""
        return [Rpc([node]) for node in self.nodes[1:]]

    def broadcast(self, raws: Sequence[str]) -> list[Any]:
        """Give the same bytes to every provider: there is no global pool, and a node may forget. Of each transaction
        the best answer. Raises `chain.unreachable` when no provider took them."""
        calls: list[Call] = [("eth_sendRawTransaction", [raw]) for raw in raws]
        told: list[list[Any]] = []
        for node in list(self.nodes) if calls else []:
            try:
                told.append(node.answers(calls))
            except HyperGPUError as error:
                if error.code != UNREACHABLE or (node is self.nodes[-1] and not told):
                    raise
        return [best(answers) for answers in zip(*told, strict=True)]

    def read(self, *calls: Call) -> list[Any]:
        """Answers of one node. Raises HyperGPUError `chain.refused` when it refuses one, `chain.unreachable`."""
        answers = self.answers(calls)
        for (method, _), answer in zip(calls, answers, strict=True):
            if isinstance(answer, Fault):
                raise HyperGPUError("chain.refused", f"The node refused {method}: {answer.message}", method=method)
        return answers

    def ask(self, method: str, *params: Any) -> Any:
        return self.read((method, params))[0]

    def block(self, tag: int | str) -> Block:
        """Raises HyperGPUError `chain.node_behind` when the node does not have the block."""
        answer = parse_block(self.read(block_call(tag))[0])
        if answer is None:
            raise HyperGPUError("chain.node_behind", f"The node does not have block {tag} yet.")
        return answer


def best(answers: Sequence[Any]) -> Any:
    """What one provider accepted is on its way, whatever the others said."""
    return next((answer for answer in answers if not isinstance(answer, Fault)), answers[0])


def block_call(tag: int | str) -> Call:
    return "eth_getBlockByNumber", (tag if isinstance(tag, str) else hex(tag), False)


def parse_block(answer: Any) -> Block | None:
    if answer is None:
        return None
    return Block(
        number=number(answer["number"]), hash=answer["hash"], parent=answer["parentHash"],
        timestamp=number(answer["timestamp"]), base_fee=number(answer.get("baseFeePerGas") or "0x0"),
    )  # fmt: skip


def number(answer: str) -> int:
    return int(answer, 16)


def fault(error: Mapping[str, Any]) -> Fault:
    data = error.get("data")
    message = str(error.get("message", "no reason given"))
    return Fault(code=error.get("code", 0), message=message, data=data if isinstance(data, str) else "")


@lru_cache(maxsize=4)
def connect(urls: tuple[str, ...], chain_id: int) -> Rpc:
    return Rpc([Node(url, chain_id) for url in urls])


def rpc() -> Rpc:
    """The providers of the settings; each is asked once, before anything else, whether it serves their chain."""
    return connect(tuple(settings.HYPERGPU.rpc_urls), settings.HYPERGPU.chain_id)
