"""How a snapshot comes back, and which do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from test.node.snapshots.test_taking import Log, SnapshotsHarness
from txpaxos.core.messages import Slot
from txpaxos.errors import StoreError
from txpaxos.storage.memory import MemoryStore


class TestRestore:
    def make(self, *chunks: bytes, slot: Slot = 10) -> MemoryStore:
        """A store with a snapshot of just these chunks."""
        store = MemoryStore()
        store.load()
        writer = store.write_snapshot(slot)
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
        return store

    def chunks(self) -> list[bytes]:
        """Those of a sound snapshot at slot 10."""
        harness = SnapshotsHarness()
        harness.choose(10)
        assert harness.store.snapshot is not None
        return list(harness.store.snapshot.chunks())

    def test_what_is_taken_comes_back(self) -> None:
        harness = SnapshotsHarness(store=self.make(*self.chunks()))
        assert harness.store.snapshot is not None
        harness.snapshots.restore(harness.store.snapshot)
        assert harness.applier.applied_through == 10

    def test_of_another_cluster(self) -> None:
        harness = SnapshotsHarness(store=self.make(*self.chunks()), cluster="other")
        assert harness.store.snapshot is not None
        with pytest.raises(StoreError, match=r"^the snapshot at slot 10 is of cluster test, not other$"):
            harness.snapshots.restore(harness.store.snapshot)

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (lambda chunks: chunks[1:], "it has no head"),
            (lambda chunks: [], "it has no head"),
            (lambda chunks: [chunks[0][:5], *chunks[1:]], "cannot be used"),
            (lambda chunks: [*chunks, b"\x09"], "a chunk of an unknown kind, b'\\\\t': run one release everywhere"),
            (lambda chunks: [chunks[0], b"\2nonsense", *chunks[2:]], "no table of sessions"),
            (lambda chunks: [*chunks, b"\3nonsense"], "cannot be used"),
        ],
    )
    def test_damaged(
        self,
        damage: Callable[[list[bytes]], list[bytes]],
        words: str,
        logged_errors: list[dict[str, Any]],
    ) -> None:
        harness = SnapshotsHarness(store=self.make(*damage(self.chunks())))
        assert harness.store.snapshot is not None
        with pytest.raises(StoreError, match=words) as caught:
            harness.snapshots.restore(harness.store.snapshot)
        assert "\n" not in str(caught.value)
        assert harness.applier.applied_through == 0
        logged_errors.clear()

    def test_of_another_slot_than_it_says(self) -> None:
        store = self.make(*self.chunks(), slot=11)
        assert store.snapshot is not None
        with pytest.raises(StoreError, match="it says it is of slot 10"):
            SnapshotsHarness(store=store).snapshots.restore(store.snapshot)

    def test_a_damaged_file_is_told_as_such(self) -> None:
        store = self.make(*self.chunks())
        ((path, content),) = store.files.contents.items()
        content[150] ^= 1
        assert store.snapshot is not None
        with pytest.raises(StoreError, match=path.replace(".", r"\.")):
            SnapshotsHarness(store=store).snapshots.restore(store.snapshot)

    def test_what_the_application_leaves_is_checked_all_the_same(self) -> None:
        class Hasty(Log):
            def restore(self, chunks: Iterator[bytes]) -> None:
                next(chunks)

        store = self.make(*self.chunks())
        ((_, content),), snapshot = store.files.contents.items(), store.snapshot
        assert snapshot is not None
        SnapshotsHarness(Hasty(), store).snapshots.restore(snapshot)
        content[-30] ^= 1
        with pytest.raises(StoreError):
            SnapshotsHarness(Hasty(), store).snapshots.restore(snapshot)

    def test_an_application_that_ends_the_process(self, logged_errors: list[dict[str, Any]]) -> None:
        class Leaves(Log):
            def restore(self, chunks: Iterator[bytes]) -> None:
                raise SystemExit(3)

        harness = SnapshotsHarness(Leaves(), self.make(*self.chunks()))
        assert harness.store.snapshot is not None
        with pytest.raises(StoreError, match=r"^the snapshot at slot 10 cannot be used: SystemExit: 3$"):
            harness.snapshots.restore(harness.store.snapshot)
        assert harness.applier.applied_through == 0
        logged_errors.clear()

    def test_an_application_that_refuses_it(self, logged_errors: list[dict[str, Any]]) -> None:
        class Newer(Log):
            def restore(self, chunks: Iterator[bytes]) -> None:
                raise KeyError("version 2")

        harness = SnapshotsHarness(Newer(), self.make(*self.chunks()))
        assert harness.store.snapshot is not None
        with pytest.raises(StoreError, match=r"^the snapshot at slot 10 cannot be used: KeyError: 'version 2'$"):
            harness.snapshots.restore(harness.store.snapshot)
        assert harness.applier.applied_through == 0
        (event,) = logged_errors
        assert event["log_format"] == "restore raised at slot {slot}"
        logged_errors.clear()
