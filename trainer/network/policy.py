"""Who does what in a round: from what is known of each node to its steps, its encoding, and the round's end. Pure arithmetic,
the same for the live coordinator and for the virtual clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trainer.network.ahead import Ahead as Ahead
from trainer.network.ahead import lead, transfer_seconds, within
from trainer.network.encodings import Choice, file_sizes, fitting
from trainer.network.facts import Measure, NodeFacts
from trainer.network.facts import Reason as Reason
from trainer.network.health import HealthSettings, Standing, assess
from trainer.network.predict import Prediction as Prediction
from trainer.network.predict import best_close, predict
from trainer.network.regions import Route, fed, routes
from trainer.network.steps import Pace, Share, common_end, finish_together, shares
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.protocol.wire import encoded_bytes

MICRO = 1_000_000
SEVERAL_ROUNDS = "steps.several_rounds"
"""Code of the reason for a part that its round does not wait for."""
UNTRIED = ("assumed", "benchmark")
"""Sources of a speed that no order has confirmed."""
GUESSED = "facts.assumed"
"""Code of the reason for a prediction from measures that nobody has taken."""
OLD_S = 1800.0
"""Age from which a measure excludes nobody any more."""
LATE_SHARE = 0.5
"""Late work takes its node's slot in the next round too: it is one round's work in two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """`upload_share`: part of a round's computing that sending up may take before a smaller encoding is chosen; `hidden_share`:
    where the next round's steps go on meanwhile (`network.overlap` eager) and a smaller file gains no time, the part of what the
    outer step leaves of it. The rest is for the coordinator, and for what nodes and rounds differ by. `deadline_share`: part of
    the job's deadline by which all are planned to be done. `gather`: whether uploads may go by way of near nodes."""

    upload_share: float = 0.1
    hidden_share: float = 0.75
    deadline_share: float = 0.8
    gather: bool = True
    health: HealthSettings = field(default_factory=HealthSettings)


DEFAULTS = Settings()


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One node's part of a round. `rounds` more than 1: it is for so many rounds, and the first ones are not to wait for it.
    `via`: the node by way of which its upload goes, None for direct."""

    steps: int
    encoding: EncodingSpec
    rounds: int = 1
    via: int | None = None
    predicted: Prediction | None = None
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Late:
    """Late work that a round takes and waits for: what is left of it as the round opens, its worth in local steps of this round,
    and the chance (0..1) that its node hands in."""

    left: Prediction
    worth: float
    reliability: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A round: each node's part; closed when all `awaited` have come, and late work, or after `deadline_s` (None: never) with
    `quorum` contributions. `expected_s`: mean length of such rounds; `predicted_s`: of this one, when the last that it waits for
    is expected, or it closes without. `excluded` says why a node has no part. `gathers`: near nodes carry for each other."""

    parts: dict[int, Part]
    quorum: int
    deadline_s: float | None
    excluded: dict[int, Reason] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    expected_s: float | None = None
    predicted_s: float | None = None
    gathers: bool = False

    @property
    def awaited(self) -> frozenset[int]:
        """Nodes with which all have come."""
        return frozenset(node for node, part in self.parts.items() if part.rounds == 1)


def plain(facts: Sequence[NodeFacts], spec: JobSpec) -> Plan:
    """DiLoCo as published: equal steps, the job's encoding, everybody is waited for."""
    part = Part(steps=spec.inner.steps, encoding=spec.encoding)
    return Plan(parts={fact.node_id: part for fact in facts}, quorum=len(facts), deadline_s=None)


def plan_round(
    facts: Sequence[NodeFacts], spec: JobSpec, *, count: int, scale: float = 1.0,
    before: Mapping[int, EncodingSpec] | None = None, standings: Mapping[int, Standing] | None = None,
    fetch_bytes: Mapping[int, float] | None = None, ahead: Mapping[int, Ahead] | None = None,
    limits: Mapping[int, int] | None = None, budget: int | None = None, number: int = 0,
    late: Mapping[int, Late] | None = None, settings: Settings = DEFAULTS,
) -> Plan:  # fmt: skip
    """The next round of a job with `count` parameters for the nodes of `facts`, as `spec.network` wants it. Fragments in turn are
    taken to be of equal size.

    `before`: encodings of each node's last order. `standings`: health of nodes that have a history in the job. `fetch_bytes`:
    what a node has to fetch before it can begin, where it is not the last outer step. `ahead`: who has begun already, so that its
    transfers cost nothing. `number` of the round: no part lasts beyond the job's last one. `late` work of other nodes ends in
    this round too. `scale` multiplies the bytes of files on emulated links. `limits` are steps that a node may be given at most,
    for the capacity that it sold. The steps of a plan sum up to `spec.inner.steps` times its nodes at most, and to `budget`.
    """
    limits, late, ahead = limits or {}, late or {}, ahead or {}
    whole, count = count, math.ceil(count / spec.network.fragments)
    down = scale * encoded_bytes(count, spec.downlink)
    fetches = {fact.node_id: (fetch_bytes or {}).get(fact.node_id, down) for fact in facts}
    if spec.network.policy == "equal":
        return equal(facts, spec, fetches=fetches, upload=scale * encoded_bytes(count, spec.encoding), limits=limits, late=late)
    taking, levels, excluded = participants(facts, spec, standings or {}, settings)
    if not taking:
        return Plan(parts={}, quorum=0, deadline_s=float(spec.rounds.deadline_seconds), excluded=excluded)
    computing = computing_seconds(taking, spec)
    usual = {fact.node_id: scale * encoded_bytes(count, (before or {}).get(fact.node_id, spec.encoding)) for fact in taking}
    ways = routes(taking, sizes=usual) if settings.gather else {}
    steps_fetched = [fact for fact in taking if fetches[fact.node_id] == down]
    fed_at = fed(steps_fetched, {way.via for way in ways.values() if way.via is not None}, size=down) if settings.gather else {}
    taking = [
        replace(fact, up=ways[fact.node_id].up if fact.node_id in ways else fact.up, down=fed_at.get(fact.node_id, fact.down))
        for fact in taking
    ]
    sizes = file_sizes(spec.encoding, count=count, scale=scale)
    choices = {
        fact.node_id: fitting(
            fact, spec.encoding, sizes=sizes, budget_s=sending_seconds(fact, spec, computing, outer_step=down, settings=settings),
            before=(before or {}).get(fact.node_id),
        )
        for fact in taking
    }  # fmt: skip
    uploads = {node: scale * encoded_bytes(count, choice.encoding) for node, choice in choices.items()}
    leads = {
        fact.node_id: lead(fact, spec, begun, fetch=fetches[fact.node_id])
        for fact in taking if (begun := ahead.get(fact.node_id)) is not None
    }  # fmt: skip
    most = len(taking) * spec.inner.steps
    steps = steps_of(
        taking, spec, levels, number=number, fetches=fetches, uploads=uploads, leads=leads, limits=limits,
        settings=settings, missed=down, behind=max(scale * 4 * whole - down, 0.0),
        budget=most if budget is None else min(most, budget),
    )  # fmt: skip
    parts = {
        fact.node_id: part_of(
            fact, spec, steps[fact.node_id], choices[fact.node_id], levels[fact.node_id], route=ways.get(fact.node_id),
            fetch=fetches[fact.node_id], upload=uploads[fact.node_id],
            lead_s=leads[fact.node_id].seconds if fact.node_id in leads else 0.0,
        )
        for fact in taking
    }  # fmt: skip
    for fact in taking:
        if steps[fact.node_id].hopeless and is_known(fact):
            excluded[fact.node_id] = too_slow(parts.pop(fact.node_id), spec, is_last=number + 1 >= spec.rounds.rounds)
    parts = {node: replace(part, via=part.via if part.via in parts else None) for node, part in parts.items()}
    return replace(closing(parts, taking, spec, excluded, late), gathers=settings.gather)


def equal(
    facts: Sequence[NodeFacts], spec: JobSpec, *, fetches: Mapping[int, float], upload: float, limits: Mapping[int, int],
    late: Mapping[int, Late],
) -> Plan:  # fmt: skip
    """The same for all, with the job's own deadline and quorum; what it will take is predicted all the same."""
    reason = Reason(code="policy.equal", text=f"The job asks for equal parts: {spec.inner.steps} local steps for every node.")
    parts = {
        fact.node_id: Part(
            steps=min(spec.inner.steps, limits.get(fact.node_id, spec.inner.steps)), encoding=spec.encoding,
            reasons=(reason, *guesses(fact)),
            predicted=predict(fact, samples=spec.units_per_round, fetch_bytes=fetches[fact.node_id], upload_bytes=upload)
            if has_link(fact) else None,
        )
        for fact in facts
    }  # fmt: skip
    deadline_s = float(spec.rounds.deadline_seconds)
    return Plan(
        parts=parts, quorum=min(spec.rounds.quorum, len(parts)), deadline_s=deadline_s, reasons=(reason,),
        predicted_s=last_end(awaited_of(parts, late), deadline_s),
    )  # fmt: skip


def has_link(fact: NodeFacts) -> bool:
    return min(fact.samples_per_second.value, fact.up.value, fact.down.value) > 0


def is_known(fact: NodeFacts) -> bool:
    """Whether its link and speed were measured, and lately: what is old, or a way by a near node that nobody took, is tried."""
    measures = (fact.samples_per_second, fact.up, fact.down)
    return all(one.source not in ("assumed", "peer") and one.age_s < OLD_S for one in measures)


def too_slow(part: Part, spec: JobSpec, *, is_last: bool) -> Reason:
    predicted = f"{part.predicted.total_s:.1f} s" if part.predicted else "too long"
    more = "no round follows this one."
    if not is_last:
        more = (
            f"over more of them (late work counts for {spec.network.most_stale}) it would not bring what catching up costs. "
            "It is tried again when its measures are old."
        )
    text = f"Its least part of {part.steps} local steps would take {predicted}: too long for the others' round, and {more}"
    return Reason(code="node.too_slow", text=text)


def participants(
    facts: Sequence[NodeFacts], spec: JobSpec, standings: Mapping[int, Standing], settings: Settings
) -> tuple[list[NodeFacts], dict[int, Standing], dict[int, Reason]]:
    """Nodes that take part, every node's standing, and why the others do not. A quorum is never given up for health."""
    linked = sorted((fact for fact in facts if has_link(fact)), key=lambda fact: fact.node_id)
    silent = Reason(code="node.no_link", text="Nothing goes through to it, or it computes nothing.")
    excluded = {fact.node_id: silent for fact in facts if not has_link(fact)}
    if not linked:
        return [], {}, excluded
    median = statistics.median(fact.samples_per_second.value for fact in linked)
    levels = {
        fact.node_id: standings.get(fact.node_id) or assess(fact, None, round=0, median_speed=median, settings=settings.health)
        for fact in linked
    }
    best_first = sorted(linked, key=lambda fact: (levels[fact.node_id].level == "excluded", -levels[fact.node_id].score))
    healthy = sum(levels[fact.node_id].level != "excluded" for fact in linked)
    taking = best_first[: max(healthy, min(spec.rounds.quorum, len(linked)))]
    chosen = {fact.node_id for fact in taking}
    excluded |= {fact.node_id: levels[fact.node_id].reason for fact in linked if fact.node_id not in chosen}
    return sorted(taking, key=lambda fact: fact.node_id), levels, excluded


def computing_seconds(facts: Sequence[NodeFacts], spec: JobSpec) -> float:
    """Seconds of a round in which the nodes together do everybody's local steps and nothing else."""
    return len(facts) * spec.units_per_round / math.fsum(believed_speeds(facts))


def believed_speeds(facts: Sequence[NodeFacts]) -> list[float]:
    """Samples/s of each node. One that is not tried counts up to the median of those that are (of all, if none is): no claim
    makes the round short for the others."""
    speeds = [fact.samples_per_second for fact in facts]
    cap = statistics.median([speed.value for speed in speeds if is_tried(speed)] or [speed.value for speed in speeds])
    return [speed.value if is_tried(speed) else min(speed.value, cap) for speed in speeds]


def is_tried(speed: Measure) -> bool:
    """Whether the coordinator saw an order done at it."""
    return speed.source not in UNTRIED and not speed.claimed


def is_on_trial(speed: Measure) -> bool:
    """Whether it is in doubt by half and no order has confirmed it."""
    return not is_tried(speed) and speed.doubt >= 0.5


def steps_of(
    facts: Sequence[NodeFacts], spec: JobSpec, levels: Mapping[int, Standing], *, number: int,
    fetches: Mapping[int, float], uploads: Mapping[int, float], leads: Mapping[int, Ahead], limits: Mapping[int, int],
    budget: int, missed: float, behind: float, settings: Settings,
) -> dict[int, Share]:  # fmt: skip
    """Local steps by node: all finish together, within the bounds of the job and of each node's standing. `missed`: bytes that a
    node fetches more for each version that it has missed, `behind` at most.

    While a speed is on trial its node has no more than the job's own steps. What it might do beyond is not given to slower ones:
    the round ends when all would be done if everybody had a part by the speed that is believed. Who has a lead has no fewer
    steps, as far as the budget goes: an order of fewer throws them all away.
    """
    steps = spec.inner.steps
    least, most = math.ceil(spec.network.least_steps * steps), math.floor(spec.network.most_steps * steps)
    transfers = transfer_seconds(facts, fetches=fetches, uploads=uploads, leads=leads)
    kept = within({node: one.steps for node, one in leads.items()}, spare=budget - least * len(facts), least=least)

    def pace_of(fact: NodeFacts, speed: float, most: int) -> Pace:
        level, sold = levels[fact.node_id].level, limits.get(fact.node_id, most)
        done = min(kept.get(fact.node_id, 0), sold)
        limit = {"low": max(least, math.ceil(settings.health.low_steps * steps))}.get(level, most)
        return Pace(
            transfer_us=round(MICRO * transfers[fact.node_id]), step_us=max(1, round(MICRO * spec.inner.batch_size / speed)),
            least=min(least, sold), done=done,
            most=max(min(least if level in ("probation", "excluded") else min(limit, most), sold), done),
            missed_us=round(MICRO * missed / fact.down.value), behind_us=round(MICRO * behind / fact.down.value),
        )  # fmt: skip

    limit_us = round(MICRO * settings.deadline_share * spec.rounds.deadline_seconds)
    if any(is_on_trial(fact.samples_per_second) for fact in facts):
        believed = [pace_of(fact, speed, most) for fact, speed in zip(facts, believed_speeds(facts), strict=True)]
        limit_us = min(limit_us, common_end(believed, finish_together(believed, budget=budget, limit_us=limit_us)))
    paces = [
        pace_of(fact, fact.samples_per_second.value, max(steps, least) if is_on_trial(fact.samples_per_second) else most)
        for fact in facts
    ]
    if not spec.network.most_stale:
        found = [Share(steps=one) for one in finish_together(paces, budget=budget, limit_us=limit_us)]
    else:
        found = shares(
            paces, budget=budget, limit_us=limit_us, discount=spec.network.stale_discount,
            most_rounds=max(1, min(spec.network.most_stale + 1, spec.rounds.rounds - number)),
            fewest=min(max(spec.rounds.quorum, math.ceil(len(facts) / 2)), len(facts)),
        )  # fmt: skip
    return {fact.node_id: share for fact, share in zip(facts, found, strict=True)}


def sending_seconds(fact: NodeFacts, spec: JobSpec, computing: float, *, outer_step: float, settings: Settings) -> float:
    """Seconds that a node's upload may take where a round computes for `computing` seconds and an outer step has `outer_step`
    bytes. Sending, the round's close and fetching all hide behind the next steps or none does: the upload is to leave room."""
    least = settings.upload_share * computing
    if spec.network.overlap != "eager":
        return least
    fetching = fact.rtt_s.value + outer_step / fact.down.value + fact.overhead_s
    return max(least, settings.hidden_share * (computing - fetching))


def part_of(
    fact: NodeFacts, spec: JobSpec, share: Share, choice: Choice, standing: Standing,
    *, fetch: float, upload: float, lead_s: float = 0.0, route: Route | None = None,
) -> Part:  # fmt: skip
    samples = share.steps * spec.inner.batch_size
    predicted = predict(fact, samples=samples, fetch_bytes=fetch, upload_bytes=upload, lead_s=lead_s)
    reasons = [share_reason(fact, spec, share, predicted), choice.reason, *([route.reason] if route else [])]
    if standing.level not in ("high", "normal"):
        reasons.append(standing.reason)
    return Part(
        steps=share.steps, encoding=choice.encoding, rounds=share.rounds, predicted=predicted, reasons=(*reasons, *guesses(fact)),
        via=route.via if route else None,
    )  # fmt: skip


def guesses(fact: NodeFacts) -> list[Reason]:
    """That a prediction is from measures that nobody has taken."""
    names = [name for name in ("samples_per_second", "up", "down", "rtt_s") if getattr(fact, name).source == "assumed"]
    text = f"Nobody has measured its {', '.join(names)} yet: assumed, and predicted with a wide margin."
    return [Reason(code=GUESSED, text=text)] if names else []


def share_reason(fact: NodeFacts, spec: JobSpec, share: Share, predicted: Prediction) -> Reason:
    own, steps = spec.inner.steps, share.steps
    least, most = math.ceil(spec.network.least_steps * own), math.floor(spec.network.most_steps * own)
    bounds = {
        least: ("steps.least", " That is the least it may be given."),
        most: ("steps.most", " That is the most it may be given."),
    }
    code, bound = bounds.get(steps, ("steps.together", ""))
    speed = fact.samples_per_second
    text = (
        f"{steps} local steps where {own} are the job's: at {speed.value:.3g} samples/s ({speed.source}) they take "
        f"{predicted.compute_s:.1f} s and transfers {predicted.fetch_s + predicted.upload_s:.1f} s, so it ends after "
        f"{predicted.total_s:.1f} s.{bound}"
    )
    if share.rounds > 1:
        worth = 1 / (1 + spec.network.stale_discount * (share.rounds - 1))
        text += f" It synchronises every {share.rounds} rounds, since the others are done sooner; each sample counts {worth:.0%}."
        code = SEVERAL_ROUNDS
    return Reason(code=code, text=text)


def closing(
    parts: dict[int, Part], facts: Sequence[NodeFacts], spec: JobSpec, excluded: dict[int, Reason], late: Mapping[int, Late]
) -> Plan:
    """The plan with its quorum (two thirds, and the job's at least) and its deadline."""
    predicted = awaited_of(parts, late)
    quorum = min(max(spec.rounds.quorum, math.ceil(2 * len(predicted) / 3)), len(predicted))
    close = best_close(
        predicted, {node: float(part.steps) for node, part in parts.items()} | {node: one.worth for node, one in late.items()},
        {fact.node_id: fact.reliability for fact in facts} | {node: one.reliability for node, one in late.items()},
        late_worth=LATE_SHARE / (1 + spec.network.stale_discount) if spec.network.most_stale else 0.0,
        quorum=quorum, limit_s=float(spec.rounds.deadline_seconds),
    )  # fmt: skip
    ends = [predicted[node].total_s for node in parts if node in predicted]
    text = (
        f"{sum(part.steps for part in parts.values())} local steps by {len(parts)} nodes, which end after {min(ends):.1f} to "
        f"{max(ends):.1f} s."
    )
    if late:
        left = [one.left.total_s for one in late.values()]
        text += f" Late work of {len(late)} is expected until {max(left):.1f} s."
    return Plan(
        parts=parts,
        quorum=quorum,
        deadline_s=close.deadline_s,
        excluded=excluded,
        reasons=(Reason(code="round.together", text=text), *close.reasons),
        expected_s=close.expected_s,
        predicted_s=last_end(predicted, close.deadline_s),
    )


def awaited_of(parts: Mapping[int, Part], late: Mapping[int, Late]) -> dict[int, Prediction]:
    """What is predicted of those that the round waits for."""
    on_time = {node: part.predicted for node, part in parts.items() if part.predicted is not None and part.rounds == 1}
    return on_time | {node: one.left for node, one in late.items()}


def last_end(predicted: Mapping[int, Prediction], deadline_s: float) -> float:
    """Seconds after which the last is expected, or the round closes without it."""
    return min(max((one.total_s for one in predicted.values()), default=deadline_s), deadline_s)
