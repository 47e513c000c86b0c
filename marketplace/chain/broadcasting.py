"""Second step of sending: signed bytes for each nonce, committed before they leave, and sent until a receipt is seen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from eth_utils.crypto import keccak

from marketplace.chain.fees import Fee, bumped, first_fee
from marketplace.chain.models import Attempt, Intent
from marketplace.chain.nonces import BATCH
from marketplace.chain.rpc import LATEST, Fault, block_call, number, parse_block, rpc
from marketplace.chain.signer import Signer, sender_signer
from marketplace.chain.states import IN_FLIGHT, move, note

REBROADCAST_AFTER = timedelta(seconds=1.5)
BUMP_AFTER = timedelta(seconds=10)

# Nodes word these differently (geth, reth, anvil, Monad). A wrong guess only changes what people read.
IN_POOL = ("already known", "already imported", "known transaction", "existing transaction", "underpriced")
USED_NONCE = "nonce too low"


def broadcast_due() -> int:
    """Sign what has a nonce but no bytes, replace what is stuck, send what nobody has confirmed. Returns how many were sent."""
    in_flight = list(
        Intent.objects.filter(state__in=IN_FLIGHT, nonce__isnull=False).select_related("sender").prefetch_related("attempts")
        .order_by("nonce")[:BATCH]
    )  # fmt: skip
    sign_missing(in_flight)
    due = [(intent, attempt) for intent in in_flight if (attempt := newest(intent)) and is_due(attempt)]
    answers = rpc().answers([("eth_sendRawTransaction", [attempt.raw]) for _, attempt in due])
    for (intent, attempt), answer in zip(due, answers, strict=True):
        record_broadcast(intent, attempt, answer)
    return len(due)


def newest(intent: Intent) -> Attempt | None:
    return max(intent.attempts.all(), key=lambda attempt: attempt.number, default=None)


def is_due(attempt: Attempt) -> bool:
    return attempt.broadcast_at is None or timezone.now() - attempt.broadcast_at >= REBROADCAST_AFTER


def is_stuck(attempt: Attempt) -> bool:
    return attempt.broadcast_at is not None and timezone.now() - attempt.created_at >= BUMP_AFTER


def sign_missing(in_flight: Sequence[Intent]) -> None:
    """Make attempts where one is needed. Only the account's very next nonce is worth a higher fee: the rest wait for it."""
    needy = [intent for intent in in_flight if (attempt := newest(intent)) is None or is_stuck(attempt)]
    if not needy:
        return
    signer = sender_signer()
    latest, mined = rpc().read(block_call(LATEST), ("eth_getTransactionCount", [signer.address, LATEST]))
    head = parse_block(latest)
    assert head is not None  # every node has a latest block
    for intent in needy:
        last = newest(intent)
        if intent.sender is None or intent.sender.address != signer.address:
            note(intent, f"its nonce is of {intent.sender and intent.sender.address}, whose key is not the sender's now")
            continue
        if last and intent.nonce != number(mined):
            continue
        fee = bumped(Fee(last.max_fee, last.priority_fee), head.base_fee) if last else first_fee(head.base_fee)
        if fee.too_high:
            note(intent, f"the chain asks {fee.max_fee} wei per gas, more than the sender's ceiling")
        else:
            sign_attempt(intent, signer, fee, number_=last.number + 1 if last else 1)


def sign_attempt(intent: Intent, signer: Signer, fee: Fee, *, number_: int) -> None:
    """Commit the next attempt; if another process signed one meanwhile, that one counts."""
    transaction: dict[str, Any] = {
        "type": 2, "chainId": settings.HYPERGPU.chain_id, "nonce": intent.nonce, "to": intent.to, "data": intent.data, "value": 0,
        "gas": intent.gas_limit, "maxFeePerGas": fee.max_fee, "maxPriorityFeePerGas": fee.priority,
    }  # fmt: skip
    raw = signer.sign_transaction(transaction)
    signed = {"hash": "0x" + keccak(raw).hex(), "raw": "0x" + raw.hex(), "max_fee": fee.max_fee, "priority_fee": fee.priority}
    Attempt.objects.get_or_create(intent=intent, number=number_, defaults=signed)
    intent.refresh_from_db()


def record_broadcast(intent: Intent, attempt: Attempt, answer: Any) -> None:
    """What the node said of the bytes. It decides nothing: only receipts do."""
    now = timezone.now()
    Attempt.objects.filter(pk=attempt.pk).update(broadcast_at=now)
    message = answer.message if isinstance(answer, Fault) else ""
    if not message or any(words in message.lower() for words in IN_POOL):
        if not move(intent, Intent.State.SENT, when={"state": Intent.State.PENDING}, sent_at=now, tx_hash=attempt.hash):
            Intent.objects.filter(pk=intent.pk, state=Intent.State.SENT).update(tx_hash=attempt.hash, reason="")
    elif USED_NONCE not in message.lower():
        note(intent, f"the node refused it: {message}")
