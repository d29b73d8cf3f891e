"""``txpaxos demo``: three nodes on this machine are killed and replaced one after the other, and nothing is lost."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from txpaxos.cli.demo_keys import OWNER, RIGHTS, DemoKeys
from txpaxos.cli.demo_members import JOINING, REPLACING, ChangeOfMembers
from txpaxos.cli.demo_scene import STEP_SECONDS_MAX, Scene
from txpaxos.cli.history import AcknowledgedIncrement
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import KEYS, CommandError, new_client, run, together
from txpaxos.cli.status import Statuses, chosen_through, leader_of
from txpaxos.keys import load_keys
from txpaxos.rights import DEFAULT_RIGHTS

NODES = ("a", "b", "c")
CLIENTS = 4
INCREMENTS = 200
KILL_AFTER = INCREMENTS // 2
PAUSE_SECONDS = 0.01
"""The pause of a client between a result and its next increment, so that many increments follow the leader's death."""

COUNT_SECONDS_MAX = 15.0
"""The limit on the time of all increments of the first act together."""


@click.command("demo")
@click.option("--secure", is_flag=True, help="With keys: who has none is kept out, and all is encrypted.")
@click.option("--keep", is_flag=True, help="Keep the folder with the cluster file and every node's data and log.")
def command(secure: bool, keep: bool) -> None:
    """Watch nodes keep counting while their leader is killed, and while all of them are replaced.

    Starts three `twistd paxos` processes, has four clients send 200 increments, kills the leader with `kill -9` half
    way, starts it again, and compares the totals. Then, with clients counting all the time, two nodes join, the first
    one is killed and replaced by a sixth, and the other two of the first three are removed. This takes less than a
    minute. Exits with 0 only if every increment was acknowledged and counted once, and all nodes have the same total.

    With --secure, nodes and clients have keys of an authority that is made for this run, and clients try what they may
    not do.
    """
    folder = Path(tempfile.mkdtemp(prefix="txpaxos-demo-"))
    try:
        keys = DemoKeys.make(folder, (*NODES, *JOINING, REPLACING)) if secure else None
        if keys is not None:  # Then each client of this command has them.
            click.get_current_context().meta[KEYS] = load_keys(str(keys.of(OWNER)), "client")
        run(lambda reactor: _play(reactor, folder, keys))
    finally:
        if keep:
            kept = "cluster.toml, and each node's data and log" + (", and all keys" if secure else "")
            click.echo(f"\nKept in {folder}: {kept}.")
        else:
            shutil.rmtree(folder, ignore_errors=True)


async def _play(reactor: Any, folder: Path, keys: DemoKeys | None) -> None:
    """Run the whole demo.

    :raises CommandError: if a step fails or takes too long.
    """
    nodes = LocalCluster(reactor, "demo", NODES, folder, rights=DEFAULT_RIGHTS if keys is None else RIGHTS)
    scene = Scene(reactor, nodes)
    if keys is not None:
        nodes.node_keys, nodes.client_keys = keys.of, keys.of(OWNER)
        scene.say("An authority has made keys: `txpaxos keys init`, `keys node` and `keys client` do the same.")
    try:
        scene.say(f"Starting three nodes: {', '.join(NODES)}. Each is a `twistd paxos` process with a counter.")
        leader = await scene.nodes.start_all(STEP_SECONDS_MAX)
        scene.say(f"They have elected {leader}.")
        if keys is not None:
            await keys.show_refusals(scene)
        await _DeathOfTheLeader(scene).play()
        click.echo()
        await ChangeOfMembers(scene, INCREMENTS + 1).play()
    finally:
        await scene.nodes.stop()


class _DeathOfTheLeader:
    """One run of the first act: the leader is killed half way, and comes back."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._reactor = scene.reactor
        self._nodes = scene.nodes
        self._half_way: Deferred[None] = Deferred()
        self._killed = ""
        self._killed_at: float | None = None
        self._fail_over_seconds: float | None = None

    async def play(self) -> None:
        """Run the act.

        :raises CommandError: if a step fails or takes too long.
        """
        await self._count()
        await self._restart()
        await self._scene.compare(range(1, INCREMENTS + 1), {self._killed: "killed and restarted"})

    async def _count(self) -> None:
        """Send every increment, and kill the leader half way."""
        self._scene.say(f"{CLIENTS} clients send {INCREMENTS} increments: +1, +2, ... +{INCREMENTS}.")
        shares = [range(first, INCREMENTS + 1, CLIENTS) for first in range(1, CLIENTS + 1)]
        work = Deferred.fromCoroutine(together(self._kill_leader(), *map(self._increment, shares)))
        try:
            await work.addTimeout(COUNT_SECONDS_MAX, self._reactor)
        except TimeoutError:
            done = f"{len(self._scene.acknowledged)} of {INCREMENTS} increments were acknowledged"
            raise CommandError(f"only {done} within {COUNT_SECONDS_MAX:g} s") from None
        if self._fail_over_seconds is None:
            raise CommandError("every increment was sent before the leader was dead, so nothing was shown; try again")
        self._scene.say(f"All {INCREMENTS} increments are acknowledged.")

    async def _increment(self, amounts: Iterable[int]) -> None:
        """Be one client: send each increment when the one before is acknowledged."""
        client = new_client(self._reactor, self._nodes.cluster)
        try:
            for amount in amounts:
                self._note(await self._scene.increment(client, amount))
                await deferLater(self._reactor, PAUSE_SECONDS)
        finally:
            client.close()

    def _note(self, one: AcknowledgedIncrement) -> None:
        if len(self._scene.acknowledged) == KILL_AFTER:
            self._half_way.callback(None)
        # One sent before the kill may still have been answered by the node that is dead now.
        if self._fail_over_seconds is None and self._killed_at is not None and one.sent_at > self._killed_at:
            self._fail_over_seconds = one.acknowledged_at - self._killed_at
            seconds = click.style(f"{self._fail_over_seconds:.2f} s after the kill", fg="green", bold=True)
            self._scene.say(f"{seconds} the next increment is acknowledged.")

    async def _kill_leader(self) -> None:
        await self._half_way
        statuses = await self._nodes.wait_until(self._is_led, "an election", STEP_SECONDS_MAX)
        self._killed = leader_of(self._nodes.cluster, statuses) or ""
        pid = self._nodes.processes[self._killed].pid
        self._killed_at = self._reactor.seconds()
        await self._nodes.kill(self._killed)
        kill = click.style(f"kill -9 {pid}", fg="red", bold=True)
        done = f"{len(self._scene.acknowledged)} increments acknowledged"
        self._scene.say(f"{kill}: the leader {self._killed} is dead, with {done}.")

    async def _restart(self) -> None:
        """Start the killed node again, and wait until it has caught up."""
        statuses = await self._nodes.wait_until(self._is_led, "an election", STEP_SECONDS_MAX)
        self._scene.say(f"{leader_of(self._nodes.cluster, statuses)} leads now. Starting {self._killed} again.")
        self._nodes.start(self._killed)
        statuses = await self._nodes.wait_until(self._nodes.is_level, f"{self._killed}'s catch-up", STEP_SECONDS_MAX)
        self._scene.say(f"{self._killed} has read its disk and caught up, through slot {chosen_through(statuses)}.")

    def _is_led(self, statuses: Statuses) -> bool:
        return leader_of(self._nodes.cluster, statuses) is not None
