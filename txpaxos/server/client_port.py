"""The TCP port of a node at which clients connect. Any node takes any request; a follower forwards commands itself.

:class:`ClientPort` is the factory of the connections and all that they share: the node, the limits for all of them
together, and the table of those that are connected. The service (:mod:`~txpaxos.server.service`) listens with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ServerFactory

from txpaxos.errors import ConfigError, QueryFailed
from txpaxos.log_lines import LineLimiter
from txpaxos.metrics.meter import Meter
from txpaxos.node.counts import Count, Counts
from txpaxos.node.node import Node
from txpaxos.rights import Rights
from txpaxos.server.access import STRANGERS_MAX, Access, access_of
from txpaxos.server.budget import Budget
from txpaxos.server.client_endpoints import host_of
from txpaxos.server.client_table import ClientTable
from txpaxos.server.connection import RunTracing, ServerConnection
from txpaxos.server.joins import Joins, NoJoins
from txpaxos.server.measuring import metered
from txpaxos.server.member_changes import Changer, MemberChanges, NodeChanger, Tell
from txpaxos.server.members_report import MemberSource, NodeMembers, contacts_of, report_of
from txpaxos.server.open_files import connections_max
from txpaxos.server.secured_connection import SecuredConnection
from txpaxos.server.session_rate import SessionRate
from txpaxos.server.shares import SharedBudget
from txpaxos.server.tasks import needs_others
from txpaxos.wire.client_messages import (
    AcceptClock,
    Ask,
    BackupRequest,
    ChangeMembers,
    ClientCodec,
    Forget,
    HandOver,
    Join,
    KeepTimers,
    KeepTogether,
    MembersRequest,
    Read,
    Recall,
    ReloadKeys,
    Request,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.commands import Run
from txpaxos.wire.frames import frame

if TYPE_CHECKING:
    from txpaxos.keys.folder import Keys

CONNECTIONS_MAX = 10_000
"""Clients that may be connected, if the limit of open files leaves room for that many."""

SWEEP_SECONDS = 1.0
"""Time between two looks for clients that are silent."""


Reload: TypeAlias = Callable[[], dict[str, Any]]
"""Has a node read its keys and the rights of its clients again, and returns what it uses now. It raises a PaxosError if
they cannot be used."""


def _cannot_reload() -> dict[str, Any]:
    raise ConfigError("this node was started without keys: start it with them")


RecallSlot: TypeAlias = Callable[[Recall], dict[str, Any]]
"""Tells what a node remembers of a slot or a ballot. It raises a PaxosError if the question is not sound."""


def _cannot_recall(question: Recall) -> dict[str, Any]:
    raise QueryFailed("this node remembers nothing of its slots")


class ClientPort(ServerFactory):
    """The client port of ``node``.

    :param members: who the members are; as the node knows them if not given.
    :param changer: changes them; the node if not given.
    :param joins: lets nodes join the cluster. None can if it is not given.
    :param keys: the keys of the node, if it has any. Then a client has to show who it is, and may do what the cluster
        file says; the port has to be listened at with TLS.
    :ivar meter: is told how long requests take, and how they end, if there is one.
    :ivar tracing: makes spans of commands that belong to traces, if there is one.
    :param recall: tells what the node remembers of a slot.
    :param reload: reads the keys and the rights again.
    :ivar codec: encodes and decodes the messages of clients of this cluster.
    :ivar budget: what the clients have in work and in memory.
    :ivar connections: the clients that are connected.
    :ivar lines: of the log that a client can cause again and again.
    :ivar access: who may do what; ``None`` if the node has no keys, and every client may do everything.
    """

    noisy = False

    def __init__(
        self,
        node: Node,
        members: MemberSource | None = None,
        changer: Changer | None = None,
        joins: Joins | None = None,
        keys: Keys | None = None,
        reload: Reload = _cannot_reload,
        recall: RecallSlot = _cannot_recall,
    ) -> None:
        self.node = node
        self._reload = reload
        self._recall = recall
        self.meter: Meter | None = None
        self.tracing: RunTracing | None = None
        self._joins = joins or NoJoins()
        self.codec = ClientCodec(node.cluster.name)
        self.budget = Budget() if keys is None else SharedBudget()
        self.connections = ClientTable()
        self.lines = LineLimiter()
        self.access = None if keys is None else access_of(node, keys, self.lines)
        self._session_rate = SessionRate()
        self._clock = node.clock
        self._members = NodeMembers(node.members, node.cluster) if members is None else members
        self._members_frame = self._encode_members()
        self._files_max = connections_max(len(self._members.entries) - 1)
        self._changes = MemberChanges(node.clock, changer or NodeChanger(node))
        self._members.watch(self._members_changed)
        self._sweeping: IDelayedCall | None = None
        node.watch_leader(self._leader_changed)

    # from Twisted

    def logPrefix(self) -> str:
        """What Twisted calls this port in its own lines of the log."""
        return f"node {self.node.name}, clients:"

    def buildProtocol(self, addr: IAddress | None) -> ServerConnection | None:
        """A client connects. When there are too many clients, an idle one has to go, or this one is refused."""
        host = host_of(addr)
        if self.access is not None:
            return self._secured(self.access, host)
        if len(self.connections) >= self.connections_max:
            self.counters[Count.TOO_MANY_CLIENTS] += 1
            if not self.connections.make_room():
                return None
        return ServerConnection(self, host)

    def _secured(self, access: Access, host: str) -> ServerConnection | None:
        """A client connects that has to show who it is. One that has not done so has to go rather than one that has."""
        strangers = access.strangers
        if len(strangers) >= max(1, min(STRANGERS_MAX, self.connections_max // 4)):
            self.counters[Count.TOO_MANY_STRANGERS] += 1
            strangers.make_room()
        elif len(self.connections) + len(strangers) >= self.connections_max:
            self.counters[Count.TOO_MANY_CLIENTS] += 1
            if not (strangers.make_room() or self.connections.make_room()):
                return None
        return SecuredConnection(self, access, self._clock, host)

    # from the service

    @property
    def connections_max(self) -> int:
        """How many clients may be connected."""
        return min(CONNECTIONS_MAX, self._files_max)

    def stop(self) -> None:
        """Disconnect all clients."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in [*self.connections, *(() if self.access is None else self.access.strangers)]:
            connection.close()
        self._changes.stop()

    def use_keys(self, keys: Keys) -> None:
        """Use other keys from now on. Clients that are not believed any more are disconnected, and so are those that
        have not shown yet who they are: they are about to be believed by the keys of before."""
        assert self.access is not None
        self.access.keys = keys
        for stranger in self.access.strangers:
            stranger.close()
        for connection in self.connections:
            if isinstance(connection, SecuredConnection):
                connection.look_again()

    def use_rights(self, rights: Rights) -> None:
        """Let clients do what ``rights`` say from now on, those that are connected, too."""
        if self.access is not None:
            self.access.rights = rights

    # from a connection

    @property
    def counters(self) -> Counts:
        """The node's counters, which ``txpaxos status`` shows."""
        return self.node.counters

    def opened(self, connection: ServerConnection) -> None:
        """A connection is made."""
        self.connections.add(connection)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep)

    def closed(self, connection: ServerConnection) -> None:
        """A connection is gone."""
        self.connections.remove(connection)

    def welcome(self) -> bytes:
        """The frame that tells a client which node this is and who leads."""
        leader = self.node.leader
        entry = None if leader is None else self._members.entries.get(leader)
        address = None if entry is None else entry.client
        applied, window = self.node.applied_through, self.node.liveness_window_seconds[0]
        away = self.node.is_leaving, self.node.is_catching_up
        welcome = Welcome(
            *(self.node.name, leader, address, applied, window, *away),
            takes_withdrawals=True,
            takes_traces=self.tracing is not None,
        )
        return frame(self.codec.encode(welcome))

    def members(self) -> bytes:
        """The frame that tells a client who the members are."""
        return self._members_frame

    def at_end_of_turn(self, function: Callable[[], None]) -> bool:
        """Have ``function`` called at the end of the node's turn. Returns whether it is in one."""
        return self.node.at_end_of_turn(function)

    def sends_away(self, request: Request) -> bool:
        """Whether this node might keep the client waiting for ever: ``request`` needs the node's disk or other nodes,
        and this node's disk hangs or its folder is lost. Such a client is disconnected, and finds another node."""
        node = self.node
        if not node.sends_clients_away or not needs_others(request):
            return False
        if node.disk_hangs:
            self.counters[Count.CLIENT_SENT_AWAY_DISK_HANGS] += 1
        else:
            self.counters[Count.CLIENT_SENT_AWAY_FOLDER_LOST] += 1
        return True

    def admits_session(self, principal: str, session: bytes) -> bool:
        """Whether a client of ``principal`` may use ``session``: the node knows it, or the principal may begin one
        more."""
        return self.node.knows_session(session) or self._session_rate.admits(principal, self.connections.seconds)

    def perform(self, request: Request, principal: str) -> Deferred[Any]:
        """Have the node do what ``request`` asks for.

        :param principal: for whom it counts.
        :returns: fires with what :func:`~txpaxos.server.answers.answers_to` takes.
        """
        result = self._perform(request, principal)
        return result if self.meter is None else metered(self.meter, self._clock, request, result)

    def _perform(self, request: Request, principal: str) -> Deferred[Any]:
        match request:
            case Submit(_, session, sequence, acknowledged, commands):
                return self.node.submit_run(Run(session, sequence, acknowledged, commands))
            case Ask(_, subject, value):
                return self.node.ask(subject, value)
            case Forget(_, session, sequence, subject):
                return self.node.forget(subject, None, session, sequence)
            case Read(_, query, local):
                return self.node.read(query, "local" if local else "linearizable")
            case KeepTimers(_, number, names):
                return self.node.keep_alive(number, names, principal)
            case KeepTogether(_, before, number, count):
                return self.node.keep_alive(number, (before,), principal, count)
            case StatusRequest():
                return succeed(self.status())
            case ReloadKeys():
                return maybeDeferred(self._reload)
            case Recall():
                return maybeDeferred(self._recall, request)
            case AcceptClock():
                return maybeDeferred(self.node.accept_clock)
            case BackupRequest(_, snapshot_slot, position):
                return maybeDeferred(self.node.backup_part, snapshot_slot, position)
            case HandOver(_, to):
                return self.node.hand_over(to)
            case Join():
                return self._joins.join(request)
            case MembersRequest():
                return succeed(report_of(self.node.cluster.name, self.node.leader, self._members))
            case ChangeMembers():
                return self.change_members(request, lambda _: None)

    def change_members(self, request: ChangeMembers, tell: Tell) -> Deferred[Any]:
        """Have the node change the members, when it leads.

        :param tell: called with how far that has come, in one line, again and again.
        :returns: fires with what :func:`~txpaxos.server.answers.answers_to` takes.
        """
        return self._changes.request(request, tell)

    def disconnect_slow_clients(self) -> None:
        """While too much is buffered for all clients, disconnect the one that has not read for the longest time."""
        while (slowest := self.budget.slowest()) is not None:
            self.counters[Count.SLOW_CLIENT_DISCONNECTED] += 1
            slowest.close()

    # from a request for the status

    def status(self) -> dict[str, Any]:
        """What ``txpaxos status`` shows of this node."""
        status = attrs.asdict(self.node.status())
        replica = status["replica"]
        for ballot in ("ballot", "promised"):
            replica[ballot] = str(getattr(self.node.status().replica, ballot))
        parts = {**status.pop("replica"), **status.pop("compaction")}
        return {"cluster": self.node.cluster.name, **parts, "clients": len(self.connections), **status}

    # from the clock and the node

    def _sweep(self) -> None:
        """Look for silent clients, once a second while there are clients."""
        dropped = self.connections.sweep()
        if dropped:
            self.counters[Count.IDLE_CLIENT_DISCONNECTED] += dropped
        self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep) if self.connections else None

    def _encode_members(self) -> bytes:
        return frame(self.codec.encode(contacts_of(self._members)))

    def _members_changed(self) -> None:
        self._members_frame = self._encode_members()
        self._files_max = connections_max(len(self._members.entries) - 1) + len(self.connections)
        for connection in self.connections:
            connection.tell_members(self._members_frame)

    def _leader_changed(self) -> None:
        if self.node.sends_clients_away:  # What the clients wait for may take for ever here.
            self.stop()
            return
        self._changes.leader_changed()
        data = self.welcome()  # Once for all: there may be thousands.
        for connection in self.connections:
            connection.welcome(data)
