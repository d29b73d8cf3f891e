"""What it costs to see what a node does: the same load with nothing, with metrics, with JSON logs, with a recording,
and with all of these, in turn."""

from __future__ import annotations

from pathlib import Path
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

LOADS = {"1": (1, 100), "64": (64, 100), "1024": (1024, 100), "64 of 64 KiB": (64, 65_536)}
"""How many puts are under way, and the bytes of a value."""

SCRAPE_SECONDS = 1.0
"""How often each node is asked. Prometheus asks each 15 s or so."""

RATE_TARGETS = {"metrics": 0.99, "JSON logs": 0.99, "recording": 0.95, "all of these": 0.94}
CPU_TARGETS = {"metrics": 1.02, "JSON logs": 1.02, "recording": 1.05, "all of these": 1.08}

JSON_LOGS = ("--log-format", "json")
REQUEST = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"


class OursSeen(Ours):
    """A cluster of ours that is seen in one way.

    :param way: how: one of ``RATE_TARGETS``.
    """

    def __init__(self, reactor: Any, nodes: Nodes, way: str) -> None:
        super().__init__(reactor, nodes)
        self.name = named(way)


def named(way: str) -> str:
    """What the cluster that is seen in this way is called."""
    return f"with {way}"


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


class OursWatched(OursSeen):
    """A cluster of ours whose nodes are asked for their metrics while they are under load.

    :ivar scrape_bytes: how long each answer was.
    """

    nodes: WatchedNodes

    def __init__(self, reactor: Any, nodes: WatchedNodes, way: str) -> None:
        super().__init__(reactor, nodes, way)
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


async def observed(setting: Setting) -> Report:
    """Puts to nodes that are seen in each way, and to nodes that are not, in turn."""
    reactor, recording = setting.reactor, setting.new_folder("recording")
    recorded = ("--record", str(recording / "alone"))
    all_options = (*JSON_LOGS, "--record", str(recording / "beside"))
    plain = Ours(reactor, Nodes(reactor, setting.new_folder("ours")))
    seen = [
        OursWatched(reactor, WatchedNodes(reactor, setting.new_folder("watched")), "metrics"),
        OursSeen(reactor, Nodes(reactor, setting.new_folder("logged"), options=JSON_LOGS), "JSON logs"),
        OursSeen(reactor, Nodes(reactor, setting.new_folder("recorded"), options=recorded), "recording"),
        OursWatched(reactor, WatchedNodes(reactor, setting.new_folder("all"), options=all_options), "all of these"),
    ]
    loads = {label: Load(count, setting.seconds, value_bytes=size) for label, (count, size) in LOADS.items()}
    async with running([plain, *seen]):
        points = await alternate(setting, [plain, *seen], loads)
    verdicts: list[TargetCheck] = []
    for point in points:
        for way in RATE_TARGETS:
            rate = point.ratio(named(way), plain.name)
            verdicts.append(at_least(f"rate {named(way)}, in that without, at {point.label}", rate, RATE_TARGETS[way]))
            pairs = [[one.cpu_seconds["leader"] for one in point.samples[name]] for name in (named(way), plain.name)]
            target = f"the leader's processor time for a put {named(way)}, in that without, at {point.label}"
            verdicts.append(at_most(target, ratio_of_pairs(*pairs), CPU_TARGETS[way]))
    sizes = [size for one in seen if isinstance(one, OursWatched) for size in one.scrape_bytes]
    sized = f"{len(sizes)} scrapes, the longest {max(sizes)} bytes; {_on_disk(recording / 'alone')}"
    return Report("observed", f"{as_table(points, 'puts under way', plain.name)}\n\n{sized}", verdicts, as_data(points))


def _on_disk(recording: Path) -> str:
    sizes = {node.name: sum(file.stat().st_size for file in node.iterdir()) for node in sorted(recording.iterdir())}
    return "recorded: " + ", ".join(f"{node} {size / 1e6:.0f} MB" for node, size in sizes.items())
