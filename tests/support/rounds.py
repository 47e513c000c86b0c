"""Two real rounds of a small job, in one process, with every artifact under its hash."""

from dataclasses import replace

from trainer.diloco import reference
from trainer.diloco.evidence import evidence
from trainer.diloco.round import close_round, prepare
from trainer.protocol.canonical import canonical_bytes, sha256_hex
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork, RoundWork
from trainer.protocol.spec import EncodingSpec, InnerSpec, JobSpec, OuterSpec, RoundSpec

SPEC = JobSpec(
    inner=InnerSpec(steps=8, batch_size=16), rounds=RoundSpec(rounds=3, nodes=3),
    encoding=EncodingSpec(kind="topk", chunk=256, k=32), downlink=EncodingSpec(kind="topk", chunk=256, k=64),
    outer=OuterSpec(optimizer="sgd", learning_rate=1.0),
)  # fmt: skip
JOB = JobWork(spec=SPEC, files={})


class World:
    """`works` and `documents` of the rounds 0 and 1 of the chain's job 7; `store` holds their artifacts and evidence."""

    def __init__(self) -> None:
        self.store: dict[str, bytes] = {}
        self.works: list[RoundWork] = []
        self.documents: list[dict] = []
        self.keep(canonical_bytes(SPEC.model_dump(mode="json")))
        first = prepare(JOB)
        nodes = [reference.Node(JOB, node_id, None) for node_id in range(3)]
        work = RoundWork(
            job=JOB, chain_job_id=7, number=0, base=first.base, params=first.params, outer_state=first.outer_state,
            previous_aggregate=None, submissions=[],
        )  # fmt: skip
        for _ in range(2):
            work = replace(work, submissions=[node.contribute(reference.order(SPEC, work, node.node_id)) for node in nodes])
            result = close_round(work)
            self.works.append(work)
            self.documents.append(evidence(work, result))
            for data in (work.params, work.outer_state, work.previous_aggregate, *(one.data for one in work.submissions)):
                if data:
                    self.keep(data)
            for node in nodes:
                node.follow(result.delta, work.number)
            before = self.keep(canonical_bytes(self.documents[-1]))
            work = replace(reference.next_round(work, result), before=before)

    def keep(self, data: bytes) -> str:
        self.store[sha256_hex(data)] = data
        return sha256_hex(data)

    def read(self, sha256: str) -> bytes:
        if sha256 not in self.store:
            raise HyperGPUError("artifact.unknown", sha256)
        return self.store[sha256]
