"""A client's session, its deadlines, its reads, and how long it is patient with whom."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from twisted.python.failure import Failure

from test.helpers.fake_nodes import Line, Street, other_than
from test.helpers.fakes import error_of, outcome_of
from txpaxos.client.dispatcher import WELCOME_SECONDS_MAX
from txpaxos.client.pending import PENDING_BYTES_MAX, REQUESTS_MAX
from txpaxos.errors import NoQuorum, NotChosen, OutcomeUnknown, Overloaded, QueryFailed, SessionExpired, ValueTooLarge
from txpaxos.reading import Reading
from txpaxos.wire.client_messages import Ask, Read, ReadAnswer, Refused, StatusAnswer, Submit
from txpaxos.wire.commands import COMMAND_BYTES_MAX, Run, session_created_at_slot


@pytest.fixture
def street() -> Street:
    return Street()


def submits(line: Line) -> list[Submit]:
    return line.runs()


# ------------------------------------------------------------------ sessions


def test_nothing_is_sent_before_the_welcome(street: Street) -> None:
    street.client.submit(b"x")
    street.client.ask("king", b"Arthur")
    line = street.pick_up()
    street.client.submit(b"y")
    assert line.said() == []
    assert street.client.session is None
    line.welcome(line.node, applied_through=77)
    assert [type(one) for one in line.said()] == [Submit, Ask, Submit]
    assert street.client.session is not None
    assert session_created_at_slot(street.client.session) == 77


def test_a_follower_that_names_the_leader_is_sent_nothing(street: Street) -> None:
    street.client.submit(b"x")
    line = street.pick_up()
    line.welcome(other_than(line.node))
    assert line.said() == []
    assert len(submits(street.accept())) == 1


def test_sessions_of_two_clients_differ() -> None:
    sessions = set()
    for seed in (1, 2):
        street = Street(seed=seed)
        street.client.submit(b"x")
        (sent,) = submits(street.accept())
        sessions.add(sent.session)
    assert len(sessions) == 2


def test_a_question_makes_no_session(street: Street) -> None:
    street.client.ask("king")
    street.client.read(b"x")
    street.accept()
    assert street.client.session is None


def test_a_forgotten_session_is_replaced(street: Street) -> None:
    """What was in work in it fails; what comes later goes into a new one, made at the slot told last."""
    client = street.client
    outcomes = [outcome_of(client.submit(b"x")), outcome_of(client.submit(b"y"))]
    reads = outcome_of(client.read(b"q"))
    line = street.accept()
    first = submits(line)[0].session
    line.welcome(line.node, applied_through=500)
    line.say(Refused(1, "SessionExpired", "forgotten"))
    for (outcome,) in outcomes:
        assert isinstance(outcome, Failure)
        assert isinstance(outcome.value, SessionExpired)
        assert isinstance(outcome.value, OutcomeUnknown)
        assert str(outcome.value) == "forgotten"
    assert reads == []
    later = outcome_of(client.submit(b"z"))
    (sent,) = submits(line)
    assert sent.session != first
    assert session_created_at_slot(sent.session) == 500
    assert (sent.sequence, sent.acknowledged) == (3, 2)
    line.say(Refused(2, "SessionExpired", "forgotten"))  # of the old one
    line.answer(4, "z")
    assert later == ["z"]
    assert client.session == sent.session


def test_a_welcome_of_long_ago_is_asked_for_anew(street: Street) -> None:
    """A session made at a slot of last week might count as forgotten already."""
    street.client.status()
    line = street.accept()
    line.welcome(line.node, applied_through=5)
    line.say(StatusAnswer(1, b"{}"))
    street.reactor.spend(WELCOME_SECONDS_MAX + 1)
    street.client.submit(b"x")
    assert submits(line) == []
    assert line.transport.disconnecting
    again = street.pick_up()
    assert again.node == line.node
    again.welcome(again.node, applied_through=9000)
    (sent,) = submits(again)
    assert session_created_at_slot(sent.session) == 9000
    again.answer(2, None)
    street.reactor.spend(0.5)
    street.client.submit(b"y")
    assert len(submits(again)) == 1
    assert len(street.calls) == 2


def test_whoever_looks_on_is_told_of_each_command_once() -> None:
    told: list[Run] = []
    street = Street(sending=told.append)
    street.client.submit(b"x")
    street.client.submit(b"y")
    assert told == []
    line = street.accept()
    (sent,) = submits(line)
    line.answer(1, None)
    line.break_off()
    street.wait_for_call()
    assert submits(street.accept()) == [Submit(2, sent.session, 2, 1, (b"y",))]
    assert told == [Run(sent.session, 1, 0, (b"x", b"y"))]


# ----------------------------------------------------------------- deadlines


def test_a_deadline_before_anything_was_sent(street: Street) -> None:
    client = street.client
    waiting = [
        client.submit(b"x", 3.0),
        client.read(b"q", deadline_seconds=3.0),
        client.read(b"q", "local", 3.0),
        client.ask("king", b"Arthur", 3.0),
        client.status(3.0),
    ]
    outcomes = [outcome_of(one) for one in waiting]
    street.pick_up()
    street.reactor.spend(2.9)
    assert not any(outcomes)
    street.reactor.spend(0.2)
    kinds = [outcome[0].type for outcome in outcomes if isinstance(outcome[0], Failure)]
    assert kinds == [NotChosen, NoQuorum, NoQuorum, NoQuorum, NoQuorum]


def test_a_deadline_after_it_was_sent(street: Street) -> None:
    client = street.client
    kinds = []
    waiting = [
        client.submit(b"x", 0.5),
        client.read(b"q", deadline_seconds=0.5),
        client.ask("king", b"Arthur", 0.5),
        client.ask("king", None, 0.5),
        client.status(0.5),
    ]
    outcomes = [outcome_of(one) for one in waiting]
    line = street.accept()
    assert len(line.said()) == 5
    street.reactor.spend(0.6)
    kinds = [outcome[0].type for outcome in outcomes if isinstance(outcome[0], Failure)]
    assert kinds == [OutcomeUnknown, NoQuorum, OutcomeUnknown, NoQuorum, NoQuorum]
    line.answer(1, "late")
    street.reactor.spend(10.0)
    assert street.reactor.getDelayedCalls() == []


def test_a_deadline_that_is_met_leaves_no_timer(street: Street) -> None:
    outcome, cancelled = outcome_of(street.client.submit(b"x", 3.0)), street.client.submit(b"y", 3.0)
    cancelled.addErrback(lambda _: None)
    line = street.accept()
    line.answer(1, "x")
    cancelled.cancel()
    assert outcome == ["x"]
    street.reactor.spend(1.5)  # that of silence
    assert street.reactor.getDelayedCalls() == []


def test_a_command_given_up_is_acknowledged_by_later_ones(street: Street) -> None:
    """So it is never applied if it has not been, and nothing is kept for it."""
    gave_up = street.client.submit(b"x", 0.5)
    line = street.accept()
    submits(line)
    street.reactor.spend(0.6)
    assert isinstance(error_of(gave_up), OutcomeUnknown)
    street.client.submit(b"y")
    (sent,) = submits(line)
    assert (sent.sequence, sent.acknowledged) == (2, 1)


# --------------------------------------------------------------------- reads


def test_a_query_and_its_answer(street: Street) -> None:
    outcome = outcome_of(street.client.read(b"how many?"))
    local = outcome_of(street.client.read(b"how many?", "local"))
    line = street.accept()
    assert line.said() == [Read(1, b"how many?", False), Read(2, b"how many?", True)]
    line.say(ReadAnswer(2, 40, msgspec.msgpack.encode(3)), ReadAnswer(1, 42, msgspec.msgpack.encode([5])))
    assert outcome == [Reading([5], 42)]
    assert local == [Reading(3, 40)]


def test_a_query_that_fails(street: Street) -> None:
    waiting = street.client.read(b"!")
    street.accept().say(Refused(1, "QueryFailed", "ValueError: no"))
    assert isinstance(error_of(waiting), QueryFailed)


def test_a_query_is_asked_again_elsewhere(street: Street) -> None:
    outcome = outcome_of(street.client.read(b"q"))
    street.accept().break_off()
    street.wait_for_call()
    line = street.accept()
    assert line.said() == [Read(1, b"q", False)]
    line.say(ReadAnswer(1, 9, b"\xc0"))
    assert outcome == [Reading(None, 9)]


def test_what_is_no_query(street: Street) -> None:
    assert isinstance(error_of(street.client.read(bytes(COMMAND_BYTES_MAX + 1))), ValueTooLarge)
    consistency: Any = "eventual"
    with pytest.raises(ValueError, match="'linearizable' and 'local'"):
        street.client.read(b"q", consistency)


# -------------------------------------------------------------------- limits


def test_bytes_that_wait_are_limited(street: Street) -> None:
    count = PENDING_BYTES_MAX // COMMAND_BYTES_MAX
    payload = bytes(COMMAND_BYTES_MAX)
    for _ in range(count):
        street.client.submit(payload)
    assert isinstance(error_of(street.client.submit(b"x")), Overloaded)
    assert isinstance(error_of(street.client.read(b"x")), Overloaded)
    line = street.accept()
    line.answer(1, None)
    assert not street.client.submit(payload).called


def test_commands_do_not_run_far_ahead_of_one_without_an_answer(street: Street) -> None:
    """Its node would have to remember the outcomes of all of them."""
    street.client.submit(b"first")
    line = street.accept()
    for number in range(2, REQUESTS_MAX + 1):
        street.client.submit(b"x")
        line.answer(number, None)
    assert isinstance(error_of(street.client.submit(b"x")), Overloaded)
    assert not street.client.read(b"q").called
    line.answer(1, None)
    assert not street.client.submit(b"x").called


def test_overloaded_after_another_node_had_it_is_unknown(street: Street) -> None:
    """The first node may have passed it on."""
    waiting = street.client.submit(b"x")
    street.accept().break_off()
    street.wait_for_call()
    street.accept().say(Refused(1, "Overloaded", "full"))
    assert isinstance(error_of(waiting), OutcomeUnknown)
