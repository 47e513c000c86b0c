"""Where an agent lives and whom it works for."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trainer.protocol.errors import HyperGPUError

DEFAULT_HOME = "~/.hypergpu/agent"
SOCKET_PATH_BYTES = 90
"""Unix socket addresses hold about 104 bytes on the strictest system; the rest is for the file's name."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds all an agent keeps. Deleting it forgets the hot key."""

    root: Path

    @classmethod
    def at(cls, root: str | Path) -> Home:
        """Make the folder, readable by its owner only. Raises HyperGPUError `config.home_too_long`."""
        home = cls(Path(root).expanduser().resolve())
        if len(os.fsencode(home.run)) > SOCKET_PATH_BYTES:
            text = f"The path {home.root} is too long for a Unix socket; choose a shorter --home."
            raise HyperGPUError("config.home_too_long", text)
        home.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (home.cache, home.artifacts, home.results, home.versions, home.traces, home.logs):
            folder.mkdir(exist_ok=True)
        return home

    @property
    def key(self) -> Path:
        return self.root / "hot.key"

    @property
    def pin(self) -> Path:
        """The coordinator that was met first."""
        return self.root / "coordinator.json"

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def facts(self) -> Path:
        """The worker's last word on its device, with the benchmark."""
        return self.root / "device.json"

    @property
    def lock(self) -> Path:
        return self.root / "agent.lock"

    @property
    def children(self) -> Path:
        return self.root / "children.json"

    @property
    def cache(self) -> Path:
        """Fetched artifacts by SHA-256."""
        return self.root / "cache"

    @property
    def artifacts(self) -> Path:
        """Own pseudo-gradients, and what was shown of their traces, by SHA-256."""
        return self.root / "artifacts"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def versions(self) -> Path:
        """For each job, the model version that the worker holds: `<job>-<version>`, raw fp32."""
        return self.root / "versions"

    @property
    def traces(self) -> Path:
        """Of each artifact, by its SHA-256, how it came about: what audits may ask for."""
        return self.root / "traces"

    @property
    def budgets(self) -> dict[Path, int]:
        """Bytes that each folder keeps; what was used longest ago goes first. Traces take 6 bytes a parameter and segment border,
        so they get a part of the disk, however large that is."""
        gib = 2**30
        disk = shutil.disk_usage(self.root).total
        small = {self.artifacts: max(4 * gib, disk // 20), self.results: gib // 16}
        return small | {self.cache: 20 * gib, self.versions: 20 * gib, self.traces: disk // 4}

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets of the running agent; emptied at each start."""
        return self.root / "run"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentConfig:
    """`threads` of the CPU for training (None: all cores); `gpu` is the CUDA index (None: the first); `gpus` that train as one
    node. `endpoint` is where other nodes reach this one, if they do, `listen` where it listens for them (HOST:PORT)."""

    home: Home
    coordinator: str
    name: str
    threads: int | None = None
    gpu: int | None = None
    gpus: int = 1
    endpoint: str | None = None
    listen: str | None = None


def load_config(
    home: Home, *, coordinator: str | None = None, name: str | None = None, threads: int | None = None, gpu: int | None = None,
    gpus: int = 1, endpoint: str | None = None, listen: str | None = None,
) -> AgentConfig:  # fmt: skip
    """What is given now, over what was given last, which is then kept.

    Raises HyperGPUError `config.no_coordinator`, `config.insecure_url` or `config.gpus`.
    """
    if gpu is not None and gpus > 1:
        raise HyperGPUError("config.gpus", "Choose either one GPU (--gpu) or how many work together (--gpus).")
    kept = json.loads(home.config.read_text()) if home.config.exists() else {}
    url = checked_url(coordinator or kept.get("coordinator"))
    name = (name or kept.get("name") or platform.node())[:80]
    if kept != (wanted := {"coordinator": url, "name": name}):
        write_json(home.config, wanted)
    return AgentConfig(
        home=home, coordinator=url, name=name, threads=threads, gpu=gpu, gpus=gpus, endpoint=endpoint, listen=listen
    )


def checked_url(url: str | None) -> str:
    """The coordinator's address without a trailing slash: https, or http on this machine."""
    if not url:
        raise HyperGPUError("config.no_coordinator", "Say whom to work for: --coordinator https://... (kept for the next time).")
    parts = urlsplit(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise HyperGPUError("config.insecure_url", f"{url} is not the address of a coordinator, such as https://example.org.")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise HyperGPUError("config.insecure_url", f"{url} is not encrypted; http is for this machine only, use https.")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def write_json(path: Path, value: object) -> None:
    """A file that is there whole or not at all, also after a crash in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def sha256_of(path: Path) -> str:
    """Of a file of any size, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
