"""Each change of an answer, kept in the replicated state for those who must miss none.

A caller has a call of a query *kept* by a command. From then on, each node makes the call after each command and timer
that may change its answer, and keeps each answer that is another one than the one before, under a version. Versions
rise, over all kept calls, and none is given twice. So a caller that names the last version that it has seen gets those
after it, from any node, also from one that has started from a snapshot; or is told that some of them are gone.

A cluster that was restored from a backup, or recovered, does not know all changes of the one before it, and gives what
it would call the next versions to others. It has another name. So versions begin after a number that is made of the
cluster's name (:func:`versions_begin_after`), and one of another cluster is none of this one.

===============  =====================================================================================================
what             its MessagePack
===============  =====================================================================================================
a command        an array: ``"keep changes"``, and the call. Its result is the version after which to ask first; or a
                 text that says why there is no room. It must come again within :data:`KEPT_SECONDS`.
a question       an array: ``"changes"``, the call, and a version. It is watched
                 (:mod:`~txpaxos.service.watches`), and so waits until there is a change.
an answer        an array: one of the words below, a number, and an array of versions with answers
===============  =====================================================================================================

==============  ======================================================================================================
word            meaning
==============  ======================================================================================================
``"kept"``      there are these changes; the number is 1 if it is time to keep the call anew, and else 0
``"behind"``    changes after that version are gone; the number is the version of the last one that is
``"never"``     this cluster has given no such version; the number is the last one that it has
``"dropped"``   the call is not kept
==============  ======================================================================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from typing import Annotated, Any, TypeAlias

import attrs
import msgspec

from txpaxos.errors import CallRefused, ConfigError
from txpaxos.service.watches import Topic, digest_of

KEPT_SECONDS = 600.0
"""How long a call is kept that no caller keeps anew, by the elapsed time."""
CALLS_MAX = 1024
CALLS_OF_TOPIC_MAX = 64
TOPIC_BYTES_MAX = 2**21
"""How many calls of one topic are kept, and how many bytes their answers may have when another one is to be kept. All
of them are made anew in each slot that may change them."""
CALL_BYTES_MAX = 2**12
CHANGES_MAX = 1024
CHANGES_BYTES_MAX = 2**22
"""How many changes of one call are kept, and how many bytes they may have. Beyond that its oldest change goes."""
ANSWER_BYTES_MAX = 2**20
BYTES_MAX = 2**25
"""How many bytes all calls and their changes may have. Beyond that the oldest change of the call goes that has most: so
callers with little keep what they have."""
ENTRY_BYTES = 64
"""What a call or a change counts for, besides its own bytes."""
BATCH_BYTES = 2**20
"""A batch of changes is complete when it is as long as this."""
CHUNK_BYTES = 2**16
FIRST_VERSION_BITS = 52
"""Versions begin below two to the power of this, so they fit a float, as other languages keep numbers. A version of
another cluster may be taken for one of this cluster by chance: after a billion changes the odds are 1 to 4 million."""

Changes: TypeAlias = tuple[str, int, list[tuple[int, bytes]]]


class _Keep(msgspec.Struct, array_like=True, tag="keep changes", tag_field="0", forbid_unknown_fields=True):
    call: bytes


class _Question(msgspec.Struct, array_like=True, tag="changes", tag_field="0", forbid_unknown_fields=True):
    call: bytes
    after: Annotated[int, msgspec.Meta(ge=0)]


_encode = msgspec.msgpack.Encoder().encode
_decode_keep = msgspec.msgpack.Decoder(_Keep).decode
_decode_question = msgspec.msgpack.Decoder(_Question).decode
KEEP = b"\x92\xackeep changes"
"""How each command begins that keeps a call, and no call of a service does, whose tag has a dot."""
QUESTION = b"\x93\xa7changes"
CHUNK = b"\x93\xa0"
"""How each chunk of a snapshot begins that is of this: no service is called nothing."""
DIGEST_OF_NOTHING = digest_of(_encode(("kept", 0, [])))
"""The digest of the answer that there is no change."""

_Row: TypeAlias = tuple[bytes, str, str | None, bytes, int]
_Entry: TypeAlias = tuple[int, int, bytes]


@cache
def versions_begin_after(cluster: str) -> int:
    """The number after which the versions of a cluster begin, by its name; 0 without a cluster."""
    digest = digest_of(cluster.encode()) if cluster else b""
    return int.from_bytes(digest[:8]) >> (64 - FIRST_VERSION_BITS)


def encode_keep(call: bytes) -> bytes:
    """The command that has a call kept."""
    return _encode(_Keep(call))


def encode_question(call: bytes, after: int) -> bytes:
    """The question for the changes after a version."""
    return _encode(_Question(call, after))


@attrs.define(eq=False)
class _Kept:
    """A call that is kept.

    :ivar digest: of its last answer.
    :ivar floor: no change up to this version is there any more.
    :ivar changes: versions and answers, the oldest first.
    """

    call: bytes
    topic: Topic
    digest: bytes
    floor: int
    changes: deque[tuple[int, bytes]] = attrs.field(factory=deque)
    size_bytes: int = 0

    @property
    def name(self) -> str:
        """What its timer is called, after the name of no service; and the topic of its changes."""
        return digest_of(self.call).hex()


class KeptChanges:
    """The kept calls of a cluster, as a part of the replicated state.

    :param answer: makes a call: the MessagePack of its result, or of what stands for an error.
    :param topic_of: the topic of a call.
    :param set_timer: has :meth:`drop` called with a name after a number of seconds.
    :param due_in_seconds: how long that takes yet.
    :param told: called with the name of a call that has changed, or is kept no more.
    :param cluster: the name of the cluster, empty if there is none.
    """

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        topic_of: Callable[[bytes], Topic],
        set_timer: Callable[[str, float], None],
        due_in_seconds: Callable[[str], float | None],
        told: Callable[[str], None],
        cluster: Callable[[], str],
    ) -> None:
        self._answer = answer
        self._topic_of = topic_of
        self._set_timer = set_timer
        self._due_in_seconds = due_in_seconds
        self._told = told
        self._cluster = cluster
        self._version = 0
        self._bytes = 0
        self._kept: dict[str, _Kept] = {}
        self._by_topic: dict[Topic, dict[str, _Kept]] = {}

    @property
    def is_used(self) -> bool:
        """Whether any call is kept."""
        return bool(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def _begin(self) -> int:
        """The number after which versions begin, as callers have them. The state has them without it."""
        return versions_begin_after(self._cluster())

    # from commands and timers

    def keep(self, command: bytes) -> int | str:
        """Keep a call from now on, or keep it anew.

        :returns: the version after which to ask for its last answer; a text if there is no room.
        :raises CallRefused: if ``command`` does not say so, or the call is none that can be kept.
        """
        try:
            call = _decode_keep(command).call
        except msgspec.MsgspecError as error:
            raise CallRefused(f"no call to keep: {error}") from None
        topic, name = self._topic_of(call), digest_of(call).hex()
        kept = self._kept.get(name)
        if kept is None:
            data = self._answer(call)
            refusal = self._refusal(call, data, self._by_topic.get(topic, {}).values())
            if refusal is not None:
                return refusal
            self._set_timer(name, KEPT_SECONDS)
            self._version += 1
            self._add(name, _Kept(call, topic, b"", self._version))
            self._note(self._kept[name], data)
            return self._begin + self._version - 1
        if not kept.changes:
            return "the last answer of the call was too big to be kept: watch() it, or try again when it has changed"
        self._set_timer(name, KEPT_SECONDS)
        return self._begin + (kept.changes[-2][0] if len(kept.changes) > 1 else kept.floor)

    def look(self, topics: Iterable[Topic], service: str | None = None) -> None:
        """Answers of calls with these topics may differ now, or those of all calls of ``service``."""
        some = {kept: None for topic in topics for kept in self._by_topic.get(topic, {}).values()}
        if service is not None:
            some |= {kept: None for kept in self._kept.values() if kept.topic[0] == service}
        for kept in some:
            self._note(kept, self._answer(kept.call))

    def drop(self, name: str) -> None:
        """Keep a call no more."""
        kept = self._kept.pop(name, None)
        if kept is None:
            return
        while kept.changes:
            self._forget_oldest(kept)
        self._bytes -= len(kept.call) + ENTRY_BYTES
        same_topic = self._by_topic[kept.topic]
        del same_topic[name]
        if not same_topic:
            del self._by_topic[kept.topic]
        self._told(name)

    def _refusal(self, call: bytes, data: bytes, same_topic: Collection[_Kept]) -> str | None:
        if len(self._kept) >= CALLS_MAX:
            return f"the changes of {len(self._kept)} calls are kept already; try again later"
        topic_bytes = len(data) + sum(len(one.changes[-1][1]) for one in same_topic if one.changes)
        if len(same_topic) >= CALLS_OF_TOPIC_MAX or (same_topic and topic_bytes > TOPIC_BYTES_MAX):
            had = f"{len(same_topic)} calls that change with the same topic, and their answers have {topic_bytes} bytes"
            return f"the changes of {had}: watch() it, or give the query a topic of its own"
        if len(call) > CALL_BYTES_MAX or len(data) > ANSWER_BYTES_MAX:
            most = f"{CALL_BYTES_MAX} and {ANSWER_BYTES_MAX}"
            return f"the call and its answer have {len(call)} and {len(data)} bytes and may have {most}: watch() it"
        return None

    def _add(self, name: str, kept: _Kept) -> None:
        self._kept[name] = kept
        self._by_topic.setdefault(kept.topic, {})[name] = kept
        self._bytes += len(kept.call) + ENTRY_BYTES

    def _note(self, kept: _Kept, data: bytes) -> None:
        """The answer to a kept call is ``data``."""
        digest = digest_of(data)
        if digest == kept.digest:
            return
        kept.digest = digest
        self._version += 1
        self._append(kept, self._version, data)
        if len(data) > ANSWER_BYTES_MAX:
            while kept.changes:
                self._forget_oldest(kept)
        while len(kept.changes) > CHANGES_MAX or kept.size_bytes > CHANGES_BYTES_MAX:
            self._forget_oldest(kept)
        while self._bytes > BYTES_MAX:
            biggest = max(self._kept.values(), key=lambda one: one.size_bytes)
            if not biggest.changes:
                break
            self._forget_oldest(biggest)
        self._told(kept.name)

    def _append(self, kept: _Kept, version: int, data: bytes) -> None:
        kept.changes.append((version, data))
        self._bytes += len(data) + ENTRY_BYTES
        kept.size_bytes += len(data) + ENTRY_BYTES

    def _forget_oldest(self, kept: _Kept) -> None:
        kept.floor, data = kept.changes.popleft()
        self._bytes -= len(data) + ENTRY_BYTES
        kept.size_bytes -= len(data) + ENTRY_BYTES

    # from questions

    def changes(self, question: bytes) -> Changes:
        """The changes that a caller asks for.

        :raises CallRefused: if ``question`` is none.
        """
        asked = _question_of(question)
        name = digest_of(asked.call).hex()
        kept, begin = self._kept.get(name), self._begin
        after = asked.after - begin
        if not 0 <= after <= self._version:
            return "never", begin + self._version, []
        if kept is None:
            return "dropped", 0, []
        if after < kept.floor:
            return "behind", begin + kept.floor, []
        some: list[tuple[int, bytes]] = []
        size = 0
        for version, data in kept.changes:
            if version > after and size < BATCH_BYTES:
                some.append((begin + version, data))
                size += len(data) + ENTRY_BYTES
        due_in_seconds = self._due_in_seconds(name) or 0.0
        return "kept", int(due_in_seconds < KEPT_SECONDS * 2 / 3), some

    def topic_of_question(self, question: bytes) -> Topic:
        """With what the answer to a question changes."""
        return "", digest_of(_question_of(question).call).hex()

    # into a snapshot, and out of it

    def chunks(self) -> Iterator[bytes]:
        """All of it as it is now, in chunks; nothing if no call was ever kept."""
        number_of = {name: number for number, name in enumerate(self._kept)}
        rows = [(one.call, *one.topic, one.digest, one.floor) for one in self._kept.values()]
        entries = [
            (version, number_of[kept.name], data) for kept in self._kept.values() for version, data in kept.changes
        ]
        return _chunks(self._version, rows, sorted(entries))

    def load(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Take what is of this out of the chunks of a snapshot, and pass on the others. This must be new.

        :raises ConfigError: one line, if a chunk of this is none.
        """
        for chunk in chunks:
            if not chunk.startswith(CHUNK):
                yield chunk
                continue
            try:
                self._load(chunk)
            except (msgspec.MsgspecError, LookupError) as error:
                raise ConfigError(f"the snapshot has no kept changes where they should be: {error}") from None

    def _load(self, chunk: bytes) -> None:
        _, what, data = msgspec.msgpack.decode(chunk, type=tuple[str, str, msgspec.Raw])
        if what == "version":
            self._version = msgspec.msgpack.decode(data, type=int)
        elif what == "calls":
            for call, service, topic, digest, floor in msgspec.msgpack.decode(data, type=list[_Row]):
                kept = _Kept(call, (service, topic), digest, floor)
                self._add(kept.name, kept)
        else:
            every = list(self._kept.values())
            for version, number, answer in msgspec.msgpack.decode(data, type=list[_Entry]):
                self._append(every[number], version, answer)


def _question_of(question: bytes) -> _Question:
    try:
        return _decode_question(question)
    except msgspec.MsgspecError as error:
        raise CallRefused(f"no question for changes: {error}") from None


def _chunks(version: int, rows: list[Any], entries: list[Any]) -> Iterator[bytes]:
    if not version:
        return
    yield _encode(("", "version", version))
    for what, items in (("calls", rows), ("changes", entries)):
        some: list[Any] = []
        size = 0
        for item in items:
            some.append(item)
            size += ENTRY_BYTES + sum(len(part) for part in item if isinstance(part, bytes))
            if size >= CHUNK_BYTES:
                yield _encode(("", what, some))
                some, size = [], 0
        if some:
            yield _encode(("", what, some))
