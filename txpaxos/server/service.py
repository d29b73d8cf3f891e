"""A node as a Twisted service."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from txpaxos.server.served_node import ServedNode


class PaxosService(ServedNode, Service):
    """One node as a service: for ``MultiService``, for application files of twistd, and for a program that calls
    :meth:`startService` itself.

    .. code-block:: python

        service = PaxosService(Counter, "a", "cluster.toml", "paxos-data-a")
        service.startService()
        service.ready().addCallback(lambda counter: counter.submit(b"+5"))

    It takes the arguments of :class:`~txpaxos.server.served_node.ServedNode`, which is the same without being a
    service.
    """

    def startService(self) -> None:
        """Open the store, load the node's state, and listen.

        :raises PaxosError: one line that says why the node cannot start. Nothing stays open or locked then, except that
            the reactor needs an iteration to close ports.
        """
        self.start()
        if self._is_running:
            super().startService()

    def stopService(self) -> Deferred[None]:
        """Hand over the lead, stop the node and close everything. Fires when that is done, or has taken too long."""
        if self.running:
            super().stopService()
        return self.stop()

    def _end(self) -> None:
        """End this service, since its node has ended by itself."""
        super().stopService()
        super()._end()
