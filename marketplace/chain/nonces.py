"""First step of sending: judge the intents whose turn has come, and give those that would succeed a nonce for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from marketplace.chain import abi
from marketplace.chain.models import Cursor, Intent, SenderAccount
from marketplace.chain.rpc import LATEST, Call, Fault, number, rpc
from marketplace.chain.signer import sender_signer
from marketplace.chain.states import IN_FLIGHT, move, note
from trainer.protocol.errors import HyperGPUError

BATCH = 80
"""Intents per pass: with the few questions beside them they stay below the 100 calls that public nodes take in a batch."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What each intent would do now: an int is its gas limit, a Fault the refusal. `mined` is the account's next nonce."""

    mined: int
    verdicts: list[int | Fault]


def assign_nonces() -> int:
    """Give nonces; an intent that the contract would refuse fails here and burns none. Returns how many moved on."""
    waiting = list(intents_in_turn()[:BATCH])
    if not waiting:
        return 0
    address = sender_signer().address
    account, _ = SenderAccount.objects.get_or_create(address=address)
    judgement = judge(waiting, address)
    moved = 0
    for intent, verdict in zip(waiting, judgement.verdicts, strict=True):
        if isinstance(verdict, int):
            moved += take_nonce(intent, account_id=account.pk, gas_limit=verdict, at_least=judgement.mined)
        elif verdict.is_revert:
            reason = abi.decode_error(verdict.data) if verdict.data else verdict.message
            untouched = {"state": Intent.State.PENDING, "nonce": None}
            moved += move(intent, Intent.State.FAILED, when=untouched, reason=reason[:300])
        else:
            note(intent, f"the node cannot judge it: {verdict.message}")
    return moved


def intents_in_turn() -> QuerySet[Intent]:
    """Intents without a nonce whose group has nothing earlier on its way."""
    earlier = Intent.objects.filter(group=OuterRef("group"), id__lt=OuterRef("id"), state__in=IN_FLIGHT).exclude(group="")
    return Intent.objects.filter(state=Intent.State.PENDING, nonce=None).exclude(Exists(earlier)).order_by("id")


def judge(intents: Sequence[Intent], sender: str) -> Judgement:
    """Run each call on a node that has seen all that we have seen: a node that lags refuses what is fine.

    Raises HyperGPUError `chain.node_behind`.
    """
    state: list[Call] = [("eth_blockNumber", []), ("eth_getTransactionCount", [sender, LATEST])]
    head, mined, *answers = rpc().answers(state + [estimate(intent, sender) for intent in intents])
    if isinstance(head, Fault) or isinstance(mined, Fault) or number(head) < newest_seen():
        raise HyperGPUError("chain.node_behind", f"The node has not seen block {newest_seen()} yet; nothing is sent meanwhile.")
    return Judgement(number(mined), [answer if isinstance(answer, Fault) else gas_limit(number(answer)) for answer in answers])


def estimate(intent: Intent, sender: str) -> Call:
    call: dict[str, Any] = {"from": sender, "to": intent.to, "data": intent.data}
    return "eth_estimateGas", [call, LATEST]


def gas_limit(estimated: int) -> int:
    """5 % of room: Monad charges the limit, not what is used, so a generous one is money thrown away."""
    return estimated * 105 // 100


def newest_seen() -> int:
    """The highest block that a decision of ours may rest on."""
    indexed = Cursor.objects.aggregate(block=Max("block"))["block"] or 0
    included = Intent.objects.filter(state=Intent.State.INCLUDED).aggregate(block=Max("block"))["block"] or 0
    return max(indexed, included)


def take_nonce(intent: Intent, *, account_id: int, gas_limit: int, at_least: int) -> bool:
    """Bind the account's next nonce to the intent; False when another process bound one first.

    `at_least` is the chain's count. It only ever raises the number: one already given out is never given again.
    """
    with transaction.atomic():
        account = SenderAccount.objects.select_for_update().get(pk=account_id)
        nonce = max(account.next_nonce, at_least)
        counted = SenderAccount.objects.filter(pk=account_id, next_nonce=account.next_nonce).update(next_nonce=nonce + 1)
        bound = counted and Intent.objects.filter(pk=intent.pk, state=Intent.State.PENDING, nonce=None).update(
            sender=account, nonce=nonce, gas_limit=gas_limit, reason=""
        )
        if not bound:
            transaction.set_rollback(True)
    return bool(bound)
