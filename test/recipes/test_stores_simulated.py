"""Queues, maps, counters and sets under disasters: simulated nodes stay equal, and what raises changes nothing."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from txpaxos import application_of, encode_call
from txpaxos.recipes import COORDINATION, Guard
from txpaxos.recipes.replicated.counters import Counters
from txpaxos.recipes.replicated.maps import Maps, Step
from txpaxos.recipes.replicated.queues import Queues
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.recipes.replicated.sets import Sets
from txpaxos.testing import simulate, strict_application_of

SEEDS = int(os.environ.get("TXPAXOS_RECIPES_SEEDS", "1"))


def some_queue_command(rng: Random) -> bytes:
    queue, session, request = rng.choice("ab"), rng.choice("st"), str(rng.randrange(5))
    return rng.choice(
        [
            encode_call(Queues, Queues.put, queue, rng.randbytes(3), rng.choice([5, 100])),
            encode_call(Queues, Queues.put, queue, rng.randbytes(3)),
            encode_call(Queues, Queues.take, queue, session, request, rng.choice([200, 1000]), rng.random() < 0.7),
            encode_call(Queues, Queues.take, queue, session, request, 500),
            encode_call(Queues, Queues.withdraw, session, request),
            encode_call(Queues, Queues.acknowledge, rng.randrange(60), session),
            encode_call(Queues, Queues.give_back, rng.randrange(60), session),
            encode_call(Queues, Queues.extend, rng.randrange(60), session, 700),
            encode_call(Queues, Queues.limit_deliveries, "a", rng.randrange(4), "b"),
        ]
    )


def some_map_command(rng: Random) -> bytes:
    name, key, data = rng.choice("ab"), rng.choice("klmn"), rng.randbytes(3)
    steps = (Step(key, rng.choice([None, data]), rng.choice(["", "s"])), Step("z", data))
    return rng.choice(
        [
            encode_call(Maps, Maps.put, name, key, data, rng.choice([None, 0, 5])),
            encode_call(Maps, Maps.put, name, key, data, None, rng.choice("st")),
            encode_call(Maps, Maps.delete, name, key),
            encode_call(Maps, Maps.transact, name, (Guard(key, rng.choice([None, 0])),), steps, steps[:1]),
        ]
    )


def some_other_command(rng: Random) -> bytes:
    return rng.choice(
        [
            encode_call(Sessions, Sessions.open, rng.choice("st"), rng.choice([1000, 2000])),
            encode_call(Sessions, Sessions.open, rng.choice("st"), 1000),
            encode_call(Sessions, Sessions.close, rng.choice("st")),
            encode_call(Counters, Counters.add, rng.choice("ab"), rng.randrange(-2, 3)),
            encode_call(Counters, Counters.set, "a", 5, rng.choice([None, 0])),
            encode_call(Sets, Sets.add, "a", rng.randbytes(1)),
            encode_call(Sets, Sets.discard, "a", rng.randbytes(1)),
            encode_call(Sets, Sets.pop, "a"),
        ]
    )


KINDS: tuple[Callable[[Random], bytes], ...] = (some_queue_command, some_map_command, some_other_command)


def some_command(rng: Random) -> bytes:
    return rng.choice(KINDS)(rng)


def some_query(rng: Random) -> bytes:
    return rng.choice(
        [
            encode_call(Queues, Queues.depth, rng.choice("ab")),
            encode_call(Maps, Maps.entries, rng.choice("ab")),
            encode_call(Maps, Maps.changes, rng.choice("ab"), rng.randrange(50)),
            encode_call(Sets, Sets.page, "a"),
        ]
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nodes_stay_equal_under_disasters(seed: int, logged_errors: list[dict[str, Any]]) -> None:
    result = simulate(seed, seconds=2, app=application_of(*COORDINATION), workload=some_command, query=some_query)
    assert result.violation is None, result
    gc.collect()
    logged_errors.clear()  # Nodes were made to die.


def test_no_command_changes_anything_and_raises() -> None:
    app = strict_application_of(*COORDINATION)
    application, rng = app(), Random(1)
    for slot in range(200):
        application.apply(slot, some_command(rng))
        if slot % 5 == 0:
            application.query(some_query(rng))
    assert app.faults == []
