"""Whose work is replayed, and which part of it: drawn by the hash of a block that nobody knew when the work was handed in.

The block is the one `DELAY` after that in which the round was settled: fixed by the chain, so neither operator nor coordinator
chooses it, and anybody with the chain's history can draw again, for every receipt, and ask where an audit is missing. Whoever
produces that block could give it up for another draw, at the price of a block.
"""

from __future__ import annotations

import hashlib

from trainer.protocol.spec import AuditSpec

DELAY = 2
"""Blocks from the settlement of a round's last batch to the block that draws its audits."""


def audit_digest(*, block_hash: str, market: str, job_id: int, round: int, node_id: int) -> bytes:
    """32 bytes: SHA-256 over block hash (32 bytes), market address (20), job (uint256), round (uint64) and node id (uint32), big
    endian. The first two are 0x-hex, `job_id` is the chain's number."""
    place = job_id.to_bytes(32) + round.to_bytes(8) + node_id.to_bytes(4)
    return hashlib.sha256(bytes.fromhex(block_hash[2:]) + bytes.fromhex(market[2:]) + place).digest()


def audit_rate(spec: AuditSpec, *, rounds: int, late: bool = False) -> float:
    """The chance with which work is audited of a node that was paid for `rounds` earlier rounds of the job. `late` work has a
    newcomer's: its scores tell less, and when it is committed the others' work of its round is public."""
    return spec.newcomer_rate if rounds < spec.newcomer_rounds else max(spec.rate, spec.newcomer_rate if late else 0.0)


def drawn_segments(digest: bytes, spec: AuditSpec, *, steps: int, rate: float) -> list[int]:
    """The segments of a contribution of `steps` local steps that are replayed, ascending; none if it is not audited.

    Its first 8 bytes, as a part of 2**64, are held against the rate. Each segment gets a ticket, SHA-256 over digest and number
    (uint32), and the lowest win.
    """
    if int.from_bytes(digest[:8]) >= int(rate * 2**64):
        return []
    tickets = sorted((hashlib.sha256(digest + number.to_bytes(4)).digest(), number) for number in range(count_of(spec, steps)))
    return sorted(number for _, number in tickets[: spec.segments])


def count_of(spec: AuditSpec, steps: int) -> int:
    """Segments of a contribution: the last one may be short."""
    return -(-steps // spec.stride)
