"""Sets in the state."""

from __future__ import annotations

from random import Random

import pytest

from test.recipes.nodes import Nodes
from txpaxos.recipes.replicated import ordered, sets
from txpaxos.recipes.replicated.bounds import LimitReached
from txpaxos.recipes.replicated.sets import MembersPage, Sets


@pytest.fixture
def state() -> Sets:
    return Nodes(Sets).of(Sets)


def test_it_does_what_a_set_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", 3)
    rng, nodes = Random(1), Nodes(Sets)
    models: dict[str, set[bytes]] = {"a": set(), "b": set()}
    for _ in range(500):
        name, member = rng.choice("ab"), bytes([rng.randrange(20)])
        state, model = nodes.of(Sets), models[name]
        match rng.randrange(5):
            case 0 | 1:
                assert state.add(name, member) == (member not in model)
                model.add(member)
            case 2:
                assert state.discard(name, member) == (member in model)
                model.discard(member)
            case 3:
                assert state.pop(name) == min(model, default=None)
                model.discard(min(model, default=b""))
            case _:
                nodes.restart()
        assert state.page(name) == MembersPage(tuple(sorted(model)), False)
        assert (state.size(name), state.has(name, member)) == (len(model), member in model)
        assert state.members_count == sum(map(len, models.values()))
        assert state.members_bytes == 2 * state.members_count, "a byte of the name, and one of the member"


def test_pysyncobj_pop_is_the_same_on_every_node() -> None:
    """PySyncObj's ReplSet.pop: each node pops what its own set happens to have first, so that they differ."""
    members = [Random(seed).randbytes(3) for seed in range(50)]
    one, other = Nodes(Sets).of(Sets), Sets()
    for member in members:
        one.add("a", member)
    nodes = Nodes(Sets)
    for member in reversed(members):
        nodes.of(Sets).add("a", member)
    nodes.restart()
    other = nodes.of(Sets)
    popped = [(one.pop("a"), other.pop("a")) for _ in range(51)]
    assert [first for first, _ in popped] == [second for _, second in popped] == [*sorted(members), None]


def test_pages(state: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    for member in (b"a", b"bb", b"c"):
        state.add("s", member)
    assert state.page("s", count_max=2) == MembersPage((b"a", b"bb"), True)
    assert state.page("s", after=b"bb") == MembersPage((b"c",), False)
    assert state.page("s", after=b"b") == MembersPage((b"bb", b"c"), False)
    monkeypatch.setattr(sets, "PAGE_BYTES_MAX", 2)
    assert state.page("s") == MembersPage((b"a",), True)


def test_what_is_too_much_is_refused_in_one_line(state: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    state.add("s", b"a")
    monkeypatch.setattr(sets, "MEMBERS_MAX", 1)
    assert not state.add("s", b"a")
    with pytest.raises(LimitReached, match=r"^the sets have 1 members of 2 bytes already: discard some first$"):
        state.add("s", b"b")


def test_an_empty_set_takes_no_room(state: Sets) -> None:
    state.add("s", b"a")
    state.discard("s", b"a")
    assert (state.rows, state.blocks, state.members_count, state.members_bytes) == ({}, {}, 0, 0)
