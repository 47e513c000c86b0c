"""One run of the attacks bench: a job with or without hostile or failing nodes, by the product's own rounds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from scripts.hypergpu_bench.tasks import NODES, TASKS
from trainer.network.profiles import load_profile
from trainer.protocol.rounds import JobWork
from trainer.simulation.attackers import ATTACKS
from trainer.simulation.network import network_of
from trainer.simulation.pay import Kept, earned, kept
from trainer.simulation.rounds import Rounds
from trainer.simulation.run import as_published

HOSTILE = 2
STEPS = 20
MODELS = {"text": {"layers": 1, "width": 32}, "images": {"channels": [4, 8], "hidden": 16}}
"""Smaller than the tasks' own: many runs are compared."""
PROCESSES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """`rule` and `gate` None: the job's defaults. `failure` is each node's chance to crash in a round."""

    task: str
    seed: int
    rounds: int
    attack: str | None = None
    rule: str | None = None
    gate: bool | None = None
    failure: float = 0.0

    def job(self) -> JobWork:
        task = TASKS[self.task]
        chosen = {"rule": self.rule, "gate": self.gate}
        return task.job(
            seed=self.seed, rounds=dict(task.spec["rounds"]) | {"rounds": self.rounds, "quorum": 2},
            inner=dict(task.spec["inner"]) | {"steps": STEPS},
            model=dict(task.spec["model"]) | {"config": MODELS[self.task]},
            aggregation={name: value for name, value in chosen.items() if value is not None},
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`losses` after each round (nats, evaluation split). Of honest nodes the pay by node; of cheats the mean pay before
    audits and after them, in samples at full quality; `refused` is the part of the cheats' contributions that was."""

    losses: list[float]
    honest: dict[int, float]
    cheats: float
    kept: Kept
    refused: float


def run_cells(cells: Sequence[Cell]) -> dict[Cell, Outcome]:
    """All of them, in a few processes; one line on stderr for each that is done."""
    found: dict[Cell, Outcome] = {}
    with ProcessPoolExecutor(
        PROCESSES, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for cell, outcome in zip(cells, pool.map(run_cell, cells), strict=True):
            found[cell] = outcome
            sys.stderr.write(f"{len(found)}/{len(cells)} {cell.task} {cell.attack or 'clean'}: loss {outcome.losses[-1]:.4f}\n")
    return found


def run_cell(cell: Cell) -> Outcome:
    job = cell.job()
    network = network_of(
        load_profile("lan"), seed=cell.seed, nodes=NODES, attack=cell.attack, hostile=HOSTILE, failure=cell.failure
    )
    run = Rounds(job, network, as_published(job.spec), seed=cell.seed)
    rows = list(run)
    cheats = [node for node in range(NODES) if run.gang.cheats(node)]
    paid = {node: earned(rows, node) for node in range(NODES)}
    steps, false = job.spec.inner.steps, ATTACKS[cell.attack].false if cell.attack else 0.0
    after = [kept(paid[node], job.spec.audit, steps=steps, false=false) for node in cheats]
    handed_in = [row for row in rows for node in cheats if node in row.qualities or node in row.refused]
    count = max(1, len(cheats))
    return Outcome(
        losses=[row.loss for row in rows],
        honest={node: sum(pay) for node, pay in paid.items() if node not in network.attacks},
        cheats=sum(sum(paid[node]) for node in cheats) / count,
        kept=Kept(sum(one.pay for one in after) / count, sum(one.net for one in after) / count),
        refused=sum(node in row.refused for row in rows for node in cheats) / max(1, len(handed_in)),
    )
