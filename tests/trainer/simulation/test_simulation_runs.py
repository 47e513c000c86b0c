"""Whole runs: the same from the same seed, with the product's rounds, on a clock that follows its links."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import app
from trainer.network.facts import NodeFacts
from trainer.network.policy import Plan, plain
from trainer.network.profiles import LinkSpec, NodeSpec, Profile, RegionSpec, load_profile
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import AggregationSpec, InnerSpec, JobSpec, ModelSpec, NetworkSpec, RoundSpec
from trainer.simulation.measuring import Observer, Timed
from trainer.simulation.network import Closing, Network, measured, network_of
from trainer.simulation.rounds import Rounds, Row
from trainer.simulation.run import PolicyName, simulate, sized, stands_for

SPEC = JobSpec(
    model=ModelSpec(architecture="mlp", config={"hidden": [16]}), inner=InnerSpec(steps=4, batch_size=8),
    rounds=RoundSpec(rounds=2, nodes=8, quorum=2),
)  # fmt: skip
JOB = JobWork(spec=SPEC, files={})


def network(profile: str = "wan-hetero", **changes: object) -> Network:
    return network_of(load_profile(profile), seed=3, **changes)  # type: ignore[arg-type]


def rows(policy: PolicyName, profile: str = "wan-hetero", *, job: JobWork = JOB, **changes: object) -> list[Row]:
    return list(simulate(job, network(profile, **changes), policy, seed=3))


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    first = rows("network-aware", "mobile")
    assert first == rows("network-aware", "mobile")
    assert first != list(simulate(JOB, network_of(load_profile("mobile"), seed=4), "network-aware", seed=4))


def test_the_policies_learn_alike_and_differ_in_time_and_bytes():
    found = {policy: rows(policy) for policy in ("centralized", "ddp", "diloco", "network-aware")}
    last = {policy: one[-1] for policy, one in found.items()}
    assert last["centralized"].loss == last["ddp"].loss
    assert last["centralized"].seconds < last["network-aware"].seconds < last["diloco"].seconds < last["ddp"].seconds
    n = network().parameters
    # Per step and node 2 (P - 1) / P * 4 n bytes; 4 n for a round of dense DiLoCo, header aside.
    assert last["ddp"].sent == pytest.approx(8 * 4 * 2 * 7 / 8 * 4 * n)
    assert last["diloco"].sent == pytest.approx(8 * 4 * n, rel=0.03)
    assert last["network-aware"].sent < last["diloco"].sent / 3


def test_crashed_late_and_leaving_nodes_cost_their_work_alone():
    crashing = rows("diloco", "lan", failure=0.4)
    assert any(row.missing for row in crashing) and all("crashed" in set(row.missing.values()) for row in crashing if row.missing)
    assert all(len(row.units) + len(row.missing) == 8 for row in crashing)
    profile = load_profile("lan")
    leaving = profile.nodes[0].model_copy(update={"count": 1, "leaves_s": 1.0})
    staying = profile.nodes[0].model_copy(update={"count": 7})
    found = list(simulate(JOB, network_of(profile.model_copy(update={"nodes": (staying, leaving)}), seed=0), "diloco"))
    assert found[0].missing == {7: "gone"} and found[1].missing == {} and len(found[1].units) == 7
    gone = profile.model_copy(update={"nodes": (leaving,)})
    with pytest.raises(HyperGPUError) as deserted:
        list(simulate(JOB, network_of(gone, seed=0), "diloco"))
    assert deserted.value.code == "simulation.deserted"


def test_a_round_closes_at_its_deadline_with_a_quorum_and_late_work_counts_in_the_next():
    profile = load_profile("lan")
    slow = profile.nodes[0].model_copy(update={"count": 1, "samples_per_second": 2.0})  # 16 s for its 32 samples; the others 4 s
    unequal = profile.model_copy(update={"nodes": (profile.nodes[0].model_copy(update={"count": 3}), slow)})

    def deadline(facts: Sequence[NodeFacts], **_: object) -> Plan:
        return replace(plain(facts, SPEC), quorum=2, deadline_s=10.0)

    job = JobWork(spec=sized(SPEC, 4), files={})
    first, second = Rounds(job, network_of(unequal, seed=0), deadline, seed=0)
    assert (first.seconds, first.missing, set(first.units)) == (10.0, {3: "late"}, {0, 1, 2})
    assert second.missing == {} and second.late == {3: 1} and set(second.units) == {0, 1, 2, 3} and 16 < second.seconds < 17
    strict = SPEC.model_copy(update={"network": NetworkSpec(most_stale=0)})
    first, second = Rounds(JobWork(spec=sized(strict, 4), files={}), network_of(unequal, seed=0), deadline, seed=0)
    assert first.missing == {3: "late"} and set(second.units) == {0, 1, 2} and second.seconds < 15


def test_the_coordinators_own_time_passes_on_the_clock():
    quick, slow = (rows("diloco", "lan", closing=closing) for closing in (Closing(), Closing(fixed_s=1.0, node_s=0.5)))
    assert [row.seconds for row in slow] == pytest.approx([quick[0].seconds + 5.0, quick[1].seconds + 10.0], rel=1e-6)


def test_what_is_known_of_a_node_comes_from_its_own_traffic():
    net = network()
    observer = Observer(net, seed=1)
    first, truth = observer.facts(0, 0.0), measured(net, 0, 0.0)
    assert first.samples_per_second.source == "benchmark" and first.up.source == "probe"
    assert first.samples_per_second.value != truth.samples_per_second.value
    timed = Timed(fetched=1e8, fetch_s=10.0, samples=100, compute_s=20.0, sent=1e7, upload_s=5.0)
    observer.kept(0, 50.0, timed, None)
    later = observer.facts(0, 60.0)
    assert later.samples_per_second.value == pytest.approx(5.0) and later.samples_per_second.source == "work"
    assert later.up.value == pytest.approx(2e6, rel=0.1) and later.down.value == pytest.approx(1e7, rel=0.1)
    assert later.up.source == "transfer" and later.up.age_s == 10.0 and later.reliability == 1.0
    observer.ordered(0, 0, kept=True)
    observer.ordered(0, 1, kept=False)
    observer.judged(0, 0.5)
    assert observer.facts(0, 60.0).reliability == pytest.approx(0.8 / 1.8) and observer.facts(0, 60.0).quality == 0.5


def test_who_breaks_its_orders_is_left_out_for_a_while_and_comes_back():
    """The health of the live system, on the virtual clock."""
    observer, levels = Observer(network(), seed=1), []
    for number in range(12):
        found = observer.standings([observer.facts(node, 100.0 * number) for node in (0, 1, 7)], round=number)
        assert found[0].level == "high"
        levels.append(found[7].level)
        for node in (node for node in found if found[node].level != "excluded"):
            observer.ordered(node, number, kept=node != 7)
            observer.judged(node, 0.0 if node == 7 else 1.0)
    assert levels[:4] == ["normal", "excluded", "excluded", "probation"] and levels.count("probation") > 1


def test_hostile_nodes_are_seen_by_the_products_own_rules():
    job = JobWork(spec=SPEC.model_copy(update={"aggregation": AggregationSpec()}), files={})
    zeros = rows("diloco", "lan", job=job, attack="zeros")
    assert all(row.refused == {6: "contribution.empty", 7: "contribution.empty"} for row in zeros)
    resent = rows("diloco", "lan", job=job, attack="resend")
    assert resent[0].missing == {6: "silent", 7: "silent"}
    assert resent[1].refused == {6: "contribution.copy", 7: "contribution.copy"}
    copied = rows("diloco", "lan", job=job, attack="copy_earlier")
    assert copied[1].refused == {6: "contribution.copy", 7: "contribution.copy"}
    with pytest.raises(HyperGPUError) as refused:
        rows("ddp", "lan", attack="zeros")
    assert refused.value.code == "simulation.no_defence"


def test_the_emulation_states_what_its_proportion_stands_for():
    text = stands_for(network("lan"), SPEC, 1000)
    assert "124,000,000 parameters (496 MB in fp32)" in text and "step of 8 samples takes 1 s" in text
    assert "takes 0.5 to 4 s" in stands_for(network(), SPEC, 1000)


def test_the_command_writes_a_table_json_and_a_plot(tmp_path: Path):
    job, out, plot = tmp_path / "job.json", tmp_path / "out.json", tmp_path / "out.png"
    job.write_text(SPEC.model_dump_json())
    options = ["simulate", "--profile", "lan", "--policy", "diloco", "--policy", "ddp", "--nodes", "4", "--rounds", "1"]
    done = CliRunner().invoke(app, [*options, "--job", str(job), "--json", str(out), "--plot", str(plot), "--seed", "5"])
    assert done.exit_code == 0, done.output
    assert "Emulated" in done.output and "sent by a node" in done.output
    found = json.loads(out.read_text())
    assert set(found["policies"]) == {"diloco", "ddp"} and found["nodes"] == 4 and "Emulated" in found["emulated"]
    assert found["policies"]["diloco"]["summary"]["rounds"] == len(found["policies"]["diloco"]["rows"]) == 1
    assert plot.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "says"),
    [(["--profile", "moon", "--policy", "ddp"], "wan-hetero"), (["--profile", "lan", "--policy", "magic"], "network-aware"),
     (["--profile", "lan", "--policy", "ddp", "--data", "nowhere.txt"], "digits"),
     (["--profile", "lan", "--policy", "ddp", "--model", "brain"], "cnn"),
     (["--profile", "lan", "--policy", "diloco", "--attack", "magic"], "sign_flip"),
     (["--profile", "lan", "--policy", "diloco", "--job", "x.json", "--model", "mlp"], "leave out"),
     (["--profile", "lan", "--policy", "diloco", "--job", "nowhere.json"], "nowhere.json"),
     (["--profile", "lan", "--policy", "diloco", "--file", "text"], "ROLE=PATH")],
)  # fmt: skip
def test_bad_input_says_what_to_do(options: list[str], says: str):
    done = CliRunner().invoke(app, ["simulate", *options])
    assert done.exit_code == 1 and says in done.output


def test_an_observer_knows_loss_and_distance_from_what_it_saw_not_from_the_profile():
    near = NodeSpec(count=2, samples_per_second=8, up_bps=1e8, down_bps=1e8, latency_s=0.01, loss=0.05, region="far", public=True)
    far = Profile(
        name="far", description="", parameters=1, coordinator=LinkSpec(up_bps=1e9, down_bps=1e9), nodes=(near,),
        regions={"far": RegionSpec(latency_s=0.1)},
    )  # fmt: skip
    net = network_of(far, seed=0)
    observer, truth = Observer(net, seed=1), measured(net, 0, 0.0)
    first = observer.facts(0, 0.0)
    assert first.loss.value != truth.loss.value and first.near[1].value != truth.near[1].value
    timed = Timed(fetched=1e6, fetch_s=1.0, samples=8, compute_s=1.0, sent=4e6, upload_s=1.0)
    for now in range(1, 20):
        observer.kept(0, float(now), timed, None)
        known = observer.facts(0, float(now))
    assert known.loss.value == pytest.approx(truth.loss.value, rel=0.15)
    assert known.near[1].value == pytest.approx(truth.near[1].value, rel=0.15)
