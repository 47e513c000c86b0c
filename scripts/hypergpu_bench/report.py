"""What a benchmark answers: rows for people, figures for machines; both with what it takes to run it again."""

from __future__ import annotations

import json
import math
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import stats

from trainer.simulation.plots import Panel, save_png

ROOT = Path(__file__).parents[2]
PACKAGES = ("hypergpu", "django", "celery", "web3", "torch")
LEAST_AND_MOST = "the least and the most over seeds"
INTERVAL = "the ends of the 95 % t interval of the mean over seeds"
NPM = ("@foundry-rs/anvil", "solc", "@openzeppelin/contracts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """`low` and `high` are what `Measured.spread` says; `goal` None where none is set.
    Whether more or less is better is in the unit's nature: gas and seconds want to be small."""

    value: float
    unit: str
    goal: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """`conditions` are sentences: what is real, what is emulated. Each of `rows` is one line of the table; `more` are further
    tables by name; `plots` are the panels of the PNG; `spread` says what "low" and "high" are."""

    seeds: Sequence[int]
    conditions: Sequence[str]
    rows: Sequence[dict[str, Any]]
    figures: dict[str, Figure]
    more: Mapping[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    plots: Sequence[Panel] = ()
    spread: str = LEAST_AND_MOST


class Interval(NamedTuple):
    mean: float
    low: float | None
    high: float | None


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent values and its 95 % confidence interval by Student's t; one value has no interval.
    Raises ValueError for none."""
    if not values:
        raise ValueError("an interval needs at least one value")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, None, None)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    name: str
    command: str
    versions: dict[str, str]
    measured: Measured

    def as_json(self) -> dict[str, Any]:
        measured = asdict(self.measured)
        more = measured.pop("more")
        return {"name": self.name, "command": self.command, "versions": self.versions, **measured, **more}


def versions() -> dict[str, str]:
    """Of what a figure depends on. `commit` ends with a plus when the tree differs from it."""
    git = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True, check=False)
    lock = json.loads((ROOT / "contracts" / "package-lock.json").read_text())["packages"]
    return {
        "commit": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        **{name: metadata.version(name) for name in PACKAGES},
        **{name: lock[f"node_modules/{name}"]["version"] for name in NPM},
    }


def show(result: Result) -> None:
    """The rows as a table, the figures below."""
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
    measured = result.measured
    for sentence in measured.conditions:
        console.print(f"[dim]{escape(sentence)}[/dim]")
    for title, lines in {result.name: measured.rows, **measured.more}.items():
        console.print(table(title, lines))
    figures = [
        {"figure": name, "value": number(figure.value), "unit": figure.unit, "goal": number(figure.goal),
         "low": number(figure.low), "high": number(figure.high)}
        for name, figure in measured.figures.items()
    ]  # fmt: skip
    console.print(table("figures", figures))


def table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    shown = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict)))
    for name in columns:
        text = any(isinstance(row.get(name), str) and not row[name][:1].isdigit() for row in rows)
        shown.add_column(name, justify="left" if text else "right")
    for row in rows:
        shown.add_row(*(number(row.get(name)) for name in columns))
    return shown


def number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}" if abs(value) < 10 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else escape(str(value))


def write(result: Result, path: Path) -> None:
    """The result as JSON, and beside it, where there is something to plot, a PNG of the same name."""
    path.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    if result.measured.plots:
        save_png(result.measured.plots, path.with_suffix(".png"), title=result.name)
