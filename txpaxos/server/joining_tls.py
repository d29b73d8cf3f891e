"""TLS for a node that joins a cluster with keys. It is imported only then, since it loads OpenSSL.

A node asks to join before the reactor runs, so it does this with a socket that blocks.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeVar

from OpenSSL import SSL
from twisted.python.failure import Failure

from txpaxos.errors import ConfigError
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import client_dial, name_of, reason_of

T = TypeVar("T")


class TlsSocket:
    """A connected socket in TLS, as far as joining needs it.

    :param keys: those of a client.
    :param place: how errors begin: which option named the node.
    :raises ConfigError: (each method) if either side does not believe the other one.
    """

    def __init__(self, plain: socket.socket, keys: Keys, place: str) -> None:
        self._plain = plain
        self._place = place
        self._tls = client_dial(keys).clientConnectionForTLS(None)
        self._tls.set_connect_state()
        self._do(self._tls.do_handshake)

    def getHandle(self) -> SSL.Connection:
        """The connection, as :mod:`txpaxos.keys.tls` asks for it."""
        return self._tls

    @property
    def node(self) -> str:
        """The name in the certificate of the node."""
        return name_of(self)

    def settimeout(self, seconds: float) -> None:
        """How long the other side may say nothing."""
        self._plain.settimeout(seconds)

    def sendall(self, data: bytes) -> None:
        """Send ``data``."""
        self._do(lambda: self._tls.sendall(data))

    def recv(self, size_bytes: int) -> bytes:
        """What has come; empty if the other side has closed the connection."""
        try:
            return self._do(lambda: self._tls.recv(size_bytes))
        except (SSL.ZeroReturnError, EOFError):
            return b""

    def close(self) -> None:
        """Close the socket."""
        self._plain.close()

    def _do(self, operation: Callable[[], T]) -> T:
        """Carry bytes between TLS and the socket until ``operation`` is done."""
        try:
            while True:
                try:
                    done = operation()
                except SSL.WantReadError:
                    self._flush()
                    data = self._plain.recv(2**16)
                    if not data:
                        raise EOFError from None
                    self._tls.bio_write(data)
                else:
                    self._flush()
                    return done
        except SSL.ZeroReturnError:
            raise
        except SSL.Error as error:
            self._flush()  # The other side should know why.
            raise ConfigError(f"{self._place}: {reason_of(Failure(error))}") from None

    def _flush(self) -> None:
        while True:
            try:
                self._plain.sendall(self._tls.bio_read(2**16))
            except SSL.WantReadError:
                return
