"""A node in an asyncio program."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any

from twisted.python.failure import Failure

from txpaxos.aio.calls import awaited, awaited_service, check_loop
from txpaxos.application import Application
from txpaxos.asyncio_reactor import reactor_on_running_loop
from txpaxos.cluster import Cluster
from txpaxos.core.messages import NodeId
from txpaxos.node.events import Observer
from txpaxos.node.settings import Settings
from txpaxos.node.status import NodeStatus
from txpaxos.reading import Consistency, Reading
from txpaxos.recording.options import RecordingOptions
from txpaxos.server.client_endpoints import ClientEndpoint
from txpaxos.server.companion import Companion
from txpaxos.server.served_node import ServedNode
from txpaxos.service.declaration import Remote, S, Service
from txpaxos.storage.disk import Disk

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class Node:
    """One node, with its store, its sockets and its application, in an asyncio program.

    .. code-block:: python

        async def main():
            async with Node(Counter, "a", "cluster.toml", "data-a") as node:
                await node.ready()
                print(await node.submit(b"+5"))

        asyncio.run(main())

    It takes the arguments of :class:`~txpaxos.server.served_node.ServedNode`, without the reactor. Its calls are those
    of :class:`~txpaxos.protocol.PaxosProtocol`, as coroutines: these classes describe them. Make it where an event loop
    runs, and use it on that loop only.

    The event loop is what the node runs on. While the program blocks it, the node answers no other node, and after
    about half a second of that another one leads.

    :ivar served: what runs the node, with the calls that have nothing to wait for.
    :raises RuntimeError: if no event loop runs.
    """

    def __init__(
        self,
        application: Application | Callable[[], Application] | type[Service],
        node: str,
        cluster: Cluster | str | os.PathLike[str],
        data_directory: str | os.PathLike[str],
        settings: Settings | None = None,
        *,
        disk: Disk | None = None,
        keys: Any = None,
        insecure: bool = False,
        client_endpoints: Iterable[ClientEndpoint] = (),
        observers: Iterable[Observer] = (),
        companions: Iterable[Companion] = (),
        tracer: Tracer | None = None,
        record: RecordingOptions | str | os.PathLike[str] | None = None,
        gave_up: Callable[[Failure], object] | None = None,
        stopped: Callable[[], object] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        with ExitStack() as opened:
            self.served = ServedNode(
                *(application, node, cluster, data_directory, settings),
                reactor=opened.enter_context(reactor_on_running_loop()),
                disk=disk,
                keys=keys,
                insecure=insecure,
                client_endpoints=client_endpoints,
                observers=observers,
                companions=companions,
                tracer=tracer,
                record=record,
                gave_up=gave_up,
                stopped=stopped,
            )
            self._opened = opened.pop_all()

    async def __aenter__(self) -> Node:
        try:
            self.served.start()
        except BaseException:
            self._opened.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def application(self) -> Any:
        """The application that runs on the node. What it is asked to wait for gives Deferreds: use the calls here.

        :raises NodeStopped: if the node was not started.
        """
        return self.served.application

    @property
    def leader(self) -> NodeId | None:
        """The leader, as far as this node knows; ``None`` if it knows none."""
        leader: NodeId | None = self.served.application.leader
        return leader

    def status(self) -> NodeStatus:
        """The current status of the node."""
        return self.served.node.status()

    async def ready(self) -> Any:
        """Wait until this node knows a leader, so that commands are answered. Returns the application."""
        return await awaited(self._on_its_loop.ready())

    async def submit(self, command: bytes, deadline_seconds: float | None = None) -> Any:
        """Have ``command`` applied on all nodes. Returns what ``apply`` returned on this one."""
        return await awaited(self._on_its_loop.node.submit(command, deadline_seconds))

    async def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Reading:
        """Have ``query`` answered by this node's application."""
        return await awaited(self._on_its_loop.node.read(query, consistency, deadline_seconds))

    def service(
        self,
        kind: type[S],
        name: str | None = None,
        *,
        deadline_seconds: float | None = None,
        consistency: Consistency = "linearizable",
    ) -> Remote[S]:
        """The commands and queries of a typed service that runs on this node."""
        options: Any = {"deadline_seconds": deadline_seconds, "consistency": consistency}
        return awaited_service(self.application.service(kind, name, **options), self._loop)

    async def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> bytes | None:
        """Have ``subject`` decided on ``value`` unless it is decided already. Returns the decided value."""
        return await awaited(self._on_its_loop.node.ask(subject, value, deadline_seconds))

    async def forget(self, subject: str, deadline_seconds: float | None = None) -> bytes | None:
        """Make ``subject`` undecided. Returns the value that is forgotten."""
        return await awaited(self._on_its_loop.node.forget(subject, deadline_seconds))

    async def hand_over(self, to: NodeId | None = None) -> NodeId:
        """Hand over the lead to another node. Returns the new leader."""
        return await awaited(self._on_its_loop.node.hand_over(to))

    async def stop(self) -> None:
        """Stop the node and close everything. A leader hands over first."""
        try:
            await awaited(self.served.stop())
        finally:
            self._opened.close()

    @property
    def _on_its_loop(self) -> ServedNode:
        check_loop(self._loop)
        return self.served
