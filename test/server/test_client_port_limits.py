"""The client door holds no more than it may, whoever asks for however much and does not read the answers."""

from __future__ import annotations

import pytest

import txpaxos.server.client_port
import txpaxos.server.client_table
from test.helpers.fakes import ONE, Bench, framed
from test.helpers.visitors import CODEC, House, refusals, submit
from txpaxos.core.messages import Ballot, Heartbeat
from txpaxos.server.client_port import REQUESTS_MAX
from txpaxos.server.client_table import DROP_SECONDS, PING_SECONDS
from txpaxos.wire.client_messages import (
    Answer,
    AreYouThere,
    Ask,
    AskAnswer,
    Here,
    Refused,
    StatusRequest,
    Welcome,
)
from txpaxos.wire.commands import new_session


@pytest.fixture
def house() -> House:
    return House(Bench("a", ONE))


def test_requests_of_one_connection_are_limited() -> None:
    house = House(Bench("b"))  # nobody leads: nothing gets an answer
    visitor = house.visitor()
    visitor.say(*[submit(number, b"x", number) for number in range(REQUESTS_MAX + 2)])
    refused = visitor.heard()
    assert [(one.request, one.error) for one in refused if isinstance(one, Refused)] == [
        (REQUESTS_MAX, "Overloaded"),
        (REQUESTS_MAX + 1, "Overloaded"),
    ]
    assert len(refused) == 2
    visitor.hang_up()


def test_connections_are_limited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there are too many, one that is idle goes: of the address that has most, and the longest."""
    monkeypatch.setattr(txpaxos.server.client_port, "CONNECTIONS_MAX", 4)
    lonely = house.visitor("10.2.2.2")
    crowd = [house.visitor() for _ in range(3)]
    house.bench.reactor.spend(2.5)
    crowd[0].say(StatusRequest(1))
    newest = house.visitor()
    assert [one.transport.disconnected for one in (lonely, *crowd, newest)] == [False, False, True, False, False]
    assert house.node.counters == {"too many clients": 1}
    crowd[1].hang_up()
    house.visitor("10.3.3.3")
    assert crowd[2].transport.disconnected
    assert not lonely.transport.disconnected
    for visitor in (lonely, *crowd, newest):
        visitor.hang_up()
    assert len(house.door.connections) == 1


def test_who_waits_for_an_answer_does_not_go_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.client_port, "CONNECTIONS_MAX", 2)
    house = House(Bench("b"))  # Nobody leads.
    visitors = [house.visitor(), house.visitor()]
    for visitor in visitors:
        visitor.say(submit(1, b"x", session=new_session(bytes([len(visitors)] * 16), 0)))
    house.bench.reactor.spend(200.0)
    assert house.door.buildProtocol(None) is None
    assert [visitor.transport.disconnected for visitor in visitors] == [False, False]
    assert house.node.counters["too many clients"] == 1
    for visitor in visitors:
        visitor.hang_up()


def test_a_silent_client_is_asked_for_a_sign_of_life_and_hung_up_on(house: House) -> None:
    """Its machine may have lost power. One that answers stays, for as long as it likes."""
    alive, dead, busy = [house.visitor() for _ in range(3)]
    for second in range(200):
        house.bench.reactor.spend(1.0)
        if AreYouThere() in alive.heard():
            alive.say(Here())
        if second % 20 == 0:
            busy.say(StatusRequest(second))
        if second == PING_SECONDS - 2:
            assert dead.heard() == []
    assert dead.heard().count(AreYouThere()) == 1
    assert AreYouThere() not in busy.heard()
    assert [one.transport.disconnected for one in (alive, dead, busy)] == [False, True, False]
    assert house.node.counters == {"idle client that does not answer": 1}
    for visitor in (alive, dead, busy):
        visitor.hang_up()
    house.bench.reactor.spend(5.0)
    assert [call for call in house.bench.reactor.getDelayedCalls() if "_sweep" in str(call)] == []


def test_ten_thousand_silent_clients_are_gone_soon_and_asked_a_few_at_a_time(house: House) -> None:
    visitors = [house.visitor() for _ in range(1200)]
    asked = []
    for _ in range(PING_SECONDS + DROP_SECONDS + 3):
        house.bench.reactor.spend(1.0)
        asked.append(sum(AreYouThere() in visitor.heard() for visitor in visitors))
    assert [count for count in asked if count] == [500, 500, 200]
    assert all(visitor.transport.disconnected for visitor in visitors)
    assert len(house.door.connections) == 0


def test_one_address_may_begin_only_so_many_sessions(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else it has those of all others forgotten."""
    monkeypatch.setattr(txpaxos.server.client_table, "SESSIONS_BURST", 3)
    many, other = house.visitor(), house.visitor("10.2.2.2")
    names = [new_session(b"%016d" % number, 0) for number in range(5)]
    many.say(*[submit(number, b"x", session=name) for number, name in enumerate(names)])
    house.bench.reactor.idle()
    assert refusals(many) == [(3, "Overloaded"), (4, "Overloaded")]
    many.say(*[submit(10 + number, b"y", 2, session=name) for number, name in enumerate(names[:3])])
    other.say(submit(1, b"x", session=names[4]))
    house.bench.reactor.idle()
    assert (refusals(many), refusals(other)) == ([], [])
    house.bench.reactor.spend(2.0)
    many.say(submit(20, b"x", session=names[3]))
    assert refusals(many) == []
    many.hang_up()
    other.hang_up()


def test_requests_of_all_connections_are_limited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.client_port, "REQUESTS_ALL_MAX", 3)
    monkeypatch.setattr(txpaxos.server.client_port, "REQUEST_BYTES_ALL_MAX", 1000)
    first, second = house.visitor(), house.visitor()
    first.say(submit(1, b"x"), submit(2, b"y", 2))
    second.say(Ask(3, "king", bytes(900)), Ask(4, "king", None))
    assert refusals(first) == []
    assert refusals(second) == [(4, "Overloaded")]
    second.hang_up()  # which leaves room
    first.say(Ask(5, "king", bytes(990)))
    assert refusals(first) == []
    house.bench.reactor.idle()
    assert house.ask(Ask(6, "king", bytes(996))) == [AskAnswer(6, bytes(990))]
    assert refusals(house.visitor()) == []
    (refused,) = house.ask(Ask(7, "king", bytes(997)))
    assert isinstance(refused, Refused)


def test_requests_in_part_are_limited(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.client_port, "PARTIAL_BYTES_ALL_MAX", 250_000)
    first, second, third, small = (house.visitor() for _ in range(4))
    part = framed(CODEC.encode(Ask(1, "king", bytes(200_000))))
    first.connection.dataReceived(part[:150_000])
    second.connection.dataReceived(part[:150_000])
    assert second.transport.disconnected
    assert house.node.counters == {"too much of requests in part": 1}
    second.hang_up()
    third.connection.dataReceived(part[:99_000])
    small.connection.dataReceived(part[:1500])  # hardly counts
    first.connection.dataReceived(part[150_000:])
    house.bench.reactor.idle()
    assert first.heard() == [AskAnswer(1, bytes(200_000))]
    assert not third.transport.disconnected
    assert not small.transport.disconnected


def test_answers_that_are_not_read_wait(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes are held, nothing more is read, and all the answers come once the client reads."""
    monkeypatch.setattr(txpaxos.server.client_port, "HELD_BYTES_MAX", 1000)
    visitor = house.visitor()
    visitor.connection.pauseProducing()
    visitor.say(*[Ask(number, "king", b"x" * 300) for number in range(20)])
    visitor.say(*[submit(number, b"%d" % number, number) for number in range(20, 40)])
    house.bench.reactor.idle()
    held = visitor.heard()
    assert 0 < len(held) < 25
    assert 1000 < house.door.held_bytes < 1500
    assert visitor.transport.producerState == "paused"
    heard = held
    for _ in range(40):
        visitor.connection.resumeProducing()
        visitor.connection.pauseProducing()
        house.bench.reactor.idle()
        assert house.door.held_bytes < 1500
        heard += visitor.heard()
    visitor.connection.resumeProducing()
    house.bench.reactor.idle()
    heard += visitor.heard()
    assert sorted(one.request for one in heard if isinstance(one, AskAnswer)) == list(range(20))
    assert sorted(one.request for one in heard if isinstance(one, Answer)) == list(range(20, 40))
    assert [payload for _, payload in house.node.applied] == [b"%d" % number for number in range(20, 40)]  # once
    assert visitor.transport.producerState == "producing"
    assert (house.door.held_bytes, len(house.door.paused)) == (0, 0)


def test_a_thousand_that_were_put_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answered on the spot, one after the other and not one inside the other."""
    monkeypatch.setattr(txpaxos.server.client_port, "HELD_BYTES_MAX", 10)
    visitor = house.visitor()
    visitor.connection.pauseProducing()
    visitor.say(*map(StatusRequest, range(2000)))
    assert len(visitor.heard()) == 1
    visitor.connection.resumeProducing()
    assert len(visitor.heard()) == 1999


def test_who_does_not_read_is_hung_up_on(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When too much is held for all together: the one that has not read for the longest time."""
    monkeypatch.setattr(txpaxos.server.client_port, "HELD_BYTES_ALL_MAX", 50_000)
    first, second, third = (house.visitor() for _ in range(3))
    for visitor in (second, first, third):
        assert visitor.transport.producer is visitor.connection
        visitor.connection.pauseProducing()
    for visitor in (first, second, third):
        visitor.say(Ask(1, "king", bytes(20_000)))
        house.bench.reactor.idle()
    assert [visitor.transport.disconnected for visitor in (first, second, third)] == [False, True, False]
    assert house.node.counters == {"client that does not read": 1}
    assert 40_000 < house.door.held_bytes < 50_000
    for visitor in (first, second, third):
        visitor.hang_up()
    assert (house.door.held_bytes, len(house.door.paused)) == (0, 0)


def test_who_reads_late_is_not(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.client_port, "HELD_BYTES_ALL_MAX", 50_000)
    visitor = house.visitor()
    for _ in range(3):
        visitor.connection.pauseProducing()
        visitor.say(*map(StatusRequest, range(60)))
        visitor.transport.clear()
        visitor.connection.resumeProducing()
    assert not visitor.transport.disconnected
    visitor.connection.stopProducing()


def test_who_does_not_read_hears_of_the_last_leader() -> None:
    bench = Bench("b")
    visitor = House(bench).visitor()
    visitor.connection.pauseProducing()
    for number, leader in enumerate("acac", 1):
        bench.hear(leader, Heartbeat(Ballot(number, leader), 0, number))
        bench.reactor.idle()
    assert visitor.heard() == []
    visitor.connection.resumeProducing()
    assert visitor.heard() == [Welcome("b", "c", "10.0.0.3:5000", 0, 0.25)]
