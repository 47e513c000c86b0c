"""The same measurement by several machines. Floating point differs in its last digits, and a verdict that hangs on them would
be another one on each: so measurements are published, held against one's own, and judged by as published."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import TypeVar

from trainer.protocol.errors import HyperGPUError
from trainer.scoring.ownership import Gains
from trainer.scoring.quality import Score

Measurement = TypeVar("Measurement", Score, Gains)

SAME = 1e-4
"""Nats, or a part of a number above one, by which machines may differ. In fp32 they do by up to 1e-7 (a CNN on digits and a byte
GPT: other kernels, batches, numbers of threads, and fp64); a score's own standard error was 1.7e-3 at the least, so who publishes
scores gains nothing by rounding them its way."""


def agreed(
    mine: Mapping[int, Measurement], said: Mapping[int, Measurement], *, what: str, settled: Collection[int] = ()
) -> dict[int, Measurement]:  # fmt: skip
    """`said`, by node id, if one's own measurements are the same. Of `settled` nodes they need not be: both say the same of them
    already, and an update that nobody accepts may be one that no two machines measure alike. Raises HyperGPUError
    `evidence.other_scores`."""
    if nodes := sorted((mine.keys() ^ said.keys()) - set(settled)):
        text = f"Whether nodes {nodes} have {what} is said otherwise than found."
        raise HyperGPUError("evidence.other_scores", text, nodes=nodes)
    for node, found in mine.items():
        if node in settled:
            continue
        ours, theirs = asdict(found), asdict(said[node])
        if wrong := [name for name, value in ours.items() if not is_same(value, theirs[name])]:
            text = f"Measured again, the {what} of node {node} differ: {wrong[0]} is {ours[wrong[0]]}, not {theirs[wrong[0]]}."
            raise HyperGPUError("evidence.other_scores", text, node=node)
    return dict(said)


def is_same(mine: float, said: float) -> bool:
    """Within `SAME`; what is no finite number on one machine is none on another."""
    if not (math.isfinite(mine) and math.isfinite(said)):
        return math.isfinite(mine) == math.isfinite(said)
    return abs(mine - said) <= SAME * max(1.0, abs(mine))
