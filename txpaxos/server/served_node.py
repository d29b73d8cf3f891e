"""A node with the store, the sockets and the client port that it needs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application, name_of
from txpaxos.application_checks import make_application
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address, Cluster, is_loopback
from txpaxos.errors import ConfigError, NodeStopped, StoreError
from txpaxos.explaining.chronicle import Chronicle
from txpaxos.explaining.recaller import Recaller
from txpaxos.keys import load_keys
from txpaxos.log_lines import REASON_CHARACTERS_MAX, printable
from txpaxos.node.datagram_port import DatagramPort
from txpaxos.node.events import Observer, as_one
from txpaxos.node.node import Node
from txpaxos.node.settings import Settings
from txpaxos.recording.options import RecordingOptions
from txpaxos.recording.recorder import Recorder
from txpaxos.rights import DEFAULT_RIGHTS, NO_RIGHTS, Rights
from txpaxos.server.client_endpoints import ClientEndpoint, address_of, cannot_listen, endpoint_of, shown
from txpaxos.server.client_port import CONNECTIONS_MAX, ClientPort
from txpaxos.server.companion import Companion, Surroundings
from txpaxos.server.joins import LeaderJoins, MemberNode
from txpaxos.server.membership import FolderMembership, learners_of
from txpaxos.server.open_files import files_max
from txpaxos.server.own_addresses import describe_address, find_own_addresses
from txpaxos.service.application import application_of
from txpaxos.service.declaration import Service
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import Joined
from txpaxos.storage.store import DiskStore
from txpaxos.wire.members import base_name

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from txpaxos.keys.folder import Keys
    from txpaxos.server.client_tls import ClientTls

DATAGRAM_BYTES_READ_MAX = 65536
"""The biggest datagram that is read. Twisted truncates a longer one silently. Nodes send shorter ones, and a truncated
datagram fails its checksum."""

STOP_SECONDS = 5.0
"""How long a stopping node waits for its disk and ports."""

BACKLOG = 1024
"""How many connections of clients may wait to be accepted."""

_Endpoints: TypeAlias = list[tuple[ClientEndpoint, IStreamServerEndpoint]]


def _checked_endpoints(endpoints: Iterable[ClientEndpoint]) -> tuple[ClientEndpoint, ...]:
    if isinstance(endpoints, str):
        raise TypeError(f"client_endpoints must be a list of endpoints, not str: write [{endpoints!r}]")
    return tuple(endpoints)


def _spans_of(tracer: Tracer | None) -> list[Companion]:
    """What makes spans with ``tracer``. Only a node with a tracer loads the library for that."""
    if tracer is None:
        return []
    from txpaxos.tracing.node_spans import NodeSpans

    return [NodeSpans(tracer)]


class ServedNode:
    """Runs one node: opens its store, listens for peers and clients, and closes all of it when the node ends.

    .. code-block:: python

        served = ServedNode(Counter, "a", "cluster.toml", "paxos-data-a")
        served.start()
        counter = await served.ready()

    It never ends the process, and never changes the reactor's own clock. When the reactor stops, the node is stopped
    before.

    :param application: the application, or a function or class that makes it: usually a subclass of
        :class:`~txpaxos.protocol.PaxosProtocol`, or of :class:`~txpaxos.service.declaration.Service`.
    :param node: the node's id in ``cluster``.
    :param cluster: the cluster, or the path of a cluster file. Host names are looked up at the start, and again when
        they are needed.
    :param data_directory: the node's data folder. It is created if it is absent.
    :param settings: timing, limits, when to take snapshots. The defaults suit a cluster in one building.
    :param reactor: the reactor; by default the installed one.
    :param disk: the system calls of the store; by default those of the real disk.
    :param keys: the folder with the node's keys, or the keys themselves. Without them, keys are off.
    :param client_endpoints: where clients are served besides the client address of the cluster file: Twisted's server
        endpoints, or their strings, as ``"unix:/run/txpaxos/a.sock:mode=660"``. With keys, they apply there, too.
    :param observers: called with each step of the node, one after the other (:mod:`txpaxos.node.events`). They must not
        raise.
    :param companions: what runs beside the node in this program, such as a
        :class:`~txpaxos.status_port.status_port.StatusPort`: each is started with the node and stopped with it.
    :param tracer: makes spans of the commands whose clients have a tracer, too: a tracer of OpenTelemetry. There are no
        spans unless it is given.
    :param record: a folder in which all that enters the core of the node is recorded, or how. Nothing is unless given.
    :param insecure: whether not to warn of a node without keys at an address that other machines may reach.
    :ivar cluster_file: the path of the cluster file, which :meth:`reload` reads again; ``None`` if there is none.
    :param gave_up: called with the failure after which the node cannot run on. The failure is logged and all is closed.
        The program decides what becomes of the process.
    :param stopped: called when the application has stopped the node by :meth:`PaxosProtocol.stop
        <txpaxos.protocol.PaxosProtocol.stop>`; not called after :meth:`stop`.
    :raises TypeError: if ``client_endpoints`` is a single string.
    :raises ConfigError: if ``cluster`` is the path of a file that is no sound cluster file.
    """

    log = Logger()

    def __init__(
        self,
        application: Application | Callable[[], Application] | type[Service],
        node: str,
        cluster: Cluster | str | os.PathLike[str],
        data_directory: str | os.PathLike[str],
        settings: Settings | None = None,
        *,
        reactor: Any = None,
        disk: Disk | None = None,
        keys: Keys | str | os.PathLike[str] | None = None,
        insecure: bool = False,
        client_endpoints: Iterable[ClientEndpoint] = (),
        observers: Iterable[Observer] = (),
        companions: Iterable[Companion] = (),
        tracer: Tracer | None = None,
        record: RecordingOptions | str | os.PathLike[str] | None = None,
        gave_up: Callable[[Failure], object] | None = None,
        stopped: Callable[[], object] | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        is_service = isinstance(application, type) and issubclass(application, Service)
        self._application: Any = application_of(application) if is_service else application  # type: ignore[arg-type]
        self.node_name = node
        self.cluster_file = None if isinstance(cluster, Cluster) else os.fspath(cluster)
        self._cluster = cluster if isinstance(cluster, Cluster) else Cluster.load(os.fspath(cluster))
        self._data_directory = os.fspath(data_directory)
        self._settings, self._disk = settings, disk
        self._given_keys, self._insecure = keys, insecure
        self._keys: Keys | None = None
        self._client_endpoints = _checked_endpoints(client_endpoints)
        self._observers, self._companions = tuple(observers), (*companions, *_spans_of(tracer))
        self._record = RecordingOptions.of(record)
        self._client_factories: list[ClientTls] = []
        self._gave_up, self._stopped = gave_up, stopped
        self._ports: list[IListeningPort] = []
        self._client_listeners: list[IListeningPort] = []
        self._closing: list[Deferred[Any]] = []  # Of ports that were closed ahead of the others.
        self._client_port: ClientPort | None = None
        self._membership: FolderMembership | None = None
        self._node: Node | None = None
        self._trigger: Any = None
        # The Deferreds that ready() has returned and that have not fired.
        self._waiting: list[Deferred[Any]] = []
        self._is_running = False
        # The Deferreds that stop() has returned while the node prepares to stop.
        self._stoppers: list[Deferred[None]] = []

    @property
    def node(self) -> Node:
        """The node.

        :raises NodeStopped: if the node was not started.
        """
        if self._node is None:
            raise NodeStopped(f"node {self.node_name} was not started")
        return self._node

    def leads(self) -> bool:
        """Whether this node leads the cluster, as far as it knows. It is false of a node that was not started.

        That is no lock: for a moment, another node may lead already.
        """
        return self._node is not None and self._node.leader == self._node.name

    def use_keys(self, keys: Keys | None = None) -> None:
        """Use other keys from now on, without a stop. Clients that are not believed any more are disconnected.

        :param keys: the keys; what is in the folder of keys now unless given.
        :raises ConfigError: one line that says why they cannot be used. The node goes on with those that it has.
        :raises NodeStopped: if the node was not started.
        """
        if self._keys is None or self._client_port is None:
            raise ConfigError(f"node {self.node_name} was started without keys: start it with them")
        keys = keys or self._load_keys()
        assert keys is not None
        self.node.use_keys(keys)
        self._keys = keys
        for factory in self._client_factories:
            factory.use_keys(keys)
        self._client_port.use_keys(keys)
        for companion in self._companions:
            companion.use_keys(keys)
        self.log.info(
            "node {node} uses its keys of {folder} as they are now",
            node=self.node_name,
            folder=keys.folder,
            event="keys_reloaded",
        )

    def use_rights(self, rights: Rights | None = None) -> None:
        """Let clients do what ``rights`` say from now on, without a stop. Requests that are in work are answered.

        :param rights: the rights; what the cluster file says now unless given.
        :raises ConfigError: one line that says why the file cannot be used. The rights stay as they were.
        :raises StoreError: if they cannot be noted in the data folder, where a node that has joined keeps them.
        :raises NodeStopped: if the node was not started.
        """
        node = self.node
        if rights is None:
            if self.cluster_file is None:
                raise ConfigError(f"node {self.node_name} was started without a cluster file: give it the rights")
            rights = self._rights_in_file(self.cluster_file)
        assert self._client_port is not None
        assert self._membership is not None
        self._membership.note_rights(rights)
        has_changed = rights != node.cluster.rights
        if has_changed:
            node.cluster = attrs.evolve(node.cluster, rights=rights)
            self.log.info(
                "node {node} lets clients do what its cluster file says now",
                node=self.node_name,
                event="rights_reloaded",
            )
        self._client_port.use_rights(rights)
        if self._keys is not None and has_changed:
            for companion in self._companions:
                companion.use_keys(self._keys)

    def reload(self) -> None:
        """Use the keys in the folder of keys, and the rights in the cluster file, as they are now.

        A node that was started without a cluster file keeps its rights.

        :raises ConfigError: one line that says why either cannot be used. Both stay as they were.
        :raises StoreError: see :meth:`use_rights`.
        :raises NodeStopped: if the node was not started.
        """
        rights = None if self.cluster_file is None else self._rights_in_file(self.cluster_file)
        self.use_keys()
        if rights is not None:
            self.use_rights(rights)

    def _rights_in_file(self, path: str) -> Rights:
        """The rights in the cluster file at ``path``.

        :raises ConfigError: also if there are none any more, which would let every client do everything. A file that
            was copied in part has none.
        """
        rights = Cluster.load(path).rights
        if rights is DEFAULT_RIGHTS and self.node.cluster.rights != DEFAULT_RIGHTS:
            raise ConfigError(
                f"{path} has no [rights] any more: write what each client may do, or restart the node to let every"
                " client do everything"
            )
        return rights

    def _reload_and_report(self) -> dict[str, Any]:
        """Do as a client says that may change the members: reload. Returns what is used now."""
        self.reload()
        assert self._keys is not None
        return {
            "node": self.node_name,
            "fingerprint": self._keys.fingerprint,
            "expires": self._keys.not_after.isoformat(),
            "rights": "kept" if self.cluster_file is None else "read",
        }

    @property
    def application(self) -> Any:
        """The application that runs on the node.

        :raises NodeStopped: if the node was not started.
        """
        return self.node.application

    def start(self) -> None:
        """Open the store, load the node's state, and listen.

        :raises PaxosError: one line that says why the node cannot start. Nothing stays open or locked then, except that
            the reactor needs an iteration to close ports.
        """
        if self._is_running:
            raise ConfigError(f"node {self.node_name} runs already: stop it before you start it again")
        self._is_running = True
        try:
            self._start([(given, endpoint_of(self._reactor, given, BACKLOG)) for given in self._client_endpoints])
        except BaseException:
            self.stop()
            raise
        if not self._is_running:
            self.stop()  # The application has stopped its node meanwhile: close the ports opened since.
        elif hasattr(self._reactor, "addSystemEventTrigger"):
            self._trigger = self._reactor.addSystemEventTrigger("before", "shutdown", self._reactor_stops)

    def ready(self) -> Deferred[Any]:
        """Wait until this node knows a leader, so that commands are answered. Fires with the application.

        The wait has no time limit; cancel the Deferred to end it. It fails with
        :class:`~txpaxos.errors.NodeStopped` if the node ends first, or was not started.
        """
        if self._node is None or not self._is_running:
            return fail(NodeStopped(f"node {self.node_name} does not run"))
        if self._node.leader is not None:
            return succeed(self._node.application)
        waiting: Deferred[Any] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        return waiting

    def _leader_changed(self) -> None:
        """Tell those who wait in :meth:`ready`, if a leader is known."""
        while self._waiting and self.node.leader is not None:
            self._waiting.pop(0).callback(self.application)

    def stop(self) -> Deferred[None]:
        """Stop the node and close everything.

        No client may connect any more, and those that are connected are told to use another node. A leader hands over
        the lead, and the commands of callers get their outcomes. That takes two seconds at most. Then all is closed.

        :returns: fires when all is closed, after ``STOP_SECONDS`` more at the latest.
        """
        self._prepare_to_stop()
        if self._node is None:
            return self._close()
        stopped: Deferred[None] = Deferred()
        self._stoppers.append(stopped)
        if len(self._stoppers) == 1:
            self._node.leave().addBoth(lambda _: self.stop_at_once() if self._stoppers else None)
        return stopped

    def stop_at_once(self) -> Deferred[None]:
        """Stop the node and close everything, without handing over first. It may be called while :meth:`stop` waits for
        that.

        :returns: fires when all is closed, after ``STOP_SECONDS`` at the latest.
        """
        self._prepare_to_stop()
        stoppers, self._stoppers = self._stoppers, []
        closed = self._close()

        def tell(_: None) -> None:
            for stopper in stoppers:
                stopper.callback(None)

        return closed.addCallback(tell)

    def _prepare_to_stop(self) -> None:
        """Accept no client any more, and end all that only a running node has."""
        self._is_running = False
        if self._trigger is not None:
            trigger, self._trigger = self._trigger, None
            self._reactor.removeSystemEventTrigger(trigger)
        while self._waiting:
            self._waiting.pop(0).errback(NodeStopped(f"node {self.node_name} stopped before it knew a leader"))
        while self._client_listeners:
            port = self._client_listeners.pop()
            self._ports.remove(port)
            self._closing.append(maybeDeferred(port.stopListening))

    def _close(self) -> Deferred[None]:
        if self._client_port is not None:
            self._client_port.stop()
        closing: list[Deferred[Any]] = [] if self._node is None else [self._node.stop()]
        closing += self._closing
        self._closing = []
        closing += [maybeDeferred(port.stopListening) for port in self._ports]
        closing += [maybeDeferred(companion.stop) for companion in self._companions]
        self._ports.clear()
        closed: Deferred[Any] = DeferredList(closing, consumeErrors=True)
        return closed.addTimeout(STOP_SECONDS, monotonic_clock(self._reactor)).addBoth(self._closed)

    def _reactor_stops(self) -> Deferred[None]:
        self._trigger = None  # The reactor has removed it.
        return self.stop()

    def _closed(self, results: Any) -> None:
        """Log what could not be closed, or not in time."""
        if isinstance(results, Failure):
            self.log.warn(
                "node {node} stops, but could not close its disk and ports in time",
                node=self.node_name,
                event="not_closed",
            )
            return
        for closed, result in results:
            if not closed:
                self.log.warn(
                    "node {node} stops, but could not close all: {reason}",
                    node=self.node_name,
                    reason=printable(result.getErrorMessage(), REASON_CHARACTERS_MAX),
                    event="not_closed",
                )

    # starting

    def _start(self, endpoints: _Endpoints) -> None:
        membership = self._membership = FolderMembership(self._disk or Disk(), self._data_directory)
        if membership.saved is not None:
            self._check_folder(membership.saved)
        addresses = find_own_addresses(membership.cluster(self._cluster), self.node_name)
        addresses.check_free()
        self._check_companions([*addresses.peers_at, *addresses.clients_at])
        for line in addresses.warnings:
            self.log.warn("{line}", line=line, event="address_doubtful")
        cluster = addresses.cluster
        self._keys = self._load_keys()
        if self._keys is None and not self._insecure:
            self._warn_without_keys([*addresses.peers_at, *addresses.clients_at])
        random_bytes = os.urandom if membership.saved is None else membership.random_bytes
        store = DiskStore(
            *(self._data_directory, cluster.name, self.node_name),
            disk=self._disk,
            reactor=self._reactor,
            random_bytes=random_bytes,
        )
        try:
            membership.store_opened()
            node = self._make_node(cluster, store)
        except BaseException:
            store.close()
            raise
        node.failed.addErrback(self._node_failed)
        node.stopped.addCallback(self._node_stopped)
        self._node = node
        node.watch_leader(self._leader_changed)
        node.members.watch(partial(self._note_members, node, store, membership))
        self._note_members(node, store, membership)
        self._client_port = self._make_client_port(node)
        self._check_files(self._client_port.connections_max)
        self._warn_without_rights(cluster)
        self._listen(node, addresses.peers_at, addresses.clients_at, endpoints)
        self.log.info(
            "node {node} of cluster {cluster}: peers at {address}, clients at {client}, data in {data}, syncs {where}",
            node=self.node_name,
            cluster=cluster.name,
            address=describe_address(cluster.members[self.node_name].address, addresses.peers_at),
            client=describe_address(cluster.members[self.node_name].client, addresses.clients_at),
            data=self._data_directory,
            where="in a thread" if store.sync_in_thread else "in the reactor",
            event="node_serves",
        )

    def _load_keys(self) -> Keys | None:
        """The keys as they are now. The name in them has to be that of the node."""
        keys = self._given_keys
        if isinstance(keys, str | os.PathLike):
            return load_keys(os.fspath(keys), "node", base_name(self.node_name))
        return keys

    def _warn_without_keys(self, listens_at: list[Address]) -> None:
        """Warn that the node has no keys, if other machines may reach it."""
        open_to_others = [str(address) for address in listens_at if not is_loopback(address)]
        if open_to_others:
            self.log.warn(
                "node {node} listens at {addresses} without keys: any program that gets there can read and change all"
                " that the cluster has; give it keys (docs/keys.rst), or --insecure if nothing else is in that network",
                node=self.node_name,
                addresses=", ".join(dict.fromkeys(open_to_others)),
                event="no_keys",
            )

    def _warn_without_rights(self, cluster: Cluster) -> None:
        """Warn if clients need rights, and none has any."""
        if self._keys is not None and cluster.rights == NO_RIGHTS:
            self.log.warn(
                "node {node} knows of no rights of clients, so it refuses them all: start it with --cluster FILE, and"
                " grant them something under [rights] there",
                node=self.node_name,
                event="no_rights",
            )

    def _check_folder(self, saved: Joined) -> None:
        """Check that the folder is that of this node. Log it if its cluster file names other members.

        :raises StoreError: if it is that of another one."""
        if (saved.node, saved.cluster) != (self.node_name, self._cluster.name):
            raise StoreError(
                f"{self._data_directory} belongs to node {saved.node!r} of cluster {saved.cluster!r}, not to node"
                f" {self.node_name!r} of cluster {self._cluster.name!r}: give each node a folder of its own, or correct"
                " the name; nothing was changed"
            )
        listed, members = set(self._cluster.members), set(saved.members)
        if not self._cluster.founding and listed != members:
            self.log.info(
                "the cluster file has the nodes {listed}; the members are {members}, as the data folder says",
                listed=", ".join(sorted(listed)),
                members=", ".join(sorted(members)),
                event="members_from_folder",
            )

    def _note_members(self, node: Node, store: DiskStore, membership: FolderMembership) -> None:
        """Note in the data folder who the members are, if they have changed, so that the next start finds them."""
        known, members = 0 if membership.saved is None else membership.saved.slot, node.members
        if members.slot <= known or members.own is None:
            return
        addresses = {name: (one.address, one.client) for name, one in members.entry.members.items()}
        learners = learners_of(members.entry)
        try:
            membership.note_members(node.name, store.incarnation, node.cluster, addresses, members.slot, learners)
        except StoreError as error:  # The log says it, too. What is in the folder is older.
            self.log.warn("{reason}", reason=printable(str(error), REASON_CHARACTERS_MAX), event="members_not_noted")

    def _make_node(self, cluster: Cluster, store: DiskStore) -> Node:
        """Make the application and its node, which loads the saved state. Log it if the data folder was last started
        with another application. That comes first, since it may be the reason why the load fails."""
        application = make_application(self._application)
        before, name = store.last_application.read(), name_of(application)
        if before not in ("", name):
            self.log.warn(
                "the data folder of node {node} was last started with {before}, and is started with {name} now: if that"
                " is not the same application under another name, its state becomes another than that of the others",
                node=self.node_name,
                before=printable(before),
                name=printable(name),
                event="application_changed",
            )
        self._chronicle = Chronicle(self.node_name)  # Its id, which it may have only since it has joined.
        node = Node(
            *(application, self._reactor, self.node_name, cluster, store, self._settings),
            observe=as_one((self._chronicle, *self._observers, *self._observers_of_companions())),
            observe_commands=bool(self._observers),
            recording=None if self._record is None else Recorder(self._record, self.node_name),
            restored_from=store.restored_from.read(),
            keys=self._keys,
        )
        if before != name:
            try:
                store.last_application.write(name)
            except StoreError as error:  # Only the warning at a later start is lost, so this start continues.
                self.log.warn(
                    "{reason}", reason=printable(str(error), REASON_CHARACTERS_MAX), event="application_not_noted"
                )
        return node

    def _check_companions(self, taken: Sequence[Address]) -> None:
        """See whether what runs beside the node could start.

        :param taken: where the node itself is going to listen.
        :raises ConfigError: if not."""
        for companion in self._companions:
            companion.check(taken)

    def _start_companions(self, node: Node) -> None:
        assert self._client_port is not None
        surroundings = Surroundings(node, self._client_port, self._reactor, self._keys, self._insecure)
        for companion in self._companions:
            companion.start(surroundings)

    def _observers_of_companions(self) -> list[Observer]:
        return [observer for companion in self._companions for observer in companion.observers]

    def _make_client_port(self, node: Node) -> ClientPort:
        """The port where clients come in."""
        return ClientPort(
            node,
            joins=LeaderJoins(self._reactor, MemberNode(node)),
            keys=self._keys,
            reload=self._reload_and_report,
            recall=Recaller(node, self._chronicle),
        )

    def _check_files(self, clients_max: int) -> None:
        """Check that the system's limit on open files leaves some for clients, and log how many if it is few.

        :raises ConfigError: if it leaves none."""
        files = files_max()
        if clients_max < 1:
            raise ConfigError(
                f"this process may have {files} files open, which leaves none for clients: raise the limit"
                " (ulimit -n, LimitNOFILE= in a systemd unit)"
            )
        if clients_max < CONNECTIONS_MAX:
            line = "node {node} takes at most {clients} clients at a time: this process may have {files} files open"
            self.log.info(line, node=self.node_name, clients=clients_max, files=files, event="clients_max")

    def _listen(self, node: Node, at: list[Address], clients_at: list[Address], endpoints: _Endpoints) -> None:
        """Open every port. The first socket starts the node when it is opened.

        :raises ConfigError: if a port cannot be opened."""
        self._start_companions(node)
        sockets = [DatagramPort(node), *(DatagramPort(node, address) for address in at[1:])]
        try:
            for socket, address in zip(sockets, at, strict=True):
                try:
                    port = self._reactor.listenUDP(address.port, socket, address.host, DATAGRAM_BYTES_READ_MAX)
                except BaseException:
                    # The socket may be open: opening the first one starts the node, and that may fail.
                    if socket.transport is not None:
                        socket.numPorts = 1  # Twisted has not counted the port yet, and needs the count to close it.
                        self._ports.append(socket.transport)  # type: ignore[arg-type]
                    raise
                self._ports.append(port)
            for address in clients_at:
                port = self._reactor.listenTCP(address.port, self._client_factory(), BACKLOG, address.host)
                self._ports.append(port)
                self._client_listeners.append(port)
        except CannotListenError as error:
            raise ConfigError(str(error)) from None
        for given, endpoint in endpoints:
            self._listen_at(given, endpoint)

    def _listen_at(self, given: ClientEndpoint, endpoint: IStreamServerEndpoint) -> None:
        """Listen for clients at ``endpoint``, too.

        :raises ConfigError: if that cannot be done. If it takes time to find that out, the node ends then.
        """
        errors: list[ConfigError] = []

        def failed(failure: Failure) -> None:
            errors.append(cannot_listen(given, failure))
            if has_started:
                self.log.critical(
                    "node {node} stops: {reason}",
                    node=self.node_name,
                    reason=printable(str(errors[0])),
                    event="endpoint_failed",
                )
                self._node_failed(Failure(errors[0]))

        has_started = False
        endpoint.listen(self._client_factory()).addCallback(self._listens_at, given).addErrback(failed)
        if errors:
            raise errors[0]
        has_started = True

    def _listens_at(self, port: IListeningPort, given: ClientEndpoint) -> None:
        """The node listens at one more place."""
        if not self._is_running:
            self._closing.append(maybeDeferred(port.stopListening))
            return
        self._ports.append(port)
        self._client_listeners.append(port)
        self.log.info(
            "node {node} serves clients at {at}, too", node=self.node_name, at=shown(given), event="endpoint_opened"
        )
        address = address_of(port)
        if address is not None and self._keys is None and not self._insecure:
            self._warn_without_keys([address])

    def _client_factory(self) -> Any:
        """What listens for clients: the client port, in TLS if there are keys."""
        assert self._client_port is not None
        if self._keys is None:
            return self._client_port
        from txpaxos.server.client_tls import ClientTls

        factory = ClientTls(self._keys, self._client_port, self._reactor)
        self._client_factories.append(factory)
        return factory

    # ending

    def _end(self) -> None:
        """Close everything, since the node has ended by itself. A subclass may add to this."""
        self.stop()

    def _node_failed(self, failure: Failure) -> None:
        """Close everything, since the node cannot run on. It has logged why."""
        self._end()
        if self._gave_up is not None:
            self._gave_up(failure)

    def _node_stopped(self, _: None) -> None:
        """Close everything, if the application stopped the node and not :meth:`stop`."""
        if self._is_running:
            self.log.info("node {node} was stopped by its own program", node=self.node_name, event="stopped_by_program")
            self._end()
            if self._stopped is not None:
                self._stopped()
