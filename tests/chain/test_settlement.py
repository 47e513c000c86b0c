"""A whole job through the outbox at once: seats, rounds and closure in one group, each judged after the one before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from eth_account import Account
from eth_account.signers.local import LocalAccount

from marketplace.chain import projections
from marketplace.chain.models import ChainLog, Intent
from marketplace.chain.services import domain, enqueue, market_view
from marketplace.chain.wallet import send
from marketplace.settlement.attestor import Attestor, Statement
from tests.chain.conftest import Chain, all_in
from tests.settings import ATTESTORS
from tests.settings import test_key as key_of
from tests.support.anvil import MIN_STAKE, mint
from trainer.protocol import eip712
from trainer.protocol.packing import PackedReceipt, commitments_hash, pack_receipts, pack_scores, receipts_hash, reward
from trainer.protocol.types import Bid, Delegation, JobClosure, Receipt

pytestmark = [pytest.mark.chain, pytest.mark.django_db]
BASE, ARTIFACT, EVIDENCE = ("0x" + byte * 32 for byte in ("ba", "a7", "ed"))
RATE, UNITS, ROUNDS, ESCROW = 7, 640, 3, 100_000
SCORES, QUALITY = (9_600, 9_500, 10_000), 9_500
"""Of two attestors that open, the lower score is the median."""


@pytest.fixture
def automined(chain: Chain) -> Iterator[Chain]:
    """Wallets are answered at once; the outbox's part is mined by hand."""
    chain.anvil.ask("evm_setAutomine", True)
    yield chain
    chain.anvil.ask("evm_setAutomine", False)


def register(chain: Chain, hot: LocalAccount) -> tuple[str, int]:
    wallet = chain.anvil.new_wallet()
    mint(chain.anvil, wallet, MIN_STAKE, spender=domain().contract)
    delegation = Delegation(operator=Account.from_key(wallet).address, hot_key=hot.address, expires_at=2**33, nonce=0)
    possession = eip712.sign(domain(), delegation, hot.key)
    sent = send(wallet, "registerNode", [hot.address, 2**33, MIN_STAKE, possession], wait_final=False)
    return wallet, int(sent.event("NodeRegistered")["node_id"])


def post_job(chain: Chain) -> tuple[str, int]:
    wallet = chain.anvil.new_wallet()
    mint(chain.anvil, wallet, ESCROW, spender=domain().contract)
    sent = send(wallet, "createJob", [BASE, ESCROW, RATE], wait_final=False)
    return Account.from_key(wallet).address, int(sent.event("JobCreated")["job_id"])


def settlement(chain: Chain, *, job_id: int, round: int, node_id: int, hot: LocalAccount) -> list[Any]:
    """What the product's attestors make of one receipt: all commit, two of three open."""
    receipt = Receipt(job_id=job_id, round=round, node_id=node_id, units=UNITS, base=BASE, artifact=ARTIFACT)
    signature = eip712.sign(domain(), receipt, hot.key)
    packed = pack_receipts([PackedReceipt(node_id=node_id, units=UNITS, artifact=ARTIFACT, signature=signature)])
    said = Statement(
        job_id=job_id, round=round, batch=0, last=True, epoch=current(chain)["epoch"], base=BASE, receipts=receipts_hash(packed),
        evidence=EVIDENCE,
    )  # fmt: skip
    team = attestors(chain)
    listed = {member: one.commit(said, pack_scores([score])) for (member, one), score in zip(team.items(), SCORES, strict=True)}
    attestations = [
        {
            "member": member, "salt": "0x" + one.salt(said).hex(), "scores": "0x" + pack_scores([score]).hex(),
            "signature": one.sign(said, commitments_hash(listed)),
        }
        for (member, one), score in zip(team.items(), SCORES, strict=True)
    ]  # fmt: skip
    attestations[2] |= {"salt": listed[2], "scores": "0x", "signature": "0x"}
    header = [said.job_id, said.round, said.batch, said.last, said.epoch, said.base, said.evidence]
    return [header, "0x" + packed.hex(), attestations]


def current(chain: Chain) -> dict[str, Any]:
    return dict(market_view("getAttestors", block="latest"))


def attestors(chain: Chain) -> dict[int, Attestor]:
    """By their number in the set."""
    members = current(chain)["members"]
    team = [Attestor(key_of(name), domain=domain(), home=chain.folder / "attestors") for name in ATTESTORS]
    return dict(sorted((members.index(one.address), one) for one in team))


def closing(chain: Chain, *, job_id: int, spent: int) -> list[Any]:
    closure = JobClosure(job_id=job_id, rounds=ROUNDS, spent=spent, epoch=current(chain)["epoch"])
    signed = [
        {"member": member, "salt": "0x" + "00" * 32, "scores": "0x", "signature": one.sign_closure(closure)}
        for member, one in attestors(chain).items()
    ]
    return [job_id, closure.rounds, closure.spent, closure.epoch, signed]


def test_a_job_is_seated_settled_and_closed_in_order_and_paid_to_the_unit(automined: Chain) -> None:
    chain, hot = automined, Account.create()
    operator, node_id = register(chain, hot)
    requester, job_id = post_job(chain)
    chain.anvil.ask("evm_setAutomine", False)
    chain.anvil.mine(3)
    settled: list[int] = []
    projections.register("RoundSettled", lambda log: settled.append(log.args["round"]) if log.args["job_id"] == job_id else None)

    bid = Bid(job_id=job_id, node_id=node_id, rate=RATE, capacity=UNITS, expires_at=2**33, nonce=0)
    seating = eip712.seating(job_id=job_id, max_units=UNITS, bids=[bid])
    consent = eip712.sign(domain(), seating, chain.env.coordinator_key.get_secret_value())
    owed = reward(units=UNITS, rate=RATE, quality=QUALITY)
    calls: list[tuple[str, list[Any]]] = [
        ("takeBids", [job_id, [bid.as_dict()], [eip712.sign(domain(), bid, operator)], UNITS, consent]),
        *[("settleRound", settlement(chain, job_id=job_id, round=n, node_id=node_id, hot=hot)) for n in range(ROUNDS)],
        ("closeJob", closing(chain, job_id=job_id, spent=ROUNDS * owed)),
    ]
    group = f"job:{job_id}"
    intents = [enqueue(key=f"{group}:{n}", function=name, args=args, group=group) for n, (name, args) in enumerate(calls)]
    again = enqueue(key=f"{group}:again", function=calls[1][0], args=calls[1][1], group=group)
    chain.drive(lambda: all_in("final", *intents)() and all_in("failed", again)() and len(settled) == ROUNDS, limit=80)

    assert settled == list(range(ROUNDS))
    job = market_view("getJob", job_id)
    assert (job["spent"], job["closed"], job["round"]) == (ROUNDS * owed, True, ROUNDS)
    assert market_view("getNodeMetrics", node_id)["credit"] == ROUNDS * owed
    assert market_view("balanceOf", requester, contract="token") == ESCROW - ROUNDS * owed
    assert Intent.objects.get(pk=again.pk).reason == f"JobIsClosed(job_id={job_id})"
    logs = ChainLog.objects.filter(name="ContributionSettled", args__job_id=job_id)
    assert [log.args["amount"] for log in logs] == [owed] * ROUNDS
    assert chain.sent_transactions() == len(intents)
