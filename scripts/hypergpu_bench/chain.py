"""A local chain for measuring gas: one transaction a block, at once, no fees, no signatures on transactions.

Only gas is measured here, and a transaction's signature costs none; those inside the calldata are real.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from scripts.hypergpu_demo import rpc
from scripts.hypergpu_demo.ports import HOST, free_ports
from scripts.hypergpu_demo.stack import CHAIN_ID, anvil

GAS_LIMIT = 100_000_000
"""Of a block and of each transaction here: more than anvil's default, so that nothing is cut off."""

CODE_LIMIT = 128 * 1024
"""Bytes, as on Monad."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in a block. `ethereum` is its real gasUsed."""

    tx_hash: str
    ethereum: int
    calldata: bytes
    contract: str
    logs: list[dict[str, Any]]


class Chain:
    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=600)
        self.sender: str = self.ask("eth_accounts")[0]

    def ask(self, method: str, *params: Any) -> Any:
        """Raises RuntimeError with the node's refusal."""
        answer = self.http.post("/", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).json()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']} {answer['error'].get('data') or ''}")
        return answer["result"]

    def transact(self, data: str, *, to: str | None = None, sender: str | None = None) -> Mined:
        """Raises RuntimeError when the call reverts."""
        call = {"from": sender or self.sender, "data": data, "gas": hex(GAS_LIMIT), "gasPrice": "0x0"} | (
            {"to": to} if to else {}
        )
        tx_hash = self.ask("eth_sendTransaction", call)
        while (receipt := self.ask("eth_getTransactionReceipt", tx_hash)) is None:
            pass  # it is being mined
        if receipt["status"] != "0x1":
            self.ask("eth_call", call, "latest")  # says why
            raise RuntimeError(f"{tx_hash} reverted")
        return Mined(
            tx_hash, int(receipt["gasUsed"], 16), bytes.fromhex(data[2:]), receipt["contractAddress"] or to or "", receipt["logs"]
        )


class Contract:
    """One contract on the chain: `contract.send("name", ...)` mines a call of it."""

    def __init__(self, chain: Chain, built: dict[str, Any], *arguments: Any) -> None:
        self.chain = chain
        self.functions = {entry["name"]: entry for entry in built["abi"] if entry["type"] == "function"}
        constructor: dict[str, Any] = next((entry for entry in built["abi"] if entry["type"] == "constructor"), {"inputs": []})
        mined = chain.transact(built["bytecode"] + encode(types(constructor), arguments).hex())
        self.address = str(to_checksum_address(mined.contract))

    def call(self, function: str, *arguments: Any) -> str:
        """The calldata, 0x-hex; bytes and hashes as bytes, structs as tuples."""
        entry = self.functions[function]
        data = keccak(text=f"{function}({','.join(types(entry))})")[:4] + encode(types(entry), arguments)
        return "0x" + data.hex()

    def send(self, function: str, *arguments: Any, sender: str | None = None) -> Mined:
        return self.chain.transact(self.call(function, *arguments), to=self.address, sender=sender)

    def view(self, function: str, *arguments: Any) -> Any:
        """The tuple of answers."""
        call = {"to": self.address, "data": self.call(function, *arguments), "gas": hex(GAS_LIMIT)}
        answer = bytes.fromhex(self.chain.ask("eth_call", call, "latest")[2:])
        return decode([kind(one) for one in self.functions[function]["outputs"]], answer)


def types(entry: dict[str, Any]) -> list[str]:
    return [kind(one) for one in entry["inputs"]]


def kind(parameter: dict[str, Any]) -> str:
    """The canonical type: structs as tuples of theirs."""
    name: str = parameter["type"]
    return name if not name.startswith("tuple") else f"({','.join(map(kind, parameter['components']))}){name[5:]}"


@contextmanager
def local_chain() -> Iterator[Chain]:
    port = free_ports().chain
    options = {"--host": HOST, "--port": port, "--chain-id": CHAIN_ID, "--hardfork": "prague", "--base-fee": 0, "--gas-price": 0}
    limits = {"--gas-limit": GAS_LIMIT, "--code-size-limit": CODE_LIMIT}
    command = [
        anvil(),
        *(str(part) for option in (options | limits).items() for part in option),
        "--auto-impersonate",
        "--silent",
    ]
    process = subprocess.Popen(command)
    try:
        url = f"http://{HOST}:{port}"
        while not rpc.answers(url):
            if process.poll() is not None:
                raise RuntimeError(f"anvil ended with status {process.returncode}")
        yield Chain(url)
    finally:
        process.terminate()
        process.wait(10)
