"""Whose upload goes by way of a near node: only where it is faster, and never in a circle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.network.facts import Measure, NodeFacts
from trainer.network.policy import Settings, plan_round
from trainer.network.regions import FASTER, MOST_GAIN, OLD_S, routes
from trainer.network.transfers import connection_rate
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec, RoundSpec
from trainer.protocol.wire import encoded_bytes

MB = 1e6
LOSS, RTT, NEAR = 0.01, 0.3, 0.01
BY_TCP = connection_rate(RTT, LOSS)
"""Bytes/s of one connection on the long lossy way."""


def known(value: float, **changes: Any) -> Measure:
    return Measure(**{"value": value, "source": "transfer", "samples": 9} | changes)


def fact(node: int, *, up: float, rtt: float = RTT, loss: float = LOSS, speed: float = 4.0, near: Any = None, via: Any = None):
    return NodeFacts(
        node_id=node, samples_per_second=known(speed, source="work"), up=known(up), down=known(10 * MB), rtt_s=known(rtt),
        loss=known(loss), near={peer: known(seconds) for peer, seconds in (near or {}).items()}, via=via or {},
    )  # fmt: skip


def region(*, up: float = BY_TCP, of_gatherer: float = 5 * MB) -> list[NodeFacts]:
    """Node 1 has a good way to the coordinator; 2 and 3 are near it, over a long way that loses packets."""
    far = [fact(node, up=up, near={1: NEAR}) for node in (2, 3)]
    return [fact(1, up=of_gatherer, rtt=0.25, loss=0.0, near={2: NEAR, 3: NEAR}), *far]


def test_given_near_nodes_bound_by_tcp_on_a_long_lossy_way_then_they_go_by_the_one_with_a_good_way():
    found = routes(region(), sizes=dict.fromkeys((1, 2, 3), 5 * MB))
    assert {node: route.via for node, route in found.items()} == {1: None, 2: 1, 3: 1}
    assert [found[node].reason.code for node in (1, 2, 3)] == ["upload.gathers", "upload.gathered", "upload.gathered"]
    assert found[2].up.value == pytest.approx(MOST_GAIN * BY_TCP)
    assert found[1].up.value == pytest.approx(5 * MB / 3), "all three go up over its link"
    assert "node 1" in found[2].reason.text and "2, 3" in found[1].reason.text


def test_given_a_gatherer_whose_connections_are_bound_by_tcp_too_then_its_link_has_room_for_the_others():
    found = routes(region(of_gatherer=connection_rate(0.25, 0.0)), sizes=dict.fromkeys((1, 2, 3), 5 * MB))
    assert found[1].up.value == pytest.approx(connection_rate(0.25, 0.0))


def test_given_a_narrow_uplink_then_a_near_node_cannot_help_and_it_goes_direct():
    found = routes(region(up=BY_TCP / 4), sizes=dict.fromkeys((1, 2, 3), 5 * MB))
    assert {(route.via, route.reason.code) for route in found.values()} == {(None, "upload.direct")}


def test_given_a_way_that_was_tried_then_what_it_brought_counts_until_it_is_old():
    slow, sizes = known(BY_TCP), dict.fromkeys((1, 2, 3), 5 * MB)
    tried = [replace(one, via={1: slow}) if one.node_id == 2 else one for one in region()]
    assert {node: route.via for node, route in routes(tried, sizes=sizes).items()} == {1: None, 2: None, 3: 1}
    forgotten = [replace(one, via={1: replace(slow, age_s=OLD_S + 1)}) if one.node_id == 2 else one for one in region()]
    assert routes(forgotten, sizes=sizes)[2].via == 1


def test_given_a_direct_way_that_was_not_seen_for_long_then_it_is_tried_again():
    facts = [replace(one, up=replace(one.up, age_s=OLD_S + 1)) for one in region()]
    assert {route.via for route in routes(facts, sizes=dict.fromkeys((1, 2, 3), 5 * MB)).values()} == {None}


def test_given_an_upload_that_nobody_has_timed_then_it_goes_direct_first():
    facts = [replace(one, up=Measure(value=BY_TCP)) for one in region()]
    assert routes(facts, sizes=dict.fromkeys((1, 2, 3), 5 * MB)) == {}


def test_given_a_gatherer_whose_own_work_would_wait_for_longer_than_is_saved_then_it_carries_nothing():
    busy = replace(region()[0], samples_per_second=known(4000.0, source="work"))
    found = routes([busy, *region()[1:]], sizes=dict.fromkeys((1, 2, 3), 5 * MB))
    assert {route.via for route in found.values()} == {None} and "hold up" in found[2].reason.text


def test_given_a_node_that_left_then_nobody_goes_by_way_of_it():
    assert routes(region()[1:], sizes=dict.fromkeys((2, 3), 5 * MB)) == {}


measures = st.tuples(st.floats(1e4, 1e8), st.floats(0, 2), st.floats(0, 0.2), st.floats(0.1, 100))


@given(st.lists(measures, min_size=1, max_size=8), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_was_measured_nobody_waits_in_a_circle_and_each_way_is_faster(found, data):
    places = range(len(found))
    facts = [
        fact(
            node,
            up=up,
            rtt=rtt,
            loss=loss,
            speed=speed,
            near=data.draw(st.dictionaries(st.sampled_from(places), st.floats(0, 2))),
        )
        for node, (up, rtt, loss, speed) in enumerate(found)
    ]
    sizes = dict.fromkeys(places, 3 * MB)
    chosen = routes(facts, sizes=sizes)
    gatherers = {route.via for route in chosen.values()} - {None}
    assert all(chosen[node].via is None and chosen[node].reason.code == "upload.gathers" for node in gatherers)
    for node, route in chosen.items():
        assert route.up.value > 0
        if route.via is not None:
            before = sizes[node] / facts[node].up.value + facts[node].rtt_s.value
            assert route.via != node and sizes[node] / route.up.value <= FASTER * before
    assert chosen == routes(facts[::-1], sizes=sizes)


SPEC = JobSpec(
    inner=InnerSpec(steps=40, batch_size=8), rounds=RoundSpec(nodes=3, quorum=2, deadline_seconds=86_400),
    encoding=EncodingSpec(kind="fp32"),
)  # fmt: skip


def test_given_a_faster_way_then_the_plan_orders_denser_updates_by_it_and_says_why():
    facts, count = region(), 10_000_000
    gathered, direct = plan_round(facts, SPEC, count=count), plan_round(facts, SPEC, count=count, settings=Settings(gather=False))
    assert {node: part.via for node, part in gathered.parts.items()} == {1: None, 2: 1, 3: 1}
    assert all(part.via is None for part in direct.parts.values())
    sizes = [encoded_bytes(count, plan.parts[2].encoding) for plan in (gathered, direct)]
    assert sizes[0] > 1.5 * sizes[1], "more goes up in the time that is meant for it"
    assert "upload.gathered" in [reason.code for reason in gathered.parts[2].reasons]
    assert "upload.gathers" in [reason.code for reason in gathered.parts[1].reasons]
