"""A client of a cluster: finds a node that answers, follows the leader, and sends again what got no answer.

A command sent again carries the same session and sequence, so it is applied once however often it is sent and to
whichever nodes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from random import Random, SystemRandom
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from txpaxos import errors
from txpaxos.cluster import Address, Cluster
from txpaxos.errors import (
    CodecError,
    ConfigError,
    NodeStopped,
    NoQuorum,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    ValueTooLarge,
)
from txpaxos.protocol import SUBJECT_BYTES_MAX
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    ClientCodec,
    FromClient,
    FromNode,
    Refused,
    StatusAnswer,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame

CONNECT_SECONDS = 1.0
SILENCE_SECONDS = 1.0
"""A node that owes an answer for so long is left for another."""

RETRY_SECONDS = 0.02
RETRY_SECONDS_MAX = 0.5
REQUESTS_MAX = 4096
COMMAND_BYTES_MAX = 2**20


@attrs.define
class _Request:
    """A request without an answer yet. ``sent`` is whether any node may have seen it."""

    message: FromClient
    answer: Deferred[Any]
    sent: bool = False


class Client:
    """One session with a cluster, over one connection at a time.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param cluster: the cluster, with IP addresses.
    :param nodes: the nodes to talk to; all of them unless given. With one, its word is taken wherever the leader is.
    :param rng: the source of chance; the system's if not given.
    :raises ConfigError: if one of ``nodes`` is not in the cluster, or there are none.
    :ivar session: names this client's commands, with a sequence from 1 on.
    """

    def __init__(
        self, reactor: Any, cluster: Cluster, nodes: list[str] | None = None, rng: Random | None = None
    ) -> None:
        self.codec = ClientCodec(cluster.name)
        self._reactor = reactor
        self._rng = rng or SystemRandom()
        chosen = list(cluster.members) if nodes is None else nodes
        if not chosen or not set(chosen) <= set(cluster.members):
            raise ConfigError(
                f"no client for the nodes {', '.join(chosen) or '(none)'}: its nodes are {', '.join(cluster.members)}"
            )
        self._addresses = [cluster.members[node].client for node in chosen]
        self._follows_leader = nodes is None
        self.session = self._rng.getrandbits(128).to_bytes(16, "big")
        self.next_sequence = 1
        self._unanswered: dict[int, None] = {}
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._connection: _Connection | None = None
        self._connecting: IConnector | None = None
        self._retry: IDelayedCall | None = None
        self._silence: IDelayedCall | None = None
        self._failures = 0
        self._address = self._rng.choice(self._addresses)
        self._unreachable: Address | None = None
        self._closed = False

    # from the application

    def submit(self, command: bytes) -> Deferred[Any]:
        """Have ``command`` applied, once.

        :returns: fires with what ``apply`` returned (as MessagePack carries it); fails with
            :class:`~txpaxos.errors.CommandFailed` or :class:`~txpaxos.errors.ValueTooLarge`. It waits as long as no
            quorum answers: give it a deadline with ``addTimeout``, or cancel it, after which the command may have
            been applied or not.
        """
        if len(command) > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the command has {len(command)} bytes and may have {COMMAND_BYTES_MAX}"))
        sequence = self.next_sequence
        self.next_sequence += 1
        self._unanswered[sequence] = None
        acknowledged = next(iter(self._unanswered)) - 1
        answer = self._request(lambda number: Submit(number, self.session, sequence, acknowledged, command))

        def forget(result: Any) -> Any:
            del self._unanswered[sequence]
            return result

        return answer.addBoth(forget)

    def ask(self, subject: str, value: bytes | None = None) -> Deferred[bytes | None]:
        """Have ``subject`` decided on ``value`` unless somebody was first; ``None`` only reads.

        :returns: fires with the decided value, or ``None`` if nothing was proposed yet; fails with
            :class:`~txpaxos.errors.ValueTooLarge`.
        """
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"))
        size = len(value or b"")
        if size > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the value has {size} bytes and may have {COMMAND_BYTES_MAX}"))
        return self._request(lambda number: Ask(number, subject, value))

    def status(self) -> Deferred[dict[str, Any]]:
        """How the node that this client talks to is."""
        return self._request(StatusRequest)

    def close(self) -> None:
        """Hang up. What has no answer yet fails."""
        if self._closed:
            return
        self._closed = True
        for timer in (self._retry, self._silence):
            if timer is not None:
                timer.cancel()
        if self._connecting is not None:
            self._connecting.stopConnecting()
        if self._connection is not None:
            self._connection.close()
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.answer.errback(_unanswered(request))

    # from a connection

    def opened(self, connection: _Connection) -> None:
        """A node took the connection: send all that has no answer."""
        self._connection, self._connecting = connection, None
        for request in self._requests.values():
            self._send(connection, request)
        self._watch()

    def lost(self, address: Address) -> None:
        """The connection broke, or could not be made: try another node."""
        self._connection = self._connecting = None
        self._unreachable = address
        others = [one for one in self._addresses if one != address]
        self._address = self._rng.choice(others or self._addresses)
        if self._requests and not self._closed:
            seconds = min(RETRY_SECONDS * 2 ** min(self._failures, 8), RETRY_SECONDS_MAX)
            self._failures += 1
            self._retry = self._reactor.callLater(seconds * self._rng.uniform(0.5, 1.0), self._connect)

    def received(self, connection: _Connection, message: FromNode | FromClient) -> None:
        """A node said something."""
        match message:
            case Welcome():
                self._follow(connection, message)
            case Answer(number, result):
                self._finish(number, _decoded(msgspec.msgpack.decode, result))
            case AskAnswer(number, value):
                self._finish(number, value)
            case StatusAnswer(number, status):
                self._finish(number, _decoded(json.loads, status))
            case Refused(number, error, reason):
                self._refused(number, error, reason)
            case _:
                raise CodecError("a client's message came from a node")

    # inside

    def _request(self, make: Any) -> Deferred[Any]:
        if self._closed:
            return fail(NoQuorum("this client is closed"))
        if len(self._requests) >= REQUESTS_MAX:
            return fail(Overloaded(f"{REQUESTS_MAX} requests wait for an answer already"))
        number = next(self._numbers)

        def forget(_: Deferred[Any]) -> None:
            self._requests.pop(number, None)

        request = _Request(make(number), Deferred(forget))
        self._requests[number] = request
        if self._connection is not None:
            self._send(self._connection, request)
        elif self._connecting is None and self._retry is None:
            self._connect()
        self._watch()
        return request.answer

    def _send(self, connection: _Connection, request: _Request) -> None:
        request.sent = True
        connection.send(request.message)

    def _connect(self) -> None:
        self._retry = None
        dial = _Dial(self, self._address)
        self._connecting = self._reactor.connectTCP(self._address.host, self._address.port, dial, CONNECT_SECONDS)

    def _follow(self, connection: _Connection, welcome: Welcome) -> None:
        """Move to the leader, if its address is one the cluster file knows and was not just found dead."""
        self._failures = 0
        if self._follows_leader and welcome.leader_address is not None:
            leader = _decoded(Address.parse, welcome.leader_address)
            if leader in self._addresses and leader not in (connection.address, self._unreachable):
                self._move(connection, leader)
            elif leader == connection.address:
                self._unreachable = None

    def _move(self, connection: _Connection, address: Address) -> None:
        """Leave this node for another at once."""
        connection.close()
        self._connection = None
        self._address = address
        self._connect()

    def _finish(self, number: int, result: Any) -> None:
        request = self._requests.pop(number, None)
        if request is not None:
            request.answer.callback(result)

    def _refused(self, number: int, name: str, reason: str) -> None:
        if name == NodeStopped.__name__:
            return  # It hangs up now; the next node is asked again.
        request = self._requests.pop(number, None)
        if request is not None:
            error = getattr(errors, name, None)
            if not (isinstance(error, type) and issubclass(error, PaxosError)):
                error = PaxosError
            request.answer.errback(error(reason))

    def _watch(self) -> None:
        """Do not wait for ever for a node that says nothing: it may be cut off from the others."""
        if self._connection is not None and self._silence is None and self._requests:
            self._connection.heard = False
            self._silence = self._reactor.callLater(SILENCE_SECONDS, self._check_silence)

    def _check_silence(self) -> None:
        self._silence = None
        connection = self._connection
        if connection is not None and self._requests and not connection.heard:
            self._unreachable = connection.address
            others = [address for address in self._addresses if address != connection.address]
            self._move(connection, self._rng.choice(others or self._addresses))
        self._watch()


class _Connection(Protocol):
    """One connection to one node."""

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, client: Client, address: Address) -> None:
        self.address = address
        self.heard = False
        self._client = client
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self._closing = False

    def connectionMade(self) -> None:
        """The node took the connection."""
        self.transport.setTcpNoDelay(True)
        self._client.opened(self)

    def dataReceived(self, data: bytes) -> None:
        """Take what is complete with ``data``."""
        self.heard = True
        try:
            for message in self._splitter.feed(data):
                if not self._closing:
                    self._client.received(self, self._client.codec.decode(message))
        except CodecError:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The node hung up."""
        if not self._closing:
            self._client.lost(self.address)

    def send(self, message: FromClient) -> None:
        """Send one request."""
        self.transport.write(frame(self._client.codec.encode(message)))

    def close(self) -> None:
        """Hang up, and say no more of it."""
        self._closing = True
        self.transport.loseConnection()


class _Dial(ClientFactory):
    """One attempt to connect."""

    noisy = False

    def __init__(self, client: Client, address: Address) -> None:
        self._client = client
        self._address = address

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        """The connection stands."""
        return _Connection(self._client, self._address)

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        """Nobody is there."""
        self._client.lost(self._address)


def _decoded(decode: Callable[[Any], Any], data: Any) -> Any:
    """What ``decode`` makes of ``data``.

    :raises CodecError: if it can make nothing of it.
    """
    try:
        return decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CodecError(str(error)) from None


def _unanswered(request: _Request) -> PaxosError:
    if request.sent and isinstance(request.message, Submit):
        return OutcomeUnknown("no answer came; the command may have been applied or not")
    if request.sent and isinstance(request.message, Ask) and request.message.value is not None:
        return OutcomeUnknown("no answer came; the subject may be decided or not")
    return NoQuorum("no node answered")
