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
from tests.chain.conftest import Chain, all_in
from tests.support.anvil import MIN_STAKE, mint
from trainer.protocol import eip712
from trainer.protocol.packing import SettledReceipt, pack_receipts, receipts_hash, reward
from trainer.protocol.types import Bid, Delegation, JobClosure, Receipt, RoundAttestation

pytestmark = [pytest.mark.chain, pytest.mark.django_db]
BASE, ARTIFACT, EVIDENCE = ("0x" + byte * 32 for byte in ("ba", "a7", "ed"))
RATE, UNITS, QUALITY, ROUNDS, ESCROW = 7, 640, 9_500, 3, 100_000


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
    receipt = Receipt(job_id=job_id, round=round, node_id=node_id, units=UNITS, base=BASE, artifact=ARTIFACT)
    line = SettledReceipt(
        node_id=node_id, units=UNITS, quality=QUALITY, artifact=ARTIFACT, signature=eip712.sign(domain(), receipt, hot.key)
    )
    packed = pack_receipts([line])
    attestation = RoundAttestation(
        job_id=job_id, round=round, batch=0, last=True, base=BASE, receipts=receipts_hash(packed), evidence=EVIDENCE
    )
    return [job_id, round, 0, True, BASE, "0x" + packed.hex(), EVIDENCE, attested(chain, attestation)]


def attested(chain: Chain, message: RoundAttestation | JobClosure) -> list[str]:
    return [eip712.sign(domain(), message, key.get_secret_value()) for key in chain.env.attestor_keys]


def test_a_job_is_seated_settled_and_closed_in_order_and_paid_to_the_unit(automined: Chain) -> None:
    chain, hot = automined, Account.create()
    operator, node_id = register(chain, hot)
    requester, job_id = post_job(chain)
    chain.anvil.ask("evm_setAutomine", False)
    chain.anvil.mine(3)
    settled: list[int] = []
    projections.register("RoundSettled", lambda log: settled.append(log.args["round"]) if log.args["job_id"] == job_id else None)

    bid = Bid(job_id=job_id, node_id=node_id, rate=RATE, capacity=UNITS, expires_at=2**33, nonce=0)
    owed = reward(units=UNITS, rate=RATE, quality=QUALITY)
    closure = JobClosure(job_id=job_id, rounds=ROUNDS, spent=ROUNDS * owed)
    calls: list[tuple[str, list[Any]]] = [
        ("takeBids", [job_id, [bid.as_dict()], [eip712.sign(domain(), bid, operator)]]),
        *[("settleRound", settlement(chain, job_id=job_id, round=n, node_id=node_id, hot=hot)) for n in range(ROUNDS)],
        ("closeJob", [job_id, ROUNDS, ROUNDS * owed, attested(chain, closure)]),
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
