"""The commands of a node's own program."""

from __future__ import annotations

from random import Random

import pytest
from twisted.internet.defer import Deferred

from test.fakes import error_of, outcome_of
from txpaxos.errors import CommandFailed, Overloaded, SessionExpired
from txpaxos.local_session import LocalSession
from txpaxos.sessions import Outcome
from txpaxos.wire.commands import Command, session_born


class Counter:
    """Takes the commands; the test answers them.

    :ivar taken: each, with what is to fire.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[Command, Deferred[Outcome]]] = []
        self.applied_through = 0
        self.session = LocalSession(Random(1), self._take, lambda: self.applied_through)

    def _take(self, command: Command) -> Deferred[Outcome]:
        answer: Deferred[Outcome] = Deferred()
        self.taken.append((command, answer))
        return answer

    @property
    def commands(self) -> list[Command]:
        return [command for command, _ in self.taken]


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_commands_are_numbered_in_one_session(counter: Counter) -> None:
    for payload in (b"x", b"y"):
        counter.session.submit(payload)
    (first, second) = counter.commands
    assert first.session == second.session
    assert [(one.sequence, one.acknowledged, one.payload) for one in counter.commands] == [(1, 0, b"x"), (2, 0, b"y")]


def test_the_session_is_made_with_the_first_command(counter: Counter) -> None:
    """Its name says how far the log was applied then; before the start, that is not known."""
    counter.applied_through = 77
    counter.session.submit(b"x")
    counter.applied_through = 99
    counter.session.submit(b"y")
    assert [session_born(one.session) for one in counter.commands] == [77, 77]


def test_two_nodes_have_sessions_of_their_own() -> None:
    names: set[bytes] = set()

    def take(command: Command) -> Deferred[Outcome]:
        names.add(command.session)
        return Deferred()

    for seed in range(20):
        LocalSession(Random(seed), take, lambda: 0).submit(b"x")
    assert len(names) == 20


def test_results_and_errors(counter: Counter) -> None:
    outcomes = [outcome_of(counter.session.submit(b"x")) for _ in range(2)]
    failing = counter.session.submit(b"x")
    for (_, answer), outcome in zip(
        counter.taken, (Outcome.returned(7), Outcome.returned(None), Outcome.raised("ValueError: no")), strict=True
    ):
        answer.callback(outcome)
    assert outcomes == [[7], [None]]
    error = error_of(failing)
    assert isinstance(error, CommandFailed)
    assert str(error) == "ValueError: no"


def test_what_has_its_answer_is_acknowledged_up_to_the_first_that_has_not(counter: Counter) -> None:
    for _ in range(4):
        counter.session.submit(b"x")
    for index in (2, 0):
        counter.taken[index][1].callback(Outcome.returned(index))
    counter.session.submit(b"x")
    assert counter.commands[-1].acknowledged == 1
    for index in (1, 3):
        counter.taken[index][1].callback(Outcome.returned(index))
    counter.session.submit(b"x")
    assert counter.commands[-1].acknowledged == 4


def test_what_was_not_taken_is_not_waited_for(counter: Counter) -> None:
    refused = counter.session.submit(b"x")
    counter.taken[0][1].errback(Overloaded("later"))
    assert isinstance(error_of(refused), Overloaded)
    counter.session.submit(b"x")
    assert counter.commands[-1].acknowledged == 1


def test_later_commands_have_a_new_session_when_the_old_one_is_forgotten(counter: Counter) -> None:
    expired = counter.session.submit(b"x")
    counter.applied_through = 500
    counter.taken[0][1].callback(Outcome(error="forgotten", expired=True))
    assert isinstance(error_of(expired), SessionExpired)
    counter.session.submit(b"y")
    old, new = counter.commands
    assert new.session != old.session
    assert session_born(new.session) == 500
    assert new.sequence == 2
