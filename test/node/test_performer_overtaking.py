"""What rests on nothing does not wait for a save, and hands nothing out of order."""

from __future__ import annotations

import attrs
import pytest

from test.node.test_performer import PerformerHarness, plain, saving
from txpaxos.core.ready import Chosen, Ready


def resting_on_nothing(number: int) -> Ready:
    return Ready(needs_no_prior_save=True, wake_at=number)


@pytest.fixture
def harness() -> PerformerHarness:
    return PerformerHarness()


def test_what_needs_no_prior_save_waits_for_none(harness: PerformerHarness) -> None:
    """While a save is under way, and before what came earlier in the same turn."""
    proposals = [resting_on_nothing(8), resting_on_nothing(9)]
    harness.refill = lambda: harness.add(proposals.pop()) if proposals else None
    harness.store.slow = True
    harness.add(plain(1), saving(2))
    harness.reactor.turn()
    assert harness.done == ["release 9", "release 1", "release 8", "save 2"]
    proposals.append(resting_on_nothing(7))
    harness.performer.schedule()
    harness.reactor.turn()
    assert harness.done[4:] == ["release 7"]
    harness.store.finish()
    assert harness.done[5:] == ["release 2"]


def test_what_is_handed_out_stays_in_order(harness: PerformerHarness) -> None:
    """A Ready that rests on nothing does not overtake one that hands something out, wherever that waits."""
    one, two = (Chosen(slot, b"") for slot in (1, 2))
    harness.store.slow = True
    harness.add(attrs.evolve(saving(1), chosen=(one,)), saving(2))
    overtaking = attrs.evolve(resting_on_nothing(3), chosen=(two,))
    harness.add(overtaking)
    harness.reactor.turn()
    harness.add(attrs.evolve(resting_on_nothing(4), chosen=(two,)), resting_on_nothing(5))
    assert harness.done == ["save 1 2", "release 5"]
    six = attrs.evolve(resting_on_nothing(6), chosen=(two,))
    harness.release = lambda ready: harness.add(six) if ready.wake_at == 1 else None
    harness.store.finish()
    harness.reactor.turn()
    assert harness.done[2:] == ["release 1", "release 2", "release 3", "release 4", "release 6"]
    harness.add(saving(7))
    harness.reactor.turn()
    harness.add(overtaking)
    assert harness.done[-2:] == ["save 7", "release 3"]


def test_what_rests_on_nothing_saves_nothing(harness: PerformerHarness) -> None:
    harness.refill = lambda: harness.add(attrs.evolve(saving(1), needs_no_prior_save=True))
    harness.performer.schedule()
    harness.reactor.turn()
    assert harness.done == ["fail BrokenInvariant"]
