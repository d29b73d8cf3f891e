"""Counts and times the steps of one node, as an observer, and the requests of its clients."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from txpaxos.core.messages import Heartbeat, HeartbeatAck
from txpaxos.core.ready import LeadershipAcquired, LeadershipChanged, LeadershipLost, Ready
from txpaxos.metrics.histogram import Histogram
from txpaxos.metrics.round_trips import RoundTrips
from txpaxos.node.events import Event, MessageReceived, ReadyReleased, SaveFinished, SlotApplied, ValueReached


class Meter:
    """What is counted and timed at one node.

    :param monotonic: the clock, in monotonic seconds.
    :ivar syncs: how long saves took.
    :ivar applies: how long slots took to be applied.
    :ivar requests: how long the requests of clients took, by their kind.
    :ivar outcomes: how many requests ended how, by kind and outcome. A run of commands is as many as it has commands.
    :ivar stalls: by how much a timer of the reactor came late.
    :ivar round_trips: how long peers took to answer this node's heartbeats, while it led.
    :ivar elections_won: how often this node began to lead, and ``leads_lost`` how often it ceased to.
    :ivar leader_changes: how often this node saw another leader, or none, than before.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._applying_since = 0.0
        self.syncs, self.applies, self.stalls = Histogram(), Histogram(), Histogram()
        self.round_trips = RoundTrips()
        self.requests: dict[str, Histogram] = {}
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.elections_won = self.leads_lost = self.leader_changes = 0

    def __call__(self, event: Event) -> None:
        """Take a step of the node."""
        kind = type(event)
        if kind is ValueReached:
            self._applying_since = self._monotonic()
        elif kind is SlotApplied:
            self.applies.observe(self._monotonic() - self._applying_since)
        elif kind is SaveFinished:
            self.syncs.observe(event.seconds)  # type: ignore[union-attr]
        elif kind is ReadyReleased:
            self._released(event.ready)  # type: ignore[union-attr]
        elif kind is MessageReceived and type(event.message) is HeartbeatAck:  # type: ignore[union-attr]
            sender, ack = event.sender, event.message  # type: ignore[union-attr]
            self.round_trips.answered(sender, ack.sequence, self._monotonic())

    def _released(self, ready: Ready) -> None:
        for envelope in ready.send:
            message = envelope.message
            if type(message) is Heartbeat and message.sequence:  # One without a number is not answered.
                self.round_trips.sent(envelope.to, message.sequence, self._monotonic())
        for fact in ready.leadership:
            self.elections_won += isinstance(fact, LeadershipAcquired)
            self.leads_lost += isinstance(fact, LeadershipLost)
            self.leader_changes += isinstance(fact, LeadershipChanged)

    def request_ended(self, kind: str, count: int, seconds: float, outcome: str) -> None:
        """A request of a client has ended.

        :param kind: of which kind it was: ``command``, ``read``, and so on.
        :param count: how many requests that is.
        :param outcome: ``ok``, or the name of the error.
        """
        histogram = self.requests.get(kind)
        if histogram is None:
            histogram = self.requests[kind] = Histogram()
        histogram.observe(seconds, count)
        self.outcomes[kind, outcome] += count
