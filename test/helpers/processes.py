"""The shared parts of tests with real nodes: clients that count, and the check afterwards that the count is right."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txpaxos.cli.history import AcknowledgedIncrement, complaints
from txpaxos.cli.local_cluster import LocalCluster
from txpaxos.cli.running import request, together
from txpaxos.cli.status import Statuses
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.core.log import Log
from txpaxos.core.ready import LogRecord
from txpaxos.errors import NotChosen, OutcomeUnknown
from txpaxos.storage.store import DiskStore
from txpaxos.wire.commands import decode_batch

NODES = ("a", "b", "c")
CLIENTS = 4
STEP_SECONDS_MAX = 30.0
"""The timeout of every wait. Waits take far less unless something is broken."""


@asynccontextmanager
async def running(nodes: LocalCluster) -> AsyncIterator[None]:
    """Nodes with a leader, for the duration of the block. Their logs are shown if it fails."""
    try:
        await nodes.start_all(STEP_SECONDS_MAX)
        yield
    except BaseException:
        for node in nodes.cluster.members:
            print(f"{node} said last:", *nodes.log(node).read_text(errors="replace").splitlines()[-20:], sep="\n    ")
        raise
    finally:
        await nodes.stop()


@attrs.define(eq=False)
class Increment:
    """One increment, as its client saw it.

    :ivar session: the session in which it was sent; empty until its end is known, and if it was never sent.
    :ivar total: the answer; ``None`` until there is one.
    :ivar sent: whether a node may have received it.
    """

    session: bytes
    sequence: int
    amount: int
    total: int | None = None
    sent: bool = True


class Counting:
    """Clients that count, each with one increment under way, until they are stopped.

    :param command_bytes: the minimum size of each command.
    :ivar increments: all increments that they sent.
    :ivar acknowledged: how many of them were answered.
    """

    def __init__(self, reactor: Any, cluster: Cluster, command_bytes: int = 0) -> None:
        self.increments: list[Increment] = []
        self.acknowledged = 0
        self._reactor = reactor
        self._cluster = cluster
        self._command_bytes = command_bytes
        self._amounts = itertools.count(1)
        self._clients: deque[tuple[Client, Deferred[None]]] = deque()
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self._stopping = False
        for _ in range(CLIENTS):
            self._start_client()

    async def more(self, count: int) -> None:
        """Wait until ``count`` more increments are acknowledged."""
        there: Deferred[None] = Deferred()
        self._waiting.append((self.acknowledged + count, there))
        await there.addTimeout(STEP_SECONDS_MAX, self._reactor)

    def abandon(self) -> None:
        """Close the oldest client, which goes without its answer, and replace it."""
        client, _ = self._clients.popleft()
        client.close()
        self._start_client()

    async def stop(self) -> None:
        """Send no more increments, and wait for those under way."""
        self._stopping = True
        for client, counting in self._clients:
            await counting.addTimeout(STEP_SECONDS_MAX, self._reactor)
            client.close()

    def close(self) -> None:
        """Close the clients, whatever they wait for."""
        self._stopping = True
        for client, _ in self._clients:
            client.close()

    def _start_client(self) -> None:
        client = Client(self._reactor, self._cluster)
        self._clients.append((client, Deferred.fromCoroutine(self._count(client))))

    async def _count(self, client: Client) -> None:
        while not self._stopping:
            increment = Increment(b"", client.next_sequence, next(self._amounts))
            self.increments.append(increment)
            try:
                increment.total = await client.submit((b"+%d" % increment.amount).rjust(self._command_bytes))
            except (OutcomeUnknown, NotChosen) as error:  # The client was closed.
                increment.sent = isinstance(error, OutcomeUnknown)
                return
            finally:
                increment.session = client.session or b""
            self.acknowledged += 1
            for target, there in list(self._waiting):
                if self.acknowledged >= target:
                    self._waiting.remove((target, there))
                    there.callback(None)


@attrs.frozen
class CountCheck:
    """The result of a count.

    :ivar acknowledged: how many increments were answered.
    :ivar unanswered_in: how many were never answered and were counted.
    :ivar unanswered_out: how many were never answered and were not counted.
    :ivar total: the count at the end, on every node.
    :ivar found: what is wrong; empty if nothing is.
    """

    acknowledged: int
    unanswered_in: int
    unanswered_out: int
    total: int
    found: list[str]

    def __str__(self) -> str:
        if self.found:
            return "; ".join(self.found)
        return (
            f"{self.acknowledged} increments acknowledged, none lost, none doubled; of"
            f" {self.unanswered_in + self.unanswered_out} never answered {self.unanswered_in} were counted and"
            f" {self.unanswered_out} were not; the total on every node is {self.total}"
        )


def has_caught_up(statuses: Statuses, node: str) -> bool:
    """Whether ``node`` follows a leader and knows all slots except those under way."""
    status = statuses.get(node)
    others = [other["chosen_through"] for name, other in statuses.items() if other is not None and name != node]
    return status is not None and status["leader"] is not None and status["applied_through"] >= min(others)


async def rest(nodes: LocalCluster) -> None:
    """Wait until no command is under way."""

    def at_rest(statuses: Statuses) -> bool:
        return nodes.is_level(statuses) and not any(status and status["waiting"] for status in statuses.values())

    await nodes.wait_until(at_rest, "rest", STEP_SECONDS_MAX)


async def totals_at_rest(reactor: Any, nodes: LocalCluster) -> dict[str, int]:
    """The total of each node, once no command is under way. The command ``+0`` is answered with the total of the node
    asked."""

    await rest(nodes)
    totals = {}
    for node in nodes.cluster.members:
        answer = await request(reactor, nodes.cluster, STEP_SECONDS_MAX, lambda client: client.submit(b"+0"), [node])
        totals[node] = int(answer)
    await rest(nodes)
    return totals


def verify(increments: Sequence[Increment], totals: Mapping[str, int], nodes: LocalCluster) -> CountCheck:
    """Replay what is on each node's disk, and compare it with the clients' answers. The nodes must be down.

    :param totals: the nodes' own answers at the end.
    """
    found: list[str] = []
    replays = {node: replay(nodes.folder / node, nodes.cluster.name, node) for node in totals}
    replayed = next(iter(replays.values()))
    found += [f"the log of node {node} is another" for node, one in replays.items() if one != replayed]
    unanswered = [one for one in increments if one.total is None]
    counted = [one for one in unanswered if (one.session, one.sequence) in replayed]
    found += [f"+{one.amount} was counted and never sent" for one in counted if not one.sent]
    for one in increments:
        again = replayed.get((one.session, one.sequence))
        if one.total not in (None, again):
            found.append(f"+{one.amount} was acknowledged as {one.total} and is {again} in the log")
    # Those in doubt have their totals from the log; all the others have what their clients were told.
    history = [AcknowledgedIncrement(one.amount, one.total, 0, 0) for one in increments if one.total is not None]
    history += [AcknowledgedIncrement(one.amount, replayed[one.session, one.sequence], 0, 0) for one in counted]
    found += complaints([one.amount for one in history], history, totals)
    total = sum(one.amount for one in history)
    return CountCheck(len(history) - len(counted), len(counted), len(unanswered) - len(counted), total, found)


def replay(folder: Path, cluster: str, node: str) -> dict[tuple[bytes, int], int]:
    """Count again from what a node saved: the total after each increment, by (session, sequence)."""
    store = DiskStore(folder, cluster, node, sync_in_thread=False)
    log = Log.recover(record for record in store.load() if isinstance(record, LogRecord))
    store.close()
    total = 0
    totals: dict[tuple[bytes, int], int] = {}
    acknowledged: dict[bytes, int] = {}
    for value in log.values_from(1):
        for run in decode_batch(value):
            through = acknowledged.get(run.session, 0)  # What its client gave up and overtook counts no more.
            for sequence, payload in zip(run.sequences, run.payloads, strict=True):
                amount = int(payload)
                if amount and sequence > through and (run.session, sequence) not in totals:
                    total += amount
                    totals[run.session, sequence] = total
            acknowledged[run.session] = max(through, run.acknowledged)
    return totals


async def kill_all(nodes: LocalCluster) -> None:
    """``kill -9`` for all running nodes at once."""
    await together(*(nodes.kill(node) for node in list(nodes.processes)))
