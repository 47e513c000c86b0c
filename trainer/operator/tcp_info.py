"""What the kernel knows of a TCP connection (Linux: struct tcp_info of linux/tcp.h, since 4.6 with the fields used here)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

TCP_INFO_BYTES = 160
"""Up to and with tcpi_data_segs_out; with tcpi_dsack_dups (4.20) they are 220."""
RTT, RTTVAR, TOTAL_RETRANS, MIN_RTT, DATA_SEGS_OUT, DSACK_DUPS = 68, 72, 100, 148, 156, 216
"""Offsets of native 32-bit words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TcpInfo:
    """Smoothed round trip, its mean deviation (RFC 6298) and the least of the last minutes, in seconds; data segments sent, and
    how many of them again, less those that the receiver had already (DSACK, RFC 2883): a slow machine's answer is no loss.
    Through a proxy all of it is of the way to the proxy."""

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
        data = connection.getsockopt(socket.IPPROTO_TCP, option, DSACK_DUPS + 4)
    except OSError:
        return None
    if len(data) < TCP_INFO_BYTES:
        return None

    def word(offset: int) -> int:
        return int(struct.unpack_from("=I", data, offset)[0]) if offset + 4 <= len(data) else 0

    return TcpInfo(
        rtt_s=word(RTT) / 1e6, rttvar_s=word(RTTVAR) / 1e6, min_rtt_s=word(MIN_RTT) / 1e6, segments=word(DATA_SEGS_OUT),
        retransmits=max(word(TOTAL_RETRANS) - word(DSACK_DUPS), 0),
    )  # fmt: skip
