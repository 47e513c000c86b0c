"""A lead: steps of an order before its base is known, from a guess that the base corrects."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data import load_dataset
from trainer.diloco.encoding import decode
from trainer.diloco.local import NodeState, run_local_steps, train
from trainer.diloco.outer import guessed
from trainer.diloco.reference import run_job
from trainer.diloco.trace import (
    Contributed,
    Lead,
    LeadMark,
    Trace,
    bound,
    contribute,
    encode_end,
    read_lead,
    read_movement,
    write_lead,
    write_movement,
)
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.orders import WorkOrder, foreseen, order_seed
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import InnerSpec, JobSpec, NetworkSpec, OuterSpec, RoundSpec
from trainer.scoring.calibration import AuditClass, Calibration, judge_replay, proves
from trainer.scoring.evidence import gather_evidence, read_evidence, write_evidence
from trainer.scoring.replay import Guess, HandedIn, Replay, guess_after, replay_segment

CPU = torch.device("cpu")
SPEC = JobSpec(
    inner=InnerSpec(steps=12, batch_size=8, schedule="cosine"), outer=OuterSpec(optimizer="sgd", learning_rate=0.5),
    rounds=RoundSpec(rounds=3, nodes=2), network=NetworkSpec(overlap="eager"),
)  # fmt: skip


def order(number: int, *, base: str = "ab" * 32, steps: int = 12, spec: JobSpec = SPEC) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=1, fence=1, deadline=2**31, base=base, checkpoint="0" * 64, shard=1, shards=2,
        seed=order_seed(spec, number, 1), steps=steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


class Worked:
    """A node after round 0 and, with a lead of `steps`, round 1 from a base that is not what it guessed."""

    def __init__(self, digits, *, steps: int, planned: int = 12, length: int = 12) -> None:
        self.digits, self.state = digits, NodeState(SPEC, digits.info, device=CPU)
        self.start = self.state.params()
        self.first = contribute(self.state, order(0), self.start, digits)
        self.base = self.start - 0.01 * torch.randn(self.start.shape, generator=torch.Generator().manual_seed(0))
        self.lead = Lead.behind(
            order(0), foreseen(order(0, steps=planned)), base=self.start, upload=self.first.upload, shapes=self.state.shapes
        )
        self.lead.go_on(self.run, most=steps)
        self.order = order(1, base="cd" * 32, steps=length)
        lead = self.lead if self.lead.serves(self.order) else None
        self.second: Contributed = contribute(self.state, self.order, self.base, digits, lead=lead)

    def run(self, *arguments, **options):
        return run_local_steps(self.state, *arguments, dataset=self.digits, **options)

    def guess(self, *, bound: bool = False) -> Guess:
        return guess_after(order(0), self.start, self.first.upload, shapes=self.state.shapes, bound=bound)

    def audit(self, segment: int, *, trace=None, guess=..., spec: JobSpec = SPEC, upload=None, evidence=None) -> Replay:
        trace = trace or self.second.trace
        data = write_evidence(evidence or gather_evidence(trace, segment, before=self.first.trace))
        return replay_segment(
            self.order.model_copy(update={"spec": spec}), self.base, self.digits, read_evidence(data, count=self.base.numel()),
            segment=segment, upload=upload or self.second.upload, handed_in=HandedIn(trace.root(), trace.steps),
            before=HandedIn(self.first.trace.root(), 12),
            guess=self.guess() if guess is ... else guess, device=CPU,
        )  # fmt: skip


@pytest.fixture(scope="module")
def worked(digits) -> Worked:
    return Worked(digits, steps=5)


def test_a_lead_is_what_a_hand_computation_gives(worked, digits):
    """Five steps from base - lr * own update, then seven from the true base less what they moved; the update is their sum."""
    own = decode(worked.first.upload, SPEC.encoding, count=worked.start.numel()).values
    guess = worked.start - 0.5 * own
    torch.testing.assert_close(guess, guessed(worked.start, own, SPEC, number=0))

    state = NodeState(SPEC, digits.info, device=CPU)
    contribute(state, order(0), worked.start, digits)
    state.load(guess)
    train(state, order(1), digits, range(5))
    moved = guess - state.params()
    state.load(worked.base - moved)
    train(state, order(1), digits, range(5, 12))
    torch.testing.assert_close(worked.second.result.pseudo_gradient, worked.base - state.params())
    assert worked.second.result.steps_done == 12 and len(worked.second.result.losses) == 12
    assert worked.second.result.units == worked.order.units and state.steps == worked.state.steps == 24


def test_its_trace_says_at_which_step_the_base_came_and_what_the_guess_was_made_of(worked):
    expected = LeadMark(5, 12, order(0).base, sha256_hex(worked.first.upload))
    assert read_lead(worked.second.trace.lead) == expected == worked.lead.mark
    steps = [read_movement(data, count=worked.base.numel())[1] for data in worked.second.trace.movements]
    assert steps == [0, 5, 10, 12]
    assert worked.second.trace.moments[0] == worked.first.trace.moments[-1], "the optimizer went on"
    assert worked.second.trace.error_before == worked.first.trace.error_after


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_an_audit_computes_a_segment_before_and_after_the_correction_again(worked, segment):
    replay = worked.audit(segment)
    assert replay.findings == [] and replay.error < 0.01


def test_a_lead_that_was_foreseen_longer_is_audited_as_it_was_foreseen(digits):
    """Its learning rate followed the steps that were expected."""
    worked = Worked(digits, steps=10, planned=30)
    assert worked.lead.mark.planned == 30
    assert [worked.audit(segment).error < 0.01 for segment in range(3)] == [True] * 3
    forged = replace(worked.second.trace, lead=write_lead(worked.lead.mark._replace(planned=12)))
    assert worked.audit(0, trace=forged).error > worked.audit(0).error


def test_who_says_that_the_base_came_at_another_step_is_found(worked):
    for steps, segment in ((10, 1), (None, 0)):
        lead = b"" if steps is None else write_lead(worked.lead.mark._replace(steps=steps))
        replay = worked.audit(segment, trace=replace(worked.second.trace, lead=lead))
        assert replay.error > 0.05


def judged(replay: Replay) -> tuple[str, list[str], bool]:
    """Outcome, findings, and whether a court would find the same."""
    outcome = judge_replay(replay, Calibration(AuditClass("fp32", "cpu", "cpu"))).outcome
    return outcome, [finding.code for finding in replay.findings], proves(replay, precision="fp32")


def marked(worked: Worked, **change) -> Trace:
    """The trace as a cheat would commit to it: the upload binds another mark."""
    return replace(worked.second.trace, lead=write_lead(worked.lead.mark._replace(**change)))


@pytest.mark.parametrize("change", [{"steps": 4}, {"steps": 15}, {"steps": 0}, {"planned": 3}])
def test_a_lead_that_cannot_be_is_proven_by_the_trace_alone(worked, change):
    trace = marked(worked, **change)
    upload = bound(worked.second.upload, trace.root())
    for guess in (None, worked.guess()):
        assert judged(worked.audit(2, trace=trace, upload=upload, guess=guess)) == ("failed", ["audit.wrong_lead"], True)


@pytest.mark.parametrize("change", [{"artifact": "0" * 64}, {"version": "0" * 64}])
@pytest.mark.parametrize("segment", [0, 2])
def test_a_lead_from_elsewhere_is_proven_where_the_node_has_signed_what_it_can_be_from(worked, change, segment):
    trace = marked(worked, **change)
    said = {"trace": trace, "upload": bound(worked.second.upload, trace.root())}
    signed = worked.audit(segment, guess=worked.guess(bound=True), **said)
    assert judged(signed) == ("failed", ["audit.wrong_lead"], True)
    for guess in (None, worked.guess()):
        assert judged(worked.audit(segment, guess=guess, **said)) == ("failed", ["audit.unknown_lead"], False)


def test_a_mark_that_the_upload_does_not_bind_proves_nothing(worked):
    """Whoever accuses may have made it up."""
    trace = marked(worked, steps=4)
    data = gather_evidence(worked.second.trace, 2, before=worked.first.trace)
    forged = replace(data, lead=data.lead._replace(content=trace.lead))
    assert judged(worked.audit(2, evidence=forged)) == ("failed", ["audit.wrong_lead", "audit.not_committed"], False)


def test_a_lead_in_a_job_without_them_is_proven_and_one_behind_nothing_that_is_known_is_not(worked):
    without = SPEC.model_copy(update={"network": NetworkSpec()})
    assert judged(worked.audit(2, spec=without)) == ("failed", ["audit.wrong_lead"], True)
    assert judged(worked.audit(2, guess=None)) == ("failed", ["audit.unknown_lead"], False)


def test_what_follows_an_unknown_lead_is_computed_again_all_the_same(worked):
    lazy = replace(worked.second.trace, movements=[*worked.second.trace.movements])
    lazy.movements[-1] = write_movement(0.5 * lazy.end, 12)
    upload = bound(encode_end(lazy.end, lazy.error_before, worked.order.encoding).data, lazy.root())
    assert proves(worked.audit(2, trace=lazy, upload=upload, guess=None), precision="fp32")
    assert not proves(worked.audit(0, trace=lazy, upload=upload, guess=None), precision="fp32")


def test_an_order_that_asks_for_other_batches_or_fewer_steps_is_not_served(worked):
    lead = worked.lead
    assert lead.serves(order(1, steps=5)) and not lead.serves(order(1, steps=4))
    for change in ({"seed": 1}, {"shard": 0}, {"round": 2}, {"job_id": 2}, {"shards": 3}):
        assert not lead.serves(order(1).model_copy(update=change))


def test_nothing_is_foreseen_after_the_last_round():
    assert foreseen(order(1)) is not None and foreseen(order(2)) is None


@given(stops=st.lists(st.booleans(), max_size=6), most=st.integers(0, 12))
@settings(max_examples=8, deadline=None)
def test_a_lead_that_is_interrupted_ends_where_one_in_one_piece_does(stops, most):
    digits = load_dataset(SPEC.data, files={})
    state, leads = NodeState(SPEC, digits.info, device=CPU), []
    start = state.params()
    for pieces in (stops, []):
        state.forget()
        state.error = None
        made = contribute(state, order(0), start, digits)
        lead = Lead.behind(order(0), foreseen(order(0)), base=start, upload=made.upload, shapes=state.shapes)
        asked = iter(pieces)
        for _ in (*pieces, None):
            lead.go_on(
                lambda *a, **o: run_local_steps(state, *a, dataset=digits, **o), most=most,
                should_stop=lambda answers=asked: next(answers, False),
            )  # fmt: skip
        lead.trace.finish()
        leads.append(lead)
    one, other = leads
    assert one.trace.steps == other.trace.steps == most // 5 * 5
    torch.testing.assert_close(one.movement, other.movement)
    assert one.losses == pytest.approx(other.losses, rel=1e-4) and one.trace.moments[0] == other.trace.moments[0]


def test_without_delay_eager_is_what_no_overlap_is(digits):
    def versions(overlap: str, **options) -> list[str]:
        spec = SPEC.model_copy(update={"network": NetworkSpec(overlap=overlap)})
        return [report.result.version for report in run_job(JobWork(spec=spec, files={}), device=CPU, **options)]

    assert versions("eager") == versions("eager", lead=4) == versions("none") == versions("none", lead=10)
    assert versions("eager", lead=5)[0] == versions("none")[0]
    assert versions("eager", lead=5)[1:] != versions("none")[1:]
