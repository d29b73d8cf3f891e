"""Queues of items, which are taken by one taker at a time and are gone once they are acknowledged.

An item is ready, or taken. A request to take one is answered at once, or waits in the line of its queue, which is in
the state: whatever makes an item ready hands it to the first in the line, in the same slot. So one item wakes one
taker, and no taker ever looks whether there is something.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import attrs
import msgspec

from txpaxos.recipes.replicated.bounds import (
    OWN_BYTES_MAX,
    Count,
    Data,
    LimitReached,
    Name,
    RequestMismatch,
    SessionOver,
    SpanMs,
    bytes_of,
)
from txpaxos.recipes.replicated.ordered import Ordered
from txpaxos.recipes.replicated.sessions import Sessions
from txpaxos.service.declaration import Service, ServiceError, command, query, state

ITEMS_MAX = 4_000_000
ITEMS_BYTES_MAX = 2**31
"""How many bytes the items of all queues may have."""

REQUESTS_MAX = 1_000_000
REQUESTS_OF_SESSION_MAX = 1_000
"""All of them end in one slot with their session, which takes some ten milliseconds."""
LIMITS_MAX = 10_000
ENDED_MAX = 256
"""How many takes end in one slot because their time is over. The others end in the slots after it."""

PRIORITY_DEFAULT = 100
PRIORITY_MAX = 999
"""The priority of what is taken last."""

_DUE = "due"
"""The timer for the take whose time is over first, and the collection of all of them."""

_NUMBERS = 2**52
"""An item is known by its priority times this, plus its number. So the order of the keys is the order of the queue."""

Priority: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=PRIORITY_MAX)]
"""What is lower is taken first."""


class TakeOver(ServiceError):
    """A take is over: its item was acknowledged or given back, or the time or the session of its taker was over. The
    item may be in other hands by now. Nothing was changed."""


@attrs.frozen
class Delivery:
    """An item in the hands of a taker.

    :ivar token: rises with every delivery of any item, and names this one.
    :ivar data: what was put.
    :ivar deliveries: how many times the item was delivered, this one included.
    """

    token: int
    data: bytes
    priority: int
    deliveries: int


@attrs.frozen
class Standing:
    """How a request to take stands.

    :ivar waits: whether it is in the line.
    :ivar delivery: what it was given. Without that, and out of the line, it is over or never was.
    """

    waits: bool
    delivery: Delivery | None


@attrs.frozen
class Depth:
    """How many items of a queue are ready, how many are taken, and how many requests wait for one."""

    ready: int
    taken: int
    waiting: int


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An item that is not acknowledged."""

    queue: str
    data: bytes
    deliveries: int


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A request to take, in the line or with an item. ``place`` orders the line. A request in the line has no item, and
    token and due time are 0."""

    queue: str
    visible_ms: int
    place: int
    key: int = 0
    token: int = 0
    due_ms: int = 0


class DeliveryLimit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """After how many deliveries an item that comes back goes to another queue."""

    deliveries_max: int
    dead_letters: str


class Queues(Service):
    """Queues, first in first out, those with a lower priority before others."""

    items: dict[int, Item] = state(dict)
    items_bytes: int = state(int)
    requests: dict[tuple[str, str], Request] = state(dict)
    requests_bytes: int = state(int)
    takes: dict[int, tuple[str, str]] = state(dict)
    taken: dict[str, int] = state(dict)
    limits: dict[str, DeliveryLimit] = state(dict)
    last_number: int = state(int)
    last_token: int = state(int)
    ready_rows: dict[str, tuple[int, ...]] = state(dict)
    ready_blocks: dict[tuple[str, int], tuple[int, ...]] = state(dict)
    line_rows: dict[str, tuple[int, ...]] = state(dict)
    line_blocks: dict[tuple[str, int], tuple[tuple[int, str, str], ...]] = state(dict)
    due_rows: dict[str, tuple[int, ...]] = state(dict)
    due_blocks: dict[tuple[str, int], tuple[tuple[int, int], ...]] = state(dict)
    session_rows: dict[str, tuple[int, ...]] = state(dict)
    session_blocks: dict[tuple[str, int], tuple[str, ...]] = state(dict)

    # what putters call

    @command(raises=LimitReached)
    def put(self, queue: Name, data: Data, priority: Priority = PRIORITY_DEFAULT) -> int:
        """Add an item behind those of the same priority.

        :returns: its number: a later item of any queue has a higher one.
        """
        if len(self.items) >= ITEMS_MAX:
            raise LimitReached(f"the queues have {ITEMS_MAX} items already: take some first")
        size = bytes_of(queue) + len(data)
        if self.items_bytes + size > ITEMS_BYTES_MAX:
            raise LimitReached(f"the items of the queues have {self.items_bytes} bytes already: take some first")
        self.last_number += 1
        key = priority * _NUMBERS + self.last_number
        self.items[key] = Item(queue, data, 0)
        self.items_bytes += size
        self._make_ready(queue, key)
        return self.last_number

    @command(raises=LimitReached)
    def limit_deliveries(self, queue: Name, deliveries_max: Count, dead_letters: Name) -> None:
        """Have an item that comes back after its ``deliveries_max``-th delivery go to the queue ``dead_letters``.

        :param deliveries_max: 0 for no limit, as at first.
        """
        if not deliveries_max:
            self.limits.pop(queue, None)
        elif len(self.limits) >= LIMITS_MAX and queue not in self.limits:
            raise LimitReached(f"{LIMITS_MAX} queues have a limit of deliveries already")
        else:
            self.limits[queue] = DeliveryLimit(deliveries_max, dead_letters)

    # what takers call

    @command(raises=(LimitReached, SessionOver, RequestMismatch))
    def take(
        self, queue: Name, session_id: Name, request: Name, visible_ms: SpanMs, waits: bool = True
    ) -> Delivery | None:
        """Take the first item that is ready. If there is none, wait in the line for one, unless ``waits`` is false.

        :param request: names this take in its session. Asked again, it is given what it was given before.
        :param visible_ms: after how long the item is ready again for others, unless it is acknowledged.
        :returns: ``None`` if there is no item yet.
        """
        known = self.requests.get((session_id, request))
        if known is not None:
            if known.queue != queue:
                raise RequestMismatch(f"the request {request} of this session is for {known.queue}, not for {queue}")
            return self._delivery(known)
        if not self.sibling(Sessions).is_open(session_id):
            raise SessionOver(f"the session {session_id} is not open")
        key = self._ready.first(queue)
        if key is None and not waits:
            return None
        size = bytes_of(queue, session_id, request)
        if len(self.requests) >= REQUESTS_MAX or self.requests_bytes + size > OWN_BYTES_MAX:
            raise LimitReached(f"{len(self.requests)} takes are under way already")
        if self._of_session.count(session_id) >= REQUESTS_OF_SESSION_MAX:
            raise LimitReached(f"{REQUESTS_OF_SESSION_MAX} takes of this session are under way: acknowledge some first")
        self.last_number += 1
        made = Request(queue, visible_ms, self.last_number)
        self._of_session.add(session_id, request)
        self.requests_bytes += size
        if key is None:
            self.requests[session_id, request] = made
            self._line.add(queue, (made.place, session_id, request))
            self._note_change(queue, (session_id, request))
            return None
        self._ready.discard(queue, key)
        return self._delivery(self._hand_over(key, (session_id, request), made))

    @command
    def withdraw(self, session_id: Name, request: Name) -> bool:
        """End a request: out of the line, or with its item back in the queue, as if it had not been delivered.

        :returns: whether there was one.
        """
        if (session_id, request) not in self.requests:
            return False
        self._end((session_id, request), counts=False)
        return True

    @command(raises=TakeOver)
    def acknowledge(self, token: int, session_id: Name) -> None:
        """The item of a delivery to this session is done with: it is in no queue any more."""
        held = self.requests[self._holder(token, session_id)]
        self._drop(self.takes[token])
        item = self.items.pop(held.key)
        self.items_bytes -= bytes_of(item.queue) + len(item.data)

    @command(raises=TakeOver)
    def give_back(self, token: int, session_id: Name) -> None:
        """The item of a delivery to this session is ready for others, in its old place."""
        self._end(self._holder(token, session_id), counts=True)

    @command(raises=TakeOver)
    def extend(self, token: int, session_id: Name, visible_ms: SpanMs) -> None:
        """Keep the item of a delivery to this session for ``visible_ms`` from now on."""
        holder = self._holder(token, session_id)
        held = self.requests[holder]
        self._due.discard(_DUE, (held.due_ms, token))
        self._keep(holder, msgspec.structs.replace(held, due_ms=self.now.elapsed_ms + visible_ms))

    # what is asked

    @query(topic="queue take {session_id} {request}")
    def standing(self, session_id: Name, request: Name) -> Standing:
        """How a request to take stands."""
        known = self.requests.get((session_id, request))
        if known is None:
            return Standing(False, None)
        delivery = self._delivery(known)
        return Standing(delivery is None, delivery)

    @query(topic="queue {queue}")
    def depth(self, queue: Name) -> Depth:
        """How much there is in a queue."""
        return Depth(self._ready.count(queue), self.taken.get(queue, 0), self._line.count(queue))

    # what happens

    def timer_fired(self, name: str, payload: bytes) -> None:
        """Make those items ready again whose takers have had them for too long, a bounded number in one slot."""
        for _ in range(ENDED_MAX):
            first = self._due.first(_DUE)
            if first is None or first[0] > self.now.elapsed_ms:
                break
            self._end(self.takes[first[1]], counts=True)
        self._set_timer()

    def session_ended(self, session_id: str) -> int:
        """End all requests of a session: first those in the line, so that none of them gets an item of another."""
        requests = [(session_id, request) for request in self._of_session.since(session_id)]
        for held in sorted(requests, key=lambda one: self.requests[one].token):
            self._end(held, counts=True)
        return len(requests)

    # inside

    @property
    def _ready(self) -> Ordered[int]:
        """What can be taken, by queue."""
        return Ordered(self.ready_rows, self.ready_blocks)

    @property
    def _line(self) -> Ordered[tuple[int, str, str]]:
        """The requests that wait, by queue: the place, the session and the name of each."""
        return Ordered(self.line_rows, self.line_blocks)

    @property
    def _due(self) -> Ordered[tuple[int, int]]:
        """When the time of each delivery is over, with its token."""
        return Ordered(self.due_rows, self.due_blocks)

    @property
    def _of_session(self) -> Ordered[str]:
        """The requests of each session."""
        return Ordered(self.session_rows, self.session_blocks)

    def _holder(self, token: int, session_id: str) -> tuple[str, str]:
        """The session and the request that have the delivery ``token``."""
        holder = self.takes.get(token)
        if holder is None or holder[0] != session_id:
            raise TakeOver(f"the take with token {token} is over; its item may be in other hands")
        return holder

    def _delivery(self, request: Request) -> Delivery | None:
        if not request.token:
            return None
        item = self.items[request.key]
        return Delivery(request.token, item.data, request.key // _NUMBERS, item.deliveries)

    def _make_ready(self, queue: str, key: int) -> None:
        """Hand an item to the first in the line, or let it wait for a request."""
        first = self._line.first(queue)
        if first is None:
            self._ready.add(queue, key)
            self.changed(f"queue {queue}")
            return
        self._line.discard(queue, first)
        _, session_id, name = first
        self._hand_over(key, (session_id, name), self.requests[session_id, name])

    def _hand_over(self, key: int, holder: tuple[str, str], request: Request) -> Request:
        """Give an item to a request, under a token that no delivery had before."""
        self.last_token += 1
        item = self.items[key]
        self.items[key] = msgspec.structs.replace(item, deliveries=item.deliveries + 1)
        self.takes[self.last_token] = holder
        self.taken[request.queue] = self.taken.get(request.queue, 0) + 1
        due_ms = self.now.elapsed_ms + request.visible_ms
        held = msgspec.structs.replace(request, key=key, token=self.last_token, due_ms=due_ms)
        self._keep(holder, held)
        self._note_change(request.queue, holder)
        return held

    def _keep(self, holder: tuple[str, str], held: Request) -> None:
        self.requests[holder] = held
        self._due.add(_DUE, (held.due_ms, held.token))
        if self._due.first(_DUE) == (held.due_ms, held.token):
            self._set_timer()

    def _end(self, holder: tuple[str, str], counts: bool) -> None:
        """End a request, and make its item ready again if it has one.

        :param counts: whether its delivery counts.
        """
        held = self.requests[holder]
        self._drop(holder)
        if held.token:
            self._bring_back(held.key, counts)

    def _bring_back(self, key: int, counts: bool) -> None:
        item = self.items[key]
        if not counts:
            item = self.items[key] = msgspec.structs.replace(item, deliveries=item.deliveries - 1)
        limit = self.limits.get(item.queue)
        if counts and limit is not None and item.deliveries >= limit.deliveries_max:
            self.items_bytes += bytes_of(limit.dead_letters) - bytes_of(item.queue)
            item = self.items[key] = Item(limit.dead_letters, item.data, 0)
        self._make_ready(item.queue, key)

    def _drop(self, holder: tuple[str, str]) -> None:
        """Forget a request, out of the line or with its delivery."""
        session_id, name = holder
        held = self.requests.pop(holder)
        self.requests_bytes -= bytes_of(held.queue, *holder)
        self._of_session.discard(session_id, name)
        self._note_change(held.queue, holder)
        if not held.token:
            self._line.discard(held.queue, (held.place, session_id, name))
            return
        del self.takes[held.token]
        self.taken[held.queue] -= 1
        if not self.taken[held.queue]:
            del self.taken[held.queue]
        self._due.discard(_DUE, (held.due_ms, held.token))
        if not self.takes:
            self.timers.cancel(_DUE)

    def _note_change(self, queue: str, holder: tuple[str, str]) -> None:
        self.changed(f"queue take {holder[0]} {holder[1]}")
        self.changed(f"queue {queue}")

    def _set_timer(self) -> None:
        """Have the timer fire when the first of the takes is due."""
        first = self._due.first(_DUE)
        if first is not None:
            self.timers.set(_DUE, max(0, first[0] - self.now.elapsed_ms) / 1000)
