"""Real agents near each other and far from a real coordinator, over emulated lossy links: one carries the others' uploads and
fetches the outer step for all of them, and when it dies they need nobody."""

from __future__ import annotations

import os
import re
import signal
import time
from functools import partial
from typing import Any

import pytest

from scripts.hypergpu_demo.market import Market
from tests.support.stack import running_stack, until
from trainer.network.profiles import LinkSpec, NodeSpec, Profile, RegionSpec
from trainer.protocol.spec import parse_spec
from trainer.protocol.wire import encoded_bytes

pytestmark = pytest.mark.processes

GATHERER, EARLY, LATE = 1, 2, 3
"""Nodes are numbered as the profile has them."""
SAMPLES_PER_SECOND = {GATHERER: 150, EARLY: 400, LATE: 100}
"""So that one has been carried, and the gatherer has handed in, when the other's upload is under way."""
PARAMETERS = 167_178
"""Of 64-512-256-10 with biases: as many as the profile's, so that no byte stands for another number of them."""
SPEC: dict[str, Any] = {
    "model": {"architecture": "mlp", "config": {"hidden": [512, 256]}},
    "inner": {"steps": 20, "batch_size": 16},
    "rounds": {"rounds": 2, "nodes": 3, "quorum": 3, "deadline_seconds": 120},
    "encoding": {"kind": "fp32"},
    "network": {"least_steps": 1, "most_steps": 1, "most_stale": 0},
    "audit": {"rate": 0, "newcomer_rate": 0},
}
SETTINGS = {"HYPERGPU_NETWORK": '{"upload_share": 100}'}
"""Uploads stay as long as they are: no smaller encoding is chosen for them."""
PASSED = 60_000
"""Bytes of an upload of 669 kB that are with the gatherer when it dies."""


def valley() -> Profile:
    """Two homes that lose 2 % of their packets, 212 ms from the coordinator and 12 ms from a server with a good way out."""
    clean = {"up_bps": 1e9, "down_bps": 1e9, "latency_s": 0.001, "public": True}
    lossy = {"up_bps": 5e7, "down_bps": 1e8, "latency_s": 0.005, "loss": 0.02}
    links = {GATHERER: clean, EARLY: lossy, LATE: lossy}
    return Profile(
        name="valley", description="A test", parameters=PARAMETERS, time_scale=1, regions={"valley": RegionSpec(latency_s=0.1)},
        nodes=tuple(NodeSpec(region="valley", samples_per_second=SAMPLES_PER_SECOND[node], **links[node]) for node in links),
        coordinator=LinkSpec(up_bps=1e9, down_bps=1e9),
    )  # fmt: skip


def test_near_nodes_upload_by_one_of_them_fetch_once_for_all_and_go_direct_when_it_dies():
    with running_stack(operators=3, settings=SETTINGS, network=valley(), spec=SPEC) as market:
        links, ways = market.stack.emulation.shaper.links, market.stack.emulation.shaper.ways
        assert market.api.get("network")["emulated"] == "links and machines of valley", "every page says so"
        job = market.post_job("gathered over emulated links", SPEC)["id"]

        first = until(partial(orders, market, job, 0), what="the first round")
        assert all(not uploads(order) for order in first.values()), "of links that nobody has measured nothing is decided"

        second = until(partial(orders, market, job, 1), what="the second round")
        began = [link.traffic.down for link in links]
        assert [reason["code"] for reason in uploads(second[GATHERER])] == ["upload.gathers"]
        for home in (EARLY, LATE):
            [reason] = uploads(second[home])
            assert reason["code"] == "upload.gathered" and "by way of node 1" in reason["text"]

        def is_under_way() -> bool:
            passed = ways[LATE - 1, GATHERER - 1].traffic.up > PASSED
            return passed and "uploaded by way of node 1" in log(market, EARLY) and "round 1: handed in" in log(market, GATHERER)

        until(is_under_way, what="an upload that is under way by the gatherer", every=0.005)
        assert "round 1: handed in" not in log(market, LATE)
        os.kill(market.stack.processes.pid(f"agent {GATHERER}"), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: "which goes direct" in log(market, LATE), what="going direct", every=0.01)
        assert time.monotonic() - killed < direct_seconds(uploads(second[LATE])[0]) / 2, "sooner than if it had just been silent"

        rounds = until(partial(aggregated, market, job, 2), what="the end of the last round")
        assert [round_["accepted"] for round_ in rounds] == [3, 3]
        assert ways[EARLY - 1, GATHERER - 1].traffic.up > 4 * PARAMETERS > links[EARLY - 1].traffic.up - 4 * PARAMETERS
        by_gatherer, direct = ways[LATE - 1, GATHERER - 1].traffic.up, links[LATE - 1].traffic.up
        assert direct > 4 * PARAMETERS and direct + by_gatherer > 2 * 4 * PARAMETERS, "what was not there yet went direct"

        step = encoded_bytes(PARAMETERS, parse_spec(SPEC).downlink)
        region = sum(link.traffic.down - before for link, before in zip(links, began, strict=True))
        assert step < region < 2 * step, "the outer step came into the region once, for three nodes"
        for home in (EARLY, LATE):
            assert f"kB from node {GATHERER}" in log(market, home)
            assert ways[home - 1, GATHERER - 1].traffic.down > step


def direct_seconds(reason: dict[str, str]) -> float:
    """What the whole upload was predicted to take direct; a gatherer that hangs for so long is given up."""
    found = re.search(r"instead of ([\d.]+) s", reason["text"])
    assert found, reason
    return float(found[1])


def orders(market: Market, job: int, number: int) -> dict[int, dict[str, Any]] | None:
    """Those of a round by node, once all of them are leased."""
    slots = [one for one in snapshot(market, job)["assignments"] if one["round"] == number]
    is_there = len(slots) == 3 and all(one["leased_at"] for one in slots)
    return {one["node_id"]: one for one in slots} if is_there else None


def aggregated(market: Market, job: int, rounds: int) -> list[dict[str, Any]] | None:
    found = [one for one in snapshot(market, job)["rounds"] if one["aggregated_at"]]
    return found if len(found) == rounds else None


def snapshot(market: Market, job: int) -> dict[str, Any]:
    found: dict[str, Any] = market.api.get(f"jobs/{job}")
    assert found["job"]["state"] != "failed", found["job"]["reason"]
    return found


def uploads(order: dict[str, Any]) -> list[dict[str, str]]:
    """Why its upload goes as it does."""
    return [reason for reason in order["reasons"] if reason["code"].startswith("upload.")]


def log(market: Market, node: int) -> str:
    return market.stack.processes.log(f"agent {node}").read_text(errors="replace")
