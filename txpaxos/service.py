"""A node as a Twisted service: opens the store, listens, and stops the process when the node can do no more."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.client_door import ClientDoor
from txpaxos.clock import monotonic_clock
from txpaxos.cluster import Cluster
from txpaxos.core.functional import Timing
from txpaxos.errors import ConfigError, PaxosError
from txpaxos.open_files import files_max
from txpaxos.protocol import PaxosProtocol
from txpaxos.snapshots import Policy
from txpaxos.storage.disk import Disk
from txpaxos.storage.store import DiskStore

DATAGRAM_BYTES_READ_MAX = 65536
"""Twisted cuts a longer datagram silently; ours are shorter, and one that is cut fails its checksum."""

STOP_SECONDS = 5.0
"""How long a stopping node may wait for its disk."""


class PaxosService(Service):
    """One node.

    :param application: the subclass of :class:`~txpaxos.protocol.PaxosProtocol` to run.
    :param node: its id in ``cluster``.
    :param data_directory: where it saves.
    :param disk: the system calls it saves with; the real disk's unless given.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        application: Callable[..., PaxosProtocol],
        node: str,
        cluster: Cluster,
        data_directory: str,
        timing: Timing,
        snapshot_policy: Policy | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._reactor = reactor
        self._application = application
        self._node = node
        self._cluster = cluster
        self._data_directory = data_directory
        self._timing = timing
        self._snapshot_policy = snapshot_policy
        self._disk = disk
        self._ports: list[IListeningPort] = []
        self._door: ClientDoor | None = None
        self.protocol: PaxosProtocol | None = None

    def startService(self) -> None:
        """Open and listen. What is in the way of that ends the process with one line."""
        super().startService()
        try:
            self._start()
        except (PaxosError, CannotListenError) as error:
            raise SystemExit(f"twistd paxos: node {self._node} cannot start: {error}") from None

    def stopService(self) -> Deferred[None]:
        """Close all; fires when that is done, or has had :data:`STOP_SECONDS` to be."""
        super().stopService()
        if self._door is not None:
            self._door.stop()
        closing: list[Deferred[Any]] = [] if self.protocol is None else [self.protocol.stop()]
        closing += [maybeDeferred(port.stopListening) for port in self._ports]
        closed: Deferred[Any] = DeferredList(closing, consumeErrors=True)
        return closed.addTimeout(STOP_SECONDS, monotonic_clock(self._reactor)).addBoth(self._stopped)

    def _stopped(self, results: Any) -> None:
        """Everything is closed, or took too long and was given up."""
        if not all(closed for closed, _ in results):
            self.log.warn("node {node} stops, but could not close its disk and ports", node=self._node)

    def _start(self) -> None:
        cluster = self._cluster.resolve()
        member = cluster.members[self._node]
        member = attrs.evolve(member, address=member.address.resolve(), client=member.client.resolve())
        store = DiskStore(self._data_directory, cluster.name, self._node, disk=self._disk, reactor=self._reactor)
        options = {"timing": self._timing, "snapshot_policy": self._snapshot_policy}
        node = self._application(self._reactor, self._node, cluster, store, **options)
        node.failed.addErrback(self._node_failed)
        self.protocol = node
        self._door = ClientDoor(node)
        self._check_files(self._door.connections_max)
        address, client = member.address, member.client
        self._ports.append(self._reactor.listenUDP(address.port, node, address.host, DATAGRAM_BYTES_READ_MAX))
        self._ports.append(self._reactor.listenTCP(client.port, self._door, 1024, client.host))
        self.log.info(
            "node {node} of cluster {cluster}: peers at {address}, clients at {client}, data in {data}, syncs {where}",
            node=self._node,
            cluster=cluster.name,
            address=str(address),
            client=str(client),
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

    def _node_failed(self, failure: Failure) -> None:
        """End the process with a status that says so. Twisted would end with 0."""

        def leave() -> None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

        self._reactor.addSystemEventTrigger("after", "shutdown", leave)
        self._reactor.callLater(0, self._reactor.stop)
