"""The second act of ``txpaxos demo``: members join, die and leave, until none of the first ones is left."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import click
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater

from txpaxos.cli.demo_scene import STEP_SECONDS_MAX, Scene
from txpaxos.cli.running import CommandError, new_client, request, together

JOINING = ("d", "e")
REPLACING = "f"

CLIENTS = 4
PAUSE_SECONDS = 0.01
"""The pause of a client between a result and its next increment."""

MEMBERS_SECONDS_MAX = 60.0
"""The limit on the time of the whole act."""


class ChangeOfMembers:
    """One run of the second act, which begins with three nodes that have a leader.

    :param scene: the nodes, and what they counted before.
    :param first: the first increment. The others follow.
    """

    def __init__(self, scene: Scene, first: int) -> None:
        self._scene = scene
        self._nodes = scene.nodes
        self._founders = tuple(scene.nodes.cluster.members)
        # The clients know the founders only, although the founders will all be gone.
        self._seeds = scene.nodes.cluster
        self._last = first - 1
        self._amounts: Iterator[int] = itertools.count(first)
        self._is_over = False
        self._pause_seconds_max = 0.0
        self._acknowledged_at: float | None = None

    async def play(self) -> None:
        """Run the act.

        :raises CommandError: if a step fails or takes too long.
        """
        names = ", ".join(self._founders)
        self._scene.say(f"Now the members change. {CLIENTS} clients count all the time. They are told of {names} only.")
        work = Deferred.fromCoroutine(together(self._change(), *(self._count() for _ in range(CLIENTS))))
        try:
            await work.addTimeout(MEMBERS_SECONDS_MAX, self._scene.reactor)
        except TimeoutError:
            raise CommandError(f"the members were not changed within {MEMBERS_SECONDS_MAX:g} s") from None
        pause = click.style(f"{self._pause_seconds_max:.2f} s", fg="green", bold=True)
        count = len(self._scene.acknowledged)
        self._scene.say(f"{count} increments are acknowledged now. The longest time without an answer was {pause}.")
        remarks = {**dict.fromkeys(JOINING, "joined"), REPLACING: f"joined, and replaced {self._founders[0]}"}
        await self._scene.compare(range(1, self._last + 1), remarks)
        click.echo(f"None of {names} is left, and no client has noticed.")

    async def _count(self) -> None:
        """Be one client: send each increment when the one before is acknowledged, until the change is over."""
        client = new_client(self._scene.reactor, self._seeds)
        try:
            while not self._is_over:
                self._last = amount = next(self._amounts)
                one = await self._scene.increment(client, amount)
                if self._acknowledged_at is not None:
                    pause_seconds = one.acknowledged_at - self._acknowledged_at
                    self._pause_seconds_max = max(self._pause_seconds_max, pause_seconds)
                self._acknowledged_at = one.acknowledged_at
                await deferLater(self._scene.reactor, PAUSE_SECONDS)
        finally:
            client.close()

    async def _change(self) -> None:
        for node in JOINING:
            await self._join(node)
        dead, *others = self._founders
        await self._replace(dead)
        for node in others:
            await self._remove(node)
        self._is_over = True

    async def _join(self, node: str) -> None:
        self._scene.say(f"Starting {node} with an empty folder. It is told the address of one node, and joins.")
        self._nodes.join(node)
        await self._nodes.wait_until_voter(node, STEP_SECONDS_MAX)
        self._scene.say(f"{node} has caught up, and votes: {len(self._nodes.cluster.members)} members.")

    async def _replace(self, dead: str) -> None:
        pid = self._nodes.processes[dead].pid
        await self._nodes.kill(dead)
        kill = click.style(f"kill -9 {pid}", fg="red", bold=True)
        self._scene.say(f"{kill}: {dead} is dead, and does not come back. Starting {REPLACING}, to replace {dead}.")
        self._nodes.join(REPLACING, replaces=dead)
        await self._nodes.wait_until_voter(REPLACING, STEP_SECONDS_MAX)
        self._nodes.forget(dead)
        self._scene.say(f"{REPLACING} votes, and {dead} is no member any more.")

    async def _remove(self, node: str) -> None:
        """Remove a member. Its process ends by itself."""
        line = await request(
            self._scene.reactor,
            self._nodes.cluster,
            STEP_SECONDS_MAX,
            lambda client: client.change_members("remove", node),
        )
        process = self._nodes.forget(node)
        assert process is not None
        self._scene.say(f"`txpaxos members remove {node}`: {line}.")
        try:
            await process.wait().addTimeout(STEP_SECONDS_MAX, self._scene.reactor)
        except TimeoutError:
            raise CommandError(f"{node} did not end, although it is no member any more") from None
        finally:
            await process.stop()
