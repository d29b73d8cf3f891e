"""A long life in a short time: a key-value store under load while its nodes are killed and come back, all the time.

    python bench/life.py [--commands 5000000] [--kill-seconds 4] [--json FILE] [--plot FILE.png]

Three ``twistd paxos`` nodes on this machine at default settings run examples/kv.py; this process keeps commands under
way all the time, killing one node after the other and starting it again. Told are the bytes on each node's disk, the
memory of each process, and how long a node takes from its start until it has applied what was chosen when it started.
What is to be seen: all three stay flat, however many commands there were. The plot needs matplotlib.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import attrs
import click
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from bench.machine import disk_bytes, resident_bytes
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import run
from txpaxos.cli.status import ask_nodes
from txpaxos.client import Client

NODES = ("a", "b", "c")
CLIENTS = 4
KEYS = 50_000
VALUE_BYTES = 100
SAMPLE_SECONDS = 2.0
STEP_SECONDS_MAX = 60.0
APP = Path(__file__).parent.parent / "examples" / "kv.py"


@attrs.frozen
class Sample:
    """How a node is at a moment: ``commands`` answered so far, bytes on its disk and in its memory."""

    seconds: float
    commands: int
    node: str
    disk_bytes: int
    memory_bytes: int


@attrs.frozen
class Restart:
    """A node that was killed and started again: seconds until it was applying what is new."""

    commands: int
    node: str
    seconds: float


class Life:
    """The run."""

    def __init__(self, reactor: Any, nodes: LocalCluster, commands: int, outstanding: int, seed: int) -> None:
        self.samples: list[Sample] = []
        self.restarts: list[Restart] = []
        self.answered = 0
        self.began_at = reactor.seconds()
        self._reactor = reactor
        self._nodes = nodes
        self._commands = commands
        self._outstanding = outstanding
        self._rng = Random(seed)
        self._submitted = 0
        self._done: Deferred[None] = Deferred()

    async def live(self, kill_seconds: float) -> None:
        """Submit all commands, and kill meanwhile."""
        clients = [Client(self._reactor, self._nodes.cluster) for _ in range(CLIENTS)]
        sampling = LoopingCall(self._sample)
        sampling.start(SAMPLE_SECONDS)
        for client in clients:
            for _ in range(self._outstanding // CLIENTS):
                self._submit(client)
        for node in itertools.cycle(NODES):
            await deferLater(self._reactor, kill_seconds / 2)
            if self._done.called:
                break
            await self._nodes.kill(node)
            await deferLater(self._reactor, kill_seconds / 2)
            await self._restart(node)
        await self._done
        sampling.stop()
        for client in clients:
            client.close()

    def _submit(self, client: Client) -> None:
        if self._submitted >= self._commands:
            return
        self._submitted += 1
        key = f"key {self._rng.randrange(KEYS)}"
        command = msgspec.msgpack.encode(["put", key, self._rng.randbytes(VALUE_BYTES)])
        client.submit(command).addCallbacks(self._answered, self._done.errback, callbackArgs=(client,))

    def _answered(self, _: object, client: Client) -> None:
        self.answered += 1
        if self.answered == self._commands:
            self._done.callback(None)
        self._submit(client)

    async def _restart(self, node: str) -> None:
        statuses = await ask_nodes(self._reactor, self._nodes.cluster, 1.0, list(self._nodes.processes))
        chosen = max((status["applied_through"] for status in statuses.values() if status), default=0)
        started_at = self._reactor.seconds()
        self._nodes.start(node)

        def is_back(statuses: Any) -> bool:
            return bool(statuses[node]) and statuses[node]["applied_through"] >= chosen

        await self._nodes.wait_until(is_back, f"the return of {node}", STEP_SECONDS_MAX)
        self.restarts.append(Restart(self.answered, node, self._reactor.seconds() - started_at))

    def _sample(self) -> None:
        seconds = self._reactor.seconds() - self.began_at
        for node, process in self._nodes.processes.items():
            disk = disk_bytes(self._nodes.folder / node)
            try:
                memory = resident_bytes(process.pid)
            except OSError:
                continue
            self.samples.append(Sample(seconds, self.answered, node, disk, memory))


def _quarters(values: Sequence[tuple[int, float]], commands: int) -> list[float]:
    """The highest value in each quarter of the commands."""
    return [
        max((value for at, value in values if part * commands / 4 <= at < (part + 1) * commands / 4 + 1), default=0.0)
        for part in range(4)
    ]


def plot(life: Life, file: Path) -> None:
    """Draw it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(9, 8))
    for node in NODES:
        at = [one.commands / 1e6 for one in life.samples if one.node == node]
        axes[0].plot(at, [one.disk_bytes / 2**20 for one in life.samples if one.node == node], label=node)
        axes[1].plot(at, [one.memory_bytes / 2**20 for one in life.samples if one.node == node], label=node)
    axes[2].plot([one.commands / 1e6 for one in life.restarts], [one.seconds for one in life.restarts], "o")
    for axis, label in zip(axes, ("disk, MiB", "memory, MiB", "kill to caught up, s"), strict=True):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[0].legend(title="node")
    axes[2].set_xlabel("million commands")
    figure.tight_layout()
    figure.savefig(file, dpi=80)


@click.command()
@click.option("--commands", default=5_000_000, show_default=True)
@click.option("--kill-seconds", default=4.0, show_default=True, help="Between two kills.")
@click.option("--outstanding", default=512, show_default=True, help="Commands under way.")
@click.option("--snapshot-log-bytes", type=int, help="As of twistd paxos.")
@click.option("--seed", default=1, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all samples there.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw them there (PNG).")
def main(
    commands: int,
    kill_seconds: float,
    outstanding: int,
    snapshot_log_bytes: int | None,
    seed: int,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """See the top of this file."""
    options = ["--app", f"{APP}:KeyValue"]
    if snapshot_log_bytes is not None:
        options += ["--snapshot-log-bytes", f"{snapshot_log_bytes}"]

    async def live(reactor: Any) -> Life:
        with tempfile.TemporaryDirectory(prefix="txpaxos-life-") as folder:
            nodes = LocalCluster(reactor, "life", NODES, Path(folder), options)
            try:
                await nodes.start_all(STEP_SECONDS_MAX)
                life = Life(reactor, nodes, commands, outstanding, seed)
                await life.live(kill_seconds)
                await nodes.wait_until(nodes.is_level, "the end", STEP_SECONDS_MAX)
            finally:
                await nodes.stop()
            return life

    life = run(live)
    seconds = life.samples[-1].seconds
    disk = _quarters([(one.commands, one.disk_bytes / 2**20) for one in life.samples], commands)
    memory = _quarters([(one.commands, one.memory_bytes / 2**20) for one in life.samples], commands)
    restart = _quarters([(one.commands, one.seconds) for one in life.restarts], commands)
    click.echo(f"{life.answered:,} commands in {seconds:.0f} s, {len(life.restarts)} kills")
    for what, values, unit in (("disk", disk, "MiB"), ("memory", memory, "MiB"), ("restart", restart, "s")):
        told = ", ".join(f"{value:.1f}" for value in values)
        click.echo(f"most {what} of a node in each quarter of the commands: {told} {unit}")
    if json_file is not None:
        data = {"samples": [attrs.asdict(one) for one in life.samples]}
        json_file.write_text(json.dumps(data | {"restarts": [attrs.asdict(one) for one in life.restarts]}))
    if plot_file is not None:
        plot(life, plot_file)


if __name__ == "__main__":
    main()
