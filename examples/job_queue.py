"""A job queue: each job is done by one worker at a time, and by another if that one is gone before it has done it.

    twistd -n paxos --app txpaxos.recipes:Coordinator --cluster cluster.toml --node a
    python examples/job_queue.py cluster.toml work
    python examples/job_queue.py cluster.toml put resize 2.5

Run as many workers as you like. When one is killed, another takes its job within ten seconds.
"""

from __future__ import annotations

import sys
from typing import Any

import attrs
from twisted.internet.task import deferLater, react

from txpaxos import Client, Cluster, PaxosError, ServiceError
from txpaxos.recipes import Queue, Recipes, TakeOver


@attrs.frozen
class Job:
    name: str
    seconds: float


async def work(reactor: Any, recipes: Recipes, jobs: Queue[Job]) -> None:
    await jobs.limit_deliveries(3, "jobs.dead")  # Where a job goes that three workers could not do.
    async with await recipes.session(ttl_seconds=10.0) as session:
        while True:
            try:
                async with jobs.take(session, visible_after_seconds=600.0) as job:
                    print(f"begun: {job.value.name}, delivery {job.deliveries}", flush=True)
                    await deferLater(reactor, job.value.seconds, lambda: None)
                print(f"done: {job.value.name}", flush=True)
            except TakeOver as error:
                print(f"too late: {error}", flush=True)


async def main(reactor: Any, file: str, *arguments: str) -> None:
    try:
        recipes = Recipes(Client(reactor, Cluster.load(file).resolve()), reactor)
        jobs = recipes.queue("jobs", Job)
        match arguments:
            case ["work"]:
                await work(reactor, recipes, jobs)
            case ["put", name, seconds]:
                print(await jobs.put(Job(name, float(seconds))))
            case _:
                raise SystemExit(__doc__)
    except (PaxosError, ServiceError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    react(main, sys.argv[1:])
