"""Questions to a chain node (JSON-RPC). The only module that imports web3."""

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


class Rpc:
    """One node, or a load balancer before several: only what is asked in one batch is answered by one node."""

    def __init__(self, url: str) -> None:
        # The caller owns retries: a hidden one would repeat a broadcast, and stretch an outage over every question.
        self.provider = HTTPProvider(url, {"timeout": TIMEOUT_SECONDS}, exception_retry_configuration=None)
        self.url = url

    def answers(self, calls: Sequence[Call]) -> list[Any]:
        """One answer or Fault for each call, in order, as raw JSON.

        Raises HyperGPUError `chain.unreachable` when the node gives no whole answer.
        """
        if not calls:
            return []
        try:
            replies = self.provider.make_batch_request([(RPCEndpoint(method), list(params)) for method, params in calls])
        except (RequestException, ValueError) as error:
            raise unreachable(self.url, type(error).__name__) from error
        if not isinstance(replies, list) or len(replies) != len(calls):
            raise unreachable(self.url, "it did not answer every call of a batch")
        return [fault(reply["error"]) if "error" in reply else reply.get("result") for reply in replies]

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


def unreachable(url: str, why: str) -> HyperGPUError:
    # The path and the user part of an RPC address often are its password.
    host = url.split("://")[-1].split("@")[-1].split("/")[0]
    return HyperGPUError("chain.unreachable", f"The chain node at {host} gives no answer ({why}); check HYPERGPU_RPC_URL.")


@lru_cache(maxsize=4)
def connect(url: str, chain_id: int) -> Rpc:
    """Raises HyperGPUError `chain.wrong_chain` when the node serves another chain than the settings name."""
    node = Rpc(url)
    actual = number(node.ask("eth_chainId"))
    if actual != chain_id:
        advice = "correct HYPERGPU_RPC_URL or HYPERGPU_CHAIN_ID"
        raise HyperGPUError("chain.wrong_chain", f"The node serves chain {actual}, the settings say {chain_id}; {advice}.")
    return node


def rpc() -> Rpc:
    """The node of the settings, checked once."""
    return connect(settings.HYPERGPU.rpc_url, settings.HYPERGPU.chain_id)
