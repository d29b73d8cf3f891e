"""Watched queries: the newest answer comes, in order, and nothing is left of those who have gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from test.helpers.fakes import alone
from test.service.watcher import Watcher
from txpaxos import (
    CommandFailed,
    QueryFailed,
    Service,
    ServiceError,
    application_of,
    command,
    encode_call,
    query,
    state,
    watch,
)
from txpaxos.errors import CallRefused, Overloaded
from txpaxos.reading import Reading
from txpaxos.service.remote import remote_service
from txpaxos.service.watches import LEADERLESS_SECONDS, WAIT_SECONDS, Watches, encode_watch
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
        if name == "fail":
            raise ValueError("after the line")

    @query(topic="heading {heading}", raises=Closed)
    def under(self, heading: str) -> list[str]:
        self.asked.append(heading)
        if heading not in self.lines:
            raise Closed(heading)
        return self.lines[heading]

    @query
    def total(self) -> int:
        return sum(map(len, self.lines.values()))


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
    digest, _, slot = harness.result(abandoned).result
    waits = harness.read(encode_watch(digest, encode_call(Board, Board.total), slot))
    harness.advance(WAIT_SECONDS - 1)
    assert len(harness.application._watches) == 1
    harness.advance(1)
    assert harness.result(waits).result == [digest, None, slot]
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
        self.watches = Watches(lambda call: self._answer(), lambda call: ("Board", None), self._later, lambda: 5)

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
    waits: Any = changing.watches.query(encode_watch(first[0], b"call", 5))
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
    waits: Any = changing.watches.query(encode_watch(first[0], b"call", 5))
    changing.answer = KeyError("gone")
    changing.watches.changed("Board", None)
    changing.watches.look()
    with pytest.raises(KeyError):
        ServicesHarness.result(waits)
    assert len(changing.watches) == 0


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x94\xa5watch",
        msgspec.msgpack.encode(["watch", b"x" * 17, b"", None]),
        msgspec.msgpack.encode(["watch", "text", b"", None]),
        msgspec.msgpack.encode(["watch", b"", b"", None]),
        msgspec.msgpack.encode(["watch", b"", b"", -1]),
        msgspec.msgpack.encode(["watch", b"", b"", True]),
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


class Answering:
    """A node that answers each query as the test says, and notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Any, str, float | None]] = []

    def submit(self, command: bytes, deadline_seconds: float | None = None, /) -> Deferred[Any]:
        raise NotImplementedError

    def read(self, query: bytes, consistency: Any = "linearizable", seconds: float | None = None, /) -> Deferred[Any]:
        _, known, _, wait_from = msgspec.msgpack.decode(query)
        self.asked.append(((known, wait_from), consistency, seconds))
        return succeed(Reading(self.answers.pop(0), 1))


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [b"", b"", b""],
        ["", b"", 1],
        [b"digest", b"\x01"],
        [b"digest", b"\xc1", 1],
        [b"digest", b"\xa1x", 1],
    ],
)
def test_an_answer_of_another_release(answer: Any) -> None:
    watched = watch(remote_service(Answering(answer), Board).total)
    with pytest.raises(QueryFailed, match="does the node run another release of"):
        ServicesHarness.result(watched.next())


def test_a_node_without_room() -> None:
    watched = watch(remote_service(Answering("there are many already"), Board).total)
    with pytest.raises(Overloaded, match="there are many already"):
        ServicesHarness.result(watched.next())


def test_what_a_caller_asks() -> None:
    node = Answering([b"1", b"\x01", 7], [b"1", None, 7], [b"1", None, 9], [b"2", b"\x02", 12])
    watched = watch(remote_service(node, Board, None, 5.0).total)
    assert [ServicesHarness.result(watched.next()) for _ in "12"] == [1, 2]
    at_once, late = ("linearizable", 5.0), ("local", 35.0)
    assert node.asked == [
        ((b"", None), *at_once),
        ((b"1", 7), *late),
        ((b"1", None), *at_once),
        ((b"1", 9), *late),
    ]


def test_a_node_that_lags_does_not_answer_with_what_was_before() -> None:
    harness = alone(application=application_of(Board))
    application = harness.node.application
    call = encode_call(Board, Board.total)
    assert application.query(encode_watch(b"newer", call, 99)) == (b"newer", None, application.applied_through)
    assert application.query(encode_watch(b"newer", call, application.applied_through))[1] == b"\x00"


def test_a_node_that_knows_no_leader_ends_its_watches() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    watches = harness.application._watches
    (first,) = [waiter for watched in watches._watched.values() for waiter in watched.waiters]
    harness.application.leadership_changed("a", None)
    harness.advance(LEADERLESS_SECONDS - 0.5)
    harness.application.leadership_changed(None, "b")
    harness.advance(LEADERLESS_SECONDS)
    assert [one for watched in watches._watched.values() for one in watched.waiters] == [first]
    harness.application.leadership_changed("b", None)
    harness.application.leadership_changed("b", None)
    harness.advance(LEADERLESS_SECONDS)
    assert first not in [one for watched in watches._watched.values() for one in watched.waiters]
    board.write("news", "line")
    assert watcher.got == [0, 1]


def test_a_node_has_room_for_a_number_of_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.service.watches.WATCHES_MAX", 2)
    harness, board = boards()
    watchers = [Watcher(watch(board.under, f"{number}")) for number in range(2)]
    third = watch(board.total)
    assert harness.result(third.next()) == 0
    with pytest.raises(Overloaded, match="2 watches wait at this node already"):
        harness.result(third.next())
    watchers[0].watched.close()
    Watcher(third)
    assert len(harness.application._watches) == 2


SOME_CALLS = [b"call %d" % number for number in range(5)]


@pytest.mark.parametrize(
    ("limit", "most", "calls", "expected"),
    [
        ("LOOKS_MAX", 2, SOME_CALLS, [2, 4, 5]),
        ("TELLS_MAX", 2, SOME_CALLS[:1] * 5, [2, 4, 5]),
        ("LOOK_BYTES_MAX", 1, SOME_CALLS[:1] * 5, [1, 2, 3, 4, 5]),
    ],
)
def test_many_are_told_over_several_turns(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int, calls: list[bytes], expected: list[int]
) -> None:
    monkeypatch.setattr(f"txpaxos.service.watches.{limit}", most)
    changing = Changing()
    told: list[int] = []
    for number, call in enumerate(calls):
        first: Any = changing.watches.query(encode_watch(b"", call))
        wait: Any = changing.watches.query(encode_watch(first[0], call, 5))
        wait.addBoth(lambda _, number=number: told.append(number))
    changing.answer = 2
    changing.calls.clear()
    changing.watches.changed("Board", None)
    told_after = []
    while changing.calls:
        changing.calls.pop(0)()
        told_after.append(len(told))
    assert (told_after, told) == (expected, [0, 1, 2, 3, 4])
    assert len(changing.watches) == 0


def test_one_that_is_told_may_end_others() -> None:
    changing = Changing()
    waits: list[Any] = []
    for call in (b"one", b"one", b"two", b"three"):
        first: Any = changing.watches.query(encode_watch(b"", call))
        waits.append(changing.watches.query(encode_watch(first[0], call, 5)))
        waits[-1].addErrback(lambda failure: failure.trap(CancelledError))
    waits[0].addCallback(lambda _: [one.cancel() for one in waits[1:]])
    changing.answer = 2
    changing.watches.changed("Board", None)
    changing.watches.look()
    assert (len(changing.watches), changing.watches._changed) == (0, {})


def test_a_timer_that_raises_may_have_changed_an_answer() -> None:
    harness, board = boards()
    watcher = Watcher(watch(board.total))
    board.write_later("fail")
    with pytest.raises(ValueError, match="after the line"):
        harness.advance(5.0)
    harness.advance(0.0)
    assert watcher.got == [0, 1]


def test_bytes_that_are_no_call_cost_no_evaluation() -> None:
    harness, board = boards()
    Watcher(watch(board.under, "news"))
    asked = harness.state_of(Board).asked
    asked.clear()
    harness.submit(b"no call").addErrback(lambda failure: failure.trap(CallRefused))
    assert asked == []


class Clerk(Service):
    """Writes on the board beside it."""

    @command
    def note(self, line: str) -> None:
        self.sibling(Board).write("news", line)

    @command
    def note_on_all(self, line: str) -> None:
        for one in self.siblings():
            if isinstance(one, Board):
                one.write("news", line)

    @query
    def lines(self) -> int:
        return self.sibling(Board).total() + len(self.siblings())


def test_a_sibling_may_have_changed_an_answer() -> None:
    harness = ServicesHarness(Board, Clerk)
    clerk = harness.service(Clerk)
    watcher, lines = Watcher(watch(harness.service(Board).total)), Watcher(watch(clerk.lines))
    clerk.note("one")
    clerk.note_on_all("two")
    assert (watcher.got, lines.got) == ([0, 1, 2], [2, 3, 4])
    harness.advance(1.0)
    assert harness.application._watches._changed == {}, "a query that looks at a sibling changes nothing"


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


def test_a_watched_node_calls_commands_from_the_same_depth() -> None:
    """A command that exceeds the limit of calls has to do so on every node alike, whichever is watched."""

    class Deep(Service):
        depths: list[int] = state(list)

        @command
        def recurse(self) -> None:
            self.depths.append(0)
            self._recurse()

        @query
        def total(self) -> int:
            return 0

        def _recurse(self) -> None:
            self.depths[-1] += 1
            self._recurse()

    harness = ServicesHarness(Deep)
    deep = harness.service(Deep)
    for _ in range(2):
        deep.recurse().addErrback(lambda failure: failure.trap(CommandFailed))
        watcher = Watcher(watch(deep.total))
    depths = harness.state_of(Deep).depths
    assert watcher.got == [0]
    assert depths[0] == depths[1] > 500
