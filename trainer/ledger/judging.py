"""Is a batch what its signers signed, and what does it pay? For the past and for a transaction yet to be sent alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from eth_utils.crypto import keccak

from trainer.ledger.abi import hexed
from trainer.ledger.batches import Batch
from trainer.protocol import eip712
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import (
    PackedReceipt,
    commitment,
    commitments_hash,
    pack_scores,
    receipts_hash,
    unpack_receipts,
    unpack_scores,
)
from trainer.protocol.settlement import Line, Pauses, Payment, Seat, SettledBatch, grace_start
from trainer.protocol.types import QUALITY_ONE, Receipt, RoundAttestation


@dataclass(kw_only=True, slots=True)
class Epoch:
    """A set of attestors. `ended_at` is when the next one took over; None while it is the current one."""

    members: list[str]
    quorum: int
    ended_at: int | None = None


@dataclass(kw_only=True, slots=True)
class Book:
    """What the market knows of signers and seats at one moment. `keys` maps each node's hot keys, also replaced ones, to
    when they ended or will end; what ended before the grace period signs for nothing any more."""

    domain: eip712.Domain
    pauses: Pauses = field(default_factory=Pauses)
    keys: dict[int, dict[str, int]] = field(default_factory=dict)
    epochs: dict[int, Epoch] = field(default_factory=dict)
    seats: dict[int, Seat] = field(default_factory=dict)

    def signs_for(self, node_id: int, signer: str, time: int) -> bool:
        ended_at = self.keys.get(node_id, {}).get(signer)
        return ended_at is not None and ended_at > grace_start(self.pauses, time)

    def good_epoch(self, number: int, time: int) -> Epoch | None:
        epoch = self.epochs.get(number)
        over = epoch is None or (epoch.ended_at is not None and epoch.ended_at <= grace_start(self.pauses, time))
        return None if over else epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Doubt:
    """Something that is not as it must be. `node_id` None: it concerns the whole batch, round or job."""

    code: str
    text: str
    node_id: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a batch shows of itself: `lines` to be paid in order, and all doubts about its signatures."""

    receipts: tuple[PackedReceipt, ...]
    lines: tuple[Line, ...]
    attestors: int
    doubts: tuple[Doubt, ...]

    def settled(self, batch: Batch, payments: tuple[Payment, ...]) -> SettledBatch:
        """What the market keeps of it."""
        qualities = pack_scores([payment.quality for payment in payments])
        head = batch.header
        return SettledBatch(
            base=bytes.fromhex(head.base[2:]), evidence=bytes.fromhex(head.evidence[2:]), receipts=keccak(batch.receipts),
            qualities=keccak(qualities), epoch=head.epoch, attestors=self.attestors,
        )  # fmt: skip


def judge(batch: Batch, book: Book, *, time: int) -> Judgement:
    """Every signature of a batch that settles at `time`, by the keys of that time. Doubts are returned, not raised."""
    doubts: list[Doubt] = []
    try:
        receipts = unpack_receipts(batch.receipts)
    except HyperGPUError as error:
        return Judgement(receipts=(), lines=(), attestors=0, doubts=(Doubt(code="receipts.torn", text=error.message),))
    for receipt in receipts:
        doubts += receipt_doubts(batch, receipt, book, time)
    scores: list[list[int]] = []
    epoch = book.good_epoch(batch.header.epoch, time)
    if epoch is None:
        doubts.append(Doubt(code="epoch.not_good", text=f"Epoch {batch.header.epoch} had no say at {time}."))
    else:
        scores, found = opened_scores(batch, epoch, len(receipts), book.domain)
        doubts += found
    lines = (
        Line(node_id=receipt.node_id, units=receipt.units, scores=tuple(row[index] for row in scores))
        for index, receipt in enumerate(receipts)
        if scores
    )
    attestors = sum(1 << part.member for part in batch.attestations if part.opened)
    return Judgement(receipts=tuple(receipts), lines=tuple(lines), attestors=attestors, doubts=tuple(doubts))


def receipt_doubts(batch: Batch, packed: PackedReceipt, book: Book, time: int) -> Iterator[Doubt]:
    signer = recovered(book.domain, signed_receipt(batch, packed), packed.signature)
    if not book.signs_for(packed.node_id, signer, time):
        text = f"Node {packed.node_id}'s receipt is signed by {signer}, not by a hot key that was good at {time}."
        yield Doubt(code="receipt.signature", text=text, node_id=packed.node_id)


def signed_receipt(batch: Batch, packed: PackedReceipt) -> Receipt:
    """What the node signed: its line of the batch, with what the whole batch shares."""
    head = batch.header
    return Receipt(
        job_id=head.job_id, round=head.round, node_id=packed.node_id, units=packed.units, base=head.base, artifact=packed.artifact
    )


def opened_scores(batch: Batch, epoch: Epoch, receipts: int, domain: eip712.Domain) -> tuple[list[list[int]], list[Doubt]]:
    """The scores of each attestor that opened, as far as they can be read, and what is wrong with the attestations."""
    doubts: list[Doubt] = []
    members = [part.member for part in batch.attestations]
    if members != sorted(set(members)) or any(member >= len(epoch.members) for member in members):
        text = f"Members {members} are not increasing members of a set of {len(epoch.members)}."
        return [], [Doubt(code="attestors.members", text=text)]
    opened = [part for part in batch.attestations if part.opened]
    if len(opened) < epoch.quorum:
        doubts.append(Doubt(code="attestors.quorum", text=f"{len(opened)} attestors opened, {epoch.quorum} are needed."))
    listed = {
        part.member: commitment(attestor=epoch.members[part.member], salt=part.salt, scores=part.scores)
        if part.opened
        else hexed(part.salt)
        for part in batch.attestations
    }
    head = batch.header
    message = RoundAttestation(
        job_id=head.job_id, round=head.round, batch=head.batch, last=head.last, epoch=head.epoch, base=head.base,
        receipts=receipts_hash(batch.receipts), evidence=head.evidence, commitments=commitments_hash(listed),
    )  # fmt: skip
    scores = []
    for part in opened:
        signer = recovered(domain, message, hexed(part.signature))
        if signer != epoch.members[part.member]:
            text = f"Attestor {part.member} ({epoch.members[part.member]}) did not sign these scores; {signer} did."
            doubts.append(Doubt(code="attestor.signature", text=text))
        if len(part.scores) != 2 * receipts or any(score > QUALITY_ONE for score in unpack_scores(part.scores)):
            doubts.append(Doubt(code="attestor.scores", text=f"Attestor {part.member} has no good score for each receipt."))
        else:
            scores.append(unpack_scores(part.scores))
    return scores, doubts


def recovered(domain: eip712.Domain, message: Receipt | RoundAttestation, signature: str) -> str:
    """The signer, or why there is none."""
    try:
        return eip712.recover(domain, message, signature)
    except HyperGPUError as error:
        return f"nobody ({error.code})"
