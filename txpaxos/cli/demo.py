"""``txpaxos demo``: three nodes on this machine, one of them killed on the way, and nothing lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from txpaxos.cli.history import AcknowledgedIncrement, complaints
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.printing import table
from txpaxos.cli.running import CommandError, request, run, together
from txpaxos.cli.status import Statuses, chosen_through, leader_of
from txpaxos.client import Client

NODES = ("a", "b", "c")
CLIENTS = 4
INCREMENTS = 200
KILL_AFTER = INCREMENTS // 2
PAUSE_SECONDS = 0.01
"""The pause of a client between a result and its next increment, so that many increments follow the leader's death."""

COUNT_SECONDS_MAX = 15.0
"""The limit on the time of all increments together."""
STEP_SECONDS_MAX = 15.0
"""The limit on the time of any other step."""


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the folder with the cluster file and every node's data and log.")
def command(keep: bool) -> None:
    """Watch three nodes keep counting while their leader is killed.

    Starts three `twistd paxos` processes, has four clients send 200 increments, kills the leader with `kill -9` half
    way, starts it again, and compares the totals. This takes a few seconds. Exits with 0 only if every increment
    was acknowledged and counted once, and all three nodes have the same total.
    """
    folder = Path(tempfile.mkdtemp(prefix="txpaxos-demo-"))
    try:
        run(lambda reactor: _Demo(reactor, folder).play())
    finally:
        if keep:
            click.echo(f"\nKept in {folder}: cluster.toml, and each node's data and log.")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    """One run of the demo in ``folder``."""

    def __init__(self, reactor: Any, folder: Path) -> None:
        self._reactor = reactor
        self._began_at = reactor.seconds()
        self._nodes = LocalCluster(reactor, "demo", NODES, folder)
        self._acknowledged: list[AcknowledgedIncrement] = []
        self._half_way: Deferred[None] = Deferred()
        self._killed = ""
        self._killed_at: float | None = None
        self._fail_over_seconds: float | None = None

    async def play(self) -> None:
        """Run the whole demo.

        :raises CommandError: if a step fails or takes too long.
        """
        try:
            self._say(f"Starting three nodes: {', '.join(NODES)}. Each is a `twistd paxos` process with a counter.")
            leader = await self._nodes.start_all(STEP_SECONDS_MAX)
            self._say(f"They have elected {leader}.")
            await self._count()
            await self._restart()
            await self._compare()
        finally:
            await self._nodes.stop()

    async def _count(self) -> None:
        """Send every increment, and kill the leader half way."""
        self._say(f"{CLIENTS} clients send {INCREMENTS} increments: +1, +2, ... +{INCREMENTS}.")
        shares = [range(first, INCREMENTS + 1, CLIENTS) for first in range(1, CLIENTS + 1)]
        work = Deferred.fromCoroutine(together(self._kill_leader(), *map(self._increment, shares)))
        try:
            await work.addTimeout(COUNT_SECONDS_MAX, self._reactor)
        except TimeoutError:
            done = f"{len(self._acknowledged)} of {INCREMENTS} increments were acknowledged"
            raise CommandError(f"only {done} within {COUNT_SECONDS_MAX:g} s") from None
        if self._fail_over_seconds is None:
            raise CommandError("every increment was sent before the leader was dead, so nothing was shown; try again")
        self._say(f"All {INCREMENTS} increments are acknowledged.")

    async def _increment(self, amounts: Iterable[int]) -> None:
        """Be one client: send each increment when the one before is acknowledged."""
        client = Client(self._reactor, self._nodes.cluster)
        try:
            for amount in amounts:
                sent_at = self._reactor.seconds()
                total = await client.submit(b"+%d" % amount)
                self._note(AcknowledgedIncrement(amount, total, sent_at, self._reactor.seconds()))
                await deferLater(self._reactor, PAUSE_SECONDS)
        finally:
            client.close()

    def _note(self, one: AcknowledgedIncrement) -> None:
        self._acknowledged.append(one)
        if len(self._acknowledged) == KILL_AFTER:
            self._half_way.callback(None)
        # One sent before the kill may still have been answered by the node that is dead now.
        if self._fail_over_seconds is None and self._killed_at is not None and one.sent_at > self._killed_at:
            self._fail_over_seconds = one.acknowledged_at - self._killed_at
            seconds = click.style(f"{self._fail_over_seconds:.2f} s after the kill", fg="green", bold=True)
            self._say(f"{seconds} the next increment is acknowledged.")

    async def _kill_leader(self) -> None:
        await self._half_way
        statuses = await self._nodes.wait_until(self._is_led, "an election", STEP_SECONDS_MAX)
        self._killed = leader_of(self._nodes.cluster, statuses) or ""
        pid = self._nodes.processes[self._killed].pid
        self._killed_at = self._reactor.seconds()
        await self._nodes.kill(self._killed)
        kill = click.style(f"kill -9 {pid}", fg="red", bold=True)
        self._say(f"{kill}: the leader {self._killed} is dead, with {len(self._acknowledged)} increments acknowledged.")

    async def _restart(self) -> None:
        """Start the killed node again, and wait until it has caught up."""
        statuses = await self._nodes.wait_until(self._is_led, "an election", STEP_SECONDS_MAX)
        self._say(f"{leader_of(self._nodes.cluster, statuses)} leads now. Starting {self._killed} again.")
        self._nodes.start(self._killed)
        statuses = await self._nodes.wait_until(self._nodes.is_level, f"{self._killed}'s catch-up", STEP_SECONDS_MAX)
        self._say(f"{self._killed} has read its disk and caught up, through slot {chosen_through(statuses)}.")

    async def _compare(self) -> None:
        """Print and compare the totals of the nodes. The result of ``+0`` is the total of the node that was asked.

        :raises CommandError: if an increment was lost or counted twice, or the totals differ."""
        cluster, totals = self._nodes.cluster, {}
        for node in NODES:
            totals[node] = await request(
                self._reactor, cluster, STEP_SECONDS_MAX, lambda client: client.submit(b"+0"), [node]
            )
        statuses = await self._nodes.wait_until(self._nodes.is_level, "the last slot everywhere", STEP_SECONDS_MAX)
        rows = []
        for node, status in statuses.items():
            assert status is not None
            remark = "killed and restarted" if node == self._killed else ""
            rows.append((node, status["role"], status["applied_through"], totals[node], remark))
        rows.sort()
        click.echo(f"\n{table(('node', 'role', 'slots applied', 'total', ''), rows)}\n")
        found = complaints(range(1, INCREMENTS + 1), self._acknowledged, totals)
        if found:
            raise CommandError("; ".join(found))
        click.secho(f"All three are equal: 1 + 2 + ... + {INCREMENTS} = {totals[NODES[0]]}.", fg="green", bold=True)
        click.echo("Every increment was acknowledged; none was lost, none was counted twice.")

    def _is_led(self, statuses: Statuses) -> bool:
        return leader_of(self._nodes.cluster, statuses) is not None

    def _say(self, text: str) -> None:
        seconds = click.style(f"{self._reactor.seconds() - self._began_at:6.2f} s", dim=True)
        click.echo(f"{seconds}  {text}")
