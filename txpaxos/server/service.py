"""A node as a Twisted service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.node.node import Node
from txpaxos.server.served_node import ServedNode


class PaxosService(Service):
    """One node, for Twisted's ``MultiService`` and application files.

    .. code-block:: python

        service = PaxosService(Counter, "a", "cluster.toml", "paxos-data-a")
        service.startService()
        service.ready().addCallback(lambda counter: counter.submit(b"+5"))

    Takes what :class:`~txpaxos.server.served_node.ServedNode` takes, which is the same without being a service.
    """

    def __init__(
        self,
        *args: Any,
        gave_up: Callable[[Failure], object] | None = None,
        stopped: Callable[[], object] | None = None,
        **kwargs: Any,
    ) -> None:
        self._gave_up = gave_up
        self._stopped = stopped
        self._served = ServedNode(*args, gave_up=self._node_gave_up, stopped=self._node_stopped, **kwargs)

    @property
    def node_name(self) -> str:
        """The id of the node."""
        return self._served.name

    @property
    def node(self) -> Node:
        """The node.

        :raises NodeStopped: if it was not started.
        """
        return self._served.node

    @property
    def application(self) -> Any:
        """The application that runs on the node.

        :raises NodeStopped: if it was not started.
        """
        return self._served.application

    def startService(self) -> None:
        """Open the store, load what it holds, and listen.

        :raises PaxosError: one line that says what is in the way. Then nothing is kept open or locked (ports for as
            long as the reactor needs for a turn).
        """
        super().startService()
        try:
            self._served.start()
        except BaseException:
            super().stopService()
            raise

    def ready(self) -> Deferred[Any]:
        """Fires with the application when this node knows a leader. See :meth:`ServedNode.ready
        <txpaxos.server.served_node.ServedNode.ready>`."""
        return self._served.ready()

    def stopService(self) -> Deferred[None]:
        """Close all; fires when that is done, or has taken too long."""
        if self.running:
            super().stopService()
        return self._served.stop()

    def _node_gave_up(self, failure: Failure) -> None:
        super().stopService()
        if self._gave_up is not None:
            self._gave_up(failure)

    def _node_stopped(self) -> None:
        super().stopService()
        if self._stopped is not None:
            self._stopped()
