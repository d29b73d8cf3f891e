"""What a client submits within one turn of its reactor goes as one run, and stays right whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.fake_nodes import Line, Street, other_than
from test.helpers.fakes import error_of, outcome_of
from txpaxos.client.pending import REQUESTS_MAX
from txpaxos.errors import CommandFailed, NotChosen, OutcomeUnknown, Overloaded, SessionExpired
from txpaxos.wire.client_messages import Read, Refused, StatusRequest, Submit
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS, Run


@pytest.fixture
def street() -> Street:
    return Street()


def submit(street: Street, *commands: bytes) -> list[list[Any]]:
    """What each comes to, in the end."""
    return [outcome_of(street.client.submit(command)) for command in commands]


def session_of(street: Street) -> bytes:
    assert street.client.session is not None
    return street.client.session


# ------------------------------------------------------------- what goes together


def test_what_is_submitted_in_one_turn_is_one_message(street: Street) -> None:
    submit(street, b"x")
    line = street.accept()
    assert line.submitted() == [(session_of(street), 1, b"x")]
    line.answer(1, "x")
    outcomes = submit(street, b"y", b"z", b"w")
    assert line.transport.messages() == []  # the turn is not over
    assert line.said() == [Submit(2, session_of(street), 2, 1, (b"y", b"z", b"w"))]
    submit(street, b"next turn")
    assert line.said() == [Submit(5, session_of(street), 5, 1, (b"next turn",))]
    line.answer(2, "y", "z", "w")
    assert outcomes == [["y"], ["z"], ["w"]]


def test_what_waited_for_a_node_is_one_message(street: Street) -> None:
    """However many turns it waited."""
    for command in (b"x", b"y", b"z"):
        submit(street, command)
        street.reactor.turn()
    assert street.accept().said() == [Submit(1, session_of(street), 1, 0, (b"x", b"y", b"z"))]


def test_a_read_between_two_commands_stays_between_them(street: Street) -> None:
    submit(street, b"x", b"y")
    street.client.read(b"q")
    submit(street, b"z")
    line = street.accept()
    session = session_of(street)
    assert line.said() == [
        Submit(1, session, 1, 0, (b"x", b"y")),
        Read(3, b"q", False),
        Submit(4, session, 3, 0, (b"z",)),
    ]
    line.answer(1, None, None)
    street.client.status()
    submit(street, b"w")
    assert line.said() == [StatusRequest(5), Submit(6, session, 4, 2, (b"w",))]


def test_commands_of_a_run_are_limited(street: Street) -> None:
    submit(street, *[b"%d" % number for number in range(2 * RUN_COMMANDS + 1)])
    runs = street.accept().runs()
    assert [(one.request, one.sequence, len(one.commands)) for one in runs] == [
        (1, 1, RUN_COMMANDS),
        (RUN_COMMANDS + 1, RUN_COMMANDS + 1, RUN_COMMANDS),
        (2 * RUN_COMMANDS + 1, 2 * RUN_COMMANDS + 1, 1),
    ]
    assert [command for one in runs for command in one.commands] == [
        b"%d" % number for number in range(2 * RUN_COMMANDS + 1)
    ]


def test_bytes_of_a_run_are_limited(street: Street) -> None:
    """One that is bigger than a run may be is a run by itself."""
    half, big = bytes(RUN_BYTES // 2), bytes(RUN_BYTES + 1)
    submit(street, half, half, b"x", big, b"y", half, half)
    runs = street.accept().runs()
    assert [one.commands for one in runs] == [(half, half), (b"x",), (big,), (b"y", half), (half,)]
    assert [one.sequence for one in runs] == [1, 3, 4, 5, 7]


def test_one_that_is_cancelled_in_the_turn_leaves_a_hole(street: Street) -> None:
    submit(street, b"first")
    line = street.accept()
    line.answer(1, None)
    line.said()
    before = submit(street, b"x")
    gave_up = street.client.submit(b"y")
    after = submit(street, b"z", b"w")
    gave_up.addErrback(lambda _: None)
    gave_up.cancel()
    session = session_of(street)
    assert line.said() == [Submit(2, session, 2, 1, (b"x",)), Submit(4, session, 4, 1, (b"z", b"w"))]
    line.answer(4, "z", "w")
    assert after == [["z"], ["w"]]
    submit(street, b"v")
    assert [one.acknowledged for one in line.runs()] == [1]  # held below x, which has no answer
    line.answer(2, "x")
    assert before == [["x"]]
    submit(street, b"u")
    assert [one.acknowledged for one in line.runs()] == [5]  # v waits, y was given up


# ------------------------------------------------------------- what is held


@pytest.fixture
def busy(street: Street) -> Line:
    """A connection on which as many runs are under way as may be: commands 1 and 2, then 3."""
    submit(street, b"a", b"b")
    line = street.accept()
    line.said()
    submit(street, b"c")
    line.said()
    submit(street, b"d")
    street.reactor.turn()
    submit(street, b"e")
    assert line.said() == []
    return line


def test_while_two_runs_are_under_way_commands_are_collected(street: Street, busy: Line) -> None:
    busy.answer(3, None)
    assert busy.said() == [Submit(4, session_of(street), 4, 0, (b"d", b"e"))]
    submit(street, b"f")
    assert busy.said() == []
    busy.answer(1, None, None)
    assert busy.said() == [Submit(6, session_of(street), 6, 3, (b"f",))]


def test_a_read_is_not_held(street: Street, busy: Line) -> None:
    street.client.read(b"q")
    assert busy.said() == [Read(6, b"q", False)]
    busy.answer(3, None)
    assert busy.said() == [Submit(4, session_of(street), 4, 0, (b"d", b"e"))]


def test_reads_do_not_fill_the_run_that_is_held(street: Street, busy: Line) -> None:
    street.client.read(bytes(RUN_BYTES))
    assert busy.said() == [Read(6, bytes(RUN_BYTES), False)]
    submit(street, b"f")
    assert busy.said() == []
    busy.answer(3, None)
    assert [run.commands for run in busy.runs()] == [(b"d", b"e"), (b"f",)]


def test_a_full_run_is_not_held(street: Street, busy: Line) -> None:
    submit(street, *[b"x"] * (RUN_COMMANDS - 2))
    (full,) = busy.runs()
    assert len(full.commands) == RUN_COMMANDS
    submit(street, bytes(RUN_BYTES))
    assert [len(run.commands) for run in busy.runs()] == [1]


def test_what_is_held_goes_when_a_command_under_way_is_given_up(street: Street, busy: Line) -> None:
    gave_up = street.client.submit(b"f")
    busy.answer(3, None)
    assert [run.commands for run in busy.runs()] == [(b"d", b"e", b"f")]
    submit(street, b"g")
    assert busy.said() == []
    gave_up.addErrback(lambda _: None)
    gave_up.cancel()
    assert [run.commands for run in busy.runs()] == [(b"g",)]


def test_what_is_held_was_never_sent(street: Street, busy: Line) -> None:
    held = street.client.submit(b"f", deadline_seconds=1.0)
    street.reactor.advance(1.0)
    assert isinstance(error_of(held), NotChosen)


def test_without_a_connection_nothing_goes(street: Street, busy: Line) -> None:
    """Not even what was held when it broke, for a command that is given up."""
    gave_up = street.client.submit(b"f")
    gave_up.addErrback(lambda _: None)
    busy.answer(3, None)
    busy.said()
    submit(street, b"g")
    street.reactor.turn()
    busy.break_off()
    gave_up.cancel()
    street.reactor.turn()
    street.wait_for_call()
    assert [run.commands for run in street.accept().runs()] == [(b"a", b"b"), (b"d", b"e"), (b"g",)]


def test_on_a_new_connection_nothing_is_held(street: Street, busy: Line) -> None:
    busy.break_off()
    street.wait_for_call()
    assert [run.commands for run in street.accept().runs()] == [(b"a", b"b", b"c"), (b"d", b"e")]


# ------------------------------------------------------------------------ answers


def test_a_run_may_be_answered_in_parts(street: Street) -> None:
    outcomes = submit(street, b"1", b"2", b"3", b"4")
    line = street.accept()
    line.answer(3, "three")
    assert outcomes == [[], [], ["three"], []]
    line.answer(1, "one", "two", "too late for three")
    assert outcomes == [["one"], ["two"], ["three"], []]
    submit(street, b"5")
    assert [(one.sequence, one.acknowledged) for one in line.runs()][-1] == (5, 3)
    line.answer(4, "four")
    assert outcomes[3] == ["four"]


def test_a_run_may_be_refused_in_parts(street: Street) -> None:
    waiting = [street.client.submit(command) for command in (b"1", b"2", b"3", b"4")]
    line = street.accept()
    line.say(Refused(2, "CommandFailed", "no", 2))
    for one in waiting[1:3]:
        assert isinstance(error_of(one), CommandFailed)
    line.answer(4, "four")
    line.answer(1, "one")
    assert [outcome_of(one) for one in (waiting[0], waiting[3])] == [["one"], ["four"]]


def test_a_run_of_a_forgotten_session_is_refused_whole(street: Street) -> None:
    waiting = [street.client.submit(command) for command in (b"1", b"2", b"3")]
    line = street.accept()
    first = session_of(street)
    line.welcome(line.node, applied_through=500)
    line.say(Refused(1, "SessionExpired", "forgotten", 3))
    assert all(isinstance(error_of(one), SessionExpired) for one in waiting)
    line.said()
    submit(street, b"4", b"5")
    (sent,) = line.runs()
    assert sent == Submit(4, session_of(street), 4, 3, (b"4", b"5"))
    assert sent.session != first


@pytest.mark.parametrize("count", [4, 5, 2**40, 2**64 - 1])
def test_a_refusal_of_more_than_was_asked(street: Street, count: int) -> None:
    """It takes no longer than one of all that a client may ask for."""
    waiting = [street.client.submit(command) for command in (b"1", b"2", b"3")]
    line = street.accept()
    line.say(Refused(1, "Overloaded", "full", count))
    assert all(isinstance(error_of(one), Overloaded) for one in waiting)
    assert not line.transport.disconnected
    outcomes = submit(street, b"4")
    line.answer(4, "four")
    assert outcomes == [["four"]]


def test_a_refusal_of_all_that_a_client_may_ask_for(street: Street) -> None:
    waiting = [street.client.submit(b"x") for _ in range(REQUESTS_MAX)]
    street.accept().say(Refused(1, "Overloaded", "full", REQUESTS_MAX))
    assert all(isinstance(error_of(one), Overloaded) for one in waiting)


def test_a_refusal_of_none(street: Street) -> None:
    outcomes = submit(street, b"x")
    street.accept().say(Refused(1, "Overloaded", "full", 0))
    assert outcomes == [[]]


# ------------------------------------------------------------------ sending again


def test_what_is_sent_again_keeps_its_name_though_not_its_run() -> None:
    """What was sent before and what was not are runs of their own, so that each first sending is told once."""
    told: list[Run] = []
    street = Street(sending=told.append)
    outcomes = submit(street, b"1", b"2", b"3", b"4", b"5")
    line = street.accept()
    session = session_of(street)
    assert line.said() == [Submit(1, session, 1, 0, (b"1", b"2", b"3", b"4", b"5"))]
    line.answer(2, "two")
    line.break_off()
    outcomes += submit(street, b"6", b"7")
    street.wait_for_call()
    again = street.accept()
    assert again.said() == [
        Submit(1, session, 1, 0, (b"1",)),
        Submit(3, session, 3, 0, (b"3", b"4", b"5")),
        Submit(6, session, 6, 0, (b"6", b"7")),
    ]
    assert told == [Run(session, 1, 0, (b"1", b"2", b"3", b"4", b"5")), Run(session, 6, 0, (b"6", b"7"))]
    again.answer(1, "one")
    again.break_off()
    street.wait_for_call()
    last = street.accept()
    assert last.said() == [Submit(3, session, 3, 2, (b"3", b"4", b"5", b"6", b"7"))]
    last.answer(3, "three", "four", "five", "six", "seven")
    assert outcomes == [["one"], ["two"], ["three"], ["four"], ["five"], ["six"], ["seven"]]
    assert len(told) == 2


def test_of_a_refused_run_only_what_was_sent_once_is_surely_not_applied(street: Street) -> None:
    waiting = [street.client.submit(command) for command in (b"1", b"2")]
    street.accept().break_off()
    waiting += [street.client.submit(command) for command in (b"3", b"4")]
    street.wait_for_call()
    street.accept().say(Refused(1, "Overloaded", "full", 4))
    assert [type(error_of(one)) for one in waiting] == [OutcomeUnknown, OutcomeUnknown, Overloaded, Overloaded]


# ----------------------------------------------- a turn in which much else happens


def test_the_connection_is_lost_before_the_turn_is_over(street: Street) -> None:
    submit(street, b"x")
    line = street.accept()
    line.answer(1, None)
    line.said()
    outcomes = submit(street, b"y", b"z")
    line.break_off()
    street.wait_for_call()
    assert line.said() == []
    again = street.accept()
    assert again.said() == [Submit(2, session_of(street), 2, 1, (b"y", b"z"))]
    again.answer(2, "y", "z")
    assert outcomes == [["y"], ["z"]]


def test_the_client_is_closed_before_the_turn_is_over(street: Street) -> None:
    sent = street.client.submit(b"x")
    line = street.accept()
    line.said()
    waiting = [street.client.submit(command) for command in (b"y", b"z")]
    street.client.close()
    assert line.said() == []
    assert isinstance(error_of(sent), OutcomeUnknown)
    assert all(isinstance(error_of(one), NotChosen) for one in waiting)  # nobody can have seen them
    assert street.reactor.getDelayedCalls() == []


def test_the_leader_changes_before_the_turn_is_over(street: Street) -> None:
    submit(street, b"x")
    line = street.accept()
    line.answer(1, None)
    line.said()
    submit(street, b"y", b"z")
    leader = other_than(line.node)
    line.welcome(leader)
    submit(street, b"w")
    assert line.said() == []
    assert street.calls[-1] == leader
    assert street.accept().said() == [Submit(2, session_of(street), 2, 1, (b"y", b"z", b"w"))]


def test_all_is_answered_or_given_up_before_the_turn_is_over(street: Street) -> None:
    submit(street, b"x")
    line = street.accept()
    line.said()
    gave_up = street.client.submit(b"y").addErrback(lambda _: None)
    gave_up.cancel()
    assert line.said() == []
    assert len(street.calls) == 1


def test_who_submits_when_an_answer_comes_waits_for_the_end_of_the_turn(street: Street) -> None:
    first, second = street.client.submit(b"x"), street.client.submit(b"y")
    first.addCallback(lambda _: street.client.submit(b"z"))
    second.addCallback(lambda _: street.client.submit(b"w"))
    line = street.accept()
    line.said()
    line.answer(1, "x", "y")
    assert line.transport.messages() == []
    assert line.said() == [Submit(3, session_of(street), 3, 2, (b"z", b"w"))]


def test_a_node_that_does_not_greet_is_left_though_nobody_waited_when_it_took_the_call(street: Street) -> None:
    gave_up = street.client.submit(b"x").addErrback(lambda _: None)
    gave_up.cancel()
    line = street.pick_up()
    street.reactor.spend(60.0)
    outcomes = submit(street, b"y")
    assert line.said() == []
    street.wait_for_call(0.5)
    other = street.accept()
    assert line.transport.disconnecting
    assert other.node != line.node
    other.answer(2, "y")
    assert outcomes == [["y"]]
