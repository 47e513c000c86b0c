"""What the kernel knows of a TCP connection (Linux: struct tcp_info of linux/tcp.h, since 4.6 with the fields used here)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

TCP_INFO_BYTES = 160
"""Up to and with tcpi_data_segs_out."""
RTT, RTTVAR, TOTAL_RETRANS, MIN_RTT, DATA_SEGS_OUT = 68, 72, 100, 148, 156
"""Offsets of native 32-bit words: eight bytes, 24 words, four 64-bit words, then words again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TcpInfo:
    """Smoothed round trip, its mean deviation (RFC 6298) and the least of the last minutes, in seconds; data segments sent, and
    how many of them again. Through a proxy all of it is of the way to the proxy."""

    rtt_s: float
    rttvar_s: float
    min_rtt_s: float
    segments: int
    retransmits: int


def tcp_info(connection: socket.socket) -> TcpInfo | None:
    """None where the platform has no such thing, or for what is no TCP connection any more."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or not hasattr(connection, "getsockopt"):
        return None
    try:
        data = connection.getsockopt(socket.IPPROTO_TCP, option, TCP_INFO_BYTES)
    except OSError:
        return None
    if len(data) < TCP_INFO_BYTES:
        return None

    def word(offset: int) -> int:
        return int(struct.unpack_from("=I", data, offset)[0])

    return TcpInfo(
        rtt_s=word(RTT) / 1e6, rttvar_s=word(RTTVAR) / 1e6, min_rtt_s=word(MIN_RTT) / 1e6, segments=word(DATA_SEGS_OUT),
        retransmits=word(TOTAL_RETRANS),
    )  # fmt: skip
