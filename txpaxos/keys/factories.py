"""Connections with keys, as Twisted wants them."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer


@implementer(IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator)
class Newest:
    """Makes each connection with the creator that it has then.

    :ivar creator: one of :mod:`txpaxos.keys.tls`.
    """

    def __init__(self, creator: Any) -> None:
        self.creator = creator

    def clientConnectionForTLS(self, tlsProtocol: object) -> Any:
        """A connection that dials."""
        return self.creator.clientConnectionForTLS(tlsProtocol)

    def serverConnectionForTLS(self, tlsProtocol: object) -> Any:
        """A connection that accepts."""
        return self.creator.serverConnectionForTLS(tlsProtocol)


class TlsFactory(TLSMemoryBIOFactory):
    """A factory in TLS. Unlike Twisted's own, it makes no connection where the factory in it wants none."""

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        """What speaks TLS on a new connection; ``None`` if the connection is not wanted."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)
