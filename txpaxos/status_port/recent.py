"""What has happened at a node of late, in words: who led, and which snapshots came about."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import attrs

from txpaxos.core.messages import NodeId
from txpaxos.core.ready import LeadershipAcquired, LeadershipChanged, LeadershipFact, LeadershipLost
from txpaxos.node.events import Event, ReadyReleased, SnapshotInstalled, SnapshotTaken

EVENTS_MAX = 50


@attrs.frozen
class Happening:
    """Something that happened.

    :ivar utc_seconds: when, in seconds since 1970.
    :ivar text: what, in a few words.
    """

    utc_seconds: float
    text: str


class Recent:
    """The last :data:`EVENTS_MAX` things that happened, as an observer of a node.

    :param utc_seconds: the wall clock.
    :ivar happenings: what happened, the newest last.
    :ivar leader_since: when this node saw its present leader first; ``None`` while it knows none.
    """

    def __init__(self, utc_seconds: Callable[[], float] = time.time) -> None:
        self._utc_seconds = utc_seconds
        self.happenings: deque[Happening] = deque(maxlen=EVENTS_MAX)
        self.leader_since: float | None = None

    def __call__(self, event: Event) -> None:
        """Take a step of the node."""
        kind = type(event)
        if kind is ReadyReleased:
            for fact in event.ready.leadership:  # type: ignore[union-attr]
                self._lead(fact)
        elif kind is SnapshotTaken:
            self._add(f"took a snapshot at slot {event.slot}")  # type: ignore[union-attr]
        elif kind is SnapshotInstalled:
            self._add(f"went on from a snapshot of another node, at slot {event.installed.slot}")  # type: ignore[union-attr]

    def _lead(self, fact: LeadershipFact) -> None:
        match fact:
            case LeadershipAcquired(ballot):
                self._add(f"leads with ballot {ballot}")
            case LeadershipLost(ballot):
                self._add(f"leads no more (ballot {ballot})")
            case LeadershipChanged(previous, current):
                self.leader_since = None if current is None else self._utc_seconds()
                self._add(_change(previous, current))

    def _add(self, text: str) -> None:
        self.happenings.append(Happening(self._utc_seconds(), text))


def _change(previous: NodeId | None, current: NodeId | None) -> str:
    if current is None:
        return f"hears its leader {previous} no more"
    return f"{current} leads" if previous is None else f"{current} leads, and {previous} no more"
