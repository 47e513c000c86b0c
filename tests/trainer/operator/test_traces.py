"""What a worker keeps of its orders, held against the auditor's own replay."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lineage import lineage

from trainer.data import load_dataset
from trainer.diloco.encoding import read_header
from trainer.operator import tasks
from trainer.operator.config import Home
from trainer.operator.replica import MissingError
from trainer.operator.results import WorkResult, mark_handed_in
from trainer.operator.traces import gather
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, order_seed
from trainer.protocol.spec import JobSpec, NetworkSpec, parse_spec
from trainer.protocol.wire import encoded_bytes
from trainer.scoring.evidence import read_evidence
from trainer.scoring.replay import Guess, HandedIn, Replay, guess_after, replay_segment

SPEC = parse_spec(
    {
        "inner": {"steps": 12, "batch_size": 8},
        "encoding": {"kind": "topk", "chunk": 64, "k": 4},
        "audit": {"stride": 5},
        "network": {"overlap": "eager"},
    }
)
FRAGMENTS = SPEC.model_copy(update={"network": NetworkSpec(overlap="eager", fragments=2, most_stale=0)})
FIRST = lineage(SPEC, sha256_hex, length=1)[0]
COUNT = FIRST.params.numel()
SIZE = encoded_bytes(COUNT, SPEC.encoding)


class Silent:
    """Stands in for the broker."""

    def post(self, update: dict) -> None:
        return

    def is_asked_to_stop(self) -> bool:
        return False


class Node:
    """A worker in this process, and what it has handed in."""

    def __init__(self, home: Home, spec: JobSpec = SPEC) -> None:
        self.home, self.round, self.gpus, self.spec = home, -1, 1, spec
        self.rounds: dict[str, int] = {}

    def order(self, number: int) -> WorkOrder:
        return WorkOrder(
            job_id=1, round=number, node_id=7, fence=1, deadline=2_000_000_000, shard=0, shards=2,
            seed=order_seed(self.spec, number, 0),
            steps=self.spec.inner.steps, encoding=self.spec.encoding, spec=self.spec, **vars(FIRST.version),
        )  # fmt: skip

    def work(self, *, hand_in: bool = True) -> tuple[WorkOrder, WorkResult]:
        self.round += 1
        order = self.order(self.round)
        result = tasks.train(order, self.home, Silent(), gpus=self.gpus)
        tasks.RESIDENTS[1].write_down(self.home, order)
        self.rounds[result.sha256] = self.round
        if hand_in:
            mark_handed_in(self.home, order, result)
        return order, result

    def go_ahead(self, order: WorkOrder, *, segments: int = 2) -> None:
        """Begin the order after `order`, and do so many segments of it."""
        answers = iter([False] * segments)
        tasks.RESIDENTS[1].go_ahead(order, self.home, should_stop=lambda _: next(answers, True))

    def audit(self, order: WorkOrder, result: WorkResult, segment: int, *, before: WorkResult | None) -> Replay:
        shown = gather(self.home, result.sha256, segment)
        data = (self.home.artifacts / shown.sha256).read_bytes()
        return replay_segment(
            order, FIRST.params, load_dataset(SPEC.data, files={}), read_evidence(data, count=COUNT),
            segment=segment, upload=(self.home.artifacts / result.sha256).read_bytes(), handed_in=self.handed_in(result),
            before=self.handed_in(before) if before else None,
            guess=self.guess(before) if before else None,
        )  # fmt: skip

    def guess(self, before: WorkResult) -> Guess:
        upload = (self.home.artifacts / before.sha256).read_bytes()
        order = self.order(self.rounds[before.sha256])
        return guess_after(order, FIRST.params, upload, shapes=tasks.RESIDENTS[1].state.shapes)

    def handed_in(self, result: WorkResult) -> HandedIn:
        upload = (self.home.artifacts / result.sha256).read_bytes()
        return HandedIn(read_header(upload).trace, result.steps_done, self.rounds[result.sha256])


@pytest.fixture
def node(tmp_path) -> Iterator[Node]:
    tasks.RESIDENTS.clear()
    home = Home.at(tmp_path)
    home.run.mkdir()
    yield Node(home)
    tasks.drop(1)


def assert_honest(replay: Replay) -> None:
    assert [finding.code for finding in replay.findings] == []
    assert replay.error < 0.05


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_given_rounds_in_a_row_then_each_goes_on_where_the_last_ended_and_audits_pass(node, segment):
    before = None
    for _ in range(3):
        order, result = node.work()
        assert_honest(node.audit(order, result, segment, before=before))
        before = result
    assert tasks.RESIDENTS[1].state.steps == 36, "the optimizer was kept"


def test_given_an_order_that_was_never_handed_in_then_the_next_one_goes_on_from_what_was(node):
    _, known = node.work()
    node.work(hand_in=False)
    order, result = node.work()
    assert_honest(node.audit(order, result, 0, before=known))


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_given_a_lead_then_its_steps_are_the_next_orders_first_and_audits_pass(node, segment):
    order, known = node.work()
    node.go_ahead(order, segments=1)
    node.go_ahead(order, segments=1)
    order, result = node.work()
    assert result.ahead == 10 and result.steps_done == len(result.losses) == 12
    assert_honest(node.audit(order, result, segment, before=known))
    assert tasks.RESIDENTS[1].state.steps == 24, "nothing was done twice"


def test_given_an_order_of_fewer_steps_then_the_lead_that_knows_it_stops_within_them(node):
    order, _ = node.work()
    limit = 7
    tasks.RESIDENTS[1].go_ahead(order, node.home, should_stop=lambda steps: steps > limit)
    node.round += 1
    shorter = node.order(node.round).model_copy(update={"steps": limit})
    tasks.RESIDENTS[1].settle(node.home)
    assert (lead := tasks.RESIDENTS[1].take_lead(shorter)) is not None and lead.mark.steps == 5


def test_given_a_lead_on_two_processes_then_audits_pass_on_one(node):
    node.gpus = 2
    order, known = node.work()
    node.go_ahead(order, segments=1)
    order, result = node.work()
    assert result.ahead == 5
    for segment in (0, 1):
        assert_honest(node.audit(order, result, segment, before=known))


def test_given_a_lead_after_work_that_nobody_received_then_nothing_of_it_counts(node):
    _, known = node.work()
    lost, _ = node.work(hand_in=False)
    node.go_ahead(lost)
    order, result = node.work()
    assert result.ahead == 0
    assert_honest(node.audit(order, result, 0, before=known))


def test_given_a_lead_of_another_order_then_it_is_dropped_with_its_moments(node):
    order, known = node.work()
    node.go_ahead(order)
    node.round += 1  # the round after was for others
    order, result = node.work()
    assert result.ahead == 0
    assert_honest(node.audit(order, result, 0, before=known))
    assert tasks.RESIDENTS[1].state.steps == 12


def test_given_a_crash_during_a_lead_then_the_order_is_done_from_its_base(node):
    order, known = node.work()
    node.go_ahead(order)
    tasks.RESIDENTS.clear()
    order, result = node.work()
    assert result.ahead == 0
    assert_honest(node.audit(order, result, 0, before=known))


def test_given_a_lead_then_an_order_that_lacks_a_file_finds_it_again(node):
    order, _ = node.work()
    node.go_ahead(order)
    following = order.model_copy(update={"round": 1, "seed": order_seed(SPEC, 1, 0), "base": "ab" * 32, "checkpoint": "cd" * 32})
    with pytest.raises(MissingError):
        tasks.train(following, node.home, Silent())
    assert node.work()[1].ahead == 10


def test_given_a_crash_between_rounds_then_the_next_one_begins_afresh_and_passes(node):
    _, known = node.work()
    tasks.RESIDENTS.clear()
    order, result = node.work()
    assert_honest(node.audit(order, result, 1, before=known))


def test_given_two_processes_that_train_as_one_node_then_audits_pass_on_one(node):
    node.gpus = 2
    _, known = node.work()
    order, result = node.work()
    processes = tasks.RESIDENTS[1].state.processes
    assert len(processes) == 2 and all(process.is_alive() for process in processes)
    assert_honest(node.audit(order, result, 1, before=known))

    tasks.drop(1)
    assert not any(process.is_alive() for process in processes)


def test_given_a_trace_that_made_room_then_that_is_said(node):
    _, result = node.work()
    (node.home.traces / result.sha256).unlink()
    with pytest.raises(HyperGPUError, match=r"audit\.gone"):
        gather(node.home, result.sha256, 0)


def test_given_a_segment_that_there_is_not_then_that_is_said(node):
    _, result = node.work()
    with pytest.raises(HyperGPUError, match=r"audit\.gone"):
        gather(node.home, result.sha256, 3)


def test_given_an_older_trace_that_made_room_then_only_the_history_is_unknown(node):
    _, known = node.work()
    order, result = node.work()
    (node.home.traces / known.sha256).unlink()
    replay = node.audit(order, result, 0, before=known)
    assert {finding.code for finding in replay.findings} == {"audit.unknown_history"}


@pytest.mark.parametrize("segment", [0, 2])
def test_given_fragments_in_turn_then_own_parameters_go_on_from_what_was_handed_in_and_audits_pass(node, segment):
    node.spec = FRAGMENTS
    _, known = node.work()
    order, result = node.work()
    assert tasks.RESIDENTS[1].made.trace.start, "it began where it was"
    assert result.size < 0.9 * SIZE
    assert_honest(node.audit(order, result, segment, before=known))
    node.go_ahead(order)
    order, later = node.work()
    assert later.ahead == 10 and tasks.RESIDENTS[1].made.trace.start
    assert_honest(node.audit(order, later, segment, before=result))


def test_given_fragments_in_turn_and_work_that_nobody_received_then_nothing_goes_on_from_it(node):
    node.spec = FRAGMENTS
    _, known = node.work()
    node.work(hand_in=False)
    order, result = node.work()
    assert not tasks.RESIDENTS[1].made.trace.start, "both fragments were synchronised since what was handed in"
    assert_honest(node.audit(order, result, 0, before=known))


def test_given_fragments_in_turn_and_a_crash_then_the_next_order_begins_at_its_base(node):
    node.spec = FRAGMENTS
    _, known = node.work()
    tasks.RESIDENTS.clear()
    order, result = node.work()
    assert not tasks.RESIDENTS[1].made.trace.start
    assert_honest(node.audit(order, result, 0, before=known))
