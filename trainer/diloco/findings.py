"""What is found of a round's updates, by one machine or by several, and who is refused by their scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from trainer.diloco.encoding import Update
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import RoundWork, Standing
from trainer.scoring.agreement import agreed, is_same
from trainer.scoring.ownership import Gains
from trainer.scoring.quality import Score, carried, expectations, falls_short, in_doubt, passes_gate, scattered


@dataclass(frozen=True, slots=True)
class Measured:
    """All floating point that a round's verdicts follow from, by node, as its evidence says: scores on `samples` of the held-out
    batch, and gains, empty where nobody looked at what updates know of their orders."""

    samples: int
    scores: Mapping[int, Score]
    gains: Mapping[int, Gains]


@dataclass(slots=True)
class Findings:
    """A round's submissions looked at, by node: updates (of its fragment), standings after the round, scores on `samples`, gains,
    refusals."""

    updates: dict[int, Update]
    standings: dict[int, Standing]
    samples: int = 0
    scores: dict[int, Score] = field(default_factory=dict)
    gains: dict[int, Gains] = field(default_factory=dict)
    refused: dict[int, HyperGPUError] = field(default_factory=dict)

    @property
    def accepted(self) -> list[int]:
        return [node_id for node_id in self.scores if node_id not in self.refused]


def harmful(work: RoundWork, scores: Mapping[int, Score]) -> dict[int, HyperGPUError]:
    """Updates that these scores refuse."""
    spec, refused = work.job.spec.aggregation, dict[int, HyperGPUError]()
    if not spec.gate:
        return refused
    for node_id, wanted in falls_short(comparable(work, scores), expected(work, scores)).items():
        gain = scores[node_id].improvement
        text = f"It lowers the held-out loss by {gain:.4f} nats, far less than the round's median for such work ({wanted:.4f})."
        refused[node_id] = HyperGPUError("contribution.falls_short", text)
    for node_id, result in scores.items():
        if not passes_gate(result, spec.gate_tolerance):
            text = f"It raises the held-out loss from {result.loss_before:.4f} to {result.loss_after:.4f}."
            refused[node_id] = HyperGPUError("contribution.harmful", text)
    return refused


def expected(work: RoundWork, nodes: Collection[int]) -> dict[int, float]:
    """Part of the median improvement to expect of each of `nodes`, by what it was ordered to do and to send, and by how many
    outer steps the model has moved on from where it did that."""
    return expectations(
        {s.node_id: s.units * carried(s.encoding) / (1 + work.lateness(s)) for s in work.submissions if s.node_id in nodes}
    )


def comparable(work: RoundWork, scores: Mapping[int, Score]) -> Mapping[int, Score]:
    """Scores to compare with each other. What one fragment alone gains depends on where the others have gone at its node."""
    return scattered(scores) if work.job.spec.network.fragments > 1 else scores


def go_by(work: RoundWork, found: Findings, said: Mapping[int, Score]) -> None:
    """Go on from published scores, if one's own are the same where either side accepts the update. One that both refuse may be
    measured otherwise, or be no number on one machine only: else whoever makes such an update has its whole round refused."""
    mine, theirs = ({*harmful(work, scores), *diverging(found, scores)} for scores in (found.scores, said))
    settled = {node for node in mine & theirs if node not in said or is_whole(said[node], found.scores)}
    found.scores = agreed(found.scores, said, what="scores", settled=settled)
    for node in diverging(found, {}):
        found.refused.pop(node, None)
    for node in diverging(found, said):
        found.refused[node] = HyperGPUError("contribution.diverges", "The held-out loss after this update is not a number.")


def diverging(found: Findings, scores: Mapping[int, Score]) -> list[int]:
    """Updates that were to be scored and have none of these `scores`."""
    others = [node for node, error in found.refused.items() if error.code != "contribution.diverges"]
    return [node for node in found.updates if node not in others and node not in scores]


def is_whole(said: Score, mine: Mapping[int, Score]) -> bool:
    """Whether it begins at the loss of the round's base and its parts fit together: who harms is below everybody's median then,
    whatever else is said of it."""
    begins = all(is_same(score.loss_before, said.loss_before) for score in mine.values())
    return begins and is_same(said.loss_before - said.loss_after, said.improvement)


def leave_doubt(work: RoundWork, found: Findings, scores: Mapping[int, Score], *, rounding: float = 0.0) -> bool:
    """What is no number harms, maybe, on another machine."""
    rules = work.job.spec.aggregation
    if not rules.gate:
        return False
    doubt = in_doubt(comparable(work, scores), expected(work, scores), rules.gate_tolerance, rounding=rounding)
    return doubt or bool(diverging(found, scores))
