"""The attacks bench: its arithmetic, and a cell by the product's own rounds."""

from __future__ import annotations

import pytest

from scripts.hypergpu_bench import attacks
from scripts.hypergpu_bench.attack_cells import MODELS, Cell, Outcome, run_cell
from scripts.hypergpu_bench.report import Interval
from scripts.hypergpu_bench.tasks import TASKS, Task
from trainer.simulation.attackers import ATTACKS
from trainer.simulation.pay import Kept


def test_rounds_to_a_loss_lie_on_straight_lines():
    assert attacks.rounds_to([4.0, 3.0, 2.0], 2.5) == 2.5
    assert attacks.rounds_to([4.0, 3.0], 4.5) == 1.0
    assert attacks.rounds_to([4.0, 3.0], 2.0) is None


def outcome(loss: float, *, honest: float = 100.0, cheats: float = 50.0, kept: float = 10.0) -> Outcome:
    return Outcome(losses=[4.0, loss], honest={0: honest, 1: honest}, cheats=cheats, kept=Kept(kept, -5.0), refused=0.5)


def test_an_attack_is_measured_against_the_clean_run_of_its_seed():
    found = {}
    for seed, clean, hit in ((1, 2.0, 2.01), (2, 4.0, 4.12)):
        found[Cell(task="text", seed=seed, rounds=2)] = outcome(clean, honest=200.0, cheats=0.0)
        found[Cell(task="text", seed=seed, rounds=2, attack="ipm")] = outcome(hit, honest=190.0, cheats=95.0, kept=19.0)
    sample = attacks.sample(found, "text", "ipm", (1, 2), 2)
    assert sample["loss_gap"].mean == pytest.approx(1.75) and sample["loss_gap"].low < 1.0  # 0.5 % and 3 %
    assert (sample["pay"].mean, sample["after_audits"].mean) == (pytest.approx(50), pytest.approx(10))
    assert sample["honest_loss"].mean == pytest.approx(5) and sample["refused"].mean == 50
    other = sample | {"attack": "alie", "loss_gap": Interval(9.0, 8.0, 10.0)}
    figures = attacks.figures([sample, other], [{"by_seed": {"slower": [10.0, None]}}])
    assert figures["worst_loss_gap_percent"].value == 9.0 and "alie" in figures["worst_loss_gap_percent"].unit
    assert figures["attacks_beyond_the_loss_goal"].value == 1
    assert figures["rounds_more_with_20_percent_crashing_percent"].value == 55  # a run that never gets there counts as 100 %


def test_every_attack_meets_every_task_and_every_rule_a_clean_run_and_attacks():
    cells = attacks.attack_cells((1, 2, 3), attacks.ROUNDS)
    assert len(cells) == len(set(cells)) == 3 * len(attacks.ROUNDS) * (2 + len(ATTACKS))
    rules = attacks.rule_cells((1,), quick=False)
    assert {(cell.rule, cell.gate) for cell in rules if cell.attack == "sign_flip"} == {
        (r, g) for r in attacks.RULES for g in (True, False)
    }
    assert [cell.rule for cell in rules if cell.attack is None and not cell.gate] == ["weighted_mean"]


def test_a_cell_pays_honest_nodes_and_not_those_that_send_nothing(monkeypatch: pytest.MonkeyPatch):
    small = Task(files={}, spec={"model": {"architecture": "mlp"}, "data": {"kind": "digits"}, "inner": {"batch_size": 8},
                                 "rounds": {"rounds": 1, "nodes": 8}})  # fmt: skip
    monkeypatch.setitem(TASKS, "digits", small)
    monkeypatch.setitem(MODELS, "digits", {"hidden": [16]})
    found = run_cell(Cell(task="digits", seed=1, rounds=1, attack="zeros"))
    assert set(found.honest) == set(range(6)) and min(found.honest.values()) > 0
    assert (found.cheats, found.kept, found.refused) == (0, Kept(0, 0), 1.0)
