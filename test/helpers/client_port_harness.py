"""A node with its client port, and fake clients that send what the test tells them to."""

from __future__ import annotations

import dataclasses
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from test.helpers.fakes import NodeHarness, Recorder, StreamTransport, framed
from txpaxos.server.client_port import ClientPort
from txpaxos.server.connection import ServerConnection
from txpaxos.wire.client_messages import (
    ClientCodec,
    FromClient,
    FromNode,
    Members,
    Refused,
    Submit,
)
from txpaxos.wire.commands import new_session
from txpaxos.wire.frames import FRAME_BYTES_MAX

SESSION = new_session(bytes(16), 0)
CODEC = ClientCodec("test")


class UnencodableResults(Recorder):
    """An application whose results and errors cannot be encoded, or hardly."""

    def apply(self, slot: int, command: bytes) -> object:
        super().apply(slot, command)
        results = {
            b"object": object(),
            b"large": 2**64,
            b"text": "\ud800",
            b"huge": bytes(FRAME_BYTES_MAX),
            b"fine": {"total": [1, 2.5, None, "three", b"four"]},
        }
        if command == b"words":
            raise ValueError("\ud800")
        return results[command]


@dataclasses.dataclass(frozen=True)
class Row:
    """A dataclass with a field that is not set."""

    first: int
    second: int = dataclasses.field(init=False, hash=False)


class Lying(dict[str, int]):
    """A dictionary that raises when its items are read."""

    def items(self) -> Any:
        raise KeyError("a")


class Leaving(dict[str, int]):
    def items(self) -> Any:
        raise SystemExit(1)


class Asked(Recorder):
    """An application that answers queries."""

    def query(self, query: bytes) -> object:
        if query == b"!":
            raise ValueError("no such query")
        odd = {b"object": object(), b"unset": Row(1), b"lies": Lying(a=1), b"leaves": Leaving(a=1), b"key": {Row(1): 2}}
        return odd[query] if query in odd else [query.decode(), len(self.applied)]


class FakeClient:
    """A client whose connection the test operates by hand.

    :ivar members: what the node has told of the members, as far as it was heard.
    """

    def __init__(self, port: ClientPort, host: str = "10.1.1.1") -> None:
        self.members: list[Members] = []
        self.transport = StreamTransport()
        connection = port.buildProtocol(IPv4Address("TCP", host, 50000))
        assert connection is not None
        self.connection: ServerConnection = connection
        self._is_gone = False
        connection.makeConnection(self.transport)

    def say(self, *messages: FromClient | FromNode) -> None:
        self.connection.dataReceived(framed(*map(CODEC.encode, messages)))

    def heard(self) -> list[FromClient | FromNode]:
        """The node's messages since the last call, but for those about the members."""
        messages = [CODEC.decode(message) for message in self.transport.messages()]
        self.members += [one for one in messages if isinstance(one, Members)]
        return [one for one in messages if not isinstance(one, Members)]

    def disconnect(self) -> None:
        """Tell the node that the connection is lost. That happens once."""
        if not self._is_gone:
            self._is_gone = True
            self.connection.connectionLost(Failure(ConnectionDone()))


class ClientPortHarness:
    """A node and its client port."""

    def __init__(self, harness: NodeHarness) -> None:
        self.node_harness = harness
        self.node = harness.node
        self.port = ClientPort(harness.node)
        harness.reactor.idle()

    def client(self, host: str = "10.1.1.1") -> FakeClient:
        client = FakeClient(self.port, host)
        client.heard()
        return client

    def ask(self, *messages: FromClient) -> list[FromClient | FromNode]:
        """The answers to ``messages`` of a new client."""
        client = self.client()
        client.say(*messages)
        self.node_harness.reactor.idle()
        return client.heard()


def submit(number: int, command: bytes, sequence: int = 1, session: bytes = SESSION) -> Submit:
    return submit_run(number, (command,), sequence, session)


def submit_run(number: int, commands: tuple[bytes, ...], sequence: int = 1, session: bytes = SESSION) -> Submit:
    return Submit(number, session, sequence, 0, commands)


def refusals(client: FakeClient) -> list[tuple[int, str]]:
    return [(one.request, one.error) for one in client.heard() if isinstance(one, Refused)]
