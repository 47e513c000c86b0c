"""Network namespaces (Linux, root): what runs in one has interfaces of its own, whose counters are its bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from scripts.hypergpu_demo.supervise import StackError

HUB_ADDRESS = "10.77.0.1"


@dataclass(frozen=True, slots=True)
class Counters:
    """Bytes and packets since the interface was made, with all headers from IP's down to the link's."""

    received: int
    sent: int
    packets: int


def require_namespaces() -> None:
    """Raises StackError where namespaces cannot be made."""
    if shutil.which("ip") is None:
        raise StackError("This bench counts bytes in network namespaces and needs the `ip` command: apt-get install iproute2.")
    if os.geteuid() != 0:
        raise StackError("This bench counts bytes in network namespaces, which only root can make: run it as root.")


def inside(name: str, command: Sequence[str]) -> list[str]:
    """`command`, to be started in the namespace."""
    return ["ip", "netns", "exec", name, *command]


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace with a loopback interface; whatever still runs in it at the end is killed."""
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        for pid in ip("netns", "pids", name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        ip("netns", "del", name)


@contextmanager
def star(prefix: str, leaves: int) -> Iterator[tuple[str, list[str]]]:
    """A hub at HUB_ADDRESS and leaves, each joined to it by a cable (veth pair) of its own; their cable's end is `eth0`."""
    with ExitStack() as stack:
        hub = stack.enter_context(namespace(f"{prefix}-hub"))
        names = [stack.enter_context(namespace(f"{prefix}-{number}")) for number in range(1, leaves + 1)]
        ip("-n", hub, "link", "add", "bridge", "type", "bridge")
        ip("-n", hub, "addr", "add", f"{HUB_ADDRESS}/24", "dev", "bridge")
        ip("-n", hub, "link", "set", "bridge", "up")
        for number, leaf in enumerate(names, 1):
            ip("-n", hub, "link", "add", f"leaf{number}", "type", "veth", "peer", "name", "eth0", "netns", leaf)
            ip("-n", hub, "link", "set", f"leaf{number}", "master", "bridge", "up")
            ip("-n", leaf, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
            ip("-n", leaf, "link", "set", "eth0", "up")
        yield hub, names


def counters(name: str, interface: str) -> Counters:
    done = subprocess.run(inside(name, ["cat", "/proc/net/dev"]), capture_output=True, text=True, check=True)
    return parse_counters(done.stdout, interface)


def parse_counters(table: str, interface: str) -> Counters:
    """From /proc/net/dev (proc_net_dev(5)): eight columns received, eight sent; bytes and packets come first."""
    for line in table.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == interface:
            numbers = [int(word) for word in rest.split()]
            return Counters(received=numbers[0], sent=numbers[8], packets=numbers[1] + numbers[9])
    raise ValueError(f"there is no interface {interface}")


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
