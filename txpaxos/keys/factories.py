"""Connections with keys, as Twisted wants them."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import WantReadError
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.eager_writer import EagerWriter


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


class TlsTransport(TLSMemoryBIOProtocol):
    """TLS on one connection. It encrypts what is written at once, and gives that to the kernel at once.

    Twisted's own collects small writes until the next iteration of the reactor, and its transport keeps them for one
    more. What is written here was collected before, so both would only delay it."""

    _is_lost = False

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        self._writer = EagerWriter(transport)
        super().makeConnection(transport)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Tell ``producer``, and the writer, when the transport has written its backlog."""
        super().registerProducer(_Producer(producer, self._writer) if streaming else producer, streaming)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and with it the way of all that TLS would still say."""
        self._is_lost = True
        super().connectionLost(reason)

    def _flushSendBIO(self) -> None:
        try:
            data = self._tlsConnection.bio_read(2**15)
        except WantReadError:
            return  # Nothing is to be sent.
        if not self._is_lost:
            self._writer.write(data)


@implementer(IPushProducer)
class _Producer:
    """A producer, and the writer that has to be told, too, when there is room again."""

    def __init__(self, producer: Any, writer: EagerWriter) -> None:
        self.pauseProducing = producer.pauseProducing
        self.stopProducing = producer.stopProducing
        self._producer = producer
        self._writer = writer

    def resumeProducing(self) -> None:
        """The transport has written its backlog."""
        self._writer.on_drain()
        self._producer.resumeProducing()


class TlsFactory(TLSMemoryBIOFactory):
    """A factory in TLS. Unlike Twisted's own, it makes no connection where the factory in it wants none."""

    protocol = TlsTransport

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]
        """What speaks TLS on a new connection; ``None`` if the connection is not wanted."""
        protocol = self.wrappedFactory.buildProtocol(addr)
        return None if protocol is None else self.protocol(self, protocol)
