"""A node as a service, on real sockets and real disks: it starts, serves, stops, and fails with one line."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from test.helpers.fakes import ONE, Reactor, free_ports, logged, outcome_of
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError, StoreError
from txpaxos.protocol import PaxosProtocol
from txpaxos.server.served_node import STOP_SECONDS, ServedNode
from txpaxos.server.service import PaxosService
from txpaxos.storage.disk import Disk
from txpaxos.storage.last_application import LastApplication
from txpaxos.storage.store import DiskStore

reactor: Any = installed_reactor

SECONDS = 20.0
"""More than any step takes on a busy machine."""

APPLICATION = """\
import resource, time
from twisted.internet import reactor
from txpaxos.protocol import PaxosProtocol

class Clocked(PaxosProtocol):
    def apply(self, slot, command):
        pass

    def leadership_acquired(self):
        print("clock", abs(reactor.seconds() - time.time()) < 1.0, flush=True)
        reactor.callLater(0, reactor.stop)

class BreaksItsDisk(PaxosProtocol):
    def leadership_acquired(self):
        self.submit(b"break").addErrback(lambda _: None)
    def apply(self, slot, command):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # from now on every write to a file fails
        reactor.callLater(0, lambda: self.submit(b"x").addErrback(lambda _: print("no outcome", flush=True)))
"""


class Echo(PaxosProtocol):
    """Answers with the length of the command."""

    def apply(self, slot: int, command: bytes) -> int:
        return len(command)


def loopback(nodes: str) -> Cluster:
    ports = iter(free_ports(2 * len(nodes)))
    return Cluster(
        "test",
        {node: Member(Address("127.0.0.1", next(ports)), Address("127.0.0.1", next(ports))) for node in nodes},
    )


def service(
    cluster: Cluster, node: str, folder: Path, application: Callable[..., PaxosProtocol] = Echo
) -> PaxosService:
    return PaxosService(application, node, cluster, folder / node, reactor=reactor)


async def answered(deferred: Deferred[Any]) -> Any:
    return await deferred.addTimeout(SECONDS, reactor)


# ------------------------------------------------------------- in this process


async def test_a_node_serves_and_starts_again(tmp_path: Path) -> None:
    cluster = loopback("a")
    for total in (5, 10):
        node = service(cluster, "a", tmp_path, Counter)
        node.startService()
        client = Client(reactor, cluster)
        assert await answered(client.submit(b"5")) == total
        assert (await answered(client.status()))["leader"] == "a"
        client.close()
        await answered(node.stopService())


async def test_three_nodes_and_the_loss_of_their_leader(tmp_path: Path) -> None:
    """Small commands as datagrams, big ones on streams, from a client that has to find another node on the way."""
    cluster = loopback("abc")
    nodes = {name: service(cluster, name, tmp_path) for name in cluster.members}
    for node in nodes.values():
        node.startService()
    client = Client(reactor, cluster)
    sizes = [1, 100_000, 10, 2**20, 3000]
    assert await answered(gatherResults([client.submit(bytes(size)) for size in sizes])) == sizes
    leader = (await answered(client.status()))["leader"]
    await answered(nodes.pop(leader).stopService())
    assert await answered(gatherResults([client.submit(bytes(size)) for size in sizes])) == sizes
    assert await answered(client.ask("king", bytes(50_000))) == bytes(50_000)
    assert (await answered(client.status()))["leader"] in nodes
    client.close()
    for node in nodes.values():
        await answered(node.stopService())


async def test_a_node_saves_with_the_disk_it_is_given(tmp_path: Path) -> None:
    class Counting(Disk):
        syncs = 0

        def sync_data(self, handle: int) -> None:
            self.syncs += 1
            super().sync_data(handle)

    cluster, disk = loopback("a"), Counting()
    node = PaxosService(Counter, "a", cluster, tmp_path / "a", reactor=reactor, disk=disk)
    node.startService()
    client = Client(reactor, cluster)
    await answered(client.submit(b"1"))
    before = disk.syncs
    assert await answered(client.submit(b"1")) == 2
    assert disk.syncs == before + 1
    client.close()
    await answered(node.stopService())


async def test_a_stopped_service_leaves_nothing_behind(tmp_path: Path) -> None:
    cluster = loopback("ab")
    before = set(reactor.getDelayedCalls())
    node = service(cluster, "a", tmp_path)
    node.startService()
    client = Client(reactor, cluster, ["a"])
    await answered(client.status())
    client.close()
    await answered(node.stopService())
    assert set(reactor.getDelayedCalls()) - before == set()
    member = cluster.members["a"]
    for address, kind in [
        (member.address, socket.SOCK_DGRAM),
        (member.address, socket.SOCK_STREAM),
        (member.client, socket.SOCK_STREAM),
    ]:
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    DiskStore(str(tmp_path / "a"), "test", "a", sync_in_thread=False).close()  # not in use any more


def test_a_service_that_never_started_stops() -> None:
    fake = Reactor()
    outcome = outcome_of(PaxosService(Echo, "a", ONE, "nowhere", reactor=fake).stopService())
    assert outcome == [None]
    assert fake.getDelayedCalls() == []


async def test_a_node_that_does_not_stop_does_not_keep_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = ServedNode(Echo, "a", loopback("a"), tmp_path / "a", reactor=reactor)
    served.start()
    await answered(served.node.stop())
    monkeypatch.setattr(served.node, "stop", Deferred)
    fake = Reactor()
    monkeypatch.setattr(served, "_reactor", fake)
    monkeypatch.setattr(served, "_trigger", None)
    outcome = outcome_of(served.stop())
    await deferLater(reactor, 0)
    fake.spend(STOP_SECONDS - 0.1)
    assert outcome == []
    assert len(logged(lambda: fake.spend(0.2), LogLevel.warn)) == 1
    assert outcome == [None]


@contextmanager
def taken(address: Address, kind: socket.SocketKind) -> Iterator[None]:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind((address.host, address.port))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        yield


@pytest.mark.parametrize(
    ("which", "kind"),
    [("address", socket.SOCK_DGRAM), ("address", socket.SOCK_STREAM), ("client", socket.SOCK_STREAM)],
)
async def test_a_port_that_is_taken(tmp_path: Path, which: str, kind: socket.SocketKind) -> None:
    cluster = loopback("ab")
    address: Address = getattr(cluster.members["a"], which)
    node = service(cluster, "a", tmp_path)
    with taken(address, kind), pytest.raises(ConfigError) as caught:
        node.startService()
    line = str(caught.value)
    assert line.startswith(f"Couldn't listen on {address} (")
    assert "\n" not in line
    assert not node.running
    DiskStore(str(tmp_path / "a"), "test", "a", sync_in_thread=False).close()  # the folder is not held


class Renamed(Echo):
    """Another application, or the same under another name."""


async def test_another_application_on_a_folder_is_warned_of_once(tmp_path: Path) -> None:
    cluster = loopback("a")
    warnings: list[int] = []
    for application in (Echo, Echo, Renamed, Renamed, Echo):
        one = service(cluster, "a", tmp_path, application)
        name = f"test.server.test_service:{application.__name__}"
        events = logged(one.startService, LogLevel.warn)
        warnings.append(len(events))
        for event in events:
            assert "if that is not the same application under another name" in event["log_format"]
            assert event["name"] == name
            assert event["before"] != name
        assert one.node.status().application == name
        await answered(one.stopService())
    assert warnings == [0, 0, 1, 0, 1]


async def test_a_folder_in_which_no_application_can_be_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("cannot write application: no room")

    monkeypatch.setattr(LastApplication, "write", refuse)
    one = service(loopback("a"), "a", tmp_path)
    (event,) = logged(one.startService, LogLevel.warn)
    assert event["reason"] == "cannot write application: no room"
    await answered(one.stopService())


async def test_the_folder_of_another_node(tmp_path: Path) -> None:
    cluster = loopback("ab")
    DiskStore(str(tmp_path / "a"), "test", "b", sync_in_thread=False).close()
    with pytest.raises(StoreError, match="belongs to node 'b' of cluster 'test', not to node 'a'"):
        service(cluster, "a", tmp_path).startService()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"^cannot create .*file/a: Not a directory"):
        service(loopback("a"), "a", tmp_path / "file").startService()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
async def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="Permission denied"):
        service(loopback("a"), "a", tmp_path).startService()


async def test_what_was_saved_and_cannot_be_read_leaves_nothing_open(tmp_path: Path) -> None:
    cluster = loopback("ab")
    store = DiskStore(str(tmp_path / "a"), "test", "a", sync_in_thread=False)
    store.load()
    store.close()
    (journal,) = (tmp_path / "a" / "journal").iterdir()
    with journal.open("r+b") as file:
        file.write(b"rot")
    node = service(cluster, "a", tmp_path)
    with pytest.raises(StoreError):
        node.startService()
    await deferLater(reactor, 0)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind((cluster.members["a"].address.host, cluster.members["a"].address.port))
    with pytest.raises(StoreError, match=r"(?!.*in use)"):
        service(cluster, "a", tmp_path).startService()
    await deferLater(reactor, 0)


def test_a_node_that_is_not_in_the_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no node z: its nodes are a, b"):
        service(loopback("ab"), "z", tmp_path).startService()


def test_an_application_that_cannot_be_made_leaves_nothing_locked(tmp_path: Path) -> None:
    class Raises(Echo):
        def __init__(self) -> None:
            raise ValueError("no")

    cluster = loopback("a")
    with pytest.raises(ConfigError, match=r"^Raises cannot be made: ValueError: no \(.*test_service\.py, line "):
        service(cluster, "a", tmp_path, Raises).startService()
    DiskStore(str(tmp_path / "a"), "test", "a", sync_in_thread=False).close()


async def test_a_node_that_gives_up_does_not_end_the_program_that_it_is_in(tmp_path: Path) -> None:
    cluster = loopback("ab")
    failures: list[Failure] = []
    node = PaxosService(Echo, "a", cluster, tmp_path / "a", reactor=reactor, gave_up=failures.append)
    node.startService()
    logged(lambda: node.node.give_up(StoreError("its disk is gone")))
    await deferLater(reactor, 0.1)
    assert [str(failure.value) for failure in failures] == ["its disk is gone"]
    assert not node.running
    again = service(cluster, "a", tmp_path)  # Its ports and its folder are free.
    again.startService()
    await answered(again.stopService())


async def test_a_node_that_its_own_program_stops_disconnects_its_clients(tmp_path: Path) -> None:
    cluster = loopback("ab")
    calls: list[str] = []
    node = PaxosService(Echo, "a", cluster, tmp_path / "a", reactor=reactor, stopped=lambda: calls.append("stopped"))
    node.startService()
    await answered(node.application.stop())
    await deferLater(reactor, 0.1)
    assert not node.running
    assert calls == ["stopped"]
    again = PaxosService(Echo, "a", cluster, tmp_path / "a", reactor=reactor, stopped=lambda: calls.append("again"))
    again.startService()  # Its ports and its folder are free.
    await answered(again.stopService())
    assert calls == ["stopped"]  # Who stops the service itself need not be told.


# ---------------------------------------------------------------------- names


def at(address: str, client: str, ports: Iterator[int], **more: Address) -> Member:
    return Member(Address(address, next(ports)), Address(client, next(ports)), **more)


async def started(cluster: Cluster, folder: Path) -> list[tuple[str, str]]:
    """Where node ``a`` listens, once it does."""
    node = service(cluster, "a", folder)
    node.startService()
    try:
        hosts: list[Any] = [port.getHost() for port in node._ports]
        return [(host.type, host.host) for host in hosts]
    finally:
        await answered(node.stopService())


async def test_the_name_of_another_node_may_be_unknown(tmp_path: Path, hosts: dict[str, list[str]]) -> None:
    hosts["na.test"] = ["127.0.0.1"]
    ports = iter(free_ports(4))
    cluster = Cluster("test", {"a": at("na.test", "na.test", ports), "b": at("nb.test", "nb.test", ports)})
    assert await started(cluster, tmp_path) == [("UDP", "127.0.0.1"), ("TCP", "127.0.0.1")]


def test_its_own_name_may_not(tmp_path: Path, hosts: dict[str, list[str]]) -> None:
    ports = iter(free_ports(4))
    cluster = Cluster("test", {"a": at("na.test", "127.0.0.1", ports), "b": at("127.0.0.1", "127.0.0.1", ports)})
    with pytest.raises(ConfigError, match=r"^cannot resolve 'na\.test'"):
        service(cluster, "a", tmp_path).startService()


async def test_it_listens_at_all_addresses_of_its_name_that_it_has(tmp_path: Path, hosts: dict[str, list[str]]) -> None:
    hosts["na.test"] = ["127.0.0.2", "127.0.0.1", "192.0.2.1", "2001:db8::1"]  # The last two belong to no machine.
    ports = iter(free_ports(2))
    found = await started(Cluster("test", {"a": at("na.test", "na.test", ports)}), tmp_path)
    both = ["127.0.0.2", "127.0.0.1"]
    assert found == [*(("UDP", host) for host in both), *(("TCP", host) for host in both)]


async def test_where_it_listens_may_be_another_address(tmp_path: Path, hosts: dict[str, list[str]]) -> None:
    """Its name means nothing here, or something else."""
    hosts.update({"na.test": ["192.0.2.1"], "nb.test": ["192.0.2.2"]})
    ports = iter(free_ports(6))
    listen = {"listen": Address("0.0.0.0", next(ports)), "client_listen": Address("127.0.0.1", next(ports))}
    members = {"a": at("na.test", "nowhere.test", ports, **listen), "b": at("nb.test", "nb.test", ports)}
    assert await started(Cluster("test", members), tmp_path) == [("UDP", "0.0.0.0"), ("TCP", "127.0.0.1")]


REFUSED = [
    (
        {"na.test": ["192.0.2.1"]},
        r"address of node a is na\.test:\d+ \(192\.0\.2\.1:\d+\), which this machine",
    ),
    (
        {"na.test": ["127.0.1.1"], "nb.test": ["192.0.2.2"]},
        r"address of node a is na\.test:\d+ \(127\.0\.1\.1:\d+\), ",
    ),
    ({"na.test": ["127.0.0.1"], "nb.test": ["127.0.0.1"]}, r"address of node b is nb\.test:\d+ .*, which is also the"),
]


@pytest.mark.parametrize(("known", "line"), REFUSED, ids=["not-here", "loopback", "twice"])
def test_what_a_look_up_shows_to_be_wrong(
    tmp_path: Path, hosts: dict[str, list[str]], known: dict[str, list[str]], line: str
) -> None:
    hosts.update(known)
    port, *rest = free_ports(4)
    clients = [Address("127.0.0.1", one) for one in rest]
    members = {"a": Member(Address("na.test", port), clients[0]), "b": Member(Address("nb.test", port), clients[1])}
    with pytest.raises(ConfigError, match=f"^{line}") as caught:
        service(Cluster("test", members), "a", tmp_path).startService()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


async def test_nodes_with_addresses_of_both_families_find_each_other(
    tmp_path: Path, hosts: dict[str, list[str]]
) -> None:
    """Each prefers another one, and c has one of them only."""
    hosts.update({"na.test": ["127.0.0.1", "::1"], "nb.test": ["127.0.0.1", "::1"], "nc.test": ["127.0.0.1"]})
    if not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    ports = iter(free_ports(6))
    members = {node: at(f"n{node}.test", "127.0.0.1", ports) for node in "abc"}
    prefers_ipv6 = {
        node: attrs.evolve(member, address=attrs.evolve(member.address, family="ipv6"))
        for node, member in members.items()
    }
    nodes = [service(Cluster("test", prefers_ipv6), "a", tmp_path), service(Cluster("test", members), "b", tmp_path)]
    nodes.append(service(Cluster("test", prefers_ipv6), "c", tmp_path))
    for node in nodes:
        node.startService()
    client = Client(reactor, Cluster("test", members))
    assert await answered(client.submit(b"12345")) == 5
    for name in "abc":
        one = Client(reactor, Cluster("test", members), [name])
        while (await answered(one.status()))["applied_through"] < 1:
            await deferLater(reactor, 0.05)
        one.close()
    client.close()
    for node in nodes:
        await answered(node.stopService())


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


# ------------------------------------------------------ in a process of its own

RUNNERS = {
    "twist": ["-m", "twisted", "--log-format", "text", "paxos"],
    "twistd": ["-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "paxos"],
}


def run(folder: Path, cluster: Cluster, *options: str, runner: str = "twist") -> subprocess.CompletedProcess[str]:
    (folder / "cluster.toml").write_text(cluster.dumps())
    (folder / "application.py").write_text(APPLICATION)
    command = [sys.executable, *RUNNERS[runner], "--cluster", "cluster.toml", "--node", "a", *options]
    return subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_port_that_is_taken_ends_the_process(tmp_path: Path, runner: str) -> None:
    cluster = loopback("a")
    with taken(cluster.members["a"].client, socket.SOCK_STREAM):
        done = run(tmp_path, cluster, runner=runner)
    assert done.returncode == 1
    assert "node a cannot start: Couldn't listen on 127.0.0.1:" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_folder_of_another_node_ends_the_process(tmp_path: Path) -> None:
    DiskStore(str(tmp_path / "paxos-data-a"), "test", "b", sync_in_thread=False).close()
    done = run(tmp_path, loopback("a"))
    assert done.returncode == 1
    assert "belongs to node 'b' of cluster 'test', not to node 'a'" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_disk_that_fails_ends_the_process(tmp_path: Path) -> None:
    done = run(tmp_path, loopback("a"), "--app", "application.py:BreaksItsDisk")
    assert done.returncode == 1
    assert done.stdout.count("node a gives up: cannot write ") == 1
    assert "File too large" in done.stdout
    assert "no outcome" in done.stdout
    assert "Traceback" not in done.stdout


def test_the_clock_of_the_reactor_is_left_alone(tmp_path: Path) -> None:
    """Other services in the process date their logs by it."""
    done = run(tmp_path, loopback("a"), "--app", "application.py:Clocked")
    assert done.returncode == 0, done.stdout
    assert "clock True" in done.stdout
    assert "Traceback" not in done.stdout
