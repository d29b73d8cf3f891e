"""What rests on nothing does not wait for a save, and hands nothing out of order."""

from __future__ import annotations

import attrs
import pytest

from test.node.test_performer import Bare, plain, saving
from txpaxos.core.ready import Chosen, Ready


def resting_on_nothing(number: int) -> Ready:
    return Ready(needs_no_prior_save=True, wake_at=number)


@pytest.fixture
def bare() -> Bare:
    return Bare()


def test_what_rests_on_nothing_waits_for_nobody(bare: Bare) -> None:
    """While a save is under way, and before what came earlier in the same turn."""
    proposals = [resting_on_nothing(8), resting_on_nothing(9)]
    bare.refill = lambda: bare.add(proposals.pop()) if proposals else None
    bare.store.slow = True
    bare.add(plain(1), saving(2))
    bare.reactor.turn()
    assert bare.done == ["release 9", "release 1", "release 8", "save 2"]
    proposals.append(resting_on_nothing(7))
    bare.performer.schedule()
    bare.reactor.turn()
    assert bare.done[4:] == ["release 7"]
    bare.store.finish()
    assert bare.done[5:] == ["release 2"]


def test_what_is_handed_out_stays_in_order(bare: Bare) -> None:
    """A Ready that rests on nothing does not overtake one that hands something out, wherever that waits."""
    one, two = (Chosen(slot, b"") for slot in (1, 2))
    bare.store.slow = True
    bare.add(attrs.evolve(saving(1), chosen=(one,)), saving(2))
    overtaking = attrs.evolve(resting_on_nothing(3), chosen=(two,))
    bare.add(overtaking)
    bare.reactor.turn()
    bare.add(attrs.evolve(resting_on_nothing(4), chosen=(two,)), resting_on_nothing(5))
    assert bare.done == ["save 1 2", "release 5"]
    six = attrs.evolve(resting_on_nothing(6), chosen=(two,))
    bare.release = lambda ready: bare.add(six) if ready.wake_at == 1 else None
    bare.store.finish()
    bare.reactor.turn()
    assert bare.done[2:] == ["release 1", "release 2", "release 3", "release 4", "release 6"]
    bare.add(saving(7))
    bare.reactor.turn()
    bare.add(overtaking)
    assert bare.done[-2:] == ["save 7", "release 3"]


def test_what_rests_on_nothing_saves_nothing(bare: Bare) -> None:
    bare.refill = lambda: bare.add(attrs.evolve(saving(1), needs_no_prior_save=True))
    bare.performer.schedule()
    bare.reactor.turn()
    assert bare.done == ["fail BrokenInvariant"]
