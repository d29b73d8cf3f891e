"""When a snapshot is taken, what is in it, and what happens when that fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

import txpaxos.node.snapshots.taking
from test.helpers.fakes import SESSION, Reactor, logged
from txpaxos.application import Application
from txpaxos.cluster import Cluster
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Chosen
from txpaxos.errors import ApplicationLost, PaxosError, StoreError
from txpaxos.node.applier import Applier
from txpaxos.node.members import Members
from txpaxos.node.sessions import value_of
from txpaxos.node.snapshots.taking import (
    EMPTY_CHUNKS_MAX,
    HASHES_KEPT,
    PIECE_BYTES,
    SLOT_BYTES,
    Policy,
    SnapshotTaker,
)
from txpaxos.storage.executor import Executor, Work
from txpaxos.storage.memory import MemoryStore
from txpaxos.wire.commands import Run, encode_batch
from txpaxos.wire.peer_messages import StateDigest

CHUNK = 3


class Left(BaseException):
    """Raised by a library that has its own way to end a program."""


class Log(Application):
    """Its state is all that was ever applied, told three commands to a chunk; and ballast."""

    has_ballast = False

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ballast = b""

    def apply(self, slot: Slot, command: bytes) -> object:
        self.lines.append(command)
        return len(self.lines)

    def snapshot(self) -> bytes | Iterable[bytes]:
        lines = list(self.lines)
        chunks = (msgspec.msgpack.encode(lines[start : start + CHUNK]) for start in range(0, len(lines), CHUNK))
        return itertools.chain([self.ballast], chunks) if self.ballast else chunks

    def restore(self, chunks: Iterator[bytes]) -> None:
        if self.has_ballast:
            self.ballast = next(chunks)
        self.lines = [line for chunk in chunks for line in msgspec.msgpack.decode(chunk, type=list[bytes])]


THREE = 'cluster = "test"\n' + "".join(
    f'[nodes.{node}]\naddress = "127.0.0.1:{port}"\nclient = "127.0.0.1:{port + 1000}"\n'
    for port, node in enumerate("abc", 4001)
)


class SnapshotsHarness:
    """One node's application and its snapshots; the test chooses what is in the log."""

    def __init__(
        self,
        application: Log | None = None,
        store: MemoryStore | None = None,
        log_bytes: int = 10 * (SLOT_BYTES + 100),
        cluster: str = "test",
    ) -> None:
        self.clock = Reactor()
        self.application = application or Log()
        self.applier = Applier(self.application.apply)
        self.store = store or MemoryStore()
        if store is None:
            self.store.load()
        self.begun: list[Slot] = []
        self.taken: list[StateDigest] = []
        self.reached: list[tuple[Slot, bytes]] = []
        self.is_fetched = False
        self.interrupted: list[PaxosError] = []
        self.snapshots = SnapshotTaker(
            self.clock,
            self.store,
            self.application,
            self.applier,
            cluster,
            Members("a", Cluster.parse(THREE)),
            Policy(log_bytes),
            self.begun.append,
            self.taken.append,
            lambda slot, log_hash: self.reached.append((slot, log_hash)),
            lambda: self.is_fetched,
            self.interrupted.append,
        )

    def choose(self, count: int, *, idle: bool = True) -> None:
        """Choose and apply ``count`` slots, of 100 bytes of value each; then, if ``idle``, give time for the rest."""
        for _ in range(count):
            slot = self.applier.applied_through + 1
            head = len(encode_batch([Run(SESSION, slot, 0, (b"",))]))
            chosen = Chosen(slot, encode_batch([Run(SESSION, slot, 0, ((b"%d" % slot).ljust(100 - head),))]))
            assert len(chosen.value) == 100
            for _ in self.applier.apply(chosen):
                pass
            self.snapshots.applied(chosen)
            if idle:
                self.idle()

    def idle(self) -> None:
        """Let all happen that is due."""
        self.clock.idle()

    def restored(self, **options: Any) -> SnapshotsHarness:
        """Another node, on what this one's store holds."""
        store = self.store.reopen()
        store.load()
        harness = SnapshotsHarness(store=store, **options)
        assert store.snapshot is not None
        harness.snapshots.restore(store.snapshot)
        return harness


def slots(harness: SnapshotsHarness) -> list[Slot]:
    return [taken.slot for taken in harness.taken]


class TestWhen:
    def test_after_an_interval_of_log_bytes(self) -> None:
        harness = SnapshotsHarness()
        harness.choose(9)
        assert (harness.begun, harness.taken, harness.store.snapshot) == ([], [], None)
        harness.choose(31)
        assert harness.begun == slots(harness) == [10, 20, 30, 40]
        assert harness.store.snapshot is not None
        assert harness.store.snapshot.slot == 40

    def test_no_ops_count_too(self) -> None:
        """They are in the journal."""
        harness = SnapshotsHarness(log_bytes=5 * SLOT_BYTES)
        for slot in range(1, 13):
            list(harness.applier.apply(Chosen(slot, b"")))
            harness.snapshots.applied(Chosen(slot, b""))
            harness.idle()
        assert slots(harness) == [5, 10]

    def test_at_the_same_slots_on_every_node(self) -> None:
        """One has taken all; one was slow, and so missed some; one restarted; one got a snapshot from elsewhere."""
        steady, slow = SnapshotsHarness(), SnapshotsHarness()
        steady.choose(45)
        slow.choose(25, idle=False)
        assert slow.begun == [10], "one at a time"
        slow.idle()
        slow.choose(20)
        assert slow.begun == [10, 30, 40]
        early = SnapshotsHarness()
        early.choose(17)
        restarted = early.restored()
        for slot in range(11, 18):
            restarted.applier.applied_through = slot - 1
            restarted.choose(1)
        restarted.choose(30)
        assert restarted.begun == [20, 30, 40]
        hashes = {taken.slot: taken for taken in steady.taken}
        for harness in (slow, restarted):
            for taken in harness.taken:
                assert taken == hashes[taken.slot]

    def test_of_a_big_state_at_every_second_or_fourth_slot_of_those(self) -> None:
        """And a node that left some out, or restarted, meets the others again."""

        class Big(Log):
            has_ballast = True

        steady, slow = SnapshotsHarness(Big()), SnapshotsHarness(Big())
        for harness in (steady, slow):
            harness.application.ballast = Random(1).randbytes(6 * 10 * (SLOT_BYTES + 100))
        steady.choose(140)
        assert steady.begun == [10, 20, 40, 60, 80, 120]
        slow.choose(15)
        slow.choose(50, idle=False)
        slow.idle()
        slow.choose(5)
        restarted = slow.restored(application=Big())
        restarted.applier.applied_through = slot = slow.begun[-1]
        restarted.choose(140 - slot)
        hashes = {taken.slot: taken for taken in steady.taken}
        assert len(restarted.taken) > 2
        for taken in restarted.taken:
            assert taken == hashes[taken.slot]

    def test_the_log_is_told_of_where_every_interval_ends(self) -> None:
        harness = SnapshotsHarness()
        harness.application.ballast = bytes(10**5)
        harness.choose(90)
        assert len(harness.begun) < 5
        assert [slot for slot, _ in harness.reached] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
        for slot, log_hash in harness.reached:
            assert harness.snapshots.log_hash(slot) == log_hash
        assert len({harness.snapshots.log_hash(slot) for slot in range(1, 91)}) == 90
        assert harness.snapshots.log_hash(0) == harness.snapshots.log_hash(91) == b""
        harness.snapshots.watched.add(93)
        harness.choose(5)
        assert harness.reached[-1] == (93, harness.snapshots.log_hash(93))

    def test_a_hash_of_the_log_is_forgotten_at_last(self) -> None:
        harness = SnapshotsHarness(log_bytes=10**9)
        harness.choose(HASHES_KEPT + 5, idle=False)
        assert harness.snapshots.log_hash(5) == b""
        assert harness.snapshots.log_hash(6)
        assert harness.snapshots.log_hash(HASHES_KEPT + 5)

    def test_none_while_a_peer_fetches_one_but_not_for_ever(self) -> None:
        harness = SnapshotsHarness()
        harness.choose(10)
        harness.is_fetched = True
        harness.choose(15)
        assert harness.begun == [10]
        harness.choose(20)
        assert harness.begun == [10, 40], "after twice an interval, since the state is small"
        harness.is_fetched = False
        harness.choose(5)
        assert harness.begun == [10, 40, 50]

    def test_never_without_the_hook(self) -> None:
        class Silent(Log):
            snapshot = Application.snapshot

        harness = SnapshotsHarness(Silent())
        harness.choose(40)
        assert harness.begun == []
        assert not harness.snapshots.enabled

    def test_never_after_stop(self) -> None:
        harness = SnapshotsHarness()
        harness.choose(9)
        harness.snapshots.stop()
        harness.choose(30)
        assert (harness.begun, harness.taken) == ([], [])

    def test_one_that_is_being_taken_is_given_up_at_stop(self) -> None:
        harness = SnapshotsHarness()
        harness.choose(10, idle=False)
        assert harness.snapshots.taking == 10
        harness.snapshots.stop()
        assert harness.snapshots.taking is None
        harness.idle()
        assert (harness.taken, harness.store.snapshot, harness.store.files.contents) == ([], None, {})


class Generated(Log):
    """The same, in the way that comes to mind first."""

    def snapshot(self) -> Iterable[bytes]:
        lines = list(self.lines)
        for start in range(0, len(lines), CHUNK):
            yield msgspec.msgpack.encode(lines[start : start + CHUNK])


class TestWhat:
    @pytest.mark.parametrize("application", [Log, Generated])
    def test_the_state_at_that_slot_though_commands_are_applied_meanwhile(self, application: type[Log]) -> None:
        harness, still = SnapshotsHarness(application()), SnapshotsHarness(application())
        still.choose(10)
        harness.choose(10, idle=False)
        for _ in range(9):
            harness.choose(1, idle=False)
            harness.clock.turn()
        harness.idle()
        assert harness.taken == still.taken
        again = harness.restored()
        assert again.applier.applied_through == 10
        assert [int(line) for line in again.application.lines] == list(range(1, 11))

    def test_the_sessions_are_in_it(self) -> None:
        harness = SnapshotsHarness()
        harness.choose(12)
        again = harness.restored()
        for slot in range(1, 13):
            (outcome,) = again.applier.sessions.outcomes(Run(SESSION, slot, 0, (b"",)))
            assert (outcome and value_of(outcome)) == (slot if slot <= 10 else None)

    def test_a_state_of_no_chunks_and_one_of_bytes(self) -> None:
        class Plain(Log):
            def snapshot(self) -> bytes:
                return b"".join(self.lines[:1])

            def restore(self, chunks: Iterator[bytes]) -> None:
                self.lines = [b"".join(chunks)]

        class Empty(Log):
            def snapshot(self) -> Iterable[bytes]:
                return ()

            def restore(self, chunks: Iterator[bytes]) -> None:
                assert list(chunks) == []

        for application, lines in ((Plain, 1), (Empty, 0)):
            harness = SnapshotsHarness(application())
            harness.choose(10)
            again = SnapshotsHarness(application(), store=harness.store)
            assert harness.store.snapshot is not None
            again.snapshots.restore(harness.store.snapshot)
            assert len(again.application.lines) == lines

    def test_nothing_is_held_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The reactor has its turn after a few chunks."""
        monkeypatch.setattr(txpaxos.node.snapshots.taking, "PIECE_BYTES", 1000)
        harness = SnapshotsHarness(log_bytes=100 * (SLOT_BYTES + 100))
        harness.choose(100, idle=False)
        turns = 0
        while harness.clock.calls:
            harness.clock.turn()
            turns += 1
        assert turns > 7
        assert slots(harness) == [100]

    @pytest.mark.parametrize("size", [2**16, 2**16 + 1, 5 * 2**16, 70 * 2**20])
    def test_a_state_told_at_once_is_written_in_pieces(self, size: int) -> None:
        """However big it is, the reactor has its turn, and a transfer that broke off goes on near there."""

        class Blob(Log):
            def snapshot(self) -> Iterable[bytes]:
                return [b"small", self.blob, b"", b"small too"]

            def restore(self, chunks: Iterator[bytes]) -> None:
                first, self.blob, *rest = chunks
                assert (first, rest) == (b"small", [b"", b"small too"])

            blob = b""

        application, again = Blob(), Blob()
        application.blob = bytes(range(256)) * (size // 256) + bytes(size % 256)
        harness = SnapshotsHarness(application)
        harness.choose(10)
        snapshot = harness.store.snapshot
        assert snapshot is not None
        assert max(map(len, snapshot.chunks())) < 2**17
        SnapshotsHarness(again, store=harness.store).snapshots.restore(snapshot)
        assert again.blob == application.blob

    def test_the_file_is_the_same_on_every_node(self) -> None:
        """So one that came in part from one node can be gone on with from another."""
        one, other = SnapshotsHarness(), SnapshotsHarness()
        one.choose(30)
        other.choose(10)
        other = other.restored()
        other.choose(20)
        newest = max(one.store.files.contents)
        assert one.store.files.contents[newest] == other.store.files.contents[newest]

    def test_the_hash_does_not_depend_on_how_chunks_are_put_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken = []
        for piece_bytes in (1, 100, 2**16):
            monkeypatch.setattr(txpaxos.node.snapshots.taking, "PIECE_BYTES", piece_bytes)
            harness = SnapshotsHarness()
            harness.choose(10)
            taken += harness.taken
        assert taken[0] == taken[1] == taken[2]

    def test_another_state_or_another_log_has_another_hash(self) -> None:
        same, other_state, other_log = SnapshotsHarness(), SnapshotsHarness(), SnapshotsHarness()
        same.choose(10)
        other_state.application.lines.append(b"by itself")
        other_state.choose(10)
        list(other_log.applier.apply(Chosen(1, b"")))
        other_log.snapshots.applied(Chosen(1, b""))
        other_log.choose(20)
        assert other_state.taken[0].log_hash == same.taken[0].log_hash
        assert other_state.taken[0].state_hash != same.taken[0].state_hash
        assert other_log.taken[0].log_hash != same.taken[0].log_hash

    def test_the_hash_goes_on_after_a_restore(self) -> None:
        steady, harness = SnapshotsHarness(), SnapshotsHarness()
        steady.choose(30)
        harness.choose(20)
        again = harness.restored()
        again.choose(10)
        assert again.taken == steady.taken[-1:]


class TestTrouble:
    @pytest.mark.parametrize("when", ["hook", "chunk", "write", "begin", "finish"])
    def test_one_that_fails_is_survived_and_the_next_one_is_tried(
        self, when: str, logged_errors: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broken = True

        class Broken(Log):
            def snapshot(self) -> bytes | Iterable[bytes]:
                if broken and when == "hook":
                    raise ValueError("not now")
                chunks = super().snapshot()
                return self._chunks(chunks) if broken and when == "chunk" else chunks

            def _chunks(self, chunks: Any) -> Iterator[bytes]:
                for chunk, _ in zip(chunks, range(2), strict=False):
                    yield chunk
                raise ValueError("not now")

        harness = SnapshotsHarness(Broken())
        harness.choose(9)
        harness.store.files.failing = when == "write"
        if when == "begin":
            writer = harness.store.write_snapshot(5)
        if when == "finish":
            monkeypatch.setattr(harness.store.files, "replace", _refuse)
        line = "no snapshot at slot {slot}: {reason}; the log is kept until the next one"
        level = LogLevel.critical if when in ("hook", "chunk") else LogLevel.error
        (event,) = logged(lambda: harness.choose(1), level)
        assert (event["log_format"], event["slot"]) == (line, 10)
        assert harness.taken == []
        assert harness.store.snapshot is None
        assert harness.snapshots.taking is None
        broken = harness.store.files.failing = False
        monkeypatch.undo()
        if when == "begin":
            writer.abandon()
        assert harness.store.files.contents == {}
        harness.choose(20)
        assert slots(harness) == [20, 30]
        assert harness.restored().applier.applied_through == 30
        assert all(entry["log_level"] is LogLevel.critical for entry in logged_errors)
        assert len(logged_errors) == (when in ("hook", "chunk"))
        logged_errors.clear()

    @pytest.mark.parametrize(
        ("told", "words"),
        [
            ("text", "snapshot must return bytes, or chunks of bytes, and not str"),
            (7, "snapshot must return bytes, or chunks of bytes, and not int"),
            (["a", "b"], "snapshot must return chunks of bytes, and one is str"),
        ],
    )
    def test_what_is_no_bytes_is_told_plainly(self, told: Any, words: str, logged_errors: list[dict[str, Any]]) -> None:
        class Wrong(Log):
            def snapshot(self) -> Any:
                return told

        harness = SnapshotsHarness(Wrong())
        (event,) = logged(lambda: harness.choose(10), LogLevel.critical)
        assert words in str(event["reason"])
        logged_errors.clear()

    @pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), MemoryError(), Left("gone")])
    @pytest.mark.parametrize("when", ["hook", "first chunk", "later chunk"])
    def test_one_that_raises_what_is_no_exception_is_survived_too(
        self, when: str, error: BaseException, logged_errors: list[dict[str, Any]]
    ) -> None:
        """A library that ends the process, say: as in ``apply``, it does not end the node."""
        broken = True

        class Leaving(Log):
            def snapshot(self) -> bytes | Iterable[bytes]:
                if broken and when == "hook":
                    raise error
                return self._chunks() if broken else super().snapshot()

            def _chunks(self) -> Iterator[bytes]:
                if when == "later chunk":
                    yield bytes(PIECE_BYTES)
                raise error

        harness = SnapshotsHarness(Leaving())
        (event,) = logged(lambda: harness.choose(10), LogLevel.critical)
        assert event["log_format"] == "no snapshot at slot {slot}: {reason}; the log is kept until the next one"
        assert str(event["reason"]).startswith(type(error).__name__)
        assert harness.snapshots.taking is None
        assert harness.interrupted == []
        assert harness.store.files.contents == {}
        broken = False
        harness.choose(10)
        assert slots(harness) == [20]
        logged_errors.clear()

    @pytest.mark.parametrize("when", ["hook", "first chunk", "later chunk"])
    def test_one_that_is_interrupted_ends_the_node(self, when: str) -> None:
        """An interrupt is meant to end the process."""

        class Interrupted(Log):
            def snapshot(self) -> bytes | Iterable[bytes]:
                if when == "hook":
                    raise KeyboardInterrupt
                return self._chunks()

            def _chunks(self) -> Iterator[bytes]:
                if when == "later chunk":
                    yield bytes(PIECE_BYTES)
                raise KeyboardInterrupt

        harness = SnapshotsHarness(Interrupted())
        harness.choose(10)
        (error,) = harness.interrupted
        assert isinstance(error, ApplicationLost)
        assert str(error).startswith("KeyboardInterrupt while a snapshot at slot 10 was taken: ")
        assert harness.snapshots.taking is None
        assert harness.store.files.contents == {}

    @pytest.mark.parametrize("first", [0, 3])
    def test_one_that_yields_nothing_without_end_is_given_up(
        self, first: int, logged_errors: list[dict[str, Any]]
    ) -> None:
        endless = True

        class Endless(Log):
            def snapshot(self) -> bytes | Iterable[bytes]:
                some = itertools.repeat(bytes(PIECE_BYTES), first)
                return itertools.chain(some, itertools.repeat(b"")) if endless else super().snapshot()

        harness = SnapshotsHarness(Endless())
        (event,) = logged(lambda: harness.choose(10), LogLevel.critical)
        assert f"{EMPTY_CHUNKS_MAX} empty chunks in a row" in str(event["reason"])
        assert harness.snapshots.taking is None
        endless = False
        harness.choose(10)
        assert slots(harness) == [20]
        logged_errors.clear()

    def test_some_empty_chunks_do_no_harm(self) -> None:
        class Gaps(Log):
            def snapshot(self) -> Iterable[bytes]:
                yield from itertools.repeat(b"", EMPTY_CHUNKS_MAX)
                yield b"state"
                yield from itertools.repeat(b"", EMPTY_CHUNKS_MAX)

            def restore(self, chunks: Iterator[bytes]) -> None:
                self.lines = [chunk for chunk in chunks if chunk]

        harness = SnapshotsHarness(Gaps())
        harness.choose(10)
        assert slots(harness) == [10]
        assert harness.restored(application=Gaps()).application.lines == [b"state"]

    def test_what_ends_after_stop_is_nobodys_business(self) -> None:
        works, later = delayed()

        for ending in (None, StoreError("the disk is gone")):
            store = MemoryStore(execute=later)
            store.load()
            harness = SnapshotsHarness(store=store)
            harness.choose(10)
            harness.snapshots.stop()
            while works:
                work, done = works.pop(0)
                if ending is None:
                    work()
                    done.callback(None)
                else:
                    done.errback(ending)
                harness.idle()
            assert harness.taken == []
            assert store.snapshot is None

    def test_one_that_ends_as_stop_is_called_is_not_told(self) -> None:
        works, later = delayed()

        store = MemoryStore(execute=later)
        store.load()
        harness = SnapshotsHarness(store=store)
        harness.choose(10)
        for left in (3, 2, 1, 0):
            ((work, done),) = works
            works.clear()
            if not left:
                harness.snapshots.stop()
            work()
            done.callback(None)
            harness.idle()
        assert harness.taken == []


def delayed() -> tuple[list[tuple[Work, Deferred[None]]], Executor]:
    """What does work when the test says so, and the work that waits."""
    works: list[tuple[Work, Deferred[None]]] = []

    def later(work: Work) -> Deferred[None]:
        works.append((work, Deferred()))
        return works[-1][1]

    return works, later


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")
