"""ComputeMarket, set up to settle as many receipts as wanted: three attestors that commit, sign and show their scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from eth_account import Account

from scripts.hypergpu_bench.chain import Chain, Contract, Mined
from scripts.hypergpu_bench.compiled import product
from scripts.hypergpu_bench.work import BASE, CAPACITY, ESCROW, EVIDENCE, QUALITIES, RATE, key
from scripts.hypergpu_demo.stack import CHAIN_ID
from trainer.protocol import packing
from trainer.protocol.eip712 import Domain, sign
from trainer.protocol.types import Bid, Delegation, Message, Receipt, RoundAttestation

MIN_STAKE = 1_000_000
HOUR, DAY = 3_600, 86_400
TERMS = (MIN_STAKE, DAY, 2 * DAY, HOUR, 6 * HOUR, 5_000)
"""minStake, exitNotice, unbondingTime, challengeWindow, disputeTime, instantShare."""
NEVER = 4_000_000_000
REGISTRY, COURT, TIMELOCK = (f"0x{digit * 40}" for digit in "abc")
"""Settlement calls none of them, so accounts stand in for contracts."""
BIDS_A_CALL = 50
SCORE_SPREAD = 40
"""Basis points by which attestors' scores differ."""


@dataclass(frozen=True, slots=True)
class Node:
    id: int
    key: bytes


class Market:
    def __init__(self, chain: Chain, *, seed: int, attestors: int) -> None:
        self.chain, self.random = chain, random.Random(seed)
        self.attestors = [key(self.random) for _ in range(attestors)]
        token = Contract(chain, product("TestUSD"))
        self.market = Contract(chain, product("ComputeMarket"), token.address, TERMS, TIMELOCK, TIMELOCK, chain.sender)
        self.domain = Domain(chain_id=CHAIN_ID, contract=self.market.address)
        self.market.send("connect", REGISTRY, COURT, chain.sender)
        self.market.send("beginEpoch", list(map(address, self.attestors)), attestors * 2 // 3 + 1, sender=REGISTRY)
        self.operator = key(self.random)
        chain.ask("anvil_setBalance", address(self.operator), hex(10**20))
        for owner in (chain.sender, address(self.operator)):
            token.send("mint", owner, 10**30)
            token.send("approve", self.market.address, 2**256 - 1, sender=owner)
        self.jobs = 0

    # Setting up.

    def job(self, nodes: int, *, stride: int = 1) -> tuple[int, list[Node]]:
        """A job, and new nodes that sit in it. `stride` is between their ids; 128 puts each on storage pages of its own."""
        self.market.send("createJob", EVIDENCE, ESCROW, RATE)
        self.jobs += 1
        seated = [self.node(stride) for _ in range(nodes)]
        for first in range(0, nodes, BIDS_A_CALL):
            bids = [self.bid(node) for node in seated[first : first + BIDS_A_CALL]]
            signatures = [self.signature(bid, self.operator) for bid in bids]
            offers = [tuple(bid.as_dict().values()) for bid in bids]
            self.market.send("takeBids", self.jobs, offers, signatures, CAPACITY, b"")  # the sender is the coordinator
        return self.jobs, seated

    def node(self, stride: int) -> Node:
        hot = key(self.random)
        if stride > 1:
            self.skip_ids(stride - 1)
        delegation = Delegation(operator=address(self.operator), hot_key=address(hot), expires_at=NEVER, nonce=0)
        possession = self.signature(delegation, hot)
        self.market.send("registerNode", address(hot), NEVER, MIN_STAKE, possession, sender=address(self.operator))
        return Node(self.market.view("nodeCount")[0], hot)

    def skip_ids(self, count: int) -> None:
        """As if `count` more nodes had registered: the contract's own counter is raised."""
        call = {"to": self.market.address, "data": self.market.call("nodeCount")}
        touched = self.chain.ask("eth_createAccessList", call)["accessList"]
        last, market = self.market.view("nodeCount")[0], self.market.address
        for slot in (slot for account in touched if account["address"] == market.lower() for slot in account["storageKeys"]):
            word = int(self.chain.ask("eth_getStorageAt", market, slot, "latest"), 16)
            for shift in range(0, 256, 8):  # other values share the slot
                self.chain.ask("anvil_setStorageAt", market, slot, f"0x{(word + (count << shift)) % 2**256:064x}")
                if self.market.view("nodeCount")[0] == last + count:
                    return
            self.chain.ask("anvil_setStorageAt", market, slot, f"0x{word:064x}")
        raise RuntimeError("the number of nodes is not where it was looked for")

    def bid(self, node: Node) -> Bid:
        return Bid(job_id=self.jobs, node_id=node.id, rate=RATE, capacity=CAPACITY, expires_at=NEVER, nonce=0)

    # Settling.

    def receipts(self, job: int, round_: int, nodes: Sequence[Node]) -> list[packing.PackedReceipt]:
        return [self.receipt(job, round_, node) for node in nodes]

    def receipt(self, job: int, round_: int, node: Node) -> packing.PackedReceipt:
        artifact, units = "0x" + self.random.randbytes(32).hex(), self.random.randrange(1, CAPACITY)
        message = Receipt(job_id=job, round=round_, node_id=node.id, units=units, base=hexed(BASE), artifact=artifact)
        signature = "0x" + self.signature(message, node.key).hex()
        return packing.PackedReceipt(node_id=node.id, units=units, artifact=artifact, signature=signature)

    def settle(self, job: int, round_: int, receipts: Sequence[packing.PackedReceipt]) -> Mined:
        """One batch, which is the whole round."""
        packed = packing.pack_receipts(receipts)
        salts = [self.random.randbytes(32) for _ in self.attestors]
        scores = [packing.pack_scores(one) for one in self.scores(len(receipts))]
        committed = {
            member: packing.commitment(attestor=address(attestor), salt=salt, scores=shown)
            for member, (attestor, salt, shown) in enumerate(zip(self.attestors, salts, scores, strict=True))
        }
        message = RoundAttestation(
            job_id=job, round=round_, batch=0, last=True, epoch=1, base=hexed(BASE), receipts=packing.receipts_hash(packed),
            evidence=hexed(EVIDENCE), commitments=packing.commitments_hash(committed),
        )  # fmt: skip
        attestations = [
            (member, salt, shown, self.signature(message, attestor))
            for member, (attestor, salt, shown) in enumerate(zip(self.attestors, salts, scores, strict=True))
        ]
        return self.market.send("settleRound", (job, round_, 0, True, 1, BASE, EVIDENCE), packed, attestations)

    def scores(self, receipts: int) -> list[list[int]]:
        """Of each attestor: around one quality a receipt, as recomputation on other hardware gives."""
        qualities = [self.random.choice(QUALITIES) for _ in range(receipts)]
        spread = range(-SCORE_SPREAD, SCORE_SPREAD + 1)
        return [[min(10_000, quality + self.random.choice(spread)) for quality in qualities] for _ in self.attestors]

    def submit(self, job: int, round_: int, receipt: packing.PackedReceipt) -> Mined:
        return self.market.send("submitContribution", job, round_, BASE, packing.pack_receipt(receipt))

    def signature(self, message: Message, private_key: bytes) -> bytes:
        return bytes.fromhex(sign(self.domain, message, private_key)[2:])


def address(private_key: bytes) -> str:
    return str(Account.from_key(private_key).address)


def hexed(value: bytes) -> str:
    return "0x" + value.hex()
