"""How long a cluster stands still when its leader is killed: from ``kill -9`` to the next acknowledged increment.

    python bench/failover.py [--kills 20] [--json]

Three ``twistd paxos`` nodes on this machine, at default settings, and one client with one increment under way. Each
kill comes while an increment is; what counts is the first one that was sent after it, so no answer that the dead leader
still gave. The killed node is started again, and the next kill waits until all three are level.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import attrs
import click

from bench.machine import about
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import run
from txpaxos.cli.status import leader_of
from txpaxos.client import Client

NODES = ("a", "b", "c")
INCREMENTS = 50
"""Before each kill."""

STEP_SECONDS_MAX = 30.0


@attrs.frozen
class FailOver:
    """One kill: who led, who leads now, and the seconds from the kill to the next acknowledged increment."""

    killed: str
    successor: str
    seconds: float


async def measure(reactor: Any, folder: Path, kills: int) -> list[FailOver]:
    """Kill the leader ``kills`` times."""
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    measured: list[FailOver] = []
    try:
        leader = await nodes.start_all(STEP_SECONDS_MAX)
        with closing(Client(reactor, nodes.cluster)) as client:
            for _ in range(kills):
                for _ in range(INCREMENTS):
                    await client.submit(b"+1")
                killed, seconds = leader, await fail_over(reactor, nodes, client, leader)
                nodes.start(killed)
                statuses = await nodes.wait_until(nodes.is_level, f"{killed}'s catch-up", STEP_SECONDS_MAX)
                leader = leader_of(nodes.cluster, statuses) or ""
                measured.append(FailOver(killed, leader, seconds))
    finally:
        await nodes.stop()
    return measured


async def fail_over(reactor: Any, nodes: LocalCluster, client: Client, leader: str, command: bytes = b"+1") -> float:
    """Kill the leader. The seconds until a command that was sent after that is acknowledged."""
    under_way = client.submit(command).addTimeout(STEP_SECONDS_MAX, reactor)
    process = nodes.processes.pop(leader)
    process.signal("KILL")
    killed_at: float = reactor.seconds()
    await under_way
    await client.submit(command).addTimeout(STEP_SECONDS_MAX, reactor)
    seconds: float = reactor.seconds() - killed_at
    await process.wait()
    return seconds


def as_text(measured: list[FailOver]) -> str:
    """A row for each kill, and the figures that matter."""
    rows = [(number, one.killed, one.successor, f"{one.seconds:.3f}") for number, one in enumerate(measured, 1)]
    seconds = [one.seconds for one in measured]
    return (
        f"{table(('kill', 'of', 'then', 'seconds'), rows)}\n\n"
        f"median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s, of {len(seconds)} kills of the leader"
    )


def as_json(measured: list[FailOver]) -> str:
    """The same, and where it was measured."""
    seconds = [one.seconds for one in measured]
    return json.dumps(
        {
            "fail_overs": [attrs.asdict(one) for one in measured],
            "median_seconds": statistics.median(seconds),
            "worst_seconds": max(seconds),
            **about(),
        },
        indent=2,
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--kills", type=click.IntRange(min=1), default=20, show_default=True, help="How often to kill the leader."
)
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(kills: int, wants_json: bool) -> None:
    """Measure how long a cluster stands still when its leader is killed."""
    with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as folder:
        measured = run(lambda reactor: measure(reactor, Path(folder), kills))
    click.echo(as_json(measured) if wants_json else as_text(measured))


if __name__ == "__main__":
    main()
