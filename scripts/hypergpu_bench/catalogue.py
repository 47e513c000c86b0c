"""Which benchmarks there are. A bench is a module with `measure(*, quick) -> Measured`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

from scripts.hypergpu_bench.report import Measured, Result, versions


@dataclass(frozen=True, slots=True)
class Bench:
    module: str
    measures: str


BENCHES = {
    "bytes": Bench("bytes", "bytes of one operator to a target loss: data parallel, plain DiLoCo, the product's encodings"),
    "audits": Bench(
        "audits", "false alarms and misses of replay audits, ownership and the copy rule; bytes and time of an audit"
    ),
    "gpu": Bench("gpu", "the inner loop beside a bare PyTorch loop of the same model and the card's matrix rate (needs CUDA)"),
    "attacks": Bench("attacks", "loss and pay with 2 of 8 nodes hostile, by attack and by aggregation rule; nodes that crash"),
    "time-to-target": Bench(
        "time_to_target", "emulated time to a loss on slow links: network-aware rounds, plain DiLoCo, data parallel, centralized"
    ),
    "scaling": Bench("scaling", "throughput from 2 to 50 nodes on emulated links, the coordinator's own time"),
    "overlap": Bench("overlap", "how busy machines are on 100 Mb/s and 150 ms when a step takes a second, by model size"),
    "settlement-gas": Bench(
        "settlement_gas", "gas of a receipt on chain, by Ethereum's and Monad's prices, beside other designs"
    ),
    "settlement-latency": Bench("settlement_latency", "seconds from hand-in to final credit through the real processes, by mode"),
    "real-network": Bench(
        "real_network", "rounds of the demo on emulated links, adaptive and plain, beside what plan and virtual clock predicted"
    ),
    "transfers": Bench("transfers", "uploads over bad links: one request, pieces over several connections, an erasure code"),
    "regions": Bench("regions", "uploads and rounds with near nodes that carry for each other, and without"),
    "peers": Bench("peers.bench", "bytes, loss and steps a second beside DDP, torchft, hivemind and Flower on the same task"),
}


def run(name: str, *, command: str, quick: bool) -> Result:
    """Only the chosen bench is imported: some load Django or torch."""
    measured: Measured = import_module(f"scripts.hypergpu_bench.{BENCHES[name].module}").measure(quick=quick)
    return Result(name=name, command=command, versions=versions(), measured=measured)
