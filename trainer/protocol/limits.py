"""What a model of so many parameters asks of whoever stores its work: bytes of the largest files of each kind. Arithmetic alone,
so that a job can be refused before anybody pays for it."""

from __future__ import annotations

from trainer.protocol.draws import audit_rate
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import EncodingSpec, JobSpec
from trainer.protocol.wire import HEADER_BYTES, encoded_bytes

FP32, BF16, INT8 = EncodingSpec(kind="fp32"), EncodingSpec(kind="bf16"), EncodingSpec(kind="int8")
STEPS_BYTES, SEEN_BYTES = 4, 8
HEADS_BYTES = 2**15
"""Of an audit's evidence: more than its header, lengths and Merkle paths can take (`trainer.scoring.evidence`)."""
NAMES_BYTES = 2**18
"""Of a checkpoint: more than the header of a safetensors file may take (`trainer.diloco.tensorfile`)."""


def upload_limit(count: int) -> int:
    """Of a contribution in the densest encoding."""
    return encoded_bytes(count, FP32)


def parameters_of(limit: int) -> int:
    """Of the model whose `upload_limit` that is; at least one."""
    return max((limit - HEADER_BYTES) // 4, 1)


def checkpoint_limit(count: int) -> int:
    return 4 * count + NAMES_BYTES


def movement_bytes(count: int) -> int:
    """Of a trace (`trainer.diloco.trace`): how far a state is from the base."""
    return STEPS_BYTES + 2 * encoded_bytes(count, INT8)


def moments_bytes(count: int) -> int:
    """Of a trace: the optimizer's moments."""
    return SEEN_BYTES + 2 * encoded_bytes(count, BF16)


def evidence_limit(count: int) -> int:
    """Of what a node shows when one segment of its work is audited: about 18 bytes a parameter."""
    return HEADS_BYTES + 4 * movement_bytes(count) + 2 * moments_bytes(count) + encoded_bytes(count, BF16)


def evidence_bytes(count: int, *, error: bool) -> int:
    """Of the same as it usually is, but for some Merkle paths: about 14 bytes a parameter, two more with `error` feedback."""
    return 3 * movement_bytes(count) + 2 * moments_bytes(count) + (encoded_bytes(count, BF16) if error else 0)


def expected_evidence(spec: JobSpec, count: int, *, rounds: int) -> float:
    """Bytes that chance asks of a node for its first `rounds` rounds of a job, in the mean."""
    one = spec.audit.segments * evidence_bytes(count, error=spec.encoding.kind == "topk")
    return one * sum(audit_rate(spec.audit, rounds=number) for number in range(rounds))


def refuse_too_large(count: int, *, most: int) -> None:
    """Raises HyperGPUError `model.too_large` where files of a model of `count` parameters would be larger than the `most` bytes
    that an installation takes."""
    limits = {"contributions": upload_limit(count), "checkpoints": checkpoint_limit(count), "audits": evidence_limit(count)}
    what, size = max(limits.items(), key=lambda item: item[1])
    if size > most:
        text = f"The model has {count:,} parameters: files of its {what} may have {size:,} bytes, and this installation "
        text += f"takes none above {most:,}. Choose a smaller model, or have HYPERGPU_MAX_ARTIFACT_BYTES raised to {size}."
        raise HyperGPUError("model.too_large", text, needed=size, limit=most)
