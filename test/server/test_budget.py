"""What clients take of the budget is counted for each and in total, and given back to the last byte."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs
import pytest

import txpaxos.server.budget
from txpaxos.server.budget import PARTIAL_BYTES_FREE, Budget, Usage
from txpaxos.server.shares import SharedBudget


@attrs.define(eq=False)
class FakeConnection:
    """A connection that only says whether it was closed."""

    closed: bool = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def budget() -> Budget:
    return Budget()


def test_requests_are_counted_for_the_connection_and_for_all(budget: Budget) -> None:
    first, second = budget.open(FakeConnection()), budget.open(FakeConnection())
    assert budget.take_requests(first, 2, 100)
    assert budget.take_requests(second, 1, 10)
    assert (budget.requests, budget.request_bytes) == (3, 110)
    assert (first.requests, first.request_bytes) == (2, 100)
    budget.give_back_requests(first, 2, 100)
    budget.check()
    assert (budget.requests, budget.request_bytes) == (1, 10)


def test_requests_that_do_not_fit_are_not_counted(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_ALL_MAX", 3)
    monkeypatch.setattr(txpaxos.server.budget, "REQUEST_BYTES_ALL_MAX", 100)
    usage = budget.open(FakeConnection())
    assert budget.take_requests(usage, 2, 100)
    assert not budget.take_requests(usage, 2, 0)
    assert not budget.take_requests(usage, 1, 1)
    assert (usage.requests, usage.request_bytes) == (2, 100)
    budget.check()


def test_requests_of_one_connection_are_limited(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_MAX", 3)
    usage = budget.open(FakeConnection())
    assert budget.take_requests(usage, 2, 0)
    assert usage.admits(1)
    assert not usage.admits(2)


def test_a_small_part_is_free_when_the_others_have_much(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "PARTIAL_BYTES_ALL_MAX", 2 * PARTIAL_BYTES_FREE)
    many, few = budget.open(FakeConnection()), budget.open(FakeConnection())
    assert budget.take_partial(many, 2 * PARTIAL_BYTES_FREE)
    assert budget.take_partial(few, PARTIAL_BYTES_FREE)
    assert not budget.take_partial(few, PARTIAL_BYTES_FREE + 1)
    assert budget.partial_bytes == 3 * PARTIAL_BYTES_FREE + 1
    assert budget.take_partial(many, 0)
    assert budget.take_partial(few, PARTIAL_BYTES_FREE + 1)
    budget.check()


def test_the_slowest_is_the_one_that_paused_first(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_ALL_MAX", 100)
    first, second = budget.open(FakeConnection()), budget.open(FakeConnection())
    budget.pause(second)
    budget.pause(first)
    budget.take_buffer(first, 100)
    assert budget.slowest() is None
    budget.take_buffer(second, 1)
    assert budget.slowest() is second.connection
    budget.give_back_buffer(second)
    assert budget.slowest() is None
    assert (budget.paused, budget.buffered_bytes) == (1, 100)
    budget.check()


def test_writes_are_blocked_while_the_buffer_is_full(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_MAX", 100)
    usage = budget.open(FakeConnection())
    budget.pause(usage)
    budget.take_buffer(usage, 100)
    assert not usage.is_write_blocked
    budget.take_buffer(usage, 1)
    assert usage.is_write_blocked
    budget.give_back_buffer(usage)
    assert not usage.is_write_blocked


def test_a_connection_that_ends_gives_back_everything_but_its_requests(budget: Budget) -> None:
    usage = budget.open(FakeConnection())
    budget.take_requests(usage, 2, 10)
    budget.take_partial(usage, 100)
    budget.pause(usage)
    budget.take_buffer(usage, 1000)
    budget.end(usage)
    budget.check()
    assert (budget.requests, budget.partial_bytes, budget.buffered_bytes, budget.paused) == (2, 0, 0, 0)
    budget.give_back_requests(usage, 1, 5)
    budget.give_back_requests(usage, 1, 5)
    assert (budget.requests, budget.request_bytes) == (0, 0)
    with pytest.raises(KeyError):
        budget.give_back_requests(usage, 0, 0)


@pytest.mark.parametrize(
    "fault",
    [
        lambda budget, usage: budget.give_back_requests(usage, 2, 0),
        lambda budget, usage: budget.give_back_requests(usage, 1, 11),
        lambda budget, usage: budget.take_buffer(usage, 1),
        lambda budget, usage: (budget.end(usage), budget.end(usage)),
    ],
)
def test_what_was_not_taken_is_not_given_back(budget: Budget, fault: Callable[[Budget, Usage], object]) -> None:
    usage = budget.open(FakeConnection())
    budget.take_requests(usage, 1, 10)
    with pytest.raises(AssertionError):
        fault(budget, usage)


@pytest.mark.parametrize("name", ["requests", "request_bytes", "partial_bytes", "buffered_bytes"])
def test_a_lost_count_is_found_when_the_last_connection_ends(budget: Budget, name: str) -> None:
    usage = budget.open(FakeConnection())
    setattr(budget, name, 1)
    with pytest.raises(AssertionError, match=name):
        budget.end(usage)


@pytest.mark.parametrize("kind", [Budget, SharedBudget])
def test_any_course_of_events_keeps_the_invariant(kind: type[Budget], monkeypatch: pytest.MonkeyPatch) -> None:
    budget = kind()
    for name, value in [("REQUESTS_ALL_MAX", 50), ("REQUEST_BYTES_ALL_MAX", 500), ("BUFFERED_BYTES_ALL_MAX", 900)]:
        monkeypatch.setattr(txpaxos.server.budget, name, value)
    rng = Random(3)
    usages: list[Usage] = []
    taken: list[tuple[Usage, int, int]] = []
    for _ in range(3000):
        if len(usages) < 2 or rng.random() < 0.05:
            usages.append(budget.open(FakeConnection()))
            if isinstance(budget, SharedBudget):
                budget.take_partial(usages[-1], 100)
                budget.assign(usages[-1], rng.choice("abc"))
        usage = rng.choice(usages)
        match rng.randrange(6):
            case 0:
                count, size = rng.randrange(1, 9), rng.randrange(99)
                if budget.take_requests(usage, count, size):
                    taken.append((usage, count, size))
            case 1 if taken:
                budget.give_back_requests(*taken.pop(rng.randrange(len(taken))))
            case 2:
                budget.take_partial(usage, rng.randrange(200_000))
            case 3:
                budget.pause(usage)
                budget.take_buffer(usage, rng.randrange(200))
                assert (budget.slowest() is None) == (budget.buffered_bytes <= 900)
            case 4:
                budget.give_back_buffer(usage)
            case 5 if rng.random() < 0.3:
                usages.remove(usage)
                budget.end(usage)
        budget.check()
    for usage in usages:
        budget.end(usage)
    for one in taken:
        budget.give_back_requests(*one)
    budget.check()
    assert (budget.requests, budget.request_bytes, budget.partial_bytes, budget.buffered_bytes) == (0, 0, 0, 0)


# ------------------------------------------------------- shares of principals


@pytest.fixture
def shared() -> SharedBudget:
    return SharedBudget()


def usage_of(budget: SharedBudget, principal: str) -> Usage:
    usage = budget.open(FakeConnection())
    budget.assign(usage, principal)
    return usage


def test_one_principal_may_have_half_of_the_requests(shared: SharedBudget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "REQUESTS_ALL_MAX", 8)
    monkeypatch.setattr(txpaxos.server.budget, "REQUEST_BYTES_ALL_MAX", 80)
    first, second, other = usage_of(shared, "a"), usage_of(shared, "a"), usage_of(shared, "b")
    assert shared.take_requests(first, 3, 30)
    assert not shared.take_requests(second, 2, 0)
    assert not shared.take_requests(second, 1, 11)
    assert (second.requests, shared.requests) == (0, 3)
    assert shared.take_requests(other, 4, 40)
    shared.give_back_requests(first, 3, 30)
    assert shared.take_requests(second, 4, 40)
    assert not shared.take_requests(first, 1, 0)
    shared.check()


def test_one_principal_may_have_half_of_what_has_come_in_part(
    shared: SharedBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "PARTIAL_BYTES_ALL_MAX", 6 * PARTIAL_BYTES_FREE)
    first, second, other = usage_of(shared, "a"), usage_of(shared, "a"), usage_of(shared, "b")
    assert shared.take_partial(first, 3 * PARTIAL_BYTES_FREE)
    assert shared.take_partial(second, PARTIAL_BYTES_FREE)
    assert shared.take_partial(other, PARTIAL_BYTES_FREE + 1)
    assert not shared.take_partial(second, PARTIAL_BYTES_FREE + 1)
    shared.check()


def test_the_slowest_is_one_of_the_principal_that_has_most(
    shared: SharedBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(txpaxos.server.budget, "BUFFERED_BYTES_ALL_MAX", 100)
    few, stranger = usage_of(shared, "b"), shared.open(FakeConnection())
    many = [usage_of(shared, "a") for _ in range(2)]
    for usage in (stranger, few, *many):
        shared.pause(usage)
        shared.take_buffer(usage, 30)
    assert shared.slowest() is many[0].connection
    shared.give_back_buffer(many[0])
    assert shared.slowest() is None
    shared.check()


def test_a_share_ends_with_its_last_request(shared: SharedBudget) -> None:
    usage = usage_of(shared, "a")
    shared.take_requests(usage, 1, 10)
    shared.end(usage)
    assert shared.connections_of("a") == 1
    shared.give_back_requests(usage, 1, 10)
    assert shared.connections_of("a") == 0
    shared.check()


def test_a_connection_counts_for_one_principal_at_a_time(shared: SharedBudget) -> None:
    usage = usage_of(shared, "")
    shared.take_partial(usage, 10)
    shared.assign(usage, "a")
    assert (shared.connections_of(""), shared.connections_of("a")) == (0, 1)
    shared.check()
    shared.take_requests(usage, 1, 0)
    with pytest.raises(AssertionError):
        shared.assign(usage, "b")
