"""One transaction of a stranger's: tried first, then sent until a final block holds it."""

from __future__ import annotations

import time
from typing import Any

from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from trainer.ledger.abi import hexed, revert_reason
from trainer.ledger.rpc import Call, Fault, Rpc, block_call, number, parse_block
from trainer.protocol.errors import HyperGPUError

TIP_WEI = 2 * 10**9
"""Monad's nodes suggest as much."""
GAS_MARGIN_PERCENT = 5
"""Monad charges the limit, so little; its estimate ends within 1.5 % of what is needed."""
POLL_SECONDS = 0.3
REBROADCAST_SECONDS = 3
DEADLINE_SECONDS = 120


class Reverted(HyperGPUError):
    """The contract refuses the call; `reason` names its error."""

    def __init__(self, reason: str) -> None:
        super().__init__("settle.reverted", f"The market refuses: {reason}", reason=reason)
        self.reason = reason


def simulate(rpc: Rpc, *, sender: str, to: str, data: bytes) -> None:
    """Raises Reverted when the call would fail now, HyperGPUError `rpc.refused` when the node does not say."""
    call = {"from": sender, "to": to, "data": hexed(data)}
    answered(rpc.answers([("eth_call", [call, "latest"])])[0])


def send(rpc: Rpc, account: LocalAccount, *, chain_id: int, to: str, data: bytes) -> dict[str, Any]:
    """The receipt (raw JSON) in a final block. Raises Reverted, HyperGPUError `settle.timeout`, and those of Rpc."""
    call = {"from": account.address, "to": to, "data": hexed(data)}
    latest, nonce, gas = rpc.answers(
        [block_call("latest"), ("eth_getTransactionCount", [account.address, "pending"]), ("eth_estimateGas", [call])]
    )
    needed = number(answered(gas))
    base_fee = rpc.blocks(["latest"])[0].base_fee if isinstance(latest, Fault) else number(latest.get("baseFeePerGas") or "0x0")
    transaction: dict[str, Any] = {
        "type": 2, "chainId": chain_id, "nonce": number(answered(nonce)), "to": to, "value": 0, "data": hexed(data),
        "gas": needed + needed * GAS_MARGIN_PERCENT // 100, "maxFeePerGas": 2 * base_fee + TIP_WEI,
        "maxPriorityFeePerGas": TIP_WEI,
    }  # fmt: skip
    raw = bytes(account.sign_transaction(transaction).raw_transaction)
    receipt = wait_until_final(rpc, raw)
    if receipt["status"] != "0x1":
        simulate(rpc, sender=account.address, to=to, data=data)
        raise Reverted(f"transaction {receipt['transactionHash']} failed in its block")
    return receipt


def wait_until_final(rpc: Rpc, raw: bytes) -> dict[str, Any]:
    """Send the same bytes until a final block holds them: nodes forget transactions, and no global pool keeps them."""
    tx, deadline, next_send, refusal = hexed(keccak(raw)), time.monotonic() + DEADLINE_SECONDS, 0.0, ""
    while time.monotonic() < deadline:
        asked: list[Call] = [block_call("finalized"), ("eth_getTransactionReceipt", [tx])]
        finalized, receipt = rpc.read(*asked)
        head = parse_block(finalized)
        if receipt and head and number(receipt["blockNumber"]) <= head.number:
            return dict(receipt)
        if receipt is None and time.monotonic() >= next_send:
            sent = rpc.answers([("eth_sendRawTransaction", [hexed(raw)])])[0]
            next_send = time.monotonic() + REBROADCAST_SECONDS
            refusal = sent.message if isinstance(sent, Fault) else refusal
            if "funds" in refusal.lower() or "balance" in refusal.lower():
                raise HyperGPUError("settle.no_gas", f"The account cannot pay the gas: {refusal}")
        time.sleep(POLL_SECONDS)
    why = f" The node said: {refusal}." if refusal else ""
    raise HyperGPUError("settle.timeout", f"Transaction {tx} is in no final block after {DEADLINE_SECONDS} s.{why}", tx=tx)


def answered(answer: Any) -> Any:
    if not isinstance(answer, Fault):
        return answer
    if answer.data.startswith("0x") or "revert" in answer.message.lower():
        raise Reverted(revert_reason(answer.data))
    raise HyperGPUError("rpc.refused", f"The node refused: {answer.message}")
