"""What rounds take beside links and steps: as it was measured here, else what is assumed; and which of the two it is."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from marketplace.jobs.models import Job
from marketplace.training.models import Assignment, Round
from trainer.network.facts import NodeFacts, Reason
from trainer.network.planner import WIDE, Span
from trainer.network.policy import GUESSED
from trainer.protocol.spec import JobSpec
from trainer.scoring.effort import LEAST_SAMPLES, TRAINING_PASSES, affordable

NEWEST = 5
"""Orders of a node that say what it takes beside link and steps: the coordinator's load changes faster than a node's manners."""
MEMORY = 16
"""Rounds, and orders of any node, that say what they take here."""
WAITING = Span(expected=1.0, low=0.2, high=5.0)
"""Seconds of a part beside link and steps where no order was ever measured: hearing of it, loading, a machine that does more than
this. Assumed: rounds of the demo took 0.8 to 3 s more than links and steps explain, on two cores that everything shared."""
CLOSING = Span(expected=0.3, low=0.1, high=2.0)
"""Seconds of a round's close beside judging where none was measured."""
UNSURE = 3.0
"""Judging as it is computed may be wrong by this factor: the machine does other work, or attests too."""

Basis = Literal["nodes", "others", "assumed"]
"""Each of the nodes has kept orders; others have; nobody has, here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overheads:
    """Facts with what each node's part is expected to take beside link and steps, seconds `between` two rounds, what these rest
    on, and that in words."""

    facts: list[NodeFacts]
    between: Span
    basis: Basis
    reason: Reason


def expected(facts: Sequence[NodeFacts], spec: JobSpec) -> Overheads:
    """For nodes that have done nothing in a job of `spec` yet."""
    slots: dict[int, list[Assignment]] = {fact.node_id: [] for fact in facts}
    measured = Assignment.objects.filter(origin=None, predicted__isnull=False, actual__isnull=False).order_by("-id")
    for slot in measured.filter(node_id__in=slots)[: NEWEST * len(slots)]:
        slots[slot.node_id].append(slot)
    known = {node: found for node, past in slots.items() if (found := unexplained(past)[:NEWEST])}
    others = [] if len(known) == len(slots) else unexplained(list(measured[:MEMORY]))
    usual = span_of(others) or WAITING
    spans = {fact.node_id: span_of(known.get(fact.node_id, [])) or usual for fact in facts}
    between = between_rounds()
    basis: Basis = "nodes" if len(known) == len(slots) else "others" if others else "assumed"
    return Overheads(
        facts=[
            replace(fact, overhead_s=span.expected, overhead_doubt_s=((span.high or 0.0) - span.low) / (2 * WIDE))
            for fact in facts for span in [spans[fact.node_id]]
        ],
        between=between or judging(facts, spec), basis=basis, reason=reason_of(basis, usual, between, judging(facts, spec)),
    )  # fmt: skip


def reason_of(basis: Basis, usual: Span, between: Span | None, judged: Span) -> Reason:
    nodes = {
        "nodes": "What these nodes' newest orders took beside link and steps is expected again.",
        "others": f"Not all of these nodes have kept an order yet: as others did here, a part is expected to take {said(usual)} "
        "beside link and steps.",
        "assumed": f"Nobody has measured these nodes yet: a part is assumed to take {said(usual)} beside link and steps.",
    }[basis]
    close = f"Rounds here took {said(between)} to close." if between else (
        f"No round has closed here yet: {said(judged)} are assumed, by how fast the model is evaluated and how much is judged."
    )  # fmt: skip
    return Reason(code=f"planner.{basis}", text=f"{nodes} {close}")


def said(span: Span) -> str:
    return f"{span.expected:.1f} s ({span.low:.1f} to {span.high:.1f} s)"


# What was measured.


def between_rounds() -> Span | None:
    """Seconds that the newest rounds of all jobs took from their close to their next version; None before the first."""
    ended = Round.objects.filter(closed_at__isnull=False, aggregated_at__isnull=False).order_by("-id")[:MEMORY]
    return span_of([(one.aggregated_at - one.closed_at).total_seconds() for one in ended if one.aggregated_at and one.closed_at])


def span_of(seconds: Sequence[float]) -> Span | None:
    """The median, and about eight of ten around it; one value alone may be wrong by half."""
    if not seconds:
        return None
    middle = max(statistics.median(seconds), 0.0)
    apart = WIDE * statistics.stdev(seconds) if len(seconds) > 1 else middle / 2
    return Span(expected=middle, low=max(middle - apart, 0.0), high=middle + apart)


def overhead(slots: Sequence[Assignment]) -> float:
    """Median seconds of the newest rounds, beside computing, that link and machine did not explain."""
    left = unexplained(slots)[:NEWEST]
    return max(statistics.median(left), 0.0) if left else 0.0


def unexplained(slots: Sequence[Assignment]) -> list[float]:
    return [beside(actual) - beside(predicted) + predicted.get("overhead_s", 0.0) for predicted, actual in both_known(slots)]


def both_known(slots: Sequence[Assignment]) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Predicted and actual seconds, where there are both, newest first. What was predicted from assumed measures says nothing
    of a node whose link is measured since."""
    return [(slot.predicted, slot.actual) for slot in slots if slot.predicted and slot.actual and not was_assumed(slot)]


def was_assumed(slot: Assignment) -> bool:
    return any(reason["code"] == GUESSED for reason in slot.reasons)


def beside(phases: Mapping[str, float]) -> float:
    """Seconds beside computing."""
    return phases["fetch_s"] + phases["upload_s"]


def total(phases: Mapping[str, float]) -> float:
    return phases["fetch_s"] + phases["compute_s"] + phases["upload_s"]


# What is assumed.


def judging(facts: Sequence[NodeFacts], spec: JobSpec) -> Span:
    """Seconds of a round's close before one was measured: as many forward passes as judging is given (ADR 36), as fast as this
    machine has evaluated the model, or else as the nodes would."""
    trained = spec.units_per_round * len(facts)
    passes = max(LEAST_SAMPLES * (len(facts) + 1), affordable(trained)) + affordable(trained)
    alike = {f"spec__{name}": spec.model_dump(mode="json")[name] for name in ("model", "data")}
    newest = Job.objects.filter(evaluation_rate__isnull=False, **alike).order_by("-id").first()
    rate = newest.evaluation_rate if newest else None
    if rate is None:
        rate = TRAINING_PASSES * statistics.median([fact.samples_per_second.value for fact in facts] or [1.0])
    seconds = passes / rate if rate > 0 else 0.0
    return Span(
        expected=CLOSING.expected + seconds, low=CLOSING.low + seconds / UNSURE, high=(CLOSING.high or 0.0) + UNSURE * seconds
    )
