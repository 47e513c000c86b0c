"""Real agents near each other and far from a real coordinator, over emulated lossy links: one carries the others' uploads and
fetches the outer step for all of them, and when it dies they need nobody."""

from __future__ import annotations

import os
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

GATHERER, HOMES = 1, (2, 3)
"""Nodes are numbered as the profile has them."""
PARAMETERS = 167_178
"""Of 64-512-256-10 with biases: as many as the profile's, so that no byte stands for another number of them."""
SPEC: dict[str, Any] = {
    "model": {"architecture": "mlp", "config": {"hidden": [512, 256]}},
    "inner": {"steps": 20, "batch_size": 16},
    "rounds": {"rounds": 3, "nodes": 3, "quorum": 3, "deadline_seconds": 60},
    "encoding": {"kind": "fp32"},
    "network": {"least_steps": 1, "most_steps": 1, "most_stale": 0},
    "audit": {"rate": 0, "newcomer_rate": 0},
}
SETTINGS = {"HYPERGPU_NETWORK": '{"upload_share": 100}'}
"""Uploads stay as long as they are: no smaller encoding is chosen for them."""
PASSED = 60_000
"""Bytes of an upload of 669 kB that are with the gatherer when it dies."""
AT_ONCE_S = 1.5
"""Less than half of what the whole way takes, after which a gatherer that hangs is given up."""


def valley() -> Profile:
    """Two homes that lose 2 % of their packets 200 ms from the coordinator, 12 ms from a server with a good way out."""
    clean = NodeSpec(samples_per_second=400, up_bps=1e9, down_bps=1e9, latency_s=0.001, region="valley", public=True)
    lossy = NodeSpec(samples_per_second=200, up_bps=5e7, down_bps=1e8, latency_s=0.005, loss=0.02, region="valley", count=2)
    return Profile(
        name="valley", description="A test's.", parameters=PARAMETERS, time_scale=1, nodes=(clean, lossy),
        coordinator=LinkSpec(up_bps=1e9, down_bps=1e9, latency_s=0.001), regions={"valley": RegionSpec(latency_s=0.1)},
    )  # fmt: skip


def test_near_nodes_upload_by_one_of_them_fetch_once_for_all_and_go_direct_when_it_dies():
    with running_stack(operators=3, settings=SETTINGS, network=valley(), spec=SPEC) as market:
        links, ways = market.stack.emulation.shaper.links, market.stack.emulation.shaper.ways
        job = market.post_job("gathered over emulated links", SPEC)["id"]

        first = until(partial(orders, market, job, 0), what="the first round")
        assert all(not uploads(order) for order in first.values()), "of links that nobody has measured nothing is decided"

        gathered = until(partial(orders, market, job, 1), what="the second round")
        began = [link.traffic.down for link in links]
        for home in HOMES:
            [reason] = uploads(gathered[home])
            assert reason["code"] == "upload.gathered" and "(predicted)" in reason["text"]
        assert [reason["code"] for reason in uploads(gathered[GATHERER])] == ["upload.gathers"]

        again = until(partial(orders, market, job, 2), what="the third round")
        passed = [way_up(ways, home) for home in HOMES]
        assert min(passed) > 4 * PARAMETERS, "the second round's uploads went over the links between nodes"
        for home in HOMES:
            [reason] = uploads(again[home])
            assert reason["code"] == "upload.gathered" and "(measured before)" in reason["text"]

        until(
            lambda: all(way_up(ways, home) > before + PASSED for home, before in zip(HOMES, passed, strict=True)),
            what="uploads that are under way by the gatherer", every=0.005,
        )  # fmt: skip
        os.kill(market.stack.processes.pid(f"agent {GATHERER}"), signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: all("which goes direct" in log(market, home) for home in HOMES), what="going direct", every=0.01)
        assert time.monotonic() - killed < AT_ONCE_S

        rounds = until(partial(aggregated, market, job, 3), what="the end of the last round")
        assert [round_["accepted"] for round_ in rounds] == [3, 3, 3]

        step = encoded_bytes(PARAMETERS, parse_spec(SPEC).downlink)
        region = sum(link.traffic.down - before for link, before in zip(links, began, strict=True))
        assert 2 * step < region < 3 * step, "two outer steps came into the region once each, for three nodes"
        for home in HOMES:
            assert ways[home - 1, GATHERER - 1].traffic.down > 2 * step
            assert log(market, home).count(f"kB from node {GATHERER}") == 2


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


def way_up(ways: dict[tuple[int, int], Any], home: int) -> int:
    """Bytes that a home has sent to the gatherer."""
    return int(ways[home - 1, GATHERER - 1].traffic.up)


def log(market: Market, node: int) -> str:
    return market.stack.processes.log(f"agent {node}").read_text(errors="replace")
