"""A person's own wallet: one transaction, sent and waited for. For the demo and tests; the product's own go by the outbox."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from eth_utils.crypto import keccak
from pydantic import SecretStr

from marketplace.chain import abi
from marketplace.chain.fees import first_fee
from marketplace.chain.gas import with_room
from marketplace.chain.receipts import Receipt, parse_receipt
from marketplace.chain.rpc import FINALIZED, LATEST, Fault, block_call, number, parse_block, rpc
from marketplace.chain.services import contract_address, watched
from marketplace.chain.signer import KeySigner, Signer
from marketplace.chain.values import checksummed
from trainer.protocol.errors import HyperGPUError

POLL_SECONDS = 0.05
REBROADCAST_SECONDS = 1.5
DEADLINE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Sent:
    """A transaction that succeeded. `events` are those of our contracts, in order, as (name, args) with plain values."""

    tx_hash: str
    block: int
    gas_used: int
    contract: str | None
    events: list[tuple[str, dict[str, Any]]]

    def event(self, name: str) -> dict[str, Any]:
        """Arguments of the first event of that name. Raises KeyError when there is none."""
        for found, args in self.events:
            if found == name:
                return args
        raise KeyError(name)


def send(private_key: str, function: str, args: list[Any], *, contract: abi.Contract = "market", wait_final: bool = True) -> Sent:
    """Call a function from the wallet of `private_key`; return when the call is final (or in a block).

    Raises HyperGPUError `chain.reverted` with the contract's reason, `chain.refused`, `chain.timeout`, `chain.unreachable`.
    """
    signer = KeySigner(SecretStr(private_key), chain_id=settings.HYPERGPU.chain_id)
    return transact(signer, to=contract_address(contract), data=abi.encode_call(contract, function, args), wait_final=wait_final)


def transact(signer: Signer, *, to: str | None, data: str, wait_final: bool = True) -> Sent:
    """As `send`, with any calldata; `to` None creates a contract."""
    raw = "0x" + signer.sign_transaction(prepare(signer.address, to, data)).hex()
    receipt = wait_for_receipt(raw, "0x" + keccak(hexstr=raw).hex(), final=wait_final)
    if not receipt.succeeded:
        raise HyperGPUError("chain.reverted", f"Transaction {receipt.tx_hash} reverted in its block; try again to see why.")
    by_address = watched()
    ours = [(contract, log) for log in receipt.logs if (contract := by_address.get(checksummed(log["address"])))]
    decoded = [abi.decode_log(contract, log["topics"], log["data"]) for contract, log in ours]
    events = [event for event in decoded if event]
    return Sent(receipt.tx_hash, receipt.block, receipt.gas_used, receipt.contract, events)


def prepare(sender: str, to: str | None, data: str) -> dict[str, Any]:
    """An unsigned EIP-1559 transaction with a fitting nonce, fee and gas limit."""
    call = {"from": sender, "data": data} | ({"to": to} if to else {})
    latest, count, gas = rpc().answers(
        [block_call(LATEST), ("eth_getTransactionCount", [sender, "pending"]), ("eth_estimateGas", [call, LATEST])]
    )
    if isinstance(gas, Fault):
        reason = abi.decode_error(gas.data) if gas.data else gas.message
        raise HyperGPUError("chain.reverted" if gas.is_revert else "chain.refused", reason, reason=reason)
    block = None if isinstance(latest, Fault) else parse_block(latest)
    if block is None or isinstance(count, Fault):
        raise HyperGPUError("chain.refused", "The node does not say what the next block needs.")
    fee = first_fee(block.base_fee)
    return {
        "type": 2, "chainId": settings.HYPERGPU.chain_id, "nonce": number(count), "data": data, "value": 0,
        "gas": with_room(number(gas)), "maxFeePerGas": fee.max_fee, "maxPriorityFeePerGas": fee.priority,
    } | ({"to": to} if to else {})  # fmt: skip


def wait_for_receipt(raw: str, tx_hash: str, *, final: bool) -> Receipt:
    """Send the same bytes until a block has them: nodes forget transactions, and there is no global pool to keep them."""
    node, deadline, next_send, refusal = rpc(), time.monotonic() + DEADLINE_SECONDS, 0.0, ""
    while time.monotonic() < deadline:
        finalized, answer = node.read(block_call(FINALIZED), ("eth_getTransactionReceipt", [tx_hash]))
        head, receipt = parse_block(finalized), parse_receipt(answer)
        if receipt and (not final or (head and receipt.block <= head.number)):
            return receipt
        if receipt is None and time.monotonic() >= next_send:
            sent, next_send = node.answers([("eth_sendRawTransaction", [raw])])[0], time.monotonic() + REBROADCAST_SECONDS
            refusal = sent.message if isinstance(sent, Fault) else refusal
            if "funds" in refusal.lower():
                raise HyperGPUError("chain.refused", f"The wallet cannot pay the gas: {refusal}")
        time.sleep(POLL_SECONDS)
    why = f" The node said: {refusal}." if refusal else ""
    raise HyperGPUError(
        "chain.timeout", f"Transaction {tx_hash} is in no final block after {DEADLINE_SECONDS} s.{why}", tx_hash=tx_hash
    )
