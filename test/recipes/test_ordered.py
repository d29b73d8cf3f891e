"""Sorted collections in the state: they do what sorted lists do, leave nothing behind, and take blocks of a bounded
size."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from txpaxos.recipes.replicated import ordered
from txpaxos.recipes.replicated.ordered import BLOCK_KEYS_MAX, Ordered


def collections() -> Ordered[Any]:
    return Ordered({}, {})


@pytest.mark.parametrize("block_keys_max", [2, 3, 8])
def test_it_does_what_a_sorted_list_does(block_keys_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK_KEYS_MAX", block_keys_max)
    rng, both = Random(block_keys_max), collections()
    models: dict[str, list[int]] = {"a": [], "b": []}
    for _ in range(2000):
        name, key = rng.choice("ab"), rng.randrange(40)
        model = models[name]
        assert both.has(name, key) == (key in model)
        if rng.random() < 0.5:
            assert both.add(name, key) == (key not in model)
            model[:] = sorted({*model, key})
        else:
            assert both.discard(name, key) == (key in model)
            model[:] = [one for one in model if one != key]
        assert list(both.since(name)) == model
        assert list(both.since(name, key)) == [one for one in model if one >= key]
        assert both.first(name) == (model[0] if model else None)
        assert both.count(name) == len(model)
        assert all(0 < len(block) <= block_keys_max for block in both.blocks.values())


def test_nothing_is_left_of_what_is_empty() -> None:
    both = collections()
    for key in range(3 * BLOCK_KEYS_MAX):
        both.add("a", key)
    for key in range(3 * BLOCK_KEYS_MAX):
        assert both.discard("a", key)
    assert (both.rows, both.blocks) == ({}, {})


def test_keys_in_order_fill_their_blocks() -> None:
    both = collections()
    for key in range(10 * BLOCK_KEYS_MAX):
        both.add("a", key)
    assert [len(block) for block in both.blocks.values()] == [BLOCK_KEYS_MAX] * 10


def test_blocks_that_get_keys_in_between_stay_half_full() -> None:
    both = collections()
    for key in range(4 * BLOCK_KEYS_MAX, 0, -1):
        both.add("a", key)
    assert min(len(block) for block in both.blocks.values()) >= BLOCK_KEYS_MAX // 2


def test_an_empty_collection_has_nothing() -> None:
    both = collections()
    assert (both.has("a", 1), both.discard("a", 1), both.first("a"), both.count("a")) == (False, False, None, 0)
    assert list(both.since("a")) == list(both.since("a", 5)) == []
