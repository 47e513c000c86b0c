"""Who would train a job, when would it end, what would it cost: the choice of operators, local steps and density.

Each option is planned as a round would be (`policy.plan_round`), which gives a round's seconds and price; how many rounds the
target takes is `curve.py`'s, and how that changes with the work of a round is a model, said as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from trainer.network.curve import Rounds, rounds_to_target
from trainer.network.encodings import ladder, named
from trainer.network.facts import NodeFacts, Reason
from trainer.network.policy import DEFAULTS, Plan, Settings, plan_round
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import JobSpec, parse_spec

Goal = Literal["time", "price"]
STEPS = (0.5, 1.0, 2.0)
"""Multiples of the job's local steps that are weighed when the job is still to be written."""
WORTH_A_CHANGE = 0.05
"""Part of the time or the price that a change of the specification has to save before it is advised."""
WIDE = 1.28
"""Standard deviations from the expected end of a round to the ends of its span: eight of ten rounds end within."""
SIZES = 8
"""Numbers of nodes that are weighed at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """An expected value between `low` and `high` (None: no end known)."""

    expected: float
    low: float
    high: float | None


NOTHING = Span(expected=0.0, low=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Nodes for a job, its specification (changed only where `changes` says so), the plan of its next round, and what that
    comes to: `round_s` seconds a round, eight of ten within the span, and `round_price` base units, `rounds`, `seconds` and
    `price` from now to the target.
    `in_time`: whether it is expected to be there by the deadline, None without one."""

    nodes: tuple[int, ...]
    spec: JobSpec
    changes: tuple[str, ...]
    plan: Plan
    round_s: Span
    round_price: int
    rounds: Span
    seconds: Span
    price: Span
    in_time: bool | None
    reasons: tuple[Reason, ...]


def propose(
    facts: Sequence[NodeFacts], spec: JobSpec, *, count: int, goal: Goal, seen: Sequence[tuple[int, float]] = (),
    deadline_s: float | None = None, scale: float = 1.0, overhead: Span = NOTHING, free: bool = False,
    settings: Settings = DEFAULTS,
) -> list[Proposal]:  # fmt: skip
    """Proposals, the best for `goal` first; none if fewer than the quorum are there. Those that are expected to miss
    `deadline_s` (seconds from now) come after all that meet it, the soonest first.

    `facts` are the nodes that could be had, with their rates. `seen`: (rounds done, value of the target's metric) of this job
    so far. `overhead`: seconds between two rounds. `free`: the job is still to be written, so that local steps, density, nodes
    and rounds may change too. Price is what full quality would be paid: the most.
    """
    quorum = min(spec.rounds.quorum, len(facts))
    if not facts or quorum < spec.rounds.quorum:
        return []
    own = rounds_to_target(spec, seen)
    done = len(seen)
    found = []
    for option, changes in options(spec, free=free):
        for chosen in subsets(facts, least=quorum, most=spec.rounds.nodes):
            plan = plan_round(chosen, option, count=count, scale=scale, settings=settings)
            if len(plan.parts) >= quorum:
                made = proposal(
                    chosen, option, changes, plan, own, spec, done=done, overhead=overhead, goal=goal, deadline_s=deadline_s
                )
                found += written(made, spec) if free else [made]
    ordered = sorted(found, key=lambda one: (*worth(one, goal), len(one.changes), one.nodes))
    as_written = next((one for one in ordered if not one.changes), None)
    if as_written is not None and gains_little(ordered[0], as_written, goal):
        ordered.remove(as_written)
        ordered.insert(0, as_written)
    return ordered


def gains_little(best: Proposal, other: Proposal, goal: Goal) -> bool:
    """A change that brings less than `WORTH_A_CHANGE` is within what such a prediction is off by."""
    (late, least, _), (other_late, most, _) = worth(best, goal), worth(other, goal)
    return late == other_late and most <= least * (1 + WORTH_A_CHANGE)


def worth(one: Proposal, goal: Goal) -> tuple[bool, float, float]:
    """The least is the best."""
    late, seconds, price = one.in_time is False, one.seconds.expected, one.price.expected
    return (late, seconds, price) if late or goal == "time" else (late, price, seconds)


def written(one: Proposal, spec: JobSpec) -> list[Proposal]:
    """With as many rounds and nodes in the specification as the proposal expects: a job does what is written. None where that
    may not be written, being more rounds or local steps than a job can have."""
    said = {"rounds": max(math.ceil(one.rounds.expected), 1), "nodes": len(one.nodes)}
    document = one.spec.model_dump(mode="json")
    try:
        found = parse_spec(document | {"rounds": document["rounds"] | said})
    except HyperGPUError:
        return []
    changes = [f"rounds.{name} {value}" for name, value in said.items() if value != getattr(spec.rounds, name)]
    return [replace(one, spec=found, changes=(*one.changes, *changes))]


def options(spec: JobSpec, *, free: bool) -> Iterator[tuple[JobSpec, tuple[str, ...]]]:
    """The job as it is; if it is `free`, also with other local steps and the next smaller encodings."""
    encodings = ladder(spec.encoding)[:3] if free else [spec.encoding]
    for part in STEPS if free else (1.0,):
        steps = max(1, round(part * spec.inner.steps))
        for encoding in encodings:
            changes = [f"inner.steps {steps}"] * (steps != spec.inner.steps)
            changes += [f"encoding {named(encoding)}"] * (encoding != spec.encoding)
            inner = spec.inner.model_copy(update={"steps": steps})
            yield spec.model_copy(update={"inner": inner, "encoding": encoding}), tuple(changes)


def subsets(facts: Sequence[NodeFacts], *, least: int, most: int) -> list[list[NodeFacts]]:
    """The cheapest, and the fastest, of each of a few numbers of nodes."""
    by_price = sorted(facts, key=lambda fact: (fact.rate, -fact.samples_per_second.value, fact.node_id))
    by_speed = sorted(facts, key=lambda fact: (-fact.samples_per_second.value, fact.rate, fact.node_id))
    top = min(most, len(facts))
    sizes = sorted({least + (top - least) * place // (SIZES - 1) for place in range(SIZES)})
    found = {tuple(sorted(fact.node_id for fact in order[:size])) for order in (by_price, by_speed) for size in sizes}
    by_node = {fact.node_id: fact for fact in facts}
    return [[by_node[node] for node in nodes] for nodes in sorted(found)]


def proposal(
    chosen: Sequence[NodeFacts], spec: JobSpec, changes: tuple[str, ...], plan: Plan, own: Rounds, job: JobSpec,
    *, done: int, overhead: Span, goal: Goal, deadline_s: float | None = None,
) -> Proposal:  # fmt: skip
    rates = {fact.node_id: fact.rate for fact in chosen}
    work = {node: part.steps * spec.inner.batch_size for node, part in plan.parts.items()}
    round_s = lasting(plan, overhead)
    round_price = sum(samples * rates[node] for node, samples in work.items())
    share = sum(work.values()) / (job.rounds.nodes * job.units_per_round)
    rounds = remaining(own, done=done, share=share)
    seconds = product(rounds, round_s)
    reasons = [
        Reason(
            code="planner.rounds",
            text=f"{own.basis} With {share:.0%} of the work that the job's own round holds, {rounds.expected:.0f} rounds are "
            f"expected ({said(rounds)}): fewer the more each holds, but not in proportion (a model: R * (1 + 1 / share) / 2).",
        ),
        Reason(
            code=f"planner.{goal}",
            text=f"{len(plan.parts)} nodes take {round_s.expected:.1f} s (eight times of ten {round_s.low:.1f} to "
            f"{round_s.high:.1f} s) and at most {round_price} base units a round, about {seconds.expected:.0f} s and "
            f"{rounds.expected * round_price:.0f} base units to the target.",
        ),
    ]
    if deadline_s is not None:
        reasons.append(Reason(code="planner.deadline", text=against(deadline_s, seconds)))
    return Proposal(
        nodes=tuple(sorted(plan.parts)), spec=spec, changes=changes, plan=plan, round_s=round_s, round_price=round_price,
        rounds=rounds, seconds=seconds, reasons=tuple(reasons),
        price=product(rounds, Span(expected=round_price, low=round_price, high=round_price)),
        in_time=None if deadline_s is None else seconds.expected <= deadline_s,
    )  # fmt: skip


def forecast(
    facts: Sequence[NodeFacts], spec: JobSpec, *, count: int, overhead: Span = NOTHING, settings: Settings = DEFAULTS
) -> Proposal | None:  # fmt: skip
    """What all rounds of a job as it is written come to with the nodes that it has; None if none of them can take part."""
    plan = plan_round(facts, spec, count=count, settings=settings)
    if not plan.parts:
        return None
    return proposal(facts, spec, (), plan, rounds_to_target(spec, []), spec, done=0, overhead=overhead, goal="time")


def against(deadline_s: float, seconds: Span) -> str:
    """What the deadline says to these seconds."""
    spare = deadline_s - seconds.expected
    if spare < 0:
        return f"It is expected {-spare:.0f} s after the deadline: too late."
    if seconds.high is None:
        return f"It is expected {spare:.0f} s before the deadline, but nothing bounds how long it may take."
    worst = f"{abs(seconds.high - deadline_s):.0f} s {'after' if seconds.high > deadline_s else 'before'} it"
    return f"It is expected {spare:.0f} s before the deadline, at the worst {worst}."


def remaining(own: Rounds, *, done: int, share: float) -> Span:
    """Rounds from now on when each does `share` of the work of the job's own.

    Data parallelism takes R_least * (1 + B_critical / B) steps with batch B (McCandlish et al., arXiv:1812.06162). Where a
    job's own round stands is not known: halfway is expected; that only rounds count, or only samples, are the bounds.
    """
    left = max(own.expected - done, 0.0)
    few, many = sorted((1.0, 1 / share))
    return Span(
        expected=left * (1 + 1 / share) / 2, low=max(own.low - done, 0.0) * few,
        high=None if own.high is None else max(own.high - done, 0.0) * many,
    )  # fmt: skip


def lasting(plan: Plan, overhead: Span) -> Span:
    """Seconds from one round's opening to the next one's: as the predictions of those that it waits for are in doubt, until it
    would close without them at the most."""
    expected = plan.expected_s or 0.0
    parts = [one for node in plan.awaited if (one := plan.parts[node].predicted) is not None]
    low, high = (max((one.total_s + wide * one.doubt_s for one in parts), default=expected) for wide in (-WIDE, WIDE))
    high = high if plan.deadline_s is None else min(high, plan.deadline_s)
    own = Span(expected=expected, low=min(max(low, 0.0), expected), high=max(high, expected))
    return Span(
        expected=own.expected + overhead.expected, low=own.low + overhead.low, high=(own.high or 0.0) + (overhead.high or 0.0)
    )


def product(one: Span, other: Span) -> Span:
    high = None if one.high is None or other.high is None else one.high * other.high
    return Span(expected=one.expected * other.expected, low=one.low * other.low, high=high)


def said(span: Span) -> str:
    return f"{span.low:.0f} to {span.high:.0f}" if span.high is not None else f"at least {span.low:.0f}, no upper bound"
