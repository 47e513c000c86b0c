"""`hypergpu agent doctor`: each thing an agent needs, with what to do where it is missing."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from trainer.operator.config import AgentConfig, is_loopback
from trainer.operator.identity import address_of, load_or_create_key
from trainer.operator.links import Links
from trainer.protocol.requests import MAX_SKEW_SECONDS

PROBES = 10
UNITS = {"s": ("ms", 1000.0), "bytes/s": ("kB/s", 1e-3), "part of the segments": ("%", 100.0)}
"""As people read them."""
MIN_FREE_BYTES = 5 * 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """`ok` is None for what is worth knowing but stops nothing."""

    name: str
    ok: bool | None
    text: str

    @property
    def line(self) -> str:
        return f" {'!' if self.ok is None else '✔' if self.ok else '✘'} {self.text}"


def examine(config: AgentConfig) -> Iterator[Finding]:
    """All findings, the quick ones first."""
    yield Finding("python", sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer)")
    yield from examine_torch()
    yield examine_disk(config)
    yield from examine_coordinator(config)


def examine_torch() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("torch", False, "torch is missing: install the build for this GPU from pytorch.org")
        return
    import torch  # noqa: PLC0415 - seconds of imports that only the doctor and the worker need

    yield Finding("torch", True, f"torch {torch.__version__}")
    if not torch.cuda.is_available():
        yield Finding("gpu", None, f"no CUDA GPU that torch can use: training on {os.cpu_count()} CPU cores")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding(
            "gpu", True, f"GPU {index}: {device.name}, {device.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
        )


def examine_disk(config: AgentConfig) -> Finding:
    free = shutil.disk_usage(config.home.root).free
    return Finding("disk", free >= MIN_FREE_BYTES, f"{free / 2**30:.0f} GiB free in {config.home.root} (5 GiB or more)")


def examine_coordinator(config: AgentConfig) -> Iterator[Finding]:
    """Reachability, clock and registration, from public pages that need no signature."""
    url, address = config.coordinator, address_of(load_or_create_key(config.home.key))
    with httpx.Client(base_url=url, timeout=10, trust_env=not is_loopback(httpx.URL(url).host)) as http:
        try:
            http.get("/api/v1/network").raise_for_status()
            started = time.monotonic()
            answer = http.get("/api/v1/nodes", params={"hot_key": address}).raise_for_status()
        except httpx.HTTPError as error:
            yield Finding("coordinator", False, f"{url} does not answer: {error}")
            return
        milliseconds = (time.monotonic() - started) * 1000
        yield Finding("coordinator", True, f"{url} answers in {milliseconds:.0f} ms")
        yield probe(http)
        nodes = answer.json()["nodes"]
        known = kept(http, nodes[0]["id"]) if nodes else []
    if date := answer.headers.get("Date"):
        skew = parsedate_to_datetime(date).timestamp() - time.time()
        text = f"clock {-skew:+.0f} s against the coordinator's (within {MAX_SKEW_SECONDS} s)"
        yield Finding("clock", abs(skew) < MAX_SKEW_SECONDS, text)
    if nodes:
        yield Finding("registered", True, f"key {address} is node {nodes[0]['id']} of operator {nodes[0]['operator']}")
    else:
        yield Finding("registered", False, f"key {address} is not registered: open {url}/operate?hot_key={address}")
    yield from examine_measurements(known)


def kept(http: httpx.Client, node_id: int) -> list[dict[str, Any]]:
    """What the coordinator has measured of the node, or was told by it."""
    try:
        rows: list[dict[str, Any]] = http.get(f"/api/v1/nodes/{node_id}/measurements").raise_for_status().json()["measurements"]
    except httpx.HTTPError:
        return []
    return rows


def probe(http: httpx.Client) -> Finding:
    """Round trips of tiny requests, one after another on one connection."""
    links = Links()
    try:
        for _ in range(PROBES):
            started = time.monotonic()
            answer = http.get("/agent/v1/ping")
            links.round_trip(time.monotonic() - started)
            links.answered(answer.extensions["network_stream"].get_extra_info("socket"))
    except httpx.HTTPError as error:
        return Finding("link", None, f"round trips could not be timed: {error}")
    assert links.rtt is not None
    text = f"round trip {links.rtt.value * 1000:.1f} ms, jitter {links.rtt.deviation * 1000:.1f} ms, in {PROBES} probes just now"
    if links.loss is not None:
        text += f"; {links.loss.value:.1%} of {links.loss.samples} segments sent again"
    return Finding("link", True, text)


def examine_measurements(rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """What the coordinator keeps of this node: by whom, from what, and how old it is."""
    for row in rows:
        unit, scale = UNITS.get(row["unit"], (row["unit"], 1.0))
        age = (datetime.now(UTC) - datetime.fromisoformat(row["at"])).total_seconds()
        whose = "this node's word" if row["claimed"] else "seen by the coordinator"
        of = f" ({row['of']})" if row["of"] else ""
        deviation = f" +- {row['deviation'] * scale:,.4g}" if row["deviation"] else ""
        text = f"{row['quantity']}{of}: {row['value'] * scale:,.4g}{deviation} {unit}"
        yield Finding("measured", None, f"{text}, {whose}, {row['source']}, {age:,.0f} s ago, {row['samples']} samples")
