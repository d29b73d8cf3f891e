"""A node as a Twisted service."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from txpaxos.server.served_node import ServedNode


class PaxosService(ServedNode, Service):
    """One node, for ``MultiService``, for application files, and for a program that calls :meth:`startService` itself.

    .. code-block:: python

        service = PaxosService(Counter, "a", "cluster.toml", "paxos-data-a")
        service.startService()
        service.ready().addCallback(lambda counter: counter.submit(b"+5"))

    It is made as a :class:`~txpaxos.server.served_node.ServedNode` is, which is the same without being a service.
    """

    def startService(self) -> None:
        """Open the store, load what it holds, and listen.

        :raises PaxosError: one line that says what is in the way. Then nothing is kept open or locked (ports for as
            long as the reactor needs for a turn).
        """
        super().startService()
        try:
            self.start()
        except BaseException:
            super().stopService()
            raise

    def stopService(self) -> Deferred[None]:
        """Close all; fires when that is done, or has taken too long."""
        if self.running:
            super().stopService()
        return self.stop()

    def _end(self) -> None:
        """The node has ended by itself, and so has this service."""
        super().stopService()
        super()._end()
