"""The machines of a run, from a profile or a trace, and what can be measured of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.network.facts import Measure, NodeFacts
from trainer.network.links import AWAY, Conditions, Machine, link_of, machine_of, path_bps, path_rtt, recorded_machine, server_of
from trainer.network.profiles import LinkSpec, NodeSpec, Profile, TraceRecord
from trainer.protocol.errors import HyperGPUError
from trainer.simulation.attackers import attack_named

LAN = LinkSpec(up_bps=10e9, down_bps=10e9, latency_s=1e-4)
"""Links of `centralized`: 10 Gb/s, a tenth of a millisecond one way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Closing:
    """Seconds that the coordinator itself takes to close a round: `fixed_s`, and `node_s` for each contribution."""

    fixed_s: float = 0.0
    node_s: float = 0.0

    def seconds(self, contributions: int) -> float:
        return self.fixed_s + self.node_s * contributions


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """Machines by node number, the coordinator as each of them sees it, chances to crash in a round, attacks by hostile node;
    `parameters` of the model whose times are emulated; the time that the coordinator takes itself. `inside`: machines of nodes in
    a region, by links to its hub, and `near`: the nodes of its region that each can reach there."""

    machines: Sequence[Machine]
    coordinator: Machine
    failures: Sequence[float]
    attacks: Mapping[int, str]
    parameters: int
    closing: Closing = Closing()
    inside: Mapping[int, Machine] = field(default_factory=dict)
    near: Mapping[int, Sequence[int]] = field(default_factory=dict)


def network_of(
    profile: Profile,
    *,
    seed: int,
    nodes: int | None = None,
    trace: Mapping[int, Sequence[TraceRecord]] | None = None,
    attack: str | None = None,
    hostile: int = 2,
    failure: float | None = None,
    closing: Closing = Closing(),
) -> Network:
    """The machines of `profile`, or those recorded in `trace` around its coordinator. `attack` is what the profile's hostile
    nodes do; if it has none, the last `hostile` nodes are. `failure` replaces the profile's chance to crash.

    Raises HyperGPUError `attack.unknown`, `attack.majority`, `profile.nodes`.
    """
    if trace is not None:
        if nodes not in (None, len(trace)):
            raise HyperGPUError("profile.nodes", f"The trace was recorded of {len(trace)} nodes, not of {nodes}.")
        machines = [recorded_machine(records, seed=f"{seed}:{node}") for node, records in enumerate(trace.values())]
        members: list[NodeSpec] = []
    else:
        members = profile.members(nodes)
        machines = [machine_of(spec, seed=f"{seed}:{node}") for node, spec in enumerate(members)]
    attacks = {node: spec.attack for node, spec in enumerate(members) if spec.attack is not None}
    if attack is not None:
        chosen = attacks or range(max(0, len(machines) - hostile), len(machines))
        attacks = dict.fromkeys(chosen, attack)
    for name in attacks.values():
        attack_named(name)
    if 2 * len(attacks) >= len(machines):
        raise HyperGPUError(
            "attack.majority",
            f"{len(attacks)} of {len(machines)} nodes would be hostile: no rule survives a majority. Take more nodes.",
        )
    inside, near = regions_of(profile.inside(nodes) if trace is None else [], seed=seed)
    crashes = [spec.failure if failure is None else failure for spec in members] or [failure or 0.0] * len(machines)
    return Network(
        machines=machines, coordinator=server_of(profile.coordinator, sharing=len(machines)), failures=crashes, attacks=attacks,
        parameters=profile.parameters, closing=closing, inside=inside, near=near,
    )  # fmt: skip


def regions_of(members: Sequence[NodeSpec], *, seed: int) -> tuple[dict[int, Machine], dict[int, list[int]]]:
    """`inside` and `near` of a network. A machine has the same outages however it is looked at: its seed draws them."""
    placed = {node: spec for node, spec in enumerate(members) if spec.region is not None}
    inside = {node: machine_of(spec, seed=f"{seed}:{node}") for node, spec in placed.items()}
    near = {
        node: [peer for peer, other in placed.items() if peer != node and other.public and other.region == spec.region]
        for node, spec in placed.items()
    }
    return inside, near


def measured(network: Network, node: int, time: float) -> NodeFacts:
    """What a perfect measurement of a node would give now; bytes/s."""
    here, there = network.machines[node].at(time), network.coordinator.at(time)
    return NodeFacts(
        node_id=node, samples_per_second=emulated(here.samples_per_second), up=emulated(path_bps(here, there) / 8),
        down=emulated(path_bps(there, here) / 8), rtt_s=emulated(2 * (here.latency_s + there.latency_s)),
        loss=emulated(1 - (1 - here.loss) * (1 - there.loss)),
        near={
            peer: emulated(path_rtt(network.inside[node].at(time), network.inside[peer].at(time)))
            for peer in network.near.get(node, ())
        },
    )  # fmt: skip


def emulated(value: float) -> Measure:
    return Measure(value=value, source="emulated", samples=1)


def present(network: Network, time: float) -> list[int]:
    """Nodes that compute and can be reached."""
    return [
        node for node, machine in enumerate(network.machines)
        if (now := machine.at(time)).samples_per_second > 0 and now.up_bps > 0 and now.down_bps > 0
    ]  # fmt: skip


def on_a_lan(network: Network) -> list[Machine]:
    """The same machines in one room: the links of `LAN`, no outages, there from the start and to the end."""
    lan = []
    for machine in network.machines:
        there = [(time, Conditions(at.samples_per_second, *link_of(LAN))) for time, at in machine.timeline if at is not AWAY]
        lan.append(Machine([(0.0, there[0][1]), *there[1:]], seed="lan"))
    return lan
