"""What is known of a node and its link, with age and source, and why something was decided: what pages show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from trainer.protocol.canonical import canonical_sha256
from trainer.protocol.spec import JobSpec

Source = Literal["transfer", "heartbeat", "kernel", "probe", "peer", "benchmark", "work", "emulated", "assumed"]
"""transfer: real files; heartbeat: a request's round trip; kernel: TCP_INFO (Linux) of real connections; probe: sent in order to
measure; peer: measured by another operator; benchmark: the node's own, before its first order; work: real orders; emulated:
read off a profile, on the virtual clock or by an agent on emulated links; assumed: nobody measured it, a default."""


SD_OF_MEAN_DEVIATION = 1.2533
"""Standard deviation of a normal value whose mean deviation is 1: sqrt(pi / 2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a policy decided as it did: `code` is stable, `text` says it to operator and requester, with the figures."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A measured value, its smoothed mean deviation in the same unit, its age in seconds, and how many samples it rests on.
    `claimed`: the node's own word, where the coordinator has seen nothing of it itself."""

    value: float
    deviation: float = 0.0
    age_s: float = 0.0
    source: Source = "assumed"
    samples: int = 0
    claimed: bool = False

    @property
    def doubt(self) -> float:
        """Relative standard error to expect of the value, 0..1; an assumed one may be wrong by all of itself."""
        if self.source == "assumed":
            return 1.0
        return min(1.0, SD_OF_MEAN_DEVIATION * self.deviation / self.value) if self.value > 0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeFacts:
    """A node as the coordinator knows it when it plans a round.

    `samples_per_second` of training on the job's architecture; `up` and `down` goodput in bytes/s of the node's link to and from
    the coordinator; `rtt_s` seconds of a round trip (its deviation is the jitter); `loss` part of the packets (or segments
    retransmitted). `reliability`: part of its orders that it kept, `quality`: of its gradients, `uptime`: part of the time in
    which it was heard, each 0..1, recent ones first. `rate`: its price, base units a sample. `spread`: mean relative error of
    what was predicted of its rounds. `overhead_s`: seconds that its rounds took beside computing and beyond what its link
    explains: waiting, loading, whatever the coordinator itself takes; `overhead_doubt_s` is the standard deviation of those.
    `near`: seconds of a round trip to other nodes' endpoints,
    where these can be reached; `via`: bytes/s of its uploads that went by way of such a node; `shared`: of outer steps that came
    from it, with the time for which that node had them to come.
    """

    node_id: int
    samples_per_second: Measure
    up: Measure
    down: Measure
    rtt_s: Measure
    loss: Measure = Measure(value=0.0)
    reliability: float = 1.0
    quality: float = 1.0
    uptime: float = 1.0
    rate: int = 0
    spread: float = 0.0
    overhead_s: float = 0.0
    overhead_doubt_s: float = 0.0
    near: Mapping[int, Measure] = field(default_factory=dict)
    via: Mapping[int, Measure] = field(default_factory=dict)
    shared: Mapping[int, Measure] = field(default_factory=dict)


def architecture_of(spec: JobSpec) -> str:
    """What a speed in samples/s holds for: the same name for all jobs whose samples cost the same on one machine."""
    costly = {
        "model": spec.model.model_dump(mode="json"), "data": spec.data.kind, "length": spec.data.sequence_length,
        "batch": spec.inner.micro_batch or spec.inner.batch_size, "precision": spec.inner.precision,
        "optimizer": spec.inner.optimizer,
    }  # fmt: skip
    return f"{spec.model.architecture}-{canonical_sha256(costly)[:8]}"
