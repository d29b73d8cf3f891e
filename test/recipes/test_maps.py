"""Maps in the state: they do what a dictionary with a list of its changes does, and no change is missed."""

from __future__ import annotations

from random import Random

import pytest

from test.recipes.nodes import Nodes
from txpaxos.recipes.replicated import maps, ordered
from txpaxos.recipes.replicated.bounds import LimitReached, SessionOver
from txpaxos.recipes.replicated.maps import (
    Change,
    ChangesGone,
    ChangesPage,
    EntriesPage,
    Entry,
    Guard,
    Maps,
    Outcome,
    Step,
    VersionMismatch,
)


@pytest.fixture
def nodes() -> Nodes:
    nodes = Nodes(Maps)
    nodes.open("s1")
    nodes.open("s2")
    return nodes


class Run:
    """The state machine, and a dictionary with a list of its changes for each map, which get the same."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.nodes = Nodes(Maps)
        self.version = 0
        self.entries: dict[str, dict[str, Entry]] = {"a": {}, "b": {}}
        self.changes: dict[str, list[Change]] = {"a": [], "b": []}
        self.sessions = {"s1", "s2"}
        for session in self.sessions:
            self.nodes.open(session)

    @property
    def state(self) -> Maps:
        return self.nodes.of(Maps)

    def some_key(self) -> str:
        return self.rng.choice(["k", "ka", "kb", "l", "la", "m"])

    def some_session(self) -> str:
        return self.rng.choice(["", "", *sorted(self.sessions)])

    def take(self, name: str, step: Step) -> int:
        if step.data is None and step.key not in self.entries[name]:
            return 0
        self.version += 1
        self.changes[name].append(Change(step.key, step.data, self.version))
        if step.data is None:
            del self.entries[name][step.key]
        else:
            self.entries[name][step.key] = Entry(step.key, step.data, self.version, step.session_id)
        return self.version

    def some_version(self, name: str, key: str) -> int | None:
        entry = self.entries[name].get(key)
        right = 0 if entry is None else entry.version
        return self.rng.choice([None, right, right, right + 1])

    def holds(self, name: str, key: str, version: int | None) -> bool:
        entry = self.entries[name].get(key)
        return version in (None, 0 if entry is None else entry.version)

    def newest(self, name: str) -> int:
        return self.changes[name][-1].version if self.changes[name] else 0

    def step(self) -> None:
        steps = ["put", "delete", "transact", "session", "restart"]
        getattr(self, f"step_{self.rng.choices(steps, [8, 5, 4, 1, 1])[0]}")()
        self.compare()

    def step_put(self) -> None:
        name, key, data, session = self.rng.choice("ab"), self.some_key(), self.rng.randbytes(2), self.some_session()
        version = self.some_version(name, key)
        if self.holds(name, key, version):
            assert self.state.put(name, key, data, version, session) == self.take(name, Step(key, data, session))
        else:
            with pytest.raises(VersionMismatch):
                self.state.put(name, key, data, version, session)

    def step_delete(self) -> None:
        name, key = self.rng.choice("ab"), self.some_key()
        version = self.some_version(name, key)
        if self.holds(name, key, version):
            assert self.state.delete(name, key, version) == self.take(name, Step(key, None))
        else:
            with pytest.raises(VersionMismatch):
                self.state.delete(name, key, version)

    def step_transact(self) -> None:
        name = self.rng.choice("ab")
        guards = tuple(Guard(key, self.some_version(name, key)) for key in (self.some_key(), self.some_key()))
        then, otherwise = (
            tuple(
                Step(self.some_key(), self.rng.choice([None, self.rng.randbytes(2)]), self.some_session())
                for _ in range(self.rng.randrange(3))
            )
            for _ in range(2)
        )
        found = tuple(self.entries[name].get(guard.key) for guard in guards)
        held = all(self.holds(name, guard.key, guard.version) for guard in guards)
        outcome = self.state.transact(name, guards, then, otherwise)
        versions = tuple(self.take(name, step) for step in (then if held else otherwise))
        assert outcome == Outcome(held, found, versions)

    def step_session(self) -> None:
        session = self.rng.choice(["s1", "s2"])
        if session not in self.sessions:
            self.sessions.add(session)
            self.nodes.open(session)
            return
        self.sessions.remove(session)
        self.nodes.close(session)
        for name in "ab":
            for entry in [self.entries[name][key] for key in sorted(self.entries[name])]:
                if entry.session_id == session:
                    self.take(name, Step(entry.key, None))

    def step_restart(self) -> None:
        self.nodes.restart()

    def compare(self) -> None:
        for name in "ab":
            entries = [self.entries[name][key] for key in sorted(self.entries[name])]
            assert self.state.entries(name) == EntriesPage(tuple(entries), self.newest(name), False)
            assert [self.state.get(name, entry.key) for entry in entries] == entries
            since = self.rng.randrange(self.version + 1)
            later = tuple(change for change in self.changes[name] if change.version > since)
            assert self.state.changes(name, since).changes == later
        everything = [entry for name in "ab" for entry in self.entries[name].values()]
        assert self.state.values_bytes == sum(1 + len(entry.key) + len(entry.data) for entry in everything)
        assert self.state.version == self.version


@pytest.mark.parametrize("seed", range(4))
def test_it_does_what_the_model_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", 3)
    run = Run(seed)
    for _ in range(200):
        run.step()


def test_a_version_is_never_used_again(nodes: Nodes) -> None:
    state = nodes.of(Maps)
    assert state.put("a", "k", b"1") == 1
    assert state.delete("a", "k") == 2
    assert state.delete("a", "k") == 0
    assert state.put("a", "k", b"2") == 3
    with pytest.raises(VersionMismatch, match=r"^k in a has version 3, and not version 1$"):
        state.put("a", "k", b"3", expected_version=1)
    with pytest.raises(VersionMismatch, match=r"^l in a is not there, and not version 3$"):
        state.delete("a", "l", expected_version=3)


def test_pages_of_a_range(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    state = nodes.of(Maps)
    for number in range(10):
        state.put("a", f"k{number}", b"x" * 10)
    state.put("a", "l", b"")
    state.put("b", "k5", b"other")

    def keys(page: EntriesPage) -> list[str]:
        return [entry.key for entry in page.entries] + ["..."] * page.more

    assert keys(state.entries("a", "k", count_max=3)) == ["k0", "k1", "k2", "..."]
    assert keys(state.entries("a", "k", after="k2", count_max=3)) == ["k3", "k4", "k5", "..."]
    assert keys(state.entries("a", "k", after="k7", count_max=3)) == ["k8", "k9"]
    assert keys(state.entries("a", "k", after="k3", until="k6")) == ["k4", "k5"]
    assert keys(state.entries("a", "m")) == []
    assert keys(state.entries("a", after="k8")) == ["k9", "l"]
    monkeypatch.setattr(maps, "PAGE_BYTES_MAX", 25)
    assert keys(state.entries("a", "k")) == ["k0", "k1", "..."]
    monkeypatch.setattr(maps, "PAGE_BYTES_MAX", 5)
    assert keys(state.entries("a", "k")) == ["k0", "..."]
    assert state.size("a") == 11


def test_pages_of_changes_miss_none(nodes: Nodes) -> None:
    state = nodes.of(Maps)
    for number in range(20):
        state.put("a", "even" if number % 2 == 0 else "odd", b"%d" % number)
        state.put("b", "even", b"")
    found: list[bytes | None] = []
    since = 0
    while (page := state.changes("a", since, "ev", count_max=3)).through > since:
        found += [change.data for change in page.changes]
        since = page.through
    assert found == [b"%d" % number for number in range(0, 20, 2)]
    assert state.changes("a", since) == ChangesPage((), since)


def test_changes_that_are_not_kept_are_an_error_of_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CHANGES_MAX", 3)
    state = nodes.of(Maps)
    state.put("quiet", "k", b"")
    for _ in range(5):
        state.put("a", "k", b"")
    assert (len(state.kept), state.kept_since) == (3, 3)
    with pytest.raises(ChangesGone, match=r"^the changes of a are kept since version 3, and not since 2$"):
        state.changes("a", 2)
    assert [change.version for change in state.changes("a", 3).changes] == [4, 5, 6]
    with pytest.raises(ChangesGone, match=r"^the changes of quiet are kept since version 1, and not since 0$"):
        state.changes("quiet", 0)
    assert state.changes("quiet", 1) == ChangesPage((), 1)
    with pytest.raises(ChangesGone, match=r"^there is no version 7, the newest is 6: was a backup restored\?$"):
        state.changes("a", 7)


def test_changes_are_bounded_by_their_bytes(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CHANGES_BYTES_MAX", 12)
    state = nodes.of(Maps)
    for _ in range(5):
        state.put("a", "k", b"1234")
    assert (len(state.kept), state.kept_bytes) == (2, 12)
    state.put("a", "k", b"x" * 100)
    assert (len(state.kept), state.kept_bytes) == (1, 102)


def test_a_map_of_which_nothing_is_left_is_forgotten(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CHANGES_MAX", 2)
    state = nodes.of(Maps)
    for name in ("a", "b", "c"):
        state.put(name, "k", b"")
        state.delete(name, "k")
    assert (list(state.gone_through), state.forgotten_through) == (["c"], 4)
    with pytest.raises(ChangesGone):
        state.changes("a", 1)
    assert state.changes("a", 4) == ChangesPage((), 4)
    assert state.changes("c", 4).through == 6


def test_entries_end_with_their_session(nodes: Nodes) -> None:
    state = nodes.of(Maps)
    state.put("a", "mine", b"", session_id="s1")
    state.put("a", "taken over", b"", session_id="s1")
    state.put("a", "taken over", b"", session_id="s2")
    state.put("a", "kept", b"", session_id="s1")
    state.put("a", "kept", b"")
    nodes.close("s1")
    assert [entry.key for entry in state.entries("a").entries] == ["kept", "taken over"]
    assert state.changes("a", 5).changes == (Change("mine", None, 6),)
    nodes.close("s2")
    assert (state.session_rows, state.session_blocks) == ({}, {})
    with pytest.raises(SessionOver):
        state.put("a", "mine", b"", session_id="s1")


def test_a_transaction_takes_all_of_its_steps_or_none(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    state = nodes.of(Maps)
    state.put("a", "from", b"10")
    moved = (Step("from", b"3"), Step("to", b"7"))
    assert state.transact("a", (Guard("from", data=b"9"),), moved) == Outcome(False, (Entry("from", b"10", 1),), ())
    guards = (Guard("from", data=b"10"), Guard("to", version=0))
    assert state.transact("a", guards, moved) == Outcome(True, (Entry("from", b"10", 1), None), (2, 3))
    assert not state.transact("a", guards, moved).held
    assert not state.transact("a", (Guard("none", data=b""),), ()).held
    before = state.entries("a")
    with pytest.raises(SessionOver):
        state.transact("a", (), (Step("from", b""), Step("x", b"", "other")))
    monkeypatch.setattr(maps, "ENTRIES_MAX", 3)
    with pytest.raises(LimitReached):
        state.transact("a", (), (Step("from", None), Step("x", b""), Step("y", b"")))
    assert state.entries("a") == before


def test_who_follows_one_map_is_told_of_its_changes_alone(nodes: Nodes) -> None:
    state = nodes.of(Maps)
    state.put("a", "k", b"")
    assert sorted(nodes.told) == ["map a", "map a key k"]
    nodes.told.clear()
    state.delete("b", "k")
    assert nodes.told == []


def test_what_is_too_much_is_refused_in_one_line(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    state = nodes.of(Maps)
    state.put("a", "k", b"1", session_id="s1")
    monkeypatch.setattr(maps, "ENTRIES_OF_SESSION_MAX", 1)
    with pytest.raises(LimitReached, match=r"^a session may have 1 entries that end with it$"):
        state.put("a", "l", b"1", session_id="s1")
    monkeypatch.setattr(maps, "MAPS_MAX", 1)
    with pytest.raises(LimitReached, match=r"^there are 1 maps already: put the keys into one of them, with a prefix$"):
        state.put("b", "k", b"1")
    monkeypatch.setattr(maps, "ENTRIES_BYTES_MAX", 3)
    with pytest.raises(LimitReached, match=r"^the maps have 1 entries of 3 bytes already: delete some first$"):
        state.put("a", "l", b"123")
    assert state.delete("a", "k") == 2


def test_a_transaction_answers_with_a_bounded_size(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "FOUND_BYTES_MAX", 10)
    state = nodes.of(Maps)
    state.put("a", "k", b"12345")
    assert state.transact("a", (Guard("k"), Guard("k")), ()).held
    with pytest.raises(LimitReached, match=r"^the entries of the guards have 15 bytes, more than 10$"):
        state.transact("a", (Guard("k"),) * 3, (Step("k", b"6"),))
    assert state.get("a", "k") == Entry("k", b"12345", 1)
