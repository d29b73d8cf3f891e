"""Sends the requests of a client, and ends each of them with its answer or an error.

:class:`~txpaxos.client.client.Client` makes a dispatcher and gives it every request. The route
(:mod:`~txpaxos.client.route`) calls it when there is a connection to send on, when there is none, and when a node has
answered. The outbox (:mod:`~txpaxos.client.outbox`) says when to send.

A command is sent again with the same session and sequence, so it is applied once, however often it is sent and to
whichever nodes. The session is made when the first command is sent: its name holds a slot that the node has told.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, fail

from txpaxos import errors
from txpaxos.client.connection import ClientConnection
from txpaxos.client.known_nodes import KnownNodes
from txpaxos.client.outbox import Outbox
from txpaxos.client.pending import REQUESTS_MAX, PendingRequests
from txpaxos.client.requests import CommandRequest, Message, Request, grouped
from txpaxos.client.route import Route
from txpaxos.clock import monotonic_clock
from txpaxos.errors import (
    CodecError,
    CommandFailed,
    ConfigError,
    NodeStopped,
    NoQuorum,
    NotAllowed,
    NotChosen,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    QueryFailed,
    SessionExpired,
)
from txpaxos.log_lines import text_of
from txpaxos.reading import Reading
from txpaxos.wire.client_messages import (
    TRACES_MAX,
    Answer,
    AskAnswer,
    BackupAnswer,
    ChangeAnswer,
    ChangeProgress,
    ClientCodec,
    Forget,
    FromClient,
    FromNode,
    HandedOver,
    MembersAnswer,
    Read,
    ReadAnswer,
    Refused,
    StatusAnswer,
    Submit,
    TimersKept,
    Trace,
    Withdraw,
)
from txpaxos.wire.commands import Run, new_session, owned_by

if TYPE_CHECKING:
    from txpaxos.client.credentials import Credentials

WELCOME_SECONDS_MAX = 60.0
"""Age of a Welcome beyond which no session is made with the slot that it tells: a session as old as that slot might
count as forgotten already."""


class Dispatcher:
    """The requests of one client on their way.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param codec: encodes and decodes the messages of the cluster.
    :param known: the nodes to talk to, and where their client ports are.
    :param follows_leader: whether to talk to the leader when a node says which it is.
    :param rng: the source of chance.
    :param sending: called with every run of commands that is sent for the first time.
    :param credentials: what the client shows nodes; ``None`` if it has no keys.
    :ivar pending: the requests without an answer.
    :ivar session: the name of the session in which commands are sent; ``None`` before the first, and after one has
        expired.
    :ivar next_sequence: the sequence of the next command.
    :ivar makes_spans: whether commands may have spans.
    """

    def __init__(
        self,
        reactor: Any,
        codec: ClientCodec,
        known: KnownNodes,
        follows_leader: bool,
        rng: Random,
        sending: Callable[[Run], None] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.pending = PendingRequests()
        self.session: bytes | None = None
        self.next_sequence = 1
        self._clock = monotonic_clock(reactor)
        self._rng = rng
        self._sending = sending
        self._numbers = itertools.count(1)
        self._principal: str | None = None  # To which the session belongs, when keys are on.
        self._route = Route(reactor, self._clock, codec, known, follows_leader, rng, self.pending, self, credentials)
        self._outbox = Outbox(self._clock, self._flush)
        self.is_closed = False
        self.makes_spans = False

    # from the client

    def submit(self, command: bytes, deadline_seconds: float | None, span: bytes = b"") -> Deferred[Any]:
        """Make a request of a command.

        :param span: names the client's span for it; empty if it has none."""
        sequence, size_bytes = self.next_sequence, len(command)
        refusal = self.pending.refusal_of_command(sequence, size_bytes)
        if refusal is not None:
            return fail(refusal)
        if self.is_closed:
            return fail(NotChosen("this client is closed"))
        self.next_sequence += 1
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred(partial(self._cancelled, number))
        request = CommandRequest(number, None, answer, size_bytes, sequence=sequence, payload=command, span=span)
        return self._start(request, deadline_seconds)

    def ask_node(
        self,
        make_message: Callable[[int], Message],
        size_bytes: int,
        deadline_seconds: float | None,
        progress: Callable[[str], None] | None = None,
        waits: bool = False,
        patience_seconds: float = 0.0,
    ) -> Deferred[Any]:
        """Make a request that is no command.

        :param make_message: makes the message, given the number of the request.
        :param progress: called with each new line that says how far the request has come.
        :param waits: whether the node answers when something happens.
        :param patience_seconds: how long the node may let the answer wait for others to come.
        """
        if self.is_closed:
            return fail(NoQuorum("this client is closed"))
        refusal = self.pending.refusal(size_bytes, waits)
        if refusal is not None:
            return fail(refusal)
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred(partial(self._cancelled, number))
        message = make_message(number)
        request = Request(
            *(number, message, answer, size_bytes), progress=progress, waits=waits, patience_seconds=patience_seconds
        )
        return self._start(request, deadline_seconds)

    def ask_leader(
        self, make_message: Callable[[int], Message], size_bytes: int, deadline_seconds: float | None
    ) -> Deferred[Any]:
        """Make a request that only the leader can answer."""
        if not self.is_closed:
            self._route.seek_leader()
        return self.ask_node(make_message, size_bytes, deadline_seconds)

    def close(self) -> None:
        """Close the connections. Requests without an answer fail, as if their deadlines were over."""
        if self.is_closed:
            return
        self.is_closed = True
        self._outbox.clear()
        self._route.close()
        for request in list(self.pending):
            self._give_up(request.number)

    def use_credentials(self, credentials: Credentials) -> None:
        """Show nodes ``credentials`` from now on.

        :raises ConfigError: if the client has none, or the session would belong to another one.
        """
        before = self._route.credentials
        if before is None:
            raise ConfigError("this client was made without keys, so the nodes have none either: make a new client")
        before.check_successor(credentials, self._principal)
        self._route.use_credentials(credentials)

    def findings(self) -> str:
        """What each node was last found to be like, in one line."""
        return self._route.findings()

    # from the route

    def connected(self, connection: ClientConnection) -> None:
        """A node is ready for requests: all that have no answer are sent to it, be it for the first time or again."""
        if connection.principal != self._principal:  # A session belongs to the name that the client had.
            self._principal, self.session = connection.principal, None
        self._outbox.restart(self.pending)
        self._flush()

    def disconnected(self) -> None:
        """There is no connection to send on. What was sent on the last one has no answer from there."""
        self._outbox.clear()

    def refused(self) -> None:
        """No node takes this client as it is. Requests without an answer fail."""
        findings = self._route.findings()
        for request in list(self.pending):
            if self._end(request.number) is not None:
                may_have_effect = request.sendings and request.changes_state
                error = request.error_without_answer(findings) if may_have_effect else NotAllowed(findings)
                request.answer.errback(error)

    def received(self, connection: ClientConnection, message: FromNode) -> None:
        """A node has answered requests.

        :raises CodecError: if ``message`` is no answer.
        """
        match message:
            case Answer(first, results):
                self.pending.quorum_answers += 1
                for number, result in enumerate(results, first):
                    self._decode(number, _unpack, result)
            case AskAnswer(number, value):
                self._finish(number, value)
            case ReadAnswer(number, slot, result):
                self._decode(number, lambda data: Reading(_unpack(data), slot), result)
            case BackupAnswer(number, body):
                self._finish(number, body)
            case TimersKept(number):
                self._finish(number, message)
            case HandedOver(number, leader):
                self._finish(number, leader)
            case StatusAnswer(number, report) | MembersAnswer(number, report):
                self._decode(number, json.loads, report)
            case ChangeProgress(number, line):
                self._note_progress(number, line)
            case ChangeAnswer(number, line):
                self._finish(number, line)
            case Refused(first, error, reason, count):
                # A node that the client has left may say that it stops or is overloaded. Another has the request now.
                if connection is self._route.current or error in (CommandFailed.__name__, QueryFailed.__name__):
                    for number in range(first, first + min(count, REQUESTS_MAX)):
                        self._refused(number, error, reason)
            case _:
                raise CodecError("a client's message came from a node")

    # a request begins and ends

    def _start(self, request: Request, deadline_seconds: float | None) -> Deferred[Any]:
        self.pending.add(request)
        if deadline_seconds is not None:
            request.deadline = self._clock.callLater(deadline_seconds, self._give_up, request.number)
        route = self._route
        if route.is_ready:
            self._outbox.add(request)
        if route.current is None or not route.is_watching:
            route.request_made()
        return request.answer

    def _end(self, number: int) -> Request | None:
        """A request ends. ``None`` if it has ended before."""
        request = self.pending.take(number)
        if request is not None and request.message is None:
            self._outbox.command_ended()
        return request

    def _cancelled(self, number: int, _: Deferred[Any]) -> None:
        """The caller has cancelled the Deferred of a request."""
        self._withdraw(self._end(number))

    def _give_up(self, number: int) -> None:
        """The deadline of a request is over, or the client is closed."""
        request = self._end(number)
        if request is not None:
            self._withdraw(request)
            request.answer.errback(request.error_without_answer(self._route.findings()))

    def _withdraw(self, request: Request | None) -> None:
        """Have the node do no more for a read that has ended without an answer. A watch would wait there for long."""
        connection = self._route.current
        if request is None or not request.sendings or not isinstance(request.message, Read) or connection is None:
            return
        welcome = connection.welcome
        if self._route.is_ready and connection.is_open and welcome is not None and welcome.takes_withdrawals:
            connection.send(Withdraw(request.number))

    def _note_progress(self, number: int, line: str) -> None:
        """A node is at work on a request."""
        request = self.pending.get(number)
        if request is not None:
            self.pending.quorum_answers += 1
            if request.progress is not None and line != request.line:
                request.line = line
                request.progress(line)

    def _finish(self, number: int, result: Any) -> None:
        """A node has done what a request asks for."""
        request = self.pending.take(number)
        if request is not None:
            if request.message is None:
                self._outbox.command_ended()
            elif request.needs_leader:  # Commands were counted together.
                self.pending.quorum_answers += 1
            request.answer.callback(result)

    def _decode(self, number: int, decode: Callable[[bytes], Any], data: bytes) -> None:
        """Finish a request with what ``decode`` makes of ``data``. If ``decode`` raises, only this request fails:
        another answer to it would be the same, and the other requests have nothing to do with it."""
        try:
            result = decode(data)
        except Exception as error:
            reason = f"{type(error).__name__}: {text_of(error)}"
            if isinstance(self.pending.get(number), CommandRequest):
                self._fail(number, CommandFailed(f"applied, but its result cannot be decoded: {reason}"))
            else:
                self._fail(number, QueryFailed(f"the answer cannot be decoded: {reason}"))
        else:
            self._finish(number, result)

    def _fail(self, number: int, error: PaxosError) -> None:
        """A request has failed on a node that has a quorum."""
        request = self._end(number)
        if request is not None:
            self.pending.quorum_answers += 1
            request.answer.errback(error)

    def _refused(self, number: int, name: str, reason: str) -> None:
        """A node has refused a request, or it has failed there.

        :param name: the name of the error's class.
        """
        if name == NodeStopped.__name__:
            return  # The node closes the connection now, and the next node is asked.
        error = getattr(errors, name, None)
        if not (isinstance(error, type) and issubclass(error, PaxosError)):
            error = PaxosError
        request = self.pending.get(number)
        if request is None:
            return
        self.pending.quorum_answers += 1
        if error is SessionExpired and isinstance(request, CommandRequest):
            self._session_expired(request.session, reason)
        elif error in (Overloaded, NotAllowed) and request.sendings > 1 and request.changes_state:
            self._end(number)
            request.answer.errback(OutcomeUnknown(f"sent before, it may have been applied; now: {reason}"))
        else:
            self._end(number)
            request.answer.errback(error(reason))

    def _session_expired(self, session: bytes, reason: str) -> None:
        """Nothing of this session will be applied any more. Commands that come later go into a new one."""
        if self.session == session:
            self.session = None
        for request in list(self.pending):
            expired = isinstance(request, CommandRequest) and request.session == session
            if expired and self._end(request.number) is not None:
                request.answer.errback(SessionExpired(reason))

    # sending

    def _flush(self) -> None:
        """Send what the outbox has for the current connection."""
        connection = self._route.current
        assert connection is not None
        requests = self._outbox.take()
        for request in requests:
            if isinstance(request, CommandRequest) and not request.session:
                if self.session is None:
                    self.session = self._new_session(connection)
                if self.session is None:
                    return
                request.session = self.session
            elif isinstance(request.message, Forget) and not request.message.session:
                session = self._new_session(connection)
                if session is None:
                    return
                request.message = attrs.evolve(request.message, session=session)
        messages: list[FromClient] = []
        for group in grouped(requests):
            if isinstance(group, list):
                if self.makes_spans:
                    messages += _traces_of(group, connection)
                messages.append(self._submit_of(group))
            elif group.message is not None:  # pragma: no branch
                group.sendings += 1
                messages.append(group.message)
        connection.send(*messages)

    def _new_session(self, connection: ClientConnection) -> bytes | None:
        """The name of a new session. ``None`` if the node's last Welcome is too old for that:
        then the connection is made again, which brings a newer Welcome."""
        assert connection.welcome is not None
        if self._clock.seconds() - connection.welcomed_at > WELCOME_SECONDS_MAX:
            self._route.reconnect(connection)
            return None
        random_bytes = self._rng.getrandbits(128).to_bytes(16, "big")
        if connection.principal is not None:
            random_bytes = owned_by(connection.principal, random_bytes)
        return new_session(random_bytes, connection.welcome.applied_through)

    def _submit_of(self, commands: list[CommandRequest]) -> Submit:
        """The message with a run of commands, which is sent now."""
        first = commands[0]
        acknowledged = self.pending.first_sequence(first.sequence) - 1
        run = Run(first.session, first.sequence, acknowledged, tuple(command.payload for command in commands))
        if self._sending is not None and not first.sendings:
            self._sending(run)
        for command in commands:
            command.sendings += 1
        self._outbox.run_sent(commands)
        return Submit(first.number, *run)


def _traces_of(commands: list[CommandRequest], connection: ClientConnection) -> list[Trace]:
    """What a node with spans is told before a run, of those of its commands that have one."""
    if connection.welcome is None or not connection.welcome.takes_traces:
        return []
    return [Trace(command.number, command.span) for command in commands if command.span][:TRACES_MAX]


_unpack = msgspec.msgpack.Decoder().decode
