"""How many strangers a public endpoint serves at once, how many of one address, and for how long."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from contextlib import suppress


class Places:
    """`most` at once, `of_one` of them for the same one."""

    def __init__(self, most: int, of_one: int) -> None:
        self.most, self.of_one, self.taken, self.lock = most, of_one, Counter[str](), threading.Lock()

    def enter(self, who: str) -> bool:
        """Whether there is a place, which is to be left again."""
        with self.lock:
            is_free = self.taken.total() < self.most and self.taken[who] < self.of_one
            self.taken[who] += is_free
            return is_free

    def leave(self, who: str) -> None:
        with self.lock:
            self.taken -= Counter([who])


class Deadlines:
    """When what is under way on a connection must be done, whatever trickles in meanwhile: a timeout of a socket begins anew with
    each byte."""

    def __init__(self) -> None:
        self.ends, self.lock = dict[socket.socket, float](), threading.Lock()

    def give(self, connection: socket.socket, seconds: float) -> None:
        with self.lock:
            self.ends[connection] = time.monotonic() + seconds

    def lift(self, connection: socket.socket) -> None:
        with self.lock:
            self.ends.pop(connection, None)

    def cut(self, now: float) -> None:
        """End the connections whose time is over, under who waits for them."""
        with self.lock:
            for connection in [connection for connection, ends in self.ends.items() if ends < now]:
                del self.ends[connection]
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
