"""A node with keys as a service: they are loaded anew while it runs, and a node without them warns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as installed_reactor
from twisted.logger import LogLevel, formatEvent

from test.helpers.fakes import free_ports, logged
from test.helpers.key_folders import KeyFolders, keys_for, write
from txpaxos.client import Client
from txpaxos.cluster import Address, Cluster, Member
from txpaxos.counter import Counter
from txpaxos.errors import ConfigError, NodeStopped, NotAllowed, NotChosen, OutcomeUnknown
from txpaxos.rights import Rights
from txpaxos.server.node_process import NodeProcess
from txpaxos.server.served_node import ServedNode

reactor: Any = installed_reactor
SECONDS = 20.0


@pytest.fixture
def folders(tmp_path: Path) -> KeyFolders:
    return keys_for(tmp_path / "keys", nodes=["a", "b"], clients=["someone"])


def served(tmp_path: Path, host: str = "127.0.0.1", **options: Any) -> tuple[ServedNode, Cluster]:
    ports = free_ports(2)
    addresses = [Address("127.0.0.1", port) for port in ports]
    listen = [Address(host, port) for port in ports]
    cluster = Cluster("keys", {"a": Member(addresses[0], addresses[1], listen[0], listen[1])})
    return ServedNode(Counter, "a", cluster, tmp_path / "data", reactor=reactor, **options), cluster


def lines(act: Callable[[], object], level: Any = LogLevel.warn) -> list[str]:
    return [formatEvent(event) for event in logged(act, level)]


@pytest.mark.parametrize(
    ("host", "insecure", "warns"), [("0.0.0.0", False, True), ("0.0.0.0", True, False), ("127.0.0.1", False, False)]
)
async def test_a_node_without_keys_warns_if_others_may_reach_it(
    tmp_path: Path, host: str, insecure: bool, warns: bool
) -> None:
    node, _ = served(tmp_path, host, insecure=insecure)
    said = lines(node.start)
    assert [("without keys" in line and f"{host}:" in line) for line in said] == [True] * warns
    with pytest.raises(ConfigError, match="node a was started without keys"):
        node.use_keys()
    await node.stop()


async def test_a_node_with_keys_does_not_warn(tmp_path: Path, folders: KeyFolders) -> None:
    node, _ = served(tmp_path, "0.0.0.0", keys=folders.folder("a"))
    assert lines(node.start) == []
    assert node.node.status().keys_expire_in_seconds == pytest.approx(365 * 86400, abs=3600)
    await node.stop()


@asynccontextmanager
async def at_work(path: Path, folders: KeyFolders) -> AsyncIterator[tuple[ServedNode, Cluster, Client]]:
    """A node with keys, and a client that has counted to 5 with it."""
    node, cluster = served(path, keys=folders.folder("a"))
    node.start()
    client = Client(reactor, cluster, keys=folders.folder("someone"))
    try:
        assert await client.submit(b"+5", SECONDS) == 5
        yield node, cluster, client
    finally:
        client.close()
        await node.stop()


async def test_keys_are_loaded_anew_while_clients_are_at_work(tmp_path: Path, folders: KeyFolders) -> None:
    async with at_work(tmp_path, folders) as (node, cluster, client):
        folders.issue("a", "node")
        assert len(lines(node.use_keys, LogLevel.info)) == 1
        assert await client.submit(b"+1", SECONDS) == 6
        other = Client(reactor, cluster, keys=folders.folder("someone"))
        assert await other.submit(b"+1", SECONDS) == 7
        other.close()
        # Keys that cannot be used change nothing.
        write(folders.folder("a") / "node.pem", folders.folder("b").joinpath("node.pem").read_bytes())
        with pytest.raises(ConfigError, match="does not fit"):
            node.use_keys()
        assert await client.submit(b"+1", SECONDS) == 8


async def test_a_client_whose_certificate_is_revoked_is_sent_away(tmp_path: Path, folders: KeyFolders) -> None:
    async with at_work(tmp_path, folders) as (node, _, client):
        folders.revoke(folders.client("someone"), folders=["a"])
        node.use_keys()
        with pytest.raises((NotAllowed, NotChosen, OutcomeUnknown), match="its certificate was revoked"):
            await client.submit(b"+5", 2.0)


async def test_keys_that_were_given_as_an_object_are_replaced_by_another_one(
    tmp_path: Path, folders: KeyFolders
) -> None:
    node, _ = served(tmp_path, keys=folders.node("a"))
    node.start()
    with pytest.raises(ConfigError, match="those of node b"):
        node.use_keys(folders.node("b"))
    folders.issue("a", "node")
    keys = folders.node("a")
    node.use_keys(keys)
    assert node.node._peers.keys is keys  # type: ignore[attr-defined]
    await node.stop()


async def test_rights_are_read_anew_while_clients_are_at_work(tmp_path: Path, folders: KeyFolders) -> None:
    _, cluster = served(tmp_path)
    file = tmp_path / "cluster.toml"

    def grant(*rights: str) -> None:
        file.write_text(attrs.evolve(cluster, rights=Rights({"someone": frozenset(rights)})).dumps())

    grant("read")
    node = ServedNode(Counter, "a", file, tmp_path / "data", reactor=reactor, keys=folders.folder("a"))
    with pytest.raises(NodeStopped):
        node.use_rights()
    node.start()
    client = Client(reactor, cluster, keys=folders.folder("someone"))
    try:
        with pytest.raises(NotAllowed, match=r"'someone' does not have the right 'write'.*txpaxos keys reload"):
            await client.submit(b"+5", SECONDS)
        grant("write", "read")
        assert len(lines(node.reload, LogLevel.info)) == 2
        assert await client.submit(b"+5", SECONDS) == 5
        # A file that cannot be used changes nothing, not even the keys.
        used = node.node._peers.keys  # type: ignore[attr-defined]
        file.write_text("[rights]\nsomeone = 5\n")
        with pytest.raises(ConfigError):
            node.reload()
        assert node.node._peers.keys is used  # type: ignore[attr-defined]
        assert await client.submit(b"+1", SECONDS) == 6
        # Nor does one that was copied in part: without [rights] all clients could do everything.
        grant("read")
        file.write_text(file.read_text().partition("[rights]")[0])
        with pytest.raises(ConfigError, match=r"cluster.toml has no \[rights\] any more: write what each client"):
            node.reload()
        assert await client.submit(b"+0", SECONDS) == 6
        with pytest.raises(NotAllowed, match="'ask'"):
            await client.ask("subject", b"value", SECONDS)
        # Nor do keys that cannot be used, not even the rights.
        grant("read")
        write(folders.folder("a") / "node.pem", folders.folder("b").joinpath("node.pem").read_bytes())
        with pytest.raises(ConfigError, match="does not fit"):
            node.reload()
        assert await client.submit(b"+1", SECONDS) == 7
        node.use_rights(Rights({}))
        with pytest.raises(NotAllowed):
            await client.read(b"", deadline_seconds=SECONDS)
    finally:
        client.close()
        await node.stop()


async def test_a_node_without_a_cluster_file_keeps_its_rights(tmp_path: Path, folders: KeyFolders) -> None:
    async with at_work(tmp_path, folders) as (node, _, client):
        with pytest.raises(ConfigError, match="started without a cluster file"):
            node.use_rights()
        node.reload()
        assert await client.submit(b"+1", SECONDS) == 6


def test_a_hang_up_loads_the_keys_anew() -> None:
    process = NodeProcess(reactor, {"nodaemon": True})
    process._has_terminal = False
    called: list[str] = []
    process.reload = lambda: called.append("loaded")
    process._handle_sighup()
    assert called == ["loaded"]

    def fail() -> None:
        raise ConfigError("node.pem has expired")

    process.reload = fail
    said = lines(process._handle_sighup, LogLevel.error)
    assert said == ["SIGHUP: keys and rights are used as they were: node.pem has expired"]
