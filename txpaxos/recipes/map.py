"""A map as a program has it: keys with values and versions, whose changes can be followed."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Sequence
from typing import Generic, TypeVar

import attrs
from twisted.internet.defer import Deferred

from txpaxos.arguments import check_timeout
from txpaxos.recipes.arguments import check_name, check_whole_number
from txpaxos.recipes.replicated.maps import ChangesPage, EntriesPage, Entry, Guard, Maps, Outcome, Step
from txpaxos.recipes.session import Session, check_session
from txpaxos.recipes.values import Values
from txpaxos.recipes.waiting import Waits
from txpaxos.service.declaration import Remote

T = TypeVar("T")


class NoValue(enum.Enum):
    """That a guard has no value: ``None`` may be one."""

    NO_VALUE = "no value"


@attrs.frozen
class MapEntry(Generic[T]):
    """A key and its value.

    :ivar version: the number of the change that put it. A later change has a higher one, also of another key.
    :ivar session_id: the session that it ends with; empty for none.
    """

    key: str
    value: T
    version: int
    session_id: str


@attrs.frozen
class MapChange(Generic[T]):
    """A change of one key.

    :ivar value: the new value; ``None`` if the key was deleted.
    :ivar is_deleted: whether the key was deleted.
    :ivar version: the number of the change.
    :ivar since: ``changes(since=change.since)`` goes on behind it, in another process, too. It is 0 while the entries
        come with which ``changes(since=0)`` begins, since those have no order to go on in.
    """

    key: str
    value: T | None
    is_deleted: bool
    version: int
    since: int


@attrs.frozen
class MapPage(Generic[T]):
    """Some entries, in the order of their keys.

    :ivar version: that of the newest change. Who has read all pages, and follows the changes since the version of the
        first page, has missed none.
    :ivar more: whether there are others behind them.
    """

    entries: tuple[MapEntry[T], ...]
    version: int
    more: bool


@attrs.frozen
class Put(Generic[T]):
    """Put a value under a key, as a step of a transaction. The entry ends with ``session``, if one is given."""

    key: str
    value: T
    session: Session | None = None


@attrs.frozen
class Delete:
    """Delete a key, as a step of a transaction."""

    key: str


@attrs.frozen
class MapOutcome(Generic[T]):
    """What a transaction has done.

    :ivar held: whether all guards held, so that the steps ``then`` were taken, and not the others.
    :ivar found: the entries that the guards named, as they were before; ``None`` for a key that was not there.
    :ivar versions: those of the changes, one for each step; 0 where a key to be deleted was not there.
    """

    held: bool
    found: tuple[MapEntry[T] | None, ...]
    versions: tuple[int, ...]


class Map(Generic[T]):
    """A map. Each method gives a Deferred, and raises TypeError or ValueError at the call if an argument is wrong."""

    def __init__(self, waits: Waits, maps: Remote[Maps], name: str, kind: type[T]) -> None:
        self._waits = waits
        self._maps = maps
        self.name: str = check_name(name)
        self._values = Values(kind, f"the map {name}")

    def get(self, key: str) -> Deferred[MapEntry[T] | None]:
        """The entry of a key; ``None`` if there is none."""
        return self._maps.get(self.name, key).addCallback(self._entry_or_none)

    def put(
        self, key: str, value: T, expected_version: int | None = None, session: Session | None = None
    ) -> Deferred[int]:
        """Put a value under a key.

        :param expected_version: what the entry must have; 0 for no entry, ``None`` for whatever there is.
        :param session: the entry is deleted when this session ends.
        :returns: fires with the version of the entry. It fails with :class:`~txpaxos.recipes.VersionMismatch` if the
            version is another one, with :class:`~txpaxos.recipes.LimitReached` if there is too much, and with
            :class:`~txpaxos.recipes.SessionOver` if the session is over. Nothing is changed then.
        """
        return self._maps.put(self.name, key, self._values.encoded(value), expected_version, _id_of(session))

    def delete(self, key: str, expected_version: int | None = None) -> Deferred[int]:
        """Delete a key.

        :param expected_version: what the entry must have; ``None`` for whatever there is.
        :returns: fires with the version of this change; with 0 if there was no such key. It fails with
            :class:`~txpaxos.recipes.VersionMismatch` if the version is another one.
        """
        return self._maps.delete(self.name, key, expected_version)

    def transact(
        self,
        guards: Sequence[Guard],
        then: Sequence[Put[T] | Delete],
        otherwise: Sequence[Put[T] | Delete] = (),
    ) -> Deferred[MapOutcome[T]]:
        """Take the steps ``then`` if all guards hold, and those of ``otherwise`` if not. Nothing comes between them.

        :param guards: up to 128, made by :meth:`guard`.
        """
        steps = tuple(map(self._step, then)), tuple(map(self._step, otherwise))
        return self._maps.transact(self.name, tuple(guards), *steps).addCallback(self._outcome)

    def guard(self, key: str, version: int | None = None, *, value: T | NoValue = NoValue.NO_VALUE) -> Guard:
        """What must hold for a transaction: the entry of a key has this version, or this value.

        :param version: 0 for a key that is not there; ``None`` for any.
        :param value: ``None`` is a value like others, and stands for no key that is not there.
        :raises ValueError: if there is neither a version nor a value.
        """
        data = None if isinstance(value, NoValue) else self._values.encoded(value)
        if version is None and data is None:
            raise ValueError("a guard needs a version or a value; version=0 is for a key that is not there")
        return Guard(key, version, data)

    def page(self, prefix: str = "", after: str = "", until: str = "", count_max: int = 1000) -> Deferred[MapPage[T]]:
        """Some entries, in the order of their keys: at most 1,000, and a MiB.

        :param prefix: what the keys begin with.
        :param after: the keys are behind this one: the last one of the page before.
        :param until: the keys are before this one; empty for no such bound.
        :param count_max: how many at most; of more than 1,000 there are 1,000.
        """
        check_whole_number(count_max, "count_max", 2**53 - 1)
        return self._maps.entries(self.name, prefix, after, until, count_max).addCallback(self._page)

    async def entries(self, prefix: str = "") -> AsyncIterator[MapEntry[T]]:
        """All entries in the order of their keys, page by page: what changes meanwhile may be in it or not.

        :param prefix: what the keys begin with.
        """
        page = await self.page(prefix)
        while True:
            for entry in page.entries:
                yield entry
            if not page.more:
                return
            page = await self.page(prefix, page.entries[-1].key)

    def size(self) -> Deferred[int]:
        """How many keys there are."""
        return self._maps.size(self.name)

    async def changes(
        self, since: int = 0, prefix: str = "", timeout_seconds: float | None = None
    ) -> AsyncIterator[MapChange[T]]:
        """Each change in order, none missed, also over reconnects and changes of the leader.

        :param since: the version behind which to begin. With 0, all entries that there are come first, as changes.
        :param prefix: what the keys begin with.
        :param timeout_seconds: how long to wait for a change; ``None`` for as long as it takes.
        :raises ChangesGone: if changes since that version are not kept any more; then begin with 0.
        :raises WaitTimedOut: if no change came for so long.
        """
        timeout_seconds = check_timeout(timeout_seconds)
        if since == 0:
            first = page = await self.page(prefix)
            while page.entries:
                for number, entry in enumerate(page.entries, 1):
                    since = 0 if page.more or number < len(page.entries) else first.version
                    yield MapChange(entry.key, entry.value, False, entry.version, since)
                if not page.more:
                    break
                page = await self.page(prefix, page.entries[-1].key)
            since = first.version
        while True:
            page_of_changes = await self._changes_since(since, prefix, timeout_seconds)
            for change in page_of_changes.changes:
                value = None if change.data is None else self._values.decoded(change.data)
                yield MapChange(change.key, value, change.data is None, change.version, change.version)
            since = page_of_changes.through

    def _changes_since(self, since: int, prefix: str, timeout_seconds: float | None) -> Deferred[ChangesPage]:
        """The next changes, as soon as there are some."""
        waiting = self._waits.until(lambda page: page.through > since, self._maps.changes, self.name, since, prefix)
        return self._waits.within(waiting, timeout_seconds, f"a change of the map {self.name}")

    def _step(self, step: Put[T] | Delete) -> Step:
        if isinstance(step, Delete):
            return Step(step.key, None)
        if isinstance(step, Put):
            return Step(step.key, self._values.encoded(step.value), _id_of(step.session))
        raise TypeError(f"a step of a transaction must be a Put or a Delete, not {type(step).__name__}")

    def _entry(self, entry: Entry) -> MapEntry[T]:
        return MapEntry(entry.key, self._values.decoded(entry.data), entry.version, entry.session_id)

    def _entry_or_none(self, entry: Entry | None) -> MapEntry[T] | None:
        return None if entry is None else self._entry(entry)

    def _page(self, page: EntriesPage) -> MapPage[T]:
        return MapPage(tuple(map(self._entry, page.entries)), page.version, page.more)

    def _outcome(self, outcome: Outcome) -> MapOutcome[T]:
        return MapOutcome(outcome.held, tuple(map(self._entry_or_none, outcome.found)), outcome.versions)


def _id_of(session: Session | None) -> str:
    return "" if session is None else check_session(session).session_id
