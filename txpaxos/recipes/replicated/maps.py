"""Maps of keys to values with versions, whose changes can be followed from any version on.

One counter numbers every change of every map. The number is the version of what was changed, so no version is ever
used twice, not even by a key that was deleted and is put again.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.recipes.replicated.bounds import Count, Data, LimitReached, MaybeName, Name, SessionOver, bytes_of
from txpaxos.recipes.replicated.ordered import Ordered
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, ServiceError, command, query, state

MAPS_MAX = 10_000
ENTRIES_MAX = 4_000_000
ENTRIES_BYTES_MAX = 2**31
"""How many bytes the values of all maps may have."""

ENTRIES_OF_SESSION_MAX = 1_000
"""All of them are deleted in one slot with their session, which takes some ten milliseconds."""

CHANGES_MAX = 2**14
CHANGES_BYTES_MAX = 2**24
"""How many changes of all maps are kept, and how many bytes of theirs, for those who follow them."""

PAGE_MAX = 1_000
PAGE_BYTES_MAX = 2**20
STEPS_MAX = 128
"""How many guards and steps a transaction may have."""
FOUND_BYTES_MAX = 2**21
"""How many bytes of the entries that its guards name a transaction answers with."""


class VersionMismatch(ServiceError):
    """An entry does not have the version that was expected. Nothing was changed."""


class ChangesGone(ServiceError):
    """Some changes since the version that was named are not kept any more: read the entries, and follow from there."""


@attrs.frozen
class Entry:
    """A key of a map and its value.

    :ivar version: the number of the change that put it. A later change of any key has a higher one.
    :ivar session_id: the session that it ends with; empty for none.
    """

    key: str
    data: bytes
    version: int
    session_id: str = ""


@attrs.frozen
class EntriesPage:
    """Some entries of a map, in the order of their keys.

    :ivar version: that of the newest change of the map. A program that follows the changes since the version of the
        *first* page misses none.
    :ivar more: whether there are others behind them.
    """

    entries: tuple[Entry, ...]
    version: int
    more: bool


@attrs.frozen
class Change:
    """A change of one key.

    :ivar version: its number.
    :ivar data: the new value; ``None`` if the key was deleted.
    """

    key: str
    data: bytes | None
    version: int


@attrs.frozen
class ChangesPage:
    """Some changes of a map, in order.

    :ivar through: no change up to this version is missing; the next page is of the changes since it.
    """

    changes: tuple[Change, ...]
    through: int


@attrs.frozen
class Guard:
    """What must hold for a transaction to take its first steps: a key has this version; 0 for a key that is not there.

    :ivar data: the value that it must have, in place of a version.
    """

    key: Name
    version: Count | None = None
    data: Data | None = None


@attrs.frozen
class Step:
    """A change that a transaction makes: it puts a key, or deletes it if ``data`` is ``None``.

    :ivar session_id: the session that the entry ends with; empty for none.
    """

    key: Name
    data: Data | None
    session_id: MaybeName = ""


@attrs.frozen
class Outcome:
    """What a transaction has done.

    :ivar held: whether all guards held, so that the first steps were taken, and not the others.
    :ivar found: the entries that the guards named, as they were before; ``None`` for a key that was not there.
    :ivar versions: those of the changes, one for each step; 0 for a key that was to be deleted and was not there.
    """

    held: bool
    found: tuple[Entry | None, ...]
    versions: tuple[int, ...]


Guards: TypeAlias = Annotated[tuple[Guard, ...], msgspec.Meta(max_length=STEPS_MAX)]
Steps: TypeAlias = Annotated[tuple[Step, ...], msgspec.Meta(max_length=STEPS_MAX)]


class Value(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The value of a key, in the state."""

    data: bytes
    version: int
    session_id: str


class KeptChange(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A change that is kept, in the state."""

    map: str
    key: str
    data: bytes | None


class Maps(Service):
    """Maps by name. An empty map whose changes are not kept any more takes no room."""

    values: dict[tuple[str, str], Value] = state(dict)
    values_bytes: int = state(int)
    version: int = state(int)
    kept: dict[int, KeptChange] = state(dict)
    kept_bytes: int = state(int)
    kept_since: int = state(int)
    gone_through: dict[str, int] = state(dict)
    forgotten_through: int = state(int)
    key_rows: dict[str, tuple[int, ...]] = state(dict)
    key_blocks: dict[tuple[str, int], tuple[str, ...]] = state(dict)
    change_rows: dict[str, tuple[int, ...]] = state(dict)
    change_blocks: dict[tuple[str, int], tuple[int, ...]] = state(dict)
    session_rows: dict[str, tuple[int, ...]] = state(dict)
    session_blocks: dict[tuple[str, int], tuple[tuple[str, str], ...]] = state(dict)

    # what changes a map

    @command(raises=(LimitReached, SessionOver, VersionMismatch))
    def put(
        self, map: Name, key: Name, data: Data, expected_version: Count | None = None, session_id: MaybeName = ""
    ) -> int:
        """Put a value under a key.

        :param expected_version: what the entry must have; 0 for no entry, ``None`` for whatever there is.
        :param session_id: the session that the entry ends with.
        :returns: the version of the entry.
        """
        self._check_version(map, key, expected_version)
        steps = (Step(key, data, session_id),)
        self._check_room(map, steps)
        return self._take(map, steps[0])

    @command(raises=VersionMismatch)
    def delete(self, map: Name, key: Name, expected_version: Count | None = None) -> int:
        """Delete a key.

        :param expected_version: what the entry must have; ``None`` for whatever there is.
        :returns: the version of this change; 0 if there was no such key.
        """
        self._check_version(map, key, expected_version)
        return self._take(map, Step(key, None))

    @command(raises=(LimitReached, SessionOver))
    def transact(self, map: Name, guards: Guards, then: Steps, otherwise: Steps = ()) -> Outcome:
        """Take the steps ``then`` if all guards hold, and those of ``otherwise`` if not, all of them in one slot."""
        found = tuple(self.get(map, guard.key) for guard in guards)
        found_bytes = sum(len(entry.data) for entry in found if entry is not None)
        if found_bytes > FOUND_BYTES_MAX:
            raise LimitReached(f"the entries of the guards have {found_bytes} bytes, more than {FOUND_BYTES_MAX}")
        held = all(holds(guard, entry) for guard, entry in zip(guards, found, strict=True))
        steps = then if held else otherwise
        self._check_room(map, steps)
        return Outcome(held, found, tuple(self._take(map, step) for step in steps))

    # what is asked

    @query(topic="map {map} key {key}")
    def get(self, map: Name, key: Name) -> Entry | None:
        """The entry of a key; ``None`` if there is none."""
        value = self.values.get((map, key))
        return None if value is None else Entry(key, value.data, value.version, value.session_id)

    @query(topic="map {map}")
    def entries(
        self,
        map: Name,
        prefix: MaybeName = "",
        after: MaybeName = "",
        until: MaybeName = "",
        count_max: Count = PAGE_MAX,
    ) -> EntriesPage:
        """Entries in the order of their keys, as many as one answer may have.

        :param prefix: what the keys begin with.
        :param after: the keys are behind this one: the last one of the page before.
        :param until: the keys are before this one; empty for no such bound.
        """
        found: list[Entry] = []
        size = 0
        for key in self._keys.since(map, max(prefix, after)):
            if not key.startswith(prefix) or (until and key >= until):
                break
            if key == after:
                continue
            value = self.values[map, key]
            size += len(value.data)
            if len(found) >= min(count_max, PAGE_MAX) or (found and size > PAGE_BYTES_MAX):
                return EntriesPage(tuple(found), self._newest(map), True)
            found.append(Entry(key, value.data, value.version, value.session_id))
        return EntriesPage(tuple(found), self._newest(map), False)

    @query(topic="map {map}")
    def size(self, map: Name) -> int:
        """How many keys a map has."""
        return self._keys.count(map)

    @query(topic="map {map}", raises=ChangesGone)
    def changes(self, map: Name, since: Count, prefix: MaybeName = "", count_max: Count = PAGE_MAX) -> ChangesPage:
        """The changes with a version above ``since``, in order, as many as one answer may have.

        :param prefix: what the keys begin with.
        """
        gone_through = self.gone_through.get(map, self.forgotten_through)
        if since > self.version:
            raise ChangesGone(f"there is no version {since}, the newest is {self.version}: was a backup restored?")
        if since < gone_through:
            raise ChangesGone(f"the changes of {map} are kept since version {gone_through}, and not since {since}")
        found: list[Change] = []
        size, through = 0, since
        for version in self._changes.since(map, since + 1):
            change = self.kept[version]
            size += len(change.data or b"")
            if len(found) >= min(count_max, PAGE_MAX) or (found and size > PAGE_BYTES_MAX):
                break
            through = version
            if change.key.startswith(prefix):
                found.append(Change(change.key, change.data, version))
        return ChangesPage(tuple(found), through)

    # what happens

    def session_ended(self, session_id: str) -> int:
        """Delete the entries that end with a session."""
        entries = list(self._of_session.since(session_id))
        for map, key in entries:
            self._take(map, Step(key, None))
        return len(entries)

    # inside

    @property
    def _keys(self) -> Ordered[str]:
        """The keys of each map."""
        return Ordered(self.key_rows, self.key_blocks)

    @property
    def _changes(self) -> Ordered[int]:
        """The versions of the changes of each map that are kept."""
        return Ordered(self.change_rows, self.change_blocks)

    @property
    def _of_session(self) -> Ordered[tuple[str, str]]:
        """The entries of each session."""
        return Ordered(self.session_rows, self.session_blocks)

    def _newest(self, map: str) -> int:
        """The version of the newest change of a map; of one that was forgotten, a later one."""
        kept = self._changes.last(map)
        return self.gone_through.get(map, self.forgotten_through) if kept is None else kept

    def _check_version(self, map: str, key: str, expected: int | None) -> None:
        value = self.values.get((map, key))
        version = 0 if value is None else value.version
        if expected is not None and version != expected:
            found = f"has version {version}" if version else "is not there"
            raise VersionMismatch(f"{key} in {map} {found}, and not version {expected}")

    def _check_room(self, map: str, steps: Steps) -> None:
        """Check that steps can be taken, as if each of them put a new key."""
        puts = [step for step in steps if step.data is not None]
        if not puts:
            return
        size = sum(bytes_of(map, step.key) + len(step.data or b"") for step in puts)
        if len(self.values) + len(puts) > ENTRIES_MAX or self.values_bytes + size > ENTRIES_BYTES_MAX:
            had = f"{len(self.values)} entries of {self.values_bytes} bytes"
            raise LimitReached(f"the maps have {had} already: delete some first")
        if map not in self.gone_through and len(self.gone_through) >= MAPS_MAX:
            raise LimitReached(f"there are {MAPS_MAX} maps already: put the keys into one of them, with a prefix")
        for session_id in {step.session_id: None for step in puts if step.session_id}:
            if not self.sibling(Sessions).is_open(session_id):
                raise SessionOver(f"the session {session_id} is not open")
            own = sum(step.session_id == session_id for step in puts)
            if self._of_session.count(session_id) + own > ENTRIES_OF_SESSION_MAX:
                raise LimitReached(f"a session may have {ENTRIES_OF_SESSION_MAX} entries that end with it")

    def _take(self, map: str, step: Step) -> int:
        """Take a step. The version of the change; 0 if it changes nothing."""
        before = self.values.pop((map, step.key), None) if step.data is None else self.values.get((map, step.key))
        if before is not None:
            self.values_bytes -= bytes_of(map, step.key) + len(before.data)
            if before.session_id:
                self._of_session.discard(before.session_id, (map, step.key))
        elif step.data is None:
            return 0
        self.version += 1
        if step.data is None:
            self._keys.discard(map, step.key)
        else:
            self.values[map, step.key] = Value(step.data, self.version, step.session_id)
            self.values_bytes += bytes_of(map, step.key) + len(step.data)
            if before is None:
                self._keys.add(map, step.key)
            if step.session_id:
                self._of_session.add(step.session_id, (map, step.key))
        self._keep(map, step)
        self.changed(f"map {map} key {step.key}")
        self.changed(f"map {map}")
        return self.version

    def _keep(self, map: str, step: Step) -> None:
        """Keep the newest change, and drop the oldest ones that there is no room for."""
        self.gone_through.setdefault(map, self.forgotten_through)
        self.kept[self.version] = KeptChange(map, step.key, step.data)
        self.kept_bytes += bytes_of(map, step.key) + len(step.data or b"")
        self._changes.add(map, self.version)
        while len(self.kept) > CHANGES_MAX or (self.kept_bytes > CHANGES_BYTES_MAX and len(self.kept) > 1):
            self.kept_since += 1
            self._drop(self.kept_since)

    def _drop(self, version: int) -> None:
        """Keep a change no longer. A map of which nothing is left is forgotten."""
        change = self.kept.pop(version)
        self.kept_bytes -= bytes_of(change.map, change.key) + len(change.data or b"")
        self._changes.discard(change.map, version)
        self.gone_through[change.map] = version
        if self._changes.first(change.map) is None and self._keys.first(change.map) is None:
            del self.gone_through[change.map]
            self.forgotten_through = version


def holds(guard: Guard, entry: Entry | None) -> bool:
    """Whether a guard of a transaction holds for the entry of its key."""
    if guard.version is not None and guard.version != (0 if entry is None else entry.version):
        return False
    return guard.data is None or (entry is not None and entry.data == guard.data)
