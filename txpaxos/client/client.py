"""A client of a cluster: finds a node that answers, follows the leader, and sends again what got no answer.

A command sent again carries the same session and sequence, so it is applied once however often it is sent and to
whichever nodes. The session is made when the first command is sent, at a slot that the node has told.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from functools import partial
from random import Random, SystemRandom
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, fail

from txpaxos import errors
from txpaxos.arguments import check_consistency, check_deadline, checked_bytes, checked_subject, checked_value
from txpaxos.client.connection import ClientConnection
from txpaxos.client.outbox import Outbox
from txpaxos.client.requests import CommandRequest, Request, grouped
from txpaxos.client.route import Route
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Cluster
from txpaxos.errors import (
    CodecError,
    CommandFailed,
    ConfigError,
    NodeStopped,
    NoQuorum,
    NotChosen,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    QueryFailed,
    SessionExpired,
    ValueTooLarge,
)
from txpaxos.log_lines import text_of
from txpaxos.reading import Consistency, Reading
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    ClientCodec,
    FromNode,
    Read,
    ReadAnswer,
    Refused,
    StatusAnswer,
    StatusRequest,
    Submit,
)
from txpaxos.wire.codec import SUBJECT_BYTES_MAX
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Run, new_session

WELCOME_SECONDS_MAX = 60.0
"""No session is made with a slot that was told longer ago: it might count as forgotten already."""

REQUESTS_MAX = 4096
"""Requests without an answer, and commands from the first of those without one to the last submitted."""

WAITING_BYTES_MAX = 2**27
"""Bytes of requests without an answer."""


class Client:
    """A client of a cluster, over one connection at a time. Any number of requests may be in work at once.

    A ``deadline_seconds`` counts from the call; it is finite and above zero. Without one a request waits as long as no
    quorum answers; cancelling the Deferred ends that, too, but says nothing of what became of the request. An argument
    of a wrong type raises TypeError at the call, a deadline that is none ValueError: that is a mistake of the caller's,
    and nothing was sent.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param cluster: the cluster. Names in it are looked up at each attempt to connect.
    :param nodes: the nodes to talk to; all of them unless given. With one, its word is taken wherever the leader is.
    :param rng: the source of chance; the system's if not given.
    :param sending: told of every run of commands that is sent for the first time.
    :raises ConfigError: if one of ``nodes`` is not in the cluster, or there are none.
    :ivar session: names this client's commands, with a sequence; ``None`` if there is none at the moment.
    :ivar waiting_bytes: of the requests without an answer.
    :ivar next_sequence: that of the next command; counts all of this client's commands from 1 on.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        nodes: list[str] | None = None,
        rng: Random | None = None,
        sending: Callable[[Run], None] | None = None,
    ) -> None:
        self.codec = ClientCodec(cluster.name)
        self._clock = monotonic_clock(reactor)
        chosen = list(cluster.members) if nodes is None else nodes
        if not chosen or not set(chosen) <= set(cluster.members):
            raise ConfigError(
                f"no client for the nodes {', '.join(chosen) or '(none)'}: its nodes are {', '.join(cluster.members)}"
            )
        self._rng = rng or SystemRandom()
        places = {node: cluster.members[node].client for node in chosen}
        self._route = Route(reactor, self._clock, self.codec, places, nodes is None, self._rng, self)
        self.session: bytes | None = None
        self.next_sequence = 1
        self.waiting_bytes = 0
        self._sending = sending
        self._unanswered: dict[int, None] = {}
        self._numbers = itertools.count(1)
        self._requests: dict[int, Request] = {}
        self._outbox = Outbox(self._clock, self._requests, self._unanswered, self._flush)
        self._closed = False

    # from the application

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have ``command`` (at most 16 MiB) applied, once.

        :returns: fires with what ``apply`` returned (as MessagePack carries it); fails with
            :class:`~txpaxos.errors.CommandFailed`, :class:`~txpaxos.errors.ValueTooLarge`,
            :class:`~txpaxos.errors.Overloaded` or :class:`~txpaxos.errors.SessionExpired`; when the deadline is over
            or the client is closed, with :class:`~txpaxos.errors.NotChosen` if the command was never sent and with
            :class:`~txpaxos.errors.OutcomeUnknown` if it was.
        :raises TypeError: if ``command`` is no bytes.
        """
        command, deadline_seconds = checked_bytes(command, "a command"), check_deadline(deadline_seconds)
        if len(command) > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the command has {len(command)} bytes and may have {COMMAND_BYTES_MAX}"))
        if self._unanswered and self.next_sequence - next(iter(self._unanswered)) >= REQUESTS_MAX:
            return fail(Overloaded(f"a command that was submitted {REQUESTS_MAX} commands ago waits for an answer yet"))
        if self._is_overloaded(len(command)):
            return fail(self._overloaded())
        if self._closed:
            return fail(NotChosen("this client is closed"))
        sequence = self.next_sequence
        self.next_sequence += 1
        self._unanswered[sequence] = None
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred(partial(self._forget, number))
        request = CommandRequest(number, None, answer, len(command), sequence=sequence, payload=command)
        return self._request(request, deadline_seconds)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` (at most 16 MiB) answered from the application's state.

        :param consistency: ``"linearizable"``: everything that anybody was told before this call is in the answer.
            ``"local"``: from what one node has applied, without asking the others; it may be old.
        :returns: fires with the result (as MessagePack carries it) and the slot it reflects; fails with
            :class:`~txpaxos.errors.QueryFailed`, :class:`~txpaxos.errors.ValueTooLarge` or
            :class:`~txpaxos.errors.Overloaded`, and when the deadline is over or the client is closed with
            :class:`~txpaxos.errors.NoQuorum`.
        :raises TypeError: if ``query`` is no bytes.
        :raises ValueError: if there is no such consistency.
        """
        query, deadline_seconds = checked_bytes(query, "a query"), check_deadline(deadline_seconds)
        local = check_consistency(consistency) == "local"
        if len(query) > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the query has {len(query)} bytes and may have {COMMAND_BYTES_MAX}"))
        return self._ask_node(lambda number: Read(number, query, local), len(query), deadline_seconds)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Have ``subject`` decided on ``value`` unless somebody was first; ``None`` only reads.

        :returns: fires with the decided value, or ``None`` if nothing was proposed yet; fails with
            :class:`~txpaxos.errors.ValueTooLarge` or :class:`~txpaxos.errors.Overloaded`; when the deadline is over or
            the client is closed, with :class:`~txpaxos.errors.OutcomeUnknown` if a value was sent, else with
            :class:`~txpaxos.errors.NoQuorum`.
        :raises TypeError: if ``subject`` is no str, or ``value`` neither bytes nor ``None``.
        """
        subject, value, deadline_seconds = (
            checked_subject(subject),
            checked_value(value),
            check_deadline(deadline_seconds),
        )
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"))
        size = len(value or b"")
        if size > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the value has {size} bytes and may have {COMMAND_BYTES_MAX}"))
        return self._ask_node(lambda number: Ask(number, subject, value), size, deadline_seconds)

    def status(self, deadline_seconds: float | None = None) -> Deferred[dict[str, Any]]:
        """How the node that this client talks to is; fails as :meth:`read` does."""
        return self._ask_node(StatusRequest, 0, check_deadline(deadline_seconds))

    def close(self) -> None:
        """Close the connections. What has no answer yet fails, as if its deadline were over."""
        if self._closed:
            return
        self._closed = True
        self._outbox.end()
        self._route.close()
        for number in list(self._requests):
            self._give_up(number)

    def findings(self) -> str:
        """What each node was last found to be like, in one line: that it refuses connections, does not answer, knows no
        leader, and so on."""
        return self._route.findings()

    # from the route

    def due(self) -> Iterable[Request]:
        """The requests without an answer."""
        return self._requests.values()

    def begin(self, connection: ClientConnection) -> None:
        """A node is there: all that has no answer is sent to it, again or not."""
        self._outbox.begin(self._requests.values())
        self._flush()

    def end(self) -> None:
        """There is none, and what was under way has no answer from it."""
        self._outbox.end()

    def answer(self, connection: ClientConnection, message: FromNode) -> None:
        """A node answered something."""
        match message:
            case Answer(first, results):
                self._route.answered()
                for number, result in enumerate(results, first):
                    self._decode(number, _unpack, result)
            case AskAnswer(number, value):
                self._finish(number, value)
            case ReadAnswer(number, slot, result):
                self._decode(number, lambda data: Reading(_unpack(data), slot), result)
            case StatusAnswer(number, status):
                self._decode(number, json.loads, status)
            case Refused(first, error, reason, count):
                if connection is self._route.current or error in (CommandFailed.__name__, QueryFailed.__name__):
                    for number in range(first, first + min(count, REQUESTS_MAX)):
                        self._refused(number, error, reason)
            case _:
                raise CodecError("a client's message came from a node")

    def _decode(self, number: int, decode: Callable[[bytes], Any], data: bytes) -> None:
        """Finish a request with what ``decode`` makes of ``data``. If it can make nothing of it, only this request
        fails: another answer to it would be the same, and the other requests have nothing to do with it."""
        try:
            result = decode(data)
        except Exception as error:
            reason = f"{type(error).__name__}: {text_of(error)}"
            if isinstance(self._requests.get(number), CommandRequest):
                self._fail(number, CommandFailed(f"applied, but its result cannot be decoded: {reason}"))
            else:
                self._fail(number, QueryFailed(f"the answer cannot be decoded: {reason}"))
        else:
            self._finish(number, result)

    # requests

    def _ask_node(
        self,
        make: Callable[[int], Ask | Read | StatusRequest],
        size_bytes: int,
        deadline_seconds: float | None,
    ) -> Deferred[Any]:
        """Send what is no command."""
        if self._closed:
            return fail(NoQuorum("this client is closed"))
        if self._is_overloaded(size_bytes):
            return fail(self._overloaded())
        number = next(self._numbers)
        answer: Deferred[Any] = Deferred(partial(self._forget, number))
        return self._request(Request(number, make(number), answer, size_bytes), deadline_seconds)

    def _is_overloaded(self, size_bytes: int) -> bool:
        return len(self._requests) >= REQUESTS_MAX or self.waiting_bytes + size_bytes > WAITING_BYTES_MAX

    def _overloaded(self) -> Overloaded:
        count, size = len(self._requests), self.waiting_bytes
        return Overloaded(f"{count} requests of {size} bytes wait for an answer already; try again later")

    def _request(self, request: Request, deadline_seconds: float | None) -> Deferred[Any]:
        self._requests[request.number] = request
        self.waiting_bytes += request.size_bytes
        if deadline_seconds is not None:
            request.deadline = self._clock.callLater(deadline_seconds, self._give_up, request.number)
        route = self._route
        if route.is_ready:
            self._outbox.add(request)
        if route.current is None or not route.is_watching:
            route.want()
        return request.answer

    def _forget(self, number: int, _: Deferred[Any]) -> None:
        """Whoever asked has cancelled."""
        self._take(number)

    def _take(self, number: int) -> Request | None:
        """A request that waits no longer."""
        request = self._requests.pop(number, None)
        if request is not None:
            self.waiting_bytes -= request.size_bytes
            if isinstance(request, CommandRequest):
                self._unanswered.pop(request.sequence, None)
                self._outbox.answered()
            if request.deadline is not None and request.deadline.active():
                request.deadline.cancel()
        return request

    def _give_up(self, number: int) -> None:
        request = self._take(number)
        if request is not None:
            request.answer.errback(request.unanswered(self._route.findings()))

    def _finish(self, number: int, result: Any) -> None:
        request = self._take(number)
        if request is not None:
            if request.message is not None and request.needs_quorum:  # Commands have said so together.
                self._route.answered()
            request.answer.callback(result)

    def _fail(self, number: int, error: PaxosError) -> None:
        """A request failed for good."""
        request = self._take(number)
        if request is not None:
            self._route.answered()
            request.answer.errback(error)

    def _refused(self, number: int, name: str, reason: str) -> None:
        if name == NodeStopped.__name__:
            return  # It closes the connection now; the next node is asked again.
        error = getattr(errors, name, None)
        if not (isinstance(error, type) and issubclass(error, PaxosError)):
            error = PaxosError
        request = self._requests.get(number)
        if request is None:
            return
        self._route.answered()
        if error is SessionExpired and isinstance(request, CommandRequest):
            self._session_expired(request.session, reason)
        elif error is Overloaded and request.sendings > 1 and isinstance(request, CommandRequest):
            self._take(number)
            request.answer.errback(OutcomeUnknown(f"sent before, it may have been applied; now: {reason}"))
        else:
            self._take(number)
            request.answer.errback(error(reason))

    def _session_expired(self, session: bytes, reason: str) -> None:
        """Nothing of this session will be applied any more. What comes now goes into a new one."""
        if self.session == session:
            self.session = None
        for number, request in list(self._requests.items()):
            expired = isinstance(request, CommandRequest) and request.session == session
            if expired and self._take(number) is not None:
                request.answer.errback(SessionExpired(reason))

    # sending

    def _flush(self) -> None:
        """Send what is due on this connection."""
        connection = self._route.current
        assert connection is not None
        due = self._outbox.take()
        for request in due:
            if isinstance(request, CommandRequest) and not (request.session or self._name(request, connection)):
                return
        for group in grouped(due):
            if isinstance(group, list):
                self._send_run(connection, group)
            elif group.message is not None:  # pragma: no branch
                group.sendings += 1
                connection.send(group.message)

    def _name(self, command: CommandRequest, connection: ClientConnection) -> bool:
        """Give ``command`` its session. False if the node was told of too old a slot: it is asked for a newer one."""
        if self.session is None:
            assert connection.welcome is not None
            if self._clock.seconds() - connection.welcomed_at > WELCOME_SECONDS_MAX:
                self._route.renew(connection)
                return False
            random_bytes = self._rng.getrandbits(128).to_bytes(16, "big")
            self.session = new_session(random_bytes, connection.welcome.applied_through)
        command.session = self.session
        return True

    def _send_run(self, connection: ClientConnection, commands: list[CommandRequest]) -> None:
        first = commands[0]
        acknowledged = min(next(iter(self._unanswered), first.sequence), first.sequence) - 1
        run = Run(first.session, first.sequence, acknowledged, tuple(command.payload for command in commands))
        if self._sending is not None and not first.sendings:
            self._sending(run)
        for command in commands:
            command.sendings += 1
        connection.send(Submit(first.number, *run))
        self._outbox.sent(commands)


_unpack = msgspec.msgpack.Decoder().decode
