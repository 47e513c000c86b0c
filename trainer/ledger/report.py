"""What a verification found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.ledger.rpc import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is not as it must be. `round`, `batch`, `node_id` None: it concerns more than one."""

    code: str
    text: str
    round: int | None = None
    batch: int | None = None
    node_id: int | None = None
    tx: str = ""

    @property
    def where(self) -> str:
        parts = (("round", self.round), ("batch", self.batch), ("node", self.node_id))
        return ", ".join(f"{name} {value}" for name, value in parts if value is not None) or "job"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One payment as recomputed; `problems` are the codes of what is wrong with it."""

    round: int
    batch: int
    node_id: int
    units: int
    quality: int
    rate: int
    amount: int
    tx: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Amounts in token base units. `sums`: credited, awarded, restored (given back by disputes), refunded."""

    chain_id: int
    market: str
    job_id: int
    registry: str
    court: str
    first: int
    head: Block
    rounds: int
    batches: int
    escrow: int
    spent: int
    reserved: int
    closed: bool
    sums: dict[str, int]
    rows: tuple[Row, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Amounts as decimal strings: they can be larger than a JSON number may be."""
        money = {"escrow": str(self.escrow), "spent": str(self.spent), "reserved": str(self.reserved)}
        rows = [{**asdict(row), "rate": str(row.rate), "amount": str(row.amount), "ok": not row.problems} for row in self.rows]
        return {
            "ok": self.ok, "chain_id": self.chain_id, "market": self.market, "job_id": self.job_id,
            "registry": self.registry, "court": self.court, "first_block": self.first,
            "head": {"number": self.head.number, "hash": self.head.hash, "timestamp": self.head.timestamp},
            "rounds": self.rounds, "batches": self.batches, "closed": self.closed, **money,
            "sums": {name: str(amount) for name, amount in self.sums.items()}, "payments": rows,
            "findings": [asdict(finding) for finding in self.findings],
        }  # fmt: skip


def show(report: Report, console: Console) -> None:
    table = Table(title=f"Job {report.job_id} of {report.market} on chain {report.chain_id}", title_justify="left")
    for name in ("round", "node", "units", "quality", "rate", "amount"):
        table.add_column(name, justify="right")
    table.add_column("transaction")
    table.add_column("verdict", overflow="fold")
    for row in report.rows:
        verdict = "[red]✘ " + " ".join(row.problems) if row.problems else "[green]✔"
        numbers = (row.round, row.node_id, row.units, f"{row.quality / 10_000:.4f}", row.rate, row.amount)
        table.add_row(*map(str, numbers), row.tx[:10] + "…" + row.tx[-4:], verdict)
    console.print(table)
    sums, left = report.sums, f"{'refunded' if report.closed else 'left'} {report.escrow - report.spent}"
    console.print(
        f"{len(report.rows)} payments in {report.rounds} rounds ({report.batches} batches), "
        f"blocks {report.first} to {report.head.number}.",
        f"Attestors are named by {report.registry}, disputes decided by {report.court}.",
        f"spent {report.spent} = credited {sums['credited']} + awarded {sums['awarded']} - given back {sums['restored']}",
        f"escrow {report.escrow} = spent {report.spent} + {left}"
        + (f", of which {report.reserved} reserved" if report.reserved else ""),
        sep="\n",
        highlight=False,
    )
    for finding in report.findings:
        console.print(f"[red]✘ {finding.where}: {finding.text}[/red] ({finding.code}) {finding.tx}", highlight=False)
    if report.ok:
        console.print("[green]✔ Every payment is what the signatures say, to the unit.[/green]")
    else:
        kinds = ", ".join(f"{code} × {count}" for code, count in Counter(finding.code for finding in report.findings).items())
        console.print(f"[red]✘ Not proven: {kinds}[/red]")
