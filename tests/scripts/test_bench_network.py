"""The benches time-to-target and scaling: their arithmetic, and whole cells on a tiny task."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.hypergpu_bench import network_cells, overlap, scaling, time_to_target
from scripts.hypergpu_bench.network_cells import AWARE, CENTRAL, DDP, EQUAL, PLAIN, WAITING, Cell, Joined, Point, Run
from scripts.hypergpu_bench.tasks import TASKS, Task
from scripts.hypergpu_bench.time_to_target import Race
from trainer.simulation.network import Closing
from trainer.simulation.rounds import Row

pytestmark = pytest.mark.usefixtures("one_thread")


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(seconds, 100 * (place + 1), loss) for place, (seconds, loss) in enumerate(pairs)]


def test_the_time_to_a_loss_lies_on_straight_lines():
    curve = points((10, 4.0), (30, 3.0), (40, 3.5), (50, 2.0))
    assert time_to_target.seconds_to(curve, 3.5) == 20.0 and time_to_target.seconds_to(curve, 2.75) == 45.0
    assert time_to_target.seconds_to(curve, 4.5) == 10.0 and time_to_target.seconds_to(curve, 1.0) is None


def race(seed: int, aware: float, plain: float | None, *, profile: str = "wan-hetero", task: str = "text") -> Race:
    target = time_to_target.TARGETS[task]
    never = points((1.0, target + 1))
    curves = {
        AWARE: points((aware, target)), EQUAL: points((2 * aware, target)), WAITING: points((aware, target)),
        PLAIN: never if plain is None else points((plain, target)), DDP: points((100.0 * aware, target)),
        CENTRAL: points((aware / 2, target)),
    }  # fmt: skip
    return Race(profile=profile, task=task, seed=seed, curves=curves, busy={AWARE: 0.9})


def test_a_figure_is_of_the_worse_task_and_a_run_that_never_gets_there_is_no_times_faster():
    races = [race(1, 10, 50), race(2, 10, 70), race(1, 10, 30, task="images"), race(2, 10, None, task="images")]
    found = time_to_target.figures(races, {"text": [10.0, 20.0], "images": [5.0, None]})
    diloco = found["speedup_vs_diloco_wan_hetero"]
    assert diloco.value == pytest.approx(1.5) and "images" in diloco.unit and diloco.low is not None and diloco.low < 1.5
    assert found["speedup_vs_ddp_wan_hetero"].value == pytest.approx(100.0)
    assert found["throughput_vs_centralized_wan_hetero"].value == pytest.approx(50.0)
    assert found["slowdown_with_20_percent_failing_percent"].value == pytest.approx(52.5)  # not reached counts as 100 %


def test_every_profile_meets_the_network_aware_rounds_and_plain_ones():
    closing = {task: Closing() for task in TASKS}
    cells = time_to_target.cells_of((1, 2, 3), time_to_target.PROFILES, closing)
    assert len(cells) == len(set(cells))
    for profile in time_to_target.PROFILES:
        assert {(cell.way, cell.seed) for cell in cells if cell.profile == profile} >= {
            (way, seed) for way in (AWARE, PLAIN) for seed in (1, 2, 3)
        }
    assert {cell.task for cell in cells if cell.failure is not None} == {"text", "images"}


def row(number: int, seconds: float, **changes: float) -> Row:
    rest = {"loss": 1.0, "accuracy": 0.0, "sent": 0.0, "received": 0.0, "busy": 0.5, "samples": 330, **changes}
    return Row(round=number, seconds=seconds, **rest)  # type: ignore[arg-type]


def test_scaling_against_cases_by_hand():
    cell = Cell(task="text", seed=1, way=AWARE, rounds=2)  # wan-hetero: 66 samples/s in all
    result = [row(0, 8.0, closing_cpu_s=1.0, training_cpu_s=4.0), row(1, 12.5, closing_cpu_s=3.0, training_cpu_s=12.0, busy=0.9)]
    assert scaling.efficiency(cell, result) == pytest.approx(80.0)  # 660 samples in 12.5 s where 825 were possible
    assert scaling.round_seconds(result) == 4.5 and scaling.closing_share(result) == pytest.approx(100 * 2 / 4.5)
    assert scaling.closing_of_training(result) == pytest.approx(25.0)
    fastest = max(
        machine.at(0.0).samples_per_second for machine in network_cells.network_for("wan-hetero", seed=1, nodes=8).machines
    )
    assert scaling.closing_share_of_a_node(cell, result) == pytest.approx(25.0 * (660 / 12.5) / fastest)


def test_how_busy_machines_are_is_of_the_rounds_that_begin_ahead():
    result = [row(0, 8.0), row(1, 12.5, busy=0.9), row(2, 15.0, busy=0.8), row(3, 20.0, busy=0.95)]
    assert overlap.lengths(result) == [2.5, 5.0] and overlap.samples_a_second(result) == pytest.approx(2 * 330 / 7.5)
    assert overlap.busy(result) == pytest.approx(100 * (0.8 * 2.5 + 0.95 * 5.0) / 7.5)


def test_cells_on_a_tiny_task(monkeypatch: pytest.MonkeyPatch):
    spec = {"model": {"architecture": "mlp"}, "data": {"kind": "digits"}, "inner": {"learning_rate": 2e-3}, "rounds": {}}
    monkeypatch.setitem(TASKS, "digits", Task(files={}, spec=spec))
    monkeypatch.setitem(network_cells.MODELS, "digits", {"hidden": [16]})
    monkeypatch.setattr(network_cells, "STEPS", 5)
    monkeypatch.setattr(network_cells, "BATCH", 8)
    monkeypatch.setitem(time_to_target.TARGETS, "digits", 2.2)
    monkeypatch.setitem(time_to_target.TASKS, "wan-hetero", ("digits",))
    aware = Cell(task="digits", seed=1, way=AWARE, rounds=2)
    runs: list[Run] = [
        aware,
        *(replace(aware, way=way) for way in (EQUAL, PLAIN)),
        Joined(task="digits", seed=1, rate=4e-3, steps=10),
    ]
    found = {run: run.run() for run in runs}
    one = time_to_target.race(found, "wan-hetero", "digits", 1)
    assert one.throughput(AWARE) > one.throughput(EQUAL) > one.throughput(PLAIN) > one.throughput(DDP)
    assert one.throughput(CENTRAL) == pytest.approx(66, rel=0.35)
    rows = time_to_target.rows([one])
    assert [entry["way"] for entry in rows] == [way for way in time_to_target.WAYS if way != WAITING]
    assert all(entry["seconds"] > 0 for entry in rows if entry["reached"] == "1 of 1")
