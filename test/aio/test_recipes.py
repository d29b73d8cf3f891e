"""The recipes and watched queries in asyncio programs: the same objects, whose Deferreds are Futures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from test.aio.test_asyncio import SECONDS, cluster_of
from test.service.services import Bank
from txpaxos import Service, application_of, command, query, state
from txpaxos.aio import Client, Node, each_change, recipes, watch
from txpaxos.aio.recipe_types import Queue, Recipes, Session
from txpaxos.recipes import COORDINATION, SessionOver, WaitTimedOut


@attrs.frozen
class Job:
    """What is in the queue."""

    name: str


Application = application_of(Bank, *COORDINATION)


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[tuple[Client, Recipes]]:
    cluster = cluster_of("a")
    async with asyncio.timeout(SECONDS), Node(Application, "a", cluster, folder) as node, Client(cluster) as client:
        await node.ready()
        yield client, recipes(client, deadline_seconds=SECONDS)


def test_a_session_and_a_queue(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_, own):
            jobs = own.queue("jobs", Job)
            async with await own.session(ttl_seconds=5.0) as session:
                await asyncio.create_task(jobs.put(Job("0")))
                await asyncio.gather(*(jobs.put(Job(f"{number}")) for number in range(1, 10)))
                async with jobs.take(session) as job:
                    assert job.value.name == "0"
                taken = await jobs.take(session)
                await taken.give_back()
                waiting = asyncio.create_task(take_all(jobs, session))
                assert sorted(await waiting) == [f"{number}" for number in range(1, 10)]
                with pytest.raises(WaitTimedOut):
                    await jobs.take(session, timeout_seconds=0.05)
                async with asyncio.timeout(SECONDS):
                    cancelled = asyncio.create_task(take_one(jobs, session))
                    await asyncio.sleep(0.02)
                    cancelled.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await cancelled
                while (await jobs.depth()).waiting:
                    await asyncio.sleep(0.01)
            assert session.state == "closed"
            with pytest.raises(SessionOver):
                await own.resume(session.session_id)

    async def take_one(jobs: Queue[Job], session: Session) -> None:
        await jobs.take(session)

    async def take_all(jobs: Queue[Job], session: Session) -> list[str]:
        names = []
        for _ in range(9):
            async with jobs.take(session) as job:
                names.append(job.value.name)
        return names

    asyncio.run(main())


def test_a_lock_and_its_waiters(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_, own):
            tokens: list[int] = []
            sessions = [await own.session(ttl_seconds=5.0) for _ in range(5)]

            async def hold(number: int) -> None:
                async with sessions[number].lock("reports") as hold:
                    assert hold.still_held()
                    tokens.append(hold.token)
                    await asyncio.sleep(0)

            await asyncio.gather(*map(hold, range(5)))
            assert tokens == sorted(set(tokens))
            lock = sessions[0].lock("reports")
            first = await lock.acquire()
            assert first.token > tokens[-1]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sessions[1].lock("reports").acquire()
            assert await sessions[2].lock("reports").try_acquire() is None
            while len(await lock.contenders()) > 1:
                await asyncio.sleep(0.01)
            await first.release()
            assert await lock.contenders() == ()

    asyncio.run(main())


def test_a_map_is_followed(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_, own):
            config = own.map("config", int)
            seen = []

            async def follow() -> None:
                async for change in config.changes():
                    seen.append((change.key, change.value))
                    if change.is_deleted:
                        return

            task = asyncio.create_task(follow())
            for number in range(3):
                await config.put("limit", number)
            await config.delete("limit")
            await task
            assert seen[-1] == ("limit", None)
            assert [value for _, value in seen[:-1]] == sorted({value for _, value in seen[:-1] if value is not None})
            await config.put("a", 1)
            assert [(entry.key, entry.value) async for entry in config.entries()] == [("a", 1)]
            assert await own.counter("hits").add(5) == 5
            names = own.set("names", str)
            assert await names.add("ann")
            assert [name async for name in names.members()] == ["ann"]

    asyncio.run(main())


class Score(Service):
    """A number whose changes are kept."""

    total: int = state(int)

    @command
    def add(self) -> int:
        self.total += 1
        return self.total

    @query(changes_kept=True)
    def current(self) -> int:
        return self.total


def test_each_change_of_a_query(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = cluster_of("a")
        async with asyncio.timeout(SECONDS), Node(Score, "a", cluster, tmp_path) as node, Client(cluster) as client:
            await node.ready()
            score = client.service(Score)
            changes = each_change(score.current)
            first = await anext(changes)
            await asyncio.gather(*(score.add() for _ in range(20)))
            assert [first.answer, *[(await anext(changes)).answer for _ in range(20)]] == [*range(21)]
            again = each_change(score.current).after(first.version)
            assert [(await anext(again)).answer for _ in range(20)] == [*range(1, 21)]

    asyncio.run(main())


def test_a_query_is_watched(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (client, _):
            bank = client.service(Bank)
            amounts = []

            async def follow() -> None:
                async for amount in watch(bank.balance, "ann"):
                    amounts.append(amount)
                    if amount == 3:
                        return

            task = asyncio.create_task(follow())
            for _ in range(3):
                await bank.deposit("ann", 1)
            await task
            assert amounts == sorted(set(amounts))

    asyncio.run(main())


def test_what_has_no_such_use(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(tmp_path) as (_, own):
            with pytest.raises(TypeError, match="Recipes has no __aenter__"):
                async with own:  # type: ignore[attr-defined]
                    pass
            with pytest.raises(AttributeError):
                own.nothing  # type: ignore[attr-defined]  # noqa: B018
            assert "session" in dir(own)
            assert repr(own).endswith("for asyncio>")

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [None, "cluster.toml", ["localhost:1"]])
def test_a_wrong_client_raises_at_the_call(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"^client must be a txpaxos.aio.Client, not {type(wrong).__name__}$"):
        recipes(wrong)


def test_on_another_loop_each_call_raises_at_once(tmp_path: Path) -> None:
    """The loop of the client was closed. A call on the next one waited for ever."""
    kept: list[Any] = []

    async def first() -> None:
        async with running(tmp_path) as (client, of_client):
            session = await of_client.session(ttl_seconds=10)
            lock = session.lock("a")
            await lock.acquire()
            kept.extend([client, of_client, session, lock, of_client.queue("jobs", str), session.party("p")])

    asyncio.run(first())
    client, of_client, session, lock, jobs, party = kept
    calls: list[Callable[[], Any]] = [
        lambda: recipes(client).counter("hits").add(1),
        lambda: of_client.counter("hits").add(1),
        lambda: of_client.map("m", int).changes().__anext__(),
        lambda: session.lock("a").acquire(),
        session.close,
        lock.release,
        jobs.depth,
        jobs.take(session).start,
        party.__aenter__,
        lambda: client.submit(b"x"),
        lambda: client.service(Bank).balance("ann"),
        lambda: watch(client.service(Bank).balance, "ann").__anext__(),
    ]

    async def second() -> None:
        for call in calls:
            with pytest.raises(RuntimeError, match=r"^the event loop of this client or node is closed: make it on the"):
                async with asyncio.timeout(5):
                    await call()

    asyncio.run(second())
