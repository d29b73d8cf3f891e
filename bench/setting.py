"""What all experiments are given, and how they run what they compare: in turn, A B, B A."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import click

from bench import etcd, pysyncobj_cluster, zookeeper
from bench.figures import Sample
from bench.report import Point
from bench.system import Load, System


@attrs.frozen
class Setting:
    """Where and how much.

    :ivar folder: for what the systems save; on the disk that is measured.
    :ivar pairs: how often each system is measured under each load.
    :ivar seconds: each time.
    :ivar only: the one system that is measured, if not all.
    """

    reactor: Any
    folder: Path
    pairs: int = 3
    seconds: float = 5.0
    only: str | None = None

    def has(self, system: str) -> bool:
        """Whether a system takes part. Says so if it is to, and cannot."""
        if self.only is not None and not system.startswith(self.only):
            return False
        absent = {
            "etcd": etcd.absent,
            "etcd with TLS": etcd.absent,
            "etcd by gRPC": etcd.absent_for_grpc,
            "PySyncObj": pysyncobj_cluster.absent,
            "kazoo": zookeeper.absent,
        }.get(system)
        missing = absent() if absent else None
        if missing:
            self.say(f"{system} is skipped: {missing}")
        return missing is None

    def say(self, line: str) -> None:
        """Print how far the run is."""
        click.echo(line, err=True)

    def new_folder(self, name: str) -> Path:
        """A folder that is not there yet."""
        count = sum(1 for one in self.folder.iterdir() if one.name.startswith(f"{name}-"))
        return self.folder / f"{name}-{count + 1}"


@asynccontextmanager
async def running(systems: Sequence[System]) -> AsyncIterator[None]:
    """Start all, and stop all at the end."""
    try:
        for system in systems:
            await system.start()
        yield
    finally:
        for system in systems:
            await system.stop()


async def alternate(setting: Setting, systems: Sequence[System], loads: Mapping[str, Load]) -> list[Point]:
    """Put each load on each system in turn, as often as the setting says. Another system is the first each time: what
    comes first is favoured, or bears what the load before has left to write.

    :param loads: by what they are called.
    """
    samples: dict[str, dict[str, list[Sample]]] = {label: {one.name: [] for one in systems} for label in loads}
    for pair in range(1, setting.pairs + 1):
        for label, load in loads.items():
            first = (pair - 1) % len(systems)
            for system in (*systems[first:], *systems[:first]):
                sample = await system.put(load)
                samples[label][system.name].append(sample)
                setting.say(f"{label}, {system.name}, {pair} of {setting.pairs}: {sample.rate:.0f} puts/s")
    return [Point(label, taken) for label, taken in samples.items()]


def as_data(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The same, as JSON can carry it."""
    return [attrs.asdict(point) for point in points]
