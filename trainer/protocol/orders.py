"""Work orders: what a node is to do in one round, signed by the coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError

from trainer.protocol.canonical import canonical_sha256
from trainer.protocol.eip712 import Domain, recover, sign
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec, Section, Sha256
from trainer.protocol.types import OrderEnvelope


class Origin(Section):
    """Where late work began: the round that closed without it, and what its order said of the model then."""

    round: int
    base: Sha256
    checkpoint: Sha256
    parent: Sha256 | None = None
    delta: Sha256 | None = None


class WorkOrder(Section):
    """One node's part of one round.

    `base` is the model version to start from: the Merkle root over its pages (`trainer.diloco.version`), 64 hex digits. A node
    that holds version `parent` gets there with the outer step `delta`; any other fetches `checkpoint` (both SHA-256 of
    artifacts). For the job's first round there is no parent, and `base` follows from the seed alone.
    `shard` of `shards` is the data to use, `seed` fixes batch order, `steps` and `encoding` are what this node is to do, which
    may differ from the job's; `deadline` is unix seconds; `fence` grows with every lease of the same slot.

    Late work is ordered again in the round into which it is carried: `origin` says where it began, and is what it is trained
    from (`as_trained`); `round` and `base` are those of its receipt.
    """

    job_id: int
    round: int
    node_id: int
    fence: int
    deadline: int
    base: Sha256
    checkpoint: Sha256
    parent: Sha256 | None = None
    delta: Sha256 | None = None
    shard: int
    shards: int
    seed: int
    steps: int = Field(ge=1, le=10_000)
    encoding: EncodingSpec
    origin: Origin | None = None
    spec: JobSpec

    @property
    def units(self) -> int:
        """Samples that the full order asks for."""
        return self.steps * self.spec.inner.batch_size

    @property
    def as_trained(self) -> WorkOrder:
        """The order as it was first given: what the steps follow from, wherever their result is handed in."""
        if self.origin is None:
            return self
        return self.model_copy(update={**self.origin.model_dump(), "origin": None})


def order_seed(spec: JobSpec, number: int, shard: int) -> int:
    """What fixes the order of a shard's batches in round `number`: another for each of both. The place of a job in its data
    follows from it, so no cursor can be lost."""
    return spec.seed + number * spec.rounds.nodes + shard


def work_digest(order: WorkOrder) -> bytes:
    """SHA-256 over what the steps of `order` follow from, as it was first given: what a node binds its upload to, so that nobody
    can say later that it was asked for something else. Deadline, fence and files may change when an order is given again; the
    specification is the job's on chain."""
    asked = {"job_id", "round", "base", "shard", "shards", "seed", "steps", "encoding"}
    return bytes.fromhex(canonical_sha256(order.as_trained.model_dump(mode="json", include=asked)))


def foreseen(order: WorkOrder) -> WorkOrder | None:
    """The order of the round after `order`'s, as far as a node can tell before it is given; None after the last. It stays with
    its shard, so the batches follow from the specification; the base is not known yet, steps may differ."""
    number = order.round + 1
    if number >= order.spec.rounds.rounds:
        return None
    return order.model_copy(update={"round": number, "seed": order_seed(order.spec, number, order.shard), "origin": None})


def is_foreseen(order: WorkOrder, expected: WorkOrder) -> bool:
    """Whether `order` asks for the batches of `expected`."""
    return all(getattr(order, name) == getattr(expected, name) for name in FORESEEN)


FORESEEN = ("job_id", "round", "node_id", "shard", "shards", "seed", "origin", "spec")


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedOrder:
    """A work order with the coordinator's signature (65 bytes, 0x-hex)."""

    order: WorkOrder
    signature: str

    def as_json(self) -> dict[str, Any]:
        return {"order": self.order.model_dump(mode="json"), "signature": self.signature}


def envelope(order: WorkOrder) -> OrderEnvelope:
    """The EIP-712 message of `order`: the fields that decide its place, and the hash of all of it."""
    return OrderEnvelope(
        job_id=order.job_id, round=order.round, node_id=order.node_id, fence=order.fence, deadline=order.deadline,
        base="0x" + order.base, body="0x" + canonical_sha256(order.model_dump(mode="json")),
    )  # fmt: skip


def sign_order(domain: Domain, order: WorkOrder, private_key: str | bytes) -> SignedOrder:
    return SignedOrder(order=order, signature=sign(domain, envelope(order), private_key))


def verify_order(domain: Domain, payload: dict[str, Any], *, coordinator: str, node_id: int) -> WorkOrder:
    """The work order in `payload`, if `coordinator` signed it for this node.

    Raises HyperGPUError `order.malformed`, `order.wrong_signer` or `order.wrong_node`.
    """
    try:
        order = WorkOrder.model_validate(payload["order"])
        signer = recover(domain, envelope(order), payload["signature"])
    except (KeyError, TypeError, ValidationError) as error:
        raise HyperGPUError("order.malformed", f"This is not a work order: {error}") from error
    if signer.lower() != coordinator.lower():
        raise HyperGPUError("order.wrong_signer", f"{signer} signed this work order, not the coordinator {coordinator}.")
    if order.node_id != node_id:
        raise HyperGPUError("order.wrong_node", f"This work order is for node {order.node_id}, not {node_id}.")
    return order
