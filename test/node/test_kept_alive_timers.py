"""Kept-alive timers on several nodes: what a client was told holds, whatever leaders do, and what it left ends."""

from __future__ import annotations

import os
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from txpaxos.client import Client
from txpaxos.core.messages import Slot
from txpaxos.node.snapshots.taking import Policy
from txpaxos.protocol import PaxosProtocol
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.simulator.simulation import simulate

pytestmark = [
    pytest.mark.usefixtures("expected_errors"),
    pytest.mark.no_cover,  # Under coverage it would take three times as long.
]

SEEDS = int(os.environ.get("TXPAXOS_SEEDS", "100"))

RATE_MAX = 1.25
"""How fast the fastest simulated clock goes."""

GRACE_SECONDS = 2.0
"""Two of the longest liveness windows, and a second."""


class Sessions(PaxosProtocol):
    """Names that are kept alive. A command is a name and a period in milliseconds.

    :ivar ended: each name that has ended, and when that was, by the elapsed milliseconds.
    """

    state_fields = ("ended",)

    def __init__(self) -> None:
        self.ended: list[tuple[str, int]] = []

    def apply(self, slot: Slot, command: bytes) -> int:
        """Begin a session."""
        name, _, period_ms = command.decode().partition(" ")
        self.timers.set(name, int(period_ms) / 1000, kept_alive=True)
        return self.now.elapsed_ms

    def timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        """A session ends."""
        self.ended.append((name, self.now.elapsed_ms))


class Scene:
    """Three nodes, and a client with a session of some seconds."""

    def __init__(self, seed: int, period_seconds: float = 5.0, nodes: int = 3, **options: Any) -> None:
        self.cluster = SimulatedCluster(
            *(seed, nodes, Sessions, lambda rng: b"other %d" % rng.randrange(9000, 9999)),
            **{"callers": 0, "askers": 0, "clients": 0, "readers": 0, **options},
        )
        self.period_seconds = period_seconds
        self.cluster.run(1.0)
        self.cluster.wait_until_converged()
        self.client = self.cluster.new_client("tester")
        self.began = self.cluster.time.now
        self.wait(self.client.submit(b"session %d" % (period_seconds * 1000)))

    def wait(self, call: Deferred[Any], seconds: float = 5.0) -> Any:
        """What a call gives, within that time."""
        done: list[Any] = []
        call.addBoth(done.append)
        until = self.cluster.time.now + seconds
        while not done and self.cluster.time.now < until:
            self.cluster.run(0.01)
        (result,) = done
        return result

    def keep_alive(self, seconds: float = 5.0) -> bool:
        """Whether the session is kept alive. From the beginning of that call on it must live for a period."""
        began = self.cluster.time.now
        is_alive: bool = self.wait(self.client.keep_alive(["session"]), seconds)["session"]
        if is_alive:
            self.began = began
        return is_alive

    @property
    def is_over(self) -> bool:
        """Whether any node says that the session has ended. If the client was told that it lives yet, that is wrong."""
        over = any(name == "session" for node in self.applications() for name, _ in node.ended)
        assert not over or self.cluster.time.now >= self.began + self.period_seconds / RATE_MAX
        return over

    def seconds_until_over(self, seconds: float) -> float:
        """When the session has ended, in seconds since it was kept alive last. It must end within ``seconds``."""
        while not self.is_over:
            self.cluster.run(0.05)
            assert self.cluster.time.now <= self.began + seconds
        return self.cluster.time.now - self.began

    def applications(self) -> list[Sessions]:
        nodes = [host.node for host in self.cluster.hosts.values() if host.node is not None]
        return [node.application for node in nodes if isinstance(node.application, Sessions)]

    def leader(self) -> str:
        while self.cluster.leader is None:
            self.cluster.run(0.01)
        return self.cluster.leader


@pytest.mark.parametrize("part", range(2))
def test_what_clients_are_told_holds_whatever_happens(part: int) -> None:
    """The simulator has its own rules for that: testing/checkers/timers.py."""
    kept = 0
    for seed in range(part, max(2, SEEDS // 25), 2):
        result = simulate(seed, 3.0, (3, 5, 3, 4)[seed % 4], changes=seed % 5 == 4, timers=True)
        assert result.violation is None, result.told()
        kept += result.counts.get("timers kept alive", 0)
    assert kept > 0


def test_the_time_in_the_log_is_rounded_down_to_a_millisecond() -> None:
    """In this run a timer fires 19 microseconds before its period is over."""
    result = simulate(17, 3.0, timers=True)
    assert result.violation is None, result.told()


def test_a_session_lives_while_it_is_kept_alive_and_ends_one_period_later() -> None:
    scene = Scene(1)
    for _ in range(20):
        scene.cluster.run(2.0)
        assert scene.keep_alive()
    assert 5.0 <= scene.seconds_until_over(6.0) < 5.2
    assert scene.keep_alive() is False


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_stepped_clock_makes_no_difference(step: float) -> None:
    scene = Scene(2)
    for number in range(6):
        scene.cluster.run(2.0)
        for host in scene.cluster.hosts.values():
            if number % 2 or host.name == scene.cluster.leader:
                assert host.reactor is not None
                host.reactor.step_wall_clock(step)
        assert scene.keep_alive()
    assert 5.0 <= scene.seconds_until_over(6.0) < 5.2


def test_a_leader_that_sleeps_for_three_periods_ends_nothing_when_it_wakes() -> None:
    """It would have to ask the others, who follow another one."""
    scene = Scene(3)
    for _ in range(3):
        leader = scene.cluster.hosts[scene.leader()].reactor
        assert leader is not None
        leader.pause(15.0)
        for _ in range(9):
            assert scene.keep_alive()
            scene.cluster.run(2.0)
    assert not scene.is_over


def test_a_new_leader_hears_what_clients_sent_to_the_one_before() -> None:
    """The leader dies while little is left. Without a grace the session would end before its client is heard."""
    scene = Scene(4, period_seconds=1.0)
    for _ in range(10):
        scene.cluster.run(0.3)
        assert scene.keep_alive()
        leader = scene.leader()
        scene.cluster.run(0.2)
        scene.cluster.hosts[leader].crash()
        assert scene.keep_alive(), "the client asks as soon as it can"
        scene.cluster.hosts[leader].start()


def test_twenty_leaders_within_a_period_do_not_make_a_session_last() -> None:
    scene = Scene(5, period_seconds=10.0)
    for _ in range(20):
        leader = scene.leader()
        scene.cluster.hosts[leader].crash()
        scene.cluster.run(0.35)
        scene.cluster.hosts[leader].start()
        scene.cluster.run(0.1)
    assert scene.seconds_until_over(10.0 + 20 * 0.5 + GRACE_SECONDS + 0.5) >= 10.0


def test_each_leader_gives_the_grace_once() -> None:
    """A session whose client is gone ends, though leaders change while it is about to."""
    scene = Scene(6, period_seconds=2.0)
    scene.cluster.run(1.5)
    leader = scene.leader()
    scene.cluster.hosts[leader].crash()
    scene.cluster.run(0.1)
    assert scene.seconds_until_over(1.6 + 1.0 + GRACE_SECONDS + 0.2) >= 2.0


def test_a_client_at_a_follower_is_told_by_the_log() -> None:
    scene = Scene(7)
    follower = next(name for name in scene.cluster.names if name != scene.leader())
    reactor = SimulatedReactor(scene.cluster.network, "at a follower")
    scene.client = Client(reactor, scene.cluster.configuration, [follower], Random(7))
    for _ in range(5):
        scene.cluster.run(2.0)
        assert scene.keep_alive(1.0)


def test_a_deposed_leader_tells_the_next_one_what_its_clients_wait_for() -> None:
    """Its clients are at a node that the others do not hear for a while, and wait there."""
    scene = Scene(8)
    leader = scene.leader()
    others = [name for name in scene.cluster.names if name != leader]
    cut = {pair for name in others for pair in ((name, leader), (leader, name))}
    scene.cluster.network.cut |= cut
    began = scene.cluster.time.now
    done: list[dict[str, bool]] = []
    scene.client.keep_alive(["session"]).addCallback(done.append)
    scene.cluster.run(0.1)
    scene.cluster.network.reconnect(cut)
    scene.cluster.run(1.5)
    assert done == [{"session": True}]
    scene.began = began
    assert scene.seconds_until_over(8.0) >= 5.0


def test_kept_alive_timers_are_in_snapshots() -> None:
    scene = Scene(9, 30.0, snapshot_policy=Policy(2000), clients=3)
    for number in range(40):
        scene.wait(scene.client.submit(b"other%d 1000000" % number))
    assert scene.keep_alive()
    node = scene.cluster.hosts["a"].node
    assert node is not None
    assert node.status().compaction.snapshot_slot > 0
    for host in scene.cluster.hosts.values():
        host.crash()
    scene.cluster.heal()
    scene.cluster.wait_until_converged()
    scene.cluster.run(10.0)
    assert scene.keep_alive()
    assert scene.seconds_until_over(34.0) >= 30.0


def test_one_client_goes_on_where_another_one_was() -> None:
    """Also if both keep the timer alive for a while. None takes the other one's keep-alive for its own."""
    scene = Scene(10)
    first, second = scene.client, scene.cluster.new_client("another one")
    for client in (first, first, second, first, second, second, first):
        scene.client = client
        scene.cluster.run(2.0)
        assert scene.keep_alive()
    calls = [client.keep_alive(["session"]) for client in (first, second, first, second)]
    assert [scene.wait(call) for call in calls] == 4 * [{"session": True}]


def test_idle_keep_alives_take_few_slots() -> None:
    scene = Scene(11)
    names = [f"session{number}" for number in range(200)]
    for name in names:
        scene.wait(scene.client.submit(b"%s 10000" % name.encode()))
    clients = [scene.cluster.new_client(f"client {number}") for number in range(20)]
    slots, began = len(scene.cluster.checker.chosen), scene.cluster.time.now
    alive: list[dict[str, bool]] = []
    for _ in range(5):
        for number, client in enumerate(clients):
            client.keep_alive(names[10 * number : 10 * number + 10]).addCallback(alive.append)
            scene.cluster.run(0.2)
    assert len(alive) == 100
    assert all(all(one.values()) for one in alive)
    assert len(scene.cluster.checker.chosen) - slots <= 10 * (scene.cluster.time.now - began)


def test_a_timer_that_is_kept_alive_costs_a_slot_each_time_and_none_when_it_would_have_been_due() -> None:
    scene = Scene(13, period_seconds=10.0)
    slots = len(scene.cluster.checker.chosen)
    for _ in range(15):
        scene.cluster.run(4.0)
        assert scene.keep_alive()
    assert len(scene.cluster.checker.chosen) == slots + 15


def test_without_kept_alive_timers_nothing_is_proposed() -> None:
    scene = Scene(12, period_seconds=1.0)
    scene.seconds_until_over(3.0)
    scene.cluster.run(2.0)
    slots = len(scene.cluster.checker.chosen)
    scene.cluster.run(120.0)
    assert len(scene.cluster.checker.chosen) == slots
