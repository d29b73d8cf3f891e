"""One node from start to stop: what it promises its application, and what it does with all that goes wrong."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from test.helpers.fakes import (
    ONE,
    SESSION,
    NodeHarness,
    Reactor,
    Recorder,
    RecordingStore,
    RecordingTransport,
    alone,
    error_of,
    node_of,
    outcome_of,
    restarted,
    submit,
)
from txpaxos.core.messages import NO_OP, Ballot, Heartbeat, PrepareLog, ReadIndexReply, ReadIndexRequest
from txpaxos.core.ready import Voted
from txpaxos.counter import Counter
from txpaxos.errors import CommandFailed, OutcomeUnknown, Overloaded, ValueTooLarge
from txpaxos.node.command_limits import CommandLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.wire.commands import Run, decode_batch
from txpaxos.wire.registers import SUBJECT_BYTES_MAX

LOW = Ballot(1, "a")


# ------------------------------------------------------- from start to stop


def test_a_node_alone_from_start_to_stop() -> None:
    harness = NodeHarness("a", ONE)
    assert harness.node.leader is None
    harness.reactor.idle()
    assert harness.node.leader == "a"
    assert harness.application.told == [("acquired",), ("changed", None, "a")]
    assert submit(harness, b"x", b"y") == ["x@1", "y@2"]
    assert submit(harness, b"z") == ["z@3"]
    assert [command for _, command in harness.application.applied] == [b"x", b"y", b"z"]
    slots = [slot for slot, _ in harness.application.applied]
    assert slots[0] == slots[1] < slots[2]  # what comes in one turn shares a slot
    harness.reactor.spend(10.0)
    status = harness.node.status()
    assert (status.applied_through, status.waiting, status.counters) == (slots[2], 0, {})
    assert (status.replica.role, status.replica.leader, status.replica.chosen_through) == ("leader", "a", slots[2])
    assert outcome_of(harness.node.stop()) == [None]
    assert harness.store.closes == 1
    assert harness.reactor.getDelayedCalls() == []
    assert harness.said() == []
    assert harness.failures == []


def test_a_restart_applies_the_log_to_a_new_application() -> None:
    harness = alone()
    submit(harness, b"x", b"y")
    submit(harness, b"z")
    asked = outcome_of(harness.node.ask("king", b"Arthur"))
    outcome_of(harness.node.ask("queen"))  # asked about, but not decided
    harness.reactor.idle()
    assert asked == [b"Arthur"]
    again = restarted(harness)
    assert len(again.node.application.applied) >= 2  # what it knew to be chosen; the rest when it leads again
    again.reactor.idle()
    assert again.node.application.applied == harness.application.applied
    assert again.node.application.told == [("acquired",), ("changed", None, "a"), ("chosen", "king", b"Arthur")]
    assert submit(again, b"w") == ["w@4"]


def test_a_restart_keeps_the_sessions() -> None:
    """A command sent again after the restart gets its first outcome."""
    run = Run(SESSION, 1, 0, (b"x",))
    harness = alone()
    first = outcome_of(harness.node.submit_run(run))
    harness.reactor.idle()
    submit(harness, b"y")
    again = restarted(harness)
    second = outcome_of(again.node.submit_run(run))
    again.reactor.idle()
    assert second == first
    assert [one for _, one in again.node.application.applied] == [b"x", b"y"]


def test_a_restart_after_nothing_was_finished() -> None:
    """What was proposed and saved, but not answered, is chosen after all; the caller could not know."""
    harness = alone()
    harness.store.slow = True
    waiting = harness.node.submit(b"x")
    harness.reactor.idle()
    again = NodeHarness(
        "a", ONE, [*harness.store.saved, *harness.store.saves[-1]]
    )  # the vote got to the disk before the end
    again.reactor.idle()
    assert [command for _, command in again.node.application.applied] == [b"x"]
    harness.node.stop()
    assert isinstance(error_of(waiting), OutcomeUnknown)


def test_an_application_need_not_reimplement_anything() -> None:
    harness = alone(application=PaxosProtocol)
    asked = outcome_of(harness.node.ask("king", b"Arthur"))
    assert submit(harness, b"x") == [None]
    assert asked == [b"Arthur"]


def test_the_counter() -> None:
    harness = alone(application=Counter)
    assert submit(harness, b"5", b"+2", b" -10 ") == [5, 7, -3]
    again = restarted(harness, application=Counter)
    again.reactor.idle()
    assert again.node.application.total == -3


def test_what_is_submitted_before_the_start_waits() -> None:
    reactor, store = Reactor(), RecordingStore()
    node = node_of(Recorder(), reactor, "a", ONE, store, rng=Random(1))
    outcomes = [outcome_of(node.submit(command)) for command in (b"x", b"y")]
    assert node.leader is None
    reactor.spend(1.0)
    assert outcomes == [[], []]
    node.start(RecordingTransport())
    reactor.spend(0.01)
    assert outcomes == [["x@1"], ["y@2"]]
    assert node.status().waiting == 0


def test_what_is_submitted_in_one_turn_is_one_run() -> None:
    harness = alone()
    harness.forget()
    outcomes = [outcome_of(harness.node.submit(command)) for command in (b"x", b"y", b"z")]
    assert harness.events == []  # the turn is not over
    harness.reactor.idle()
    assert outcomes == [["x@1"], ["y@2"], ["z@3"]]
    (value,) = [
        one.value for save in harness.store.saves for one in save if isinstance(one, Voted) and one.value != NO_OP
    ]
    ((*_, payloads),) = decode_batch(value)
    assert payloads == (b"x", b"y", b"z")


def test_what_is_submitted_in_one_turn_is_limited_too() -> None:
    """Though none of it is in a run yet."""
    harness = NodeHarness(
        "b", command_limits=CommandLimits(waiting_commands_max=3, waiting_bytes_max=100)
    )  # no node leads
    other = outcome_of(harness.node.submit_run(Run(SESSION, 1, 0, (b"x",))))
    waiting = [harness.node.submit(bytes(50)) for _ in range(2)]
    assert isinstance(error_of(waiting[1]), Overloaded)
    assert not harness.node.submit(bytes(49)).called
    error = error_of(harness.node.submit(b"x"))
    assert isinstance(error, Overloaded)
    assert "4 commands would wait" in str(error)
    harness.reactor.idle()
    assert harness.node.status().waiting == 3
    assert other == []


def test_a_node_that_never_started_stops() -> None:
    reactor, store = Reactor(), RecordingStore()
    node = node_of(Recorder(), reactor, "a", ONE, store, rng=Random(1))
    waiting = node.submit(b"x")
    assert outcome_of(node.stop()) == [None]
    assert isinstance(error_of(waiting), OutcomeUnknown)
    reactor.spend(1.0)


# -------------------------------------------------------------- the application


def test_apply_that_raises(logged_errors: list[dict[str, Any]]) -> None:
    harness = alone()
    bad, good = harness.node.submit(b"!bad"), outcome_of(harness.node.submit(b"x"))
    harness.reactor.idle()
    error = error_of(bad)
    assert isinstance(error, CommandFailed)
    slot = harness.application.applied[0][0]
    assert str(error) == f"ValueError: no !bad at {slot}"
    assert good == ["x@2"]
    (event,) = logged_errors
    assert (event["slot"], event["command"]) == (slot, b"!bad")
    again = restarted(harness)
    again.reactor.idle()
    assert again.node.application.applied == harness.application.applied
    logged_errors.clear()


HOOKS = ("value_chosen", "leadership_acquired", "leadership_changed", "leadership_lost")


class Clumsy(Recorder):
    """Raises in every hook."""

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name not in HOOKS:
            return value

        def raises(*args: Any) -> None:
            value(*args)
            raise RuntimeError(f"clumsy {name}")

        raises.__name__ = name
        return raises


def test_hooks_that_raise_are_logged_and_stop_nothing(logged_errors: list[dict[str, Any]]) -> None:
    harness = NodeHarness("b", application=Clumsy)
    harness.hear("a", Heartbeat(LOW, 0, 1))
    harness.reactor.idle()
    harness.reactor.spend(1.0, lambda: len(harness.application.told) == 2)
    harness.node.stop()
    alone_bench = alone(application=Clumsy)
    asked = outcome_of(alone_bench.node.ask("king", b"Arthur"))
    assert submit(alone_bench, b"x") == ["x@1"]
    assert asked == [b"Arthur"]
    told = [name for name, *_ in harness.application.told + alone_bench.node.application.told]
    assert told == ["changed", "changed", "acquired", "changed", "chosen"]
    assert [event["hook"] for event in logged_errors] == [
        "leadership_changed",
        "leadership_changed",
        "leadership_acquired",
        "leadership_changed",
        "value_chosen",
    ]
    assert harness.failures == alone_bench.failures == []
    logged_errors.clear()


class Chain(Recorder):
    """Its ``apply`` submits the next command; the last one stops that."""

    def apply(self, slot: int, command: bytes) -> object:
        number = int(command)
        if number and len(self.applied) < 100:  # not when it is applied again at a restart
            self.submit(b"%d" % (number - 1))
        return super().apply(slot, command)


def test_apply_may_submit() -> None:
    harness = alone(application=Chain)
    assert submit(harness, b"50") == ["50@1"]
    harness.reactor.spend(1.0)
    assert [int(command) for _, command in harness.application.applied] == list(range(50, -1, -1))


def test_a_callback_may_submit() -> None:
    harness = alone()
    results: list[str] = []

    def on(result: str) -> Any:
        results.append(result)
        return harness.node.submit(b"x").addCallback(on) if len(results) < 300 else None

    harness.node.submit(b"x").addCallback(on)
    harness.reactor.spend(1.0)
    assert results == [f"x@{number}" for number in range(1, 301)]


def test_a_caller_that_never_pauses_leaves_the_reactor_its_turns() -> None:
    harness = alone()
    turns = 0

    def on(_: object) -> None:
        if turns < 10:
            harness.node.submit(b"x").addCallback(on)

    on(None)
    while turns < 10:
        turns += 1
        harness.reactor.turn()
    assert 0 < len(harness.application.applied) < 1000


@pytest.mark.parametrize("where", ["apply", "value_chosen", "leadership_acquired"])
def test_a_hook_may_stop_the_node(where: str) -> None:
    class Stops(Recorder):
        pass

    def stops(self: Any, *args: Any) -> None:
        self.stop()

    setattr(Stops, where, stops)
    harness = NodeHarness("a", ONE, application=Stops)
    waiting = [harness.node.submit(b"x"), harness.node.submit(b"y"), harness.node.ask("king", b"Arthur")]
    errors = [outcome_of(one) for one in waiting]
    harness.reactor.spend(1.0)
    assert harness.store.closes >= 1
    assert harness.failures == []
    failures = [one for outcome in errors for one in outcome if isinstance(one, Failure)]
    assert any(failure.check(OutcomeUnknown) for failure in failures)
    assert harness.reactor.getDelayedCalls() == []


def test_watchers_of_the_leader() -> None:
    harness = NodeHarness("b")
    seen: list[str | None] = []
    harness.node.watch_leader(lambda: seen.append(harness.node.leader))
    harness.hear("a", Heartbeat(LOW, 0, 1))
    harness.reactor.idle()
    harness.hear("c", Heartbeat(Ballot(2, "c"), 0, 1))
    harness.reactor.idle()
    assert seen == ["a", "c"]


# --------------------------------------------------------------------- limits


def test_too_large() -> None:
    harness = alone(command_limits=CommandLimits(command_bytes_max=10))
    for refused in (
        harness.node.submit(bytes(11)),
        harness.node.ask("king", bytes(11)),
        harness.node.ask("", b"x"),
        harness.node.ask("k" * (SUBJECT_BYTES_MAX + 1), b"x"),
        harness.node.ask("ö" * (SUBJECT_BYTES_MAX // 2 + 1), b"x"),
    ):
        error = error_of(refused)
        assert isinstance(error, ValueTooLarge)
        assert "\n" not in str(error)
    fits = [
        outcome_of(harness.node.submit(b"0123456789")),
        outcome_of(harness.node.ask("k" * SUBJECT_BYTES_MAX, bytes(10))),
    ]
    harness.reactor.idle()
    assert fits == [["0123456789@1"], [bytes(10)]]


def test_overloaded() -> None:
    harness = NodeHarness("b", command_limits=CommandLimits(waiting_commands_max=2))  # no node leads
    waiting = [harness.node.submit(b"x") for _ in range(2)]
    assert isinstance(error_of(harness.node.submit(b"x")), Overloaded)
    assert harness.node.status().waiting == 2
    harness.node.stop()
    assert all(isinstance(error_of(one), OutcomeUnknown) for one in waiting)


def test_stop_leaves_no_caller_waiting() -> None:
    harness = NodeHarness("b")
    waiting = [harness.node.submit(b"x"), harness.node.ask("king", b"Arthur"), harness.node.ask("king")]
    harness.reactor.idle()
    assert outcome_of(harness.node.stop()) == [None]
    waiting += [harness.node.submit(b"x"), harness.node.ask("king")]
    for one in waiting:
        error = error_of(one)
        assert isinstance(error, OutcomeUnknown)
        assert "node b" in str(error)
    harness.forget()
    assert outcome_of(harness.node.stop()) == [None]
    harness.hear("a", PrepareLog(LOW, 1))
    harness.reactor.spend(10.0)
    assert harness.events == []
    assert harness.reactor.getDelayedCalls() == []


def test_stop_while_a_save_is_under_way() -> None:
    harness = alone()
    harness.store.slow = True
    waiting = harness.node.submit(b"x")
    harness.reactor.idle()
    stopped = outcome_of(harness.node.stop())
    assert stopped == []
    harness.store.finish()
    harness.store.finish()
    assert stopped == [None]
    assert isinstance(error_of(waiting), OutcomeUnknown)
    assert harness.application.applied == []


# ------------------------------------------------------------------- questions


def test_a_subject_is_decided_once() -> None:
    harness = alone()
    asked = [outcome_of(harness.node.ask("king", value)) for value in (b"Arthur", b"Uther")]
    harness.reactor.idle()
    asked += [outcome_of(harness.node.ask("king", value)) for value in (b"Mordred", None)]
    harness.reactor.idle()
    assert asked == [[b"Arthur"]] * 4
    assert harness.application.told.count(("chosen", "king", b"Arthur")) == 1


def test_reading_decides_nothing() -> None:
    harness = alone()
    read = outcome_of(harness.node.ask("king"))
    harness.reactor.idle()
    assert read == [None]
    assert ("chosen", "king", b"") not in harness.application.told
    empty = outcome_of(harness.node.ask("king", b""))  # a value like any other
    harness.reactor.idle()
    assert empty == [b""]
    assert ("chosen", "king", b"") in harness.application.told


@pytest.mark.parametrize("is_sealing", [False, True])
def test_a_cancelled_question_is_asked_no_more(is_sealing: bool) -> None:
    """Whether it waits for a read index, or for the registers to be sealed. The request for a read index is answered
    once, whether or not a caller is left."""
    harness = NodeHarness("b")
    harness.hear("a", Heartbeat(LOW, 0, 1))
    question = harness.node.ask("king", b"Arthur")
    harness.reactor.spend(0.02)
    ((_, request),) = [one for one in harness.said() if isinstance(one[1], ReadIndexRequest)]
    assert isinstance(request, ReadIndexRequest)
    reply = ReadIndexReply(request.number, 0)
    if is_sealing:
        harness.hear("a", reply)
        harness.reactor.spend(0.02)
    assert (len(harness.node._reads), harness.node._sealing.is_needed) == (not is_sealing, is_sealing)
    question.cancel()
    assert isinstance(error_of(question), CancelledError)
    if not is_sealing:
        harness.hear("a", reply)
    harness.forget()
    for sequence in range(2, 22):
        harness.hear("a", Heartbeat(LOW, 0, sequence))
        harness.reactor.spend(0.25)
    assert set(harness.story()) == {"HeartbeatAck>a"}
    assert (len(harness.node._reads), harness.node._sealing.is_needed) == (0, False)


def test_one_of_two_questions_is_cancelled() -> None:
    harness = alone()
    harness.store.slow = True
    one, other = harness.node.ask("king", b"Arthur"), outcome_of(harness.node.ask("king", b"Uther"))
    one.addErrback(lambda _: None)
    harness.reactor.idle()
    one.cancel()
    harness.store.slow = False
    harness.store.finish()
    harness.reactor.idle()
    assert other == [b"Uther"], "the other one was cancelled before it was in the log"


def test_a_question_cancelled_while_the_node_stops() -> None:
    """As a connection does that loses one of its questions, and with it the others."""
    harness = NodeHarness("b")
    other: Deferred[Any] = Deferred()
    first = harness.node.ask("king", b"Arthur").addErrback(lambda _: other.cancel())
    other = harness.node.ask("queen", b"Guinevere").addErrback(lambda _: None)
    outcome = outcome_of(first)
    harness.node.stop()
    assert outcome == [None]


def test_a_caller_may_give_up() -> None:
    harness = alone()
    harness.store.slow = True
    one, two = harness.node.submit(b"x"), outcome_of(harness.node.submit(b"y"))
    one.addErrback(lambda _: None)
    harness.reactor.idle()
    one.cancel()
    harness.store.slow = False
    harness.store.finish()
    harness.reactor.idle()
    assert two == ["y@2"]
