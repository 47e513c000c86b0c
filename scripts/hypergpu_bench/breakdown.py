"""Where a transaction's gas goes, by kinds of opcode: what to look at before making it cheaper."""

from __future__ import annotations

from typing import Any

from scripts.hypergpu_bench import pricing
from scripts.hypergpu_bench.tracing import Trace

KINDS = {
    "arithmetic and comparison": range(0x01, 0x1F),
    "keccak256": range(0x20, 0x21),
    "calldata and environment": (*range(0x30, 0x31), *range(0x32, 0x3B), *range(0x3D, 0x3F), *range(0x40, 0x4B)),
    "memory": (0x51, 0x52, 0x53, 0x59, 0x5E),
    "transient storage": (0x5C, 0x5D),
    "jumps": (0x56, 0x57, 0x58, 0x5A, 0x5B),
    "stack": (0x50, *range(0x5F, 0xA0)),
    "events": range(0xA0, 0xA5),
    "storage": (0x54, 0x55),
    "calls and other accounts": (0x31, 0x3B, 0x3C, 0x3F, 0xF1, 0xF2, 0xF4, 0xFA),
    "end": (0x00, 0xF3),
}


def breakdown(trace: Trace, receipts: int) -> list[dict[str, Any]]:
    """Gas per receipt of each kind, by both price lists; the last line is the whole."""
    ethereum, monad = pricing.ethereum(trace), pricing.monad(trace)
    lines = [
        line("transaction", None, (ethereum.intrinsic, monad.intrinsic), receipts),
        line("calldata bytes", None, (ethereum.calldata, monad.calldata), receipts),
    ]
    for kind, codes in KINDS.items():
        count = sum(trace.ops.get(code, (0, 0))[0] for code in codes)
        charged = sum(trace.ops.get(code, (0, 0))[1] for code in codes)
        prices = {"storage": (ethereum.storage, monad.storage), "calls and other accounts": (ethereum.accounts, monad.accounts)}
        lines.append(line(kind, count, prices.get(kind, (charged, charged)), receipts))
    lines.append(line("refund", None, (ethereum.refund, 0), receipts))
    return [
        *(one for one in lines if one["ethereum"] or one["monad"]),
        line("all", None, (ethereum.total, monad.total), receipts),
    ]


def line(kind: str, count: int | None, gas: tuple[int, int], receipts: int) -> dict[str, Any]:
    per_receipt = [round(one / receipts, 1) for one in gas]
    steps = None if count is None else round(count / receipts, 1)
    return {"kind": kind, "steps": steps, "ethereum": per_receipt[0], "monad": per_receipt[1]}
