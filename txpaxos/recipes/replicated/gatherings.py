"""Gatherings: who is there (parties), a gate for all (barriers), who begins and ends together (double barriers).

Membership belongs to sessions. When one ends, its members are gone in the same slot: none waits for those who are lost.
"""

from __future__ import annotations

from itertools import islice
from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.recipes.replicated.bounds import (
    OWN_BYTES_MAX,
    LimitReached,
    MaybeName,
    Name,
    RequestMismatch,
    SessionOver,
    Text,
    bytes_of,
    within_an_answer,
)
from txpaxos.recipes.replicated.ordered import Ordered
from txpaxos.recipes.replicated.permits import CapacityMismatch, Listed
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, command, query, state

PLACES_MAX = 1_000_000
"""How many members all parties and double barriers may have, and how many barriers there may be."""
PLACES_OF_SESSION_MAX = 1_000
"""All of them end in one slot with their session, which takes some ten milliseconds."""
ROUND_MAX = 1_000
"""How many a double barrier may be for. All of them begin in one slot."""

RoundCount: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=ROUND_MAX)]
"""How many take part in one round of a double barrier."""


@attrs.frozen
class Member:
    """A member of a party."""

    session_id: str
    value: str


class Round(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One use of a double barrier, for which ``count`` members are needed. ``number`` is 0 until it is open; then it is
    higher than that of every round that was opened before."""

    count: int
    number: int


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a request stands at a double barrier: in the line, at ``place``, or in the open round ``round``."""

    barrier: str
    place: int
    round: int = 0


class Gatherings(Service):
    """Parties, barriers and double barriers."""

    members: dict[tuple[str, str], str] = state(dict)
    barriers: dict[str, str] = state(dict)
    rounds: dict[str, Round] = state(dict)
    places: dict[tuple[str, str], Place] = state(dict)
    places_bytes: int = state(int)
    last_round: int = state(int)
    last_place: int = state(int)
    party_rows: dict[str, tuple[int, ...]] = state(dict)
    party_blocks: dict[tuple[str, int], tuple[str, ...]] = state(dict)
    line_rows: dict[str, tuple[int, ...]] = state(dict)
    line_blocks: dict[tuple[str, int], tuple[tuple[int, str, str], ...]] = state(dict)
    round_rows: dict[str, tuple[int, ...]] = state(dict)
    round_blocks: dict[tuple[str, int], tuple[tuple[str, str], ...]] = state(dict)
    session_rows: dict[str, tuple[int, ...]] = state(dict)
    session_blocks: dict[tuple[str, int], tuple[tuple[str, str], ...]] = state(dict)

    # parties

    @command(raises=(LimitReached, SessionOver))
    def join(self, party: Name, session_id: Name, value: Text = "") -> None:
        """Be a member of a party, or say something else of oneself."""
        self._check_open(session_id)
        if (party, session_id) not in self.members:
            self._check_room(session_id, party, value)
            self._of_session.add(session_id, ("party", party))
            self._party.add(party, session_id)
        else:
            self._check_bytes(value)
            self.places_bytes -= bytes_of(party, session_id, self.members[party, session_id])
        self.members[party, session_id] = value
        self.places_bytes += bytes_of(party, session_id, value)
        self.changed(f"party {party}")

    @command
    def leave_party(self, party: Name, session_id: Name) -> bool:
        """Be no member of a party any more.

        :returns: whether it was one.
        """
        if (party, session_id) not in self.members:
            return False
        self.places_bytes -= bytes_of(party, session_id, self.members.pop((party, session_id)))
        self._party.discard(party, session_id)
        self._of_session.discard(session_id, ("party", party))
        self.changed(f"party {party}")
        return True

    @query(topic="party {party}")
    def members_of(self, party: Name, at_most: Listed = 1000) -> tuple[Member, ...]:
        """Who is there, in the order of their sessions' names: as many as one answer may have."""
        found = (Member(one, self.members[party, one]) for one in self._party.since(party))
        return tuple(islice(within_an_answer(found, lambda one: one.value), at_most))

    # barriers

    @command(raises=(LimitReached, SessionOver))
    def create(self, barrier: Name, session_id: MaybeName = "") -> bool:
        """Close a barrier: all who wait for it wait until it is removed.

        :param session_id: remove it when this session ends; never, if none is given.
        :returns: whether it was not there before. One that was stays whose it was.
        """
        if barrier in self.barriers:
            return False
        if session_id:
            self._check_open(session_id)
        self._check_room(session_id, barrier)
        self.barriers[barrier] = session_id
        self.places_bytes += bytes_of(barrier, session_id)
        if session_id:
            self._of_session.add(session_id, ("barrier", barrier))
        self.changed(f"barrier {barrier}")
        return True

    @command
    def remove(self, barrier: Name) -> bool:
        """Open a barrier.

        :returns: whether it was there.
        """
        if barrier not in self.barriers:
            return False
        session_id = self.barriers.pop(barrier)
        self.places_bytes -= bytes_of(barrier, session_id)
        if session_id:
            self._of_session.discard(session_id, ("barrier", barrier))
        self.changed(f"barrier {barrier}")
        return True

    @query(topic="barrier {barrier}")
    def is_closed(self, barrier: Name) -> bool:
        """Whether a barrier is there."""
        return barrier in self.barriers

    # double barriers

    @command(raises=(LimitReached, SessionOver, CapacityMismatch, RequestMismatch))
    def enter(self, barrier: Name, session_id: Name, request: Name, count: RoundCount) -> int | None:
        """Take part. A round is open as soon as ``count`` are there, until all of them have left.

        Those who come to a round that is open wait for the next one.

        :param request: names this request in its session.
        :returns: the number of the round, if it is open; otherwise ``None``.
        """
        holder = session_id, request
        place = self.places.get(holder)
        if place is not None:
            if place.barrier != barrier:
                raise RequestMismatch(
                    f"the request {request} of this session is for {place.barrier}, not for {barrier}"
                )
            return place.round or None
        self._check_open(session_id)
        known = self.rounds.get(barrier)
        if known is not None and known.count != count:
            raise CapacityMismatch(f"{barrier} is for {known.count} at this time, and not for {count}")
        self._check_room(session_id, barrier, request)
        self.rounds[barrier] = known or Round(count, 0)
        self.last_place += 1
        self.places[holder] = Place(barrier, self.last_place)
        self.places_bytes += bytes_of(barrier, *holder)
        self.changed(f"round {session_id} {request}")
        self._of_session.add(session_id, ("round", request))
        self._line.add(barrier, (self.last_place, *holder))
        self._open_if_full(barrier)
        return self.places[holder].round or None

    @command
    def leave(self, session_id: Name, request: Name) -> int | None:
        """Take part no more.

        :returns: the number of the round, if others are in it still; otherwise ``None``.
        """
        place = self.places.pop((session_id, request), None)
        if place is None:
            return None
        barrier = place.barrier
        self.places_bytes -= bytes_of(barrier, session_id, request)
        self._of_session.discard(session_id, ("round", request))
        self.changed(f"round {session_id} {request}")
        if not place.round:
            self._line.discard(barrier, (place.place, session_id, request))
            if not self.rounds[barrier].number and self._line.first(barrier) is None:
                del self.rounds[barrier]
            return None
        self._round.discard(barrier, (session_id, request))
        if self._round.first(barrier) is not None:
            return place.round
        self._end_round(barrier)
        return None

    @query(topic="round {session_id} {request}")
    def standing(self, session_id: Name, request: Name) -> int | None:
        """The number of the round in which a request takes part; 0 if it waits for one; ``None`` if it does neither."""
        place = self.places.get((session_id, request))
        return None if place is None else place.round

    @query(topic="rounds {barrier}")
    def open_round(self, barrier: Name) -> int:
        """The number of the round that is open; 0 if there is none."""
        known = self.rounds.get(barrier)
        return 0 if known is None else known.number

    # what happens

    def session_ended(self, session_id: str) -> int:
        """Have a session leave all parties and double barriers, and remove its barriers."""
        places = list(self._of_session.since(session_id))
        for kind, name in places:
            if kind == "party":
                self.leave_party(name, session_id)
            elif kind == "barrier":
                self.remove(name)
            else:
                self.leave(session_id, name)
        return len(places)

    # inside

    @property
    def _party(self) -> Ordered[str]:
        """The sessions of the members of each party."""
        return Ordered(self.party_rows, self.party_blocks)

    @property
    def _line(self) -> Ordered[tuple[int, str, str]]:
        """Those who wait for the next round of each double barrier: place, session and request of each."""
        return Ordered(self.line_rows, self.line_blocks)

    @property
    def _round(self) -> Ordered[tuple[str, str]]:
        """Those who are in the open round of each double barrier: session and request of each."""
        return Ordered(self.round_rows, self.round_blocks)

    @property
    def _of_session(self) -> Ordered[tuple[str, str]]:
        """What each session takes part in: parties and barriers by name, rounds by request."""
        return Ordered(self.session_rows, self.session_blocks)

    def _check_open(self, session_id: str) -> None:
        if not self.sibling(Sessions).is_open(session_id):
            raise SessionOver(f"the session {session_id} is not open")

    def _check_room(self, session_id: str, *texts: str) -> None:
        self._check_bytes(session_id, *texts)
        if len(self.members) + len(self.barriers) + len(self.places) >= PLACES_MAX:
            raise LimitReached(f"parties and barriers have {PLACES_MAX} members already")
        if session_id and self._of_session.count(session_id) >= PLACES_OF_SESSION_MAX:
            raise LimitReached(f"this session is in {PLACES_OF_SESSION_MAX} parties and barriers: leave some first")

    def _check_bytes(self, *texts: str) -> None:
        if self.places_bytes + bytes_of(*texts) > OWN_BYTES_MAX:
            raise LimitReached(f"parties and barriers have names and values of {self.places_bytes} bytes already")

    def _open_if_full(self, barrier: str) -> None:
        """Open the next round if none is open, and as many are in the line as it needs."""
        count = self.rounds[barrier].count
        first = list(islice(self._line.since(barrier), count))
        if self.rounds[barrier].number or len(first) < count:
            return
        self.last_round += 1
        self.rounds[barrier] = Round(count, self.last_round)
        for place, session_id, request in first:
            self._line.discard(barrier, (place, session_id, request))
            self._round.add(barrier, (session_id, request))
            self.places[session_id, request] = Place(barrier, place, self.last_round)
            self.changed(f"round {session_id} {request}")
        self.changed(f"rounds {barrier}")

    def _end_round(self, barrier: str) -> None:
        """All have left: those who came too late have the next round."""
        count = self.rounds.pop(barrier).count
        self.changed(f"rounds {barrier}")
        if self._line.first(barrier) is not None:
            self.rounds[barrier] = Round(count, 0)
            self._open_if_full(barrier)
