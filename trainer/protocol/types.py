"""The messages that parties sign. Field names and order are the EIP-712 types, so one table serves hashing and storage.

Amounts are token base units; `rate` is base units per unit; a unit is one training sample (one sequence for text);
`quality` is in basis points, 0 to 10,000; times are unix seconds; hashes are 32 bytes as 0x-prefixed hex.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

QUALITY_ONE = 10_000
"""Quality of work that is paid in full, in basis points."""

JOB_ANY = 0
"""Job id of a standing bid: good for any job whose most covers its rate."""


class Message:
    """Base of the signed messages: `FIELDS` maps each field, in order, to its Solidity type."""

    FIELDS: ClassVar[dict[str, str]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegation(Message):
    """An operator's wallet lets a hot key sign receipts and requests for a node until `expires_at`."""

    operator: str
    hot_key: str
    expires_at: int
    nonce: int

    FIELDS: ClassVar[dict[str, str]] = {"operator": "address", "hotKey": "address", "expiresAt": "uint64", "nonce": "uint64"}


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderEnvelope(Message):
    """What the coordinator signs for one work order; `body` is the SHA-256 of the order's canonical JSON."""

    job_id: int
    round: int
    node_id: int
    fence: int
    deadline: int
    base: str
    body: str

    FIELDS: ClassVar[dict[str, str]] = {
        "jobId": "uint256", "round": "uint64", "nodeId": "uint32", "fence": "uint64", "deadline": "uint64",
        "base": "bytes32", "body": "bytes32",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt(Message):
    """A node's signed claim: from `base` it did `units` samples of `round` and the result is `artifact` (SHA-256)."""

    job_id: int
    round: int
    node_id: int
    units: int
    base: str
    artifact: str

    FIELDS: ClassVar[dict[str, str]] = {
        "jobId": "uint256", "round": "uint64", "nodeId": "uint32", "units": "uint64", "base": "bytes32", "artifact": "bytes32",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundAttestation(Message):
    """What every attestor of a batch signs before any shows its scores: `receipts` is keccak256 of the packed receipts,
    `evidence` the SHA-256 of the public document from which the scores can be recomputed, `commitments` the hash of the
    list of all attestors' commitments (`packing.commitments_hash`), `epoch` that of the attestor set."""

    job_id: int
    round: int
    batch: int
    last: bool
    epoch: int
    base: str
    receipts: str
    evidence: str
    commitments: str

    FIELDS: ClassVar[dict[str, str]] = {
        "jobId": "uint256", "round": "uint64", "batch": "uint32", "last": "bool", "epoch": "uint32", "base": "bytes32",
        "receipts": "bytes32", "evidence": "bytes32", "commitments": "bytes32",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class JobClosure(Message):
    """Attestors of `epoch` vouch that a job ended after `rounds` settled rounds and `spent` base units: the rest is
    refunded."""

    job_id: int
    rounds: int
    spent: int
    epoch: int

    FIELDS: ClassVar[dict[str, str]] = {"jobId": "uint256", "rounds": "uint64", "spent": "uint128", "epoch": "uint32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance(Message):
    """A requester makes a settled round final at once; `digest` is the market's record of it, 26 bytes and six zeros."""

    job_id: int
    round: int
    digest: str

    FIELDS: ClassVar[dict[str, str]] = {"jobId": "uint256", "round": "uint64", "digest": "bytes32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawal(Message):
    """An operator's wallet lets anyone pay out `amount` of a node's credit: `fee` to whoever brings it, the rest to `to`."""

    node_id: int
    to: str
    amount: int
    fee: int
    nonce: int
    deadline: int

    FIELDS: ClassVar[dict[str, str]] = {
        "nodeId": "uint32", "to": "address", "amount": "uint128", "fee": "uint128", "nonce": "uint64", "deadline": "uint64",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Bid(Message):
    """An operator's wallet offers a node at `rate`, for at most `capacity` units a round. `job_id` 0 stands for any job."""

    job_id: int
    node_id: int
    rate: int
    capacity: int
    expires_at: int
    nonce: int

    FIELDS: ClassVar[dict[str, str]] = {
        "jobId": "uint256", "nodeId": "uint32", "rate": "uint128", "capacity": "uint64", "expiresAt": "uint64", "nonce": "uint64",
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Seating(Message):
    """The coordinator, or the job's requester, lets bids take seats, each for at most `max_units` units a round. `bids` is
    keccak256 of the bids' concatenated struct hashes (`eip712.seating`)."""

    job_id: int
    max_units: int
    bids: str

    FIELDS: ClassVar[dict[str, str]] = {"jobId": "uint256", "maxUnits": "uint48", "bids": "bytes32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class AttestorKey(Message):
    """An attestor's worker lets `owner` bond for its key; signed in the registry's own domain (`eip712.REGISTRY`)."""

    owner: str
    signer: str

    FIELDS: ClassVar[dict[str, str]] = {"owner": "address", "signer": "address"}
