"""Two ends of a TLS connection in memory. Nothing waits, and no byte leaves the process."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim

from txpaxos.keys.tls import reason_of

ROUNDS_MAX = 50


class End(Protocol):
    """Keeps what it gets.

    :ivar lost: why the connection was lost; ``None`` while it is there.
    :ivar reason: the same as a phrase.
    """

    def __init__(self) -> None:
        self.data = b""
        self.lost: Failure | None = None
        self.reason = ""

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self.reason = reason_of(reason, self.transport)


class Pair:
    """A side that dials and a side that accepts; either may be without TLS.

    :ivar dialled: the protocol of the side that dials.
    :ivar accepted: the protocol of the other side.
    :ivar bytes_accepted: how many bytes the accepting side has sent.
    :ivar bytes_dialled: how many the dialling side has sent.
    :ivar carried: all bytes that both sides have sent.
    """

    def __init__(self, dial: Any, accept: Any, rounds_max: int = ROUNDS_MAX) -> None:
        self.dialled, self.accepted = End(), End()
        self._clock = Clock()
        client = self._wrapped(dial, True, self.dialled)
        server = self._wrapped(accept, False, self.accepted)
        self._server, self._client = iosim.makeFakeServer(server), iosim.makeFakeClient(client)
        self._pump = iosim.connect(server, self._server, client, self._client, greet=False, clock=self._clock)
        self.bytes_accepted = self.bytes_dialled = 0
        self.carried = b""
        self._damage: tuple[int, int] | None = None
        self.run(rounds_max)

    def _wrapped(self, creator: Any, is_client: bool, end: End) -> Any:
        factory: Any = Factory.forProtocol(lambda: end)
        if creator is not None:
            factory = TLSMemoryBIOFactory(creator, is_client, factory, self._clock)
        return factory.buildProtocol(None)

    def run(self, rounds_max: int = ROUNDS_MAX) -> None:
        """Carry bytes until there are none, or ``rounds_max`` times."""
        for _ in range(rounds_max):
            sent = b"".join(self._server.stream)
            self.bytes_accepted += len(sent)
            self._damage_if_due()
            dialled = b"".join(self._client.stream)
            self.bytes_dialled += len(dialled)
            self.carried += sent + dialled
            if not self._pump.pump():
                return

    def carry_one_byte(self) -> bool:
        """Carry the next byte that the dialling side has sent, or, if there is none, all that the other side has sent.

        :returns: whether there was something."""
        self._clock.advance(0)
        if waiting := b"".join(self._client.stream):
            self._client.stream[:] = [waiting[1:]] if waiting[1:] else []
            self._server.bufferReceived(waiting[:1])
            return True
        if answer := self._server.getOutBuffer():
            self._client.bufferReceived(answer)
            return True
        return False

    def damage(self, offset: int, mask: int) -> None:
        """Change bits of one byte that the dialling side sends.

        :param offset: the byte, counted from the first one it ever sends."""
        self._damage = offset, mask

    def _damage_if_due(self) -> None:
        data = bytearray(b"".join(self._client.stream))
        if self._damage is not None and 0 <= (at := self._damage[0] - self.bytes_dialled) < len(data):
            data[at] ^= self._damage[1]
            self._client.stream[:] = [bytes(data)]
