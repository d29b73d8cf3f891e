"""Queries that are watched at one node: each waits until its answer is another one than its caller has.

A watch travels in a query as a MessagePack array: ``"watch"``, the digest of the answer that the caller has (empty for
none), the call, and a slot. It is answered with an array of the digest of the answer, the MessagePack of the answer
itself, or ``None`` in its place if it is still the same, and the slot that it reflects. A text in place of the array
says why the node has no room for the watch.

* Without a slot it is answered at once. The caller makes a linearizable read of it: so the answer is not old.
* With a slot it waits, if this node has applied the log up to there: so the answer is never older than what the caller
  has seen. A node that lags answers at once that it is the same, and the caller begins again. This is a local read. A
  linearizable one that is not answered means to a client that its node is cut off.

A wait ends after :data:`WAIT_SECONDS`, and when the node has known no leader for :data:`LEADERLESS_SECONDS`. So nothing
is left of a caller that is gone, and a caller leaves a node that is cut off. None of this is in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txpaxos.errors import CallRefused, Overloaded
from txpaxos.fields import without_sets

WAIT_SECONDS = 30.0
LEADERLESS_SECONDS = 2.0
WATCHES_MAX = 2**15
"""The most that wait at one node. It is half of what may wait of all queries, so that other queries find room."""
LOOKS_MAX = 256
LOOK_BYTES_MAX = 2**20
TELLS_MAX = 1024
"""How many calls are evaluated in one turn of the reactor, about how many bytes of answers are made in it, and how many
who wait are told. The rest follows in the next ones."""
DIGEST_BYTES = 16

Topic: TypeAlias = tuple[str, str | None]
"""The name of a service, and a topic of its own; ``None`` for all that it does."""
Answer: TypeAlias = tuple[bytes, bytes | None, int]
"""The digest of an answer, its MessagePack, or ``None`` if it is still the same, and the slot that it reflects."""


class _Watch(msgspec.Struct, array_like=True, tag="watch", tag_field="0", forbid_unknown_fields=True):
    known: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
    call: bytes
    wait_from: Annotated[int, msgspec.Meta(ge=0)] | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Watch).decode
_HEAD = b"\x94\xa5watch"
"""How each watch begins, and no call of a service does, whose tag has a dot."""


def encode_watch(known: bytes, call: bytes, wait_from: int | None = None) -> bytes:
    """The query for an answer of ``call`` that has another digest than ``known``.

    :param wait_from: the slot up to which a node must have the log to wait for it; ``None`` not to wait.
    """
    return _encode(_Watch(known, call, wait_from))


def is_watch(query: bytes) -> bool:
    """Whether ``query`` is a watch, and no call of a service. A local read of one waits."""
    return query.startswith(_HEAD)


def digest_of(data: bytes) -> bytes:
    """By which answers are compared."""
    return blake2b(data, digest_size=DIGEST_BYTES).digest()


def digest_of_answer(answer: object) -> bytes:
    """The digest of what a call returns."""
    return digest_of(_encode(without_sets(answer)))


@attrs.define(eq=False)
class _Waiter:
    known: bytes
    answer: Deferred[Answer]
    timer: IDelayedCall | None = None


@attrs.define(eq=False)
class _Watched:
    """A call that is watched, by all who wait for its next answer."""

    call: bytes
    topic: Topic
    waiters: dict[_Waiter, None] = attrs.field(factory=dict)


class Watches:
    """The watched queries of one node.

    :param answer: makes a call, and returns its result.
    :param topic_of: the topic of a call.
    :param later: has a function called after a number of seconds.
    :param applied_through: the last slot that the node has applied.
    :param at_end: has a function called when all is applied that the node is about to apply, and returns True; or
        returns False.
    """

    def __init__(
        self,
        answer: Callable[[bytes], object],
        topic_of: Callable[[bytes], Topic],
        later: Callable[[float, Callable[[], None]], IDelayedCall],
        applied_through: Callable[[], int],
        at_end: Callable[[Callable[[], None]], bool] = lambda function: False,
    ) -> None:
        self._answer = answer
        self._topic_of = topic_of
        self._later = later
        self._applied_through = applied_through
        self._at_end = at_end
        self._watched: dict[bytes, _Watched] = {}
        self._by_topic: dict[Topic, dict[bytes, _Watched]] = {}
        self._count = 0
        self._bytes_left, self._tells_left = LOOK_BYTES_MAX, TELLS_MAX  # In this turn of the reactor.
        # The calls whose answers may have changed. A look at them is due while there is one.
        self._changed: dict[_Watched, None] = {}
        self._leaderless: IDelayedCall | None = None

    @property
    def is_used(self) -> bool:
        """Whether any query is watched."""
        return bool(self._watched)

    def __len__(self) -> int:
        return self._count

    def query(self, query: bytes) -> Deferred[Answer] | Answer | str | None:
        """Answer a watch, now or later.

        :returns: ``None`` if ``query`` is no watch; a text if there is no room for it.
        :raises CallRefused: if it begins as one and is none, or if what it watches is no call.
        """
        if not query.startswith(_HEAD):
            return None
        try:
            watch = _decode(query)
        except msgspec.MsgspecError as error:
            raise CallRefused(f"no watch: {error}") from None
        slot = self._applied_through()
        if watch.wait_from is not None and slot < watch.wait_from:
            return watch.known, None, slot
        digest, data = self._evaluate(watch.call)
        if digest != watch.known:
            return digest, data, slot
        if watch.wait_from is None:
            return digest, None, slot
        if self._count >= WATCHES_MAX:
            return f"{self._count} watches wait at this node already; try again later"
        return self._wait(watch)

    def changed(self, service: str, topic: str | None) -> None:
        """Answers of queries with this topic may differ now. They are looked at when the node has applied what it is
        about to: who waits is told together with those whose commands were applied, and as soon."""
        self._look_later(self._by_topic.get((service, topic), {}).values())

    def look_at_all(self, service: str | None = None) -> None:
        """The state of a service, or of all, may differ anywhere."""
        self._look_later(one for one in self._watched.values() if service in (None, one.topic[0]))

    def look(self) -> None:
        """Look at the answers that may have changed, and tell those who wait for them."""
        self._bytes_left, self._tells_left = LOOK_BYTES_MAX, TELLS_MAX
        for _ in range(min(LOOKS_MAX, len(self._changed))):
            watched = next(iter(self._changed), None)
            if watched is None or self._is_full:  # One that was told may have ended others.
                break
            if self._look_at(watched):
                self._changed.pop(watched, None)
        if self._changed:
            self._later(0, self.look)

    def leader_changed(self, is_known: bool) -> None:
        """The node knows a leader from now on, or knows none."""
        if self._leaderless is not None:
            self._leaderless.cancel()
            self._leaderless = None
        if not is_known:
            self._leaderless = self._later(LEADERLESS_SECONDS, self._is_cut_off)

    def _is_cut_off(self) -> None:
        self._leaderless = None
        for watched in list(self._watched.values()):
            for waiter in list(watched.waiters):
                self._tell(watched, waiter, None)

    def _look_later(self, watched: Iterable[_Watched]) -> None:
        was_empty = not self._changed
        self._changed.update(dict.fromkeys(watched))
        if was_empty and self._changed and not self._at_end(self.look):
            self._later(0, self.look)

    @property
    def _is_full(self) -> bool:
        """Whether enough was done in this turn of the reactor."""
        return self._bytes_left <= 0 or self._tells_left <= 0

    def _look_at(self, watched: _Watched) -> bool:
        """Evaluate a call once for all who watch it, and tell them. Whether all of them are told."""
        try:
            digest, data = self._evaluate(watched.call)
        except Exception as error:  # The service's own: as for a caller who asks now.
            for waiter in list(watched.waiters):
                if self._forget(watched, waiter):
                    waiter.answer.errback(error)
            return True
        slot = self._applied_through()
        self._bytes_left -= len(data)
        for place, waiter in enumerate([one for one in watched.waiters if one.known != digest]):
            if place and self._is_full:
                return False
            self._tell(watched, waiter, (digest, data, slot))
            self._bytes_left -= len(data)
            self._tells_left -= 1
        return True

    def _tell(self, watched: _Watched, waiter: _Waiter, answer: Answer | None) -> None:
        """Answer one who waits, unless it was cancelled by one that was told before it.

        :param answer: ``None`` if it is still the same.
        """
        if self._forget(watched, waiter):
            waiter.answer.callback(answer or (waiter.known, None, self._applied_through()))

    def _evaluate(self, call: bytes) -> tuple[bytes, bytes]:
        if call.startswith(_HEAD):
            raise CallRefused("a watch of a watch: watch the call itself")
        data = _encode(without_sets(self._answer(call)))
        return digest_of(data), data

    def _wait(self, watch: _Watch) -> Deferred[Answer]:
        watched = self._watched.get(watch.call)
        if watched is None:
            watched = self._watched[watch.call] = _Watched(watch.call, self._topic_of(watch.call))
            self._by_topic.setdefault(watched.topic, {})[watch.call] = watched
        waiting = watched

        def time_is_over() -> None:
            waiter.timer = None
            self._tell(waiting, waiter, None)

        def cancelled(_: Deferred[Answer]) -> None:
            self._forget(waiting, waiter)

        waiter = _Waiter(watch.known, Deferred(cancelled))
        watched.waiters[waiter] = None
        self._count += 1
        waiter.timer = self._later(WAIT_SECONDS, time_is_over)
        return waiter.answer

    def _forget(self, watched: _Watched, waiter: _Waiter) -> bool:
        """One does not wait any more. Whether it has waited until now."""
        if waiter not in watched.waiters:
            return False
        del watched.waiters[waiter]
        self._count -= 1
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
        if not watched.waiters:
            del self._watched[watched.call]
            self._changed.pop(watched, None)
            same_topic = self._by_topic[watched.topic]
            del same_topic[watched.call]
            if not same_topic:
                del self._by_topic[watched.topic]
        return True


def answer_of(result: Any) -> Answer:
    """The answer to a watch, as MessagePack has carried it.

    :raises Overloaded: if the node had no room for it.
    :raises TypeError: if it is none.
    """
    match result:
        case [bytes(digest), bytes() | None as data, int(slot)]:
            return digest, data, slot
        case str(reason):
            raise Overloaded(reason)
    raise TypeError(f"no answer to a watch: {result!r:.100}")
