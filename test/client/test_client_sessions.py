"""A client's session, its deadlines, its reads, and how long it waits for which node."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.python.failure import Failure

from test.helpers.fake_nodes import FakeConnection, ManualNodes, other_than
from test.helpers.fakes import error_of, outcome_of
from txpaxos.client.dispatcher import WELCOME_SECONDS_MAX
from txpaxos.client.pending import PENDING_BYTES_MAX, REQUESTS_MAX
from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, Overloaded, QueryFailed, SessionExpired, ValueTooLarge
from txpaxos.reading import Reading
from txpaxos.wire.client_messages import Ask, Read, ReadAnswer, Refused, StatusAnswer, Submit
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Run, session_created_at_slot


@pytest.fixture
def nodes() -> ManualNodes:
    return ManualNodes()


def submits(connection: FakeConnection) -> list[Submit]:
    return connection.runs()


# ------------------------------------------------------------------ sessions


def test_nothing_is_sent_before_the_welcome(nodes: ManualNodes) -> None:
    nodes.client.submit(b"x")
    nodes.client.ask("king", b"Arthur")
    connection = nodes.pick_up()
    nodes.client.submit(b"y")
    assert connection.said() == []
    assert nodes.client.session is None
    connection.welcome(connection.node, applied_through=77)
    assert [type(one) for one in connection.said()] == [Submit, Ask, Submit]
    assert nodes.client.session is not None
    assert session_created_at_slot(nodes.client.session) == 77


def test_a_follower_that_names_the_leader_is_sent_nothing(nodes: ManualNodes) -> None:
    nodes.client.submit(b"x")
    connection = nodes.pick_up()
    connection.welcome(other_than(connection.node))
    assert connection.said() == []
    assert len(submits(nodes.accept())) == 1


def test_sessions_of_two_clients_differ() -> None:
    sessions = set()
    for seed in (1, 2):
        nodes = ManualNodes(seed=seed)
        nodes.client.submit(b"x")
        (sent,) = submits(nodes.accept())
        sessions.add(sent.session)
    assert len(sessions) == 2


def test_a_question_makes_no_session(nodes: ManualNodes) -> None:
    nodes.client.ask("king")
    nodes.client.read(b"x")
    nodes.accept()
    assert nodes.client.session is None


def test_a_forgotten_session_is_replaced(nodes: ManualNodes) -> None:
    """What was in work in it fails; what comes later goes into a new one, made at the slot told last."""
    client = nodes.client
    outcomes = [outcome_of(client.submit(b"x")), outcome_of(client.submit(b"y"))]
    reads = outcome_of(client.read(b"q"))
    connection = nodes.accept()
    first = submits(connection)[0].session
    connection.welcome(connection.node, applied_through=500)
    connection.say(Refused(1, "SessionExpired", "forgotten"))
    for (outcome,) in outcomes:
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.value, SessionExpired)
        assert isinstance(outcome.value, OutcomeUnknown)
        assert str(outcome.value) == "forgotten"
    assert reads == []
    later = outcome_of(client.submit(b"z"))
    (sent,) = submits(connection)
    assert sent.session != first
    assert session_created_at_slot(sent.session) == 500
    assert (sent.sequence, sent.acknowledged) == (3, 2)
    connection.say(Refused(2, "SessionExpired", "forgotten"))  # of the old one
    connection.answer(4, "z")
    assert later == ["z"]
    assert client.session == sent.session


def test_a_welcome_of_long_ago_is_asked_for_anew(nodes: ManualNodes) -> None:
    """A session made at a slot of last week might count as forgotten already."""
    nodes.client.status()
    connection = nodes.accept()
    connection.welcome(connection.node, applied_through=5)
    connection.say(StatusAnswer(1, b"{}"))
    nodes.reactor.spend(WELCOME_SECONDS_MAX + 1)
    nodes.client.submit(b"x")
    assert submits(connection) == []
    assert connection.transport.disconnecting
    again = nodes.pick_up()
    assert again.node == connection.node
    again.welcome(again.node, applied_through=9000)
    (sent,) = submits(again)
    assert session_created_at_slot(sent.session) == 9000
    again.answer(2, None)
    nodes.reactor.spend(0.5)
    nodes.client.submit(b"y")
    assert len(submits(again)) == 1
    assert len(nodes.calls) == 2


def test_an_observer_is_told_of_each_command_once() -> None:
    told: list[Run] = []
    nodes = ManualNodes(sending=told.append)
    nodes.client.submit(b"x")
    nodes.client.submit(b"y")
    assert told == []
    connection = nodes.accept()
    (sent,) = submits(connection)
    connection.answer(1, None)
    connection.break_off()
    nodes.wait_for_call()
    assert submits(nodes.accept()) == [Submit(2, sent.session, 2, 1, (b"y",))]
    assert told == [Run(sent.session, 1, 0, (b"x", b"y"))]


# ----------------------------------------------------------------- deadlines


def test_a_deadline_before_anything_was_sent(nodes: ManualNodes) -> None:
    client = nodes.client
    waiting = [
        client.submit(b"x", 3.0),
        client.read(b"q", deadline_seconds=3.0),
        client.read(b"q", "local", 3.0),
        client.ask("king", b"Arthur", 3.0),
        client.status(3.0),
    ]
    outcomes = [outcome_of(one) for one in waiting]
    nodes.pick_up()
    nodes.reactor.spend(2.9)
    assert not any(outcomes)
    nodes.reactor.spend(0.2)
    kinds = [outcome[0].type for outcome in outcomes if isinstance(outcome[0], Failure)]
    assert kinds == [NotChosen, NoQuorum, NoQuorum, NoQuorum, NoQuorum]


def test_a_deadline_after_it_was_sent(nodes: ManualNodes) -> None:
    client = nodes.client
    kinds = []
    waiting = [
        client.submit(b"x", 0.5),
        client.read(b"q", deadline_seconds=0.5),
        client.ask("king", b"Arthur", 0.5),
        client.ask("king", None, 0.5),
        client.status(0.5),
    ]
    outcomes = [outcome_of(one) for one in waiting]
    connection = nodes.accept()
    assert len(connection.said()) == 5
    nodes.reactor.spend(0.6)
    kinds = [outcome[0].type for outcome in outcomes if isinstance(outcome[0], Failure)]
    assert kinds == [OutcomeUnknown, NoQuorum, OutcomeUnknown, NoQuorum, NoQuorum]
    connection.answer(1, "late")
    nodes.reactor.spend(10.0)
    assert nodes.reactor.getDelayedCalls() == []


def test_a_deadline_that_is_met_leaves_no_timer(nodes: ManualNodes) -> None:
    outcome, cancelled = outcome_of(nodes.client.submit(b"x", 3.0)), nodes.client.submit(b"y", 3.0)
    cancelled.addErrback(lambda _: None)
    connection = nodes.accept()
    connection.answer(1, "x")
    cancelled.cancel()
    assert outcome == ["x"]
    nodes.reactor.spend(1.5)  # that of silence
    assert nodes.reactor.getDelayedCalls() == []


def test_a_command_given_up_is_acknowledged_by_later_ones(nodes: ManualNodes) -> None:
    """So it is never applied if it has not been, and nothing is kept for it."""
    gave_up = nodes.client.submit(b"x", 0.5)
    connection = nodes.accept()
    submits(connection)
    nodes.reactor.spend(0.6)
    assert isinstance(error_of(gave_up), OutcomeUnknown)
    nodes.client.submit(b"y")
    (sent,) = submits(connection)
    assert (sent.sequence, sent.acknowledged) == (2, 1)


# --------------------------------------------------------------------- reads


def test_a_query_and_its_answer(nodes: ManualNodes) -> None:
    outcome = outcome_of(nodes.client.read(b"how many?"))
    local = outcome_of(nodes.client.read(b"how many?", "local"))
    connection = nodes.accept()
    assert connection.said() == [Read(1, b"how many?", False), Read(2, b"how many?", True)]
    connection.say(ReadAnswer(2, 40, msgspec.msgpack.encode(3)), ReadAnswer(1, 42, msgspec.msgpack.encode([5])))
    assert outcome == [Reading([5], 42)]
    assert local == [Reading(3, 40)]


def test_a_query_that_fails(nodes: ManualNodes) -> None:
    waiting = nodes.client.read(b"!")
    nodes.accept().say(Refused(1, "QueryFailed", "ValueError: no"))
    assert isinstance(error_of(waiting), QueryFailed)


def test_a_query_is_asked_again_elsewhere(nodes: ManualNodes) -> None:
    outcome = outcome_of(nodes.client.read(b"q"))
    nodes.accept().break_off()
    nodes.wait_for_call()
    connection = nodes.accept()
    assert connection.said() == [Read(1, b"q", False)]
    connection.say(ReadAnswer(1, 9, b"\xc0"))
    assert outcome == [Reading(None, 9)]


def test_what_is_no_query(nodes: ManualNodes) -> None:
    assert isinstance(error_of(nodes.client.read(bytes(COMMAND_BYTES_MAX + 1))), ValueTooLarge)
    consistency: Any = "eventual"
    with pytest.raises(ValueError, match="'linearizable' and 'local'"):
        nodes.client.read(b"q", consistency)


# -------------------------------------------------------------------- limits


def test_bytes_that_wait_are_limited(nodes: ManualNodes) -> None:
    count = PENDING_BYTES_MAX // COMMAND_BYTES_MAX
    payload = bytes(COMMAND_BYTES_MAX)
    for _ in range(count):
        nodes.client.submit(payload)
    assert isinstance(error_of(nodes.client.submit(b"x")), Overloaded)
    assert isinstance(error_of(nodes.client.read(b"x")), Overloaded)
    connection = nodes.accept()
    connection.answer(1, None)
    assert not nodes.client.submit(payload).called


def test_commands_do_not_run_far_ahead_of_one_without_an_answer(nodes: ManualNodes) -> None:
    """Its node would have to remember the outcomes of all of them."""
    nodes.client.submit(b"first")
    connection = nodes.accept()
    for number in range(2, REQUESTS_MAX + 1):
        nodes.client.submit(b"x")
        connection.answer(number, None)
    assert isinstance(error_of(nodes.client.submit(b"x")), Overloaded)
    assert not nodes.client.read(b"q").called
    connection.answer(1, None)
    assert not nodes.client.submit(b"x").called


def test_overloaded_after_another_node_had_it_is_unknown(nodes: ManualNodes) -> None:
    """The first node may have passed it on."""
    waiting = nodes.client.submit(b"x")
    nodes.accept().break_off()
    nodes.wait_for_call()
    nodes.accept().say(Refused(1, "Overloaded", "full"))
    assert isinstance(error_of(waiting), OutcomeUnknown)
