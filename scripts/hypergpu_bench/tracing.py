"""What a transaction executed, as much of it as has a price of its own, from anvil's debug_traceTransaction.

A full opcode trace of a thousand receipts is gigabytes. The tracer below runs inside the node: it adds the gas of each
opcode up, and keeps single steps only where chains disagree on the price: storage, other accounts, precompiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scripts.hypergpu_bench.chain import Chain, Mined

TRACER = """{
  ops: {}, storage: [], accounts: [], frames: [], start: -1, end: -1, reverted: 0,
  close: function(frame, gas) {            // the step before, in this frame, cost what is missing since
    var cost = frame.gas - gas - frame.inner, op = this.ops[frame.op] || (this.ops[frame.op] = [0, 0]);
    op[0] += 1; op[1] += cost;
    if (frame.kept) frame.kept.push(cost);
    return cost;
  },
  step: function(log, db) {
    var depth = log.getDepth(), gas = log.getGas(), code = log.op.toNumber();
    if (this.start < 0) this.start = gas;
    while (this.frames.length > depth) {   // a call came back
      var done = this.frames.pop(); this.ended(done);
    }
    if (this.frames.length < depth) this.frames.push({gas: gas, op: -1, inner: 0, first: gas, kept: null});
    var frame = this.frames[depth - 1];
    if (frame.op >= 0) this.close(frame, gas);
    frame.gas = gas; frame.op = code; frame.inner = 0; frame.kept = null;
    if (code == 0x54 || code == 0x55) {
      var value = code == 0x55 ? log.stack.peek(1).toString(16) : "";
      frame.kept = [code, toHex(log.contract.getAddress()), log.stack.peek(0).toString(16), value];
      this.storage.push(frame.kept);
    } else if (code == 0x31 || code == 0x3b || code == 0x3c || code == 0x3f) {
      frame.kept = [code, log.stack.peek(0).toString(16)];
      this.accounts.push(frame.kept);
    } else if (code == 0xf1 || code == 0xf2 || code == 0xf4 || code == 0xfa) {
      frame.kept = [code, log.stack.peek(1).toString(16)];
      this.accounts.push(frame.kept);
    } else if (code == 0xfd || code == 0xfe || code == 0xf0 || code == 0xf5 || code == 0xff) this.reverted += 1;
  },
  ended: function(frame) {                 // its last step (STOP or RETURN into memory that is there) costs nothing
    this.close(frame, frame.gas - frame.inner);
    if (this.frames.length) this.frames[this.frames.length - 1].inner += frame.first - frame.gas;
    else this.end = frame.gas;
  },
  fault: function() { this.reverted += 1; },
  result: function() {
    while (this.frames.length) this.ended(this.frames.pop());
    return {used: this.start - this.end, ops: this.ops, storage: this.storage, accounts: this.accounts, unpriced: this.reverted};
  }
}"""


@dataclass(frozen=True, slots=True)
class StorageStep:
    """An SLOAD, or an SSTORE with its values; `cost` is what the node charged."""

    write: bool
    slot: tuple[str, int]
    new: int
    cost: int


@dataclass(frozen=True, slots=True)
class AccountStep:
    """A call or another look at an account; `cost` without what the callee used, but with a precompile's own."""

    code: int
    account: int
    cost: int


@dataclass(frozen=True, slots=True)
class Trace:
    """`execution` is all gas but the intrinsic; `ops` gives for each opcode how often it ran and what it cost in sum;
    `before` holds storage as the transaction found it (absent: zero)."""

    calldata: bytes
    sender: int
    to: int
    execution: int
    ops: dict[int, tuple[int, int]]
    storage: list[StorageStep]
    accounts: list[AccountStep]
    before: dict[tuple[str, int], int]


def trace(chain: Chain, mined: Mined) -> Trace:
    """Raises ValueError for what the prices here do not cover: reverted calls, creations."""
    found = chain.ask("debug_traceTransaction", mined.tx_hash, {"tracer": TRACER, "timeout": "600s"})
    if found["unpriced"]:
        raise ValueError("a transaction with reverted calls or creations is not priced here")
    transaction = chain.ask("eth_getTransactionByHash", mined.tx_hash)
    state: dict[str, Any] = chain.ask("debug_traceTransaction", mined.tx_hash, {"tracer": "prestateTracer"})
    return Trace(
        calldata=mined.calldata,
        sender=int(transaction["from"], 16),
        to=int(transaction["to"], 16),
        execution=int(found["used"]),
        ops={int(code): (int(count), int(cost)) for code, (count, cost) in found["ops"].items()},
        storage=[
            StorageStep(code == 0x55, (address.lower(), int(slot, 16)), int(new or "0", 16), int(cost))
            for code, address, slot, new, cost in found["storage"]
        ],
        accounts=[AccountStep(int(code), int(account, 16) % (1 << 160), int(cost)) for code, account, cost in found["accounts"]],
        before={
            (address.lower(), int(slot, 16)): int(value, 16)
            for address, account in state.items()
            for slot, value in account.get("storage", {}).items()
        },
    )
