"""A client connects to an endpoint as it does to an address: it is told once, and later, how that went."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.task import Clock
from zope.interface import implementer

from txpaxos.client.endpoints import EndpointConnector, EndpointString, parse_place
from txpaxos.cluster import Address

SECONDS = 1.0


@implementer(IStreamClientEndpoint)
class Endpoint:
    """An endpoint that does what the test says."""

    def __init__(self, connecting: Deferred[Any]) -> None:
        self._connecting = connecting

    def connect(self, factory: Any) -> Deferred[Any]:
        return self._connecting


class Factory(ClientFactory):
    """Notes the failures."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failures.append(reason.type.__name__)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def connect(clock: Clock, connecting: Deferred[Any]) -> tuple[EndpointConnector, Factory]:
    factory = Factory()
    return EndpointConnector(clock, factory).start(Endpoint(connecting), SECONDS), factory


def test_it_takes_too_long(clock: Clock) -> None:
    _, factory = connect(clock, Deferred())
    clock.advance(SECONDS - 0.01)
    assert factory.failures == []
    clock.advance(0.02)
    assert factory.failures == ["TimeoutError"]


def test_it_is_given_up(clock: Clock) -> None:
    connector, factory = connect(clock, Deferred())
    connector.stopConnecting()
    assert factory.failures == ["CancelledError"]
    assert clock.getDelayedCalls() == []


def test_it_succeeds(clock: Clock) -> None:
    connecting: Deferred[Any] = Deferred()
    _, factory = connect(clock, connecting)
    connecting.callback(Protocol())
    clock.advance(2 * SECONDS)
    assert factory.failures == []
    assert clock.getDelayedCalls() == []


def test_it_fails_at_once(clock: Clock) -> None:
    """Who connects hears of it when that call is over."""
    _, factory = connect(clock, fail(OSError("no luck")))
    assert factory.failures == []
    clock.advance(0)
    assert factory.failures == ["OSError"]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize("text", ["unix:5001", "tcp:5001", "tls:443", "10.0.0.1:5001", "[::1]:5001"])
def test_what_was_an_address_still_is_one(text: str) -> None:
    assert isinstance(parse_place(text), Address)


@pytest.mark.parametrize("text", ["unix:/run/a.sock", "unix:path=a", "tls:a.example.org:443", "tcp:host=h:port=1"])
def test_an_endpoint(text: str) -> None:
    assert parse_place(text) == EndpointString(text)


@pytest.mark.parametrize("text", ["", "host", "ssl:h:1", "::1:5001", "tor:h:1", "unixx:/s"])
def test_neither(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|IPv6"):
        parse_place(text)
