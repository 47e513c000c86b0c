"""Honest segments pass an audit on any machine; what was not done as ordered does not."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.diloco.encoding import encode
from trainer.diloco.local import NodeState
from trainer.diloco.trace import Moments, bound, contribute, read_moments, write_moments, write_movement
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.limits import evidence_bytes, evidence_limit, expected_evidence
from trainer.protocol.orders import Origin, WorkOrder, work_digest
from trainer.protocol.spec import AuditSpec, EncodingSpec, InnerSpec, JobSpec
from trainer.scoring.calibration import FAILS, TOLERANCE, AuditClass, Calibration, judge_replay, proves
from trainer.scoring.deterrence import HONEST_AUDITS
from trainer.scoring.evidence import PATHS, PROVEN, gather_evidence, read_evidence, write_evidence
from trainer.scoring.replay import HandedIn, Replay, replay_segment

CPU = torch.device("cpu")
SPEC = JobSpec(inner=InnerSpec(steps=12, learning_rate=3e-3), encoding=EncodingSpec(kind="topk"))
CLASS = Calibration(AuditClass("fp32", "cpu", "cpu"))
STRIDE = SPEC.audit.stride


def order(number: int, spec=SPEC) -> WorkOrder:
    return WorkOrder(
        job_id=1, round=number, node_id=1, fence=1, deadline=2**31, base="0" * 64, checkpoint="0" * 64, shard=1, shards=4,
        seed=7 + number, steps=spec.inner.steps, encoding=spec.encoding, spec=spec,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rounds(digits):
    """Two orders of an honest node, one after the other: base and contribution of each."""
    state = NodeState(SPEC, digits.info, device=CPU)
    base = state.params()
    first = contribute(state, order(0), base, digits)
    second = contribute(state, order(1), base - first.trace.end, digits)
    return [(base, first), (base - first.trace.end, second)]


def shown(rounds, segment: int, *, number: int = 1, **changed):
    """Evidence as it arrives, with parts replaced."""
    before = rounds[number - 1][1].trace if number else None
    evidence = gather_evidence(rounds[number][1].trace, segment, before=before)
    return read_evidence(write_evidence(replace(evidence, **changed)), count=rounds[0][0].numel())


def audited(rounds, digits, evidence, *, number: int = 1, segment: int = 1, spec=SPEC, upload=None, before=...) -> Replay:
    base, made = rounds[number]
    if before is ...:
        before = HandedIn(rounds[number - 1][1].trace.root(), 12) if number else None
    return replay_segment(
        order(number, spec), base, digits, evidence, segment=segment, upload=made.upload if upload is None else upload,
        handed_in=HandedIn(made.trace.root(), 12), before=before, device=CPU,
    )  # fmt: skip


def codes(replay: Replay) -> set[str]:
    return {finding.code for finding in replay.findings}


@pytest.mark.parametrize(("number", "segment"), [(0, 0), (0, 2), (1, 0), (1, 1), (1, 2)])
def test_honest_work_passes(rounds, digits, number, segment):
    replay = audited(rounds, digits, shown(rounds, segment, number=number), number=number, segment=segment)
    assert replay.findings == [] and replay.error < 0.01
    assert judge_replay(replay, CLASS).outcome == "pass"


def test_honest_work_passes_in_other_batches(rounds, digits):
    other = SPEC.model_copy(update={"inner": SPEC.inner.model_copy(update={"micro_batch": 8})})
    replay = audited(rounds, digits, shown(rounds, 1), spec=other)
    assert judge_replay(replay, CLASS).outcome == "pass"


OTHERS = pytest.mark.parametrize("change", [{"shard": 2}, {"seed": 99}], ids=["shard", "seed"])


def replayed(rounds, digits, said: WorkOrder, trace) -> Replay:
    """The second order's work, if the order is `said` to have been this one, from a `trace` to which its upload is bound."""
    before, base = rounds[0][1].trace, rounds[1][0]
    evidence = read_evidence(write_evidence(gather_evidence(trace, 1, before=before)), count=base.numel())
    return replay_segment(
        said, base, digits, evidence, segment=1, upload=bound(rounds[1][1].upload, trace.root()),
        handed_in=HandedIn(trace.root(), 12), before=HandedIn(before.root(), 12), device=CPU,
    )  # fmt: skip


@OTHERS
def test_work_on_other_data_is_proven_by_the_order_that_it_is_bound_to(rounds, digits, change):
    asked = order(1).model_copy(update=change)
    replay = replayed(rounds, digits, asked, replace(rounds[1][1].trace, order=work_digest(asked)))
    assert replay.findings == [] and judge_replay(replay, CLASS).outcome == "failed" and proves(replay, precision="fp32")


@OTHERS
def test_nobody_is_convicted_of_an_order_that_its_upload_is_not_bound_to(rounds, digits, change):
    """A coordinator that gave one order says that it gave another, and has had that attested."""
    replay = replayed(rounds, digits, order(1).model_copy(update=change), rounds[1][1].trace)
    assert codes(replay) == {"audit.other_order"} and replay.error > FAILS * TOLERANCE["fp32"]
    assert judge_replay(replay, CLASS).outcome == "failed" and not proves(replay, precision="fp32")


def test_an_order_that_is_given_again_is_the_same(rounds):
    again = {"fence": 7, "deadline": 2**32, "checkpoint": "1" * 64, "node_id": 1}
    carried = {"round": 2, "base": "2" * 64, "origin": Origin(round=1, base="0" * 64, checkpoint="0" * 64)}
    assert work_digest(order(1).model_copy(update=again | carried)) == work_digest(order(1))
    for change in ({"round": 2}, {"base": "1" * 64}, {"shard": 0}, {"steps": 11}, {"job_id": 2}):
        assert work_digest(order(1).model_copy(update=change)) != work_digest(order(1))


def test_a_state_that_was_not_committed_to_is_found(rounds, digits):
    evidence = shown(rounds, 1)
    moments = read_moments(evidence.next_moments.content, count=rounds[0][0].numel())
    forged = write_moments(Moments(moments.first * 1.1, moments.second, moments.seen))
    replay = audited(rounds, digits, shown(rounds, 1, next_moments=evidence.next_moments._replace(content=forged)))
    assert codes(replay) == {"audit.not_committed"} and judge_replay(replay, CLASS).outcome == "failed"


def test_a_trace_that_does_not_begin_at_the_base_is_found(rounds, digits):
    evidence = shown(rounds, 1)
    replay = audited(rounds, digits, replace(evidence, base=evidence.movement.path))
    assert codes(replay) == {"audit.wrong_base"}


def test_moments_from_nowhere_are_suspicious_at_the_least(rounds, digits):
    replay = audited(rounds, digits, shown(rounds, 1), before=None)
    assert codes(replay) == {"audit.unknown_history"} and judge_replay(replay, CLASS).outcome == "suspicious"
    assert codes(audited(rounds, digits, shown(rounds, 0, number=0), number=0, segment=0)) == set()


def test_an_upload_that_does_not_follow_from_the_trace_is_found(rounds, digits):
    made = rounds[1][1]
    flipped = bound(encode(-made.trace.end, SPEC.encoding).data, made.trace.root())
    replay = audited(rounds, digits, shown(rounds, 1), upload=flipped)
    assert codes(replay) == {"audit.wrong_upload"} and replay.findings[0].data["distance"] > 1
    assert judge_replay(replay, CLASS).outcome == "failed"


def test_moments_beyond_clipped_gradients_are_found(rounds, digits):
    evidence = shown(rounds, 1)
    moments = read_moments(evidence.moments.content, count=rounds[0][0].numel())
    forged = evidence.moments._replace(
        content=write_moments(moments._replace(first=1e6 * moments.first, second=1e12 * moments.second))
    )
    assert "audit.impossible_moments" in codes(audited(rounds, digits, replace(evidence, moments=forged)))


def test_states_of_other_borders_are_found(rounds, digits):
    other = shown(rounds, 0)
    replay = audited(rounds, digits, replace(shown(rounds, 1), next_movement=other.next_movement))
    assert "audit.wrong_border" in codes(replay) and "audit.not_committed" in codes(replay)


def test_the_right_question_must_be_answered(rounds, digits):
    for evidence, segment, code in (
        (shown(rounds, 0), 1, "audit.wrong_segment"),
        (replace(shown(rounds, 1), segment=5), 5, "audit.wrong_segment"),
        (replace(shown(rounds, 1), steps=11), 1, "audit.wrong_steps"),
    ):
        with pytest.raises(HyperGPUError) as refused:
            audited(rounds, digits, evidence, segment=segment)
        assert refused.value.code == code


def test_a_state_from_which_nothing_can_be_computed_is_a_finding(rounds, digits):
    far = write_movement(1e36 * torch.randn(rounds[0][0].numel(), generator=torch.Generator().manual_seed(0)), 5)
    evidence = shown(rounds, 1)
    replay = audited(rounds, digits, replace(evidence, movement=evidence.movement._replace(content=far)))
    assert "audit.not_finite" in codes(replay) and judge_replay(replay, CLASS).outcome == "failed"


@given(data=st.data())
def test_evidence_is_read_as_written_and_nothing_else_is(rounds, data):
    count = rounds[0][0].numel()
    evidence = gather_evidence(rounds[1][1].trace, 1, before=rounds[0][1].trace)
    file = write_evidence(evidence)
    assert read_evidence(file, count=count) == evidence and len(file) <= evidence_limit(count) < 19 * count + 2**16
    at = data.draw(st.integers(0, len(file) - 1))
    cut = data.draw(st.sampled_from([file[:at], file + b"\0", file[:at] + file[at + 1 :], b"X" + file[1:]]))
    with pytest.raises(HyperGPUError) as refused:
        read_evidence(cut, count=count)
    assert refused.value.code == "audit.malformed"


def test_evidence_of_another_model_is_refused(rounds):
    file = write_evidence(gather_evidence(rounds[0][1].trace, 0, before=None))
    for count in (1, rounds[0][0].numel() + 1):
        with pytest.raises(HyperGPUError):
            read_evidence(file, count=count)
    assert len(PROVEN) + len(PATHS) == 13


def test_nobody_is_slashed_before_a_class_is_calibrated_and_calibration_tightens():
    tolerance = TOLERANCE["fp32"]
    for error, outcome in (
        (tolerance, "pass"),
        (2 * tolerance, "suspicious"),
        (3.1 * tolerance, "failed"),
        (float("inf"), "failed"),
    ):
        judged = judge_replay(Replay(error, 0.0, 0.0, []), CLASS)
        assert judged.outcome == outcome
        assert [reason.code for reason in judged.reasons] == ([] if outcome == "pass" else ["audit.diverged"])
    almost = replace(CLASS, errors=(0.001,) * (HONEST_AUDITS - 1))
    calibrated = replace(CLASS, errors=(0.001,) * HONEST_AUDITS)
    assert almost.tolerance == tolerance
    assert calibrated.tolerance == pytest.approx(0.002)
    assert replace(CLASS, errors=(0.5,) * HONEST_AUDITS).tolerance == tolerance
    assert judge_replay(Replay(0.005, 0.0, 0.0, []), calibrated).outcome == "suspicious"


def test_only_what_the_upload_binds_proves_anything(rounds, digits):
    """Whoever brings the evidence to the court may have made it up: states of its own convict nobody."""
    evidence, made = shown(rounds, 1), rounds[1][1]
    forged = replace(evidence, next_movement=evidence.next_movement._replace(content=evidence.movement.content))
    accusations = {
        "honest": audited(rounds, digits, evidence),
        "another state": audited(rounds, digits, forged),
        "another path": audited(rounds, digits, replace(evidence, base=evidence.movement.path)),
        "no history": audited(rounds, digits, evidence, before=None),
    }
    assert judge_replay(accusations["another state"], CLASS).outcome == "failed"
    assert [what for what, replay in accusations.items() if proves(replay, precision="fp32")] == []
    flipped = bound(encode(-made.trace.end, SPEC.encoding).data, made.trace.root())
    assert proves(audited(rounds, digits, evidence, upload=flipped), precision="fp32")
    most = FAILS * TOLERANCE["fp32"]
    assert [proves(Replay(error, 0.0, 0.0, []), precision="fp32") for error in (most, 1.01 * most)] == [False, True]
    unbound = [HyperGPUError("audit.not_committed", "Not under the root.")]
    assert not proves(Replay(float("inf"), 0.0, 0.0, unbound), precision="fp32")


def test_what_evidence_is_expected_to_take_is_what_it_takes(rounds):
    count, spec = rounds[0][0].numel(), JobSpec(audit=AuditSpec(rate=0.02, newcomer_rate=0.5, newcomer_rounds=2, segments=2))
    file = write_evidence(gather_evidence(rounds[1][1].trace, 1, before=rounds[0][1].trace))
    one = evidence_bytes(count, error=bool(rounds[1][1].trace.error_before))
    assert one < len(file) < one + 2**12
    plain = evidence_bytes(count, error=False)
    assert expected_evidence(spec, count, rounds=5) == pytest.approx(2 * plain * (2 * 0.5 + 3 * 0.02))
