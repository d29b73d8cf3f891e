"""Objects of the core to plain data and back: the whole state of a :class:`~txpaxos.core.replica.Replica`, or a part.

A replay that begins in the middle of a run needs all that the core remembers: not only what is on disk, but also who
leads, what is open, and when something is due. So this module walks over the objects, whatever fields they have. A new
field of the core is in the next recording without a line here; a new class has to be named in ``CLASSES``.

Plain data is what MessagePack has. A number, a text, bytes, a truth value and ``None`` stand for themselves. All else
is a list that begins with a letter:

======  ================================================================================
letter  then
======  ================================================================================
t       the items of a tuple
l       the items of a list
v       the number of a list of bytes, which is kept beside the plain data, since it may be very long
d       keys and values of a dict, in turn, in its order
C       the same of a Counter
s, f    the items of a set or a frozenset, sorted
n       the name of a class of named tuples, then the items
e       the name of an enumeration, then the name of the member
o       the name of a class, then names and values of fields, in turn: an object
r       the number of an object that was met before, counted from 0 in the order of their letters ``o``
x       the name of something that is no part of the core: its chance, and what it asks of the node
======  ================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Final

import attrs

from txpaxos.core import messages, ready
from txpaxos.core.catch_up import CatchUp
from txpaxos.core.config import Limits, Timing
from txpaxos.core.drops import Drop
from txpaxos.core.election import Candidacy, Election, Role
from txpaxos.core.hand_over import HandOver, HandOvers
from txpaxos.core.leader import LeaderState
from txpaxos.core.log import Log
from txpaxos.core.membership import Change, Configuration, Membership
from txpaxos.core.progress import Progress
from txpaxos.core.read_index import PendingRead, ReadIndexClient, ReadIndexServer
from txpaxos.core.replica import Replica
from txpaxos.core.window import OpenSlot, Window

Plain = Any
"""Plain data, as above."""

_STATE = (
    *(CatchUp, Candidacy, Change, Configuration, Election, HandOver, HandOvers, LeaderState, Limits, Log, Membership),
    *(OpenSlot, PendingRead, Progress, ReadIndexClient, ReadIndexServer, Replica, Timing, Window),
)
_SAID = tuple(
    one for module in (messages, ready) for one in vars(module).values() if isinstance(one, type) and attrs.has(one)
)
CLASSES: Final[dict[str, type[Any]]] = {cls.__name__: cls for cls in (*_STATE, *_SAID)}
"""The classes of objects that may be part of a core, of a message or of a record."""
TUPLES: Final[dict[str, Any]] = {cls.__name__: cls for cls in (messages.Ballot, messages.Proposal, messages.Vote)}
ENUMERATIONS: Final[dict[str, type[Enum]]] = {cls.__name__: cls for cls in (Role, Drop)}

_LEAVES = frozenset({type(None), bool, int, float, str})
_NOT_OF_THE_CORE = frozenset({"__orig_class__", "_recorder"})
"""Python's own note at an object of a generic class, and what records a core."""


def field_names(item: Any) -> Iterator[str]:
    """The names of the fields that ``item``, an object of the core, has."""
    if hasattr(item, "__dict__"):
        yield from (name for name in vars(item) if name not in _NOT_OF_THE_CORE)
    else:
        yield from (field.name for field in attrs.fields(type(item)))


class Dump:
    """Makes plain data of objects. What is met twice is the same object again when it is loaded.

    :param names: the name of each thing that is no part of the core, by its ``id``.
    :param value: is called with all bytes, and returns what stands for them.
    :param classes: the name of a class that is a subclass of one in ``CLASSES``, for this process only.
    :ivar values: the lists of bytes, by their numbers. ``value`` was not called with what is in them.
    """

    def __init__(
        self,
        names: Mapping[int, str] | None = None,
        value: Callable[[bytes], bytes] | None = None,
        classes: Mapping[type[Any], str] | None = None,
    ) -> None:
        self._names = names or {}
        self._value = value
        self._classes = {**{cls: name for name, cls in CLASSES.items()}, **(classes or {})}
        self.values: list[list[bytes]] = []
        self._met: dict[int, int] = {}
        self._kept: list[object] = []  # An id is that of one object only while that lives.

    def plain(self, item: Any) -> Plain:
        """The plain data of ``item``.

        :raises TypeError: if it holds something that has no plain data.
        """
        cls = type(item)
        if cls in _LEAVES:
            return item
        if isinstance(item, bytes):
            return bytes(item) if self._value is None else self._value(item)
        if id(item) in self._names:
            return ["x", self._names[id(item)]]
        if cls in self._classes:
            return self._object(item, self._classes[cls])
        return self._collection(item, cls)

    def _collection(self, item: Any, cls: type[Any]) -> Plain:
        plain = self.plain
        if cls is tuple:
            return ["t", *map(plain, item)]
        if cls is list:
            if item and isinstance(item[0], bytes):
                self.values.append([*item])
                return ["v", len(self.values) - 1]
            return ["l", *map(plain, item)]
        if cls in (dict, Counter):
            return ["C" if cls is Counter else "d", *(plain(one) for pair in item.items() for one in pair)]
        if cls in (set, frozenset):
            return ["s" if cls is set else "f", *map(plain, sorted(item))]
        if cls.__name__ in TUPLES and isinstance(item, tuple):
            return ["n", cls.__name__, *map(plain, item)]
        if cls.__name__ in ENUMERATIONS:
            return ["e", cls.__name__, item.name]
        raise TypeError(f"a {cls.__module__}.{cls.__qualname__} cannot be recorded: name it in txpaxos.recording.graph")

    def _object(self, item: Any, name: str) -> Plain:
        if id(item) in self._met:
            return ["r", self._met[id(item)]]
        self._met[id(item)] = len(self._met)
        self._kept.append(item)
        fields = [(field, getattr(item, field)) for field in field_names(item)]
        return ["o", name, *(one for field, found in fields for one in (field, self.plain(found)))]


class Load:
    """Makes objects of plain data. Each method raises ``ValueError`` or ``TypeError`` for what :class:`Dump` does not
    make.

    :param things: what is no part of the core, by name.
    :param value: is called with all bytes, and returns what they stand for.
    :param values: the lists of bytes, by their numbers.
    """

    def __init__(
        self,
        things: Mapping[str, object] | None = None,
        value: Callable[[bytes], bytes] | None = None,
        values: Sequence[Sequence[bytes]] = (),
    ) -> None:
        self._things = things or {}
        self._values = values
        self._value = value or (lambda given: given)
        self._objects: list[object] = []

    def item(self, plain: Plain) -> Any:
        """What ``plain`` stands for.

        :raises ValueError: if it is no such data.
        """
        if type(plain) in _LEAVES:
            return plain
        if isinstance(plain, bytes):
            return self._value(plain)
        if not isinstance(plain, list) or not plain:
            raise ValueError("no such data")
        letter, *rest = plain
        load = self._LOADERS.get(letter) if isinstance(letter, str) else None
        if load is None:
            raise ValueError("no such letter")
        try:
            return load(self, rest)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"no such data: {type(error).__name__}") from None

    def _pairs(self, rest: list[Any]) -> dict[Any, Any]:
        if len(rest) % 2:
            raise ValueError("a key without a value")
        items = [self.item(one) for one in rest]
        return dict(zip(items[::2], items[1::2], strict=True))

    def _object(self, rest: list[Any]) -> Any:
        cls = CLASSES[rest[0]]
        made = object.__new__(cls)
        self._objects.append(made)
        if len(rest) % 2 == 0:
            raise ValueError("a field without a value")
        for name, plain in zip(rest[1::2], rest[2::2], strict=True):
            if not isinstance(name, str) or name.startswith("__"):
                raise ValueError("no name of a field")
            object.__setattr__(made, name, self.item(plain))
        return made

    _LOADERS: Final[dict[str, Callable[[Load, list[Any]], Any]]] = {
        "t": lambda self, rest: tuple(self.item(one) for one in rest),
        "l": lambda self, rest: [self.item(one) for one in rest],
        "v": lambda self, rest: [*self._values[rest[0]]],
        "d": _pairs,
        "C": lambda self, rest: Counter(self._pairs(rest)),
        "s": lambda self, rest: {self.item(one) for one in rest},
        "f": lambda self, rest: frozenset(self.item(one) for one in rest),
        "n": lambda self, rest: TUPLES[rest[0]](*(self.item(one) for one in rest[1:])),
        "e": lambda self, rest: ENUMERATIONS[rest[0]][rest[1]],
        "o": _object,
        "r": lambda self, rest: self._objects[int(rest[0])],
        "x": lambda self, rest: self._things[rest[0]],
    }
