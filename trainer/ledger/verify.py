"""Recomputes every payment of a job from what the chain holds, and says where it differs. See docs/guides/verify.md."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from trainer.ledger.abi import hexed
from trainer.ledger.batches import Batch
from trainer.ledger.history import Entry, History
from trainer.ledger.judging import Book, Judgement, judge
from trainer.ledger.report import Finding, Report, Row
from trainer.ledger.signers import Signers
from trainer.protocol.credit import is_fair
from trainer.protocol.eip712 import Domain
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.settlement import (
    EMPTY_DIGEST,
    Job,
    Payment,
    Refusal,
    Seat,
    award,
    close,
    free_record,
    fund,
    next_digest,
    record,
    restore,
    settle_batch,
)


def verify(history: History) -> Report:
    """A report without findings if every payment, signature, sum and invariant is as it must be.

    Raises HyperGPUError `ledger.incomplete` when the history begins after the job.
    """
    if not any(entry.name == "JobCreated" for entry in history.entries):
        text = f"Job {history.job_id} was posted before block {history.first}; use an earlier --from-block, or none."
        raise HyperGPUError("ledger.incomplete", text)
    replay = Replay(history, Signers(Book(domain=Domain(history.chain_id, history.market))))
    for entry in history.entries:
        replay.apply(entry)
    replay.compare_with_kept()
    return replay.report()


@dataclass(slots=True)
class Replay:
    """The job's money and its signers, one event after the other. Where the chain departs from the arithmetic that is a
    finding, and the replay goes on with what the chain says, so that one fault is told once."""

    history: History
    signers: Signers
    job: Job = field(default_factory=lambda: Job(escrow=0))
    digests: dict[int, bytes] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    accepted: set[int] = field(default_factory=set)
    pending: list[Entry] = field(default_factory=list)
    due: dict[tuple[int, int], int] = field(default_factory=dict)
    """Of every round and node that was paid, what a dispute could still award: the price of full quality, less the pay."""
    rows: list[Row] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("credited", "awarded", "restored", "refunded"), 0))
    batches: int = 0

    @property
    def seats(self) -> dict[int, Seat]:
        return self.signers.book.seats

    def find(self, entry: Entry | None, code: str, text: str, *, node_id: int | None = None) -> None:
        args = entry.args if entry else {}
        round, batch, node_id = args.get("round"), args.get("batch"), node_id or args.get("nodeId")
        tx = entry.tx if entry else ""
        self.findings.append(Finding(code=code, text=text, round=round, batch=batch, node_id=node_id, tx=tx))

    def expect(self, entry: Entry | None, what: str, actual: Any, expected: Any) -> None:
        """The chain says `actual`, the recomputation says `expected`."""
        if actual != expected:
            self.find(entry, f"{what}.differs", f"The chain says {what} {actual}, recomputed it is {expected}.")

    def apply(self, entry: Entry) -> None:
        handler = getattr(self, f"on_{entry.name}", None)
        if handler is None:
            self.signers.apply(entry)
            return
        try:
            handler(entry, entry.args)
        except Refusal as refusal:
            self.find(entry, "market.rule", f"{entry.name} should not have happened: {refusal.message}")

    def on_JobCreated(self, entry: Entry, args: dict[str, Any]) -> None:
        self.job = Job(escrow=args["escrow"])

    def on_JobFunded(self, entry: Entry, args: dict[str, Any]) -> None:
        self.job = fund(self.job, args["amount"])
        self.expect(entry, "escrow", args["escrow"], self.job.escrow)

    def on_BidTaken(self, entry: Entry, args: dict[str, Any]) -> None:
        self.seats[args["nodeId"]] = Seat(rate=args["rate"], capacity=args["capacity"])

    def on_ContributionRecorded(self, entry: Entry, args: dict[str, Any]) -> None:
        node_id = args["nodeId"]
        self.job, self.seats[node_id] = record(
            self.job, self.seats.get(node_id), node_id=node_id, round=args["round"], units=args["units"]
        )

    def on_RecordDropped(self, entry: Entry, args: dict[str, Any]) -> None:
        """The court is done with it: what follows may be an award for it."""
        seat = self.seats[args["nodeId"]]
        self.due[args["round"], args["nodeId"]] = seat.reserved
        self.on_RecordLapsed(entry, args)

    def on_RecordLapsed(self, entry: Entry, args: dict[str, Any]) -> None:
        node_id = args["nodeId"]
        self.job, self.seats[node_id] = free_record(self.job, self.seats[node_id])

    def on_ContributionSettled(self, entry: Entry, args: dict[str, Any]) -> None:
        self.pending.append(entry)
        place, seat = (args["round"], args["nodeId"]), self.seats.get(args["nodeId"])
        if place in self.due:
            self.find(entry, "paid.twice", f"Node {args['nodeId']} was paid twice for round {args['round']}.")
        self.due[place] = args["units"] * (seat.rate if seat else 0) - args["amount"]

    def on_RoundSettled(self, entry: Entry, args: dict[str, Any]) -> None:
        paid, self.pending = self.pending, []
        self.batches += 1
        before = len(self.findings)
        carried = [
            batch
            for batch in self.history.batches[entry.tx]
            if (batch.header.job_id, batch.header.round, batch.header.batch) == (args["jobId"], args["round"], args["batch"])
        ]
        if len(carried) == 1:
            payments = self.check_batch(entry, carried[0], paid)
        else:
            payments = None
            self.find(
                entry, "batch.unproven",
                "The calldata of this batch is not in its transaction: another contract made the call, and the node does not "
                "trace. Its signatures cannot be checked; try the --rpc of a node with debug_traceTransaction.",
            )  # fmt: skip
        if payments is None:
            self.follow_chain(args, paid)
        self.sums["credited"] += args["total"]
        if args["last"]:
            self.ends[args["round"]] = entry.time
        self.add_rows(entry, paid, payments, self.findings[before:])

    def check_batch(self, entry: Entry, batch: Batch, paid: list[Entry]) -> dict[int, Payment] | None:
        """Compares a batch with its events. The payments by node, None when the arithmetic refuses the batch."""
        head, args = batch.header, entry.args
        judgement = judge(batch, self.signers.book, time=entry.time)
        for doubt in judgement.doubts:
            self.find(entry, doubt.code, doubt.text, node_id=doubt.node_id)
        for name in ("last", "base", "evidence", "epoch"):
            self.expect(entry, name, args[name], getattr(head, name))
        self.expect(entry, "attestors", args["attestors"], judgement.attestors)
        self.expect(entry, "receipts", args["receipts"], len(judgement.receipts))
        try:
            settled = settle_batch(
                self.job, self.seats, round=head.round, batch=head.batch, last=head.last, lines=judgement.lines
            )  # fmt: skip
        except Refusal as refusal:
            self.find(entry, "market.rule", f"This batch should not have settled: {refusal.message}")
            return None
        self.compare_payments(entry, judgement, settled.payments, paid)
        self.job, self.signers.book.seats = settled.job, settled.seats
        digest = self.digests.get(head.round, EMPTY_DIGEST)
        self.digests[head.round] = next_digest(digest, judgement.settled(batch, settled.payments))
        return {payment.node_id: payment for payment in settled.payments}

    def compare_payments(self, entry: Entry, judgement: Judgement, payments: tuple[Payment, ...], paid: list[Entry]) -> None:
        self.expect(entry, "total", entry.args["total"], sum(payment.amount for payment in payments))
        self.expect(entry, "nodes", [event.args["nodeId"] for event in paid], [payment.node_id for payment in payments])
        for event, payment, receipt in zip(paid, payments, judgement.receipts, strict=False):
            self.expect(event, "round", event.args["round"], entry.args["round"])
            self.expect(event, "units", event.args["units"], payment.units)
            self.expect(event, "quality", event.args["quality"], payment.quality)
            self.expect(event, "amount", event.args["amount"], payment.amount)
            self.expect(event, "artifact", event.args["artifact"], receipt.artifact)

    def follow_chain(self, args: dict[str, Any], paid: list[Entry]) -> None:
        """Go on as the chain did, without proof."""
        for event in paid:
            seat = self.seats.get(event.args["nodeId"])
            if seat and seat.recorded_round == args["round"]:
                self.job, self.seats[event.args["nodeId"]] = free_record(self.job, seat)
        last_node = max((event.args["nodeId"] for event in paid), default=self.job.last_node)
        round, batch = (args["round"] + 1, 0) if args["last"] else (args["round"], args["batch"] + 1)
        spent = self.job.spent + args["total"]
        self.job = replace(self.job, spent=spent, round=round, batch=batch, last_node=0 if args["last"] else last_node)

    def add_rows(self, entry: Entry, paid: list[Entry], payments: dict[int, Payment] | None, found: list[Finding]) -> None:
        for event in paid:
            node_id = event.args["nodeId"]
            seat = self.seats.get(node_id)
            computed = (payments or {}).get(node_id)
            told = Payment(node_id=node_id, **{name: event.args[name] for name in ("units", "quality", "amount")})
            payment = computed or told
            problems = tuple(dict.fromkeys(f.code for f in found if f.node_id in (node_id, None)))
            self.rows.append(
                Row(
                    round=entry.args["round"],
                    batch=entry.args["batch"],
                    node_id=node_id,
                    units=payment.units,
                    quality=payment.quality,
                    rate=seat.rate if seat else 0,
                    amount=payment.amount,
                    tx=entry.tx,
                    problems=problems,
                )
            )

    def on_RoundAccepted(self, entry: Entry, args: dict[str, Any]) -> None:
        self.accepted.add(args["round"])

    def on_CreditAwarded(self, entry: Entry, args: dict[str, Any]) -> None:
        place = args["round"], args["nodeId"]
        self.due[place] = self.due.get(place, 0) - args["amount"]
        if self.due[place] < 0:
            text = f"The award is {-self.due[place]} more than the receipt at full quality lacks."
            self.find(entry, "award.too_much", text)
        self.job = award(self.job, args["amount"])
        self.sums["awarded"] += args["amount"]

    def on_NodeSlashed(self, entry: Entry, args: dict[str, Any]) -> None:
        taken = sum(args[name] for name in ("fromCredit", "fromStake", "fromUnbonding", "fromInsurance"))
        given = sum(args[name] for name in ("restitution", "toChallenger", "toInsurance"))
        self.expect(entry, "taken", taken, given)
        if not is_fair(to_challenger=args["toChallenger"], to_insurance=args["toInsurance"]):
            self.find(entry, "slash.split", "The challenger got more than a quarter of the penalty.")
        if not self.job.closed:
            self.job = restore(self.job, args["restitution"])
            self.sums["restored"] += args["restitution"]

    def on_JobClosed(self, entry: Entry, args: dict[str, Any]) -> None:
        self.expect(entry, "rounds", args["rounds"], self.job.round)
        self.expect(entry, "spent", args["spent"], self.job.spent)
        self.expect(entry, "refund", args["refund"], self.job.escrow - self.job.spent)
        self.sums["refunded"] += args["refund"]
        self.job = close(self.job)

    def compare_with_kept(self) -> None:
        """What the market stores against what its events add up to: this is where a hidden event shows."""
        kept = self.history.kept
        if self.pending:
            self.find(self.pending[0], "batch.missing", "These payments belong to no RoundSettled.")
        for name, actual in (
            ("escrow", self.job.escrow), ("spent", self.job.spent), ("reserved", self.job.reserved),
            ("records", self.job.records), ("round", self.job.round), ("batch", self.job.batch),
            ("lastNode", self.job.last_node), ("closed", self.job.closed),
        ):  # fmt: skip
            self.expect(None, name, kept.job[name], actual)
        if self.job.spent > self.job.escrow:
            self.find(None, "escrow.overspent", f"{self.job.spent} was credited out of {self.job.escrow}.")
        for round, stored in enumerate(kept.rounds):
            where = Entry("Round", {"round": round}, 0, 0, 0, "")
            if round in self.digests:
                self.expect(where, "digest", stored["digest"], hexed(self.digests[round]))
            self.expect(where, "settledAt", stored["settledAt"], self.ends.get(round, 0))
            self.expect(where, "accepted", stored["accepted"], round in self.accepted)

    def report(self) -> Report:
        history, kept, job = self.history, self.history.kept, self.job
        return Report(
            chain_id=history.chain_id, market=history.market, job_id=history.job_id, registry=kept.registry, court=kept.court,
            first=history.first, head=history.head,
            rounds=len(self.ends), batches=self.batches, escrow=job.escrow, spent=job.spent, reserved=job.reserved,
            closed=job.closed, sums=self.sums, rows=tuple(self.rows), findings=tuple(self.findings),
        )  # fmt: skip
