"""Who fetches from whom."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.network.sources import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_SOURCES, NEARER, Patience, sources_of


def test_given_a_region_then_one_of_it_goes_to_the_coordinator_and_the_rest_to_that_one():
    near = dict.fromkeys(range(1, 6), 0.005)
    chosen = {
        node: sources_of(node, rtt_s=0.15, peers={peer: rtt for peer, rtt in near.items() if peer != node}) for node in near
    }
    assert chosen[1] == []
    assert {chosen[node][0] for node in (2, 3, 4, 5)} == {1}


def test_given_peers_that_are_no_nearer_than_the_coordinator_then_nobody_is_asked():
    assert sources_of(9, rtt_s=0.1, peers={1: 0.1, 2: 0.06, 3: 0.5}) == []
    assert sources_of(9, rtt_s=0.1, peers={1: 0.1, 2: 0.1 * NEARER}) == [2]


@given(st.dictionaries(st.tuples(st.integers(1, 12), st.integers(1, 12)), st.floats(1e-4, 1)), st.floats(1e-3, 1))
def test_given_any_claims_then_nobody_waits_in_a_circle(claimed, rtt):
    for node in range(1, 13):
        chosen = sources_of(node, rtt_s=rtt, peers={to: seconds for (at, to), seconds in claimed.items() if at == node})
        assert all(peer < node for peer in chosen)
        assert len(chosen) <= MOST_SOURCES


def test_given_a_peer_that_keeps_failing_then_it_is_asked_ever_more_rarely_and_one_success_makes_up_for_it():
    patience, now, pauses = Patience(), 0.0, []
    assert patience.may_ask(3, now)
    for _ in range(10):
        pauses.append(patience.failed(3, now))
        assert not patience.may_ask(3, now + pauses[-1] - 1)
        assert patience.may_ask(4, now), "nobody pays for another"
        now += pauses[-1]
        assert patience.may_ask(3, now), "each pause has an end"
    assert pauses[:3] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == LONGEST_PAUSE_S
    patience.kept(3)
    assert patience.failed(3, now) == FIRST_PAUSE_S
