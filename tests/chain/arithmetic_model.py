"""The market on anvil beside a model of it that is made of the reference alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eth_account.signers.local import LocalAccount

from tests.support.market import TERMS, LocalMarket, LocalNode, account
from trainer.ledger.abi import hexed
from trainer.protocol import credit
from trainer.protocol.settlement import Job, Seat, SettledBatch

WINDOW, DISPUTE = TERMS["challenge_window"], TERMS["dispute_time"]
INSTANT_SHARE = 1_000
"""Of the stakes so little that there is credit beyond it."""
CREDIT_TERMS = credit.Terms(
    min_stake=TERMS["min_stake"], challenge_window=WINDOW, dispute_time=DISPUTE, instant_share=INSTANT_SHARE
)  # fmt: skip
ESCROW, RATES, CAPACITY, SEATED = 3_000, (3, 5, 7), 300, 3
ATTESTORS: list[LocalAccount] = []
ANYONE, REQUESTER = account("anyone"), account("requester")


@dataclass(frozen=True)
class Kept:
    """A settled batch with what a proof of it shows."""

    batch: SettledBatch
    receipts: bytes
    qualities: bytes
    nodes: list[int]


@dataclass
class Model:
    """All figures of the market, by the reference alone. Nodes are 1 to 4; the last has no seat. `owners` maps each to its
    operator."""

    owners: dict[int, str]
    operators: dict[str, credit.Operator]
    job: Job = field(default_factory=lambda: Job(escrow=ESCROW))
    seats: dict[int, Seat] = field(default_factory=lambda: {n + 1: Seat(rate=r, capacity=CAPACITY) for n, r in enumerate(RATES)})
    accounts: dict[int, credit.Account] = field(default_factory=dict)
    counts: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    digests: dict[int, bytes] = field(default_factory=dict)
    settled_at: dict[int, int] = field(default_factory=dict)
    batches: dict[int, list[Kept]] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    released: set[tuple[int, int]] = field(default_factory=set)
    owed: dict[str, int] = field(default_factory=dict)
    insurance: int = 0

    def __post_init__(self) -> None:
        self.accounts = {node: credit.Account() for node in self.owners}
        self.counts = dict.fromkeys(self.owners, (0, 0, 0, 0))

    def round_back(self, back: int) -> int:
        return max(self.job.round - back, 0)

    def pair(self, node: int) -> credit.Pair:
        return self.accounts[node], self.operators[self.owners[node]]

    def put(self, node: int, pair: credit.Pair) -> None:
        self.accounts[node], self.operators[self.owners[node]] = pair

    def credit(self, node: int, amount: int) -> None:
        self.accounts[node] = credit.earn(self.accounts[node], amount)

    def count(self, node: int, *more: int) -> None:
        self.counts[node] = tuple(a + b for a, b in zip(self.counts[node], more, strict=True))  # type: ignore[assignment]

    def figures(self, now: int) -> dict[str, Any]:
        job = self.job
        owners = self.operators.values()
        return {
            "job": (job.escrow, job.spent, job.reserved, job.records, job.round, job.batch, job.last_node, job.closed),
            "seats": {n: (s.recorded_units, s.recorded_round) for n, s in self.seats.items()},
            "nodes": {
                n: (a.credit, credit.withdrawable(*self.pair(n), CREDIT_TERMS, now), a.earned, *self.counts[n])
                for n, a in self.accounts.items()
            },
            "operators": {name: (o.stake, o.unbonding, o.advance) for name, o in self.operators.items()},
            "rounds": {
                n: (hexed(digest), self.settled_at.get(n, 0), n in self.accepted) for n, digest in self.digests.items()
            },
            "holdings": (
                0 if job.closed else job.escrow - job.spent, sum(a.credit for a in self.accounts.values()),
                sum(o.stake + o.unbonding for o in owners), sum(self.owed.values()), self.insurance,
            ),
            "owed": {name: self.owed.get(name, 0) for name in (REQUESTER, ANYONE)},
        }  # fmt: skip


@dataclass
class World:
    """The market on anvil beside its model; `time` is that of the newest block."""

    market: LocalMarket
    job_id: int
    nodes: dict[int, LocalNode]
    model: Model
    time: int
    before: Model
    """As it was when the act began."""

    def figures(self) -> dict[str, Any]:
        """The same figures, as the market tells them."""
        rounds = list(self.model.digests)
        operators = list(self.model.operators)
        found = iter(
            self.market.views(
                ("getJob", [self.job_id]), ("holdings", []),
                *(("getSeat", [self.job_id, node]) for node in self.model.seats),
                *(("getNodeMetrics", [node]) for node in self.nodes),
                *(("getOperator", [name]) for name in operators),
                *(("getRound", [self.job_id, number]) for number in rounds),
                *(("owedTo", [name]) for name in (REQUESTER, ANYONE)),
            )
        )  # fmt: skip
        job, holdings = next(found), next(found)
        kept = ("escrow", "spent", "reserved", "records", "round", "batch", "last_node", "closed")
        metrics = ("credit", "withdrawable", "earned", "rounds", "units", "quality_sum", "faults")
        return {
            "job": tuple(job[name] for name in kept),
            "seats": {node: seat_figures(next(found)) for node in self.model.seats},
            "nodes": {node: tuple(map(next(found).get, metrics)) for node in self.nodes},
            "operators": {name: tuple(map(next(found).get, ("stake", "unbonding", "advance"))) for name in operators},
            "rounds": {number: tuple(next(found).values()) for number in rounds},
            "holdings": tuple(holdings.values()),
            "owed": {name: next(found) for name in (REQUESTER, ANYONE)},
        }

    def balance(self) -> int:
        """The market's tokens."""
        data = "0x70a08231" + self.market.address[2:].rjust(64, "0")
        return int(self.market.ask("eth_call", {"to": self.market.token, "data": data}, "latest"), 16)


def seat_figures(seat: dict[str, Any]) -> tuple[int, int | None]:
    return seat["recorded_units"], seat["recorded_round"] - 1 if seat["recorded_round"] else None
