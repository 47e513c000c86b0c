"""What a requester asks for: the job's specification, its limits and its hash."""

from __future__ import annotations

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
    """The inner loop of a round: AdamW steps on the node's shard."""

    steps: int = Field(default=40, ge=1, le=10_000, description="Local steps H in a round.")
    batch_size: int = Field(default=32, ge=1, le=8192, description="Samples in a local step.")
    learning_rate: float = Field(default=2e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=1.0, gt=0, le=1000)


class OuterSpec(Section):
    """The outer step on the aggregated pseudo-gradient."""

    optimizer: Literal["sgd", "nesterov"] = "nesterov"
    learning_rate: float = Field(default=0.7, gt=0, le=4)
    momentum: float = Field(default=0.5, ge=0, lt=1, description="Nesterov only.")


class EncodingSpec(Section):
    """How a pseudo-gradient travels: dense fp32, int8 per chunk, or the top k of each chunk with error feedback."""

    kind: Literal["dense", "int8", "topk"] = "int8"
    chunk: int = Field(default=4096, ge=64, le=65_536)
    k: int = Field(default=128, ge=1, le=65_536, description="Kept values of a chunk (topk).")
    error_decay: float = Field(default=0.95, ge=0, le=1, description="What is kept of the unsent rest (topk).")


class AggregationSpec(Section):
    """How contributions become one: those that fail the loss gate are left out, norms clipped to the median."""

    rule: Literal["geometric_median", "weighted_mean"] = "geometric_median"
    gate_tolerance: float = Field(
        default=0.01, ge=0, le=1, description="A contribution may raise the held-out loss by this fraction before it is refused."
    )
    clip_factor: float = Field(default=1.0, gt=0, le=10, description="Norms are clipped to this multiple of their median.")


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
    encoding: EncodingSpec = EncodingSpec()
    aggregation: AggregationSpec = AggregationSpec()
    rounds: RoundSpec = RoundSpec()
    target: TargetSpec = TargetSpec()

    def sha256(self) -> str:
        """64 hex digits over every field, defaults included."""
        return canonical_sha256(self.model_dump(mode="json"))

    @property
    def units_per_round(self) -> int:
        """Samples that one node processes in a full round."""
        return self.inner.steps * self.inner.batch_size


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
