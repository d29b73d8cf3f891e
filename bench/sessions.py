"""What the sessions of one program cost, while it holds them and does nothing else.

    python -m bench.sessions [--sessions 1000] [--ttl 10] [--seconds 30]

Three nodes are measured with nothing to do, and while one client in this process keeps the sessions alive.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react

from bench.kept_alive import Cluster
from bench.machine import about
from bench.ours import Nodes
from txpaxos import Client
from txpaxos.recipes import Recipes

COORDINATOR = "txpaxos.recipes:Coordinator"
AT_ONCE = 100
"""How many sessions are opened at a time."""


async def run(reactor: Any, folder: Path, count: int, ttl_seconds: float, seconds: float) -> None:
    """Measure all."""
    print(about())
    nodes = Nodes(reactor, folder / "nodes", options=("--app", COORDINATOR))
    leader = await nodes.start_all(30.0)
    client = Client(reactor, nodes.cluster)
    try:
        cluster = Cluster(reactor, nodes, leader, client)
        await cluster.measure("nothing to do", seconds)
        recipes, sessions = Recipes(client, reactor), []
        for left in range(count, 0, -AT_ONCE):
            sessions += await gatherResults([recipes.session(ttl_seconds) for _ in range(min(left, AT_ONCE))])
        await deferLater(reactor, ttl_seconds)
        taken, began = time.process_time(), time.monotonic()
        await cluster.measure("sessions", seconds)
        own = 100 * (time.process_time() - taken) / (time.monotonic() - began)
        held = sum(session.state == "held" for session in sessions)
        print(f"{held} of {count} sessions are held; this program took {own:.2f} %")
    finally:
        await nodes.stop()


@click.command()
@click.option("--sessions", default=1_000, show_default=True, help="How many sessions.")
@click.option("--ttl", default=10.0, show_default=True, help="Of each session, in seconds.")
@click.option("--seconds", default=30.0, show_default=True, help="How long each is measured.")
def main(sessions: int, ttl: float, seconds: float) -> None:
    """Measure sessions."""
    with TemporaryDirectory() as folder:
        sys.argv[1:] = []
        react(lambda reactor: Deferred.fromCoroutine(run(reactor, Path(folder), sessions, ttl, seconds)))


if __name__ == "__main__":
    main()
