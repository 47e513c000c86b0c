"""kill -9 of each process in the middle of a round: the job still ends, nobody is paid twice, nothing accepted goes unpaid."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import psutil
import pytest

from scripts.hypergpu_demo import report
from scripts.hypergpu_demo.market import Market
from tests.support.stack import finished, running_stack, until

pytestmark = pytest.mark.processes

VICTIMS = ("agent 1", "worker of agent 2", "control", "compute", "attestor-2", "chain follower", "web", "redis")
SPEC = {
    "rounds": {"rounds": len(VICTIMS) + 1, "nodes": 2, "quorum": 1, "deadline_seconds": 60},
    "inner": {"steps": 1500, "batch_size": 64, "learning_rate": 1e-4},  # long enough for a heartbeat in the middle
    "target": {"metric": "accuracy", "value": 0.75},
}


def test_killing_any_process_in_the_middle_of_a_round_loses_nothing_and_pays_nobody_twice():
    with running_stack(operators=2) as market:
        job = market.post_job("kill -9", SPEC)
        for number, victim in enumerate(VICTIMS):
            until(partial(is_mid_round, market, job["id"], number), what=f"the middle of round {number}", seconds=240)
            kill(market, victim)
        snapshot = finished(market, job["id"], seconds=400)

        supervised = {name for name in VICTIMS if not name.startswith("worker")}
        assert supervised <= set(market.stack.processes.restarts)
        assert snapshot["job"]["state"] == "closed", snapshot["job"]["reason"]
        assert snapshot["job"]["round"] == len(VICTIMS) + 1
        assert report.improved(snapshot["job"])
        assert {p["state"] for p in snapshot["payments"]} == {"final"}
        ledger = report.read_ledger(market.chain, snapshot)
        assert ledger.problems == []
        assert ledger.closed
        assert ledger.paid == ledger.spent
        assert ledger.transactions == len(VICTIMS) + 1


def is_mid_round(market: Market, job_id: int, number: int) -> bool:
    """Whether round `number` is open, with a node that has trained a part of its steps."""
    snapshot: dict[str, Any] = market.api.get(f"jobs/{job_id}")
    assert snapshot["job"]["state"] in ("draft", "funded", "running"), snapshot["job"]["reason"]
    opened = [round_ for round_ in snapshot["rounds"] if round_["number"] >= number and round_["state"] == "open"]
    return (
        any(a["round"] == opened[0]["number"] and 0 < a["step"] < a["steps"] for a in snapshot["assignments"])
        if opened
        else False
    )


def kill(market: Market, victim: str) -> None:
    processes = market.stack.processes
    if victim.startswith("worker of "):
        children = psutil.Process(processes.pid(victim.removeprefix("worker of "))).children(recursive=True)
        pid = next(child.pid for child in children if "trainer.operator.worker" in child.cmdline())
    else:
        pid = processes.pid(victim)
    os.kill(pid, signal.SIGKILL)
    until(
        lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, what=f"the death of {victim}"
    )
