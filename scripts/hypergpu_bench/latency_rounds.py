"""Rounds of a crowd: hand in, wait until all is final, read the chain. Runs where Django is set up."""

from __future__ import annotations

from collections import Counter
from statistics import mean
from typing import Any

from django.conf import settings
from django.db.models import Max

from marketplace.chain import abi
from marketplace.chain.services import market_view
from marketplace.settlement.models import Batch, Payment
from marketplace.training.models import Contribution, Round
from scripts.hypergpu_bench.crowd import Crowd, Work, hand_in, until
from scripts.hypergpu_demo import rpc

PATIENCE = 180
"""Seconds for a round to become final; far beyond the goal, so that a slow one is measured and not lost."""


def measured(*, jobs: int, nodes: int, rounds: int, seed: int) -> dict[str, Any]:
    crowd = Crowd(jobs=jobs, size=nodes, rounds=rounds, seed=seed)
    found, handed_in = [], []
    for number in range(rounds):
        prepared = [crowd.prepare(team, number) for team in crowd.teams]
        handed_in += [work for _, works in prepared for work in works]
        found.append(settled(number, prepared))
    return {"rounds": found, "chain": on_chain(crowd, handed_in)}


def settled(number: int, prepared: list[tuple[Round, list[Work]]]) -> dict[str, Any]:
    """Hand in one receipt after the other, job by job, and wait until each is final."""
    began = {work.node.pk: hand_in(work) for _, works in prepared for work in works}
    final = Payment.objects.filter(batch__round__in=[round_ for round_, _ in prepared], state=Payment.State.FINAL)
    until(lambda: final.count() == len(began), what=f"round {number} to be final", seconds=PATIENCE)
    ended = {payment.node_id: payment.final_at.timestamp() for payment in final if payment.final_at}
    each = [stages(round_, [began[work.node.pk] for work in works]) for round_, works in prepared]
    return {
        "round": number,
        "waits": [ended[node] - began[node] for node in began],
        "seconds": max(ended.values()) - min(began.values()),
        "stages": {stage: mean(one[stage] for one in each if stage in one) for stage in each[0]},
    }


def stages(round_: Round, began: list[float]) -> dict[str, float]:
    """Seconds from a round's first hand-in to the last of its rows that reached each stage; a stage that was never seen (a
    transaction is found when it is final already) is left out."""
    round_.refresh_from_db()
    first = min(began)
    work = Contribution.objects.filter(round=round_).aggregate(checked=Max("checked_at"), recorded=Max("recorded_at"))
    pay = Payment.objects.filter(batch__round=round_).aggregate(
        sent=Max("sent_at"), included=Max("included_at"), final=Max("final_at")
    )
    batches = Batch.objects.filter(round=round_).aggregate(built=Max("created_at"))
    moments = {
        "checked": work["checked"], "recorded on chain": work["recorded"], "round closed": round_.closed_at,
        "aggregated": round_.aggregated_at, "batches built": batches["built"], "attested and sent": pay["sent"],
        "in a block": pay["included"], "final": pay["final"],
    }  # fmt: skip
    reached = {stage: moment.timestamp() - first for stage, moment in moments.items() if moment}
    return {"last handed in": max(began) - first} | reached


def on_chain(crowd: Crowd, handed_in: list[Work]) -> dict[str, Any]:
    """What the final chain says of the work that was handed in."""
    settled = final_logs("ContributionSettled")
    recorded = final_logs("ContributionRecorded")
    paid = Counter((log["round"], log["node_id"], log["units"], log["artifact"]) for log in settled)
    expected = {(work.receipt.round, work.receipt.node_id, work.receipt.units, work.receipt.artifact) for work in handed_in}
    amounts = sum(log["amount"] for log in settled)
    holdings = market_view("holdings")
    return {
        "handed_in": len(handed_in),
        "settled": len(settled),
        "lost": len(expected - set(paid)),
        "paid_twice": sum(count - 1 for count in paid.values()),
        "paid_for_nothing": len(set(paid) - expected),
        "settle_transactions": len({log["tx_hash"] for log in settled}),
        "per_receipt_transactions": len({log["tx_hash"] for log in recorded}),
        "amount": amounts,
        "credit_on_chain": holdings["credit"],
        "spent_of_escrow": sum(market_view("getJob", team.job.chain_id)["spent"] for team in crowd.teams),
    }


def final_logs(event: str) -> list[dict[str, Any]]:
    """The market's logs of one event up to the finalized block, with their transactions."""
    env = settings.HYPERGPU
    asked = {"address": env.market_address, "fromBlock": hex(env.deployment["block"]), "toBlock": "finalized"}
    [logs] = rpc.batch(env.rpc_urls[0], [("eth_getLogs", [asked])])
    decoded = [(abi.decode_log("market", log["topics"], log["data"]), log["transactionHash"]) for log in logs]
    return [found[1] | {"tx_hash": tx_hash} for found, tx_hash in decoded if found and found[0] == event]
