"""A disk that hangs: its node leaves its part to the others, says so, goes on when it can, and ends when it is told."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from test.storage.test_contract import ReactorThread
from txpaxos.cli.local_cluster import free_members
from txpaxos.cli.status import as_text
from txpaxos.client import Client
from txpaxos.cluster import Address, Member
from txpaxos.cluster import Cluster as Configuration
from txpaxos.core.config import Timing
from txpaxos.counter import Counter
from txpaxos.errors import NotChosen, OutcomeUnknown
from txpaxos.node.counts import Count
from txpaxos.node.node import Node
from txpaxos.node.snapshots.taking import Policy
from txpaxos.reading import Reading
from txpaxos.storage.disk import Disk
from txpaxos.storage.store import DiskStore
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.network import SimulatedReactor
from txpaxos.testing.store.harness import voted

WINDOW_SECONDS = Timing().liveness_window_seconds[1]
CONFIGURATION = Configuration("test", {"a": Member(Address("127.0.0.1", 4001), Address("127.0.0.1", 5001))})
ELECTED_SECONDS = 4 * WINDOW_SECONDS
"""Until the hang is noticed, the leader's silence is, and another is elected."""


def one(rng: Random) -> bytes:
    """A command."""
    return b"1"


def led(cluster: SimulatedCluster) -> Host:
    """The host that leads."""
    return next(host for host in cluster.hosts.values() if host.node and host.node.leader == host.name)


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(
        7, workload=one, clients=0, askers=0, callers=0, readers=0, snapshot_policy=Policy(2**40)
    )
    cluster.run(2.0)
    return cluster


class Caller:
    """A client of the simulated cluster, and what became of its requests."""

    def __init__(self, cluster: SimulatedCluster, name: str, nodes: list[str] | None = None) -> None:
        self.reactor = SimulatedReactor(cluster.network, name)
        self.client = Client(
            self.reactor, cluster.configuration, nodes, cluster.fork_rng(), sending=cluster.checker.submitting
        )
        self.ended: list[Any] = []
        self.begun = 0

    def call(self, name: str, *arguments: Any, **named: Any) -> None:
        self.begun += 1

        def call() -> None:
            getattr(self.client, name)(*arguments, **named).addBoth(self.ended.append)

        self.reactor.run(call)


def hang(host: Host) -> None:
    """No save of that host ends any more."""
    host.save_seconds = 10_000.0


def lines(events: list[str], node: str) -> list[str]:
    return [line for line in events if f"disk of node {node} " in line]


@pytest.fixture
def logged() -> Any:
    events: list[str] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        if event["log_level"].name == "warn":
            events.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


@pytest.mark.parametrize("writes_a_second", [20, 5, 1])
def test_a_leader_whose_disk_hangs_is_replaced_while_clients_write(
    cluster: SimulatedCluster, writes_a_second: int, logged: list[str]
) -> None:
    leader = led(cluster)
    writer = Caller(cluster, "writer")
    readers = {name: Caller(cluster, f"reader-{name}", [name]) for name in cluster.names}
    hang(leader)
    for number in range(10 * writes_a_second):
        writer.call("submit", b"1", deadline_seconds=60.0)
        if number % writes_a_second == 0:
            for reader in readers.values():
                reader.call("read", b"", deadline_seconds=3.0)
        cluster.run(1 / writes_a_second)
    cluster.run(4.0)
    assert writer.ended == list(range(1, writer.begun + 1))
    others = [host for host in cluster.hosts.values() if host is not leader]
    assert {host.node and host.node.leader for host in others} <= {host.name for host in others}
    for host in others:
        reader = readers[host.name]
        assert len(reader.ended) == reader.begun
        answered = [isinstance(answer, Reading) for answer in reader.ended]
        assert all(answered[2:])
    pinned = readers[leader.name]
    assert len(pinned.ended) == pinned.begun
    assert leader.node is not None
    status = leader.node.status()
    assert status.replica.role == "follower"
    assert status.disk_hangs_seconds is not None
    assert status.disk_hangs_seconds > 8.0
    assert status.unheard == []
    (line,) = lines(logged, leader.name)
    assert line.startswith(f"the disk of node {leader.name} hangs: a save that began 0.")
    assert leader.node._performer.waiting < 100


def test_it_goes_on_in_order_when_the_disk_comes_back(cluster: SimulatedCluster, logged: list[str]) -> None:
    leader = led(cluster)
    writer = Caller(cluster, "writer")
    leader.save_seconds = 5.0
    writer.call("submit", b"1", deadline_seconds=60.0)
    cluster.run(ELECTED_SECONDS)
    leader.save_seconds = 0.0
    for _ in range(40):
        writer.call("submit", b"1", deadline_seconds=60.0)
        cluster.run(0.2)
    assert writer.ended == list(range(1, 42))
    assert leader.node is not None
    assert leader.node.status().disk_hangs_seconds is None
    assert {host.node.applied_through for host in cluster.hosts.values() if host.node} == {leader.node.applied_through}
    first, second = lines(logged, leader.name)
    assert "hangs: a save that began" in first
    assert second == f"the disk of node {leader.name} works again: a save took 5.0 s"
    assert leader.node.leader != leader.name


def test_a_follower_whose_disk_hangs_disturbs_no_other(cluster: SimulatedCluster) -> None:
    leader = led(cluster)
    follower = next(host for host in cluster.hosts.values() if host is not leader)
    writer, reader = Caller(cluster, "writer"), Caller(cluster, "reader")
    won = cluster.checker.ballots_won
    hang(follower)
    for _ in range(50):
        writer.call("submit", b"1", deadline_seconds=60.0)
        reader.call("read", b"", deadline_seconds=3.0)
        cluster.run(0.2)
    cluster.run(3.0)
    assert writer.ended == list(range(1, 51))
    assert all(isinstance(answer, Reading) for answer in reader.ended)
    assert (cluster.checker.ballots_won, led(cluster)) == (won, leader)
    assert follower.node is not None
    assert follower.node.disk_hangs
    assert follower.node.counters[Count.DROPPED_WHILE_DISK_HUNG] > 10
    assert follower.node._performer.waiting < 100


def test_a_call_of_the_node_s_own_program_ends_by_its_deadline(cluster: SimulatedCluster) -> None:
    leader = led(cluster)
    hang(leader)
    node = leader.node
    assert node is not None
    ended: list[object] = []
    cluster.time.after(0.0, lambda: node.submit(b"1"))
    cluster.run(2 * WINDOW_SECONDS)
    assert node.disk_hangs
    for call in (node.submit, node.read, lambda value, **named: node.ask("s", value, **named)):
        call(b"1", deadline_seconds=2.0).addBoth(ended.append)
    cluster.run(3.0)
    assert [isinstance(end, Failure) and type(end.value).__name__ for end in ended] == [
        "OutcomeUnknown",
        "NoQuorum",
        "OutcomeUnknown",
    ]


@pytest.mark.no_cover  # Under coverage it would take three times as long.
@pytest.mark.parametrize("seed", range(2))
def test_disks_that_are_slow_now_and_then_cause_no_storm(seed: int) -> None:
    """Each save of each node has a chance to take longer than a liveness window. A leader is replaced at most once for
    each of its own, and clients get their answers."""
    cluster = SimulatedCluster(
        seed, workload=one, clients=1, askers=0, callers=0, readers=1, snapshot_policy=Policy(2**40)
    )
    cluster.run(2.0)
    rng = cluster.fork_rng()
    won, slow = cluster.checker.ballots_won, 0
    for _ in range(60):
        for host in cluster.hosts.values():
            host.save_seconds = 1.5 * WINDOW_SECONDS if rng.random() < 0.05 else 0.002
            slow += host.save_seconds > WINDOW_SECONDS
        cluster.run(0.25)
    assert slow > 0
    assert cluster.checker.ballots_won - won <= 2 * slow
    cluster.heal()
    cluster.wait_until_converged()
    cluster.check_quiescence()


def test_a_node_alone_goes_on_leading(logged: list[str]) -> None:
    cluster = SimulatedCluster(1, nodes=1, workload=one, clients=1, askers=0, callers=0, readers=0)
    cluster.run(1.0)
    (host,) = cluster.hosts.values()
    host.save_seconds = 2 * WINDOW_SECONDS
    cluster.run(6.0)
    assert led(cluster) is host
    assert lines(logged, host.name)
    host.save_seconds = 0.0
    cluster.wait_until_converged()


def test_clients_get_from_it_what_needs_no_disk(cluster: SimulatedCluster) -> None:
    """Its status, which says that its disk hangs, and local reads. What needs the disk ends the connection."""
    leader = led(cluster)
    hang(leader)
    Caller(cluster, "writer").call("submit", b"1", deadline_seconds=60.0)
    cluster.run(ELECTED_SECONDS)
    caller = Caller(cluster, "caller", [leader.name])
    caller.call("status", deadline_seconds=1.0)
    caller.call("read", b"", "local", deadline_seconds=1.0)
    cluster.run(1.0)
    status, reading = caller.ended
    assert status["disk_hangs_seconds"] > WINDOW_SECONDS
    assert isinstance(reading, Reading)
    assert f"disk hangs ({status['disk_hangs_seconds']:.0f} s)" in as_text(
        cluster.configuration, {leader.name: status}, None
    )
    caller.call("submit", b"1", deadline_seconds=1.0)
    cluster.run(2.0)
    assert caller.ended[2].check(OutcomeUnknown, NotChosen)
    assert leader.node is not None
    assert leader.node.counters[Count.CLIENT_SENT_AWAY_DISK_HANGS] > 0


# --------------------------------------------------------------------- stopping


class HungDisk(Disk):
    """The real disk; from some time on, no sync returns until it is released."""

    def __init__(self) -> None:
        self.hangs = False
        self.syncing = threading.Event()
        self.released = threading.Event()

    def sync_data(self, handle: int) -> None:
        if self.hangs:
            self.syncing.set()
            self.released.wait(60)
        super().sync_data(handle)


def test_a_node_that_stops_does_not_wait_for_ever(tmp_path: Path, logged: list[str]) -> None:
    clock, disk, thread = Clock(), HungDisk(), ReactorThread()
    store = DiskStore(tmp_path / "data", "test", "a", disk=disk, sync_in_thread=True, reactor=thread)
    node = Node(Counter(), clock, "a", CONFIGURATION, store, monotonic=clock.seconds)
    disk.hangs = True
    store.save([voted(1)])
    assert disk.syncing.wait(30)
    stopped: list[object] = []
    node.stop().addBoth(stopped.append)
    clock.advance(2.9)
    assert stopped == []
    clock.advance(0.2)
    assert stopped == [None]
    assert [line for line in logged if "stops without its disk" in line] == [
        "node a stops without its disk, which has not finished in 3.0 s: the save under way was not"
        " acknowledged; the next start finds it or not"
    ]
    disk.released.set()
    again: list[Callable[[], object]] = []
    while len(again) < 2:  # What comes later belongs to no test.
        again.append(thread.calls.get(timeout=30))
        again[-1]()
    assert stopped == [None]
    assert clock.getDelayedCalls() == []


def test_a_node_that_stops_waits_for_its_disk_as_long_as_it_may(tmp_path: Path, logged: list[str]) -> None:
    clock, done = Clock(), Deferred[None]()
    store = DiskStore(tmp_path / "data", "test", "a", execute=lambda work: done)
    node = Node(Counter(), clock, "a", CONFIGURATION, store, monotonic=clock.seconds)
    stopped: list[object] = []
    node.stop().addBoth(stopped.append)
    clock.advance(2.0)
    done.callback(None)
    assert (stopped, clock.getDelayedCalls()) == ([None], [])
    assert not [line for line in logged if "stops without" in line]


PROGRAM = """
import sys, threading, time
from twisted.internet import reactor
from twisted.logger import textFileLogObserver, globalLogBeginner
from txpaxos.cluster import Cluster
from txpaxos.core.config import Timing
from txpaxos.counter import Counter
from txpaxos.server.service import PaxosService
from txpaxos.storage.disk import Disk

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)], redirectStandardIO=False)


class HungDisk(Disk):
    hangs = False

    def sync_data(self, handle):
        while self.hangs:
            time.sleep(1)
        time.sleep(0.004)  # Slow enough for a thread.
        super().sync_data(handle)


def go_on():
    if service.node.applied_through:
        HungDisk.hangs = True
    service.node.submit(b"1").addErrback(lambda failure: None)
    reactor.callLater(0.1, go_on)


service = PaxosService(Counter, "a", sys.argv[1], sys.argv[2], disk=HungDisk())
reactor.callWhenRunning(service.startService)
reactor.callLater(0.1, go_on)
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""


def test_a_process_whose_disk_hangs_ends_when_it_is_told(tmp_path: Path) -> None:
    cluster = Configuration("test", {"a": free_members(1)[0]})
    (tmp_path / "cluster.toml").write_text(cluster.dumps())
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "cluster.toml"), str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "the disk of node a hangs" in line:
                break
        process.terminate()
        rest, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, (seen, rest)
    assert "node a stops without its disk, which has not finished in 3.0 s: the save under way" in rest
    assert "Traceback" not in rest
