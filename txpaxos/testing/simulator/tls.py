"""TLS between the nodes of a simulated cluster: a handshake of three messages, whose random numbers come from the seed.

=============  ===============================================  =====================
from           message                                          sent
=============  ===============================================  =====================
the dialler    a random number                                  at once
the acceptor   a random number, and which certificate it shows  after that
the dialler    which certificate it shows                       if it believes that
=============  ===============================================  =====================

Certificates are real ones, and are verified as those of real connections are. Each message after the handshake carries
a tag, whose key comes from both random numbers: so what was recorded on one connection counts on no other. Nothing is
encrypted, and no private key is used, for no one in a simulated cluster reads on the way, or calculates. As in TLS 1.3,
the dialler has finished before the acceptor has looked at its certificate.

Datagrams are sealed with the cipher of real nodes. The checker sees each of them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random
from typing import Any

import attrs
from cryptography.x509 import Certificate
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure

from txpaxos.keys import trust
from txpaxos.keys.folder import Keys
from txpaxos.node.peer_tls import PeerTls
from txpaxos.testing.checkers.keys import KeysChecker
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.wire.sealed import SECRET_BYTES, Cipher

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
"""The time of day at which clocks that are right show 0 s."""

RANDOM_BYTES = 16
TAG_BYTES = 16
LENGTH_BYTES = 4
_HELLO, _CERTIFICATE, _REFUSED, _DATA = b"h", b"c", b"r", b"d"


class NotBelieved(Exception):
    """A connection has ended because of keys.

    :ivar phrase: why."""

    def __init__(self, phrase: str) -> None:
        super().__init__(phrase)
        self.phrase = phrase


@attrs.frozen(eq=False)
class Side:
    """What one node shows and believes, on connections that it makes from now on.

    :ivar expected_name: the name that the other side must have; any if empty.
    :ivar shown: all certificates that were shown in this simulation, by their fingerprints.
    :ivar utc_now: the clock of the node.
    """

    keys: Keys
    expected_name: str
    rng: Random
    shown: dict[bytes, Sequence[Certificate]]
    utc_now: Callable[[], datetime]

    def show(self) -> bytes:
        """Show the own certificate: its fingerprint stands for it."""
        fingerprint = bytes.fromhex(self.keys.fingerprint)
        self.shown[fingerprint] = self.keys.chain
        return fingerprint

    def refusal(self, chain: Sequence[Certificate]) -> str:
        """Why the other side is not believed; empty if it is."""
        if not chain:
            return "it showed no certificate"
        phrase = trust.refusal(chain[0], chain[1:], self.keys.nodes, self.keys.revoked, self.utc_now())
        name = trust.common_name(chain[0])
        if phrase or self.expected_name in ("", name):
            return phrase
        return f"its certificate {trust.WRONG_NAME}: {name}, and not {self.expected_name}"


class SimulatedTls(PeerTls):
    """What one process does with keys.

    :param rng: draws the random numbers of its handshakes.
    :param shown: see :class:`Side`.
    """

    def __init__(
        self,
        node: str,
        reactor: SimulatedReactor,
        rng: Random,
        shown: dict[bytes, Sequence[Certificate]],
        checker: KeysChecker,
    ) -> None:
        self._node = node
        self._reactor = reactor
        self._rng = rng
        self._shown = shown
        self._checker = checker

    def new_cipher(self, key: bytes) -> Cipher:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return self._checker.watch(self._node, key, super().new_cipher(key))

    def utc_now(self) -> datetime:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return BEGAN + (datetime.fromtimestamp(self._reactor.seconds(), UTC) - datetime.fromtimestamp(0, UTC))

    def accepting(self, keys: Keys) -> Side:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return self.dialling(keys, "")

    def dialling(self, keys: Keys, expected_name: str) -> Side:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return Side(keys, expected_name, self._rng, self._shown, self.utc_now)

    def factory(self, creator: Any, is_client: bool, wrapped: Any, clock: Any) -> SimulatedTlsFactory:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return SimulatedTlsFactory(creator, is_client, wrapped)

    def refusal_of(self, transport: Any, keys: Keys) -> str:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        chain = _finished(transport)
        return "" if chain is None else trust.refusal(chain[0], chain[1:], keys.nodes, keys.revoked, self.utc_now())

    def name_of(self, transport: Any) -> str:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        chain = _finished(transport)
        return "" if chain is None else trust.common_name(chain[0])

    def show_the_same(self, transport: Any, other: Any) -> bool:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return _finished(transport) == _finished(other)

    def secret_of(self, transport: Any) -> bytes:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return hashlib.blake2b(transport.master, digest_size=SECRET_BYTES, person=b"datagrams").digest()

    def reason_of(self, failure: Failure) -> str:
        """See :class:`~txpaxos.node.peer_tls.PeerTls`."""
        return str(getattr(failure.value, "phrase", ""))


def _finished(transport: Any) -> Sequence[Certificate] | None:
    """The certificates that the other side has shown; ``None`` while the handshake is under way."""
    is_finished = isinstance(transport, SimulatedTlsTransport) and transport.master
    return transport.peer_chain if is_finished else None


class SimulatedTlsTransport(ProtocolWrapper):
    """One connection.

    :ivar master: what the keys of this connection come from; empty until the handshake is finished.
    :ivar peer_chain: the certificates that the other side has shown.
    """

    factory: SimulatedTlsFactory

    def __init__(self, factory: SimulatedTlsFactory, wrapped: Protocol) -> None:
        super().__init__(factory, wrapped)
        self._is_client = factory.is_client
        self._side: Side = factory.creator.creator
        self.master = b""
        self.peer_chain: Sequence[Certificate] = ()
        self._received = b""
        self._waiting: list[bytes] = []
        self._random = self._side.rng.randbytes(RANDOM_BYTES)
        self._randoms = b""
        self._sent = self._taken = 0
        self._reason: Failure | None = None

    # from the transport

    def makeConnection(self, transport: Any) -> None:
        """Begin the handshake."""
        super().makeConnection(transport)
        if self._is_client:
            self._send(_HELLO, self._random)

    def dataReceived(self, data: bytes) -> None:
        """Handle the messages that are complete with ``data``."""
        self._received += data
        while len(self._received) >= LENGTH_BYTES and self._reason is None:
            end = LENGTH_BYTES + int.from_bytes(self._received[:LENGTH_BYTES], "big")
            if len(self._received) < end:
                return
            message, self._received = self._received[LENGTH_BYTES:end], self._received[end:]
            self._receive(message[:1], message[1:])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol in it why the connection has ended."""
        super().connectionLost(self._reason or reason)

    # from the protocol in it

    def write(self, data: bytes) -> None:
        """Send ``data``, when the handshake is finished."""
        if not self.master:
            self._waiting.append(data)
            return
        self._send(_DATA, data + self._tag(self._is_client, self._sent, data))
        self._sent += 1

    def writeSequence(self, iovec: Any) -> None:
        """Send all of ``iovec``."""
        self.write(b"".join(iovec))

    # inside

    def _receive(self, kind: bytes, body: bytes) -> None:
        if kind == _DATA and self.master:
            data, tag = body[:-TAG_BYTES], body[-TAG_BYTES:]
            if not hmac.compare_digest(tag, self._tag(not self._is_client, self._taken, data)):
                self._end("what it sent is damaged, forged, or recorded on another connection")
                return
            self._taken += 1
            assert self.wrappedProtocol is not None
            self.wrappedProtocol.dataReceived(data)
        elif kind == _REFUSED:
            self._end(f"it says that our certificate is refused: {body.decode(errors='replace')}")
        elif self.master:
            self._end("TLS failed: unexpected message")
        elif kind == _HELLO and len(body) >= RANDOM_BYTES:
            self._receive_hello(body[:RANDOM_BYTES], body[RANDOM_BYTES:])
        elif kind == _CERTIFICATE and self._randoms:
            if self._believes(body):
                self._finish()
        else:
            self._end("it does not speak TLS 1.3: keys are on here, and probably off there")

    def _receive_hello(self, other: bytes, shown: bytes) -> None:
        if self._is_client:
            self._randoms = self._random + other
            if self._believes(shown):
                self._send(_CERTIFICATE, self._side.show())
                self._finish()
        else:
            self._randoms = other + self._random
            self._send(_HELLO, self._random + self._side.show())

    def _believes(self, shown: bytes) -> bool:
        self.peer_chain = self._side.shown.get(shown, ())
        phrase = self._side.refusal(self.peer_chain)
        if phrase:
            self._send(_REFUSED, phrase.encode())
            self._end(phrase)
        return not phrase

    def _finish(self) -> None:
        self.master = hashlib.blake2b(self._randoms, digest_size=32, person=b"master").digest()
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            self.write(data)

    def _tag(self, by_client: bool, number: int, data: bytes) -> bytes:
        head = bytes([by_client]) + number.to_bytes(8, "big")
        return hashlib.blake2b(head + data, key=self.master, digest_size=TAG_BYTES).digest()

    def _send(self, kind: bytes, body: bytes) -> None:
        if self._reason is None:
            super().write((1 + len(body)).to_bytes(LENGTH_BYTES, "big") + kind + body)

    def _end(self, phrase: str) -> None:
        self._reason = Failure(NotBelieved(phrase))
        super().loseConnection()


class SimulatedTlsFactory(WrappingFactory[SimulatedTlsTransport]):
    """Makes connections.

    :param creator: has the :class:`Side` to use (:class:`~txpaxos.keys.factories.Newest`).
    :param is_client: whether this side dials.
    :param wrapped: makes the protocols in them, or ``None`` where no connection is wanted.
    """

    protocol = SimulatedTlsTransport
    noisy = False

    def __init__(self, creator: Any, is_client: bool, wrapped: Any) -> None:
        super().__init__(wrapped)
        self.creator = creator
        self.is_client = is_client

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """What speaks TLS on a new connection; ``None`` if the connection is not wanted."""
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)
