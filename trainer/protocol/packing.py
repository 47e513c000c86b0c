"""Receipts, scores and commitments as `settleRound` reads them: big endian, one behind the other.

A packed receipt is 109 bytes: nodeId uint32 | units uint64 | artifact bytes32 | r bytes32 | s bytes32 | v uint8.
Scores and qualities are one uint16 (basis points) for each receipt, in the receipts' order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eth_utils import keccak

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.types import QUALITY_ONE

LAYOUT = struct.Struct(">IQ32s65s")
PACKED_BYTES = LAYOUT.size


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedReceipt:
    """One line of a batch: what a node signed, without what the whole batch shares (job, round, base)."""

    node_id: int
    units: int
    artifact: str
    signature: str


def pack_receipts(receipts: Sequence[PackedReceipt]) -> bytes:
    """Concatenated packed receipts. Raises HyperGPUError `packing.out_of_range` when a value does not fit."""
    return b"".join(pack_receipt(receipt) for receipt in receipts)


def pack_receipt(receipt: PackedReceipt) -> bytes:
    signature = bytes.fromhex(receipt.signature.removeprefix("0x"))
    artifact = bytes.fromhex(receipt.artifact.removeprefix("0x"))
    if len(signature) != 65 or len(artifact) != 32:
        raise HyperGPUError("packing.out_of_range", f"Receipt of node {receipt.node_id} does not fit {PACKED_BYTES} bytes.")
    try:
        return LAYOUT.pack(receipt.node_id, receipt.units, artifact, signature)
    except struct.error as error:
        raise HyperGPUError("packing.out_of_range", f"Receipt of node {receipt.node_id}: {error}") from error


def unpack_receipts(packed: bytes) -> list[PackedReceipt]:
    """The inverse of `pack_receipts`. Raises HyperGPUError `packing.bad_length` for a torn batch."""
    if len(packed) % PACKED_BYTES:
        raise HyperGPUError("packing.bad_length", f"{len(packed)} bytes are not whole receipts of {PACKED_BYTES}.")
    return [
        PackedReceipt(node_id=node_id, units=units, artifact="0x" + artifact.hex(), signature="0x" + signature.hex())
        for node_id, units, artifact, signature in LAYOUT.iter_unpack(packed)
    ]


def receipts_hash(packed: bytes) -> str:
    """keccak256 of the packed batch, as attestors sign it."""
    return "0x" + keccak(packed).hex()


def pack_scores(scores: Sequence[int]) -> bytes:
    """Raises HyperGPUError `packing.out_of_range` for a score outside 0 to 10,000."""
    if not all(0 <= score <= QUALITY_ONE for score in scores):
        raise HyperGPUError("packing.out_of_range", f"A score is 0 to {QUALITY_ONE} basis points: {list(scores)}")
    return struct.pack(f">{len(scores)}H", *scores)


def unpack_scores(packed: bytes) -> list[int]:
    """Raises HyperGPUError `packing.bad_length`."""
    if len(packed) % 2:
        raise HyperGPUError("packing.bad_length", f"{len(packed)} bytes are not whole scores of 2.")
    return list(struct.unpack(f">{len(packed) // 2}H", packed))


def commitment(*, attestor: str, salt: bytes, scores: bytes) -> str:
    """What an attestor gives before it shows its packed `scores`: keccak256(attestor || salt || scores)."""
    return "0x" + keccak(bytes.fromhex(attestor[2:]) + salt + scores).hex()


def commitments_hash(commitments: Mapping[int, str]) -> str:
    """keccak256 over (uint8 member || bytes32 commitment) for each member of the attestor set, by increasing member."""
    listed = (bytes([member]) + bytes.fromhex(commitments[member][2:]) for member in sorted(commitments))
    return "0x" + keccak(b"".join(listed)).hex()


def median_quality(scores: Sequence[int]) -> int:
    """The lower median: with two attestors the lower score, with three the middle one."""
    return sorted(scores)[(len(scores) - 1) // 2]


def reward(*, units: int, rate: int, quality: int) -> int:
    """Base units owed for a receipt: units * rate * quality / 10,000, rounded down (as the contract computes it)."""
    return units * rate * quality // QUALITY_ONE
