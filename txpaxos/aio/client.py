"""A client of a cluster for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any

from txpaxos.aio.calls import awaited, awaited_service, check_loop
from txpaxos.asyncio_reactor import reactor_on_running_loop
from txpaxos.client import Client as TwistedClient
from txpaxos.cluster import Cluster
from txpaxos.reading import Consistency, Reading
from txpaxos.service.declaration import Remote, S
from txpaxos.wire.client_messages import Action
from txpaxos.wire.commands import Run

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from txpaxos.keys.folder import Keys


class Client:
    """A client of a cluster: :class:`txpaxos.Client`, with coroutines.

    .. code-block:: python

        async def main():
            async with Client(Cluster.load("cluster.toml").resolve()) as client:
                print(await client.submit(b"+5", deadline_seconds=10))

        asyncio.run(main())

    Make it where an event loop runs, and use it on that loop only: on another one each call raises RuntimeError. To
    cancel a call ends its wait, as the cancelling of a Deferred does. The arguments, the results and the errors are
    those of :class:`txpaxos.Client`, which describes them; only the reactor is not given.

    :raises RuntimeError: if no event loop runs.
    """

    def __init__(
        self,
        cluster: Cluster | Mapping[str, str] | Iterable[str],
        nodes: Iterable[str] | None = None,
        rng: Random | None = None,
        sending: Callable[[Run], None] | None = None,
        keys: Keys | str | os.PathLike[str] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        with ExitStack() as opened:
            self._loop = asyncio.get_running_loop()
            self._reactor = opened.enter_context(reactor_on_running_loop())
            self._client = TwistedClient(self._reactor, cluster, nodes, rng, sending, keys, tracer)
            self._opened = opened.pop_all()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def session(self) -> bytes | None:
        """The session in which commands are sent, see :attr:`txpaxos.Client.session`."""
        return self._client.session

    @property
    def is_closed(self) -> bool:
        """Whether this client was closed, so that every call fails."""
        return self._client.is_closed

    @property
    def next_sequence(self) -> int:
        """The sequence of the next command."""
        return self._client.next_sequence

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the commands, queries and values that have no answer yet."""
        return self._client.waiting_bytes

    @property
    def known_members(self) -> tuple[int, dict[str, str]] | None:
        """The members that nodes have told this client of, see :attr:`txpaxos.Client.known_members`."""
        return self._client.known_members

    async def submit(
        self, command: bytes, deadline_seconds: float | None = None, *, parent: Span | Context | None = None
    ) -> Any:
        """Have ``command`` applied by every node, once. Returns what ``apply`` returned."""
        return await awaited(self._on_its_loop.submit(command, deadline_seconds, parent=parent))

    async def read(
        self, query: bytes, consistency: Consistency = "linearizable", deadline_seconds: float | None = None
    ) -> Reading:
        """Have ``query`` answered from the application's state."""
        return await awaited(self._on_its_loop.read(query, consistency, deadline_seconds))

    def service(
        self,
        kind: type[S],
        name: str | None = None,
        *,
        deadline_seconds: float | None = None,
        consistency: Consistency = "linearizable",
        parent: Span | Context | None = None,
    ) -> Remote[S]:
        """The commands and queries of a typed service, as in ``await client.service(Bank).deposit("ann", 5)``."""
        options: Any = {"deadline_seconds": deadline_seconds, "consistency": consistency, "parent": parent}
        return awaited_service(self._client.service(kind, name, **options), self._loop)

    async def ask(
        self, subject: str, value: bytes | None = None, deadline_seconds: float | None = None
    ) -> bytes | None:
        """Have ``subject`` decided on ``value`` unless it is decided already. Returns the decided value."""
        return await awaited(self._on_its_loop.ask(subject, value, deadline_seconds))

    async def forget(self, subject: str, deadline_seconds: float | None = None) -> bytes | None:
        """Make ``subject`` undecided. Returns the value that is forgotten."""
        return await awaited(self._on_its_loop.forget(subject, deadline_seconds))

    async def keep_alive(
        self,
        names: Iterable[str],
        deadline_seconds: float | None = None,
        told: Callable[[str, bool], object] | None = None,
    ) -> dict[str, bool]:
        """Keep timers alive. Returns for each name whether it is confirmed that the timer fires no sooner than its
        period after this call. ``told`` is called with each name, and with that, as soon as it is known."""
        return await awaited(self._on_its_loop.keep_alive(names, deadline_seconds, told))

    async def status(self, deadline_seconds: float | None = None) -> dict[str, Any]:
        """Ask the node that this client talks to how it is."""
        return await awaited(self._on_its_loop.status(deadline_seconds))

    async def reload_keys(self, deadline_seconds: float | None = None) -> dict[str, Any]:
        """Have the node that this client talks to read its keys again."""
        return await awaited(self._on_its_loop.reload_keys(deadline_seconds))

    async def recall(
        self,
        slot: int = 0,
        *,
        ballot: str = "",
        command: tuple[bytes, int] | None = None,
        register: str = "",
        deadline_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Ask the node that this client talks to what it remembers of a slot, a ballot, a command or a register."""
        asked = self._on_its_loop.recall(
            slot, ballot=ballot, command=command, register=register, deadline_seconds=deadline_seconds
        )
        return await awaited(asked)

    async def accept_clock(self, deadline_seconds: float | None = None) -> dict[str, Any]:
        """Let the time of day in the log be what the clocks of the nodes say, though they have jumped."""
        return await awaited(self._on_its_loop.accept_clock(deadline_seconds))

    async def hand_over(self, to: str, deadline_seconds: float | None = None) -> str:
        """Have the leader hand over the lead to the node ``to``."""
        return await awaited(self._on_its_loop.hand_over(to, deadline_seconds))

    async def members(self, deadline_seconds: float | None = None) -> dict[str, Any]:
        """Ask the node that this client talks to who the members are."""
        return await awaited(self._on_its_loop.members(deadline_seconds))

    async def change_members(
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
    ) -> str:
        """Change the members of the cluster."""
        change = self._on_its_loop.change_members(
            action,
            node,
            other=other,
            address=address,
            client=client,
            priority=priority,
            progress=progress,
            deadline_seconds=deadline_seconds,
        )
        return await awaited(change)

    async def backup_part(
        self, snapshot_slot: int = 0, position: int = 0, deadline_seconds: float | None = None
    ) -> bytes:
        """Ask for a part of a backup."""
        return await awaited(self._on_its_loop.backup_part(snapshot_slot, position, deadline_seconds))

    def use_keys(self, keys: Keys | str | os.PathLike[str]) -> None:
        """Use other keys of the same client from now on."""
        self._client.use_keys(keys)

    def close(self) -> None:
        """Close the connections. Calls without an answer fail, as if their deadlines were over."""
        self._client.close()
        self._opened.close()

    def findings(self) -> str:
        """What each node was last found to be like, in one line."""
        return self._client.findings()

    @property
    def _on_its_loop(self) -> TwistedClient:
        check_loop(self._loop)
        return self._client
