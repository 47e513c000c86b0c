"""Loopback ports: three in a row, so that one number names a whole stack."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from scripts.hypergpu_demo.supervise import StackError

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Ports:
    """The page's port; the chain and redis take the next two."""

    web: int

    @property
    def chain(self) -> int:
        return self.web + 1

    @property
    def redis(self) -> int:
        return self.web + 2

    def all(self) -> tuple[int, int, int]:
        return self.web, self.chain, self.redis


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do, so that connections of an earlier run that linger do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether a server listens."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def claim(port: int) -> Ports:
    """Raises StackError when one of the three is taken."""
    ports = Ports(port)
    taken = [str(port) for port in ports.all() if not is_free(port)]
    if taken:
        raise StackError(f"Port {', '.join(taken)} is taken by another program: choose another --port, such as {port + 100}.")
    return ports


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def free_ports() -> Ports:
    """Three free ports in a row, for tests."""
    while True:
        port = free_port()
        if port < 65_000 and all(is_free(each) for each in Ports(port).all()):
            return Ports(port)
