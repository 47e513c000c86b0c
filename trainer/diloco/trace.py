"""A node's trace: what it commits to while it works on an order, so that any segment of it can be computed again elsewhere.

At each segment border the state is written down as two files: how far the parameters have moved from the order's base, and the
optimizer's moments. The trace's root is a Merkle root over their hashes and those of the error feedback before and after; it
stands in the upload's header, so the upload's hash, and with it commitment and receipt, bind every state on the way, and the
order that they answer: nobody can say later that another one was given (`trainer.protocol.orders.work_digest`).

    leaves   movement 0, moments 0, movement 1, moments 1, ..., movement S, moments S, error before, error after, lead, order
    movement steps done u32 | int8 file of base - params | int8 file of what that leaves out      (2 bytes a value)
    moments  steps seen u64 | bf16 file of the first moments | bf16 file of the second moments    (4 bytes a value)
    error    bf16 file, or nothing where there is none
    order    SHA-256 32 bytes
    lead     steps u32 | planned u32 | version 32 bytes | SHA-256 32 bytes, or nothing where there was none

All little endian, files as in docs/wire-format.md. Movements need the second int8 file: a segment is short against the round,
and their difference is what an audit compares. Moments stay bf16: AdamW moves a parameter with small moments as far as one with
large ones, which a scale for a whole chunk would round to nothing.

Where fragments of the model are synchronised in turn (`trainer.diloco.fragments`), a node does not begin at the base: movement 0
is the last movement of its trace before, with zeros for what was synchronised since. It starts from that as it is written down,
so nothing is lost between two traces. States are of the whole model, the upload is of the round's fragment.

A node may begin before it knows the order's base (`network.overlap` eager): its first `steps` steps, the lead, are then taken
from a guess, its base `version` of the round before moved by its own update with that SHA-256 (`trainer.diloco.outer.guessed`).
When the base is there, what the steps have moved so far is taken from it instead. Movements are the steps' own throughout, so
the update is that of any other node; a lead only says from where to compute a segment again.

The upload is encoded from the committed movement and error, not from what they were rounded from. So this last step is checked
exactly, and nobody needs the node's state to do it.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.data import Dataset
from trainer.diloco.encoding import HEADER, ZERO_TRACE, Encoded, decode, encode, read_header
from trainer.diloco.flat import Shapes
from trainer.diloco.fragments import Fragment, Own, begun, encode_fragment, fragment_of, whole
from trainer.diloco.local import LocalResult, NodeState, Snapshot, run_local_steps
from trainer.diloco.outer import guessed
from trainer.diloco.spill import Parts, Spill
from trainer.diloco.tensorfile import refused
from trainer.protocol.canonical import sha256_hex
from trainer.protocol.limits import BF16, INT8
from trainer.protocol.merkle import leaf_hash, merkle_root
from trainer.protocol.orders import WorkOrder, is_foreseen, work_digest
from trainer.protocol.spec import EncodingSpec
from trainer.protocol.wire import encoded_bytes

MOST_PENDING = 2
WRITER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trace")
STEPS, SEEN, LEAD = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<II32s32s")


class Moments(NamedTuple):
    """What `optimizer_vectors` gives, first and second (n,) fp32, and the steps that the optimizer has seen."""

    first: Tensor
    second: Tensor
    seen: int


class LeadMark(NamedTuple):
    """What a trace says of its lead: its steps, of how many that were expected of the order, and what the guess was made of, a
    model version and an artifact (64 hex digits each)."""

    steps: int
    planned: int
    version: str
    artifact: str


@dataclass(slots=True)
class Trace:
    """The states of one order: `movements` from `base` and `moments` by segment border, `error` before and after, `lead`, and
    the `order`'s digest. Six bytes a parameter and border: keep it for as long as audits may come, on disk; with a `folder` it is
    written down there at once, in `spill`. `start` is movement 0 where it is not zero.

    Steps do not wait for what they are written down as: one thread encodes and hashes copies of the states, `pending` ones, no
    more than `MOST_PENDING` (12 bytes a parameter each). Whoever reads movements or moments calls `finish` before.
    """

    base: Tensor
    error_before: bytes = b""
    error_after: bytes = b""
    lead: bytes = b""
    movements: list[bytes] | Parts = field(default_factory=list)
    moments: list[bytes] | Parts = field(default_factory=list)
    steps: int = 0
    start: bytes = b""
    order: bytes = b""
    folder: Path | None = None
    spill: Spill | None = field(default=None, init=False)
    pending: deque[Future[None]] = field(default_factory=deque, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.folder is not None:
            self.spill = Spill(self.folder)
            self.movements, self.moments = Parts(self.spill), Parts(self.spill)

    def record(self, state: NodeState, steps_done: int) -> None:
        """At a segment border: `on_segment` of `run_local_steps`. Steps that go on from a border do not record it again. Raises
        what went wrong with an earlier one."""
        is_first = not self.pending and not self.movements
        if not is_first and steps_done == self.steps:
            return
        while len(self.pending) >= MOST_PENDING:
            self.pending.popleft().result()
        movement = self.start if is_first else b""
        self.pending.append(WRITER.submit(self.write, Snapshot.of(state), self.base, steps_done, movement))
        self.steps = steps_done

    def write(self, taken: Snapshot, base: Tensor, steps_done: int, movement: bytes) -> None:
        """On the writer's thread."""
        taken.wait()
        self.movements.append(movement or write_movement(base - taken.params, steps_done))
        self.moments.append(write_moments(Moments(taken.first, taken.second, taken.seen)))

    def finish(self) -> None:
        """Wait until all states are written down. Raises what went wrong."""
        while self.pending:
            self.pending.popleft().result()

    def begin(self, start: Tensor) -> Tensor:
        """Set out `start` (n,) away from the base: the movement as it is written down."""
        self.start = write_movement(start, 0)
        return read_movement(self.start, count=start.numel())[0]

    def reached(self, order: WorkOrder) -> Own | None:
        """Where the node's parameters are after `order`, if it goes on from there."""
        return Own(order.as_trained.round, self.end) if order.spec.network.fragments > 1 else None

    @property
    def left(self) -> Tensor | None:
        """What is unsent after the order (n,)."""
        return read_error(self.error_after, count=self.base.numel())

    @property
    def end(self) -> Tensor:
        """The committed pseudo-gradient (n,), of which the upload is made."""
        self.finish()
        return read_movement(self.movements[-1], count=self.base.numel())[0]

    def leaves(self) -> list[bytes]:
        self.finish()
        states = [leaf for border in zip(hashes(self.movements), hashes(self.moments), strict=True) for leaf in border]
        return states + [leaf_hash(part) for part in (self.error_before, self.error_after, self.lead, self.order)]

    def root(self) -> bytes:
        return merkle_root(self.leaves())


def hashes(parts: list[bytes] | Parts) -> list[bytes]:
    """Of parts as leaves."""
    return [part.leaf for part in parts.parts] if isinstance(parts, Parts) else [leaf_hash(part) for part in parts]


class Contributed(NamedTuple):
    """What a node made of an order: how the steps went, the upload, and the trace that it commits to."""

    result: LocalResult
    upload: bytes
    trace: Trace


@dataclass(slots=True)
class Lead:
    """Steps of an order that is foreseen (`trainer.protocol.orders.foreseen`), from a guess of its base. `movement` (n,) is
    theirs so far, unrounded; `mark` says what the guess was made of."""

    order: WorkOrder
    trace: Trace
    mark: LeadMark
    movement: Tensor
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def behind(
        cls, order: WorkOrder, following: WorkOrder, *, base: Tensor, upload: bytes, shapes: Shapes, own: Own | None = None,
        folder: Path | None = None,
    ) -> Lead:  # fmt: skip
        """Of the order `following`, for a node that has made `upload` from `base` (n,) of `order` and is at `own` now; `folder`
        as a trace's."""
        mark = LeadMark(0, following.steps, order.as_trained.base, sha256_hex(upload))
        trace = Trace(guess_of(order, base, upload, shapes=shapes), folder=folder)
        start = begun(own, order.spec, shapes=shapes, number=following.round)
        return cls(following, trace, mark, torch.zeros_like(base) if start is None else trace.begin(start))

    def go_on(
        self, run: Callable[..., LocalResult], *, most: int | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> None:
        """Steps of whole segments, to `most` of the order in all (None: its end), or the first border at which `should_stop()`.
        It can be called again."""
        stride = self.order.spec.audit.stride
        whole = min(self.order.steps, self.order.steps if most is None else most) // stride * stride
        begun = itertools.count(self.trace.steps)

        def is_over() -> bool:
            step = next(begun)
            return step % stride == 0 and (step == whole or should_stop())

        result = run(
            self.order, self.trace.base - self.movement, first=self.trace.steps, should_stop=is_over,
            on_segment=self.trace.record,
        )  # fmt: skip
        self.movement = self.movement + result.pseudo_gradient
        self.losses += result.losses
        self.seconds += result.seconds
        self.mark = self.mark._replace(steps=self.trace.steps)

    def serves(self, order: WorkOrder) -> bool:
        """Whether its steps are the first ones of `order`."""
        return 0 < self.mark.steps <= order.steps and is_foreseen(order, self.order)


def contribute(
    state: NodeState,
    order: WorkOrder,
    base: Tensor,
    dataset: Dataset,
    *,
    lead: Lead | None = None,
    on_step: Callable[[int, float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    folder: Path | None = None,
) -> Contributed:
    """Local steps with a trace, then the upload; `state.error` is what it leaves unsent. Arguments and errors as
    `run_local_steps`, `folder` as a trace's; the upload is empty when no step was done."""
    run = partial(run_local_steps, state, dataset=dataset, on_step=on_step, should_stop=should_stop)
    made = trace_run(run, order, base, shapes=state.shapes, error=state.error, own=state.own, lead=lead, folder=folder)
    if made.upload:
        state.error, state.own = made.trace.left, made.trace.reached(order)
    return made


def trace_run(
    run: Callable[..., LocalResult], order: WorkOrder, base: Tensor, *, shapes: Shapes, error: Tensor | None,
    own: Own | None = None, lead: Lead | None = None, folder: Path | None = None,
) -> Contributed:  # fmt: skip
    """The same for whatever takes the steps: `run(order, base, first=..., on_segment=...)`, with what is left from before,
    `error` (n,) and `own`; the trace holds both after. Steps of a `lead` that serves the order are not done again."""
    trained = order.as_trained
    if lead is None:
        trace = Trace(base, folder=folder)
        start = begun(own, order.spec, shapes=shapes, number=trained.round)
        result = run(order, base if start is None else base - trace.begin(start), first=0, on_segment=trace.record)
    else:
        trace = lead.trace
        trace.base, trace.lead = base, write_lead(lead.mark)
        rest = run(order, base - lead.movement, first=trace.steps, on_segment=trace.record)
        result = LocalResult(
            lead.movement + rest.pseudo_gradient, lead.losses + rest.losses, lead.mark.steps + rest.steps_done,
            lead.mark.steps * order.spec.inner.batch_size + rest.units, lead.seconds + rest.seconds,
        )  # fmt: skip
    trace.error_before, trace.order = write_error(error), work_digest(order)
    if not result.steps_done:
        return Contributed(result, b"", trace)
    encoded = encode_end(trace.end, trace.error_before, order.encoding, fragment_of(shapes, order.spec, trained.round))
    trace.error_after = write_error(encoded.error)
    return Contributed(result, bound(encoded.data, trace.root()), trace)


def encode_end(movement: Tensor, error: bytes, spec: EncodingSpec, fragment: Fragment | None = None) -> Encoded:
    """The upload that follows from a committed movement (n,) and error file, with no trace in its header yet: of `fragment`
    (None: all), as are its values; the error (n,) is all that is unsent then."""
    return encode_fragment(movement, spec, fragment or whole(movement.numel()), error=read_error(error, count=movement.numel()))


def guess_of(order: WorkOrder, base: Tensor, upload: bytes, *, shapes: Shapes) -> Tensor:
    """Where `upload`, made from `base` (n,) of `order`, lets its node guess the next version: as an outer step would move what
    it holds. Raises HyperGPUError `artifact.*`."""
    then = order.as_trained
    fragment = fragment_of(shapes, order.spec, then.round)
    own = decode(upload, order.encoding, count=fragment.count).values
    return fragment.put(base, guessed(fragment.take(base), own, then.spec, number=then.round))


def bound(upload: bytes, root: bytes) -> bytes:
    """The upload with the trace's root in its header, where `encode` left zeros."""
    at = HEADER.size - len(ZERO_TRACE)
    return upload[:at] + root + upload[HEADER.size :]


def borders(steps: int, stride: int) -> list[int]:
    """Steps done at each segment border: 0, stride, ..., steps."""
    return [*range(0, steps, stride), steps]


def movement_leaf(border: int) -> int:
    return 2 * border


def moments_leaf(border: int) -> int:
    return 2 * border + 1


def error_leaf(borders: int) -> int:
    """Of the error before, in a trace of so many borders; behind it the error after, the lead, the order."""
    return 2 * borders


def lead_leaf(borders: int) -> int:
    return 2 * borders + 2


def order_leaf(borders: int) -> int:
    return 2 * borders + 3


def leaf_count(borders: int) -> int:
    return 2 * borders + 4


# Files of a trace. A stranger may have written what is read here: everything but `HyperGPUError` `artifact.*` is a bug.


def write_movement(movement: Tensor, steps_done: int) -> bytes:
    coarse = encode(movement, INT8)
    return STEPS.pack(steps_done) + coarse.data + encode(movement - coarse.values, INT8).data


def read_movement(data: bytes, *, count: int) -> tuple[Tensor, int]:
    """Movement (n,) and steps done."""
    head, coarse, fine = split(data, STEPS.size, *[encoded_bytes(count, INT8)] * 2)
    movement = decode(coarse, INT8, count=count).values + decode(fine, INT8, count=count).values
    return movement, STEPS.unpack(head)[0]


def is_at_base(movement: bytes) -> bool:
    """Whether an order that began with this movement began at its base."""
    return movement == write_movement(torch.zeros(read_header(movement[STEPS.size :]).count), 0)


def write_moments(moments: Moments) -> bytes:
    return SEEN.pack(moments.seen) + encode(moments.first, BF16).data + encode(moments.second, BF16).data


def read_moments(data: bytes, *, count: int) -> Moments:
    """Raises also when a second moment, a mean of squares, is negative."""
    head, first, second = split(data, SEEN.size, *[encoded_bytes(count, BF16)] * 2)
    moments = Moments(decode(first, BF16, count=count).values, decode(second, BF16, count=count).values, SEEN.unpack(head)[0])
    if (moments.second < 0).any():
        raise refused("malformed", "A second moment is negative.")
    return moments


def fresh_moments(count: int) -> bytes:
    """Of an optimizer that has seen nothing."""
    return write_moments(Moments(torch.zeros(count), torch.zeros(count), 0))


def write_error(error: Tensor | None) -> bytes:
    return b"" if error is None else encode(error, BF16).data


def read_error(data: bytes, *, count: int) -> Tensor | None:
    return decode(data, BF16, count=count).values if data else None


def write_lead(mark: LeadMark) -> bytes:
    return LEAD.pack(mark.steps, mark.planned, bytes.fromhex(mark.version), bytes.fromhex(mark.artifact))


def read_lead(data: bytes) -> LeadMark | None:
    """None where there was no lead."""
    if not data:
        return None
    steps, planned, version, artifact = LEAD.unpack(split(data, LEAD.size)[0])
    return LeadMark(steps, planned, version.hex(), artifact.hex())


def split(data: bytes, *sizes: int) -> list[bytes]:
    if len(data) != sum(sizes):
        raise refused("truncated" if len(data) < sum(sizes) else "too_large", f"{len(data)} bytes, not {sum(sizes)}.")
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return parts
