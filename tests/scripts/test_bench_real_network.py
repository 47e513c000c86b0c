"""What `bench real-network` makes of the rounds of real runs and of the virtual clock."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.hypergpu_bench import real_network
from trainer.simulation.rounds import Row


def real(number: int, *, seconds: float, predicted: float | None) -> dict[str, Any]:
    """Rounds that begin every 20 s for each that was; half of the work comes too late."""
    return {
        "round": number, "predicted_seconds": predicted, "actual_seconds": seconds, "closing_seconds": 2.0,
        "ended_seconds": 20.0 * (number + 1), "metric": {"accuracy": 0.5}, "accepted": 1,
        "nodes": [{"steps": 10, "state": "handed_in"}, {"steps": 30, "state": "late"}],
    }  # fmt: skip


def row(number: int, *, every: float) -> Row:
    return Row(round=number, seconds=every * (number + 1), loss=1.0, accuracy=0.5, samples=640, sent=0.0, received=0.0, busy=0.5)


def test_order_predictions_and_gain_are_told_with_the_first_rounds_in(monkeypatch: pytest.MonkeyPatch):
    seconds = {"adaptive": 10.0, "equal": 40.0}

    def demo(policy: str, *, seed: int, rounds: int) -> list[dict[str, Any]]:
        return [real(at, seconds=seconds[policy], predicted=seconds[policy] * (1.0 if at else 0.5)) for at in range(rounds)]

    def virtual(policy: str, *, seed: int, rounds: int, closing: Any) -> list[Row]:
        assert closing.fixed_s == 2.0 * real_network.TIME
        return [row(at, every=real_network.TIME * (seconds[policy] + 2.0)) for at in range(rounds)]

    monkeypatch.setattr(real_network, "demo", demo)
    monkeypatch.setattr(real_network, "virtual", virtual)
    found = real_network.measure(quick=True)
    figures = {name: figure.value for name, figure in found.figures.items()}
    assert figures["order_holds"] == 1.0 and figures["clock_off_median"] == pytest.approx(0.0)
    assert figures["round_real"] == figures["round_clock"] == pytest.approx(4.0)
    assert figures["speedup_real"] == 1.0 and figures["speedup_clock"] == pytest.approx(42 / 12)
    assert figures["plan_within_quarter_adaptive"] == pytest.approx(2 / 3), "the first was off by half"
    assert figures["plan_within_quarter_adaptive_later"] == 1.0 and figures["plan_within_quarter_equal"] == 0.0
    assert [one["samples/s"] for one in found.rows] == [10 * 32 / 20] * 2
    assert {one["load"] for one in found.rows} and len(found.more["rounds"]) == 3 + 1
    monkeypatch.setattr(
        real_network, "demo", lambda policy, **asked: demo({"adaptive": "equal", "equal": "adaptive"}[policy], **asked)
    )
    monkeypatch.setattr(
        real_network, "virtual", lambda policy, *, rounds, **_: [row(at, every=12 * seconds[policy]) for at in range(rounds)]
    )
    assert real_network.measure(quick=True).figures["order_holds"].value == 0.0
