"""A child that comes to the node that leads the cluster, in real processes: children never overlap, and the gaps are
short. ``TXPAXOS_MOVES=100`` for as many moves; with ``-s`` the test says how long there was no child.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from txpaxos import Client, Cluster, NotHandedOver
from txpaxos.cli.local_cluster import free_members
from txpaxos.recipes import Recipes

reactor: Any = installed_reactor
ROOT = Path(__file__).parents[2]
MOVES = int(os.environ.get("TXPAXOS_MOVES", "4"))
SETTLED_SECONDS = 0.5
STEP_SECONDS_MAX = 20.0
TRIES_MAX = 5
NODES = ("a", "b", "c")


@attrs.frozen
class Said:
    """What a child has said."""

    at_ns: int
    what: str
    token: int
    node: str


class Process(ProcessProtocol):
    """The process of one node."""

    def __init__(self, judge: Judge, node: str) -> None:
        self.judge = judge
        self.node = node
        self.ended: Deferred[None] = Deferred()
        self._rest = b""
        command = [sys.executable, "-m", "test.recipes.node_with_child", "cluster.toml", node, str(SETTLED_SECONDS)]
        with (judge.folder / f"{node}.log").open("ab") as log:
            self.transport: Any = reactor.spawnProcess(
                self,
                sys.executable,
                command,
                {**os.environ, "PYTHONPATH": str(ROOT)},
                path=str(judge.folder),
                childFDs={0: "w", 1: "r", 2: log.fileno()},
            )

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            what, token, at_ns = line.split()
            self.judge.said(Said(int(at_ns), what.decode(), int(token), self.node))

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


class Judge:
    """Runs the nodes, and notes what their children say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster("test", dict(zip(NODES, free_members(len(NODES)), strict=True)))
        (folder / "cluster.toml").write_text(self.cluster.dumps())
        self.processes = [Process(self, node) for node in NODES]
        self.client = Client(reactor, self.cluster)
        self.moves = Recipes(self.client, reactor).counter("moves")
        self.all_said: list[Said] = []
        self._awaited: tuple[str, Deferred[None]] | None = None

    def said(self, said: Said) -> None:
        self.all_said.append(said)
        self._look()

    def _look(self) -> None:
        if self._awaited is not None and self.runs_at == self._awaited[0]:
            (_, fired), self._awaited = self._awaited, None
            fired.callback(None)

    @property
    def runs_at(self) -> str | None:
        """Where a child runs."""
        last = max(self.all_said, key=lambda said: (said.token, said.what == "stop"), default=None)
        return None if last is None or last.what == "stop" else last.node

    async def move(self, to: str) -> None:
        """Have a node lead until the child runs there. On a busy machine another may come to lead before that."""
        for _ in range(TRIES_MAX):
            await self.moves.add(1)  # So there is a leader.
            try:
                await self.client.hand_over(to, STEP_SECONDS_MAX)
                self._awaited = to, Deferred()
                fired = self._awaited[1].addTimeout(STEP_SECONDS_MAX, reactor)
                self._look()
                return await fired
            except (NotHandedOver, TimeoutError):
                continue
        raise AssertionError(f"the child did not come to {to}: {self.all_said}")

    async def end(self) -> None:
        self.client.close()
        for process in self.processes:
            process.transport.signalProcess("KILL")
            await process.ended


async def test_the_child_moves_to_the_node_that_leads(tmp_path: Path) -> None:
    judge = Judge(tmp_path)
    try:
        for number in range(MOVES):
            others = [node for node in NODES if node != judge.runs_at]
            await judge.move(others[number % 2])
    finally:
        await judge.end()
    in_order = sorted(judge.all_said, key=lambda said: said.at_ns)
    assert [said.what for said in in_order] == ["start", "stop"] * (len(in_order) // 2) + ["start"]
    gaps = [(start.at_ns - stop.at_ns) / 1e6 for stop, start in pairwise(in_order) if start.what == "start"]
    assert len(gaps) >= MOVES - 1, "the first child may have been where it should be"
    print(f"{len(gaps)} moves, without a child for {median(gaps):.1f} ms (median), {max(gaps):.1f} ms (longest)")
