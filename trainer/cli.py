"""`hypergpu ...`: one command for all. Each command imports what it needs when it runs."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from trainer.operator.config import DEFAULT_HOME, Home, checked_url, load_config
from trainer.operator.console import Console
from trainer.operator.version import VERSION
from trainer.protocol.errors import HyperGPUError

if TYPE_CHECKING:
    from trainer.operator.pinning import Pin


class RunByDefault(TyperGroup):
    """`hypergpu agent [options]` is `hypergpu agent run [options]`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
agent = typer.Typer(cls=RunByDefault, help="Offer this machine's GPU. Without a command: run.")
app.add_typer(agent, name="agent")

HomeOption = Annotated[Path, typer.Option("--home", envvar="HYPERGPU_AGENT_HOME", help="Where the agent keeps key and files.")]
CoordinatorOption = Annotated[
    str | None, typer.Option("--coordinator", envvar="HYPERGPU_COORDINATOR", help="https://... (kept for the next time)")
]


@app.callback(invoke_without_command=True)
def hypergpu(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Train on, and with, other people's GPUs."""
    if version:
        typer.echo(f"hypergpu {VERSION}")
        raise typer.Exit


@agent.command()
def run(
    home: HomeOption = Path(DEFAULT_HOME),
    coordinator: CoordinatorOption = None,
    name: Annotated[str | None, typer.Option(help="Shown beside the node's number; default: this machine's name.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for training; default: all cores.")] = None,
    gpu: Annotated[int | None, typer.Option(min=0, help="Which GPU; run one agent, with its own --home, for each.")] = None,
    gpus: Annotated[int, typer.Option(min=1, help="So many GPUs train one model together, as one node (FSDP).")] = 1,
    public_url: Annotated[
        str | None, typer.Option(envvar="HYPERGPU_AGENT_PUBLIC_URL", help="Where other nodes reach this one: http://HOST:PORT.")
    ] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen at for them; default: that port, everywhere.")] = None,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Print JSON lines.")] = False,
) -> None:
    """Lease work, train, hand in, get paid. Ends on Ctrl-C or SIGTERM."""
    from trainer.operator.agent import run_agent  # noqa: PLC0415

    console = Console(as_json=json_logs)
    try:
        config = load_config(
            Home.at(home), coordinator=coordinator, name=name, threads=threads, gpu=gpu, gpus=gpus, endpoint=public_url,
            listen=listen,
        )  # fmt: skip
        run_agent(config, console)
    except HyperGPUError as error:
        console.say("agent.failed", str(error), code=error.code)
        raise typer.Exit(1) from error


@agent.command()
def key(home: HomeOption = Path(DEFAULT_HOME)) -> None:
    """Print the address of this node's hot key; make the key if there is none."""
    from trainer.operator.identity import address_of, load_or_create_key  # noqa: PLC0415

    try:
        typer.echo(address_of(load_or_create_key(Home.at(home).key)))
    except HyperGPUError as error:
        end_with(error)


@agent.command()
def preload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Data files of jobs.")],
    home: HomeOption = Path(DEFAULT_HOME),
) -> None:
    """Take data files that are on this machine already, so that they are not downloaded. Prints their SHA-256 and names."""
    from trainer.operator.cache import preload as take  # noqa: PLC0415

    try:
        cache = Home.at(home).cache
        for file in files:
            typer.echo(f"{take(file, cache)}  {file}")
    except HyperGPUError as error:
        end_with(error)


@agent.command()
def delegate(
    operator: Annotated[str, typer.Option(help="The wallet that stakes for this node and is paid.")],
    home: HomeOption = Path(DEFAULT_HOME),
    coordinator: CoordinatorOption = None,
    days: Annotated[float, typer.Option(min=0.01, help="How long the key may work.")] = 30,
    nonce: Annotated[int, typer.Option(min=0, help="How often this key was delegated before.")] = 0,
) -> None:
    """Print, as JSON, the hot key's consent to work for a wallet: what registerNode needs."""
    from trainer.operator.delegation import delegation_document  # noqa: PLC0415
    from trainer.operator.identity import load_or_create_key  # noqa: PLC0415

    try:
        config = load_config(Home.at(home), coordinator=coordinator)
        document = delegation_document(
            known_pin(config.home, config.coordinator), url=config.coordinator, operator=operator,
            hot_key_private=load_or_create_key(config.home.key), expires_at=int(time.time() + days * 86_400), nonce=nonce,
        )  # fmt: skip
    except HyperGPUError as error:
        end_with(error)
    typer.echo(json.dumps(document, indent=2))


@agent.command()
def doctor(
    home: HomeOption = Path(DEFAULT_HOME),
    coordinator: CoordinatorOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Check all that an agent needs. Exit code 1 when something is missing."""
    from trainer.operator.doctor import examine  # noqa: PLC0415

    findings = []
    try:
        for finding in examine(load_config(Home.at(home), coordinator=coordinator)):
            findings.append(finding)
            if not as_json:
                typer.echo(finding.line)
    except HyperGPUError as error:
        end_with(error)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


RpcOption = Annotated[str, typer.Option("--rpc", envvar="HYPERGPU_RPC", help="JSON-RPC address of any node of the chain.")]
ContractOption = Annotated[str, typer.Option("--contract", envvar="HYPERGPU_CONTRACT", help="Address of the ComputeMarket.")]


@app.command()
def verify(
    job: Annotated[int, typer.Argument(min=1, help="The job's number on the chain.")],
    rpc: RpcOption,
    contract: ContractOption,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    from_block: Annotated[int | None, typer.Option(min=0, help="Where to begin; default: the market's first block.")] = None,
) -> None:
    """Recompute every payment of a job from the chain alone.

    Exit code 0: all of it is proven. 1: something is off, or not provable. 2: it could not be checked.
    """
    from rich.console import Console as Screen  # noqa: PLC0415

    from trainer.ledger.history import read_history  # noqa: PLC0415
    from trainer.ledger.progress import steps  # noqa: PLC0415
    from trainer.ledger.report import show  # noqa: PLC0415
    from trainer.ledger.rpc import Rpc  # noqa: PLC0415
    from trainer.ledger.verify import verify as recompute  # noqa: PLC0415

    try:
        with steps() as step:
            report = recompute(read_history(Rpc(rpc), contract, job, first=from_block, step=step))
    except HyperGPUError as error:
        end_with(error, exit_code=2)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show(report, Screen())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def audit(
    job: Annotated[int, typer.Argument(min=1, help="The job's number on the chain.")],
    rpc: RpcOption,
    contract: ContractOption,
    coordinator: CoordinatorOption = None,
    artifacts: Annotated[
        Path | None, typer.Option(help="A folder of files named by their SHA-256, instead of a coordinator.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    from_block: Annotated[int | None, typer.Option(min=0, help="Where to begin; default: the market's first block.")] = None,
) -> None:
    """Replay the aggregation of every settled round of a job, bit by bit, from its public artifacts.

    Needs the extra `operator` (torch). Exit code 0: every version came out again. 1: something is off, or missing. 2: it could
    not be checked.
    """
    from rich.console import Console as Screen  # noqa: PLC0415

    from trainer.ledger import audit as auditing  # noqa: PLC0415
    from trainer.ledger.history import read_history  # noqa: PLC0415
    from trainer.ledger.progress import steps  # noqa: PLC0415
    from trainer.ledger.rpc import Rpc  # noqa: PLC0415

    try:
        read = auditing.source(coordinator=coordinator, folder=artifacts)
        with steps() as step:
            report = auditing.audit(read_history(Rpc(rpc), contract, job, first=from_block, step=step), read, step=step)
    except HyperGPUError as error:
        end_with(error, exit_code=2)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        auditing.show(report, Screen())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def settle(
    job: Annotated[int, typer.Argument(min=1, help="With --bundle the chain's number of the job, else the coordinator's.")],
    round: Annotated[int, typer.Argument(min=0)],
    rpc: RpcOption,
    contract: ContractOption,
    coordinator: Annotated[str | None, typer.Option(help="Who publishes the round's attested batches: https://...")] = None,
    bundle: Annotated[Path | None, typer.Option(help="A file with what the coordinator published.")] = None,
    keystore: Annotated[Path | None, typer.Option(help="Encrypted key that pays the gas; default: HYPERGPU_KEY.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Its password; default: asked for.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and try, send nothing, need no key.")] = False,
) -> None:
    """Bring a round's attested batches to the chain, whoever you are, so that its nodes are paid."""
    import os  # noqa: PLC0415
    from getpass import getpass  # noqa: PLC0415

    from trainer.ledger import settle as settling  # noqa: PLC0415
    from trainer.ledger.keys import load_key  # noqa: PLC0415
    from trainer.ledger.rpc import Rpc  # noqa: PLC0415

    try:
        found = settling.find_bundle(job, round, coordinator=coordinator, file=bundle)
        node = Rpc(rpc)
        payer = None
        if not dry_run:
            payer = load_key(
                chain_id=node.chain_id(), keystore=keystore, password_file=password_file, environment=os.environ, ask=getpass
            )
        outcome = settling.settle(node, found, market=contract, account=payer, say=typer.echo)
    except HyperGPUError as error:
        end_with(error)
    if outcome.already:
        typer.echo(f"✔ Round {round} of job {found.job_id} is settled already; there is nothing to do.")
        return
    for paid in outcome.payments:
        typer.echo(f"  node {paid.node_id}: {paid.units} units at quality {paid.quality / 10_000:.4f}, {paid.amount} base units")
    typer.echo("✔ It would settle; nothing was sent." if dry_run else f"✔ Round {round} of job {found.job_id} is settled.")


@app.command()
def plan(
    what: Annotated[str, typer.Argument(metavar="SPEC", help="A job's specification in JSON, or the number of a job.")],
    coordinator: Annotated[str | None, typer.Option(envvar="HYPERGPU_COORDINATOR", help="Whom to ask: https://...")] = None,
    goal: Annotated[str, typer.Option(help="price or time: the least of which, until the target is reached.")] = "price",
    deadline: Annotated[str | None, typer.Option(help="Finish by: 90m, 6h, 2d, or 2030-01-31T18:00+01:00.")] = None,
    target: Annotated[str | None, typer.Option(help="Another target than the job's: 2.1, loss=2.1, accuracy=0.9.")] = None,
    max_rate: Annotated[int | None, typer.Option(min=1, help="Base units a sample at most; default: any bid.")] = None,
    parameters: Annotated[int | None, typer.Option(min=1, help="Of the model, where the coordinator has not built it.")] = None,
    file: Annotated[list[str] | None, typer.Option(help="ROLE=PATH of the job's data, to count the parameters here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Who would train a job, until when, for how much: nodes, local steps and density as the bids that are open now have it.

    Exit code 0: it can be done. 1: too few nodes bid, or none of the choices meets the deadline. 2: it could not be asked.
    """
    from rich.console import Console as Screen  # noqa: PLC0415

    from trainer import requester  # noqa: PLC0415

    try:
        files = requester.named_files(file or ())
        with Screen(stderr=True).status("The coordinator weighs who could do it…"):
            answer = requester.plan(
                coordinator, what, goal=goal, deadline=deadline, target=target, max_rate=max_rate, parameters=parameters,
                files=files,
            )  # fmt: skip
    except HyperGPUError as error:
        end_with(error, exit_code=2)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        requester.show(answer, Screen())
    if not requester.can_be_done(answer):
        raise typer.Exit(1)


@app.command()
def simulate(
    profile: Annotated[
        str, typer.Option(help="lan, wan-good, wan-hetero, regions, flaky, asymmetric, mobile, hostile-20 or FILE")
    ],
    policy: Annotated[list[str], typer.Option(help="centralized, ddp, diloco, network-aware; several to compare them.")],
    trace: Annotated[Path | None, typer.Option(help="JSON lines of what was measured; replaces the profile's nodes.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, max=1024, help="How many; default: as the profile.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=100_000, help="Default: as the job.")] = None,
    model: Annotated[str | None, typer.Option(help="mlp, cnn, gpt, ...; default: mlp, or gpt for text.")] = None,
    data: Annotated[str | None, typer.Option(help="'digits' or the path of a text file.")] = None,
    job: Annotated[Path | None, typer.Option(help="A job's specification in JSON, instead of --model and --data.")] = None,
    file: Annotated[list[str] | None, typer.Option(help="ROLE=PATH of the job's data, for each of its files.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    attack: Annotated[str | None, typer.Option(help="What hostile nodes do, such as sign_flip, lazy_50, alie.")] = None,
    hostile: Annotated[int, typer.Option(min=1, help="How many, where the profile has none.")] = 2,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every round.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG of loss over time and over rounds.")] = None,
) -> None:
    """Train for real on an emulated network: which policy is how fast on which links, and what hostile nodes do to it."""
    from rich.console import Console as Screen  # noqa: PLC0415

    from trainer.simulation import command  # noqa: PLC0415

    try:
        result = command.run(
            command.Options(
                profile=profile, policies=command.checked_policies(policy), trace=trace, nodes=nodes, rounds=rounds, model=model,
                data=data, job=job, files=file or (), seed=seed, attack=attack, hostile=hostile,
            ),
            Screen(),
        )  # fmt: skip
        if json_file is not None:
            json_file.write_text(json.dumps(result, indent=2) + "\n")
        if plot is not None:
            command.plot(result, plot)
    except HyperGPUError as error:
        end_with(error)
    except OSError as error:
        end_with(HyperGPUError("simulation.not_written", f"{error.filename} cannot be written: {error.strerror}."))


def known_pin(home: Home, url: str) -> Pin:
    """The pinned chain, or, before the first hello, the one that the coordinator's public page names (pinned from then on)."""
    import httpx  # noqa: PLC0415

    from trainer.operator.pinning import hold_to_pin, pin_from_network, read_pin  # noqa: PLC0415

    if (pin := read_pin(home.pin)) is not None:
        return pin
    try:
        answer = httpx.get(f"{checked_url(url)}/api/v1/network", timeout=10).raise_for_status().json()
    except httpx.HTTPError as error:
        raise HyperGPUError("coordinator.unavailable", f"{url} does not answer: {error}") from error
    return hold_to_pin(home.pin, pin_from_network(answer))


def end_with(error: HyperGPUError, *, exit_code: int = 1) -> NoReturn:
    typer.echo(f"✘ {error.message}", err=True)
    raise typer.Exit(exit_code) from error


def main() -> None:
    app()


if __name__ == "__main__":
    main()
