"""Timers in the replicated state, and the replicated time that they go by.

A timer is set while a command is applied, and fires on every node at the same slot: the first one whose time has
reached it. All of it is part of the snapshot.

A kept-alive timer fires when nothing has kept it alive for its period. Clients keep it alive
(:meth:`~txpaxos.Client.keep_alive`), and the leader says so in a value of the log
(:mod:`txpaxos.wire.stamps`): so when it fires, too, depends on the log alone.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.errors import CodecError
from txpaxos.replicated_time import BEGINNING, ELAPSED_MS_MAX, ReplicatedTime, checked_time
from txpaxos.wire.stamps import NUMBER_MAX, TIMER_NAME_BYTES_MAX, KeptAlive

PAYLOAD_BYTES_MAX = 2**16
TIMERS_MAX = 2**20
"""The most timers at a time."""

FIRED_MAX = 256
"""How many timers fire in one slot. The rest follows in the next ones, so that no turn of the reactor takes long."""

CHUNK_BYTES = 2**16
_STALE_MIN = 1024


@attrs.define(eq=False)
class Together:
    """All kept-alive timers for which the same keep-alive counted last. The next one that keeps all of them alive
    changes this alone, however many they are.

    :ivar number: of that keep-alive.
    :ivar kept_ms: when it counted, by the elapsed milliseconds; 0 if it named the timers, each of which knows that by
        itself then.
    :ivar count: how many timers they are.
    :ivar period_ms: no longer than the shortest period of them.
    """

    number: int
    kept_ms: int = 0
    count: int = 0
    period_ms: int = ELAPSED_MS_MAX


@attrs.define
class TimerState:
    """One timer.

    :ivar own_due_ms: when it fires, by the elapsed milliseconds, unless it was kept alive together with others since.
    :ivar payload: what it was set with.
    :ivar period_ms: how long it lives from when it was kept alive last; 0 if it is not a kept-alive timer.
    :ivar together: the timers for which the same keep-alive counted last; ``None`` if none did.
    :ivar queued_ms: the time under which the heap has it. That is earlier than ``due_ms`` if it was kept alive since.
    """

    own_due_ms: int
    payload: bytes
    period_ms: int = 0
    together: Together | None = None
    queued_ms: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queued_ms = self.own_due_ms

    @property
    def number(self) -> int:
        """The number of the last keep-alive that counted; 0 if none did."""
        return 0 if self.together is None else self.together.number

    @property
    def due_ms(self) -> int:
        """When it fires, by the elapsed milliseconds."""
        due_ms, together = self.own_due_ms, self.together
        if together is None or together.kept_ms + self.period_ms <= due_ms:
            return due_ms
        return self.due_if_kept(together.kept_ms)

    def due_if_kept(self, kept_ms: int) -> int:
        """When it fires if it was kept alive together with others at ``kept_ms``."""
        return max(self.own_due_ms, min(kept_ms + self.period_ms, ELAPSED_MS_MAX))

    def copy(self) -> TimerState:
        """The same timer, which may change by itself."""
        copied = TimerState(self.own_due_ms, self.payload, self.period_ms, self.together)
        copied.queued_ms = self.queued_ms
        return copied

    def row(self, name: str, number: int, kept_ms: int) -> _PlainRow | _KeptRow:
        """This timer in a snapshot. A plain one is there as earlier releases had it.

        :param number: of the last keep-alive that counted, when the snapshot was taken.
        :param kept_ms: when it counted for all timers together, then.
        """
        if not self.period_ms:
            return name, self.own_due_ms, self.payload
        return name, self.due_if_kept(kept_ms), self.payload, self.period_ms, number


_PlainRow: TypeAlias = tuple[str, int, bytes]
_KeptRow: TypeAlias = tuple[str, int, bytes, int, int]


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    due_ms: int
    payload: bytes
    period_ms: Annotated[int, msgspec.Meta(ge=1, le=ELAPSED_MS_MAX)] | None = None
    number: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)] = 0


class _Chunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    elapsed_ms: int
    utc_ms: int
    rows: list[_Row]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Chunk).decode


class Timers:
    """The time of a cluster, and what is to happen later.

    :param changed: called with the name of each kept-alive timer that was kept alive, or is there no more; and with the
        number of timers that one keep-alive has kept alive, when another one has kept all of them alive, or one of them
        is not among them any more.
    :ivar now: the replicated time at the slot that is being applied, or was applied last.
    """

    def __init__(self, changed: Callable[[str | int], object] = lambda name: None) -> None:
        self.now = BEGINNING
        self._changed = changed
        self._timers: dict[str, TimerState] = {}
        self._together: dict[int, Together] = {}  # By their numbers. None is without timers.
        # By when they are due, and then by name. Those that were cancelled, set anew or kept alive stay until their
        # turn comes.
        self._heap: list[tuple[int, str]] = []
        self._may_change = False
        self._kept_alive = 0
        # How many dumps are being read. They have the timers as they were.
        self._dumps = 0

    def __len__(self) -> int:
        return len(self._timers)

    def __iter__(self) -> Iterator[str]:
        """The names of the timers."""
        return iter(self._timers)

    def __contains__(self, name: object) -> bool:
        return name in self._timers

    @property
    def has_kept_alive(self) -> bool:
        """Whether there is a kept-alive timer."""
        return self._kept_alive > 0

    # from the application, while it applies

    def set(self, name: str, after_seconds: float, payload: bytes = b"", kept_alive: bool = False) -> None:
        """Have ``timer_fired`` called with ``name`` and ``payload``, in place of what was set under that name before.

        :param name: at most 512 bytes of UTF-8.
        :param after_seconds: from now on, by :attr:`~txpaxos.ReplicatedTime.elapsed_ms`: the time without a leader does
            not count. It fires at that time or a little later.
        :param payload: at most 64 KiB.
        :param kept_alive: whether clients put it off, by :meth:`Client.keep_alive <txpaxos.Client.keep_alive>`. Then it
            fires when none has done so for ``after_seconds``, or somewhat later if the leader has changed meanwhile.
        :raises RuntimeError: if no command is being applied: nodes would not be equal any more.
        :raises TypeError: if a value has the wrong type.
        :raises ValueError: if a value is out of its bounds, or there are too many timers.
        """
        self._check_may_change()
        _check(name, after_seconds, payload, kept_alive)
        name, payload = str.__str__(name), bytes(payload)  # Objects of subclasses could not be in a snapshot.
        if name not in self._timers and len(self._timers) >= TIMERS_MAX:
            raise ValueError(f"there are {TIMERS_MAX} timers already: cancel some, or use one for several things")
        after_ms = math.ceil(after_seconds * 1000)
        timer = TimerState(min(self.now.elapsed_ms + after_ms, ELAPSED_MS_MAX), payload)
        before = self._timers.get(name)
        self._kept_alive += kept_alive
        if kept_alive:
            timer.period_ms = after_ms
            # A keep-alive that has counted, and is on its way once more, does not count again.
            if before is not None and before.together is not None:
                self._join(timer, before.number)
        self._timers[name] = timer
        heapq.heappush(self._heap, (timer.due_ms, name))
        self._drop_stale()
        if before is not None:
            self._ended(name, before)

    def cancel(self, name: str) -> bool:
        """Let the timer ``name`` not fire.

        :returns: whether there was one.
        :raises RuntimeError: if no command is being applied.
        """
        self._check_may_change()
        timer = self._timers.pop(name, None)
        if timer is None:
            return False
        self._drop_stale()
        self._ended(name, timer)
        return True

    def due_in_seconds(self, name: str) -> float | None:
        """How long it takes until the timer ``name`` fires; ``None`` if there is none."""
        timer = self._timers.get(name)
        return None if timer is None else max(0, timer.due_ms - self.now.elapsed_ms) / 1000

    # from the applier, and from the leader

    def kept_alive(self, name: str | int) -> TimerState | Together | None:
        """The kept-alive timer ``name``, or the timers for which the keep-alive with that number counted last; ``None``
        if there is none."""
        if isinstance(name, int):
            return self._together.get(name)
        timer = self._timers.get(name)
        return timer if timer is not None and timer.period_ms else None

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer is due, by the elapsed milliseconds; ``None`` if there is none."""
        return self._next_due_ms(ELAPSED_MS_MAX)

    @property
    def earliest_ms(self) -> int | None:
        """Before this time no timer is due; ``None`` if there is none. This costs less than :attr:`next_due_ms` where
        timers are kept alive: those that were due earlier are not looked at one by one."""
        return self._next_due_ms(self.now.elapsed_ms)

    def _next_due_ms(self, exact_through_ms: int) -> int | None:
        """When the next timer is due. Beyond ``exact_through_ms`` it may be later."""
        put_off = 0
        while self._heap:
            queued_ms, name = self._heap[0]
            timer = self._timers.get(name)
            if timer is None or timer.queued_ms != queued_ms:
                heapq.heappop(self._heap)
            elif timer.due_ms == queued_ms or queued_ms > exact_through_ms:
                return queued_ms
            elif put_off > _STALE_MIN and put_off > len(self._timers) // 8:
                put_off = 0
                self._rebuild_heap()  # Many were put off: all together is quicker than one by one.
            else:
                timer.queued_ms = timer.due_ms
                heapq.heapreplace(self._heap, (timer.due_ms, name))
                put_off += 1
        return None

    def advance(
        self, time: ReplicatedTime, kept_alive: Iterable[KeptAlive] = (), grace_ms: int = 0
    ) -> Iterator[tuple[str, bytes]]:
        """It is ``time`` now, unless it is later already: what fires, in order, as its turn comes. A timer that is set
        meanwhile fires in a later slot, even if it is due at once.

        :param kept_alive: the timers that are kept alive from now on.
        :param grace_ms: how long no kept-alive timer fires from now on.
        """
        self.now = self.now.advanced_to(time)
        self._keep_alive(kept_alive)
        if grace_ms:
            self._give_grace(min(self.now.elapsed_ms + grace_ms, ELAPSED_MS_MAX))
        # The heap may have a timer twice. It counts once, as on a node that has loaded it from a snapshot.
        due: dict[str, TimerState] = {}
        while (due_ms := self.earliest_ms) is not None and due_ms <= self.now.elapsed_ms:
            name = self._heap[0][1]
            if name not in due and len(due) == FIRED_MAX:
                break
            due[name] = self._timers[name]
            heapq.heappop(self._heap)
        for name, timer in due.items():
            if self._timers.get(name) is timer:  # It was neither cancelled nor set anew by one that fired before it.
                del self._timers[name]
                self._ended(name, timer)
                yield name, timer.payload

    def _ended(self, name: str, timer: TimerState) -> None:
        """``timer`` is no more."""
        if timer.period_ms:
            self._kept_alive -= 1
            self._leave(timer)
            self._changed(name)

    def _keep_alive(self, kept_alive: Iterable[KeptAlive]) -> None:
        timers, changed, now_ms = self._timers, self._changed, self.now.elapsed_ms
        for name, number in kept_alive:
            if isinstance(name, int):
                self._keep_together(name, number)
                continue
            timer = timers.get(name)
            if timer is None or not timer.period_ms or number <= timer.number:
                continue
            if self._dumps:
                timer = self._changeable(name, timer)
            timer.own_due_ms = max(timer.due_ms, min(now_ms + timer.period_ms, ELAPSED_MS_MAX))
            self._leave(timer)
            self._join(timer, number)
            changed(name)

    def _keep_together(self, before: int, number: int) -> None:
        """Keep all timers alive for which the keep-alive ``before`` counted last."""
        together = self._together.get(before)
        if together is None or number <= before or number in self._together:
            return
        together.number, together.kept_ms = number, self.now.elapsed_ms
        self._together[number] = self._together.pop(before)
        self._changed(before)

    def _join(self, timer: TimerState, number: int) -> None:
        """The keep-alive ``number`` has counted for ``timer``, and for others perhaps."""
        together = self._together.get(number)
        if together is None:
            together = self._together[number] = Together(number)
        together.count += 1
        together.period_ms = min(together.period_ms, timer.period_ms)
        timer.together = together

    def _leave(self, timer: TimerState) -> None:
        """``timer`` is not among those any more for which the same keep-alive counted last."""
        together = timer.together
        if together is None:
            return
        together.count -= 1
        if not together.count:
            del self._together[together.number]
        self._changed(together.number)

    def _give_grace(self, until_ms: int) -> None:
        """Let no kept-alive timer fire before ``until_ms``."""
        soon = [item for item in self._timers.items() if item[1].period_ms and item[1].due_ms < until_ms]
        for name, timer in soon:
            self._changeable(name, timer).own_due_ms = until_ms

    def _changeable(self, name: str, timer: TimerState) -> TimerState:
        """``timer``, or what replaces it while a snapshot is taken of how it was."""
        if self._dumps:
            timer = self._timers[name] = timer.copy()
        return timer

    def allow_changes(self, allowed: bool) -> None:
        """A command is being applied from now on, or not any more."""
        self._may_change = allowed

    # into a snapshot, and out of it

    def dump(self) -> Iterator[bytes]:
        """The time and all timers as they are now, in chunks of about 64 KiB; nothing if it never was any time."""
        self._dumps += 1
        kept: dict[Together | None, tuple[int, int]] = {
            together: (together.number, together.kept_ms) for together in self._together.values()
        }
        return self._chunks(self.now, self._timers.copy(), kept)

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of a dump to new timers.

        :raises CodecError: if ``chunk`` is none. These timers must not be used after that."""
        try:
            part = _decode(chunk)
            self.now = checked_time(part.elapsed_ms, part.utc_ms)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CodecError(f"no timers: {error}") from None
        for row in part.rows:
            timer = self._timers[row.name] = TimerState(row.due_ms, row.payload, row.period_ms or 0)
            if row.period_ms and row.number:
                self._join(timer, row.number)
            self._kept_alive += row.period_ms is not None
            heapq.heappush(self._heap, (row.due_ms, row.name))

    def _chunks(
        self, now: ReplicatedTime, timers: dict[str, TimerState], kept: dict[Together | None, tuple[int, int]]
    ) -> Iterator[bytes]:
        try:
            if now == BEGINNING and not timers:
                return
            some: list[_PlainRow | _KeptRow] = []
            size = 0
            names = list(timers)
            heapq.heapify(names)  # To sort them all would take its time at once, before the first chunk.
            while names:
                timer = timers[name := heapq.heappop(names)]
                some.append(timer.row(name, *kept.get(timer.together, (0, 0))))
                size += len(name) + len(timer.payload) + 16
                if size >= CHUNK_BYTES:
                    yield _encode((now.elapsed_ms, now.utc_ms, some))
                    some, size = [], 0
            if some or not timers:
                yield _encode((now.elapsed_ms, now.utc_ms, some))
        finally:
            self._dumps -= 1

    # inside

    def _check_may_change(self) -> None:
        if not self._may_change:
            raise RuntimeError(
                "timers are set and cancelled in apply and timer_fired only, where all nodes do the same"
            )

    def _drop_stale(self) -> None:
        """Drop the entries of the heap that stand for nothing, when they are more than the others."""
        if len(self._heap) > _STALE_MIN + 2 * len(self._timers):
            self._rebuild_heap()

    def _rebuild_heap(self) -> None:
        for timer in self._timers.values():
            timer.queued_ms = timer.due_ms
        self._heap = [(timer.due_ms, name) for name, timer in self._timers.items()]
        heapq.heapify(self._heap)


def _check(name: str, after_seconds: float, payload: bytes, kept_alive: bool) -> None:
    if not isinstance(name, str) or not isinstance(payload, bytes):
        kinds = f"{type(name).__name__} and {type(payload).__name__}"
        raise TypeError(f"the name of a timer must be a str and its payload bytes, not {kinds}")
    if isinstance(after_seconds, bool) or not isinstance(after_seconds, int | float):
        raise TypeError(f"after_seconds must be a number, not {type(after_seconds).__name__}")
    if not 0 <= after_seconds < ELAPSED_MS_MAX / 1000:  # Also refuses NaN.
        raise ValueError(f"after_seconds must be finite and not below zero: {after_seconds}")
    if not isinstance(kept_alive, bool):
        raise TypeError(f"kept_alive must be a bool, not {type(kept_alive).__name__}")
    if kept_alive and not after_seconds:
        raise ValueError("after_seconds of a kept-alive timer must be above zero: how long it lives each time")
    if len(name.encode()) > TIMER_NAME_BYTES_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        most = f"{TIMER_NAME_BYTES_MAX} and {PAYLOAD_BYTES_MAX} bytes"
        raise ValueError(
            f"the name and the payload of a timer may have {most}, not {len(name.encode())} and {len(payload)}"
        )
