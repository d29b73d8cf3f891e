"""The check that ``txpaxos demo`` ends with sees everything it is there to see."""

from __future__ import annotations

from itertools import accumulate
from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txpaxos.cli.history import AcknowledgedIncrement, complaints

AMOUNTS = range(1, 21)


def history(seed: int) -> list[AcknowledgedIncrement]:
    """A run in which all went well: the increments in some order, and their answers in another."""
    rng = Random(seed)
    amounts = rng.sample(AMOUNTS, len(AMOUNTS))
    found = [
        AcknowledgedIncrement(amount, total, 0.0, 0.0)
        for amount, total in zip(amounts, accumulate(amounts), strict=True)
    ]
    rng.shuffle(found)
    return found


def equal(total: int) -> dict[str, int]:
    return dict.fromkeys("abc", total)


@given(st.integers(0, 2**32))
def test_good_run(seed: int) -> None:
    assert complaints(AMOUNTS, history(seed), equal(sum(AMOUNTS))) == []


@given(st.integers(0, 2**32), st.sampled_from(AMOUNTS))
def test_increment_without_an_answer(seed: int, amount: int) -> None:
    kept = [one for one in history(seed) if one.amount != amount]
    found = complaints(AMOUNTS, kept, equal(sum(AMOUNTS)))
    assert found[0] == f"1 increments were not acknowledged: +{amount}"
    assert len(found) > 1  # the step after it does not fit either, or the end


@given(st.integers(0, 2**32), st.sampled_from(AMOUNTS), st.sampled_from([-1, 1]))
def test_increment_lost_or_counted_twice_after_its_answer(seed: int, amount: int, sign: int) -> None:
    its = next(one.total for one in history(seed) if one.amount == amount)
    later = [attrs.evolve(one, total=one.total + sign * amount) if one.total > its else one for one in history(seed)]
    assert complaints(AMOUNTS, later, equal(sum(AMOUNTS) + sign * amount)) != []


def test_one_lost_and_another_twice_do_not_make_up_for_each_other() -> None:
    answers = [(1, 1), (2, 3), (3, 6), (4, 7), (5, 12)]  # +3 was lost after its answer; then +1 and +2 again
    run = [AcknowledgedIncrement(amount, total, 0.0, 0.0) for amount, total in answers]
    assert complaints(range(1, 6), run, equal(15)) != []


def test_same_answer_twice() -> None:
    run = [
        AcknowledgedIncrement(1, 1, 0.0, 0.0),
        AcknowledgedIncrement(2, 3, 0.0, 0.0),
        AcknowledgedIncrement(3, 3, 0.0, 0.0),
    ]
    assert complaints([1, 2, 3], run, equal(3)) == ["+3 after 3 was acknowledged as 3"]


@pytest.mark.parametrize("node", "abc")
def test_node_that_differs(node: str) -> None:
    totals = equal(210) | {node: 209}
    assert complaints(AMOUNTS, history(1), totals) == [f"node {node} has 209 and should have 210"]


def test_all_nodes_lost_the_last_one() -> None:
    assert len(complaints(AMOUNTS, history(1), equal(200))) == 3
