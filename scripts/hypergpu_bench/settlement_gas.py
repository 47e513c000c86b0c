"""What a receipt costs on chain: in our settlement, in the textbook's, and with a transaction for each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scripts.hypergpu_bench import pricing
from scripts.hypergpu_bench.breakdown import breakdown
from scripts.hypergpu_bench.chain import Chain, Mined, local_chain
from scripts.hypergpu_bench.market import Market
from scripts.hypergpu_bench.report import Figure, Measured
from scripts.hypergpu_bench.textbook import Textbook
from scripts.hypergpu_bench.tracing import Trace, trace

ATTESTORS = 3
SIZES, QUICK_SIZES = (1, 10, 100, 300, 1_000), (1, 10, 100)
LIGHT = 3
"""So many sizes are measured with every seed: the trace of a thousand receipts takes minutes, and one tells enough."""
SEEDS, QUICK_SEEDS = (1, 2, 3), (1,)
TOO_MANY = 400
"""Receipts that the textbook variant cannot settle in one transaction on Monad."""
SPREAD = 128
"""Distance of ids that puts each node, and each seat, on a storage page of its own: the worst there is."""
GOALS = {"monad": {100: 15_000}, "ethereum": {100: 21_000}}
GOAL_TIMES = 3.5
MONAD_TX_LIMIT = 30_000_000
"""Most gas of one transaction."""
CONDITIONS = (
    "Ethereum: gasUsed of real transactions on anvil (Prague).",
    "Monad: the same transactions re-priced from their traces (MIP-8 and docs.monad.xyz), not run on a Monad node. Each trace, "
    "priced by Ethereum's rules, adds up to gasUsed exactly.",
    f"{ATTESTORS} attestors; random units, scores and keys. 'first' is a node's first payment, the rest is steady state.",
    "The largest transactions fit Monad's limit of 30,000,000 gas; Ethereum's, 16,777,216 since Osaka (EIP-7825), takes about "
    "860 receipts. The product sends at most 300 in one.",
    f"'dense': node ids in a row. 'spread': ids {SPREAD} apart, each node and seat on a storage page of its own.",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """Gas of the transactions that pay `receipts` receipts."""

    what: str
    layout: str
    payment: str
    seed: int
    receipts: int
    ethereum: int
    monad: int
    transaction: int
    """The largest of the transactions, by Monad's prices."""
    calldata: int


def measure(*, quick: bool) -> Measured:
    sizes, seeds = (QUICK_SIZES, QUICK_SEEDS) if quick else (SIZES, SEEDS)
    samples = [sample for seed in seeds for sample in all_samples(seed, sizes if seed == seeds[0] else sizes[:LIGHT])]
    more = {"gas per receipt of 100 in settleRound, by kinds of opcode": kinds(seeds[0], 100)}
    return Measured(seeds=seeds, conditions=CONDITIONS, rows=rows(samples), figures=figures(samples, sizes), more=more)


def all_samples(seed: int, sizes: tuple[int, ...]) -> Iterator[Sample]:
    for size in sizes:
        yield from settled(seed, size, layout="dense")
    for size in sizes[:3]:
        yield from settled(seed, size, layout="spread")
    yield from recorded(seed, 100)
    for size in sizes:
        if size < TOO_MANY:
            yield from textbook(seed, size)


def settled(seed: int, size: int, *, layout: str) -> Iterator[Sample]:
    """settleRound, one batch a round. Each size has a chain of its own, so that its gas depends on nothing else."""
    with local_chain() as chain:
        market = Market(chain, seed=seed, attestors=ATTESTORS)
        job, nodes = market.job(size, stride=SPREAD if layout == "spread" else 1)
        for round_, payment in enumerate(("first", "steady")):
            mined = market.settle(job, round_, market.receipts(job, round_, nodes))
            yield sample(chain, "settleRound", layout, payment, seed, size, [mined])


def recorded(seed: int, size: int) -> Iterator[Sample]:
    """A submitContribution for each receipt, then the settleRound that pays them."""
    with local_chain() as chain:
        market = Market(chain, seed=seed, attestors=ATTESTORS)
        job, nodes = market.job(size)
        for round_, payment in enumerate(("first", "steady")):
            receipts = market.receipts(job, round_, nodes)
            mined = [*(market.submit(job, round_, receipt) for receipt in receipts), market.settle(job, round_, receipts)]
            yield sample(chain, "submitContribution each, then settleRound", "dense", payment, seed, size, mined)


def textbook(seed: int, size: int) -> Iterator[Sample]:
    with local_chain() as chain:
        market = Textbook(chain, seed=seed, attestors=ATTESTORS)
        job, nodes = market.job(size)
        for round_, payment in enumerate(("first", "steady")):
            yield sample(chain, "textbook", "dense", payment, seed, size, [market.settle(job, round_, nodes)])


def kinds(seed: int, size: int) -> list[dict[str, Any]]:
    """Where the gas of a settleRound in steady state goes."""
    with local_chain() as chain:
        market = Market(chain, seed=seed, attestors=ATTESTORS)
        job, nodes = market.job(size)
        for round_ in range(2):
            mined = market.settle(job, round_, market.receipts(job, round_, nodes))
        return breakdown(trace(chain, mined), size)


def sample(chain: Chain, what: str, layout: str, payment: str, seed: int, receipts: int, mined: list[Mined]) -> Sample:
    """Raises AssertionError when a trace does not add up."""
    repriced = [monad_gas(trace(chain, one), one.ethereum) for one in mined]
    ethereum, calldata = sum(one.ethereum for one in mined), sum(len(one.calldata) for one in mined)
    return Sample(what, layout, payment, seed, receipts, ethereum, sum(repriced), max(repriced), calldata)


def monad_gas(traced: Trace, gas_used: int) -> int:
    difference = pricing.ethereum(traced).total - gas_used
    if difference:
        raise AssertionError(f"the trace misses {-difference} gas of {gas_used}: its Monad price would be wrong too")
    return pricing.monad(traced).total


# What it came to.


def rows(samples: list[Sample]) -> list[dict[str, Any]]:
    """A line for each thing measured, over its seeds."""
    groups: dict[tuple[str, str, str, int], list[Sample]] = {}
    for one in samples:
        groups.setdefault((one.what, one.layout, one.payment, one.receipts), []).append(one)
    return [
        {
            "what": what, "layout": layout, "payment": payment, "receipts": receipts,
            "ethereum_gas_per_receipt": round(statistics.mean(one.ethereum for one in found) / receipts),
            "monad_gas_per_receipt": round(statistics.mean(one.monad for one in found) / receipts),
            "largest_transaction_monad_gas": max(one.transaction for one in found),
            "calldata_bytes": max(one.calldata for one in found),
            "gas_by_seed": {str(one.seed): {"ethereum": one.ethereum, "monad": one.monad} for one in found},
        }
        for (what, layout, payment, receipts), found in groups.items()
    ]  # fmt: skip


def figures(samples: list[Sample], sizes: tuple[int, ...]) -> dict[str, Figure]:
    def of(what: str, receipts: int, layout: str = "dense", payment: str = "steady") -> list[Sample]:
        wanted = (what, receipts, layout, payment)
        return [one for one in samples if (one.what, one.receipts, one.layout, one.payment) == wanted]

    found: dict[str, Figure] = {}
    for chain in ("monad", "ethereum"):
        for size in sizes:
            goal = GOALS[chain].get(size)
            found[f"gas_per_receipt_{chain}_{size}"] = per_receipt(of("settleRound", size), chain, goal)
            if size < TOO_MANY:
                found[f"gas_per_receipt_{chain}_{size}_textbook"] = per_receipt(of("textbook", size), chain)
        found[f"gas_per_receipt_{chain}_textbook_transaction_each"] = per_receipt(of("textbook", 1), chain)
        found[f"gas_per_receipt_{chain}_100_first_payment"] = per_receipt(of("settleRound", 100, payment="first"), chain)
        found[f"gas_per_receipt_{chain}_100_spread_ids"] = per_receipt(of("settleRound", 100, layout="spread"), chain)
        each = of("submitContribution each, then settleRound", 100)
        found[f"gas_per_receipt_{chain}_100_transaction_each"] = per_receipt(each, chain)
        times = [
            getattr(textbook, chain) / getattr(ours, chain)
            for textbook, ours in zip(of("textbook", 100), of("settleRound", 100), strict=True)
        ]
        goal_times = GOAL_TIMES if chain == "monad" else None
        found[f"times_cheaper_than_textbook_{chain}_100"] = spread(times, "times", goal_times)
    largest = max(of("settleRound", sizes[-1]), key=lambda one: one.monad)
    found[f"transaction_gas_monad_{sizes[-1]}"] = Figure(value=largest.monad, unit="gas", goal=MONAD_TX_LIMIT)
    return found


def per_receipt(samples: list[Sample], chain: str, goal: float | None = None) -> Figure:
    gas: Callable[[Sample], int] = lambda one: getattr(one, chain)  # noqa: E731
    return spread([gas(one) / one.receipts for one in samples], "gas", goal)


def spread(values: list[float], unit: str, goal: float | None) -> Figure:
    return Figure(
        value=round(statistics.mean(values), 2), unit=unit, goal=goal, low=round(min(values), 2), high=round(max(values), 2)
    )
