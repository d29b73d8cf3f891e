"""Drives txpaxos: locks, the queue and the map of its recipes.

python -m bench.recipes.our_driver CLUSTER_FILE WORKLOAD WORKERS SECONDS
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from bench.recipes.loop import Operation, told, window, work
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.recipes import Recipes, Session

VALUE = b"v" * 100
TTL_SECONDS = 60.0


async def operation_of(recipes: Recipes, session: Session, workload: str, own: str) -> Operation:
    """The operation of a worker."""
    match workload:
        case "lock" | "contended lock":
            lock = session.lock(f"lock-{own}" if workload == "lock" else "one-lock")

            async def take() -> None:
                async with lock:
                    pass

            return take
        case "queue":
            queue = recipes.queue("queue", bytes)

            async def pass_on() -> None:
                await queue.put(VALUE)
                async with queue.take(session):
                    pass

            return pass_on
        case "map put":
            puts = recipes.map("puts", bytes)

            async def put() -> None:
                await puts.put(own, VALUE)

            return put
        case "map transaction":
            guarded = recipes.map("guarded", bytes)
            version = await guarded.put(own, VALUE)

            async def put_if_unchanged() -> None:
                nonlocal version
                version = await guarded.put(own, VALUE, expected_version=version)

            return put_if_unchanged
    raise SystemExit(f"txpaxos has no {workload}")


async def main(reactor: Any, file: str, workload: str, workers: str, seconds: str) -> None:
    """Run a workload, and print its figures."""
    client = Client(reactor, Cluster.load(file))
    recipes = Recipes(client, reactor)
    sessions = [await recipes.session(TTL_SECONDS) for _ in range(int(workers))]
    operations = [
        await operation_of(recipes, session, workload, f"{number}") for number, session in enumerate(sessions)
    ]
    counted = window(1.0, float(seconds))
    taken: list[float] = []
    await gatherResults([Deferred.fromCoroutine(work(operation, counted, taken)) for operation in operations])
    print(told(taken, counted))
    client.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])
