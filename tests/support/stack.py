"""The real processes of the product, for tests: on free ports, in a folder that is thrown away."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from scripts.hypergpu_demo.emulation import Emulation
from scripts.hypergpu_demo.market import Market
from scripts.hypergpu_demo.ports import free_ports
from scripts.hypergpu_demo.stack import Stack
from scripts.hypergpu_demo.supervise import StackError
from trainer.network.profiles import Profile

ENDED = ("closed", "failed")


@contextmanager
def running_stack(
    *, operators: int, settings: Mapping[str, str] | None = None, network: Profile | None = None,
    spec: Mapping[str, Any] | None = None,
) -> Iterator[Market]:  # fmt: skip
    """A stack whose operators have registered, bid and loaded their workers; the requester is signed in.

    `settings` are further HYPERGPU_... variables; agents are behind the emulated links of `network`, where bytes are scaled for
    a job as `spec` says. It uses PostgreSQL, with a database of its own, where
    HYPERGPU_DATABASE_URL names a server.
    """
    state = Path(tempfile.mkdtemp(prefix="hg-"))  # short: agents keep Unix sockets below it
    said: list[str] = []
    ports = free_ports()
    links = Emulation(network, dict(spec or {}), {}, port=ports.web, operators=operators, seed=0) if network else None
    try:
        with (
            own_database() as database,
            links or nullcontext(),
            Stack(
                state, ports=ports, operators=operators, say=said.append, settings={**database, **(settings or {})},
                emulation=links,
            ) as stack,
        ):  # fmt: skip
            try:
                yield joined(stack)
            except BaseException:
                show(stack, said)
                raise
    finally:
        shutil.rmtree(state, ignore_errors=True)


def joined(stack: Stack) -> Market:
    stack.start()
    market = Market(stack)
    market.api.sign_in(stack.keys.wallet("requester"), market.domain.chain_id)
    nodes = market.join_operators()
    stack.wait_for_workers()
    market.wait_for_agents(nodes)
    return market


@contextmanager
def own_database() -> Iterator[Mapping[str, str]]:
    server = os.environ.get("HYPERGPU_DATABASE_URL")
    if not server:
        yield {}
        return
    name = f"stack_{uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    try:
        yield {"HYPERGPU_DATABASE_URL": server.replace("/postgres?", f"/{name}?")}
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def show(stack: Stack, said: list[str]) -> None:
    """On failure: what the supervisor said, and the end of every log."""
    print("\n".join(said))  # noqa: T201
    for log in sorted([*stack.processes.logs.glob("*.log"), *stack.state.glob("agents/*/logs/*.log")]):
        lines = log.read_text(errors="replace").splitlines()[-25:]
        print(f"--- {log.relative_to(stack.state)}", *lines, sep="\n")  # noqa: T201


def until(question: Callable[[], Any], *, what: str, seconds: float = 60, every: float = 0.05) -> Any:
    """The first true answer; an error of the stack (a server that is down) counts as no. AssertionError after `seconds`."""
    end, last = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        try:
            if answer := question():
                return answer
        except StackError as error:
            last = str(error)
        time.sleep(every)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s. {last}")


def finished(market: Market, job_id: int, *, seconds: float) -> dict[str, Any]:
    """The job's snapshot once it is closed on chain, or has failed for good."""

    def closed() -> dict[str, Any] | None:
        snapshot: dict[str, Any] = market.api.get(f"jobs/{job_id}")
        return snapshot if snapshot["job"]["state"] in ENDED else None

    snapshot: dict[str, Any] = until(closed, what="the end of the job", seconds=seconds, every=0.3)
    return snapshot
