"""Nodes and clients in asyncio programs: each test is one, with an event loop of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from test.helpers.fakes import free_ports
from test.service.services import Bank, NotEnough
from txpaxos import CommandFailed, ConfigError, NodeStopped, NotChosen, PaxosError
from txpaxos.aio import Client, Node
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.counter import Counter
from txpaxos.errors import OutcomeUnknown

SECONDS = 30.0


def cluster_of(names: str) -> Cluster:
    ports = iter(free_ports(2 * len(names)))
    members = {name: Member(*(Address("127.0.0.1", next(ports)) for _ in range(2))) for name in names}
    return Cluster("own", members)


@asynccontextmanager
async def counter_and_client(folder: Path) -> AsyncIterator[tuple[Node, Client]]:
    cluster = cluster_of("a")
    async with Node(Counter, "a", cluster, folder) as node, Client(cluster) as client:
        async with asyncio.timeout(SECONDS):
            assert await node.ready() is node.application
        yield node, client


def test_calls_of_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), counter_and_client(tmp_path) as (node, client):
            assert await client.submit(b"+5") == 5
            assert await node.submit(b"-2") == 3
            assert sorted(await asyncio.gather(*(client.submit(b"+1") for _ in range(100)))) == [*range(4, 104)]
            assert (await client.read(b"")).result == (await node.read(b"")).result == 103
            assert await client.ask("winner", b"ann") == await node.ask("winner", b"bob") == b"ann"
            assert await client.forget("winner") == b"ann"
            assert await node.forget("winner") is None
            assert (await client.status())["leader"] == node.leader == "a"
            assert node.status().applied_through > 0
            assert [*(await client.members())["members"]] == ["a"]
            assert await node.hand_over("a") == "a"
            assert client.session is not None
            assert client.next_sequence == 102

    asyncio.run(main())


def test_errors_arrive_as_what_they_are(tmp_path: Path, expected_errors: list[Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), counter_and_client(tmp_path) as (node, client):
            for call in (client.submit(b"five"), node.submit(b"five")):
                with pytest.raises(CommandFailed, match="ValueError: invalid literal"):
                    await call
            with pytest.raises(TypeError, match="a command must be bytes"):
                await client.submit("five")  # type: ignore[arg-type]
        with pytest.raises((NotChosen, OutcomeUnknown)):
            await client.submit(b"+1")
        with pytest.raises(NodeStopped):
            await node.submit(b"+1")

    asyncio.run(main())


def test_a_typed_service(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = cluster_of("a")
        async with asyncio.timeout(SECONDS), Node(Bank, "a", cluster, tmp_path) as node, Client(cluster) as client:
            for bank in (client.service(Bank), node.service(Bank)):
                await bank.deposit("ann", 5)
                task = asyncio.create_task(total_of(bank))
                assert await task == await bank.balance("ann")
                with pytest.raises(NotEnough):
                    await bank.fail("not enough")
                with pytest.raises(TypeError):
                    await bank.deposit("ann", "5")  # type: ignore[arg-type]
            assert await client.service(Bank).balance("ann") == 10

    async def total_of(bank: type[Bank]) -> int:
        return await bank.balance("ann")

    asyncio.run(main())


def test_a_cancelled_call_does_not_wait() -> None:
    async def main() -> None:
        async with asyncio.timeout(SECONDS), Client(cluster_of("abc")) as client:
            task = asyncio.create_task(client.submit(b"+1"))
            await asyncio.sleep(0)
            assert client.waiting_bytes == 2
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.waiting_bytes == 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.read(b"")

    asyncio.run(main())


def test_a_node_that_cannot_start(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match="there is no node z"):
            async with Node(Counter, "z", cluster_of("a"), tmp_path):
                pass

    asyncio.run(main())


def threads() -> list[str]:
    """The threads that a process waits for when it ends."""
    return [thread.name for thread in threading.enumerate() if not thread.daemon]


def test_no_thread_is_left(tmp_path: Path) -> None:
    """A thread of a reactor's pool would keep the process from ending."""
    before = threads()
    test_calls_of_both(tmp_path)
    with_names = [f"localhost:{port}" for port in free_ports(1)]

    async def main() -> None:
        async with Client(with_names) as client:
            with pytest.raises(PaxosError):
                await client.submit(b"+1", deadline_seconds=0.2)

    asyncio.run(main())
    assert threads() == before


def test_a_node_on_another_loop_raises_at_once(tmp_path: Path) -> None:
    async def first() -> Node:
        cluster = cluster_of("a")
        async with asyncio.timeout(SECONDS), Node(Counter, "a", cluster, tmp_path) as node:
            await node.ready()
        return node

    node = asyncio.run(first())

    async def second() -> None:
        for call in (node.ready, lambda: node.submit(b"+1"), lambda: node.read(b""), lambda: node.ask("king")):
            with pytest.raises(RuntimeError, match=r"^the event loop of this client or node is closed: "):
                await call()

    asyncio.run(second())


def test_without_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        Client(["localhost:1"])


PROGRAM = """
import asyncio
from txpaxos.aio import Client, Node
from txpaxos.asyncio_reactor import asyncio_reactor
from txpaxos.counter import Counter

async def main():
    async with Node(Counter, "a", "cluster.toml", "data") as node:
        from twisted.internet import reactor
        await node.ready()
        total = await node.submit(b"+1")
        try:
            async with asyncio_reactor() as running:
                print(total, running is reactor)
        except RuntimeError as error:
            print(total, error)

for _ in range(2):
    asyncio.run(main())
"""


def test_the_first_loop_has_the_reactor_of_the_process(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(cluster_of("a").dumps())
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    first, second = done.stdout.splitlines()
    assert first == "1 True"
    assert second.startswith("2 Twisted has its reactor already")
