"""Audit evidence: what a node shows of its trace when one segment is audited, and the file in which it travels.

    header  "HGAE" | version u8 | 3 zero bytes | steps u32 | segment u32
    fields  length u32 | bytes: content and Merkle path of each of `PROVEN`, then the paths of `PATHS`

Little endian. A path is its hashes (32 bytes) one behind the other, from the leaf up.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from trainer.diloco.trace import (
    LEAD,
    Trace,
    error_leaf,
    is_at_base,
    lead_leaf,
    moments_leaf,
    movement_leaf,
    order_leaf,
)
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import BF16, evidence_limit, moments_bytes, movement_bytes
from trainer.protocol.merkle import merkle_path
from trainer.protocol.wire import encoded_bytes

HEADER = struct.Struct("<4sB3xII")
LENGTH = struct.Struct("<I")
MAGIC, VERSION = b"HGAE", 4
HASH = 32
LONGEST_PATH = 32
"""Hashes: more borders than an order can have steps."""
PROVEN = (
    "movement",
    "moments",
    "next_movement",
    "next_moments",
    "last_movement",
    "error",
    "lead",
    "first_moments",
    "before_movement",
)
PATHS = ("base", "order", "before_moments", "before_error")


class Proven(NamedTuple):
    """A leaf of a trace, as its content or (where that is known or does not matter) its hash, with its Merkle path."""

    content: bytes
    path: list[bytes]


NOTHING = Proven(b"", [])


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvidence:
    """What a node shows of the trace of an order in which it did `steps`. `first_moments` is a leaf's hash; of `base` (movement
    0), the order and two leaves of the order before, which follow from what is known, there are paths only (none: no such order).
    `before_movement`, the order before's last, is shown where this one went on from there (fragments in turn), else empty."""

    steps: int
    segment: int
    movement: Proven
    moments: Proven
    next_movement: Proven
    next_moments: Proven
    last_movement: Proven
    error: Proven
    lead: Proven
    first_moments: Proven
    before_movement: Proven
    base: list[bytes]
    order: list[bytes]
    before_moments: list[bytes]
    before_error: list[bytes]


def gather_evidence(trace: Trace, segment: int, *, before: Trace | None) -> AuditEvidence:
    """The node's answer to an audit of `segment`; `before` is its trace of the order before, unless it began afresh."""
    leaves, borders = trace.leaves(), len(trace.movements)

    def movement(border: int) -> Proven:
        return Proven(trace.movements[border], merkle_path(leaves, movement_leaf(border)))

    def moments(border: int) -> Proven:
        return Proven(trace.moments[border], merkle_path(leaves, moments_leaf(border)))

    def earlier(leaf: int) -> list[bytes]:
        return merkle_path(before.leaves(), leaf) if before else []

    ended = len(before.movements) if before else 0
    goes_on = not is_at_base(trace.movements[0])
    return AuditEvidence(
        steps=trace.steps, segment=segment,
        movement=movement(segment), moments=moments(segment), next_movement=movement(segment + 1),
        next_moments=moments(segment + 1), last_movement=movement(borders - 1),
        error=Proven(trace.error_before, merkle_path(leaves, error_leaf(borders))),
        lead=Proven(trace.lead, merkle_path(leaves, lead_leaf(borders))),
        first_moments=Proven(leaves[moments_leaf(0)], merkle_path(leaves, moments_leaf(0))),
        before_movement=Proven(before.movements[-1], earlier(movement_leaf(ended - 1))) if before and goes_on else NOTHING,
        base=merkle_path(leaves, movement_leaf(0)), order=merkle_path(leaves, order_leaf(borders)),
        before_moments=earlier(moments_leaf(ended - 1)), before_error=earlier(error_leaf(ended) + 1),
    )  # fmt: skip


def write_evidence(evidence: AuditEvidence) -> bytes:
    fields: list[bytes] = []
    for name in PROVEN:
        part: Proven = getattr(evidence, name)
        fields += [part.content, b"".join(part.path)]
    fields += [b"".join(getattr(evidence, name)) for name in PATHS]
    head = HEADER.pack(MAGIC, VERSION, evidence.steps, evidence.segment)
    return head + b"".join(LENGTH.pack(len(content)) + content for content in fields)


def read_evidence(data: bytes, *, count: int) -> AuditEvidence:
    """Evidence about a model of `count` parameters, which a stranger may have written. Raises HyperGPUError `audit.malformed`."""
    if len(data) > evidence_limit(count) or len(data) < HEADER.size:
        raise malformed(f"{len(data)} bytes are not between {HEADER.size} and {evidence_limit(count)}.")
    _, _, steps, segment = HEADER.unpack_from(data)
    if data[: HEADER.size] != HEADER.pack(MAGIC, VERSION, steps, segment):
        raise malformed("The header is of something else.")
    fields = read_fields(data)
    if len(fields) != 2 * len(PROVEN) + len(PATHS):
        raise malformed(f"It has {len(fields)} fields.")
    proven = {}
    for at, name in enumerate(PROVEN):
        content = fields[2 * at]
        if len(content) not in sizes(name, count):
            raise malformed(f"{name} has {len(content)} bytes.")
        proven[name] = Proven(content, hashes(fields[2 * at + 1]))
    paths = {name: hashes(path) for name, path in zip(PATHS, fields[2 * len(PROVEN) :], strict=True)}
    return AuditEvidence(steps=steps, segment=segment, **proven, **paths)  # type: ignore[arg-type]


def read_fields(data: bytes) -> list[bytes]:
    fields, at = [], HEADER.size
    while at < len(data):
        if at + LENGTH.size > len(data):
            raise malformed("It ends within a length.")
        start = at + LENGTH.size
        at = start + LENGTH.unpack_from(data, at)[0]
        if at > len(data):
            raise malformed("A field is longer than the file.")
        fields.append(data[start:at])
    return fields


def sizes(name: str, count: int) -> tuple[int, ...]:
    """Lengths that the content of a field may have."""
    if name == "error":
        return (0, encoded_bytes(count, BF16))
    if name == "lead":
        return (0, LEAD.size)
    if name == "before_movement":
        return (0, movement_bytes(count))
    if name == "first_moments":
        return (HASH,)
    return (movement_bytes(count) if name.endswith("movement") else moments_bytes(count),)


def hashes(path: bytes) -> list[bytes]:
    if len(path) % HASH or len(path) > LONGEST_PATH * HASH:
        raise malformed(f"A Merkle path has {len(path)} bytes.")
    return [path[at : at + HASH] for at in range(0, len(path), HASH)]


def malformed(message: str) -> HyperGPUError:
    return HyperGPUError("audit.malformed", f"This is no audit evidence: {message}")
