"""Runs on their way into the log: a caller hears of each command once, however its commands are cut into runs."""

from __future__ import annotations

from random import Random
from typing import Any

from test.helpers.fakes import error_of, outcome_of, unpack
from test.helpers.submissions_harness import OTHER, SubmissionsHarness, command, expire, results, run, sequences
from txpaxos.errors import OutcomeUnknown, Overloaded, SessionExpired, ValueTooLarge
from txpaxos.node.sessions import Failed, Outcome
from txpaxos.wire.commands import Run


def kinds(outcomes: Any) -> list[object]:
    """The error of each that failed, the result of each that did not."""
    return [one.error if isinstance(one, Failed) else one for one in outcomes]


# ------------------------------------------------------------- the leader


def test_a_run_is_proposed_applied_and_answered_together() -> None:
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(run(1, b"a", b"b", b"c"))
    outcome = outcome_of(waiting)
    assert len(harness.submissions) == 3
    batch = harness.next_batch()
    assert batch == (run(1, b"a", b"b", b"c"),)
    harness.apply(*batch)
    assert outcome == [results("a", "b", "c")]
    assert len(harness.submissions) == 0


def test_a_value_is_filled_by_the_command() -> None:
    harness = SubmissionsHarness(leading=True, batch_commands=5, batch_bytes=100)
    harness.take(run(1, *[b"x"] * 3), run(4, *[b"x"] * 2), run(6, b"x"), run(7, *[b"x"] * 9), run(16, b"x"))
    assert [sequences(harness.next_batch()) for _ in range(4)] == [
        [1, 2, 3, 4, 5],
        [6],
        list(range(7, 16)),  # goes alone, though more than a value should hold
        [16],
    ]
    harness.take(run(17, bytes(40), bytes(40)), run(19, bytes(21)), run(20, bytes(79)))
    assert [sequences(harness.next_batch()) for _ in range(2)] == [[17, 18], [19, 20]]


def test_limits_count_commands() -> None:
    harness = SubmissionsHarness(leading=True, waiting_commands_max=3)
    two, other_two, one = harness.take(run(1, b"a", b"b"), run(3, b"c", b"d"), run(3, b"c"))
    assert isinstance(error_of(other_two), Overloaded)
    assert not two.called
    assert not one.called
    assert len(harness.submissions) == 3
    batch = harness.next_batch()
    assert sequences(batch) == [1, 2, 3]  # of the refused run nothing is proposed
    harness.apply(*batch)
    assert len(harness.submissions) == 0
    (four,) = harness.take(run(4, b"d", b"e", b"f"))
    assert not four.called


def test_limits_count_the_bytes_of_a_run() -> None:
    harness = SubmissionsHarness(leading=True, waiting_bytes_max=100)
    one, two = harness.take(run(1, bytes(30), bytes(30)), run(3, bytes(30), bytes(11)))
    assert isinstance(error_of(two), Overloaded)
    harness.apply(*harness.next_batch())
    assert one.called
    (two,) = harness.take(run(3, bytes(30), bytes(11)))
    assert not two.called


def test_forwarded_runs_are_limited_by_the_command() -> None:
    harness = SubmissionsHarness(leading=True, waiting_commands_max=4)
    runs = [run(1, b"a", b"b", b"c"), run(4, b"d", b"e"), run(6, b"f")]
    harness.submissions.submit_forwarded(runs)
    assert len(harness.submissions) == 3
    assert sequences(harness.next_batch()) == [1, 2, 3]
    harness.submissions.submit_forwarded(runs[1:])  # sent again, now that there is room
    assert sequences(harness.next_batch()) == [4, 5, 6]


def test_too_large_is_the_largest_of_a_run() -> None:
    harness = SubmissionsHarness(leading=True, command_bytes_max=10)
    (waiting,) = harness.take(run(1, b"x", bytes(11), b"y"))
    assert isinstance(error_of(waiting), ValueTooLarge)
    assert harness.next_batch() == ()


def test_a_longer_run_takes_the_place_of_one_that_waits() -> None:
    """It begins as the other does, so it holds all of it."""
    harness = SubmissionsHarness(leading=True, waiting_commands_max=4)
    harness.submissions.submit_forwarded([run(1, b"a"), command(1, session=OTHER)])
    harness.submissions.submit_forwarded([run(1, b"a", b"b")])
    assert len(harness.submissions) == 3  # what was replaced counts no more
    harness.submissions.submit_forwarded([run(1, b"a")])
    assert harness.next_batch() == (command(1, session=OTHER), run(1, b"a", b"b"))
    assert len(harness.submissions) == 0


def test_a_shorter_run_that_was_overtaken_is_answered_with_the_longer_one() -> None:
    harness = SubmissionsHarness(leading=True)
    short, long = harness.take(run(1, b"a"), run(1, b"a", b"b", b"c"))
    heard = [outcome_of(short), outcome_of(long)]
    batch = harness.next_batch()
    assert batch == (run(1, b"a", b"b", b"c"),)
    harness.apply(*batch)
    assert heard == [[results("a")], [results("a", "b", "c")]]


# ------------------------------------------------------------- overlapping callers


def test_callers_whose_runs_overlap_are_all_told() -> None:
    harness = SubmissionsHarness(leading=True)
    runs = [run(1, b"a", b"b", b"c"), run(2, b"b", b"c", b"d"), run(3, b"c"), run(1, b"a", b"b", b"c")]
    heard = [outcome_of(waiting) for waiting in harness.take(*runs)]
    harness.next_batch()
    harness.apply(runs[0])
    assert heard == [[results("a", "b", "c")], [], [results("c")], [results("a", "b", "c")]]
    assert len(harness.submissions) == 3
    harness.apply(runs[1])
    assert heard[1] == [results("b", "c", "d")]
    assert harness.applied == [b"a", b"b", b"c", b"d"]
    assert len(harness.submissions) == 0


def test_a_run_of_which_some_was_applied_already() -> None:
    """By an earlier leader, in another cut: the first results of those, and the others are applied."""
    harness = SubmissionsHarness(leading=True)
    harness.apply(run(2, b"b", b"c"))
    (waiting,) = harness.take(run(1, b"a", b"b again", b"c again", b"d"))
    heard = outcome_of(waiting)
    assert heard == []
    harness.apply(*harness.next_batch())
    assert heard == [results("a", "b", "c", "d")]
    assert harness.applied == [b"b", b"c", b"a", b"d"]
    (again,) = harness.take(run(1, b"a", b"b", b"c", b"d"))
    assert unpack(outcome_of(again)) == results("a", "b", "c", "d")
    assert harness.next_batch() == ()


def test_a_run_that_comes_apart_in_the_log() -> None:
    """Its caller, connected elsewhere, sent the parts in other runs."""
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(run(1, b"a", b"b", b"c", b"d"))
    heard = outcome_of(waiting)
    harness.next_batch()
    harness.apply(run(3, b"c"))
    harness.apply(run(4, b"d", b"e"))
    assert heard == []
    harness.apply(run(0, b"before", b"a", b"b"))
    assert heard == [results("a", "b", "c", "d")]
    assert len(harness.submissions) == 0


def test_a_run_in_the_log_that_no_caller_here_waits_for() -> None:
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(run(5, b"x"))
    harness.apply(run(1, b"a", b"b"), run(1, b"a", session=OTHER), run(6, b"y"))
    assert not waiting.called
    harness.apply(run(5, b"x"))
    assert unpack(outcome_of(waiting)) == results("x")


def test_forwarded_runs_that_were_partly_applied_are_proposed() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.apply(run(1, b"a", b"b"))
    harness.submissions.submit_forwarded([run(1, b"a", b"b"), run(2, b"b", b"c"), run(1, b"a", b"b", b"c", b"d")])
    assert harness.next_batch() == (run(2, b"b", b"c"), run(1, b"a", b"b", b"c", b"d"))


def test_whatever_the_cuts_each_command_is_applied_once_and_all_are_told() -> None:
    rng = Random(3)
    harness = SubmissionsHarness(leading=True, waiting_commands_max=10**6)
    heard: list[tuple[Run, list[Any]]] = []
    for _ in range(600):
        first = rng.randrange(1, 300)
        payloads = [b"%d" % sequence for sequence in range(first, first + rng.randrange(1, 12))]
        one = run(first, *payloads)
        if rng.random() < 0.7:
            heard.append((one, outcome_of(harness.submissions.submit_run(one))))
        else:
            harness.submissions.submit_forwarded([one])
        if rng.random() < 0.3:
            harness.apply(*harness.next_batch())
        if rng.random() < 0.02:
            harness.submissions.become_follower()
            harness.submissions.become_leader()
    while batch := harness.next_batch():
        harness.apply(*batch)
    assert len(harness.applied) == len(set(harness.applied)) > 250
    assert len(heard) > 300
    for one, outcomes in heard:
        assert outcomes == [results(*(payload.decode() for payload in one.payloads))]
    assert len(harness.submissions) == 0


# ------------------------------------------------------------------ within a callback


def test_who_submits_again_when_told() -> None:
    """What comes up meanwhile is not forgotten with what is done."""
    harness = SubmissionsHarness(leading=True)
    (first,) = harness.take(run(1, b"a", b"b"))
    later: list[list[Any]] = []
    first.addCallback(lambda _: later.append(outcome_of(harness.submissions.submit_run(run(3, b"c", b"d")))))
    harness.apply(*harness.next_batch())
    assert later == [[]]
    batch = harness.next_batch()
    assert batch == (run(3, b"c", b"d"),)
    harness.apply(*batch)
    assert later == [[results("c", "d")]]


def test_who_submits_again_while_the_rest_of_a_run_is_still_to_be_told() -> None:
    harness = SubmissionsHarness(leading=True)
    first, rest = harness.take(run(1, b"a"), run(2, b"b", b"c"))
    told = outcome_of(rest)
    later: list[list[Any]] = []
    first.addCallback(lambda _: later.append(outcome_of(harness.submissions.submit_run(run(2, b"b", b"c", b"d")))))
    harness.apply(run(1, b"a", b"b", b"c"))
    assert told == [results("b", "c")]
    assert later == [[]]  # of d nothing is known yet
    harness.apply(run(2, b"b", b"c", b"d"))
    assert later == [[results("b", "c", "d")]]


def test_who_stops_the_node_when_told() -> None:
    harness = SubmissionsHarness(leading=True)
    first, other = harness.take(run(1, b"a"), run(2, b"b"))
    first.addCallback(lambda _: harness.submissions.close(OutcomeUnknown("stopped")))
    harness.apply(run(1, b"a", b"b"))
    assert isinstance(error_of(other), OutcomeUnknown)
    assert len(harness.submissions) == 0


# ------------------------------------------------------------ the followers


def test_a_follower_forwards_runs_whole() -> None:
    harness = SubmissionsHarness(leading=False, batch_bytes=100)
    harness.take(run(1, b"a", b"b"), run(3, bytes(40), bytes(40)), run(5, bytes(30)))
    parts = []
    while part := harness.submissions.due_for_forwarding(0.0):
        parts.append(part)
    assert parts == [(run(1, b"a", b"b"), run(3, bytes(40), bytes(40))), (run(5, bytes(30)),)]


def test_a_run_that_was_partly_applied_is_forwarded_again() -> None:
    harness = SubmissionsHarness(leading=False)
    (waiting,) = harness.take(run(1, b"a", b"b", b"c"))
    heard = outcome_of(waiting)
    harness.submissions.due_for_forwarding(0.0)
    harness.apply(run(2, b"b"))
    assert harness.submissions.due_for_forwarding(100.0) == (run(1, b"a", b"b", b"c"),)
    harness.apply(run(1, b"a", b"b", b"c"))
    assert heard == [results("a", "b", "c")]
    assert harness.submissions.wake_at is None


def test_some_of_a_run_turns_out_to_be_acknowledged() -> None:
    harness = SubmissionsHarness(leading=False)
    waiting = harness.take(run(1, b"a", b"b", b"c"), run(1, b"a"))
    whole, part = map(outcome_of, waiting)
    harness.submissions.due_for_forwarding(0.0)
    harness.apply(run(9, b"i", acknowledged=2))
    assert harness.submissions.due_for_forwarding(100.0) == (run(1, b"a", b"b", b"c"),)
    assert [kinds(one) for one in part] == [[OutcomeUnknown]]
    assert whole == []
    harness.apply(run(1, b"a", b"b", b"c"))
    assert [kinds(one) for one in whole] == [[OutcomeUnknown, OutcomeUnknown, *results("c")]]
    assert harness.applied == [b"i", b"c"]
    assert len(harness.submissions) == 0


def test_runs_of_a_forgotten_session() -> None:
    for leading in (True, False):
        harness = SubmissionsHarness(leading=leading)
        heard = [outcome_of(waiting) for waiting in harness.take(run(2, b"b", b"c"), run(3, b"c", b"d"))]
        expire(harness)
        if leading:
            harness.apply(*harness.next_batch())
        else:
            assert harness.submissions.due_for_forwarding(100.0) == ()
        assert [kinds(one) for (one,) in heard] == [[SessionExpired] * 2] * 2
        assert len(harness.submissions) == 0
        (late,) = harness.take(run(5, b"e", b"f", b"g"))
        assert kinds(unpack(outcome_of(late))) == [SessionExpired] * 3
        harness.submissions.submit_forwarded([run(5, b"e", b"f", b"g")])
        assert len(harness.submissions) == 0


def test_one_that_begins_to_lead_proposes_each_run_of_its_callers() -> None:
    harness = SubmissionsHarness(leading=False)
    heard = [outcome_of(waiting) for waiting in harness.take(run(1, b"a", b"b"), run(2, b"b", b"c"))]
    harness.submissions.due_for_forwarding(0.0)
    harness.submissions.become_leader()
    batch = harness.next_batch()
    assert batch == (run(1, b"a", b"b"), run(2, b"b", b"c"))
    harness.apply(*batch)
    assert heard == [[results("a", "b")], [results("b", "c")]]
    assert harness.applied == [b"a", b"b", b"c"]


def test_outcomes_are_in_the_order_of_the_run() -> None:
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(run(1, b"a", b"b", b"c"))
    heard: list[Any] = outcome_of(waiting)
    for one in (run(3, b"c"), run(1, b"a"), run(2, b"b")):
        harness.apply(one)
    expected: list[Outcome] = results("a", "b", "c")
    assert heard == [expected]
