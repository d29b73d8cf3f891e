"""Where clients come in: a TCP port of the node. Any node takes any request; a follower passes commands on itself."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple, cast

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.eager_writer import EagerWriter
from txpaxos.errors import CodecError, Overloaded, PaxosError, QueryFailed, SessionExpired, ValueTooLarge
from txpaxos.node.sessions import Failed, Outcome, encode_result
from txpaxos.protocol import PaxosProtocol
from txpaxos.reading import Reading
from txpaxos.server.client_table import ClientTable
from txpaxos.server.open_files import connections_max
from txpaxos.wire.client_messages import (
    Answer,
    AreYouThere,
    Ask,
    AskAnswer,
    ClientCodec,
    FromClient,
    FromNode,
    Here,
    Ping,
    Pong,
    Read,
    ReadAnswer,
    Refused,
    Request,
    StatusAnswer,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Run
from txpaxos.wire.frames import FrameSplitter, frame

CONNECTIONS_MAX = 10_000
REQUESTS_MAX = 4096
"""Requests of one connection in work at a time."""

REQUESTS_ALL_MAX = 2**17
REQUEST_BYTES_ALL_MAX = 2**28
"""Requests of all connections in work, and their bytes. Beyond them a request is refused at once."""

REQUEST_BYTES_MAX = COMMAND_BYTES_MAX + 2**12
"""The longest command or value, and what stands around it."""

PARTIAL_BYTES_FREE = 2**16
PARTIAL_BYTES_ALL_MAX = 2**28
"""Bytes of requests that have come in part. Beyond them, a connection with more than the free ones is closed."""

BUFFERED_BYTES_MAX = 8 * 2**20
"""Bytes held for a client that reads slowly, beyond which its answers wait: it is as if they had not been asked for.
One answer may come on top."""

ANSWER_BYTES = 2**20
"""Bytes of results in one Answer, beyond the first result."""

DEFERRED_AT_ONCE_MAX = 4
BUFFERED_BYTES_ALL_MAX = 2**28
"""Bytes held for all of them. Beyond that, the one that has not read for the longest time is disconnected."""


class _Task(NamedTuple):
    """A message in work: how many requests it is, and what it takes, roughly."""

    message: Request
    requests: int
    size_bytes: int


@implementer(IPushProducer)
class ServerConnection(Protocol):
    """One client.

    While it does not read, no more requests are read, and of answers only so many bytes are held. A request whose
    answer is too much is put off, and done again when the client has read: all of them may be done twice.

    :ivar buffered_bytes: bytes written that the client may not have read.
    """

    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, port: ClientPort, host: str = "") -> None:
        self.host = host
        self.heard_at = 0
        self.buffered_bytes = 0
        self._session = b""  # The last that was let in.
        self._port = port
        self._splitter = FrameSplitter(REQUEST_BYTES_MAX)
        self._partial_bytes = 0
        self._in_work: dict[Deferred[Any], None] = {}  # In the order in which they came, as all here.
        self._deferred: deque[_Task] = deque()
        self._requests = 0  # In both.
        self._writer: EagerWriter
        self._open = False
        self._paused = False
        self._welcome_pending = False
        self._catching_up = False

    # from Twisted

    def connectionMade(self) -> None:
        """Say who this is and who leads."""
        self._open = True
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._writer = EagerWriter(self.transport)
        self._port.opened(self)
        self._write(self._port.welcome())

    def dataReceived(self, data: bytes) -> None:
        """Take the requests that are complete with ``data``. Anything wrong ends the connection."""
        self.heard_at = self._port.connections.seconds
        try:
            for request in self._splitter.feed(data):
                if self._open:
                    self._take(self._port.codec.decode(request))
        except CodecError:
            self._port.node.counters["bad request of a client"] += 1
            self.close()
        self._count_partial(self._splitter.waiting_bytes)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody waits here any more. Commands go on; questions stop."""
        self._open = False
        self._release()
        self._count_partial(0)
        self._port.connections.remove(self)
        for waiting in list(self._in_work):
            waiting.cancel()
        while self._deferred:
            self._leave(self._deferred.popleft())

    def pauseProducing(self) -> None:
        """The client reads more slowly than we write."""
        self._paused = True
        self._port.paused[self] = None

    def resumeProducing(self) -> None:
        """It has read all there was."""
        self.heard_at = self._port.connections.seconds
        self._writer.on_drain()
        self._release()
        self._paused = False
        self.transport.resumeProducing()
        if self._welcome_pending:
            self._welcome_pending = False
            self.welcome(self._port.welcome())
        self._catch_up()

    def stopProducing(self) -> None:
        """The transport wants no more; ``connectionLost`` follows."""

    # from the client port

    def send(self, message: FromNode) -> None:
        """Send one message, if anybody is still there."""
        if self._open:
            self._write(frame(self._port.codec.encode(message)))

    def welcome(self, data: bytes) -> None:
        """Tell it who leads now, in these bytes; when it reads again, if it does not read."""
        if self._paused:
            self._welcome_pending = True
        elif self._open:
            self._write(data)

    @property
    def is_waiting(self) -> bool:
        """Whether something it has asked for is in work."""
        return self._requests > 0

    def ping(self) -> None:
        """Ask it to say something."""
        self.send(AreYouThere())

    def close(self) -> None:
        """Close the connection at once."""
        self._open = False
        self._release()
        self.transport.abortConnection()

    # inside

    def _write(self, data: bytes) -> None:
        self._writer.write(data)
        if self._paused:
            self.buffered_bytes += len(data)
            if self._is_write_blocked:
                self.transport.pauseProducing()
            self._port.hold(len(data))

    @property
    def _is_write_blocked(self) -> bool:
        return self._paused and self.buffered_bytes > BUFFERED_BYTES_MAX

    def _release(self) -> None:
        """Nothing is held for this client any more."""
        self._port.paused.pop(self, None)
        self._port.buffered_bytes -= self.buffered_bytes
        self.buffered_bytes = 0

    def _count_partial(self, size: int) -> None:
        self._port.partial_bytes += size - self._partial_bytes
        self._partial_bytes = size
        if size > PARTIAL_BYTES_FREE and self._port.partial_bytes > PARTIAL_BYTES_ALL_MAX and self._open:
            self._port.node.counters["too much of requests in part"] += 1
            self.close()

    def _take(self, request: FromClient | FromNode) -> None:
        """A request has come."""
        match request:
            case Submit() | Ask() | Read() | StatusRequest():
                self._take_request(request)
            case Ping():
                self.send(Pong())
            case Here():
                pass
            case _:
                raise CodecError("a node's message came from a client")

    def _take_request(self, request: Request) -> None:
        node = self._port.node
        if node.sends_clients_away and _needs_others(request):
            if node.disk_hangs:
                node.counters["client sent elsewhere: the disk hangs"] += 1
            else:
                node.counters["client of a node with a lost folder"] += 1
            self.close()
            return
        task = _task(request)
        if self._requests + task.requests > REQUESTS_MAX:
            error = Overloaded(f"{self._requests} requests are in work on this connection; try again later")
            self.send(_refusal(request.request, error, task.requests))
            return
        if not self._admits_session(request):
            error = Overloaded("too many sessions were begun from this address; use one for many commands")
            self.send(_refusal(request.request, error, task.requests))
            return
        if not self._port.enter(task):
            error = Overloaded("too many requests of all clients are in work; try again later")
            self.send(_refusal(request.request, error, task.requests))
            return
        self._requests += task.requests
        if self._is_write_blocked:
            self._deferred.append(task)
        else:
            self._do(task)

    def _admits_session(self, request: Request) -> bool:
        """Whether the session of ``request``, if it has one, is known already, or may be begun."""
        if not isinstance(request, Submit) or request.session == self._session:
            return True
        if not self._port.admits_session(self.host, request.session):
            return False
        self._session = request.session
        return True

    def _do(self, task: _Task) -> None:
        """Start on a request, and answer it when it is done."""
        waiting = self._port.begin(task.message)
        self._in_work[waiting] = None
        waiting.addBoth(self._done, task, waiting)

    def _done(self, result: Any, task: _Task, waiting: Deferred[Any]) -> None:
        """A request was answered by the node, or refused."""
        self._in_work.pop(waiting, None)
        try:
            if self._is_write_blocked and self._open:
                self._deferred.append(task)
                return
            self._leave(task)
            if isinstance(result, Failure) and result.check(ValueTooLarge) and task.requests > 1:
                for one in _single(task.message):  # Of the run none was taken, and not all of them may be too large.
                    self._take_request(one)
            elif self._open:
                self._answer(task, result)
                if self._deferred:
                    self._catch_up()
        except Exception:  # An answer could not be made; that must not end the node.
            self._port.log.failure("a client's answer could not be made")

    def _catch_up(self) -> None:
        """Do again what was put off: few at a time, since most of it may have to be put off again."""
        if not self._catching_up:
            self._catching_up = True
            while self._deferred and not self._paused and len(self._in_work) < DEFERRED_AT_ONCE_MAX:
                self._do(self._deferred.popleft())
            self._catching_up = False

    def _leave(self, task: _Task) -> None:
        self._requests -= task.requests
        self._port.leave(task)

    def _answer(self, task: _Task, result: Any) -> None:
        number = task.message.request
        match result:
            case Failure():
                self.send(_refusal(number, result.value, task.requests))
            case list():
                self._answer_run(number, result)
            case Reading():
                self.send(_read_answer(number, result))
            case dict():
                self.send(StatusAnswer(number, json.dumps(result).encode()))
            case _:
                self.send(AskAnswer(number, result))

    def _answer_run(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Answer commands: those with results together, and so those that failed alike."""
        if set(map(type, outcomes)) == {bytes}:  # As a rule.
            whole = cast("tuple[bytes, ...]", tuple(outcomes))
            if sum(map(len, whole)) <= ANSWER_BYTES:
                self.send(Answer(number, whole))
                return
        for kind, group in groupby(outcomes, type):
            if kind is bytes:
                results = [outcome for outcome in group if isinstance(outcome, bytes)]
                while results:
                    fit = len(results)
                    if sum(map(len, results)) > ANSWER_BYTES:
                        fit = sum(size <= ANSWER_BYTES for size in accumulate(map(len, results))) or 1
                    self.send(Answer(number, tuple(results[:fit])))
                    number += fit
                    del results[:fit]
                continue
            told = [(outcome.error, outcome.words) for outcome in group if isinstance(outcome, Failed)]
            for (error, words), alike in groupby(told):
                if error is SessionExpired:
                    self.welcome(self._port.welcome())  # With a slot at which a new session can be made.
                count = len(list(alike))
                self.send(_refusal(number, error(words), count))
                number += count


class ClientPort(ServerFactory):
    """The client port of ``node``.

    :ivar paused: the connections whose clients do not read, the longest first; for them :attr:`buffered_bytes` wait.
    :ivar partial_bytes: bytes of requests that have come in part.
    """

    log = Logger()
    noisy = False

    def __init__(self, node: PaxosProtocol) -> None:
        self.node = node
        self.codec = ClientCodec(node.cluster.name)
        self.connections = ClientTable()
        self.paused: dict[ServerConnection, None] = {}
        self.buffered_bytes = self.partial_bytes = 0
        self._requests = self._request_bytes = 0
        self._files_max = connections_max(len(node.cluster.members) - 1)
        self._clock = node._clock
        self._sweeping: IDelayedCall | None = None
        node.watch_leader(self._leader_changed)

    def logPrefix(self) -> str:
        """What Twisted calls this port in its own lines of the log."""
        return f"node {self.node.node}, clients:"

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection | None:
        """A client came. When there are too many, one that is idle has to go for it."""
        if len(self.connections) >= self.connections_max:
            self.node.counters["too many clients"] += 1
            if not self.connections.make_room():
                return None
        return ServerConnection(self, getattr(addr, "host", ""))

    @property
    def connections_max(self) -> int:
        """How many clients may be connected."""
        return min(CONNECTIONS_MAX, self._files_max)

    def stop(self) -> None:
        """Disconnect all clients."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in self.connections:
            connection.close()

    # from a connection

    def opened(self, connection: ServerConnection) -> None:
        """The connection stands."""
        self.connections.add(connection)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(1.0, self._sweep)

    def _sweep(self) -> None:
        """Once in a second, while somebody is connected."""
        dropped = self.connections.sweep()
        if dropped:
            self.node.counters["idle client that does not answer"] += dropped
        self._sweeping = self._clock.callLater(1.0, self._sweep) if self.connections else None

    def admits_session(self, host: str, session: bytes) -> bool:
        """Whether a client at ``host`` may use ``session``: it is known, or not one too many."""
        return session in self.node._applier.sessions or self.connections.admits_session(host)

    def enter(self, task: _Task) -> bool:
        """A request comes into work; whether there is room for it."""
        requests, size = self._requests + task.requests, self._request_bytes + task.size_bytes
        if requests > REQUESTS_ALL_MAX or size > REQUEST_BYTES_ALL_MAX:
            return False
        self._requests, self._request_bytes = requests, size
        return True

    def leave(self, task: _Task) -> None:
        """It is answered, or nobody waits for it any more."""
        self._requests -= task.requests
        self._request_bytes -= task.size_bytes

    def begin(self, request: Request) -> Deferred[Any]:
        """Start on a request; fires with what answers it."""
        match request:
            case Submit(_, session, sequence, acknowledged, commands):
                return self.node.submit_run(Run(session, sequence, acknowledged, commands))
            case Ask(_, subject, value):
                return self.node.ask(subject, value)
            case Read(_, query, local):
                return self.node.read(query, "local" if local else "linearizable")
            case StatusRequest():
                return succeed(self.status())

    def hold(self, size: int) -> None:
        """So much more waits for somebody who does not read."""
        self.buffered_bytes += size
        while self.buffered_bytes > BUFFERED_BYTES_ALL_MAX:
            self.node.counters["client that does not read"] += 1
            next(iter(self.paused)).close()

    def welcome(self) -> bytes:
        """Who this is, and who leads, as it goes to a client."""
        leader = self.node.leader
        address = None if leader is None else str(self.node.cluster.members[leader].client)
        applied, window = self.node.applied_through, self.node.liveness_window_seconds[0]
        return frame(self.codec.encode(Welcome(self.node.node, leader, address, applied, window)))

    def status(self) -> dict[str, Any]:
        """What ``txpaxos status`` shows of this node."""
        status = attrs.asdict(self.node.status())
        replica = status["replica"]
        for ballot in ("ballot", "promised"):
            replica[ballot] = str(getattr(self.node.status().replica, ballot))
        parts = {**status.pop("replica"), **status.pop("compaction")}
        return {"cluster": self.node.cluster.name, **parts, "clients": len(self.connections), **status}

    def _leader_changed(self) -> None:
        if self.node.sends_clients_away:  # What they wait for may take for ever here.
            self.stop()
            return
        data = self.welcome()  # Once for all: there may be thousands.
        for connection in self.connections:
            connection.welcome(data)


def _needs_others(request: Request) -> bool:
    """Whether a request has to wait for this node's disk, or for other nodes."""
    return not (isinstance(request, StatusRequest) or (isinstance(request, Read) and request.local))


def _task(request: Request) -> _Task:
    """``request`` with what it counts as."""
    match request:
        case Submit():
            return _Task(request, len(request.commands), sum(map(len, request.commands)))
        case Ask():
            return _Task(request, 1, len(request.value or b"") + len(request.subject))
        case Read():
            return _Task(request, 1, len(request.query))
        case StatusRequest():
            return _Task(request, 1, 0)


def _single(request: Request) -> Iterator[Submit]:
    """The commands of a run, each by itself."""
    assert isinstance(request, Submit)
    for index, command in enumerate(request.commands):
        number, sequence = request.request + index, request.sequence + index
        yield Submit(number, request.session, sequence, request.acknowledged, (command,))


def _read_answer(number: int, reading: Reading) -> FromNode:
    try:
        return ReadAnswer(number, reading.slot, encode_result(reading.result))
    except ValueError as error:
        return _refusal(number, QueryFailed(f"what query returned cannot be sent: {error}"))


def _refusal(number: int, error: BaseException | None, count: int = 1) -> Refused:
    name = type(error).__name__ if isinstance(error, PaxosError) else "PaxosError"
    return Refused(number, name, str(error).encode(errors="backslashreplace").decode(), count)
