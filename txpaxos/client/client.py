"""The public client of a cluster: what a program calls. The requests themselves are the dispatcher's business."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail

from txpaxos.arguments import (
    check_change,
    check_cluster_or_seeds,
    check_consistency,
    check_deadline,
    check_reactor,
    checked_bytes,
    checked_node,
    checked_nodes,
    checked_subject,
    checked_timers,
    checked_value,
)
from txpaxos.client.dispatcher import Dispatcher
from txpaxos.client.endpoints import EndpointString, Place, parse_place
from txpaxos.client.keep_alives import KeepAliveNumbers, keep_alive
from txpaxos.client.known_nodes import KnownNodes
from txpaxos.client.recalling import checked_question
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import NAME, NAME_RULE, Cluster
from txpaxos.errors import ConfigError, ValueTooLarge
from txpaxos.reading import Consistency, Reading
from txpaxos.service.declaration import Remote, S
from txpaxos.service.remote import remote_service
from txpaxos.service.watches import is_watch
from txpaxos.wire.client_messages import (
    KEEP_TIMERS_MAX,
    AcceptClock,
    Action,
    Ask,
    BackupRequest,
    ChangeMembers,
    ClientCodec,
    Forget,
    HandOver,
    MembersRequest,
    Read,
    Recall,
    ReloadKeys,
    StatusRequest,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Run
from txpaxos.wire.registers import SUBJECT_BYTES_MAX
from txpaxos.wire.stamps import TIMER_NAME_BYTES_MAX

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from txpaxos.client.credentials import Credentials
    from txpaxos.keys.folder import Keys
    from txpaxos.tracing.client_spans import ClientSpans


class Client:
    """A client of a cluster. It finds a node that answers, follows the leader, and sends again what got no answer.

    The client needs to know one node at the start, its *seed*. Nodes tell it who the members are, then and whenever
    they change, and it goes on with these members when its seeds are gone. While none of the members can be reached it
    tries its seeds again. It follows the voters, and at most 64 members.

    There is one connection that requests are sent on, made when the first request needs it. Any number of requests may
    be made at a time; up to 4,096 requests of 128 MiB together may be without an answer, and one that comes on top
    fails with :class:`~txpaxos.errors.Overloaded`.

    Each method that makes a request returns a Deferred and takes a ``deadline_seconds``. The deadline counts from the
    call; it is a finite number above zero, in seconds. Without a deadline a request waits as long as no quorum answers.
    Cancelling the Deferred ends the wait, too: it fails with ``CancelledError``, which says nothing of what became of
    the request. A wrong argument raises TypeError or ValueError at the call; nothing was sent then.

    :param reactor: provides ``IReactorTCP`` and ``IReactorTime``.
    :param cluster: the cluster, whose nodes are the seeds; or only the addresses of the client ports of one or more
        nodes, ``["host:port"]``: then the first node that answers decides which cluster it is. Host names are looked up
        at each attempt to connect.
        A node may also be given as a Twisted endpoint string that begins with ``unix:``, ``tls:`` or ``tcp:``, as
        ``["unix:/run/txpaxos/a.sock"]``. Such a client talks to the nodes that it was given, and to no others. It
        follows the leader among them if it knows which is which: ``{"a": "unix:/run/a.sock", "b": "tls:b:443"}``.
    :param nodes: the ids of the nodes to talk to; whichever are members unless given. Given only one, the client stays
        with that node, whichever node leads.
    :param rng: the source of chance, for which node to try first, for pauses and for the names of sessions; the
        system's unless given.
    :param sending: called with every run of commands when it is sent for the first time.
    :param keys: the folder with the client's keys, if the nodes have keys; or the keys themselves.
    :param tracer: makes a span for each command: a tracer of OpenTelemetry. There are no spans unless it is given.
    :raises TypeError: if one of these is of a wrong type.
    :raises ConfigError: if ``nodes`` is empty, or one of them is not in the cluster; or if there is no address, or one
        of them is none; or if the folder of keys cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster | Mapping[str, str] | Iterable[str],
        nodes: Iterable[str] | None = None,
        rng: Random | None = None,
        sending: Callable[[Run], None] | None = None,
        keys: Keys | str | os.PathLike[str] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        check_reactor(reactor)
        check_cluster_or_seeds(cluster)
        name = cluster.name if isinstance(cluster, Cluster) else None
        seeds = _seeds_of(reactor, cluster)
        chosen = list(seeds) if nodes is None else checked_nodes(nodes)
        if not chosen or not set(chosen) <= set(seeds):
            raise ConfigError(
                f"no client for the nodes {', '.join(chosen) or '(none)'}: its nodes are {', '.join(seeds)}"
            )
        is_fixed = nodes is not None or any(isinstance(place, EndpointString) for place in seeds.values())
        self._known = KnownNodes({node: seeds[node] for node in chosen}, is_fixed)
        rng = rng or SystemRandom()
        self._keep_alive_numbers = KeepAliveNumbers(rng)
        self._seconds = monotonic_clock(reactor).seconds
        self._dispatcher = Dispatcher(
            *(reactor, ClientCodec(name), self._known, nodes is None, rng, sending),
            None if keys is None else _credentials_of(keys),
        )
        self._spans = None if tracer is None else _spans_of(tracer)
        self._dispatcher.makes_spans = tracer is not None

    @property
    def session(self) -> bytes | None:
        """The session in which commands are sent, which names each of them together with its sequence. ``None`` before
        the first command is sent, and after the session has expired."""
        return self._dispatcher.session

    @property
    def is_closed(self) -> bool:
        """Whether this client was closed, so that every request fails."""
        return self._dispatcher.is_closed

    @property
    def next_sequence(self) -> int:
        """The sequence of the next command. All commands of this client are counted, from 1 on."""
        return self._dispatcher.next_sequence

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the commands, queries and values that have no answer yet."""
        return self._dispatcher.pending.size_bytes

    def submit(
        self, command: bytes, deadline_seconds: float | None = None, *, parent: Span | Context | None = None
    ) -> Deferred[Any]:
        """Have ``command`` applied by every node, once.

        :param command: up to 16 MiB of bytes, which the application's ``apply`` gets as they are.
        :param deadline_seconds: how long to wait for the outcome; ``None`` for as long as it takes.
        :param parent: the span of the caller that the command's span belongs to, or its context. It is not looked at
            without a tracer.
        :returns: fires with what ``apply`` returned, as MessagePack carries it. Otherwise it fails:

            * :class:`~txpaxos.errors.CommandFailed`: the command is applied, but ``apply`` raised, or its result cannot
              be sent or decoded.
            * :class:`~txpaxos.errors.NotChosen`: the deadline was over, or the client was closed, before the command
              was sent. It is not applied and never will be.
            * :class:`~txpaxos.errors.OutcomeUnknown`: the deadline was over, or the client was closed, after the
              command was sent. It may have been applied, or may yet be.
            * :class:`~txpaxos.errors.SessionExpired`: the nodes have forgotten the session of the command, which may
              have been applied before that. Later commands have a new session.
            * :class:`~txpaxos.errors.Overloaded`: the client or a node has too many requests. The command is not
              applied and never will be.
            * :class:`~txpaxos.errors.ValueTooLarge`: the command is too long. It was not sent.
        :raises TypeError: if ``command`` is not bytes, or ``deadline_seconds`` not a number.
        :raises ValueError: if ``deadline_seconds`` is not finite, or not above zero.
        """
        command, deadline_seconds = checked_bytes(command, "a command"), check_deadline(deadline_seconds)
        if len(command) > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the command has {len(command)} bytes and may have {COMMAND_BYTES_MAX}"))
        if self._spans is None:
            return self._dispatcher.submit(command, deadline_seconds)
        return self._spans.submit(self._dispatcher.submit, command, deadline_seconds, parent, self.next_sequence)

    def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Deferred[Reading]:
        """Have ``query`` answered from the application's state, which it does not change.

        :param query: up to 16 MiB of bytes, which the application's ``query`` gets as they are.
        :param consistency: ``"linearizable"``: the answer reflects every command whose result any client had before
            this call. ``"local"``: the answer is what one node has applied, without asking the others; it may be old.
        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with the result, as MessagePack carries it, and the slot that it reflects. Otherwise it fails:

            * :class:`~txpaxos.errors.QueryFailed`: ``query`` raised, or its result cannot be sent or decoded.
            * :class:`~txpaxos.errors.NoQuorum`: the deadline was over, or the client was closed, before an answer came.
            * :class:`~txpaxos.errors.Overloaded`: the client or a node has too many requests.
            * :class:`~txpaxos.errors.ValueTooLarge`: the query is too long. It was not sent.
        :raises TypeError: if ``query`` is not bytes, ``consistency`` not a str, or ``deadline_seconds`` not a number.
        :raises ValueError: if there is no such consistency, or ``deadline_seconds`` is not finite, or not above zero.
        """
        query, deadline_seconds = checked_bytes(query, "a query"), check_deadline(deadline_seconds)
        local = check_consistency(consistency) == "local"
        if len(query) > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the query has {len(query)} bytes and may have {COMMAND_BYTES_MAX}"))
        waits = local and is_watch(query)
        return self._dispatcher.ask_node(
            lambda number: Read(number, query, local), len(query), deadline_seconds, waits=waits
        )

    def service(
        self,
        kind: type[S],
        name: str | None = None,
        *,
        deadline_seconds: float | None = None,
        consistency: Consistency = "linearizable",
        parent: Span | Context | None = None,
    ) -> Remote[S]:
        """The commands and queries of a typed service, as in ``await client.service(Bank).deposit("ann", 5)``.

        Each call gives a Deferred, which fires with what the method returned. It fails with what the method raised on
        purpose, and otherwise with what :meth:`submit` or :meth:`read` fail with. A wrong argument raises TypeError at
        the call, and nothing is sent then.

        :param kind: the class of the service, a subclass of :class:`~txpaxos.service.declaration.Service`.
        :param name: what the nodes call the service; by default the name of its class.
        :param deadline_seconds: how long each call may take; ``None`` for as long as it takes.
        :param consistency: how fresh the answers of queries must be, see :meth:`read`.
        :param parent: what the spans of commands belong to, see :meth:`submit`.
        :raises ConfigError: one line, if the class of the service is wrong.
        :raises TypeError: if another argument is of a wrong type.
        :raises ValueError: if there is no such consistency, or ``deadline_seconds`` is not finite, or not above zero.
        """
        requests = self if parent is None else _WithParent(self, parent)
        return remote_service(requests, kind, name, deadline_seconds, consistency)

    def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> Deferred[bytes | None]:
        """Have ``subject``, a register that is written once, decided on ``value`` unless it is decided already.

        :param subject: the register's name, 1 to 512 bytes in UTF-8.
        :param value: up to 16 MiB of bytes to propose; ``None`` to read without proposing anything.
        :param deadline_seconds: how long to wait for the decision; ``None`` for as long as it takes.
        :returns: fires with the decided value, which another client may have proposed; with ``None`` if ``value`` is
            ``None`` and nothing is decided. Otherwise it fails:

            * :class:`~txpaxos.errors.OutcomeUnknown`: the deadline was over, or the client was closed, after ``value``
              was sent. The subject may be decided on it. Asking again is safe.
            * :class:`~txpaxos.errors.NoQuorum`: the same, but no value was sent.
            * :class:`~txpaxos.errors.Overloaded`: the client or a node has too many requests.
            * :class:`~txpaxos.errors.ValueTooLarge`: the name is empty or too long, or the value is too long. Nothing
              was sent.
        :raises TypeError: if ``subject`` is not a str, ``value`` neither bytes nor ``None``, or ``deadline_seconds``
            not a number.
        :raises ValueError: if ``subject`` has no UTF-8, or ``deadline_seconds`` is not finite, or not above zero.
        """
        subject, value = checked_subject(subject), checked_value(value)
        deadline_seconds = check_deadline(deadline_seconds)
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"))
        size_bytes = len(value or b"")
        if size_bytes > COMMAND_BYTES_MAX:
            return fail(ValueTooLarge(f"the value has {size_bytes} bytes and may have {COMMAND_BYTES_MAX}"))
        return self._dispatcher.ask_node(lambda number: Ask(number, subject, value), size_bytes, deadline_seconds)

    def forget(self, subject: str, deadline_seconds: float | None = None) -> Deferred[bytes | None]:
        """Make ``subject`` undecided, so that it can be decided anew, perhaps on another value.

        A decision holds only until it is forgotten: callers that were told the value are not told that it is forgotten,
        and may act on it after another one is decided. A client that still waits for an answer to its
        ``ask`` may send it again, and so decide the subject anew. Forget a subject when nothing acts on it any more.

        :param subject: the register's name, 1 to 512 bytes in UTF-8.
        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with the value that is forgotten; with ``None`` if nothing was decided. Otherwise it fails:

            * :class:`~txpaxos.errors.OutcomeUnknown`: the deadline was over, or the client was closed, after this was
              sent. The subject may be forgotten, or may yet be.
            * :class:`~txpaxos.errors.NoQuorum`: the same, but nothing was sent.
            * :class:`~txpaxos.errors.SessionExpired`: the nodes have forgotten whether they have done this before.
            * :class:`~txpaxos.errors.Overloaded`: the client or a node has too many requests.
            * :class:`~txpaxos.errors.ValueTooLarge`: the name is empty or too long. Nothing was sent.
        :raises TypeError: if ``subject`` is not a str, or ``deadline_seconds`` not a number.
        :raises ValueError: if ``subject`` has no UTF-8, or ``deadline_seconds`` is not finite, or not above zero.
        """
        subject, deadline_seconds = checked_subject(subject), check_deadline(deadline_seconds)
        if not 0 < len(subject.encode()) <= SUBJECT_BYTES_MAX:
            return fail(ValueTooLarge(f"a subject has 1 to {SUBJECT_BYTES_MAX} bytes"))
        # The session is made when this is sent for the first time: its name holds a slot that the node has told.
        return self._dispatcher.ask_node(lambda number: Forget(number, b"", 1, subject), 0, deadline_seconds)

    def keep_alive(
        self,
        names: Iterable[str],
        deadline_seconds: float | None = None,
        told: Callable[[str, bool], object] | None = None,
    ) -> Deferred[dict[str, bool]]:
        """Keep timers alive that the application has set with ``kept_alive``, for one more period each.

        When a timer is confirmed, it fires no sooner than its period after *this call*, by real time, whatever nodes
        lead and fail meanwhile. So count from the call, not from the answer. Clocks of machines differ by less than one
        percent, and the time in the log is rounded down to a millisecond: count 0.99 of the period, and less of one
        below 0.1 s. To keep a timer alive, call this about every 0.4 of its period.

        Call it for many timers at once: they cost the nodes one message, and mostly one slot together with the
        keep-alives of other clients. If they are the same timers again and again, they cost no more than one timer.

        :param names: the names of 1 to 1,024 timers. Those of a typed service begin with the name of the service and a
            slash.
        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :param told: called with each name, and whether the timer is confirmed, as soon as that is known. It takes
            longer of a timer that another client keeps alive, too. What was told counts, also if the call fails.
        :returns: fires with a dict that says for each name whether the timer is confirmed; ``False`` if there is no
            kept-alive timer of that name: it has fired, was cancelled, or never was. Otherwise it fails:

            * :class:`~txpaxos.errors.NoQuorum`: the deadline was over, or the client was closed, before an answer came.
            * :class:`~txpaxos.errors.Overloaded`: the client or the node has too many requests.
            * :class:`~txpaxos.errors.NotChosen`: another client has kept one alive with the highest number that there
              is. The timer cannot be kept alive any more.
        :raises TypeError: if ``names`` is no list of str, or ``deadline_seconds`` not a number.
        :raises ValueError: if there are no names, or too many, or one has more than 512 bytes or no UTF-8; or if
            ``deadline_seconds`` is not finite, or not above zero.
        """
        timers = checked_timers(names, TIMER_NAME_BYTES_MAX, KEEP_TIMERS_MAX)
        deadline_seconds = check_deadline(deadline_seconds)
        return keep_alive(self._dispatcher, self._keep_alive_numbers, self._seconds, timers, deadline_seconds, told)

    def status(self, deadline_seconds: float | None = None) -> Deferred[dict[str, Any]]:
        """Ask the node that this client talks to how it is.

        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with what ``txpaxos status --json`` shows of the node. Otherwise it fails:

            * :class:`~txpaxos.errors.NoQuorum`: the deadline was over, or the client was closed, before an answer came.
            * :class:`~txpaxos.errors.QueryFailed`: the answer cannot be decoded.
            * :class:`~txpaxos.errors.Overloaded`: the client or the node has too many requests.
        :raises TypeError: if ``deadline_seconds`` is not a number.
        :raises ValueError: if ``deadline_seconds`` is not finite, or not above zero.
        """
        return self._dispatcher.ask_node(StatusRequest, 0, check_deadline(deadline_seconds))

    def reload_keys(self, deadline_seconds: float | None = None) -> Deferred[dict[str, Any]]:
        """Have the node that this client talks to read its keys, and the rights in its cluster file, again. It goes on
        without a stop. The client needs the right ``members``.

        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with what the node uses now, as ``txpaxos keys reload --json`` shows it. Otherwise it fails:

            * :class:`~txpaxos.errors.ConfigError`: either cannot be used. The node goes on with those that it had.
            * :class:`~txpaxos.errors.NotAllowed`: the client does not have the right.
            * what :meth:`status` fails with.
        :raises TypeError: if ``deadline_seconds`` is not a number.
        :raises ValueError: if ``deadline_seconds`` is not finite, or not above zero.
        """
        return self._dispatcher.ask_node(ReloadKeys, 0, check_deadline(deadline_seconds))

    def recall(
        self,
        slot: int = 0,
        *,
        ballot: str = "",
        command: tuple[bytes, int] | None = None,
        register: str = "",
        deadline_seconds: float | None = None,
    ) -> Deferred[dict[str, Any]]:
        """Ask the node that this client talks to what it remembers of how a slot came to hold what it holds. What each
        node remembers is needed for the whole story, which ``txpaxos explain`` tells.

        Give just one of the first four.

        :param slot: the slot, from 1 on.
        :param ballot: a ballot, as ``3.a``.
        :param command: the session and the sequence of a command. The node searches the end of its log.
        :param register: the name of a register that was decided or forgotten not long ago.
        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with what :class:`~txpaxos.explaining.recollection.Recollection` has, as JSON. Otherwise it
            fails as :meth:`status` does.
        :raises TypeError: if an argument has the wrong type.
        :raises ValueError: if none of the four is given, or more than one, or one is out of its bounds.
        """
        question = checked_question(slot, ballot, command, register)
        return self._dispatcher.ask_node(lambda number: Recall(number, *question), 0, check_deadline(deadline_seconds))

    def accept_clock(self, deadline_seconds: float | None = None) -> Deferred[dict[str, Any]]:
        """Let the time of day in the log be what the clocks of the nodes say, though that is more than an hour later
        than it should be. It never goes back: look at the clocks of all nodes before.

        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with the leader (``leader``), the time that the clocks say (``utc_ms``), and by how much
            that is later than it should be (``refused_seconds``). Otherwise it fails:

            * :class:`~txpaxos.errors.NotAllowed`: the client does not have the right ``members``.
            * what :meth:`status` fails with.
        :raises TypeError: if ``deadline_seconds`` is not a number.
        :raises ValueError: if ``deadline_seconds`` is not finite, or not above zero.
        """
        return self._dispatcher.ask_leader(AcceptClock, 0, check_deadline(deadline_seconds))

    def hand_over(self, to: str, deadline_seconds: float | None = None) -> Deferred[str]:
        """Have the leader hand over the lead to another node. Commands wait meanwhile, and none of them fails.

        :param to: the id of the node that is to lead.
        :param deadline_seconds: how long to wait for that; ``None`` for as long as it takes.
        :returns: fires with ``to`` when that node leads; at once if it does already. Otherwise it fails:

            * :class:`~txpaxos.errors.NotHandedOver`: the node cannot take over, or did not in time. The error says why.
            * :class:`~txpaxos.errors.OutcomeUnknown`: the deadline was over, or the client was closed, after the
              request was sent. The lead may have been handed over.
            * :class:`~txpaxos.errors.NoQuorum`: the same, but the request was not sent.
            * :class:`~txpaxos.errors.Overloaded`: the client or the node has too many requests.
        :raises TypeError: if ``to`` is not a str, or ``deadline_seconds`` not a number.
        :raises ValueError: if ``to`` has no UTF-8, or ``deadline_seconds`` is not finite, or not above zero.
        """
        to = checked_node(to)
        return self._dispatcher.ask_leader(
            lambda number: HandOver(number, to), len(to), check_deadline(deadline_seconds)
        )

    @property
    def known_members(self) -> tuple[int, dict[str, str]] | None:
        """The members that nodes have told this client of: the slot of the log at which they were chosen, and the
        address of the client port of each, ``host:port``, by its id. ``None`` before a node has told any."""
        known = self._known
        if known.slot < 0:
            return None
        return known.slot, {node: str(address) for node, address in known.members.items()}

    def members(self, deadline_seconds: float | None = None) -> Deferred[dict[str, Any]]:
        """Ask the node that this client talks to who the members are.

        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with what ``txpaxos members --json`` shows, as far as a node knows it by itself: the cluster's
            name, the slot at which the members were chosen, the leader, the members with their addresses, role,
            incarnation and priority, and the ids of former members. Otherwise it fails as :meth:`status` does.
        :raises TypeError: if ``deadline_seconds`` is not a number.
        :raises ValueError: if ``deadline_seconds`` is not finite, or not above zero.
        """
        return self._dispatcher.ask_node(MembersRequest, 0, check_deadline(deadline_seconds))

    def change_members(
        self,
        action: Action,
        node: str,
        *,
        other: str = "",
        address: str = "",
        client: str = "",
        priority: int = 0,
        progress: Callable[[str], None] | None = None,
        deadline_seconds: float | None = None,
    ) -> Deferred[str]:
        """Change the members of the cluster, as ``txpaxos members`` does. The leader makes the change. It is made once,
        also if the leader changes meanwhile.

        :param action: ``"promote"``: make the learner ``node`` a voter. ``"remove"``: make ``node`` no member any more.
            ``"replace"``: make the learner ``other`` a voter in place of ``node``. ``"move"``: give ``node`` the
            addresses ``address`` and ``client``. ``"priority"``: give ``node`` the priority ``priority``.
        :param node: the id of the member.
        :param progress: called with each new line that says how far the change has come.
        :param deadline_seconds: how long to wait until the change is complete; ``None`` for as long as it takes.
        :returns: fires, when the change is complete, with one line that says what has become of it. A node that has
            left may be switched off then, and not before. Otherwise it fails:

            * :class:`~txpaxos.errors.MembersRefused`: the change cannot be made as things are. Nothing was changed.
            * :class:`~txpaxos.errors.OutcomeUnknown`: the deadline was over, or the client was closed, after the
              request was sent. Asking again is safe.
            * :class:`~txpaxos.errors.NoQuorum`: the same, but no request was sent.
            * :class:`~txpaxos.errors.Overloaded`: the client or the node has too many requests.
        :raises TypeError: if an argument is of a wrong type.
        :raises ValueError: if there is no such action, a name or an address is too long, or ``deadline_seconds`` is not
            finite, or not above zero.
        """
        texts = {"node": node, "other": other, "address": address, "client": client}
        check_change(action, texts, priority)
        return self._dispatcher.ask_node(
            lambda number: ChangeMembers(number, action, node, other, address, client, priority),
            0,
            check_deadline(deadline_seconds),
            progress,
        )

    def backup_part(
        self, snapshot_slot: int = 0, position: int = 0, deadline_seconds: float | None = None
    ) -> Deferred[bytes]:
        """Ask for a part of a backup, for ``txpaxos backup``. A client for this talks to one node only.

        :param snapshot_slot: the slot of the snapshot of which a part is asked for; 0 for something else.
        :param position: of a snapshot, where the part begins, in bytes. Otherwise the slot from which on chosen values
            are asked for; 0 for the head of the backup.
        :param deadline_seconds: how long to wait for the answer; ``None`` for as long as it takes.
        :returns: fires with the body of a :class:`~txpaxos.wire.client_messages.BackupAnswer`. Otherwise it fails:

            * :class:`~txpaxos.errors.BackupOutdated`: the node does not have that part any more.
            * :class:`~txpaxos.errors.NoQuorum`: the deadline was over, or the client was closed, before an answer came.
            * :class:`~txpaxos.errors.StoreError`: the node cannot read the snapshot.
            * :class:`~txpaxos.errors.Overloaded`: the client or the node has too many requests.
        """
        return self._dispatcher.ask_node(
            lambda number: BackupRequest(number, snapshot_slot, position), 0, deadline_seconds
        )

    def use_keys(self, keys: Keys | str | os.PathLike[str]) -> None:
        """Use other keys of the same client from now on: a new certificate, or other authorities. No request fails by
        that. While requests wait, they go on with the connection that is there, until a node has taken the client on
        one with the new keys. If no node takes them, the log says why, and that connection stays as long as it can.

        :param keys: the folder with the keys, or the keys themselves.
        :raises ConfigError: if the client was made without keys, the folder cannot be used, or the certificate is for
            another name: the client's session belongs to the name that it had. The client uses its keys as before.
        """
        self._dispatcher.use_credentials(_credentials_of(keys))

    def close(self) -> None:
        """Close the connections. Requests without an answer fail, as if their deadlines were over; so do requests that
        are made later."""
        self._dispatcher.close()

    def findings(self) -> str:
        """What each node was last found to be like, in one line: that it refuses connections, does not answer, knows no
        leader, and so on. Errors that say that no answer came quote this line."""
        return self._dispatcher.findings()


class _WithParent:
    """A client whose commands have spans that belong to one span.

    :param parent: that span, or its context."""

    def __init__(self, client: Client, parent: Span | Context) -> None:
        self._client = client
        self._parent = parent
        self.read = client.read

    def submit(self, command: bytes, deadline_seconds: float | None = None) -> Deferred[Any]:
        """Have a command applied."""
        return self._client.submit(command, deadline_seconds, parent=self._parent)


def _spans_of(tracer: Tracer) -> ClientSpans:
    """What makes spans. Only a client with a tracer loads the library for that."""
    from txpaxos.tracing.client_spans import ClientSpans

    return ClientSpans(tracer)


def _credentials_of(keys: Keys | str | os.PathLike[str]) -> Credentials:
    """What the client shows nodes. Only a client with keys loads the libraries for that."""
    from txpaxos.client.credentials import credentials_of

    return credentials_of(keys)


def _seeds_of(reactor: Any, cluster: Cluster | Mapping[str, str] | Iterable[str]) -> dict[str, Place]:
    """The nodes that a client is started with. One of which only the address is known has that for an id.

    :raises ConfigError: if there is none, or an address is none.
    """
    if isinstance(cluster, Cluster):
        return {node: member.client for node, member in cluster.members.items()}
    seeds: dict[str, Place] = {}
    for node, text in cluster.items() if isinstance(cluster, Mapping) else ((text, text) for text in cluster):
        if isinstance(cluster, Mapping) and not NAME.match(node):
            raise ConfigError(f"{ascii(node)[:60]} cannot be a node: {NAME_RULE}")
        try:
            place = seeds[node] = parse_place(text)
        except ValueError as error:
            raise ConfigError(f"{text!a} is no address of a node's client port: {error}") from None
        if isinstance(place, EndpointString):
            place.endpoint(reactor)
    return seeds
