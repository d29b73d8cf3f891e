"""Snapshots of the applied state: when they are taken, what is in them, and how they are restored.

A snapshot holds the application's state, the sessions, the registers, and a hash of the log that led there. The log is
divided into intervals. They end at the same slots on every node, since they depend on the log alone. Snapshots are
taken only where an interval ends. A big state is saved less often, at every second, fourth or eighth end. So a node
that takes fewer snapshots than another still takes them at slots where the other one does. If the two differ there, the
nodes have diverged.

In the file, the first byte of each chunk is its kind:

=====  ==================================================================
byte   the rest of the chunk
=====  ==================================================================
1      MessagePack of :class:`SnapshotHead`; always the first chunk
2      a part of the sessions
3      MessagePack: an array of some of the application's chunks
4      a piece of a long chunk, which continues in the next chunk
5      a part of the registers; none if there never was a register
=====  ==================================================================
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs
import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txpaxos.application import Application, has_snapshots
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import ApplicationLost, CodecError, PaxosError, StoreError
from txpaxos.log_lines import REASON_CHARACTERS_MAX, for_log, printable, text_of
from txpaxos.node.applier import Applier
from txpaxos.node.members import ChosenMembers, Members
from txpaxos.node.registers import Registers
from txpaxos.node.sessions import Sessions
from txpaxos.node.timers import Timers
from txpaxos.storage.snapshots import Snapshot, SnapshotWriter
from txpaxos.storage.store import Store
from txpaxos.wire.peer_messages import StateDigest

HASH_BYTES = 16
SLOT_BYTES = 128
"""What each slot counts beside its value: the frame of its record in the journal."""
PIECE_BYTES = 2**16
"""The bytes of state to write before the reactor gets its turn. Nothing else decides how chunks are grouped. So the
files of all nodes at a slot are equal, and a node can fetch the parts of one snapshot from several nodes."""
STATE_SHARE = 2
"""A snapshot is taken at every second end of an interval when it is this many times as big as two intervals, at every
fourth end when it is as many times as big as four, and so on. So the log between two snapshots of a big state has
between a quarter and half the size of the state."""
FETCHED_SHARE = 2
"""While a node fetches a snapshot from here, none is taken before the log since the newest one is this many times as
big as the snapshot."""
HASHES_KEPT = 4096
"""The number of newest slots whose log hashes are kept, since other nodes may ask for them."""
EMPTY_CHUNKS_MAX = 2**16
"""Upper bound on empty chunks in a row. A hook that yields more probably never ends, and would block the node."""
HEAD, SESSIONS, STATE, PIECE, REGISTERS, TIMERS = b"\1", b"\2", b"\3", b"\4", b"\5", b"\6"

_encode = msgspec.msgpack.Encoder().encode


@attrs.frozen
class Policy:
    """When to take a snapshot.

    :ivar log_bytes: the size of an interval of the log: the bytes of its values, and ``SLOT_BYTES`` for each slot.
    """

    log_bytes: int = 32 * 2**20


@attrs.frozen
class SnapshotHead:
    """The first chunk of a snapshot: what the snapshot is of.

    :ivar cluster: the name of the cluster.
    :ivar members: the nodes that voted when it was taken.
    :ivar slot: the last slot that is in it, with all before.
    :ivar log_hash: the last hash of the chain over the checksums of all values up to ``slot``.
    :ivar intervals: how many intervals of the log end at ``slot`` or before.
    :ivar chosen_members: the entries of members that govern slots after ``slot``, each with its own slot, oldest first.
        Empty while the members are the founders.
    """

    cluster: str
    members: tuple[str, ...]
    slot: Slot
    log_hash: bytes
    intervals: int = 0
    chosen_members: tuple[ChosenMembers, ...] = ()

    @classmethod
    def unpack(cls, chunk: bytes) -> SnapshotHead:
        """The head in ``chunk``, which is the first of a snapshot.

        :raises ValueError: if it is no head."""
        if not chunk.startswith(HEAD):
            raise ValueError("it has no head")
        return msgspec.msgpack.decode(memoryview(chunk)[1:], type=cls)


class SnapshotTaker:
    """Takes snapshots of an application, and restores the application from them.

    :param application: its ``snapshot`` and ``restore`` are called. No snapshot is taken of one without these.
    :param begun: called with the slot when a snapshot is begun. The records to keep beyond it must be saved then.
    :param taken: called with the digest of a snapshot when it is complete and on disk.
    :param reached: called with a slot and the hash of the log there, where an interval ends or the slot is watched.
    :param is_fetched: whether a node fetches a snapshot from here. Then new ones are taken less often.
    :param interrupted: called with an error when ``snapshot`` raised KeyboardInterrupt. The node must stop then.
    :ivar enabled: whether the application has snapshots.
    :ivar replaying: no snapshot is begun while this is set.
    :ivar watched: coming slots for which ``reached`` is to be called.
    :ivar applied_bytes: bytes of the log that this node has applied since it started.
    """

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        store: Store,
        application: Application,
        applier: Applier,
        cluster: str,
        members: Members,
        policy: Policy,
        begun: Callable[[Slot], None],
        taken: Callable[[StateDigest], None],
        reached: Callable[[Slot, bytes], None] = lambda slot, log_hash: None,
        is_fetched: Callable[[], bool] = lambda: False,
        interrupted: Callable[[PaxosError], None] = lambda error: None,
    ) -> None:
        self.enabled = has_snapshots(application)
        self.replaying = False
        self._clock = clock
        self.watched: set[Slot] = set()
        self.applied_bytes = 0
        self._store = store
        self._application = application
        self._applier = applier
        self._cluster = cluster
        self._members = members
        self._policy = policy
        self._begun = begun
        self._taken = taken
        self._reached = reached
        self._is_fetched = is_fetched
        self._interrupted = interrupted
        self._log_hash = bytes(HASH_BYTES)
        self._hashes: deque[bytes] = deque(maxlen=HASHES_KEPT)
        self._hashes_through: Slot = 0
        # Bytes since the last interval ended; intervals so far; applied bytes at the newest snapshot.
        self._log_bytes = 0
        self._intervals = 0
        self._newest_at_bytes = 0
        self._taking: _SnapshotInProgress | None = None
        self._stopped = False

    @property
    def taking(self) -> Slot | None:
        """The slot of the snapshot that is being taken; ``None`` if none is."""
        return None if self._taking is None else self._taking.head.slot

    def applied(self, chosen: Chosen) -> None:
        """Note that a slot was applied, and begin a snapshot if one is due."""
        # Checksums are enough, since this finds faults and not forgeries. Hashing every value would cost more than
        # saving it.
        checked = b"%d %d" % (len(chosen.value), zlib.crc32(chosen.value))
        self._log_hash = hashlib.blake2b(checked, digest_size=HASH_BYTES, key=self._log_hash).digest()
        self._hashes.append(self._log_hash)
        self._hashes_through = chosen.slot
        size_bytes = SLOT_BYTES + len(chosen.value)
        self._log_bytes += size_bytes
        self.applied_bytes += size_bytes
        if self._log_bytes >= self._policy.log_bytes:
            self._log_bytes = 0
            self._intervals += 1
            self._reached(chosen.slot, self._log_hash)
            ready = self.enabled and self._taking is None and not self.replaying and not self._stopped
            if ready and self._is_due():
                self._begin(chosen.slot)
        elif chosen.slot in self.watched:
            self._reached(chosen.slot, self._log_hash)

    def _is_due(self) -> bool:
        """Whether a snapshot is due at the end of this interval."""
        newest = self._store.snapshot
        size_bytes = 0 if newest is None else newest.size_bytes
        log_bytes = self._policy.log_bytes
        intervals = 1
        while 0 < 2 * intervals * log_bytes * STATE_SHARE <= size_bytes:
            intervals *= 2
        if self._intervals % intervals:
            return False
        since_bytes = self.applied_bytes - self._newest_at_bytes
        return since_bytes > FETCHED_SHARE * max(size_bytes, log_bytes) or not self._is_fetched()

    def log_hash(self, slot: Slot) -> bytes:
        """The hash of the log at ``slot``; empty bytes if it is no longer known, or not yet."""
        index = slot - self._hashes_through - 1
        return self._hashes[index] if -len(self._hashes) <= index < 0 else b""

    def restore(self, snapshot: Snapshot) -> StateDigest:
        """Restore the application, and the sessions and registers of the applier, from ``snapshot``.

        :returns: the digest of its contents.
        :raises StoreError: if it is damaged, is of another cluster, or the application's ``restore`` raises.
        """
        chunks = snapshot.chunks()
        head = _head(next(chunks, b""), self._cluster, snapshot.slot)
        sessions, registers, timers = self._applier.new_sessions(), Registers(), self._applier.new_timers()
        hasher = hashlib.blake2b(digest_size=HASH_BYTES)
        try:
            state = _state(chunks, {SESSIONS: sessions, REGISTERS: registers, TIMERS: timers}, hasher)
            returned = self._application.restore(state)  # type: ignore[func-returns-value]
            if returned is not None:  # The body of a coroutine, for one, has not run yet.
                raise TypeError(f"restore returned a {type(returned).__name__}: it must do its work and return None")
            for _ in state:  # Chunks that the application has not read are checked, too.
                pass
        except StoreError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.log.failure("restore raised at slot {slot}", for_log(), slot=snapshot.slot, event="restore_raised")
            reason = printable(f"{type(error).__name__}: {text_of(error)}", REASON_CHARACTERS_MAX)
            raise StoreError(f"the snapshot at slot {snapshot.slot} cannot be used: {reason}") from error
        self._applier.install(snapshot.slot, sessions, registers, timers)
        self._log_hash = head.log_hash
        self._hashes.clear()
        self._hashes.append(head.log_hash)
        self._hashes_through = snapshot.slot
        self._log_bytes = 0
        self._intervals = head.intervals
        self._newest_at_bytes = self.applied_bytes
        return StateDigest(snapshot.slot, head.log_hash, hasher.digest())

    def state_hash(self) -> bytes:
        """The state hash that a snapshot taken now would have."""
        hasher = hashlib.blake2b(digest_size=HASH_BYTES)
        for _ in self._capture(0, hasher):
            pass
        return hasher.digest()

    def stop(self) -> None:
        """Take no more snapshots. One that is being taken is abandoned."""
        self._stopped = True
        if self._taking is not None:
            self._taking.writer.abandon().addErrback(lambda _: None)
            self._taking = None

    # taking a snapshot

    def _begin(self, slot: Slot) -> None:
        head = self._head_at(slot)
        hasher = hashlib.blake2b(digest_size=HASH_BYTES)
        try:
            pieces = self._capture(slot, hasher)
            writer = self._store.write_snapshot(slot)
        except BaseException:  # Also SystemExit, as in `apply`.
            self._failed(Failure(), slot)
            return
        taking = self._taking = _SnapshotInProgress(head, writer, pieces, hasher, self.applied_bytes)
        self._begun(slot)
        self._write_next(taking)

    def _capture(self, slot: Slot, hasher: hashlib.blake2b) -> Iterator[bytes]:
        """The chunks of the file. They describe the current state, even if they are read later."""
        state = _checked_state(self._application.snapshot())
        applier = self._applier
        tables = {SESSIONS: applier.sessions.dump(), REGISTERS: applier.registers.dump(), TIMERS: applier.timers.dump()}
        return _pieces(self._head_at(slot), tables, state, hasher)

    def _head_at(self, slot: Slot) -> SnapshotHead:
        members, chosen = self._members.entry.members, tuple(self._members.chosen)
        voters = tuple(node for node, one in members.items() if one.role == "voter")
        return SnapshotHead(self._cluster, voters, slot, self._log_hash, self._intervals, chosen)

    def _write_next(self, taking: _SnapshotInProgress) -> None:
        """Write the next piece. The one after it follows when the write is done and the reactor has had its turn."""
        if self._taking is not taking:
            return
        try:
            piece = next(taking.pieces, None)
            if piece is None:
                done = taking.writer.finish().addCallback(self._finished, taking)
                done.addErrback(self._failed, taking.head.slot)
                return
            written = taking.writer.write(piece)
        except BaseException:
            taking.writer.abandon().addErrback(lambda _: None)
            self._failed(Failure(), taking.head.slot)
            return
        written.addCallback(lambda _: self._write_next_later(taking))
        written.addErrback(self._failed, taking.head.slot)

    def _write_next_later(self, taking: _SnapshotInProgress) -> None:
        self._clock.callLater(0, self._write_next, taking)

    def _finished(self, _: Snapshot, taking: _SnapshotInProgress) -> None:
        if self._taking is taking:
            self._taking = None
            self._newest_at_bytes = taking.applied_bytes
            self._taken(StateDigest(taking.head.slot, taking.head.log_hash, taking.hasher.digest()))

    def _failed(self, failure: Failure, slot: Slot) -> None:
        """Log that there is no snapshot at ``slot``. The log is kept, and the next snapshot is another try.

        This includes MemoryError. In ``apply`` it stops the node, since the state may be half changed. But ``snapshot``
        does not change the state, and all nodes would stop at the same slot. KeyboardInterrupt stops the node, as in
        ``apply``.
        """
        self._taking = None
        if self._stopped:
            return
        if failure.check(KeyboardInterrupt):
            line = f"KeyboardInterrupt while a snapshot at slot {slot} was taken: start the node again, if it is to run"
            self._interrupted(ApplicationLost(line))
            return
        line = "no snapshot at slot {slot}: {reason}; the log is kept until the next one"
        reason = printable(failure.getErrorMessage(), REASON_CHARACTERS_MAX)
        if failure.check(PaxosError):
            self.log.error(line, slot=slot, reason=reason, event="snapshot_not_taken")
        else:
            reason = f"{printable(type(failure.value).__name__)}: {reason}"
            self.log.failure(line, for_log(failure), slot=slot, reason=reason, event="snapshot_not_taken")


@attrs.define(eq=False)
class _SnapshotInProgress:
    """A snapshot that is being taken.

    :ivar pieces: the chunks that are still to be written.
    :ivar hasher: has the hash of the chunks before them.
    :ivar applied_bytes: the bytes of the log that this node had applied when the snapshot was begun.
    """

    head: SnapshotHead
    writer: SnapshotWriter
    pieces: Iterator[bytes]
    hasher: hashlib.blake2b
    applied_bytes: int


def _checked_state(state: bytes | Iterable[bytes]) -> Iterable[bytes]:
    """The application's chunks, of which the first is read at once: a generator copies nothing before that.

    :raises TypeError: if the application returned neither bytes nor an iterable.
    """
    if isinstance(state, bytes):
        return [state]
    if isinstance(state, str) or not isinstance(state, Iterable):
        raise TypeError(f"snapshot must return bytes, or chunks of bytes, and not {type(state).__name__}")
    chunks = _checked(state)
    return itertools.chain(list(itertools.islice(chunks, 1)), chunks)


def _checked(state: Iterable[bytes]) -> Iterator[bytes]:
    empty = 0
    for chunk in state:
        if not isinstance(chunk, bytes):
            raise TypeError(f"snapshot must return chunks of bytes, and one is {type(chunk).__name__}")
        empty = 0 if chunk else empty + 1
        if empty > EMPTY_CHUNKS_MAX:
            raise ValueError(f"snapshot has yielded {EMPTY_CHUNKS_MAX} empty chunks in a row: does it ever end?")
        yield chunk


def _pieces(
    head: SnapshotHead, tables: Mapping[bytes, Iterable[bytes]], state: Iterable[bytes], hasher: hashlib.blake2b
) -> Iterator[bytes]:
    """The chunks of the file. All but the head are added to ``hasher``.

    :param tables: what the node has beside the state of the application, by the byte that marks its chunks.
    """
    yield HEAD + _encode(_fields(head))
    for mark, chunks in tables.items():
        for chunk in chunks:
            hasher.update(chunk)
            yield mark + chunk
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


def _fields(head: SnapshotHead) -> dict[str, object]:
    """The fields of the head in its file. Without a change of members they are what they were before there was any."""
    fields = attrs.asdict(head, recurse=False)
    if not head.chosen_members:
        del fields["chosen_members"]
    return fields


def head_of(snapshot: Snapshot, cluster: str) -> SnapshotHead:
    """The head of ``snapshot``.

    :raises StoreError: if it has none, or is of another cluster.
    """
    return _head(next(snapshot.chunks(), b""), cluster, snapshot.slot)


def _head(chunk: bytes, cluster: str, slot: Slot) -> SnapshotHead:
    """The head of the snapshot at ``slot``. Its members are not checked: one may have been replaced since.

    :raises StoreError: if ``chunk`` is no head, or the head of another snapshot.
    """
    try:
        head = SnapshotHead.unpack(chunk)
        if head.slot != slot:
            raise ValueError(f"it says it is of slot {head.slot}")
    except ValueError as error:
        raise StoreError(f"the snapshot at slot {slot} cannot be used: {error}") from None
    if head.cluster != cluster:
        other = printable(head.cluster)
        raise StoreError(f"the snapshot at slot {slot} is of cluster {other}, not {cluster}")
    return head


def _state(
    chunks: Iterator[bytes], tables: Mapping[bytes, Sessions | Registers | Timers], hasher: hashlib.blake2b
) -> Iterator[bytes]:
    """The application's chunks. What is before them is added to ``tables``, and everything to ``hasher``.

    :param tables: by the byte that marks their chunks.
    """
    pieces: list[bytes] = []
    for chunk in chunks:
        parts = _parts(chunk, hasher)
        if (table := tables.get(chunk[:1])) is not None:
            table.add(parts[0])
        elif chunk.startswith(PIECE):
            pieces += parts
        else:
            last, *others = parts
            yield b"".join([*pieces, last])
            pieces.clear()
            yield from others


def _parts(chunk: bytes, hasher: hashlib.blake2b) -> list[bytes]:
    """The parts of a chunk that is no head: one part, or some of the application's chunks.

    Each part is added to ``hasher``, as when the snapshot was taken.

    :raises CodecError: if the chunk is of an unknown kind, or empty.
    """
    if chunk.startswith((SESSIONS, PIECE, REGISTERS, TIMERS)):
        parts = [chunk[1:]]
    elif chunk.startswith(STATE):
        parts = msgspec.msgpack.decode(memoryview(chunk)[1:], type=list[bytes])
    else:
        raise CodecError(f"a chunk of an unknown kind, {chunk[:1]!r}: run one release everywhere")
    if not parts:
        raise CodecError("a chunk with nothing in it")
    for part in parts:
        hasher.update(part)
    return parts


class SnapshotInspection:
    """Checks a snapshot of another node, and finds its digest, before the snapshot is used.

    Call :meth:`add_chunk` with each chunk, in order.
    """

    def __init__(self, cluster: str, slot: Slot) -> None:
        self._cluster = cluster
        self._slot = slot
        self._head: SnapshotHead | None = None
        self._hasher = hashlib.blake2b(digest_size=HASH_BYTES)

    def add_chunk(self, chunk: bytes) -> None:
        """Check the next chunk.

        :raises StoreError: if the snapshot is of another cluster or slot, or its format is unknown.
        """
        if self._head is None:
            self._head = _head(chunk, self._cluster, self._slot)
            return
        try:
            _parts(chunk, self._hasher)
        except (ValueError, CodecError) as error:
            raise StoreError(f"the snapshot at slot {self._slot} cannot be used: {error}") from None

    @property
    def digest(self) -> StateDigest:
        """The digest of the snapshot, after its last chunk.

        :raises StoreError: if there was no head.
        """
        if self._head is None:
            raise StoreError(f"the snapshot at slot {self._slot} cannot be used: it is empty")
        return StateDigest(self._slot, self._head.log_hash, self._hasher.digest())
