"""Snapshots of what is applied: when to take one, what is in it, how it comes back, and whether the nodes agree.

A snapshot holds the application's state, the sessions, and a hash of the log that led there. Every node takes one at
the same slots, for these depend on the log alone; so two nodes whose snapshots at a slot differ have diverged.

In the file, each chunk begins with a byte that says what it is:

=====  ===============================================================
byte   the rest
=====  ===============================================================
1      MessagePack of :class:`Head`; always the first chunk
2      a part of the sessions
3      MessagePack: an array of some of the application's chunks
4      a piece of a long one, which goes on in what comes next
=====  ===============================================================
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator

import attrs
import msgspec
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application, has_snapshots
from txpaxos.applier import Applier
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import CodecError, PaxosError, StoreError
from txpaxos.log_lines import REASON_CHARACTERS_MAX, for_log, printable, text_of
from txpaxos.sessions import Sessions
from txpaxos.storage.snapshots import Snapshot, SnapshotWriter
from txpaxos.storage.store import Store

HASH_BYTES = 16
SLOT_BYTES = 128
"""What a slot counts for beside its value: the journal has a frame for it."""
PIECE_BYTES = 2**16
"""The application is asked for so many bytes at a time; then the reactor has its turn. It depends on nothing else how
chunks are put together: the files of all nodes at a slot are equal, so one that is fetched may come from several."""
HEAD, SESSIONS, STATE, PIECE = b"\1", b"\2", b"\3", b"\4"

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Policy:
    """When to take a snapshot.

    :ivar log_bytes: after so many bytes of the log since the last one: values, and :data:`SLOT_BYTES` for each slot.
    """

    log_bytes: int = 32 * 2**20


@attrs.frozen
class Head:
    """What a snapshot is of.

    :ivar cluster: the cluster's name.
    :ivar members: the nodes that vote.
    :ivar slot: everything up to this slot is in it.
    :ivar log_hash: the end of the chain of hashes over the checksums of the values up to there.
    """

    cluster: str
    members: tuple[str, ...]
    slot: Slot
    log_hash: bytes


@attrs.frozen
class Taken:
    """A snapshot that is complete. ``state_hash`` is of all that is in it but the head."""

    slot: Slot
    log_hash: bytes
    state_hash: bytes


class Snapshots:
    """Takes snapshots of an application, and restores it from them.

    :param application: whose ``snapshot`` and ``restore`` are called. Without these, nothing is ever taken.
    :param begun: called when one at a slot is begun: whatever must be remembered beyond it is to be saved now.
    :param taken: called when one is complete and on disk.
    :ivar replaying: while this is set, none is begun.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        application: Application,
        applier: Applier,
        cluster: str,
        members: tuple[str, ...],
        policy: Policy,
        begun: Callable[[Slot], None],
        taken: Callable[[Taken], None],
    ) -> None:
        self.enabled = has_snapshots(application)
        self.replaying = False
        self._clock = clock
        self._store = store
        self._application = application
        self._applier = applier
        self._cluster = cluster
        self._members = members
        self._policy = policy
        self._begun = begun
        self._taken = taken
        self._log_hash = bytes(HASH_BYTES)
        self._log_bytes = 0
        self._taking: _Taking | None = None
        self._stopped = False

    @property
    def taking(self) -> Slot | None:
        """The slot of the snapshot that is being taken, if one is."""
        return None if self._taking is None else self._taking.head.slot

    def applied(self, chosen: Chosen) -> None:
        """A slot was applied. Begins a snapshot if it is time for one."""
        # Checksums, since this finds faults, not forgers: to hash all that is chosen would take longer than to save it.
        checked = b"%d %d" % (len(chosen.value), zlib.crc32(chosen.value))
        self._log_hash = hashlib.blake2b(checked, digest_size=HASH_BYTES, key=self._log_hash).digest()
        self._log_bytes += SLOT_BYTES + len(chosen.value)
        if self._log_bytes >= self._policy.log_bytes:
            self._log_bytes = 0
            if self.enabled and self._taking is None and not self.replaying and not self._stopped:
                self._begin(chosen.slot)

    def restore(self, snapshot: Snapshot) -> None:
        """Make application and applier what they were at ``snapshot``.

        :raises StoreError: if it is damaged, or not of this cluster.
        """
        chunks = snapshot.chunks()
        head = _head(next(chunks, b""), snapshot)
        if head.cluster != self._cluster:
            other = printable(head.cluster)
            raise StoreError(f"the snapshot at slot {snapshot.slot} is of cluster {other}, not {self._cluster}")
        sessions = Sessions()
        try:
            state = _state(chunks, sessions)
            self._application.restore(state)
            for _ in state:  # What the application did not want to see is checked all the same.
                pass
        except StoreError:
            raise
        except Exception as error:
            self.log.failure("restore raised at slot {slot}", for_log(), slot=snapshot.slot)
            reason = printable(f"{type(error).__name__}: {text_of(error)}", REASON_CHARACTERS_MAX)
            raise StoreError(f"the snapshot at slot {snapshot.slot} cannot be used: {reason}") from error
        self._applier.install(snapshot.slot, sessions)
        self._log_hash = head.log_hash
        self._log_bytes = 0

    def state_hash(self) -> bytes:
        """The hash of the present state, as that of a snapshot."""
        hasher = hashlib.blake2b(digest_size=HASH_BYTES)
        for _ in self._capture(0, hasher):
            pass
        return hasher.digest()

    def stop(self) -> None:
        """Take none any more. One that is being taken is given up."""
        self._stopped = True
        if self._taking is not None:
            self._taking.writer.abandon().addErrback(lambda _: None)
            self._taking = None

    # taking one

    def _begin(self, slot: Slot) -> None:
        head = Head(self._cluster, self._members, slot, self._log_hash)
        hasher = hashlib.blake2b(digest_size=HASH_BYTES)
        try:
            pieces = self._capture(slot, hasher)
            writer = self._store.write_snapshot(slot)
        except Exception:
            self._failed(Failure(), slot)
            return
        taking = self._taking = _Taking(head, writer, pieces, hasher)
        self._begun(slot)
        self._go_on(None, taking)

    def _capture(self, slot: Slot, hasher: hashlib.blake2b) -> Iterator[bytes]:
        """The file's chunks. They tell the state as it is now, whenever they are asked for."""
        head = Head(self._cluster, self._members, slot, self._log_hash)
        state = _captured(self._application.snapshot())
        return _pieces(head, self._applier.sessions.dump(), state, hasher)

    def _go_on(self, _: object, taking: _Taking) -> None:
        """Write the next piece, and go on when it is written. The reactor has its turn in between."""
        if self._taking is not taking:
            return
        try:
            piece = next(taking.pieces, None)
            if piece is None:
                done = taking.writer.finish().addCallback(self._finished, taking)
                done.addErrback(self._failed, taking.head.slot)
                return
            written = taking.writer.write(piece)
        except Exception:
            taking.writer.abandon().addErrback(lambda _: None)
            self._failed(Failure(), taking.head.slot)
            return
        written.addCallback(lambda _: self._go_on_later(taking))
        written.addErrback(self._failed, taking.head.slot)

    def _go_on_later(self, taking: _Taking) -> None:
        taking.next = self._clock.callLater(0, self._go_on, None, taking)

    def _finished(self, _: Snapshot, taking: _Taking) -> None:
        if self._taking is taking:
            self._taking = None
            self._taken(Taken(taking.head.slot, taking.head.log_hash, taking.hasher.digest()))

    def _failed(self, failure: Failure, slot: Slot) -> None:
        """The log is kept for now, and the next snapshot is another try."""
        self._taking = None
        if self._stopped:
            return
        line = "no snapshot at slot {slot}: {reason}; the log is kept until the next one"
        reason = printable(failure.getErrorMessage(), REASON_CHARACTERS_MAX)
        if failure.check(PaxosError):
            self.log.error(line, slot=slot, reason=reason)
        else:
            self.log.failure(line, for_log(failure), slot=slot, reason=reason)


@attrs.define(eq=False)
class _Taking:
    """A snapshot that is being taken."""

    head: Head
    writer: SnapshotWriter
    pieces: Iterator[bytes]
    hasher: hashlib.blake2b
    next: IDelayedCall | None = None


def _captured(state: bytes | Iterable[bytes]) -> Iterable[bytes]:
    """The application's chunks. A hook that is a generator has copied nothing before it is asked for the first one."""
    if isinstance(state, bytes):
        return [state]
    chunks = iter(state)
    return itertools.chain(list(itertools.islice(chunks, 1)), chunks)


def _pieces(
    head: Head,
    sessions: Iterable[bytes],
    state: Iterable[bytes],
    hasher: hashlib.blake2b,
) -> Iterator[bytes]:
    """The file's chunks, of which all but the head go into ``hasher``."""
    yield HEAD + _encode(head)
    for chunk in sessions:
        hasher.update(chunk)
        yield SESSIONS + chunk
    group: list[bytes] = []
    size = 0
    for chunk in state:
        hasher.update(chunk)
        rest = memoryview(chunk)
        if len(rest) > PIECE_BYTES and group:
            yield STATE + _encode(group)
            group, size = [], 0
        while len(rest) > PIECE_BYTES:
            yield PIECE + rest[:PIECE_BYTES]
            rest = rest[PIECE_BYTES:]
        group.append(bytes(rest))
        size += len(rest)
        if size >= PIECE_BYTES:
            yield STATE + _encode(group)
            group, size = [], 0
    if group:
        yield STATE + _encode(group)


def _head(chunk: bytes, snapshot: Snapshot) -> Head:
    try:
        if not chunk.startswith(HEAD):
            raise ValueError("it has no head")
        head = msgspec.msgpack.decode(memoryview(chunk)[1:], type=Head)
        if head.slot != snapshot.slot:
            raise ValueError(f"it says it is of slot {head.slot}")
    except ValueError as error:
        raise StoreError(f"the snapshot at slot {snapshot.slot} cannot be used: {error}") from None
    return head


def _state(chunks: Iterator[bytes], sessions: Sessions) -> Iterator[bytes]:
    """The application's chunks; those of the sessions, which come before, go into ``sessions``."""
    pieces: list[bytes] = []
    for chunk in chunks:
        if chunk.startswith(SESSIONS):
            sessions.add(chunk[1:])
        elif chunk.startswith(PIECE):
            pieces.append(chunk[1:])
        elif chunk.startswith(STATE):
            last, *others = msgspec.msgpack.decode(memoryview(chunk)[1:], type=list[bytes])
            yield b"".join([*pieces, last])
            pieces.clear()
            yield from others
        else:
            raise CodecError(f"a chunk of an unknown kind, {chunk[:1]!r}: run one release everywhere")
