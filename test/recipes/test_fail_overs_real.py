"""Children of ``LeaderService`` in real processes that are stopped, killed and paused, judged from outside.

Children never overlap, and what they write to takes no late write. ``TXPAXOS_FAIL_OVERS=200`` for as many fail-overs;
with ``-s`` the test says how long there was no child.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from test.helpers.cli_nodes import Nodes
from test.recipes.contender import LEAD, RECORD_BYTES
from txpaxos import Client, watch
from txpaxos.recipes.replicated.permits import Permits

reactor: Any = installed_reactor
ROOT = Path(__file__).parents[2]
FAIL_OVERS = int(os.environ.get("TXPAXOS_FAIL_OVERS", "4"))
TTL_SECONDS = 1.0
CONTENDERS = 3
STEP_SECONDS_MAX = 60.0

KINDS = ("stopped", "killed", "killed with the cluster's leader", "paused")
"""In turn: what is done to the process whose child runs."""


@attrs.define(eq=False)
class Child:
    """A child, as its process has told of it.

    :ivar ended_ns: when it stopped, or when its process was killed or paused.
    :ivar stopped_ns: when it said that it has stopped.
    """

    contender: Contender
    token: int
    started_ns: int
    ended_ns: int | None = None
    stopped_ns: int | None = None

    def end(self, now_ns: int) -> None:
        if self.ended_ns is None:
            self.ended_ns = now_ns


class Contender(ProcessProtocol):
    """A process that contends for the lead."""

    def __init__(self, judge: Judge, name: str) -> None:
        self.judge = judge
        self.name = name
        self.ended: Deferred[None] = Deferred()
        self._rest = b""
        arguments = ["cluster.toml", name, str(TTL_SECONDS), "resource"]
        command = [sys.executable, "-m", "test.recipes.contender", *arguments]
        log = (judge.folder / f"{name}.log").open("ab")
        self.transport: Any = reactor.spawnProcess(
            self,
            sys.executable,
            command,
            {**os.environ, "PYTHONPATH": str(ROOT)},
            path=str(judge.folder),
            childFDs={0: "w", 1: "r", 2: log.fileno()},
        )
        log.close()

    def outReceived(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            what, token, at_ns = line.split()
            self._said(what, int(token), int(at_ns))

    def _said(self, what: bytes, token: int, at_ns: int) -> None:
        if what == b"start":
            self.judge.started(Child(self, token, at_ns))
        elif what == b"stop":
            self.judge.stopped(self.judge.children[token], at_ns)
        else:
            self.judge.refused += 1

    def processEnded(self, reason: Failure) -> None:
        self.judge.ended(self)
        self.ended.callback(None)


class Judge:
    """Starts contenders, ends them in turn, and looks at when which child ran."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.folder = nodes.folder
        self.client = Client(reactor, nodes.cluster)
        self.contenders: dict[str, Contender] = {}
        self.children: dict[int, Child] = {}
        self.last_token = 0
        self.gap_seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.late_seconds: list[float] = []
        self.refused = 0
        self._numbers = count(1)
        self._waiting: list[tuple[Callable[[], object], Deferred[None]]] = []

    @property
    def running(self) -> Child:
        """The child of the latest term."""
        return self.children[self.last_token]

    def started(self, child: Child) -> None:
        assert child.token > self.last_token, f"a child has begun with {child.token} after {self.last_token}"
        self.children[child.token] = child
        self.last_token = child.token
        self.changed()

    def stopped(self, child: Child, at_ns: int) -> None:
        child.stopped_ns = at_ns
        child.end(at_ns)
        self.changed()

    def ended(self, contender: Contender) -> None:
        """Its process has ended. Where the judge did not kill it, it did so since its child was late to stop."""
        self.contenders.pop(contender.name, None)
        for child in self.children.values():
            if child.contender is contender and child.stopped_ns is None:
                self.stopped(child, time.monotonic_ns())

    def changed(self) -> None:
        """Let those go on that wait for what is so now."""
        for waiting in list(self._waiting):
            condition, fired = waiting
            if condition():
                self._waiting.remove(waiting)
                fired.callback(None)

    def until(self, condition: Callable[[], object]) -> Deferred[None]:
        fired: Deferred[None] = Deferred()
        self._waiting.append((condition, fired))
        self.changed()
        return fired.addTimeout(STEP_SECONDS_MAX, reactor)

    def contend(self) -> None:
        """Start processes until there are as many as there should be."""
        while len(self.contenders) < CONTENDERS:
            name = f"contender-{next(self._numbers)}"
            self.contenders[name] = Contender(self, name)

    async def until_another_waits(self) -> None:
        """Until the one that leads lives, and another that lives is next."""
        async for standing in watch(self.client.service(Permits).contenders, LEAD):
            known = [contender.value in self.contenders for contender in standing]
            if len(known) > 1 and all(known[:2]) and standing[0].token == self.last_token:
                return

    async def fail_over(self, kind: str) -> None:
        self.contend()
        await self.until_another_waits()
        child, last = self.running, self.last_token
        fault = {"stopped": self._stop, "paused": self._pause}.get(kind, self._kill)
        if kind == KINDS[2]:
            await self._kill_leader_of_cluster()
        at_ns = await fault(child)
        await self.until(lambda: self.last_token > last)
        following = min(token for token in self.children if token > last)
        self.gap_seconds[kind].append((self.children[following].started_ns - at_ns) / 1e9)
        if kind == "paused":
            await self._go_on(child)

    async def _stop(self, child: Child) -> int:
        del self.contenders[child.contender.name]
        child.contender.transport.signalProcess("TERM")
        await child.contender.ended
        assert child.stopped_ns is not None
        return child.stopped_ns

    async def _kill(self, child: Child) -> int:
        del self.contenders[child.contender.name]
        at_ns = time.monotonic_ns()
        child.contender.transport.signalProcess("KILL")
        await child.contender.ended
        return at_ns

    async def _kill_leader_of_cluster(self) -> None:
        status: dict[str, Any] = await self.client.status(deadline_seconds=STEP_SECONDS_MAX)
        leader = status["leader"]
        await deferToThread(self.nodes.kill, leader)
        self.nodes.start(leader)

    async def _pause(self, child: Child) -> int:
        at_ns = time.monotonic_ns()
        child.contender.transport.signalProcess("STOP")
        child.end(time.monotonic_ns())
        return at_ns

    async def _go_on(self, child: Child) -> None:
        """Let it go on when three times its time are over. It must stop then."""
        await deferLater(reactor, 3 * TTL_SECONDS - self.gap_seconds["paused"][-1], lambda: None)
        at_ns = time.monotonic_ns()
        child.contender.transport.signalProcess(signal.SIGCONT)
        await self.until(lambda: child.stopped_ns)
        assert child.stopped_ns is not None
        self.late_seconds.append((child.stopped_ns - at_ns) / 1e9)

    async def end(self) -> None:
        self.client.close()
        for contender in list(self.contenders.values()):
            contender.transport.signalProcess(signal.SIGCONT)
            contender.transport.signalProcess("KILL")
            await contender.ended

    def check(self) -> None:
        """No child began before the one before it had ended, and no write came after one with a higher token."""
        in_order = sorted(self.children.values(), key=lambda child: child.started_ns)
        for child, following in pairwise(in_order):
            assert child.ended_ns is not None, child
            assert child.ended_ns <= following.started_ns, (child, following)
        written = (self.folder / "resource").read_bytes()
        tokens = [int(written[at : at + RECORD_BYTES]) for at in range(0, len(written), RECORD_BYTES)]
        assert tokens == sorted(tokens)
        assert set(tokens) <= set(self.children)

    def report(self) -> str:
        lines = [
            f"{kind}: {len(gaps)} times, without a child for {median(gaps):.3f} s (median), {max(gaps):.3f} s (longest)"
            for kind, gaps in self.gap_seconds.items()
            if gaps
        ]
        late = f"stopped after a pause within {max(self.late_seconds) * 1000:.1f} ms" if self.late_seconds else ""
        return "\n".join([*lines, late, f"late writes refused: {self.refused}"])


async def test_children_never_overlap(tmp_path: Path) -> None:
    (tmp_path / "resource").touch()
    nodes = Nodes(tmp_path, "a", "b", "c", options=("--app", "txpaxos.recipes:Coordinator"))
    judge = Judge(nodes)
    try:
        for node in nodes.cluster.members:
            nodes.start(node)
        judge.contend()
        await judge.until(lambda: judge.children)
        for number in range(FAIL_OVERS):
            await judge.fail_over(KINDS[number % len(KINDS)])
    finally:
        await judge.end()
        for node in list(nodes.processes):
            nodes.kill(node)
    judge.check()
    print(judge.report())
    assert len(judge.children) > FAIL_OVERS
