"""A market on anvil with all its signers at hand: registry and court are plain accounts, so that tests say what they say.

market = LocalMarket.deploy(anvil)
job = market.post_job(escrow=10_000)
node = market.register()
market.take_seat(job, node, rate=3)
market.settle(market.batch(job, {node: 640}, scores=[[9_000], [9_500], [10_000]]))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import httpx
from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from marketplace.chain import abi
from tests.support.anvil import CHAIN_ID, Anvil, wait_until
from trainer.ledger.abi import hexed
from trainer.ledger.batches import Attestation, Batch, Header
from trainer.protocol import eip712
from trainer.protocol.packing import PackedReceipt, commitment, commitments_hash, pack_receipts, receipts_hash
from trainer.protocol.types import Bid, Delegation, JobClosure, Receipt, RoundAttestation

NEVER, GAS = 2**33, 15_000_000
BASE, EVIDENCE = "0x" + "ba" * 32, "0x" + "ed" * 32
COORDINATOR: LocalAccount = Account.from_key(keccak(text="coordinator"))
TERMS = {
    "min_stake": 1_000, "exit_notice": 7_200, "unbonding_time": 7_200, "challenge_window": 3_600, "dispute_time": 3_600,
    "instant_share": 5_000,
}  # fmt: skip


class Reverted(Exception):
    """A transaction that the contract refused; `error` is the name of its error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.error = reason.split("(")[0]


@dataclass(frozen=True)
class LocalNode:
    id: int
    wallet: LocalAccount
    hot: LocalAccount


@dataclass
class LocalMarket:
    """Every transaction is in a block of its own at once; no account needs a balance or a signature."""

    anvil: Anvil
    token: str
    address: str
    registry: str
    court: str
    attestors: list[LocalAccount]
    epoch: int = 1
    funded: set[str] = field(default_factory=set, repr=False)
    client: httpx.Client = field(repr=False, default_factory=lambda: httpx.Client(timeout=30))

    @classmethod
    def deploy(cls, anvil: Anvil, *, attestors: int = 3, **terms: int) -> LocalMarket:
        anvil.ask("evm_setIntervalMining", 0)
        anvil.ask("evm_setAutomine", True)
        anvil.ask("anvil_autoImpersonateAccount", True)
        keys = [Account.from_key(keccak(text=f"attestor {index}")) for index in range(attestors)]
        market = cls(anvil, token="", address="", registry=account("registry"), court=account("court"), attestors=keys)
        deployer = account("deployer")
        market.token = market.create("token", [], sender=deployer)
        arguments = [market.token, TERMS | terms, account("timelock"), account("guardian"), deployer]
        market.address = market.create("market", arguments, sender=deployer)
        market.call("connect", market.registry, market.court, COORDINATOR.address, sender=deployer)
        market.begin_epoch()
        return market

    @property
    def domain(self) -> eip712.Domain:
        return eip712.Domain(CHAIN_ID, self.address)

    def ask(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        answer = self.client.post(self.anvil.url, json=body).json()
        if "error" in answer:
            data = answer["error"].get("data")
            raise Reverted(abi.decode_error(data) if isinstance(data, str) else str(answer["error"]))
        return answer["result"]

    def create(self, contract: abi.Contract, arguments: list[Any], *, sender: str) -> str:
        return str(self.send({"from": sender, "data": abi.encode_constructor(contract, arguments)})["contractAddress"])

    def call(self, function: str, *args: Any, sender: str, contract: abi.Contract = "market") -> dict[str, Any]:
        """The receipt. Raises Reverted."""
        to = self.token if contract == "token" else self.address
        return self.send({"from": sender, "to": to, "data": abi.encode_call(contract, function, list(args))})

    def send(self, transaction: dict[str, Any]) -> dict[str, Any]:
        if transaction["from"] not in self.funded:
            self.anvil.fund(transaction["from"])
            self.funded.add(transaction["from"])
        # With a gas limit nothing is estimated, so that a refusal is one at the time of its own block.
        tx = self.ask("eth_sendTransaction", {"gas": hex(GAS), **transaction})
        wait_until(lambda: self.ask("eth_getTransactionReceipt", tx), what=f"transaction {tx}")
        receipt: dict[str, Any] = self.ask("eth_getTransactionReceipt", tx)
        if receipt["status"] != "0x1":
            trace = self.ask("debug_traceTransaction", tx, {"tracer": "callTracer"})
            raise Reverted(abi.decode_error(trace.get("output", "0x")))
        return receipt

    def view(self, function: str, *args: Any) -> Any:
        answer = self.ask("eth_call", {"to": self.address, "data": abi.encode_call("market", function, list(args))}, "latest")
        return abi.decode_result("market", function, answer)

    def now(self) -> int:
        return int(self.ask("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def views(self, *calls: tuple[str, list[Any]]) -> list[Any]:
        """The results of several views of the latest block, asked at once."""
        asked = [
            {
                "jsonrpc": "2.0", "id": index, "method": "eth_call",
                "params": [{"to": self.address, "data": abi.encode_call("market", function, args)}, "latest"],
            }
            for index, (function, args) in enumerate(calls)
        ]  # fmt: skip
        replies = sorted(self.client.post(self.anvil.url, json=asked).json(), key=lambda reply: reply["id"])
        return [abi.decode_result("market", name, reply["result"]) for (name, _), reply in zip(calls, replies, strict=True)]

    def pass_time(self, seconds: int) -> None:
        self.ask("evm_setNextBlockTimestamp", self.now() + seconds)
        self.anvil.mine()

    @contextmanager
    def blocks_going_on(self) -> Iterator[None]:
        """Meanwhile blocks come by themselves, so that what is sent becomes final."""
        over = Event()

        def mine() -> None:
            while not over.wait(0.03):
                self.anvil.mine()

        miner = Thread(target=mine)
        miner.start()
        try:
            yield
        finally:
            over.set()
            miner.join()

    def begin_epoch(self, *, quorum: int | None = None) -> None:
        members = [key.address for key in self.attestors]
        receipt = self.call("beginEpoch", members, quorum or len(members) // 2 + 1, sender=self.registry)
        self.epoch = self.event(receipt, "EpochBegun")["epoch"]

    def event(self, receipt: dict[str, Any], name: str) -> dict[str, Any]:
        """Arguments of the first event of that name of the market."""
        own = (log for log in receipt["logs"] if log["address"] == self.address.lower())
        decoded = (abi.decode_log("market", log["topics"], log["data"]) for log in own)
        return next(event[1] for event in decoded if event and event[0] == name)

    def money(self, owner: str, amount: int) -> None:
        """Test money for an account, approved for the market."""
        self.call("mint", owner, amount, sender=owner, contract="token")
        self.call("approve", self.address, amount, sender=owner, contract="token")

    def register(self, name: str = "node", *, stake: int = 1_000, wallet: LocalAccount | None = None) -> LocalNode:
        wallet = wallet or Account.from_key(keccak(text=f"wallet of {name}"))
        hot = Account.from_key(keccak(text=f"hot key of {name}"))
        self.money(wallet.address, stake)
        possession = self.consent(wallet.address, hot, nonce=0)
        receipt = self.call("registerNode", hot.address, NEVER, stake, possession, sender=wallet.address)
        return LocalNode(self.event(receipt, "NodeRegistered")["node_id"], wallet, hot)

    def consent(self, operator: str, hot: LocalAccount, *, nonce: int) -> str:
        delegation = Delegation(operator=operator, hot_key=hot.address, expires_at=NEVER, nonce=nonce)
        return eip712.sign(self.domain, delegation, hot.key)

    def replace_key(self, node: LocalNode, name: str) -> LocalNode:
        hot = Account.from_key(keccak(text=f"hot key of {name}"))
        consent = Delegation(operator=node.wallet.address, hot_key=hot.address, expires_at=NEVER, nonce=0)
        signatures = [eip712.sign(self.domain, consent, key) for key in (node.wallet.key, hot.key)]
        self.call("delegateHotKey", node.id, hot.address, NEVER, *signatures, sender=node.wallet.address)
        return LocalNode(node.id, node.wallet, hot)

    def post_job(self, *, escrow: int, max_rate: int = 10**6, requester: str = "") -> int:
        requester = requester or account("requester")
        self.money(requester, escrow)
        receipt = self.call("createJob", "0x" + "5e" * 32, escrow, max_rate, sender=requester)
        return int(self.event(receipt, "JobCreated")["job_id"])

    def take_seat(self, job_id: int, node: LocalNode, *, rate: int, capacity: int = 10_000) -> None:
        bid = Bid(job_id=job_id, node_id=node.id, rate=rate, capacity=capacity, expires_at=NEVER, nonce=0)
        signature = eip712.sign(self.domain, bid, node.wallet.key)
        consent = eip712.sign(self.domain, eip712.seating(job_id=job_id, max_units=capacity, bids=[bid]), COORDINATOR.key)
        self.call("takeBids", job_id, [bid.as_dict()], [signature], capacity, consent, sender=account("anyone"))

    def receipt(self, job_id: int, round: int, node: LocalNode, units: int) -> PackedReceipt:
        artifact = hexed(keccak(text=f"{job_id} {round} {node.id} {units}"))
        message = Receipt(job_id=job_id, round=round, node_id=node.id, units=units, base=BASE, artifact=artifact)
        signature = eip712.sign(self.domain, message, node.hot.key)
        return PackedReceipt(node_id=node.id, units=units, artifact=artifact, signature=signature)

    def batch(
        self, job_id: int, work: Mapping[LocalNode, int], scores: Sequence[Sequence[int] | None], *,
        round: int = 0, batch: int = 0, last: bool = True, epoch: int | None = None,
    ) -> Batch:  # fmt: skip
        """A batch of receipts, one for each node with its units, in that order. `scores[i]` are those of attestor i, one for
        each receipt; None: it committed and did not open."""
        packed = pack_receipts([self.receipt(job_id, round, node, units) for node, units in work.items()])
        header = Header(
            job_id=job_id, round=round, batch=batch, last=last, epoch=epoch or self.epoch, base=BASE, evidence=EVIDENCE
        )  # fmt: skip
        return self.attest(header, packed, scores)

    def attest(self, header: Header, packed: bytes, scores: Sequence[Sequence[int] | None]) -> Batch:
        salts = [keccak(text=f"salt {member}") for member in range(len(scores))]
        shown = [packed_scores(row) for row in scores]
        listed = {
            member: commitment(attestor=self.attestors[member].address, salt=salts[member], scores=row)
            for member, row in enumerate(shown)
        }
        message = RoundAttestation(
            job_id=header.job_id, round=header.round, batch=header.batch, last=header.last, epoch=header.epoch,
            base=header.base, receipts=receipts_hash(packed), evidence=header.evidence, commitments=commitments_hash(listed),
        )  # fmt: skip
        parts = (
            Attestation(member=member, salt=bytes.fromhex(listed[member][2:]), scores=b"", signature=b"")
            if scores[member] is None
            else Attestation(
                member=member, salt=salts[member], scores=row,
                signature=bytes.fromhex(eip712.sign(self.domain, message, self.attestors[member].key)[2:]),
            )
            for member, row in enumerate(shown)
        )  # fmt: skip
        return Batch(header=header, receipts=packed, attestations=tuple(parts))

    def settle(self, batch: Batch, *, to: str | None = None) -> dict[str, Any]:
        return self.send({"from": account("anyone"), "to": to or self.address, "data": hexed(batch.calldata())})

    def record(self, job_id: int, round: int, node: LocalNode, units: int) -> dict[str, Any]:
        packed = pack_receipts([self.receipt(job_id, round, node, units)])
        return self.call("submitContribution", job_id, round, BASE, hexed(packed), sender=account("anyone"))

    def close(self, job_id: int) -> dict[str, Any]:
        job = self.view("getJob", job_id)
        closure = JobClosure(job_id=job_id, rounds=job["round"], spent=job["spent"], epoch=self.epoch)
        parts = [
            {"member": member, "salt": "0x" + "00" * 32, "scores": "0x", "signature": eip712.sign(self.domain, closure, key.key)}
            for member, key in enumerate(self.attestors)
        ]
        return self.call("closeJob", job_id, job["round"], job["spent"], self.epoch, parts, sender=account("anyone"))


def busy_job(market: LocalMarket) -> int:
    """A job in which happens what can: 3 nodes, 3 attestors, 4 rounds, 5 batches; a deposit, a record that is paid and one
    that lapses, an attestor that does not open, a replaced key, a new epoch, a slash, an award, and the end."""
    job, anyone = market.post_job(escrow=100_000), account("anyone")
    one, two, three = (market.register(f"node {index} of job {job}") for index in range(3))
    for rate, node in enumerate((one, two, three), start=3):
        market.take_seat(job, node, rate=rate)
    market.money(anyone, 50_000)
    market.call("fundJob", job, 50_000, sender=anyone)
    market.record(job, 0, one, 640)
    market.record(job, 1, three, 100)
    scores = [[9_000, 9_999], [9_400, 1], [10_000, 10_000]]
    market.settle(market.batch(job, {one: 640, two: 641}, scores, last=False))
    market.settle(market.batch(job, {three: 77}, [[5_000], [4_000], None], batch=1))
    replaced = market.replace_key(two, f"the other key of job {job}")
    late = market.batch(job, {one: 10, two: 20}, [[7_000, 7_001], [8_000, 8_001], [9_000, 9_001]], round=1)
    market.begin_epoch()
    market.settle(late)
    market.settle(market.batch(job, {one: 333, replaced: 334, three: 335}, [[9_000] * 3, [9_001] * 3, [0] * 3], round=2))
    fault = [1, job, one.id, 500, 400, anyone, 100]
    market.call("penalize", fault, sender=market.court)
    market.call("award", 2, job, 2, three.id, 335, 9_000, 9_500, sender=market.court)
    market.settle(market.batch(job, {}, [[], [], []], round=3))
    market.pass_time(TERMS["challenge_window"])
    market.call("lapseRecord", job, three.id, sender=anyone)
    market.call("acceptRound", job, 2, "0x", sender=account("requester"))
    market.close(job)
    market.anvil.mine(3)
    return job


def packed_scores(row: Sequence[int] | None) -> bytes:
    """Scores above the limit too: tests say what the contract makes of them."""
    return b"".join(score.to_bytes(2, "big") for score in row or ())


def account(name: str) -> str:
    """An address without a key in anybody's hands."""
    return str(Account.from_key(keccak(text=name)).address)


__all__ = ["BASE", "EVIDENCE", "TERMS", "LocalMarket", "LocalNode", "Reverted", "account", "busy_job"]
