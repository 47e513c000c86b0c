"""DiLoCo on the virtual clock: the product's own rounds, under a policy that says who does what."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor

from trainer.diloco.checkpoint import initial_params, load_checkpoint
from trainer.diloco.encoding import decode
from trainer.diloco.fragments import Fragment, fragment_of, stepped
from trainer.diloco.reference import next_round
from trainer.diloco.round import bench, close_round, prepare
from trainer.diloco.version import model_root
from trainer.network.facts import NodeFacts
from trainer.network.health import Standing
from trainer.network.links import transferred
from trainer.network.policy import Ahead, Late, Part, Plan
from trainer.network.predict import left_of
from trainer.network.sources import Patience
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, order_seed
from trainer.protocol.rounds import JobWork, RoundResult, RoundWork, Submission
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.types import QUALITY_ONE
from trainer.protocol.wire import encoded_bytes
from trainer.simulation.attackers import attack_named
from trainer.simulation.clock import Clock
from trainer.simulation.measuring import Observer, Timed
from trainer.simulation.network import Network, present
from trainer.simulation.nodes import Gang, Operator
from trainer.simulation.regions import Regions


class Policy(Protocol):
    """`trainer.network.policy.plan_round` with a job, a model and a network: the rest of its arguments."""

    def __call__(
        self, facts: Sequence[NodeFacts], *, fetch_bytes: Mapping[int, float], ahead: Mapping[int, Ahead],
        before: Mapping[int, EncodingSpec], standings: Mapping[int, Standing], late: Mapping[int, Late], number: int,
    ) -> Plan: ...  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One round, or as many steps of data parallelism. Emulated: `seconds` since the start at its end, `sent` and `received`
    bytes of all nodes, and `busy`, the part of the nodes' time in which they computed. Real: the rest. `units` and `qualities`
    (basis points) by accepted node; `refused` code by node; `missing` why by node; `late` by accepted node the rounds by which
    its work is late. `training_cpu_s` of all nodes' steps and `closing_cpu_s` of the round's close are what they really cost this
    process; they are on no emulated clock."""

    round: int
    seconds: float
    loss: float
    accuracy: float
    samples: int
    sent: float
    received: float
    busy: float
    units: dict[int, int] = field(default_factory=dict)
    qualities: dict[int, int] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    missing: dict[int, str] = field(default_factory=dict)
    late: dict[int, int] = field(default_factory=dict)
    training_cpu_s: float = field(default=0.0, compare=False)
    closing_cpu_s: float = field(default=0.0, compare=False)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Event:
    """On the clock: a contribution has come, a node has gone or crashed, a deadline has passed, a round is closed."""

    kind: Literal["came", "gone", "crashed", "deadline", "closed"]
    round: int
    node_id: int = -1


class Begun(NamedTuple):
    """What was done of an order in advance: the rest begins at `until`; `samples` in `seconds` of computing before, none where
    it was done for nothing."""

    until: float
    samples: int
    seconds: float


class Rounds:
    """A job on a network. Iterating runs it, a row a round."""

    def __init__(self, job: JobWork, network: Network, policy: Policy, *, seed: int) -> None:
        self.job, self.network, self.policy = job, network, policy
        self.dataset, self.count = bench(job).dataset, bench(job).size
        self.scale = network.parameters / self.count
        self.clock: Clock[Event] = Clock()
        self.observer = Observer(network, seed=seed)
        self.operators = [Operator(node, job.spec, self.dataset, seed=seed) for node in range(len(network.machines))]
        self.gang = Gang({node: attack_named(name) for node, name in network.attacks.items()}, self.dataset, seed=seed)
        first = prepare(job)
        self.work = RoundWork(
            job=job, chain_job_id=0, number=0, base=first.base, params=first.params, outer_state=first.outer_state,
            previous_aggregate=None, submissions=[],
        )  # fmt: skip
        self.params = initial_params(job.spec, self.dataset.info)
        for operator in self.operators:
            operator.version = first.base
        self.parent: str | None = None
        self.delta = b""
        self.steps: list[tuple[str, int]] = []
        """Each outer step: the version before it, and its bytes."""
        self.published: dict[int, Tensor] = {}
        self.encodings: dict[int, EncodingSpec] = {}
        self.begun: dict[int, tuple[float, Part]] = {}
        """By node, its newest part and when that was given out."""
        self.ended: dict[int, float] = {}
        """By node, when its computing ends."""
        self.travelling: dict[int, Submission | None] = {}
        """By node: what it hands in when its work comes, None for nothing; `origin` is the round that it was ordered in."""
        self.carried: list[Submission] = []
        """Came too late for the round before."""
        self.seen: dict[int, Callable[[], None]] = {}
        """What is learnt of a node when its work comes."""
        self.patience = {operator.node_id: Patience() for operator in self.operators}
        self.sent = self.received = self.computing = 0.0

    def __iter__(self) -> Iterator[Row]:
        while self.work.number < self.job.spec.rounds.rounds:
            yield self.run_round()

    def run_round(self) -> Row:
        began = self.clock.now
        self.sent = self.received = self.computing = 0.0
        ready = self.wait_for_nodes()
        facts = [self.observer.facts(node, self.clock.now) for node in ready]
        plan = self.policy(
            facts, before=self.encodings, number=self.work.number, late=self.still_to_come(),
            fetch_bytes={node: self.scale * self.download(self.operators[node]) for node in ready},
            ahead={node: ahead for node in ready if (ahead := self.ahead(node))},
            standings=self.observer.standings(facts, round=self.work.number),
        )  # fmt: skip
        orders = {node: self.order(node, part) for node, part in plan.parts.items()}
        regions = Regions(self.network, facts, plan, self.patience)
        expected = {node: self.start(orders[node], plan.parts[node], regions) for node in regions.order}
        self.encodings |= {node: order.encoding for node, order in orders.items()}
        began_cpu = time.process_time()
        made = self.contributions({node: order for node, order in orders.items() if expected[node] == "came"})
        self.travelling |= {node: one and replace(one, origin=self.work.number) for node, one in made.items()}
        trained = time.process_time() - began_cpu
        arrived, missing = self.gather(plan, orders)
        for node, part in plan.parts.items():
            kept = node not in missing or (missing[node] == "late" and part.rounds > 1)
            self.observer.ordered(node, self.work.number, kept=kept)
        submissions = [one if self.work.lateness(one) else replace(one, origin=None) for one in arrived]
        began_cpu = time.process_time()
        self.work = replace(self.work, submissions=submissions)
        result = close_round(self.work)
        closing = time.process_time() - began_cpu
        for verdict in result.verdicts:
            self.observer.judged(verdict.node_id, (verdict.quality or 0) / QUALITY_ONE)
        self.close(len(arrived))
        row = replace(self.row(result, arrived, missing, began), training_cpu_s=trained, closing_cpu_s=closing)
        self.advance(result, arrived)
        return row

    @property
    def fragment(self) -> Fragment:
        """What the round synchronises."""
        return fragment_of(bench(self.job).shapes, self.job.spec, self.work.number)

    # Who takes part, and when it is done.

    def wait_for_nodes(self) -> list[int]:
        """Nodes that are there and free, as soon as there is one; late work that came between two rounds has its node's place in
        this one. Raises HyperGPUError `simulation.deserted`."""
        while True:
            taken = {submission.node_id for submission in self.carried}
            there = present(self.network, self.clock.now)
            ready = [node for node in there if not self.operators[node].busy and node not in taken]
            if ready:
                self.observer.looked(there)
                return ready
            soon = min(machine.change_after(self.clock.now) for machine in self.network.machines)
            if len(self.clock) and self.clock.next <= soon:
                self.carry(self.clock.take())
            elif math.isfinite(soon):
                self.clock.now = soon
            else:
                text = f"All nodes have left in round {self.work.number}: nobody is there to train any more."
                raise HyperGPUError("simulation.deserted", text, round=self.work.number)

    def still_to_come(self) -> dict[int, Late]:
        """What is left of the late work that this round waits for, by what its nodes' heartbeats have told."""
        found = {}
        for node, one in self.travelling.items():
            began, part = self.begun[node]
            if one is None or part.predicted is None or not self.counts(one) or self.counts_next(node):
                continue
            gone_s, left_s = self.clock.now - began, self.ended[node] - self.clock.now
            left = left_of(
                part.predicted, gone_s=gone_s, computed=gone_s / (gone_s + left_s) if left_s > 0 else 1.0,
                sending_s=-left_s if left_s <= 0 else None,
            )  # fmt: skip
            reliability = self.observer.facts(node, self.clock.now).reliability
            found[node] = Late(left=left, worth=one.steps / self.work.discount(one), reliability=reliability)
        return found

    def order(self, node: int, part: Part) -> WorkOrder:
        spec, work = self.job.spec, self.work
        return WorkOrder(
            job_id=work.chain_job_id, round=work.number, node_id=node, fence=1, deadline=2**31, base=work.base,
            checkpoint=sha256_hex(work.params), parent=self.parent, delta=sha256_hex(self.delta) if self.parent else None,
            shard=node, shards=len(self.operators), seed=order_seed(spec, work.number, node), steps=part.steps,
            encoding=part.encoding, spec=spec,
        )  # fmt: skip

    def start(self, order: WorkOrder, part: Part, regions: Regions) -> str:
        """Schedule when the node's contribution will come, or that it will not."""
        node = order.node_id
        operator, machine, server = self.operators[node], self.network.machines[node], self.network.coordinator
        operator.busy = True
        self.begun[node] = (self.clock.now, part)
        down, up = self.scale * self.download(operator), self.scale * encoded_bytes(self.fragment.count, order.encoding)
        source = None
        if operator.version == self.parent and down:
            fetched, source = regions.fetched(node, self.clock.now, down)
        else:
            fetched = transferred(server, machine, self.clock.now, down) if down else self.clock.now
        begun = self.lead(node, order, fetched)
        computed = machine.computed(begun.until, (order.units - begun.samples) * self.gang.work(node))
        computing = computed - begun.until + begun.seconds
        came, fell_back = regions.sent(node, computed, up)
        crash = operator.random.random() < self.network.failures[node]
        lasting = operator.random.random()
        if not (math.isinf(came) or crash):
            timed = Timed(
                fetched=down, fetch_s=fetched - self.clock.now, samples=order.units, compute_s=computing, sent=up,
                upload_s=came - computed, ahead_s=computing - (computed - fetched), via=part.via, fell_back=fell_back,
                source=source,
            )  # fmt: skip
            self.seen[node] = partial(self.observer.kept, node, came, timed, part.predicted)
        if math.isinf(came):
            return self.schedule("gone", node, max(self.clock.now, machine.times[-1]))
        if crash:
            operator.crash()
            crashed = regions.gone[node] = self.clock.now + lasting * (came - self.clock.now)
            return self.schedule("crashed", node, crashed)
        carried, given = 0.0 if part.via is None else up, 0.0 if source is None else down
        self.received += down + carried
        self.sent += up + carried + given
        self.computing += computing
        operator.version, self.ended[node] = order.base, computed
        return self.schedule("came", node, came)

    def lead(self, node: int, order: WorkOrder, fetched: float) -> Begun:
        """What a node has done of an order when its base is there: whole segments, from the end of its last order's computing to
        the first border after `fetched`, at most as many steps as it had then and, since it knows, has now (`network.overlap`
        eager)."""
        operator, machine, batch = self.operators[node], self.network.machines[node], order.spec.inner.batch_size
        operator.lead, before = 0, operator.before
        if order.spec.network.overlap != "eager" or before is None or before.order.round != order.round - 1:
            return Begun(fetched, 0, 0.0)
        until, stride, known = before.ended, order.spec.audit.stride, min(order.steps, before.order.steps)
        while until < fetched and operator.lead + stride <= (before.order.steps if until < self.clock.now else known):
            operator.lead += stride
            until = machine.computed(before.ended, operator.lead * batch)
        used = operator.lead <= order.steps
        return Begun(max(until, fetched), operator.lead * batch if used else 0, until - before.ended if used else 0.0)

    def ahead(self, node: int) -> Ahead | None:
        """What a node has done of the next order by now."""
        before = self.operators[node].before
        if self.job.spec.network.overlap != "eager" or before is None or before.order.round != self.work.number - 1:
            return None
        most = before.order.units / self.observer.nodes[node].speed.value
        return Ahead(seconds=min(self.clock.now - before.ended, most), steps=before.order.steps)

    def schedule(self, kind: Literal["came", "gone", "crashed"], node: int, time: float) -> str:
        self.clock.schedule(time, Event(kind, self.work.number, node))
        return kind

    def download(self, operator: Operator) -> int:
        """Bytes to get to the base: nothing, the outer steps since its version, or the checkpoint, whichever is less."""
        if operator.version == self.work.base:
            return 0
        versions = [version for version, _ in self.steps]
        if operator.version not in versions:
            return len(self.work.params)
        return min(sum(size for _, size in self.steps[versions.index(operator.version) :]), len(self.work.params))

    # What is computed, and what of it comes in time.

    def contributions(self, orders: Mapping[int, WorkOrder]) -> dict[int, Submission | None]:
        aggregate = (
            load_checkpoint(self.work.previous_aggregate, shapes=bench(self.job).shapes) if self.work.previous_aggregate else None
        )
        found = self.gang.submissions(self.operators, orders, self.params, published=self.published, aggregate=aggregate)
        for node, order in orders.items():
            if node not in found:
                found[node] = self.operators[node].contribute(order, self.params, ended=self.ended[node])
        return found

    def gather(self, plan: Plan, orders: Mapping[int, WorkOrder]) -> tuple[list[Submission], dict[int, str]]:
        """Contributions in the order in which they came, until the plan says that the round closes; and who of the ordered ones
        is missing. Late work of earlier rounds counts as long as it is no older than the job allows."""
        if plan.deadline_s is not None:
            self.clock.schedule(self.clock.now + plan.deadline_s, Event("deadline", self.work.number))
        arrived, self.carried = [one for one in self.carried if self.counts(one)], []
        late = {node for node, one in self.travelling.items() if node not in orders and one is not None and self.counts(one)}
        awaited = plan.awaited | {node for node in late if not self.counts_next(node)}
        not_back = late | set(orders)
        missing: dict[int, str] = {}
        overdue = False
        while not_back & awaited and not (overdue and len(arrived) >= plan.quorum):
            event = self.clock.take()
            overdue = overdue or (event.kind == "deadline" and event.round == self.work.number)
            submission = self.free(event)
            not_back.discard(event.node_id)
            if submission is not None and self.counts(submission):
                arrived.append(submission)
            elif event.node_id in orders:
                missing[event.node_id] = "silent" if event.kind == "came" else event.kind
        return arrived, missing | dict.fromkeys(sorted(not_back & set(orders)), "late")

    def counts(self, submission: Submission) -> bool:
        """Whether work of the round in which it was ordered still counts in this one."""
        return self.work.lateness(submission) <= self.job.spec.network.most_stale

    def counts_next(self, node: int) -> bool:
        """Whether the round after this one could still take what the node is at."""
        spec, one = self.job.spec, self.travelling[node]
        stale = one is not None and self.work.lateness(one) >= spec.network.most_stale
        return not stale and self.work.number + 1 < spec.rounds.rounds

    def free(self, event: Event) -> Submission | None:
        """The node of an event is free again; what it hands in, if it does."""
        if event.node_id < 0:
            return None
        self.operators[event.node_id].busy = False
        if event.kind == "came":
            self.seen.pop(event.node_id)()
        submission = self.travelling.pop(event.node_id, None)
        if event.kind != "came" and event.round != self.work.number:
            self.observer.broken(event.node_id)
        return submission if event.kind == "came" else None

    def carry(self, event: Event) -> None:
        """What comes between two rounds is late work for the next."""
        if (submission := self.free(event)) is not None:
            self.carried.append(submission)

    def close(self, count: int) -> None:
        """The coordinator's own time for a round of `count` contributions passes."""
        self.clock.schedule(self.clock.now + self.network.closing.seconds(count), Event("closed", self.work.number))
        while (event := self.clock.take()).kind != "closed":
            self.carry(event)

    # What follows.

    def row(self, result: RoundResult, arrived: Sequence[Submission], missing: dict[int, str], began: float) -> Row:
        units = {submission.node_id: submission.units for submission in arrived}
        accepted = [verdict for verdict in result.verdicts if verdict.quality is not None]
        taken = {verdict.node_id for verdict in accepted}
        elapsed = len(self.operators) * (self.clock.now - began)
        return Row(
            round=self.work.number, seconds=self.clock.now, **result.metric, samples=sum(units[v.node_id] for v in accepted),
            sent=self.sent, received=self.received, busy=self.computing / elapsed if elapsed else 0.0,
            units={verdict.node_id: units[verdict.node_id] for verdict in accepted},
            qualities={verdict.node_id: verdict.quality for verdict in accepted if verdict.quality is not None},
            refused={verdict.node_id: verdict.code for verdict in result.verdicts if verdict.quality is None}, missing=missing,
            late={one.node_id: self.work.lateness(one) for one in arrived if one.node_id in taken and self.work.lateness(one)},
        )  # fmt: skip

    def advance(self, result: RoundResult, arrived: Sequence[Submission]) -> None:
        """As every node does it, with the version re-derived. Raises HyperGPUError `round.wrong_base` when it is another."""
        self.published = {
            submission.node_id: self.fragment.spread(
                decode(submission.data, submission.encoding, count=self.fragment.count).values
            )
            for submission in arrived if not self.gang.cheats(submission.node_id)
        }  # fmt: skip
        if result.delta:
            self.params = stepped(
                self.params, result.delta, self.job.spec, shapes=bench(self.job).shapes, number=self.work.number
            )  # fmt: skip
            if model_root(self.params) != result.version:
                raise HyperGPUError("round.wrong_base", "The outer step does not lead to the version that it announces.")
            self.parent, self.delta = self.work.base, result.delta
            self.steps.append((self.work.base, len(result.delta)))
        self.work = next_round(self.work, result)
