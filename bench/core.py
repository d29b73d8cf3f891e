"""The algorithm alone: replicas in one process that hand each other their messages. No socket, disk, codec or reactor.

    python -m bench.core [--operations 100000] [--nodes 3] [--value-bytes 100] [--record FOLDER] [--json]

It prints values chosen per second and, from a run of its own, what each kind of message costs its receiver. Records
that the core wants saved count as saved. With ``--record`` all that enters the replicas is recorded.
"""

from __future__ import annotations

import json
import string
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import attrs
import click

from bench.machine import about
from txpaxos.cli.printing import table
from txpaxos.core.messages import Message, NodeId
from txpaxos.core.ready import Ready
from txpaxos.core.replica import Replica
from txpaxos.recording.options import RecordingOptions
from txpaxos.recording.recorder import Recorder

COMPACT_SLOTS = 10_000
"""How often the log is truncated, as a node with snapshots does."""


@attrs.define
class Cost:
    """Of all calls of one kind."""

    calls: int = 0
    seconds: float = 0.0


class Core:
    """Replicas, of which the first leads.

    :param record: where all that enters them is recorded; nowhere if it is ``None``.
    :ivar costs: of proposals, and of each kind of message taken; filled only if ``is_timed``.
    """

    def __init__(self, nodes: int, is_timed: bool, record: str | None = None) -> None:
        members = tuple(string.ascii_lowercase[:nodes])
        self.recorders = {} if record is None else {one: Recorder(RecordingOptions(record), one) for one in members}
        self.replicas = {node: self._make(node)(node, members, Random(node), 0.0) for node in members}
        self._releases = {node: self._release_of(node) for node in members}
        self.leader = self.replicas[members[0]]
        self.costs: dict[str, Cost] = {}
        self._is_timed = is_timed
        self._post: deque[tuple[NodeId, NodeId, Message]] = deque()
        self._now = self.leader.election.wake_at
        self._take(self.leader.node, self.leader.tick(self._now))
        self._deliver_all()
        assert self.leader.is_leader, self.leader.status()
        self.costs.clear()

    def _make(self, node: NodeId) -> Callable[..., Replica]:
        return self.recorders[node].make_core if self.recorders else Replica

    def _release_of(self, node: NodeId) -> Callable[[Ready], Ready | None]:
        release = partial(self._release, node)
        return self.recorders[node].around(release) if self.recorders else release

    def close(self) -> None:
        """End the recordings."""
        for recorder in self.recorders.values():
            recorder.close()

    def choose(self, operations: int, value: bytes) -> float:
        """Have ``operations`` values chosen, with a full window under way. Returns how many seconds that takes."""
        first = self.leader.log.chosen_through
        compacted = first
        began = time.perf_counter()
        while self.leader.log.chosen_through - first < operations:
            while self.leader.has_room:
                self._propose(value)
            self._deliver_all()
            if self.leader.log.chosen_through - compacted >= COMPACT_SLOTS:
                compacted = min(replica.log.chosen_through for replica in self.replicas.values())
                for replica in self.replicas.values():
                    replica.compact(compacted)
        return time.perf_counter() - began

    def _propose(self, value: bytes) -> None:
        began = time.perf_counter() if self._is_timed else 0.0
        ready = self.leader.propose(value, self._now)
        if self._is_timed:
            self._count("propose", began)
        self._take(self.leader.node, ready)

    def _deliver_all(self) -> None:
        post = self._post
        while post:
            sender, to, message = post.popleft()
            began = time.perf_counter() if self._is_timed else 0.0
            ready = self.replicas[to].receive(sender, message, self._now)
            if self._is_timed:
                own = ", its own" if sender == to else ""
                self._count(f"{type(message).__name__}{own}", began)
            self._take(to, ready)

    def _take(self, node: NodeId, ready: Ready) -> None:
        if not ready.is_empty:
            self._releases[node](ready)

    def _release(self, node: NodeId, ready: Ready) -> None:
        for envelope in ready.send:
            self._post.extend((node, to, envelope.message) for to in envelope.to)

    def _count(self, what: str, began: float) -> None:
        cost = self.costs.setdefault(what, Cost())
        cost.seconds += time.perf_counter() - began
        cost.calls += 1


def measure(operations: int, nodes: int, value_bytes: int, record: str | None = None) -> dict[str, Any]:
    """Operations per second, and microseconds and calls of each kind of message for one operation."""
    value = bytes(value_bytes)
    plain, timed = (Core(nodes, is_timed, record and f"{record}/{is_timed}") for is_timed in (False, True))
    began = time.process_time()
    seconds = plain.choose(operations, value)
    processor_seconds = time.process_time() - began
    timed.choose(operations, value)
    plain.close()
    timed.close()
    costs = {
        what: {"microseconds": cost.seconds / cost.calls * 1e6, "calls": cost.calls / operations}
        for what, cost in timed.costs.items()
    }
    return {
        "operations": operations,
        "nodes": nodes,
        "operations_per_second": operations / seconds,
        "processor_microseconds": processor_seconds / operations * 1e6,
        "costs": costs,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--operations", type=click.IntRange(min=1), default=100_000)
@click.option("--nodes", type=click.IntRange(1, 9), default=3)
@click.option("--value-bytes", type=click.IntRange(min=1), default=100)
@click.option("--record", default=None, help="Record all that enters the replicas, in this folder.")
@click.option("--json", "wants_json", is_flag=True, help="Print JSON.")
def main(operations: int, nodes: int, value_bytes: int, record: str | None, wants_json: bool) -> None:
    """Measure the core alone."""
    measured = measure(operations, nodes, value_bytes, record)
    if wants_json:
        click.echo(json.dumps({**measured, **about()}, indent=2))
        return
    rate = measured["operations_per_second"]
    click.echo(f"{rate:.0f} values chosen a second, {1e6 / rate:.1f} us each, all {nodes} nodes' work together")
    click.echo(f"{measured['processor_microseconds']:.1f} us of processor time each\n")
    costs = measured["costs"].items()
    rows = [(what, f"{cost['microseconds']:.2f}", f"{cost['calls']:.2f}") for what, cost in costs]
    click.echo(table(("call", "us each, clock included", "calls for one value"), rows))


if __name__ == "__main__":
    main()
