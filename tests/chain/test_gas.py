"""The gas limit of a settlement: never too low, and never more than 6 % thrown away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.chain import abi, gas
from marketplace.chain.models import Intent
from scripts.hypergpu_bench.chain import Chain, Mined, local_chain
from scripts.hypergpu_bench.market import Market

pytestmark = pytest.mark.chain


class Estimating(Chain):
    """Keeps of each transaction what the dry run said before."""

    def transact(self, data: str, *, to: str | None = None, sender: str | None = None) -> Mined:
        call = {"from": sender or self.sender, "data": data} | ({"to": to} if to else {})
        self.estimated = int(self.ask("eth_estimateGas", call, "latest"), 16)
        self.data = data
        return super().transact(data, to=to, sender=sender)

    def limit(self, kind: str) -> int:
        return gas.gas_limit(Intent(kind=kind, data=self.data), self.estimated)


@pytest.fixture(scope="module")
def market() -> Iterator[Market]:
    with local_chain() as chain:
        yield Market(Estimating(chain.url), seed=3, attestors=3)


@pytest.mark.parametrize("receipts", [1, 10, 100])
def test_the_limit_of_a_settlement_is_enough_and_at_most_six_percent_too_much(market: Market, receipts: int) -> None:
    job, nodes = market.job(receipts)
    chain: Any = market.chain
    for round_ in range(3):  # in the first one every node opens a slot
        used = market.settle(job, round_, market.receipts(job, round_, nodes)).ethereum
        assert used <= chain.limit("settleRound") <= used * 1.06
        formula = gas.fitted_gas("settleRound", chain.data, "ethereum")
        if round_:
            assert formula == pytest.approx(used, rel=0.02), "the formula is off: run scripts/fit_gas.py"


def test_the_limit_of_a_recorded_receipt_and_of_the_settlement_that_clears_it(market: Market) -> None:
    job, nodes = market.job(5)
    chain: Any = market.chain
    for round_ in range(2):
        receipts = market.receipts(job, round_, nodes)
        for receipt in receipts:
            used = market.submit(job, round_, receipt).ethereum
            assert used <= chain.limit("submitContribution") <= used * 1.06
        used = market.settle(job, round_, receipts).ethereum
        assert used <= chain.limit("settleRound")


def test_what_nobody_fitted_has_five_percent_over_the_estimate() -> None:
    assert gas.gas_limit(Intent(kind="closeJob", data="0x00"), 100_000) == 105_000


def test_monads_prices_are_by_page(market: Market) -> None:
    chain: Any = market.chain
    job, nodes = market.job(2)
    market.settle(job, 0, market.receipts(job, 0, nodes))
    near = gas.fitted_gas("settleRound", chain.data, "monad")
    _, receipts, _ = abi.decode_arguments("market", "settleRound", chain.data)
    assert gas.pages(receipts) == 1 and near is not None
    far = receipts[:109] + (1000).to_bytes(4) + receipts[113:]
    assert gas.pages(far) == 2
