"""Many nodes at once, for measuring settlement: operators who stake, a funded job, nodes that hand in what was prepared.

Wallets, keys, transactions, signatures and services are the product's. Only the GPU is missing: a node's update is a few
bytes, and its lease is never renewed. Runs where Django is set up.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.conf import settings
from django.utils import timezone
from eth_account import Account
from eth_account.signers.local import LocalAccount

from marketplace.chain import abi
from marketplace.chain.services import contract_address, domain
from marketplace.jobs import services as jobs
from marketplace.jobs.models import Job, Seat
from marketplace.operators.models import Node
from marketplace.training.models import Assignment, Round
from marketplace.training.services import intake, leases
from scripts.hypergpu_bench.paper_engine import MARK
from scripts.hypergpu_bench.work import RATE
from scripts.hypergpu_demo import rpc
from scripts.hypergpu_demo.supervise import StackError
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.eip712 import sign
from trainer.protocol.spec import parse_spec
from trainer.protocol.types import JOB_ANY, Bid, Delegation, Receipt

NODES_OF_OPERATOR = 20
GAS_MONEY = 10**21
FEE = 10**10
"""Wei for a unit of gas, and no tip: it is a test chain."""
CALL_GAS, BIDS_GAS = 600_000, 8_000_000
BIDS_A_CALL = 50
CALLS_A_REQUEST = 100
DAY = 86_400


@dataclass(frozen=True, slots=True)
class PaperNode:
    id: int
    operator: LocalAccount
    hot: LocalAccount


@dataclass(frozen=True, slots=True)
class Call:
    """A transaction to be sent from a wallet."""

    wallet: LocalAccount
    function: str
    args: list[Any]
    contract: abi.Contract = "market"


@dataclass(frozen=True, slots=True)
class Work:
    """A contribution that is committed and uploaded; only its receipt is still to be handed in."""

    node: Node
    assignment: Assignment
    receipt: Receipt
    signature: str


@dataclass(frozen=True, slots=True)
class Team:
    """The nodes of one job."""

    job: Job
    nodes: Sequence[PaperNode]


class Crowd:
    """`jobs` jobs with `size` nodes each, of wallets that come from `seed`: registered on chain, funded and seated."""

    def __init__(self, *, jobs: int, size: int, rounds: int, seed: int) -> None:
        self.random, self.nonces = random.Random(seed), Counter[str]()
        self.url: str = settings.HYPERGPU.rpc_urls[0]
        self.requester = self.account()
        self.operators = [self.account() for _ in range(-(-jobs * size // NODES_OF_OPERATOR))]
        wallets = [self.requester, *self.operators]
        rpc.batch(self.url, [("anvil_setBalance", [wallet.address, hex(GAS_MONEY)]) for wallet in wallets])
        nodes = self.register(jobs * size)
        self.teams = [Team(self.fund(size, rounds), part) for part in parts(nodes, size)]
        for team in self.teams:
            self.seat(team)
        # Only now do the nodes come online, and rounds open.
        Node.objects.update(last_seen=timezone.now())

    def account(self) -> LocalAccount:
        account: LocalAccount = Account.from_key(self.random.randbytes(32))
        return account

    # On chain.

    def register(self, size: int) -> list[PaperNode]:
        """Each operator stakes for its nodes and registers them."""
        stake = int(settings.HYPERGPU.deployment["terms"]["market"]["minStake"])
        nodes, expires_at = [], int(time.time()) + 30 * DAY
        calls = [call for operator in self.operators for call in self.money(operator, stake * NODES_OF_OPERATOR)]
        for number in range(size):
            operator, hot = self.operators[number // NODES_OF_OPERATOR], self.account()
            delegation = Delegation(operator=operator.address, hot_key=hot.address, expires_at=expires_at, nonce=0)
            possession = sign(domain(), delegation, hot.key)
            calls.append(Call(operator, "registerNode", [hot.address, expires_at, stake, possession]))
            nodes.append((operator, hot))
        self.send(calls)
        until(lambda: Node.objects.count() == size, what=f"{size} registered nodes in the database")
        ids = dict(Node.objects.values_list("hot_key", "id"))
        return sorted((PaperNode(ids[hot.address], operator, hot) for operator, hot in nodes), key=lambda node: node.id)

    def fund(self, size: int, rounds: int) -> Job:
        """A job for exactly these nodes, with its escrow on chain."""
        spec = parse_spec({"rounds": {"rounds": rounds, "nodes": size, "quorum": size, "deadline_seconds": 3_600}})
        escrow = jobs.worst_case_cost(spec, rate=RATE)
        job = jobs.draft_job(requester=self.requester.address, name="bench", spec=spec, max_rate=RATE, escrow=escrow)
        create = Call(self.requester, "createJob", ["0x" + spec.sha256(), escrow, RATE])
        self.send([*self.money(self.requester, escrow), create])
        until(lambda: Job.objects.get(pk=job.pk).state == Job.State.RUNNING, what="the job's start")
        return Job.objects.get(pk=job.pk)

    def seat(self, team: Team) -> None:
        """Bids, signed by the operators, brought by the requester."""
        capacity, expires_at = team.job.parsed_spec.units_per_round, int(time.time()) + DAY
        calls = []
        for part in parts(team.nodes, BIDS_A_CALL):
            bids = [
                Bid(job_id=JOB_ANY, node_id=node.id, rate=RATE, capacity=capacity, expires_at=expires_at, nonce=0)
                for node in part
            ]
            signatures = [sign(domain(), bid, node.operator.key) for bid, node in zip(bids, part, strict=True)]
            messages = [list(bid.as_dict().values()) for bid in bids]
            calls.append(Call(self.requester, "takeBids", [team.job.chain_id, messages, signatures, capacity, "0x"]))
        self.send(calls, gas=BIDS_GAS)
        taken = Seat.objects.filter(job=team.job, taken=True)
        until(lambda: taken.count() == len(team.nodes), what="every seat in the database")

    def money(self, wallet: LocalAccount, amount: int) -> list[Call]:
        """Test money, and the market's leave to take it."""
        mint = Call(wallet, "mint", [wallet.address, amount], "token")
        return [mint, Call(wallet, "approve", [contract_address("market"), amount], "token")]

    def send(self, calls: Sequence[Call], *, gas: int = CALL_GAS) -> None:
        """Sign and send; returns when all are in blocks. Raises StackError when one reverts."""
        raw = [self.signed(call, gas) for call in calls]
        hashes = [
            tx_hash
            for part in parts(raw, CALLS_A_REQUEST)
            for tx_hash in rpc.batch(self.url, [("eth_sendRawTransaction", [one]) for one in part])
        ]
        for part in parts(hashes, CALLS_A_REQUEST):
            receipts = until(partial(self.receipts, part), what="the transactions of the crowd")
            if any(receipt["status"] != "0x1" for receipt in receipts):
                raise StackError("The chain refused a transaction of the crowd.")

    def signed(self, call: Call, gas: int) -> str:
        sender = call.wallet.address
        transaction: Any = {
            "type": 2, "chainId": settings.HYPERGPU.chain_id, "nonce": self.nonces[sender], "gas": gas, "value": 0,
            "to": contract_address(call.contract), "data": abi.encode_call(call.contract, call.function, call.args),
            "maxFeePerGas": FEE, "maxPriorityFeePerGas": 0,
        }  # fmt: skip
        self.nonces[sender] += 1
        return "0x" + bytes(call.wallet.sign_transaction(transaction).raw_transaction).hex()

    def receipts(self, hashes: Sequence[str]) -> list[dict[str, Any]] | None:
        found = rpc.batch(self.url, [("eth_getTransactionReceipt", [one]) for one in hashes])
        return found if all(found) else None

    # In a round.

    def prepare(self, team: Team, number: int) -> tuple[Round, list[Work]]:
        """The round, once it is open, and everything of its work but the receipts: leases, commitments, uploads."""
        rounds = Round.objects.filter(job=team.job, number=number, state=Round.State.OPEN).select_related("job")
        round_: Round = until(rounds.first, what=f"round {number}")
        rows = Node.objects.in_bulk([node.id for node in team.nodes])
        return round_, [self.prepared(round_, node, rows[node.id]) for node in team.nodes]

    def prepared(self, round_: Round, node: PaperNode, row: Node) -> Work:
        data = MARK + self.random.randbytes(16)
        leased = leases.lease_next(node_id=node.id)
        if leased is None:
            raise StackError(f"Node {node.id} was given no work.")
        sha256, limit = sha256_hex(data), round_.job.upload_limit or 0
        intake.commit(assignment=leased[0], sha256=sha256, size=len(data), limit=limit)
        assignment = self.held(leased[0])
        intake.upload(assignment=assignment, chunks=[data], size=len(data))
        receipt = Receipt(
            job_id=round_.job.chain_id or 0, round=round_.number, node_id=node.id,
            units=assignment.steps * round_.job.parsed_spec.inner.batch_size, base="0x" + round_.base, artifact="0x" + sha256,
        )  # fmt: skip
        return Work(row, self.held(assignment), receipt, sign(domain(), receipt, node.hot.key))

    def held(self, assignment: Assignment) -> Assignment:
        return leases.held(assignment_id=assignment.pk, node_id=assignment.node_id, fence=assignment.fence)


def hand_in(work: Work) -> float:
    """What the receipt's HTTP request comes to. Answers when it was begun, unix seconds."""
    began = time.time()
    intake.accept_contribution(
        assignment=work.assignment, node=work.node, receipt=work.receipt, signature=work.signature, losses=[], seconds=0.0
    )
    return began


def until(question: Callable[[], Any], *, what: str, seconds: float = 180) -> Any:
    """The first answer that counts as true. Raises StackError after `seconds`."""
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            raise StackError(f"Waited {seconds:.0f} s for {what}.")
        time.sleep(0.1)
    return answer


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]
