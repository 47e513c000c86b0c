"""Second step of sending: signed bytes for each nonce, committed before they leave, and sent until a receipt is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.utils import timezone
from eth_utils.crypto import keccak

from marketplace.chain.alarms import end_alarm, raise_alarm
from marketplace.chain.fees import Fee, bumped, first_fee
from marketplace.chain.models import Attempt, Intent
from marketplace.chain.nonces import BATCH
from marketplace.chain.profiles import GWEI
from marketplace.chain.rpc import LATEST, Fault, block_call, number, parse_block, rpc
from marketplace.chain.signer import Signer, outbox_signers
from marketplace.chain.states import IN_FLIGHT, move, note

FEE_CEILING = "chain.fee_ceiling"
REBROADCAST_AFTER = timedelta(seconds=1.5)
BUMP_AFTER = timedelta(seconds=10)

# Nodes word these differently (geth, reth, anvil, Monad). A wrong guess only changes what people read.
IN_POOL = ("already known", "already imported", "known transaction", "existing transaction", "underpriced")
USED_NONCE = "nonce too low"


def broadcast_due() -> int:
    """Sign what has a nonce but no bytes, replace what is stuck, send what nobody has confirmed. Returns how many were sent."""
    signers = {signer.address: signer for signer in outbox_signers()}
    in_flight = intents_in_flight(signers)
    sign_missing(in_flight, signers)
    due = [(intent, attempt) for intent in in_flight if (attempt := newest(intent)) and is_due(attempt)]
    answers = rpc().broadcast([attempt.raw for _, attempt in due])
    for (intent, attempt), answer in zip(due, answers, strict=True):
        record_broadcast(intent, attempt, answer)
    return len(due)


def intents_in_flight(signers: Mapping[str, Signer]) -> list[Intent]:
    """Of each account the lowest nonces: the others wait for them."""
    nonced = Intent.objects.filter(state__in=IN_FLIGHT, nonce__isnull=False).select_related("sender").prefetch_related("attempts")
    share = max(BATCH // len(signers), 1)
    ours = [intent for address in signers for intent in nonced.filter(sender__address=address).order_by("nonce")[:share]]
    for intent in nonced.exclude(sender__address__in=signers)[:BATCH]:
        note(intent, f"its nonce is of {intent.sender and intent.sender.address}, whose key is not among the sender's now")
    return ours


def newest(intent: Intent) -> Attempt | None:
    return max(intent.attempts.all(), key=lambda attempt: attempt.number, default=None)


def is_due(attempt: Attempt) -> bool:
    return attempt.broadcast_at is None or timezone.now() - attempt.broadcast_at >= REBROADCAST_AFTER


def is_stuck(attempt: Attempt) -> bool:
    return attempt.broadcast_at is not None and timezone.now() - attempt.created_at >= BUMP_AFTER


def sign_missing(in_flight: Sequence[Intent], signers: Mapping[str, Signer]) -> None:
    """Make attempts where one is needed. Only an account's very next nonce is worth a higher fee: the rest wait for it."""
    needy = [intent for intent in in_flight if (attempt := newest(intent)) is None or is_stuck(attempt)]
    if not needy:
        return
    senders = sorted({sender_of(intent) for intent in needy})
    latest, *counts = rpc().read(block_call(LATEST), *(("eth_getTransactionCount", [sender, LATEST]) for sender in senders))
    mined = {sender: number(count) for sender, count in zip(senders, counts, strict=True)}
    head = parse_block(latest)
    assert head is not None  # every node has a latest block
    for intent in needy:
        last, sender = newest(intent), sender_of(intent)
        if last and intent.nonce != mined[sender]:
            continue
        fee = bumped(Fee(last.max_fee, last.priority_fee), head.base_fee) if last else first_fee(head.base_fee)
        if affordable(intent, fee):
            sign_attempt(intent, signers[sender], fee, number_=last.number + 1 if last else 1)


def sender_of(intent: Intent) -> str:
    assert intent.sender is not None  # whoever has a nonce has a sender
    return intent.sender.address


def affordable(intent: Intent, fee: Fee) -> bool:
    """A price far above what is usual is a fault or an attack, and a settlement can wait: a person decides."""
    ceiling, subject = settings.HYPERGPU.chain.fee_ceiling, sender_of(intent)
    if fee.max_fee <= ceiling:
        end_alarm(FEE_CEILING, subject)
        return True
    reason = f"the chain asks {fee.max_fee / GWEI:g} gwei per gas, and the ceiling of the sender is {ceiling / GWEI:g}"
    note(intent, reason)
    raise_alarm(FEE_CEILING, subject, f"{intent.key} waits: {reason} (HYPERGPU_FEE_CEILING_GWEI).")
    return False


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
