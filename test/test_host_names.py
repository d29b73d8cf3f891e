"""Names of hosts: looked up in a thread each time they are needed, and all their addresses tried."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError, UserError
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from test.helpers.fakes import Reactor, outcome_of
from txpaxos.cluster import Address
from txpaxos.errors import ConfigError
from txpaxos.host_names import ADDRESSES_MAX, canonical_host, connect, look_up, look_up_in_thread

reactor: Any = installed_reactor

SECONDS = 2.0


class Caller(ClientFactory):
    """Who wants a connection."""

    protocol = Protocol

    def __init__(self) -> None:
        self.failures: list[Failure] = []

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failures.append(reason)


class Resolver:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answer: Deferred[list[str]] = Deferred()

    def __call__(self, name: str, family: str) -> Deferred[list[str]]:
        self.asked.append((name, family))
        return self.answer


class Attempt:
    """One attempt to connect, of which the test is all others."""

    def __init__(self, place: Address) -> None:
        self.reactor, self.resolver, self.caller = Reactor(), Resolver(), Caller()
        self.connector: Any = connect(self.reactor, place, self.caller, SECONDS, self.resolver)

    @property
    def called(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    def refuse(self) -> None:
        """The last one called is not there."""
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(ConnectionRefusedError()))

    @property
    def failed(self) -> list[Any]:
        return [type(failure.value) for failure in self.caller.failures]


@pytest.mark.parametrize(
    ("host", "canonical"),
    [
        *[("127.0.0.1", "127.0.0.1"), ("0127.0.0.1", "87.0.0.1"), ("127.1", "127.0.0.1"), ("0", "0.0.0.0")],
        *[("0x7f000001", "127.0.0.1"), ("2130706433", "127.0.0.1"), ("::FFFF:10.0.0.1", "10.0.0.1")],
        *[("FD00:0::1", "fd00::1"), ("Db.Example.ORG.", "db.example.org"), ("1a", "1a"), ("", "")],
        ("1.2.3.4.5", "1.2.3.4.5"),
    ],
)
def test_each_host_has_one_spelling(host: str, canonical: str) -> None:
    assert canonical_host(host) == canonical


def test_a_name_with_many_addresses(hosts: dict[str, list[str]]) -> None:
    hosts["crowd"] = [f"10.0.0.{number}" for number in range(1, 100)]
    assert look_up("crowd") == hosts["crowd"][:ADDRESSES_MAX]


async def test_a_look_up_takes_a_thread_of_its_own(hosts: dict[str, list[str]]) -> None:
    hosts["host"] = ["fd00::1", "10.0.0.1"]
    assert await look_up_in_thread(reactor, "host") == ["10.0.0.1", "fd00::1"]
    assert await look_up_in_thread(reactor, "host", "ipv6") == ["fd00::1", "10.0.0.1"]
    with pytest.raises(ConfigError, match="cannot resolve 'nowhere'"):
        await look_up_in_thread(reactor, "nowhere")
    for thread in threading.enumerate():
        assert thread.daemon or not thread.name.startswith("txpaxos-look-up")


def test_an_ip_address_needs_no_thread() -> None:
    assert outcome_of(look_up_in_thread(None, "0:0::1")) == [["::1"]]


def test_an_ip_address_is_called_at_once() -> None:
    attempt = Attempt(Address("10.0.0.1", 7))
    assert attempt.called == [("10.0.0.1", 7)]
    assert attempt.resolver.asked == []
    attempt.refuse()
    assert attempt.failed == [ConnectionRefusedError]


def test_all_addresses_of_a_name_are_tried() -> None:
    attempt = Attempt(Address("host", 7, family="ipv6"))
    assert (attempt.resolver.asked, attempt.called) == ([("host", "ipv6")], [])
    attempt.resolver.answer.callback(["10.0.0.1", "10.0.0.2", "fd00::1"])
    attempt.refuse()
    attempt.refuse()
    assert attempt.called == [("10.0.0.1", 7), ("10.0.0.2", 7), ("fd00::1", 7)]
    assert attempt.failed == []
    attempt.refuse()
    assert attempt.failed == [ConnectionRefusedError]
    assert attempt.reactor.getDelayedCalls() == []


def test_a_name_is_looked_up_anew_though_its_address_is_known() -> None:
    attempt = Attempt(Address("10.0.0.1", 7, name="host"))
    attempt.resolver.answer.callback(["10.0.0.9"])
    assert attempt.called == [("10.0.0.9", 7)]
    protocol = attempt.reactor.tcpClients[-1][2].buildProtocol(None)
    assert isinstance(protocol, Protocol)
    protocol.makeConnection(StringTransport())
    assert attempt.failed == []
    assert attempt.reactor.getDelayedCalls() == []


def test_the_address_of_before_serves_where_the_name_is_not_known_now() -> None:
    attempt = Attempt(Address("10.0.0.1", 7, name="host"))
    attempt.resolver.answer.errback(ConfigError("cannot resolve"))
    assert attempt.called == [("10.0.0.1", 7)]


def test_a_name_that_is_not_known() -> None:
    attempt = Attempt(Address("host", 7))
    attempt.resolver.answer.errback(ConfigError("cannot resolve"))
    assert (attempt.called, attempt.failed) == ([], [ConfigError])
    assert attempt.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("known", [False, True])
def test_a_resolver_that_does_not_answer_is_not_waited_for(known: bool) -> None:
    attempt = Attempt(Address("10.0.0.1", 7, name="host") if known else Address("host", 7))
    attempt.reactor.spend(SECONDS - 0.1)
    assert (attempt.called, attempt.failed) == ([], [])
    attempt.reactor.spend(0.2)
    assert attempt.called == ([("10.0.0.1", 7)] if known else [])
    assert attempt.failed == ([] if known else [ConfigError])
    attempt.resolver.answer.callback(["10.0.0.9"])  # Too late.
    assert len(attempt.called) == known


def test_an_attempt_is_given_up() -> None:
    attempt = Attempt(Address("host", 7))
    attempt.connector.stopConnecting()
    assert attempt.failed == [UserError]
    attempt.resolver.answer.callback(["10.0.0.1"])
    assert attempt.called == []
    assert attempt.reactor.getDelayedCalls() == []


def test_an_attempt_is_given_up_on_its_way() -> None:
    attempt = Attempt(Address("host", 7))
    attempt.resolver.answer.callback(["10.0.0.1", "10.0.0.2"])
    attempt.connector.stopConnecting()
    assert attempt.reactor.connectors[-1].stoppedConnecting
    attempt.refuse()
    assert attempt.called == [("10.0.0.1", 7)]
    assert attempt.failed == [ConnectionRefusedError]
