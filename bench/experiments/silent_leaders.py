"""Silent leaders: frozen (SIGSTOP), or cut off by dropped packets. How long clients wait, ours and etcd's."""

from __future__ import annotations

import statistics
from contextlib import closing

from bench.etcd import Etcd
from bench.experiments.leader_kills import PUT, next_put_of_etcd
from bench.ours import Nodes, Ours
from bench.report import Report, at_most
from bench.setting import Setting, running
from bench.system import START_SECONDS_MAX
from bench.wires import Wires, is_entered, missing
from txpaxos.cli.printing import table
from txpaxos.cli.status import leader_of
from txpaxos.client import Client
from txpaxos.cluster import Member

TIMES = 20
GAP_SECONDS_TARGET = 0.6
RATIO_TARGET = 0.5
REQUIRED_WAYS = {"frozen": "SIGSTOP", "cut": "all packets dropped"}


async def silent(setting: Setting, times: int = TIMES) -> Report:
    """Silence the leader ``times`` times, ours and etcd's in turn, in each way. Measured are the seconds until the next
    put that was sent after that is acknowledged."""
    wires = {name: Wires([f"{name}-{node}" for node in "abc"], first) for name, first in (("ours", 1), ("etcd", 11))}
    ways = list(REQUIRED_WAYS) if is_entered() else ["frozen"]
    if is_entered():
        Wires.build_bridge()
        for cables in wires.values():
            cables.build()
    else:
        setting.say(f"no packets are dropped: {missing() or 'not entered'}")
    ours = _Ours(setting, wires["ours"])
    etcd = _Etcd(setting, wires["etcd"])
    both = [one for one in (ours, etcd) if setting.has(one.system.name)]
    seconds: dict[str, dict[str, list[float]]] = {way: {one.system.name: [] for one in both} for way in ways}
    async with running([one.system for one in both]):
        for number in range(1, times + 1):
            for way in ways:
                for one in both:
                    gap = await one.silence(way)
                    seconds[way][one.system.name].append(gap)
                    setting.say(f"{number} of {times}, {way}, {one.system.name}: {gap:.3f} s")
    rows, verdicts = [], []
    for way, by_system in seconds.items():
        for name, all_ in by_system.items():
            rows.append(
                (f"{way} ({REQUIRED_WAYS[way]})", name, len(all_), _text(statistics.median(all_)), _text(max(all_)))
            )
        medians = {name: statistics.median(all_) for name, all_ in by_system.items()}
        ratio = medians[Ours.name] / medians[Etcd.name] if len(medians) == 2 else None
        verdicts.append(at_most(f"leader {way}, median", medians.get(Ours.name), GAP_SECONDS_TARGET, " s"))
        verdicts.append(at_most(f"leader {way}, median in etcd's", ratio, RATIO_TARGET))
    text = table(("leader", "system", "times", "median s", "worst s"), rows)
    return Report("silent leader", text, verdicts, seconds)


def _text(seconds: float) -> str:
    return f"{seconds:.3f}"


class _Ours:
    """Our cluster, and one client of it."""

    def __init__(self, setting: Setting, wires: Wires) -> None:
        nodes = _NodesAtWires if is_entered() else Nodes
        self.system = Ours(setting.reactor, nodes(setting.reactor, setting.new_folder("ours")))
        if isinstance(self.system.nodes, _NodesAtWires):
            self.system.nodes.wires = wires
        self._reactor = setting.reactor
        self._wires = wires

    async def silence(self, way: str) -> float:
        """Silence the leader once, with a put under way, and let it speak again."""
        nodes, leader = self.system.nodes, self.system.leader
        with closing(Client(self._reactor, nodes.cluster)) as client:
            for _ in range(5):
                await client.submit(PUT)
            under_way = client.submit(PUT).addTimeout(START_SECONDS_MAX, self._reactor)
            if way == "frozen":
                nodes.processes[leader].signal("STOP")
            else:
                self._wires.cut(f"ours-{leader}")
            began: float = self._reactor.seconds()
            await under_way
            await client.submit(PUT).addTimeout(START_SECONDS_MAX, self._reactor)
            seconds: float = self._reactor.seconds() - began
        if way == "frozen":
            nodes.processes[leader].signal("CONT")
        else:
            self._wires.reconnect(f"ours-{leader}")
        statuses = await nodes.wait_until(nodes.is_level, f"{leader}'s catch-up", START_SECONDS_MAX)
        self.system.leader = leader_of(nodes.cluster, statuses) or ""
        return seconds


class _NodesAtWires(Nodes):
    """Nodes in network namespaces."""

    wires: Wires

    def find_members(self) -> list[Member]:
        """See :meth:`LocalCluster.find_members`."""
        return self.wires.members

    def command(self, node: str) -> list[str]:
        """See :meth:`LocalCluster.command`."""
        return [*self.wires.at(f"ours-{node}"), *super().command(node)]


class _Etcd:
    """etcd's cluster."""

    def __init__(self, setting: Setting, wires: Wires) -> None:
        self.system = Etcd(setting.reactor, setting.new_folder("etcd"))
        if is_entered():
            self.system.place(wires.members, lambda node: wires.at(f"etcd-{node}"))
        self._reactor = setting.reactor
        self._wires = wires

    async def silence(self, way: str) -> float:
        """The same to etcd, whose other nodes are asked as after a kill."""
        etcd, leader = self.system, self.system.leader
        process = etcd.processes[leader]
        if way == "frozen":
            process.signal("STOP")
        else:
            self._wires.cut(f"etcd-{leader}")
        began: float = self._reactor.seconds()
        await next_put_of_etcd(self._reactor, [node for node in etcd.processes if node != leader], etcd)
        seconds: float = self._reactor.seconds() - began
        if way == "frozen":
            process.signal("CONT")
        else:
            self._wires.reconnect(f"etcd-{leader}")
        await etcd.find_leader()
        return seconds
