"""Maps, counters and sets as a program has them."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from test.recipes.program import Program, result_of
from txpaxos.recipes import (
    ChangesGone,
    Delete,
    Guard,
    LimitReached,
    Map,
    MapChange,
    MapEntry,
    MapOutcome,
    Put,
    SessionOver,
    VersionMismatch,
    WaitTimedOut,
)
from txpaxos.recipes.replicated import maps, sets


@pytest.fixture
def program() -> Program:
    return Program()


def limits_of(program: Program) -> Map[int]:
    return program.recipes.map("limits", int)


def collected(changes: Any, into: list[Any]) -> Deferred[None]:
    """What ``async for`` gives, as it comes."""

    async def collect() -> None:
        async for one in changes:
            into.append(one)  # noqa: PERF401

    return Deferred.fromCoroutine(collect())


class TestMap:
    def test_put_get_and_delete(self, program: Program) -> None:
        limits = limits_of(program)
        assert result_of(limits.put("ann", 5)) == 1
        assert result_of(limits.get("ann")) == MapEntry("ann", 5, 1, "")
        assert isinstance(result_of(limits.put("ann", 6, expected_version=0)), VersionMismatch)
        assert result_of(limits.put("ann", 6, expected_version=1)) == 2
        assert result_of(limits.size()) == 1
        assert isinstance(result_of(limits.delete("ann", expected_version=1)), VersionMismatch)
        assert result_of(limits.delete("ann")) == 3
        assert result_of(limits.get("ann")) is None

    def test_an_entry_ends_with_its_session(self, program: Program) -> None:
        limits = limits_of(program)
        session = result_of(program.recipes.session())
        limits.put("ann", 5, session=session)
        assert result_of(limits.get("ann")).session_id == session.session_id
        session.close()
        assert result_of(limits.get("ann")) is None
        assert isinstance(result_of(limits.put("ann", 5, session=session)), SessionOver)

    def test_a_transaction(self, program: Program) -> None:
        limits = limits_of(program)
        limits.put("ann", 6)
        guards = [limits.guard("ann", value=6), limits.guard("bob", version=0)]
        then = [Put("ann", 3), Put("bob", 3)]
        outcome = result_of(limits.transact(guards, then, otherwise=[Delete("bob")]))
        assert outcome == MapOutcome(True, (MapEntry("ann", 6, 1, ""), None), (2, 3))
        outcome = result_of(limits.transact(guards, then, otherwise=[Delete("bob"), Delete("none")]))
        assert outcome == MapOutcome(False, (MapEntry("ann", 3, 2, ""), MapEntry("bob", 3, 3, "")), (4, 0))

    def test_a_wrong_argument_raises_at_the_call(self, program: Program) -> None:
        limits, wrong = limits_of(program), "5"
        with pytest.raises(TypeError, match=r"^the map limits has values of int, not '5'"):
            limits.put("ann", wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^the map limits has values of int, not '5'"):
            limits.transact([], [Put("ann", wrong)])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"^a step of a transaction must be a Put or a Delete, not str$"):
            limits.transact([], [wrong])  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"^Maps.put"):
            limits.put("", 5)
        with pytest.raises(TypeError, match=r"^Maps.transact"):
            limits.transact([Guard("k")] * 129, [])

    def test_all_entries_in_pages(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(maps, "PAGE_MAX", 3)
        limits = limits_of(program)
        for number in range(10):
            limits.put(f"{'ab'[number % 2]}{number}", number)
        found: list[MapEntry[int]] = []
        assert result_of(collected(limits.entries("a"), found)) is None
        assert [entry.value for entry in found] == [0, 2, 4, 6, 8]
        page = result_of(limits.page(after="b3", until="b7"))
        assert ([entry.key for entry in page.entries], page.more, page.version) == (["b5"], False, 10)


class TestChanges:
    def test_what_is_there_comes_first_and_then_each_change(
        self, program: Program, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(maps, "PAGE_MAX", 2)
        limits = limits_of(program)
        for key in ("c", "b", "a"):
            limits.put(key, 5)
        found: list[MapChange[int]] = []
        collected(limits.changes(), found)
        assert [(change.key, change.since) for change in found] == [("a", 0), ("b", 0), ("c", 3)]
        found.clear()
        limits.delete("b")
        program.recipes.map("other", int).put("b", 7)
        limits.put("b", 7)
        assert found == [MapChange("b", None, True, 4, 4), MapChange("b", 7, False, 6, 6)]

    def test_of_an_empty_map_with_a_prefix(self, program: Program) -> None:
        limits = limits_of(program)
        found: list[MapChange[int]] = []
        collected(limits.changes(prefix="ann/"), found)
        assert found == []
        limits.put("bob/a", 1)
        limits.put("ann/a", 2)
        assert [change.key for change in found] == ["ann/a"]

    def test_each_change_is_seen_once_also_by_one_who_begins_again_somewhere(self, program: Program) -> None:
        """The program is slow, so that changes come faster than it asks. It stops at random points, and goes on."""
        rng, limits = Random(1), limits_of(program)
        expected: list[tuple[str, int | None]] = [("k", 0)]
        limits.put("k", 0)
        program.is_slow = True
        found: list[MapChange[int]] = []
        following = collected(limits.changes(), found)
        for number in range(400):
            key = rng.choice("klm")
            if rng.random() < 0.2 and any(key == one[0] for one in expected):
                if dict(expected)[key] is not None:
                    program.harness.submit(_call_of(program, limits, key, None))
                    expected.append((key, None))
            else:
                program.harness.submit(_call_of(program, limits, key, number))
                expected.append((key, number))
            for _ in range(rng.randrange(4)):
                program.go_on(rng)
            if rng.random() < 0.05:
                following.addErrback(lambda _: None)
                following.cancel()
                since = found[-1].since if found else 0
                if since == 0:
                    found.clear()
                following = collected(limits.changes(since=since), found)
        program.is_slow = False
        while program.on_the_way:
            program.go_on(rng)
        assert len(found) > 300
        assert [(change.key, change.value) for change in found] == expected[-len(found) :]
        assert [change.version for change in found] == sorted({change.version for change in found})

    def test_a_wait_ends_with_its_time(self, program: Program) -> None:
        following = collected(limits_of(program).changes(timeout_seconds=3.0), [])
        program.advance(3.0)
        error = result_of(following)
        assert isinstance(error, WaitTimedOut)
        assert str(error) == "a change of the map limits did not come within 3 s"
        with pytest.raises(ValueError, match=r"^timeout_seconds must be finite and above zero: 0$"):
            raise result_of(collected(limits_of(program).changes(timeout_seconds=0), []))

    def test_changes_that_are_not_kept_any_more(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(maps, "CHANGES_MAX", 2)
        limits = limits_of(program)
        for number in range(5):
            limits.put("k", number)
        assert isinstance(result_of(collected(limits.changes(since=1), [])), ChangesGone)
        found: list[MapChange[int]] = []
        collected(limits.changes(since=0), found)
        assert [change.value for change in found] == [4]


def _call_of(program: Program, limits: Map[int], key: str, value: int | None) -> bytes:
    """The bytes of a call that another program makes."""
    from txpaxos.recipes.replicated.maps import Maps
    from txpaxos.service.remote import encode_call

    if value is None:
        return encode_call(Maps, Maps.delete, limits.name, key)
    return encode_call(Maps, Maps.put, limits.name, key, limits._values.encoded(value))


class TestCounter:
    def test_it_counts(self, program: Program) -> None:
        hits = program.recipes.counter("hits")
        assert [result_of(hits.add()), result_of(hits.add(5)), result_of(hits.value())] == [1, 6, 6]
        assert [result_of(hits.set(9, expected=1)), result_of(hits.set(9, expected=6))] == [False, True]
        assert isinstance(result_of(hits.add(2**63 - 1)), LimitReached)

    def test_who_waits_for_another_value_is_told(self, program: Program) -> None:
        hits = program.recipes.counter("hits")
        waiting = hits.changed(0)
        assert not waiting.called
        hits.add(3)
        assert result_of(waiting) == 3
        late = hits.changed(3, timeout_seconds=1.0)
        program.advance(1.0)
        assert str(result_of(late)) == "another value of the counter hits did not come within 1 s"


class TestSet:
    def test_it_does_what_a_set_does(self, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sets, "PAGE_MEMBERS_MAX", 2)
        names = program.recipes.set("names", str)
        assert [result_of(names.add(name)) for name in ("c", "b", "a", "b")] == [True, True, True, False]
        found: list[str] = []
        collected(names.members(), found)
        assert found == ["a", "b", "c"]
        assert result_of(names.discard("b")) is True
        assert [result_of(names.has("b")), result_of(names.has("c")), result_of(names.size())] == [False, True, 2]
        assert [result_of(names.pop()), result_of(names.pop())] == ["a", "c"]
        error = result_of(names.pop())
        assert isinstance(error, KeyError)
        assert error.args == ("pop from the set names, which is empty",)
        with pytest.raises(TypeError, match=r"^the set names has values of str, not 5"):
            names.add(5)  # type: ignore[arg-type]
