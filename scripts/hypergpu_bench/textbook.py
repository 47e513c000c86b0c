"""The textbook variant (contracts/bench/TextbookMarket.sol), set up to settle as many receipts as wanted."""

from __future__ import annotations

import random
from collections.abc import Sequence

from eth_abi.abi import encode
from eth_account import Account
from eth_utils.crypto import keccak

from scripts.hypergpu_bench.chain import Chain, Contract, Mined
from scripts.hypergpu_bench.compiled import comparison, product
from scripts.hypergpu_bench.work import BASE, CAPACITY, ESCROW, EVIDENCE, QUALITIES, RATE, key, raw_signature
from scripts.hypergpu_demo.stack import CHAIN_ID

RECEIPT = keccak(text="Receipt(uint256 jobId,uint64 round,address node,uint64 units,bytes32 base,bytes32 artifact)")
ATTESTATION = keccak(text="Attestation(uint256 jobId,uint64 round,bytes32 base,bytes32 receipts,bytes32 evidence)")
DOMAIN = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


class Textbook:
    def __init__(self, chain: Chain, *, seed: int, attestors: int) -> None:
        self.random = random.Random(seed)
        self.attestors = sorted(
            (key(self.random) for _ in range(attestors)), key=lambda one: int(Account.from_key(one).address, 16)
        )
        token = Contract(chain, product("TestUSD"))
        addresses = [Account.from_key(one).address for one in self.attestors]
        self.market = Contract(chain, comparison("TextbookMarket"), token.address, addresses, attestors * 2 // 3 + 1)
        self.separator = keccak(
            DOMAIN + keccak(text="HyperGPU") + keccak(text="1") + encode(["uint256", "address"], [CHAIN_ID, self.market.address])
        )
        token.send("mint", chain.sender, 2**128)
        token.send("approve", self.market.address, 2**256 - 1)
        self.jobs = 0

    def job(self, nodes: int) -> tuple[int, list[bytes]]:
        """A job, and the keys of the nodes that sit in it."""
        self.market.send("createJob", ESCROW)
        self.jobs += 1
        keys = [key(self.random) for _ in range(nodes)]
        addresses = [Account.from_key(one).address for one in keys]
        for first in range(0, nodes, 200):
            self.market.send("seat", self.jobs, addresses[first : first + 200], RATE, CAPACITY)
        return self.jobs, keys

    def settle(self, job: int, round_: int, nodes: Sequence[bytes]) -> Mined:
        receipts = [self.receipt(job, round_, node) for node in nodes]
        packed = keccak(encode(["(address,uint64,uint16,bytes32,bytes)[]"], [receipts]))
        digest = self.digest(
            encode(
                ["bytes32", "uint256", "uint64", "bytes32", "bytes32", "bytes32"],
                [ATTESTATION, job, round_, BASE, packed, EVIDENCE],
            )
        )
        signatures = [raw_signature(digest, attestor) for attestor in self.attestors]
        return self.market.send("settleRound", job, round_, BASE, receipts, EVIDENCE, signatures)

    def receipt(self, job: int, round_: int, node: bytes) -> tuple[str, int, int, bytes, bytes]:
        units, artifact = self.random.randrange(1, CAPACITY), self.random.randbytes(32)
        address = str(Account.from_key(node).address)
        digest = self.digest(
            encode(
                ["bytes32", "uint256", "uint64", "address", "uint64", "bytes32", "bytes32"],
                [RECEIPT, job, round_, address, units, BASE, artifact],
            )
        )
        return address, units, self.random.choice(QUALITIES), artifact, raw_signature(digest, node)

    def digest(self, struct: bytes) -> bytes:
        return keccak(b"\x19\x01" + self.separator + keccak(struct))
