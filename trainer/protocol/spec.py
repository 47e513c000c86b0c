"""What a requester asks for: the job's specification, its limits and its hash."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainer.protocol.canonical import canonical_sha256
from trainer.protocol.errors import HyperGPUError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """Part of a specification: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSpec(Section):
    """An architecture by name with its config; code is never uploaded. The architecture checks its own config."""

    architecture: Literal["mlp", "cnn", "resnet", "vgg", "gpt", "transformers"] = "mlp"
    config: dict[str, Any] = Field(default_factory=dict)


class DataSpec(Section):
    """Where samples come from. `digits` is bundled; the other kinds name uploaded artifacts by role and SHA-256."""

    kind: Literal["digits", "text", "idx", "cifar10", "npz"] = "digits"
    files: dict[str, Sha256] = Field(default_factory=dict, max_length=16)
    sequence_length: int = Field(default=64, ge=8, le=8192, description="Bytes per sample of text.")

    @model_validator(mode="after")
    def names_its_files(self) -> DataSpec:
        wanted = {"text": {"text"}, "idx": {"images", "labels"}, "npz": {"npz"}}.get(self.kind)
        if self.kind == "digits" and self.files:
            raise ValueError("digits are bundled: leave files out")
        if wanted is not None and set(self.files) != wanted:
            raise ValueError(f"{self.kind} data needs files named {sorted(wanted)}")
        if self.kind == "cifar10" and not self.files:
            raise ValueError("cifar10 data needs at least one binary batch in files")
        return self


class InnerSpec(Section):
    """The inner loop of a round: steps of AdamW or Muon on the node's shard. The learning rate follows `schedule` over all
    samples of the job, so that every node is at the same place of it, whenever it joined."""

    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="Muon: momentum made orthogonal for matrices of hidden layers, AdamW for the rest."
    )
    steps: int = Field(default=40, ge=1, le=10_000, description="Local steps H in a round.")
    batch_size: int = Field(default=32, ge=1, le=8192, description="Samples in a local step.")
    micro_batch: int | None = Field(
        default=None, ge=1, le=8192, description="Samples in a forward pass: the batch is accumulated from these. Default: all."
    )
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    warmup_steps: int = Field(
        default=20, ge=0, le=10_000, description="Of a fresh optimizer: at the start, on joining, after a crash."
    )
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        default="constant", description="cosine: down from the start. wsd: constant, then straight down in the last fifth."
    )
    final_fraction: float = Field(default=0.1, ge=0, le=1, description="Of the learning rate, at the job's end (cosine, wsd).")
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0, le=1000)
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16: autocast; parameters and moments stay fp32.")
    activation_checkpointing: bool = Field(default=False, description="Compute activations again instead of keeping them.")
    compile: bool = Field(default=False, description="torch.compile on GPUs.")

    @model_validator(mode="after")
    def micro_batches_fill_the_batch(self) -> InnerSpec:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError("batch_size must be a multiple of micro_batch")
        return self


class OuterSpec(Section):
    """The outer step on the aggregated pseudo-gradient. Sparse encodings carry their own momentum in the error feedback: they
    want `sgd`."""

    optimizer: Literal["sgd", "nesterov"] = "nesterov"
    learning_rate: float = Field(default=0.7, gt=0, le=4)
    momentum: float = Field(default=0.5, ge=0, lt=1, description="Nesterov only.")
    final_fraction: float = Field(
        default=1.0, ge=0, le=1, description="Of the learning rate, in the last round: it goes straight down to this."
    )


class EncodingSpec(Section):
    """How a vector of parameters' size travels: docs/wire-format.md."""

    kind: Literal["fp32", "bf16", "int8", "int4", "topk"] = "int4"
    chunk: int = Field(default=4096, ge=64, le=65_536, description="Values that share a scale; a power of two.")
    k: int = Field(default=128, ge=1, le=65_536, description="Kept values of a chunk (topk).")
    indices: Literal["elias_fano", "packed"] = Field(
        default="elias_fano", description="packed: log2(chunk) bits an index; elias_fano: about 2 + log2(chunk / k) (topk)."
    )
    levels: Literal[1, 2] = Field(
        default=2, description="Magnitudes that the kept values of a chunk have: with 1 each value takes a bit less (topk)."
    )
    error_decay: float = Field(default=0.9, ge=0, le=1, description="What is kept of the unsent rest (topk).")

    @model_validator(mode="after")
    def chunks_are_powers_of_two(self) -> EncodingSpec:
        if self.chunk & (self.chunk - 1):
            raise ValueError("chunk must be a power of two")
        if self.kind == "topk" and self.k > self.chunk // 2:
            raise ValueError("k is more than half of chunk: int4 is smaller then")
        return self


class AggregationSpec(Section):
    """How contributions become one: those that fail the loss gate are left out, norms clipped to the median, then `rule`."""

    rule: Literal["weighted_mean", "coordinate_median", "trimmed_mean", "multi_krum", "geometric_median", "centered_clipping"] = (
        "geometric_median"
    )
    gate: bool = Field(
        default=True, description="Leave out what raises the held-out loss. With weighted_mean: a score-gated mean."
    )
    gate_tolerance: float = Field(
        default=0.01, ge=0, le=1, description="A contribution may raise the held-out loss by this fraction before it is refused."
    )
    clip_factor: float = Field(default=1.0, gt=0, le=10, description="Norms are clipped to this multiple of their median.")
    hostile: float = Field(
        default=0.25, ge=0, lt=0.5, description="Part of the nodes that may be hostile (trimmed_mean, multi_krum)."
    )
    least_senders: float = Field(
        default=0.25, gt=0, le=1,
        description="A coordinate is averaged over at least this part of the round's weight, so that nobody owns a rare one.",
    )  # fmt: skip


class AuditSpec(Section):
    """Replay audits: nodes commit to their state every `stride` steps; chance decides which segments are computed again."""

    rate: float = Field(default=0.02, ge=0, le=1, description="Part of the contributions that is audited.")
    newcomer_rate: float = Field(default=0.65, ge=0, le=1, description="The same, in a node's first rounds of a job.")
    newcomer_rounds: int = Field(default=8, ge=0, le=1000)
    stride: int = Field(default=5, ge=1, le=1000, description="Local steps of a segment.")
    segments: int = Field(default=2, ge=1, le=64, description="Segments that are replayed of an audited contribution.")


class RoundSpec(Section):
    """Rounds and who takes part."""

    rounds: int = Field(default=12, ge=1, le=100_000)
    nodes: int = Field(default=4, ge=1, le=1024, description="Nodes wanted in a round.")
    quorum: int = Field(default=2, ge=1, le=1024, description="Contributions with which a round may close at its deadline.")
    deadline_seconds: int = Field(default=120, ge=5, le=86_400)

    @model_validator(mode="after")
    def quorum_is_reachable(self) -> RoundSpec:
        if self.quorum > self.nodes:
            raise ValueError("quorum is larger than the number of nodes")
        return self


class NetworkSpec(Section):
    """How rounds adapt to what is measured of machines and links (trainer.network)."""

    policy: Literal["adaptive", "equal"] = Field(
        default="adaptive", description="adaptive: steps and encoding by node, all finish together. equal: the same for all."
    )
    least_steps: float = Field(default=0.25, gt=0, le=1, description="Of inner.steps, that a slow node is given at least.")
    most_steps: float = Field(default=4.0, ge=1, le=100, description="Of inner.steps, that a fast node is given at most.")
    most_stale: int = Field(default=2, ge=0, le=8, description="Rounds by which late work may come and still count.")
    stale_discount: float = Field(
        default=0.25, ge=0, le=10, description="Work s rounds late weighs 1 / (1 + stale_discount * s) of its samples."
    )
    overlap: Literal["none", "eager"] = Field(
        default="none", description="eager: a node begins its next round from its own update while the outer step is made."
    )
    fragments: int = Field(
        default=1, ge=1, le=4,
        description="Parts of the model that are synchronised in turn, one a round (Streaming DiLoCo). 1: the whole model.",
    )  # fmt: skip

    @model_validator(mode="after")
    def late_work_is_of_the_same_fragment(self) -> NetworkSpec:
        if self.fragments > 1 and self.most_stale:
            raise ValueError("another round synchronises another fragment, so no late work counts: set most_stale to 0")
        return self


class TargetSpec(Section):
    """When the job counts as a success: accuracy at least, or loss at most, `value` on the evaluation split."""

    metric: Literal["accuracy", "loss"] = "accuracy"
    value: float = Field(default=0.95, ge=0, le=1000)


class JobSpec(Section):
    """A training job. Its SHA-256 over canonical JSON goes on chain with the escrow."""

    version: Literal[1] = 1
    seed: int = Field(default=0, ge=0, lt=2**31)
    model: ModelSpec = ModelSpec()
    data: DataSpec = DataSpec()
    inner: InnerSpec = InnerSpec()
    outer: OuterSpec = OuterSpec()
    encoding: EncodingSpec = Field(default=EncodingSpec(), description="Of pseudo-gradients, from node to coordinator.")
    downlink: EncodingSpec = Field(default=EncodingSpec(), description="Of outer steps, from coordinator to every node.")
    aggregation: AggregationSpec = AggregationSpec()
    audit: AuditSpec = AuditSpec()
    rounds: RoundSpec = RoundSpec()
    network: NetworkSpec = NetworkSpec()
    target: TargetSpec = TargetSpec()

    def sha256(self) -> str:
        """64 hex digits over every field, defaults included."""
        return canonical_sha256(self.model_dump(mode="json"))

    @property
    def units_per_round(self) -> int:
        """Samples that one node processes in a full round."""
        return self.inner.steps * self.inner.batch_size

    @property
    def most_units(self) -> int:
        """Samples that one node is ordered in a round at the most, whatever it sold."""
        factor = self.network.most_steps if self.network.policy == "adaptive" else 1.0
        return math.floor(factor * self.inner.steps) * self.inner.batch_size


def parse_spec(value: Any) -> JobSpec:
    """A checked specification. Raises HyperGPUError `spec.invalid` with one line per wrong field."""
    try:
        return JobSpec.model_validate(value)
    except ValidationError as error:
        problems = [
            {"field": ".".join(str(part) for part in item["loc"]) or "spec", "problem": item["msg"]} for item in error.errors()
        ]
        lines = "; ".join(f"{item['field']}: {item['problem']}" for item in problems)
        raise HyperGPUError("spec.invalid", f"The job's specification is not valid: {lines}", problems=problems) from error
