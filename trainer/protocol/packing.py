"""Receipts as `settleRound` reads them: 111 bytes each, big endian, one behind the other.

nodeId uint32 | units uint64 | quality uint16 | artifact bytes32 | r bytes32 | s bytes32 | v uint8
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from eth_utils import keccak

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import QUALITY_ONE

LAYOUT = struct.Struct(">IQH32s65s")
PACKED_BYTES = LAYOUT.size


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledReceipt:
    """One line of a batch: a node's receipt with the quality that attestors vouch for (basis points)."""

    node_id: int
    units: int
    quality: int
    artifact: str
    signature: str


def pack_receipts(receipts: Sequence[SettledReceipt]) -> bytes:
    """Concatenated packed receipts. Raises HyperGPUError `packing.out_of_range` when a value does not fit."""
    return b"".join(pack_receipt(receipt) for receipt in receipts)


def pack_receipt(receipt: SettledReceipt) -> bytes:
    signature = bytes.fromhex(receipt.signature.removeprefix("0x"))
    artifact = bytes.fromhex(receipt.artifact.removeprefix("0x"))
    if len(signature) != 65 or len(artifact) != 32 or not 0 <= receipt.quality <= QUALITY_ONE:
        raise HyperGPUError("packing.out_of_range", f"Receipt of node {receipt.node_id} does not fit 111 bytes.")
    try:
        return LAYOUT.pack(receipt.node_id, receipt.units, receipt.quality, artifact, signature)
    except struct.error as error:
        raise HyperGPUError("packing.out_of_range", f"Receipt of node {receipt.node_id}: {error}") from error


def unpack_receipts(packed: bytes) -> list[SettledReceipt]:
    """The inverse of `pack_receipts`. Raises HyperGPUError `packing.bad_length` for a torn batch."""
    if len(packed) % PACKED_BYTES:
        raise HyperGPUError("packing.bad_length", f"{len(packed)} bytes are not whole receipts of {PACKED_BYTES}.")
    return [
        SettledReceipt(
            node_id=node_id, units=units, quality=quality, artifact="0x" + artifact.hex(), signature="0x" + signature.hex()
        )
        for node_id, units, quality, artifact, signature in LAYOUT.iter_unpack(packed)
    ]


def receipts_hash(packed: bytes) -> str:
    """keccak256 of the packed batch, as attestors sign it."""
    return "0x" + keccak(packed).hex()


def reward(*, units: int, rate: int, quality: int) -> int:
    """Base units owed for a receipt: units * rate * quality / 10,000, rounded down (as the contract computes it)."""
    return units * rate * quality // QUALITY_ONE
