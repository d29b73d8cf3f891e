"""Ours and theirs on this machine, in turn in one run (A B, B A): rates, latencies, and what they cost.

    python -m bench.compare [all | closed | open | ...] [--pairs 3] [--seconds 5] [--json FILE] [--plot FILE.png]

etcd is Debian's ``etcd-server``, driven by ``h2load`` of Debian's ``nghttp2-client``; PySyncObj is from PyPI
(``pip install 'txpaxos[bench]'``). What is not there is skipped.
"""

from __future__ import annotations

import functools
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import click

from bench import wires
from bench.experiments import (
    in_process,
    leader_kills,
    long_runs,
    network_loads,
    observed,
    one_write,
    profiles,
    recipes,
    silent_leaders,
    slow_disk,
)
from bench.machine import about, in_memory
from bench.plot import plot
from bench.report import Report
from bench.setting import Setting
from txpaxos.cli.running import CommandError, run

Experiment: TypeAlias = Callable[[Setting], Awaitable[Report]]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Compare txpaxos with etcd and PySyncObj on this machine."""


def options(pairs: int, seconds: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options of every experiment, with what they are unless given."""

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        for option in (
            click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw it there (PNG)."),
            click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures there."),
            click.option(
                "--only", type=click.Choice(["txpaxos", "etcd", "PySyncObj", "kazoo"]), help="Without the others."
            ),
            click.option("--seconds", default=seconds, help="Each time."),
            click.option("--pairs", default=pairs, help="How often each is measured."),
        ):
            command = option(command)
        return command

    return with_options


def perform(
    experiments: list[Experiment],
    pairs: int,
    seconds: float,
    only: str | None,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Run experiments one after the other, and print what each found as soon as it is there."""

    machine = about()
    if in_memory(tempfile.gettempdir()):
        click.echo(
            f"{tempfile.gettempdir()} is in memory, where a sync costs nothing: set TMPDIR to a folder on a disk",
            err=True,
        )
    failed: list[CommandError] = []

    async def work(reactor: Any) -> list[Report]:
        reports = []
        for experiment in experiments:
            began = reactor.seconds()
            try:
                with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as folder:
                    report = await experiment(Setting(reactor, Path(folder), pairs, seconds, only))
            except CommandError as error:  # The others can be made all the same.
                failed.append(error)
                error.show()
                continue
            click.echo(f"{report}\n\n({reactor.seconds() - began:.0f} s)\n")
            reports.append(report)
        return reports

    conclude(run(work), machine, json_file, plot_file)
    if failed:
        raise SystemExit(1)


def conclude(reports: list[Report], machine: dict[str, Any], json_file: Path | None, plot_file: Path | None) -> None:
    """Print all targets once more if there were several experiments, and write what is to be written."""
    found = {report.name: report.data for report in reports}
    verdicts = [str(verdict) for report in reports for verdict in report.verdicts]
    if len(reports) > 1:
        click.echo("\n".join(["== targets", "", *verdicts]))
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine, "found": found, "verdicts": verdicts}))
    if plot_file is not None:
        plot(found, plot_file)


@main.command()
@options(pairs=3, seconds=5.0)
@click.option("--outstanding", multiple=True, type=int, default=network_loads.OUTSTANDING)
def closed(outstanding: tuple[int, ...], **common: Any) -> None:
    """Closed loop: a fixed number of puts of 100 bytes under way, over 16 connections of one client process."""
    perform([functools.partial(network_loads.closed, outstanding=outstanding)], **common)


@main.command()
@options(pairs=3, seconds=3.0)
@click.option("--outstanding", multiple=True, type=int, default=network_loads.OUTSTANDING)
def keys(outstanding: tuple[int, ...], **common: Any) -> None:
    """Closed loop with keys and without, beside etcd with TLS and without: what keys cost."""
    perform([functools.partial(network_loads.secured, outstanding=outstanding)], **common)


@main.command("observed")
@options(pairs=5, seconds=3.0)
def observed_(**common: Any) -> None:
    """Closed loop with metrics, JSON logs and a recording, and without: what it costs to see what a node does."""
    perform([observed.observed], **common)


@main.command("open")
@options(pairs=2, seconds=5.0)
def open_loop(**common: Any) -> None:
    """Open loop: puts sent at half and at four fifths of the peak."""
    perform([network_loads.open_loop], **common)


@main.command()
@options(pairs=1, seconds=5.0)
def values(**common: Any) -> None:
    """Values of 100 bytes to 1 MiB."""
    perform([network_loads.values], **common)


@main.command()
@options(pairs=1, seconds=5.0)
def nodes(**common: Any) -> None:
    """Clusters of 3 to 9 nodes."""
    perform([network_loads.nodes], **common)


@main.command()
@options(pairs=1, seconds=2.0)
def syncs(**common: Any) -> None:
    """Syncs for each put."""
    perform([network_loads.count_syncs], **common)


@main.command("in-process")
@options(pairs=3, seconds=3.0)
def in_process_(**common: Any) -> None:
    """Ours and PySyncObj in process: the leader puts to itself."""
    perform([in_process.in_process], **common)


@main.command("recipes")
@options(pairs=2, seconds=3.0)
@click.option("--workers", multiple=True, type=int, default=recipes.WORKERS)
def recipes_(workers: tuple[int, ...], **common: Any) -> None:
    """Locks, queues and maps, beside etcd's and those of kazoo on ZooKeeper."""
    perform([functools.partial(recipes.recipes, workers=workers)], **common)


@main.command()
@options(pairs=3, seconds=3.0)
def one(**common: Any) -> None:
    """One write at a time: how far above the floor, and where its time goes."""
    perform([one_write.one_write], **common)


@main.command()
@options(pairs=1, seconds=5.0)
@click.option("--kills", default=leader_kills.KILLS)
def failover(kills: int, **common: Any) -> None:
    """Kill the leader, ours and etcd's in turn."""
    perform([functools.partial(leader_kills.fail_overs, kills=kills)], **common)


@main.command()
@options(pairs=1, seconds=5.0)
@click.option("--times", default=silent_leaders.TIMES)
def silent(times: int, **common: Any) -> None:
    """Silence the leader, ours and etcd's in turn: frozen, and, where this is root, cut off by dropped packets."""
    if not wires.is_entered() and not wires.missing():
        wires.enter([sys.executable, "-m", "bench.compare", *sys.argv[1:]])
    perform([functools.partial(silent_leaders.silent, times=times)], **common)


@main.command()
@options(pairs=1, seconds=10.0)
def kill(**common: Any) -> None:
    """Kill our leader in the middle of a closed loop."""
    perform([leader_kills.kill_under_load], **common)


@main.command("slow-disk")
@options(pairs=2, seconds=5.0)
def slow_disk_(**common: Any) -> None:
    """A disk whose every sync takes 5 ms more."""
    perform([slow_disk.slow_disk], **common)


@main.command()
@options(pairs=1, seconds=10.0)
@click.option("--commands", default=long_runs.COMMANDS)
def growth(commands: int, **common: Any) -> None:
    """The cost of a put, from ten thousand commands to millions."""
    perform([functools.partial(long_runs.growth, commands=commands)], **common)


@main.command()
@options(pairs=1, seconds=10.0)
@click.option("--minutes", default=10.0)
def steady(minutes: float, **common: Any) -> None:
    """Full load for ten minutes, while the log is compacted."""
    perform([functools.partial(long_runs.steady, minutes=minutes)], **common)


@main.command()
@options(pairs=1, seconds=5.0)
@click.option("--outstanding", default=64)
@click.option("--value-bytes", default=65_536)
def profile(outstanding: int, value_bytes: int, **common: Any) -> None:
    """What our nodes do with their time, function by function."""
    perform([functools.partial(profiles.profile, outstanding=outstanding, value_bytes=value_bytes)], **common)


@main.command("all")
@options(pairs=3, seconds=2.0)
@click.option("--long", "is_long", is_flag=True, help="With 5,000,000 commands, 20 kills, and 10 minutes: an hour.")
def all_(is_long: bool, pairs: int, **common: Any) -> None:
    """All of these; those that take long, shortened."""
    perform(experiments_of_all(is_long, pairs), pairs=pairs, **common)


def experiments_of_all(is_long: bool, pairs: int) -> list[Experiment]:
    """The experiments of ``all``. The first three, which the most important targets are about, run as often as
    requested, the others once."""

    def once(experiment: Experiment) -> Experiment:
        return experiment if is_long else lambda setting: experiment(attrs.evolve(setting, pairs=1))

    kills, commands, minutes = (20, long_runs.COMMANDS, 10.0) if is_long else (5, 100_000, 0.25)
    return [
        network_loads.closed,
        in_process.in_process,
        one_write.one_write,
        once(network_loads.secured),
        once(observed.observed),
        once(network_loads.count_syncs),
        once(network_loads.open_loop),
        once(network_loads.values),
        once(network_loads.nodes),
        once(functools.partial(leader_kills.fail_overs, kills=kills)),
        once(functools.partial(silent_leaders.silent, times=kills)),
        once(leader_kills.kill_under_load),
        once(slow_disk.slow_disk),
        once(recipes.recipes),
        once(functools.partial(long_runs.growth, commands=commands)),
        once(functools.partial(long_runs.steady, minutes=minutes)),
    ]


if __name__ == "__main__":
    main()
