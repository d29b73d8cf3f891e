"""The node's end of one client's connection: takes the client's requests, and answers them as the node does.

The client port (:mod:`~txpaxos.server.client_port`) makes one for each client that connects. Twisted calls it when
bytes come, when the client stops reading and when it reads again; the client port calls it when the leader changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txpaxos.eager_writer import EagerWriter, send_at_once
from txpaxos.errors import CodecError, Overloaded, SessionExpired, ValueTooLarge
from txpaxos.log_lines import LineLimiter, for_log
from txpaxos.node.counts import Count, Counts
from txpaxos.server.answers import answers_to, no_answer, refusal
from txpaxos.server.budget import Budget, Usage
from txpaxos.server.client_table import ClientTable
from txpaxos.server.member_changes import Tell
from txpaxos.server.tasks import Task, single_commands
from txpaxos.wire.client_messages import (
    TRACES_MAX,
    AcceptClock,
    Ask,
    BackupRequest,
    ChangeMembers,
    ChangeProgress,
    ClientCodec,
    Forget,
    FromClient,
    FromNode,
    HandOver,
    Join,
    KeepAlive,
    KeepAliveReply,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Ping,
    Pong,
    Read,
    Recall,
    Refused,
    ReloadKeys,
    Request,
    StatusRequest,
    Submit,
    Trace,
    Withdraw,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX, REGISTERS_MARK
from txpaxos.wire.frames import FrameSplitter, frame

REQUEST_BYTES_MAX = COMMAND_BYTES_MAX + 2**12
"""The longest command or value, with the fields of its message."""

HELD_BYTES_MAX = 2**16
"""The most bytes of answers that are held back for those that follow in the same turn of the node."""

DEFERRED_AT_ONCE_MAX = 4
"""Deferred requests of one connection that are performed again at a time. More would fill the buffer at once again."""


class RunTracing(Protocol):
    """Makes spans of commands."""

    def begin(self, submit: Submit, parents: Mapping[int, bytes]) -> Callable[[Any], Any]:
        """Commands of ``submit`` belong to traces. The node is about to take them.

        :param parents: the numbers of these commands, and for each the span of the client that it belongs to.
        :returns: called with the result when the node has one; returns it as it is.
        """


class ServerPort(Protocol):
    """What a connection calls of its client port."""

    codec: ClientCodec
    tracing: RunTracing | None
    budget: Budget
    connections: ClientTable
    lines: LineLimiter

    @property
    def counters(self) -> Counts:
        """The node's counters, for what an operator may want to know of."""

    @property
    def connections_max(self) -> int:
        """How many clients may be connected."""

    def opened(self, connection: ServerConnection) -> None:
        """The connection is made."""

    def closed(self, connection: ServerConnection) -> None:
        """The connection is gone."""

    def welcome(self) -> bytes:
        """The frame that tells a client which node this is and who leads."""

    def members(self) -> bytes:
        """The frame that tells a client who the members are."""

    def at_end_of_turn(self, function: Callable[[], None]) -> bool:
        """Have ``function`` called at the end of the node's turn. Returns whether it is in one."""

    def sends_away(self, request: Request) -> bool:
        """Whether the client had better go to another node with ``request``."""

    def admits_session(self, principal: str, session: bytes) -> bool:
        """Whether a client of ``principal`` may use ``session``."""

    def perform(self, request: Request, principal: str) -> Deferred[Any]:
        """Have the node do what ``request`` of a client of ``principal`` asks for."""

    def change_members(self, request: ChangeMembers, tell: Tell) -> Deferred[Any]:
        """Have the node change the members, and ``tell`` how far that has come."""

    def disconnect_slow_clients(self) -> None:
        """See that no more is buffered for all clients than may be."""


@implementer(IPushProducer)
class ServerConnection(TwistedProtocol):
    """One client.

    While the client does not read, a limited number of bytes is buffered for it, and then nothing more is read from it.
    A request whose answer finds the buffer full is deferred: its answer is dropped, and it is performed again when the
    client has read. Each request may be performed twice without harm: a command is applied once however often it is
    submitted.

    :ivar host: the address from which the client connected.
    :ivar counts_for: the principal for which the connection counts.
    :ivar heard_at: when the client last sent something or read, in seconds of the table of clients.
    """

    log = Logger()
    transport: Any  # Twisted's types know no TCP transport that is also a consumer.

    def __init__(self, owner: ServerPort, host: str = "") -> None:
        self.host = self.counts_for = host
        self.heard_at = 0
        self._owner = owner
        self._codec = owner.codec
        self._budget = owner.budget
        self._usage: Usage
        self._writer: EagerWriter
        self._held: list[bytes] = []  # Answers of the node's turn under way, which are written together.
        self._held_bytes = 0
        self._splitter = FrameSplitter(REQUEST_BYTES_MAX)
        self._session = b""  # The last one that was admitted.
        # The requests in work, in the order in which they came: those that the node performs, and those that wait.
        self._performed: dict[Deferred[Any], None] = {}
        self._deferred: deque[Task] = deque()
        # The reads among them by their numbers, which may be withdrawn; ``None`` for one that is not performed yet.
        self._reads: dict[int, Deferred[Any] | None] = {}
        # The spans of the client that the commands of its next run belong to, by their numbers.
        self._traces: dict[int, bytes] = {}
        self._is_open = False
        self._is_welcome_pending = self._are_members_pending = False
        self._is_retrying = False

    # from Twisted

    def connectionMade(self) -> None:
        """Tell the client which node this is, who leads and who the members are."""
        self._open()
        self._begin()

    def _open(self) -> None:
        self._is_open = True
        self._usage = self._budget.open(self)
        send_at_once(self.transport)
        self.transport.registerProducer(self, True)
        self._writer = EagerWriter(self.transport)

    def _begin(self) -> None:
        self._owner.opened(self)
        self._write(self._owner.welcome() + self._owner.members())

    def dataReceived(self, data: bytes) -> None:
        """Take the requests that are complete with ``data``. Bytes that are no request end the connection."""
        self.heard_at = self._owner.connections.seconds
        try:
            for message in self._splitter.feed(data):
                if self._is_open:
                    self._receive(self._codec.decode(message))
        except CodecError:
            self._owner.counters[Count.BAD_REQUEST] += 1
            self.close()
        if not self._budget.take_partial(self._usage, self._splitter.waiting_bytes) and self._is_open:
            self._owner.counters[Count.TOO_MANY_PARTIAL_REQUESTS] += 1
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone. Commands in work are applied all the same; other requests are given up."""
        self._is_open = False
        self._held.clear()
        self._owner.closed(self)
        self._budget.end(self._usage)
        for result in list(self._performed):
            result.cancel()
        while self._deferred:
            self._give_back(self._deferred.popleft())

    def pauseProducing(self) -> None:
        """The client reads more slowly than this node writes."""
        self._budget.pause(self._usage)

    def resumeProducing(self) -> None:
        """The client has read everything."""
        self.heard_at = self._owner.connections.seconds
        self._writer.on_drain()
        self._budget.give_back_buffer(self._usage)
        self.transport.resumeProducing()
        if self._is_welcome_pending:
            self._is_welcome_pending = False
            self.welcome(self._owner.welcome())
        if self._are_members_pending:
            self._are_members_pending = False
            self.tell_members(self._owner.members())
        self._retry_deferred()

    def stopProducing(self) -> None:
        """The transport wants no more; ``connectionLost`` follows."""

    # from the client port

    @property
    def is_waiting(self) -> bool:
        """Whether a request of the client is in work."""
        return self._usage.requests > 0

    def welcome(self, data: bytes) -> None:
        """Tell the client who leads.

        :param data: the frame that says so. A client that does not read gets a newer one when it reads again.
        """
        if self._usage.is_paused:
            self._is_welcome_pending = True
        elif self._is_open:
            self._write(data)

    def tell_members(self, data: bytes) -> None:
        """Tell the client that the members have changed.

        :param data: the frame that says so. A client that does not read gets a newer one when it reads again.
        """
        if self._usage.is_paused:
            self._are_members_pending = True
        elif self._is_open:
            self._write(data)

    def ping(self) -> None:
        """Ask the client for a sign of life."""
        self._send(KeepAlive())

    def close(self) -> None:
        """Close the connection at once."""
        self._is_open = False
        self._held.clear()
        self._budget.give_back_buffer(self._usage)
        self.transport.abortConnection()

    # requests

    def _receive(self, message: FromClient | FromNode) -> None:
        match message:
            case (
                Submit()
                | Ask()
                | Forget()
                | Read()
                | KeepTimers()
                | KeepTogether()
                | StatusRequest()
                | ReloadKeys()
                | AcceptClock()
                | Recall()
                | HandOver()
                | Join()
                | MembersRequest()
                | ChangeMembers()
                | BackupRequest()
            ):
                self._receive_request(message)
            case Ping():
                self._send(Pong())
            case KeepAliveReply():
                pass
            case Withdraw(number):
                self._withdraw(number)
            case Trace(number, parent):
                if self._owner.tracing is not None and len(self._traces) < TRACES_MAX:
                    self._traces[number] = parent
            case _:
                raise CodecError("a node's message came from a client")

    def _receive_request(self, request: Request) -> None:
        if self._owner.sends_away(request):
            self.close()
            return
        task, usage = Task.of(request), self._usage
        traces, self._traces = self._traces, {}
        if not usage.admits(task.requests):
            self._refuse(task, f"{usage.requests} requests are in work on this connection; try again later")
        elif not self._admits_session(request):
            self._refuse(task, "too many sessions were begun from this address; use one for many commands")
        elif not self._budget.take_requests(usage, task.requests, task.size_bytes):
            self._refuse(task, self._budget.too_many)
        elif usage.is_write_blocked:
            self._defer(task)
        else:
            self._perform(task, traces)

    def _defer(self, task: Task) -> None:
        """Have ``task`` performed later, when the client has read."""
        self._deferred.append(task)
        if isinstance(task.message, Read):
            self._reads[task.message.request] = None

    def _withdraw(self, number: int) -> None:
        """The client wants no answer to a read any more. It may have been answered already."""
        result = self._reads.pop(number, None)
        if result is not None:
            result.cancel()

    def _admits_session(self, request: Request) -> bool:
        """Whether ``request`` has no session, or one that is known already or may be begun."""
        match request:
            case Submit():
                session = request.session
            case Forget():
                session = request.session + REGISTERS_MARK
            case _:
                return True
        if session != self._session:
            if not self._owner.admits_session(self.counts_for, session):
                return False
            self._session = session
        return True

    def _perform(self, task: Task, traces: Mapping[int, bytes] | None = None) -> None:
        """Have the node do what ``task`` asks for, and answer it then.

        :param traces: the spans of the client that commands of a run belong to, by their numbers."""
        request = task.message
        if isinstance(request, ChangeMembers):
            number = request.request
            result = self._owner.change_members(request, lambda line: self._send(ChangeProgress(number, line)))
        elif traces and isinstance(request, Submit) and self._owner.tracing is not None:
            ended = self._owner.tracing.begin(request, traces)
            result = self._owner.perform(request, self.counts_for).addBoth(ended)
        else:
            result = self._owner.perform(request, self.counts_for)
        self._performed[result] = None
        if isinstance(request, Read):
            self._reads[request.request] = result
        result.addBoth(self._done, task, result)

    def _done(self, result: Any, task: Task, performed: Deferred[Any]) -> None:
        """The node has done what ``task`` asks for, or has refused it."""
        self._performed.pop(performed, None)
        if isinstance(task.message, Read) and self._reads.get(task.message.request) is performed:
            del self._reads[task.message.request]
        try:
            is_withdrawn = isinstance(result, Failure) and result.check(CancelledError) is not None
            if self._is_open and self._usage.is_write_blocked and not is_withdrawn:
                self._defer(task)
                return
            self._give_back(task)
            if isinstance(result, Failure) and result.check(ValueTooLarge) and task.requests > 1:
                # The node has taken none of the run. Some of its commands may be small enough.
                for command in single_commands(task.message):
                    self._receive_request(command)
            elif self._is_open and not is_withdrawn:
                self._answer(task, result)
                if self._deferred:
                    self._retry_deferred()
        except Exception as error:  # An answer could not be made. That must not end the node.
            more = self._owner.lines.admits("answer")
            if more is not None:
                self.log.failure(
                    "a client's answer could not be made{more}", for_log(), more=more, event="answer_raised"
                )
            self._send(no_answer(task.message, task.requests, error))

    def _retry_deferred(self) -> None:
        """Perform again what was deferred, while the client reads."""
        if not self._is_retrying:
            self._is_retrying = True
            while self._deferred and not self._usage.is_paused and len(self._performed) < DEFERRED_AT_ONCE_MAX:
                self._perform_deferred(self._deferred.popleft())
            self._is_retrying = False

    def _perform_deferred(self, task: Task) -> None:
        if isinstance(task.message, Read) and task.message.request not in self._reads:  # It was withdrawn.
            self._give_back(task)
        else:
            self._perform(task)

    def _give_back(self, task: Task) -> None:
        self._budget.give_back_requests(self._usage, task.requests, task.size_bytes)

    # answers

    def _answer(self, task: Task, result: Any) -> None:
        for message in answers_to(task.message.request, task.requests, result):
            if isinstance(message, Refused) and message.error == SessionExpired.__name__:
                self.welcome(self._owner.welcome())  # It holds a slot at which the client can make a new session.
            self._send(message)

    def _refuse(self, task: Task, why: str) -> None:
        self._send(refusal(task.message.request, Overloaded(why), task.requests))

    def _send(self, message: FromNode) -> None:
        """Send ``message`` if the connection is still open."""
        if self._is_open:
            self._write(frame(self._codec.encode(message)))

    def _write(self, data: bytes) -> None:
        """Write ``data``, together with all that comes in the same turn of the node. So a client that reads is woken
        once."""
        self._held.append(data)
        self._held_bytes += len(data)
        must_go = self._usage.is_paused or self._held_bytes > HELD_BYTES_MAX
        if must_go or (len(self._held) == 1 and not self._owner.at_end_of_turn(self._write_held)):
            self._write_held()

    def _write_held(self) -> None:
        if not self._held:
            return
        data = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        self._writer.write(data)
        usage = self._usage
        if usage.is_paused:
            self._budget.take_buffer(usage, len(data))
            if usage.is_write_blocked:
                self.transport.pauseProducing()
            self._owner.disconnect_slow_clients()
