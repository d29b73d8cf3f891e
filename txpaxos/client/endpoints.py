"""Nodes that a client reaches by a Twisted endpoint string, as ``unix:/run/a.sock``, and not by host and port."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address
from txpaxos.errors import ConfigError

PREFIXES = ("unix:", "tls:", "tcp:")
"""How an endpoint string begins."""


@attrs.frozen
class EndpointString:
    """Where a node is, in the words of Twisted's endpoints."""

    text: str

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """The endpoint.

        :raises ConfigError: if the string does not describe one, or TLS needs a library that is not installed.
        """
        try:
            endpoint: IStreamClientEndpoint = clientFromString(reactor, self.text)
        except Exception as error:  # Each kind of endpoint raises what it likes.
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(f"{self.text!a} is no client endpoint: {reason}") from None
        return endpoint

    def connect(self, reactor: Any, factory: ClientFactory, seconds: float) -> EndpointConnector:
        """Connect as ``connectTCP`` does, with the same calls of ``factory``.

        :param seconds: how long that may take.
        """
        return EndpointConnector(reactor, factory).start(self.endpoint(reactor), seconds)

    def __str__(self) -> str:
        return self.text


Place: TypeAlias = Address | EndpointString
"""Where a client finds a node."""


def parse_place(text: str) -> Place:
    """Read ``host:port``, or an endpoint string that begins with one of :data:`PREFIXES`.

    :raises ValueError: if ``text`` is neither.
    """
    try:
        return Address.parse(text)
    except ValueError:
        if not text.startswith(PREFIXES):
            raise
        return EndpointString(text)


class EndpointConnector:
    """Connects to an endpoint, once. It has the part of the interface of a connector that a client needs."""

    def __init__(self, reactor: Any, factory: ClientFactory) -> None:
        self._reactor = reactor
        self._factory = factory
        self._connecting: Deferred[Any]
        self._has_started = self._is_late = False

    def start(self, endpoint: IStreamClientEndpoint, seconds: float) -> EndpointConnector:
        """Begin to connect."""
        late = monotonic_clock(self._reactor).callLater(seconds, self._took_too_long)

        def ended(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        self._connecting = endpoint.connect(self._factory)
        self._connecting.addBoth(ended).addErrback(self._failed)
        self._has_started = True
        return self

    def stopConnecting(self) -> None:
        """Give up. The factory's ``clientConnectionFailed`` is called, as by Twisted's connectors."""
        self._connecting.cancel()

    def _took_too_long(self) -> None:
        self._is_late = True
        self._connecting.cancel()

    def _failed(self, reason: Failure) -> None:
        if not self._has_started:  # The caller of connect() does not have this connector yet.
            self._reactor.callLater(0, self._failed, reason)
            return
        reason = Failure(ConnectTimeout()) if self._is_late else reason
        self._factory.clientConnectionFailed(self, reason)  # type: ignore[arg-type]
