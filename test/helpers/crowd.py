"""Strangers that connect to a port of a node, and stall in the handshake: a process of their own.

    python -m test.helpers.crowd HOST PORT COUNT

One half says nothing at all, the other half the beginning of what TLS says first. It prints a line when ``COUNT`` are
connected, and stays until its standard input ends.
"""

from __future__ import annotations

import resource
import socket
import sys
from contextlib import suppress

FROM = "127.0.0.2"
"""Where the strangers are. A node gives up those of one address before others."""

FILES_KEPT = 64
BEGUN = bytes.fromhex("1603010200010001fc0303")
"""The first bytes of a ClientHello."""


def crowd(host: str, port: int, count: int) -> None:
    """Connect, and stay."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    open_ = []
    for number in range(count):
        one = socket.create_connection((host, port), 60.0, source_address=(FROM, 0))
        open_.append(one)
        if number % 2:
            with suppress(ConnectionError):  # The node may have closed it already.
                one.sendall(BEGUN)
    print(f"{len(open_)} are connected", flush=True)
    sys.stdin.read()


def crowd_max() -> int:
    """How many strangers there can be in one process, by the limit on open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard - FILES_KEPT


if __name__ == "__main__":
    crowd(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
