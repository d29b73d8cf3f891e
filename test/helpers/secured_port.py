"""A node that has keys, with its client port, and clients that speak TLS with it, all in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test import iosim

from test.helpers.fakes import ONE, NodeHarness, framed
from test.helpers.key_folders import KeyFolders, keys_for
from txpaxos.keys.tls import client_dial, reason_of
from txpaxos.rights import Rights
from txpaxos.server.client_port import ClientPort
from txpaxos.server.client_tls import ClientTls
from txpaxos.server.secured_connection import SecuredConnection
from txpaxos.wire.client_messages import (
    Authenticate,
    Authenticated,
    ClientCodec,
    FromClient,
    FromNode,
    Members,
    Refused,
    Welcome,
)
from txpaxos.wire.commands import new_session, owned_by
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter

CODEC = ClientCodec("test")
ROUNDS_MAX = 100
ALL = ["read", "write", "ask", "status", "members"]


class _End(Protocol):
    """The client's end."""

    def __init__(self) -> None:
        self.splitter = FrameSplitter(FRAME_BYTES_MAX)
        self.messages: list[bytes] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.messages += self.splitter.feed(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class SecuredClient:
    """A client whose connection the test operates by hand.

    :param creator: how it speaks TLS; ``None`` for a client that does not.
    :ivar lines: what it has heard but messages on the members.
    """

    def __init__(self, harness: SecuredPort, creator: Any, host: str = "10.1.1.1") -> None:
        self._harness = harness
        self.end = _End()
        factory: Any = Factory.forProtocol(lambda: self.end)
        if creator is not None:
            factory = TLSMemoryBIOFactory(creator, True, factory, harness.reactor)
        client, server = factory.buildProtocol(None), harness.factory.buildProtocol(IPv4Address("TCP", host, 5000))
        assert server is not None
        connection: Any = server.wrappedProtocol
        self.connection: SecuredConnection = connection
        self.raw = client
        self._transport = iosim.makeFakeServer(server)
        self._pump = iosim.connect(server, self._transport, client, iosim.makeFakeClient(client), greet=False)
        self.run()

    def run(self) -> None:
        """Carry bytes until there are none."""
        for _ in range(ROUNDS_MAX):
            self._harness.reactor.idle()
            if not self._pump.pump():
                return
        raise AssertionError("the two ends never stop")

    def say(self, *messages: FromClient | FromNode) -> None:
        self.write(framed(*map(CODEC.encode, messages)))

    def write(self, data: bytes) -> None:
        self.raw.write(data) if hasattr(self.raw, "write") else self.raw.transport.write(data)
        self.run()

    def heard(self) -> list[FromClient | FromNode]:
        """The node's messages since the last call, but for those about the members."""
        self.run()
        found, self.end.messages = self.end.messages, []
        return [one for one in map(CODEC.decode, found) if not isinstance(one, Members)]

    def ask(self, *messages: FromClient) -> list[FromClient | FromNode]:
        """The answers to ``messages``."""
        self.say(*messages)
        return self.heard()

    def hear_bytes(self) -> list[bytes]:
        """Take what comes for bytes and not for messages."""
        heard: list[bytes] = []
        self.end.dataReceived = heard.append  # type: ignore[method-assign, assignment]
        return heard

    def disconnect(self) -> None:
        self.raw.transport.loseConnection()
        self.run()

    @property
    def is_open(self) -> bool:
        self.run()
        return self.end.lost is None

    @property
    def why(self) -> str:
        """Why the connection ended, as far as that concerns keys."""
        assert self.end.lost is not None
        return reason_of(self.end.lost)


class SecuredPort:
    """A node that has keys, and leads alone.

    :param rights: the table of the cluster file.
    :param clients: the clients that have certificates.
    :param tokens: the clients that have tokens.
    """

    def __init__(
        self,
        path: Path,
        rights: dict[str, list[str]],
        clients: tuple[str, ...] = ("shop", "bank"),
        tokens: tuple[str, ...] = ("script",),
        application: Any = None,
    ) -> None:
        self.folders: KeyFolders = keys_for(path, "a", clients)
        for name in tokens:
            self.folders.issue_token(name, "a")
        cluster = attrs.evolve(ONE, rights=Rights({name: frozenset(its) for name, its in rights.items()}))
        options = {} if application is None else {"application": application}
        self.node_harness = NodeHarness("a", cluster, **options)
        self.node, self.reactor = self.node_harness.node, self.node_harness.reactor
        self.keys = self.folders.node("a")
        self.port = ClientPort(self.node, keys=self.keys)
        assert self.port.access is not None
        self.access = self.port.access
        self.factory = ClientTls(self.keys, self.port, self.reactor)
        self.reactor.idle()

    def connect(self, name: str = "", host: str = "10.1.1.1") -> SecuredClient:
        """Connect as the client with this folder; without one, as a client that shows nothing."""
        keys = self.folders.client(name) if name else self._nameless()
        return SecuredClient(self, client_dial(keys), host)

    def client(self, name: str = "", host: str = "10.1.1.1") -> SecuredClient:
        """A client that has shown who it is, and has heard who it is."""
        client = self.connect(name, host)
        if name and (token := self.folders.client(name).token):
            assert client.heard()[0] == Authenticated("", self.access.rights_of(""))
            client.say(Authenticate(token.encode()))
        principal, *more = client.heard()
        assert isinstance(principal, Authenticated), principal
        assert principal.principal == name
        assert [type(one) for one in more] in ([Welcome], [])
        return client

    def _nameless(self) -> Any:
        """The keys of a client that shows nothing."""
        name = "nameless"
        if not self.folders.folder(name).exists():
            self.folders.issue_token(name, ())
        return self.folders.client(name)

    def close(self) -> None:
        """See that all that clients had taken was given back."""
        self.port.budget.check()


def session_of(principal: str, number: int = 0) -> bytes:
    """A session that belongs to ``principal``."""
    return new_session(owned_by(principal, number.to_bytes(8, "big") + bytes(8)), 0)


def errors_of(messages: list[Any]) -> list[str]:
    """The names of the errors in ``messages``, which are refusals."""
    assert all(isinstance(one, Refused) for one in messages), messages
    return [one.error for one in messages]
