"""What a job came to, checked against the chain alone: who was paid, and whether every unit is accounted for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scripts.hypergpu_demo.onchain import Onchain


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The job's money at the newest final block. Amounts in token base units."""

    receipts: int
    transactions: int
    paid: int
    spent: int
    escrow: int
    closed: bool
    problems: list[str]


def read_ledger(chain: Onchain, snapshot: dict[str, Any]) -> Ledger:
    """Compare the accepted contributions of a job's snapshot with the final logs and balances of the market."""
    job_id = snapshot["job"]["chain_id"]
    settled = chain.final_logs("ContributionSettled", jobId=job_id)
    job = chain.market.functions.getJob(job_id).call(block_identifier="finalized")
    paid = sum(log["args"]["amount"] for log in settled)
    problems = [*unpaid(snapshot, settled), *unbalanced(chain)]
    if paid != job[3]:
        problems.append(f"the credits of the job sum to {paid}, its escrow was charged {job[3]}")
    transactions = {log["transactionHash"] for log in settled}
    return Ledger(
        receipts=len(settled), transactions=len(transactions), paid=paid, escrow=job[2], spent=job[3], closed=job[11],
        problems=problems,
    )  # fmt: skip


def unpaid(snapshot: dict[str, Any], settled: Sequence[Any]) -> list[str]:
    """Each accepted contribution has exactly one final payment, at the quality that the page shows, and nothing else was."""
    accepted = [c for c in snapshot["contributions"] if c["state"] == "accepted"]
    quality = {payment["contribution_id"]: payment["quality"] for payment in snapshot["payments"]}
    expected = [(c["round"], c["node_id"], c["units"], quality.get(c["id"]), c["artifact"]) for c in accepted]
    args = [log["args"] for log in settled]
    found = [(a["round"], a["nodeId"], a["units"], a["quality"], a["artifact"].hex()) for a in args]
    missing, surplus = set(expected) - set(found), set(found) - set(expected)
    problems = [f"accepted, not paid: round {c[0]}, node {c[1]}" for c in sorted(missing)]
    problems += [f"paid, not accepted: round {c[0]}, node {c[1]}" for c in sorted(surplus)]
    if len(found) != len(set(found)):
        problems.append("a contribution was paid twice")
    return problems


def unbalanced(chain: Onchain) -> list[str]:
    """The market's own books: earnings equal spendings, and its tokens cover stakes, escrows and credits exactly."""
    block = chain.web3.eth.get_block("finalized")["number"]
    view = chain.market.functions
    last_job = view.jobCount().call(block_identifier=block)
    jobs = [view.getJob(number).call(block_identifier=block) for number in range(1, last_job + 1)]
    ids = range(1, view.nodeCount().call(block_identifier=block) + 1)
    metrics = [view.getNodeMetrics(number).call(block_identifier=block) for number in ids]
    wallets = {view.getNode(number).call(block_identifier=block)[0] for number in ids}
    operators = [view.getOperator(wallet).call(block_identifier=block) for wallet in wallets]
    earned, spent = sum(m[6] for m in metrics), sum(job[3] for job in jobs)
    credit, stakes = sum(m[4] for m in metrics), sum(o[0] + o[1] for o in operators)
    escrows = sum(job[2] - job[3] for job in jobs if not job[11])
    owed, insurance = view.holdings().call(block_identifier=block)[3:]
    held = chain.token.functions.balanceOf(chain.market.address).call(block_identifier=block)
    problems = []
    if earned != spent:
        problems.append(f"all nodes earned {earned}, all jobs spent {spent}")
    if held != stakes + escrows + credit + owed + insurance:
        problems.append(f"the market holds {held}, but owes {stakes} stake + {escrows} escrow + {credit} credit + {owed} more")
    return problems


def summary(snapshot: dict[str, Any], ledger: Ledger, *, posted_at: datetime, wall_seconds: float) -> dict[str, Any]:
    """The demo's JSON. Times in seconds; amounts in token base units; metrics are those of the job's target."""
    job, contributions = snapshot["job"], snapshot["contributions"]
    metric = job["target"]["metric"]
    waits = sorted(seconds_between(p["handed_in_at"], p["final_at"]) for p in snapshot["payments"] if p["final_at"])
    first_step = (moment(job["first_step_at"]) - posted_at).total_seconds() if job["first_step_at"] else None
    return {
        "rounds": job["round"],
        "operators": len({node["operator"] for node in snapshot["nodes"]}),
        "start_metric": job["start_metric"] and job["start_metric"][metric],
        "final_metric": job["metric"] and job["metric"][metric],
        "contributions": len(contributions),
        "receipts_settled": ledger.receipts,
        "settle_transactions": ledger.transactions,
        "paid_total": ledger.paid,
        "escrow_spent": ledger.spent,
        "settle_seconds_p50": percentile(waits, 50),
        "settle_seconds_p95": percentile(waits, 95),
        "submit_to_first_step_seconds": first_step,
        "wall_seconds": round(wall_seconds, 3),
        "details": {
            "metric": metric,
            "target": job["target"]["value"],
            "reached_target": job["reached_target"],
            "start": job["start_metric"],
            "final": job["metric"],
            "accepted": sum(c["state"] == "accepted" for c in contributions),
            "rejected": sum(c["state"] == "rejected" for c in contributions),
            "escrow": ledger.escrow,
            "job": job["id"],
            "chain_job": job["chain_id"],
            "model": job["spec"]["model"],
            "spec_hash": job["spec_hash"],
            "problems": ledger.problems,
        },
    }


def improved(job: dict[str, Any]) -> bool:
    """Past its target, and better than it began."""
    metric = job["target"]["metric"]
    if not job["reached_target"] or job["start_metric"] is None:
        return False
    before, after = job["start_metric"][metric], job["metric"][metric]
    return bool(after > before) if metric == "accuracy" else bool(after < before)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """Nearest-rank for few values, interpolated between neighbours (statistics.quantiles, inclusive)."""
    if len(values) < 2:
        return round(values[0], 3) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_between(first: str, second: str) -> float:
    return (moment(second) - moment(first)).total_seconds()
