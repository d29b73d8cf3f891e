"""Locks, queues and maps: ours, etcd's (its concurrency API, puts, transactions), and those of kazoo on ZooKeeper.

Each is driven by one client process in Python, with a number of workers that go on with the next operation once the
last one is answered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import attrs

from bench.etcd import Etcd
from bench.figures import Latencies, Sample, median_sample
from bench.report import Point, Report, TargetCheck, at_least
from bench.setting import Setting, as_data
from bench.system import START_SECONDS_MAX, output_of
from bench.zookeeper import ZooKeeper
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table

OURS = "txpaxos"
COORDINATOR = "txpaxos.recipes:Coordinator"
WORKLOADS = {
    "lock": "take and release a lock; each worker has its own",
    "contended lock": "take and release one lock, for which all workers wait",
    "queue": "put an item, take one, acknowledge it",
    "map put": "put a value of 100 bytes; each worker has its own key",
    "map transaction": "put a value if the key has the version that it had; each worker has its own key",
}
WORKERS = (1, 16)
NOT_THERE = {("etcd", "queue")}
"""Etcd has queues in Go alone, outside of its server."""


@attrs.frozen
class Driven:
    """What is compared: where it is, and the module that drives it."""

    name: str
    module: str
    where: str


async def recipes(setting: Setting, workers: Sequence[int] = WORKERS) -> Report:
    """Each workload on each system in turn."""
    ours = LocalCluster(setting.reactor, "bench", "abc", setting.new_folder("recipes"), ["--app", COORDINATOR])
    ours.folder.mkdir()
    etcd = Etcd(setting.reactor, setting.new_folder("etcd")) if setting.has("etcd by gRPC") else None
    zookeeper = ZooKeeper(setting.reactor, setting.new_folder("zookeeper")) if setting.has("kazoo") else None
    driven = []
    try:
        if setting.has(OURS):
            await ours.start_all(START_SECONDS_MAX)
            driven.append(Driven(OURS, "bench.recipes.our_driver", str(ours.file)))
        if etcd is not None:
            await etcd.start()
            driven.append(Driven("etcd", "bench.recipes.etcd_driver", etcd.url(etcd.leader).removeprefix("http://")))
        if zookeeper is not None:
            await zookeeper.start()
            driven.append(Driven("kazoo", "bench.recipes.kazoo_driver", zookeeper.addresses))
        points = [await _measure(setting, driven, what, count) for what in WORKLOADS for count in workers]
    finally:
        await ours.stop()
        if etcd is not None:
            await etcd.stop()
        if zookeeper is not None:
            await zookeeper.stop()
    legend = "\n".join(f"{name}: {what}" for name, what in WORKLOADS.items())
    return Report("recipes", f"{_as_table(points)}\n\n{legend}", _verdicts(points), {"points": as_data(points)})


async def _measure(setting: Setting, driven: Sequence[Driven], workload: str, workers: int) -> Point:
    """One workload on all systems that have it, in turn."""
    taking_part = [one for one in driven if (one.name, workload) not in NOT_THERE]
    samples: dict[str, list[Sample]] = {one.name: [] for one in taking_part}
    for pair in range(1, setting.pairs + 1):
        for one in taking_part:
            arguments = ["-m", one.module, one.where, workload, f"{workers}", f"{setting.seconds}"]
            found: dict[str, Any] = json.loads(await output_of(setting.reactor, sys.executable, arguments))
            operations, seconds = found.pop("operations"), found.pop("seconds")
            samples[one.name].append(Sample(operations, seconds, Latencies(**found)))
            rate = samples[one.name][-1].rate
            setting.say(f"{workload}, {workers}, {one.name}, {pair} of {setting.pairs}: {rate:.0f} a second")
    return Point(f"{workload}, {workers}", samples)


def _as_table(points: Sequence[Point]) -> str:
    rows = []
    for point in points:
        for system, samples in point.samples.items():
            middle = median_sample(samples)
            ratio = None if system == OURS else point.ratio(OURS, system)
            seconds = middle.latencies.p50_seconds, middle.latencies.p99_seconds
            cells = [f"{middle.rate:.0f}", "" if ratio is None else f"{ratio:.2f}"]
            rows.append([point.label, system, *cells, *(f"{one * 1e3:.2f}" for one in seconds)])
    return table(("what, workers", "system", "a second", "ours/theirs", "p50 ms", "p99 ms"), rows)


def _verdicts(points: Sequence[Point]) -> list[TargetCheck]:
    """That ours does at least as many as each other one."""
    return [
        at_least(f"{point.label}: rate in that of {system}", point.ratio(OURS, system), 1.0)
        for point in points
        for system in point.samples
        if system != OURS
    ]
