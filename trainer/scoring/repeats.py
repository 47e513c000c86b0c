"""Is it work of this round? What earlier rounds made is public, and neither that nor what is made of it is work again.

Two looks, both at exact products of the same drawn places of all updates (`trainer.diloco.exact`), so that whoever judges a round
again refuses the same contributions: whether an update is one of an earlier round, and whether it has anything in common with the
others of its round but what the last aggregate had.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.data.permutation import places
from trainer.diloco.exact import gram
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import Submission
from trainer.scoring.checks import ABOUT, assert_own, cosines, nearest, order_distance

PLACES = 1 << 16
"""Values of each update that are looked at, all of a smaller model's: a cosine over them is right within 0.004."""
LEAST_NEW = 0.15
"""Likeness of the like orders of a round beyond the last aggregate, by their median, from which on all are expected to have it.
Near convergence it fades to nothing: what a node then adds is of its own samples."""
NEW_SHARE = 0.15
"""Part of that median that an update must have: noise over the last aggregate had up to 0.05, honest updates 0.64 and more, and
0.3 and more of nodes that had crashed: who begins with fresh moments moves a little as all did in the first round (eight nodes,
byte GPT and CNN; below `LEAST_NEW` down to 0.2)."""
LEAST_COMPANY = 3
"""Others of like orders to judge by."""


@dataclass(frozen=True, slots=True)
class Work:
    """A submission with the round in which it was trained, and its update at the drawn places (n,) fp32."""

    submission: Submission
    began: int
    values: Tensor

    @property
    def node_id(self) -> int:
        return self.submission.node_id

    def is_like(self, other: Work) -> bool:
        """Whether another node was asked for about the same in the same round."""
        comparable = other.began == self.began and other.node_id != self.node_id
        return comparable and order_distance(self.submission, other.submission) <= ABOUT


def drawn_places(count: int, seed: str) -> Tensor | slice:
    """Where updates of `count` values are looked at, by a seed that nobody knows when committing."""
    return slice(None) if count <= PLACES else places(count, PLACES, "repeats", seed)


def find_repeats(new: Sequence[Work], earlier: Sequence[Work]) -> dict[int, HyperGPUError]:
    """Refusals `contribution.copy` by node id of `new` updates that are `earlier` ones again, their own or another node's, scaled
    or under noise: by their likeness, beside that of the like orders of the round in which they were trained. Of a node's own
    earlier ones only the same counts, since it has the same samples again; so it is with nobody to compare with."""
    everybody = [*new, *earlier]
    alike = cosines([one.values for one in everybody])
    refused: dict[int, HyperGPUError] = {}
    for row, one in zip(alike, new, strict=False):
        beside = [place for place, other in enumerate(everybody) if one.is_like(other)]
        for place, old in enumerate(earlier, len(new)):
            others = [alike[other][place] for other in beside if other != place]
            own = old.node_id == one.node_id
            following = None if own or len(others) < 2 else nearest(others, beyond=0)
            try:
                source = f"what node {old.node_id} handed in for round {old.began}"
                assert_own(row[place], following, source=source, node=old.node_id)
            except HyperGPUError as error:
                refused.setdefault(one.node_id, error)
    return refused


def find_nothing_new(new: Sequence[Work], previous: Tensor | None) -> dict[int, HyperGPUError]:
    """Refusals `contribution.nothing_new` by node id, of dense updates of whole models trained in this round: who has hardly
    anything in common with those of like orders but the last aggregate, `previous` at the drawn places, is not at the round's
    base. Noise of any strength over anything earlier is found so, where cosines with that would not tell it from honest work.

    Others of like orders, since who is asked for less moves otherwise; nobody is judged with too few of them.
    """
    alike = beyond([one.values for one in new], previous)
    common = {}
    for row, one in zip(alike, new, strict=True):
        others = [value for value, other in zip(row, new, strict=True) if one.is_like(other)]
        if len(others) >= LEAST_COMPANY:
            common[one.node_id] = statistics.median(others)
    refused: dict[int, HyperGPUError] = {}
    for one in new:
        company = [common[other.node_id] for other in new if one.is_like(other) and other.node_id in common]
        usual = statistics.median(company) if one.node_id in common and company else 0.0
        if usual >= LEAST_NEW and common[one.node_id] < NEW_SHARE * usual:
            text = "Beyond the last aggregate the update has hardly anything in common with the round's others"
            found = common[one.node_id]
            refused[one.node_id] = HyperGPUError(
                "contribution.nothing_new", f"{text} (cosine {found:.3f}, theirs {usual:.3f}).", cosine=found, usual=usual
            )
    return refused


def beyond(vectors: Sequence[Tensor], known: Tensor | None) -> list[list[float]]:
    """Cosines between all `vectors` (n,) without their parts along `known` (partial correlation); 0 where nothing is left."""
    if known is None:
        return cosines(list(vectors))
    *products, last = gram([*vectors, known])
    along = [one / math.sqrt(last[-1]) if last[-1] else 0.0 for one in last[:-1]]
    left = [[one - along[i] * along[j] for j, one in enumerate(row[:-1])] for i, row in enumerate(products)]
    lengths = [math.sqrt(left[i][i]) if left[i][i] > RESIDUE * products[i][i] else 0.0 for i in range(len(left))]
    return [
        [one / (lengths[i] * lengths[j]) if lengths[i] and lengths[j] else 0.0 for j, one in enumerate(row)]
        for i, row in enumerate(left)
    ]


RESIDUE = 1e-6
"""Part of an update's energy below which what is left of it is the products' rounding."""
