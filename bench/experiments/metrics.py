"""What it costs that each node has a status address, and is asked there for its metrics each second: the same load with
it and without."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from bench.figures import Sample, ratio_of_pairs
from bench.ours import Nodes, Ours
from bench.report import Report, TargetCheck, as_table, at_least, at_most
from bench.setting import Setting, alternate, as_data, running
from bench.system import Load
from txpaxos.cli.local_cluster import free_members
from txpaxos.cli.running import CommandError, together
from txpaxos.cluster import Address

LOADS = (1, 64, 1024)
"""How many puts are under way."""

SCRAPE_SECONDS = 1.0
"""How often each node is asked. Prometheus asks each 15 s or so."""

RATE_TARGET = 0.99
CPU_TARGET = 1.02

REQUEST = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"


class WatchedNodes(Nodes):
    """Nodes with a status address each.

    :ivar addresses: these, by node.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        members = free_members(len(self.names))
        self.addresses = {name: one.client for name, one in zip(self.names, members, strict=True)}

    def command(self, node: str) -> list[str]:
        """See :meth:`Nodes.command`."""
        return [*super().command(node), "--status", str(self.addresses[node])]


class OursWatched(Ours):
    """A cluster of ours whose nodes are asked for their metrics while they are under load.

    :ivar scrape_bytes: how long each answer was.
    """

    name = "txpaxos watched"
    nodes: WatchedNodes

    def __init__(self, reactor: Any, nodes: WatchedNodes) -> None:
        super().__init__(reactor, nodes)
        self.scrape_bytes: list[int] = []

    async def put(self, load: Load) -> Sample:
        """See :meth:`bench.system.System.put`."""
        scraping = LoopingCall(self._scrape)
        scraping.clock = self._reactor
        ended = scraping.start(SCRAPE_SECONDS)
        try:
            return await super().put(load)
        finally:
            scraping.stop()
            await ended

    def _scrape(self) -> Deferred[Any]:
        return Deferred.fromCoroutine(together(*(self._ask(address) for address in self.nodes.addresses.values())))

    async def _ask(self, address: Address) -> None:
        answer = _Answer()
        await connectProtocol(HostnameEndpoint(self._reactor, address.host, address.port), answer)
        heard = await answer.closed
        if not heard.startswith(b"HTTP/1.1 200 ") or b"\ntxpaxos_applied_through_slot " not in heard:
            raise CommandError(f"{address} does not tell its metrics: {heard[:100]!r}")
        self.scrape_bytes.append(len(heard))


class _Answer(Protocol):
    """One request, and all that comes back."""

    def __init__(self) -> None:
        self.closed: Deferred[bytes] = Deferred()
        self._heard = b""

    def connectionMade(self) -> None:
        """Ask."""
        transport: Any = self.transport
        transport.write(REQUEST)

    def dataReceived(self, data: bytes) -> None:
        """A part of the answer has come."""
        self._heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The answer is complete."""
        self.closed.callback(self._heard)


async def metrics(setting: Setting) -> Report:
    """Puts to nodes that are watched and to nodes that have no status address, in turn."""
    plain = Ours(setting.reactor, Nodes(setting.reactor, setting.new_folder("ours")))
    watched = OursWatched(setting.reactor, WatchedNodes(setting.reactor, setting.new_folder("watched")))
    async with running([plain, watched]):
        points = await alternate(setting, [watched, plain], {f"{one}": Load(one, setting.seconds) for one in LOADS})
    verdicts: list[TargetCheck] = []
    for point in points:
        ratio = point.ratio(OursWatched.name, Ours.name)
        verdicts.append(at_least(f"rate with metrics in that without at {point.label}", ratio, RATE_TARGET))
        pairs = [[one.cpu_seconds["leader"] for one in point.samples[name]] for name in (OursWatched.name, Ours.name)]
        target = f"the leader's processor time for a put, in that without, at {point.label}"
        verdicts.append(at_most(target, ratio_of_pairs(*pairs), CPU_TARGET))
    sizes = watched.scrape_bytes
    asked = f"{len(sizes)} answers, the longest {max(sizes)} bytes"
    text = f"{as_table(points, 'puts under way', OursWatched.name)}\n\n{asked}"
    return Report("metrics", text, verdicts, as_data(points))
