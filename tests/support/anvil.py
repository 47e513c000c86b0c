"""A real chain for tests: anvil from npm, the contracts put on it by the product's own `deploy`.

with start_anvil() as anvil:
    env = deployed(anvil, folder)              # settings that name this chain and its contracts
    with override_settings(HYPERGPU=env): ...
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.test import override_settings
from eth_account import Account
from pydantic import SecretStr

from marketplace.chain.attestors import join_attestors
from marketplace.chain.deploy import deploy
from marketplace.chain.profiles import ANVIL
from marketplace.chain.terms import default_terms
from marketplace.chain.wallet import send
from marketplace.config.env import ROOT, Settings
from tests.settings import ATTESTORS, test_key

CHAIN_ID = 31337
COIN = 10**18
HTTP = httpx.Client(timeout=10)
"""One for all: making a client reads every certificate of the machine, which costs more than most calls."""
MIN_STAKE = 1_000_000


@dataclass
class Anvil:
    """A running node. Each call that fails raises."""

    url: str
    process: subprocess.Popen[bytes]

    def ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = HTTP.post(self.url, json=body).json()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def mine(self, blocks: int = 1) -> None:
        self.ask("anvil_mine", hex(blocks))

    def pause_mining(self) -> None:
        """From now on blocks come from `mine` alone."""
        self.ask("evm_setIntervalMining", 0)

    def fund(self, address: str, coins: int = 100) -> None:
        self.ask("anvil_setBalance", address, hex(coins * COIN))

    def new_wallet(self) -> str:
        """Private key of a new account that can pay gas."""
        account = Account.create()
        self.fund(account.address)
        return "0x" + bytes(account.key).hex()

    def transactions_of(self, address: str) -> int:
        """How many transactions of the account are in the chain."""
        return int(self.ask("eth_getTransactionCount", address, "latest"), 16)


@contextmanager
def start_anvil(*, block_seconds: float = 0.3, port: int = 0) -> Iterator[Anvil]:
    """A node with the finality of Monad in small: a block is final when about two more are on top of it."""
    port = port or free_port()
    command = [anvil_binary(), "--port", str(port), "--block-time", str(block_seconds), "--slots-in-an-epoch", "1", "--silent"]
    process = subprocess.Popen(command)
    try:
        anvil = Anvil(f"http://127.0.0.1:{port}", process)
        wait_until(lambda: answers(anvil), what="anvil to answer")
        yield anvil
    finally:
        process.terminate()
        process.wait(10)


def answers(anvil: Anvil) -> bool:
    if anvil.process.poll() is not None:
        raise RuntimeError(f"anvil ended with status {anvil.process.returncode}")
    try:
        return anvil.ask("eth_chainId") == hex(CHAIN_ID)
    except httpx.TransportError:
        return False


def anvil_binary() -> str:
    """Raises RuntimeError when it is not installed: a chain test that is passed over proves nothing."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name = f"anvil-{platform.system().lower()}-{machine}"
    installed = ROOT / "contracts" / "node_modules" / "@foundry-rs" / name / "bin" / "anvil"
    found = os.environ.get("ANVIL") or (str(installed) if installed.exists() else shutil.which("anvil"))
    if not found:
        raise RuntimeError("anvil is missing: run `npm ci --ignore-scripts` in contracts/")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(fact: Callable[[], Any], *, what: str, seconds: float = 30) -> None:
    """Wait for a fact, not for a time. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def chain_settings(anvil: Anvil, folder: Path, **changes: Any) -> Settings:
    """The settings in use, on this chain. `folder` holds deployment.json."""
    return Settings(
        **{
            "state_dir": settings.HYPERGPU.state_dir,
            "rpc_urls": [anvil.url],
            "chain_id": CHAIN_ID,
            "deployment_file": folder / "deployment.json",
            **changes,
        }
    )


def deployed(anvil: Anvil, folder: Path, **changes: Any) -> Settings:
    """Settings with the contracts deployed, admin and senders funded, and the test attestors in the first epoch."""
    env = chain_settings(anvil, folder, **changes)
    for key in (env.admin_key, *env.sender_keys):
        anvil.fund(Account.from_key(key.get_secret_value()).address)
    keys = [SecretStr(test_key(name)) for name in ATTESTORS]
    admitted = tuple(Account.from_key(key.get_secret_value()).address for key in keys)
    with override_settings(HYPERGPU=env):
        deploy(terms=default_terms(ANVIL, min_stake=MIN_STAKE, admitted=admitted))
        join_attestors(keys)
    return chain_settings(anvil, folder, **changes)


def mint(anvil: Anvil, key: str, amount: int, *, spender: str = "") -> None:
    """Test money for a wallet, approved for `spender` when one is named; amounts in base units."""
    send(key, "mint", [Account.from_key(key).address, amount], contract="token", wait_final=False)
    if spender:
        send(key, "approve", [spender, amount], contract="token", wait_final=False)


__all__ = ["Anvil", "chain_settings", "deployed", "mint", "start_anvil", "test_key", "wait_until"]
