"""What kept-alive timers cost: many clients on a cluster of processes keep timers alive, and do nothing else.

    python -m bench.kept_alive [--timers 10000] [--clients 100] [--period 10] [--seconds 30]

The same nodes are measured three times: with nothing to do, while clients keep the timers alive, and while clients do
the same with commands. Each client has its share of the timers, and sends all of these together every 0.4 of the
period. Last, plain timers are due all at once: how long is the longest time that a node does not come to anything else?
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import click
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater, react

from bench.machine import about, datagrams_sent
from bench.ours import Nodes
from bench.system import ROOT
from txpaxos import Client

APP = f"{ROOT / 'bench' / 'kept_alive_service.py'}:Timers"
CADENCE = 0.4
SETTLE_SECONDS = 3.0
PLAIN_TIMERS = 100_000
DUE_SECONDS = 15.0
PROBE_SECONDS = 0.005


@attrs.define
class Crowd:
    """Clients that keep timers alive, or set them anew by commands.

    :ivar seconds: how long each call took.
    :ivar lost: how many timers were found gone.
    """

    reactor: Any
    clients: list[Client]
    share: int
    period_seconds: float
    seconds: list[float] = attrs.field(factory=list)
    lost: int = 0
    calls: list[LoopingCall] = attrs.field(factory=list)

    async def set_all(self) -> None:
        """Have all timers set."""
        await gatherResults([client.submit(self._command(number)) for number, client in enumerate(self.clients)])

    def begin(self, make: Callable[[int, Client], Deferred[Any]]) -> None:
        """Let each client call ``make`` every 0.4 of the period, one after the other."""
        every = CADENCE * self.period_seconds
        for number, client in enumerate(self.clients):
            call = LoopingCall(self._call, make, number, client)
            self.calls.append(call)
            self.reactor.callLater(every * number / len(self.clients), call.start, every)

    def end(self) -> None:
        """Call no more."""
        for call in self.calls:
            if call.running:
                call.stop()
        self.calls.clear()

    def keep_alive(self, number: int, client: Client) -> Deferred[Any]:
        """Keep the timers of a client alive."""
        kept = client.keep_alive([f"{number}/{timer}" for timer in range(self.share)])
        return kept.addCallback(self._count_lost)

    def command_each(self, number: int, client: Client) -> Deferred[Any]:
        """The same with a command for each timer."""
        command = b"again %d 1 %g" % (number, self.period_seconds)
        return gatherResults([client.submit(command) for _ in range(self.share)])

    def _command(self, number: int) -> bytes:
        return b"kept %d %d %g" % (number, self.share, self.period_seconds)

    def _count_lost(self, is_alive: dict[str, bool]) -> None:
        self.lost += sum(not one for one in is_alive.values())

    def _call(self, make: Callable[[int, Client], Deferred[Any]], number: int, client: Client) -> Deferred[Any]:
        """Call, and not again before the answer."""
        began = time.monotonic()
        return make(number, client).addCallback(lambda _: self.seconds.append(time.monotonic() - began))


class Cluster:
    """The nodes, and what they do in a while."""

    def __init__(self, reactor: Any, nodes: Nodes, leader: str, client: Client) -> None:
        self._reactor = reactor
        self._client = client
        followers = [process.pid for node, process in nodes.processes.items() if node != leader]
        self._pids = {"leader": [nodes.processes[leader].pid], "followers": followers}

    async def measure(self, what: str, seconds: float, crowd: Crowd | None = None) -> None:
        """Print what the nodes take within ``seconds``."""
        await deferLater(self._reactor, SETTLE_SECONDS)
        if crowd is not None:
            crowd.seconds.clear()
        datagrams, slots, taken, began = datagrams_sent(), await self._slots(), self._cpu_seconds(), time.monotonic()
        await deferLater(self._reactor, seconds)
        passed = time.monotonic() - began
        cpu = {role: 100 * (now - taken[role]) / passed for role, now in self._cpu_seconds().items()}
        line = f"{what:<14} leader {cpu['leader']:5.2f} %  each follower {cpu['followers'] / 2:5.2f} %"
        line += f"  {(await self._slots() - slots) / passed:6.1f} slots/s"
        line += f"  {(datagrams_sent() - datagrams) / passed:6.0f} datagrams/s"
        if crowd is not None and crowd.seconds:
            middle, worst = quantiles(crowd.seconds, n=100)[49], quantiles(crowd.seconds, n=100)[98]
            line += f"  answered in {1000 * middle:.0f} ms (99 %: {1000 * worst:.0f} ms), {crowd.lost} lost"
        print(line, flush=True)

    def _cpu_seconds(self) -> dict[str, float]:
        """By role, to the nanosecond: the ticks that most programs show are too coarse for processes that are idle."""
        return {role: sum(map(_nanoseconds, pids)) / 1e9 for role, pids in self._pids.items()}

    async def _slots(self) -> int:
        status = await self._client.status()
        slots: int = status["applied_through"]
        return slots


def _nanoseconds(pid: int) -> int:
    return sum(int(one.read_text().split()[0]) for one in Path(f"/proc/{pid}/task").glob("*/schedstat"))


async def fire_at_once(reactor: Any, nodes: Nodes, client: Client) -> None:
    """Let plain timers be due at once, and see how long each node takes at most to answer a local read."""
    count = 1000
    longest: dict[str, float] = dict.fromkeys(nodes.names, 0.0)
    probes = {node: Client(reactor, nodes.cluster, [node]) for node in nodes.names}

    def probe(node: str) -> None:
        began = time.monotonic()
        probes[node].read(b"", "local").addCallback(
            lambda _: longest.__setitem__(node, max(longest[node], time.monotonic() - began))
        )

    before = (await client.read(b"")).result
    began = time.monotonic()
    for number in range(PLAIN_TIMERS // count):  # All are due at nearly the same time.
        left = DUE_SECONDS - (time.monotonic() - began)
        await client.submit(b"plain all%d %d %g" % (number, count, left))
    calls = [LoopingCall(probe, node) for node in nodes.names]
    await deferLater(reactor, max(0.0, DUE_SECONDS - (time.monotonic() - began) - 0.3))
    longest.update(dict.fromkeys(longest, 0.0))
    for call in calls:
        call.start(PROBE_SECONDS)
    fired_from = time.monotonic()
    while (await client.read(b"")).result - before < PLAIN_TIMERS:
        await deferLater(reactor, 0.05)
    took = time.monotonic() - fired_from - 0.3
    for call in calls:
        call.stop()
    waits = ", ".join(f"{node} {1000 * seconds:.0f} ms" for node, seconds in longest.items())
    print(f"{PLAIN_TIMERS:,} plain timers due at once: all fired within {took:.1f} s; longest local read: {waits}")


async def run(
    timers: int, clients: int, period: float, seconds: float, reactor: Any, folder: Path, profile: Sequence[str]
) -> None:
    """Measure all."""
    print(about())
    nodes = Nodes(reactor, folder / "nodes", options=("--app", APP), asked=bool(profile), bench_options=profile)
    leader = await nodes.start_all(30.0)
    client = Client(reactor, nodes.cluster)
    try:
        cluster = Cluster(reactor, nodes, leader, client)
        await cluster.measure("nothing to do", seconds)
        crowd = Crowd(reactor, [Client(reactor, nodes.cluster) for _ in range(clients)], timers // clients, period)
        await crowd.set_all()
        crowd.begin(crowd.keep_alive)
        await deferLater(reactor, CADENCE * period)
        await cluster.measure("keep-alives", seconds, crowd)
        crowd.end()
        if profile:
            return
        crowd.begin(crowd.command_each)
        await deferLater(reactor, CADENCE * period)
        await cluster.measure("commands", seconds, crowd)
        crowd.end()
        await fire_at_once(reactor, nodes, client)
    finally:
        await nodes.stop()


@click.command()
@click.option("--timers", default=10_000, show_default=True, help="How many kept-alive timers.")
@click.option("--clients", default=100, show_default=True, help="How many clients keep them alive.")
@click.option("--period", default=10.0, show_default=True, help="Of each timer, in seconds.")
@click.option("--seconds", default=30.0, show_default=True, help="How long each is measured.")
@click.option("--profile", type=click.Path(path_type=Path), help="Have nodes profile themselves, into this folder.")
def main(timers: int, clients: int, period: float, seconds: float, profile: Path | None) -> None:
    """Measure kept-alive timers."""
    profiling = [] if profile is None else ["--profile", f"{profile}/{{node}}.profile"]
    with TemporaryDirectory() as folder:
        numbers = timers, clients, period, seconds
        sys.argv[1:] = []
        react(lambda reactor: Deferred.fromCoroutine(run(*numbers, reactor, Path(folder), profiling)))


if __name__ == "__main__":
    main()
