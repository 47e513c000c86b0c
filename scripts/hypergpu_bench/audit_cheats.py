"""Contributions that were not made as ordered, each with the best trace that its maker can show for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data import Dataset
from trainer.diloco.inner import BETAS, learning_rate
from trainer.diloco.local import NodeState, restore, train
from trainer.diloco.trace import (
    Moments,
    Trace,
    borders,
    bound,
    contribute,
    encode_end,
    read_error,
    read_moments,
    write_error,
    write_moments,
    write_movement,
)  # fmt: skip
from trainer.protocol.orders import WorkOrder, work_digest


class Start(NamedTuple):
    """Where a node stands before an order: the model, and its own state after the order before."""

    order: WorkOrder
    base: Tensor
    dataset: Dataset
    moments: bytes
    error: bytes

    def node(self, kind: type[NodeState] = NodeState) -> NodeState:
        state = kind(self.order.spec, self.dataset.info, device=torch.device("cpu"))
        moments = read_moments(self.moments, count=state.count)
        if moments.seen:
            restore(state, self.base, {"first": moments.first, "second": moments.second}, moments.seen)
        state.error = read_error(self.error, count=state.count)
        return state


class Cheat(NamedTuple):
    """An upload with its trace, and the segments in which something is wrong."""

    upload: bytes
    trace: Trace
    wrong: Collection[int]


def sealed(trace: Trace, order: WorkOrder) -> bytes:
    """Bound to `order`, whatever was done."""
    encoded = encode_end(trace.end, trace.error_before, order.encoding)
    trace.order = work_digest(order)
    trace.error_after = write_error(encoded.error)
    return bound(encoded.data, trace.root())


def segments(start: Start) -> int:
    return len(borders(start.order.steps, start.order.spec.audit.stride)) - 1


def skipping(start: Start, skipped: Collection[int]) -> Cheat:
    """All steps but `skipped`, counted as if they had been done."""
    state, stride = start.node(), start.order.spec.audit.stride
    trace = Trace(start.base, start.error)
    state.load(start.base)
    trace.record(state, 0)
    for first, end in zip(borders(start.order.steps, stride), borders(start.order.steps, stride)[1:], strict=False):
        for step in range(first, end):
            if step not in skipped:
                train(state, start.order, start.dataset, range(step, step + 1))
            else:
                state.steps += 1
        trace.record(state, end)
    return Cheat(sealed(trace, start.order), trace, {step // stride for step in skipped})


def lazy_at_once(start: Start) -> Cheat:
    """A tenth of the steps, at the end of one segment: the fewest segments that can hold them."""
    at = start.order.round % segments(start) * start.order.spec.audit.stride + start.order.spec.audit.stride
    return skipping(start, range(at - start.order.steps // 10, at))


def lazy_spread(start: Start) -> Cheat:
    """One step of ten."""
    return skipping(start, range(9, start.order.steps, 10))


class NineTenths(NodeState):
    def batch(self, samples: Tensor) -> Tensor:
        return super().batch(samples[: len(samples) * 9 // 10])


def lazy_batches(start: Start) -> Cheat:
    """Nine tenths of each batch."""
    made = contribute(start.node(NineTenths), start.order, start.base, start.dataset)
    return Cheat(made.upload, made.trace, range(segments(start)))


def other_data(start: Start) -> Cheat:
    """Honest steps on the shard of another node."""
    elsewhere = start.order.model_copy(update={"shard": (start.order.shard + 1) % start.order.shards})
    made = contribute(start.node(), elsewhere, start.base, start.dataset)
    return Cheat(sealed(made.trace, start.order), made.trace, range(segments(start)))


def flipped_labels(start: Start) -> Cheat:
    """Honest steps towards wrong targets."""
    split = start.dataset.train
    wrong = replace(split, targets=start.dataset.info.classes - 1 - split.targets)
    made = contribute(start.node(), start.order, start.base, replace(start.dataset, train=wrong))
    return Cheat(made.upload, made.trace, range(segments(start)))


def flipped_upload(start: Start) -> Cheat:
    """Honest steps and trace; the upload is the reverse."""
    made = contribute(start.node(), start.order, start.base, start.dataset)
    reverse = encode_end(-made.trace.end, made.trace.error_before, start.order.encoding)
    return Cheat(bound(reverse.data, made.trace.root()), made.trace, range(segments(start)))


def ending_elsewhere(start: Start, changed: Callable[[Tensor], Tensor]) -> Cheat:
    made = contribute(start.node(), start.order, start.base, start.dataset)
    made.trace.movements = [*made.trace.movements[:-1], write_movement(changed(made.trace.end), made.trace.steps)]
    return Cheat(sealed(made.trace, start.order), made.trace, [segments(start) - 1])


def flipped_end(start: Start) -> Cheat:
    """Honest steps, but the last state is the reverse of where they led."""
    return ending_elsewhere(start, torch.neg)


def noisy_end(start: Start) -> Cheat:
    """Honest steps, and noise of a tenth of the whole movement on the last state."""
    generator = torch.Generator().manual_seed(start.order.seed)

    def noisy(end: Tensor) -> Tensor:
        noise = torch.randn(end.shape, generator=generator)
        return end + 0.1 * end.norm() / noise.norm() * noise

    return ending_elsewhere(start, noisy)


def copied(start: Start) -> Cheat:
    """Another node's movement without a step of one's own. From the first border on, the moments are made up so that they alone
    carry the parameters to its end, and decay as AdamW lets them: as large as clipping allows, to drown the gradients."""
    source = start.order.model_copy(update={"shard": (start.order.shard + 1) % start.order.shards, "seed": start.order.seed + 1})
    peer = Start(source, start.base, start.dataset, start.moments, start.error)
    wanted = contribute(peer.node(), source, start.base, start.dataset).trace.end
    marks, seen = borders(start.order.steps, start.order.spec.audit.stride), read_moments(start.moments, count=len(wanted)).seen
    reach = reaches(start.order, marks, seen)
    first_part = wanted / segments(start)
    rest = wanted - first_part
    clip, scale = start.order.spec.inner.clip_norm, len(wanted) ** 0.5
    size = 0.98 * clip * min(1 / scale, reach[-1] / float(rest.norm()))
    trace = Trace(start.base, start.error, steps=start.order.steps)
    trace.movements, trace.moments = [write_movement(torch.zeros_like(wanted), 0)], [start.moments]
    for border in range(1, len(marks)):
        gone = marks[border] - marks[1]
        movement = first_part + reach[border - 1] / reach[-1] * rest
        first, second = size / reach[-1] * rest * BETAS[0] ** gone, torch.full_like(rest, size**2 * BETAS[1] ** gone)
        trace.movements.append(write_movement(movement, marks[border]))
        trace.moments.append(write_moments(Moments(first, second, seen + marks[border])))
    return Cheat(sealed(trace, start.order), trace, range(segments(start)))


def reaches(order: WorkOrder, marks: list[int], seen: int) -> list[float]:
    """How far AdamW carries a parameter from border 1 to each border, without gradients, if its first moment is the root of its
    second."""
    far, found = 0.0, [0.0]
    for step in range(marks[1], marks[-1]):
        count, gone = seen + step + 1, step + 1 - marks[1]
        first = BETAS[0] ** gone / (1 - BETAS[0] ** count)
        second = (BETAS[1] ** gone / (1 - BETAS[1] ** count)) ** 0.5
        far += learning_rate(order, step, seen=seen + step) * first / second
        if step + 1 in marks:
            found.append(far)
    return found


LAZY: dict[str, Callable[[Start], Cheat]] = {
    "a tenth of the steps, at once": lazy_at_once, "one step of ten": lazy_spread, "nine tenths of each batch": lazy_batches,
}  # fmt: skip
POISON: dict[str, Callable[[Start], Cheat]] = {
    "labels flipped": flipped_labels, "upload reversed": flipped_upload, "last state reversed": flipped_end,
    "noise of 10 % on the last state": noisy_end,
}  # fmt: skip
CHEATS: dict[str, dict[str, Callable[[Start], Cheat]]] = {
    "lazy": LAZY, "copied": {"another's, moments made up": copied}, "other data": {"another shard": other_data},
    "poisoned": POISON,
}  # fmt: skip
