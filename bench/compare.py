"""Ours and theirs on this machine, in turn in one run (A B A B): rates, latencies, CPU, datagrams.

python -m bench.compare closed [--pairs 3] [--seconds 5] [--json FILE]
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from bench import etcd
from bench.etcd import Etcd
from bench.figures import Sample, median_sample, ratio_of_pairs
from bench.machine import about
from bench.ours import Ours
from bench.system import Load, System
from txpaxos.cli.printing import table
from txpaxos.cli.running import run

OUTSTANDING = (1, 64, 256, 1024)
HEAD = ("outstanding", "system", "puts/s", "ratio", "p50 ms", "p99 ms", "p99.9 ms")
HEAD_COSTS = ("CPU us leader", "followers", "client", "datagrams")


@attrs.frozen
class Point:
    """One load, and what was measured under it: system to its samples, in the order of the runs."""

    load: Load
    samples: dict[str, list[Sample]]


async def alternate(systems: Sequence[System], loads: Sequence[Load], pairs: int) -> list[Point]:
    """Put each load on each system in turn, so often."""
    points = [Point(load, {system.name: [] for system in systems}) for load in loads]
    for pair in range(pairs):
        for point in points:
            for system in systems:
                sample = await system.put(point.load)
                point.samples[system.name].append(sample)
                click.echo(f"pair {pair + 1}: {point.load.outstanding} {system.name} {sample.rate:.0f}/s", err=True)
    return points


def as_text(points: Sequence[Point], ours: str = Ours.name) -> str:
    """A row for each load and system."""
    rows = []
    for point in points:
        for name, samples in point.samples.items():
            middle = median_sample(samples)
            ratio = ratio_of_pairs([one.rate for one in point.samples[ours]], [one.rate for one in samples])
            latencies = (middle.latencies.p50_seconds, middle.latencies.p99_seconds, middle.latencies.p999_seconds)
            cpu = [f"{middle.cpu_seconds[role] * 1e6:.1f}" for role in ("leader", "followers", "client")]
            row = [point.load.outstanding, name, f"{middle.rate:.0f}", "" if name == ours else f"{ratio:.2f}"]
            rows.append([*row, *(f"{one * 1e3:.3f}" for one in latencies), *cpu, f"{middle.datagrams:.2f}"])
    return table((*HEAD, *HEAD_COSTS), rows)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Compare txpaxos with etcd and PySyncObj on this machine."""


@main.command()
@click.option("--pairs", default=3, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--outstanding", multiple=True, type=int, default=OUTSTANDING, show_default=True)
@click.option("--only", type=click.Choice(["txpaxos", "etcd"]), help="Without the other.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def closed(pairs: int, seconds: float, outstanding: tuple[int, ...], only: str | None, json_file: Path | None) -> None:
    """Closed loop: so many puts of 100 bytes under way, over 16 connections of one client process."""
    missing = etcd.absent()
    if missing and only != Ours.name:
        click.echo(f"etcd is skipped: {missing}", err=True)

    async def work(reactor: Any) -> list[Point]:
        with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as folder:
            systems: list[System] = []
            if only != Etcd.name:
                systems.append(Ours(reactor, Path(folder) / "ours"))
            if not missing and only != Ours.name:
                systems.append(Etcd(reactor, Path(folder) / "etcd"))
            try:
                for system in systems:
                    await system.start()
                return await alternate(systems, [Load(one, seconds) for one in outstanding], pairs)
            finally:
                for system in systems:
                    await system.stop()

    points = run(work)
    click.echo(as_text(points, ours=only or Ours.name))
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": about(), "closed": [attrs.asdict(one) for one in points]}))


if __name__ == "__main__":
    main()
