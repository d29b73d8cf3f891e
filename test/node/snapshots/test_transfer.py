"""A snapshot on its way from one node to another: lost parts, crashes, limits, and what is not waited for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from random import Random

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from test.helpers.fakes import logged
from txpaxos.core.messages import NodeId, Slot
from txpaxos.node.counts import Count, Counts
from txpaxos.node.snapshots.taking import HEAD, STATE, SnapshotHead
from txpaxos.node.snapshots.transfer import (
    BACK_OFF_SECONDS,
    FETCH_SILENCE_SECONDS,
    PART_BYTES,
    REFUSED_SECONDS,
    RESTART_SECONDS,
    ActiveFetches,
    LogGrowth,
    ReceiverCallbacks,
    SnapshotReceiver,
    SnapshotRefused,
    SnapshotSender,
    TransferLimits,
)
from txpaxos.storage.executor import Executor, Work, execute_now
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.snapshots import Snapshot
from txpaxos.wire.peer_messages import FetchSnapshot, SnapshotPart, StateDigest

LINE_SECONDS = 0.001
CONTENT = Random(1).randbytes(10 * PART_BYTES + 1000)
OTHER = CONTENT[::-1]
CHUNK_BYTES = 50_000
encode = msgspec.msgpack.Encoder().encode


def add(store: MemoryStore, slot: int, content: bytes = CONTENT, cluster: str = "test") -> Snapshot:
    """A snapshot of ``store``'s own node."""
    writer = store.write_snapshot(slot)
    writer.write(HEAD + encode(SnapshotHead(cluster, ("a", "b", "x"), slot, b"log")))
    for start in range(0, len(content), CHUNK_BYTES):
        writer.write(STATE + encode([content[start : start + CHUNK_BYTES]]))
    writer.finish()
    assert store.snapshot is not None
    return store.snapshot


def content(snapshot: Snapshot | None) -> bytes:
    assert snapshot is not None
    head, *chunks = snapshot.chunks()
    assert head.startswith(HEAD)
    return b"".join(part for chunk in chunks for part in msgspec.msgpack.decode(chunk[1:], type=list[bytes]))


def hash_of(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


class TransferHarness:
    """Nodes that have a snapshot, and "x", which is behind. Every message takes a millisecond; ``lose`` loses some.

    :ivar parts: those that were sent, and when.
    :ivar received: the snapshots that have come.
    :ivar confirmed: what was asked about those that were complete; :attr:`verdict` is the answer.
    :ivar applied_through: how far "x" knows what is chosen.
    :ivar log_bytes: how far the log of those that send has grown.
    """

    def __init__(
        self, limits: TransferLimits | None = None, senders: str = "a", execute: Executor = execute_now
    ) -> None:
        self.limits = limits or TransferLimits()
        self.clock = Clock()
        self.counters: Counts = Counter()
        self.lose: Callable[[NodeId, FetchSnapshot | SnapshotPart], bool] = lambda node, message: False
        self.asked: list[tuple[NodeId, FetchSnapshot]] = []
        self.parts: list[tuple[float, SnapshotPart]] = []
        self.received: list[Snapshot] = []
        self.damaged: list[tuple[NodeId, str]] = []
        self.confirmed: list[tuple[NodeId, StateDigest]] = []
        self.verdict: Callable[[NodeId], Deferred[None]] = lambda peer: succeed(None)
        self.began: list[Slot] = []
        self.applied_through = 0
        self.log_bytes = 0
        self.dropped = 0
        self.stores = {node: MemoryStore() for node in senders}
        self.senders: dict[NodeId, SnapshotSender] = {}
        self.fetches: dict[NodeId, ActiveFetches] = {}
        for node, store in self.stores.items():
            store.load()
            add(store, 50)
            self.start(node)
        self.store = MemoryStore(execute=execute)
        self.store.load()
        self.receiver = self.make_receiver()

    def start(self, node: NodeId) -> None:
        """Start what sends at ``node``, or start it again."""
        self.fetches[node] = ActiveFetches(self.stores[node], self.clock)
        self.senders[node] = SnapshotSender(
            self.clock,
            self.stores[node],
            lambda to, part: self.carry_part(node, part, to),
            self.counters,
            self.limits,
            lambda error: self.damaged.append((node, str(error))),
            self.fetches[node],
            LogGrowth(lambda: self.log_bytes, self.clock),
        )

    @property
    def now(self) -> float:
        return self.clock.seconds()

    def make_receiver(self) -> SnapshotReceiver:
        steps = ReceiverCallbacks(
            lambda slot: slot > self.applied_through, self.began.append, self.confirm, self.received.append
        )
        others = tuple(self.stores)
        return SnapshotReceiver(
            self.clock, self.store, "test", lambda: others, self.carry_question, steps, self.limits, Random(1)
        )

    def confirm(self, peer: NodeId, taken: StateDigest) -> Deferred[None]:
        self.confirmed.append((peer, taken))
        return self.verdict(peer)

    def restart(self) -> None:
        """ "x" is killed, and starts again."""
        self.receiver.stop()
        self.store = self.store.reopen()
        self.store.load()
        self.receiver = self.make_receiver()

    def carry_question(self, to: NodeId, question: FetchSnapshot) -> None:
        self.asked.append((to, question))
        if not self.lose(to, question):
            self.clock.callLater(LINE_SECONDS, lambda: self.senders[to].receive("x", question))

    def carry_part(self, sender: NodeId, part: SnapshotPart, to: NodeId = "x") -> None:
        self.parts.append((self.clock.seconds(), part))
        if to == "x" and not self.lose(sender, part):
            self.clock.callLater(LINE_SECONDS, self.deliver, sender, part)

    def deliver(self, sender: NodeId, part: SnapshotPart) -> None:
        self.dropped += not self.receiver.receive(sender, part)

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end and not until():
            self.advance(LINE_SECONDS / 2)
        return bool(until())

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def fetch(self, peer: NodeId, seconds: float) -> bool:
        """The core says again and again that only a snapshot of ``peer`` can help. Whether one has come in time."""
        end = self.now + seconds
        while self.now < end and not self.received:
            self.receiver.fetch_from(peer)
            self.run(0.1, lambda: self.received)
        return bool(self.received)

    def parts_there(self) -> int:
        """How many parts have been written."""
        return sum(len(file) for path, file in self.store.files.contents.items() if ".part" in path) // PART_BYTES


def test_it_comes_part_by_part() -> None:
    harness = TransferHarness()
    assert harness.receiver.progress is None
    harness.receiver.fetch_from("a")
    assert harness.receiver.progress == "snapshot from a"
    assert harness.run(1.0, lambda: harness.parts_there() == 3)
    size = harness.stores["a"].snapshot
    assert size is not None
    assert harness.receiver.progress is not None
    told, rate = harness.receiver.progress.split(", for ")
    assert told == f"snapshot 50 from a: {3 * PART_BYTES} of {size.size_bytes} bytes"
    assert re.fullmatch(r"0\.0 s at [0-9.]+ MB/s", rate)
    assert harness.run(1.0, lambda: harness.received)
    assert content(harness.received[0]) == CONTENT
    assert harness.received[0].slot == 50
    assert harness.store.snapshot == harness.received[0]
    assert harness.receiver.progress is None
    assert len(harness.parts) == len(harness.asked) == 11
    assert harness.dropped == 0
    assert harness.confirmed == [("a", StateDigest(50, b"log", hash_of(CONTENT)))]
    assert set(harness.began) == {50}
    harness.run(10.0)
    assert len(harness.asked) == 11
    assert not harness.clock.getDelayedCalls()


def test_one_at_a_time() -> None:
    harness = TransferHarness(senders="ab")
    harness.receiver.fetch_from("a")
    harness.receiver.fetch_from("b")
    assert harness.run(1.0, lambda: harness.received)
    assert {to for to, _ in harness.asked} == {"a"}


def test_lost_parts_and_questions_are_asked_for_again() -> None:
    rng = Random(2)
    harness = TransferHarness()
    harness.lose = lambda node, message: rng.random() < 0.3
    harness.receiver.fetch_from("a")
    assert harness.run(60.0, lambda: harness.received)
    assert content(harness.received[0]) == CONTENT
    assert len(harness.asked) > 11


def test_doubled_parts_do_no_harm() -> None:
    harness = TransferHarness()
    carry = harness.carry_part

    def twice(sender: NodeId, part: SnapshotPart, to: NodeId = "x") -> None:
        carry(sender, part)
        harness.clock.callLater(2.5 * LINE_SECONDS, harness.deliver, sender, part)

    harness.carry_part = twice  # type: ignore[method-assign]
    harness.receiver.fetch_from("a")
    assert harness.run(2.0, lambda: harness.received)
    assert content(harness.received[0]) == CONTENT
    assert harness.dropped > 5


def test_a_node_that_sends_nothing_is_given_up_after_some_tries() -> None:
    """It is the core's to find another; what has come by then is gone on with."""
    harness = TransferHarness(senders="ab")
    harness.receiver.fetch_from("a")
    assert harness.run(1.0, lambda: harness.parts_there() == 3)
    harness.lose = lambda node, message: node == "a"
    (event,) = logged(lambda: harness.run(20.0), LogLevel.warn)
    assert event["peer"] == "a"
    assert harness.receiver.progress is None
    assert len(harness.asked) - 4 == harness.limits.tries - 1
    harness.receiver.fetch_from("b")
    assert harness.run(1.0, lambda: harness.received)
    assert content(harness.received[0]) == CONTENT
    assert min(question.offset for to, question in harness.asked if to == "b") >= 3 * PART_BYTES


def test_a_node_that_stops_answering_is_left_for_one_that_answers() -> None:
    """The core asks others meanwhile, and finds out that they have a snapshot, too."""
    harness = TransferHarness(senders="ab")
    harness.receiver.fetch_from("a")
    assert harness.run(1.0, lambda: harness.parts_there() == 3)
    harness.lose = lambda node, message: node == "a"
    harness.receiver.fetch_from("b")
    assert not harness.run(0.9 * harness.limits.silence_seconds, lambda: "b" in {to for to, _ in harness.asked})
    harness.run(0.2 * harness.limits.silence_seconds)
    harness.receiver.fetch_from("a")  # Which changes nothing.
    (event,) = logged(lambda: harness.receiver.fetch_from("b"), LogLevel.warn)
    assert event["peer"] == "a"
    assert harness.run(1.0, lambda: harness.received)
    assert content(harness.received[0]) == CONTENT
    assert min(question.offset for to, question in harness.asked if to == "b") >= 3 * PART_BYTES
    assert not harness.clock.getDelayedCalls()


class TestCrash:
    def test_of_the_receiver(self) -> None:
        """Only what is sound counts, which may be some bytes less than have come."""
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        harness.restart()
        harness.run(0.1)
        assert harness.receiver.progress is None
        before = len(harness.parts)
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.received)
        assert content(harness.received[0]) == CONTENT
        again = [part.offset for _, part in harness.parts[before:]]
        assert again[0] > 5 * PART_BYTES
        assert len(again) <= 11 - 5

    def test_of_the_receiver_when_all_had_come(self) -> None:
        """Nothing is left to ask for; it only was not finished."""
        harness = TransferHarness()
        snapshot = harness.stores["a"].snapshot
        assert snapshot is not None
        harness.store.receive_snapshot(50).write_raw(snapshot.read(0, snapshot.size_bytes))
        harness.restart()
        harness.receiver.fetch_from("a")
        assert harness.run(3.0, lambda: harness.received)
        harness.run(10.0)
        assert content(harness.received[0]) == CONTENT
        assert len(harness.parts) == 1
        assert harness.receiver.progress is None

    def test_of_the_sender(self) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        harness.senders["a"].stop()
        harness.stores["a"] = harness.stores["a"].reopen()
        harness.stores["a"].load()
        harness.start("a")
        before = len(harness.parts)
        assert harness.run(3.0, lambda: harness.received)
        assert content(harness.received[0]) == CONTENT
        assert len(harness.parts) - before <= 6

    def test_of_the_receiver_while_the_sender_goes_on_to_a_newer_one(self) -> None:
        """The one that was begun is still there."""
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        harness.restart()
        add(harness.stores["a"], 60, OTHER)
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.received)
        assert (harness.received[0].slot, content(harness.received[0])) == (50, CONTENT)

    def test_of_the_receiver_while_the_sender_goes_on_to_two_newer_ones(self) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        harness.restart()
        for slot in (60, 70):
            add(harness.stores["a"], slot, OTHER)
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.received)
        assert (harness.received[0].slot, content(harness.received[0])) == (70, OTHER)
        assert not [path for path in harness.store.files.contents if ".part" in path]


class TestNewerOnes:
    """A sender takes newer snapshots while one is fetched."""

    def begun(self, senders: str = "a", newer: tuple[Slot, ...] = ()) -> TransferHarness:
        harness = TransferHarness(senders=senders)
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        for slot in newer:
            add(harness.stores["a"], slot, OTHER)
        return harness

    def test_the_one_before_the_newest_is_still_sent(self) -> None:
        harness = self.begun(newer=(60,))
        assert harness.run(1.0, lambda: harness.received)
        assert (harness.received[0].slot, content(harness.received[0])) == (50, CONTENT)
        assert len(harness.parts) == 11

    def test_one_that_is_gone_is_begun_anew_and_that_is_told(self) -> None:
        harness = self.begun(newer=(60, 70))
        (event,) = logged(lambda: harness.run(1.0, lambda: harness.received), LogLevel.warn)
        assert (event["before"], event["slot"]) == (50, 70)
        assert event["here"] >= 6 * PART_BYTES
        assert (harness.received[0].slot, content(harness.received[0])) == (70, OTHER)
        assert [*harness.store.files.contents] == [harness.received[0].path]

    def test_not_while_another_node_has_the_rest(self) -> None:
        harness = self.begun("ab", newer=(60, 70))
        assert harness.run(1.0, lambda: harness.received)
        assert (harness.received[0].slot, content(harness.received[0])) == (50, CONTENT)
        assert [to for to, _ in harness.asked].count("b") <= 11 - 6

    def test_not_for_ever_while_that_node_is_silent(self) -> None:
        harness = self.begun("abc", newer=(60, 70))
        harness.lose = lambda node, message: node in ("b", "c")
        assert harness.run(10.0, lambda: harness.received)
        assert harness.received[0].slot == 70
        assert "started over" not in (harness.receiver.progress or "")

    def test_a_sender_that_always_has_another_one_is_not_followed_at_once(self) -> None:
        """Or it could have this node write and throw away as much as it likes."""
        harness = TransferHarness()
        slots = iter(range(60, 10**6))
        carry = harness.carry_part

        def another(sender: NodeId, part: SnapshotPart, to: NodeId = "x") -> None:
            carry(sender, SnapshotPart(next(slots), part.size_bytes, 0, part.data))

        harness.carry_part = another  # type: ignore[method-assign]
        end = 4 * RESTART_SECONDS
        while harness.now < end:
            harness.receiver.fetch_from("a")
            harness.run(0.5)
        assert harness.received == []
        assert len(set(harness.began)) <= 2 + end / RESTART_SECONDS


class TestHolds:
    def test_who_fetches_holds_it_until_it_is_silent_for_long(self) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.received)
        fetches = harness.fetches["a"]
        assert fetches.count == 1
        harness.advance(0.9 * FETCH_SILENCE_SECONDS)
        assert fetches.count == 1
        harness.advance(0.2 * FETCH_SILENCE_SECONDS)
        assert fetches.count == 0

    def test_what_is_not_here_is_not_held(self) -> None:
        fetches = TransferHarness().fetches["a"]
        fetches.note("x", 51)
        assert fetches.count == 0

    def test_it_ends_when_the_node_says_so(self) -> None:
        fetches = TransferHarness().fetches["a"]
        for node in "xy":
            fetches.note(node, 50)
        fetches.note("x", 0)
        fetches.note("z", 0)
        assert fetches.count == 1


class TestLimits:
    def test_one_node_sends_no_faster_than_it_may(self) -> None:
        rate = 10 * PART_BYTES
        harness = TransferHarness(TransferLimits(bytes_per_second=rate))
        others = ("u", "v", "w")
        for node in others:
            harness.senders["a"].receive(node, FetchSnapshot(0, 0))
        harness.receiver.fetch_from("a")
        began = harness.clock.seconds()
        while not harness.received:
            harness.clock.advance(LINE_SECONDS)
            for node in others:
                harness.senders["a"].receive(node, FetchSnapshot(50, PART_BYTES))
            sent = sum(len(part.data) for _, part in harness.parts)
            assert sent <= rate * (harness.clock.seconds() - began) + 2 * PART_BYTES
        harness.senders["a"].stop()
        assert 4.0 < harness.clock.seconds() < 6.0, "a fourth of it is for each who asks"

    def test_it_is_no_slower_for_having_been_idle(self) -> None:
        harness = TransferHarness(TransferLimits(bytes_per_second=10 * PART_BYTES))
        harness.receiver.fetch_from("a")
        harness.run(1.05)
        sent = len(harness.parts)
        assert 10 <= sent <= 12

    def test_of_several_questions_of_one_node_the_last_is_answered(self) -> None:
        harness = TransferHarness(TransferLimits(bytes_per_second=PART_BYTES))
        for offset in (0, 1, 2, 3):
            harness.senders["a"].receive("x", FetchSnapshot(50, offset))
        harness.run(5.0)
        assert [part.offset for _, part in harness.parts] == [3]


class TestSender:
    def test_without_a_snapshot(self) -> None:
        harness = TransferHarness()
        harness.stores["a"] = MemoryStore()
        harness.stores["a"].load()
        harness.start("a")
        harness.senders["a"].receive("x", FetchSnapshot(0, 0))
        harness.senders["a"].receive("y", FetchSnapshot(0, 0))
        harness.run(0.1)
        assert harness.parts == []
        assert harness.counters[Count.NO_SNAPSHOT_TO_SEND] == 2

    def test_another_slot_than_it_has_is_sent_from_the_beginning(self) -> None:
        harness = TransferHarness()
        for slot in (49, 51):
            harness.senders["a"].receive("x", FetchSnapshot(slot, 5 * PART_BYTES))
            harness.run(0.1)
        assert [(part.slot, part.offset) for _, part in harness.parts] == [(50, 0), (50, 0)]

    @pytest.mark.parametrize("offset", [10**9, 2**64 - 1])
    def test_an_offset_beyond_the_end(self, offset: int) -> None:
        harness = TransferHarness()
        harness.senders["a"].receive("x", FetchSnapshot(50, offset))
        harness.run(0.1)
        assert [part.offset for _, part in harness.parts] == [0]

    def test_one_that_cannot_be_read(self) -> None:
        harness = TransferHarness()
        harness.stores["a"].files.contents.clear()
        harness.senders["a"].receive("x", FetchSnapshot(50, 0))
        harness.run(0.1)
        assert harness.counters[Count.UNREADABLE_SNAPSHOT] == 1

    def test_stopped(self) -> None:
        harness = TransferHarness()
        harness.senders["a"].receive("x", FetchSnapshot(50, 0))
        harness.senders["a"].stop()
        harness.senders["a"].stop()
        harness.run(0.1)
        assert harness.parts == []
        assert not harness.clock.getDelayedCalls()


class TestReceiver:
    def test_the_parts_of_a_stranger_are_not_taken(self) -> None:
        harness = TransferHarness()
        part = SnapshotPart(50, 100, 0, b"evil")
        assert not harness.receiver.receive("b", part)
        harness.receiver.fetch_from("a")
        assert not harness.receiver.receive("b", part)
        assert harness.run(1.0, lambda: harness.parts_there() == 2)
        for offset in (0, 2 * PART_BYTES):
            assert not harness.receiver.receive("b", SnapshotPart(50, 100, offset, b"evil"))
            assert not harness.receiver.receive("b", SnapshotPart(99, 100, offset, b"evil"))
        assert harness.run(1.0, lambda: harness.received)
        assert content(harness.received[0]) == CONTENT

    def test_a_part_out_of_its_turn_is_not_taken(self) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 2)
        for offset, data in ((PART_BYTES, b"late"), (5 * PART_BYTES, b"early"), (2 * PART_BYTES, b"")):
            assert not harness.receiver.receive("a", SnapshotPart(50, 100, offset, data))
        assert harness.run(1.0, lambda: harness.received)
        assert content(harness.received[0]) == CONTENT

    def test_asks_for_no_more_than_is_written(self) -> None:
        """And takes nothing meanwhile."""
        works: list[tuple[Work, Deferred[None]]] = []

        def later(work: Work) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            works.append((work, done))
            return done

        harness = TransferHarness(execute=later)
        harness.receiver.fetch_from("a")
        harness.run(10.0)
        assert len(harness.asked) == 1
        assert not harness.receiver.receive("a", harness.parts[0][1])
        while works:
            work, done = works.pop(0)
            work()
            done.callback(None)
            harness.run(0.05)
        assert content(harness.received[0]) == CONTENT

    @pytest.mark.parametrize("ending", ["written", "failed"])
    def test_stopped_while_it_writes(self, ending: str) -> None:
        works: list[tuple[Work, Deferred[None]]] = []

        def later(work: Work) -> Deferred[None]:
            done: Deferred[None] = Deferred()
            works.append((work, done))
            return done

        harness = TransferHarness(execute=later)
        harness.receiver.fetch_from("a")
        harness.run(0.1)
        harness.receiver.stop()
        ((work, done),) = works
        if ending == "written":
            work()
            done.callback(None)
        else:
            done.errback(OSError("late"))
        harness.run(3.0)
        assert len(harness.asked) == 1
        assert harness.receiver.progress is None
        assert not harness.clock.getDelayedCalls()

    def test_a_disk_that_fails_is_survived(self) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 3)
        harness.store.files.failing = True
        (event,) = logged(lambda: harness.run(3.0), LogLevel.error)
        assert event["log_format"].startswith("no snapshot from node {peer}: {reason}")
        assert event["peer"] == "a"
        assert harness.receiver.progress is not None
        assert harness.receiver.progress.startswith("no snapshot for 0 s more: cannot write the snapshot")
        assert harness.store.files.contents == {}
        harness.store.files.failing = False
        assert harness.fetch("a", 3.0)
        assert content(harness.received[0]) == CONTENT

    def test_one_that_is_damaged_on_the_way_is_not_taken(self) -> None:
        harness = TransferHarness()
        carry = harness.carry_part

        def damage(sender: NodeId, part: SnapshotPart, to: NodeId = "x") -> None:
            wrong = b"!" + part.data[1:] if part.offset == 4 * PART_BYTES and not harness.dropped else part.data
            carry(sender, SnapshotPart(part.slot, part.size_bytes, part.offset, wrong))

        harness.carry_part = damage  # type: ignore[method-assign]
        harness.receiver.fetch_from("a")
        (event,) = logged(lambda: harness.run(3.0), LogLevel.error)
        assert "checksum" in event["reason"]
        assert (harness.received, harness.store.snapshot, harness.store.files.contents) == ([], None, {})
        harness.carry_part = carry  # type: ignore[method-assign]
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.received)
        assert any(question.damaged == 50 for _, question in harness.asked)
        assert harness.damaged == []  # It has looked, and its own is sound.

    def test_who_has_a_damaged_one_is_told_and_looks(self) -> None:
        """It cannot know otherwise: as long as it runs, it does not read its snapshot."""
        harness = TransferHarness()
        (path,) = harness.stores["a"].files.contents
        harness.stores["a"].files.contents[path][2 * PART_BYTES] ^= 1
        harness.receiver.fetch_from("a")
        logged(lambda: harness.run(3.0), LogLevel.error)
        assert harness.damaged == []
        harness.receiver.fetch_from("a")
        harness.run(3.0)
        ((node, said),) = harness.damaged
        assert node == "a"
        assert "the checksum of a chunk does not match" in said
        assert harness.received == []

    def test_one_no_newer_than_its_own(self) -> None:
        harness = TransferHarness()
        add(harness.store, 55)
        harness.receiver.fetch_from("a")
        (event,) = logged(lambda: harness.run(3.0), LogLevel.error)
        assert "there is a snapshot at slot 55 already" in event["reason"]
        assert harness.received == []

    def test_one_that_is_no_news_is_not_written(self) -> None:
        harness = TransferHarness()
        harness.applied_through = 50
        harness.receiver.fetch_from("a")
        harness.run(3.0)
        assert (harness.began, harness.store.files.contents) == ([], {})

    def test_one_that_the_log_has_overtaken_is_dropped_at_the_end(self) -> None:
        harness = TransferHarness()

        def overtaken(peer: NodeId) -> Deferred[None]:
            harness.applied_through = 50
            return succeed(None)

        harness.verdict = overtaken
        harness.receiver.fetch_from("a")
        harness.run(3.0, lambda: harness.confirmed)
        assert (harness.received, harness.store.snapshot, harness.store.files.contents) == ([], None, {})
        assert harness.receiver.progress is None

    def test_one_of_another_cluster(self) -> None:
        harness = TransferHarness(senders="")
        harness.stores["a"] = MemoryStore()
        harness.stores["a"].load()
        add(harness.stores["a"], 50, cluster="other")
        harness.start("a")
        harness.receiver = harness.make_receiver()
        harness.receiver.fetch_from("a")
        (event,) = logged(lambda: harness.run(3.0), LogLevel.error)
        assert "is of cluster other, not test" in event["reason"]
        assert (harness.confirmed, harness.store.files.contents) == ([], {})


class TestFullDisk:
    def begun(self) -> TransferHarness:
        harness = TransferHarness(senders="ab")
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 6)
        harness.store.files.room_bytes = PART_BYTES // 2
        return harness

    def asked(self, harness: TransferHarness, seconds: float) -> int:
        """How many questions the others get in that time, though the core says again and again that it is behind."""
        before = len(harness.asked)
        harness.fetch("a", seconds)
        return len(harness.asked) - before

    def test_what_has_come_stays_and_is_gone_on_with(self) -> None:
        harness = self.begun()
        harness.run(1.0)
        assert harness.parts_there() >= 6
        harness.store.files.room_bytes = 2**40
        before = len(harness.parts)
        assert harness.fetch("a", 5.0)
        assert content(harness.received[0]) == CONTENT
        assert len(harness.parts) - before <= 5
        assert harness.receiver.progress is None

    def test_it_waits_longer_each_time_and_says_so_once(self) -> None:
        harness = self.begun()
        counts: list[int] = []
        events = logged(lambda: counts.extend(self.asked(harness, 100.0) for _ in range(3)), LogLevel.error)
        assert len(events) == 1
        assert "nothing is lost" in events[0]["reason"]
        assert counts[0] <= 12
        assert counts[2] <= 4
        progress = harness.receiver.progress or ""
        assert re.match(r"no snapshot for \d+ s more: cannot write the snapshot .* the disk has \d+;", progress)
        harness.store.files.room_bytes = 2**40
        assert harness.fetch("a", BACK_OFF_SECONDS[1] + 5.0)

    def test_where_there_is_no_room_from_the_beginning_nothing_is_written(self) -> None:
        """A full disk is worse than a snapshot that is late: the journal is there, too."""
        harness = TransferHarness()
        harness.store.files.room_bytes = len(CONTENT) // 2
        harness.receiver.fetch_from("a")
        (event,) = logged(lambda: harness.run(1.0), LogLevel.error)
        assert f"the disk has {len(CONTENT) // 2}" in event["reason"]
        assert harness.store.files.contents == {}

    def test_success_ends_it(self) -> None:
        harness = self.begun()
        logged(lambda: harness.fetch("a", 100.0), LogLevel.error)
        harness.store.files.room_bytes = 2**40
        assert harness.fetch("a", 100.0)
        harness.received.clear()
        add(harness.stores["a"], 60, OTHER)
        harness.store.files.failing = True
        harness.receiver.fetch_from("a")
        (_,) = logged(lambda: harness.run(1.0), LogLevel.error)
        harness.store.files.failing = False
        assert harness.fetch("a", 2 * BACK_OFF_SECONDS[0])


class TestNotBelieved:
    """What the others say of a snapshot decides whether it is installed."""

    def test_it_is_fetched_from_another_node(self) -> None:
        harness = TransferHarness(senders="ab")
        harness.verdict = lambda peer: fail(SnapshotRefused("not what others have")) if peer == "a" else succeed(None)
        (event,) = logged(lambda: harness.fetch("a", 10.0), LogLevel.error)
        assert event["reason"] == "not what others have"
        assert [peer for peer, _ in harness.confirmed] == ["a", "b"]
        assert harness.received

    def test_until_then_it_has_no_name(self) -> None:
        harness = TransferHarness()
        names: list[str] = []
        answer: Deferred[None] = Deferred()

        def verdict(peer: NodeId) -> Deferred[None]:
            names.extend(harness.store.files.contents)
            return answer

        harness.verdict = verdict
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: names)
        assert [name.endswith(".part") for name in names] == [True]
        harness.restart()
        assert harness.store.snapshot is None
        assert harness.store.part is not None

    def test_a_single_other_node_is_asked_again_later(self) -> None:
        harness = TransferHarness()
        harness.verdict = lambda peer: fail(SnapshotRefused("no")) if harness.now < 30.0 else succeed(None)
        logged(lambda: harness.fetch("a", 3 * REFUSED_SECONDS), LogLevel.error)
        assert harness.received
        assert 2 <= len(harness.confirmed) <= 4


class TestHostileParts:
    """Each changes nothing."""

    @pytest.mark.parametrize(
        "part",
        [
            SnapshotPart(50, 0, 0, b"x"),
            SnapshotPart(50, 2**40 + 1, 0, b"x"),
            SnapshotPart(50, 2**64 - 1, 0, b"x"),
            SnapshotPart(50, 10, 0, b"x" * 11),
            SnapshotPart(50, 10, 5, b"x" * 6),
            SnapshotPart(50, 2**30, 0, bytes(2**20 + 1)),
            SnapshotPart(50, 10, 0, b""),
            SnapshotPart(50, 10, 5, b"x"),
            SnapshotPart(40, 10, 0, b"x"),
        ],
        ids=str,
    )
    def test_the_first(self, part: SnapshotPart) -> None:
        harness = TransferHarness()
        harness.applied_through = 45
        harness.lose = lambda node, message: True
        harness.receiver.fetch_from("a")
        assert not harness.receiver.receive("a", part)
        harness.run(0.1)
        assert (harness.began, harness.store.files.contents) == ([], {})

    @pytest.mark.parametrize("size", [1, 10 * len(CONTENT), 2**64 - 1])
    def test_another_size_later(self, size: int) -> None:
        harness = TransferHarness()
        harness.receiver.fetch_from("a")
        assert harness.run(1.0, lambda: harness.parts_there() == 3)
        assert not harness.receiver.receive("a", SnapshotPart(50, size, 3 * PART_BYTES, b"evil"))
        assert harness.run(1.0, lambda: harness.received)
        assert content(harness.received[0]) == CONTENT


class TestLogThatGrowsFaster:
    def test_it_is_sent_as_fast_as_the_log_grows(self) -> None:
        """Else it is outdated before it has come."""
        harness = TransferHarness(TransferLimits(bytes_per_second=PART_BYTES))
        harness.receiver.fetch_from("a")
        while harness.now < 2.0:
            harness.log_bytes += 40 * PART_BYTES // 1000
            harness.advance(0.001)
        assert harness.parts_there() >= 20 or harness.received

    def test_not_for_nothing(self) -> None:
        harness = TransferHarness(TransferLimits(bytes_per_second=PART_BYTES))
        harness.receiver.fetch_from("a")
        harness.run(2.0)
        assert sum(len(part.data) for _, part in harness.parts) <= 2.5 * PART_BYTES
