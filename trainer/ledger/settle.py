"""Settling a round in the coordinator's place: from the public bundle, checked before any gas is paid."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount

from trainer.ledger.batches import Bundle, parse_bundle
from trainer.ledger.history import Views, require_market
from trainer.ledger.judging import Book, Epoch, judge, recovered, signed_receipt
from trainer.ledger.rpc import Rpc
from trainer.ledger.sending import Reverted, send, simulate
from trainer.operator.config import checked_url
from trainer.protocol.eip712 import Domain
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.packing import unpack_receipts
from trainer.protocol.settlement import SETTLEMENT_GRACE, Job, Pauses, Payment, Seat, settle_batch

PAUSE_LIMIT = 3 * 86_400
NOBODY = "0x" + "00" * 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """`already`: the round was settled before. `payments` are those that this run made, or would make."""

    already: bool
    payments: tuple[Payment, ...]
    transactions: tuple[str, ...]


def find_bundle(job: int, round: int, *, coordinator: str | None, file: Path | None) -> Bundle:
    """From a file, where `job` is the chain's number, or from a coordinator, where it is the coordinator's.

    Raises HyperGPUError `settle.no_source`, `settle.other_round`, and those of `fetch_bundle` and `read_bundle`.
    """
    if (coordinator is None) == (file is None):
        raise HyperGPUError("settle.no_source", "Say where the attested batches are: --coordinator URL, or --bundle FILE.")
    bundle = fetch_bundle(coordinator, job, round) if coordinator else read_bundle(Path(file or ""))
    if bundle.round != round or (file and bundle.job_id != job):
        text = f"The bundle is of round {bundle.round} of the chain's job {bundle.job_id}, not of round {round} of job {job}."
        raise HyperGPUError("settle.other_round", text)
    return bundle


def fetch_bundle(url: str, job: int, round: int) -> Bundle:
    """The bundle that the coordinator publishes; `job` is the coordinator's number of it.

    Raises HyperGPUError `coordinator.unavailable`, `settle.no_bundle`, `bundle.malformed`.
    """
    try:
        response = httpx.get(f"{checked_url(url)}/api/v1/jobs/{job}/rounds/{round}/settlement", timeout=20)
    except httpx.HTTPError as error:
        raise HyperGPUError("coordinator.unavailable", f"{url} does not answer: {error}") from error
    if response.status_code == httpx.codes.NOT_FOUND:
        text = f"{url} has no attested batches of job {job}, round {round}: {reason(response)}"
        raise HyperGPUError("settle.no_bundle", text)
    if response.is_error:
        raise HyperGPUError("coordinator.unavailable", f"{url} answers {response.status_code}: {reason(response)}")
    return parse_bundle(response.json())


def reason(response: httpx.Response) -> str:
    """The coordinator's own words, if it has any."""
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return "it gives no reason."


def read_bundle(path: Path) -> Bundle:
    try:
        return parse_bundle(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise HyperGPUError("bundle.malformed", f"{path} cannot be read as a bundle: {error}") from error


def settle(rpc: Rpc, bundle: Bundle, *, market: str, account: LocalAccount | None, say: Callable[[str], None]) -> Outcome:
    """Bring each batch of the bundle that is not on the chain yet; without an account only check and try.

    Raises HyperGPUError `settle.other_market`, `settle.not_next`, `settle.not_good`, those of `sending`, and Refusal when
    the market's arithmetic does not allow a batch.
    """
    market = require_market(rpc, market, rpc.blocks(["latest"])[0])
    if (rpc.chain_id(), market.lower()) != (bundle.chain_id, bundle.market.lower()):
        text = f"The bundle is for {bundle.market} on chain {bundle.chain_id}, not for {market} on chain {rpc.chain_id()}."
        raise HyperGPUError("settle.other_market", text)
    views = Views(rpc, market, "latest")
    stored = views.one("getJob", bundle.job_id)
    if stored["round"] > bundle.round:
        return Outcome(already=True, payments=(), transactions=())
    if stored["round"] < bundle.round:
        text = f"Rounds settle in order: settle round {stored['round']} first."
        raise HyperGPUError("settle.not_next", text)
    payments = check(views, bundle, stored)
    say(f"{len(payments)} payments of {sum(payment.amount for payment in payments)} base units in all; every signature is good.")
    transactions: list[str] = []
    for batch in bundle.batches:
        if batch.header.batch < stored["batch"]:
            continue
        try:
            simulate(rpc, sender=account.address if account else NOBODY, to=market, data=batch.calldata())
            if account is None:
                # What follows can be tried only once this one is on the chain.
                break
            receipt = send(rpc, account, chain_id=bundle.chain_id, to=market, data=batch.calldata())
        except Reverted:
            # Somebody else may have been faster; then all is well.
            now = views.one("getJob", bundle.job_id)
            if (now["round"], now["batch"]) <= (batch.header.round, batch.header.batch):
                raise
            say(f"Batch {batch.header.batch} was settled by somebody else meanwhile.")
            continue
        transactions.append(receipt["transactionHash"])
        say(f"Batch {batch.header.batch} is final: {receipt['transactionHash']}")
    return Outcome(already=False, payments=payments, transactions=tuple(transactions))


def check(views: Views, bundle: Bundle, stored: dict[str, Any]) -> tuple[Payment, ...]:
    """What the batches that are left will pay, computed here; every signature checked against the market's book."""
    names = ("escrow", "spent", "reserved", "records", "round", "batch", "closed")
    job = Job(last_node=stored["lastNode"], **{name: stored[name] for name in names})
    book, time = read_book(views, bundle), views.rpc.blocks(["latest"])[0].timestamp
    payments: list[Payment] = []
    for batch in bundle.batches:
        head = batch.header
        if head.batch < stored["batch"]:
            continue
        judgement = judge(batch, book, time=time)
        if judgement.doubts:
            text = "; ".join(doubt.text for doubt in judgement.doubts)
            raise HyperGPUError("settle.not_good", f"Batch {head.batch} would be refused: {text}")
        settled = settle_batch(job, book.seats, round=head.round, batch=head.batch, last=head.last, lines=judgement.lines)
        job, book.seats = settled.job, settled.seats
        payments += settled.payments
    return tuple(payments)


def read_book(views: Views, bundle: Bundle) -> Book:
    """Of the market's book what these batches need, as the views tell it now."""
    book = Book(domain=Domain(bundle.chain_id, views.market))
    until = views.one("pausedUntil")["settlement"]
    # When the pause began no view tells. The longest is allowed for: what then is too old, the trial call will say.
    book.pauses = Pauses(since=max(until - PAUSE_LIMIT, 0), until=until)
    lines = [(batch, packed) for batch in bundle.batches for packed in unpack_receipts(batch.receipts)]
    signers = [
        (packed.node_id, recovered(book.domain, signed_receipt(batch, packed), packed.signature)) for batch, packed in lines
    ]
    known = [(node_id, signer) for node_id, signer in signers if signer.startswith("0x")]
    for (node_id, signer), answer in zip(known, views.many("keyGoodUntil", known), strict=True):
        if answer["time"]:
            book.keys.setdefault(node_id, {})[signer] = answer["time"] - SETTLEMENT_GRACE
    nodes = sorted({packed.node_id for _, packed in lines})
    for node_id, seat in zip(nodes, views.many("getSeat", [(bundle.job_id, node_id) for node_id in nodes]), strict=True):
        if seat["capacity"]:
            book.seats[node_id] = Seat(
                rate=seat["rate"], capacity=seat["capacity"], recorded_units=seat["recordedUnits"],
                recorded_round=seat["recordedRound"] - 1 if seat["recordedRound"] else None,
            )  # fmt: skip
    for number in {batch.header.epoch for batch in bundle.batches}:
        epoch = views.one("getEpoch", number)
        if epoch["members"]:
            ended_at = epoch["goodUntil"] - SETTLEMENT_GRACE if epoch["goodUntil"] else None
            book.epochs[number] = Epoch(members=epoch["members"], quorum=epoch["quorum"], ended_at=ended_at)
    return book
