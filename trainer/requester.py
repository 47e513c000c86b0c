"""What a requester asks a coordinator from the command line: who would train a job, until when, for how much."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from trainer.operator.config import checked_url
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import JobSpec, parse_spec

PATIENCE_S = 120.0
"""A plan for hundreds of nodes is weighed in many ways."""
UNSURE = {
    "nodes": "as these nodes' newest orders went",
    "others": "not all of these nodes have kept an order yet, and others' stand for theirs",
    "assumed": "nobody has measured these nodes yet",
}
"""By what a prediction rests on."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def plan(
    url: str | None, what: str, *, goal: str, deadline: str | None = None, target: str | None = None,
    max_rate: int | None = None, parameters: int | None = None, files: Mapping[str, Path] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The coordinator's proposals for `what`: the path of a specification in JSON, or the number of a job that it has. As
    `POST /api/v1/proposals` answers, with the `token` in which prices are.

    Raises HyperGPUError `plan.options`, `plan.size_unknown`, `spec.invalid`, `coordinator.unavailable` or what the coordinator
    refuses with.
    """
    if not url:
        raise HyperGPUError("plan.options", "Say whom to ask: --coordinator https://...")
    with httpx.Client(base_url=checked_url(url), timeout=PATIENCE_S) as client:
        token = asked(client, "GET", "/api/v1/network")["token"]
        if what.isdecimal():
            if deadline or target or max_rate:
                raise HyperGPUError("plan.options", f"Job {what} has its own deadline, target and rate: leave them out.")
            query = {"goal": goal} | ({"parameters": parameters} if parameters else {})
            return asked(client, "GET", f"/api/v1/jobs/{what}/proposals", params=query) | {"token": token}
        spec = with_target(parse_spec(json_of(Path(what))), target)
        body = {"spec": spec.model_dump(mode="json"), "goal": goal, "parameters": parameters}
        body |= {"finish_by": moment(deadline)} if deadline else {}
        body |= {"max_rate": max_rate} if max_rate else {}
        try:
            return asked(client, "POST", "/api/v1/proposals", json=body) | {"token": token}
        except HyperGPUError as error:
            if error.code != "plan.size_unknown":
                raise
        body["parameters"] = size_of(spec, files or {})
        return asked(client, "POST", "/api/v1/proposals", json=body) | {"token": token}


def asked(client: httpx.Client, method: str, path: str, **what: Any) -> dict[str, Any]:
    try:
        response = client.request(method, path, **what)
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise HyperGPUError("coordinator.unavailable", f"{client.base_url} does not answer as a coordinator: {error}") from error
    if response.is_error:
        raise HyperGPUError(answer.get("code", "coordinator.unavailable"), answer.get("message", f"HTTP {response.status_code}"))
    return dict(answer)


def size_of(spec: JobSpec, files: Mapping[str, Path]) -> int:
    """Parameters of the job's model, built here, which needs torch and the job's files."""
    hint = "The coordinator has not seen this model yet. Say how many parameters it has: --parameters N"
    try:
        from trainer.diloco.round import parameters  # noqa: PLC0415
    except ImportError as error:
        raise HyperGPUError("plan.size_unknown", f"{hint} (or install the extra `operator`, to count them here).") from error
    try:
        return parameters(JobWork(spec=spec, files=dict(files)))
    except HyperGPUError as error:
        if error.code == "data.missing_file":
            raise HyperGPUError("plan.size_unknown", f"{hint}, or where the data is: --file ROLE=PATH.") from error
        raise


def named_files(texts: Sequence[str]) -> dict[str, Path]:
    """ROLE=PATH of each."""
    named = [text.partition("=") for text in texts]
    if wrong := [text for text, (_, _, path) in zip(texts, named, strict=True) if not path]:
        raise HyperGPUError("plan.options", f"--file {wrong[0]} must be ROLE=PATH, such as text=shakespeare.txt.")
    return {role: Path(path) for role, _, path in named}


def json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        text = f"{path} is neither a job's number nor a specification in JSON: {error}."
        raise HyperGPUError("plan.options", text) from error


def with_target(spec: JobSpec, text: str | None) -> JobSpec:
    """The job with another target: a value of its own metric, or `loss=2.1`, `accuracy=0.9`."""
    if text is None:
        return spec
    metric, _, value = text.rpartition("=")
    try:
        target = {"metric": metric or spec.target.metric, "value": float(value)}
    except ValueError as error:
        raise HyperGPUError("plan.options", f"--target {text} is not a value, such as 2.1 or accuracy=0.9.") from error
    return parse_spec(spec.model_dump(mode="json") | {"target": target})


def moment(text: str, *, now: datetime | None = None) -> str:
    """RFC 3339: a time with its offset as it is, or so long from now, such as 90m, 6h, 2d."""
    if span := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        seconds = float(span[1]) * UNITS[span[2]]
        return ((now or datetime.now(UTC)) + timedelta(seconds=seconds)).isoformat()
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        kinds = "neither a time with its offset, such as 2030-01-31T18:00+01:00, nor 90m, 6h or 2d"
        raise HyperGPUError("plan.options", f"--deadline {text} is {kinds}.")
    return found.isoformat()


def can_be_done(answer: Mapping[str, Any]) -> bool:
    """Whether enough nodes are there, and the deadline, if there is one, can be met."""
    return any(one["in_time"] is not False for one in answer["proposals"])


def show(answer: Mapping[str, Any], screen: Console) -> None:
    """For people: the proposals, the best first, and the best one's reasons."""
    found, token = answer["proposals"], answer["token"]
    if not found:
        screen.print(f"[red]✘ {answer['bidders']} nodes are online with a fitting bid: fewer than the job's quorum.[/red]")
        return
    title = f"{answer['parameters']:,} parameters, {answer['bidders']} nodes with a fitting bid"
    table = Table(title=title, title_justify="left")
    for name in ("nodes", "rounds", "time", "at the worst", f"{token['symbol']} at most"):
        table.add_column(name, justify="right")
    table.add_column("changes", overflow="fold")
    for one in found:
        seconds, late = one["seconds"], "[red] late[/red]" if one["in_time"] is False else ""
        worst = "?" if seconds["high"] is None else span_of(seconds["high"])
        price = f"{one['price']['expected'] / 10 ** token['decimals']:.4f}"
        rounds = str(math.ceil(one["rounds"]["expected"]))
        table.add_row(
            str(len(one["nodes"])), rounds, span_of(seconds["expected"]) + late, worst, price, ", ".join(one["changes"]) or "none"
        )
    screen.print(table)
    if any(one["seconds"]["high"] is None for one in found):
        screen.print("?: how many rounds the target takes is not known yet, and nothing bounds it.", highlight=False)
    lasting = found[0]["round_seconds"]
    between = f"about {span_of(lasting['low'])} to {span_of(lasting['high'])} a round"
    screen.print(f"The first one takes {between}: {UNSURE[answer['basis']]}.", highlight=False)
    screen.print(f"Why the first one (nodes {', '.join(map(str, found[0]['nodes']))}):", highlight=False)
    for reason in found[0]["reasons"]:
        screen.print(f"- {reason['text']}", highlight=False, markup=False)
    if not can_be_done(answer):
        screen.print("[red]✘ Nothing that could be chosen meets the deadline.[/red]")


def span_of(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{rest} s" if not minutes else f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
