"""The reference of the market's arithmetic against the market: whatever is done, in whatever order, both come to the same
figures, to the unit, and refuse the same."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st

from tests.chain.arithmetic_acts import (
    Accept,
    Act,
    Award,
    Close,
    Distribute,
    Free,
    Fund,
    Hold,
    Lapse,
    Mark,
    NewEpoch,
    Pass,
    Penalize,
    Record,
    Release,
    Settle,
    Withdraw,
)
from tests.chain.arithmetic_model import (
    ATTESTORS,
    CAPACITY,
    DISPUTE,
    ESCROW,
    INSTANT_SHARE,
    RATES,
    REQUESTER,
    SEATED,
    WINDOW,
    Model,
    World,
)
from tests.support.anvil import start_anvil
from tests.support.market import LocalMarket, Reverted
from trainer.protocol import credit
from trainer.protocol.settlement import Refusal

pytestmark = pytest.mark.chain

QUALITY = st.one_of(st.integers(0, 10_000), st.sampled_from([0, 1, 9_999, 10_000]))
NODE, SEATED_NODE, BACK, RARELY = st.integers(1, 4), st.integers(1, SEATED), st.integers(0, 2), st.sampled_from([0] * 9 + [1])
UNITS = st.one_of(st.integers(0, CAPACITY), st.sampled_from([CAPACITY, CAPACITY + 1]))
GOOD_WORK = st.lists(st.tuples(SEATED_NODE, st.integers(0, CAPACITY)), max_size=3, unique_by=lambda pair: pair[0])
ANY_WORK = st.lists(st.tuples(NODE, UNITS), max_size=3)
ROW = st.tuples(QUALITY, QUALITY, QUALITY)
GOOD = st.builds(Settle, GOOD_WORK.map(sorted).map(tuple), st.tuples(ROW, ROW, ROW), st.sampled_from([True] * 3 + [False]))
ANY_ROW = st.one_of(ROW, st.none(), st.tuples(st.just(10_001), QUALITY, QUALITY))
ANY = st.builds(Settle, ANY_WORK.map(tuple), st.tuples(ANY_ROW, ANY_ROW, ANY_ROW), st.booleans(), RARELY, RARELY)
BEFORE = st.one_of(
    st.builds(Fund, st.integers(0, 2_000)),
    st.builds(Record, SEATED_NODE, st.integers(0, CAPACITY), st.integers(0, 1)),
    st.builds(Record, NODE, UNITS, st.sampled_from([-1, 0, 1, 8, 9])),
    st.builds(NewEpoch, st.integers(1, 3)),
    ANY,
)
AFTER = st.one_of(
    st.builds(Accept, BACK),
    st.just(Accept(1)),
    st.builds(Award, NODE, BACK, UNITS, QUALITY, QUALITY),
    st.builds(Award, SEATED_NODE, st.just(1), st.integers(0, CAPACITY), st.just(0), QUALITY),
    st.builds(Penalize, NODE, st.integers(0, 1_500), st.integers(0, 1_000), st.integers(0, 250)),
    st.builds(Penalize, NODE, st.integers(0, 100), st.integers(0, 2_000), st.integers(0, 2_000)),
    st.just(Mark()),
    st.builds(Hold, SEATED_NODE, st.integers(1, 1_000)),
)
MONEY = st.one_of(
    st.builds(Withdraw, NODE, st.integers(0, 600)),
    st.builds(Withdraw, SEATED_NODE, st.integers(1, 100)),
    st.builds(Distribute, st.lists(NODE, max_size=4).map(tuple)),
    st.builds(Release, st.integers(1, 2), st.integers(0, 2)),
    st.builds(Release, st.just(1), st.integers(0, 1)),
    st.builds(Lapse, NODE),
    st.builds(Free, SEATED_NODE),
)
TIME = st.builds(Pass, st.sampled_from([1, WINDOW // 2, WINDOW - 1, WINDOW]))
ACTS = st.tuples(
    st.lists(st.tuples(BEFORE, GOOD, AFTER, MONEY, TIME, MONEY), min_size=2, max_size=5).map(
        lambda rounds: [act for each in rounds for act in each]
    ),
    st.sampled_from([[], [Close()], [Close(), Mark(), Close()]]),
    st.lists(st.one_of(BEFORE, AFTER, MONEY, TIME, ANY), max_size=4),
).map(lambda parts: [act for part in parts for act in part])
"""Rounds as they go well, with all that can be done to them in between; then perhaps the end, and what comes after."""


FULL = Settle(((1, 100), (2, 60), (3, 50)), ((10_000,) * 3,) * 3, True)
RELEASED_AND_MARKED = [
    Fund(10_000), FULL, Accept(1), Release(1, 0), Mark(), Release(1, 1), Release(1, 0),
    FULL, Accept(1), Release(1, 2), Withdraw(1, 300), Mark(), Pass(WINDOW - 1), Distribute((1, 2)),
    FULL, Mark(), Pass(WINDOW), Release(2, 1), Mark(), Release(2, 0), Accept(1), Release(1, 0), Distribute((1, 2, 3)),
    Pass(WINDOW), Mark(), FULL, Mark(), Accept(1), Release(1, 0), Pass(WINDOW), Mark(), FULL, Mark(), Release(2, 1), FULL,
    Pass(WINDOW), Mark(), Penalize(3, 100, 1_000, 250), Penalize(3, 2_000, 0, 0), Pass(WINDOW), Distribute((1, 2, 3)),
]  # fmt: skip
"""Releases before, between and after marks, and what can be withdrawn then; a penalty that all of a stake does not cover."""
HELD = [
    FULL, Mark(), Pass(WINDOW), Hold(1, 250), Withdraw(1, 300), Hold(1, 40), Hold(2, 5_000), Accept(1), Release(1, 1),
    Distribute((1, 2, 3)), Free(1), Distribute((1, 2)), FULL, Mark(), Hold(1, 300), Pass(DISPUTE - 2), Withdraw(1, 300), Pass(1),
    Withdraw(1, 300), Distribute((2,)),
]  # fmt: skip
"""Free credit stays while it is disputed, accepted or not, and no longer than a dispute lasts."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A job of 6,000 with three seats, two of one operator; a part of the other's stake is unbonding."""
    with start_anvil() as anvil:
        market = LocalMarket.deploy(anvil, instant_share=INSTANT_SHARE)
        ATTESTORS[:] = market.attestors
        first = market.register("first", stake=3_000)
        both = [first, market.register("second", stake=0, wallet=first.wallet)]
        others = [market.register("third", stake=1_500), market.register("fourth")]
        nodes = {node.id: node for node in (*both, *others)}
        market.call("requestUnstake", 300, sender=nodes[3].wallet.address)
        job_id = market.post_job(escrow=ESCROW)
        for node, rate in zip(nodes.values(), RATES, strict=False):
            market.take_seat(job_id, node, rate=rate, capacity=CAPACITY)
        market.money(REQUESTER, 10**9)
        operators: dict[str, credit.Operator] = {
            first.wallet.address: credit.Operator(stake=3_000),
            nodes[3].wallet.address: credit.Operator(stake=1_200, unbonding=300),
            nodes[4].wallet.address: credit.Operator(stake=1_000),
        }
        model = Model(owners={node.id: node.wallet.address for node in nodes.values()}, operators=operators)
        yield World(market, job_id, nodes, model, market.now(), before=model)


# No shrinking: every attempt costs seconds of a chain's time.
@settings(
    max_examples=25, derandomize=True, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@example(acts=RELEASED_AND_MARKED)
@example(acts=HELD)
@given(acts=ACTS)
def test_reference_and_market_come_to_the_same_figures(world: World, acts: list[Act]) -> None:
    market, snapshot = world.market, world.market.ask("evm_snapshot")
    attestors, epoch, funded = market.attestors, market.epoch, set(market.funded)
    now = replace(world, model=deepcopy(world.model))
    try:
        for act in acts:
            both(now, act)
    finally:
        market.ask("evm_revert", snapshot)
        market.attestors, market.epoch, market.funded = attestors, epoch, funded


def both(world: World, act: Act) -> None:
    """One act on both sides: the same refusal or none, the same figures, and tokens for every one of them."""
    world.before, world.time = deepcopy(world.model), world.time + (act.seconds if isinstance(act, Pass) else 1)
    world.market.ask("evm_setNextBlockTimestamp", world.time)
    expected = refused = ""
    try:
        act.reckon(world.model, world, world.time)
    except Refusal as refusal:
        expected, world.model = refusal.error, deepcopy(world.before)
    try:
        act.send(world)
    except Reverted as reverted:
        refused = reverted.error
    event(f"{type(act).__name__} {expected}")
    assert refused == expected, act
    world.time = world.market.now()
    figures = world.figures()
    assert figures == world.model.figures(world.time), act
    assert world.balance() == sum(figures["holdings"]), act
