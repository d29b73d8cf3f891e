"""A node serves clients at Twisted endpoints, too, and clients reach it there: Unix sockets, TLS of another kind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer, provider

from test.client.test_client_keys import SECONDS, client_of, cluster_of, rights
from test.helpers.cli_nodes import Nodes, txpaxos
from test.helpers.fakes import error_of, free_ports, logged, outcome_of
from test.helpers.key_folders import keys_for
from txpaxos.client import Client
from txpaxos.cluster import Cluster
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError, NoQuorum, NotAllowed, NotChosen, PaxosError, StoreError
from txpaxos.node.counts import Count
from txpaxos.server.client_endpoints import UNIX
from txpaxos.server.served_node import ServedNode
from txpaxos.storage.disk import Disk
from txpaxos.storage.identity import lock_folder

reactor: Any = installed_reactor
ATTEMPTS_MAX = 10


@asynccontextmanager
async def served(
    path: Path, endpoints: Iterable[Any], cluster: Cluster | None = None, **options: Any
) -> AsyncIterator[ServedNode]:
    """One node that is a cluster by itself."""
    node = ServedNode(Counter, "a", cluster or cluster_of("a"), path / "data", client_endpoints=endpoints, **options)
    node.start()
    try:
        await node.ready()
        yield node
    finally:
        await node.stop()


async def refusal(path: Path, *endpoints: Any) -> str:
    """Why a node does not start. It leaves its folder free."""
    cluster = cluster_of("a")
    node = ServedNode(Counter, "a", cluster, path / "data", client_endpoints=endpoints)
    with pytest.raises(ConfigError) as caught:
        node.start()
    await until(lambda: not (path / "data").exists() or is_free(path / "data"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def is_free(folder: Path) -> bool:
    """Whether no node has locked the folder."""
    try:
        os.close(lock_folder(Disk(), str(folder)))
    except StoreError:
        return False
    return True


async def until(happened: Any) -> None:
    give_up_at = reactor.seconds() + SECONDS
    while not happened():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.005)


async def why_not(client: Client, says: str = "") -> str:
    """The error of a request that gets no answer. On a slow machine it takes some until it says why."""
    try:
        for _ in range(ATTEMPTS_MAX):
            with pytest.raises(PaxosError) as caught:
                await client.status(1.5)
            assert isinstance(caught.value, NoQuorum | NotAllowed)
            if says in str(caught.value):
                break
        return str(caught.value)
    finally:
        client.close()


# ------------------------------------------------------------------ Unix sockets


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with served(tmp_path, [f"unix:{path}:mode=600"]) as node:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert not (tmp_path / "s.lock").exists()
        for seeds in ([f"unix:{path}"], {"a": f"unix:path={path}"}, [str(node.node.cluster.members["a"].client)]):
            client = Client(reactor, seeds, rng=Random(1))
            before = (await client.read(b"", deadline_seconds=SECONDS)).result
            assert await client.submit(b"+1", SECONDS) == before + 1
            assert (await client.status(SECONDS))["clients"] == 1
            assert node._client_port is not None
            (connection,) = node._client_port.connections
            assert connection.counts_for == (
                "127.0.0.1" if isinstance(seeds, list) and "unix" not in seeds[0] else UNIX
            )
            client.close()
            await until(lambda: not len(node._client_port.connections))
        assert node.node.counters == {}
    assert not path.exists()


async def test_keys_apply_at_a_unix_socket(tmp_path: Path) -> None:
    folders, cluster = keys_for(tmp_path, "a", ["shop"]), cluster_of("a", rights(shop=["read", "write"]))
    place = f"unix:{tmp_path / 's'}"
    async with served(tmp_path, [place], cluster, keys=folders.folder("a")) as node:
        client = client_of([place], folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 1
        with pytest.raises(NotAllowed, match="does not have the right 'members'"):
            await client.hand_over("a", SECONDS)
        client.close()
        stranger = client_of([place], keys_for(tmp_path / "others", "a", ["shop"]).folder("shop"))
        lines = await lines_while_refused(node, stranger)
        node.use_keys()
        client = Client(reactor, {"a": place}, keys=folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 2
        client.close()
        assert await why_not(client_of([place], None)) == (
            f"{place} has keys, and this client has none: give it keys (--keys, TXPAXOS_KEYS or keys=)"
        )
    assert any(f"client at {UNIX}" in line for line in lines), lines


async def lines_while_refused(node: ServedNode, client: Client) -> list[str]:
    """What is logged while ``client`` asks in vain, and the node counts that."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        assert "unknown authority" in await why_not(client)
        await until(lambda: node.node.counters[Count.CLIENT_NOT_AUTHENTICATED])
    finally:
        globalLogPublisher.removeObserver(observe)
    return lines


async def test_a_socket_that_a_killed_node_has_left(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    os.symlink(str(os.getpid()), tmp_path / "s.lock")  # As if Twisted had locked it, in a container.
    async with served(tmp_path, [f"unix:{path}:lockfile=1"]):
        client = Client(reactor, [f"unix:{path}"])
        assert await client.submit(b"+1", SECONDS) == 1
        client.close()


async def test_a_path_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen(0)
        line = f"client endpoint 'unix:{path}': another program listens there: does this node run already?"
        assert await refusal(tmp_path, f"unix:{path}") == line
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for one in (first, second):  # Nothing more can wait to be accepted.
                one.setblocking(False)
                one.connect_ex(str(path))
            assert await refusal(tmp_path, f"unix:{path}") == line
    path.unlink()
    path.write_text("a letter")
    assert await refusal(tmp_path, f"unix:{path}") == (
        f"client endpoint 'unix:{path}': there is a file that is no socket: choose another path"
    )
    assert path.read_text() == "a letter"
    path.unlink()
    async with served(tmp_path, [f"unix:{path}"]):
        pass


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Unknown endpoint type"),
        ("nonsense:1", "Unknown endpoint type: 'nonsense'"),
        ("unix:/no/such/folder/s", "No such file or directory"),
        (f"unix:/tmp/{'s' * 200}", "path too long"),
        ("unix", "missing 1 required positional argument: 'address'"),
        ("unix:/tmp/s:mode=rwx", "invalid literal"),
        ("tcp:0:interface=192.0.2.1", "Cannot assign requested address"),
        ("ssl:0:privateKey=/no/such.pem", "/no/such.pem: No such file or directory"),
    ],
)
async def test_an_endpoint_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    line = await refusal(tmp_path, text)
    assert line.startswith(f"client endpoint {text!r}: ")
    assert reason in line
    async with served(tmp_path, []):
        pass


def test_a_single_string_is_no_list_of_endpoints(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"must be a list of endpoints, not str: write \['unix:/s'\]"):
        ServedNode(Counter, "a", cluster_of("a"), tmp_path, client_endpoints="unix:/s")


async def test_a_leader_is_followed_by_endpoints_alone(tmp_path: Path) -> None:
    """The client ports that nodes tell of are never tried: this client knows each node's socket."""
    cluster = cluster_of("abc")
    places = {name: f"unix:{tmp_path / name}.s" for name in "abc"}
    nodes = {
        name: ServedNode(Counter, name, cluster, tmp_path / name, client_endpoints=[places[name]]) for name in "abc"
    }
    for node in nodes.values():
        node.start()
    for node in nodes.values():
        await node.ready()
    client, one = Client(reactor, places), Client(reactor, [places["b"]])
    for leader in "abc":
        assert await client.hand_over(leader, SECONDS) == leader
        assert isinstance(await client.submit(b"+1", SECONDS), int)
        assert isinstance(await one.submit(b"+1", SECONDS), int)
        assert (await one.status(SECONDS))["node"] == "b"
        await until(lambda leader=leader: unix_clients(nodes[leader]) == 1 + (leader == "b"))
        assert {name: clients(node) - unix_clients(node) for name, node in nodes.items()} == dict.fromkeys("abc", 0)
    await nodes["b"].stop()
    assert isinstance(await client.submit(b"+1", SECONDS), int)
    with pytest.raises(NotChosen, match=r"b\.s does not run \(there is no such socket\)"):
        await one.submit(b"+1", 1.0)
    for closed in (client, one):
        closed.close()
    for name in "ac":
        await nodes[name].stop()


def clients(node: ServedNode) -> int:
    assert node._client_port is not None
    return len(node._client_port.connections)


def unix_clients(node: ServedNode) -> int:
    assert node._client_port is not None
    return sum(connection.counts_for == UNIX for connection in node._client_port.connections)


# ------------------------------------------------------------------ other endpoints


def write_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1 that signs itself, as ``trust/own.pem`` and with its key as ``server.pem``."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "here")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "trust").mkdir()
    (folder / "trust/own.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.pem").write_bytes(certificate.public_bytes(Encoding.PEM) + private)


@pytest.mark.parametrize("has_keys", [False, True])
async def test_tls_of_the_endpoint(tmp_path: Path, has_keys: bool) -> None:
    """It protects a node without keys. With keys, their TLS is inside it."""
    write_certificate(tmp_path)
    folders, (port,) = keys_for(tmp_path / "keys", "a", ["shop"]), free_ports(1)
    keys: dict[str, Any] = {"keys": folders.folder("a")} if has_keys else {}
    endpoint = f"ssl:{port}:privateKey={tmp_path}/server.pem:interface=127.0.0.1"
    async with served(tmp_path, [endpoint], **keys) as node:
        for trusted, place in (
            (True, f"tls:127.0.0.1:{port}:trustRoots={tmp_path}/trust"),
            (False, f"tls:127.0.0.1:{port}"),
        ):
            client = client_of([place], folders.folder("shop") if has_keys else None)
            if trusted:
                assert await client.submit(b"+1", SECONDS) == 1
                client.close()
            else:
                line = await why_not(client, "" if has_keys else "cannot be used: ")
                assert has_keys or "cannot be used: " in line
                assert has_keys or "certificate verify failed" in line
        assert (await node.application.read(b"", deadline_seconds=SECONDS)).result == 1


async def test_a_tcp_endpoint_that_others_may_reach(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    node = ServedNode(Counter, "a", cluster_of("a"), tmp_path / "a", client_endpoints=[f"tcp:{port}"])
    (event,) = logged(node.start, LogLevel.warn)
    assert formatEvent(event).startswith(f"node a listens at 0.0.0.0:{port} without keys: any program that gets there")
    await node.ready()
    client = Client(reactor, [f"tcp:host=127.0.0.1:port={port}"])
    assert await client.submit(b"+1", SECONDS) == 1
    client.close()
    await node.stop()


@implementer(IStreamServerEndpoint)
class Slow:
    """An endpoint of a program's own, that takes its time."""

    def __init__(self) -> None:
        self.listening: Deferred[Any] = Deferred()
        self.factory: Any = None

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.listening


async def test_an_endpoint_that_takes_its_time(tmp_path: Path) -> None:
    slow, path = Slow(), tmp_path / "s"
    async with served(tmp_path, [slow]):
        slow.listening.callback(reactor.listenUNIX(str(path), slow.factory))
        client = Client(reactor, [f"unix:{path}"])
        assert await client.submit(b"+1", SECONDS) == 1
        client.close()
    assert not path.exists()


async def test_a_node_that_stops_before_an_endpoint_listens(tmp_path: Path) -> None:
    slow, path = Slow(), tmp_path / "s"
    async with served(tmp_path, [slow]):
        pass
    port = reactor.listenUNIX(str(path), slow.factory)
    slow.listening.callback(port)
    await until(lambda: not path.exists())


async def test_an_endpoint_that_fails_late(tmp_path: Path, logged_errors: list[dict[str, Any]]) -> None:
    failures: list[Any] = []
    slow = Slow()
    async with served(tmp_path, [slow], gave_up=failures.append):
        (event,) = logged(lambda: slow.listening.errback(OSError(1, "no luck")))
        assert formatEvent(event) == "node a stops: client endpoint Slow: no luck"
        (failure,) = failures
        assert isinstance(failure.value, ConfigError)
    logged_errors.clear()


# ------------------------------------------------------------------ clients


@pytest.mark.parametrize(
    ("seeds", "reason"),
    [
        (["unix:/s:timeout=x"], "'unix:/s:timeout=x' is no client endpoint: invalid literal"),
        (["tls:h:x"], "'tls:h:x' is no client endpoint: "),
        (["udp:/s"], "'udp:/s' is no address of a node's client port: not host:port"),
        ({"a:b": "unix:/s"}, "'a:b' cannot be a node: "),
        ({"a": "/s"}, "'/s' is no address of a node's client port: not host:port"),
        ({}, "no client for the nodes (none)"),
    ],
)
def test_an_endpoint_that_a_client_cannot_use(seeds: Any, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(reactor, seeds)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_single_endpoint_is_no_list() -> None:
    with pytest.raises(TypeError, match=r"write \['unix:/s'\]"):
        Client(reactor, "unix:/s")


def test_addresses_by_the_ids_of_their_nodes() -> None:
    """They are seeds as those of a cluster file: nodes that are told of are followed, too."""
    client = Client(reactor, {"a": "10.0.0.1:5001"})
    assert client.findings().startswith("a at 10.0.0.1:5001 was not asked")
    assert not client._known._is_fixed
    client.close()


async def test_a_socket_without_a_listener(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert f"unix:{path} does not run (there is no such socket)" in await why_not(Client(reactor, [f"unix:{path}"]))
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert f"unix:{path} refuses connections" in await why_not(Client(reactor, [f"unix:{path}"]))


async def test_a_client_is_closed_while_it_connects(tmp_path: Path) -> None:
    async with served(tmp_path, [f"unix:{tmp_path / 's'}"]):
        client = Client(reactor, [f"unix:{tmp_path / 's'}"])
        waiting = outcome_of(client.submit(b"+1"))
        client.close()
        assert isinstance(waiting[0].value, NotChosen)
        assert isinstance(error_of(client.submit(b"+1")), NotChosen)


# ------------------------------------------------------------------ programs


def test_twistd_and_the_commands(tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, "a", options=("--client-endpoint", "unix:{node}.s", "--client-endpoint=unix:{node}.t"))
    try:
        for value, path in ((1, "a.s"), (2, "a.t")):  # The second one finds the sockets of the first.
            nodes.start("a")
            nodes.wait_for_leader()
            done = txpaxos("submit", "--node", f"unix:{path}", "+1", folder=tmp_path)
            assert (done.returncode, done.stdout, done.stderr) == (0, b"%d\n" % value, b"")
            nodes.kill("a")
            assert (tmp_path / path).is_socket()
        done = txpaxos("submit", "--node", "unix:a.s", "--timeout", "0.5", "+1", folder=tmp_path)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert b"unix:a.s refuses connections" in done.stderr
        done = txpaxos("submit", "--node", "tls:host:x", "+1", folder=tmp_path)
        assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
        assert done.stderr.startswith(b"txpaxos: 'tls:host:x' is no client endpoint: ")
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


@pytest.mark.parametrize("text", ["nonsense:/s", "unix:/no/such/folder/s"])
def test_twistd_with_an_endpoint_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    nodes = Nodes(tmp_path, "a", options=("--client-endpoint", text))
    nodes.start("a")
    process = nodes.processes["a"]
    process.communicate(timeout=60)
    lines = (tmp_path / "a.log").read_text().splitlines()
    assert process.returncode == 1
    assert lines[-1].startswith(f"twistd paxos: node a cannot start: client endpoint '{text}': ")
    assert not any("Traceback" in line for line in lines)


def test_nothing_of_tls_is_loaded_for_a_unix_socket() -> None:
    program = (
        "import sys; sys.modules.update(OpenSSL=None, cryptography=None, service_identity=None);"
        "from twisted.internet import reactor; from txpaxos import Client; Client(reactor, ['unix:/s'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
