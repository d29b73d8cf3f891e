"""What comes from outside is escaped, cut and counted before it gets into the log."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from twisted.logger import FileLogObserver, LogLevel, formatEventAsClassicLogText, globalLogPublisher
from twisted.python.failure import Failure

from test.helpers.fakes import NodeHarness, logged
from test.helpers.submissions_harness import command
from txpaxos.core.messages import Ballot, Heartbeat
from txpaxos.core.ready import Chosen
from txpaxos.log_lines import (
    INTERVAL_SECONDS,
    LINES_MAX,
    REASON_CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    LineLimiter,
    for_log,
    printable,
)
from txpaxos.node.applier import Applier
from txpaxos.wire.commands import encode_batch

NASTY = "\x1b[2J\r\n2026-01-01 all is well\x00\x07\u202e\ud800"


def written(act: Callable[[], object]) -> str:
    """What ``act`` brings into a log file."""
    file = io.StringIO()
    observer = FileLogObserver(file, lambda event: formatEventAsClassicLogText(event) or "")
    globalLogPublisher.addObserver(observer)
    try:
        act()
    finally:
        globalLogPublisher.removeObserver(observer)
    return file.getvalue()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain, größer", "plain, größer"),
        (NASTY, "\\x1b[2J\\r\\n2026-01-01 all is well\\x00\\x07\\u202e\\ud800"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 200 + "... (201 characters)"),
        ("\x00" * 10**6, "\\x00" * 200 + "... (1000000 characters)"),
    ],
)
def test_printable(text: str, line: str) -> None:
    assert TEXT_CHARACTERS_MAX == 200
    assert printable(text) == line


def raise_deep(depth: int, error: Exception) -> None:
    if depth:
        raise_deep(depth - 1, error)
    raise error


class Rude(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [ValueError(NASTY * 10**5), Rude()])
def test_a_failure_for_the_log(error: Exception) -> None:
    try:
        raise_deep(300, error)
    except Exception:
        failure = for_log()
    text = failure.getTraceback()
    assert failure.check(type(error))
    assert "in raise_deep" in text or "raise_deep" in text
    assert type(error).__name__ in text
    assert len(text) < 4 * REASON_CHARACTERS_MAX + 5000
    assert not set(text) & {"\x1b", "\x00", "\r", "\u202e"}


def test_a_failure_of_before() -> None:
    assert "\\x1b" in for_log(Failure(ValueError("\x1b"))).getTraceback()


def test_lines_alike_are_counted_and_written_now_and_then() -> None:
    now = 0.0
    lines = LineLimiter(lambda: now)
    assert [lines.admits("a") for _ in range(100)] == [""] * LINES_MAX + [None] * (100 - LINES_MAX)
    assert lines.admits("b") == ""
    now = INTERVAL_SECONDS - 0.1
    assert lines.admits("a") is None
    now = INTERVAL_SECONDS
    assert lines.admits("a") == f" ({101 - LINES_MAX} lines like this were left out before it)"
    assert [lines.admits("a") for _ in range(100)] == [""] * (LINES_MAX - 1) + [None] * (101 - LINES_MAX)
    now = 3 * INTERVAL_SECONDS
    assert lines.admits("b") == ""


def test_bad_commands_write_little(logged_errors: list[dict[str, Any]]) -> None:
    """However many there are, whatever is in them, and whatever ``apply`` says of them."""

    def apply(slot: int, payload: bytes) -> object:
        raise ValueError(f"no number: {payload.decode(errors='surrogateescape')}")

    applier = Applier(apply)
    payload = NASTY.encode(errors="replace") * 10**5

    def run() -> None:
        for slot in range(1, 200):
            for _ in applier.apply(Chosen(slot, encode_batch([command(slot, payload)]))):
                pass

    text = written(run)
    assert text.count("apply raised at slot") == LINES_MAX
    assert len(text) < LINES_MAX * 10_000
    assert not set(text) & {"\x1b", "\x00", "\r", "\u202e"}
    assert not [line for line in text.split("\n") if line.startswith("2026-01-01 all")]
    assert len(logged_errors) == LINES_MAX
    logged_errors.clear()


def test_leaders_that_change_again_and_again_write_little() -> None:
    """A forger of heartbeats can have them do so five thousand times a second."""
    harness = NodeHarness("b")

    def run() -> None:
        for number in range(1, 1001):
            harness.hear("ac"[number % 2], Heartbeat(Ballot(number, "ac"[number % 2]), 0, number))
            harness.reactor.idle()

    events = logged(run, LogLevel.info)
    assert harness.node.leader == "a"
    assert len(events) <= 2 * LINES_MAX
