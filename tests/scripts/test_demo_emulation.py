"""The demo on an emulated network: what it scales, what it reports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scripts.hypergpu_demo import recipes
from scripts.hypergpu_demo.emulation import Emulation, lines, node_row
from trainer.network.profiles import load_profile
from trainer.network.shaper import Scale
from trainer.operator.emulation import LOSS, VARIABLE, WAYS
from trainer.protocol.spec import parse_spec


def spec(*, model: str | None = None, **options: Any) -> dict[str, Any]:
    return recipes.spec(job="digits", model=model, rounds=None, operators=8, files={}, emulated=True, **options)


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
    assert "A byte stands for 742 and a second for 12, as with a model of 124,000,000 parameters" in emulation.sentence
    assert emulation.endpoint(1) is None and emulation.shaper.ways == {}


def test_nodes_that_can_be_reached_are_reached_over_links_of_their_own():
    profile = load_profile("neighbours")
    with Emulation(profile, spec(model="mlp-large"), {}, port=1, operators=5, seed=0) as emulation:
        assert emulation.parameters == profile.parameters and emulation.shaper.scale == Scale(time=1, size=1)
        assert [bool(emulation.endpoint(number)) for number in range(1, 6)] == [True, False, False, True, False]
        found = json.loads(emulation.environment(2)[WAYS])
        assert found == {
            emulation.endpoint(1): emulation.shaper.ways[1, 0].port, emulation.endpoint(4): emulation.shaper.ways[1, 3].port
        }  # fmt: skip
        assert set(json.loads(emulation.environment(1)[WAYS])) == {emulation.endpoint(4)}
    assert "'neighbours', also between nodes" in emulation.sentence
    assert emulation.sentence.endswith("1,126,410 parameters. A byte stands for 1 and a second for 1.")


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


def test_uploads_by_way_of_near_nodes_are_counted_with_what_passed_between_them():
    reasons = [{"code": "steps.together", "text": ""}, {"code": "upload.gathered", "text": ""}]
    nodes = [node_row(slot(1, round=0, seconds=1.0) | {"reasons": reasons}), node_row(slot(2, round=0, seconds=1.0))]
    rows = [{"predicted_seconds": None, "actual_seconds": 2.0, "nodes": nodes}]
    network = {"policy": "adaptive", "rounds": rows, "between_nodes": [{"up": 1_500_000, "down": 500_000}]}
    assert [node["upload"] for node in nodes] == ["upload.gathered", None]
    assert lines(network)[-1].startswith("1 of 2 uploads were to go by way of a near node; 2.0 MB passed over emulated links")
