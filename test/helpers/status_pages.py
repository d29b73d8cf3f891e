"""Requests to the status address of a node, through the reactor that the node runs in."""

from __future__ import annotations

import json
from typing import Any

import attrs
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from test.helpers.fakes import free_ports
from txpaxos.keys.factories import Newest, TlsFactory
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import client_dial
from txpaxos.status_port.status_port import StatusPort

reactor: Any = installed_reactor
SECONDS = 20.0


@attrs.frozen
class Answer:
    """An answer. ``status`` is 0 if there was none; ``headers`` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes
    reason: Failure

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Talk(Protocol):
    """Sends some bytes, and keeps all that comes back until the connection is closed."""

    def __init__(self, data: bytes, reads: bool = True) -> None:
        self.data, self.reads, self.heard = data, reads, b""
        self.closed: Deferred[Answer] = Deferred()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        if not self.reads:
            transport.pauseProducing()
        transport.write(self.data)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        head, _, body = self.heard.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        self.closed.callback(Answer(int(first.split()[1]) if first else 0, headers, body, reason))


def talk(port: int, data: bytes, keys: Keys | None = None, reads: bool = True) -> Talk:
    """Connect, and send some bytes."""
    protocol = Talk(data, reads)
    factory: Any = ClientFactory.forProtocol(lambda: protocol)
    factory.noisy = False
    factory.clientConnectionFailed = lambda _, reason: protocol.closed.errback(reason)
    if keys is not None:
        factory = TlsFactory(Newest(client_dial(keys)), True, factory, reactor)
        factory.noisy = False
    reactor.connectTCP("127.0.0.1", port, factory)
    return protocol


async def get(
    status_port: StatusPort,
    path: str,
    keys: Keys | None = None,
    *,
    method: str = "GET",
    host: str = "localhost",
    more: str = "",
) -> Answer:
    """Ask for a page."""
    port = status_port.address.port
    request = f"{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{more}\r\n"
    return await talk(port, request.encode(), keys).closed.addTimeout(SECONDS, reactor)


def free_address() -> str:
    """An address for a status port."""
    return f"127.0.0.1:{free_ports(1)[0]}"
