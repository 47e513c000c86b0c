"""What can be done to the market and to its model: `reckon` does it to the model, `send` to the market."""

from __future__ import annotations

from dataclasses import dataclass, replace

from eth_utils.crypto import keccak

from tests.chain.arithmetic_model import ANYONE, ATTESTORS, CREDIT_TERMS, REQUESTER, WINDOW, Kept, Model, World
from tests.support.market import BASE, EVIDENCE, account
from trainer.ledger.abi import hexed
from trainer.ledger.batches import Batch, Header
from trainer.protocol import credit, settlement
from trainer.protocol.packing import pack_receipts, pack_scores, reward, unpack_receipts, unpack_scores
from trainer.protocol.settlement import EMPTY_DIGEST, Job, Line, Refusal, Seat, SettledBatch

NO_SEAT = Seat(rate=0, capacity=0)


class Act:
    def reckon(self, model: Model, world: World, now: int) -> None: ...

    def send(self, world: World) -> None: ...


@dataclass(frozen=True)
class Fund(Act):
    amount: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        model.job = settlement.fund(model.job, self.amount)

    def send(self, world: World) -> None:
        world.market.call("fundJob", world.job_id, self.amount, sender=REQUESTER)


@dataclass(frozen=True)
class Settle(Act):
    """`ahead` and `skip` are added to the round and batch that are next; a row of scores is None if its attestor is silent."""

    work: tuple[tuple[int, int], ...]
    scores: tuple[tuple[int, ...] | None, ...]
    last: bool
    ahead: int = 0
    skip: int = 0

    def batch(self, world: World, job: Job) -> Batch:
        members = len(world.market.attestors)
        rows = [row[: len(self.work)] if row is not None else None for row in self.scores[:members]]
        market, round = world.market, job.round + self.ahead
        packed = pack_receipts([market.receipt(world.job_id, round, world.nodes[node], units) for node, units in self.work])
        header = Header(
            job_id=world.job_id, round=round, batch=job.batch + self.skip, last=self.last, epoch=market.epoch, base=BASE,
            evidence=EVIDENCE,
        )  # fmt: skip
        return market.attest(header, packed, rows)

    def reckon(self, model: Model, world: World, now: int) -> None:
        job, batch = model.job, self.batch(world, model.job)
        settlement.require_next(job, round=batch.header.round, batch=batch.header.batch)
        rows = [unpack_scores(part.scores) for part in batch.attestations if part.opened]
        if len(rows) < len(batch.attestations) // 2 + 1:
            raise Refusal("QuorumNotReached", "Too few opened.")
        lines = [
            Line(node_id=node, units=units, scores=tuple(row[index] for row in rows))
            for index, (node, units) in enumerate(self.work)
        ]
        done = settlement.settle_batch(
            job, model.seats, round=job.round, batch=job.batch, last=self.last, lines=lines
        )  # fmt: skip
        model.job, model.seats = done.job, done.seats
        for payment in done.payments:
            model.credit(payment.node_id, payment.amount)
            model.count(payment.node_id, 1, payment.units, payment.quality, 0)
        qualities = pack_scores([payment.quality for payment in done.payments])
        attestors = sum(1 << part.member for part in batch.attestations if part.opened)
        kept = SettledBatch(
            base=bytes.fromhex(batch.header.base[2:]), evidence=bytes.fromhex(batch.header.evidence[2:]),
            receipts=keccak(batch.receipts), qualities=keccak(qualities), epoch=batch.header.epoch, attestors=attestors,
        )  # fmt: skip
        model.digests[job.round] = settlement.next_digest(model.digests.get(job.round, EMPTY_DIGEST), kept)
        model.batches.setdefault(job.round, []).append(Kept(kept, batch.receipts, qualities, [node for node, _ in self.work]))
        if self.last:
            model.settled_at[job.round] = now

    def send(self, world: World) -> None:
        world.market.settle(self.batch(world, world.before.job))


@dataclass(frozen=True)
class Record(Act):
    node: int
    units: int
    ahead: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        round = max(model.job.round + self.ahead, 0)
        model.job, seat = settlement.record(
            model.job, model.seats.get(self.node), node_id=self.node, round=round, units=self.units
        )  # fmt: skip
        model.seats[self.node] = seat

    def send(self, world: World) -> None:
        round = max(world.before.job.round + self.ahead, 0)
        world.market.record(world.job_id, round, world.nodes[self.node], self.units)


@dataclass(frozen=True)
class Lapse(Act):
    node: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        seat = model.seats.get(self.node)
        settled_at = model.settled_at.get(seat.recorded_round, 0) if seat and seat.recorded_round is not None else 0
        model.job, model.seats[self.node] = settlement.lapse(
            model.job, seat, node_id=self.node, settled_at=settled_at, challenge_window=WINDOW, now=now
        )  # fmt: skip

    def send(self, world: World) -> None:
        world.market.call("lapseRecord", world.job_id, self.node, sender=ANYONE)


@dataclass(frozen=True)
class Withdraw(Act):
    node: int
    amount: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        model.put(self.node, credit.withdraw(*model.pair(self.node), CREDIT_TERMS, now, amount=self.amount))

    def send(self, world: World) -> None:
        owner = world.model.owners[self.node]
        world.market.call("withdraw", self.node, self.amount, account("cold wallet"), sender=owner)


@dataclass(frozen=True)
class Mark(Act):
    def reckon(self, model: Model, world: World, now: int) -> None:
        for node in model.accounts:
            model.put(node, credit.mark(*model.pair(node), CREDIT_TERMS, now))

    def send(self, world: World) -> None:
        world.market.call("markCredit", list(world.nodes), sender=ANYONE)


@dataclass(frozen=True)
class Distribute(Act):
    nodes: tuple[int, ...]

    def reckon(self, model: Model, world: World, now: int) -> None:
        for node in self.nodes:
            model.put(node, credit.mark(*model.pair(node), CREDIT_TERMS, now))
            if amount := credit.withdrawable(*model.pair(node), CREDIT_TERMS, now):
                model.put(node, credit.take(*model.pair(node), CREDIT_TERMS, now, amount=amount))

    def send(self, world: World) -> None:
        world.market.call("distributePayments", list(self.nodes), sender=ANYONE)


@dataclass(frozen=True)
class Penalize(Act):
    node: int
    restitution: int
    penalty: int
    costs: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        account, operator = model.pair(self.node)
        seat = model.seats.get(self.node, NO_SEAT)
        split = credit.split_penalty(
            account, operator, CREDIT_TERMS, receipt=seat.capacity * seat.rate, insurance=model.insurance,
            restitution=self.restitution, penalty=self.penalty, costs=self.costs,
        )  # fmt: skip
        if split.from_credit:
            model.put(self.node, credit.take(account, operator, CREDIT_TERMS, now, amount=split.from_credit))
        account, operator = model.pair(self.node)
        stake, unbonding = operator.stake - split.from_stake, operator.unbonding - split.from_unbonding
        model.put(self.node, (account, replace(operator, stake=stake, unbonding=unbonding)))
        model.count(self.node, 0, 0, 0, 1)
        model.insurance += split.to_insurance - split.from_insurance
        model.owed[ANYONE] = model.owed.get(ANYONE, 0) + split.to_challenger
        if model.job.closed:
            model.owed[REQUESTER] = model.owed.get(REQUESTER, 0) + split.restitution
        else:
            model.job = settlement.restore(model.job, split.restitution)

    def send(self, world: World) -> None:
        fault = [1, world.job_id, self.node, self.restitution, self.penalty, ANYONE, self.costs]
        world.market.call("penalize", fault, sender=world.market.court)


@dataclass(frozen=True)
class Hold(Act):
    """A dispute about so much of a node's pay begins."""

    node: int
    amount: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        model.accounts[self.node] = credit.hold(model.accounts[self.node], CREDIT_TERMS, now, amount=self.amount)

    def send(self, world: World) -> None:
        world.market.call("holdCredit", self.node, self.amount, sender=world.market.court)


@dataclass(frozen=True)
class Free(Act):
    """All disputes about a node's pay are over."""

    node: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        account = model.accounts[self.node]
        model.accounts[self.node] = credit.free(account, amount=account.held)

    def send(self, world: World) -> None:
        held = world.before.accounts[self.node].held
        world.market.call("freeCredit", self.node, held, sender=world.market.court)


@dataclass(frozen=True)
class Award(Act):
    """Of the round that is `back` before the one that settles next."""

    node: int
    back: int
    units: int
    paid: int
    found: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        due = settlement.award_due(
            model.job, model.seats.get(self.node), node_id=self.node, round=model.round_back(self.back), units=self.units,
            paid=self.paid, found=self.found,
        )  # fmt: skip
        model.job = settlement.award(model.job, due)
        model.credit(self.node, due)

    def send(self, world: World) -> None:
        arguments = [2, world.job_id, world.before.round_back(self.back), self.node, self.units, self.paid, self.found]
        world.market.call("award", *arguments, sender=world.market.court)


@dataclass(frozen=True)
class Accept(Act):
    back: int

    def reckon(self, model: Model, world: World, now: int) -> None:
        round = model.round_back(self.back)
        if round not in model.settled_at:
            raise Refusal("RoundNotSettled", "It is not settled.")
        if round in model.accepted:
            raise Refusal("AlreadyAccepted", "It was accepted.")
        model.accepted.add(round)

    def send(self, world: World) -> None:
        world.market.call("acceptRound", world.job_id, world.before.round_back(self.back), "0x", sender=REQUESTER)


@dataclass(frozen=True)
class Release(Act):
    """Receipt number `which` of that round; nothing is done if it has none."""

    back: int
    which: int

    def receipt(self, model: Model) -> tuple[int, int] | None:
        """(batch, position)."""
        batches = model.batches.get(model.round_back(self.back), [])
        found = [(index, position) for index, kept in enumerate(batches) for position in range(len(kept.nodes))]
        return found[self.which % len(found)] if found else None

    def reckon(self, model: Model, world: World, now: int) -> None:
        if (place := self.receipt(model)) is None:
            return
        index, position = place
        round = model.round_back(self.back)
        if round not in model.accepted:
            raise Refusal("NotAccepted", "It was not accepted.")
        kept = model.batches[round][index]
        node, (packed, quality) = kept.nodes[position], (unpack_receipts(kept.receipts), unpack_scores(kept.qualities))
        if (round, node) in model.released:
            raise Refusal("AlreadyReleased", "It was released.")
        model.released.add((round, node))
        amount = reward(units=packed[position].units, rate=model.seats[node].rate, quality=quality[position])
        is_last = index + 1 == len(model.batches[round])
        since = model.settled_at[round] if is_last else model.settled_at.get(round - 1, 1)
        model.put(node, credit.release(*model.pair(node), CREDIT_TERMS, now, amount=amount, since=since))

    def send(self, world: World) -> None:
        if (place := self.receipt(world.before)) is None:
            return
        index, position = place
        round = world.before.round_back(self.back)
        batches = world.before.batches[round]
        shown = [
            [b.base, b.evidence, b.receipts, b.qualities, b.epoch, b.attestors] for b in (kept.batch for kept in batches)
        ]  # fmt: skip
        plain = [[hexed(value) if isinstance(value, bytes) else value for value in row] for row in shown]
        proof = [plain, index, hexed(batches[index].receipts), hexed(batches[index].qualities), position]
        world.market.call("releaseAccepted", world.job_id, round, *proof, sender=ANYONE)


@dataclass(frozen=True)
class NewEpoch(Act):
    """From now on so many attestors judge."""

    size: int

    def send(self, world: World) -> None:
        world.market.attestors = ATTESTORS[: self.size]
        world.market.begin_epoch()


@dataclass(frozen=True)
class Close(Act):
    def reckon(self, model: Model, world: World, now: int) -> None:
        model.job = settlement.close(model.job)

    def send(self, world: World) -> None:
        world.market.close(world.job_id)


@dataclass(frozen=True)
class Pass(Act):
    """Time goes by, and nothing else."""

    seconds: int

    def send(self, world: World) -> None:
        world.market.ask("anvil_mine", "0x1")
