"""An emulated network for the demo: real agents behind a profile's links, on machines as fast as the profile's, all of it
scaled so that minutes show what takes hours with the large model of the profile."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scripts.hypergpu_demo.ports import HOST, free_port
from scripts.hypergpu_demo.report import seconds_between
from scripts.hypergpu_demo.supervise import StackError
from trainer.network.profiles import Profile, load_profile
from trainer.network.shaper import Link, Scale, Shaper
from trainer.operator.emulation import LOSS, VARIABLE, WAYS
from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import parse_spec


class Emulation:
    """Use as a context manager around the stack: agent `n` finds the coordinator at `link(n).url`, and other agents' endpoints by
    links of their own. A real second stands for the profile's `time_scale` emulated ones; the coordinator's own computing is not
    scaled: the more of them, the more it counts."""

    def __init__(
        self, profile: Profile, spec: dict[str, Any], files: Mapping[str, Path], *, port: int, operators: int, seed: int
    ) -> None:
        self.profile, self.seed = profile, seed
        self.parameters = parameters_of(spec, files)
        scale = Scale(time=profile.time_scale, size=profile.parameters / self.parameters)
        members = enumerate(profile.members(operators))
        self.endpoints = {node: (HOST, free_port()) for node, machine in members if machine.public}
        self.shaper = Shaper(profile, (HOST, port), seed=seed, scale=scale, nodes=operators, endpoints=self.endpoints)

    def __enter__(self) -> Emulation:
        self.shaper.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self.shaper.__exit__(*raised)

    def link(self, number: int) -> Link:
        """Of agent `number`, from 1."""
        return self.shaper.links[number - 1]

    def environment(self, number: int) -> dict[str, str]:
        """What makes the agent's worker as fast as the profile's machine, tells it what its link loses, and leads it to other
        nodes over emulated links."""
        place = number - 1
        machine = self.shaper.members[place]
        ways = {f"{HOST}:{self.endpoints[peer][1]}": way.port for (node, peer), way in self.shaper.ways.items() if node == place}
        return {
            VARIABLE: f"{self.shaper.scale.time * machine.samples_per_second:g}", LOSS: f"{machine.loss:g}",
        } | ({WAYS: json.dumps(ways)} if ways else {})  # fmt: skip

    def endpoint(self, number: int) -> str | None:
        """Where agent `number` listens for others, HOST:PORT, if the profile's machine can be reached."""
        place = self.endpoints.get(number - 1)
        return f"{place[0]}:{place[1]}" if place else None

    @property
    def sentence(self) -> str:
        large, small, scale = self.profile.parameters, self.parameters, self.shaper.scale
        between = ", also between nodes" if self.shaper.ways else ""
        stands = f"A byte stands for {scale.size:,.0f} and a second for {scale.time:g}"
        if large != small:
            stands += f", as with a model of {large:,} parameters ({4 * large / 1e6:,.0f} MB in fp32)"
        return (
            f"Emulated: links and machines of {self.profile.name!r}{between}. Real: every process, socket and gradient, of a "
            f"model of {small:,} parameters. {stands}."
        )

    def report(self, snapshot: dict[str, Any], nodes: Sequence[int], *, policy: str) -> dict[str, Any]:
        """For the demo's JSON: times in real seconds, one of which stands for `time_scale` emulated ones."""
        traffic = [
            {"node": node, "machine": machine.model_dump(exclude={"count", "attack"}), **asdict(link.traffic)}
            for node, machine, link in zip(nodes, self.shaper.members, self.shaper.links, strict=True)
        ]
        between = [
            {"node": nodes[node], "to": nodes[peer], **asdict(way.traffic)}
            for (node, peer), way in self.shaper.ways.items() if way.traffic.connections
        ]  # fmt: skip
        return {
            "emulated": self.sentence, "profile": self.profile.name, "policy": policy, "seed": self.seed,
            "time_scale": self.shaper.scale.time, "size_scale": round(self.shaper.scale.size, 3), "links": traffic,
            "between_nodes": between, "rounds": rounds(snapshot),
        }  # fmt: skip


def rounds(snapshot: dict[str, Any]) -> list[dict[str, Any]]:
    """Each round that was aggregated: predicted and actual seconds from its opening to its last contribution, what its end took
    on top, and what each node was given."""
    found = []
    for round_ in snapshot["rounds"]:
        slots = [slot for slot in snapshot["assignments"] if slot["round"] == round_["number"]]
        if not round_["aggregated_at"]:
            continue
        found.append(
            {
                "round": round_["number"],
                "predicted_seconds": round_["plan"]["predicted_seconds"],
                "actual_seconds": seconds_between(round_["opened_at"], round_["closed_at"]),
                "closing_seconds": seconds_between(round_["closed_at"], round_["aggregated_at"]),
                "ended_seconds": seconds_between(snapshot["rounds"][0]["opened_at"], round_["aggregated_at"]),
                "metric": round_["metric"],
                "accepted": round_["accepted"],
                "nodes": [node_row(slot) for slot in slots],
            }
        )
    return found


def node_row(slot: dict[str, Any]) -> dict[str, Any]:
    return {
        "node": slot["node_id"], "state": slot["state"], "steps": slot["steps"], "encoding": slot.get("encoding"),
        "predicted": slot.get("predicted"), "actual": slot.get("actual"), "upload": way_of(slot),
    }  # fmt: skip


def way_of(slot: dict[str, Any]) -> str | None:
    """Code of the reason why its upload was to go as it did; None where there was nothing to choose."""
    codes = [str(reason["code"]) for reason in slot.get("reasons", [])]
    return next((code for code in codes if code.startswith("upload.")), None)


def lines(network: dict[str, Any]) -> list[str]:
    """For people: what rounds were predicted to take and took."""
    rows = [row for row in network["rounds"] if row["predicted_seconds"]]
    seconds = [row["actual_seconds"] for row in network["rounds"]]
    said = [f"{network['policy']} policy on emulated links: a round took {statistics.median(seconds):.1f} s (median)"]
    if rows:
        errors = [abs(row["predicted_seconds"] / row["actual_seconds"] - 1) for row in rows]
        said.append(f"Predicted round times were off by {statistics.median(errors):.0%} (median of {len(rows)} rounds)")
    if network["between_nodes"]:
        ways = [node["upload"] for row in network["rounds"] for node in row["nodes"]]
        passed = sum(way["up"] + way["down"] for way in network["between_nodes"])
        said.append(
            f"{ways.count('upload.gathered')} of {len(ways)} uploads were to go by way of a near node; {passed / 1e6:,.1f} MB "
            "passed over emulated links between nodes"
        )
    return said if seconds else []


def profile_named(name: str) -> Profile:
    """Raises StackError for one that is not there."""
    try:
        return load_profile(name)
    except HyperGPUError as error:
        raise StackError(error.message) from error


def parameters_of(spec: dict[str, Any], files: Mapping[str, Path]) -> int:
    from trainer.diloco.round import bench  # noqa: PLC0415  (loads torch)
    from trainer.protocol.rounds import JobWork  # noqa: PLC0415

    return bench(JobWork(spec=parse_spec(spec), files=dict(files))).size
