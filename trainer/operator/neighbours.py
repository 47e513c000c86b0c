"""Nodes near this one, as leases name them: what is fetched from them and goes up by them, and what they get here."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from trainer.network.sources import Patience
from trainer.operator.client import Check, Coordinator
from trainer.operator.config import AgentConfig, is_loopback
from trainer.operator.links import Links
from trainer.operator.peers import Endpoint, Peers, Shelf, checked_endpoint, listening_address
from trainer.operator.transfers import upload
from trainer.operator.tunnels import ByWay, Guests
from trainer.protocol.errors import HyperGPUError


class Neighbours:
    """`named`: what the newest lease says of other nodes; `ways`: what connections by each that carried an upload have told."""

    def __init__(self, config: AgentConfig, coordinator: Coordinator) -> None:
        self.config, self.coordinator, self.say = config, coordinator, coordinator.say
        local = is_loopback(urlsplit(config.coordinator).hostname or "")
        self.shelf, self.peers = Shelf(config.home.cache), Peers(coordinator.links, may_be_local=local)
        self.guests, self.patience = Guests(config.coordinator, config.endpoint), Patience()
        self.named: dict[str, Any] = {}
        self.ways: dict[tuple[int, str], Links] = {}

    def open_endpoint(self) -> Endpoint | None:
        """For other nodes, if they can reach this one. Raises HyperGPUError `config.endpoint`."""
        if self.config.endpoint is None:
            return None
        host, port = listening_address(self.config.listen, checked_endpoint(self.config.endpoint))
        try:
            return Endpoint((host, port), self.shelf, self.guests)
        except OSError as error:
            raise HyperGPUError("config.endpoint", f"This machine cannot listen at {host}:{port}: {error}.") from error

    def hear(self, named: dict[str, Any]) -> None:
        self.named = named
        self.peers.ping_all({int(node): url for node, url in named.get("pings", {}).items()})
        self.guests.expect(named.get("carry", []))

    def fetch(self, sha256: str, *, check: Check) -> str | None:
        """The outer step from a near node, whose number is returned; None when none of them has it in time."""
        file = self.config.home.cache / sha256
        if file.exists():
            return None
        seconds = self.coordinator.links.seconds_down(self.named.get("size", 0))
        for node, url in self.named.get("sources", {}).items():
            started = time.monotonic()
            if not self.patience.may_ask(int(node), started):
                continue
            if self.peers.fetch(url, sha256, file.parent, seconds=seconds, check=check):
                self.patience.kept(int(node))
                self.coordinator.links.shared(int(node), file.stat().st_size, time.monotonic() - started)
                return str(node)
            self.spare(int(node), "did not give the outer step")
        return None

    def upload(self, assignment: int, fence: int, file: Path, sha256: str, *, check: Check) -> bool:
        """By way of the near node that the plan names. Whether the coordinator says itself that it has the whole file then. Who
        breaks off, or takes longer than the direct way should, is given up and spared for a while."""
        gather = self.named.get("gather")
        if gather is None or (way := self.way_by(gather["node"], gather["url"])) is None:
            return False

        def in_time() -> None:
            check()
            if way.is_broken:
                raise HyperGPUError("gather.failed", "its connection has ended")

        timer = threading.Timer(self.coordinator.links.seconds_up(file.stat().st_size), way.cut)
        timer.start()
        try:
            upload(way, assignment, fence, file, sha256, check=in_time)
            why = "the coordinator has not got it"
        except (httpx.TransportError, HyperGPUError) as error:
            why = str(error) or type(error).__name__
        finally:
            timer.cancel()
            way.close()
        check()
        asked = f"/agent/v1/assignments/{assignment}/pieces/1?fence={fence}"
        if self.coordinator.persist(lambda: self.coordinator.get(asked), check=check).json()["whole"]:
            self.patience.kept(way.node)
            self.ways[way.node, gather["url"]] = way.links
            self.say("upload.gathered", f"uploaded by way of node {way.node}")
            return True
        self.ways.pop((way.node, gather["url"]), None)
        self.spare(way.node, f"did not carry the upload ({why}), which goes direct")
        return False

    def spare(self, node: int, what: str) -> None:
        pause = self.patience.failed(node, time.monotonic())
        self.say("peer.failed", f"node {node} {what}: not asked for {pause:.0f} s")

    def way_by(self, node: int, endpoint: str) -> ByWay | None:
        if not self.patience.may_ask(node, time.monotonic()) or not (addresses := self.peers.addresses_to_ask(endpoint)):
            return None
        links = self.ways.get((node, endpoint))
        return ByWay(self.coordinator, node=node, endpoint=endpoint, addresses=addresses, links=links)
