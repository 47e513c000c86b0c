"""The agent: says hello, leases work orders, has them run, hands in what they made. Safe to kill at any line."""

from __future__ import annotations

import fcntl
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.operator.cache import fetch, prune
from trainer.operator.client import Check, Coordinator
from trainer.operator.config import AgentConfig, Home
from trainer.operator.console import Console
from trainer.operator.engine import Engine
from trainer.operator.identity import address_of, load_or_create_key
from trainer.operator.neighbours import Neighbours
from trainer.operator.pinning import Pin, hold_to_pin, pin_from_hello
from trainer.operator.pulse import LOST, Pulse
from trainer.operator.results import WorkResult, find_result, mark_handed_in, order_key
from trainer.operator.shower import Shower
from trainer.operator.transfers import upload
from trainer.operator.version import VERSION
from trainer.protocol.eip712 import sign
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, verify_order
from trainer.protocol.types import Receipt

GREETING_SECONDS = 2
"""Between two hellos while the node cannot work yet."""
CURABLE = ("node.unknown_key", "node.key_expired", "request.clock_skew")
"""Refusals that end once somebody acts; the agent says what to do and waits."""
FATAL = ("coordinator.changed", "node.retired", "worker.")
"""Nothing that waiting would cure."""
FETCHES = 4
"""Tries of one order: for its data, its outer step, and a checkpoint if that step leads elsewhere."""
AT_ONCE_BYTES = 2**15
"""An upload up to this goes in one request: what a fresh connection carries within two round trips (RFC 6928)."""
HAND_IN_SECONDS = 10
"""What a stop signal leaves for work that is already being handed in."""
MAX_PAUSE_SECONDS = 30
TIDY_SECONDS = 60
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
PUT_OFF = 4
"""An audit waits for the end of an order that may take this much longer than the last one."""


def run_agent(config: AgentConfig, console: Console) -> None:
    """Work until stopped (SIGTERM, Ctrl-C). Raises HyperGPUError when the agent cannot go on."""
    key = load_or_create_key(config.home.key)
    with only_agent(config.home):
        console.say(
            "agent.started", f"hypergpu {VERSION}, node {config.name!r}, hot key {address_of(key)}, home {config.home.root}",
            hot_key=address_of(key), name=config.name, home=str(config.home.root),
        )  # fmt: skip
        engine = Engine(config, console)
        agent = Agent(config, console, engine, key)
        endpoint = agent.near.open_endpoint()
        agent.stop_on_signals()
        try:
            engine.start()
            agent.work()
        finally:
            engine.stop()
            if endpoint is not None:
                endpoint.close()
            console.say("agent.stopped", "stopped")


@contextmanager
def only_agent(home: Home) -> Iterator[None]:
    """Hold the home's lock; the kernel frees it however the agent ends. Raises HyperGPUError `agent.already_running`."""
    with home.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"Another agent runs in {home.root}; give each GPU its own --home."
            raise HyperGPUError("agent.already_running", text) from error
        yield


class Agent:
    def __init__(self, config: AgentConfig, console: Console, engine: Engine, key: str) -> None:
        self.config, self.home, self.console, self.engine, self.key = config, config.home, console, engine, key
        self.coordinator = Coordinator(config.coordinator, key, say=console.say)
        self.near = Neighbours(config, self.coordinator)
        self.steps: list[tuple[str, str]] = []
        """Outer steps that this node has missed, as its newest lease says."""
        self.failures = 0
        self.tidy_at = float("-inf")
        self.shower = Shower(self.coordinator, config.home, console)
        self.put_off: list[dict[str, Any]] = []
        self.order_seconds = float("inf")
        """What the last order took: audits that can wait that long wait until the round closes, when the worker would too."""
        self.bases: dict[int, str] = {}
        """By job, the version that its last order was trained from: the worker holds it."""
        self.is_handing_in = False
        self.stop_at: float | None = None

    # The loop.

    def work(self) -> None:
        self.greet()
        self.engine.ensure_ready()
        while True:
            try:
                self.greet_again_if_changed()
                lease = self.coordinator.lease() or {}
                if "order" in lease:
                    self.carry_out(lease)
                    self.answer(self.put_off, check=self.check_stop)
                    self.put_off = []
                else:
                    self.answer(lease.get("audits", []), check=self.check_stop)
                self.tidy()
                self.engine.ensure_ready()
            except HyperGPUError as refusal:
                if refusal.code.startswith(FATAL):
                    raise
                self.console.say("agent.refused", f"the coordinator refuses: {refusal}", code=refusal.code)
                time.sleep(GREETING_SECONDS)
                if refusal.code.startswith("node."):
                    self.greet()

    def greet(self) -> None:
        """Say hello until the node is registered. Raises HyperGPUError `coordinator.changed` or another lasting refusal."""
        said = ""
        while True:
            try:
                answer = self.coordinator.hello(self.introduction())
                break
            except HyperGPUError as refusal:
                if refusal.code not in CURABLE:
                    raise
                if refusal.code != said:
                    self.say_what_to_do(refusal)
                said = refusal.code
                time.sleep(GREETING_SECONDS)
        self.pin: Pin = hold_to_pin(self.home.pin, pin_from_hello(answer))
        self.node_id: int = answer["node_id"]
        self.heartbeat_seconds: float = answer["heartbeat_seconds"]
        self.greeted_with = self.introduction()
        self.console.say(
            "agent.greeted", f"node {self.node_id} of operator {answer['operator']} at {self.config.coordinator}",
            node_id=self.node_id, operator=answer["operator"],
        )  # fmt: skip

    def introduction(self) -> dict[str, Any]:
        facts = self.engine.facts or {"device": "starting", "software": {"hypergpu": VERSION}, "samples_per_second": None}
        endpoint = {"endpoint": self.config.endpoint} if self.config.endpoint else {}
        return {**facts, "name": self.config.name, **endpoint}

    def greet_again_if_changed(self) -> None:
        if self.introduction() != self.greeted_with:
            self.greet()
            facts = self.introduction()
            speed = f"{facts['samples_per_second']:,.0f} samples/s"
            self.console.say("worker.ready", f"GPU worker ready: {facts['device']}, {speed}", **facts)

    def say_what_to_do(self, refusal: HyperGPUError) -> None:
        if not refusal.code.startswith("node."):
            self.console.say("agent.waiting", refusal.message, code=refusal.code)
            return
        address = address_of(self.key)
        self.console.say(
            "agent.waiting",
            f"{refusal.message}\n"
            f"          Register it with your wallet: {self.config.coordinator}/operate?hot_key={address}\n"
            f"          The key's consent for it:     hypergpu agent delegate --operator 0xYOUR_WALLET --home {self.home.root}",
            code=refusal.code, hot_key=address, link=f"{self.config.coordinator}/operate?hot_key={address}",
        )  # fmt: skip

    def tidy(self) -> None:
        """Now and then: looking through the folders costs more than a small order's control traffic."""
        if time.monotonic() < self.tidy_at:
            return
        self.tidy_at = time.monotonic() + TIDY_SECONDS
        for folder, keep_bytes in self.home.budgets.items():
            prune(folder, keep_bytes=keep_bytes)

    # One order.

    def carry_out(self, lease: dict[str, Any]) -> None:
        """From lease to receipt. What goes wrong is reported and ends this order only."""
        assignment, fence = lease["assignment_id"], lease["fence"]
        try:
            order = verify_order(self.pin.domain, lease, coordinator=self.pin.coordinator, node_id=self.node_id)
            self.follow(lease, order)
            self.failures = 0
        except HyperGPUError as error:
            self.give_up(assignment, fence, error)
        except OSError as error:
            self.give_up(assignment, fence, HyperGPUError("agent.storage", f"The agent's disk does not work: {error}"))
        except SystemExit:
            self.coordinator.report_failure(assignment, fence, HyperGPUError("agent.stopped", "The operator stopped the agent."))
            raise
        if self.stop_at is not None:
            sys.exit(0)

    def follow(self, lease: dict[str, Any], order: WorkOrder) -> None:
        assignment, fence = lease["assignment_id"], lease["fence"]
        self.near.hear(lease.get("peers", {}))
        self.steps = steps_of(lease)
        self.console.say(
            "order.leased", f"{title(order)}: {order.steps} steps on shard {order.shard} of {order.shards}",
            job_id=order.job_id, round=order.round, assignment_id=assignment, fence=fence,
        )  # fmt: skip
        for reason in lease.get("reasons", []):
            self.console.say("order.reason", f"  why: {reason}", job_id=order.job_id, round=order.round, reason=reason)
        started, seconds_left = time.monotonic(), order.deadline - time.time() - self.coordinator.skew
        try:
            with Pulse(
                self.coordinator, assignment=assignment, fence=fence, steps=order.steps, seconds_left=seconds_left,
                every=self.heartbeat_seconds, lease_seconds=lease["lease_seconds"], eager=order.round == 0,
            ) as pulse:  # fmt: skip
                self.answer(self.urgent(lease.get("audits", [])), check=pulse.check)
                result = find_result(self.home, order) or self.train(order.as_trained, pulse)
                self.is_handing_in = True
                if order.spec.network.overlap == "eager":
                    self.engine.go_ahead(order)
                at_once = self.hand_in_at_once(assignment, fence, order, result, pulse)
                if not at_once:
                    self.upload(assignment, fence, result, pulse)
            if not at_once:
                self.hand_in(assignment, fence, order, result, pulse)
            self.order_seconds = time.monotonic() - started
        finally:
            self.is_handing_in = False

    def train(self, order: WorkOrder, pulse: Pulse) -> WorkResult:
        """The worker says what it lacks: data at first, then outer steps, or a checkpoint when it cannot follow. A step
        that it will ask for comes before it does; one that has begun already works on meanwhile, within what was ordered."""
        self.engine.go_no_further(order.steps)
        if order.delta is not None and order.parent == self.bases.get(order.job_id):
            self.fetch(order, "outer step", order.delta, pulse)
        for _ in range(FETCHES):
            made = self.engine.run(order, on_progress=pulse.progress, check=pulse.check, steps=self.steps)
            if isinstance(made, WorkResult):
                self.bases[order.job_id] = made.base
                return made
            for what, sha256 in made.items():
                self.fetch(order, what, sha256, pulse)
        raise HyperGPUError("agent.cache", "What was fetched for this order does not stay on the disk.")

    def fetch(self, order: WorkOrder, what: str, sha256: str, pulse: Pulse) -> None:
        """From a near node if it is there soon, else from the coordinator. Public files are given to other nodes then."""
        source = self.near.fetch(sha256, check=pulse.check) if sha256 == order.delta else None
        size = fetch(self.coordinator, sha256, self.home.cache, check=pulse.check).stat().st_size
        if sha256 in (order.delta, order.checkpoint):
            self.near.shelf.put(sha256)
        self.console.say(
            "order.fetched", f"{title(order)}: {what}, {size / 1000:,.1f} kB{f' from node {source}' if source else ''}",
            job_id=order.job_id, round=order.round, what=what, sha256=sha256, size=size, source=source,
        )  # fmt: skip

    def hand_in_at_once(self, assignment: int, fence: int, order: WorkOrder, result: WorkResult, pulse: Pulse) -> bool:
        """Commitment, bytes and receipt of something small in one request: three take longer than the bytes. Whether it was
        taken; what is refused goes step by step, which says why or finds out where late work goes."""
        if result.size > AT_ONCE_BYTES or "gather" in self.near.named:
            return False
        payload, artifact = self.receipt(fence, order, result, pulse), (self.home.artifacts / result.sha256).read_bytes()
        try:
            answer = self.coordinator.contribute(assignment, payload, artifact, check=self.until_deadline(pulse))
        except HyperGPUError:
            return False
        self.note_handed_in(order, result, answer)
        return True

    def upload(self, assignment: int, fence: int, result: WorkResult, pulse: Pulse) -> None:
        """Commit to the hash, so that nobody can copy; then upload."""

        def check() -> None:
            pulse.check()
            self.check_stop()

        pulse.progress(result.steps_done, [])
        self.coordinator.commit(assignment, {"fence": fence, "sha256": result.sha256, "size": result.size}, check=check)
        file = self.home.artifacts / result.sha256
        if not self.near.upload(assignment, fence, file, result.sha256, check=check):
            upload(self.coordinator, assignment, fence, file, result.sha256, check=check)

    def hand_in(self, assignment: int, fence: int, order: WorkOrder, result: WorkResult, pulse: Pulse) -> None:
        """Sign for what was uploaded; if its round has closed meanwhile, for the round into which it is carried."""
        try:
            payload = self.receipt(fence, order, result, pulse)
            self.note_handed_in(order, result, self.coordinator.hand_in(assignment, payload, check=self.until_deadline(pulse)))
        except HyperGPUError as refusal:
            if refusal.code != "order.late":
                raise
            lease = pulse.carried_lease()
            carried = verify_order(self.pin.domain, lease, coordinator=self.pin.coordinator, node_id=self.node_id)
            if order_key(carried) != order_key(order):
                text = "The coordinator carries other work than this node has done."
                raise HyperGPUError("order.other_work", text) from refusal
            self.console.say(
                "order.carried", f"{title(order)} has closed: the work counts in round {carried.round}",
                job_id=order.job_id, round=order.round, carried_into=carried.round,
            )  # fmt: skip
            self.hand_in(lease["assignment_id"], lease["fence"], carried, result, pulse)

    def until_deadline(self, pulse: Pulse) -> Check:
        def check() -> None:
            pulse.check_deadline()
            self.check_stop()

        return check

    def receipt(self, fence: int, order: WorkOrder, result: WorkResult, pulse: Pulse) -> dict[str, Any]:
        """Signed, with the losses that no heartbeat has brought yet. Of late work it names the base of the round that takes it,
        which the coordinator's order says: the work itself began elsewhere."""
        receipt = Receipt(
            job_id=order.job_id, round=order.round, node_id=order.node_id, units=result.units,
            base="0x" + (order.base if order.origin else result.base), artifact="0x" + result.sha256,
        )  # fmt: skip
        return {
            "fence": fence, "receipt": receipt.as_dict(), "signature": sign(self.pin.domain, receipt, self.key),
            "losses": [point for point in result.losses if point[0] > pulse.told], "seconds": round(result.seconds, 3),
        }  # fmt: skip

    def note_handed_in(self, order: WorkOrder, result: WorkResult, answer: dict[str, Any]) -> None:
        mark_handed_in(self.home, order, result)
        self.console.say(
            "order.handed_in",
            f"{title(order)}: handed in {result.units:,} samples, loss {result.losses[0][1]:.4f} to {result.losses[-1][1]:.4f}, "
            f"{result.size / 1000:,.1f} kB after {result.seconds:.1f} s{ahead(result)}",
            job_id=order.job_id, round=order.round, contribution_id=answer["contribution_id"], sha256=result.sha256,
            ahead=result.ahead,
        )  # fmt: skip

    def give_up(self, assignment: int, fence: int, error: HyperGPUError) -> None:
        """Drop what is no longer ours; report what failed, and pause longer each time in a row."""
        if error.code.startswith((*LOST, "order.cancelled", "order.deadline")):
            self.console.say("order.dropped", f"dropped the order: {error.message}", assignment_id=assignment, code=error.code)
            return
        self.console.say("order.failed", f"the order failed: {error}", assignment_id=assignment, code=error.code)
        self.coordinator.report_failure(assignment, fence, error)
        self.failures += 1
        time.sleep(min(MAX_PAUSE_SECONDS, 2 ** (self.failures - 1)))

    # Audits.

    def urgent(self, audits: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that cannot wait for the end of an order as long as the last one; the others are put off until then."""

        def to_spare(audit: dict[str, Any]) -> float:
            return float(audit["deadline_seconds"]) - self.coordinator.links.seconds_up(audit.get("most_bytes", 0))

        self.put_off = [audit for audit in audits if to_spare(audit) > PUT_OFF * self.order_seconds]
        return [audit for audit in audits if audit not in self.put_off]

    def answer(self, audits: list[dict[str, Any]], *, check: Check) -> None:
        """Have the states of the segment that each audit asks for written down, and sent while work goes on, as it does where
        one cannot be shown."""
        for audit in audits:
            if self.shower.has(audit):
                continue
            try:
                self.shower.show(audit, self.engine.show(audit["artifact"], audit["segment"], check=check))
            except (HyperGPUError, OSError) as error:
                self.shower.failed(audit, error)

    # Stopping.

    def stop_on_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)

    def stop(self, *_: object) -> None:
        """Drop what is being done, but let a hand-in end. A second signal changes nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        self.stop_at = time.monotonic() + HAND_IN_SECONDS
        if not self.is_handing_in:
            sys.exit(0)

    def check_stop(self) -> None:
        if self.stop_at is not None and time.monotonic() > self.stop_at:
            sys.exit(0)


def ahead(result: WorkResult) -> str:
    return f", {result.ahead} of its {result.steps_done} steps ahead of the order" if result.ahead else ""


def steps_of(lease: dict[str, Any]) -> list[tuple[str, str]]:
    """The outer steps that this node has missed, as (version before, SHA-256), oldest first. Nobody has signed them: where they
    lead is proven."""
    steps = [(str(step.get("parent")), str(step.get("delta"))) for step in lease.get("steps", [])]
    return steps if all(SHA256.match(name) for step in steps for name in step) else []


def title(order: WorkOrder) -> str:
    return f"job {order.job_id} round {order.round}"
