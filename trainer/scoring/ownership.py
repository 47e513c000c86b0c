"""Does an update know the data that it was to be made from?

An update lowers the loss on the samples it was computed from a little more than on others of the same kind. A copy, or work on
other data, gains as much on both. Some samples are easier than others, so gains are counted against those of the round's typical
update on the same samples. Which samples a node was assigned follows from its work order; which of them are looked at,
from a seed that nobody knew when committing (the idea: Gauntlet, arXiv:2505.21684, section 3).

One round says little, so a node's standing is an average over rounds. How little depends on the model: honest updates gained more
on their own samples in 94 to 100 % of the rounds (a byte GPT of 388 thousand parameters and a CNN, eight nodes, int8 and topk),
but in 81 to 91 % of the first six on a byte GPT a third as large with topk; updates held against another's order, in 37 to 70 %.
So `LEAST_OWNED` spares the honest: at 86 % one is refused wrongly within 60 rounds with a probability of 0.016 (at 93 %: 0.0005),
and a cheat at 57 % is found within 24 rounds with 0.6, within 60 with 0.98 (simulated). Nobody is refused before the sixth round.
Rounds are those that are looked at (`trainer.scoring.effort`): of small orders a part, until somebody is suspected.
`./scripts/bench audits` measures the shares again; those above are from before gains were counted against the typical update.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from trainer.data import Split
from trainer.data.permutation import permutation
from trainer.data.shards import batch_indices
from trainer.diloco.flat import Shapes
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Standing, Submission
from trainer.protocol.spec import JobSpec
from trainer.scoring.cores import on_cores
from trainer.scoring.quality import STEP_SCALE
from trainer.scoring.scores import measure

OWN_SAMPLES = {"image": 128, "bytes": 128}
"""Of each of the two batches, by kind of data. Fewer would not do: the honest gain a little more on their own. Where orders are
small this is done in some rounds only (`trainer.scoring.effort`)."""
FADING = 0.1
"""Weight of the newest round in a standing."""
LEAST_OWNED = 0.55
"""A node below this share trains on something else than it is paid for."""


@dataclass(frozen=True, slots=True)
class Gains:
    """How much more than the round's typical update one lowers the loss, in nats at the scorers' step scale, on samples of the
    node's order and on others."""

    own: float
    other: float

    @property
    def owned(self) -> bool:
        """False also where a loss is not a number."""
        return math.isfinite(self.own - self.other) and self.own > self.other

    def as_json(self) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, said: Mapping[str, float | None]) -> Gains:
        own, other = (math.nan if said[name] is None else float(said[name] or 0) for name in ("own", "other"))
        return cls(own, other)


def passes_of(updates: int, kind: str) -> int:
    """Forward passes of one sample that `ownership` takes where both batches are full: for the reference on each node's own and
    on the others, and for each update on both."""
    return (3 * updates + 1) * OWN_SAMPLES[kind]


def assigned_samples(train: Split, spec: JobSpec, submission: Submission, *, number: int = 0) -> Tensor:
    """Indices (int64, ascending, each once) of the training samples that the submission's work order of round `number` names;
    with fragments in turn, also those of the rounds since its fragment was sent last, which the node's own parameters have seen
    if it took part in them with its shard."""
    turns = min(spec.network.fragments, number + 1)
    batches = (
        batch_indices(
            train, shard=submission.shard, shards=spec.rounds.nodes, seed=submission.seed - turn * spec.rounds.nodes,
            steps=submission.steps, batch_size=spec.inner.batch_size,
        )
        for turn in range(turns)
    )  # fmt: skip
    return torch.cat([batch for one in batches for batch in one]).unique()


def ownership(
    model: nn.Module,
    shapes: Shapes,
    base: Tensor,
    updates: Mapping[int, Tensor],
    *,
    train: Split,
    assigned: Mapping[int, Tensor],
    seed: str,
) -> dict[int, Gains]:
    """Gains by node id of `updates` (n,) from `base` (n,); `assigned` holds the samples of every order of the round.

    The other samples are ones that nobody was assigned; where too few are left, ones that this node was not. A node that was
    assigned everything is left out.
    """
    size, reference = OWN_SAMPLES[train.kind], base - STEP_SCALE * typical(list(updates.values()), base)
    nobodys = outside(train, *assigned.values())
    shared = Batch(train, nobodys, seed=seed, size=size) if len(nobodys) >= size else None
    at_shared = shared.loss(model, shapes, reference) if shared else None

    def gains(lent: nn.Module, node_id: int) -> Gains | None:
        others = outside(train, assigned[node_id])
        if shared is None and not len(others):
            return None
        own, other = Batch(train, assigned[node_id], seed=seed, size=size), shared or Batch(train, others, seed=seed, size=size)
        before = own.loss(lent, shapes, reference), other.loss(lent, shapes, reference) if at_shared is None else at_shared
        after = base - STEP_SCALE * updates[node_id]
        return Gains(*(loss - batch.loss(lent, shapes, after) for loss, batch in zip(before, (own, other), strict=True)))

    found = on_cores(model, [partial(gains, node_id=node_id) for node_id in updates])
    return {node_id: each for node_id, each in zip(updates, found, strict=True) if each is not None}


class Batch:
    """Samples of a pool, drawn by the seed."""

    def __init__(self, train: Split, pool: Tensor, *, seed: str, size: int) -> None:
        self.inputs, self.targets = train.take(pool[permutation(len(pool), "ownership", seed)[:size]])

    def loss(self, model: nn.Module, shapes: Shapes, params: Tensor) -> float:
        return measure(model, shapes, params, self.inputs, self.targets).loss


def typical(updates: Sequence[Tensor], base: Tensor) -> Tensor:
    """The mean of the round's updates, none longer than the median, so that nobody can spoil it; zero for a round of one."""
    if len(updates) < 2:
        return torch.zeros_like(base)
    lengths = [float(update.norm()) for update in updates]
    middle = statistics.median_low(lengths)
    mean = torch.zeros_like(base)
    for update, length in zip(updates, lengths, strict=True):
        mean.add_(update, alpha=min(1.0, middle / length if length else 1.0) / len(updates))
    return mean


def outside(train: Split, *pools: Tensor) -> Tensor:
    """Indices of the samples in none of `pools`, ascending."""
    free = torch.ones(len(train), dtype=torch.bool)
    for pool in pools:
        free[pool] = False
    return free.nonzero().flatten()


def renewed(standing: Standing, gains: Gains | None) -> Standing:
    """The standing after a round; as it was when nothing could be measured."""
    if gains is None:
        return standing
    owned = (1 - FADING) * standing.owned + FADING * gains.owned
    return replace(standing, rounds=standing.rounds + 1, owned=owned)


def is_suspected(standing: Standing) -> bool:
    """Whether the node seems to train on something else than it is paid for."""
    return standing.owned < LEAST_OWNED


def refuse_other_data(standing: Standing) -> None:
    """Raises HyperGPUError `contribution.not_assigned_data`. Rounds of assigned data lift a standing again."""
    if is_suspected(standing):
        raise HyperGPUError(
            "contribution.not_assigned_data",
            f"Over the last of its {standing.rounds} rounds the node's updates gained more on the data assigned to it than on "
            f"other data in {standing.owned:.0%} of them; honest work does in more than {LEAST_OWNED:.0%}.",
            owned=standing.owned, least=LEAST_OWNED,
        )  # fmt: skip
