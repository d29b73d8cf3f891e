"""What snapshots cost: the reactor's longest stop while one is taken, a restart, and commits beside a transfer.

    python bench/snapshots.py stall    [--megabytes 100]
    python bench/snapshots.py restart  [--commands 1000000] [--after 10000]
    python bench/snapshots.py transfer [--megabytes 100] [--rounds 3]
    python bench/snapshots.py arrive   [--megabytes 300] [--rate 6]

All with the key-value store of examples/kv.py, nodes and clients on this machine. But for ``arrive``, which has default
settings, snapshots are taken when this program says so, and not in their time.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall, deferLater

from txpaxos.cli.local_cluster import LocalCluster, free_members
from txpaxos.cli.running import run
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.node.datagram_port import DatagramPort
from txpaxos.node.node import Node
from txpaxos.node.settings import Settings
from txpaxos.storage.store import DiskStore
from txpaxos.tap import load_application

APP = Path(__file__).parent.parent / "examples" / "kv.py"
VALUE_BYTES = 330
BATCH = 1000
STEP_SECONDS_MAX = 120.0
LOAD_SECONDS = 10.0
OUTSTANDING = 64
ALONE = Cluster("bench", {"a": Member(Address("127.0.0.1", 0), Address("127.0.0.1", 0))})


def put(key: int, value: bytes) -> bytes:
    """A command."""
    return msgspec.msgpack.encode(["put", f"key {key}", value])


@contextmanager
def node_alone(reactor: Any, folder: str) -> Iterator[Any]:
    """A node of its own cluster in this process, that takes a snapshot when ``node.policy.log_bytes`` is 0."""
    policy = SimpleNamespace(log_bytes=2**60)
    store = DiskStore(folder, ALONE.name, "a", reactor=reactor)
    settings = Settings(snapshot_policy=policy)  # type: ignore[arg-type]
    node: Any = Node(load_application(f"{APP}:KeyValue")(), reactor, "a", ALONE, store, settings)
    port = reactor.listenUDP(0, DatagramPort(node), "127.0.0.1")
    node.policy = policy
    try:
        yield node
    finally:
        node.stop()
        port.stopListening()


async def take_snapshot(reactor: Any, node: Any) -> int:
    """Have ``node`` take a snapshot. Its bytes."""
    before = node.status().compaction.snapshot_slot
    node.policy.log_bytes = 0
    await node.submit(put(0, b"the last one before it"))
    await deferLater(reactor, 0)
    node.policy.log_bytes = 2**60
    while node.status().compaction.snapshot_slot == before:
        await deferLater(reactor, 0.01)
    return int(node._store.snapshot.size_bytes)


class Watch:
    """How long the reactor does not come round, at most."""

    def __init__(self, reactor: Any) -> None:
        self.longest_seconds = 0.0
        self._last = time.perf_counter()
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self._loop.start(0.001)

    def stop(self) -> float:
        """The longest stop, in seconds."""
        self._loop.stop()
        return self.longest_seconds

    def _tick(self) -> None:
        now = time.perf_counter()
        self.longest_seconds = max(self.longest_seconds, now - self._last)
        self._last = now


@click.group()
def main() -> None:
    """See the top of this file."""


@main.command()
@click.option("--megabytes", default=100, show_default=True)
def stall(megabytes: int) -> None:
    """The reactor's longest stop while a snapshot is taken."""

    async def measure(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as folder, node_alone(reactor, folder) as node:
            items = megabytes * 10**6 // (VALUE_BYTES + 20)
            node.items.update((f"key {key}", (os.urandom(VALUE_BYTES), key)) for key in range(items))
            await node.submit(put(0, b"first"))
            idle = Watch(reactor)
            await deferLater(reactor, 1.0)
            idle_seconds = idle.stop()
            watch, begun = Watch(reactor), time.perf_counter()
            size = await take_snapshot(reactor, node)
            seconds = time.perf_counter() - begun
            longest = watch.stop()
        click.echo(
            f"snapshot of {size / 1e6:.1f} MB, {items:,} items, in {seconds:.2f} s: longest stop {longest * 1e3:.1f} ms"
            f" (idle: {idle_seconds * 1e3:.1f} ms)"
        )

    run(measure)


@main.command()
@click.option("--commands", default=1_000_000, show_default=True, help="Behind the snapshot.")
@click.option("--after", default=10_000, show_default=True, help="After it.")
def restart(commands: int, after: int) -> None:
    """From the start of the process until it answers with all that is in its log."""

    async def fill(reactor: Any, folder: str) -> int:
        with node_alone(reactor, folder) as node:
            await deferLater(reactor, 1.0)
            for number in range(commands // BATCH):
                await _all([node.submit(put(number * BATCH + one, os.urandom(80))) for one in range(BATCH)])
                if number % 10 == 9:
                    node.items = dict(list(node.items.items())[-100_000:])
            await take_snapshot(reactor, node)
            for number in range(after):
                await node.submit(put(number, os.urandom(80)))
            applied = node.applied_through
            await node.stop()
        return int(applied)

    async def measure(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
            folder = Path(name)
            applied = await fill(reactor, f"{folder}/a")
            times = []
            for _ in range(5):
                nodes = LocalCluster(reactor, "bench", ("a",), folder, ["--app", f"{APP}:KeyValue"])
                nodes.cluster = attrs.evolve(nodes.cluster, members={"a": free_members(1)[0]})
                nodes.file.write_text(nodes.cluster.dumps())
                begun = time.perf_counter()
                nodes.start("a")

                def is_back(statuses: Any) -> bool:
                    return bool(statuses["a"]) and statuses["a"]["applied_through"] >= applied

                await nodes.wait_until(is_back, "the restart", STEP_SECONDS_MAX)
                times.append(time.perf_counter() - begun)
                await nodes.stop()
        click.echo(
            f"restart with {commands:,} commands in a snapshot and {after:,} after it, one to a slot, process and all:"
            f" median {statistics.median(times):.2f} s, worst {max(times):.2f} s of {len(times)}"
        )

    run(measure)


@main.command()
@click.option("--megabytes", default=100, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def transfer(megabytes: int, rounds: int) -> None:
    """Commits with and without a node beside them that takes a snapshot from another."""

    async def rate(reactor: Any, client: Client, until: Deferred[Any]) -> float:
        """Commands a second, with a fixed number under way, until ``until`` fires."""
        count, begun = 0, time.perf_counter()

        async def work() -> None:
            nonlocal count
            while not until.called:
                await client.submit(put(count % 1000, bytes(100)))
                count += 1

        await _all([Deferred.fromCoroutine(work()) for _ in range(OUTSTANDING)])
        return count / (time.perf_counter() - begun)

    async def fill(client: Client) -> None:
        for number in range(megabytes * 100 // 16):
            await _all([client.submit(put(number * 16 + one, os.urandom(10_000))) for one in range(16)])

    async def leave_behind(nodes: LocalCluster, node: str, client: Client) -> None:
        await nodes.kill(node)
        await fill(client)  # The others' logs now begin after its own ends.
        await fill(client)
        nodes.start(node)

    def is_taking(node: str) -> Callable[[Any], bool]:
        return lambda statuses: bool(statuses[node]) and statuses[node]["transfer"] is not None

    async def measure(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
            options = ["--app", f"{APP}:KeyValue", "--snapshot-log-bytes", f"{megabytes * 10**6 // 2}"]
            nodes = LocalCluster(reactor, "bench", ("a", "b", "c"), Path(name), options)
            ratios = []
            try:
                leader = await nodes.start_all(STEP_SECONDS_MAX)
                away = next(node for node in "abc" if node != leader)
                with closing(Client(reactor, nodes.cluster)) as client:
                    await fill(client)
                    for _ in range(rounds):
                        await nodes.wait_until(nodes.is_level, "rest", STEP_SECONDS_MAX)
                        without = await rate(reactor, client, deferLater(reactor, LOAD_SECONDS))
                        await leave_behind(nodes, away, client)
                        await nodes.wait_until(is_taking(away), "a transfer", STEP_SECONDS_MAX)
                        begun = time.perf_counter()
                        taken = nodes.wait_until(lambda statuses: not is_taking(away)(statuses), "its end", 60.0)
                        beside = await rate(reactor, client, Deferred.fromCoroutine(taken))
                        ratios.append(beside / without)
                        seconds = time.perf_counter() - begun
                        click.echo(
                            f"{without:,.0f}/s with three nodes, {beside:,.0f}/s beside a transfer ({seconds:.1f} s)"
                        )
            finally:
                await nodes.stop()
        ratio = statistics.median(ratios)
        click.echo(f"commits beside a transfer of {megabytes} MB: {ratio:.2f} of those without, median of {rounds}")

    run(measure)


@main.command()
@click.option("--megabytes", default=300, show_default=True, help="Of the state.")
@click.option("--rate", default=6.0, show_default=True, help="What others write meanwhile, in MB/s.")
def arrive(megabytes: int, rate: float) -> None:
    """From the start of a node that was away, to when it is level with the others, who are written to all the time."""
    value_bytes = 500_000
    keys = megabytes * 10**6 // value_bytes

    async def write(reactor: Any, client: Client, until: Deferred[Any]) -> float:
        """What is written in a second, in MB, until then. Each write begins in its time, whatever became of others."""
        count, begun, under_way = 0, time.perf_counter(), set[Deferred[Any]]()

        def done(written: Deferred[Any], _: object) -> None:
            under_way.discard(written)

        while not until.called:
            if len(under_way) < OUTSTANDING:
                written = client.submit(put(count % keys, bytes([count % 256]) * value_bytes))
                under_way.add(written)
                written.addBoth(partial(done, written))
                count += 1
            await deferLater(reactor, max(0.0, begun + count * value_bytes / rate / 1e6 - time.perf_counter()))
        await _all(list(under_way))
        return count * value_bytes / 1e6 / (time.perf_counter() - begun)

    async def measure(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as name:
            nodes = LocalCluster(reactor, "bench", ("a", "b", "c"), Path(name), ["--app", f"{APP}:KeyValue"])
            try:
                leader = await nodes.start_all(STEP_SECONDS_MAX)
                away = next(node for node in "abc" if node != leader)
                await nodes.kill(away)
                with closing(Client(reactor, nodes.cluster)) as client:
                    for key in range(keys):
                        await client.submit(put(key, os.urandom(value_bytes)))
                    nodes.start(away)
                    begun = time.perf_counter()

                    def is_level(statuses: Any) -> bool:
                        if not all(statuses.values()) or statuses[away]["transfer"]:
                            return False
                        applied = [status["applied_through"] for status in statuses.values()]
                        return bool(statuses[away]["snapshot_slot"]) and max(applied) - min(applied) < 10

                    level = Deferred.fromCoroutine(nodes.wait_until(is_level, "level nodes", 10 * STEP_SECONDS_MAX))
                    written = await write(reactor, client, level)
                    seconds = time.perf_counter() - begun
            finally:
                await nodes.stop()
        click.echo(
            f"{megabytes} MB of state: a node without it was level {seconds:.1f} s after its start,"
            f" beside {written:.1f} MB/s of writes"
        )

    run(measure)


async def _all(waiting: list[Deferred[Any]]) -> None:
    await DeferredList(waiting, fireOnOneErrback=True, consumeErrors=True)


if __name__ == "__main__":
    sys.exit(main())
