"""``python -m test.torture.pauses``: pause the leader for longer than the other nodes wait for it, again and again, and
read.

It runs three real nodes of the key-value store on this machine. A leader that resumes still believes that it leads, and
must not answer a read with a stale value. So some clients get a key at each node, also at the paused one, before, while
and after another client changes the key elsewhere. Their answers are checked. It needs no root.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from test.torture.commands import APP, Input, command_of, item_of, query_of
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import CommandError, run, together
from txpaxos.cli.status import Statuses, leader_of
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.errors import PaxosError
from txpaxos.reading import Reading
from txpaxos.testing.linearizability.check import check
from txpaxos.testing.linearizability.history import HistoryRecorder
from txpaxos.testing.linearizability.models import KeyValue

NODES = ("a", "b", "c")
OPTIONS = ("--app", f"{APP}:KeyValue")
KEY = "short-0"
PAUSE_SECONDS = (0.65, 0.9)
"""Longer than the longest liveness window, so that another node leads meanwhile."""
REST_SECONDS = (0.05, 0.4)
THINK_SECONDS = 0.004
TIMEOUT_SECONDS = 5.0
STEP_SECONDS_MAX = 30.0


@attrs.define
class Counts:
    """What happened in the run."""

    pauses: int = 0
    replaced: int = 0
    reads: int = 0
    puts: int = 0


class Clients:
    """One client that puts, at whichever node leads, and one client for each node that gets from this node alone."""

    def __init__(self, reactor: Any, cluster: Cluster, file: Path, counts: Counts) -> None:
        self.recorder = HistoryRecorder(reactor, str(file))
        self._reactor = reactor
        self._counts = counts
        self._stopping = False
        self._clients = [Client(reactor, cluster), *(Client(reactor, cluster, [node]) for node in NODES)]
        putting, *getting = self._clients
        works = [self._put(putting), *(self._get(*one) for one in zip(NODES, getting, strict=True))]
        self._working = [Deferred.fromCoroutine(work) for work in works]

    async def stop(self) -> None:
        """Wait for operations under way."""
        self._stopping = True
        await together(*map(_wait, self._working))
        for client in self._clients:
            client.close()
        self.recorder.close()

    async def _put(self, client: Client) -> None:
        for number in itertools.count(1):
            if self._stopping:
                return
            input = "put", KEY, f"value {number}"
            begin = partial(client.submit, command_of(input), TIMEOUT_SECONDS)
            if await self._is_answered("putter", input, begin):
                self._counts.puts += 1
            await deferLater(self._reactor, THINK_SECONDS)

    async def _get(self, node: str, client: Client) -> None:
        begin = partial(client.read, query_of("get", KEY), deadline_seconds=TIMEOUT_SECONDS)
        while not self._stopping:
            if await self._is_answered(f"getter at {node}", ("get", KEY), begin, _text):
                self._counts.reads += 1
            await deferLater(self._reactor, THINK_SECONDS)

    async def _is_answered(
        self,
        who: str,
        input: Input,
        begin: Callable[[], Deferred[Any]],
        output: Callable[[Any], Any] = lambda revision: revision,
    ) -> bool:
        try:
            await self.recorder.record(who, input, begin, output)
        except PaxosError:
            return False
        return True


def _text(reading: Reading) -> str | None:
    item = item_of(KEY, reading.result)
    return item and item[0]


async def _wait(working: Deferred[None]) -> None:
    await working


async def pause_often(reactor: Any, folder: Path, pauses: int, rng: Random) -> tuple[Counts, HistoryRecorder]:
    """Run clients, and pause the leader ``pauses`` times."""
    nodes = LocalCluster(reactor, "pauses", NODES, folder, OPTIONS)
    counts = Counts()
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        clients = Clients(reactor, nodes.cluster, folder / "history.jsonl", counts)
        for _ in range(pauses):
            nodes.processes[leader].signal("STOP")
            await deferLater(reactor, rng.uniform(*PAUSE_SECONDS))
            nodes.processes[leader].signal("CONT")
            counts.pauses += 1
            await deferLater(reactor, rng.uniform(*REST_SECONDS))
            paused = leader

            def has_leader(statuses: Statuses) -> bool:
                return leader_of(nodes.cluster, statuses) is not None

            leader = leader_of(nodes.cluster, await nodes.wait_until(has_leader, "an election", STEP_SECONDS_MAX)) or ""
            counts.replaced += leader != paused
        await clients.stop()
    finally:
        for process in nodes.processes.values():
            process.signal("CONT")
        await nodes.stop()
    return counts, clients.recorder


@click.command()
@click.option("--pauses", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(pauses: int, seed: int) -> None:
    """See the module. Exits with 1 if a read was stale, or another result cannot be explained."""
    with tempfile.TemporaryDirectory(prefix="txpaxos-pauses-") as folder:
        counts, recorder = run(lambda reactor: pause_often(reactor, Path(folder), pauses, Random(seed)))
        result = check(recorder.operations(), KeyValue())
    if not counts.replaced:
        raise CommandError("no pause led to another leader: this machine is too slow, or too busy")
    click.echo(
        f"{counts.pauses} pauses of the leader, {counts.replaced} of them with another leader after it;"
        f" {counts.reads} reads, {counts.puts} puts"
    )
    click.echo(result.report())
    raise SystemExit(0 if result.linearizable else 1)


if __name__ == "__main__":
    main()
