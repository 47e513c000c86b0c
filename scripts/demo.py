"""A whole marketplace on this machine: processes, operators with their own wallets, a paid job. Started by scripts/demo."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from scripts.hypergpu_demo import emulation, recipes
from scripts.hypergpu_demo.emulation import Emulation
from scripts.hypergpu_demo.ports import claim
from scripts.hypergpu_demo.stack import ROOT, Stack, wipe
from scripts.hypergpu_demo.supervise import StackError
from scripts.hypergpu_demo.view import ENDED, View, tokens

SETTLE_SECONDS = 180
"""Patience for the last payments after the last round."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description="Train a paid job on this machine, live in the browser.")
    parser.add_argument("--once", action="store_true", help="end when the job is done; exit code 0 only if all of it is proven")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of the run")
    parser.add_argument("--job", choices=sorted(recipes.MODELS), default="digits")
    parser.add_argument("--data", type=Path, metavar="PATH", help="the text file of --job text")
    parser.add_argument("--rounds", type=positive, help="outer rounds")
    parser.add_argument("--operators", type=positive, help="operators with one node each (default 4; as many as the profile has)")
    parser.add_argument("--model", help="an architecture: " + ", ".join(recipes.model_names()))
    parser.add_argument("--network", metavar="PROFILE", help="emulated links and machines: a profile's name or .json file")
    parser.add_argument(
        "--policy", choices=("adaptive", "equal"), default="adaptive",
        help="adaptive: steps and encoding by node. equal: plain DiLoCo, equal steps, dense fp32, everybody is waited for",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the job and of the emulated links (default 0)")
    parser.add_argument("--port", type=int, default=8000, help="of the page; chain and redis take the next two (default 8000)")
    parser.add_argument("--state", type=Path, default=ROOT / ".state" / "demo", help="where all of it is kept between runs")
    parser.add_argument("--fresh", action="store_true", help="begin with an empty state folder")
    parser.add_argument("--keep", action="store_true", help="with --once: go on serving the page after the job")
    return parser.parse_args()


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        return run(options)
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        return 130


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run(options: argparse.Namespace) -> int:
    files = recipes.data_files(job=options.job, data=options.data)
    profile = emulation.profile_named(options.network) if options.network else None
    options.operators = options.operators or (len(profile.members()) if profile else 4)
    if profile and profile.model in recipes.MODELS[options.job]:
        options.model = options.model or profile.model
    spec = job_spec(options, dict.fromkeys(files, "0" * 64))
    state = options.state.resolve()
    ports = claim(options.port)
    if options.fresh and state.exists():
        wipe(state)
    view = View(f"http://127.0.0.1:{ports.web}")
    began = time.monotonic()
    with ExitStack() as running:
        links = None
        if profile:
            links = running.enter_context(
                Emulation(profile, spec, files, port=ports.web, operators=options.operators, seed=options.seed)
            )
            view.say(f"[yellow]{links.sentence}[/yellow]")
        stack = running.enter_context(Stack(state, ports=ports, operators=options.operators, say=view.say, emulation=links))
        view.say(f"Starting a local test chain, the marketplace and {options.operators} operator agents (logs: {state}/logs)")
        stack.start()
        view.say(f"The page is up: [bold]{view.url}[/bold]")
        outcome = train(stack, view, options, files, began)
        serving = options.keep or not options.once
        if serving:
            view.say(f"Serving [bold]{view.url}[/bold] until Ctrl-C.")
            view.say("Connect a wallet of your own there: it gets this test chain, gas and tokens from the page.")
        while serving:
            stack.processes.check()
            time.sleep(0.5)
        return outcome


def job_spec(options: argparse.Namespace, files: dict[str, str]) -> dict[str, Any]:
    """`files` are SHA-256 by role."""
    return recipes.spec(
        job=options.job, model=options.model, rounds=options.rounds, operators=options.operators, files=files,
        policy=options.policy, emulated=bool(options.network), seed=options.seed,
    )  # fmt: skip


def train(stack: Stack, view: View, options: argparse.Namespace, files: dict[str, Path], began: float) -> int:
    """Have operators bid, post the job, watch it, check it against the chain. The exit code."""
    from scripts.hypergpu_demo.market import Market  # noqa: PLC0415  (web3 loads while the workers do)

    market = Market(stack)
    market.api.sign_in(stack.keys.wallet("requester"), market.domain.chain_id)
    nodes = market.join_operators()
    view.say(f"{len(nodes)} operators have staked, registered a node each and bid (nodes {', '.join(map(str, nodes))})")
    stack.wait_for_workers()
    market.wait_for_agents(nodes)
    spec = job_spec(options, market.upload(files))
    posted_at = datetime.now(UTC)
    title = f"{options.job} {spec['model']['architecture']}"
    if stack.emulation:
        title += f", emulated network {stack.emulation.profile.name}, {options.policy} policy"
    job = market.post_job(title, spec)
    view.say(f"Job {job['id']} is posted and its escrow of {tokens(int(job['escrow']))} is on chain: {view.url}/jobs/{job['id']}")
    with view:
        snapshot = watch(stack, market, view, job["id"])
    network = stack.emulation.report(snapshot, nodes, policy=options.policy) if stack.emulation else None
    return conclude(market, view, options, snapshot, posted_at=posted_at, began=began, network=network)


def watch(stack: Stack, market: Any, view: View, job_id: int) -> dict[str, Any]:
    """Show the job until it is closed on chain, or ended and out of patience."""
    ended_at: float | None = None
    while True:
        stack.processes.check()
        snapshot: dict[str, Any] = market.api.get(f"jobs/{job_id}")
        view.show(snapshot)
        if snapshot["job"]["state"] == "closed" and all(round_["metric"] for round_ in snapshot["rounds"]):
            return snapshot
        if snapshot["job"]["state"] in ENDED:
            ended_at = ended_at or time.monotonic()
            if time.monotonic() - ended_at > SETTLE_SECONDS:
                return snapshot
        time.sleep(0.5)


def conclude(
    market: Any, view: View, options: argparse.Namespace, snapshot: dict[str, Any], *, posted_at: datetime, began: float,
    network: dict[str, Any] | None,
) -> int:  # fmt: skip
    from scripts.hypergpu_demo import report  # noqa: PLC0415

    ledger = report.read_ledger(market.chain, snapshot)
    figures = report.summary(snapshot, ledger, posted_at=posted_at, wall_seconds=time.monotonic() - began)
    if network:
        figures["network"] = network
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    details, name = figures["details"], figures["details"]["metric"]
    view.say(
        f"{name} {figures['start_metric']:.4f} → {figures['final_metric']:.4f} (target {details['target']}) "
        f"in {figures['rounds']} rounds by {figures['operators']} operators"
    )
    view.say(
        f"{figures['receipts_settled']} contributions paid {tokens(ledger.paid)} in {figures['settle_transactions']} "
        f"transactions; final p50 {figures['settle_seconds_p50']} s, p95 {figures['settle_seconds_p95']} s after hand-in"
    )
    for line in emulation.lines(network) if network else []:
        view.say(line)
    problems = list(ledger.problems)
    if not report.improved(snapshot["job"]):
        problems.append(f"the job did not pass its target ({name} {details['target']}); {snapshot['job']['reason'] or ''}")
    if not ledger.closed:
        problems.append("the job was not closed on chain")
    for problem in problems:
        view.say(f"[red]✘[/red] {problem}")
    if not problems:
        view.say("[green]✔[/green] Read from the chain: every accepted contribution is paid, credits equal the escrow spent.")
    return 1 if problems else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
