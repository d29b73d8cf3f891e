"""What the leader has heard of kept-alive timers and not yet put into a value.

It is in memory only, and a new leader begins with nothing: followers tell it what their clients wait for
(:mod:`txpaxos.node.keep_alives`). No timer fires on the leader's word. The leader can only put a timer off, by a value
that is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from txpaxos.node.timers import Timers
from txpaxos.replicated_time import ELAPSED_MS_MAX
from txpaxos.wire.stamps import KEPT_ALIVE_MAX, KeptAlive

PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 1.0
"""The shortest time between two values that are proposed for nothing but keep-alives. What is heard meanwhile goes
together, or with commands if some are proposed sooner. It is a twentieth of the shortest period of the timers that were
heard of, within these bounds: a client that counts 0.99 of the period hardly sees it."""

PAUSE = 0.05
"""The part of the shortest period."""

VALUE_BYTES = 2**16
"""Bytes of keep-alives in one value. With that many the next value is proposed without a pause."""


def pause_seconds(period_ms: int, least_seconds: float) -> float:
    """How long keep-alives are collected of timers of which ``period_ms`` is the shortest period."""
    return min(max(least_seconds, PAUSE * period_ms / 1000), PAUSE_SECONDS_MAX)


class HeardKeepAlives:
    """The keep-alives for the leader's next value.

    :param timers: the timers of the node. A snapshot may replace them.
    :ivar is_forwarded: whether some of them came from a follower, which waits for the log.
    """

    def __init__(self, timers: Callable[[], Timers]) -> None:
        self.is_forwarded = False
        self._timers = timers
        self._heard: dict[str | int, KeptAlive] = {}
        self._size_bytes = 0
        self._taken_at = float("-inf")
        self._shortest_ms = ELAPSED_MS_MAX  # The shortest period since then.

    def hear(self, kept_alive: Iterable[KeptAlive], forwarded: bool = False) -> None:
        """Take what clients of this node, or of a follower, have sent. What is no kept-alive timer is left out, and so
        is what has counted already."""
        find, heard = self._timers().kept_alive, self._heard
        for one in kept_alive:
            name, number = one
            timer = find(name)
            if timer is not None and number > timer.number:
                before = heard.get(name)
                if before is None:
                    self._size_bytes += one.size_bytes
                if before is None or number > before.number:
                    heard[name] = one
                self.is_forwarded |= forwarded
                if timer.period_ms < self._shortest_ms:
                    self._shortest_ms = timer.period_ms

    def propose_at(self) -> float | None:
        """When a value is to be proposed for what was heard, if none is proposed sooner, in monotonic seconds; ``None``
        if nothing was heard."""
        if not self._heard:
            return None
        is_full = len(self._heard) >= KEPT_ALIVE_MAX or self._size_bytes >= VALUE_BYTES
        return float("-inf") if is_full else self._taken_at + pause_seconds(self._shortest_ms, PAUSE_SECONDS)

    def take(self, now: float) -> tuple[KeptAlive, ...]:
        """What goes into the next value, in the order in which it was heard. It counts as heard no more."""
        if not self._heard:
            return ()
        self._taken_at = now
        if self._size_bytes <= VALUE_BYTES and len(self._heard) <= KEPT_ALIVE_MAX:
            taken = list(self._heard.values())
            self.clear()
            return tuple(taken)
        taken, room = [], VALUE_BYTES
        for one in self._heard.values():
            room -= one.size_bytes
            if taken and (room < 0 or len(taken) == KEPT_ALIVE_MAX):
                break
            taken.append(one)
        for one in taken:
            del self._heard[one.name]
            self._size_bytes -= one.size_bytes
        self.is_forwarded &= bool(self._heard)
        return tuple(taken)

    def clear(self) -> None:
        """Forget all of it: this node leads no more."""
        self._heard.clear()
        self._size_bytes, self._shortest_ms = 0, ELAPSED_MS_MAX
        self.is_forwarded = False
