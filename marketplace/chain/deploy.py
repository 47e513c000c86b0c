"""Puts the contracts on a chain and writes down where they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from marketplace.chain import abi
from marketplace.chain.rpc import rpc
from marketplace.chain.signer import MONAD_MAINNET, KeySigner
from marketplace.chain.values import checksummed
from marketplace.chain.wallet import Sent, transact
from trainer.protocol.errors import HyperGPUError


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """Constructor arguments of the market that people choose. Amounts in token base units, times in seconds."""

    min_stake: int
    attestors: list[str]
    quorum: int
    exit_notice: int
    unbonding_time: int


def deploy(*, terms: Terms, token: str = "") -> tuple[dict[str, Any], bool]:
    """The deployment, and whether it is new. With a deployment file whose code is on the chain, nothing happens.

    A test token is deployed too unless `token` names one. The admin key of the settings pays, and becomes the admin.
    Raises HyperGPUError `chain.deployment_lost`, `chain.no_token`, `chain.no_code`, and those of `wallet.transact`.
    """
    path = settings.HYPERGPU.deployment_path
    if path.exists():
        return existing_deployment(path), False
    if not token and settings.HYPERGPU.chain_id == MONAD_MAINNET:
        raise HyperGPUError("chain.no_token", "On mainnet name the token that pays (--token); the test token mints to anyone.")
    signer = KeySigner(settings.HYPERGPU.admin_key, chain_id=settings.HYPERGPU.chain_id)
    transactions = {}
    if not token:
        created = create(signer, "token", [])
        token, transactions["token"] = str(created.contract), created.tx_hash
    require_code(token)
    arguments = [
        token, terms.min_stake, signer.address, terms.attestors, terms.quorum, terms.exit_notice, terms.unbonding_time
    ]  # fmt: skip
    created = create(signer, "market", arguments)
    transactions["market"] = created.tx_hash
    deployment = {
        "chainId": settings.HYPERGPU.chain_id, "market": created.contract, "token": token, "block": created.block,
        "deployer": signer.address, "transactions": transactions, "constructor": arguments,
        "minStake": str(terms.min_stake), "exitNotice": terms.exit_notice, "unbondingTime": terms.unbonding_time,
        "tokenInfo": {name: token_view(token, name) for name in ("name", "symbol", "decimals")},
    }  # fmt: skip
    write(path, deployment)
    return deployment, True


def existing_deployment(path: Path) -> dict[str, Any]:
    deployment: dict[str, Any] = json.loads(path.read_text("utf-8"))
    there = deployment["chainId"] == settings.HYPERGPU.chain_id
    if not there or rpc().ask("eth_getCode", deployment["market"], "latest") == "0x":
        raise HyperGPUError(
            "chain.deployment_lost",
            f"{path} names a market at {deployment['market']} on chain {deployment['chainId']}, and this chain has none there. "
            "If the chain was reset, begin with an empty state folder and database; else correct HYPERGPU_RPC_URL or "
            "HYPERGPU_DEPLOYMENT_FILE.",
        )
    return deployment


def create(signer: KeySigner, contract: abi.Contract, arguments: list[Any]) -> Sent:
    """Deploy one contract and wait until it is final, so that no reorganisation can move it."""
    sent = transact(signer, to=None, data=abi.encode_constructor(contract, arguments))
    require_code(str(sent.contract))
    return Sent(sent.tx_hash, sent.block, sent.gas_used, checksummed(str(sent.contract)), sent.events)


def token_view(token: str, function: str) -> Any:
    answer = rpc().ask("eth_call", {"to": token, "data": abi.encode_call("token", function, [])}, "latest")
    return abi.decode_result("token", function, answer)


def require_code(address: str) -> None:
    if rpc().ask("eth_getCode", address, "latest") == "0x":
        raise HyperGPUError("chain.no_code", f"There is no contract at {address}.")


def write(path: Path, deployment: dict[str, Any]) -> None:
    """Whole or not at all: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(deployment, indent=2) + "\n", "utf-8")
    partial.replace(path)
