"""A batch as it goes into `settleRound`: from a transaction's calldata, from the coordinator's bundle, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from trainer.ledger.abi import UNREADABLE, hexed, unhex
from trainer.protocol.errors import HyperGPUError

HEADER = "(uint256,uint64,uint32,bool,uint32,bytes32,bytes32)"
ATTESTATION = "(uint8,bytes32,bytes,bytes)"
SETTLE_ROUND = [HEADER, "bytes", f"{ATTESTATION}[]"]
SETTLE_ROUND_SELECTOR = keccak(text=f"settleRound({','.join(SETTLE_ROUND)})")[:4]
MULTICALL_SELECTOR = keccak(text="multicall(bytes[])")[:4]


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the attestors sign, but for the hashes; `base` and `evidence` are 0x-hex."""

    job_id: int
    round: int
    batch: int
    last: bool
    epoch: int
    base: str
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Attestation:
    """One attestor's part. Of one that did not open, `salt` is its commitment, `scores` and `signature` are empty."""

    member: int
    salt: bytes
    scores: bytes
    signature: bytes

    @property
    def opened(self) -> bool:
        return bool(self.signature)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """`receipts` are packed (trainer.protocol.packing)."""

    header: Header
    receipts: bytes
    attestations: tuple[Attestation, ...]

    def calldata(self) -> bytes:
        """The call of `settleRound`."""
        head = self.header
        header = (head.job_id, head.round, head.batch, head.last, head.epoch, unhex(head.base), unhex(head.evidence))
        parts = [(part.member, part.salt, part.scores, part.signature) for part in self.attestations]
        return SETTLE_ROUND_SELECTOR + encode(SETTLE_ROUND, [header, self.receipts, parts])


def batches_of_calldata(calldata: bytes) -> list[Batch]:
    """Every `settleRound` in a call of the market, also inside its `multicall`, however deep; none for any other call."""
    waiting, found = [calldata], []
    while waiting:
        selector, body = waiting[0][:4], waiting.pop(0)[4:]
        try:
            if selector == MULTICALL_SELECTOR:
                waiting[:0] = decode(["bytes[]"], body)[0]
            elif selector == SETTLE_ROUND_SELECTOR:
                found.append(decoded_batch(body))
        except UNREADABLE:
            continue
    return found


def decoded_batch(body: bytes) -> Batch:
    header, receipts, parts = decode(SETTLE_ROUND, body)
    names = ("job_id", "round", "batch", "last", "epoch")
    head = Header(**dict(zip(names, header[:5], strict=True)), base=hexed(header[5]), evidence=hexed(header[6]))
    attestations = (Attestation(member=m, salt=salt, scores=scores, signature=sig) for m, salt, scores, sig in parts)
    return Batch(header=head, receipts=receipts, attestations=tuple(attestations))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """What a stranger needs to settle a round: its attested batches, in order."""

    chain_id: int
    market: str
    job_id: int
    round: int
    batches: tuple[Batch, ...]


def parse_bundle(document: Any) -> Bundle:
    """The public settlement bundle of a round. Raises HyperGPUError `bundle.malformed`."""
    try:
        bundle = Bundle(
            chain_id=int(document["chain_id"]), market=str(document["market"]), job_id=int(document["job_id"]),
            round=int(document["round"]), batches=tuple(parse_batch(entry) for entry in document["batches"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HyperGPUError("bundle.malformed", f"This is no settlement bundle: {type(error).__name__} {error}") from error
    if not bundle.batches:
        raise HyperGPUError("bundle.malformed", "The bundle holds no batch.")
    foreign = [batch for batch in bundle.batches if (batch.header.job_id, batch.header.round) != (bundle.job_id, bundle.round)]
    if foreign:
        raise HyperGPUError("bundle.malformed", "The bundle holds a batch of another job or round.")
    return bundle


def parse_batch(entry: Mapping[str, Any]) -> Batch:
    head = entry["header"]
    header = Header(
        job_id=int(head["jobId"]), round=int(head["round"]), batch=int(head["batch"]), last=bool(head["last"]),
        epoch=int(head["epoch"]), base=hexed(unhex(head["base"])), evidence=hexed(unhex(head["evidence"])),
    )  # fmt: skip
    parts = (
        Attestation(
            member=int(part["member"]), salt=unhex(part["salt"]), scores=unhex(part["scores"]), signature=unhex(part["signature"])
        )
        for part in entry["attestations"]
    )
    return Batch(header=header, receipts=unhex(entry["receipts"]), attestations=tuple(parts))
