"""The arithmetic of ComputeMarket's money, to be read and to be run: what is paid, reserved, kept and given back.

An executable specification. Each function takes what the contract has stored and returns what it stores next, or raises
`Refusal` with the name of the contract's error. tests/chain/test_arithmetic.py runs it against the contract.
Amounts are token base units, times unix seconds, qualities basis points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import median_quality, reward
from trainer.protocol.types import QUALITY_ONE

SETTLEMENT_GRACE = 86_400
"""Seconds for which replaced and expired hot keys, and the attestors of the epoch before, stay good."""

ROUNDS_AHEAD = 8
"""How far ahead of settlement receipts can be recorded."""

EMPTY_DIGEST = bytes(26)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pauses:
    """The last pause of settlement, from `since` until before `until`."""

    since: int = 0
    until: int = 0


def grace_start(pauses: Pauses, now: int) -> int:
    """Keys and attestor sets that ended after this still settle: SETTLEMENT_GRACE ago, not counting a pause."""
    since_pause = max(now - pauses.until, 0)
    if since_pause < SETTLEMENT_GRACE:
        return pauses.since - (SETTLEMENT_GRACE - since_pause)
    return now - SETTLEMENT_GRACE


class Refusal(HyperGPUError):
    """The contract would revert; `error` is the name of its error."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"market.{error}", message)
        self.error = error


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """A node's place in a job. `recorded_round` is the round of its recorded receipt, None without one."""

    rate: int
    capacity: int
    recorded_units: int = 0
    recorded_round: int | None = None

    @property
    def reserved(self) -> int:
        """The most that the recorded receipt can be paid."""
        return self.recorded_units * self.rate


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job's money. `round` and `batch` settle next; `last_node` is the highest node that the round has paid."""

    escrow: int
    spent: int = 0
    reserved: int = 0
    records: int = 0
    round: int = 0
    batch: int = 0
    last_node: int = 0
    closed: bool = False

    @property
    def available(self) -> int:
        """What new credit and new records can take."""
        return self.escrow - self.spent - self.reserved


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A receipt of a batch with the scores of the attestors that opened, in their order."""

    node_id: int
    units: int
    scores: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Payment:
    node_id: int
    units: int
    quality: int
    amount: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """What a batch leaves: the job, its seats, and one payment for each receipt."""

    job: Job
    seats: dict[int, Seat]
    payments: tuple[Payment, ...]


Seats = Mapping[int, Seat]


def fund(job: Job, amount: int) -> Job:
    if amount == 0:
        raise Refusal("ZeroAmount", "A deposit is more than nothing.")
    require_open(job)
    return replace(job, escrow=job.escrow + amount)


def settle_batch(job: Job, seats: Seats, *, round: int, batch: int, last: bool, lines: Sequence[Line]) -> Settled:
    """Batches in order, each once; within a round node ids only rise, so that no node is paid twice."""
    require_next(job, round=round, batch=batch)
    left, payments = dict(seats), []
    for line in lines:
        job, left[line.node_id], payment = pay(job, left.get(line.node_id), line)
        payments.append(payment)
    job = replace(job, round=round + 1, batch=0, last_node=0) if last else replace(job, batch=batch + 1)
    return Settled(job=job, seats=left, payments=tuple(payments))


def pay(job: Job, seat: Seat | None, line: Line) -> tuple[Job, Seat, Payment]:
    """One receipt: its record's reservation is freed, its reward moves from escrow to credit."""
    node_id, units = line.node_id, line.units
    if node_id <= job.last_node:
        raise Refusal("NodesOutOfOrder", f"Node {node_id} comes after node {job.last_node} in round {job.round}.")
    if max(line.scores) > QUALITY_ONE:
        raise Refusal("QualityAboveMax", f"Node {node_id} is scored {max(line.scores)}.")
    seat = require_seat(seat, node_id)
    require_capacity(seat, node_id, units)
    if seat.recorded_round == job.round:
        job, seat = free_record(job, seat)
    quality = median_quality(line.scores)
    amount = reward(units=units, rate=seat.rate, quality=quality)
    if amount > job.available:
        raise Refusal("InsufficientEscrow", f"Node {node_id} is owed {amount}, and {job.available} is left.")
    job = replace(job, spent=job.spent + amount, last_node=node_id)
    return job, seat, Payment(node_id=node_id, units=units, quality=quality, amount=amount)


def record(job: Job, seat: Seat | None, *, node_id: int, round: int, units: int) -> tuple[Job, Seat]:
    """A signed receipt that nobody has judged yet: the most it can be paid is reserved. One for each seat at a time."""
    require_open(job)
    if not job.round <= round <= job.round + ROUNDS_AHEAD:
        raise Refusal("RoundOutOfReach", f"Round {round} is not within {ROUNDS_AHEAD} of round {job.round}.")
    if units == 0:
        raise Refusal("ZeroAmount", "A receipt that is recorded is of at least one unit.")
    if round == job.round and node_id <= job.last_node:
        raise Refusal("AlreadyPaid", f"Round {round} has paid node {node_id}, or passed it over.")
    seat = require_seat(seat, node_id)
    if seat.recorded_round is not None:
        raise Refusal("RecordExists", f"Node {node_id} has a record of round {seat.recorded_round}.")
    require_capacity(seat, node_id, units)
    if units * seat.rate > job.available:
        raise Refusal("InsufficientEscrow", f"Node {node_id} could be owed {units * seat.rate}, and {job.available} is left.")
    seat = replace(seat, recorded_units=units, recorded_round=round)
    return replace(job, reserved=job.reserved + seat.reserved, records=job.records + 1), seat


def lapse(job: Job, seat: Seat | None, *, node_id: int, settled_at: int, challenge_window: int, now: int) -> tuple[Job, Seat]:
    """A record that its settled round left out, and that nobody claimed in time, reserves nothing any more.
    `settled_at` is when its round was settled, 0 if it was not."""
    require_open(job)
    seat = require_seat(seat, node_id)
    if seat.recorded_round is None:
        raise Refusal("NoRecord", "The seat holds no record.")
    if seat.recorded_round >= job.round:
        raise Refusal("RoundNotSettled", f"Round {seat.recorded_round} is not settled.")
    if now < settled_at + challenge_window:
        raise Refusal("TooEarly", f"It can be claimed until {settled_at + challenge_window}.")
    return free_record(job, seat)


def free_record(job: Job, seat: Seat) -> tuple[Job, Seat]:
    """The seat's record ends: paid, lapsed, or dropped by the court."""
    if seat.recorded_round is None:
        raise Refusal("NoRecord", "The seat holds no record.")
    job = replace(job, reserved=job.reserved - seat.reserved, records=job.records - 1)
    return job, replace(seat, recorded_units=0, recorded_round=None)


def award(job: Job, amount: int) -> Job:
    """What a dispute found a node is owed moves from escrow to credit; never more than is left."""
    if amount > (0 if job.closed else job.available):
        raise Refusal("InsufficientEscrow", f"{amount} was awarded, and {job.available} is left.")
    return replace(job, spent=job.spent + amount)


def award_due(job: Job, seat: Seat | None, *, node_id: int, round: int, units: int, paid: int, found: int) -> int:
    """For units at quality `found` instead of `paid`, as far as there is escrow."""
    if (round, 0) >= (job.round, job.batch):
        raise Refusal("RoundNotSettled", f"No batch of round {round} is settled.")
    if found > QUALITY_ONE:
        raise Refusal("QualityAboveMax", f"{found} basis points are more than all.")
    if found <= paid:
        raise Refusal("NothingToAward", f"Quality {found} was found and {paid} was paid.")
    seat = require_seat(seat, node_id)
    require_capacity(seat, node_id, units)
    due = reward(units=units, rate=seat.rate, quality=found) - reward(units=units, rate=seat.rate, quality=paid)
    return min(due, 0 if job.closed else job.available)


def restore(job: Job, amount: int) -> Job:
    """What a fault gave back to an open job: it was not spent after all; more than was spent is a deposit."""
    unspent = min(amount, job.spent)
    return replace(job, spent=job.spent - unspent, escrow=job.escrow + amount - unspent)


def close(job: Job) -> Job:
    """The rest, `escrow - spent`, goes back to the requester."""
    require_open(job)
    if job.batch:
        raise Refusal("ClosureMismatch", f"Round {job.round} is half settled.")
    if job.records:
        raise Refusal("RecordsPending", f"{job.records} receipts are recorded and neither paid nor lapsed.")
    return replace(job, closed=True)


def require_open(job: Job) -> None:
    if job.closed:
        raise Refusal("JobIsClosed", "The job is over.")


def require_next(job: Job, *, round: int, batch: int) -> None:
    require_open(job)
    if (round, batch) != (job.round, job.batch):
        raise Refusal("UnexpectedBatch", f"Round {job.round}, batch {job.batch} is next, not {round}, {batch}.")


def require_seat(seat: Seat | None, node_id: int) -> Seat:
    if seat is None:
        raise Refusal("NotSeated", f"Node {node_id} has no seat.")
    return seat


def require_capacity(seat: Seat, node_id: int, units: int) -> None:
    if units > seat.capacity:
        raise Refusal("UnitsAboveCapacity", f"Node {node_id} bid for {seat.capacity} units, not {units}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledBatch:
    """What is kept of a batch, as a hash; hashes are 32 bytes, `attestors` has bit i set if member i opened."""

    base: bytes
    evidence: bytes
    receipts: bytes
    qualities: bytes
    epoch: int
    attestors: int


def next_digest(digest: bytes, batch: SettledBatch) -> bytes:
    """The round's digest with one batch more: bytes26(keccak256(abi.encode(digest, batch)))."""
    fields = (batch.base, batch.evidence, batch.receipts, batch.qualities, batch.epoch, batch.attestors)
    return keccak(encode(["bytes26", "(bytes32,bytes32,bytes32,bytes32,uint32,uint16)"], [digest, fields]))[:26]
