"""The part of :mod:`~txpaxos.testing.store.contract` about snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import Deferred

from txpaxos.core.ready import Checkpoint, Promised, Record
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.snapshots import Snapshot
from txpaxos.storage.store import Store
from txpaxos.testing.store.harness import BALLOT, StoreHarness, voted

CHUNKS = [b"x" * 92, b"y" * 92, b"z" * 92]


class SnapshotContract(StoreHarness):
    """The tests. Each starts from ``make_store(tmp_path)``."""

    def take(self, store: Store, slot: int, chunks: Sequence[bytes] = (b"state",)) -> Snapshot:
        """A finished snapshot of ``store``."""
        writer = store.write_snapshot(slot)
        for chunk in chunks:
            self.wait(writer.write(chunk))
        return self.wait(writer.finish())

    @staticmethod
    def peer_file(slot: int, chunks: Sequence[bytes] = (b"state",)) -> bytes:
        """The bytes of a peer's snapshot."""
        store = MemoryStore()
        store.load()
        writer = store.write_snapshot(slot)
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
        assert store.snapshot is not None
        return store.snapshot.read(0, store.snapshot.size_bytes)

    def receive(self, store: Store, slot: int, data: bytes) -> Deferred[Snapshot]:
        """A finished snapshot of a peer, whose file holds ``data``."""
        writer = store.receive_snapshot(slot)
        for start in range(writer.size_bytes, len(data), 100):
            self.wait(writer.write_raw(data[start : start + 100]))
        return writer.finish()

    def test_a_new_store_has_no_snapshot(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        assert store.snapshot is None
        self.wait(store.close())

    def test_a_snapshot_comes_back(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        chunks = [b"a", bytes(5000), bytes(range(256)) * 10, bytes((5 << 20) + 3), b"end"]
        snapshot = self.take(store, 2**40, chunks)
        for close in (True, False, True):
            assert store.snapshot == snapshot
            snapshot = store.snapshot
            assert snapshot.slot == 2**40
            assert list(snapshot.chunks()) == chunks
            whole = snapshot.read(0, snapshot.size_bytes + 1)
            assert len(whole) == snapshot.size_bytes
            assert snapshot.read(5, 7) == whole[5:12]
            assert snapshot.read(snapshot.size_bytes, 1) == b""
            if close:
                self.wait(store.close())
            store = self.reopen(store, tmp_path)
            assert store.load() == []
        self.wait(store.close())

    def test_a_snapshot_stands_for_what_was_saved_before_its_checkpoint(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([voted(1), voted(2)]))
        self.wait(store.save([voted(3), Checkpoint(2), Promised(BALLOT), voted(3)]))
        self.wait(store.save([voted(4)]))
        self.take(store, 2)
        self.assert_kept(store, tmp_path, [Checkpoint(2), Promised(BALLOT), voted(3), voted(4)], close=False)

    def test_a_checkpoint_counts_once_its_snapshot_is_complete(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records: list[Record] = [voted(1), Checkpoint(1), voted(2), Checkpoint(2), voted(3)]
        for record in records:
            self.wait(store.save([record]))
        self.wait(store.close())
        for start, slot in ((0, 0), (1, 1), (3, 2), (3, 3)):
            store = self.reopen(store, tmp_path)
            store.load()
            if slot:
                self.take(store, slot)
                store = self.reopen(store, tmp_path)
                assert store.load() == records[start:]
            self.assert_kept(store, tmp_path, records[start:])

    def test_two_snapshots_are_kept(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        snapshots = []
        for slot in range(10, 60, 10):
            self.wait(store.save([Checkpoint(slot), voted(slot + 1, bytes(3000))]))
            snapshots.append(self.take(store, slot))
        assert [list(snapshot.chunks()) for snapshot in snapshots[-2:]] == [[b"state"]] * 2
        assert [store.snapshot_at(slot) for slot in (20, 30, 35, 40, 50)] == [None, None, None, *snapshots[-2:]]
        for snapshot in snapshots[:-2]:
            self.refused(snapshot.read, 0, 1)
            self.refused(list, snapshot.chunks())
        self.assert_kept(store, tmp_path, [Checkpoint(50), voted(51, bytes(3000))])

    def test_the_size_of_all_snapshots(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        assert store.snapshots_bytes == 0
        sizes = []
        for slot in (1, 2, 3):
            sizes.append(self.take(store, slot, [bytes(100 * slot)]).size_bytes)
            assert store.snapshots_bytes == sum(sizes[-2:])
        data = self.peer_file(4)
        self.wait(store.receive_snapshot(4).write_raw(data[:-1]))
        assert store.snapshots_bytes == sum(sizes[-2:]) + len(data) - 1
        store = self.reopen(store, tmp_path)
        store.load()
        assert store.part is not None
        assert store.snapshots_bytes == sum(sizes[-2:]) + store.part[1]
        snapshot = self.wait(self.receive(store, 4, data))
        assert store.snapshots_bytes == sizes[-1] + snapshot.size_bytes
        self.wait(store.close())

    def test_a_snapshot_is_gone_after_a_crash_before_its_end(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([Checkpoint(1)]))
        first = self.take(store, 1)
        self.wait(store.save([Checkpoint(2), voted(3)]))
        self.wait(store.write_snapshot(2).write(b"half"))
        store = self.reopen(store, tmp_path)
        assert store.load() == [Checkpoint(1), Checkpoint(2), voted(3)]
        assert store.snapshot == first
        self.take(store, 2, [b"whole"])
        self.assert_kept(store, tmp_path, [Checkpoint(2), voted(3)])

    def test_a_peer_s_snapshot_is_the_same_byte_for_byte(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        chunks = [bytes(range(200)) * 10, b"end"]
        data = self.peer_file(7, chunks)
        snapshot = self.wait(self.receive(store, 7, data))
        assert list(snapshot.chunks()) == chunks
        assert snapshot.read(0, 1 << 20) == data
        assert store.snapshot == snapshot
        chunks.append(b"more")
        snapshot = self.take(store, 8, chunks)
        assert snapshot.read(0, 1 << 20) == self.peer_file(8, chunks)
        self.wait(store.close())

    def test_a_peer_s_snapshot_is_resumed_after_a_crash(self, tmp_path: Path) -> None:
        data = self.peer_file(7, CHUNKS)
        ends = [0, 24, 124, 224, 324, 344]  # of the header, of three frames, and of the end frame
        store = self.loaded(tmp_path)
        for have in range(len(data) + 1):
            writer = store.receive_snapshot(7)
            assert writer.size_bytes == max(end for end in ends if end < max(have, 1))
            self.wait(writer.write_raw(data[writer.size_bytes : have]))
            assert writer.size_bytes == have
            store = self.reopen(store, tmp_path)
            store.load()
        assert store.snapshot is None
        snapshot = self.wait(self.receive(store, 7, data))
        assert snapshot.read(0, 1 << 20) == data
        self.wait(store.close())

    def test_another_slot_is_received_from_the_beginning(self, tmp_path: Path) -> None:
        data = self.peer_file(7)
        store = self.loaded(tmp_path)
        self.wait(store.receive_snapshot(7).write_raw(data))
        store = self.reopen(store, tmp_path)
        store.load()
        writer = store.receive_snapshot(8)
        assert writer.size_bytes == 0
        self.wait(writer.write_raw(data[:1]))  # the other one has been removed by then
        store = self.reopen(store, tmp_path)
        store.load()
        assert store.receive_snapshot(7).size_bytes == 0
        self.wait(store.close())

    def test_a_part_that_is_not_needed_any_more_is_removed(self, tmp_path: Path) -> None:
        data = self.peer_file(7)
        store = self.loaded(tmp_path)
        self.wait(store.receive_snapshot(7).write_raw(data))
        self.take(store, 8)
        for _ in range(2):
            store = self.reopen(store, tmp_path)
            store.load()
        assert store.snapshot is not None
        assert store.snapshot.slot == 8
        self.wait(store.close())

    def test_a_peer_s_damaged_snapshot_is_refused_and_removed(self, tmp_path: Path) -> None:
        data = self.peer_file(7, CHUNKS)
        other = self.peer_file(8)
        twice = data[:124] + data[24:124] + data[224:]
        wrong = [b"", data[:-1], data + b"x", data[:124] + data[224:], twice, other, b"x" * 344, data[:24], other[:24]]
        wrong += [data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :] for at in range(0, len(data), 3)]
        store = self.loaded(tmp_path)
        for bad in wrong:
            self.refusal(self.receive(store, 7, bad))
            assert store.snapshot is None
        self.wait(store.save([voted(1)]))
        assert list(self.wait(self.receive(store, 7, data)).chunks()) == CHUNKS
        self.assert_kept(store, tmp_path, [voted(1)])

    def test_only_a_newer_snapshot_is_taken(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(self.receive(store, 7, self.peer_file(7)))
        for slot in (6, 7):
            for begin in (store.write_snapshot, store.receive_snapshot):
                assert "there is a snapshot at slot 7 already" in self.refused(begin, slot)
        assert store.snapshot is not None
        assert store.snapshot.slot == 7
        self.take(store, 8)
        self.assert_kept(store, tmp_path, [])

    def test_one_snapshot_is_taken_at_a_time(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for begin in (store.write_snapshot, store.receive_snapshot):
            first = begin(1)
            assert "slot 1 is still being written" in self.refused(begin, 2)
            self.wait(first.abandon())
            begin(2)
        self.wait(store.close())

    def test_one_begun_later_takes_the_place_of_one_of_the_other_kind(self, tmp_path: Path) -> None:
        """A store never holds two incomplete snapshots."""
        store = self.loaded(tmp_path)
        data = self.peer_file(7)
        taken = store.write_snapshot(6)
        self.wait(taken.write(b"x"))
        received = store.receive_snapshot(7)
        self.wait(received.write_raw(data[:30]))
        assert "the one at slot 7 has taken its place" in self.refusal(taken.write(b"y"))
        assert "the one at slot 7 has taken its place" in self.refusal(taken.finish())
        assert self.take(store, 8).slot == 8
        assert "the one at slot 8 has taken its place" in self.refusal(received.write_raw(data[30:]))
        self.wait(taken.abandon())
        self.assert_kept(store, tmp_path, [])

    def test_none_is_begun_while_another_is_being_finished(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        received = store.receive_snapshot(7)
        received.write_raw(self.peer_file(7))
        finished = received.finish()
        if store.snapshot is None:  # The store finishes snapshots asynchronously.
            for begin in (store.write_snapshot, store.receive_snapshot):
                assert "slot 7 is still being written" in self.refused(begin, 8)
        self.wait(finished)
        self.take(store, 8)
        self.assert_kept(store, tmp_path, [])

    def test_what_came_of_a_peer_s_goes_when_one_is_taken(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.receive_snapshot(7).write_raw(self.peer_file(7)))
        store = self.reopen(store, tmp_path)
        store.load()
        self.take(store, 6)
        store = self.reopen(store, tmp_path)
        store.load()
        assert store.receive_snapshot(7).size_bytes == 0
        self.wait(store.close())

    def test_an_abandoned_snapshot_leaves_nothing(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        data = self.peer_file(7)
        received = store.receive_snapshot(7)
        self.wait(received.write_raw(data))
        for _ in range(2):
            self.wait(received.abandon())
        taken = store.write_snapshot(7)
        self.wait(taken.write(b"x"))
        for _ in range(2):
            self.wait(taken.abandon())
        assert "abandoned" in self.refusal(taken.write(b"x"))
        assert "abandoned" in self.refusal(received.finish())
        store = self.reopen(store, tmp_path)
        assert store.load() == []
        assert store.snapshot is None
        assert store.receive_snapshot(7).size_bytes == 0
        self.wait(store.close())

    def test_a_snapshot_that_cannot_be_written_harms_nothing_else(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        self.wait(store.save([voted(1)]))
        writer = store.write_snapshot(1)
        self.wait(writer.write(b"x"))
        self.break_snapshot(store)
        line = self.refusal(writer.write(b"y"))
        assert "the node continues without it" in line
        assert self.refusal(writer.write(b"z")) == line
        assert self.refusal(writer.finish()) == line
        self.wait(writer.abandon())
        assert store.snapshot is None
        self.wait(store.save([voted(2)]))
        self.assert_kept(store, tmp_path, [voted(1), voted(2)])

    def test_snapshots_come_after_loading_and_before_closing(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        for slot in (1, 2):
            for begin in (store.write_snapshot, store.receive_snapshot):
                self.refused(begin, slot)
            store.load()
            writer = store.write_snapshot(slot) if slot == 1 else store.receive_snapshot(slot)
            self.wait(writer.write(b"x") if slot == 1 else writer.write_raw(b"x"))
            self.wait(store.close())
            for begin in (store.write_snapshot, store.receive_snapshot):
                self.refused(begin, slot)
            assert "closed" in self.refusal(writer.finish())
            store = self.reopen(store, tmp_path)
        self.assert_kept(store, tmp_path, [])

    def test_closing_waits_for_a_snapshot_that_is_being_finished(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for slot in (1, 2, 3):
            self.wait(store.save([Checkpoint(slot), voted(slot, bytes(3000))]))
            writer = store.write_snapshot(slot)
            for _ in range(20):
                writer.write(bytes(1000))
            finished = writer.finish()
            self.wait(store.close())
            assert self.wait(finished).slot == slot
            store = self.reopen(store, tmp_path)
            assert store.load() == [Checkpoint(slot), voted(slot, bytes(3000))]
        self.wait(store.close())

    def test_a_chunk_has_some_bytes_and_goes_where_chunks_go(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        received, taken = store.receive_snapshot(1), store.write_snapshot(1)
        for call, argument, error in (
            (taken.write, b"", ValueError),
            (taken.write, bytes((64 << 20) + 1), ValueError),
            (taken.write_raw, b"x", TypeError),
            (received.write, b"x", TypeError),
        ):
            try:
                call(argument)
            except error:
                continue
            raise AssertionError(f"{call} took it")
        assert list(self.wait(taken.finish()).chunks()) == []
        self.wait(store.close())

    def test_a_quarantined_store_is_not_loaded_before_its_snapshots_are_moved_away(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        records: list[Record] = [voted(1), Checkpoint(1), voted(2)]
        for record in records:
            self.wait(store.save([record]))
        self.take(store, 1)
        saved, quarantined = store.save([voted(3)]), store.quarantine("the state differs at slot 1: a, b against c")
        for done in (saved, quarantined, store.close()):
            self.wait(done)
        for _ in range(2):
            store = self.reopen(store, tmp_path)
            line = self.refused(store.load)
            assert "the state differs at slot 1: a, b against c" in line
            assert "snapshots.discarded" in line
            self.wait(store.close())
        self.discard_snapshots(store, tmp_path)
        store = self.reopen(store, tmp_path)
        assert store.load() == [*records, voted(3)]
        assert store.snapshot is None
        self.wait(self.receive(store, 7, self.peer_file(7)))
        self.wait(store.save([Checkpoint(7), voted(8)]))
        self.assert_kept(store, tmp_path, [Checkpoint(7), voted(8)])

    def test_a_store_may_be_quarantined_again(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        for slot in (1, 2):
            self.take(store, slot)
            self.wait(store.quarantine(f"slot {slot}"))
            store = self.reopen(store, tmp_path)
            assert f"slot {slot}" in self.refused(store.load)
            self.discard_snapshots(store, tmp_path)
            store = self.reopen(store, tmp_path)
            store.load()
        self.wait(store.close())

    def test_a_quarantine_marker_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        self.refusal(store.quarantine("too early"))
        store.load()
        self.break_snapshot(store)
        self.refusal(store.quarantine("in vain"))
        self.wait(store.close())
        self.refusal(store.quarantine("too late"))
        self.assert_kept(store, tmp_path, [])
