"""Watched queries: the newest answer comes, in order, and nothing is left of those who have gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred

from test.helpers.fakes import alone
from txpaxos import QueryFailed, Service, ServiceError, application_of, command, encode_call, query, state, watch
from txpaxos.errors import CallRefused
from txpaxos.service.watches import WAIT_SECONDS, Watches, encode_watch
from txpaxos.testing import ServicesHarness


class Closed(ServiceError):
    """There is no such board."""


class Board(Service):
    """Lines under headings."""

    lines: dict[str, list[str]] = state(dict)
    asked: list[str] = state(list)  # Changed by a query, which only a test may do.

    @command
    def write(self, heading: str, line: str) -> None:
        self.lines.setdefault(heading, []).append(line)
        self.changed(f"heading {heading}")

    @command
    def wipe(self, heading: str) -> None:
        self.lines.pop(heading, None)
        self.changed(f"heading {heading}")

    @command
    def write_later(self, heading: str) -> None:
        self.timers.set(heading, 5.0)

    @command
    def write_and_fail(self, heading: str) -> None:
        self.lines.setdefault(heading, []).append("half")
        raise ValueError("it has changed something before")

    def timer_fired(self, name: str, payload: bytes) -> None:
        self.lines.setdefault(name, []).append("at last")

    @query(topic="heading {heading}", raises=Closed)
    def under(self, heading: str) -> list[str]:
        self.asked.append(heading)
        if heading not in self.lines:
            raise Closed(heading)
        return self.lines[heading]

    @query
    def total(self) -> int:
        return sum(map(len, self.lines.values()))


class Watcher:
    """Takes what a watch gives, one answer after the other."""

    def __init__(self, watched: Any) -> None:
        self.watched = watched
        self.got: list[Any] = []
        self._go_on()

    def _go_on(self) -> None:
        self.waiting: Deferred[Any] = self.watched.next()
        self.waiting.addCallbacks(self._take, self._fail)

    def _take(self, answer: Any) -> None:
        self.got.append(answer)
        self._go_on()

    def _fail(self, failure: Any) -> None:
        self.got.append(failure.value)
        if not isinstance(failure.value, CancelledError | StopAsyncIteration):
            self._go_on()


def boards() -> tuple[ServicesHarness, Any]:
    harness = ServicesHarness(Board)
    return harness, harness.service(Board)


def test_the_first_answer_and_each_other_one() -> None:
    _, board = boards()
    watcher = Watcher(watch(board.total))
    for line in ("one", "two"):
        board.write("news", line)
    board.wipe("other")
    assert watcher.got == [0, 1, 2]


def test_an_error_is_an_answer_and_the_watch_goes_on() -> None:
    _, board = boards()
    watcher = Watcher(watch(board.under, "news"))
    board.write("news", "one")
    board.wipe("news")
    board.wipe("news")
    board.write("news", "two")
    closed, one, again, two = watcher.got
    assert (type(closed), type(again), one, two) == (Closed, Closed, ["one"], ["two"])


def test_another_topic_costs_nothing() -> None:
    harness, board = boards()
    watchers = [Watcher(watch(board.under, f"{number}")) for number in range(100)]
    asked = harness.state_of(Board).asked
    asked.clear()
    board.write("7", "line")
    assert [len(one.got) for one in watchers] == [2 if number == 7 else 1 for number in range(100)]
    assert len(asked) == 2, "once for the change, and once for its watcher, who goes on"


def test_many_who_watch_the_same_cost_one_evaluation() -> None:
    harness, board = boards()
    waiting = [watch(board.under, "news") for _ in range(1000)]
    for one in waiting:
        Deferred.fromCoroutine(one.__anext__()).addErrback(lambda _: None)
    answers = [one.next() for one in waiting]
    asked = harness.state_of(Board).asked
    asked.clear()
    board.write("news", "line")
    assert asked == ["news"]
    assert all(harness.result(answer) == ["line"] for answer in answers)


def test_timers_and_commands_that_fail_may_change_an_answer() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    board.write_later("news")
    harness.advance(5.0)
    assert watcher.got == [0, 1]
    board.write_and_fail("news").addErrback(lambda _: None)
    board.write("other", "one")
    assert watcher.got == [0, 1, 2, 3]


def test_a_snapshot_may_change_an_answer() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    other = ServicesHarness(Board)
    other.service(Board).write("news", "line")
    harness.application.restore(iter(list(other.application.snapshot())))
    harness.advance(0.0)
    assert watcher.got == [0, 1]


def test_it_ends_when_it_is_closed() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    watcher.watched.close()
    assert [type(one) for one in watcher.got[1:]] == [StopAsyncIteration]
    board.write("news", "line")
    assert len(harness.application._watches) == 0
    with pytest.raises(StopAsyncIteration):
        harness.result(watcher.watched.next())


def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    assert len(harness.application._watches) == 1
    watcher.waiting.cancel()
    assert isinstance(watcher.got[-1], CancelledError)
    assert len(harness.application._watches) == 0
    assert not harness.application._watches._by_topic
    board.write("news", "line")
    assert harness.result(watcher.watched.next()) == 1


def test_one_who_is_gone_is_forgotten_after_a_while() -> None:
    harness, _ = boards()
    abandoned = harness.read(encode_watch(b"", encode_call(Board, Board.total)))
    digest, _ = harness.result(abandoned).result
    waits = harness.read(encode_watch(digest, encode_call(Board, Board.total)))
    harness.advance(WAIT_SECONDS - 1)
    assert len(harness.application._watches) == 1
    harness.advance(1)
    assert harness.result(waits).result == [digest, None]
    assert len(harness.application._watches) == 0


def test_a_watch_that_goes_on_after_that_time() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    harness.advance(3 * WAIT_SECONDS)
    board.write("news", "line")
    assert watcher.got == [0, 1]


class Changing:
    """A query whose answer the test sets."""

    def __init__(self) -> None:
        self.answer: Any = 1
        self.calls: list[Callable[[], None]] = []
        self.watches = Watches(lambda call: self._answer(), lambda call: ("Board", None), self._later)

    def _answer(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _later(self, seconds: float, function: Callable[[], None]) -> Any:
        self.calls.append(function)

        class Call:
            def cancel(self) -> None:
                pass

        return Call()


def test_an_answer_that_changes_and_changes_back_is_no_change() -> None:
    changing = Changing()
    first: Any = changing.watches.query(encode_watch(b"", b"call"))
    waits: Any = changing.watches.query(encode_watch(first[0], b"call"))
    told: list[Any] = []
    waits.addBoth(told.append)
    changing.answer = 2
    changing.watches.changed("Board", None)
    changing.watches.changed("Board", None)
    changing.answer = 1
    changing.watches.look()
    assert told == []
    changing.answer = 2
    changing.watches.changed("Board", None)
    changing.watches.look()
    assert told[0][1] == msgspec.msgpack.encode(2)


def test_a_query_that_fails_meanwhile_fails_the_watch() -> None:
    changing = Changing()
    first: Any = changing.watches.query(encode_watch(b"", b"call"))
    waits: Any = changing.watches.query(encode_watch(first[0], b"call"))
    changing.answer = KeyError("gone")
    changing.watches.changed("Board", None)
    changing.watches.look()
    with pytest.raises(KeyError):
        ServicesHarness.result(waits)
    assert len(changing.watches) == 0


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x93\xa5watch",
        msgspec.msgpack.encode(["watch", b"x" * 17, b""]),
        msgspec.msgpack.encode(["watch", "text", b""]),
        msgspec.msgpack.encode(["watch", b"", b""]),
        encode_watch(b"", b"no call"),
        encode_watch(b"", encode_call(Board, Board.wipe, "news")),
        encode_watch(b"", encode_watch(b"", encode_call(Board, Board.total))),
        encode_watch(b"", encode_call(Board, Board.total)) + b"\x00",
    ],
)
def test_hostile_watches_are_refused_and_leave_nothing_behind(hostile: bytes) -> None:
    application = application_of(Board)()
    with pytest.raises(CallRefused):
        application.query(hostile)
    assert len(application._watches) == 0


def test_what_cannot_be_watched() -> None:
    _, board = boards()
    with pytest.raises(TypeError, match=r"only the queries of a service can be watched, as .*, not write"):
        watch(board.write, "news", "line")
    with pytest.raises(TypeError, match="only the queries of a service"):
        watch(len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="heading"):
        watch(board.under, heading=5)
    with pytest.raises(TypeError):
        watch(board.under)


@pytest.mark.parametrize("answer", [None, [b"", b"", b""], ["", b""], [b"digest", b"\xc1"], [b"digest", b"\xa1x"]])
def test_an_answer_of_another_release(answer: Any) -> None:
    harness, board = boards()
    watched = watch(board.total)
    watched._ask = lambda query: harness.read(encode_watch(b"", query)).addBoth(
        lambda _: type("Reading", (), {"result": answer})()
    )
    with pytest.raises(QueryFailed, match="does the node run another release of the service"):
        harness.result(watched.next())


def test_on_a_node_the_answer_comes_when_the_slot_is_applied() -> None:
    harness = alone(application=application_of(Board))
    application = harness.node.application
    board = application.service(Board)
    slots: list[int] = []
    watcher = Watcher(watch(board.total))
    harness.reactor.idle()
    watcher.waiting.addCallback(lambda _: slots.append(harness.node.applied_through))
    board.write("news", "line")
    harness.reactor.idle()
    assert watcher.got == [0, 1]
    watcher.watched.close()
    harness.reactor.idle()
    assert len(application._watches) == 0
