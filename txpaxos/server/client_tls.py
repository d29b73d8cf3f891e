"""TLS on the client port of a node that has keys. It is imported only then, since it loads OpenSSL.

A client without keys says nothing before the node does, and TLS says nothing before the client does. So that neither
waits for ever, a client that says nothing at all is soon sent an alert of TLS, by which a client of this release knows
what it lacks.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ServerFactory

from txpaxos.keys.factories import Newest, TlsFactory, TlsTransport
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import client_accept

ALERT = bytes([21, 3, 3, 0, 2, 2, 90])
"""A fatal alert of TLS: the handshake is cancelled. It blames nothing that the client has, so one with keys tries
again: its machine, or the network, may have been too slow."""


class ClientTransport(TlsTransport):
    """TLS with one client.

    :ivar has_heard: whether anything has come from the client.
    """

    has_heard = False

    def dataReceived(self, data: bytes) -> None:
        """Bytes have come."""
        self.has_heard = True
        super().dataReceived(data)

    def send_alert(self) -> None:
        """Tell a client that has said nothing that TLS is spoken here, and disconnect it."""
        transport: Any = self.transport
        transport.write(ALERT)
        transport.loseConnection()


class ClientTls(TlsFactory):
    """The factory of a client port, wrapped in TLS.

    :param clock: the reactor.
    """

    protocol = ClientTransport
    noisy = False

    def __init__(self, keys: Keys, port: ServerFactory, clock: Any) -> None:
        self._newest = Newest(client_accept(keys))
        super().__init__(self._newest, False, port, clock)

    def use_keys(self, keys: Keys) -> None:
        """Use other keys for the clients that connect from now on."""
        self._newest.creator = client_accept(keys)
