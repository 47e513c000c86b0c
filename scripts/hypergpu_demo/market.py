"""The people of the demo: operators who stake, register and bid, and a requester who pays. They use what everybody has:
the public API, the agent's command line and the chain, each with a wallet of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from scripts.hypergpu_demo.onchain import Onchain
from scripts.hypergpu_demo.stack import ROOT, Stack
from scripts.hypergpu_demo.supervise import StackError
from trainer.protocol.eip712 import Domain, sign
from trainer.protocol.types import JOB_ANY, Bid

DAY = 86_400
CAPACITY = 10**7
"""Samples a round that a standing bid covers at most."""
RATES = (2, 3, 4, 5)
"""Base units per sample that operators ask, in turn; tokens per million samples."""
MAX_RATE = 5
"""The most that the requester pays per sample: what the page's form offers too."""


class Api:
    """The marketplace's HTTP interface; refusals become StackError with the server's own sentence."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, timeout=30)

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, params=query)

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, json=body, headers=self.csrf())

    def upload(self, path: Path) -> str:
        """Store a data set; its SHA-256."""
        headers = {**self.csrf(), "X-Filename": path.name, "Content-Type": "application/octet-stream"}
        return str(self.ask("POST", "datasets", content=path.read_bytes(), headers=headers)["sha256"])

    def csrf(self) -> dict[str, str]:
        return {"X-CSRFToken": self.http.cookies.get("csrftoken") or "", "Referer": self.url}

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """The JSON answer. Raises StackError with the server's refusal, or when it does not answer."""
        try:
            response = self.http.request(method, f"/api/v1/{path}", **request)
        except httpx.TransportError as error:
            raise StackError(f"{self.url} does not answer: {error}") from error
        if response.is_success:
            return response.json()
        try:
            refusal = response.json()
            raise StackError(f"{response.request.url.path}: {refusal['message']} ({refusal['code']}) {refusal.get('data') or ''}")
        except (ValueError, KeyError) as error:
            raise StackError(f"{response.request.url.path} answers {response.status_code}.") from error

    def sign_in(self, wallet: LocalAccount, chain_id: int) -> None:
        """A session by the wallet's signature (ERC-4361)."""
        self.get("auth/session")  # sets the CSRF cookie
        nonce = self.post("auth/nonce", {})["nonce"]
        site = urlsplit(self.url).netloc
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        message = (
            f"{site} wants you to sign in with your Ethereum account:\n{wallet.address}\n\nSign in to HyperGPU.\n\n"
            f"URI: {self.url}\nVersion: 1\nChain ID: {chain_id}\nNonce: {nonce}\nIssued At: {now}"
        )
        signature = "0x" + bytes(wallet.sign_message(encode_defunct(text=message)).signature).hex()
        self.post("auth/login", {"message": message, "signature": signature})


class Market:
    """All actors of one stack."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.api = Api(stack.url)
        deployment = json.loads((stack.state / "deployment.json").read_text())
        self.chain = Onchain(stack.rpc_url, deployment)
        self.domain = Domain(chain_id=deployment["chainId"], contract=deployment["market"])
        self.min_stake = int(deployment["terms"]["market"]["minStake"])

    # Supply.

    def join_operators(self) -> list[int]:
        """Each operator stakes, registers its node and bids for any job; what an earlier run did stands. The node ids."""
        wallets = [self.stack.keys.wallet(name) for name in self.stack.operator_names()]
        new = {number: wallet for number, wallet in enumerate(wallets, 1) if not self.node_of(wallet.address)}
        with ThreadPoolExecutor() as pool:
            consents = pool.map(lambda number: self.hot_key_consent(number, new[number].address), new)
            for wallet, consent in zip(new.values(), consents, strict=True):  # one after the other: node 1 belongs to the first
                self.register_node(wallet, consent)
        return [self.bid_for_any_job(wallet, rate=RATES[at % len(RATES)]) for at, wallet in enumerate(wallets)]

    def bid_for_any_job(self, wallet: LocalAccount, *, rate: int) -> int:
        """The node that bids, once the marketplace has seen its registration final."""
        node = int(wait_for(lambda: self.node_of(wallet.address), what="the node's registration"))
        self.post_standing_bid(wallet, node, rate=rate)
        return node

    def node_of(self, operator: str) -> int:
        """The node that the operator registered in an earlier run; 0 without one."""
        nodes = [node for node in self.api.get("operators")["nodes"] if node["operator"] == operator]
        return int(nodes[0]["id"]) if nodes else 0

    def register_node(self, wallet: LocalAccount, consent: dict[str, Any]) -> None:
        """Stake and register, with the wallet's own transactions."""
        self.chain.send(
            wallet,
            self.chain.token.functions.mint(wallet.address, self.min_stake),
            self.chain.token.functions.approve(self.chain.market.address, self.min_stake),
            self.chain.market.functions.registerNode(
                consent["hotKey"], consent["expiresAt"], self.min_stake, consent["possession"]
            ),
        )

    def hot_key_consent(self, number: int, operator: str) -> dict[str, Any]:
        """What the agent's own command prints for its operator: hot key, expiry, possession."""
        home = str(self.stack.agent_home(number))
        command = [*self.agent_command("delegate"), "--operator", operator, "--days", "365", "--home", home]
        done = subprocess.run(command, cwd=ROOT, env=self.stack.processes.env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"hypergpu agent delegate failed: {done.stderr.strip()[-300:]}")
        consent: dict[str, Any] = json.loads(done.stdout)["registerNode"]
        return consent

    def wait_for_agents(self, nodes: Sequence[int]) -> None:
        """Until every node's agent has said hello and its worker has loaded."""

        def all_work() -> bool:
            self.stack.processes.check()
            known = {node["id"]: node for node in self.api.get("operators")["nodes"]}
            return all(known[node]["state"] == "online" and known[node]["samples_per_second"] for node in nodes)

        wait_for(all_work, what="the agents", seconds=180)

    def agent_command(self, name: str) -> list[str]:
        return [sys.executable, "-m", "trainer.cli", "agent", name, "--coordinator", self.stack.url]

    def post_standing_bid(self, wallet: LocalAccount, node: int, *, rate: int) -> None:
        """Good for any job for a month. The same bid of the same day is the same signature, so that it may be posted again."""
        bid = Bid(
            job_id=JOB_ANY, node_id=node, rate=rate, capacity=CAPACITY, expires_at=(int(time.time()) // DAY + 30) * DAY,
            nonce=self.chain.market.functions.bidNonce(node).call(),
        )  # fmt: skip
        self.api.post("bids", {**bid.as_dict(), "signature": sign(self.domain, bid, wallet.key)})

    # Demand.

    def upload(self, files: dict[str, Path]) -> dict[str, str]:
        return {role: self.api.upload(path) for role, path in files.items()}

    def post_job(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        """Draft the job and put its escrow on chain. `self.api` must be signed in as the requester. Returns the draft."""
        wallet = self.stack.keys.wallet("requester")
        body = {"name": name, "spec": spec, "max_rate": str(MAX_RATE), "escrow": str(10**12)}
        escrow = int(self.api.post("jobs/check", body)["worst_case_cost"])
        draft = self.api.post("jobs", body | {"escrow": str(escrow)})
        spec_hash, *amounts = draft["transaction"]["args"]
        self.chain.send(
            wallet,
            self.chain.token.functions.mint(wallet.address, escrow),
            self.chain.token.functions.approve(self.chain.market.address, escrow),
            self.chain.market.functions.createJob(bytes.fromhex(spec_hash[2:]), *map(int, amounts)),
        )
        job: dict[str, Any] = draft["job"]
        return job


def wait_for(question: Callable[[], Any], *, what: str, seconds: float = 60) -> Any:
    """The first answer that counts as true. Raises StackError after `seconds`."""
    until = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > until:
            raise StackError(f"Waited {seconds:.0f} s for {what}.")
        time.sleep(0.1)
    return answer
