"""Chosen values are applied: each command once, in slot order, whatever ``apply`` does."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from txpaxos.core.messages import NO_OP, Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import ApplicationLost, CodecError, CommandFailed, OutcomeUnknown, SessionExpired
from txpaxos.node.applier import Applier
from txpaxos.node.registers import Registers
from txpaxos.node.sessions import TEXTS_MAX, Failed, Outcome, Sessions, encode_result, value_of
from txpaxos.node.timers import Timers
from txpaxos.replicated_time import ReplicatedTime
from txpaxos.wire.commands import Run, encode_batch, new_session
from txpaxos.wire.stamps import stamped

SESSION = new_session(bytes(16), 0)


class Journal:
    """An application that notes what it applies and answers with how many that were."""

    def __init__(self) -> None:
        self.applied: list[tuple[Slot, bytes]] = []
        self.applier = Applier(self._apply, timer_fired=self._timer_fired)

    def choose(self, slot: Slot, *runs: Run) -> list[Outcome]:
        """The outcomes of a value that holds ``runs``, one for each command."""
        return [outcome for _, outcomes in self.applier.apply(Chosen(slot, encode_batch(runs))) for outcome in outcomes]

    def choose_at(self, slot: Slot, elapsed_ms: int, *runs: Run) -> list[Outcome]:
        """The same of a value with a time."""
        value = stamped(ReplicatedTime(elapsed_ms), encode_batch(runs))
        return [outcome for _, outcomes in self.applier.apply(Chosen(slot, value)) for outcome in outcomes]

    def _timer_fired(self, slot: Slot, name: str, payload: bytes) -> None:
        self.applied.append((slot, b"fired " + name.encode()))
        if payload in ENDINGS:
            raise ENDINGS[payload]
        if payload == b"unspeakable":
            raise Unspeakable
        if payload == b"again":
            self.applier.timers.set(name, 1, payload)

    def _apply(self, slot: Slot, payload: bytes) -> object:
        self.applied.append((slot, payload))
        if payload.startswith(b"after "):
            _, seconds, name, what = payload.split()
            self.applier.timers.set(name.decode(), float(seconds), what)
        if payload == b"unspeakable":
            raise Unspeakable
        if payload in ENDINGS:
            raise ENDINGS[payload]
        if payload.startswith(b"!"):
            raise ValueError("no such thing")
        return len(self.applied)


ENDINGS = {
    b"exit": SystemExit("an application that calls sys.exit"),
    b"cancelled": GeneratorExit(),
    b"memory": MemoryError(),
    b"interrupt": KeyboardInterrupt(),
}


class Unspeakable(Exception):
    """An exception that raises when it is asked what is wrong."""

    def __str__(self) -> str:
        raise RuntimeError("unspeakable")

    __repr__ = __str__


@pytest.fixture
def journal() -> Journal:
    return Journal()


def command(sequence: int, payload: bytes = b"x", acknowledged: int = 0) -> Run:
    """A run of one."""
    return Run(SESSION, sequence, acknowledged, (payload,))


def result(value: object) -> Outcome:
    return encode_result(value)


def test_commands_of_a_value_in_their_order(journal: Journal) -> None:
    assert journal.choose(1, command(1, b"a"), command(2, b"b")) == [result(1), result(2)]
    assert journal.choose(2, command(3, b"c")) == [result(3)]
    assert journal.applied == [(1, b"a"), (1, b"b"), (2, b"c")]
    assert journal.applier.applied_through == 2


def test_each_command_comes_with_its_outcome(journal: Journal) -> None:
    one, two = command(1), command(2)
    pairs = list(journal.applier.apply(Chosen(1, encode_batch([one, two]))))
    assert pairs == [(one, [result(1)]), (two, [result(2)])]


def test_a_run_comes_with_all_its_outcomes(journal: Journal, logged_errors: list[dict[str, Any]]) -> None:
    """Of those applied before, the first."""
    journal.choose(1, command(2, b"b"))
    run = Run(SESSION, 1, 0, (b"a", b"another b", b"!", b"c"))
    failed = Failed(CommandFailed, "ValueError")
    assert list(journal.applier.apply(Chosen(2, encode_batch([run])))) == [
        (run, [result(2), result(1), failed, result(4)])
    ]
    assert journal.applied == [(1, b"b"), (2, b"a"), (2, b"!"), (2, b"c")]
    logged_errors.clear()


def test_a_no_op_is_nothing_to_the_application(journal: Journal) -> None:
    assert list(journal.applier.apply(Chosen(1, NO_OP))) == []
    assert journal.applied == []
    assert journal.applier.applied_through == 1


def test_the_same_command_again_gets_the_first_outcome(journal: Journal) -> None:
    one = command(1, b"a")
    assert journal.choose(1, one) == [result(1)]
    assert journal.choose(2, one, command(2, b"b"), one) == [result(1), result(2), result(1)]
    assert journal.applied == [(1, b"a"), (2, b"b")]


def test_twice_in_one_value(journal: Journal) -> None:
    one = command(1, b"a")
    assert journal.choose(1, one, one) == [result(1), result(1)]
    assert journal.applied == [(1, b"a")]


def test_an_outcome_that_was_acknowledged_is_gone(journal: Journal) -> None:
    journal.choose(1, command(1), command(2, acknowledged=1))
    (outcome,) = journal.choose(2, command(1))
    assert isinstance(outcome, Failed)
    assert outcome.error is OutcomeUnknown
    assert len(journal.applied) == 2


def test_an_exception_is_an_outcome(journal: Journal, logged_errors: list[dict[str, Any]]) -> None:
    failed = Failed(CommandFailed, "ValueError")
    assert journal.choose(1, command(1, b"!"), command(2)) == [failed, result(2)]
    assert journal.choose(2, command(1, b"!")) == [failed]  # counts as applied: it is not tried again
    assert journal.applied == [(1, b"!"), (1, b"x")]
    (event,) = logged_errors
    assert (event["slot"], event["command"]) == (1, b"!")
    assert event["log_failure"].check(ValueError)
    logged_errors.clear()


def test_an_exception_without_words_is_an_outcome(journal: Journal, logged_errors: list[dict[str, Any]]) -> None:
    """Or it would end every node of the cluster at this slot, and again at each restart."""
    assert journal.choose(1, command(1, b"unspeakable")) == [Failed(CommandFailed, "Unspeakable")]
    assert journal.applier.applied_through == 1
    logged_errors.clear()


@pytest.mark.parametrize(("payload", "reason"), [(b"exit", "SystemExit"), (b"cancelled", "GeneratorExit")])
def test_what_would_end_a_process_is_an_outcome(
    journal: Journal, logged_errors: list[dict[str, Any]], payload: bytes, reason: str
) -> None:
    """Or the command would end every node, and again at each start."""
    assert journal.choose(1, command(1, payload), command(2)) == [Failed(CommandFailed, reason), result(2)]
    assert journal.applier.applied_through == 1
    logged_errors.clear()


@pytest.mark.parametrize(("payload", "name"), [(b"memory", "MemoryError"), (b"interrupt", "KeyboardInterrupt")])
def test_what_happens_to_this_process_alone_is_no_outcome(journal: Journal, payload: bytes, name: str) -> None:
    """Another node may have applied the command well. This one must not record that it failed."""
    with pytest.raises(ApplicationLost, match=f"^{name} while slot 1 was applied"):
        journal.choose(1, command(1, payload))
    assert journal.applier.applied_through == 0
    assert journal.applier.sessions.outcomes(command(1, payload)) == [None]


def test_what_an_exception_says_is_told_and_not_kept(logged_errors: list[dict[str, Any]]) -> None:
    """Nodes that word the same exception differently stay equal; each tells its caller what it knows."""
    tables = []
    for words in ("<Key object at 0x7f01>", "<Key object at 0x7f02>"):

        def apply(slot: Slot, payload: bytes, words: str = words) -> object:
            raise KeyError(words)

        applier = Applier(apply)
        ((_, (outcome,)),) = applier.apply(Chosen(1, encode_batch([command(1)])))
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.words) == ("KeyError", f"KeyError: {words!r}")
        (again,) = applier.sessions.outcomes(command(1))
        assert isinstance(again, Failed)
        assert again.words == outcome.words  # It is still remembered here.
        tables.append(applier.sessions)
    dumps = [list(table.dump()) for table in tables]
    assert dumps[0] == dumps[1]
    taken_over = Sessions()
    taken_over.load(dumps[0])
    (kept,) = taken_over.outcomes(command(1))
    assert isinstance(kept, Failed)
    assert kept.words == "KeyError"
    logged_errors.clear()


def test_texts_have_a_limit(logged_errors: list[dict[str, Any]]) -> None:
    def apply(slot: Slot, payload: bytes) -> object:
        raise ValueError("no")

    applier = Applier(apply)
    slots = range(1, TEXTS_MAX + 3)
    for slot in slots:
        list(applier.apply(Chosen(slot, encode_batch([command(slot)]))))
    words = [one.words for one in applier.sessions.outcomes(Run(SESSION, 1, 0, (b"x",) * len(slots))) if one]  # type: ignore[union-attr]
    assert words == ["ValueError"] * 2 + ["ValueError: no"] * TEXTS_MAX
    logged_errors.clear()


def test_a_set_is_the_same_result_on_every_node() -> None:
    """The order of a set of texts differs from process to process."""
    results = []
    for names in (["a", "b", "c", "d"], ["d", "c", "b", "a"]):

        def apply(slot: Slot, payload: bytes, names: list[str] = names) -> object:
            return {"names": set(names)}

        applier = Applier(apply)
        ((_, (outcome,)),) = applier.apply(Chosen(1, encode_batch([command(1)])))
        results.append(value_of(outcome))
    assert results == [{"names": ["a", "b", "c", "d"]}] * 2


@pytest.mark.parametrize("deeper", [0, 100, 700])
def test_a_command_has_the_same_depth_of_calls_wherever_it_is_applied(
    deeper: int, logged_errors: list[dict[str, Any]]
) -> None:
    """An endless recursion leaves the same behind on each node, also when a start applies the log again."""
    depths: list[int] = []

    def recurse(slot: Slot, payload: bytes) -> object:
        depths[-1] += 1
        return recurse(slot, payload)

    def apply_below(applier: Applier, calls: int) -> list[Outcome]:
        if calls:
            return apply_below(applier, calls - 1)
        return [one for _, outcomes in applier.apply(Chosen(1, encode_batch([command(1)]))) for one in outcomes]

    observed = Applier(recurse, reached=lambda slot, command: None)
    for applier, calls in ((Applier(recurse), 0), (Applier(recurse), deeper), (observed, deeper)):
        depths.append(0)
        before = sys.getrecursionlimit()
        assert apply_below(applier, calls) == [Failed(CommandFailed, "RecursionError")]
        assert sys.getrecursionlimit() == before
    assert depths[0] == depths[1] == depths[2] > 500
    logged_errors.clear()


def test_a_long_command_is_not_logged_whole(journal: Journal, logged_errors: list[dict[str, Any]]) -> None:
    journal.choose(1, command(1, b"!" + bytes(100_000)))
    assert len(logged_errors[0]["command"]) <= 100
    logged_errors.clear()


@pytest.mark.parametrize("slot", [0, 2])
def test_slots_come_one_after_the_other(journal: Journal, slot: Slot) -> None:
    with pytest.raises(AssertionError):
        journal.choose(slot, command(1))
    assert journal.applied == []


def test_a_value_that_is_no_batch_is_refused(journal: Journal) -> None:
    with pytest.raises(CodecError):
        list(journal.applier.apply(Chosen(1, b"no batch")))
    assert journal.applier.applied_through == 0


def test_a_command_of_a_forgotten_session_is_not_applied(journal: Journal) -> None:
    journal.applier.sessions = Sessions(sessions_max=1)
    other = Run(new_session(b"1" * 16, 0), 1, 0, (b"y",))
    journal.choose(1, command(1))
    journal.choose(2, other)
    (outcome,) = journal.choose(3, command(1))
    assert isinstance(outcome, Failed)
    assert outcome.error is SessionExpired
    assert journal.applied == [(1, b"x"), (2, b"y")]
    assert journal.choose(4, other) == [result(2)]  # the other session is as it was
    assert journal.applier.applied_through == 4


def test_a_result_is_what_it_was_when_it_was_returned() -> None:
    """Though the application goes on changing what it returned."""
    total = [0]

    def apply(slot: Slot, payload: bytes) -> object:
        total[0] += 1
        return total

    applier = Applier(apply)
    ((_, outcomes),) = applier.apply(Chosen(1, encode_batch([command(1)])))
    list(applier.apply(Chosen(2, encode_batch([command(2)]))))
    assert outcomes == [result([1])]


def test_it_goes_on_from_a_snapshot(journal: Journal) -> None:
    sessions = Sessions()
    sessions.apply_once(7, command(1), lambda *_: result("before"))
    journal.applier.install(7, sessions, Registers(), Timers())
    assert journal.applier.applied_through == 7
    assert journal.choose(8, command(1), command(2)) == [result("before"), result(1)]
    assert journal.applied == [(8, b"x")]


def test_timers_fire_before_the_commands_of_a_value(journal: Journal) -> None:
    journal.choose_at(1, 0, command(1, b"after 1.0 close x"))
    journal.choose_at(2, 999, command(2, b"a"))
    journal.choose_at(3, 1000, command(3, b"b"))
    assert journal.applied[1:] == [(2, b"a"), (3, b"fired close"), (3, b"b")]
    assert journal.applier.timers.now == ReplicatedTime(1000)


def test_a_value_without_commands_makes_timers_fire(journal: Journal) -> None:
    journal.choose_at(1, 0, command(1, b"after 1.0 tick again"))
    for slot in range(2, 6):
        assert journal.choose_at(slot, slot * 600) == []
    # Each counts from the time at which it is set.
    assert journal.applied[1:] == [(2, b"fired tick"), (4, b"fired tick")]


def test_a_value_of_a_deposed_leader_turns_no_time_back(journal: Journal) -> None:
    journal.choose_at(1, 5000, command(1, b"after 1.0 close x"))
    journal.choose_at(2, 4000, command(2, b"after 1.0 open x"))
    assert journal.applier.timers.next_due_ms == 6000
    assert journal.applier.timers.due_in_seconds("open") == 1.0


@pytest.mark.parametrize("ending", [b"exit", b"cancelled", b"unspeakable"])
def test_a_timer_that_raises_is_logged_and_has_fired(journal: Journal, ending: bytes, logged_errors: list[Any]) -> None:
    journal.choose_at(1, 0, command(1, b"after 1.0 a " + ending), command(2, b"after 2.0 b x"))
    journal.choose_at(2, 2000, command(3, b"then"))
    assert journal.applied[2:] == [(2, b"fired a"), (2, b"fired b"), (2, b"then")]
    assert len(logged_errors) == 1
    logged_errors.clear()


@pytest.mark.parametrize("ending", [b"memory", b"interrupt"])
def test_a_timer_during_which_the_process_is_lost_fires_again(journal: Journal, ending: bytes) -> None:
    journal.choose_at(1, 0, command(1, b"after 1.0 a " + ending))
    with pytest.raises(ApplicationLost, match="while slot 2 was applied"):
        journal.choose_at(2, 2000)
    assert journal.applier.applied_through == 1


def test_timers_are_not_set_between_two_values(journal: Journal) -> None:
    journal.choose_at(1, 0, command(1, b"a"))
    with pytest.raises(RuntimeError):
        journal.applier.timers.set("a", 1)


def test_a_value_with_a_senseless_time_is_applied_as_nothing(journal: Journal, logged_errors: list[Any]) -> None:
    value = b"T" + b"\xff" * 16 + encode_batch([command(1, b"a")])
    assert not journal.applier.admits(value, chosen=True)
    assert list(journal.applier.apply(Chosen(1, value))) == []
    assert (journal.applied, journal.applier.applied_through) == ([], 1)
    logged_errors.clear()
