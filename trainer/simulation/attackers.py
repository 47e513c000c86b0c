"""What a hostile operator does instead of its work, as well as the protocol lets it.

It commits to its update before it sees any other of the round; it knows the base, the public updates and the aggregate of the
round before, and what its allies tell it. Norms above the round's median are clipped and tiny ones draw attention, so whoever
makes an update up gives it the norm that honest ones have. The clean parts of a lie are real: what it must train, it trains.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.data import Dataset, Split
from trainer.protocol.errors import HyperGPUError

ALIE_Z = 1.5
"""Standard deviations from the mean (Baruch et al. 2019, arXiv:1902.06156, use 1.5 in their experiments)."""
IPM_EPSILON = 0.5
"""Multiple of the honest mean that is taken away (Xie et al. 2019, arXiv:1903.03936)."""
ALLY_NOISE = 0.3
"""Norm of the noise over a copy, as part of the copy's: a cosine of 0.96 with it."""
SCALING = 20.0
ONE_SEGMENT = 1e-3
"""A part so small that it lies within one segment."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What a hostile node knows when it commits. Vectors (n,) fp32 are pseudo-gradients: `own` is the result of its training
    (zeros without), `gang` that of all hostile nodes in order of their numbers, itself at `place`; `published` the updates of
    the round before by honest node, `aggregate` what came of them. `usual_norm` is a guess for a round without a past."""

    place: int
    own: Tensor
    gang: Sequence[Tensor]
    published: Mapping[int, Tensor]
    aggregate: Tensor | None
    usual_norm: float
    generator: torch.Generator

    def norm(self) -> float:
        """The median norm of what was published last."""
        return (
            statistics.median(float(update.norm()) for update in self.published.values()) if self.published else self.usual_norm
        )

    def noise(self, norm: float) -> Tensor:
        return scaled(torch.randn(len(self.own), generator=self.generator), norm)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attack:
    """`craft` makes the update to send, or None to send nothing. `work` is the part of the ordered steps that is done, on the
    shard `shift` further than the assigned one, with `wrong` labels or right ones. `honest_first`: the first of the hostile
    nodes does its work, and the others live on it. `false` is the part of an order's segments that a replay finds false,
    rounded up: who trained as ordered and then lied can put the whole lie into the last."""

    craft: Callable[[Sight], Tensor | None]
    work: float = 1.0
    shift: int = 0
    wrong: bool = False
    honest_first: bool = False
    false: float = ONE_SEGMENT


def as_trained(sight: Sight) -> Tensor:
    return sight.own


def sign_flip(sight: Sight) -> Tensor:
    return -sight.own


def scaling(sight: Sight) -> Tensor:
    return SCALING * sight.own


def noise(sight: Sight) -> Tensor:
    return sight.noise(sight.norm())


def zeros(sight: Sight) -> Tensor:
    return torch.zeros_like(sight.own)


def resend(sight: Sight) -> Tensor | None:
    """The last aggregate as one's own work."""
    return None if sight.aggregate is None else scaled(sight.aggregate, sight.norm())


def resend_noisy(sight: Sight) -> Tensor | None:
    """The same under noise of its own norm: a cosine of 0.71 with it."""
    return None if sight.aggregate is None else scaled(sight.aggregate + sight.noise(float(sight.aggregate.norm())), sight.norm())


def copy_earlier(sight: Sight) -> Tensor | None:
    """What an honest peer published for the round before; each hostile node takes another peer."""
    known = sorted(sight.published)
    return sight.published[known[sight.place % len(known)]] if known else None


def copy_ally(sight: Sight) -> Tensor:
    """The first does its work; the others send that under noise."""
    work = sight.gang[0]
    return work if sight.place == 0 else scaled(work + sight.noise(ALLY_NOISE * float(work.norm())), float(work.norm()))


def lazy(sight: Sight) -> Tensor:
    """Fewer steps, blown up to the norm of all of them."""
    return scaled(sight.own, sight.norm()) if sight.published else sight.own


def alie(sight: Sight) -> Tensor:
    """A little is enough: all send one point, within the spread of honest updates, as far from their mean as passes. Mean and
    deviation of each coordinate come from their own honest work and from what was published last."""
    known = torch.stack([*sight.gang, *sight.published.values()])
    deviation = known.std(0) if len(known) > 1 else torch.zeros_like(sight.own)
    return torch.stack(list(sight.gang)).mean(0) - ALIE_Z * deviation


def ipm(sight: Sight) -> Tensor:
    """Inner product manipulation: all send a part of the negative mean."""
    return -IPM_EPSILON * torch.stack(list(sight.gang)).mean(0)


def nothing(sight: Sight) -> None:
    """Nobody is there: what a run loses that has only its honest nodes."""


ATTACKS: dict[str, Attack] = {
    "absent": Attack(craft=nothing, work=0),
    "sign_flip": Attack(craft=sign_flip),
    "scaling": Attack(craft=scaling),
    "noise": Attack(craft=noise, work=0, false=1),
    "label_flip": Attack(craft=as_trained, wrong=True, false=1),
    "zeros": Attack(craft=zeros, work=0, false=1),
    "resend": Attack(craft=resend, work=0, false=1),
    "resend_noisy": Attack(craft=resend_noisy, work=0, false=1),
    "copy_earlier": Attack(craft=copy_earlier, work=0, false=1),
    "copy_ally": Attack(craft=copy_ally, work=0, honest_first=True, false=1),
    "lazy_10": Attack(craft=lazy, work=0.9, false=0.1),
    "lazy_50": Attack(craft=lazy, work=0.5, false=0.5),
    "other_data": Attack(craft=as_trained, shift=1, false=1),
    "alie": Attack(craft=alie),
    "ipm": Attack(craft=ipm),
}


def attack_named(name: str) -> Attack:
    """Raises HyperGPUError `attack.unknown`."""
    if name not in ATTACKS:
        raise HyperGPUError("attack.unknown", f"There is no attack {name!r}. Take one of {', '.join(ATTACKS)}.")
    return ATTACKS[name]


def mislabelled(dataset: Dataset) -> Dataset:
    """The same with wrong labels to train on: class c becomes the last class minus c."""
    train = dataset.train
    targets = dataset.info.classes - 1 - train.targets.long()
    return replace(dataset, train=Split(train.kind, train.inputs, targets.to(train.targets.dtype)))


def scaled(vector: Tensor, norm: float) -> Tensor:
    length = float(vector.norm())
    return vector * (norm / length) if length else vector
