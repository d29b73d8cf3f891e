"""The node's end of the connection of a client that has to show who it is, since the node has keys.

The connection is wrapped in TLS. When that is agreed upon, the client's certificate says who it is, or its first
message does (:class:`~txpaxos.wire.client_messages.Authenticate`). Until then it is told nothing, little is read from
it, and it has a limited time. From then on each of its requests is looked at by
:class:`~txpaxos.server.access.Access` before anything else is done with it.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.errors import CodecError, NotAllowed, Overloaded, PaxosError
from txpaxos.node.counts import Count
from txpaxos.server.access import Access
from txpaxos.server.answers import refusal
from txpaxos.server.connection import REQUEST_BYTES_MAX, ServerConnection, ServerPort
from txpaxos.server.shares import SHARES, SharedBudget
from txpaxos.server.tasks import Task
from txpaxos.wire.client_messages import (
    CLIENT_TOKEN_BYTES_MAX,
    Authenticate,
    Authenticated,
    FromClient,
    FromNode,
    Request,
)

STRANGER_SECONDS = 10.0
"""How long a client may take to show who it is."""

SILENT_SECONDS = 0.7
"""How long a client may take to say anything at all. One with keys begins at once."""

STRANGER_BYTES_MAX = CLIENT_TOKEN_BYTES_MAX + 2**8
"""The longest message of a client that has not shown yet who it is."""

CLOSE_SECONDS = 2.0
"""How long a refused client may take to read why, before its connection is closed at once."""


@implementer(IHandshakeListener)
class SecuredConnection(ServerConnection):
    """One client that shows who it is.

    :ivar principal: the client's name; empty while it has shown nothing.
    """

    transport: Any  # A txpaxos.server.client_tls.ClientTransport.
    _budget: SharedBudget

    def __init__(self, owner: ServerPort, access: Access, clock: IReactorTime, host: str = "") -> None:
        super().__init__(owner, host)
        self.principal = ""
        self._token = b""  # What it has shown, if that was a token.
        self._access = access
        self._clock = clock
        self._splitter.frame_bytes_max = STRANGER_BYTES_MAX
        self._has_begun = self._has_asked = self._has_shaken_hands = False
        self._deadline: IDelayedCall | None = None

    # from Twisted

    def connectionMade(self) -> None:
        """The connection is there. The client has to say something first."""
        self._open()
        self._access.strangers.add(self)
        self._deadline = self._clock.callLater(SILENT_SECONDS, self._may_be_silent)

    def handshakeCompleted(self) -> None:
        """TLS is agreed upon, and the client's certificate is verified, if it has shown one."""
        self._has_shaken_hands = True
        self._identify(self._access.identify(self.transport))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self._is_open and not self._has_shaken_hands:
            self._access.refused_connection(self.host, reason)
        self._stop_deadline()
        self._access.strangers.remove(self)
        super().connectionLost(reason)

    # from the client port

    def look_again(self) -> None:
        """The node has other keys now. See whether it still believes the client."""
        if self._is_open and self.principal:
            error = self._access.distrust(self._shown, self.principal, self.transport, self._token)
            if error is not None:
                self._turn_away(error)

    # who the client is

    @property
    def _shown(self) -> str:
        """What the log calls the client."""
        return f"client {self.principal} at {self.host}" if self.principal else f"a client at {self.host}"

    def _identify(self, principal: str) -> None:
        """The client has shown that it is ``principal``; empty if it has shown nothing yet."""
        rights = self._access.rights_of(principal)
        if not principal and not rights:
            self._send(Authenticated("", ()))
            return
        if self._budget.connections_of(principal) >= max(1, self._owner.connections_max // SHARES):
            self._owner.counters[Count.TOO_MANY_CONNECTIONS_OF_A_CLIENT] += 1
            self._turn_away(Overloaded(f"too many connections of {_named(principal)} at this node; close some"))
            return
        self._stop_deadline()
        self._access.strangers.remove(self)
        if self._has_begun:
            self._owner.closed(self)
        self.principal, self.counts_for = principal, f"client {principal}"
        self._budget.assign(self._usage, principal)
        self._splitter.frame_bytes_max = REQUEST_BYTES_MAX
        self._has_begun = True
        self._send(Authenticated(principal, rights))
        self._begin()

    def _authenticate(self, message: Authenticate) -> None:
        """The client shows its token."""
        if not self._has_shaken_hands or self._has_asked or self.principal:
            raise CodecError("a client shows its token first, and once")
        principal = self._access.principal_of(message.token)
        if principal:
            self._token = message.token
            self._identify(principal)
        else:
            self._turn_away(self._access.refused_token(self.host))

    def _turn_away(self, error: PaxosError) -> None:
        """Tell the client why it is refused, and disconnect it."""
        self._send(refusal(0, error))
        self._write_held()
        self._is_open = False
        self._stop_deadline()
        self._deadline = self._clock.callLater(CLOSE_SECONDS, self.transport.abortConnection)
        self.transport.unregisterProducer()  # Otherwise TLS waits for what is produced yet.
        self.transport.loseConnection()

    def _may_be_silent(self) -> None:
        self._deadline = self._clock.callLater(0, self._was_silent)  # Once all has been read that has come.

    def _was_silent(self) -> None:
        self._deadline = self._clock.callLater(STRANGER_SECONDS - SILENT_SECONDS, self._took_too_long)
        if not self.transport.has_heard:
            self._access.gave_up(self.host, "it has said nothing, as a client without keys does")
            self._is_open = False
            self.transport.send_alert()

    def _took_too_long(self) -> None:
        self._deadline = None
        if self._is_open:
            self._access.gave_up(self.host, "it has not shown who it is")
        self.close()

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    # requests

    def _receive(self, message: FromClient | FromNode) -> None:
        if isinstance(message, Authenticate):
            self._authenticate(message)
        elif self._has_begun:
            super()._receive(message)
        elif isinstance(message, Request):
            self._send(refusal(message.request, self._refused(message), Task.of(message).requests))
        else:
            raise CodecError("a client has to show first who it is")

    def _receive_request(self, request: Request) -> None:
        self._has_asked = True
        error = self._refused(request)
        if error is None:
            super()._receive_request(request)
        else:
            self._send(refusal(request.request, error, Task.of(request).requests))

    def _refused(self, request: Request) -> NotAllowed | None:
        return self._access.refusal(self._shown, self.principal, request)


def _named(principal: str) -> str:
    return f"the client {principal!r}" if principal else "clients without a certificate or a token"
