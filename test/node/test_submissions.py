"""Commands on their way into the log: batches without timers, forwarding that backs off, limits."""

from __future__ import annotations

import pytest

from test.helpers.fakes import error_of, outcome_of, unpack
from test.helpers.submissions_harness import (
    OTHER,
    SESSION,
    SubmissionsHarness,
    command,
    error_in,
    expire,
    results,
    run,
    sequences,
)
from txpaxos.errors import OutcomeUnknown, Overloaded, SessionExpired, ValueTooLarge
from txpaxos.node.apply_pace import COMMANDS_MIN, LATE_SECONDS
from txpaxos.node.sessions import Outcome, Sessions
from txpaxos.wire.commands import Run

# ------------------------------------------------------------- the leader


def test_nothing_to_propose() -> None:
    assert SubmissionsHarness(leading=True).submissions.next_value() is None


def test_one_command_is_a_value_at_once() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.take(command(1))
    assert harness.next_batch() == (command(1),)
    assert harness.submissions.next_value() is None


def test_what_waits_goes_together_in_its_order() -> None:
    """A batch forms while the window is full; when a slot closes it takes all that has come."""
    harness = SubmissionsHarness(leading=True)
    harness.take(command(1))
    assert sequences(harness.next_batch()) == [1]
    for sequence in range(2, 16):
        harness.take(command(sequence))
    assert sequences(harness.next_batch()) == list(range(2, 16))
    assert harness.submissions.wake_at is None  # no clock is needed for it


def test_commands_of_a_batch_are_limited() -> None:
    harness = SubmissionsHarness(leading=True, batch_commands=3)
    harness.take(*map(command, range(1, 8)))
    assert [sequences(harness.next_batch()) for _ in range(4)] == [[1, 2, 3], [4, 5, 6], [7], []]


def test_bytes_of_a_batch_are_limited() -> None:
    harness = SubmissionsHarness(leading=True, batch_bytes=100)
    harness.take(*[command(sequence, bytes(40)) for sequence in range(1, 6)])
    assert [sequences(harness.next_batch()) for _ in range(3)] == [[1, 2], [3, 4], [5]]


def test_a_run_that_takes_long_to_apply_is_cut() -> None:
    """The leader makes slots of some milliseconds. Each caller is told of all its commands all the same."""
    harness = SubmissionsHarness(leading=True)
    harness.apply_seconds = 0.005
    waiting = harness.take(run(1, *[b"x"] * 300), run(1, b"y", session=OTHER))
    sizes = []
    while batch := harness.next_batch():
        sizes.append(len(sequences(batch)))
        harness.apply(*batch)
    assert sizes[0] == COMMANDS_MIN, "nothing is known yet"
    assert set(sizes[1:-1]) <= {3, 4}
    assert sum(sizes) == 301
    assert harness.applied == [b"x"] * 300 + [b"y"]
    assert [len(unpack(outcome_of(one))) for one in waiting] == [300, 1]
    assert (len(harness.submissions), harness.submissions._to_propose.size_bytes) == (0, 0)


def test_batches_grow_while_commands_take_no_time() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.take(run(1, *[b"x"] * 1000))
    sizes = []
    while batch := harness.next_batch():
        sizes.append(len(sequences(batch)))
        harness.apply(*batch)
    assert sizes == [16, 32, 64, 128, 256, 504]


def test_after_a_pause_a_batch_is_small_again() -> None:
    harness = SubmissionsHarness(leading=True)
    for number in range(5):
        harness.take(run(1 + 1000 * number, *[b"x"] * 1000))
        while batch := harness.next_batch():
            harness.apply(*batch)
    harness.take(run(5001, *[b"x"] * 1000))
    assert len(sequences(harness.next_batch())) == 1000
    harness.seconds += LATE_SECONDS
    harness.take(run(6001, *[b"x"] * 1000))
    assert len(sequences(harness.next_batch())) == COMMANDS_MIN


def test_the_rest_of_a_run_is_forgotten_with_the_lead() -> None:
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(run(1, *[b"x"] * 100))
    harness.apply(*harness.next_batch())
    harness.submissions.become_follower()
    (again,) = harness.submissions.due_for_forwarding(0.0)
    assert len(again.payloads) == 100
    harness.submissions.become_leader()
    while batch := harness.next_batch():
        harness.apply(*batch)
    assert len(unpack(outcome_of(waiting))) == len(harness.applied) == 100


def test_a_command_bigger_than_a_batch_goes_alone() -> None:
    harness = SubmissionsHarness(leading=True, batch_bytes=100)
    harness.take(command(1), command(2, bytes(500)), command(3), command(4))
    assert [sequences(harness.next_batch()) for _ in range(3)] == [[1], [2], [3, 4]]


def test_forwarded_commands_wait_with_the_leaders_own() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.take(command(1))
    harness.submissions.submit_forwarded([command(1, session=OTHER), command(2, session=OTHER)])
    assert [one.session for one in harness.next_batch()] == [SESSION, OTHER, OTHER]


def test_forwarded_commands_that_were_applied_are_left_out() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.apply(command(1), command(3, acknowledged=2))
    harness.submissions.submit_forwarded(list(map(command, range(1, 5))))
    assert sequences(harness.next_batch()) == [4]


def test_forwarded_commands_over_the_limit_are_left_out() -> None:
    harness = SubmissionsHarness(leading=True, waiting_commands_max=3)
    harness.submissions.submit_forwarded(list(map(command, range(1, 9))))
    assert sequences(harness.next_batch()) == [1, 2, 3]
    harness.submissions.submit_forwarded([command(4)])  # sent again, now that there is room
    assert sequences(harness.next_batch()) == [4]


def test_forwarded_bytes_over_the_limit_are_left_out() -> None:
    harness = SubmissionsHarness(leading=True, waiting_bytes_max=100)
    harness.submissions.submit_forwarded([command(sequence, bytes(40)) for sequence in range(1, 9)])
    assert sequences(harness.next_batch()) == [1, 2]
    harness.submissions.submit_forwarded([command(sequence, bytes(40)) for sequence in range(3, 9)])
    assert sequences(harness.next_batch()) == [3, 4]


# ------------------------------------------------------------- the callers


def test_the_outcome_reaches_the_caller_that_waits() -> None:
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(command(1, b"hello"))
    outcome = outcome_of(waiting)
    assert len(harness.submissions) == 1
    assert outcome == []
    harness.apply(command(1, b"hello"))
    assert outcome == [results("hello")]


def test_the_same_command_twice_at_one_node() -> None:
    """It goes into the log once, and both callers hear of it."""
    harness = SubmissionsHarness(leading=True)
    outcomes = [outcome_of(waiting) for waiting in harness.take(command(1), command(1))]
    assert sequences(harness.next_batch()) == [1]
    harness.apply(command(1))
    assert outcomes == [[results("x")], [results("x")]]


def test_a_command_that_was_applied_is_answered_at_once() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.apply(command(1, b"first"))
    (waiting,) = harness.take(command(1, b"first"))
    assert unpack(outcome_of(waiting)) == results("first")
    assert harness.submissions.next_value() is None


def test_a_command_whose_outcome_was_acknowledged() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.apply(command(1), command(2, acknowledged=1))
    (waiting,) = harness.take(command(1))
    assert error_in(waiting) is OutcomeUnknown


def test_a_waiting_command_that_turns_out_to_be_acknowledged() -> None:
    """Its caller, through another node, has had the answer and said so."""
    harness = SubmissionsHarness(leading=True)
    (waiting,) = harness.take(command(1))
    harness.apply(command(2, acknowledged=1))
    harness.apply(command(1))
    assert error_in(waiting) is OutcomeUnknown


def test_too_large() -> None:
    harness = SubmissionsHarness(leading=True, command_bytes_max=10)
    (fits, does_not) = harness.take(command(1, bytes(10)), command(2, bytes(11)))
    error = error_of(does_not)
    assert isinstance(error, ValueTooLarge)
    assert "11 bytes and may have 10" in str(error)
    assert sequences(harness.next_batch()) == [1]
    assert not fits.called


def test_too_many_wait() -> None:
    harness = SubmissionsHarness(leading=True, waiting_commands_max=2)
    one, two, three = harness.take(command(1), command(2), command(3))
    assert isinstance(error_of(three), Overloaded)
    assert not one.called
    assert not two.called
    harness.apply(*harness.next_batch())
    (three,) = harness.take(command(3))  # there is room again
    assert not three.called


def test_too_many_bytes_wait() -> None:
    harness = SubmissionsHarness(leading=True, waiting_bytes_max=100)
    one, two = harness.take(command(1, bytes(60)), command(2, bytes(60)))
    assert isinstance(error_of(two), Overloaded)
    harness.apply(*harness.next_batch())
    assert one.called
    (two,) = harness.take(command(2, bytes(60)))
    assert not two.called


def test_close_leaves_no_caller_waiting() -> None:
    harness = SubmissionsHarness(leading=True)
    waiting = harness.take(command(1), command(1), command(2))
    harness.submissions.close(OutcomeUnknown("stopped"))
    assert [str(error_of(one)) for one in waiting] == ["stopped"] * 3
    assert len(harness.submissions) == 0
    assert harness.submissions.next_value() is None


def test_a_caller_that_gave_up_does_no_harm() -> None:
    harness = SubmissionsHarness(leading=True)
    gave_up, waits = harness.take(command(1), command(1))
    gave_up.addErrback(lambda _: None)
    gave_up.cancel()
    harness.apply(*harness.next_batch())
    assert unpack(outcome_of(waits)) == results("x")


# ------------------------------------------------------------ the followers


def test_a_follower_forwards_what_its_callers_wait_for() -> None:
    harness = SubmissionsHarness(leading=False)
    harness.take(command(1), command(2))
    assert harness.submissions.wake_at == 0.0
    assert harness.submissions.next_value() is None
    assert sequences(harness.submissions.due_for_forwarding(5.0)) == [1, 2]
    assert harness.submissions.due_for_forwarding(5.0) == ()


def test_forwarding_again_backs_off() -> None:
    harness = SubmissionsHarness(leading=False, forward_seconds=0.25, forward_seconds_max=2.0)
    harness.take(command(1))
    times, now = [], 0.0
    for _ in range(8):
        assert harness.submissions.due_for_forwarding(now) == (command(1),)
        times.append(now)
        assert harness.submissions.wake_at is not None
        assert harness.submissions.due_for_forwarding(harness.submissions.wake_at - 0.001) == ()
        now = harness.submissions.wake_at
    assert times == [0.0, 0.25, 0.75, 1.75, 3.75, 5.75, 7.75, 9.75]


def test_each_command_has_a_time_of_its_own() -> None:
    harness = SubmissionsHarness(leading=False, forward_seconds=1.0)
    harness.take(command(1))
    assert sequences(harness.submissions.due_for_forwarding(0.0)) == [1]
    harness.take(command(2))
    assert sequences(harness.submissions.due_for_forwarding(0.5)) == [2]
    assert harness.submissions.wake_at == 1.0
    assert sequences(harness.submissions.due_for_forwarding(1.0)) == [1]
    assert harness.submissions.wake_at == 1.5


def test_what_was_applied_is_not_forwarded_again() -> None:
    harness = SubmissionsHarness(leading=False)
    harness.take(command(1), command(2))
    harness.submissions.due_for_forwarding(0.0)
    harness.apply(command(1))
    assert sequences(harness.submissions.due_for_forwarding(100.0)) == [2]


def test_what_will_never_be_applied_is_not_forwarded_for_ever() -> None:
    """Its caller gave up, and acknowledged it with a later command before it got into the log."""
    harness = SubmissionsHarness(leading=False)
    (gave_up,) = harness.take(command(1))
    harness.submissions.due_for_forwarding(0.0)
    harness.apply(command(2, acknowledged=1))
    assert harness.submissions.due_for_forwarding(100.0) == ()
    assert error_in(gave_up) is OutcomeUnknown
    assert len(harness.submissions) == 0
    assert harness.submissions.wake_at is None


def test_a_new_leader_is_told_at_once() -> None:
    harness = SubmissionsHarness(leading=False)
    harness.take(command(1))
    for now in (0.0, 10.0, 20.0, 30.0):
        harness.submissions.due_for_forwarding(now)
    harness.submissions.become_follower()
    assert harness.submissions.wake_at == 0.0
    assert sequences(harness.submissions.due_for_forwarding(30.1)) == [1]
    assert harness.submissions.wake_at == pytest.approx(30.35)  # and the back-off starts anew


def test_a_leader_proposes_what_it_had_forwarded() -> None:
    harness = SubmissionsHarness(leading=False)
    harness.take(command(1), command(2))
    harness.submissions.due_for_forwarding(0.0)
    harness.submissions.become_leader()
    assert sequences(harness.next_batch()) == [1, 2]
    assert harness.submissions.wake_at is None


def test_one_that_leads_no_longer_forwards_what_it_had_to_propose() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.take(command(1))
    harness.next_batch()
    harness.take(command(2))
    harness.submissions.submit_forwarded([command(1, session=OTHER)])
    harness.submissions.become_follower()
    assert harness.submissions.next_value() is None
    assert sequences(harness.submissions.due_for_forwarding(0.0)) == [
        1,
        2,
    ]  # the forwarded one is its own node's to send again


def test_forwards_are_cut_into_messages() -> None:
    harness = SubmissionsHarness(leading=False, batch_bytes=100)
    harness.take(*[command(sequence, bytes(30)) for sequence in range(1, 9)])
    parts = []
    while part := harness.submissions.due_for_forwarding(0.0):
        parts.append(sequences(part))
    assert parts == [[1, 2, 3], [4, 5, 6], [7, 8]]


def test_a_big_one_is_forwarded_alone_and_keeps_nothing_back() -> None:
    harness = SubmissionsHarness(leading=False, batch_bytes=100)
    harness.take(command(1, bytes(60)), command(2, bytes(500)), command(3, bytes(30)))
    parts = []
    while part := harness.submissions.due_for_forwarding(0.0):
        parts.append(sequences(part))
    assert sorted(sequence for part in parts for sequence in part) == [1, 2, 3]
    assert [2] in parts


def test_nothing_is_due_without_callers() -> None:
    harness = SubmissionsHarness(leading=False)
    harness.submissions.become_follower()
    assert harness.submissions.wake_at is None
    assert harness.submissions.due_for_forwarding(100.0) == ()


def test_a_big_one_is_given_more_time() -> None:
    harness = SubmissionsHarness(
        leading=False, forward_seconds=0.25, forward_seconds_max=2.0, forward_bytes_per_second=1e6
    )
    harness.take(command(1, bytes(500_000)), command(2))
    while harness.submissions.due_for_forwarding(0.0):
        pass
    assert sequences(harness.submissions.due_for_forwarding(0.3)) == [2]
    assert harness.submissions.due_for_forwarding(0.74) == ()
    assert sequences(harness.submissions.due_for_forwarding(0.75)) == [1]


# ---------------------------------------------------------------- expiry


def test_a_command_of_a_forgotten_session_is_answered_at_once() -> None:
    harness = SubmissionsHarness(leading=True)
    expire(harness)
    (waiting,) = harness.take(command(2))
    assert error_in(waiting) is SessionExpired
    assert harness.submissions.next_value() is None
    harness.submissions.submit_forwarded([command(2)])
    assert harness.submissions.next_value() is None


def test_a_session_forgotten_while_its_command_waits() -> None:
    leader, follower = SubmissionsHarness(leading=True), SubmissionsHarness(leading=False)
    for harness in (leader, follower):
        (waiting,) = harness.take(command(2))
        expire(harness)
        if harness is follower:
            assert harness.submissions.due_for_forwarding(100.0) == ()
        else:
            harness.apply(*harness.next_batch())
        assert error_in(waiting) is SessionExpired
        assert len(harness.submissions) == 0


# ----------------------------------------------------------- many at a time


def test_forwarded_again_before_its_turn_it_waits_once() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.take(command(1))
    for _ in range(3):
        harness.submissions.submit_forwarded([command(1), command(2)])
    assert sequences(harness.next_batch()) == [1, 2]
    harness.submissions.submit_forwarded([command(2)])  # and again once it was proposed: it may have been lost
    assert sequences(harness.next_batch()) == [2]


def test_a_command_forwarded_here_before_is_waited_for() -> None:
    harness = SubmissionsHarness(leading=True)
    harness.submissions.submit_forwarded([command(1)])
    (waiting,) = harness.take(command(1))
    assert sequences(harness.next_batch()) == [1]
    harness.apply(command(1))
    assert unpack(outcome_of(waiting)) == results("x")


def test_to_submit_one_more_does_not_look_through_all() -> None:
    """With 20,000 waiting for their leader, as with one."""
    looked: list[Run] = []

    class Watched(Sessions):
        def outcomes(self, run: Run) -> list[Outcome | None]:
            looked.append(run)
            return super().outcomes(run)

    harness = SubmissionsHarness(leading=False)
    harness.take(*[command(sequence) for sequence in range(1, 20_000)])
    while harness.submissions.due_for_forwarding(0.0):
        pass
    harness.applier.sessions = Watched()
    harness.take(command(20_000))
    assert sequences(harness.submissions.due_for_forwarding(0.1)) == [20_000]
    assert harness.submissions.wake_at == 0.25
    assert len(looked) == 2


def test_due_times_of_finished_commands_are_forgotten() -> None:
    harness = SubmissionsHarness(leading=False)
    for sequence in range(1, 1000):
        harness.take(command(sequence, acknowledged=sequence - 1))
        assert sequences(harness.submissions.due_for_forwarding(sequence / 100)) == [sequence]
        harness.apply(command(sequence, acknowledged=sequence - 1))
        assert harness.submissions.wake_at is None
    assert len(harness.submissions._to_forward._heap) == 0


# --------------------------------------------------- who waits on a follower


def test_the_leader_knows_whether_a_follower_waits() -> None:
    """Then followers are told at once what was chosen."""
    harness = SubmissionsHarness(leading=True, batch_commands=1)
    harness.take(command(1))
    harness.submissions.submit_forwarded([command(1, session=OTHER)])
    harness.take(command(2))
    values = [harness.submissions.next_value() for _ in range(3)]
    assert [value and value[1] for value in values] == [False, True, False]
    harness.submissions.submit_forwarded([command(2, session=OTHER)])
    harness.submissions.become_follower()
    harness.submissions.become_leader()
    harness.submissions.submit_run(command(2, session=OTHER))
    value = harness.submissions.next_value()
    assert value is not None
    assert not value[1]  # it was forgotten with what waited
