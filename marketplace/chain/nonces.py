"""First step of sending: judge the intents whose turn has come, and give those that would succeed a nonce for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from marketplace.chain import abi
from marketplace.chain.gas import gas_limit
from marketplace.chain.models import Cursor, Intent, SenderAccount
from marketplace.chain.rpc import LATEST, Call, Fault, number, rpc
from marketplace.chain.signer import signer_for
from marketplace.chain.states import IN_FLIGHT, move, note
from trainer.protocol.errors import HyperGPUError

BATCH = 80
"""Intents per pass: with the few questions beside them they stay below the 100 calls that public nodes take in a batch."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What each intent would do now: an int is the gas it needs, a Fault the refusal. `mined`: each account's next nonce."""

    mined: dict[str, int]
    verdicts: list[int | Fault]


def assign_nonces() -> int:
    """Give nonces; an intent that the contract would refuse fails here and burns none. Returns how many moved on."""
    waiting = list(intents_in_turn()[:BATCH])
    if not waiting:
        return 0
    addresses = [signer_for(intent.group or intent.key).address for intent in waiting]
    judgement = judge(waiting, addresses)
    accounts = {address: SenderAccount.objects.get_or_create(address=address)[0] for address in set(addresses)}
    moved = 0
    for intent, address, verdict in zip(waiting, addresses, judgement.verdicts, strict=True):
        if isinstance(verdict, int):
            limit = gas_limit(intent, verdict)
            moved += take_nonce(intent, account_id=accounts[address].pk, gas_limit=limit, at_least=judgement.mined[address])
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


def judge(intents: Sequence[Intent], addresses: Sequence[str]) -> Judgement:
    """Run each call on a node that has seen all that we have seen: a node that lags refuses what is fine.

    Raises HyperGPUError `chain.node_behind`.
    """
    senders = sorted(set(addresses))
    state: list[Call] = [("eth_blockNumber", []), *(("eth_getTransactionCount", [sender, LATEST]) for sender in senders)]
    calls = [estimate(intent, address) for intent, address in zip(intents, addresses, strict=True)]
    answers = rpc().answers(state + calls)
    (head, *counts), verdicts = answers[: len(state)], answers[len(state) :]
    if any(isinstance(answer, Fault) for answer in (head, *counts)) or number(head) < newest_seen():
        rpc().turn()
        raise HyperGPUError("chain.node_behind", f"The node has not seen block {newest_seen()} yet; nothing is sent meanwhile.")
    mined = {sender: number(count) for sender, count in zip(senders, counts, strict=True)}
    return Judgement(mined, [answer if isinstance(answer, Fault) else number(answer) for answer in verdicts])


def estimate(intent: Intent, sender: str) -> Call:
    call: dict[str, Any] = {"from": sender, "to": intent.to, "data": intent.data}
    return "eth_estimateGas", [call, LATEST]


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
