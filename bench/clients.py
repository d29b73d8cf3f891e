"""How many clients a cluster bears: all connected at once, each of them answered, with what that takes.

    python bench/clients.py --clients 5000

Three nodes run on this machine. Every client is a :class:`~txpaxos.client.Client` with a connection and a session of
its own. Each submits one command while all connect, and then more, one after the other, while all do.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import attrs
import click

from bench import machine
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import CommandError, run, together
from txpaxos.cli.status import ask_nodes
from txpaxos.client import Client

NODES = ("a", "b", "c")
STEP_SECONDS_MAX = 120.0
FILES_BESIDE = 200
"""Open files of a process beside its clients' connections."""


@attrs.frozen
class Round:
    """Every client had one command applied: how long that took all of them, and each of them, in seconds."""

    seconds: float
    median_seconds: float
    worst_seconds: float


@attrs.frozen
class Measured:
    """What was found.

    :ivar rounds: the first is that in which all connect.
    :ivar connected: clients that each node has in the end.
    :ivar node_bytes: memory of all nodes before and after, resident.
    :ivar total: the counter in the end: how many commands were applied.
    """

    clients: int
    rounds: list[Round]
    connected: dict[str, int]
    node_bytes: tuple[int, int]
    total: int


async def measure(reactor: Any, folder: Path, count: int, rounds: int) -> Measured:
    """Connect ``count`` clients and have each submit ``rounds`` commands.

    :raises CommandError: if they were not all connected, or a command was not applied once.
    """
    nodes = LocalCluster(reactor, "bench", NODES, folder)
    clients: list[Client] = []
    try:
        await nodes.start_all(STEP_SECONDS_MAX)
        before = resident_bytes(nodes)
        clients += [Client(reactor, nodes.cluster) for _ in range(count)]
        measured = [await one_round(reactor, clients) for _ in range(rounds)]
        after = resident_bytes(nodes)
        statuses = await ask_nodes(reactor, nodes.cluster, STEP_SECONDS_MAX)
        connected = {node: status["clients"] - 1 for node, status in statuses.items() if status}  # But who asks.
        if sum(connected.values()) != count:
            raise CommandError(f"of {count} clients are connected: {connected}")
        total = await clients[0].submit(b"+0", STEP_SECONDS_MAX)
        if total != count * rounds:
            raise CommandError(f"{count * rounds} increments were acknowledged, and the total is {total}")
        return Measured(count, measured, connected, (before, after), total)
    finally:
        for client in clients:
            client.close()
        await nodes.stop()


async def one_round(reactor: Any, clients: list[Client]) -> Round:
    """Every client submits a command, all at once."""
    began = reactor.seconds()

    async def submit(client: Client) -> float:
        await client.submit(b"+1", STEP_SECONDS_MAX)
        seconds: float = reactor.seconds() - began
        return seconds

    each = await together(*map(submit, clients))
    return Round(max(each), statistics.median(each), max(each))


def resident_bytes(nodes: LocalCluster) -> int:
    """The memory that all nodes have now."""
    return sum(machine.resident_bytes(node.pid) for node in nodes.processes.values())


def allow_files(count: int) -> None:
    """Let this process and its children open ``count`` files, if they may not already.

    :raises CommandError: if the system does not let them.
    """
    present, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if present == resource.RLIM_INFINITY or present >= count:
        return
    if most != resource.RLIM_INFINITY and most < count:
        raise CommandError(f"{count} open files are needed and {most} allowed: raise the limit with ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))


def as_text(measured: Measured) -> str:
    """The figures that matter."""
    first, *others = measured.rounds
    before, after = (size / 2**20 for size in measured.node_bytes)
    each = (after - before) * 1024 / measured.clients
    shares = ", ".join(f"{count} to {node}" for node, count in measured.connected.items())
    lines = [
        f"{measured.clients} clients connected and answered in {first.seconds:.2f} s",
        *(f"once more, all at once: {one.seconds:.2f} s, half of them in {one.median_seconds:.2f} s" for one in others),
        f"connected at once: {measured.clients} ({shares})",
        f"memory of the nodes: {before:.0f} MiB, then {after:.0f} MiB: {each:.1f} KiB a client",
        f"total {measured.total}: every command was applied once",
    ]
    return "\n".join(lines)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--clients", type=click.IntRange(1, 10_000), default=5000, show_default=True, help="How many connect.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Commands of each.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(clients: int, rounds: int, wants_json: bool) -> None:
    """Measure what it takes to have many clients connected at once."""
    allow_files(clients + FILES_BESIDE)
    with tempfile.TemporaryDirectory(prefix="txpaxos-bench-") as folder:
        measured = run(lambda reactor: measure(reactor, Path(folder), clients, rounds))
    about = {**attrs.asdict(measured), **machine.about()}
    click.echo(json.dumps(about, indent=2) if wants_json else as_text(measured))


if __name__ == "__main__":
    main()
