"""A client with keys, and nodes with keys or without: it gets in, or it is told in one line why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyClientFactory, ProxyFactory, ProxyServer

from test.helpers.fakes import free_ports
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError, NotAllowed, NotChosen, PaxosError
from txpaxos.keys.folder import Keys
from txpaxos.node.counts import Count
from txpaxos.rights import DEFAULT_RIGHTS, Rights
from txpaxos.server.served_node import ServedNode
from txpaxos.wire.commands import belongs_to, session_owner

reactor: Any = installed_reactor
SECONDS = 20.0


def rights(**granted: list[str]) -> Rights:
    return Rights({name: frozenset(its) for name, its in granted.items()})


def cluster_of(names: str, granted: Rights = DEFAULT_RIGHTS) -> Cluster:
    ports = iter(free_ports(2 * len(names)))
    members = {name: Member(*(Address("127.0.0.1", next(ports)) for _ in range(2))) for name in names}
    return Cluster("own", members, rights=granted)


@asynccontextmanager
async def served(path: Path, cluster: Cluster, keys: Keys | Path | None) -> AsyncIterator[ServedNode]:
    """One node that is a cluster by itself."""
    (name,) = cluster.members
    node = ServedNode(Counter, name, cluster, path / "data", keys=keys)
    node.start()
    try:
        await node.ready()
        yield node
    finally:
        await node.stop()


@pytest.fixture
def folders(tmp_path: Path) -> KeyFolders:
    return keys_for(tmp_path, "a", ["shop", "bank"])


def client_of(cluster: Cluster | list[str], keys: Any) -> Client:
    return Client(reactor, cluster, rng=Random(1), keys=keys)


async def error_of(deferred: Deferred[Any]) -> PaxosError:
    with pytest.raises(PaxosError) as caught:
        await deferred.addTimeout(SECONDS, reactor)
    return caught.value


async def counted(node: ServedNode, count: int) -> None:
    """Wait until the node has counted that many clients that it has not let in, and nothing else."""
    give_up_at = reactor.seconds() + SECONDS
    while node.node.counters != {Count.CLIENT_NOT_AUTHENTICATED: count}:
        assert reactor.seconds() < give_up_at, node.node.counters
        await deferLater(reactor, 0.01)


async def test_everything_that_a_client_can_ask(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        assert await client.submit(b"+5", SECONDS) == 5
        assert (await client.read(b"", deadline_seconds=SECONDS)).result == 5
        assert (await client.read(b"", "local", SECONDS)).result == 5
        assert await client.ask("subject", b"value", SECONDS) == b"value"
        assert await client.forget("subject", SECONDS) == b"value"
        assert (await client.status(SECONDS))["node"] == "a"
        assert list((await client.members(SECONDS))["members"]) == ["a"]
        assert await client.hand_over("a", SECONDS) == "a"
        assert await client.backup_part(0, 0, SECONDS)
        assert client.session is not None
        assert belongs_to(client.session, session_owner("shop"))
        client.close()
        assert node.node.counters == {}


@pytest.mark.parametrize("knows", ["the cluster file", "an address"])
async def test_a_token(tmp_path: Path, folders: KeyFolders, knows: str) -> None:
    cluster = cluster_of("a", rights(script=["write"], anonymous=["read"]))
    folders.issue_token("script", "a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        seeds = cluster if knows == "the cluster file" else [str(cluster.members["a"].client)]
        client = client_of(seeds, folders.folder("script"))
        assert await client.submit(b"+5", SECONDS) == 5
        assert client.session is not None
        assert belongs_to(client.session, session_owner("script"))
        client.close()
        assert node.node.counters == {}


async def test_a_right_that_is_not_granted(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a", rights(shop=["read"]))
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        error = await error_of(client.submit(b"+5", SECONDS))
        assert isinstance(error, NotAllowed)
        assert str(error) == (
            "the client 'shop' does not have the right 'write': grant it under [rights] in the cluster files, and have"
            " the nodes read them (txpaxos keys reload)"
        )
        assert (await client.read(b"", deadline_seconds=SECONDS)).result == 0
        client.close()
        assert node.node.counters == {Count.REQUEST_NOT_ALLOWED: 1}


async def refused(cluster: Cluster, keys: Any) -> str:
    """The one line of a request without a deadline that no node takes. A later request is refused, too."""
    client = client_of(cluster, keys)
    try:
        lines = []
        for _ in range(2):
            error = await error_of(client.submit(b"+5"))
            assert type(error) is NotAllowed
            lines.append(str(error))
        assert lines[0] == lines[1]
        assert "\n" not in lines[0]
        return lines[0].removeprefix(f"a at {cluster.members['a'].client} ")
    finally:
        client.close()


async def test_a_client_of_another_authority(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    others = keys_for(tmp_path / "others", "a", ["shop"])
    stranger, misled = others.client("shop"), attrs.evolve(others.client("shop"), nodes=folders.client("shop").nodes)
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        assert await refused(cluster, misled) == (
            "cannot be used: it says that our certificate is of an unknown authority: the nodes' clients.pem needs the"
            " authority that signed this client"
        )
        assert await refused(cluster, stranger) == (
            "cannot be used: its certificate is of an unknown authority: this client's nodes.pem needs the authority"
            " that signed the node"
        )
        await counted(node, 4)


async def test_the_keys_of_a_node_are_not_those_of_a_client(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        line = await refused(cluster, folders.node("a"))
        assert line.startswith("cannot be used: it says that our certificate is of an unknown authority")
        await counted(node, 2)


@pytest.mark.parametrize(("days", "reason"), [(-400, "has expired"), (10, "is not yet valid")])
async def test_a_certificate_at_the_wrong_time(tmp_path: Path, folders: KeyFolders, days: int, reason: str) -> None:
    cluster = cluster_of("a")
    then = folders.now + timedelta(days=days)
    folders.write("late", "client", folders.clients_authority.issue("late", then))
    with pytest.raises(ConfigError, match=reason):
        client_of(cluster, folders.folder("late"))
    keys = Keys.load(folders.folder("late"), "client", now=then)
    async with served(tmp_path, cluster, folders.folder("a")):
        assert f"it says that our certificate {reason}: " in await refused(cluster, keys)


async def test_a_revoked_certificate(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    folders.revoke(folders.client("shop"), folders="a")
    async with served(tmp_path, cluster, folders.folder("a")):
        assert "it says that our certificate was revoked: " in await refused(cluster, folders.folder("shop"))
        client = client_of(cluster, folders.folder("bank"))
        assert await client.submit(b"+5", SECONDS) == 5
        client.close()


async def test_keys_are_exchanged_while_a_client_works(tmp_path: Path, folders: KeyFolders) -> None:
    """The node has another certificate then, and the client that is not revoked sees no error."""
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        shop, bank = (client_of(cluster, folders.folder(name)) for name in ("shop", "bank"))
        assert [await one.submit(b"+1", SECONDS) for one in (shop, bank)] == [1, 2]
        folders.revoke(folders.client("shop"), folders="a")
        folders.issue("a", "node")
        node.use_keys()
        assert await bank.submit(b"+1", SECONDS) == 3
        assert isinstance(await error_of(shop.submit(b"+1")), NotAllowed)
        later = client_of(cluster, folders.folder("bank"))
        assert await later.submit(b"+1", SECONDS) == 4
        (folders.folder("a") / "node.key").unlink()
        with pytest.raises(ConfigError, match="is missing"):
            node.use_keys()
        assert await later.submit(b"+1", SECONDS) == 5
        for client in (shop, bank, later):
            client.close()


async def test_a_wrong_token(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    folders.issue_token("script", ())
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        assert await refused(cluster, folders.folder("script")) == (
            "refuses this client: the nodes do not know this client's token: have it written to their files 'tokens'"
        )
        await counted(node, 2)


async def test_a_client_without_keys(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        assert await refused(cluster, None) == (
            "has keys, and this client has none: give it keys (--keys, TXPAXOS_KEYS or keys=)"
        )
        await counted(node, 2)


class FirstHeld(ProxyServer):
    """A way to a node on which nothing comes through that the first client says."""

    clientProtocolFactory = ProxyClientFactory
    connections = 0

    def connectionMade(self) -> None:
        type(self).connections += 1
        self.is_held = self.connections == 1
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        if not self.is_held:
            super().dataReceived(data)


async def test_a_client_that_was_too_slow_to_begin_tries_again(tmp_path: Path, folders: KeyFolders) -> None:
    ports = iter(free_ports(3))
    nodes, clients, listens = (Address("127.0.0.1", next(ports)) for _ in range(3))
    cluster = Cluster("own", {"a": Member(nodes, clients, None, listens)}, rights=DEFAULT_RIGHTS)
    way = ProxyFactory(listens.host, listens.port)
    way.protocol, way.noisy = FirstHeld, False
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        listening = reactor.listenTCP(clients.port, way, interface=clients.host)
        client = client_of(cluster, folders.folder("shop"))
        assert await client.submit(b"+5", SECONDS) == 5
        assert FirstHeld.connections == 2
        assert node.node.counters == {Count.CLIENT_NOT_AUTHENTICATED: 1}
        client.close()
        await listening.stopListening()


async def test_a_node_without_keys(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, None):
        line = await refused(cluster, folders.folder("shop"))
        assert "does not speak TLS" in line
        assert line.endswith("start the node with --keys, or this client without keys")


async def test_a_node_that_says_another_name_than_its_certificate(tmp_path: Path) -> None:
    """What a node says of itself is believed only if its certificate says so, too."""
    folders, cluster = keys_for(tmp_path, "ab", ["shop"]), cluster_of("a")
    async with served(tmp_path, cluster, attrs.evolve(folders.node("b"), name="a")):
        client = client_of(cluster, folders.folder("shop"))
        error = await error_of(client.submit(b"+5", 2.0))
        assert isinstance(error, NotChosen)
        assert "it says that it is 'a', and its certificate says otherwise" in str(error)
        client.close()


async def test_nodes_that_are_down_are_waited_for(folders: KeyFolders) -> None:
    """What may heal is tried again."""
    client = client_of(cluster_of("a"), folders.folder("shop"))
    error = await error_of(client.read(b"", deadline_seconds=1.0))
    assert not isinstance(error, NotAllowed)
    client.close()


async def test_one_node_that_takes_the_client_is_enough(tmp_path: Path, folders: KeyFolders) -> None:
    """The certificate of b is not believed; the client goes to a, though it tries b first."""
    cluster = cluster_of("a")
    others = keys_for(tmp_path / "others", "b")
    stranger = cluster_of("b")
    both = attrs.evolve(cluster, members={**cluster.members, **stranger.members})
    async with (
        served(tmp_path, cluster, folders.folder("a")),
        served(tmp_path / "others", stranger, others.folder("b")),
    ):
        for seed in range(4):
            client = Client(reactor, both, rng=Random(seed), keys=folders.folder("shop"))
            assert isinstance(await client.submit(b"+1", SECONDS), int)
            client.close()


def test_a_client_loads_no_cryptography_unless_it_has_keys() -> None:
    program = (
        "import sys; sys.modules.update(OpenSSL=None, cryptography=None, service_identity=None);"
        "from twisted.internet import reactor; from txpaxos import Client; Client(reactor, ['h:1']);"
        "print(*(name for name in sys.modules if name.startswith(('txpaxos.keys.', 'txpaxos.client.secured'))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_folder_of_keys_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        client_of(["h:1"], tmp_path / "none")
