"""The market's contracts as anyone sees them from outside: calls, transactions, final logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eth_account.signers.local import LocalAccount
from web3 import HTTPProvider, Web3
from web3.contract.contract import ContractFunction

from scripts.hypergpu_demo.supervise import StackError

ABI = Path(__file__).parents[2] / "contracts" / "abi"
GAS = 1_000_000
"""Enough for any call here; on the local test chain gas is free."""


class Onchain:
    def __init__(self, rpc_url: str, deployment: dict[str, Any]) -> None:
        self.web3 = Web3(HTTPProvider(rpc_url, request_kwargs={"timeout": 10}))
        self.chain_id: int = deployment["chainId"]
        self.first_block: int = deployment["block"]
        self.market = self.contract("ComputeMarket", deployment["market"])
        self.token = self.contract("TestUSD", deployment["token"])

    def contract(self, name: str, address: str) -> Any:
        abi = json.loads((ABI / f"{name}.json").read_text())["abi"]
        return self.web3.eth.contract(address=Web3.to_checksum_address(address), abi=abi)

    def send(self, wallet: LocalAccount, *calls: ContractFunction) -> None:
        """Sign and send `calls` in this order and wait until each is included. Raises StackError when one is refused."""
        nonce = self.web3.eth.get_transaction_count(wallet.address)
        hashes = []
        for offset, call in enumerate(calls):
            terms: Any = {"from": wallet.address, "nonce": nonce + offset, "gas": GAS, "chainId": self.chain_id}
            transaction: Any = call.build_transaction(terms | {"maxFeePerGas": 10**10, "maxPriorityFeePerGas": 0})
            hashes.append(self.web3.eth.send_raw_transaction(wallet.sign_transaction(transaction).raw_transaction))
        for call, transaction_hash in zip(calls, hashes, strict=True):
            receipt = self.web3.eth.wait_for_transaction_receipt(transaction_hash, timeout=30, poll_latency=0.05)
            if receipt["status"] != 1:
                raise StackError(f"The chain refused {call.fn_name} of {wallet.address} in {transaction_hash.to_0x_hex()}.")

    def final_logs(self, event: str, **arguments: Any) -> Sequence[Any]:
        """Logs of one event of the market that can no longer change."""
        logs: Sequence[Any] = getattr(self.market.events, event)().get_logs(
            from_block=self.first_block, to_block="finalized", argument_filters=arguments
        )
        return logs
