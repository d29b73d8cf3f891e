"""Performs rounds of faults on a running cluster, and measures what its clients notice of them."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.task import deferLater

from test.torture.member_changer import MemberChanger
from test.torture.network_namespace import NetworkNamespaces, Rule
from test.torture.nodes import NamespacedCluster
from test.torture.plan import CHANGES, SCENARIOS, Fault, Kind, Round, leaves_quorum
from test.torture.report import STABLE_SECONDS_MAX, Silence, Stability, stable_after
from test.torture.wall_clock import WallClock
from test.torture.workload import Workload
from txpaxos.cli.running import together

PROGRESS = 10
"""This many answers after a round show that the cluster works."""

PROGRESS_SECONDS_MAX = 60.0
WATCH_SECONDS = 3.0
"""For how long the run watches whether that leader stays."""

OUTLASTED = 2
"""How many snapshots are taken while a node is down. After that the other nodes have truncated the log that it
misses."""

OUTLASTING_SECONDS_MAX = 20.0
SAMPLE_SECONDS = 0.05
ATTEMPTS_MAX = 5


class FaultInjector:
    """Does to a cluster what a plan says.

    :ivar silences: what the clients noticed, for each round.
    :ivar stabilities: the results of the scenarios.
    :ivar faults: all faults so far.
    :ivar changer: performs those that change the members.
    """

    def __init__(
        self,
        reactor: Any,
        namespaces: NetworkNamespaces,
        nodes: NamespacedCluster,
        clock: WallClock,
        workload: Workload,
    ) -> None:
        self.silences: list[Silence] = []
        self.stabilities: list[Stability] = []
        self.faults: list[Kind] = []
        self.changer = MemberChanger(reactor, nodes)
        self._reactor = reactor
        self._namespaces = namespaces
        self._nodes = nodes
        self._clock = clock
        self._workload = workload
        self._active: list[Fault] = []
        self._quorum_times: list[float] = []

    async def play(self, planned: Round) -> None:
        """One round: the faults, the recovery, and the pause.

        :raises CommandError: if the cluster does not recover, or a node ended by itself.
        """
        for fault in planned.faults:
            if fault.kind in CHANGES:
                await self.changer.prepare(fault)
        current = planned.aimed(await self._nodes.leader())
        if current.faults[0].kind in SCENARIOS:
            await self._play_scenario(current.faults[0])
        else:
            self._quorum_times = [self._reactor.seconds()]
            await together(*map(self._perform, current.faults))
            await self._workload.more(PROGRESS, PROGRESS_SECONDS_MAX)
            self._note_silence(current)
        await self._nodes.health()
        await self._sleep(current.pause_seconds)

    def _note_silence(self, current: Round) -> None:
        """Only time with a quorum counts: from the first of ``_quorum_times`` to the second, from the third to the
        fourth, ..."""
        times = [*self._quorum_times, self._reactor.seconds()]
        seconds = max(self._workload.longest_silence(begin, end) for begin, end in zip(*[iter(times)] * 2, strict=True))
        kinds = tuple(fault.kind for fault in current.faults)
        self.silences.append(Silence(kinds, len(times) == 2, seconds))

    async def _perform(self, fault: Fault) -> None:
        """Perform the fault, and note whether it takes the quorum away or gives it back."""
        self.faults.append(fault.kind)
        self._active.append(fault)
        self._note_quorum()
        try:
            await self._do(fault)
        finally:
            self._active.remove(fault)
            self._note_quorum()

    def _note_quorum(self) -> None:
        has_quorum = leaves_quorum(list(self._nodes.cluster.members), self._active)
        had_quorum = len(self._quorum_times) % 2 == 1
        if has_quorum != had_quorum:
            self._quorum_times.append(self._reactor.seconds())

    async def _do(self, fault: Fault) -> None:
        if fault.kind in CHANGES:
            await self.changer.perform(fault)
            return
        match fault.kind:
            case Kind.KILL | Kind.KILL_AT_START:
                await self._kill(fault)
            case Kind.KILL_ALL:
                await together(*map(self._nodes.kill, list(self._nodes.processes)))
                for node in fault.order:
                    self._nodes.start(node)
            case Kind.OUTLAST:
                await self._nodes.kill(fault.node)
                await self._nodes.outlast(OUTLASTED, OUTLASTING_SECONDS_MAX)
                self._nodes.start(fault.node)
            case Kind.STOP:
                await self._stop(fault)
            case Kind.STEP_CLOCK:
                self._clock.move(fault.node, fault.amount)
                await self._sleep(fault.seconds)
                self._clock.move(fault.node, 0.0)
            case Kind.FILL_DISK:
                await self._nodes.hit_full_disk()
                self._nodes.start(fault.node)
            case Kind.CUT_CLIENTS:
                await self._block(self._namespaces.of_clients(fault.node), fault.seconds)
            case Kind.LOSE_PACKETS:
                await self._block(self._namespaces.of_loss(fault.amount), fault.seconds)
            case _:
                await self._block(self._namespaces.of_links(fault.links), fault.seconds)

    async def _kill(self, fault: Fault) -> None:
        await self._nodes.kill(fault.node)
        await self._sleep(fault.seconds)
        self._nodes.start(fault.node)
        if fault.kind is Kind.KILL_AT_START:
            await self._sleep(fault.seconds)
            await self._nodes.kill(fault.node)
            self._nodes.start(fault.node)

    async def _stop(self, fault: Fault) -> None:
        self._nodes.processes[fault.node].signal("STOP")
        try:
            await self._sleep(fault.seconds)
        finally:
            self._nodes.resume(fault.node)

    async def _block(self, rules: list[Rule], seconds: float) -> None:
        await self._namespaces.block(rules)
        await self._sleep(seconds)
        await self._namespaces.unblock(rules)

    async def _play_scenario(self, fault: Fault) -> None:
        """Cut the scenario's links, and repeat it if it proves nothing."""
        for _ in range(ATTEMPTS_MAX):
            leader = await self._nodes.health()
            order = (leader, *(node for node in fault.order if node != leader))
            rules = self._namespaces.of_links(attrs.evolve(fault, order=order).links)
            self.faults.append(fault.kind)
            await self._namespaces.block(rules)
            stability = await self._watch(fault.kind)
            await self._namespaces.unblock(rules)
            await self._workload.more(PROGRESS, PROGRESS_SECONDS_MAX)
            self.stabilities.append(stability)
            if not stability.is_void:
                break

    async def _watch(self, kind: Kind) -> Stability:
        """Record which node leads, from the cut until the watch ends."""
        cut_at = self._reactor.seconds()
        leaders: list[tuple[float, str | None]] = []
        while self._reactor.seconds() < cut_at + STABLE_SECONDS_MAX + WATCH_SECONDS:
            leader = await self._nodes.leader()
            leaders.append((self._reactor.seconds() - cut_at, leader))
            await self._sleep(SAMPLE_SECONDS)
        end = self._reactor.seconds()
        silence, lag = self._workload.longest_silence(cut_at, end), self._workload.lag_seconds(cut_at, end)
        return Stability(kind, stable_after(leaders), silence, lag)

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)
