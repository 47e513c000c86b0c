"""Fragments of the model synchronised in turn: how they are cut, what a round moves, and that everything is still audited."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.diloco import reference
from trainer.diloco.checkpoint import load_checkpoint
from trainer.diloco.encoding import decode
from trainer.diloco.evidence import check_chain, check_outcome, evidence
from trainer.diloco.flat import unflatten
from trainer.diloco.fragments import Own, begun, cut, encode_fragment, fragment_of, fragments
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.round import bench, close_round, prepare
from trainer.diloco.trace import Lead, contribute, write_movement
from trainer.protocol.canonical import canonical_bytes, sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.orders import WorkOrder, foreseen
from trainer.protocol.rounds import JobWork, RoundResult, RoundWork
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec, ModelSpec, NetworkSpec, OuterSpec, RoundSpec, parse_spec
from trainer.protocol.wire import encoded_bytes
from trainer.scoring.checks import norm_limit
from trainer.scoring.evidence import gather_evidence, read_evidence, write_evidence
from trainer.scoring.replay import HandedIn, Replay, guess_after, replay_segment

CPU = torch.device("cpu")
PARTS = 3
SPEC = JobSpec(
    model=ModelSpec(config={"hidden": [32, 48, 32]}),
    inner=InnerSpec(steps=10, batch_size=8, learning_rate=5e-3, warmup_steps=5),
    rounds=RoundSpec(rounds=8, nodes=3, quorum=2), encoding=EncodingSpec(kind="topk", chunk=64, k=16),
    outer=OuterSpec(optimizer="nesterov"), network=NetworkSpec(fragments=PARTS, most_stale=0),
)  # fmt: skip
JOB = JobWork(spec=SPEC, files={})
NAMES = st.from_regex(r"[a-z]{1,3}(\.[0-9]{1,2}){0,2}\.(weight|bias)", fullmatch=True)
MODELS = st.dictionaries(NAMES, st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple), min_size=4, max_size=24)


def values(shape: tuple[int, ...]) -> int:
    return math.prod(shape)


@given(shapes=MODELS, many=st.integers(1, 4))
def test_every_tensor_is_in_one_fragment_and_fragments_are_about_equal(shapes, many):
    found = cut(shapes, many)
    assert sorted(name for names in found for name in names) == sorted(shapes) and all(found)
    sizes = [sum(values(shapes[name]) for name in names) for names in found]
    assert max(sizes) - min(sizes) <= max(map(values, shapes.values()))


@given(shapes=MODELS, many=st.integers(1, 4), seed=st.randoms())
def test_everybody_cuts_alike_in_whatever_order_the_tensors_come(shapes, many, seed):
    names = list(shapes)
    seed.shuffle(names)
    assert cut({name: shapes[name] for name in names}, many) == cut(shapes, many)


@given(shapes=MODELS, many=st.integers(1, 4))
def test_fragments_are_a_partition_of_the_flat_vector(shapes, many):
    parts = fragments(tuple(sorted(shapes.items())), many)
    vector = torch.arange(1.0, 1 + sum(map(values, shapes.values())))
    torch.testing.assert_close(sum(part.spread(part.take(vector)) for part in parts), vector)
    rebuilt = torch.zeros_like(vector)
    for part, names in zip(parts, cut(shapes, many), strict=True):
        assert part.count == len(part.take(vector)) and part.whole == len(vector)
        rebuilt = part.put(rebuilt, part.take(vector))
        assert not part.take(part.clear(vector)).any()
        assert torch.equal(part.take(vector), torch.cat([unflatten(vector, shapes)[name].flatten() for name in names]))
    assert torch.equal(rebuilt, vector)


def test_equal_layers_are_dealt_out_in_strides():
    shapes = {f"blocks.{layer}.{part}": (8, size) for layer in range(12) for part, size in (("mlp", 8), ("attention", 4))}
    first, second = (sorted(name for name in names if "mlp" in name) for names in cut(shapes, 2))
    assert first == sorted(f"blocks.{layer}.mlp" for layer in range(0, 12, 2)) and len(second) == 6


def test_a_model_of_too_few_tensors_is_refused_before_its_first_round():
    spec = SPEC.model_copy(update={"model": ModelSpec(config={"hidden": []}), "network": NetworkSpec(fragments=3, most_stale=0)})
    with pytest.raises(HyperGPUError, match=r"model\.too_few_tensors"):
        prepare(JobWork(spec=spec, files={}))


def test_late_work_and_fragments_are_refused_together_with_what_to_do():
    assert parse_spec({"network": {"fragments": 4, "most_stale": 0, "overlap": "eager"}}).network.fragments == 4
    with pytest.raises(HyperGPUError, match=r"spec\.invalid.*set most_stale to 0"):
        parse_spec({"network": {"fragments": 2}})


# Rounds.


class Ran:
    """Rounds of honest nodes: works, results, documents, what everybody's model was at their base, and the nodes."""

    def __init__(self, spec: JobSpec = SPEC, *, rounds: int = 5) -> None:
        job = JobWork(spec=spec, files={})
        first = prepare(job)
        self.at = bench(job)
        self.nodes = [reference.Node(job, node_id, CPU) for node_id in range(spec.rounds.nodes)]
        self.works: list[RoundWork] = []
        self.results: list[RoundResult] = []
        self.documents: list[dict] = []
        self.bases: list[torch.Tensor] = []
        work = RoundWork(
            job=job, chain_job_id=7, number=0, base=first.base, params=first.params, outer_state=first.outer_state,
            previous_aggregate=None, submissions=[],
        )  # fmt: skip
        for _ in range(rounds):
            self.bases.append(self.nodes[0].params)
            orders = [reference.order(spec, work, node.node_id) for node in self.nodes]
            work = replace(work, submissions=[node.contribute(one) for node, one in zip(self.nodes, orders, strict=True)])
            result = close_round(work)
            self.works.append(work)
            self.results.append(result)
            self.documents.append(evidence(work, result))
            for node in self.nodes:
                node.follow(result.delta, work.number)
            before = sha256_hex(canonical_bytes(self.documents[-1]))
            work = replace(reference.next_round(work, result), before=before)


@pytest.fixture(scope="module")
def ran() -> Ran:
    return Ran()


def test_a_round_moves_its_fragment_and_nothing_else(ran):
    for number, (before, after) in enumerate(zip(ran.bases, ran.bases[1:], strict=False)):
        fragment = fragment_of(ran.at.shapes, SPEC, number)
        assert not torch.equal(fragment.take(before), fragment.take(after))
        assert torch.equal(fragment.clear(before), fragment.clear(after))
        assert all(len(one.data) == encoded_bytes(fragment.count, SPEC.encoding) for one in ran.works[number].submissions)
        assert len(ran.results[number].delta) == encoded_bytes(fragment.count, SPEC.downlink)
    largest = max(len(result.delta) for result in ran.results)
    assert largest < 0.6 * encoded_bytes(ran.at.size, SPEC.downlink)


def test_momentum_goes_on_by_fragment(ran):
    momenta = [torch.frombuffer(bytearray(result.outer_state[-4 * ran.at.size :]), dtype=torch.float32) for result in ran.results]
    for number in range(1, len(momenta)):
        fragment = fragment_of(ran.at.shapes, SPEC, number)
        assert torch.equal(fragment.clear(momenta[number]), fragment.clear(momenta[number - 1]))
        assert not torch.equal(momenta[number], momenta[number - 1])


def test_honest_nodes_are_accepted_and_the_model_learns(ran):
    assert all(verdict.code == "" for result in ran.results for verdict in result.verdicts)
    assert ran.results[-1].metric["loss"] < ran.results[0].metric["loss"] - 0.2


def test_a_round_follows_from_its_evidence_bit_by_bit(ran):
    for number, (work, document) in enumerate(zip(ran.works, ran.documents, strict=True)):
        check_outcome(work, document)
        check_chain(document, ran.documents[number - 1] if number else None, JOB)
    other = replace(ran.works[3], previous_aggregate=ran.works[2].previous_aggregate)
    with pytest.raises(HyperGPUError, match=r"evidence\.other_outcome.*aggregate"):
        check_outcome(other, ran.documents[3])


def test_who_sends_again_what_came_of_its_fragment_the_last_time_is_refused(ran):
    """Three rounds later: the aggregate's file keeps what was gathered of each fragment last."""
    work = ran.works[4]
    fragment = fragment_of(ran.at.shapes, SPEC, 4)
    aggregate = load_checkpoint(work.previous_aggregate, shapes=ran.at.shapes)
    assert fragment.take(aggregate).any()
    victim = work.submissions[2]
    data = encode_fragment(aggregate, victim.encoding, fragment, error=None).data
    echo = replace(victim, data=data, artifact=sha256_hex(data), encoding=victim.encoding)
    result = close_round(replace(work, submissions=[*work.submissions[:2], echo]), measured=False)
    assert [verdict.code for verdict in result.verdicts] == ["", "", "contribution.copy"]


def test_the_norm_that_is_allowed_covers_the_rounds_since_the_fragment_was_sent_last():
    plain = SPEC.model_copy(update={"network": NetworkSpec(policy="equal"), "encoding": EncodingSpec()})
    turns = plain.model_copy(update={"network": NetworkSpec(policy="equal", fragments=3, most_stale=0)})
    assert norm_limit(turns, 100, 10) == pytest.approx(3 * norm_limit(plain, 100, 10))


def test_error_feedback_is_kept_of_every_fragment_and_changed_of_one(ran):
    vector, error = torch.randn(2, ran.at.size, generator=torch.Generator().manual_seed(0))
    fragment = fragment_of(ran.at.shapes, SPEC, 1)
    after = encode_fragment(vector, SPEC.encoding, fragment, error=error).error
    assert torch.equal(fragment.clear(after), fragment.clear(error)) and not torch.equal(after, error)
    dense = encode_fragment(vector, EncodingSpec(kind="int8"), fragment, error=error).error
    assert torch.equal(dense, fragment.clear(error))
    assert encode_fragment(vector, EncodingSpec(kind="int8"), fragment, error=None).error is None


# Audits.


class Node:
    """A node that works on rounds `numbers`, whose versions differ in the fragments between, and keeps what it made."""

    def __init__(self, digits, spec: JobSpec = SPEC, *, numbers=(0, 1, 2, 3), lead: int = 0) -> None:
        self.digits, self.spec, self.state = digits, spec, NodeState(spec, digits.info, device=CPU)
        self.base = self.state.params()
        self.made, self.orders, self.bases = {}, {}, {}
        begun_ahead = None
        for place, number in enumerate(numbers):
            order = self.orders[number] = self.order(number)
            self.bases[number] = self.base
            self.made[number] = contribute(self.state, order, self.base, digits, lead=begun_ahead)
            if lead:
                begun_ahead = Lead.behind(
                    order, foreseen(order), base=self.base, upload=self.made[number].upload, shapes=self.state.shapes,
                    own=self.state.own,
                )  # fmt: skip
                begun_ahead.go_on(partial(run_local_steps, self.state, dataset=digits), most=lead)
            for later in range(number, [*numbers, number][place + 1]):
                fragment = fragment_of(self.state.shapes, spec, later)
                self.base = fragment.put(self.base, fragment.take(self.base) - 0.001)

    def order(self, number: int) -> WorkOrder:
        return WorkOrder(
            job_id=1, round=number, node_id=1, fence=1, deadline=2**31, base=f"{number:064x}", checkpoint="0" * 64, shard=1,
            shards=3, seed=number, steps=self.spec.inner.steps, encoding=self.spec.encoding, spec=self.spec,
        ).model_copy(update={"seed": self.spec.seed + number * self.spec.rounds.nodes + 1})  # fmt: skip

    def audit(self, number: int, segment: int, *, before: int | None, trace=None, hide: bool = False) -> Replay:
        trace = trace or self.made[number].trace
        earlier = None if before is None else self.made[before].trace
        shown = gather_evidence(trace, segment, before=earlier)
        if hide:
            shown = replace(shown, before_movement=shown.before_movement._replace(content=b""))
        guess = None
        if before is not None and self.spec.network.overlap == "eager":
            guess = guess_after(self.orders[before], self.bases[before], self.made[before].upload, shapes=self.state.shapes)
        return replay_segment(
            self.orders[number], self.bases[number], self.digits, read_evidence(write_evidence(shown), count=self.base.numel()),
            segment=segment, upload=self.made[number].upload, handed_in=HandedIn(trace.root(), trace.steps, number),
            before=None if earlier is None else HandedIn(earlier.root(), earlier.steps, before), guess=guess, device=CPU,
        )  # fmt: skip


def codes(replay: Replay) -> list[str]:
    return [finding.code for finding in replay.findings]


@pytest.fixture(scope="module")
def node(digits) -> Node:
    return Node(digits)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@pytest.mark.parametrize("segment", [0, 1])
def test_honest_rounds_pass_an_audit(node, number, segment):
    replay = node.audit(number, segment, before=number - 1 if number else None)
    assert codes(replay) == [] and replay.error < 0.05


@pytest.mark.parametrize("segment", [0, 1])
def test_so_do_rounds_begun_ahead(digits, segment):
    eager = SPEC.model_copy(update={"network": NetworkSpec(fragments=PARTS, most_stale=0, overlap="eager")})
    ahead = Node(digits, eager, lead=5)
    for number in (1, 3):
        assert ahead.made[number].trace.lead
        replay = ahead.audit(number, segment, before=number - 1)
        assert codes(replay) == [] and replay.error < 0.05


def test_so_does_one_after_rounds_without_the_node(digits):
    absent = Node(digits, numbers=(0, 2, 6))
    assert absent.made[2].trace.start and not absent.made[6].trace.start, "after all turns nothing of its own is left"
    for number, before in ((2, 0), (6, 2)):
        replay = absent.audit(number, 0, before=before)
        assert codes(replay) == [] and replay.error < 0.05


def test_a_node_starts_where_it_was_but_for_what_was_synchronised(node):
    shapes, end = node.state.shapes, node.made[0].trace.end
    start = begun(Own(0, end), SPEC, shapes=shapes, number=2)
    both = fragment_of(shapes, SPEC, 0).clear(fragment_of(shapes, SPEC, 1).clear(end))
    assert torch.equal(start, both) and start.any()
    assert begun(Own(0, end), SPEC, shapes=shapes, number=3) is None and begun(None, SPEC, shapes=shapes, number=1) is None


def test_who_begins_elsewhere_is_found(node):
    """Its own movement with more in it, or with what was synchronised still there; or it shows nothing to go on from."""
    kept = replace(node.made[2].trace, movements=[node.made[1].trace.movements[-1], *node.made[2].trace.movements[1:]])
    more = write_movement(1.5 * node.made[1].trace.end, 0)
    made_up = replace(node.made[2].trace, movements=[more, *node.made[2].trace.movements[1:]])
    for trace in (kept, made_up):
        assert "audit.wrong_base" in codes(node.audit(2, 1, before=1, trace=trace))
    assert codes(node.audit(2, 1, before=1, hide=True)) == ["audit.wrong_base"]


def test_the_upload_is_of_the_rounds_own_fragment(node):
    fragment = fragment_of(node.state.shapes, SPEC, 2)
    assert decode(node.made[2].upload, SPEC.encoding, count=fragment.count).values.any()
    other = node.made[2]._replace(upload=node.made[1].upload)
    swapped = Node.__new__(Node)
    swapped.__dict__ = node.__dict__ | {"made": node.made | {2: other}}
    if fragment.count == fragment_of(node.state.shapes, SPEC, 1).count:
        assert "audit.wrong_upload" in codes(swapped.audit(2, 1, before=1))
    else:
        with pytest.raises(HyperGPUError, match=r"artifact\.wrong_shape"):
            swapped.audit(2, 1, before=1)


@given(first=st.integers(0, 9), later=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_what_is_left_of_a_nodes_own_movement_is_what_no_round_since_has_synchronised(first, later):
    shapes = {"a": (3,), "b": (2, 2), "c": (5,), "d": (1,)}
    movement = torch.arange(1.0, 14.0)
    start = begun(Own(first, movement), SPEC, shapes=shapes, number=first + later)
    since = {number % PARTS for number in range(first, first + later)}
    if len(since) == PARTS:
        assert start is None
        return
    for turn in range(PARTS):
        fragment = fragment_of(shapes, SPEC, turn)
        expected = torch.zeros(fragment.count) if turn in since else fragment.take(movement)
        assert torch.equal(fragment.take(start), expected)
