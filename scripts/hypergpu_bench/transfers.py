"""What pieces, connections and redundancy gain: an update's upload over bad links, by the shaper's own model of TCP flows."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from scripts.hypergpu_bench.report import INTERVAL, Figure, Measured, interval
from trainer.network.links import Machine, machine_of, path_rtt, server_of
from trainer.network.profiles import LinkSpec, NodeSpec, load_profile
from trainer.network.shaper import PATIENCE_S, Flow, Lane, Traffic
from trainer.network.transfers import CONNECTIONS, PIECES_PER_CONNECTION, SPARE, Transfer, piece_span, whole
from trainer.operator.transfers import Pieces
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import encoded_bytes

PARAMETERS = 124_000_000
DENSE, SPARSE = EncodingSpec(kind="int4"), EncodingSpec(kind="topk", k=64)
SIZES = {"int4": encoded_bytes(PARAMETERS, DENSE), "top 64": encoded_bytes(PARAMETERS, SPARSE)}
"""Of an update: the default, and what the policy sends over the slowest links."""
CHUNK = 2**14
"""Bytes by which connections take turns."""
SEEDS, QUICK_SEEDS = 100, 10
HANGS = 0.02
"""Part of the requests of links named `..._hangs` that get no answer until the agent gives them up and asks again: as when a
router forgets a connection."""
EVENT_S = 1e-6
CORE = LinkSpec(up_bps=1e10, down_bps=1e10, latency_s=0.002)


def measure(*, quick: bool) -> Measured:
    seeds = list(range(QUICK_SEEDS if quick else SEEDS))
    cells = [(link, update) for update in SIZES for link in links()]
    rows = [row for link, update in cells for row in compared(link, update, seeds)]
    figures = {}
    for link, update in cells:
        times = {row["way"]: row.pop("times") for row in rows if (row["link"], row["update"]) == (link, update)}
        for way in list(times)[1:]:
            found = interval([one / other for one, other in zip(times["one request"], times[way], strict=True)])
            name = f"speedup_{link}_{update}_{way}".replace(" ", "_")
            figures[name] = Figure(value=found.mean, unit="times one request", low=found.low, high=found.high)
    for row in rows:
        if row["link"].endswith("hangs"):
            name = f"p95_{row['link']}_{row['update']}_{row['way']}".replace(" ", "_")
            figures[name] = Figure(value=row["p95 s"], unit="s")
    sizes = ", ".join(f"{size / 1e6:.1f} MB in {update}" for update, size in SIZES.items())
    return Measured(
        seeds=seeds,
        conditions=[
            f"Emulated: uploads of an update of {PARAMETERS:,} parameters ({sizes}) over TCP flows as trainer/network/shaper.py "
            "has them: Mathis's rate, retransmission timeouts, outages.",
            "A request that an outage of more than 15 s breaks starts again: one request from its beginning, else its piece. On "
            f"links named ..._hangs {HANGS:.0%} of the requests hang for those 15 s.",
        ],
        rows=rows, figures=figures, spread=INTERVAL,
    )  # fmt: skip


def links() -> dict[str, NodeSpec]:
    mobile, flaky = load_profile("mobile").nodes, load_profile("flaky").nodes
    steady = NodeSpec(samples_per_second=1, up_bps=50e6, down_bps=50e6, latency_s=0.05, jitter_s=0.01)
    return {
        "mobile_30": mobile[0], "mobile_5": mobile[2], "flaky": flaky[0], "flaky_lossy": flaky[1],
        "loss_1": steady.model_copy(update={"loss": 0.01}), "loss_5": steady.model_copy(update={"loss": 0.05}),
        "mobile_30_hangs": mobile[0],
    }  # fmt: skip


def compared(link: str, update: str, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """One request, pieces over several connections, and redundant ones too."""
    one = whole("")
    several = Transfer(connections=CONNECTIONS, pieces=CONNECTIONS * PIECES_PER_CONNECTION, spare=0, reason=one.reason)
    ways = {"one request": one, "pieces": several, "pieces and redundancy": replace(several, spare=SPARE)}
    spec, size, hangs = links()[link], SIZES[update], HANGS if link.endswith("hangs") else 0.0
    rows = []
    for way, transfer in ways.items():
        found = [uploaded(spec, size, transfer, seed=f"{link}:{seed}", hangs=hangs) for seed in seeds]
        times = sorted(seconds for seconds, _ in found)
        rows.append(
            {
                "link": link, "loss": spec.loss, "update": update, "way": way, "p50 s": statistics.median(times),
                "p95 s": times[int(0.95 * (len(times) - 1))], "sent": statistics.fmean(sent for _, sent in found) / size,
                "times": [seconds for seconds, _ in found],
            }
        )  # fmt: skip
    return rows


def uploaded(spec: NodeSpec, size: int, transfer: Transfer, *, seed: str, hangs: float) -> tuple[float, int]:
    """Emulated seconds until the file is whole, and bytes sent by then."""
    return carried([Lane(machine_of(spec, seed=seed), server_of(CORE, sharing=1))], size, transfer, seed=seed, hangs=hangs)


def carried(lanes: Sequence[Lane], size: int, transfer: Transfer, *, seed: str, hangs: float = 0.0) -> tuple[float, int]:
    """The same over lanes one behind the other, each of which passes on what has come."""
    machine, chance = lanes[0].sender, random.Random(f"{seed}:hangs")
    workers = [
        Worker(
            [Flow(lane, seed=":".join([seed, str(number), *["on"] * leg]), traffic=Traffic()) for leg, lane in enumerate(lanes)]
        )
        for number in range(transfer.connections)
    ]
    pieces = Pieces(list(range(transfer.pieces)), list(range(transfer.pieces, transfer.pieces + transfer.spare)))
    came = 0
    while came < transfer.pieces:
        worker = min(workers, key=lambda one: one.at)
        if worker.arrived is not None and worker.piece is not None:
            pieces.came(worker.piece, worker.at)
            worker.piece = worker.arrived = None
            came += 1
        elif worker.piece is not None:
            worker.send(machine)
        elif (number := pieces.draw(worker.at)) is not None:
            worker.take(number, size, transfer, hanging=chance.random() < hangs)
        else:
            others = [one.at for one in workers if one.piece is not None]
            worker.at = min([*others, pieces.next_spare() or math.inf]) + EVENT_S
    return worker.at, sum(one.sent for one in workers)


class Worker:
    """A connection, or a chain of them, that sends one piece after another, each after the answer to the last. `at`: when it acts
    next; `arrived`: when its piece is there."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows, self.at = flows, 0.0
        self.piece: int | None = None
        self.arrived: float | None = None
        self.left = self.length = self.sent = 0

    def take(self, number: int, size: int, transfer: Transfer, *, hanging: bool) -> None:
        self.piece, self.arrived = number, None
        self.left = self.length = piece_span(size, transfer.pieces, min(number, transfer.pieces - 1))[1]
        rtt = math.fsum(path_rtt(*flow.lane.conditions(self.at)) for flow in self.flows)
        self.at += rtt + (PATIENCE_S if hanging else 0.0)

    def send(self, machine: Machine) -> None:
        """Send a chunk. What an outage breaks is sent again, from the piece's beginning."""
        size = min(CHUNK, self.left)
        left, arrived = self.flows[0].send(self.at, 8 * size)
        for flow in self.flows[1:]:
            _, arrived = flow.send(arrived, 8 * size)
        self.sent += size
        self.left -= size
        change = machine.change_after(self.at)
        if change < arrived and machine.at(change).up_bps == 0 and machine.change_after(change) - change > PATIENCE_S:
            self.left = self.length
        self.at = left
        if not self.left:
            self.at = self.arrived = arrived
