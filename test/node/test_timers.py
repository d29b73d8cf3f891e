"""Timers in the replicated state fire in order, once, and as on every other node."""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.errors import CodecError
from txpaxos.node import timers as module
from txpaxos.node.timers import FIRED_MAX, PAYLOAD_BYTES_MAX, Timers, Together
from txpaxos.replicated_time import ELAPSED_MS_MAX, UTC_MS_MAX, ReplicatedTime
from txpaxos.wire.stamps import NUMBER_MAX, TIMER_NAME_BYTES_MAX, KeptAlive


def changeable() -> Timers:
    timers = Timers()
    timers.allow_changes(True)
    return timers


def loaded(timers: Timers) -> Timers:
    """What another node has that loads a snapshot."""
    other = changeable()
    for chunk in timers.dump():
        other.add(chunk)
    return other


def at(elapsed_ms: int, utc_ms: int = 0) -> ReplicatedTime:
    return ReplicatedTime(elapsed_ms, utc_ms)


def test_a_timer_fires_when_it_is_due_and_once() -> None:
    timers = changeable()
    timers.set("close", 1.5, b"shop")
    assert ("close" in timers, len(timers), timers.next_due_ms, timers.due_in_seconds("close")) == (True, 1, 1500, 1.5)
    assert list(timers.advance(at(1499))) == []
    assert timers.due_in_seconds("close") == 0.001
    assert list(timers.advance(at(1500))) == [("close", b"shop")]
    assert list(timers.advance(at(9999))) == []
    assert (len(timers), timers.next_due_ms, timers.due_in_seconds("close")) == (0, None, None)


def test_timers_fire_in_the_order_of_time_and_then_of_names() -> None:
    timers = changeable()
    for name, seconds in (("d", 2), ("b", 1), ("c", 1), ("a", 3)):
        timers.set(name, seconds)
    assert [name for name, _ in timers.advance(at(5000))] == ["b", "c", "d", "a"]


def test_a_timer_counts_from_the_time_at_which_it_is_set() -> None:
    timers = changeable()
    list(timers.advance(at(700)))
    timers.set("a", 0.0001)
    assert timers.next_due_ms == 701, "rounded up: never too early"


def test_a_timer_that_is_set_anew_or_cancelled_does_not_fire_as_before() -> None:
    timers = changeable()
    timers.set("later", 1, b"before")
    timers.set("later", 3, b"after")
    timers.set("never", 1)
    assert timers.cancel("never")
    assert not timers.cancel("never")
    assert list(timers.advance(at(2000))) == []
    assert list(timers.advance(at(3000))) == [("later", b"after")]


def test_what_fires_may_cancel_what_would_fire_with_it_and_sets_for_a_later_slot() -> None:
    timers = changeable()
    for name in "abc":
        timers.set(name, 1)
    fired = []
    for name, _ in timers.advance(at(1000)):
        fired.append(name)
        if name == "a":
            timers.cancel("b")
            timers.set("at once", 0)
    assert fired == ["a", "c"]
    assert [name for name, _ in timers.advance(at(1000))] == ["at once"]


def test_what_is_set_anew_while_others_fire_fires_in_a_later_slot() -> None:
    """Though it is due at the same time as before."""
    timers = changeable()
    timers.set("a", 1)
    timers.set("b", 1, b"before")
    fired = []
    for name, payload in timers.advance(at(1000)):
        fired.append((name, payload))
        timers.set("b", 0, b"after")
    assert fired == [("a", b"")]
    assert list(loaded(timers).advance(at(1000))) == [("b", b"after")]
    assert list(timers.advance(at(1000))) == [("b", b"after")]


def test_a_bounded_number_fires_in_one_slot() -> None:
    """The same on a node that has loaded a snapshot, though the other one knows each timer twice."""
    timers = changeable()
    for number in range(2 * FIRED_MAX):
        timers.set(f"{number:05}", 1)
        timers.cancel(f"{number:05}")
        timers.set(f"{number:05}", 1)
    for one in (loaded(timers), timers):
        slots = [len(list(one.advance(at(1000)))) for _ in range(3)]
        assert slots == [FIRED_MAX, FIRED_MAX, 0]


def test_time_never_goes_back() -> None:
    timers = changeable()
    list(timers.advance(at(5, 100)))
    list(timers.advance(at(3, 200)))
    assert timers.now == at(5, 200)
    list(timers.advance(at(8, 150)))
    assert timers.now == at(8, 200)


def test_timers_are_not_changed_outside_of_apply() -> None:
    timers = Timers()
    with pytest.raises(RuntimeError, match="in apply and timer_fired only"):
        timers.set("a", 1)
    with pytest.raises(RuntimeError, match="in apply and timer_fired only"):
        timers.cancel("a")


def test_a_kept_alive_timer_fires_when_it_was_not_kept_alive_for_its_period() -> None:
    timers = changeable()
    timers.set("session", 10, b"it", kept_alive=True)
    assert list(timers.advance(at(9_000), [KeptAlive("session", 1)])) == []
    assert timers.due_in_seconds("session") == 10
    assert list(timers.advance(at(18_999))) == []
    assert timers.next_due_ms == 19_000
    assert list(timers.advance(at(19_000))) == [("session", b"it")]
    assert list(timers.advance(at(99_000), [KeptAlive("session", 2)])) == []


def test_a_timer_that_is_due_when_it_is_kept_alive_does_not_fire() -> None:
    timers = changeable()
    timers.set("session", 10, kept_alive=True)
    assert list(timers.advance(at(12_000), [KeptAlive("session", 1)])) == []
    assert timers.due_in_seconds("session") == 10


def test_a_keep_alive_counts_once() -> None:
    timers = changeable()
    timers.set("session", 10, kept_alive=True)
    list(timers.advance(at(1_000), [KeptAlive("session", 5)]))
    for number in (5, 4):
        list(timers.advance(at(9_000), [KeptAlive("session", number)]))
        assert timers.next_due_ms == 11_000
    timers.set("session", 10, kept_alive=True)  # As a command may do it. What has counted still has.
    list(timers.advance(at(10_000), [KeptAlive("session", 5)]))
    assert timers.next_due_ms == 19_000
    timers.cancel("session")
    timers.set("session", 10, kept_alive=True)
    list(timers.advance(at(11_000), [KeptAlive("session", 5)]))
    assert timers.next_due_ms == 21_000, "another timer, though it has the same name"


def test_only_a_kept_alive_timer_is_kept_alive() -> None:
    timers = changeable()
    timers.set("plain", 10)
    timers.set("was one", 10, kept_alive=True)
    timers.set("was one", 10)
    fired = timers.advance(at(10_000), [KeptAlive("plain", 1), KeptAlive("was one", 1), KeptAlive("none", 1)])
    assert [name for name, _ in fired] == ["plain", "was one"]
    assert timers.kept_alive("plain") is timers.kept_alive("none") is None


def test_it_is_never_made_shorter() -> None:
    timers = changeable()
    timers.set("session", 1, kept_alive=True)
    list(timers.advance(at(0), (), 5_000))
    list(timers.advance(at(1_000), [KeptAlive("session", 1)]))
    assert timers.next_due_ms == 5_000


def test_a_grace_is_for_kept_alive_timers_that_are_due_within_it() -> None:
    timers = changeable()
    for name, seconds, kept_alive in (("soon", 1, True), ("late", 5, True), ("plain", 1, False), ("over", 2, False)):
        timers.set(name, seconds, b"", kept_alive)
    assert list(timers.advance(at(1_500), (), 3_000)) == [("plain", b"")]
    assert [timers.due_in_seconds(name) for name in ("soon", "late", "over")] == [3, 3.5, 0.5]
    assert [name for name, _ in timers.advance(at(4_500))] == ["over", "soon"]


def test_the_end_of_time_is_the_latest() -> None:
    timers = changeable()
    timers.set("session", 10, kept_alive=True)
    list(timers.advance(at(ELAPSED_MS_MAX - 10_001), [KeptAlive("session", 1)], 2**32 - 1))
    assert timers.next_due_ms == ELAPSED_MS_MAX
    list(timers.advance(at(ELAPSED_MS_MAX - 1), [KeptAlive("session", NUMBER_MAX)], 2**32 - 1))
    assert timers.next_due_ms == ELAPSED_MS_MAX
    assert len(list(timers.advance(at(ELAPSED_MS_MAX), (), 1))) == 1


def test_what_is_kept_alive_takes_no_more_memory() -> None:
    timers = changeable()
    for number in range(100):
        timers.set(f"{number}", 10, kept_alive=True)
    for number in range(1, 1000):
        list(timers.advance(at(number * 4_000), [KeptAlive(f"{name}", number) for name in range(100)]))
    assert len(timers._heap) == len(timers) == 100


def test_who_waits_is_told_of_a_kept_alive_timer() -> None:
    told: list[str | int] = []
    timers = Timers(told.append)
    timers.allow_changes(True)
    for name in ("plain", "plain", "a", "b", "c", "d"):
        timers.set(name, 1, kept_alive=name != "plain")
    timers.cancel("plain")
    timers.cancel("plain")
    assert told == []
    timers.cancel("a")
    timers.set("b", 1)
    list(timers.advance(at(1000), [KeptAlive("c", 1), KeptAlive("a", 1)]))
    assert told == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("arguments", "error", "line"),
    [
        ((b"a", 1), TypeError, "the name of a timer must be a str and its payload bytes, not bytes and bytes"),
        (("a", 1, "x"), TypeError, "the name of a timer must be a str and its payload bytes, not str and str"),
        (("a", "1"), TypeError, "after_seconds must be a number, not str"),
        (("a", True), TypeError, "after_seconds must be a number, not bool"),
        (("a", -0.1), ValueError, "after_seconds must be finite and not below zero"),
        (("a", float("nan")), ValueError, "after_seconds must be finite"),
        (("a", float("inf")), ValueError, "after_seconds must be finite"),
        (("a", 1, b"", 1), TypeError, "kept_alive must be a bool, not int"),
        (("a", 0, b"", True), ValueError, "after_seconds of a kept-alive timer must be above zero"),
        (
            ("ä" * TIMER_NAME_BYTES_MAX, 1),
            ValueError,
            "the name and the payload of a timer may have 512 and 65536 bytes",
        ),
        (("a", 1, bytes(PAYLOAD_BYTES_MAX + 1)), ValueError, "not 1 and 65537"),
    ],
)
def test_wrong_arguments_fail_at_the_call(arguments: Any, error: type[Exception], line: str) -> None:
    timers = changeable()
    with pytest.raises(error, match=line):
        timers.set(*arguments)
    assert len(timers) == 0


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMERS_MAX", 2)
    timers = changeable()
    timers.set("a", 1)
    timers.set("b", 1)
    timers.set("b", 2)
    with pytest.raises(ValueError, match="there are 2 timers already"):
        timers.set("c", 1)


def test_what_was_cancelled_takes_no_memory_for_long() -> None:
    timers = changeable()
    for number in range(50_000):
        timers.set("one", number)
        timers.set(f"{number % 7}", 1000)
        timers.cancel(f"{number % 7}")
    assert len(timers._heap) < 3000
    assert timers.next_due_ms == 49_999_000


def test_timers_that_were_kept_alive_together_are_kept_alive_by_one_number() -> None:
    timers = changeable()
    for name, seconds in (("a", 10), ("b", 20), ("c", 10), ("d", 10)):
        timers.set(name, seconds, kept_alive=True)
    list(timers.advance(at(1000), [KeptAlive("a", 5), KeptAlive("b", 5), KeptAlive("c", 6)]))
    list(timers.advance(at(4000), [KeptAlive(5, 9)]))
    assert [timers.due_in_seconds(name) for name in "abcd"] == [10, 20, 7, 6]
    together = timers.kept_alive(9)
    assert isinstance(together, Together)
    assert (together.count, together.period_ms, timers.kept_alive(5)) == (2, 10_000, None)
    list(timers.advance(at(5000), [KeptAlive(5, 10), KeptAlive(9, 8), KeptAlive(9, 6)]))
    assert timers.due_in_seconds("a") == 9, "an old number, a lower one and one of others keep nothing alive"
    assert [name for name, _ in timers.advance(at(14_000))] == ["d", "c", "a"]
    assert together.count == 1
    assert timers.due_in_seconds("b") == 10


def test_a_snapshot_has_the_times_at_which_it_was_taken() -> None:
    """Though all timers were kept alive together since, by one number."""
    timers = changeable()
    timers.set("a", 10, kept_alive=True)
    timers.set("b", 20, kept_alive=True)
    list(timers.advance(at(1000), [KeptAlive("a", 5), KeptAlive("b", 5)]))
    list(timers.advance(at(2000), [KeptAlive(5, 6)]))
    before = list(timers.dump())
    reading = timers.dump()
    list(timers.advance(at(3000), [KeptAlive(6, 7)]))
    assert list(reading) == before
    assert list(timers.dump()) != before


class Naive:
    """The same in the plainest way."""

    def __init__(self) -> None:
        self.now = 0
        self.timers: dict[str, list[Any]] = {}

    def set(self, name: str, after_seconds: float, payload: bytes, kept_alive: bool) -> None:
        after_ms, (*_, number) = round(after_seconds * 1000), self.timers.get(name, (0,))
        self.timers[name] = [self.now + after_ms, payload, kept_alive * after_ms, kept_alive * number]

    def cancel(self, name: str) -> bool:
        return self.timers.pop(name, None) is not None

    def advance(self, elapsed_ms: int, kept_alive: list[KeptAlive], grace_ms: int) -> list[tuple[str, bytes]]:
        self.now = max(self.now, elapsed_ms)
        for name, number in kept_alive:
            named = [timer for one, timer in self.timers.items() if name in (one, timer[3])]
            if isinstance(name, int) and any(timer[3] == number for timer in self.timers.values()):
                continue  # Two groups do not become one.
            for timer in named:
                if timer[2] and timer[3] < number:
                    timer[:] = [max(timer[0], self.now + timer[2]), timer[1], timer[2], number]
        for timer in self.timers.values():
            if timer[2] and grace_ms:
                timer[0] = max(timer[0], self.now + grace_ms)
        due = sorted((due_ms, name) for name, (due_ms, *_) in self.timers.items() if due_ms <= self.now)[:3]
        return [(name, self.timers.pop(name)[1]) for _, name in due]


def some_kept_alive(rng: Random) -> list[KeptAlive]:
    names = (*"abcdef", *range(1, 9))
    return [KeptAlive(rng.choice(names), rng.randrange(1, 9)) for _ in range(rng.randrange(4))]


@given(st.integers(0, 2**32))
def test_timers_do_what_the_plainest_ones_do(seed: int) -> None:
    """Also on nodes that load a snapshot in between."""
    rng = Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FIRED_MAX", 3)
        patch.setattr(module, "CHUNK_BYTES", rng.choice((1, 40, 2**16)))
        patch.setattr(module, "_STALE_MIN", rng.choice((0, 1000)))
        naive, nodes, elapsed_ms = Naive(), [changeable()], 0
        for _ in range(rng.randrange(60)):
            name, payload = rng.choice("abcde"), rng.randbytes(2)
            match rng.randrange(5):
                case 0 | 1:
                    kept_alive = rng.random() < 0.6
                    after_seconds = rng.randrange(kept_alive, 30) / 1000
                    naive.set(name, after_seconds, payload, kept_alive)
                    for node in nodes:
                        node.set(name, after_seconds, payload, kept_alive)
                case 2:
                    was_set = naive.cancel(name)
                    assert {node.cancel(name) for node in nodes} == {was_set}
                case 3:
                    elapsed_ms += rng.randrange(-5, 20)
                    alive, grace_ms = some_kept_alive(rng), rng.choice((0, 0, 0, 7))
                    fired = naive.advance(max(0, elapsed_ms), alive, grace_ms)
                    for node in nodes:
                        assert list(node.advance(at(max(0, elapsed_ms), seed % 7), alive, grace_ms)) == fired
                case _:
                    nodes.append(loaded(nodes[0]))
            assert len({tuple(node.dump()) for node in nodes}) == 1
            assert {node.next_due_ms for node in nodes} == {
                min((due for due, *_ in naive.timers.values()), default=None)
            }


def test_a_snapshot_has_plain_timers_as_before_and_more_of_kept_alive_ones() -> None:
    timers = changeable()
    timers.set("a", 1, b"plain")
    assert list(timers.dump()) == [bytes.fromhex("930000") + b"\x91\x93\xa1a\xcd\x03\xe8\xc4\x05plain"]
    timers.set("b", 2, b"kept", kept_alive=True)
    list(timers.advance(at(5), [KeptAlive("b", 7)]))
    (chunk,) = timers.dump()
    assert msgspec.msgpack.decode(chunk) == [5, 0, [["a", 1000, b"plain"], ["b", 2005, b"kept", 2000, 7]]]
    other = loaded(timers)
    assert list(other.advance(at(1500), [KeptAlive("b", 7)])) == [("a", b"plain")]
    assert other.due_in_seconds("b") == 0.505


def test_a_dump_of_many_timers_takes_its_time_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All names are in order, and no part of the dump puts all of them in order by itself."""
    compared = 0

    class Name(str):
        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return str.__lt__(self, other)

    timers, rng, count = Timers(), Random(1), 20_000
    for _ in range(count):
        timers._timers[Name(f"{rng.getrandbits(64):016x}")] = module.TimerState(1000, b"")
    monkeypatch.setattr(module, "_encode", lambda part: [str(name) for name, _, _ in part[2]])
    in_order: list[Any] = []
    compared = 0
    for names in timers.dump():
        assert compared < 5 * count, "to sort all takes about fifteen times their number"
        in_order += names
        compared = 0
    assert in_order == sorted(map(str, timers))


@pytest.mark.parametrize("kind", [str, enum.Enum])
def test_a_name_that_is_more_than_a_text_is_a_text_in_a_snapshot(kind: type) -> None:
    class Name(str):
        pass

    name: Any = Name("one") if kind is str else enum.Enum("Names", {"ONE": "one"}, type=str).ONE  # type: ignore[attr-defined]
    timers = changeable()
    timers.set(name, 10, kept_alive=True)
    assert list(loaded(timers)) == ["one"] == list(timers)
    assert (timers.cancel(name), len(timers)) == (True, 0)


def test_a_dump_is_of_the_moment_it_was_asked_for() -> None:
    timers = changeable()
    timers.set("a", 1)
    dump = timers.dump()
    timers.set("b", 2)
    timers.cancel("a")
    other = changeable()
    for chunk in dump:
        other.add(chunk)
    assert ("a" in other, "b" in other) == (True, False)


def test_no_time_takes_no_chunk() -> None:
    """A snapshot of a cluster that an earlier release has led is as it was."""
    assert list(Timers().dump()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda parts: [-1, *parts[1:]],
        lambda parts: [ELAPSED_MS_MAX + 1, *parts[1:]],
        lambda parts: [parts[0], UTC_MS_MAX + 1, parts[2]],
        lambda parts: [*parts[:2], [["a", 1]]],
        lambda parts: [*parts[:2], [[1, 1, b""]]],
        lambda parts: [*parts[:2], [["a", 1, b"", 0, 0]]],
        lambda parts: [*parts[:2], [["a", 1, b"", 1, -1]]],
        lambda parts: [*parts[:2], [["a", 1, b"", 1, 0, 0]]],
        lambda parts: parts[:2],
        lambda parts: "text",
    ],
)
def test_what_is_no_dump_is_refused(spoil: Callable[[Any], Any]) -> None:
    timers = changeable()
    timers.set("a", 1)
    (chunk,) = timers.dump()
    parts = msgspec.msgpack.decode(chunk)
    with pytest.raises(CodecError, match="no timers"):
        Timers().add(msgspec.msgpack.encode(spoil(copy.deepcopy(parts))))
    Timers().add(chunk)


def test_a_dump_has_timers_as_they_were_though_they_are_kept_alive_meanwhile() -> None:
    timers = changeable()
    for name in ("a", "b"):
        timers.set(name, 1, kept_alive=True)
    before, dump = list(timers.dump()), timers.dump()
    list(timers.advance(at(500), [KeptAlive("a", 1)], 2000))
    after = list(timers.dump())
    assert list(dump) == before
    assert after != before
    assert list(timers.dump()) == after
    list(timers.advance(at(600), [KeptAlive("b", 1)]))
    assert timers._dumps == 0


def test_many_that_were_put_off_at_once_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STALE_MIN", 3)
    timers = changeable()
    for number in range(40):
        timers.set(f"{number:02}", 1, kept_alive=True)
    list(timers.advance(at(0), [KeptAlive(f"{number:02}", 1) for number in range(39)], 5000))
    assert (timers.earliest_ms, list(timers.advance(at(4_999)))) == (1000, [])
    assert (timers.earliest_ms, timers.next_due_ms) == (5000, 5000)
    assert len(list(timers.advance(at(5000)))) == 40
    assert timers.earliest_ms is None
