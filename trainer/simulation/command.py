"""`hypergpu simulate`: options to a run, its progress, a table, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from trainer.diloco.round import bench
from trainer.network.profiles import load_profile, load_trace
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import DataSpec, JobSpec, ModelSpec, TargetSpec, parse_spec
from trainer.simulation.network import Network, network_of
from trainer.simulation.plots import Curves, save_png
from trainer.simulation.rounds import Row
from trainer.simulation.run import POLICIES, PolicyName, simulate, stands_for

ARCHITECTURES = get_args(ModelSpec.model_fields["architecture"].annotation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    profile: str
    policies: Sequence[PolicyName]
    trace: Path | None = None
    nodes: int | None = None
    rounds: int | None = None
    model: str | None = None
    data: str | None = None
    job: Path | None = None
    files: Sequence[str] = ()
    seed: int = 0
    attack: str | None = None
    hostile: int = 2


@dataclass(slots=True)
class Found:
    """Rows of one policy, as far as it came; `error` says why no further."""

    policy: PolicyName
    rows: list[Row] = field(default_factory=list)
    error: HyperGPUError | None = None


def run(options: Options, screen: Console) -> dict[str, Any]:
    """Simulate each policy, show a table, and return what `--json` writes. Raises HyperGPUError for what cannot be run at all."""
    torch.set_num_threads(1)
    job = job_of(options)
    networks = [network_for(options) for _ in options.policies]  # each of its own: random draws are used up
    count = bench(job).size
    screen.print(stands_for(networks[0], job.spec, count), style="dim")
    found = [watch(job, network, policy, options.seed) for network, policy in zip(networks, options.policies, strict=True)]
    if all(one.error is not None and not one.rows for one in found):
        raise next(one.error for one in found if one.error is not None)
    screen.print(table(found, job.spec.target, len(networks[0].machines)))
    for one in found:
        if one.error is not None:
            screen.print(f"{one.policy} ended early: {one.error.message}", style="yellow")
    return {
        "emulated": stands_for(networks[0], job.spec, count), "profile": options.profile, "nodes": len(networks[0].machines),
        "attacks": dict(networks[0].attacks), "seed": options.seed, "spec": job.spec.model_dump(mode="json"),
        "policies": {one.policy: as_json(one, job.spec.target) for one in found},
    }  # fmt: skip


def watch(job: JobWork, network: Network, policy: PolicyName, seed: int) -> Found:
    """A run with a bar of its progress on stderr."""
    found = Found(policy)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(policy, total=job.spec.rounds.rounds)
        try:
            for row in simulate(job, network, policy, seed=seed):
                found.rows.append(row)
                progress.update(task, advance=1, description=f"{policy}: {row.seconds:,.0f} s emulated, loss {row.loss:.4f}")
        except HyperGPUError as error:
            found.error = error
    return found


# Options to values.


def job_of(options: Options) -> JobWork:
    """The job of `--job`, else one of `--model` on `--data`. Raises HyperGPUError `simulation.options`, `spec.invalid`, ..."""
    files = dict(role_and_path(text) for text in options.files)
    if options.job is not None:
        if options.model or options.data:
            raise wrong("--job says which model and data: leave out --model and --data.")
        spec = parse_spec(json_of(options.job))
    else:
        data, files = data_of(options.data or "digits")
        model = options.model or ("gpt" if data.kind == "text" else "mlp")
        if model not in ARCHITECTURES:
            raise wrong(f"There is no model {model!r}. Take one of {', '.join(ARCHITECTURES)}, or describe it in a --job file.")
        spec = JobSpec(model=ModelSpec.model_validate({"architecture": model}), data=data)
    if options.rounds is not None:
        spec = spec.model_copy(update={"rounds": spec.rounds.model_copy(update={"rounds": options.rounds})})
    return JobWork(spec=spec.model_copy(update={"seed": options.seed}), files=files)


def data_of(named: str) -> tuple[DataSpec, dict[str, Path]]:
    if named == "digits":
        return DataSpec(), {}
    path = Path(named)
    if not path.is_file():
        raise wrong(f"There is no data {named!r}: take 'digits', the path of a text file, or a --job with --file.")
    return DataSpec(kind="text", files={"text": sha256_hex(path.read_bytes())}), {"text": path}


def role_and_path(text: str) -> tuple[str, Path]:
    role, _, path = text.partition("=")
    if not path:
        raise wrong(f"--file {text!r} must be ROLE=PATH, such as text=shakespeare.txt.")
    return role, Path(path)


def json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise wrong(f"{path} is not a job's specification in JSON: {error}.") from error


def network_for(options: Options) -> Network:
    trace = None if options.trace is None else load_trace(options.trace)
    return network_of(
        load_profile(options.profile), seed=options.seed, nodes=options.nodes, trace=trace, attack=options.attack,
        hostile=options.hostile,
    )  # fmt: skip


def checked_policies(names: Sequence[str]) -> list[PolicyName]:
    """Raises HyperGPUError `simulation.options`."""
    if unknown := [name for name in names if name not in POLICIES]:
        raise wrong(f"There is no policy {unknown[0]!r}. Take one of {', '.join(POLICIES)}.")
    return [name for name in get_args(PolicyName) if name in names]


def wrong(message: str) -> HyperGPUError:
    return HyperGPUError("simulation.options", message)


# What came out.


def table(found: Sequence[Found], target: TargetSpec, nodes: int) -> Table:
    shown = Table(title="Times and bytes are emulated", title_justify="left")
    shown.add_column("")
    columns = []
    for one in found:
        if one.rows:
            shown.add_column(one.policy, justify="right")
            columns.append(column(summary(one.rows, target), nodes))
    to_target = f"time to {target.metric} {target.value:g}"
    lines = ("rounds", "time", "loss", "accuracy", to_target, "sent by a node", "received by a node", "nodes computed",
             "contributions refused", "contributions missing")  # fmt: skip
    for line in zip(lines, *columns, strict=True):
        shown.add_row(*line)
    return shown


def column(total: dict[str, Any], nodes: int) -> list[str]:
    to_target = total["seconds_to_target"]
    return [
        str(total["rounds"]), duration(total["seconds"]), f"{total['loss']:.4f}", f"{total['accuracy']:.3f}",
        "never" if to_target is None else duration(to_target), size(total["sent"] / nodes), size(total["received"] / nodes),
        f"{total['busy']:.0%}", str(total["refused"]), str(total["missing"]),
    ]  # fmt: skip


def summary(rows: Sequence[Row], target: TargetSpec) -> dict[str, Any]:
    """Of a whole run; bytes of all nodes."""
    last, began = rows[-1], [0.0, *(row.seconds for row in rows[:-1])]
    lasting = [row.seconds - start for row, start in zip(rows, began, strict=True)]
    return {
        "rounds": len(rows), "seconds": last.seconds, "loss": last.loss, "accuracy": last.accuracy,
        "seconds_to_target": next((row.seconds for row in rows if reached(row, target)), None),
        "samples": sum(row.samples for row in rows), "sent": sum(row.sent for row in rows),
        "received": sum(row.received for row in rows),
        "busy": sum(row.busy * seconds for row, seconds in zip(rows, lasting, strict=True)) / last.seconds,
        "refused": sum(len(row.refused) for row in rows), "missing": sum(len(row.missing) for row in rows),
    }  # fmt: skip


def reached(row: Row, target: TargetSpec) -> bool:
    return row.accuracy >= target.value if target.metric == "accuracy" else row.loss <= target.value


def as_json(found: Found, target: TargetSpec) -> dict[str, Any]:
    error = None if found.error is None else {"code": found.error.code, "message": found.error.message}
    return {"summary": summary(found.rows, target) if found.rows else None, "error": error,
            "rows": [row.as_json() for row in found.rows]}  # fmt: skip


def plot(result: dict[str, Any], path: Path) -> None:
    """Loss over emulated time and over rounds. Raises HyperGPUError as `save_png`."""
    runs = {name: run["rows"] for name, run in result["policies"].items() if run["rows"]}
    in_time = {name: [(row["seconds"], row["loss"]) for row in rows] for name, rows in runs.items()}
    in_rounds = {name: [(row["round"] + 1, row["loss"]) for row in rows] for name, rows in runs.items()}
    loss = "held-out loss, nats"
    panels = [
        Curves(title=f"{result['profile']}: over emulated time", x="seconds (emulated)", y=loss, lines=in_time, log="x"),
        Curves(title="over rounds", x="round", y=loss, lines=in_rounds),
    ]
    save_png(panels, path, title="emulated network, real gradients")


def duration(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 120 else f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def size(amount: float) -> str:
    return f"{amount / 1e6:,.1f} MB" if amount < 1e9 else f"{amount / 1e9:,.1f} GB"
