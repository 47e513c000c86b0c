"""The bench of audits counts as it says."""

import pytest

from scripts.hypergpu_bench.audit_cheats import CHEATS
from scripts.hypergpu_bench.audit_rounds import Seen
from scripts.hypergpu_bench.audits import AUDITORS, HARDEST, Audit, cheat_rows, drift, figures, honest_rows, quantile, share
from trainer.scoring.replay import Replay


def audit(kind: str, how: str, error: float, outcome: str, *, auditor: str = "same", precision: str = "fp32") -> Audit:
    return Audit("text", precision, auditor, kind, how, Replay(error, 0.0, 0.0, []), outcome, frozenset(), 1, 160, 10)


def test_bounds_are_exact():
    """Clopper and Pearson: none of n has the upper bound 1 - 0.025 ** (1 / n)."""
    assert share(0, 300) == {"value": 0.0, "low": 0.0, "high": pytest.approx(1 - 0.025 ** (1 / 300))}
    assert share(10, 10) == {"value": 1.0, "low": pytest.approx(0.025**0.1), "high": 1.0}
    half = share(5, 10)
    assert half["low"] == pytest.approx(0.1871, abs=1e-4) and half["high"] == pytest.approx(0.8129, abs=1e-4)
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0 and quantile([1.0, 2.0], 0.99) == 2.0


def test_misses_and_alarms_are_counted_apart():
    lazy = next(iter(CHEATS["lazy"]))
    honest = [
        audit("honest", "", 0.001, "pass", auditor=auditor, precision=precision)
        for precision in AUDITORS
        for auditor in AUDITORS[precision]
    ]
    every = [replace_task(a, task) for a in honest for task in ("text", "images")]
    every += [audit("honest", "", 0.1, "suspicious")]
    every += [audit("lazy", lazy, 0.5, "failed"), audit("lazy", lazy, 0.01, "pass")]
    every += [audit(kind, next(iter(CHEATS[kind])), 0.5, "failed") for kind in ("copied", "other data", "poisoned")]
    seen = [Seen("text", "topk", updates=8, owned=7, strangers=8, others=4, copies=4, found=3)]
    found = figures(every, seen, [{"trace_percent": 2.0}])
    assert found["false_alarm_rate"].value == 1 / 13 and found["false_failure_rate"].value == 0
    assert found["miss_rate_lazy_10_percent"].value == 0.5 and found["miss_rate_copied"].value == 0
    assert found["copy_miss_rate"].value == 0.25 and found["ownership_honest_share"].value == 0.875
    assert found["evidence_bytes_per_parameter"].value == 16
    row = next(row for row in cheat_rows(every) if row["how"] == lazy)
    assert row["missed"] == 1 and row["audits"] == 2 and row["seen_per_audit"] == 0.5 * 1 / 4
    assert sum(row["false_alarms"] for row in honest_rows(every)) == 1
    assert drift(every, "fp32").bars[lazy] == (0.5, 0.01, 0.5)


def replace_task(audit: Audit, task: str) -> Audit:
    return Audit(task, *[getattr(audit, name) for name in Audit.__dataclass_fields__ if name != "task"])


def test_cheats_meet_an_auditor_that_there_is():
    assert all(HARDEST[precision] in AUDITORS[precision] for precision in AUDITORS)
