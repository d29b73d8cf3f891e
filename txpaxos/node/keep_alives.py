"""Keep-alives of timers, from the clients of this node to the leader, and back when the log has them.

A client sends names of kept-alive timers, and one number for all of them that is higher than before. This node tells
the leader, which puts the timers off by a value of the log. The client is answered when this node has applied that
value: so what it is told holds, whichever node leads then. Nothing is saved for it. Until the client is answered, the
node tells the leader again from time to time, and a new leader at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import attrs
from twisted.internet.defer import Deferred, fail

from txpaxos.errors import Overloaded, PaxosError
from txpaxos.node.heard_keep_alives import pause_seconds
from txpaxos.node.timers import Timers, TimerState, Together
from txpaxos.replicated_time import ELAPSED_MS_MAX
from txpaxos.wire.stamps import KEPT_ALIVE_MAX, KeptAlive

PAUSE_SECONDS = 0.05
"""The shortest time between two times at which a follower tells its leader what clients have sent. It is longer if all
timers have long periods, see :func:`~txpaxos.node.heard_keep_alives.pause_seconds`."""

AGAIN_SECONDS, AGAIN_SECONDS_MAX = 0.25, 4.0
"""How long to wait for the log before the leader is told again. The time doubles while nothing comes."""

WAITING_MAX = 2**17
"""The most names that may wait at one node."""

OWNER_SHARES = 2
"""Those of one owner may be one of this number of equal shares, so that others find room."""

MESSAGE_BYTES = 2**15
"""Bytes of names in one message to the leader."""


class Kept(NamedTuple):
    """What a client is told of timers that it keeps alive.

    :ivar numbers: for each name the number of the last keep-alive that counted; ``None`` if it is no kept-alive timer.
    :ivar period_ms: the shortest period of them; 0 if there is none.
    """

    numbers: tuple[int | None, ...]
    period_ms: int


@attrs.define(eq=False)
class _Call:
    """One message of a client.

    :ivar owner: for whom it counts.
    :ivar numbers: for each name that is confirmed, its number; ``None`` for one that is no kept-alive timer.
    :ivar missing: the names that are neither.
    :ivar period_ms: the shortest period of the timers that are known; 0 if none is.
    :ivar together: how many timers they are, if the message has the number of a keep-alive in place of their names.
    """

    number: int
    names: Sequence[str | int]
    owner: str
    answer: Deferred[Kept]
    together: int = 0
    period_ms: int = 0
    numbers: dict[str | int, int | None] = attrs.field(factory=dict)
    missing: set[str | int] = attrs.field(factory=set)

    def find(self, timers: Timers, name: str | int) -> TimerState | Together | None:
        """What ``name`` stands for; ``None`` if there is no such timer, or not all of those that were together are
        together still."""
        if not self.together:
            return timers.kept_alive(name)
        # This very keep-alive may have counted. Then they have its number, and not the one before.
        kept = timers.kept_alive(self.number) or timers.kept_alive(name)
        return kept if isinstance(kept, Together) and kept.count == self.together else None

    def answer_if_complete(self) -> None:
        """Answer the client, unless something is missing, or it was answered already."""
        if not self.missing and not self.answer.called:
            numbers = tuple(map(self.numbers.__getitem__, self.names))
            self.answer.callback(Kept(numbers, self.period_ms))


class KeepAlives:
    """The keep-alives that wait at one node.

    :param timers: the timers of the node. A snapshot may replace them.
    :param catch_up: gives a Deferred that fires when this node has applied all that was acknowledged before.
    :param wanted: called when there is something to tell the leader, so that the node does it soon.
    """

    def __init__(
        self, timers: Callable[[], Timers], catch_up: Callable[[], Deferred[object]], wanted: Callable[[], None]
    ) -> None:
        self._timers = timers
        self._catch_up = catch_up
        self._wanted = wanted
        self._waiting: dict[str | int, dict[_Call, None]] = {}
        self._changed: list[str | int] = []
        self._to_tell: dict[str | int, int] = {}
        self._told_at = float("-inf")
        self._again_at = float("inf")
        self._again_seconds = AGAIN_SECONDS
        self._shortest_ms = ELAPSED_MS_MAX  # The shortest period of the timers that wait.
        self._count = 0
        self._count_of: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many timers wait for the log."""
        return len(self._waiting)

    # from clients

    def keep_alive(self, number: int, names: Sequence[str | int], owner: str = "", together: int = 0) -> Deferred[Kept]:
        """Keep the timers ``names`` alive.

        :param owner: for whom they count, as a client's address or name; empty for the node's own program, which has no
            share of its own.
        :param together: if not 0, the only name is the number of the last keep-alive that counted for these timers, and
            this is how many they are. If they are fewer now, the number for it is ``None``.
        :returns: fires with a number for each name: that of the last keep-alive in the log, which is at least
            ``number``; ``None`` if there is no such kept-alive timer. Fails with :class:`~txpaxos.errors.Overloaded`.
            It waits as long as there is no leader; cancel it to stop that.
        """
        if self._count + len(names) > WAITING_MAX:
            return fail(Overloaded(f"keep-alives for {self._count} timers wait already; try again later"))
        if owner and self._count_of[owner] + len(names) > WAITING_MAX // OWNER_SHARES:
            count = self._count_of[owner]
            return fail(Overloaded(f"keep-alives of this client for {count} timers wait already; try again later"))
        call = _Call(number, names, owner, Deferred(lambda _: self._forget(call)), together)
        if not self._waiting:
            self._again_at, self._shortest_ms = float("inf"), ELAPSED_MS_MAX
        timers, are_all_known = self._timers(), True
        find = timers.kept_alive if not together else partial(call.find, timers)
        for name in dict.fromkeys(names):
            timer = find(name)
            if timer is not None and (timer.period_ms < call.period_ms or not call.period_ms):
                call.period_ms = timer.period_ms
            if timer is not None and timer.number >= number:
                call.numbers[name] = timer.number
                continue
            call.missing.add(name)
            self._waiting.setdefault(name, {})[call] = None
            if timer is None:
                are_all_known = False
            else:
                self._to_tell[name] = max(number, self._to_tell.get(name, 0))
        self._count += len(call.missing)
        if call.missing:
            self._count_of[owner] += len(call.missing)
        self._note_period(call)
        if not are_all_known:
            self._check_missing(call)
        if call.missing:
            self._wanted()
        call.answer_if_complete()
        return call.answer

    # from the log

    def note(self, name: str | int) -> None:
        """The timer ``name`` was kept alive, or is there no more. Or so were those with the number ``name``."""
        if name in self._waiting:
            self._changed.append(name)

    def applied(self) -> None:
        """A value is applied: answer the calls that waited for that."""
        if self._changed:
            changed, self._changed = self._changed, []
            self._again_seconds = AGAIN_SECONDS
            self._look_at(changed)

    def restored(self) -> None:
        """A snapshot has replaced the timers."""
        self._changed.clear()
        self._look_at_known()
        timers = self._timers()
        for call in self._calls():
            if any(call.find(timers, name) is None for name in call.missing):
                self._check_missing(call)
        self._tell_again()

    # to the leader

    def leader_changed(self) -> None:
        """Another node leads, or none: what waits is to be told anew."""
        self._again_seconds = AGAIN_SECONDS
        self._tell_again()

    @property
    def wake_at(self) -> float | None:
        """When the leader is to be told next, in monotonic seconds; ``None`` if nothing waits."""
        if not self._waiting:
            return None
        return min(self._again_at, self._told_at + self._pause_seconds) if self._to_tell else self._again_at

    @property
    def _pause_seconds(self) -> float:
        """How long what clients send is collected before the leader is told."""
        return pause_seconds(self._shortest_ms, PAUSE_SECONDS)

    def take_due(self, now: float, pause: bool) -> tuple[KeptAlive, ...]:
        """What the leader is to be told now: as much as one message should hold. Call again until it is empty.

        :param pause: whether to wait a little after the last time, for more to come.
        """
        if not self._waiting:
            return ()
        if now >= self._again_at:
            self._again_seconds = min(2 * self._again_seconds, AGAIN_SECONDS_MAX)
            self._look_at_known()
            self._tell_again()
        if pause and self._told_at < now < self._told_at + self._pause_seconds:
            return ()
        telling: list[KeptAlive] = []
        room = MESSAGE_BYTES
        while self._to_tell and room > 0 and len(telling) < KEPT_ALIVE_MAX:
            one = KeptAlive(*self._to_tell.popitem())
            if one.name in self._waiting:
                room -= one.size_bytes
                telling.append(one)
        if telling:
            self._told_at = now
            self._again_at = now + self._again_seconds + self._pause_seconds
            if not self._to_tell:
                self._shortest_ms = ELAPSED_MS_MAX
        return tuple(telling)

    def close(self, error: PaxosError) -> None:
        """The node stops: every call without an answer fails with ``error``."""
        for calls in list(self._waiting.values()):
            for call in list(calls):
                self._fail(call, error)

    # inside

    def _calls(self) -> Iterable[_Call]:
        """All that wait, each once."""
        return {call: None for calls in self._waiting.values() for call in calls}

    def _look_at(self, names: Iterable[str | int]) -> None:
        """The log has kept the timers ``names`` alive, or ended them."""
        timers = self._timers()
        for name in names:
            for call in tuple(self._waiting.get(name, ())):
                self._note_kept(call, name, call.find(timers, name))

    def _look_at_known(self) -> None:
        """Answer what the log has confirmed, whether this node was told or not: a snapshot has come, or a timer that a
        client has named was kept alive together with others since."""
        timers = self._timers()
        for name, calls in tuple(self._waiting.items()):
            for call in tuple(calls):
                if (timer := call.find(timers, name)) is not None:
                    self._note_kept(call, name, timer)

    def _note_kept(self, call: _Call, name: str | int, timer: TimerState | Together | None) -> None:
        """Answer ``call`` if that was missing of which ``timer`` is what this node knows."""
        number = None if timer is None else timer.number
        if number is None or number >= call.number:
            self._stop_waiting(call, name)
            call.numbers[name] = number
            call.answer_if_complete()

    def _check_missing(self, call: _Call) -> None:
        """This node does not know all timers of ``call``. Perhaps it is behind: it finds out before it says so."""

        def caught_up(_: object) -> None:
            timers = self._timers()
            for name in sorted(call.missing, key=str):
                timer = call.find(timers, name)
                if timer is None:
                    self._stop_waiting(call, name)
                    call.numbers[name] = None
                else:
                    call.period_ms = min(timer.period_ms, call.period_ms or timer.period_ms)
                    self._to_tell[name] = max(call.number, self._to_tell.get(name, 0))
            self._note_period(call)
            call.answer_if_complete()
            self._wanted()

        self._catch_up().addCallbacks(caught_up, lambda failure: self._fail(call, failure.value))

    def _note_period(self, call: _Call) -> None:
        self._shortest_ms = min(self._shortest_ms, call.period_ms or ELAPSED_MS_MAX)

    def _fail(self, call: _Call, error: BaseException | None) -> None:
        if not call.answer.called:
            self._forget(call)
            call.answer.errback(error)

    def _forget(self, call: _Call) -> None:
        """The caller does not wait any more."""
        for name in list(call.missing):
            self._stop_waiting(call, name)

    def _stop_waiting(self, call: _Call, name: str | int) -> None:
        call.missing.discard(name)
        self._count -= 1
        self._count_of[call.owner] -= 1
        if not self._count_of[call.owner]:
            del self._count_of[call.owner]
        calls = self._waiting[name]
        if len(calls) == 1:
            del self._waiting[name]
        else:
            del calls[call]

    def _tell_again(self) -> None:
        self._told_at = float("-inf")
        for name, calls in self._waiting.items():
            self._to_tell[name] = max(call.number for call in calls)
        for call in self._calls():
            self._note_period(call)
