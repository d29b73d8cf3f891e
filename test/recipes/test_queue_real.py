"""A queue on three real nodes, of which the leader is killed, with takers that give up: each item is acknowledged once.

``TXPAXOS_QUEUE_ITEMS=1000000`` for as many items.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from test.helpers.cli_nodes import Nodes
from txpaxos import Client
from txpaxos.recipes import Depth, Queue, Recipes, SessionOver, TakeOver, WaitTimedOut

ITEMS = int(os.environ.get("TXPAXOS_QUEUE_ITEMS", "150"))
TAKERS = 10
GIVEN_UP_MIN = 5
PUT_AT_ONCE = 500
RUN_SECONDS_MAX = 120.0 + ITEMS / 100

pytestmark = pytest.mark.timeout(RUN_SECONDS_MAX + ITEMS / 100 + 60.0)


class Takers:
    """Ten programs that take and acknowledge, and some that take and say nothing more."""

    def __init__(self, nodes: Nodes) -> None:
        self.clients = [Client(reactor, nodes.cluster) for _ in range(TAKERS)]
        self.acknowledged: Counter[int] = Counter()
        self.given_up = 0

    async def take_all(self, number: int) -> None:
        """Take until all are acknowledged. Some are taken and left alone."""
        rng, recipes = Random(number), Recipes(self.clients[number], reactor)
        jobs = recipes.queue("jobs", int)
        session = await recipes.session(ttl_seconds=5.0)
        while self.acknowledged.total() < ITEMS:
            try:
                job = await jobs.take(session, visible_after_seconds=1.0, timeout_seconds=1.0)
                if self.given_up < GIVEN_UP_MIN or rng.random() < 0.01:
                    self.given_up += 1
                    continue
                await job.acknowledge()
            except (TakeOver, WaitTimedOut):
                continue
            except SessionOver:
                session = await recipes.session(ttl_seconds=5.0)
                continue
            self.acknowledged[job.value] += 1
        await session.close()


async def put_all(jobs: Queue[int]) -> None:
    for first in range(0, ITEMS, PUT_AT_ONCE):
        some = range(first, min(first + PUT_AT_ONCE, ITEMS))
        for succeeded, result in await DeferredList([jobs.put(number) for number in some], consumeErrors=True):
            assert succeeded, result


async def kill_the_leader(nodes: Nodes, client: Client, takers: Takers) -> None:
    """Kill it when a third is done, and start it again."""
    while takers.acknowledged.total() < ITEMS // 3:
        await deferLater(reactor, 0.05, lambda: None)
    status: dict[str, Any] = await client.status(deadline_seconds=30.0)
    await deferToThread(nodes.kill, status["leader"])
    nodes.start(status["leader"])


async def test_each_item_is_acknowledged_once(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "a", "b", "c", options=("--app", "txpaxos.recipes:Coordinator"))
    takers = Takers(nodes)
    client = Client(reactor, nodes.cluster)
    try:
        for node in nodes.cluster.members:
            nodes.start(node)
        jobs = Recipes(client, reactor).queue("jobs", int)
        await put_all(jobs)
        working = [takers.take_all(number) for number in range(TAKERS)]
        all_done = DeferredList(
            [Deferred.fromCoroutine(work) for work in (*working, kill_the_leader(nodes, client, takers))],
            fireOnOneErrback=True,
            consumeErrors=True,
        )
        await all_done.addTimeout(RUN_SECONDS_MAX, reactor)
        assert await jobs.depth() == Depth(0, 0, 0)
    finally:
        for one in (client, *takers.clients):
            one.close()
        for node in list(nodes.processes):
            nodes.kill(node)
    assert takers.acknowledged == Counter(range(ITEMS))
    assert takers.given_up >= GIVEN_UP_MIN
