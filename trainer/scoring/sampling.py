"""Which contributions are audited, and where: chance decides, after the commitments, and nobody chooses it."""

from __future__ import annotations

import hashlib

from trainer.diloco.trace import borders
from trainer.protocol.spec import AuditSpec


def segments_to_audit(spec: AuditSpec, *, seed: str, node_id: int, rounds: int, steps: int) -> list[int]:
    """Segments of a contribution of `steps` that are audited: none for most. `seed` must be unknown until the commitments are
    in, and nobody's choice; `rounds` are those of the job that the node has behind it."""
    rate = spec.newcomer_rate if rounds < spec.newcomer_rounds else spec.rate
    if chance(seed, node_id, "audit") >= rate:
        return []
    count = len(borders(steps, spec.stride)) - 1
    order = sorted(range(count), key=lambda segment: chance(seed, node_id, f"segment:{segment}"))
    return sorted(order[: spec.segments])


def chance(*of: object) -> float:
    """Uniform in [0, 1), the same for everybody."""
    digest = hashlib.sha256(":".join(str(part) for part in of).encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
