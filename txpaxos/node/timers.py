"""Timers in the replicated state, and the replicated time that they go by.

A timer is set while a command is applied, and fires on every node at the same slot: the first one whose time has
reached it. All of it is part of the snapshot.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

import msgspec

from txpaxos.errors import CodecError
from txpaxos.replicated_time import BEGINNING, ELAPSED_MS_MAX, ReplicatedTime, checked_time

NAME_BYTES_MAX = 512
PAYLOAD_BYTES_MAX = 2**16
TIMERS_MAX = 2**20
"""The most timers at a time."""

FIRED_MAX = 256
"""How many timers fire in one slot. The rest follows in the next ones, so that no turn of the reactor takes long."""

CHUNK_BYTES = 2**16
_STALE_MIN = 1024


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    due_ms: int
    payload: bytes


class _Chunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    elapsed_ms: int
    utc_ms: int
    rows: list[_Row]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Chunk).decode


class Timers:
    """The time of a cluster, and what is to happen later.

    :ivar now: the replicated time at the slot that is being applied, or was applied last.
    """

    def __init__(self) -> None:
        self.now = BEGINNING
        self._timers: dict[str, tuple[int, bytes]] = {}
        # By when they are due, and then by name. Those that were cancelled or set anew stay until their turn comes.
        self._heap: list[tuple[int, str]] = []
        self._may_change = False

    def __len__(self) -> int:
        return len(self._timers)

    def __contains__(self, name: object) -> bool:
        return name in self._timers

    # from the application, while it applies

    def set(self, name: str, after_seconds: float, payload: bytes = b"") -> None:
        """Have ``timer_fired`` called with ``name`` and ``payload``, in place of what was set under that name before.

        :param name: at most 512 bytes of UTF-8.
        :param after_seconds: from now on, by :attr:`~txpaxos.ReplicatedTime.elapsed_ms`: the time without a leader does
            not count. It fires at that time or a little later.
        :param payload: at most 64 KiB.
        :raises RuntimeError: if no command is being applied: nodes would not be equal any more.
        :raises TypeError: if a value has the wrong type.
        :raises ValueError: if a value is out of its bounds, or there are too many timers.
        """
        self._check_may_change()
        _check(name, after_seconds, payload)
        if name not in self._timers and len(self._timers) >= TIMERS_MAX:
            raise ValueError(f"there are {TIMERS_MAX} timers already: cancel some, or use one for several things")
        due_ms = min(self.now.elapsed_ms + math.ceil(after_seconds * 1000), ELAPSED_MS_MAX)
        self._timers[name] = due_ms, payload
        heapq.heappush(self._heap, (due_ms, name))
        self._drop_stale()

    def cancel(self, name: str) -> bool:
        """Let the timer ``name`` not fire.

        :returns: whether there was one.
        :raises RuntimeError: if no command is being applied.
        """
        self._check_may_change()
        was_set = self._timers.pop(name, None) is not None
        self._drop_stale()
        return was_set

    def due_in_seconds(self, name: str) -> float | None:
        """How long it takes until the timer ``name`` fires; ``None`` if there is none."""
        timer = self._timers.get(name)
        return None if timer is None else max(0, timer[0] - self.now.elapsed_ms) / 1000

    # from the applier

    @property
    def next_due_ms(self) -> int | None:
        """When the next timer is due, by the elapsed milliseconds; ``None`` if there is none."""
        while self._heap:
            due_ms, name = self._heap[0]
            if self._timers.get(name, (None,))[0] == due_ms:
                return due_ms
            heapq.heappop(self._heap)
        return None

    def advance(self, time: ReplicatedTime) -> Iterator[tuple[str, bytes]]:
        """It is ``time`` now, unless it is later already: what fires, in order, as its turn comes. A timer that is set
        meanwhile fires in a later slot, even if it is due at once."""
        self.now = self.now.advanced_to(time)
        # The heap may have a timer twice. It counts once, as on a node that has loaded it from a snapshot.
        due: dict[str, tuple[int, bytes]] = {}
        while (due_ms := self.next_due_ms) is not None and due_ms <= self.now.elapsed_ms:
            name = self._heap[0][1]
            if name not in due and len(due) == FIRED_MAX:
                break
            due[name] = self._timers[name]
            heapq.heappop(self._heap)
        for name, timer in due.items():
            if self._timers.get(name) is timer:  # It was neither cancelled nor set anew by one that fired before it.
                del self._timers[name]
                yield name, timer[1]

    def allow_changes(self, allowed: bool) -> None:
        """A command is being applied from now on, or not any more."""
        self._may_change = allowed

    # into a snapshot, and out of it

    def dump(self) -> Iterator[bytes]:
        """The time and all timers as they are now, in chunks of about 64 KiB; nothing if it never was any time."""
        return _chunks(self.now, [_Row(name, *timer) for name, timer in sorted(self._timers.items())])

    def add(self, chunk: bytes) -> None:
        """Add the next chunk of a dump to new timers.

        :raises CodecError: if ``chunk`` is none. These timers must not be used after that."""
        try:
            part = _decode(chunk)
            self.now = checked_time(part.elapsed_ms, part.utc_ms)
        except (msgspec.MsgspecError, ValueError) as error:
            raise CodecError(f"no timers: {error}") from None
        for row in part.rows:
            self._timers[row.name] = row.due_ms, row.payload
            heapq.heappush(self._heap, (row.due_ms, row.name))

    # inside

    def _check_may_change(self) -> None:
        if not self._may_change:
            raise RuntimeError(
                "timers are set and cancelled in apply and timer_fired only, where all nodes do the same"
            )

    def _drop_stale(self) -> None:
        """Drop the entries of the heap that stand for nothing, when they are more than the others."""
        if len(self._heap) > _STALE_MIN + 2 * len(self._timers):
            self._heap = [(due_ms, name) for name, (due_ms, _) in self._timers.items()]
            heapq.heapify(self._heap)


def _check(name: str, after_seconds: float, payload: bytes) -> None:
    if not isinstance(name, str) or not isinstance(payload, bytes):
        kinds = f"{type(name).__name__} and {type(payload).__name__}"
        raise TypeError(f"the name of a timer must be a str and its payload bytes, not {kinds}")
    if isinstance(after_seconds, bool) or not isinstance(after_seconds, int | float):
        raise TypeError(f"after_seconds must be a number, not {type(after_seconds).__name__}")
    if not 0 <= after_seconds < ELAPSED_MS_MAX / 1000:  # Also refuses NaN.
        raise ValueError(f"after_seconds must be finite and not below zero: {after_seconds}")
    if len(name.encode()) > NAME_BYTES_MAX or len(payload) > PAYLOAD_BYTES_MAX:
        most = f"{NAME_BYTES_MAX} and {PAYLOAD_BYTES_MAX} bytes"
        raise ValueError(
            f"the name and the payload of a timer may have {most}, not {len(name.encode())} and {len(payload)}"
        )


def _chunks(now: ReplicatedTime, rows: list[_Row]) -> Iterator[bytes]:
    if now == BEGINNING and not rows:
        return
    some: list[_Row] = []
    size = 0
    for row in rows:
        some.append(row)
        size += len(row.name) + len(row.payload) + 16
        if size >= CHUNK_BYTES:
            yield _encode(_Chunk(now.elapsed_ms, now.utc_ms, some))
            some, size = [], 0
    if some or not rows:
        yield _encode(_Chunk(now.elapsed_ms, now.utc_ms, some))
