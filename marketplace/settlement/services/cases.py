"""Cases at the dispute court about what a contribution was paid: opened when a replay has proven it false, driven to their end.

PROMISED -> DRAWING -> VOTING -> DECIDED -> EXECUTED, with APPEALED where somebody calls the arbiter, or REFUSED by the chain.
From DRAWING on a row is what the court's events say, whoever opened the case and took its steps: all but votes is open to anyone.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from marketplace.chain.alarms import end_alarm, raise_alarm
from marketplace.chain.models import ChainLog, Intent
from marketplace.chain.projections import LogEntry
from marketplace.chain.services import contract_address, enqueue
from marketplace.chain.signer import CHALLENGES, challenger_signers
from marketplace.settlement import selectors
from marketplace.settlement.models import Batch, Payment
from marketplace.training.models import Audit, Case, Contribution
from marketplace.training.services import audits
from trainer.protocol.packing import pack_scores, receipts_hash, unpack_receipts

QUALITY = 1
"""IDisputeCourt.Kind of a case about a paid receipt's quality."""
UNLIMITED = 2**256 - 1
TRY_SECONDS = 5
"""A step that the court refuses (too early, a draw whose block was missed) is not tried again sooner."""
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=5), timedelta(minutes=10)
NO_MONEY = "ERC20"
"""How a token's refusal begins: the challenger has no bond. More money cures it, until the challenge window is over."""
NO_CHALLENGER, NO_BOND = "court.no_challenger", "court.no_bond"


# Opening.


def open_cases(*, round_id: int) -> None:
    """Promise a case for each contribution of the round that a replay has proven false. Idempotent."""
    convicted = selectors.convicted().filter(round=round_id)
    for contribution in convicted.select_related("round__job", "payment__batch").order_by("pk"):
        if not has_challenger():
            return
        with transaction.atomic():
            case, new = Case.objects.get_or_create(
                contribution=contribution, defaults={"paid": contribution.payment.quality, "intent_key": key_of(contribution)}
            )
            if new:
                promise(case)
                tell(case)


def has_challenger() -> bool:
    """Whether there is a key to promise cases with. An alarm says so while one is needed and there is none."""
    if challenger_signers():
        end_alarm(NO_CHALLENGER, "challenger")
        return True
    text = "A replay audit has failed, and nobody can bring it to the court: set HYPERGPU_CHALLENGER_KEY."
    raise_alarm(NO_CHALLENGER, "challenger", text)
    return False


def key_of(contribution: Contribution) -> str:
    round_ = contribution.round
    return f"case:{contract_address('court')}:{round_.job.chain_id}:{round_.number}:{contribution.node_id}"


def promise(case: Case) -> None:
    """The court takes the bond from its caller in that call alone, so one allowance may stand for all of them."""
    court, (challenger,) = contract_address("court"), challenger_signers()
    round_ = case.contribution.round
    allowance = f"approve:{court}:{challenger.address}"
    enqueue(key=allowance, function="approve", args=[court, UNLIMITED], group=CHALLENGES, contract="token")
    args = [round_.job.chain_id, round_.number, receipt_proof(case.contribution)]
    enqueue(key=case.intent_key, function="challengeQuality", args=args, group=CHALLENGES, contract="court")


def receipt_proof(contribution: Contribution) -> dict[str, Any]:
    """IDisputeCourt.ReceiptProof: the round's batches as the market keeps them, whoever settled them, and the receipt's own."""
    round_ = contribution.round
    batches = {batch.number: batch for batch in Batch.objects.filter(round=round_)}
    logs = ChainLog.objects.filter(name="RoundSettled", args__job_id=round_.job.chain_id, args__round=round_.number)
    mine = contribution.payment.batch
    nodes = [receipt.node_id for receipt in unpack_receipts(bytes(mine.packed))]
    return {
        "batches": [settled_batch(log.args, batches[log.args["batch"]]) for log in logs],
        "index": mine.number, "receipts": "0x" + bytes(mine.packed).hex(), "qualities": "0x" + qualities(mine).hex(),
        "position": nodes.index(contribution.node_id),
    }  # fmt: skip


def settled_batch(said: dict[str, Any], batch: Batch) -> dict[str, Any]:
    return {
        "base": said["base"], "evidence": said["evidence"], "receipts": batch.receipts_hash,
        "qualities": receipts_hash(qualities(batch)), "epoch": said["epoch"], "attestors": said["attestors"],
    }  # fmt: skip


def qualities(batch: Batch) -> bytes:
    """What the batch's receipts were paid, packed, as ContributionSettled has told it."""
    paid = dict(Payment.objects.filter(batch=batch).values_list("node_id", "quality"))
    return pack_scores([paid[receipt.node_id] or 0 for receipt in unpack_receipts(bytes(batch.packed))])


def record_intent(intent: Intent) -> None:
    """The chain would not have the case: without money for the bond it is asked again later, for anything else it is over."""
    case = Case.objects.filter(intent_key=intent.key, state=Case.State.PROMISED).first()
    if case is None:
        return
    if not intent.reason.startswith(NO_MONEY):
        move(case, Case.State.REFUSED, reason=intent.reason[:300])
        return
    text = f"The challenger cannot post the bond of a case: {intent.reason}. Send it tokens before the window is over."
    raise_alarm(NO_BOND, "challenger", text)
    wait = min(FIRST_RETRY * 2**case.attempt, LONGEST_RETRY)
    Case.objects.filter(pk=case.pk).update(retry_at=timezone.now() + wait, attempt=case.attempt + 1, reason=intent.reason[:300])


def send_again(*, case_id: int) -> None:
    """A new promise of the same call. Without a challenger it stays due."""
    with transaction.atomic():
        case = Case.objects.select_related("contribution__round__job").select_for_update(of=("self",)).get(pk=case_id)
        if case.state != Case.State.PROMISED or case.retry_at is None or case.retry_at > timezone.now():
            return
        if not has_challenger():
            return
        case.retry_at, case.intent_key = None, f"{key_of(case.contribution)}#{case.attempt}"
        case.save(update_fields=["retry_at", "intent_key"])
        promise(case)


# What the court says. Each runs in the indexer's transaction.


def record_opening(log: LogEntry) -> None:
    """CaseOpened about a receipt of ours, by us or by a stranger."""
    said = log.args
    if said["kind"] != QUALITY:
        return
    place = {"round__job__chain_id": said["job_id"], "round__number": said["round"], "node_id": said["node_id"]}
    contribution = Contribution.objects.filter(**place).first()
    if contribution is None:
        return
    end_alarm(NO_BOND, "challenger")
    opened = {"chain_id": said["case_id"], "challenger": said["challenger"], "bond": said["bond"], "until": said["deadline"]}
    opened |= {"state": Case.State.DRAWING, "reason": "", "retry_at": None}
    tell(Case.objects.update_or_create(contribution=contribution, defaults=opened)[0])


def record_committee(log: LogEntry) -> None:
    said = log.args
    drawn = {"members": said["attestor_ids"], "commit_until": said["commit_until"], "until": said["reveal_until"]}
    record(log, state=Case.State.VOTING, **drawn)


def record_vote(log: LogEntry) -> None:
    """VoteCommitted, and later VoteRevealed with the quality."""
    case = case_of(log)
    if case is not None:
        record(log, votes=case.votes | {str(log.args["attestor_id"]): log.args.get("quality")})


def record_decision(log: LogEntry) -> None:
    said = log.args
    record(log, state=Case.State.DECIDED, finding=said["finding"] if said["found"] else None, until=said["appeal_until"])


def record_appeal(log: LogEntry) -> None:
    record(log, state=Case.State.APPEALED, until=log.args["ruling_until"])


def record_ruling(log: LogEntry) -> None:
    record(log, finding=log.args["finding"], until=log.timestamp)


def record_execution(log: LogEntry) -> None:
    record(log, state=Case.State.EXECUTED, upheld=log.args["upheld"], until=None)
    case = case_of(log)
    if case is not None and case.challenger in [signer.address for signer in challenger_signers()]:
        collect(case)


def record_slashing(log: LogEntry) -> None:
    record(log, taken=sum(log.args[name] for name in ("from_credit", "from_stake", "from_unbonding")))


def collect(case: Case) -> None:
    """Fetch the bond that came back, for the next case, and what of the penalty repays its costs."""
    for contract in ("court", "market") if case.upheld else ("court",):
        key = f"collect:{contract_address(contract)}:{case.chain_id}"
        enqueue(key=key, function="collect", args=[], group=CHALLENGES, contract=contract)


def case_of(log: LogEntry) -> Case | None:
    """The newest of that number: a court that replaces another counts from one again."""
    return Case.objects.filter(chain_id=log.args["case_id"]).order_by("pk").last()


def record(log: LogEntry, **changes: Any) -> None:
    case = case_of(log)
    if case is not None:
        Case.objects.filter(pk=case.pk).update(**changes)
        tell(Case.objects.get(pk=case.pk))


def move(case: Case, state: Case.State, **changes: Any) -> None:
    if Case.objects.filter(pk=case.pk, state=case.state).update(state=state, **changes):
        tell(Case.objects.get(pk=case.pk))


def tell(case: Case) -> None:
    """On the rows of the contribution's audits. Call inside the transaction of the change."""
    rows = Audit.objects.filter(contribution=case.contribution_id).select_related("contribution__round", "contribution__case")
    audits.tell(case.contribution.round, f"case.{case.state}", list(rows), case_id=case.pk)


# Driving.


def press(*, case_id: int) -> list[str]:
    """Promise the case's next step, if it is due and open to anyone; the attestors whose part it waits for."""
    case = Case.objects.get(pk=case_id)
    if case.state not in Case.UNDER_WAY:
        return []
    if step := due_step(case, now=int(unix_now())):
        court = contract_address("court")
        key = f"{step}:{court}:{case.chain_id}:{int(unix_now()) // TRY_SECONDS}"
        enqueue(key=key, function=step, args=[case.chain_id], group=f"case:{court}:{case.chain_id}", contract="court")
    if step or case.state != Case.State.VOTING:
        return []
    return signers_of([member for member in case.members if case.votes.get(str(member)) is None])


def due_step(case: Case, *, now: int) -> str:
    """The function of the court that is to be called; empty while its members have the word."""
    over = now >= (case.until or 0)
    if case.state == Case.State.DRAWING:
        return "decide" if over else "drawCommittee"
    if case.state == Case.State.VOTING:
        last = len(case.votes) == len(case.members) or now >= (case.commit_until or 0)
        return "decide" if over or (last and case.revealed == len(case.votes)) else ""
    return "execute" if over else ""


def unix_now() -> float:
    """Of this machine; where the chain's clock is behind, the court refuses, and is asked again."""
    return time.time()


def signers_of(attestor_ids: list[int]) -> list[str]:
    joined = ChainLog.objects.filter(name="registry.AttestorJoined", args__attestor_id__in=attestor_ids)
    return [log.args["signer"] for log in joined]
