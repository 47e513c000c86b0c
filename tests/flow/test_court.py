"""From a failed audit to the pay taken back, and a false accusation, on a real chain: contracts, outbox, indexer, attestors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from eth_account import Account
from pydantic import SecretStr

from marketplace.chain.attestors import join_attestors
from marketplace.chain.deploy import deploy
from marketplace.chain.follower import pass_once
from marketplace.chain.models import Alarm, ChainLog, Intent
from marketplace.chain.profiles import ANVIL
from marketplace.chain.services import domain, market_view, settled_evidence
from marketplace.chain.terms import default_terms
from marketplace.chain.wallet import send
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job
from marketplace.operators import services as operators
from marketplace.operators.models import Node
from marketplace.settlement import committee, tasks
from marketplace.settlement.selectors import unopened_cases
from marketplace.settlement.services import batches, cases
from marketplace.training import calibration, engine, selectors
from marketplace.training import tasks as training
from marketplace.training.calibration import HONEST_AUDITS, Calibration
from marketplace.training.models import Audit, Case, Contribution, Round
from marketplace.training.services import audits, rounds, verdicts
from tests.marketplace.training.test_replays import lazy
from tests.marketplace.training.work import commit, hand_in, lease, upload, worked
from tests.marketplace.world import SMALL, TestNode, attest, wallet, worker_of
from tests.settings import ATTESTORS
from tests.settings import test_key as key_of
from tests.support.anvil import MIN_STAKE, Anvil, chain_settings, mint, start_anvil
from trainer.diloco.trace import Contributed
from trainer.ledger.history import read_history
from trainer.ledger.rpc import Rpc
from trainer.ledger.verify import verify
from trainer.protocol import eip712
from trainer.protocol.rounds import AuditVerdict
from trainer.protocol.spec import parse_spec
from trainer.protocol.types import Delegation
from trainer.scoring.evidence import gather_evidence, write_evidence

pytestmark = [pytest.mark.chain, pytest.mark.django_db]
OTHERS = ("attestor 3", "attestor 4", "attestor 5")
"""Attestors that joined after the epoch had begun: they sign no batch, so they can sit in committees."""
AUDITED = {"audit": {"rate": 1.0, "newcomer_rate": 1.0, "newcomer_rounds": 8, "stride": 2, "segments": 1}}
BOND, RATE = MIN_STAKE // 10, 5


@dataclass
class Market:
    """A market whose outbox and indexer go one pass, and its chain one block, when told."""

    anvil: Anvil

    def drive(self, until: Callable[[], Any]) -> None:
        for _ in range(60):
            pass_once()
            if until():
                return
            self.anvil.mine()
        raise AssertionError(f"not reached: {list(Intent.objects.values('key', 'state', 'reason'))}")

    def now(self) -> int:
        return int(self.anvil.ask("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def pass_time(self, until: int) -> None:
        self.anvil.ask("evm_setNextBlockTimestamp", until)
        self.anvil.mine()


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    with start_anvil(block_seconds=0.1) as anvil:
        challenger = SecretStr(anvil.new_wallet())
        env = chain_settings(anvil, tmp_path, state_dir=tmp_path, challenger_key=challenger)
        names = (*ATTESTORS, *OTHERS)
        for key in (env.admin_key, *env.sender_keys, *(SecretStr(key_of(name)) for name in names)):
            anvil.fund(Account.from_key(key.get_secret_value()).address)
        terms = default_terms(replace(ANVIL, challenge_window=600, dispute_time=1200), min_stake=MIN_STAKE)
        with override_settings(HYPERGPU=env):
            deploy(terms=replace(terms, admitted=tuple(wallet(name).address for name in names)))
            for group in (ATTESTORS, OTHERS):
                join_attestors([SecretStr(key_of(name)) for name in group])
            anvil.pause_mining()
            anvil.ask("evm_setAutomine", True)
            mint(anvil, challenger.get_secret_value(), 3 * BOND)
            found = Market(anvil)
            monkeypatch.setattr(cases, "unix_now", found.now)
            yield found


def register(market: Market, name: str) -> TestNode:
    operator, hot = wallet(f"operator of {name}"), wallet(f"hot key of {name}")
    market.anvil.fund(operator.address)
    key = "0x" + bytes(operator.key).hex()
    mint(market.anvil, key, MIN_STAKE, spender=domain().contract)
    delegation = Delegation(operator=operator.address, hot_key=hot.address, expires_at=2**33, nonce=0)
    possession = eip712.sign(domain(), delegation, hot.key)
    sent = send(key, "registerNode", [hot.address, 2**33, MIN_STAKE, possession], wait_final=False)
    node = TestNode(id=int(sent.event("NodeRegistered")["node_id"]), operator=operator, hot=hot)
    market.drive(lambda: Node.objects.filter(pk=node.id).exists())
    operators.greet(node=node.row, device="cpu", software={}, samples_per_second=None)
    node.bid(rate=RATE)
    return node


def start_job(market: Market) -> Job:
    requester, escrow = wallet("requester"), 100_000
    market.anvil.fund(requester.address)
    key = "0x" + bytes(requester.key).hex()
    mint(market.anvil, key, escrow, spender=domain().contract)
    spec = parse_spec(SMALL | AUDITED)
    job = jobs.draft_job(requester=requester.address, name="a job", spec=spec, max_rate=10, escrow=escrow)
    send(key, "createJob", ["0x" + spec.sha256(), escrow, 10], wait_final=False)
    market.drive(lambda: Job.objects.get(pk=job.pk).state == Job.State.FUNDED)
    verdicts.record_start(job_id=job.pk, prepared=engine.prepare(selectors.job_work(job)))
    return Job.objects.get(pk=job.pk)


def train_and_settle(market: Market, job: Job, honest: TestNode, cheat: TestNode) -> dict[int, Contributed]:
    """A round in which one of two nodes does half of its work, paid on chain. What each has made, by node."""
    rounds.open_round(job_id=job.pk)
    round_ = Round.objects.get(job=job)
    made = {}
    for node, work in ((honest, worked), (cheat, lambda leased: lazy(leased, round_))):
        leased = lease(node)
        made[node.id] = work(leased)
        for answer in (commit, upload, hand_in):
            assert answer(node, leased, made[node.id].upload).status_code == 200
    for pk in Contribution.objects.values_list("pk", flat=True):
        training.check_contribution(pk)
    rounds.close_round_if_complete(round_id=round_.pk)
    training.aggregate_round(round_.pk)
    (batch,) = batches.build_batches(round_id=round_.pk)
    attest(batch)
    market.drive(lambda: Round.objects.get(pk=round_.pk).state == Round.State.SETTLED)
    return made


def audit(market: Market, made: dict[int, Contributed], nodes: list[TestNode]) -> None:
    """Every contribution is drawn by a block, and each node shows its states."""
    market.anvil.mine(5)
    audits.draw_audits(round_id=Round.objects.get().pk)
    for node in nodes:
        (asked,) = lease(node)["audits"]
        answer = write_evidence(gather_evidence(made[node.id].trace, asked["segment"], before=None))
        assert node.call("PUT", f"/agent/v1/audits/{asked['audit_id']}/evidence", raw=answer).status_code == 200


def vote(*names: str) -> None:
    for case in Case.objects.all():
        for name in names:
            with worker_of(name):
                tasks.serve(case.pk)


def state(*wanted: str) -> Callable[[], bool]:
    return lambda: list(Case.objects.order_by("pk").values_list("state", flat=True)) == list(wanted)


def press() -> list[list[str]]:
    return [sorted(cases.press(case_id=pk)) for pk in Case.objects.order_by("pk").values_list("pk", flat=True)]


def balance(address: str) -> int:
    return int(market_view("balanceOf", address, contract="token", block="latest"))


def test_a_cheat_gives_back_twice_its_pay_and_a_false_accusation_costs_the_bond(
    market: Market, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    honest, cheat = register(market, "honest"), register(market, "cheat")
    job = start_job(market)
    made = train_and_settle(market, job, honest, cheat)
    pay = {node.id: int(Node.objects.get(pk=node.id).credit) for node in (honest, cheat)}
    assert min(pay.values()) > 0, "both are paid: nobody has looked yet"
    audit(market, made, [honest, cheat])
    monkeypatch.setattr(calibration, "of", lambda *name: Calibration(*(*name, "")[:3], HONEST_AUDITS, 0))

    # The replay finds the cheat. That the honest one failed is a lie of whoever records verdicts.
    of_cheat, of_honest = Audit.objects.get(node_id=cheat.id), Audit.objects.get(node_id=honest.id)
    training.replay_audit(of_cheat.pk)
    lie = AuditVerdict(verdict="failed", auditor_class="cpu", code="audit.diverged", reason="It differs.", proven=True)
    audits.record_verdict(audit_id=of_honest.pk, found=lie)
    of_cheat.refresh_from_db()
    assert (of_cheat.state, of_cheat.proven, of_cheat.shadow) == ("failed", True, False)
    settled = Round.objects.get()
    found = [settled_evidence(job.chain_id or 0, number, block=settled.settled_block or 0) for number in (0, 1)]
    assert found == [settled.evidence, None], "as the chain says it to anybody"
    assert settled_evidence(job.chain_id or 0, 0, block=(settled.settled_block or 0) + 1) is None
    round_id = settled.pk
    assert unopened_cases() == [{"round_id": round_id}]
    for _ in range(2):
        tasks.open_cases(round_id)
    assert unopened_cases() == []
    assert Intent.objects.filter(kind="challengeQuality").count() == 2
    market.drive(state("drawing", "drawing"))
    challenger = str(Account.from_key(settings.HYPERGPU.challenger_key.get_secret_value()).address)
    assert set(Case.objects.values_list("challenger", "bond")) == {(challenger, BOND)}
    assert balance(challenger) == BOND

    market.anvil.mine(3)
    assert press() == [[], []], "the committee is to be drawn first"
    market.drive(state("voting", "voting"))
    members = sorted(wallet(name).address for name in OTHERS)
    assert press() == [members, members]
    vote(*OTHERS)
    market.drive(lambda: {len(case.votes) for case in Case.objects.all()} == {3})
    # A member's process starts again, and could not look at the work any more: what it committed to is in its folder.
    monkeypatch.setattr(committee, "finding", lambda *_: pytest.fail("a member looks once"))
    vote(*OTHERS)
    market.drive(lambda: {case.revealed for case in Case.objects.all()} == {3})
    vote(*OTHERS)
    press()
    market.drive(state("decided", "decided"))
    market.pass_time(max(case.until or 0 for case in Case.objects.all()))
    press()
    market.drive(state("executed", "executed"))

    upheld, denied = Case.objects.get(contribution__node_id=cheat.id), Case.objects.get(contribution__node_id=honest.id)
    assert set(upheld.votes.values()) == {0}
    assert (upheld.finding, upheld.upheld, upheld.taken) == (0, True, 2 * pay[cheat.id])
    assert set(denied.votes.values()) == {denied.paid}
    assert (denied.finding, denied.upheld, denied.taken) == (denied.paid, False, 0)
    for node in (honest, cheat):
        row, told = Node.objects.get(pk=node.id), market_view("getNodeMetrics", node.id, block="latest")
        assert int(row.credit) == told["credit"]
        assert row.faults == told["faults"]
    assert int(Node.objects.get(pk=honest.id).credit) == pay[honest.id]
    assert int(Node.objects.get(pk=honest.id).operator.stake) == MIN_STAKE
    assert int(Node.objects.get(pk=cheat.id).credit) == 0
    assert int(Node.objects.get(pk=cheat.id).operator.stake) == MIN_STAKE - pay[cheat.id]

    # One bond is lost, the other and the costs, a quarter of the penalty, come home.
    market.drive(lambda: not Intent.objects.filter(kind="collect", state__in=["pending", "sent", "included"]).exists())
    assert balance(challenger) == 2 * BOND + pay[cheat.id] // 4

    shown = {row["node_id"]: row["case"] for row in client.get(f"/api/v1/jobs/{job.pk}").json()["audits"]}
    assert (shown[cheat.id]["state"], shown[cheat.id]["taken"]) == ("executed", str(2 * pay[cheat.id]))
    assert (shown[honest.id]["upheld"], shown[honest.id]["revealed"]) == (False, 3)
    report = verify(
        read_history(Rpc(market.anvil.url), domain().contract, job.chain_id or 1, first=None, step=lambda _: lambda *_: None)
    )
    assert report.findings == ()
    assert report.sums["restored"] == ChainLog.objects.get(name="NodeSlashed").args["restitution"] > pay[cheat.id]
    assert not Alarm.objects.filter(code__startswith="court.").exists()
