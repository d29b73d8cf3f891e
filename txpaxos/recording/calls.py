"""The calls by which a node uses its core, and a short digest of what each of them returns.

The core is a pure function: what it returns follows from its state, from the arguments of the call, and from what it
was given meanwhile, which is chance and what the node says about a value. So each call can be made again.
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

import attrs
import msgspec

from txpaxos.core.messages import AcceptSlot, ChosenValues, PromiseLog
from txpaxos.core.ready import Chosen, Configured, Envelope, Learned, Ready, Voted
from txpaxos.core.replica import Replica
from txpaxos.recording.redaction import Value


class Call(enum.IntEnum):
    """A method of the core that changes its state, or whose result is saved. A number is never used again."""

    RECEIVE = 1
    RECEIVE_HINT = 2
    TICK = 3
    PROPOSE = 4
    HAND_OVER = 5
    LEAVE = 6
    REQUEST_READ_INDEX = 7
    CHECKPOINT = 8
    COMPACT = 9
    INSTALL = 10
    START_VOTING = 11
    SUSPEND = 12
    RESUME = 13
    OBSERVE_END = 14
    ADMIT_CONTACTS = 15

    __hash__ = int.__hash__  # That of Enum would be computed in Python, with each call.

    @property
    def method(self) -> str:
        """The name of the method of :class:`~txpaxos.core.replica.Replica`."""
        return self.name.lower()


READS: Final = frozenset({"failure_tolerance", "level_nodes", "missing_checkpoint", "recovered", "status"})
"""The other methods of the core. They change nothing."""

Arguments: TypeAlias = tuple[Any, ...]
Method: TypeAlias = Callable[[Replica, float, Any], Any]

# Replica's own methods, also of a subclass that overrides them to record the call.
METHODS: Final[dict[Call, Method]] = {
    Call.RECEIVE: lambda core, now, given: Replica.receive(core, given[0], given[1], now),
    Call.RECEIVE_HINT: lambda core, now, given: Replica.receive_hint(core, given[0], now),
    Call.TICK: lambda core, now, given: Replica.tick(core, now),
    Call.PROPOSE: lambda core, now, given: Replica.propose(core, given[0], now, given[1]),
    Call.HAND_OVER: lambda core, now, given: Replica.hand_over(core, given[0], now),
    Call.LEAVE: lambda core, now, given: Replica.leave(core, now),
    Call.REQUEST_READ_INDEX: lambda core, now, given: Replica.request_read_index(core, now),
    Call.CHECKPOINT: lambda core, now, given: Replica.checkpoint(core, given[0]),
    Call.COMPACT: lambda core, now, given: Replica.compact(core, given[0]),
    Call.INSTALL: lambda core, now, given: Replica.install(core, given[0], now, given[1]),
    Call.START_VOTING: lambda core, now, given: Replica.start_voting(core, now),
    Call.SUSPEND: lambda core, now, given: Replica.suspend(core, now),
    Call.RESUME: lambda core, now, given: Replica.resume(core, now),
    Call.OBSERVE_END: lambda core, now, given: Replica.observe_end(core, given[0], now),
    Call.ADMIT_CONTACTS: lambda core, now, given: Replica.admit_contacts(core, given[0], given[1]),
}
"""How each call is made: with the core, the time and the other arguments."""

_encode = msgspec.msgpack.Encoder().encode
_WITH_VALUES = frozenset({Learned, ChosenValues, PromiseLog})


def ready_of(result: object) -> Ready:
    """The Ready that ``result`` is or has in it. The records of a checkpoint are what a Ready saves."""
    if isinstance(result, Ready):
        return result
    if isinstance(result, tuple):
        return result[-1] if result and isinstance(result[-1], Ready) else Ready(save=result)
    return Ready()


BIG_BYTES = 256
"""A value of that size or above is not in a digest: its length and a checksum of its two ends are. The core never makes
or changes a value, so they tell one from another."""

_END_BYTES = 64
_ENDS = struct.Struct("<QI")


def standing_for(value: Value | None) -> Value:
    """The function that returns what stands for a value in a digest.

    :param value: returns what is recorded in place of a value, if that is not the value itself.
    """

    def stands(given: bytes) -> bytes:
        found = given if value is None else value(given)
        if len(found) < BIG_BYTES:
            return found
        return _ENDS.pack(len(found), zlib.crc32(found[-_END_BYTES:], zlib.crc32(found[:_END_BYTES])))

    return stands


def digest(result: object, value: Value) -> int:
    """Four bytes as a number: a checksum of all that ``result`` says, and of the classes that say it.

    :param result: what a call has returned.
    :param value: returns what stands for a value.
    """
    ready = result if type(result) is Ready else ready_of(result)
    save, send, chosen = ready.save, ready.send, ready.chosen
    said = result[0] if type(result) is tuple and len(result) == 2 and result[1] is ready else None
    parts: list[Any] = [ready.wake_at, said, ready.snapshot_source, ready.may_defer, ready.needs_no_prior_save]
    if save:
        parts.extend([_plain(one, value) for one in save])
    if send:
        parts.extend([(envelope.to, _plain(envelope.message, value)) for envelope in send])
    if chosen:
        parts.extend([_plain(one, value) for one in chosen])
    if ready.answers or ready.leadership:
        parts.extend([_plain(one, value) for one in (*ready.answers, *ready.leadership)])
    return zlib.crc32(_encode(parts))


def _plain(item: Any, value: Value) -> tuple[Any, ...]:
    """What MessagePack can carry of an ``item`` of a Ready: the name of its class, and what it has."""
    cls = item.__class__
    if cls is Voted:
        return "Voted", item.ballot, item.slot, value(item.value), item.chosen_through
    if cls is AcceptSlot:
        return "AcceptSlot", item.ballot, item.slot, value(item.value), item.chosen_through
    if cls is Chosen:
        return "Chosen", item.slot, value(item.value)
    if cls is Configured:  # It has sets, and their order means nothing.
        return "Configured", repr(item.configuration), value(item.value)
    return cls.__name__, item if cls not in _WITH_VALUES else _with_values(item, value)


T = TypeVar("T")


def with_values(item: T, value: Value | None) -> T:
    """The same message or record, with what stands for its values."""
    return item if value is None else _with_values(item, value)


def _with_values(item: Any, value: Value) -> Any:
    match item:
        case Voted() | Chosen() | Configured() | AcceptSlot():
            return attrs.evolve(item, value=value(item.value))
        case Learned() | ChosenValues():
            return attrs.evolve(item, values=tuple(map(value, item.values)))
        case PromiseLog():
            votes = tuple(vote._replace(value=value(vote.value)) for vote in item.votes)
            return attrs.evolve(item, values=tuple(map(value, item.values)), votes=votes)
    return item


SHOWN_BYTES = 24
"""A longer value is cut when it is shown."""


def shown(item: object) -> str:
    """``item``, which is an argument or a result, as text in which long values are cut."""
    if isinstance(item, Ready):
        ready = attrs.evolve(
            item,
            save=tuple(with_values(one, _cut) for one in item.save),
            send=tuple(Envelope(one.to, with_values(one.message, _cut)) for one in item.send),
            chosen=tuple(with_values(one, _cut) for one in item.chosen),
        )
        fields = attrs.fields(Ready)
        given = ((field.name, getattr(ready, field.name), field.default) for field in fields)
        return f"Ready({', '.join(f'{name}={found!r}' for name, found, default in given if found != default)})"
    if isinstance(item, tuple):
        return f"({', '.join(map(shown, item))}{',' if len(item) == 1 else ''})"
    return repr(_cut(item) if isinstance(item, bytes) else with_values(item, _cut))


def _cut(value: bytes) -> bytes:
    return value[:] if len(value) <= SHOWN_BYTES else value[:SHOWN_BYTES] + b"..."
