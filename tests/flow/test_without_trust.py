"""Whoever is missing, accepted work is paid: a dead attestor, a coordinator that does not settle. In mode `per-receipt`, so that
each contribution is on chain before anybody judged it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.hypergpu_demo import report
from scripts.hypergpu_demo.market import Market
from scripts.hypergpu_demo.stack import ROOT
from scripts.hypergpu_demo.supervise import Program, kill_group
from tests.support.stack import finished, running_stack, until

pytestmark = pytest.mark.processes

SPEC = {
    "rounds": {"rounds": 2, "nodes": 2, "quorum": 2, "deadline_seconds": 60},
    "target": {"metric": "accuracy", "value": 0.5},
}


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with running_stack(operators=2, settings={"HYPERGPU_SETTLEMENT_MODE": "per-receipt"}) as market:
        # Attestors load what they judge by with their first batch: on busy cores a settlement waits no longer for records.
        finished(market, market.post_job("first", SPEC)["id"], seconds=300)
        yield market


def take_away(market: Market, name: str) -> Program:
    """Kill a process and do not let it start again."""
    processes = market.stack.processes
    with processes.lock:
        running = processes.running.pop(name)
    kill_group(running.process.pid, signal.SIGKILL)
    running.process.wait()
    return running.program


def hypergpu(market: Market, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    where = ["--rpc", market.stack.rpc_url, "--contract", market.chain.market.address]
    return subprocess.run(
        [sys.executable, "-m", "trainer.cli", *command, *where], cwd=ROOT, env={**os.environ, **environment}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def proven(market: Market, snapshot: dict[str, Any]) -> None:
    """The chain alone says that all accepted work is paid, once and to the unit."""
    assert snapshot["job"]["state"] == "closed", snapshot["job"]["reason"]
    assert [c["state"] for c in snapshot["contributions"]] == ["accepted"] * 4
    assert {p["state"] for p in snapshot["payments"]} == {"final"}
    ledger = report.read_ledger(market.chain, snapshot)
    assert ledger.problems == []
    assert ledger.paid == ledger.spent > 0
    for node in snapshot["nodes"]:
        told = market.chain.market.functions.getNodeMetrics(node["id"]).call(block_identifier="finalized")
        shown = [node[name] for name in ("rounds", "units", "quality_sum", "faults")] + [int(node["credit"]), int(node["earned"])]
        assert shown == [*told[:5], told[6]], "the page shows what the chain has"
    verified = hypergpu(market, "verify", str(snapshot["job"]["chain_id"]))
    assert verified.returncode == 0, verified.stdout + verified.stderr
    audited = hypergpu(market, "audit", str(snapshot["job"]["chain_id"]), "--coordinator", market.stack.url)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert "2 rounds replayed: every version came out again" in audited.stdout


def test_every_contribution_is_on_chain_as_it_arrives_and_then_paid(market: Market) -> None:
    job = market.post_job("per receipt", SPEC)
    snapshot = finished(market, job["id"], seconds=300)
    recorded = market.chain.final_logs("ContributionRecorded", jobId=snapshot["job"]["chain_id"])
    assert sorted((log["args"]["round"], log["args"]["nodeId"]) for log in recorded) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len({log["transactionHash"] for log in recorded}) == 4
    settled = market.chain.final_logs("ContributionSettled", jobId=snapshot["job"]["chain_id"])
    assert max(log["blockNumber"] for log in recorded[:2]) < min(log["blockNumber"] for log in settled)
    shown = {payment["recorded_tx"] for payment in snapshot["payments"]}
    assert shown == {log["transactionHash"].to_0x_hex() for log in recorded}
    proven(market, snapshot)


def test_a_quorum_pays_when_an_attestor_is_gone(market: Market) -> None:
    attestor = take_away(market, "attestor-3")
    job = market.post_job("two of three", SPEC)
    snapshot = finished(market, job["id"], seconds=300)
    market.stack.processes.start(attestor)
    bundle = market.api.get(f"jobs/{job['id']}/rounds/1/settlement")
    gone = market.stack.keys.address("attestor-3")
    members = market.api.get("network")["attestors"]
    assert members.index(gone) not in {one["member"] for one in bundle["batches"][0]["attestations"]}
    proven(market, snapshot)


def test_the_attestors_take_turns(market: Market) -> None:
    until(lambda: market.api.get("network")["epoch"] > 1, what="the second epoch", seconds=300)
    job = market.post_job("after a new epoch", SPEC)
    proven(market, finished(market, job["id"], seconds=300))


def test_a_stranger_settles_when_the_coordinator_does_not(market: Market) -> None:
    job = market.post_job("settled by a stranger", SPEC)

    def seats_taken() -> bool:
        chain_id = market.api.get(f"jobs/{job['id']}")["job"]["chain_id"]
        view = market.chain.market.functions
        return bool(chain_id) and all(view.getSeat(chain_id, node).call()[1] for node in (1, 2))

    until(seats_taken, what="seats on chain")
    follower = take_away(market, "chain follower")
    stranger = "stranger"
    market.stack.fund(stranger)
    for round_ in (0, 1):
        url = f"jobs/{job['id']}/rounds/{round_}/settlement"
        until(lambda url=url: market.api.get(url), what=f"the bundle of round {round_}", seconds=90)
        source = ["--coordinator", market.stack.url]
        settled = hypergpu(market, "settle", str(job["id"]), str(round_), *source, HYPERGPU_KEY=market.stack.keys.key(stranger))
        assert settled.returncode == 0, settled.stdout + settled.stderr
    market.stack.processes.start(follower)
    snapshot = finished(market, job["id"], seconds=300)
    for payment in snapshot["payments"]:
        sender = market.chain.web3.eth.get_transaction(payment["tx_hash"])["from"]
        assert sender == market.stack.keys.address(stranger)
    proven(market, snapshot)
