"""Connections with keys, as Twisted wants them."""

from __future__ import annotations

from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
)
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.eager_writer import EagerWriter

RECORD_BYTES_MAX = 2**14
"""A record has no more bytes of data than this."""

SILENT_RECORDS_MAX = 1024
"""How many records without data one connection may bring: those of the handshake, and a few more. Each one that has the
keys changed costs as much as the decryption of many others, and is answered: 27 bytes wait until there is more to be
sent."""


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


class Records:
    """Follows where TLS records end in the bytes of one direction (RFC 8446, section 5.1).

    :ivar total: how many records have begun so far.
    """

    HEAD_BYTES = 5

    def __init__(self) -> None:
        self.total = 0
        self._head = b""
        self._missing = 0  # Of the record whose head is complete.

    def whole(self, data: bytes) -> int:
        """How many records ``data`` consists of; 0 if it does not begin and end where a record does."""
        begins, count, at, end = not (self._missing or self._head), 0, 0, len(data)
        if begins and int.from_bytes(data[3 : self.HEAD_BYTES], "big") + self.HEAD_BYTES == end:
            self.total += 1
            return 1  # As nearly always.
        while at < end:
            if not self._missing:
                need = self.HEAD_BYTES - len(self._head)
                self._head += data[at : at + need]
                at += need
                if at >= end:  # A record is never empty.
                    break
                count += 1
                self._missing = int.from_bytes(self._head[3:], "big")
            at += self._missing
            self._missing = max(0, at - end)
            if not self._missing:
                self._head = b""
        self.total += count
        return count if begins and not self._missing and not self._head else 0


class TlsTransport(TLSMemoryBIOProtocol):
    """TLS on one connection. It encrypts what is written at once, and gives that to the kernel at once.

    Twisted's own collects small writes until the next iteration of the reactor, and its transport keeps them for one
    more. What is written here was collected before, so both would only delay it. Twisted also asks OpenSSL for more
    until there is none, which costs as much as the decryption of a small record. So records are counted here.

    :ivar _records: follows what arrives.
    :ivar _records_with_data: how many of them had data.
    """

    _is_lost = False

    def __init__(self, factory: Any, wrapped: Any, connect_wrapped: bool = True) -> None:
        super().__init__(factory, wrapped, connect_wrapped)
        self._records = Records()
        self._records_with_data = 0

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        self._writer = EagerWriter(transport)
        super().makeConnection(transport)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Tell ``producer``, and the writer, when the transport has written its backlog."""
        super().registerProducer(_Producer(producer, self._writer) if streaming else producer, streaming)

    def dataReceived(self, bytes: bytes) -> None:
        """Decrypt what has arrived."""
        count = self._records.whole(bytes)
        if not count or not self._handshakeDone or self._appSendBuffer:
            super().dataReceived(bytes)
        else:
            self._tlsConnection.bio_write(bytes)
            for _ in range(count):
                if self._lostTLSConnection:
                    return
                self._take_data()
        if self._records.total - self._records_with_data > SILENT_RECORDS_MAX:
            self.abortConnection()

    def _flushReceiveBIO(self) -> None:
        while not self._lostTLSConnection and self._take_data():
            pass
        self._flushSendBIO()

    def _take_data(self) -> bool:
        """Hand on the data of the next record that has some. False if there is none."""
        try:
            data = self._tlsConnection.recv(RECORD_BYTES_MAX)
        except WantReadError:
            return False
        except ZeroReturnError:
            self._shutdownTLS()
            self._tlsShutdownFinished(None)
        except Error:
            self._tlsShutdownFinished(Failure())
        else:
            self._records_with_data += 1
            if not self._aborted:
                ProtocolWrapper.dataReceived(self, data)
        return True

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
