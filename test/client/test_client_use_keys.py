"""A client gets other keys while it runs. Whatever the nodes make of them, no request fails by that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogLevel, formatEvent, globalLogPublisher
from zope.interface import provider

from test.client.test_client_keys import SECONDS, client_of, cluster_of, rights, served
from test.helpers.fakes import logged
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.client import Client, route
from txpaxos.client.credentials import WARN_DAYS, WARN_SECONDS, Credentials
from txpaxos.errors import ConfigError, NotAllowed
from txpaxos.keys.authority import pem_of
from txpaxos.keys.folder import Keys
from txpaxos.node.counts import Count
from txpaxos.server.served_node import ServedNode
from txpaxos.wire.commands import belongs_to, session_owner

reactor: Any = installed_reactor
UNDER_WAY = 16


@pytest.fixture
def folders(tmp_path: Path) -> KeyFolders:
    return keys_for(tmp_path, "a", ["shop", "bank"])


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """The lines that a client has logged as warnings."""
    lines: list[str] = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] is LogLevel.warn and event["log_namespace"].startswith("txpaxos.client"):
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def shown_to(node: ServedNode) -> set[int]:
    """The serial numbers of the certificates that connected clients have shown."""
    assert node._client_port is not None
    connections: list[Any] = list(node._client_port.connections)
    certificates = [one.transport.getPeerCertificate() for one in connections]
    return {one.get_serial_number() for one in certificates if one is not None}


def serial_of(keys: Keys) -> int:
    return keys.chain[0].serial_number


async def until(happened: Callable[[], object], seconds: float = SECONDS) -> None:
    give_up_at = reactor.seconds() + seconds
    while not happened():
        assert reactor.seconds() < give_up_at
        await deferLater(reactor, 0.005)


class Load:
    """Commands of one client, :data:`UNDER_WAY` of them at any time, until told to end.

    :ivar results: what they returned, in the order of their answers.
    """

    def __init__(self, client: Client) -> None:
        self.results: list[int] = []
        self.failures: list[Any] = []
        self._client = client
        self._goes_on = True
        self._under_way = 0
        self._over: Deferred[None] = Deferred()
        for _ in range(UNDER_WAY):
            self._submit()

    def _submit(self) -> None:
        self._under_way += 1
        self._client.submit(b"+1").addCallbacks(self.results.append, self.failures.append).addCallback(self._answered)

    def _answered(self, _: object) -> None:
        self._under_way -= 1
        if self._goes_on and not self.failures:
            self._submit()
        elif not self._under_way:
            self._over.callback(None)

    async def more(self, count: int = 3 * UNDER_WAY) -> None:
        """Wait until that many more are answered, or one has failed."""
        enough = len(self.results) + count
        await until(lambda: len(self.results) >= enough or self.failures)

    async def end(self) -> None:
        """Let all be answered. None has failed, and the counter has counted each once."""
        self._goes_on = False
        await self._over.addTimeout(SECONDS, reactor)
        assert self.failures == []
        assert sorted(self.results) == list(range(1, len(self.results) + 1))


async def test_commands_under_way(tmp_path: Path, folders: KeyFolders, warnings: list[str]) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        load = Load(client)
        await load.more()
        session = client.session
        for _ in range(5):
            before = serial_of(folders.client("shop"))
            assert shown_to(node) == {before}
            client.use_keys(folders.issue("shop", "client"))
            await until(lambda: shown_to(node) == {serial_of(folders.client("shop"))})
            await load.more()
        assert client.session == session
        await load.end()
        assert (await client.read(b"", deadline_seconds=SECONDS)).result == len(load.results)
        client.close()
        assert node.node.counters == {}
        assert warnings == []


async def test_an_idle_client(tmp_path: Path, folders: KeyFolders) -> None:
    """Its connection is closed at once, and the next request makes one with the new keys."""
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        client.use_keys(folders.issue("shop", "client"))
        assert await client.submit(b"+1", SECONDS) == 1
        session = client.session
        assert shown_to(node) == {serial_of(folders.client("shop"))}
        client.use_keys(folders.issue("shop", "client"))
        await until(lambda: shown_to(node) == set())
        assert await client.submit(b"+1", SECONDS) == 2
        assert shown_to(node) == {serial_of(folders.client("shop"))}
        assert client.session == session
        client.close()
        client.use_keys(folders.folder("shop"))  # No harm.


async def test_keys_come_before_the_node_has_answered(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        waiting = client.submit(b"+1", SECONDS)
        client.use_keys(folders.issue("shop", "client"))
        assert await waiting == 1
        await until(lambda: shown_to(node) == {serial_of(folders.client("shop"))})
        client.close()


async def test_a_node_that_does_not_take_them(
    tmp_path: Path, folders: KeyFolders, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go on with what is there. When the node takes the new keys, they are used."""
    monkeypatch.setattr(route, "RENEWAL_TICKS", 1)
    cluster, later = cluster_of("a"), keys_for(tmp_path / "later", (), ["shop"])
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        load = Load(client)
        await load.more()
        client.use_keys(attrs.evolve(later.client("shop"), nodes=folders.client("shop").nodes))
        await until(lambda: node.node.counters.get(Count.CLIENT_NOT_AUTHENTICATED, 0) >= 2)
        await load.more()
        assert shown_to(node) == {serial_of(folders.client("shop"))}
        (line,) = warnings
        assert line == (
            f"the new keys of this client are not in use yet: a at {cluster.members['a'].client} cannot be used: it"
            " says that our certificate is of an unknown authority: the nodes' clients.pem needs the authority that"
            " signed this client"
        )
        authorities = folders.folder("a") / "clients.pem"
        authorities.write_bytes(authorities.read_bytes() + pem_of([later.clients_authority.certificate]))
        node.use_keys()
        await until(lambda: shown_to(node) == {serial_of(later.client("shop"))})
        await load.end()
        client.close()


async def test_a_node_goes_while_keys_are_replaced(tmp_path: Path, folders: KeyFolders) -> None:
    """The node breaks the connection in use, and the new one takes over."""
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        load = Load(client)
        await load.more()
        assert node._client_port is not None
        (connection,) = node._client_port.connections
        client.use_keys(folders.issue("shop", "client"))
        connection.close()
        await until(lambda: shown_to(node) == {serial_of(folders.client("shop"))})
        await load.more()
        await load.end()
        client.close()


async def test_much_is_under_way(tmp_path: Path, folders: KeyFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not all sent again at once: the connection is replaced when less waits."""
    monkeypatch.setattr(route, "RENEWAL_BYTES_MAX", 2 * UNDER_WAY - 1)
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        load = Load(client)
        await load.more()
        before = shown_to(node)
        client.use_keys(folders.issue("shop", "client"))
        await load.more()
        assert shown_to(node) == before
        await load.end()
        await until(lambda: shown_to(node) == set())
        assert await client.submit(b"+0", SECONDS) == len(load.results)
        client.close()


async def test_a_token_of_another_client(
    tmp_path: Path, folders: KeyFolders, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a node can tell whose a token is. The session stays with its own client."""
    cluster = cluster_of("a", rights(shop=["read", "write"], script=["read", "write"]))
    folders.issue_token("script", "a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        load = Load(client)
        await load.more()
        client.use_keys(folders.folder("script"))
        await until(lambda: warnings)
        await load.more()
        assert warnings == [
            "the new keys of this client are not in use yet: they are those of script, and this client is shop"
        ]
        await load.end()
        assert client.session is not None
        assert belongs_to(client.session, session_owner("shop"))
        await until(lambda: not list(node._client_port.connections))  # type: ignore[union-attr]
        assert isinstance(await client.submit(b"+1", SECONDS), int)
        assert belongs_to(client.session, session_owner("script"))
        client.close()


async def test_keys_of_another_name(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a", rights(shop=["write"], script=["write"]))
    folders.issue_token("script", "a")
    line = (
        "these keys are those of 'bank', and this client is '{}', to whom its session belongs: load keys of '{}', or"
        " make a new client"
    )
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        for name in ("shop", "script"):
            client = client_of(cluster, folders.folder(name))
            assert isinstance(await client.submit(b"+1", SECONDS), int)
            with pytest.raises(ConfigError) as caught:
                client.use_keys(folders.folder("bank"))
            assert str(caught.value) == line.format(name, name)
            assert isinstance(await client.submit(b"+1", SECONDS), int)
            client.close()
        assert node.node.counters == {}


async def test_a_folder_that_cannot_be_used(tmp_path: Path, folders: KeyFolders) -> None:
    cluster = cluster_of("a")
    async with served(tmp_path, cluster, folders.folder("a")) as node:
        client = client_of(cluster, folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 1
        before = shown_to(node)
        folders.issue("shop", "client")
        (folders.folder("shop") / "client.key").unlink()
        with pytest.raises(ConfigError, match=r"client\.key is missing"):
            client.use_keys(folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 2
        assert shown_to(node) == before
        client.close()


def test_a_client_that_was_made_without_keys(folders: KeyFolders) -> None:
    client = Client(reactor, ["h:1"])
    with pytest.raises(ConfigError) as caught:
        client.use_keys(folders.folder("shop"))
    assert str(caught.value) == "this client was made without keys, so the nodes have none either: make a new client"


async def test_no_node_takes_them_and_no_connection_is_there(tmp_path: Path, folders: KeyFolders) -> None:
    """A request that comes then is told why."""
    cluster, others = cluster_of("a"), keys_for(tmp_path / "others", "a", ["shop"])
    async with served(tmp_path, cluster, folders.folder("a")):
        client = client_of(cluster, folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 1
        client.use_keys(others.client("shop"))
        with pytest.raises(NotAllowed, match="of an unknown authority"):
            await client.submit(b"+1").addTimeout(SECONDS, reactor)
        client.use_keys(folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 2
        client.close()


# ------------------------------------------------------------------ a certificate that expires


async def test_a_client_warns_when_its_certificate_expires(
    tmp_path: Path, folders: KeyFolders, warnings: list[str]
) -> None:
    cluster, lifetime = cluster_of("a"), timedelta(days=WARN_DAYS - 10, hours=1)
    folders.write("old", "client", folders.clients_authority.issue("shop", folders.now, lifetime))
    async with served(tmp_path, cluster, folders.folder("a")):
        client = client_of(cluster, folders.folder("old"))
        for count in range(1, 4):
            assert await client.submit(b"+1", SECONDS) == count
        await until(lambda: warnings)
        client.use_keys(folders.folder("shop"))
        assert await client.submit(b"+1", SECONDS) == 4
        client.close()
    at = f"{folders.client('old').not_after:%Y-%m-%d %H:%M} UTC"
    assert warnings == [f"the certificate of client shop expires in 20 days, at {at}: issue a new one, and use it"]


def lines_at(credentials: Credentials, seconds: float, days_left: float) -> list[str]:
    now = credentials._keys.not_after - timedelta(days=days_left)
    return [formatEvent(event) for event in logged(lambda: credentials.warn_of_expiry(seconds, now), LogLevel.warn)]


def test_warnings_come_once_a_day_and_at_the_end(folders: KeyFolders) -> None:
    credentials = Credentials(folders.client("shop"))
    assert lines_at(credentials, 0.0, WARN_DAYS) == []
    assert lines_at(credentials, WARN_SECONDS - 1.0, WARN_DAYS - 1) == []
    (line,) = lines_at(credentials, WARN_SECONDS, 1.5)
    assert "expires in 1 days" in line
    assert lines_at(credentials, 2 * WARN_SECONDS - 1.0, 0.6) == []
    (line,) = lines_at(credentials, 2 * WARN_SECONDS, 0.5)
    assert "expires in 0 days" in line
    assert lines_at(credentials, 2.5 * WARN_SECONDS - 1.0, 0.0) == []
    (line,) = lines_at(credentials, 2.5 * WARN_SECONDS, 0.0)
    assert line == "the certificate of client shop has expired: no node takes a new connection of it"
    assert lines_at(credentials, 3.5 * WARN_SECONDS - 1.0, -0.9) == []
    assert len(lines_at(credentials, 3.5 * WARN_SECONDS, -1.0)) == 1


def test_a_token_does_not_expire(folders: KeyFolders) -> None:
    folders.issue_token("script", "a")
    assert lines_at(Credentials(folders.client("script")), 0.0, -1.0) == []
