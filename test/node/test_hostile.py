"""Millions of well-formed lies: no node ends, and nothing is saved that no correct peer could have caused."""

from __future__ import annotations

import os
import resource
from random import Random
from typing import Any

import pytest

from test.helpers.fuzz import INPUTS
from test.helpers.hostile import PEERS, Liar, NodeAmongLiars
from txpaxos.node.counts import Count
from txpaxos.node.node import READYS_WAITING_MAX

INPUTS_FACTOR = 17 if "TXPAXOS_FUZZ" in os.environ else 2
"""How often this test tries the inputs of any other such test."""

MESSAGES_PER_NODE = 1500
RSS_BYTES_MAX = 200 * 2**20


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(10))
def test_lies(seed: int, logged_errors: list[dict[str, Any]]) -> None:
    """Each node gets ``MESSAGES_PER_NODE`` lies. Then comes another node, in another state."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    left = INPUTS_FACTOR * INPUTS // 10
    node = 0
    while left > 0:
        left -= lie_to_one_node(1_000_000 * seed + node)
        node += 1
        logged_errors.clear()  # What ``apply`` raises.
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < RSS_BYTES_MAX


def lie_to_one_node(seed: int) -> int:
    """How many messages one node got, all of which it survived."""
    rng = Random(seed)
    harness = NodeAmongLiars(seed, new=rng.random() < 0.1)
    harness.begin()
    liar = Liar(rng, harness.node)
    count = 0
    while count < MESSAGES_PER_NODE:
        for _ in range(rng.choice((1, 5, 20, 50))):
            sender, message = rng.choice(PEERS), liar.message()
            harness.lie(sender, message)
            count += 1
            assert not harness.ended, (seed, sender, message, harness.failures)
        if rng.random() < 0.05:
            harness.call()
        harness.reactor.spend(rng.choice((0.0, 0.001, 0.01, 0.2)))
        harness.open_streams()
        harness.forget()
        assert not harness.ended, (seed, harness.failures)
        assert harness.node._performer.waiting <= READYS_WAITING_MAX
    counters = harness.node.counters
    assert len(counters) + len(harness.node._replica.dropped) < 100
    for refused in (Count.BAD_DATAGRAM, Count.BAD_FRAME):
        # A lie that is not even taken for a message tries nothing.
        assert counters[refused] == 0, (seed, counters)
    harness.node.stop()
    return count
