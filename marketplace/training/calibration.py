"""How far the verdicts of one class of audits can be trusted, from the audits themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from django.db.models import Count, Q, QuerySet

from marketplace.training.models import Audit
from trainer.scoring.deterrence import CONVICTS, HONEST_AUDITS

KINDS = ("cpu", "cuda")
"""What classes begin with (`trainer.diloco.local.device_class`)."""
FALSE_ALARMS = 0.01
"""Largest share of false alarms with which verdicts have consequences."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """`honest` audits are those of nodes that passed most of theirs; `false_alarms` are the failed ones among them. A cheat fails
    most of its own, so it does not count."""

    precision: str
    operator_class: str
    auditor_class: str
    honest: int
    false_alarms: int

    @property
    def calibrated(self) -> bool:
        return self.honest >= HONEST_AUDITS and self.false_alarms <= FALSE_ALARMS * self.honest

    @property
    def highest_rate(self) -> float:
        """Upper bound of the rate of false alarms, 95 % confidence (Clopper and Pearson 1934, one-sided)."""
        return upper_bound(self.false_alarms, of=self.honest)


def in_shadow(audit: Audit, *, auditor_class: str = "", code: str = "", proven: bool = False) -> bool:
    """Whether a verdict hurts nobody yet.

    A contradiction that no machine's drift explains is never in the shadow. Everything else is as long as its class is not
    calibrated. A class with too few honest audits is judged as all classes of its kind together: the class is the node's own
    word, and a name that nobody else has must be no way out.
    """
    if proven and code in CONVICTS:
        return False
    known = of(audit.precision, audit.operator_class, auditor_class)
    if known.honest < HONEST_AUDITS:
        known = counted(of_kind(audit.precision, kind_of(audit.operator_class)), known)
    return not known.calibrated


def of(precision: str, operator_class: str, auditor_class: str = "") -> Calibration:
    """Of one class; without an auditor's, of all auditors together."""
    return counted(of_class(precision, operator_class), Calibration(precision, operator_class, auditor_class, 0, 0))


def counted(judged: QuerySet[Audit], known: Calibration) -> Calibration:
    """`known` with what the honest among the judged audits say."""
    honest = [audit for audit in honest_among(judged) if known.auditor_class in ("", audit.auditor_class)]
    return replace(known, honest=len(honest), false_alarms=sum(audit.state == Audit.State.FAILED for audit in honest))


def honest_errors(precision: str, operator_class: str) -> dict[str, list[float]]:
    """By the auditor's class: from them follows what is tolerated."""
    errors: dict[str, list[float]] = {}
    for audit in honest_among(of_class(precision, operator_class)):
        if audit.error is not None:
            errors.setdefault(audit.auditor_class, []).append(audit.error)
    return errors


def of_class(precision: str, operator_class: str) -> QuerySet[Audit]:
    return Audit.objects.filter(precision=precision, operator_class=operator_class, state__in=Audit.JUDGED)


def of_kind(precision: str, kind: str) -> QuerySet[Audit]:
    return Audit.objects.filter(precision=precision, operator_class__startswith=kind, state__in=Audit.JUDGED)


def kind_of(operator_class: str) -> str:
    """One of KINDS; empty, which stands for all of them, for a machine that says something else."""
    return next((kind for kind in KINDS if operator_class.startswith(kind)), "")


def honest_among(judged: QuerySet[Audit]) -> list[Audit]:
    nodes = judged.values("node_id").annotate(audits=Count("pk"), passed=Count("pk", filter=Q(state=Audit.State.PASSED)))
    honest = [node["node_id"] for node in nodes if 2 * node["passed"] > node["audits"]]
    return list(judged.filter(node_id__in=honest).only("auditor_class", "state", "error"))


def classes_of(*, job_id: int) -> list[Calibration]:
    """Of the classes that the job's audits were judged in, over all jobs."""
    judged = Audit.objects.filter(contribution__round__job=job_id, state__in=Audit.JUDGED).order_by()
    names = judged.values_list("precision", "operator_class", "auditor_class").distinct()
    return [of(*name) for name in sorted(names)]


CONFIDENCE = 0.95


def upper_bound(hits: int, *, of: int) -> float:
    """The largest rate at which so few `hits` still come with 5 % probability."""
    if hits >= of:
        return 1.0
    low, high = hits / of, 1.0
    for _ in range(50):
        rate = (low + high) / 2
        low, high = (rate, high) if at_most(hits, of, rate) > 1 - CONFIDENCE else (low, rate)
    return high


def at_most(hits: int, trials: int, rate: float) -> float:
    """Probability of at most `hits` in so many trials (binomial)."""
    if rate in (0.0, 1.0):
        return float(rate == 0.0 or hits >= trials)
    logs = (
        math.lgamma(trials + 1) - math.lgamma(i + 1) - math.lgamma(trials - i + 1) + i * math.log(rate)
        + (trials - i) * math.log1p(-rate)
        for i in range(hits + 1)
    )  # fmt: skip
    return sum(math.exp(one) for one in logs)
