"""Locks in simulated clusters whose nodes crash, are cut off and lose data, with programs that are stopped for long."""

from __future__ import annotations

import os

import pytest

from test.recipes.simulated_locks import LockRun

SEEDS = int(os.environ.get("TXPAXOS_LOCK_SEEDS", "1"))
"""How many seeds are run; ``TXPAXOS_LOCK_SEEDS=1000`` takes some hours."""

RUN_SECONDS = 20.0


def is_in_order(tokens: list[int]) -> bool:
    return tokens == sorted(tokens)


@pytest.fixture(scope="module")
def runs() -> list[LockRun]:
    return [LockRun(0, 5.0, kinds=()), *(LockRun(seed, RUN_SECONDS) for seed in range(21, 21 + SEEDS))]


def test_fenced_writes_do_not_overlap_when_holders_are_stopped(runs: list[LockRun]) -> None:
    for run in runs:
        assert is_in_order(run.storage.fenced)
        assert is_in_order(list(run.tokens))


def test_without_the_fence_writes_do_overlap(runs: list[LockRun]) -> None:
    """So that none thinks that the lock is enough: one who was stopped writes after the next holder has."""
    assert any(not is_in_order(run.storage.written) for run in runs)


def test_the_runs_have_what_they_are_for(runs: list[LockRun]) -> None:
    for what in ("holds", "pauses", "terms"):
        assert sum(run.counts.get(what, 0) for run in runs) >= SEEDS, what
    assert sum(len(run.storage.fenced) for run in runs) > 50
    assert sum(len(run.tokens) for run in runs) > 50


def test_clients_that_all_nodes_send_away_do_not_go_to_and_fro() -> None:
    """Two nodes said that clients should use another one, and the third was down. Each client made connections as fast
    as it could, thousands in a moment."""
    LockRun(556, RUN_SECONDS)
