"""The commands of a node's own program."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.helpers.fakes import error_of, outcome_of
from txpaxos.errors import CommandFailed, NodeStopped, Overloaded, SessionExpired
from txpaxos.node.local_session import LocalSession
from txpaxos.node.sessions import Failed, Outcomes, encode_result, raised
from txpaxos.wire.commands import RUN_BYTES, RUN_COMMANDS, Run, session_created_at_slot


class Counter:
    """Takes the runs; the test answers them.

    :ivar taken: each, with what is to fire.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[Run, Deferred[Outcomes]]] = []
        self.applied_through = 0
        self.session = LocalSession(Random(1), self._take, lambda *_: None, lambda: self.applied_through)

    def submit(self, *payloads: bytes) -> list[Deferred[Any]]:
        """Submit ``payloads`` in one turn."""
        waiting = [self.session.submit(payload) for payload in payloads]
        self.session.flush()
        return waiting

    def _take(self, run: Run) -> Deferred[Outcomes]:
        answer: Deferred[Outcomes] = Deferred()
        self.taken.append((run, answer))
        return answer

    @property
    def runs(self) -> list[Run]:
        return [run for run, _ in self.taken]


@pytest.fixture
def counter() -> Counter:
    return Counter()


def test_commands_are_numbered_in_one_session(counter: Counter) -> None:
    counter.submit(b"x")
    counter.submit(b"y")
    (first, second) = counter.runs
    assert first.session == second.session
    assert [one[1:] for one in counter.runs] == [(1, 0, (b"x",)), (2, 0, (b"y",))]


def test_what_is_submitted_in_one_turn_is_one_run(counter: Counter) -> None:
    """Nothing is taken before the turn is over."""
    waiting = [counter.session.submit(payload) for payload in (b"x", b"yy", b"z")]
    assert counter.taken == []
    assert len(counter.session) == 3
    counter.session.flush()
    counter.session.flush()
    assert [one[1:] for one in counter.runs] == [(1, 0, (b"x", b"yy", b"z"))]
    assert len(counter.session) == 0
    counter.submit(b"later")
    assert [one[1:] for one in counter.runs[1:]] == [(4, 0, (b"later",))]
    assert not any(one.called for one in waiting)


def test_commands_of_a_run_are_limited(counter: Counter) -> None:
    counter.submit(*[b"%d" % number for number in range(2 * RUN_COMMANDS + 1)])
    assert [(one.sequence, len(one.payloads)) for one in counter.runs] == [
        (1, RUN_COMMANDS),
        (RUN_COMMANDS + 1, RUN_COMMANDS),
        (2 * RUN_COMMANDS + 1, 1),
    ]
    assert [payload for one in counter.runs for payload in one.payloads] == [
        b"%d" % number for number in range(2 * RUN_COMMANDS + 1)
    ]


def test_bytes_of_a_run_are_limited(counter: Counter) -> None:
    """One that is bigger than a run may be is a run by itself."""
    half, big = bytes(RUN_BYTES // 2), bytes(RUN_BYTES + 1)
    counter.submit(half, half, b"x", big, b"y", half, half)
    assert [one.payloads for one in counter.runs] == [(half, half), (b"x",), (big,), (b"y", half), (half,)]
    assert [one.sequence for one in counter.runs] == [1, 3, 4, 5, 7]


def test_the_session_is_made_with_the_first_run(counter: Counter) -> None:
    """Its name says how far the log was applied then; before the start, that is not known."""
    counter.session.submit(b"x")
    counter.applied_through = 77
    counter.session.flush()
    counter.applied_through = 99
    counter.submit(b"y")
    assert [session_created_at_slot(one.session) for one in counter.runs] == [77, 77]


def test_two_nodes_have_sessions_of_their_own() -> None:
    names: set[bytes] = set()

    def take(run: Run) -> Deferred[Outcomes]:
        names.add(run.session)
        return Deferred()

    for seed in range(20):
        session = LocalSession(Random(seed), take, lambda *_: None, lambda: 0)
        session.submit(b"x")
        session.flush()
    assert len(names) == 20


def test_results_and_errors(counter: Counter) -> None:
    """Each command of a run has its own."""
    first, second, failing, last = counter.submit(b"w", b"x", b"!", b"z")
    outcomes = [outcome_of(one) for one in (first, second, last)]
    counter.taken[0][1].callback(
        [encode_result(7), encode_result(None), raised("ValueError", "no"), encode_result("last")]
    )
    assert outcomes == [[7], [None], ["last"]]
    error = error_of(failing)
    assert isinstance(error, CommandFailed)
    assert str(error) == "ValueError: no"


def test_what_has_its_answer_is_acknowledged_up_to_the_first_that_has_not(counter: Counter) -> None:
    for _ in range(4):
        counter.submit(b"x")
    for index in (2, 0):
        counter.taken[index][1].callback([encode_result(index)])
    counter.submit(b"x")
    assert counter.runs[-1].acknowledged == 1
    for index in (1, 3):
        counter.taken[index][1].callback([encode_result(index)])
    counter.submit(b"x")
    assert counter.runs[-1].acknowledged == 4


def test_acknowledged_is_below_the_first_run_without_an_answer(counter: Counter) -> None:
    counter.submit(b"1", b"2", b"3")
    counter.submit(b"4", b"5")
    counter.taken[1][1].callback([encode_result(4), encode_result(5)])
    counter.submit(b"6")
    assert counter.runs[-1].acknowledged == 0
    counter.taken[0][1].callback([encode_result(1), encode_result(2), encode_result(3)])
    counter.submit(b"7")
    assert counter.runs[-1].acknowledged == 5


def test_what_was_not_taken_is_not_waited_for(counter: Counter) -> None:
    refused = counter.submit(b"x", b"y")
    counter.taken[0][1].errback(Overloaded("later"))
    assert all(isinstance(error_of(one), Overloaded) for one in refused)
    counter.submit(b"z")
    assert counter.runs[-1].acknowledged == 2


def test_who_submits_again_when_an_answer_comes_waits_for_the_next_run(counter: Counter) -> None:
    (first, second) = counter.submit(b"x", b"y")
    first.addCallback(lambda _: counter.session.submit(b"z"))
    heard = outcome_of(second)
    counter.taken[0][1].callback([encode_result(1), encode_result(2)])
    assert heard == [2]
    assert len(counter.taken) == 1
    counter.session.flush()
    assert counter.runs[-1][1:] == (3, 2, (b"z",))


def test_closed_before_a_run_was_made(counter: Counter) -> None:
    waiting = [counter.session.submit(b"x"), counter.session.submit(b"y")]
    counter.session.close(NodeStopped("stopped"))
    assert [str(error_of(one)) for one in waiting] == ["stopped", "stopped"]
    counter.session.flush()
    assert counter.taken == []


def test_later_commands_have_a_new_session_when_the_old_one_is_forgotten(counter: Counter) -> None:
    expired = counter.submit(b"x", b"y")
    counter.applied_through = 500
    counter.taken[0][1].callback([Failed(SessionExpired, "forgotten")] * 2)
    assert all(isinstance(error_of(one), SessionExpired) for one in expired)
    counter.submit(b"z")
    old, new = counter.runs
    assert new.session != old.session
    assert session_created_at_slot(new.session) == 500
    assert new.sequence == 3


def test_a_result_that_cannot_be_decoded_fails_its_command_and_no_other(counter: Counter) -> None:
    """It is of an earlier release, out of a snapshot."""
    first, second, third = map(outcome_of, counter.submit(b"x", b"y", b"z"))
    counter.taken[0][1].callback([encode_result(7), b"\xc1", encode_result(8)])
    assert (first, third) == ([7], [8])
    assert type(second[0].value) is CommandFailed
