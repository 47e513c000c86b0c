"""How far verdicts of a class can be trusted: which audits count as honest, and how many end shadow mode."""

from __future__ import annotations

import pytest
from django.utils import timezone

from marketplace.jobs.models import Job
from marketplace.training import calibration
from marketplace.training.calibration import Calibration, upper_bound
from marketplace.training.models import Audit, Contribution
from tests.marketplace.training.test_audits import HASH, job, nodes, paid  # noqa: F401

pytestmark = pytest.mark.django_db


def known(job: Job, number: int, verdicts: dict[int, str], *, auditor: str = "cpu") -> None:  # noqa: F811
    for contribution in Contribution.objects.filter(round=paid(job, number, tuple(verdicts))):
        Audit.objects.create(
            contribution=contribution, node_id=contribution.node_id, segment=0, block=1, block_hash=HASH,
            deadline=timezone.now(), precision="fp32", operator_class="a gpu", auditor_class=auditor,
            state=verdicts[contribution.node_id],
        )  # fmt: skip


def test_honest_audits_are_those_of_nodes_that_pass_most_of_theirs(job: Job) -> None:  # noqa: F811
    for number in range(10):
        known(job, number, {1: "passed", 2: "failed" if number == 0 else "passed", 3: "passed" if number < 5 else "failed"})
    known(job, 10, {1: "unanswered", 2: "suspicious"})
    known(job, 11, {1: "passed"}, auditor="another")
    found = calibration.of("fp32", "a gpu", "cpu")
    assert (found.honest, found.false_alarms, found.calibrated) == (10 + 11, 1, False), "node 3 passed no more than half"
    assert calibration.of("fp32", "a gpu").honest == 22, "over all auditors"
    assert calibration.of("bf16", "a gpu", "cpu").honest == 0


@pytest.mark.parametrize(("honest", "alarms", "calibrated"), [(299, 0, False), (300, 0, True), (300, 3, True), (300, 4, False)])
def test_three_hundred_honest_audits_end_shadow_mode(honest: int, alarms: int, calibrated: bool) -> None:
    assert Calibration("fp32", "a", "b", honest, alarms).calibrated is calibrated


def test_the_bound_is_clopper_and_pearsons() -> None:
    """R: qbeta(0.95, k + 1, n - k)."""
    assert upper_bound(0, of=300) == pytest.approx(1 - 0.05 ** (1 / 300), abs=1e-9)
    assert upper_bound(3, of=100) == pytest.approx(0.0757, abs=1e-4)
    assert upper_bound(5, of=5) == 1.0
    assert Calibration("fp32", "a", "b", 0, 0).highest_rate == 1.0


def verdict_on(job: Job, number: int, *, operator_class: str) -> Audit:  # noqa: F811
    contribution = Contribution.objects.get(round=paid(job, number, (1,)))
    return Audit.objects.create(
        contribution=contribution, node_id=1, segment=0, block=1, block_hash=HASH, deadline=timezone.now(), precision="fp32",
        operator_class=operator_class, state="answered",
    )  # fmt: skip


def test_a_name_that_nobody_else_has_is_no_way_out_of_audits(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(calibration, "HONEST_AUDITS", 3)
    monkeypatch.setattr(calibration.Calibration, "calibrated", property(lambda known: known.honest >= 3))
    for number in range(3):
        known(job, number, {1: "passed"})
    Audit.objects.update(operator_class="cuda-H100")
    mine = verdict_on(job, 3, operator_class="cuda-mine-0001")
    assert not calibration.in_shadow(mine, auditor_class="cpu"), "the kind stands for a class that nobody has seen"
    assert calibration.in_shadow(mine, auditor_class="another"), "by whom it was calibrated"
    mine.operator_class = "cpu-mine"
    assert calibration.in_shadow(mine, auditor_class="cpu"), "no machine of its kind was ever audited"
    mine.operator_class = "no machine at all"
    assert not calibration.in_shadow(mine, auditor_class="cpu"), "what it really is cannot be known: all of them"


def test_a_contradiction_that_no_drift_explains_is_never_in_the_shadow(job: Job) -> None:  # noqa: F811
    mine = verdict_on(job, 0, operator_class="cuda-mine-0001")
    assert not calibration.in_shadow(mine, auditor_class="cpu", code="audit.wrong_upload", proven=True)
    assert calibration.in_shadow(mine, auditor_class="cpu", code="audit.diverged", proven=True)
    assert calibration.in_shadow(mine, auditor_class="cpu", code="audit.wrong_upload", proven=False)
