"""The virtual clock and its links, against cases reckoned by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.network.links import AWAY, Conditions, Machine, finish, mathis_bps, path_bps, transferred
from trainer.simulation.clock import Clock
from trainer.simulation.data_parallel import ring, ring_bytes


def machine(up: float = 8e6, down: float = 8e6, *, latency: float = 0.0, loss: float = 0.0, speed: float = 1.0) -> Machine:
    return Machine([(0.0, Conditions(speed, up, down, latency, 0.0, loss))], seed="x")


@given(st.lists(st.floats(min_value=0, max_value=100)))
def test_events_come_in_order_of_time_and_those_of_one_time_as_scheduled(times):
    clock: Clock[int] = Clock()
    for number, time in enumerate(times):
        clock.schedule(time, number)
    taken = [clock.take() for _ in times]
    assert taken == sorted(range(len(times)), key=lambda number: (times[number], number))
    assert clock.now == max(times, default=0.0) and not len(clock)


def test_nothing_is_scheduled_in_the_past():
    clock: Clock[str] = Clock()
    clock.schedule(5.0, "a")
    clock.take()
    with pytest.raises(ValueError, match="5 s already"):
        clock.schedule(4.0, "b")
    with pytest.raises(ValueError):
        clock.schedule(math.nan, "c")


def test_work_goes_on_at_another_speed_after_a_change():
    # 2 a second until 10 s, then 5 a second: 30 units from second 4 take 6 s for 12, then 3.6 s for 18.
    rate, change = lambda time: 2.0 if time < 10 else 5.0, lambda time: 10.0 if time < 10 else math.inf
    assert finish(4.0, 30.0, rate, change) == pytest.approx(13.6)
    assert finish(4.0, 0.0, rate, change) == 4.0
    assert finish(4.0, 1.0, lambda _: 0.0, lambda _: math.inf) == math.inf


def test_a_transfer_waits_a_round_trip_and_flows_at_the_narrower_end():
    fast, slow = machine(up=100e6, latency=0.01), machine(down=8e6, latency=0.04)
    # 2 MB at 8 Mb/s are 2 s, after a round trip of 2 (10 + 40) ms.
    assert transferred(fast, slow, 3.0, 2e6) == pytest.approx(3.0 + 0.1 + 2.0)
    assert transferred(fast, slow, 3.0, 2e6, round_trips=0.5) == pytest.approx(3.0 + 0.05 + 2.0)


def test_loss_limits_a_connection_as_mathis_says():
    # 1460 bytes, 100 ms, one packet of ten thousand: 11,680 / 0.1 * sqrt(15,000) = 14.3 Mb/s.
    assert mathis_bps(0.1, 1e-4) == pytest.approx(116_800 * math.sqrt(15_000))
    assert mathis_bps(0.1, 0.0) == math.inf
    one, other = Conditions(1, 1e9, 1e9, 0.02, 0, 1e-4), Conditions(1, 1e9, 1e9, 0.03, 0, 2e-4)
    both = 1 - (1 - 1e-4) * (1 - 2e-4)
    assert path_bps(one, other) == pytest.approx(11_680 / 0.1 * math.sqrt(1.5 / both))


def test_a_transfer_goes_on_after_an_outage_and_never_ends_when_a_machine_has_left():
    here = machine()
    there = Machine([(0.0, Conditions(1, 8e6, 8e6)), (1.0, Conditions(1, 0, 0)), (5.0, Conditions(1, 8e6, 8e6))], seed="x")
    assert transferred(here, there, 0.0, 2e6) == pytest.approx(6.0)  # a second before the outage, a second after it
    leaving = Machine([(0.0, Conditions(1, 8e6, 8e6)), (1.0, AWAY)], seed="x", every_s=0.5, lasting_s=0.1)
    assert transferred(here, leaving, 0.0, 2e6) == math.inf
    assert leaving.computed(0.5, 1.0) == math.inf


def test_outages_are_those_of_the_seed_and_computing_does_not_mind_them():
    def outages(seed: str) -> list[bool]:
        one = Machine([(0.0, Conditions(4, 8e6, 8e6))], seed=seed, every_s=60, lasting_s=20)
        return [one.at(float(time)).up_bps == 0 for time in range(0, 20_000, 10)]

    first = outages("a")
    assert first == outages("a") != outages("b")
    assert sum(first) / len(first) == pytest.approx(0.25, abs=0.08)  # 20 s of every 80
    assert Machine([(0.0, Conditions(4, 8e6, 8e6))], seed="a", every_s=1, lasting_s=1).computed(0, 40) == 10.0


def test_a_ring_all_reduce_takes_its_phases_and_its_bytes():
    assert ring_bytes(4e6, 8) == 2 * 7 / 8 * 4e6
    # 4 machines, 4 MB: 6 phases of 1 MB at 8 Mb/s, a second each, and 2 * 5 ms one way.
    machines = [machine(latency=0.005) for _ in range(4)]
    assert ring(machines, [0.0] * 4, 4e6) == pytest.approx(6 * 1.01)
    assert ring(machines, [0.0, 0.0, 2.0, 0.0], 4e6) == pytest.approx(2 + 6 * 1.01)  # all wait for the slowest
    assert ring([machine(), AWAY_FOR_GOOD], [0.0, 0.0], 4e6) == math.inf


AWAY_FOR_GOOD = Machine([(0.0, AWAY)], seed="x")
