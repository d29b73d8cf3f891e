"""Permits: locks, read/write locks, semaphores and elections, which are one state machine.

A permit has a capacity, and each of its holds takes some units of that. A lock has one unit. A semaphore has as many as
it has holders. Of a read/write lock a reader takes one unit, and a writer takes all. Who leads is who holds.

The requests that wait are in the state, in the order in which they came. Whatever frees units grants them to the first
in the line, in the same slot: so one release wakes one waiter, and no waiter ever looks whether it is its turn. A
request never overtakes another. So a writer that waits holds back the readers that come after it, and none starves.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.recipes.replicated.bounds import (
    OWN_BYTES_MAX,
    LimitReached,
    Name,
    RequestMismatch,
    SessionOver,
    Text,
    bytes_of,
    within_an_answer,
)
from txpaxos.recipes.replicated.ordered import Ordered
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, ServiceError, command, query, state

CAPACITY_MAX = 2**31 - 1
"""The capacity of a read/write lock, and the most that a permit can have."""

REQUESTS_MAX = 1_000_000
REQUESTS_OF_SESSION_MAX = 2_000
"""All of them end in one slot with their session, which takes some ten milliseconds."""
GRANTS_MAX = 256
"""How many requests are granted in one slot. The others in the line are granted in the slots after it."""
LISTED_MAX = 10_000

Units: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=CAPACITY_MAX)]
"""How much of a permit: what one hold takes, or its capacity."""

Listed: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=LISTED_MAX)]
"""How many an answer lists at most."""


class Fenced(ServiceError):
    """The hold that a token stands for is over. Others may hold the permit by now. Nothing was changed."""


class CapacityMismatch(ServiceError):
    """The permit is in use with another capacity. Nothing was changed."""


@attrs.frozen
class Standing:
    """How a request stands.

    :ivar waits: whether it is in the line.
    :ivar token: of its hold; 0 if it has none. Without that, and out of the line, it is over or never was.
    """

    waits: bool
    token: int


@attrs.frozen
class Contender:
    """Who holds a permit, or waits for it.

    :ivar token: of its hold; 0 if it waits.
    :ivar units: how much of the permit it takes.
    :ivar value: what it says of itself.
    """

    token: int
    units: int
    session_id: str
    value: str


class Permit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A permit that is held or waited for."""

    capacity: int
    free: int


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request that waits or holds. ``place`` orders the line. One that waits has the token 0."""

    name: str
    units: int
    value: str
    place: int
    token: int = 0


_GRANT = "grant"
"""The timer that goes on with granting."""

_Holder: TypeAlias = tuple[str, str]
"""A session, and the name of a request in it."""


class Permits(Service):
    """Permits, granted in the order of the requests."""

    permits: dict[str, Permit] = state(dict)
    requests: dict[tuple[str, str], Request] = state(dict)
    requests_bytes: int = state(int)
    holders: dict[int, tuple[str, str]] = state(dict)
    last_place: int = state(int)
    last_token: int = state(int)
    to_grant: dict[str, None] = state(dict)
    line_rows: dict[str, tuple[int, ...]] = state(dict)
    line_blocks: dict[tuple[str, int], tuple[tuple[int, str, str], ...]] = state(dict)
    hold_rows: dict[str, tuple[int, ...]] = state(dict)
    hold_blocks: dict[tuple[str, int], tuple[int, ...]] = state(dict)
    session_rows: dict[str, tuple[int, ...]] = state(dict)
    session_blocks: dict[tuple[str, int], tuple[str, ...]] = state(dict)

    # what contenders call

    @command(raises=(LimitReached, SessionOver, CapacityMismatch, RequestMismatch))
    def acquire(
        self,
        name: Name,
        session_id: Name,
        request: Name,
        units: Units = 1,
        capacity: Units = 1,
        value: Text = "",
        waits: bool = True,
    ) -> int | None:
        """Take a permit. If it is not free, wait in the line for it, unless ``waits`` is false.

        :param request: names this request in its session. Asked again, it is given what it was given before.
        :param capacity: what the permit has in all. All requests of one time must say the same.
        :param value: what the contender says of itself.
        :returns: the token of the hold, which is higher than that of every earlier hold of any permit; ``None`` if it
            is not granted yet.
        """
        holder = session_id, request
        known = self.requests.get(holder)
        if known is not None:
            if known.name != name:
                raise RequestMismatch(f"the request {request} of this session is for {known.name}, not for {name}")
            return known.token or None
        if not self.sibling(Sessions).is_open(session_id):
            raise SessionOver(f"the session {session_id} is not open")
        permit = self.permits.get(name) or Permit(capacity, capacity)
        self._check(name, permit, units, capacity)
        if not waits and (self._line.first(name) is not None or permit.free < units):
            return None
        size = bytes_of(name, session_id, request, value)
        if len(self.requests) >= REQUESTS_MAX or self.requests_bytes + size > OWN_BYTES_MAX:
            raise LimitReached(f"{len(self.requests)} permits are held or waited for already")
        if self._of_session.count(session_id) >= REQUESTS_OF_SESSION_MAX:
            raise LimitReached(f"this session holds or waits for {REQUESTS_OF_SESSION_MAX} permits: release some first")
        self.last_place += 1
        self.permits[name] = permit
        self.requests[holder] = Request(name, units, value, self.last_place)
        self.requests_bytes += size
        self._of_session.add(session_id, request)
        self._line.add(name, (self.last_place, *holder))
        self._note_change(name, holder)
        self._grant_all((name,))
        return self.requests[holder].token or None

    @command
    def withdraw(self, session_id: Name, request: Name) -> bool:
        """End a request, whether it waits or holds.

        :returns: whether there was one.
        """
        known = self.requests.get((session_id, request))
        if known is None:
            return False
        self._drop((session_id, request))
        self._grant_all((known.name,))
        return True

    @command(raises=Fenced)
    def release(self, name: Name, token: int, session_id: Name) -> None:
        """End the hold of this session with this token."""
        self.check_fence(name, token)
        holder = self.holders[token]
        if holder[0] != session_id:
            raise Fenced(f"the hold of {name} with token {token} is not of the session {session_id}")
        self._drop(holder)
        self._grant_all((name,))

    # what is asked

    @query(topic="permit request {session_id} {request}")
    def standing(self, session_id: Name, request: Name) -> Standing:
        """How a request stands."""
        known = self.requests.get((session_id, request))
        return Standing(False, 0) if known is None else Standing(not known.token, known.token)

    @query(topic="permit {name}")
    def contenders(self, name: Name, at_most: Listed = 1000) -> tuple[Contender, ...]:
        """Who holds a permit, and then who waits for it, in the order of the line: as many as one answer may have."""
        holding = (self.holders[token] for token in self._holds.since(name))
        waiting = ((session_id, request) for _, session_id, request in self._line.since(name))
        all_of_them = (self._contender(holder) for holder in chain(holding, waiting))
        return tuple(islice(within_an_answer(all_of_them, lambda one: one.value), at_most))

    @query(topic="permit holder {name}")
    def holder(self, name: Name) -> Contender | None:
        """Who has held a permit for the longest time: of an election, who leads."""
        token = self._holds.first(name)
        return None if token is None else self._contender(self.holders[token])

    # what services beside this one call

    def check_fence(self, name: str, token: int) -> None:
        """Check in a command of a service beside this one that a hold is not over. Here that is exact.

        :raises Fenced: if it is.
        """
        holder = self.holders.get(token)
        if holder is None or self.requests[holder].name != name:
            raise Fenced(f"the hold of {name} with token {token} is over")

    # what happens

    def session_ended(self, session_id: str) -> int:
        """End all requests of a session, and then grant what they held: to none of them, that is."""
        names: dict[str, None] = {}
        requests = list(self._of_session.since(session_id))
        for request in requests:
            names[self.requests[session_id, request].name] = None
            self._drop((session_id, request))
        self._grant_all(names)
        return len(requests)

    def timer_fired(self, name: str, payload: bytes) -> None:
        """Go on with granting."""
        names, self.to_grant = self.to_grant, {}
        self._grant_all(names)

    # inside

    @property
    def _line(self) -> Ordered[tuple[int, str, str]]:
        """The requests that wait, by permit: the place, the session and the name of each."""
        return Ordered(self.line_rows, self.line_blocks)

    @property
    def _holds(self) -> Ordered[int]:
        """The tokens of the holds, by permit."""
        return Ordered(self.hold_rows, self.hold_blocks)

    @property
    def _of_session(self) -> Ordered[str]:
        """The requests of each session."""
        return Ordered(self.session_rows, self.session_blocks)

    def _check(self, name: str, permit: Permit, units: int, capacity: int) -> None:
        if capacity != permit.capacity:
            raise CapacityMismatch(f"{name} is in use with a capacity of {permit.capacity}, and not of {capacity}")
        if units > capacity:
            raise CapacityMismatch(f"{name} has a capacity of {capacity}, so that {units} units are never free")

    def _contender(self, holder: _Holder) -> Contender:
        request = self.requests[holder]
        return Contender(request.token, request.units, holder[0], request.value)

    def _grant_all(self, names: Iterable[str]) -> None:
        """Grant what is free of several permits, a bounded number of times in one slot."""
        grants_max = GRANTS_MAX
        for name in names:
            grants_max -= self._grant(name, grants_max)

    def _grant(self, name: str, grants_max: int) -> int:
        """Grant what is free to the first in the line, as far as it goes, each under a token that no hold had before.

        A permit that is not in use any more leaves nothing behind. What is more than ``grants_max`` is granted in a
        later slot. Until then none gets ahead of the line.

        :returns: how many were granted.
        """
        granted = 0
        while (first := self._line.first(name)) is not None:
            holder = first[1:]
            request, permit = self.requests[holder], self.permits[name]
            if request.units > permit.free:
                return granted
            if granted >= grants_max:
                self.to_grant[name] = None
                self.timers.set(_GRANT, 0)
                return granted
            granted += 1
            self._line.discard(name, first)
            self.last_token += 1
            self.permits[name] = msgspec.structs.replace(permit, free=permit.free - request.units)
            self.requests[holder] = msgspec.structs.replace(request, token=self.last_token)
            self.holders[self.last_token] = holder
            self._holds.add(name, self.last_token)
            self._note_change(name, holder)
            self.changed(f"permit holder {name}")
        if self._holds.first(name) is None:
            self.permits.pop(name, None)
        return granted

    def _drop(self, holder: _Holder) -> None:
        """Forget a request, out of the line or with its hold."""
        session_id, request = holder
        known = self.requests.pop(holder)
        self.requests_bytes -= bytes_of(known.name, *holder, known.value)
        self._of_session.discard(session_id, request)
        self._note_change(known.name, holder)
        if not known.token:
            self._line.discard(known.name, (known.place, session_id, request))
            return
        del self.holders[known.token]
        self._holds.discard(known.name, known.token)
        permit = self.permits[known.name]
        self.permits[known.name] = msgspec.structs.replace(permit, free=permit.free + known.units)
        self.changed(f"permit holder {known.name}")

    def _note_change(self, name: str, holder: _Holder) -> None:
        self.changed(f"permit request {holder[0]} {holder[1]}")
        self.changed(f"permit {name}")
