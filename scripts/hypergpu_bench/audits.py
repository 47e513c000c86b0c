"""Replay audits, ownership and the copy rule: how often honest work is suspected, and cheating is not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from scipy import stats

from scripts.hypergpu_bench.audit_cheats import CHEATS, Start
from scripts.hypergpu_bench.audit_rounds import Seen, order_of, watch
from scripts.hypergpu_bench.report import Figure, Measured
from scripts.hypergpu_bench.tasks import TASKS
from trainer.data import load_dataset
from trainer.diloco.local import NodeState, run_local_steps
from trainer.diloco.trace import Trace, borders, contribute, fresh_moments
from trainer.protocol.spec import JobSpec
from trainer.scoring.calibration import AuditClass, Calibration, judge_replay
from trainer.scoring.evidence import gather_evidence, read_evidence, write_evidence
from trainer.scoring.replay import HandedIn, Replay, replay_segment
from trainer.simulation.plots import Bars

STEPS, STRIDE = 20, 5
BATCHES = {"text": 10, "images": 20}
"""So that a tenth of a batch is whole samples."""
EXACT = "the ends of the exact 95 % interval (Clopper and Pearson 1934)"
GOAL_OVERHEAD = 4.0


@dataclass(frozen=True, slots=True)
class Auditor:
    """What an auditor does otherwise than the operator, who computes with one thread and whole batches."""

    threads: int = 1
    halves: bool = False
    precision: str | None = None


AUDITORS: dict[str, dict[str, Auditor]] = {
    "fp32": {"same": Auditor(), "half batches": Auditor(halves=True), "two threads": Auditor(threads=2)},
    "bf16": {
        "same": Auditor(), "half batches": Auditor(halves=True),
        "fp32": Auditor(precision="fp32"),
    },
}  # fmt: skip
HARDEST = {"fp32": "half batches", "bf16": "fp32"}
"""The auditor that cheats are shown to: the one that differs most."""


@dataclass(frozen=True, slots=True)
class Audit:
    """One replayed segment: whose, by which auditor, and what became of it."""

    task: str
    precision: str
    auditor: str
    kind: str
    how: str
    replay: Replay
    outcome: str
    reasons: frozenset[str]
    segments: int
    evidence_bytes: int
    parameters: int


def measure(*, quick: bool) -> Measured:
    torch.set_num_threads(1)
    seeds = [0] if quick else [0, 1, 2]
    rounds = 2 if quick else 3
    audits = [audit for seed in seeds for name in TASKS for audit in audited(name, seed, rounds=rounds, quick=quick)]
    seen = [
        watch(TASKS[name].job(seed=seed, inner=inner(name, "fp32"), encoding={"kind": kind}), name, rounds=rounds)
        for seed in seeds
        for name in TASKS
        for kind in (["topk"] if quick else ["topk", "int8"])
    ]
    tracing = [tracing_cost(batch, repeats=4 if quick else 10) for batch in (8, 32)]
    return Measured(
        seeds=seeds,
        conditions=conditions(),
        rows=list(honest_rows(audits)),
        figures=figures(audits, seen, tracing),
        more={"cheats": list(cheat_rows(audits)), "every_round": [each.row() for each in seen], "tracing": tracing},
        plots=[drift(audits, precision) for precision in AUDITORS],
        spread=EXACT,
    )


def conditions() -> list[str]:
    return [
        "Real: training, traces, evidence files, their checks and replays by the product's functions; a byte GPT on tiny "
        f"Shakespeare and a CNN on MNIST's test part, {STEPS} steps an order, a state every {STRIDE}, topk with error feedback.",
        "Emulated: device classes. All on one CPU; an auditor differs by threads, by how a batch is cut, or by precision "
        "(bf16 is autocast on the CPU). GPUs drift otherwise: classes stay in shadow mode until 300 honest audits of their own.",
        "A false alarm is an honest segment that does not pass; a miss is a wrong segment that passes, under the tolerances that "
        "hold before calibration. Misses count audited segments that are wrong.",
        "An audit replays one segment of a contribution: a cheat that is wrong in one of four is seen by one audit of four "
        "(column 'seen per audit'), times the rate at which contributions are audited.",
        "Cheats are shown to the auditor that differs most: other batches for fp32, fp32 for bf16.",
        "every_round: what needs no audit. 'owned' is the share of updates that gain more on their own order's samples; 'others' "
        "the same for an update handed in for another node's order. Copies are 5 a round: as it was, halved, under noise of 10 % "
        "and 30 %, and the last aggregate.",
    ]


def inner(task: str, precision: str) -> dict[str, Any]:
    given = dict(TASKS[task].spec["inner"])
    return {**given, "steps": STEPS, "batch_size": BATCHES[task], "precision": precision}


def audited(task: str, seed: int, *, rounds: int, quick: bool) -> Iterator[Audit]:
    """All segments of an honest node's rounds by every auditor; and in its place, each cheat's wrong segments."""
    for precision in AUDITORS:
        job = TASKS[task].job(seed=seed, inner=inner(task, precision), encoding={"kind": "topk"})
        dataset = load_dataset(job.spec.data, files=job.files)
        state = NodeState(job.spec, dataset.info, device=torch.device("cpu"))
        base, before = state.params(), None
        moments, error = fresh_moments(state.count), b""
        for number in range(rounds):
            order = order_of(job, number, 0)
            start = Start(order, base, dataset, moments, error)
            show = partial(shown, start, before, task, precision)
            if number and (not quick or precision == "fp32") and (precision == "fp32" or number % 2 == 0):
                for kind, ways in CHEATS.items():
                    for how, cheat in ways.items():
                        made = cheat(start)
                        for segment in made.wrong:
                            yield show(HARDEST[precision], kind, how, made.upload, made.trace, segment, len(made.wrong))
            honest = contribute(state, order, base, dataset)
            for auditor, other in AUDITORS[precision].items():
                every = range(len(honest.trace.movements) - 1)
                for segment in every if other.threads == 1 else every[:1]:  # two threads wait for each other on a busy machine
                    yield show(auditor, "honest", "", honest.upload, honest.trace, segment, 0)
            base, before = base - honest.trace.end, honest.trace
            moments, error = honest.trace.moments[-1], honest.trace.error_after


def shown(
    start: Start, before: Trace | None, task: str, precision: str,
    auditor: str, kind: str, how: str, upload: bytes, trace: Trace, segment: int, wrong: int,
) -> Audit:  # fmt: skip
    """The node's evidence as a file, read and replayed by an auditor."""
    other = AUDITORS[precision][auditor]
    file = write_evidence(gather_evidence(trace, segment, before=before))
    torch.set_num_threads(other.threads)
    replay = replay_segment(
        start.order.model_copy(update={"spec": auditors_spec(start.order.spec, other)}), start.base, start.dataset,
        read_evidence(file, count=start.base.numel()), segment=segment, upload=upload,
        handed_in=HandedIn(trace.root(), trace.steps), before=HandedIn(before.root(), before.steps) if before else None,
        device=torch.device("cpu"),
    )  # fmt: skip
    torch.set_num_threads(1)
    judged = judge_replay(replay, Calibration(AuditClass(precision, "cpu", auditor)))
    return Audit(task, precision, auditor, kind, how, replay, judged.outcome, frozenset(reason.code for reason in judged.reasons),
                 wrong, len(file), start.base.numel())  # fmt: skip


def auditors_spec(spec: JobSpec, auditor: Auditor) -> JobSpec:
    changed: dict[str, Any] = {"micro_batch": spec.inner.batch_size // 2} if auditor.halves else {}
    changed |= {"precision": auditor.precision} if auditor.precision else {}
    return spec.model_copy(update={"inner": spec.inner.model_copy(update=changed)})


def tracing_cost(batch: int, *, repeats: int) -> dict[str, Any]:
    """CPU seconds of an order with and without a trace, in turn: the byte GPT with default config, 388,416 parameters."""
    given = {"steps": STEPS, "batch_size": batch}
    job = TASKS["text"].job(model={"architecture": "gpt"}, inner=given)
    dataset = load_dataset(job.spec.data, files=job.files)
    state = NodeState(job.spec, dataset.info, device=torch.device("cpu"))
    base, order = state.params(), order_of(job, 0, 0)
    trace = Trace(base)
    plain: list[float] = []
    traced: list[float] = []
    for repeat in range(repeats + 1):
        for seconds, on_segment in ((plain, None), (traced, (trace := Trace(base)).record)):
            started = time.process_time()
            run_local_steps(state, order, base, dataset, on_segment=on_segment)
            if on_segment:
                trace.root()
            if repeat:  # the first is a warm-up
                seconds.append(time.process_time() - started)
    size = sum(map(len, trace.movements)) + sum(map(len, trace.moments))
    bare = statistics.median(plain)
    return {
        "parameters": len(base), "batch": batch, "step_milliseconds": 1000 * bare / STEPS,
        "trace_percent": 100 * (statistics.median(traced) - bare) / bare,
        "bytes_kept_per_parameter_and_state": size / len(base) / len(borders(STEPS, STRIDE)),
    }  # fmt: skip


# Tables.


def share(hits: int, of: int) -> dict[str, float]:
    """hits / of with its exact 95 % interval."""
    low = float(stats.beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return {"value": hits / of, "low": low, "high": high}


def quantile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def honest_rows(audits: Sequence[Audit]) -> Iterator[dict[str, Any]]:
    for precision, auditors in AUDITORS.items():
        for auditor in auditors:
            for task in TASKS:
                these = [a for a in audits if (a.task, a.precision, a.auditor, a.kind) == (task, precision, auditor, "honest")]
                errors = [a.replay.error for a in these]
                yield {
                    "task": task, "precision": precision, "auditor": auditor, "audits": len(these),
                    "false_alarms": sum(a.outcome != "pass" for a in these), "failed": sum(a.outcome == "failed" for a in these),
                    "high": share(sum(a.outcome != "pass" for a in these), len(these))["high"],
                    "error_median": quantile(errors, 0.5), "error_99": quantile(errors, 0.99), "error_most": max(errors),
                    "tolerance": Calibration(AuditClass(precision, "cpu", auditor)).tolerance,
                }  # fmt: skip


def cheat_rows(audits: Sequence[Audit]) -> Iterator[dict[str, Any]]:
    whole = STEPS // STRIDE
    for kind, ways in CHEATS.items():
        for how in ways:
            for precision in AUDITORS:
                these = [a for a in audits if (a.kind, a.how, a.precision) == (kind, how, precision)]
                if not these:
                    continue
                missed = sum(a.outcome == "pass" for a in these)
                drift = [a.replay.error for a in these]
                yield {
                    "kind": kind, "how": how, "precision": precision, "audits": len(these), "missed": missed,
                    "miss_rate": missed / len(these), "high": share(missed, len(these))["high"],
                    "failed": sum(a.outcome == "failed" for a in these), "error_least": min(drift),
                    "error_median": quantile(drift, 0.5), "wrong_segments": f"{these[0].segments} of {whole}",
                    "seen_per_audit": (1 - missed / len(these)) * these[0].segments / whole,
                    "by": ", ".join(sorted({code.removeprefix("audit.") for a in these for code in a.reasons})),
                }  # fmt: skip


def drift(audits: Sequence[Audit], precision: str) -> Bars:
    """How far replays are from what was shown: median, least and most, honest and not, beside the tolerance. What is found by
    an exact check (a reversed upload) is left out."""
    bars = {}
    for kind in ("honest", *CHEATS):
        for group in sorted({a.how or f"honest: {a.auditor}" for a in audits if a.kind == kind}):
            these = [
                a.replay.error for a in audits
                if (a.precision, a.kind, a.how or f"honest: {a.auditor}") == (precision, kind, group)
                and "audit.wrong_upload" not in a.reasons
            ]  # fmt: skip
            if these:
                bars[group] = (quantile(these, 0.5), min(these), max(these))
    tolerance = Calibration(AuditClass(precision, "cpu", "")).tolerance
    return Bars(title=f"{precision}: replayed segments ({tolerance} tolerated)", x="relative L2 distance", bars=bars, log="x")


def figures(audits: Sequence[Audit], seen: Sequence[Seen], tracing: Sequence[dict[str, Any]]) -> dict[str, Figure]:
    honest = [a for a in audits if a.kind == "honest"]
    found = {
        "false_alarm_rate": Figure(unit="of honest segments", **share(sum(a.outcome != "pass" for a in honest), len(honest))),
        "false_failure_rate": Figure(unit="of honest segments", **share(sum(a.outcome == "failed" for a in honest), len(honest))),
        "honest_audits": Figure(value=len(honest), unit="segments", goal=300),
    }
    names = {"lazy": "lazy_10_percent", "copied": "copied", "other data": "other_data", "poisoned": "poisoned"}
    for kind, name in names.items():
        these = [a for a in audits if a.kind == kind]
        missed = sum(a.outcome == "pass" for a in these)
        found[f"miss_rate_{name}"] = Figure(unit="of wrong segments", **share(missed, len(these)))
    for name, unit, hits, of in (
        ("ownership_honest_share", "of honest updates", sum(s.owned for s in seen), sum(s.updates for s in seen)),
        ("ownership_other_share", "of updates for another order", sum(s.others for s in seen), sum(s.strangers for s in seen)),
        ("copy_false_alarm_rate", "of honest updates", sum(s.taken_for_copies for s in seen), sum(s.updates for s in seen)),
        ("copy_miss_rate", "of copies", sum(s.copies - s.found for s in seen), sum(s.copies for s in seen)),
    ):
        found[name] = Figure(unit=unit, **share(hits, of))
    default = tracing[-1]
    sizes = [a.evidence_bytes / a.parameters for a in honest]
    found["evidence_bytes_per_parameter"] = Figure(value=statistics.fmean(sizes), unit="bytes", low=min(sizes), high=max(sizes))
    found["trace_overhead_percent"] = Figure(value=default["trace_percent"], unit="% of an order's CPU time", goal=GOAL_OVERHEAD)
    return found
