"""A node as a Twisted service: opens the store, listens, and closes all of it when it stops or can do no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application_checks import make_application
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Address, Cluster
from txpaxos.core.config import Timing
from txpaxos.errors import ConfigError
from txpaxos.node.snapshots.taking import Policy
from txpaxos.protocol import PaxosProtocol
from txpaxos.server.client_port import ClientPort
from txpaxos.server.open_files import files_max
from txpaxos.server.own_addresses import find_places, written
from txpaxos.storage.disk import Disk
from txpaxos.storage.store import DiskStore

DATAGRAM_BYTES_READ_MAX = 65536
"""Twisted cuts a longer datagram silently; ours are shorter, and one that is cut fails its checksum."""

STOP_SECONDS = 5.0
"""How long a stopping node may wait for its disk."""

BACKLOG = 1024


class PaxosService(Service):
    """One node.

    :param application: the subclass of :class:`~txpaxos.protocol.PaxosProtocol` to run.
    :param node: its id in ``cluster``.
    :param cluster: as the cluster file has it; names are looked up when it starts, and when they are needed.
    :param data_directory: where it saves.
    :param disk: the system calls it saves with; the real disk's unless given.
    :param gave_up: called with the failure after which the node can do no more. It has said so in the log, and the
        service stops; what becomes of the process is for its own program to say.
    :param stopped: called when the node was stopped and this service was not: by :meth:`PaxosProtocol.stop
        <txpaxos.protocol.PaxosProtocol.stop>`, which its application has called. The service stops, too.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        application: Callable[..., PaxosProtocol],
        node: str,
        cluster: Cluster,
        data_directory: str,
        timing: Timing | None = None,
        snapshot_policy: Policy | None = None,
        disk: Disk | None = None,
        gave_up: Callable[[Failure], object] | None = None,
        stopped: Callable[[], object] | None = None,
    ) -> None:
        self._reactor = reactor
        self._application = application
        self._node = node
        self._cluster = cluster
        self._data_directory = data_directory
        self._timing = timing
        self._snapshot_policy = snapshot_policy
        self._disk = disk
        self._gave_up = gave_up
        self._stopped = stopped
        self._ports: list[IListeningPort] = []
        self._client_port: ClientPort | None = None
        self.protocol: PaxosProtocol | None = None

    def startService(self) -> None:
        """Open and listen.

        :raises PaxosError: one line that says what is in the way. Then nothing is kept open or locked (ports for as
            long as the reactor needs for a turn).
        """
        super().startService()
        try:
            self._start()
        except BaseException:
            self.stopService()
            raise

    def stopService(self) -> Deferred[None]:
        """Close all; fires when that is done, or has had ``STOP_SECONDS`` to be."""
        if self.running:
            super().stopService()
        if self._client_port is not None:
            self._client_port.stop()
        closing: list[Deferred[Any]] = [] if self.protocol is None else [self.protocol.stop()]
        closing += [maybeDeferred(port.stopListening) for port in self._ports]
        self._ports.clear()
        closed: Deferred[Any] = DeferredList(closing, consumeErrors=True)
        return closed.addTimeout(STOP_SECONDS, monotonic_clock(self._reactor)).addBoth(self._closed)

    def _closed(self, results: Any) -> None:
        """Everything is closed, or took too long and was given up."""
        if not all(closed for closed, _ in results):
            self.log.warn("node {node} stops, but could not close its disk and ports", node=self._node)

    def _start(self) -> None:
        places = find_places(self._cluster, self._node)
        places.check_free()
        for line in places.warnings:
            self.log.warn("{line}", line=line)
        cluster, at, clients_at = places.cluster, places.at, places.clients_at
        store = DiskStore(self._data_directory, cluster.name, self._node, disk=self._disk, reactor=self._reactor)
        try:
            node = make_application(
                self._application,
                *(self._reactor, self._node, cluster, store),
                timing=self._timing,
                snapshot_policy=self._snapshot_policy,
            )
        except BaseException:
            store.close()
            raise
        node.failed.addErrback(self._node_failed)
        node._ended.addCallback(self._node_stopped)
        self.protocol = node
        self._client_port = ClientPort(node)
        self._check_files(self._client_port.connections_max)
        self._listen(node, at, clients_at)
        self.log.info(
            "node {node} of cluster {cluster}: peers at {address}, clients at {client}, data in {data}, syncs {where}",
            node=self._node,
            cluster=cluster.name,
            address=written(cluster.members[self._node].address, at),
            client=written(cluster.members[self._node].client, clients_at),
            data=self._data_directory,
            where="in a thread" if store.sync_in_thread else "in the reactor",
        )

    def _check_files(self, clients_max: int) -> None:
        """See that the system lets this process have the files that it needs."""
        files = files_max()
        if clients_max < 1:
            raise ConfigError(
                f"this process may have {files} files open, which leaves none for clients: raise the limit"
                " (ulimit -n, LimitNOFILE= in a systemd unit)"
            )
        line = "node {node} takes at most {clients} clients at a time: this process may have {files} files open"
        self.log.info(line, node=self._node, clients=clients_max, files=files)

    def _listen(self, node: PaxosProtocol, at: list[Address], clients_at: list[Address]) -> None:
        """Open every port. The first socket is the node's own, and starts it."""
        protocols: list[DatagramProtocol] = [node, *(_OneMoreSocket(node, address) for address in at[1:])]
        try:
            for protocol, address in zip(protocols, at, strict=True):
                try:
                    port = self._reactor.listenUDP(address.port, protocol, address.host, DATAGRAM_BYTES_READ_MAX)
                except BaseException:
                    # The socket may be open already: that it is heard from starts the node, and that may fail.
                    if protocol.transport is not None:
                        protocol.numPorts = 1  # Twisted has not counted it yet, and looks at that when it closes it.
                        self._ports.append(protocol.transport)  # type: ignore[arg-type]
                    raise
                self._ports.append(port)
            for address in clients_at:
                self._ports.append(self._reactor.listenTCP(address.port, self._client_port, BACKLOG, address.host))
        except CannotListenError as error:
            raise ConfigError(str(error)) from None

    def _node_failed(self, failure: Failure) -> None:
        """The node can do no more, and has said so."""
        self.stopService()
        if self._gave_up is not None:
            self._gave_up(failure)

    def _node_stopped(self, _: None) -> None:
        """Somebody has stopped the node. If that was not this service, clients must hear of it."""
        if self.running:
            self.log.info("node {node} was stopped by its own program", node=self._node)
            self.stopService()
            if self._stopped is not None:
                self._stopped()


class _OneMoreSocket(DatagramProtocol):
    """A further address of the node: what comes there is the node's."""

    noisy = False

    def __init__(self, node: PaxosProtocol, address: Address) -> None:
        self._node = node
        self._address = address
        self.datagramReceived = node.datagramReceived  # type: ignore[method-assign]

    def startProtocol(self) -> None:
        """The socket is open."""
        self._node.listen_also(self.transport, self._address)
