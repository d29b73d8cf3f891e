"""The recorder writes what happened, in the order in which it happened, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from txpaxos.errors import CommandFailed, NotChosen, OutcomeUnknown, Overloaded, SessionExpired, ValueTooLarge
from txpaxos.testing.linearizability.history import (
    UNKNOWN,
    HistoryError,
    HistoryEvent,
    HistoryRecorder,
    freeze,
    pair,
    read_history,
)

INVOKE = '{"time":0.0,"client":"a","operation":1,"type":"invoke","input":["read"]}'
OK = '{"time":1.5,"client":"a","operation":1,"type":"ok","output":7}'

DEEP = INVOKE.replace('["read"]', "[" * 700 + "]" * 700)


def outcome(deferred: Deferred[Any]) -> Any:
    """What ``deferred`` fired with, now; an error is returned."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    (result,) = results
    return result


def write(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def test_what_is_recorded_is_read(tmp_path: Path) -> None:
    clock, path = Clock(), str(tmp_path / "history.jsonl")
    recorder = HistoryRecorder(clock, path)
    answer: Deferred[int] = Deferred()
    slow = recorder.record("a", ["read"], lambda: answer)
    clock.advance(1.5)
    assert outcome(recorder.record("b", ["write", 5], lambda: succeed("done"), output=lambda result: None)) == "done"
    clock.advance(0.5)
    answer.callback(5)
    recorder.close()
    assert outcome(slow) == 5
    assert [*Path(path).read_text().splitlines()] == [
        '{"time":0.0,"client":"a","operation":1,"type":"invoke","input":["read"]}',
        '{"time":1.5,"client":"b","operation":1,"type":"invoke","input":["write",5]}',
        '{"time":1.5,"client":"b","operation":1,"type":"ok","output":null}',
        '{"time":2.0,"client":"a","operation":1,"type":"ok","output":5}',
    ]
    assert read_history(path) == recorder.events
    first, second = recorder.operations()
    assert (first.client, first.number, first.input, first.output, first.outcome) == ("a", 1, ("read",), 5, "ok")
    assert (first.invoked, first.returned, first.invoked_seconds, first.returned_seconds) == (1, 4, 0.0, 2.0)
    assert (second.client, second.input, second.output, second.invoked, second.returned) == (
        ("b", ("write", 5), None, 2, 3)
    )


@pytest.mark.parametrize(
    ("error", "type"),
    [
        (Overloaded("too much"), "fail"),
        (ValueTooLarge("too large"), "fail"),
        (NotChosen("never sent"), "fail"),
        (SessionExpired("forgotten"), "unknown"),
        (OutcomeUnknown("who knows"), "unknown"),
        (CommandFailed("ValueError"), "unknown"),
        (RuntimeError("a bug"), "unknown"),
    ],
)
def test_an_error_is_recorded_and_passed_on(error: Exception, type: str) -> None:
    recorder = HistoryRecorder(Clock())
    assert outcome(recorder.record("a", ["read"], lambda: fail(error))) is error
    assert recorder.events[1] == HistoryEvent(0.0, "a", 1, type, error=f"{error.__class__.__name__}: {error}")  # type: ignore[arg-type]
    (operation,) = recorder.operations()
    assert operation.outcome == type
    assert operation.output is UNKNOWN
    assert operation.returned == (2 if type == "fail" else None)


def test_errors_that_promise_that_nothing_was_applied_can_be_named() -> None:
    recorder = HistoryRecorder(Clock(), not_applied=(LookupError,))
    outcome(recorder.record("a", 1, lambda: fail(KeyError("a key"))))
    outcome(recorder.record("a", 2, lambda: fail(Overloaded("too much"))))
    assert [operation.outcome for operation in recorder.operations()] == ["fail", "unknown"]


def test_cancelled_operation_may_have_been_applied() -> None:
    recorder = HistoryRecorder(Clock())
    deferred = recorder.record("a", 1, Deferred)
    deferred.cancel()
    assert isinstance(outcome(deferred), CancelledError)
    assert [event.type for event in recorder.events] == ["invoke", "unknown"]


def test_coroutines_and_plain_functions_are_recorded() -> None:
    async def increment() -> int:
        return await succeed(4) + 1

    def broken() -> int:
        raise ZeroDivisionError("division by zero")

    recorder = HistoryRecorder(Clock())
    assert outcome(recorder.record("a", 1, increment)) == 5
    assert outcome(recorder.record("a", 2, lambda: 6)) == 6
    assert isinstance(outcome(recorder.record("a", 3, broken)), ZeroDivisionError)
    assert [(each.number, each.outcome, each.output) for each in recorder.operations()] == [
        (1, "ok", 5),
        (2, "ok", 6),
        (3, "unknown", UNKNOWN),
    ]


def test_operation_that_never_ends_has_an_unknown_outcome() -> None:
    recorder = HistoryRecorder(Clock())
    recorder.record("a", 1, Deferred)
    (operation,) = recorder.operations()
    assert (operation.outcome, operation.output, operation.returned) == ("unknown", UNKNOWN, None)


def test_memory_and_file_hold_the_same_values(tmp_path: Path) -> None:
    recorder = HistoryRecorder(Clock(), str(tmp_path / "history"))
    recorder.record("a", ("put", b"\x00key", {"x": (1, 2.5)}), lambda: b"\x00key")
    recorder.close()
    (operation,) = recorder.operations()
    (read,) = pair(read_history(str(tmp_path / "history")))
    assert operation.input == read.input == ("put", "AGtleQ==", {"x": (1, 2.5)})
    assert operation.output == "AGtleQ=="
    assert hash(operation.input) == hash(read.input)


def test_frozen_json_can_be_hashed() -> None:
    assert freeze([1, [2, {"a": [3]}], None]) == (1, (2, {"a": (3,)}), None)
    assert len({freeze({"a": [1], "b": 2}), freeze({"b": 2, "a": [1]}), freeze({"a": [1]})}) == 2


def test_nothing_begins_that_cannot_be_recorded(tmp_path: Path) -> None:
    begun: list[int] = []
    recorder = HistoryRecorder(Clock(), str(tmp_path / "history"))
    with pytest.raises(HistoryError, match="client a, operation 1: JSON cannot carry it"):
        recorder.record("a", object(), lambda: begun.append(1))
    assert begun == []
    assert recorder.record("a", "fine", lambda: 1).result == 1
    recorder.close()
    assert [(each.operation, each.type) for each in read_history(str(tmp_path / "history"))] == [
        (1, "invoke"),
        (1, "ok"),
    ]


def test_client_without_a_proper_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    recorder = HistoryRecorder(Clock(), str(tmp_path / "history"))
    with pytest.raises(HistoryError, match="client 3, operation 1: "):
        recorder.invoke(3, ["read"])  # type: ignore[arg-type]
    recorder.close()
    assert read_history(str(tmp_path / "history")) == []


def test_output_that_cannot_be_recorded_is_an_error_and_leaves_the_outcome_open() -> None:
    recorder = HistoryRecorder(Clock())
    assert isinstance(outcome(recorder.record("a", 1, object)), HistoryError)
    assert [operation.outcome for operation in recorder.operations()] == ["unknown"]


def test_end_that_comes_after_the_file_was_closed_is_an_error(tmp_path: Path) -> None:
    recorder = HistoryRecorder(Clock(), str(tmp_path / "history"))
    answer: Deferred[int] = Deferred()
    late = recorder.record("a", 1, lambda: answer)
    recorder.close()
    recorder.close()
    answer.callback(1)
    assert "is closed" in str(outcome(late))


def test_processes_may_share_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "history")
    one, other = HistoryRecorder(Clock(), path), HistoryRecorder(Clock(), path, append=True)
    answer: Deferred[int] = Deferred()
    one.record("a", 1, lambda: answer)
    other.record("b", 2, lambda: 3)
    answer.callback(4)
    one.close()
    other.close()
    assert [(each.client, each.invoked, each.returned) for each in pair(read_history(path))] == [
        ("a", 1, 4),
        ("b", 2, 3),
    ]


def test_history_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "history", INVOKE)
    with pytest.raises(HistoryError, match="history is there already: remove it, or record to another file"):
        HistoryRecorder(Clock(), path)
    assert Path(path).read_text() == INVOKE + "\n"


def test_file_that_cannot_be_created(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"cannot record to .*No such file"):
        HistoryRecorder(Clock(), str(tmp_path / "absent" / "history"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_full_disk_is_told_before_the_operation_begins() -> None:
    recorder = HistoryRecorder(Clock(), "/dev/full", append=True)
    with pytest.raises(HistoryError, match="cannot record to /dev/full: No space left"):
        recorder.record("a", 1, lambda: pytest.fail("begun"))
    assert recorder.events == []
    recorder.close()


def test_part_of_a_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = HistoryRecorder(Clock(), str(tmp_path / "history"))
    real_write: Callable[[int, bytes], int] = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real_write(file, data[:9]))
    with pytest.raises(HistoryError, match="only part of a line"):
        recorder.invoke("a", 1)
    recorder.close()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "junk",
        INVOKE[:-1],
        INVOKE + OK,
        "[]",
        INVOKE.replace("invoke", "ask"),
        INVOKE.replace('"a"', "3"),
        INVOKE.replace('"operation":1,', ""),
        INVOKE.replace('["read"]', "[" * 100_000 + "]" * 100_000),
        INVOKE.replace("read", "\udcff"),
    ],
)
def test_line_that_is_no_event(tmp_path: Path, line: str) -> None:
    path = tmp_path / "history"
    path.write_bytes(f"{INVOKE}\n{line}\n{OK}\n".encode(errors="surrogateescape"))
    with pytest.raises(HistoryError, match=rf"^{path}, line 2 is no event: "):
        read_history(str(path))


def test_what_else_stands_in_a_line_is_let_through(tmp_path: Path) -> None:
    path = write(tmp_path / "history", INVOKE.replace('"client"', '"node":"n1","client"'), OK)
    assert [event.type for event in read_history(path)] == ["invoke", "ok"]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"cannot read .*absent: No such file"):
        read_history(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((INVOKE, INVOKE), "line 2: operation 1 of client 'a' is invoked twice"),
        ((OK,), "line 1: operation 1 of client 'a' ends and was not invoked"),
        ((INVOKE, OK, OK), "line 3: operation 1 of client 'a' ends twice"),
        ((INVOKE, OK.replace('"ok"', '"unknown"'), OK), "line 3: operation 1 of client 'a' ends twice"),
        ((DEEP,), "line 1: the input or output is nested too deeply"),
        ((INVOKE, OK.replace('"a"', '"b"')), "line 2: operation 1 of client 'b' ends and was not invoked"),
    ],
)
def test_events_that_do_not_fit_together(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(HistoryError) as error:
        pair(read_history(write(tmp_path / "history", *lines)))
    assert str(error.value) == message
