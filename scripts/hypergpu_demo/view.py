"""The live view of a job in a terminal; plain lines where there is none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from scripts.hypergpu_demo.report import moment, seconds_between

ENDED = ("completed", "failed", "stopped", "closed")
BARS = "▁▂▃▄▅▆▇█"
TOKEN = 10**6
STATES = ("attesting", "queued", "sent", "included", "final", "failed")


class View:
    """`say` prints a line above the live part; `show` draws the newest snapshot of the job."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.console = Console(highlight=False)
        self.began = time.monotonic()
        self.live: Live | None = None
        self.told: set[str] = set()

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.began:6.1f} s[/dim]  {text}", soft_wrap=True)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self.live = Live(console=self.console, refresh_per_second=4, transient=False)
            self.live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self.live:
            self.live.__exit__(*error)
            self.live = None

    def show(self, snapshot: dict[str, Any]) -> None:
        if self.live:
            self.live.update(panel(snapshot, self.url))
        else:
            self.tell(snapshot)

    def tell(self, snapshot: dict[str, Any]) -> None:
        """One line for each fact that is new."""
        job, rounds = snapshot["job"], snapshot["rounds"]
        lines = [f"job {job['id']} is {job['state']}{': ' + job['reason'] if job['reason'] else ''}"]
        lines += [measured_line(job, round_) for round_ in rounds if round_["metric"]]
        lines += [paid_line(round_, snapshot["payments"]) for round_ in rounds if round_["settled_at"]]
        for line in lines:
            if line and line not in self.told:
                self.told.add(line)
                self.say(line)


def measured_line(job: dict[str, Any], round_: dict[str, Any]) -> str:
    metric, seconds = round_["metric"], seconds_between(round_["opened_at"], round_["aggregated_at"])
    return (
        f"round {round_['number'] + 1} of {job['rounds']}: loss {metric['loss']:.4f}, accuracy {metric['accuracy']:.2%}, "
        f"{round_['accepted']} of {round_['expected']} contributions accepted, {seconds:.1f} s"
    )


def paid_line(round_: dict[str, Any], payments: Sequence[dict[str, Any]]) -> str:
    paid = [p for p in payments if p["round"] == round_["number"] and p["state"] == "final"]
    if not paid:
        return ""
    slowest = max(seconds_between(p["handed_in_at"], p["final_at"]) for p in paid)
    return (
        f"round {round_['number'] + 1} paid: {tokens(sum(int(p['amount']) for p in paid))} to {len(paid)} nodes in "
        f"{paid[0]['tx_hash'][:18]}…, final {slowest:.1f} s after hand-in"
    )


def panel(snapshot: dict[str, Any], url: str) -> Panel:
    job = snapshot["job"]
    title = f"{job['name']}  ·  {job['state']}  ·  {url}/jobs/{job['id']}"
    return Panel(Group(headline(snapshot), Text(), nodes_table(snapshot), Text(), payments_line(snapshot)), title=title)


def headline(snapshot: dict[str, Any]) -> Text:
    job = snapshot["job"]
    metric = job["metric"] or {"loss": float("nan"), "accuracy": float("nan")}
    losses = [r["metric"]["loss"] for r in snapshot["rounds"] if r["metric"]]
    text = Text()
    text.append(f"round {min(job['round'] + 1, job['rounds'])} of {job['rounds']}", style="bold")
    text.append(f"   loss {metric['loss']:.4f}   accuracy {metric['accuracy']:.2%}   ")
    text.append(sparkline(losses), style="cyan")
    text.append(f"   {remaining(snapshot)}", style="dim")
    if job["reason"]:
        text.append(f"\n{job['reason']}", style="yellow")
    return text


def nodes_table(snapshot: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("node", "operator", "state", "step", "loss", "rtt", "earned"):
        table.add_column(name, justify="left" if name in ("node", "operator", "state") else "right")
    newest = {a["node_id"]: a for a in snapshot["assignments"]}
    for node in snapshot["nodes"]:
        slot = newest.get(node["id"])
        loss = f"{slot['losses'][-1][1]:.4f}" if slot and slot["losses"] else ""
        rtt = f"{1000 * node['measured']['rtt']['value']:.0f} ms" if "rtt" in node["measured"] else ""
        step = f"{slot['step']}/{slot['steps']}" if slot else ""
        state = slot["state"] if slot else node["state"]
        name, operator = f"{node['id']} {node['name']}", node["operator"][:10] + "…"
        table.add_row(name, operator, state, step, loss, rtt, tokens(int(node["earned"])))
    return table


def payments_line(snapshot: dict[str, Any]) -> Text:
    job = snapshot["job"]
    states = Counter(payment["state"] for payment in snapshot["payments"])
    parts = "  ".join(f"{states[state]} {state}" for state in STATES if states[state]) or "none yet"
    return Text(f"payments  {parts}      escrow spent {tokens(int(job['spent']))} of {tokens(int(job['escrow']))}")


def remaining(snapshot: dict[str, Any]) -> str:
    """Time to the last round at the pace of those so far."""
    job = snapshot["job"]
    times = [moment(r["aggregated_at"]) for r in snapshot["rounds"] if r["aggregated_at"]]
    left = job["rounds"] - job["round"]
    if job["state"] in ENDED:
        return "done"
    if not times or not job["first_step_at"]:
        return "starting"
    pace = (max(times) - moment(job["first_step_at"])).total_seconds() / len(times)
    return f"about {left * pace:.0f} s left"


def sparkline(values: Sequence[float]) -> str:
    """The last values as bars, low to high."""
    shown = values[-24:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    return "".join(BARS[round((value - low) / (high - low or 1) * (len(BARS) - 1))] for value in shown)


def tokens(amount: int) -> str:
    """Base units as the test token's amount, to the last unit."""
    return f"{amount / TOKEN:,.6f} tUSD"
