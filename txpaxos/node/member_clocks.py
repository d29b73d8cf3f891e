"""What the leader says the time of day is: its own clock, as far as those of the other voters agree with it.

The time of day in the log never goes back. So one clock that is far ahead must not get into it: no other clock could
ever say less. Two things keep it out. A leader whose clock is more than a second off the median of the voters' clocks
goes by the median. And a time that is more than an hour later than it should be, by the time that has passed since the
last one, waits until an operator accepts it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.log_lines import LineLimiter
from txpaxos.node.members import Members
from txpaxos.replicated_time import UTC_MS_MAX
from txpaxos.wire.peer_messages import AskClock, ClockReading

ASK_SECONDS = 30.0
"""A leader asks the other voters this often how late it is."""

ROUND_TRIP_SECONDS_MAX = 1.0
"""An answer that took longer says too little."""

OFFSET_MS_MAX = 1_000
"""A clock that is further off the median than this is not followed."""

JUMP_MS_MAX = 3_600_000
"""A time that is later by more than this than it should be waits until it is accepted."""


@attrs.frozen
class ClockReport:
    """How the clocks of the voters agree, for the status.

    :ivar offsets_seconds: by how much the clock of each other voter is ahead of this node's, when it was asked last.
    :ivar refused_seconds: how far the clocks have jumped ahead of the time in the log, while that is not accepted; 0
        otherwise.
    """

    offsets_seconds: dict[NodeId, float]
    refused_seconds: float


class MemberClocks:
    """The clocks of the voters, as the leader knows them.

    :param members: who the voters are.
    :param monotonic: in seconds.
    :param utc_seconds: this node's own clock, in seconds since 1970.
    :param send: sends a message to other nodes.
    :param wake_by: has :meth:`tick` called by a time, in monotonic seconds.
    """

    log = Logger()

    def __init__(
        self,
        members: Members,
        monotonic: Callable[[], float],
        utc_seconds: Callable[[], float],
        send: Callable[[tuple[NodeId, ...], AskClock | ClockReading], None],
        wake_by: Callable[[float], None],
        lines: LineLimiter,
    ) -> None:
        self._members = members
        self._monotonic = monotonic
        self._utc_seconds = utc_seconds
        self._send = send
        self._wake_by = wake_by
        self._lines = lines
        self._number = 0
        self._asked_at: float | None = None
        # The clocks of other voters, each less the monotonic clock of this node, so that they go on.
        self._clocks_ms: dict[NodeId, int] = {}
        # The time in the log less the monotonic clock, from when this node applied a time that was new; not known of
        # what was saved before it started.
        self._log_clock_ms: int | None = None
        self._is_accepted = False
        self._refused_ms = 0

    # as the leader

    def lead(self) -> None:
        """This node leads from now on: ask the others."""
        self._ask(self._monotonic())

    def lead_lost(self) -> None:
        """This node leads no more."""
        self._asked_at = None
        self._clocks_ms.clear()
        self._is_accepted = False
        self._refused_ms = 0

    def tick(self, now: float) -> None:
        """Ask again, if it is time."""
        if self._asked_at is not None and now >= self._asked_at + ASK_SECONDS:
            self._ask(now)

    def accept(self) -> int:
        """An operator has looked at the clocks: the next time in the log is what they say, however late that is.

        :returns: what they say, in milliseconds since 1970.
        """
        self._is_accepted = True
        return self._told_ms()

    def utc_ms(self, applied_ms: int) -> int:
        """What to say the time of day is.

        :param applied_ms: the last time in the log; 0 if there was none.
        """
        told = self._told_ms()
        expected = self._expected_ms(applied_ms)
        if expected is None or self._is_accepted or told <= expected + JUMP_MS_MAX:
            self._is_accepted = False
            self._refused_ms = 0
            return told
        self._refused_ms = told - expected
        self._warn(
            "the clocks say that it is {hours:.1f} hours later than it should be, and the time in the log goes on as if"
            " they had not jumped; if they are right, run: txpaxos clock accept{more}",
            event="clock_jump_refused",
            hours=self._refused_ms / 3_600_000,
        )
        return expected

    # on all nodes

    def applied(self, utc_ms: int) -> None:
        """A value was applied, and ``utc_ms`` is the last time in the log; 0 if there was none.

        A time that was saved before this node started, or that a new leader proposes again, may be old by any time: it
        says nothing of how late it is now.
        """
        log_clock_ms = utc_ms - self._monotonic_ms()
        if self._log_clock_ms is not None:
            self._log_clock_ms = max(self._log_clock_ms, log_clock_ms)
        elif abs(self._own_ms() - utc_ms) <= JUMP_MS_MAX:
            self._log_clock_ms = log_clock_ms

    def receive(self, sender: NodeId, message: AskClock | ClockReading) -> None:
        """Answer a question, or note an answer."""
        match message:
            case AskClock():
                self._send((sender,), ClockReading(message.number, self._own_ms()))
            case ClockReading():
                self._note(sender, message)

    def report(self) -> ClockReport:
        """How the clocks agree, as far as this node knows: nothing while it does not lead."""
        own = self._own_ms() - self._monotonic_ms()
        offsets = {node: (clock - own) / 1000 for node, clock in self._clocks_ms.items()}
        return ClockReport(offsets, self._refused_ms / 1000)

    # inside

    def _own_ms(self) -> int:
        return min(max(0, int(self._utc_seconds() * 1000)), UTC_MS_MAX)

    def _monotonic_ms(self) -> int:
        return int(self._monotonic() * 1000)

    def _ask(self, now: float) -> None:
        voters = self._members.other_voters
        self._asked_at = now
        for node in [node for node in self._clocks_ms if node not in voters]:
            del self._clocks_ms[node]
        if voters:
            self._number += 1
            self._send(voters, AskClock(self._number))
            self._wake_by(now + ASK_SECONDS)

    def _note(self, sender: NodeId, reading: ClockReading) -> None:
        if self._asked_at is None or reading.number != self._number or sender not in self._members.other_voters:
            return
        round_trip = self._monotonic() - self._asked_at
        if round_trip <= ROUND_TRIP_SECONDS_MAX:
            self._clocks_ms[sender] = reading.utc_ms + int(round_trip * 500) - self._monotonic_ms()

    @property
    def _knows_majority(self) -> bool:
        return 1 + len(self._clocks_ms) >= self._members.quorum

    def _told_ms(self) -> int:
        """What the clocks say: this node's own, unless it is too far off the median."""
        own = self._own_ms()
        others = sorted(self._clocks_ms.values())
        half = len(others) // 2
        if half == 0 or not self._knows_majority:
            return own
        # The nearest to this node's own of what is a median of all: between those in the middle, of an even number.
        since = self._monotonic_ms()
        middle = min(max(own, others[half - 1] + since), others[(len(others) + 1) // 2] + since)
        if abs(middle - own) <= OFFSET_MS_MAX:
            return own
        self._warn(
            "the clock of this machine is {seconds:.1f} s {way} those of most of the other nodes, and the time in the"
            " log goes by theirs: see to its time synchronization{more}",
            event="clock_off",
            seconds=abs(middle - own) / 1000,
            way="behind" if middle > own else "ahead of",
        )
        return min(max(0, middle), UTC_MS_MAX)

    def _expected_ms(self, applied_ms: int) -> int | None:
        """What the time of day should be by the last one in the log, and by the time that has passed since. ``None`` if
        there is nothing to go by: there was none, or this node has been off since, and a majority of the clocks is
        known."""
        if self._log_clock_ms is not None:
            return max(applied_ms, min(self._log_clock_ms + self._monotonic_ms(), UTC_MS_MAX))
        return None if applied_ms == 0 or self._knows_majority else applied_ms

    def _warn(self, line: str, *, event: str, **values: object) -> None:
        more = self._lines.admits(line)
        if more is not None:
            self.log.warn(line, more=more, event=event, **values)
