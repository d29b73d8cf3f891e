"""A client finds a node that answers, follows the leader, and sends again what got no answer."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, TimeoutError

from test.helpers.fake_nodes import NODES, FakeConnection, ManualNodes, other_than
from test.helpers.fakes import CLIENT_PORT, THREE, Reactor, error_of, framed, outcome_of
from txpaxos import errors
from txpaxos.client import Client
from txpaxos.client.connection import CONNECT_SECONDS
from txpaxos.client.pending import REQUESTS_MAX
from txpaxos.client.route import RETRY_SECONDS_MAX
from txpaxos.errors import (
    CommandFailed,
    ConfigError,
    NoQuorum,
    NotChosen,
    OutcomeUnknown,
    Overloaded,
    PaxosError,
    QueryFailed,
    ValueTooLarge,
)
from txpaxos.reading import Reading
from txpaxos.wire.client_messages import (
    Answer,
    Ask,
    AskAnswer,
    ClientCodec,
    KeepAlive,
    KeepAliveReply,
    Ping,
    Read,
    ReadAnswer,
    Refused,
    StatusAnswer,
    StatusRequest,
    Submit,
    Welcome,
    Withdraw,
)
from txpaxos.wire.commands import COMMAND_BYTES_MAX, RUN_COMMANDS


def error_in(outcome: list[Any], kind: type[PaxosError]) -> PaxosError:
    """The only thing in ``outcome``, an error of this very ``kind``."""
    (failure,) = outcome
    assert type(failure.value) is kind
    error: PaxosError = failure.value
    return error


@pytest.fixture
def fake_nodes() -> ManualNodes:
    return ManualNodes()


# --------------------------------------------------------------- one request


def test_no_node_is_called_before_there_is_something_to_say(fake_nodes: ManualNodes) -> None:
    fake_nodes.reactor.spend(10.0)
    assert fake_nodes.calls == []


def test_a_command_and_its_answer(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    ((host, port, _, timeout, _),) = fake_nodes.reactor.tcpClients
    assert (NODES[host] in "abc", port, timeout) == (True, CLIENT_PORT, CONNECT_SECONDS)
    line = fake_nodes.accept()
    assert line.transport.no_delay
    session = fake_nodes.client.session
    assert session is not None
    assert line.said() == [Submit(1, session, 1, 0, (b"x",))]
    line.answer(1, {"total": 5})
    assert outcome == [{"total": 5}]


def test_a_question_and_its_answer(fake_nodes: ManualNodes) -> None:
    outcomes = [outcome_of(fake_nodes.client.ask("king", b"Arthur")), outcome_of(fake_nodes.client.ask("queen"))]
    line = fake_nodes.accept()
    assert line.said() == [Ask(1, "king", b"Arthur"), Ask(2, "queen", None)]
    line.say(AskAnswer(2, None), AskAnswer(1, b"Uther"))
    assert outcomes == [[b"Uther"], [None]]


def test_status(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.status())
    line = fake_nodes.accept()
    assert line.said() == [StatusRequest(1)]
    line.say(StatusAnswer(1, b'{"role": "leader"}'))
    assert outcome == [{"role": "leader"}]


def test_requests_share_a_connection(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    fake_nodes.client.submit(b"y")
    assert [command for *_, command in line.submitted()] == [b"x", b"y"]
    assert len(fake_nodes.calls) == 1


def test_what_was_answered_is_acknowledged(fake_nodes: ManualNodes) -> None:
    """Only what was answered without a gap; the node may then forget it."""
    for _ in range(3):
        fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    line.answer(2, None)
    fake_nodes.client.submit(b"y")
    fake_nodes.reactor.turn()
    line.answer(1, None)
    line.answer(4, None)
    fake_nodes.client.submit(b"z")
    assert [(one.sequence, len(one.commands), one.acknowledged) for one in line.runs()] == [
        (1, 3, 0),
        (4, 1, 0),
        (5, 1, 2),
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CommandFailed", CommandFailed),
        ("Overloaded", Overloaded),
        ("ValueTooLarge", ValueTooLarge),
        ("OutcomeUnknown", OutcomeUnknown),
        ("PaxosError", PaxosError),
        ("SomethingNewer", PaxosError),
        ("annotations", PaxosError),
        ("__name__", PaxosError),
        ("", PaxosError),
    ],
)
def test_refusals_are_errors(fake_nodes: ManualNodes, name: str, expected: type[PaxosError]) -> None:
    waiting = fake_nodes.client.submit(b"x")
    fake_nodes.accept().say(Refused(1, name, "because"))
    error = error_of(waiting)
    assert type(error) is expected
    assert str(error) == "because"


def test_every_error_of_ours_can_be_refused(fake_nodes: ManualNodes) -> None:
    line = None
    for number, name in enumerate((n for n in vars(errors) if isinstance(getattr(errors, n), type)), 1):
        waiting = fake_nodes.client.submit(b"x")
        line = line or fake_nodes.accept()
        line.say(Refused(number, name, "because"))
        if name == "NodeStopped":  # for that, another node is asked
            waiting.addErrback(lambda _: None)
        else:
            assert type(error_of(waiting)).__name__ == name
    fake_nodes.client.close()


def test_a_second_answer_is_nobodys(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    line = fake_nodes.accept()
    line.answer(1, "first")
    line.answer(1, "second")
    line.say(Refused(1, "PaxosError", "late"), AskAnswer(99, None), StatusAnswer(99, b"{}"))
    assert outcome == ["first"]
    assert not line.transport.disconnected


# ----------------------------------------------------------- finding a node


def test_it_tries_until_a_node_is_there(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    dead = [fake_nodes.refuse()]
    for _ in range(4):
        fake_nodes.wait_for_call()
        assert fake_nodes.calls[-1] != dead[-1]
        dead.append(fake_nodes.refuse())
    fake_nodes.wait_for_call()
    fake_nodes.accept().answer(1, "done")
    assert outcome == ["done"]


def test_it_tries_ever_more_slowly(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    times = []
    for _ in range(40):
        fake_nodes.refuse()
        began = fake_nodes.reactor.seconds()
        fake_nodes.wait_for_call()
        times.append(fake_nodes.reactor.seconds() - began)
    assert times[0] < 0.03
    assert min(times[12:]) >= RETRY_SECONDS_MAX / 2
    assert max(times) <= RETRY_SECONDS_MAX + 0.001
    assert set(fake_nodes.calls) == set("abc")


def test_it_asks_only_the_nodes_it_was_given() -> None:
    fake_nodes = ManualNodes(["b"])
    fake_nodes.client.submit(b"x")
    for _ in range(5):
        fake_nodes.refuse()
        fake_nodes.wait_for_call()
    line = fake_nodes.accept()
    line.welcome("a")
    assert set(fake_nodes.calls) == {"b"}  # nor does it follow the leader to another
    assert not line.transport.disconnecting


@pytest.mark.parametrize("nodes", [["a", "d"], []])
def test_nodes_that_are_not_in_the_cluster(nodes: list[str]) -> None:
    with pytest.raises(ConfigError, match="its nodes are a, b, c"):
        Client(Reactor(), THREE, nodes)


def test_it_follows_the_welcome_to_the_leader(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    first = fake_nodes.accept()
    sent = first.submitted()
    leader = other_than(first.node)
    first.welcome(leader)
    assert fake_nodes.calls[-1] == leader
    second = fake_nodes.accept()
    assert first.transport.disconnecting
    second.welcome(leader)
    assert second.submitted() == sent  # the same session and sequence
    first.answer(1, "too late")
    assert outcome == []
    second.answer(1, "done")
    assert outcome == ["done"]
    assert len(fake_nodes.calls) == 2


def test_it_follows_when_the_leader_changes(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    line.welcome(line.node)
    line.welcome(None)
    assert len(fake_nodes.calls) == 1
    leader = other_than(line.node)
    line.welcome(leader)
    assert fake_nodes.calls[-1] == leader


@pytest.mark.parametrize("address", ["10.9.9.9:5000", "b.example.org:5000", "nowhere", "[x]:1", None])
def test_it_follows_to_the_address_that_its_own_file_has(fake_nodes: ManualNodes, address: str | None) -> None:
    """The node may know the leader by another one."""
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    leader = other_than(line.node)
    line.say(Welcome(line.node, leader, address))
    assert fake_nodes.calls[-1] == leader


def test_it_follows_to_no_node_but_the_clusters(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    line.say(Welcome(line.node, "d", "10.0.0.2:5000"))
    assert len(fake_nodes.calls) == 1
    assert not line.transport.disconnecting


# ------------------------------------------------------------ sending again


def test_a_lost_connection(fake_nodes: ManualNodes) -> None:
    outcomes = [outcome_of(fake_nodes.client.submit(command)) for command in (b"x", b"y", b"z")]
    line = fake_nodes.accept()
    sent = line.submitted()
    line.answer(2, "done")
    line.break_off()
    fake_nodes.wait_for_call()
    again = fake_nodes.accept()
    assert again.node != line.node
    assert again.submitted() == [sent[0], sent[2]]
    again.answer(1, "x")
    again.answer(3, "z")
    assert outcomes == [["x"], ["done"], ["z"]]


def test_an_idle_connection_that_is_lost_is_made_again_when_needed(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    line.answer(1, None)
    line.break_off()
    fake_nodes.reactor.spend(10.0)
    assert len(fake_nodes.calls) == 1
    fake_nodes.client.submit(b"y")
    assert [command for *_, command in fake_nodes.accept().submitted()] == [b"y"]


def test_a_node_that_stopped_is_left_for_another(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    line = fake_nodes.accept()
    sent = line.submitted()
    line.say(Refused(1, "NodeStopped", "node a stopped before it had the outcome"))
    assert outcome == []
    line.break_off()
    fake_nodes.wait_for_call()
    assert fake_nodes.accept().submitted() == sent


def test_a_node_that_owes_nothing_may_be_silent(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    line.answer(1, None)
    fake_nodes.reactor.spend(60.0)
    assert len(fake_nodes.calls) == 1
    assert fake_nodes.reactor.getDelayedCalls() == []


def test_a_dead_leader_is_not_called_again_and_again(fake_nodes: ManualNodes) -> None:
    """It is gone, but the others do not know yet, and name it in their welcome."""
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    leader = line.node
    line.welcome(leader)
    line.break_off()
    fake_nodes.wait_for_call()
    follower = fake_nodes.pick_up()
    follower.welcome(leader)
    assert not follower.transport.disconnecting
    assert len(fake_nodes.calls) == 2
    new = other_than(leader, follower.node)
    follower.welcome(new)  # they have found another
    assert fake_nodes.calls[-1] == new


def test_a_leader_that_is_back_is_followed_again(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    line = fake_nodes.accept()
    leader = line.node
    line.welcome(leader)
    line.break_off()
    fake_nodes.wait_for_call()
    new = fake_nodes.accept()
    new.welcome(new.node)
    new.welcome(leader)
    assert fake_nodes.calls[-1] == leader


# --------------------------------------------------------------- bad nodes


def test_a_clients_message_from_a_node_ends_the_connection_and_nothing_else(fake_nodes: ManualNodes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    line = fake_nodes.accept()
    sent = line.submitted()
    line.say(Submit(1, b"session1", 1, 0, (b"x",)))
    assert line.transport.disconnected
    assert outcome == []
    line.break_off()
    fake_nodes.wait_for_call()
    again = fake_nodes.accept()
    assert again.submitted() == sent
    again.answer(1, "done")
    assert outcome == ["done"]


UNREADABLE = [
    b"\xc1",
    b"",
    b"\x81\x81\xa1a\x01\x02",  # a map for a key
    b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that is none
    b"\x91" * 100_000 + b"\xc0",  # deeper than any Python goes; 3.13 goes deeper than 3.11
    b"\xc0\xc0",
]


@pytest.mark.parametrize("data", UNREADABLE)
def test_a_result_that_cannot_be_decoded_fails_its_command_and_nothing_else(
    fake_nodes: ManualNodes, data: bytes
) -> None:
    """Sent again, the command would get the same answer."""
    first, second, third = (outcome_of(fake_nodes.client.submit(one)) for one in (b"x", b"y", b"z"))
    line = fake_nodes.accept()
    line.submitted()
    line.say(Answer(1, (b"\x05", data)))
    assert not line.transport.disconnected
    assert first == [5]
    assert str(error_in(second, CommandFailed)).startswith("applied, but its result cannot be decoded: ")
    assert third == []
    line.say(Answer(3, (b"\x06",)))
    assert third == [6]
    assert fake_nodes.client.waiting_bytes == 0


@pytest.mark.parametrize("data", UNREADABLE)
def test_an_answer_that_cannot_be_decoded_fails_its_query_and_nothing_else(
    fake_nodes: ManualNodes, data: bytes
) -> None:
    first, second = (outcome_of(fake_nodes.client.read(one)) for one in (b"q", b"r"))
    line = fake_nodes.accept()
    line.say(ReadAnswer(1, 9, data))
    assert not line.transport.disconnected
    assert str(error_in(first, QueryFailed)).startswith("the answer cannot be decoded: ")
    line.say(ReadAnswer(2, 9, b"\x05"))
    assert second == [Reading(5, 9)]


@pytest.mark.parametrize("data", [b"no json", b"\xff", b"[" * 100_000])
def test_a_status_that_cannot_be_decoded(fake_nodes: ManualNodes, data: bytes) -> None:
    outcome = outcome_of(fake_nodes.client.status())
    line = fake_nodes.accept()
    line.say(StatusAnswer(1, data))
    assert not line.transport.disconnected
    error_in(outcome, QueryFailed)


@pytest.mark.parametrize(
    "data", [framed(b"HTTP/1.1 400"), framed(ClientCodec("other").encode(Welcome("a", None, None)))]
)
def test_another_service_at_the_port(fake_nodes: ManualNodes, data: bytes) -> None:
    outcome = outcome_of(fake_nodes.client.submit(b"x"))
    line = fake_nodes.accept()
    line.connection.dataReceived(data)
    assert line.transport.disconnected
    line.break_off()
    fake_nodes.wait_for_call()
    fake_nodes.accept().answer(1, "done")
    assert outcome == ["done"]


# -------------------------------------------------------- limits and the end


def test_too_large(fake_nodes: ManualNodes) -> None:
    """Sent, it would end the connection, and be sent again, for ever."""
    for waiting in (
        fake_nodes.client.submit(bytes(COMMAND_BYTES_MAX + 1)),
        fake_nodes.client.ask("king", bytes(COMMAND_BYTES_MAX + 1)),
        fake_nodes.client.ask("k" * 1000, b"x"),
        fake_nodes.client.ask("", b"x"),
    ):
        assert isinstance(error_of(waiting), ValueTooLarge)
    assert fake_nodes.calls == []
    fake_nodes.client.submit(bytes(COMMAND_BYTES_MAX))
    fake_nodes.client.ask("king", bytes(COMMAND_BYTES_MAX))
    assert len(fake_nodes.accept().said()) == 2


def test_too_many_requests(fake_nodes: ManualNodes) -> None:
    for _ in range(REQUESTS_MAX):
        fake_nodes.client.submit(b"x")
    assert isinstance(error_of(fake_nodes.client.submit(b"x")), Overloaded)
    line = fake_nodes.accept()
    line.answer(1, None)
    fake_nodes.client.submit(b"y")
    for last in range(RUN_COMMANDS, REQUESTS_MAX, RUN_COMMANDS):  # It is held while more than one run is under way.
        line.answer(last, None)
    assert line.submitted()[-1][2] == b"y"


def test_cancel(fake_nodes: ManualNodes) -> None:
    gave_up, waits = fake_nodes.client.submit(b"x"), outcome_of(fake_nodes.client.submit(b"y"))
    line = fake_nodes.accept()
    gave_up.cancel()
    assert isinstance(error_of(gave_up), CancelledError)
    line.answer(1, "late")
    line.break_off()
    fake_nodes.wait_for_call()
    again = fake_nodes.accept()
    assert [command for *_, command in again.submitted()] == [b"y"]
    again.answer(2, "done")
    assert waits == ["done"]
    fake_nodes.client.submit(b"z")
    (last,) = again.said()
    assert isinstance(last, Submit)
    assert last.acknowledged == 2


def welcomed_with_withdrawals(fake_nodes: ManualNodes) -> FakeConnection:
    line = fake_nodes.accept()
    line.say(Welcome(line.node, line.node, None, 0, 0.25, takes_withdrawals=True))
    return line


def test_a_read_that_is_cancelled_is_withdrawn(fake_nodes: ManualNodes) -> None:
    client = fake_nodes.client
    reads = [client.read(b"q", "local"), client.read(b"q"), client.read(b"q", deadline_seconds=1.0), client.read(b"q")]
    others = [client.submit(b"x"), client.ask("king", b"Arthur"), client.status()]
    line = welcomed_with_withdrawals(fake_nodes)
    line.said()
    for one in [*reads[:2], *others]:
        one.addErrback(lambda _: None).cancel()
    assert line.said() == [Withdraw(1), Withdraw(2)]
    over = outcome_of(reads[2])
    fake_nodes.reactor.spend(1.1)
    error_in(over, NoQuorum)
    assert [one for one in line.said() if not isinstance(one, Ping)] == [Withdraw(3)]
    line.say(ReadAnswer(1, 5, b"\xc0"), ReadAnswer(4, 5, b"\xc0"))
    assert reads[3].called
    reads[3].cancel()
    assert line.said() == []


def test_a_read_that_was_not_sent_is_not_withdrawn(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.read(b"q").addErrback(lambda _: None).cancel()
    early = fake_nodes.client.read(b"q").addErrback(lambda _: None)
    line = welcomed_with_withdrawals(fake_nodes)
    late = fake_nodes.client.read(b"q").addErrback(lambda _: None)
    late.cancel()
    assert [type(one) for one in line.said()] == [Read]
    line.break_off()
    early.cancel()
    fake_nodes.client.submit(b"x")
    fake_nodes.wait_for_call()
    assert [type(one) for one in welcomed_with_withdrawals(fake_nodes).said()] == [Submit]


def test_nothing_is_withdrawn_at_an_older_node(fake_nodes: ManualNodes) -> None:
    """It would take the message for none of this protocol."""
    read = fake_nodes.client.read(b"q").addErrback(lambda _: None)
    line = fake_nodes.accept()
    line.said()
    read.cancel()
    assert line.said() == []


def test_a_deadline(fake_nodes: ManualNodes) -> None:
    waiting = fake_nodes.client.submit(b"x").addTimeout(3.0, fake_nodes.reactor)
    outcome: list[Any] = outcome_of(waiting)
    while not outcome:
        fake_nodes.refuse()
        fake_nodes.reactor.spend(1.0, lambda: bool(outcome) or len(fake_nodes.calls) > fake_nodes._answered)
    assert outcome[0].check(TimeoutError)
    fake_nodes.reactor.spend(10.0)
    assert fake_nodes.reactor.getDelayedCalls() == []


def test_close(fake_nodes: ManualNodes) -> None:
    sent, asked = fake_nodes.client.submit(b"x"), fake_nodes.client.ask("king")
    line = fake_nodes.accept()
    fake_nodes.client.close()
    fake_nodes.client.close()
    assert line.transport.disconnecting
    assert isinstance(error_of(sent), OutcomeUnknown)
    assert isinstance(error_of(asked), NoQuorum)
    assert isinstance(error_of(fake_nodes.client.submit(b"y")), NotChosen)
    assert isinstance(error_of(fake_nodes.client.read(b"y")), NoQuorum)
    line.break_off()
    fake_nodes.reactor.spend(10.0)
    assert len(fake_nodes.calls) == 1
    assert fake_nodes.reactor.getDelayedCalls() == []


def test_close_before_a_node_was_found(fake_nodes: ManualNodes) -> None:
    waiting = fake_nodes.client.submit(b"x")
    fake_nodes.client.close()
    assert fake_nodes.reactor.connectors[-1].stoppedConnecting
    assert isinstance(error_of(waiting), NotChosen)  # no node can have seen it


def test_it_tries_again_also_when_the_wall_clock_is_set_back(fake_nodes: ManualNodes) -> None:
    waiting = fake_nodes.client.submit(b"x")
    fake_nodes.refuse()
    fake_nodes.reactor.step(-3600.0)
    fake_nodes.wait_for_call()
    fake_nodes.accept().answer(1, "done")
    assert outcome_of(waiting) == ["done"]


def test_a_silent_node_is_left_also_when_the_wall_clock_is_set_back(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.submit(b"x")
    fake_nodes.accept()
    fake_nodes.reactor.step(-3600.0)
    fake_nodes.wait_for_call(30.0)


def test_close_while_it_waits_to_try_again(fake_nodes: ManualNodes) -> None:
    waiting = fake_nodes.client.submit(b"x")
    fake_nodes.refuse()
    fake_nodes.client.close()
    assert isinstance(error_of(waiting), NotChosen)
    fake_nodes.reactor.spend(10.0)
    assert len(fake_nodes.calls) == 1
    assert fake_nodes.reactor.getDelayedCalls() == []


def test_a_keep_alive_is_answered(fake_nodes: ManualNodes) -> None:
    fake_nodes.client.status()
    line = fake_nodes.accept()
    line.said()
    line.say(KeepAlive())
    assert line.said() == [KeepAliveReply()]
