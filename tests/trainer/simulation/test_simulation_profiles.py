"""Profiles and traces: those in the package, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.network.profiles import load_profile, load_trace, profile_names
from trainer.protocol.errors import HyperGPUError
from trainer.simulation.network import measured, network_of, present

NAMES = ["asymmetric", "flaky", "hostile-20", "lan", "mobile", "neighbours", "regions", "wan-good", "wan-hetero"]
ONE = {"name": "mine", "description": "", "parameters": 1000, "coordinator": {"up_bps": 8e6, "down_bps": 8e6},
       "nodes": [{"samples_per_second": 2, "up_bps": 1e6, "down_bps": 4e6, "latency_s": 0.05}]}  # fmt: skip


def test_the_named_profiles_are_those_of_the_documentation():
    assert profile_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_makes_a_network(name: str):
    profile = load_profile(name)
    assert profile.name == name
    network = network_of(profile, seed=1)
    assert len(network.machines) >= 5 and present(network, 0.0)
    assert len(network_of(profile, seed=1, nodes=20).machines) == 20


def test_a_fifth_of_hostile_20_is_hostile():
    assert network_of(load_profile("hostile-20"), seed=0).attacks == {8: "sign_flip", 9: "sign_flip"}
    assert network_of(load_profile("hostile-20"), seed=0, attack="ipm", nodes=20).attacks == dict.fromkeys(range(16, 20), "ipm")


def test_more_nodes_keep_a_profiles_proportions():
    speeds = [node.samples_per_second for node in load_profile("wan-hetero").members(16)]
    assert sorted(speeds) == sorted(2 * [node.samples_per_second for node in load_profile("wan-hetero").members()])


def test_a_profile_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(ONE))
    facts = measured(network_of(load_profile(str(path)), seed=0), 0, 0.0)
    known = (facts.samples_per_second, facts.up, facts.down, facts.rtt_s)
    assert [measure.value for measure in known] == [2, 125_000, 500_000, 0.1]
    assert {measure.source for measure in known} == {"emulated"}


@pytest.mark.parametrize(
    ("change", "says"),
    [({"nodes": []}, "nodes"), ({"speed": 1}, "speed: Extra"), ({"parameters": 0}, "parameters"),
     ({"nodes": [ONE["nodes"][0] | {"loss": 1}]}, "nodes.0.loss"),
     ({"nodes": [ONE["nodes"][0] | {"joins_s": 9, "leaves_s": 3}]}, "leaves_s must be later")],
)  # fmt: skip
def test_a_wrong_profile_is_refused_with_the_field(tmp_path: Path, change: dict, says: str):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(ONE | change))
    with pytest.raises(HyperGPUError, match=says) as refused:
        load_profile(str(path))
    assert refused.value.code == "profile.invalid"


@pytest.mark.parametrize(("name", "code"), [("moon", "unknown"), ("nowhere.json", "unknown")])
def test_an_unknown_profile_is_refused_with_the_names(name: str, code: str):
    with pytest.raises(HyperGPUError) as refused:
        load_profile(name)
    assert refused.value.code == f"profile.{code}"


def test_a_recorded_trace_is_what_was_measured_until_the_next_record(tmp_path: Path):
    path = tmp_path / "trace.jsonl"
    records = [
        {"time": 10, "node": 7, "samples_per_second": 4, "up_bps": 8e6, "down_bps": 8e6},
        {"time": 0, "node": 7, "samples_per_second": 2, "up_bps": 1e6, "down_bps": 1e6},
        {"time": 0, "node": 3, "samples_per_second": 1, "up_bps": 1e6, "down_bps": 1e6},
    ]
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n")
    network = network_of(load_profile("lan"), seed=0, trace=load_trace(path))
    assert len(network.machines) == 2
    assert [measured(network, 1, time).samples_per_second.value for time in (0.0, 9.9, 10.0)] == [2, 2, 4]
    assert network.machines[1].computed(0.0, 24.0) == 11.0  # 20 samples in ten seconds, then 4 in one
    with pytest.raises(HyperGPUError, match="recorded of 2 nodes"):
        network_of(load_profile("lan"), seed=0, trace=load_trace(path), nodes=3)


@pytest.mark.parametrize("line", ["{", '{"time": 0}', "", '{"time": -1, "node": 0}'])
def test_a_broken_trace_is_refused_with_its_line(tmp_path: Path, line: str):
    path = tmp_path / "trace.jsonl"
    path.write_text(line)
    with pytest.raises(HyperGPUError) as refused:
        load_trace(path)
    assert refused.value.code == "profile.invalid"


def test_a_hostile_majority_is_refused():
    with pytest.raises(HyperGPUError) as refused:
        network_of(load_profile("lan"), seed=0, attack="zeros", hostile=4)
    assert refused.value.code == "attack.majority"
    with pytest.raises(HyperGPUError, match="sign_flip"):
        network_of(load_profile("lan"), seed=0, attack="magic")
