"""Queries that are watched at one node: each waits until its answer is another one than its caller has.

A watched call travels in a query as a MessagePack array: ``"watch"``, the digest of the answer that the caller has
(empty for none), and the call. It is answered with an array of the digest of the answer and the MessagePack of the
answer itself, or ``None`` in place of the answer if it is still the same after :data:`WAIT_SECONDS`. The caller asks
again then, any node. So nothing is left of a caller that is gone, and none of this is in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from txpaxos.errors import CallRefused
from txpaxos.fields import without_sets

WAIT_SECONDS = 30.0
DIGEST_BYTES = 16

Topic: TypeAlias = tuple[str, str | None]
"""The name of a service, and a topic of its own; ``None`` for all that it does."""
Answer: TypeAlias = tuple[bytes, bytes | None]
"""The digest of an answer, and its MessagePack; ``None`` if it is still the same."""


class _Watch(msgspec.Struct, array_like=True, tag="watch", tag_field="0", forbid_unknown_fields=True):
    known: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES)]
    call: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Watch).decode
_HEAD = b"\x93\xa5watch"
"""How each watch begins, and no call of a service does, whose tag has a dot."""


def encode_watch(known: bytes, call: bytes) -> bytes:
    """The query that waits until the answer of ``call`` has another digest than ``known``."""
    return _encode(_Watch(known, call))


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
    digest: bytes
    waiters: dict[_Waiter, None]


class Watches:
    """The watched queries of one node.

    :param answer: makes a call, and returns its result.
    :param topic_of: the topic of a call.
    :param later: has a function called after a number of seconds.
    """

    def __init__(
        self,
        answer: Callable[[bytes], object],
        topic_of: Callable[[bytes], Topic],
        later: Callable[[float, Callable[[], None]], IDelayedCall],
    ) -> None:
        self._answer = answer
        self._topic_of = topic_of
        self._later = later
        self._watched: dict[bytes, _Watched] = {}
        self._by_topic: dict[Topic, dict[bytes, _Watched]] = {}
        self._changed: dict[Topic, None] = {}

    @property
    def is_used(self) -> bool:
        """Whether any query is watched."""
        return bool(self._watched)

    def __len__(self) -> int:
        return sum(len(one.waiters) for one in self._watched.values())

    def query(self, query: bytes) -> Deferred[Answer] | Answer | None:
        """Answer a watch, now or later.

        :returns: ``None`` if ``query`` is no watch.
        :raises CallRefused: if it begins as one and is none, or if what it watches is no call.
        """
        if not query.startswith(_HEAD):
            return None
        try:
            watch = _decode(query)
        except msgspec.MsgspecError as error:
            raise CallRefused(f"no watch: {error}") from None
        digest, data = self._evaluate(watch.call)
        if digest != watch.known:
            return digest, data
        return self._wait(watch, digest)

    def changed(self, service: str, topic: str | None) -> None:
        """Answers of queries with this topic may differ now. They are looked at in the reactor's next turn, when the
        slot is applied that is under way."""
        key = service, topic
        if key in self._by_topic and key not in self._changed:
            if not self._changed:
                self._later(0, self.look)
            self._changed[key] = None

    def look_at_all(self) -> None:
        """The state was replaced as a whole."""
        for service, topic in self._by_topic:
            self.changed(service, topic)

    def look(self) -> None:
        """Look at the answers that may have changed, and tell those who wait for them."""
        changed, self._changed = self._changed, {}
        for topic in changed:
            for watched in list(self._by_topic.get(topic, {}).values()):
                self._look_at(watched)

    def _look_at(self, watched: _Watched) -> None:
        """Evaluate a call once for all who watch it."""
        try:
            watched.digest, data = self._evaluate(watched.call)
        except Exception as error:  # The service's own: as for a caller who asks now.
            for waiter in list(watched.waiters):
                self._forget(watched, waiter)
                waiter.answer.errback(error)
            return
        for waiter in [one for one in watched.waiters if one.known != watched.digest]:
            self._forget(watched, waiter)
            waiter.answer.callback((watched.digest, data))

    def _evaluate(self, call: bytes) -> tuple[bytes, bytes]:
        if call.startswith(_HEAD):
            raise CallRefused("a watch of a watch: watch the call itself")
        data = _encode(without_sets(self._answer(call)))
        return blake2b(data, digest_size=DIGEST_BYTES).digest(), data

    def _wait(self, watch: _Watch, digest: bytes) -> Deferred[Answer]:
        watched = self._watched.get(watch.call)
        if watched is None:
            topic = self._topic_of(watch.call)
            watched = self._watched[watch.call] = _Watched(watch.call, topic, digest, {})
            self._by_topic.setdefault(topic, {})[watch.call] = watched
        waiting = watched

        def cancelled(_: Deferred[Answer]) -> None:
            self._forget(waiting, waiter)

        def time_is_over() -> None:
            waiter.timer = None
            self._forget(waiting, waiter)
            waiter.answer.callback((watch.known, None))

        waiter = _Waiter(watch.known, Deferred(cancelled))
        watched.waiters[waiter] = None
        waiter.timer = self._later(WAIT_SECONDS, time_is_over)
        return waiter.answer

    def _forget(self, watched: _Watched, waiter: _Waiter) -> None:
        """One does not wait any more."""
        if waiter not in watched.waiters:
            return
        del watched.waiters[waiter]
        if waiter.timer is not None:
            waiter.timer.cancel()
            waiter.timer = None
        if not watched.waiters:
            del self._watched[watched.call]
            same_topic = self._by_topic[watched.topic]
            del same_topic[watched.call]
            if not same_topic:
                del self._by_topic[watched.topic]


def answer_of(result: Any) -> Answer:
    """The answer to a watch, as MessagePack has carried it.

    :raises TypeError: if it is none.
    """
    match result:
        case [bytes(digest), bytes() | None as data]:
            return digest, data
    raise TypeError(f"no answer to a watch: {result!r:.100}")
