"""Every store keeps the same contract."""

from __future__ import annotations

import errno
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from test.storage.test_disk import FaultyDisk, failing
from txpaxos.core.ready import Checkpoint
from txpaxos.storage.disk import Disk
from txpaxos.storage.executor import execute_now
from txpaxos.storage.memory import MemoryStore
from txpaxos.storage.snapshot_file import END_BYTES
from txpaxos.storage.store import DiskStore, Store
from txpaxos.testing.store.contract import StoreContract
from txpaxos.testing.store.harness import voted

T = TypeVar("T")


class TestMemoryStore(StoreContract):
    def make_store(self, location: Path) -> MemoryStore:
        return MemoryStore()

    def reopen(self, store: Store, location: Path) -> MemoryStore:
        assert isinstance(store, MemoryStore)
        return store.reopen()

    def break_store(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.failing = True

    def break_snapshot(self, store: Store) -> None:
        assert isinstance(store, MemoryStore)
        store.files.failing = True

    def discard_snapshots(self, store: Store, location: Path) -> None:
        assert isinstance(store, MemoryStore)
        for path in [path for path in store.files.contents if path.endswith(".snapshot")]:
            del store.files.contents[path]

    def test_a_reopened_store_leaves_nothing_to_the_old_one(self, tmp_path: Path) -> None:
        store = self.loaded(tmp_path)
        again = store.reopen() if isinstance(store, MemoryStore) else None
        self.refusal(store.save([]))
        assert again is not None


class TestDiskStore(StoreContract):
    options: dict[str, Any] = {"execute": execute_now, "segment_bytes": 1 << 20}

    def make_store(self, location: Path) -> DiskStore:
        self.disk = FaultyDisk(Disk())
        return DiskStore(f"{location}/data", "cluster", "node-1", disk=self.disk, **self.options)

    def reopen(self, store: Store, location: Path) -> DiskStore:
        self.disk.kill()
        return self.make_store(location)

    def break_store(self, store: Store) -> None:
        self.disk.at, self.disk.fault = len(self.disk.calls), failing(errno.EIO)  # once, and never again

    break_snapshot = break_store

    def discard_snapshots(self, store: Store, location: Path) -> None:
        folder = location / "data"
        number = len(list(folder.glob("snapshots.discarded*")))
        (folder / "snapshots").rename(folder / f"snapshots.discarded{number}")

    def test_the_sizes_are_those_of_the_files(self, tmp_path: Path) -> None:
        def check(store: DiskStore) -> tuple[int, int]:
            told = store.journal_bytes, store.snapshots_bytes
            folders = (tmp_path / "data" / name for name in ("journal", "snapshots"))
            assert told == tuple(sum(file.stat().st_size for file in folder.glob("*")) for folder in folders)
            return told

        store = self.make_store(tmp_path)
        store.load()
        first = check(store)
        assert first == (self.options["segment_bytes"], 0)
        for slot in (10, 20, 30):
            self.wait(store.save([Checkpoint(slot), voted(slot + 1, bytes(3000)), voted(slot + 2, bytes(3000))]))
            check(store)
            writer = store.write_snapshot(slot)
            self.wait(writer.write(bytes(slot)))
            assert check(store)[1] > 0
            self.wait(writer.finish())
            check(store)
        data = self.peer_file(40)
        received = store.receive_snapshot(40)
        self.wait(received.write_raw(data))
        before = check(store)
        self.wait(received.abandon())
        assert check(store)[1] == before[1] - len(data)
        self.wait(store.receive_snapshot(40).write_raw(data[:-END_BYTES]))
        store = self.reopen(store, tmp_path)
        store.load()
        assert check(store)[1] == before[1] - END_BYTES
        self.wait(store.close())

    @pytest.fixture(autouse=True)
    def _let_go(self) -> Iterator[None]:
        yield
        self.disk.kill()


class TestDiskStoreOfSmallSegments(TestDiskStore):
    options = {"execute": execute_now, "segment_bytes": 4096}


@implementer(IReactorFromThreads)
class ReactorThread:
    """As much of a reactor as the store's thread needs: the test's thread runs what it is given when it waits."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], object]] = queue.Queue()

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        self.calls.put(lambda: callable(*args, **kwargs))

    def wait(self, deferred: Deferred[Any]) -> None:
        fired: list[object] = []  # not .called: it is true also while a Deferred waits for another one
        deferred.addBoth(self._note, fired)
        while not fired:
            self.calls.get(timeout=30)()

    @staticmethod
    def _note(result: T, fired: list[object]) -> T:
        fired.append(None)
        return result


class TestDiskStoreInThread(TestDiskStore):
    reactor: ReactorThread

    def make_store(self, location: Path) -> DiskStore:
        self.reactor = ReactorThread()
        self.options = {"sync_in_thread": True, "reactor": self.reactor, "segment_bytes": 4096}
        return super().make_store(location)

    def wait(self, deferred: Deferred[T]) -> T:
        self.reactor.wait(deferred)
        return super().wait(deferred)
