"""A client's connection to a node that has keys: wrapped in TLS, and of use when the node has said who the client is.

The node's certificate has to be signed by the authority of the nodes, and the node is believed to be the one that it
names. The client shows a certificate, too, or its token once the node has shown itself.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.python.failure import Failure

from txpaxos.client.connection import ClientConnection, ConnectionOwner
from txpaxos.client.credentials import Credentials
from txpaxos.client.endpoints import Place
from txpaxos.errors import CodecError, NotAllowed
from txpaxos.wire.client_messages import (
    Authenticate,
    Authenticated,
    ClientCodec,
    FromClient,
    FromNode,
    Members,
    Refused,
    Welcome,
)
from txpaxos.wire.members import base_name


class SecuredConnection(ClientConnection):
    """One connection with TLS to one node."""

    def __init__(
        self, owner: ConnectionOwner, codec: ClientCodec, node: str, address: Place, credentials: Credentials
    ) -> None:
        super().__init__(owner, codec, node, address)
        self.credentials: Credentials = credentials
        self._has_shown_token = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection has ended, or TLS could not be agreed upon."""
        why = self.credentials.why(reason) if self.welcome is None else ""
        if why:
            self.is_refused = True
            self._reason = f"cannot be used: {why}"
        super().connectionLost(reason)

    def _wrap(self, factory: ClientFactory, reactor: Any) -> ClientFactory:
        return self.credentials.wrap(factory, reactor)

    def _receive(self, message: FromNode | FromClient) -> None:
        match message:
            case Authenticated(principal, rights):
                self._authenticated(principal, rights)
            case Refused(0, error, reason):
                self.is_refused = error == NotAllowed.__name__
                self._reason = f"refuses this client: {reason}"
                self.transport.loseConnection()
            case Welcome(node) if base_name(node) != self.credentials.name_of(self.transport):
                raise CodecError(f"it says that it is {ascii(node)[:40]}, and its certificate says otherwise")
            case Welcome() | Members() if self.principal is None:
                pass  # It is meant for clients that show nothing. Another one follows.
            case _:
                super()._receive(message)

    def _authenticated(self, principal: str, rights: tuple[str, ...]) -> None:
        """The node says who the client is to it."""
        if not principal and self.credentials.token:
            if not self._has_shown_token:
                self._has_shown_token = True
                self.send(Authenticate(self.credentials.token))
            return
        self.principal = principal
        if not principal and not rights:
            self.is_refused = True
            self._reason = "refuses this client: it has no certificate and no token, and such clients have no rights"
            self.transport.loseConnection()
