"""Networks to emulate: named profiles (JSON files beside this module), a profile of one's own, or a recorded trace.

Speeds and links are given for a model of `parameters` parameters. The model that is really trained is smaller; its bytes
are scaled up to that size on the virtual links, so that computing and communicating stand in the proportion that they have
for the large model.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from trainer.protocol.errors import HyperGPUError
from trainer.protocol.spec import Section

MAX_FILE_BYTES = 64 * 1024 * 1024


class LinkSpec(Section):
    """Of a machine to the network's core; a path has the latency of both ends and the bandwidth of the narrower one."""

    up_bps: float = Field(gt=0, le=1e13, description="bit/s that the machine sends.")
    down_bps: float = Field(gt=0, le=1e13, description="bit/s that it receives.")
    latency_s: float = Field(default=0.0, ge=0, le=60, description="Seconds one way.")
    jitter_s: float = Field(default=0.0, ge=0, le=60, description="Standard deviation of what a delay has above its latency.")
    loss: float = Field(default=0.0, ge=0, lt=1, description="Part of the packets that is lost.")


class NodeSpec(LinkSpec):
    """`count` machines alike."""

    count: int = Field(default=1, ge=1, le=1024)
    samples_per_second: float = Field(gt=0, le=1e9, description="Of the profile's model, forward, backward and step.")
    outage_every_s: float | None = Field(default=None, gt=0, description="Mean seconds between two outages of the link.")
    outage_s: float = Field(default=30.0, gt=0, description="Mean seconds of an outage; transfers go on after it.")
    joins_s: float = Field(default=0.0, ge=0, description="Seconds after the start.")
    leaves_s: float | None = Field(default=None, gt=0, description="Seconds after the start, for good; null: never.")
    failure: float = Field(
        default=0.0, ge=0, le=1, description="Chance to crash in a round: its work and its optimizer's moments are lost."
    )
    attack: str | None = Field(default=None, description="What a hostile operator does: a name of trainer.simulation.attackers.")
    region: str | None = Field(default=None, description="One of the profile's regions: the link is to that region's hub.")
    public: bool = Field(default=False, description="Nodes of its region can reach it at an endpoint of its own.")


class RegionSpec(Section):
    """The way from a region's hub to the network's core. Nodes of one region reach each other without it."""

    latency_s: float = Field(default=0.0, ge=0, le=60, description="Seconds one way.")
    jitter_s: float = Field(default=0.0, ge=0, le=60, description="Standard deviation of what a delay has above its latency.")
    loss: float = Field(default=0.0, ge=0, lt=1, description="Part of the packets that is lost.")


class Profile(Section):
    """A network of nodes around one coordinator."""

    name: str
    description: str
    parameters: int = Field(ge=1, description="Of the model that the speeds are of.")
    model: str | None = Field(default=None, description="That the demo trains there: as large as the profile's, so unscaled.")
    time_scale: float = Field(default=12.0, gt=0, le=1000, description="Emulated seconds in a real one, for real agents.")
    coordinator: LinkSpec
    nodes: tuple[NodeSpec, ...] = Field(min_length=1)
    regions: dict[str, RegionSpec] = Field(default={}, description="Groups of nodes that are near each other.")

    @model_validator(mode="after")
    def regions_are_known(self) -> Profile:
        if unknown := {node.region for node in self.nodes if node.region is not None} - set(self.regions):
            raise ValueError(f"there is no region {', '.join(sorted(unknown))}")
        return self

    @model_validator(mode="after")
    def nobody_leaves_before_joining(self) -> Profile:
        if any(node.leaves_s is not None and node.leaves_s <= node.joins_s for node in self.nodes):
            raise ValueError("leaves_s must be later than joins_s")
        return self

    def members(self, nodes: int | None = None) -> list[NodeSpec]:
        """One entry a node, its link that to the network's core; `nodes` of them in the profile's proportions, default as many
        as it has."""
        return [self.to_core(spec) for spec in self.inside(nodes)]

    def inside(self, nodes: int | None = None) -> list[NodeSpec]:
        """The same, with links to the hub of each one's region: as near nodes see them."""
        all_nodes = [spec for spec in self.nodes for _ in range(spec.count)]
        wanted = len(all_nodes) if nodes is None else nodes
        return [all_nodes[place * len(all_nodes) // wanted] for place in range(wanted)]

    def to_core(self, spec: NodeSpec) -> NodeSpec:
        if spec.region is None:
            return spec
        hub = self.regions[spec.region]
        whole = {
            "latency_s": spec.latency_s + hub.latency_s, "jitter_s": math.hypot(spec.jitter_s, hub.jitter_s),
            "loss": 1 - (1 - spec.loss) * (1 - hub.loss),
        }  # fmt: skip
        return spec.model_copy(update=whole)


class TraceRecord(Section):
    """One line of a recorded trace: what was measured of a node, good from `time` (seconds) until its next record."""

    time: float = Field(ge=0)
    node: int = Field(ge=0)
    samples_per_second: float = Field(ge=0)
    up_bps: float = Field(ge=0)
    down_bps: float = Field(ge=0)
    latency_s: float = Field(default=0.0, ge=0)
    jitter_s: float = Field(default=0.0, ge=0)
    loss: float = Field(default=0.0, ge=0, lt=1)


def profile_names() -> list[str]:
    folder = resources.files("trainer.network") / "profiles"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_profile(name: str) -> Profile:
    """A named profile, or the one in the file `name` (*.json). Raises HyperGPUError `profile.unknown`, `profile.invalid`."""
    if name in profile_names():
        text = (resources.files("trainer.network") / "profiles" / f"{name}.json").read_text("utf-8")
    elif name.endswith(".json"):
        text = read(Path(name))
    else:
        known = ", ".join(profile_names())
        raise HyperGPUError("profile.unknown", f"There is no profile {name!r}. Take one of {known}, or name a .json file.")
    try:
        return Profile.model_validate(json.loads(text))
    except ValidationError as error:
        raise invalid(name, problems(error)) from error
    except ValueError as error:
        raise invalid(name, f"it is not JSON: {error}") from error


def load_trace(path: Path) -> dict[int, list[TraceRecord]]:
    """Records by node, in order of time, from JSON lines. Raises HyperGPUError `profile.unknown`, `profile.invalid`."""
    records: dict[int, list[TraceRecord]] = defaultdict(list)
    for number, line in enumerate(read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = TraceRecord.model_validate(json.loads(line))
        except ValidationError as error:
            raise invalid(f"{path}, line {number}", problems(error)) from error
        except ValueError as error:
            raise invalid(f"{path}, line {number}", f"it is not JSON: {error}") from error
        records[record.node].append(record)
    if not records:
        raise invalid(str(path), "it holds no record")
    return {node: sorted(found, key=lambda record: record.time) for node, found in sorted(records.items())}


def read(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise invalid(str(path), f"it is larger than {MAX_FILE_BYTES} bytes")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HyperGPUError("profile.unknown", f"{path} cannot be read: {error}.") from error


def problems(error: ValidationError) -> str:
    found: list[Any] = error.errors()
    return "; ".join(f"{'.'.join(str(part) for part in item['loc']) or 'profile'}: {item['msg']}" for item in found)


def invalid(where: str, why: str) -> HyperGPUError:
    return HyperGPUError("profile.invalid", f"{where} is not a valid profile or trace: {why}.")
