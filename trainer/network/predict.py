"""When each node will be done, how sure that is, and until when waiting for it pays: predictive scheduling.

A node fetches, computes and sends up one after another; each part's seconds follow from what was measured of its link and its
machine, and their doubt from the measures' deviations. What past predictions of the node were off by replaces that doubt where
it is larger.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.network.facts import NodeFacts, Reason

LEAST_DOUBT = 0.05
"""Relative standard deviation of a prediction at least: no round goes exactly as computed."""
FAR = 4.0
"""Standard deviations after its predicted end at which a node is taken to have failed."""
MOST_RELIABLE, LEAST_RELIABLE = 0.99, 0.5
"""Chances to hand in at all that are reckoned with: nobody is sure to, and whoever is asked probably will."""
PLACES = 64
"""Moments among which the close of a round is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Seconds that a node's part of a round is expected to take: to fetch, to compute, to send up. `doubt_s` is the standard
    deviation of their sum; `overhead_s`, which neither link nor machine explains, is a part of `fetch_s`."""

    fetch_s: float
    compute_s: float
    upload_s: float
    doubt_s: float = 0.0
    overhead_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.fetch_s + self.compute_s + self.upload_s

    def done_by(self, seconds: float) -> float:
        """Probability that it takes no longer, if the node hands in at all."""
        if self.doubt_s <= 0:
            return 1.0 if seconds >= self.total_s else 0.0
        return 0.5 * (1 + math.erf((seconds - self.total_s) / (self.doubt_s * math.sqrt(2))))


def predict(
    fact: NodeFacts, *, samples: int, fetch_bytes: float, upload_bytes: float, lead_s: float = 0.0
) -> Prediction:  # fmt: skip
    """What a node's part takes: a round trip and the bytes each way, and the samples in between, of whose seconds `lead_s` are
    done when the bytes are there."""
    fetching, sending = fetch_bytes / fact.down.value, upload_bytes / fact.up.value
    computing = samples / fact.samples_per_second.value
    parts = (
        (fetching, fact.down.doubt), (computing, fact.samples_per_second.doubt), (sending, fact.up.doubt),
        (2 * fact.rtt_s.value, fact.rtt_s.doubt),
    )  # fmt: skip
    total = math.fsum([*(seconds for seconds, _ in parts), fact.overhead_s])
    doubt = math.hypot(*(seconds * doubt for seconds, doubt in parts), fact.overhead_doubt_s, LEAST_DOUBT * total)
    return Prediction(
        fetch_s=fact.rtt_s.value + fetching + fact.overhead_s, compute_s=max(computing - lead_s, 0.0),
        upload_s=fact.rtt_s.value + sending, doubt_s=max(doubt, fact.spread * total), overhead_s=fact.overhead_s,
    )  # fmt: skip


def left_of(predicted: Prediction, *, gone_s: float, computed: float = 0.0, sending_s: float | None = None) -> Prediction:
    """What is left of a part that began `gone_s` seconds ago, of whose samples `computed` (0..1) are done, and which has been
    sent up for `sending_s` seconds (None: it is not yet). What is overdue is taken to need as long again as it is overdue by."""
    fetch_s = abs(predicted.fetch_s - gone_s) if computed == 0 else 0.0
    compute_s, upload_s = (1 - computed) * predicted.compute_s, predicted.upload_s
    if sending_s is not None:
        fetch_s, compute_s, upload_s = 0.0, 0.0, abs(predicted.upload_s - sending_s)
    total_s = fetch_s + compute_s + upload_s
    overdue_s = max(gone_s + total_s - predicted.total_s, 0.0)
    doubt_s = predicted.doubt_s * total_s / predicted.total_s if predicted.total_s > 0 else 0.0
    return Prediction(
        fetch_s=fetch_s, compute_s=compute_s, upload_s=upload_s, doubt_s=max(doubt_s, min(overdue_s, total_s) / 2)
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Close:
    """When a round closes without the rest, if a quorum is there, and how long it lasts on average."""

    deadline_s: float
    expected_s: float
    reasons: tuple[Reason, ...]


def best_close(
    predicted: Mapping[int, Prediction], worth: Mapping[int, float], reliabilities: Mapping[int, float],
    *, late_worth: float, quorum: int, limit_s: float,
) -> Close:  # fmt: skip
    """The deadline with the most work for the time (renewal reward: the mean work of a round by its mean length).

    `worth` is a node's work when it comes in time, `late_worth` the part of it that is left in the next round. A round ends
    when all have come or at the deadline, so a later one costs time only in so far as somebody is missing. It lies between
    the time by which a quorum is expected and `limit_s`.
    """
    nodes = sorted(predicted)
    sure = {node: min(max(reliabilities[node], LEAST_RELIABLE), MOST_RELIABLE) for node in nodes}
    ends = sorted(one.total_s + one.doubt_s for one in predicted.values())
    first = min(ends[quorum - 1], limit_s)
    last = min(max(one.total_s + FAR * one.doubt_s for one in predicted.values()), limit_s)
    times = [first + (last - first) * place / PLACES for place in range(PLACES + 1)]
    best, best_rate, timely, expected = first, -1.0, 0.0, first

    def all_but(time: float) -> tuple[dict[int, float], float]:
        chances = {node: sure[node] * predicted[node].done_by(time) for node in nodes}
        return chances, 1 - math.prod(chances.values())

    # The mean length of a round that closes at t is the integral of the probability that somebody is missing, from 0 to t.
    open_s = first / PLACES * math.fsum(all_but(first * (place + 0.5) / PLACES)[1] for place in range(PLACES))
    before, missing_before = first, all_but(first)[1]
    for time in times:
        chances, missing = all_but(time)
        open_s += (time - before) * (missing + missing_before) / 2
        work = math.fsum(worth[node] * (chances[node] + (sure[node] - chances[node]) * late_worth) for node in nodes)
        if (rate := work / open_s) > best_rate:
            best, best_rate, timely, expected = time, rate, math.fsum(chances.values()), open_s
        before, missing_before = time, missing
    slowest = max(predicted.values(), key=lambda one: one.total_s)
    late = f"; late work still counts {late_worth:.0%}" if late_worth else ""
    text = (
        f"The round closes after {best:.1f} s with {quorum} of {len(nodes)}: by then {timely:.1f} are expected, the last after "
        f"{slowest.total_s:.1f} s (+- {slowest.doubt_s:.1f} s). Waiting longer costs more work than it brings{late}."
    )
    return Close(deadline_s=best, expected_s=expected, reasons=(Reason(code="deadline.predicted", text=text),))


def relative_errors(pairs: Sequence[tuple[float, float]]) -> list[float]:
    """|actual - predicted| / actual of each (predicted, actual)."""
    return [abs(actual - predicted) / actual for predicted, actual in pairs]
