"""The next round's steps while one travels, on the virtual clock: the agent's own leads, and what they do to time."""

from __future__ import annotations

import pytest

from trainer.network.profiles import load_profile
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import InnerSpec, JobSpec, ModelSpec, NetworkSpec, RoundSpec
from trainer.simulation.network import Closing, Network, network_of
from trainer.simulation.rounds import Rounds, Row
from trainer.simulation.run import as_published, simulate, sized

SPEC = JobSpec(
    model=ModelSpec(architecture="mlp", config={"hidden": [16]}), inner=InnerSpec(steps=20, batch_size=8),
    rounds=RoundSpec(rounds=3, nodes=4, quorum=2), network=NetworkSpec(overlap="eager"),
)  # fmt: skip


def slow_links(**changes: float) -> Network:
    """Four machines alike whose 20 steps take 20 s, on links of 100 Mb/s and 150 ms there and back."""
    node = (
        load_profile("lan")
        .nodes[0]
        .model_copy(update={"count": 4, "up_bps": 1e8, "down_bps": 1e8, "latency_s": 0.075, **changes})
    )
    return network_of(load_profile("lan").model_copy(update={"nodes": (node,)}), seed=0, closing=Closing(node_s=0.1))


def rows(spec: JobSpec, network: Network) -> list[Row]:
    return list(simulate(JobWork(spec=spec, files={}), network, "network-aware", seed=1))


def test_transfers_cost_no_time_while_steps_go_on():
    eager = rows(SPEC, slow_links())
    waiting = rows(SPEC.model_copy(update={"network": NetworkSpec()}), slow_links())
    assert eager[0].seconds > waiting[0].seconds  # nothing to be ahead with in the first round, and a denser file
    lasted = eager[2].seconds - eager[1].seconds
    assert 17.0 <= lasted <= 20.6 and waiting[2].seconds - waiting[1].seconds > 1.15 * lasted
    assert eager[2].busy > 0.95 > waiting[2].busy
    assert all(row.refused == {} for row in eager) and eager[2].samples == waiting[2].samples


def test_a_lead_is_whole_segments_and_no_more_than_the_last_order():
    job = JobWork(spec=sized(SPEC, 4), files={})
    run = Rounds(job, slow_links(), as_published(job.spec), seed=0)
    run.run_round()
    before = run.operators[0].before
    assert before is not None
    order = before.order.model_copy(update={"round": 1})
    # 5 steps of 8 samples take 5 s: base there after 0 s, 3 s, 5 s and an hour.
    expected = [(0.0, 0), (3.0, 5), (5.0, 5), (5.1, 10), (3600.0, 20)]
    for after, lead in expected:
        begun = run.lead(0, order, before.ended + after)
        assert run.operators[0].lead == lead and begun.samples == 8 * lead
        assert begun.until == pytest.approx(before.ended + max(after, float(lead))) and begun.seconds == pytest.approx(lead)
    assert run.lead(0, order.model_copy(update={"steps": 5}), before.ended + 8.0).samples == 0  # it did more than was asked for
    run.operators[0].crash()
    assert run.lead(0, order, before.ended + 8.0).samples == 0


@pytest.mark.parametrize("overlap", ["none", "eager"])
def test_fragments_in_turn_move_a_part_of_the_bytes_and_everybody_follows(overlap: str):
    turns = NetworkSpec(policy="equal", overlap=overlap, fragments=2, most_stale=0)
    spec = SPEC.model_copy(update={"network": turns, "model": ModelSpec(architecture="mlp", config={"hidden": [64, 64]})})
    whole = spec.model_copy(update={"network": NetworkSpec(policy="equal", overlap=overlap)})
    parts, together = rows(spec, slow_links()), rows(whole, slow_links())
    assert all(row.refused == {} and row.missing == {} for row in parts)
    for part, all_of_it in zip(parts[1:], together[1:], strict=True):
        assert part.sent < 0.6 * all_of_it.sent and part.received < 0.6 * all_of_it.received
    assert parts[2].seconds < together[2].seconds and parts[2].loss < parts[0].loss
