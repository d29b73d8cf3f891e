"""One node: its whole life, what it promises its application, and what it does with all that goes wrong."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.helpers.fakes import (
    ONE,
    SESSION,
    Bench,
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
from txpaxos.core.messages import NO_OP, Ballot, Heartbeat, PrepareLog
from txpaxos.core.ready import Voted
from txpaxos.counter import Counter
from txpaxos.errors import CommandFailed, OutcomeUnknown, Overloaded, ValueTooLarge
from txpaxos.node.command_limits import CommandLimits
from txpaxos.protocol import PaxosProtocol
from txpaxos.wire.codec import SUBJECT_BYTES_MAX
from txpaxos.wire.commands import Run, decode_batch

LOW = Ballot(1, "a")


# ------------------------------------------------------------------ a life


def test_the_life_of_a_node_alone() -> None:
    bench = Bench("a", ONE)
    assert bench.node.leader is None
    bench.reactor.idle()
    assert bench.node.leader == "a"
    assert bench.application.told == [("acquired",), ("changed", None, "a")]
    assert submit(bench, b"x", b"y") == ["x@1", "y@2"]
    assert submit(bench, b"z") == ["z@3"]
    assert [command for _, command in bench.application.applied] == [b"x", b"y", b"z"]
    slots = [slot for slot, _ in bench.application.applied]
    assert slots[0] == slots[1] < slots[2]  # what comes in one turn shares a slot
    bench.reactor.spend(10.0)
    status = bench.node.status()
    assert (status.applied_through, status.waiting, status.counters) == (slots[2], 0, {})
    assert (status.replica.role, status.replica.leader, status.replica.chosen_through) == ("leader", "a", slots[2])
    assert outcome_of(bench.node.stop()) == [None]
    assert bench.store.closes == 1
    assert bench.reactor.getDelayedCalls() == []
    assert bench.said() == []
    assert bench.failures == []


def test_a_restart_applies_the_log_to_a_new_application() -> None:
    bench = alone()
    submit(bench, b"x", b"y")
    submit(bench, b"z")
    asked = outcome_of(bench.node.ask("king", b"Arthur"))
    outcome_of(bench.node.ask("queen"))  # asked about, but not decided
    bench.reactor.idle()
    assert asked == [b"Arthur"]
    again = restarted(bench)
    assert again.node.application.told == [("chosen", "king", b"Arthur")]
    assert len(again.node.application.applied) >= 2  # what it knew to be chosen; the rest when it leads again
    again.reactor.idle()
    assert again.node.application.applied == bench.application.applied
    assert again.node.application.told == [("chosen", "king", b"Arthur"), ("acquired",), ("changed", None, "a")]
    assert submit(again, b"w") == ["w@4"]


def test_a_restart_keeps_the_sessions() -> None:
    """A command sent again after the restart gets its first outcome."""
    run = Run(SESSION, 1, 0, (b"x",))
    bench = alone()
    first = outcome_of(bench.node.submit_run(run))
    bench.reactor.idle()
    submit(bench, b"y")
    again = restarted(bench)
    second = outcome_of(again.node.submit_run(run))
    again.reactor.idle()
    assert second == first
    assert [one for _, one in again.node.application.applied] == [b"x", b"y"]


def test_a_restart_after_nothing_was_finished() -> None:
    """What was proposed and saved, but not answered, is chosen after all; the caller could not know."""
    bench = alone()
    bench.store.slow = True
    waiting = bench.node.submit(b"x")
    bench.reactor.idle()
    again = Bench("a", ONE, [*bench.store.saved, *bench.store.saves[-1]])  # the vote got to the disk before the end
    again.reactor.idle()
    assert [command for _, command in again.node.application.applied] == [b"x"]
    bench.node.stop()
    assert isinstance(error_of(waiting), OutcomeUnknown)


def test_an_application_need_not_reimplement_anything() -> None:
    bench = alone(application=PaxosProtocol)
    asked = outcome_of(bench.node.ask("king", b"Arthur"))
    assert submit(bench, b"x") == [None]
    assert asked == [b"Arthur"]


def test_the_counter() -> None:
    bench = alone(application=Counter)
    assert submit(bench, b"5", b"+2", b" -10 ") == [5, 7, -3]
    again = restarted(bench, application=Counter)
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
    bench = alone()
    bench.forget()
    outcomes = [outcome_of(bench.node.submit(command)) for command in (b"x", b"y", b"z")]
    assert bench.events == []  # the turn is not over
    bench.reactor.idle()
    assert outcomes == [["x@1"], ["y@2"], ["z@3"]]
    (value,) = [
        one.value for save in bench.store.saves for one in save if isinstance(one, Voted) and one.value != NO_OP
    ]
    ((*_, payloads),) = decode_batch(value)
    assert payloads == (b"x", b"y", b"z")


def test_what_is_submitted_in_one_turn_is_limited_too() -> None:
    """Though none of it is in a run yet."""
    bench = Bench("b", command_limits=CommandLimits(waiting_commands_max=3, waiting_bytes_max=100))  # nobody leads
    other = outcome_of(bench.node.submit_run(Run(SESSION, 1, 0, (b"x",))))
    waiting = [bench.node.submit(bytes(50)) for _ in range(2)]
    assert isinstance(error_of(waiting[1]), Overloaded)
    assert not bench.node.submit(bytes(49)).called
    error = error_of(bench.node.submit(b"x"))
    assert isinstance(error, Overloaded)
    assert "4 commands would wait" in str(error)
    bench.reactor.idle()
    assert bench.node.status().waiting == 3
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
    bench = alone()
    bad, good = bench.node.submit(b"!bad"), outcome_of(bench.node.submit(b"x"))
    bench.reactor.idle()
    error = error_of(bad)
    assert isinstance(error, CommandFailed)
    slot = bench.application.applied[0][0]
    assert str(error) == f"ValueError: no !bad at {slot}"
    assert good == ["x@2"]
    (event,) = logged_errors
    assert (event["slot"], event["command"]) == (slot, b"!bad")
    again = restarted(bench)
    again.reactor.idle()
    assert again.node.application.applied == bench.application.applied
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
    bench = Bench("b", application=Clumsy)
    bench.hear("a", Heartbeat(LOW, 0, 1))
    bench.reactor.idle()
    bench.reactor.spend(1.0, lambda: len(bench.application.told) == 2)
    bench.node.stop()
    alone_bench = alone(application=Clumsy)
    asked = outcome_of(alone_bench.node.ask("king", b"Arthur"))
    assert submit(alone_bench, b"x") == ["x@1"]
    assert asked == [b"Arthur"]
    told = [name for name, *_ in bench.application.told + alone_bench.node.application.told]
    assert told == ["changed", "changed", "acquired", "changed", "chosen"]
    assert [event["hook"] for event in logged_errors] == [
        "leadership_changed",
        "leadership_changed",
        "leadership_acquired",
        "leadership_changed",
        "value_chosen",
    ]
    assert bench.failures == alone_bench.failures == []
    logged_errors.clear()


class Chain(Recorder):
    """Its ``apply`` submits the next command; the last one stops that."""

    def apply(self, slot: int, command: bytes) -> object:
        number = int(command)
        if number and len(self.applied) < 100:  # not when it is applied again at a restart
            self.submit(b"%d" % (number - 1))
        return super().apply(slot, command)


def test_apply_may_submit() -> None:
    bench = alone(application=Chain)
    assert submit(bench, b"50") == ["50@1"]
    bench.reactor.spend(1.0)
    assert [int(command) for _, command in bench.application.applied] == list(range(50, -1, -1))


def test_a_callback_may_submit() -> None:
    bench = alone()
    results: list[str] = []

    def on(result: str) -> Any:
        results.append(result)
        return bench.node.submit(b"x").addCallback(on) if len(results) < 300 else None

    bench.node.submit(b"x").addCallback(on)
    bench.reactor.spend(1.0)
    assert results == [f"x@{number}" for number in range(1, 301)]


def test_a_caller_that_never_pauses_leaves_the_reactor_its_turns() -> None:
    bench = alone()
    turns = 0

    def on(_: object) -> None:
        if turns < 10:
            bench.node.submit(b"x").addCallback(on)

    on(None)
    while turns < 10:
        turns += 1
        bench.reactor.turn()
    assert 0 < len(bench.application.applied) < 1000


@pytest.mark.parametrize("where", ["apply", "value_chosen", "leadership_acquired"])
def test_a_hook_may_stop_the_node(where: str) -> None:
    class Stops(Recorder):
        pass

    def stops(self: Any, *args: Any) -> None:
        self.stop()

    setattr(Stops, where, stops)
    bench = Bench("a", ONE, application=Stops)
    waiting = [bench.node.submit(b"x"), bench.node.submit(b"y"), bench.node.ask("king", b"Arthur")]
    errors = [outcome_of(one) for one in waiting]
    bench.reactor.spend(1.0)
    assert bench.store.closes >= 1
    assert bench.failures == []
    assert any(outcome and outcome[0].check(OutcomeUnknown) for outcome in errors if outcome[0] != b"Arthur")
    assert bench.reactor.getDelayedCalls() == []


def test_watchers_of_the_leader() -> None:
    bench = Bench("b")
    seen: list[str | None] = []
    bench.node.watch_leader(lambda: seen.append(bench.node.leader))
    bench.hear("a", Heartbeat(LOW, 0, 1))
    bench.reactor.idle()
    bench.hear("c", Heartbeat(Ballot(2, "c"), 0, 1))
    bench.reactor.idle()
    assert seen == ["a", "c"]


# --------------------------------------------------------------------- limits


def test_too_large() -> None:
    bench = alone(command_limits=CommandLimits(command_bytes_max=10))
    for refused in (
        bench.node.submit(bytes(11)),
        bench.node.ask("king", bytes(11)),
        bench.node.ask("", b"x"),
        bench.node.ask("k" * (SUBJECT_BYTES_MAX + 1), b"x"),
        bench.node.ask("ö" * (SUBJECT_BYTES_MAX // 2 + 1), b"x"),
    ):
        error = error_of(refused)
        assert isinstance(error, ValueTooLarge)
        assert "\n" not in str(error)
    fits = [
        outcome_of(bench.node.submit(b"0123456789")),
        outcome_of(bench.node.ask("k" * SUBJECT_BYTES_MAX, bytes(10))),
    ]
    bench.reactor.idle()
    assert fits == [["0123456789@1"], [bytes(10)]]


def test_overloaded() -> None:
    bench = Bench("b", command_limits=CommandLimits(waiting_commands_max=2))  # nobody leads
    waiting = [bench.node.submit(b"x") for _ in range(2)]
    assert isinstance(error_of(bench.node.submit(b"x")), Overloaded)
    assert bench.node.status().waiting == 2
    bench.node.stop()
    assert all(isinstance(error_of(one), OutcomeUnknown) for one in waiting)


def test_stop_leaves_nobody_waiting() -> None:
    bench = Bench("b")
    waiting = [bench.node.submit(b"x"), bench.node.ask("king", b"Arthur"), bench.node.ask("king")]
    bench.reactor.idle()
    assert outcome_of(bench.node.stop()) == [None]
    waiting += [bench.node.submit(b"x"), bench.node.ask("king")]
    for one in waiting:
        error = error_of(one)
        assert isinstance(error, OutcomeUnknown)
        assert "node b" in str(error)
    bench.forget()
    assert outcome_of(bench.node.stop()) == [None]
    bench.hear("a", PrepareLog(LOW, 1))
    bench.reactor.spend(10.0)
    assert bench.events == []
    assert bench.reactor.getDelayedCalls() == []


def test_stop_while_a_save_is_under_way() -> None:
    bench = alone()
    bench.store.slow = True
    waiting = bench.node.submit(b"x")
    bench.reactor.idle()
    stopped = outcome_of(bench.node.stop())
    assert stopped == []
    bench.store.finish()
    bench.store.finish()
    assert stopped == [None]
    assert isinstance(error_of(waiting), OutcomeUnknown)
    assert bench.application.applied == []


# ------------------------------------------------------------------- questions


def test_a_subject_is_decided_once() -> None:
    bench = alone()
    asked = [outcome_of(bench.node.ask("king", value)) for value in (b"Arthur", b"Uther", None)]
    bench.reactor.idle()
    asked.append(outcome_of(bench.node.ask("king", b"Mordred")))
    bench.reactor.idle()
    assert asked == [[b"Arthur"]] * 4
    assert bench.application.told.count(("chosen", "king", b"Arthur")) == 1


def test_reading_decides_nothing() -> None:
    bench = alone()
    read = outcome_of(bench.node.ask("king"))
    bench.reactor.idle()
    assert read == [None]
    assert ("chosen", "king", b"") not in bench.application.told
    empty = outcome_of(bench.node.ask("king", b""))  # a value like any other
    bench.reactor.idle()
    assert empty == [b""]
    assert ("chosen", "king", b"") in bench.application.told


def test_a_cancelled_question_is_asked_no_more() -> None:
    bench = Bench("b")
    question = bench.node.ask("king", b"Arthur")
    bench.reactor.spend(0.2)
    assert "AboutSubject>a" in bench.story()
    question.cancel()
    assert isinstance(error_of(question), CancelledError)
    bench.forget()
    bench.reactor.spend(5.0)
    assert "AboutSubject>a" not in bench.story()


def test_one_of_two_questions_is_cancelled() -> None:
    bench = alone()
    bench.store.slow = True
    one, other = bench.node.ask("king", b"Arthur"), outcome_of(bench.node.ask("king"))
    one.addErrback(lambda _: None)
    bench.reactor.idle()
    one.cancel()
    bench.store.slow = False
    bench.store.finish()
    bench.reactor.idle()
    assert other == [b"Arthur"]


def test_a_question_cancelled_while_the_node_stops() -> None:
    """As a connection does that loses one of its questions, and with it the others."""
    bench = Bench("b")
    other: Deferred[Any] = Deferred()
    first = bench.node.ask("king", b"Arthur").addErrback(lambda _: other.cancel())
    other = bench.node.ask("queen", b"Guinevere").addErrback(lambda _: None)
    outcome = outcome_of(first)
    bench.node.stop()
    assert outcome == [None]


def test_a_caller_may_give_up() -> None:
    bench = alone()
    bench.store.slow = True
    one, two = bench.node.submit(b"x"), outcome_of(bench.node.submit(b"y"))
    one.addErrback(lambda _: None)
    bench.reactor.idle()
    one.cancel()
    bench.store.slow = False
    bench.store.finish()
    bench.reactor.idle()
    assert two == ["y@2"]
