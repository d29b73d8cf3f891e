"""What a client submits within one turn of its reactor goes as one run, and stays right whatever becomes of it."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.fake_nodes import FakeConnection, ManualNodes, other_than
from test.helpers.fakes import error_of, outcome_of
from txpaxos.client.pending import REQUESTS_MAX
from txpaxos.errors import CommandFailed, NotChosen, OutcomeUnknown, Overloaded, SessionExpired
from txpaxos.wire.client_messages import Read, Refused, StatusRequest, Submit
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS, Run


@pytest.fixture
def nodes() -> ManualNodes:
    return ManualNodes()


def submit(nodes: ManualNodes, *commands: bytes) -> list[list[Any]]:
    """What each comes to, in the end."""
    return [outcome_of(nodes.client.submit(command)) for command in commands]


def session_of(nodes: ManualNodes) -> bytes:
    assert nodes.client.session is not None
    return nodes.client.session


# ------------------------------------------------------------- what goes together


def test_what_is_submitted_in_one_turn_is_one_message(nodes: ManualNodes) -> None:
    submit(nodes, b"x")
    connection = nodes.accept()
    assert connection.submitted() == [(session_of(nodes), 1, b"x")]
    connection.answer(1, "x")
    outcomes = submit(nodes, b"y", b"z", b"w")
    assert connection.transport.messages() == []  # the turn is not over
    assert connection.said() == [Submit(2, session_of(nodes), 2, 1, (b"y", b"z", b"w"))]
    submit(nodes, b"next turn")
    assert connection.said() == [Submit(5, session_of(nodes), 5, 1, (b"next turn",))]
    connection.answer(2, "y", "z", "w")
    assert outcomes == [["y"], ["z"], ["w"]]


def test_what_waited_for_a_node_is_one_message(nodes: ManualNodes) -> None:
    """However many turns it waited."""
    for command in (b"x", b"y", b"z"):
        submit(nodes, command)
        nodes.reactor.turn()
    assert nodes.accept().said() == [Submit(1, session_of(nodes), 1, 0, (b"x", b"y", b"z"))]


def test_a_read_between_two_commands_stays_between_them(nodes: ManualNodes) -> None:
    submit(nodes, b"x", b"y")
    nodes.client.read(b"q")
    submit(nodes, b"z")
    connection = nodes.accept()
    session = session_of(nodes)
    assert connection.said() == [
        Submit(1, session, 1, 0, (b"x", b"y")),
        Read(3, b"q", False),
        Submit(4, session, 3, 0, (b"z",)),
    ]
    connection.answer(1, None, None)
    nodes.client.status()
    submit(nodes, b"w")
    assert connection.said() == [StatusRequest(5), Submit(6, session, 4, 2, (b"w",))]


def test_commands_of_a_run_are_limited(nodes: ManualNodes) -> None:
    submit(nodes, *[b"%d" % number for number in range(2 * RUN_COMMANDS + 1)])
    runs = nodes.accept().runs()
    assert [(one.request, one.sequence, len(one.commands)) for one in runs] == [
        (1, 1, RUN_COMMANDS),
        (RUN_COMMANDS + 1, RUN_COMMANDS + 1, RUN_COMMANDS),
        (2 * RUN_COMMANDS + 1, 2 * RUN_COMMANDS + 1, 1),
    ]
    assert [command for one in runs for command in one.commands] == [
        b"%d" % number for number in range(2 * RUN_COMMANDS + 1)
    ]


def test_bytes_of_a_run_are_limited(nodes: ManualNodes) -> None:
    """One that is bigger than a run may be is a run by itself."""
    half, big = bytes(RUN_BYTES // 2), bytes(RUN_BYTES + 1)
    submit(nodes, half, half, b"x", big, b"y", half, half)
    runs = nodes.accept().runs()
    assert [one.commands for one in runs] == [(half, half), (b"x",), (big,), (b"y", half), (half,)]
    assert [one.sequence for one in runs] == [1, 3, 4, 5, 7]


def test_one_that_is_cancelled_in_the_turn_leaves_a_hole(nodes: ManualNodes) -> None:
    submit(nodes, b"first")
    connection = nodes.accept()
    connection.answer(1, None)
    connection.said()
    before = submit(nodes, b"x")
    gave_up = nodes.client.submit(b"y")
    after = submit(nodes, b"z", b"w")
    gave_up.addErrback(lambda _: None)
    gave_up.cancel()
    session = session_of(nodes)
    assert connection.said() == [Submit(2, session, 2, 1, (b"x",)), Submit(4, session, 4, 1, (b"z", b"w"))]
    connection.answer(4, "z", "w")
    assert after == [["z"], ["w"]]
    submit(nodes, b"v")
    assert [one.acknowledged for one in connection.runs()] == [1]  # held below x, which has no answer
    connection.answer(2, "x")
    assert before == [["x"]]
    submit(nodes, b"u")
    assert [one.acknowledged for one in connection.runs()] == [5]  # v waits, y was given up


# ------------------------------------------------------------- what is held


@pytest.fixture
def busy(nodes: ManualNodes) -> FakeConnection:
    """A connection on which as many runs are under way as may be: commands 1 and 2, then 3."""
    submit(nodes, b"a", b"b")
    connection = nodes.accept()
    connection.said()
    submit(nodes, b"c")
    connection.said()
    submit(nodes, b"d")
    nodes.reactor.turn()
    submit(nodes, b"e")
    assert connection.said() == []
    return connection


def test_while_two_runs_are_under_way_commands_are_collected(nodes: ManualNodes, busy: FakeConnection) -> None:
    busy.answer(3, None)
    assert busy.said() == [Submit(4, session_of(nodes), 4, 0, (b"d", b"e"))]
    submit(nodes, b"f")
    assert busy.said() == []
    busy.answer(1, None, None)
    assert busy.said() == [Submit(6, session_of(nodes), 6, 3, (b"f",))]


def test_a_read_is_not_held(nodes: ManualNodes, busy: FakeConnection) -> None:
    nodes.client.read(b"q")
    assert busy.said() == [Read(6, b"q", False)]
    busy.answer(3, None)
    assert busy.said() == [Submit(4, session_of(nodes), 4, 0, (b"d", b"e"))]


def test_reads_do_not_fill_the_run_that_is_held(nodes: ManualNodes, busy: FakeConnection) -> None:
    nodes.client.read(bytes(RUN_BYTES))
    assert busy.said() == [Read(6, bytes(RUN_BYTES), False)]
    submit(nodes, b"f")
    assert busy.said() == []
    busy.answer(3, None)
    assert [run.commands for run in busy.runs()] == [(b"d", b"e"), (b"f",)]


def test_a_full_run_is_not_held(nodes: ManualNodes, busy: FakeConnection) -> None:
    submit(nodes, *[b"x"] * (RUN_COMMANDS - 2))
    (full,) = busy.runs()
    assert len(full.commands) == RUN_COMMANDS
    submit(nodes, bytes(RUN_BYTES))
    assert [len(run.commands) for run in busy.runs()] == [1]


def test_what_is_held_goes_when_a_command_under_way_is_given_up(nodes: ManualNodes, busy: FakeConnection) -> None:
    gave_up = nodes.client.submit(b"f")
    busy.answer(3, None)
    assert [run.commands for run in busy.runs()] == [(b"d", b"e", b"f")]
    submit(nodes, b"g")
    assert busy.said() == []
    gave_up.addErrback(lambda _: None)
    gave_up.cancel()
    assert [run.commands for run in busy.runs()] == [(b"g",)]


def test_what_is_held_was_never_sent(nodes: ManualNodes, busy: FakeConnection) -> None:
    held = nodes.client.submit(b"f", deadline_seconds=1.0)
    nodes.reactor.advance(1.0)
    assert isinstance(error_of(held), NotChosen)


def test_without_a_connection_nothing_goes(nodes: ManualNodes, busy: FakeConnection) -> None:
    """Not even what was held when it broke, for a command that is given up."""
    gave_up = nodes.client.submit(b"f")
    gave_up.addErrback(lambda _: None)
    busy.answer(3, None)
    busy.said()
    submit(nodes, b"g")
    nodes.reactor.turn()
    busy.break_off()
    gave_up.cancel()
    nodes.reactor.turn()
    nodes.wait_for_call()
    assert [run.commands for run in nodes.accept().runs()] == [(b"a", b"b"), (b"d", b"e"), (b"g",)]


def test_on_a_new_connection_nothing_is_held(nodes: ManualNodes, busy: FakeConnection) -> None:
    busy.break_off()
    nodes.wait_for_call()
    assert [run.commands for run in nodes.accept().runs()] == [(b"a", b"b", b"c"), (b"d", b"e")]


# ------------------------------------------------------------------------ answers


def test_a_run_may_be_answered_in_parts(nodes: ManualNodes) -> None:
    outcomes = submit(nodes, b"1", b"2", b"3", b"4")
    connection = nodes.accept()
    connection.answer(3, "three")
    assert outcomes == [[], [], ["three"], []]
    connection.answer(1, "one", "two", "too late for three")
    assert outcomes == [["one"], ["two"], ["three"], []]
    submit(nodes, b"5")
    assert [(one.sequence, one.acknowledged) for one in connection.runs()][-1] == (5, 3)
    connection.answer(4, "four")
    assert outcomes[3] == ["four"]


def test_a_run_may_be_refused_in_parts(nodes: ManualNodes) -> None:
    waiting = [nodes.client.submit(command) for command in (b"1", b"2", b"3", b"4")]
    connection = nodes.accept()
    connection.say(Refused(2, "CommandFailed", "no", 2))
    for one in waiting[1:3]:
        assert isinstance(error_of(one), CommandFailed)
    connection.answer(4, "four")
    connection.answer(1, "one")
    assert [outcome_of(one) for one in (waiting[0], waiting[3])] == [["one"], ["four"]]


def test_a_run_of_a_forgotten_session_is_refused_whole(nodes: ManualNodes) -> None:
    waiting = [nodes.client.submit(command) for command in (b"1", b"2", b"3")]
    connection = nodes.accept()
    first = session_of(nodes)
    connection.welcome(connection.node, applied_through=500)
    connection.say(Refused(1, "SessionExpired", "forgotten", 3))
    assert all(isinstance(error_of(one), SessionExpired) for one in waiting)
    connection.said()
    submit(nodes, b"4", b"5")
    (sent,) = connection.runs()
    assert sent == Submit(4, session_of(nodes), 4, 3, (b"4", b"5"))
    assert sent.session != first


@pytest.mark.parametrize("count", [4, 5, 2**40, 2**64 - 1])
def test_a_refusal_of_more_than_was_asked(nodes: ManualNodes, count: int) -> None:
    """It takes no longer than one of all that a client may ask for."""
    waiting = [nodes.client.submit(command) for command in (b"1", b"2", b"3")]
    connection = nodes.accept()
    connection.say(Refused(1, "Overloaded", "full", count))
    assert all(isinstance(error_of(one), Overloaded) for one in waiting)
    assert not connection.transport.disconnected
    outcomes = submit(nodes, b"4")
    connection.answer(4, "four")
    assert outcomes == [["four"]]


def test_a_refusal_of_all_that_a_client_may_ask_for(nodes: ManualNodes) -> None:
    waiting = [nodes.client.submit(b"x") for _ in range(REQUESTS_MAX)]
    nodes.accept().say(Refused(1, "Overloaded", "full", REQUESTS_MAX))
    assert all(isinstance(error_of(one), Overloaded) for one in waiting)


def test_a_refusal_of_none(nodes: ManualNodes) -> None:
    outcomes = submit(nodes, b"x")
    nodes.accept().say(Refused(1, "Overloaded", "full", 0))
    assert outcomes == [[]]


# ------------------------------------------------------------------ sending again


def test_what_is_sent_again_keeps_its_name_though_not_its_run() -> None:
    """What was sent before and what was not are runs of their own, so that each first sending is told once."""
    told: list[Run] = []
    nodes = ManualNodes(sending=told.append)
    outcomes = submit(nodes, b"1", b"2", b"3", b"4", b"5")
    connection = nodes.accept()
    session = session_of(nodes)
    assert connection.said() == [Submit(1, session, 1, 0, (b"1", b"2", b"3", b"4", b"5"))]
    connection.answer(2, "two")
    connection.break_off()
    outcomes += submit(nodes, b"6", b"7")
    nodes.wait_for_call()
    again = nodes.accept()
    assert again.said() == [
        Submit(1, session, 1, 0, (b"1",)),
        Submit(3, session, 3, 0, (b"3", b"4", b"5")),
        Submit(6, session, 6, 0, (b"6", b"7")),
    ]
    assert told == [Run(session, 1, 0, (b"1", b"2", b"3", b"4", b"5")), Run(session, 6, 0, (b"6", b"7"))]
    again.answer(1, "one")
    again.break_off()
    nodes.wait_for_call()
    last = nodes.accept()
    assert last.said() == [Submit(3, session, 3, 2, (b"3", b"4", b"5", b"6", b"7"))]
    last.answer(3, "three", "four", "five", "six", "seven")
    assert outcomes == [["one"], ["two"], ["three"], ["four"], ["five"], ["six"], ["seven"]]
    assert len(told) == 2


def test_of_a_refused_run_only_what_was_sent_once_is_surely_not_applied(nodes: ManualNodes) -> None:
    waiting = [nodes.client.submit(command) for command in (b"1", b"2")]
    nodes.accept().break_off()
    waiting += [nodes.client.submit(command) for command in (b"3", b"4")]
    nodes.wait_for_call()
    nodes.accept().say(Refused(1, "Overloaded", "full", 4))
    assert [type(error_of(one)) for one in waiting] == [OutcomeUnknown, OutcomeUnknown, Overloaded, Overloaded]


# ----------------------------------------------- a turn in which much else happens


def test_the_connection_is_lost_before_the_turn_is_over(nodes: ManualNodes) -> None:
    submit(nodes, b"x")
    connection = nodes.accept()
    connection.answer(1, None)
    connection.said()
    outcomes = submit(nodes, b"y", b"z")
    connection.break_off()
    nodes.wait_for_call()
    assert connection.said() == []
    again = nodes.accept()
    assert again.said() == [Submit(2, session_of(nodes), 2, 1, (b"y", b"z"))]
    again.answer(2, "y", "z")
    assert outcomes == [["y"], ["z"]]


def test_the_client_is_closed_before_the_turn_is_over(nodes: ManualNodes) -> None:
    sent = nodes.client.submit(b"x")
    connection = nodes.accept()
    connection.said()
    waiting = [nodes.client.submit(command) for command in (b"y", b"z")]
    nodes.client.close()
    assert connection.said() == []
    assert isinstance(error_of(sent), OutcomeUnknown)
    assert all(isinstance(error_of(one), NotChosen) for one in waiting)  # no node can have seen them
    assert nodes.reactor.getDelayedCalls() == []


def test_the_leader_changes_before_the_turn_is_over(nodes: ManualNodes) -> None:
    submit(nodes, b"x")
    connection = nodes.accept()
    connection.answer(1, None)
    connection.said()
    submit(nodes, b"y", b"z")
    leader = other_than(connection.node)
    connection.welcome(leader)
    submit(nodes, b"w")
    assert connection.said() == []
    assert nodes.calls[-1] == leader
    assert nodes.accept().said() == [Submit(2, session_of(nodes), 2, 1, (b"y", b"z", b"w"))]


def test_all_is_answered_or_given_up_before_the_turn_is_over(nodes: ManualNodes) -> None:
    submit(nodes, b"x")
    connection = nodes.accept()
    connection.said()
    gave_up = nodes.client.submit(b"y").addErrback(lambda _: None)
    gave_up.cancel()
    assert connection.said() == []
    assert len(nodes.calls) == 1


def test_who_submits_when_an_answer_comes_waits_for_the_end_of_the_turn(nodes: ManualNodes) -> None:
    first, second = nodes.client.submit(b"x"), nodes.client.submit(b"y")
    first.addCallback(lambda _: nodes.client.submit(b"z"))
    second.addCallback(lambda _: nodes.client.submit(b"w"))
    connection = nodes.accept()
    connection.said()
    connection.answer(1, "x", "y")
    assert connection.transport.messages() == []
    assert connection.said() == [Submit(3, session_of(nodes), 3, 2, (b"z", b"w"))]


def test_a_node_without_a_handshake_is_left_though_no_caller_waited_when_it_accepted(nodes: ManualNodes) -> None:
    gave_up = nodes.client.submit(b"x").addErrback(lambda _: None)
    gave_up.cancel()
    connection = nodes.pick_up()
    nodes.reactor.spend(60.0)
    outcomes = submit(nodes, b"y")
    assert connection.said() == []
    nodes.wait_for_call(0.5)
    other = nodes.accept()
    assert connection.transport.disconnecting
    assert other.node != connection.node
    other.answer(2, "y")
    assert outcomes == [["y"]]
