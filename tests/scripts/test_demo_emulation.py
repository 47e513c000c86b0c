"""The demo on an emulated network: what it scales, what it reports."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.hypergpu_demo import recipes
from scripts.hypergpu_demo.emulation import Emulation, lines
from trainer.network.profiles import load_profile
from trainer.operator.emulation import LOSS, VARIABLE
from trainer.protocol.spec import parse_spec


def spec(**options: Any) -> dict[str, Any]:
    return recipes.spec(job="digits", model=None, rounds=None, operators=8, files={}, emulated=True, **options)


@pytest.fixture
def emulation() -> Emulation:
    return Emulation(load_profile("wan-hetero"), spec(), {}, port=1, operators=8, seed=0)


def test_plain_diloco_is_dense_equal_and_waits_for_all():
    plain, adaptive = parse_spec(spec(policy="equal")), parse_spec(spec())
    assert (plain.network.policy, plain.encoding.kind, plain.downlink.kind) == ("equal", "fp32", "fp32")
    assert plain.rounds.quorum == plain.rounds.nodes == 8
    assert (adaptive.network.policy, adaptive.encoding.kind) == ("adaptive", "int4")
    assert plain.model == adaptive.model
    assert adaptive.audit.rate == adaptive.audit.newcomer_rate == 0


def test_machines_and_bytes_are_scaled_to_the_profiles_model(emulation: Emulation):
    """64-512-256-10 with biases: 167,178 parameters; the first machine does 16 samples a second."""
    assert emulation.parameters == 167_178
    assert emulation.shaper.scale.size == pytest.approx(124e6 / 167_178)
    assert emulation.environment(1) == {VARIABLE: "192", LOSS: "1e-07"}
    assert emulation.environment(8) == {VARIABLE: "24", LOSS: "5e-05"}
    assert emulation.sentence.startswith("Emulated: links and machines of 'wan-hetero'. Real: every process")


def slot(node: int, *, round: int, seconds: float) -> dict[str, Any]:
    predicted = {"fetch_s": 1.0, "compute_s": seconds - 2.0, "upload_s": 1.0, "doubt_s": 0.5}
    return {"node_id": node, "round": round, "state": "handed_in", "steps": 40, "predicted": predicted, "actual": None}


def test_each_round_is_reported_with_its_predicted_and_actual_seconds(emulation: Emulation):
    opened, closed, done = (f"2026-01-01T00:00:{second}Z" for second in ("00", "10", "12"))
    plan = {"predicted_seconds": 8.5}
    round_ = {
        "number": 0,
        "plan": plan,
        "opened_at": opened,
        "closed_at": closed,
        "aggregated_at": done,
        "metric": None,
        "accepted": 8,
    }
    unfinished = {**round_, "number": 1, "aggregated_at": None}
    snapshot = {"rounds": [round_, unfinished], "assignments": [slot(node, round=0, seconds=5.0 + node / 2) for node in range(8)]}
    report = emulation.report(snapshot, list(range(1, 9)), policy="adaptive")
    [row] = report["rounds"]
    assert (row["predicted_seconds"], row["actual_seconds"], row["closing_seconds"], row["ended_seconds"]) == (8.5, 10, 2, 12)
    assert [node["node"] for node in row["nodes"]] == list(range(8))
    assert [link["machine"]["samples_per_second"] for link in report["links"]] == [16, 12, 12, 8, 8, 4, 4, 2]
    assert lines(report)[-1] == "Predicted round times were off by 15% (median of 1 rounds)"
