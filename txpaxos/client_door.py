"""Where clients come in: a TCP port of the node. Any node takes any request; a follower passes commands on itself."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.errors import CodecError, CommandFailed, Overloaded, PaxosError
from txpaxos.protocol import PaxosProtocol
from txpaxos.sessions import Outcome
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
from txpaxos.wire.commands import Command
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame

CONNECTIONS_MAX = 10_000
REQUESTS_MAX = 4096
"""Requests of one connection in work at a time."""

REQUEST_BYTES_MAX = 2**20 + 2**12
"""The longest command or value, and what stands around it."""

RESULT_BYTES_MAX = FRAME_BYTES_MAX - 2**12
HELD_BYTES_MAX = 8 * 2**20
"""Answers held for a client that reads slowly. One that reads nothing is hung up on."""


@implementer(IPushProducer)
class ClientConnection(Protocol):
    """One client."""

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, door: ClientDoor) -> None:
        self._door = door
        self._splitter = FrameSplitter(REQUEST_BYTES_MAX)
        self._in_work: dict[Deferred[Any], None] = {}  # In the order in which they came, as all here.
        self._open = False
        self._paused = False
        self._held_bytes = 0

    # from Twisted

    def connectionMade(self) -> None:
        """Say who this is and who leads."""
        self._open = True
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._door.connections[self] = None
        self.send(self._door.welcome())

    def dataReceived(self, data: bytes) -> None:
        """Take the requests that are complete with ``data``. Anything wrong ends the connection."""
        try:
            for request in self._splitter.feed(data):
                self._take(self._door.codec.decode(request))
        except CodecError:
            self._door.node.counters["bad request of a client"] += 1
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits here any more. Commands go on; questions stop."""
        self._open = False
        self._door.connections.pop(self, None)
        for waiting in list(self._in_work):
            waiting.cancel()

    def pauseProducing(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It has read all there was."""
        self._paused = False
        self._held_bytes = 0

    def stopProducing(self) -> None:
        """The transport wants no more; ``connectionLost`` follows."""

    # from the door

    def send(self, message: FromNode) -> None:
        """Send one message, if anybody is still there."""
        if not self._open:
            return
        data = frame(self._door.codec.encode(message))
        if self._paused:
            self._held_bytes += len(data)
            if self._held_bytes > HELD_BYTES_MAX:
                self._door.node.counters["client that does not read"] += 1
                self.close()
                return
        self.transport.write(data)

    def close(self) -> None:
        """Hang up."""
        self._open = False
        self.transport.abortConnection()

    def _take(self, request: FromClient | FromNode) -> None:
        match request:
            case Submit(number, session, sequence, acknowledged, payload):
                command = Command(session, sequence, acknowledged, payload)
                self._begin(number, lambda: self._door.node.submit_command(command), _answer)
            case Ask(number, subject, value):
                self._begin(number, lambda: self._door.node.ask(subject, value), AskAnswer)
            case StatusRequest(number):
                self.send(StatusAnswer(number, json.dumps(self._door.status()).encode()))
            case _:
                raise CodecError("a node's message came from a client")

    def _begin(self, number: int, begin: Any, answer: Any) -> None:
        """Start on a request, and answer it when it is done."""
        if len(self._in_work) >= REQUESTS_MAX:
            self.send(_refusal(number, Overloaded(f"{REQUESTS_MAX} requests are in work on this connection")))
            return
        waiting: Deferred[Any] = begin()
        self._in_work[waiting] = None

        def done(result: Any) -> None:
            self._in_work.pop(waiting, None)
            if isinstance(result, Failure):
                self.send(_refusal(number, result.value))
            else:
                self.send(answer(number, result))

        waiting.addBoth(done).addErrback(self._door.log_failure)


class ClientDoor(ServerFactory):
    """The client port of ``node``."""

    log = Logger()
    noisy = False

    def __init__(self, node: PaxosProtocol) -> None:
        self.node = node
        self.codec = ClientCodec(node.cluster.name)
        self.connections: dict[ClientConnection, None] = {}
        node.watch_leader(self._leader_changed)

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection | None:
        """A client came."""
        if len(self.connections) >= CONNECTIONS_MAX:
            self.node.counters["too many clients"] += 1
            return None
        return ClientConnection(self)

    def stop(self) -> None:
        """Hang up on everybody."""
        for connection in list(self.connections):
            connection.close()

    def welcome(self) -> Welcome:
        """Who this is, and who leads."""
        leader = self.node.leader
        address = None if leader is None else str(self.node.cluster.members[leader].client)
        return Welcome(self.node.node, leader, address)

    def status(self) -> dict[str, Any]:
        """What ``txpaxos status`` shows of this node."""
        status = attrs.asdict(self.node.status())
        replica = status["replica"]
        for ballot in ("ballot", "promised"):
            replica[ballot] = str(getattr(self.node.status().replica, ballot))
        return {"cluster": self.node.cluster.name, **replica, **{k: v for k, v in status.items() if k != "replica"}}

    def log_failure(self, failure: Failure) -> None:
        """An answer could not be made; that must not end the node."""
        self.log.failure("a client's answer could not be made", failure=failure)

    def _leader_changed(self) -> None:
        welcome = self.welcome()
        for connection in self.connections:
            connection.send(welcome)


def _answer(number: int, outcome: Outcome) -> FromNode:
    if outcome.error is not None:
        return _refusal(number, CommandFailed(outcome.error))
    try:
        result = msgspec.msgpack.encode(outcome.value)
        if len(result) > RESULT_BYTES_MAX:
            raise ValueError(f"it has {len(result)} bytes and may have {RESULT_BYTES_MAX}")
        return Answer(number, result)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return _refusal(number, CommandFailed(f"applied, but its result cannot be sent: {error}"))


def _refusal(number: int, error: BaseException | None) -> Refused:
    name = type(error).__name__ if isinstance(error, PaxosError) else "PaxosError"
    return Refused(number, name, str(error).encode(errors="backslashreplace").decode())
