"""A whole run: a job on a network under a policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

from trainer.diloco.round import bench
from trainer.network.facts import NodeFacts
from trainer.network.policy import Plan, plain, plan_round
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.rounds import JobWork
from trainer.protocol.spec import EncodingSpec, JobSpec, RoundSpec
from trainer.simulation.data_parallel import run_data_parallel
from trainer.simulation.network import Network
from trainer.simulation.rounds import Policy, Rounds, Row

PolicyName = Literal["centralized", "ddp", "diloco", "network-aware"]
POLICIES: tuple[str, ...] = get_args(PolicyName)
MOST_SECONDS = 86_400
"""The longest deadline that a job may have."""
DENSE = EncodingSpec(kind="fp32")


def simulate(job: JobWork, network: Network, policy: PolicyName, *, seed: int = 0) -> Iterator[Row]:
    """Each row as its round ends; the same arguments give the same rows.

    `diloco` sends dense fp32 both ways, whatever the job says; `network-aware` encodes by link and goes down as the job says.
    Raises HyperGPUError `simulation.no_defence` for hostile nodes without rounds, and as `Rounds`.
    """
    job = JobWork(spec=sized(job.spec, len(network.machines)), files=job.files)
    if policy in ("centralized", "ddp"):
        if network.attacks:
            text = f"{policy} has no rounds in which hostile nodes could be found: simulate attacks with diloco or network-aware."
            raise HyperGPUError("simulation.no_defence", text)
        return run_data_parallel(job, network, centralized=policy == "centralized")
    if policy == "diloco":
        job = JobWork(spec=job.spec.model_copy(update={"encoding": DENSE, "downlink": DENSE}), files=job.files)
        return iter(Rounds(job, network, as_published(job.spec), seed=seed))
    count = bench(job).size
    plan = partial(plan_round, spec=job.spec, count=count, scale=network.parameters / count)
    return iter(Rounds(job, network, plan, seed=seed))


def as_published(spec: JobSpec) -> Policy:
    """Plain DiLoCo, which minds nothing that is known of links."""

    def policy(facts: Sequence[NodeFacts], **_: object) -> Plan:
        return plain(facts, spec)

    return policy


def sized(spec: JobSpec, nodes: int) -> JobSpec:
    """The job for so many nodes. Its deadline is for the small model that is really trained: the emulated one takes longer."""
    rounds = RoundSpec(
        rounds=spec.rounds.rounds, nodes=nodes, quorum=min(spec.rounds.quorum, nodes), deadline_seconds=MOST_SECONDS
    )
    return spec.model_copy(update={"rounds": rounds})


def stands_for(network: Network, spec: JobSpec, count: int) -> str:
    """What the emulated proportion of computing to communicating is that of."""
    speeds = [machine.at(time).samples_per_second for machine in network.machines for time in machine.times]
    seconds = sorted(spec.inner.batch_size / speed for speed in speeds if speed > 0)
    steps = f"{seconds[0]:.3g} s" if seconds[0] == seconds[-1] else f"{seconds[0]:.3g} to {seconds[-1]:.3g} s"
    return (
        f"Emulated: the clock and the links. Real: every gradient, of a model of {count:,} parameters. Its bytes are multiplied "
        f"by {network.parameters / count:,.1f}, and times are those of a model of {network.parameters:,} parameters "
        f"({4 * network.parameters / 1e6:,.0f} MB in fp32) whose step of {spec.inner.batch_size} samples takes {steps}."
    )
