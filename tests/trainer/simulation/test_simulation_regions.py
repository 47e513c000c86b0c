"""Near nodes on the virtual clock: what goes by them comes sooner, and nothing is lost when one of them is gone."""

from __future__ import annotations

from functools import partial

import pytest

from trainer.diloco.round import bench
from trainer.network.links import transferred
from trainer.network.policy import Part, Plan, Settings, plan_round
from trainer.network.profiles import LinkSpec, NodeSpec, Profile, RegionSpec
from trainer.network.sources import Patience
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec, RoundSpec
from trainer.simulation.network import measured, network_of
from trainer.simulation.regions import Regions
from trainer.simulation.rounds import Rounds, Row
from trainer.simulation.run import sized

GOOD = NodeSpec(
    samples_per_second=8, up_bps=1e9, down_bps=1e9, latency_s=0.001, loss=1e-6, region="far", public=True
)  # fmt: skip
LOSSY = NodeSpec(count=2, samples_per_second=8, up_bps=1e8, down_bps=1e8, latency_s=0.008, loss=0.01, region="far")
SIZE = 2.5e6


def profile(*, gatherer: NodeSpec = GOOD, others: NodeSpec = LOSSY) -> Profile:
    """Node 0 has a good way out of a far region, 1 and 2 have radio links in it."""
    return Profile(
        name="far", description="", parameters=124_000_000, coordinator=LinkSpec(up_bps=1e10, down_bps=1e10, latency_s=0.002),
        nodes=(gatherer, others), regions={"far": RegionSpec(latency_s=0.13)},
    )  # fmt: skip


def regions(found: Profile, *, patience: dict[int, Patience] | None = None, via: int | None = 0) -> Regions:
    network = network_of(found, seed=0)
    parts = {node: Part(steps=1, encoding=EncodingSpec(), via=via if node else None) for node in range(3)}
    facts = [measured(network, node, 0.0) for node in range(3)]
    return Regions(
        network, facts, Plan(parts=parts, quorum=1, deadline_s=None, gathers=True), patience or {n: Patience() for n in parts}
    )


pytestmark = pytest.mark.usefixtures("one_thread")


def test_given_a_region_then_its_nodes_are_near_each_other_and_as_far_from_the_rest_as_ever():
    network = network_of(profile(), seed=0)
    here = measured(network, 1, 0.0)
    assert here.rtt_s.value == pytest.approx(2 * (0.008 + 0.13 + 0.002))
    assert {peer: rtt.value for peer, rtt in here.near.items()} == {0: pytest.approx(2 * 0.009)}, "the other one is not public"
    assert measured(network_of(profile(gatherer=GOOD.model_copy(update={"public": False})), seed=0), 1, 0.0).near == {}


def test_given_a_lossy_link_far_away_then_a_near_gatherer_brings_the_upload_sooner():
    found = regions(profile())
    direct = transferred(found.network.machines[1], found.network.coordinator, 0.0, SIZE)
    came, fell_back = found.sent(1, 0.0, SIZE)
    assert not fell_back and came < direct / 5


def test_given_a_narrow_uplink_then_a_near_gatherer_brings_nothing():
    narrow = LOSSY.model_copy(update={"up_bps": 1e6, "loss": 0.0})
    found = regions(profile(others=narrow))
    direct = transferred(found.network.machines[1], found.network.coordinator, 0.0, SIZE)
    came, _ = found.sent(1, 0.0, SIZE)
    assert came >= 0.98 * direct


@pytest.mark.parametrize("how", ["crashed", "left"])
def test_given_a_gatherer_that_is_gone_in_the_middle_then_the_upload_goes_direct_and_it_is_spared_for_a_while(how: str):
    patience = {node: Patience() for node in range(3)}
    found = regions(profile(gatherer=GOOD.model_copy(update={"leaves_s": 1.0} if how == "left" else {})), patience=patience)
    if how == "crashed":
        found.gone[0] = 1.0
    direct = transferred(found.network.machines[1], found.network.coordinator, 0.0, SIZE)
    came, fell_back = found.sent(1, 0.0, SIZE)
    assert fell_back and direct < came <= 2.2 * direct
    assert not patience[1].may_ask(0, came)
    again, _ = found.sent(1, came, SIZE)
    assert again - came == pytest.approx(direct), "nobody is asked in vain twice"


def test_given_a_region_then_one_fetches_the_outer_step_and_the_others_have_it_from_there():
    found = regions(profile())
    assert found.order == [0, 1, 2] and found.sources == {1: 0, 2: 0}
    first, nobody = found.fetched(0, 0.0, SIZE)
    second, source = found.fetched(1, 0.0, SIZE)
    assert nobody is None and source == 0 and first < second
    assert second < transferred(found.network.coordinator, found.network.machines[1], 0.0, SIZE)


def test_given_a_source_that_has_crashed_then_the_coordinator_sends_the_outer_step():
    found = regions(profile())
    found.gone[0] = 0.0
    found.fetched(0, 0.0, SIZE)
    came, source = found.fetched(1, 0.0, SIZE)
    assert source is None and came < 2.2 * transferred(found.network.coordinator, found.network.machines[1], 0.0, SIZE)


def run(*, gather: bool) -> list[Row]:
    spec = JobSpec(
        rounds=RoundSpec(nodes=3, quorum=2, rounds=3), inner=InnerSpec(steps=20), encoding=EncodingSpec(kind="topk", k=64),
        downlink=EncodingSpec(kind="int4"),
    )  # fmt: skip
    job, network = JobWork(spec=sized(spec, 3), files={}), network_of(profile(), seed=0)
    count = bench(job).size
    plan = partial(plan_round, spec=job.spec, count=count, scale=network.parameters / count, settings=Settings(gather=gather))
    return list(Rounds(job, network, plan, seed=0))


def test_given_rounds_in_such_a_region_then_all_of_it_takes_part_and_more_is_done_in_less_time():
    near, direct = run(gather=True), run(gather=False)
    rates = [sum(row.samples for row in rows) / rows[-1].seconds for rows in (near, direct)]
    assert rates[0] > 1.3 * rates[1]
    assert set(near[-1].units) == {0, 1, 2} and set(direct[-1].units) != {0, 1, 2}
    assert [row.loss for row in near] == sorted((row.loss for row in near), reverse=True)
    assert run(gather=True) == near, "the same every time"


def test_given_a_region_that_is_not_there_then_the_profile_is_refused():
    with pytest.raises(ValueError, match="no region far"):
        Profile(name="x", description="", parameters=1, coordinator=LinkSpec(up_bps=1, down_bps=1), nodes=(GOOD,))
