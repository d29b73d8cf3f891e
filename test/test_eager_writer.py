"""Writing to a connection: at once what the kernel takes, and never out of order."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet import main
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol

from txpaxos import eager_writer
from txpaxos.eager_writer import EagerWriter

reactor: Any = installed_reactor


class Transport:
    """A transport whose kernel takes ``room`` bytes.

    :ivar taken: what the kernel has; what the transport holds comes behind it.
    """

    disconnecting = False
    TLS = False

    def __init__(self, room: int) -> None:
        self.room = room
        self.lost = False
        self.taken = b""
        self.held = b""

    def write(self, data: bytes) -> None:
        self.held += data

    def writeSomeData(self, data: bytes) -> int | Exception:
        if self.lost:
            return main.CONNECTION_LOST
        assert not self.held, "out of order"
        size = min(self.room, len(data))
        self.room -= size
        self.taken += data[:size]
        return size


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport of these tests counts as a plain TCP connection."""
    monkeypatch.setattr(eager_writer, "PLAIN_TRANSPORTS", (Transport,))


@pytest.mark.usefixtures("plain")
def test_what_the_kernel_takes_is_not_held() -> None:
    transport = Transport(10)
    writer = EagerWriter(transport)
    for data in (b"one", b"two"):
        writer.write(data)
    assert (transport.taken, transport.held) == (b"onetwo", b"")


@pytest.mark.usefixtures("plain")
def test_what_it_does_not_take_is_held_and_so_is_what_follows() -> None:
    transport = Transport(4)
    writer = EagerWriter(transport)
    for data in (b"one", b"two", b"three"):
        writer.write(data)
    transport.room = 100
    writer.write(b"four")
    assert (transport.taken, transport.held) == (b"onet", b"wothreefour")
    transport.held = b""  # the reactor has written it
    writer.on_drain()
    writer.write(b"five")
    assert transport.taken == b"onetfive"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("state", ["lost", "disconnecting"])
def test_a_connection_that_ends(state: str) -> None:
    """It is the transport that finds out, and that still has what it was given."""
    transport = Transport(4)
    writer = EagerWriter(transport)
    setattr(transport, state, True)
    writer.write(b"too late")
    assert transport.taken == b""
    assert transport.held == (b"too late" if state == "disconnecting" else b"")


def test_a_transport_that_knows_no_short_cut() -> None:
    class Plain:
        disconnecting = False
        held = b""

        def write(self, data: bytes) -> None:
            self.held += data

    plain = Plain()
    EagerWriter(plain).write(b"x")
    assert plain.held == b"x"


@pytest.mark.usefixtures("plain")
def test_tls_that_begins_on_a_standing_connection() -> None:
    transport = Transport(100)
    writer = EagerWriter(transport)
    writer.write(b"STARTTLS")
    transport.TLS = True
    writer.write(b"secret")
    assert (transport.taken, transport.held) == (b"STARTTLS", b"secret")


@pytest.mark.parametrize("kind", ["wrapper", "subclass"])
def test_what_only_looks_like_a_plain_connection(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapper:
        """As Twisted's wrappers: what it does not know is the wrapped one's."""

        def __init__(self, wrapped: Transport) -> None:
            self.wrapped = wrapped

        def write(self, data: bytes) -> None:
            self.wrapped.write(data.upper())

        def __getattr__(self, name: str) -> Any:
            return getattr(self.wrapped, name)

    class Subclass(Transport):
        def write(self, data: bytes) -> None:
            super().write(data.upper())

    monkeypatch.setattr(eager_writer, "PLAIN_TRANSPORTS", (Transport,))
    inner = Transport(100) if kind == "wrapper" else Subclass(100)
    EagerWriter(Wrapper(inner) if kind == "wrapper" else inner).write(b"x")
    assert (inner.taken, inner.held) == (b"", b"X")


async def test_bytes_arrive_in_order_however_much_there_is() -> None:
    """On a real connection, whose reader is slower than its writer."""
    rng = Random(1)
    parts = [rng.randbytes(rng.choice((1, 100, 70_000, 500_000))) for _ in range(120)]
    expected = b"".join(parts)
    received = bytearray()
    done: Deferred[None] = Deferred()

    class Reader(Protocol):
        def dataReceived(self, data: bytes) -> None:
            received.extend(data)
            if len(received) == len(expected):
                done.callback(None)

    class Writer(Protocol):
        def connectionMade(self) -> None:
            transport: Any = self.transport
            self.writer = EagerWriter(transport)
            transport.registerProducer(self, True)
            self.write()

        def write(self) -> None:
            for _ in range(rng.randrange(1, 9)):
                if parts:
                    self.writer.write(parts.pop(0))
            if parts:
                reactor.callLater(0, self.write)

        def pauseProducing(self) -> None:
            pass

        def resumeProducing(self) -> None:
            self.writer.on_drain()

        def stopProducing(self) -> None:
            pass

    port = reactor.listenTCP(0, Factory.forProtocol(Writer), interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    reader = await connectProtocol(endpoint, Reader())
    await done.addTimeout(30, reactor)
    assert bytes(received) == expected
    reader.transport.loseConnection()
    await maybeDeferred(port.stopListening)
