"""Exactly once: the table of sessions, which the log alone changes."""

from __future__ import annotations

from random import Random

from txpaxos.sessions import Outcome, Sessions
from txpaxos.wire.commands import Command


def command(sequence: int, acknowledged: int = 0, session: bytes = b"session1") -> Command:
    return Command(session, sequence, acknowledged, b"payload")


def record(sessions: Sessions, *commands: Command) -> None:
    for one in commands:
        sessions.record(one, Outcome(one.sequence))


def test_a_new_table_knows_nothing() -> None:
    sessions = Sessions()
    assert not sessions.is_applied(command(1))
    assert sessions.outcome(command(1)) is None
    assert len(sessions) == 0


def test_an_outcome_is_kept_as_it_was() -> None:
    sessions = Sessions()
    sessions.record(command(1), Outcome(error="no"))
    sessions.record(command(2), Outcome(None))
    assert sessions.is_applied(command(1))
    assert sessions.outcome(command(1)) == Outcome(error="no")
    assert sessions.outcome(command(2)) == Outcome(None)
    assert len(sessions) == 1


def test_sessions_are_apart() -> None:
    sessions = Sessions()
    record(sessions, command(1))
    assert not sessions.is_applied(command(1, session=b"session2"))
    assert sessions.outcome(command(1, session=b"session2")) is None


def test_out_of_order() -> None:
    """A later command that overtook an earlier one says nothing about that one."""
    sessions = Sessions()
    record(sessions, command(3), command(1))
    assert [sessions.is_applied(command(sequence)) for sequence in (1, 2, 3, 4)] == [True, False, True, False]
    record(sessions, command(2))
    assert [sessions.outcome(command(sequence)) for sequence in (1, 2, 3)] == [Outcome(1), Outcome(2), Outcome(3)]


def test_what_is_acknowledged_is_applied_and_forgotten() -> None:
    sessions = Sessions()
    record(sessions, command(1), command(2), command(3), command(4, acknowledged=2))
    assert [sessions.outcome(command(sequence)) for sequence in (1, 2)] == [None, None]
    assert [sessions.is_applied(command(sequence)) for sequence in (1, 2)] == [True, True]
    assert [sessions.outcome(command(sequence)) for sequence in (3, 4)] == [Outcome(3), Outcome(4)]


def test_what_is_acknowledged_stays_so() -> None:
    """Commands that overtake each other carry older acknowledgements, which take nothing back."""
    sessions = Sessions()
    record(sessions, command(9, acknowledged=7), command(8, acknowledged=5))
    assert sessions.is_applied(command(7))
    assert sessions.is_applied(command(6))
    assert sessions.outcome(command(8)) == Outcome(8)


def test_memory_of_a_session_that_acknowledges_is_bounded() -> None:
    sessions = Sessions()
    for sequence in range(1, 10_000):
        record(sessions, command(sequence, acknowledged=max(0, sequence - 3)))
    assert sum(sessions.outcome(command(sequence)) is not None for sequence in range(10_000)) == 3


def test_the_session_used_longest_ago_is_forgotten() -> None:
    sessions = Sessions(sessions_max=2)
    first, second, third = (b"%08d" % number for number in (1, 2, 3))
    record(sessions, command(1, session=first), command(1, session=second))
    record(sessions, command(2, session=first))  # used again: now the second is the oldest
    record(sessions, command(1, session=third))
    assert len(sessions) == 2
    assert sessions.is_applied(command(1, session=first))
    assert not sessions.is_applied(command(1, session=second))
    assert sessions.is_applied(command(1, session=third))


def test_looking_does_not_change_who_is_forgotten() -> None:
    """Callers ask one node and not the others, so only what is applied may count."""
    sessions = Sessions(sessions_max=2)
    first, second, third = (b"%08d" % number for number in (1, 2, 3))
    record(sessions, command(1, session=first), command(1, session=second))
    assert sessions.is_applied(command(1, session=first))
    assert sessions.outcome(command(1, session=first)) == Outcome(1)
    record(sessions, command(1, session=third))
    assert not sessions.is_applied(command(1, session=first))


def test_equal_logs_make_equal_tables() -> None:
    rng = Random(1)
    tables = Sessions(sessions_max=5), Sessions(sessions_max=5)
    names = [b"%08d" % number for number in range(9)]
    for _ in range(2000):
        sequence = rng.randrange(1, 50)
        one = command(sequence, rng.randrange(sequence), rng.choice(names))
        for number, table in enumerate(tables):
            if number:  # the other node is asked a lot in between
                table.is_applied(command(rng.randrange(50), 0, names[0]))
            if not table.is_applied(one):
                table.record(one, Outcome(one.sequence))
    every = [command(sequence, 0, name) for sequence in range(50) for name in names]
    assert [tables[0].is_applied(one) for one in every] == [tables[1].is_applied(one) for one in every]
    assert [tables[0].outcome(one) for one in every] == [tables[1].outcome(one) for one in every]
    assert any(tables[0].outcome(one) for one in every)
