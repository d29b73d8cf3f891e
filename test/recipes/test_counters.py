"""Counters in the state."""

from __future__ import annotations

import pytest

from test.recipes.nodes import Nodes
from txpaxos.recipes.replicated import counters
from txpaxos.recipes.replicated.bounds import LimitReached
from txpaxos.recipes.replicated.counters import Counters


@pytest.fixture
def state() -> Counters:
    return Nodes(Counters).of(Counters)


def test_it_counts(state: Counters) -> None:
    assert [state.value("hits"), state.add("hits", 2), state.add("hits", -5), state.value("hits")] == [0, 2, -3, -3]


def test_it_is_set_if_it_is_what_was_expected(state: Counters) -> None:
    assert not state.set("hits", 5, expected=1)
    assert state.set("hits", 5, expected=0)
    assert state.set("hits", 7)
    assert state.value("hits") == 7


def test_a_counter_that_is_0_takes_no_room(state: Counters) -> None:
    state.add("hits", 2)
    state.add("hits", -2)
    assert state.values == {}


def test_what_is_too_much_is_refused_in_one_line(state: Counters, monkeypatch: pytest.MonkeyPatch) -> None:
    state.set("hits", 2**63 - 1)
    with pytest.raises(LimitReached, match=r"^a counter has 64 bits, and 9223372036854775808 has more$"):
        state.add("hits", 1)
    monkeypatch.setattr(counters, "COUNTERS_MAX", 1)
    with pytest.raises(LimitReached, match=r"^there are 1 counters, whose names have 4 bytes, already: set some"):
        state.add("others", 1)
    assert state.values == {"hits": 2**63 - 1}
