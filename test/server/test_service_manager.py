"""What systemd is told of a node, at a real datagram socket: of simulated nodes, and of ``twistd paxos`` processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel

from test.helpers.cli_nodes import Nodes
from test.helpers.fakes import logged
from test.helpers.notify_socket import Listening, listening
from test.node.test_disk_hangs import hang, led, one
from txpaxos.errors import ConfigError
from txpaxos.node.node import Node
from txpaxos.node.snapshots.taking import Policy
from txpaxos.server.service_manager import NotifySocket, ServiceManager, watchdog_seconds_of
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.host import Host
from txpaxos.testing.simulator.network import SimulatedReactor

WATCHDOG_SECONDS = 2.0


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path / "notify") as made:
        yield made


@pytest.fixture
def cluster() -> SimulatedCluster:
    cluster = SimulatedCluster(
        7, workload=one, clients=0, askers=0, callers=0, readers=0, snapshot_policy=Policy(2**40)
    )
    cluster.run(2.0)
    return cluster


class Watched:
    """A node of the simulated cluster that a service manager is told of."""

    def __init__(self, cluster: SimulatedCluster, host: Host, address: str, seconds: float | None) -> None:
        assert host.node is not None
        self.node: Node = host.node
        self.is_ready: Deferred[Any] = succeed(None)
        self.manager = ServiceManager(SimulatedReactor(cluster.network, host.name), NotifySocket(address), seconds)

    def ready(self) -> Deferred[Any]:
        return self.is_ready


Watching = Callable[..., Watched]


@pytest.fixture
def watching(cluster: SimulatedCluster, systemd: Listening) -> Watching:
    def watching(host: Host, seconds: float | None = WATCHDOG_SECONDS, **attributes: Any) -> Watched:
        watched = Watched(cluster, host, systemd.address, seconds)
        for name, value in attributes.items():
            setattr(watched, name, value)
        watched.manager.watch(watched)
        return watched

    return watching


def follower(cluster: SimulatedCluster) -> Host:
    return next(host for host in cluster.hosts.values() if host is not led(cluster))


def alive(heard: list[list[str]]) -> int:
    """How many datagrams were signs of life."""
    return sum("WATCHDOG=1" in lines for lines in heard)


def test_of_a_leader(cluster: SimulatedCluster, systemd: Listening, watching: Watching) -> None:
    host = led(cluster)
    watching(host)
    status = f"STATUS=node {host.name} serves: it leads"
    assert systemd.all() == [["READY=1", status, "WATCHDOG=1"]]
    cluster.run(WATCHDOG_SECONDS)
    heard = systemd.all()
    assert heard == [["READY=1", status, "WATCHDOG=1"]] * len(heard)
    assert 3 <= len(heard) <= 4


def test_without_a_watchdog_only_changes_are_said(
    cluster: SimulatedCluster, systemd: Listening, watching: Watching
) -> None:
    leader, other = led(cluster), follower(cluster)
    watching(other, None)
    assert systemd.all() == [["READY=1", f"STATUS=node {other.name} serves: it follows {leader.name}"]]
    cluster.run(5.0)
    assert systemd.all() == []
    assert leader.node is not None
    leader.crash()
    cluster.run(5.0)
    heard = systemd.all()
    assert heard
    assert f"STATUS=node {other.name} serves: it follows {leader.name}" not in heard[-1]
    assert all("READY=1" in lines for lines in heard)


def test_it_is_ready_once_a_leader_is_known(cluster: SimulatedCluster, systemd: Listening, watching: Watching) -> None:
    ready: Deferred[None] = Deferred()
    name = led(cluster).name
    watching(led(cluster), None, is_ready=ready)
    assert systemd.all() == [[f"STATUS=node {name} starts: it leads"]]
    ready.callback(None)
    assert systemd.all() == [["READY=1", f"STATUS=node {name} serves: it leads"]]


def test_a_disk_that_hangs_ends_the_signs_of_life(
    cluster: SimulatedCluster, systemd: Listening, watching: Watching
) -> None:
    host = led(cluster)
    watched = watching(host)
    hang(host)
    watched.node.submit(b"1").addErrback(lambda _: None)
    cluster.run(1.0)
    assert watched.node.disk_hangs
    systemd.all()
    cluster.run(2 * WATCHDOG_SECONDS)
    heard = systemd.all()
    assert alive(heard) == 0
    assert heard[-1] == ["READY=1", f"STATUS=node {host.name} serves: its disk hangs, so it neither leads nor votes"]


def test_it_stops_once(cluster: SimulatedCluster, systemd: Listening, watching: Watching) -> None:
    watched = watching(led(cluster))
    systemd.all()
    for _ in range(2):
        watched.manager.stopping()
    cluster.run(2 * WATCHDOG_SECONDS)
    assert systemd.all() == [["STOPPING=1", f"STATUS=node {watched.node.name} stops"]]


def test_what_is_not_taken_is_said_again(cluster: SimulatedCluster, tmp_path: Path) -> None:
    """One line of the log says so, and the node waits for nothing."""
    path = tmp_path / "late"
    watched = Watched(cluster, led(cluster), str(path), None)

    def three_seconds() -> None:
        watched.manager.watch(watched)
        cluster.run(3.0)

    said = logged(three_seconds, LogLevel.warn)
    assert ["does not take" in event["log_format"] for event in said] == [True]
    with listening(path) as systemd:
        cluster.run(3.0)
        assert systemd.all() == [["READY=1", f"STATUS=node {watched.node.name} serves: it leads"]]


def test_a_socket_in_no_folder() -> None:
    name = f"txpaxos-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as abstract:
        abstract.bind(f"\0{name}")
        sender = NotifySocket(f"@{name}")
        assert sender.send("STATUS=päx", "READY=1")
        assert abstract.recv(100).decode() == "STATUS=päx\nREADY=1"
        sender.close()


def test_no_service_manager() -> None:
    assert ServiceManager.of(None, {"WATCHDOG_USEC": "nonsense"}) is None


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_the_watchdog_is_that_of_this_process(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds_of(environment) == seconds


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({"NOTIFY_SOCKET": "notify"}, "NOTIFY_SOCKET 'notify': must be a path that begins with / or @"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC 'soon': must be a number of microseconds"),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "0"}, "WATCHDOG_USEC '0': must be a number of microseconds"),
    ],
)
def test_a_wrong_environment_is_one_line(environment: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServiceManager.of(SimulatedReactor, environment)
    assert str(caught.value) == line


# --------------------------------------------------------------- processes


class ManagedNodes(Nodes):
    """Nodes of which one, ``a``, is told where systemd listens."""

    def __init__(self, folder: Path, *names: str, systemd: Listening, watchdog_seconds: float) -> None:
        super().__init__(folder, *names)
        self._told = {
            "NOTIFY_SOCKET": systemd.address,
            "WATCHDOG_USEC": str(int(watchdog_seconds * 1_000_000)),
        }

    def start(self, node: str, file: str = "cluster.toml") -> None:
        os.environ.update(self._told if node == "a" else {})
        try:
            super().start(node, file)
        finally:
            for name in self._told:
                os.environ.pop(name, None)


@pytest.fixture
def nodes(tmp_path: Path, systemd: Listening) -> Iterator[ManagedNodes]:
    made = ManagedNodes(tmp_path, "a", "b", "c", systemd=systemd, watchdog_seconds=0.4)
    try:
        yield made
    finally:
        for node in list(made.processes):
            made.kill(node)


def test_a_process(nodes: ManagedNodes, systemd: Listening) -> None:
    """It is ready when there is a majority, gives no sign of life while it is stopped, and says that it stops."""
    nodes.start("a")
    assert systemd.next() == ["STATUS=node a starts: no leader is known, so commands wait", "WATCHDOG=1"]
    assert "READY=1" not in systemd.next()
    nodes.start("b")
    systemd.wait_for("READY=1")
    process = nodes.processes["a"]
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    systemd.all()
    with pytest.raises(TimeoutError):
        systemd.next(1.0)
    process.send_signal(signal.SIGCONT)
    systemd.wait_for("WATCHDOG=1")
    process.terminate()
    assert systemd.wait_for("STOPPING=1") == ["STOPPING=1", "STATUS=node a stops"]
    assert process.wait(60) == -signal.SIGTERM
    assert systemd.all() == []


def test_a_process_with_a_wrong_environment_is_one_line(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "a")
    os.environ["NOTIFY_SOCKET"] = "nowhere"
    try:
        nodes.start("a")
    finally:
        del os.environ["NOTIFY_SOCKET"]
    try:
        assert nodes.processes["a"].wait(60) == 1
    except subprocess.TimeoutExpired:
        pytest.fail((tmp_path / "a.log").read_text())
    finally:
        nodes.kill("a")
    said = (tmp_path / "a.log").read_text()
    assert "twistd paxos: node a cannot start: NOTIFY_SOCKET 'nowhere': must be a path" in said
    assert "Traceback" not in said
