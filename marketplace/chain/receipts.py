"""Last step of sending: only a receipt says what became of an intent, and only a finalized one says it for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from marketplace.chain import abi
from marketplace.chain.holes import fill_holes
from marketplace.chain.models import Intent
from marketplace.chain.nonces import BATCH
from marketplace.chain.rpc import FINALIZED, LATEST, Fault, block_call, number, parse_block, rpc
from marketplace.chain.states import IN_FLIGHT, OPEN, move

LOST_AFTER = timedelta(seconds=30)
"""How long a used nonce without a receipt of ours may be a node's slow index before it is someone else's transaction."""


@dataclass(frozen=True, slots=True)
class Receipt:
    tx_hash: str
    block: int
    block_hash: str
    succeeded: bool
    gas_used: int
    contract: str | None
    logs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Reading:
    """One node's view at one moment. `canonical` are the hashes of the finalized blocks that receipts name."""

    head: int
    finalized: int
    final_nonces: dict[str, int]
    latest_nonces: dict[str, int]
    receipts: dict[str, Receipt]
    canonical: dict[int, str]

    def of(self, intent: Intent) -> Receipt | None:
        found = (self.receipts.get(attempt.hash) for attempt in intent.attempts.all())
        return next((receipt for receipt in found if receipt), None)


def track_receipts() -> int:
    """Look for every attempt of every open intent. Returns how many changed state."""
    open_ = list(
        Intent.objects.filter(state__in=OPEN, attempts__isnull=False).distinct().select_related("sender")
        .prefetch_related("attempts").order_by("nonce")[:BATCH]
    )  # fmt: skip
    if not open_:
        return 0
    reading = take_reading(open_)
    changed = sum(follow(intent, reading) for intent in open_)
    return changed + fill_holes(reading.final_nonces, reading.latest_nonces)


def take_reading(intents: Sequence[Intent]) -> Reading:
    """Finalized first, receipts after: in one batch of one node a later answer is never older."""
    hashes = [attempt.hash for intent in intents for attempt in intent.attempts.all()]
    senders = sorted({intent.sender.address for intent in intents if intent.sender})
    answers = rpc().read(
        block_call(FINALIZED), ("eth_blockNumber", []),
        *(("eth_getTransactionCount", [sender, tag]) for tag in (FINALIZED, LATEST) for sender in senders),
        *(("eth_getTransactionReceipt", [hash_]) for hash_ in hashes),
    )  # fmt: skip
    finalized = parse_block(answers[0])
    depth = finalized.number if finalized else 0
    counts, receipts = answers[2 : 2 + 2 * len(senders)], answers[2 + 2 * len(senders) :]
    found = {r.tx_hash: r for answer in receipts if (r := parse_receipt(answer))}
    return Reading(
        head=number(answers[1]), finalized=depth, receipts=found, canonical=canonical_hashes(depth, found),
        final_nonces={sender: number(count) for sender, count in zip(senders, counts, strict=False)},
        latest_nonces={sender: number(count) for sender, count in zip(senders, counts[len(senders) :], strict=True)},
    )  # fmt: skip


def canonical_hashes(finalized: int, receipts: dict[str, Receipt]) -> dict[int, str]:
    heights = sorted({receipt.block for receipt in receipts.values() if receipt.block <= finalized})
    blocks = [parse_block(answer) for answer in rpc().read(*(block_call(height) for height in heights))]
    return {block.number: block.hash for block in blocks if block}


def parse_receipt(answer: Any) -> Receipt | None:
    if answer is None:
        return None
    return Receipt(
        tx_hash=answer["transactionHash"], block=number(answer["blockNumber"]), block_hash=answer["blockHash"],
        succeeded=number(answer["status"]) == 1, gas_used=number(answer["gasUsed"]), contract=answer.get("contractAddress"),
        logs=answer["logs"],
    )  # fmt: skip


def follow(intent: Intent, reading: Reading) -> bool:
    """One intent against one reading."""
    receipt, now = reading.of(intent), timezone.now()
    if receipt is None:
        return miss(intent, reading)
    seen = {"tx_hash": receipt.tx_hash, "block": receipt.block, "block_hash": receipt.block_hash}
    if reading.canonical.get(receipt.block) == receipt.block_hash:
        if not receipt.succeeded:
            return move(intent, Intent.State.FAILED, when={"state__in": OPEN}, reason=revert_reason(intent, receipt), **seen)
        earlier = {"sent_at": intent.sent_at or now, "included_at": intent.included_at or now}
        return move(intent, Intent.State.FINAL, when={"state__in": OPEN}, final_at=now, **seen, **earlier)
    # A revert in a block that may still go is no outcome yet.
    if not receipt.succeeded or (intent.state, intent.block_hash) == (Intent.State.INCLUDED, receipt.block_hash):
        return False
    return move(intent, Intent.State.INCLUDED, when={"state__in": OPEN}, sent_at=intent.sent_at or now, included_at=now, **seen)


def miss(intent: Intent, reading: Reading) -> bool:
    """No receipt: a block was reorganised away, the nonce went to a stranger, or there is nothing to say yet."""
    if intent.state == Intent.State.INCLUDED:
        if reading.head < (intent.block or 0):
            return False
        return move(intent, Intent.State.SENT, when={"state": Intent.State.INCLUDED}, block=None, block_hash="", included_at=None)
    assert intent.sender is not None and intent.nonce is not None  # whoever has an attempt has a nonce
    old = max(attempt.created_at for attempt in intent.attempts.all()) < timezone.now() - LOST_AFTER
    if not old or reading.final_nonces[intent.sender.address] <= intent.nonce:
        return False
    reason = f"nonce {intent.nonce} of {intent.sender.address} went to a transaction that is not ours; use the key nowhere else"
    return move(intent, Intent.State.FAILED, when={"state__in": IN_FLIGHT}, reason=reason)


def revert_reason(intent: Intent, receipt: Receipt) -> str:
    """Replay the call on the state of its block, then on the one before, which other transactions of the block changed."""
    if intent.gas_limit and receipt.gas_used >= intent.gas_limit:
        return f"out of gas at {intent.gas_limit}"
    call = {"from": intent.sender.address if intent.sender else None, "to": intent.to, "data": intent.data}
    answers = rpc().answers([("eth_call", [call, hex(height)]) for height in (receipt.block, receipt.block - 1)])
    reverts = [answer for answer in answers if isinstance(answer, Fault) and answer.is_revert]
    if not reverts:
        return "reverted; the node no longer knows why"
    return (abi.decode_error(reverts[0].data) if reverts[0].data else reverts[0].message)[:300]
