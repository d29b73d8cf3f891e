"""A service manager's end of the notification socket, for tests."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

SECONDS = 60.0


class Listening:
    """What was said at a socket."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def next(self, seconds: float = SECONDS) -> list[str]:
        """The lines of the next datagram.

        :raises TimeoutError: if none comes in that time.
        """
        self._socket.settimeout(seconds)
        return self._socket.recv(65536).decode().split("\n")

    def all(self) -> list[list[str]]:
        """The datagrams that have come."""
        found: list[list[str]] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.next(0.0))
        return found

    def wait_for(self, line: str) -> list[str]:
        """The lines of the first datagram that has this one. Those before it are dropped."""
        while line not in (lines := self.next()):
            pass
        return lines

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def listening(path: Path) -> Iterator[Listening]:
    """A socket at ``path``, which is removed at the end."""
    made = Listening(path)
    try:
        yield made
    finally:
        made.close()
        path.unlink()
