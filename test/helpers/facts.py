"""Facts of explain, as two tellings of them are compared."""

from __future__ import annotations

import attrs

from txpaxos.explaining.facts import Fact


def without_time(fact: Fact) -> Fact:
    """A fact without its time. A node that starts again does some things again."""
    return attrs.evolve(fact, utc_seconds=0.0)
