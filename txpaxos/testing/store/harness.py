"""How the tests of :mod:`~txpaxos.testing.store.contract` make, open and break a store, and the records that they
save."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.core.messages import Ballot
from txpaxos.core.ready import Record, Voted
from txpaxos.errors import StoreError
from txpaxos.storage.store import Store

T = TypeVar("T")

BALLOT = Ballot(7, "node-1")


def voted(slot: int, value: bytes = b"value") -> Voted:
    """A vote at ``slot``."""
    return Voted(BALLOT, slot, value, max(0, slot - 1))


class StoreHarness:
    """The methods that a subclass implements for its store, and the steps of the tests."""

    def make_store(self, location: Path) -> Store:
        """A new store. ``location`` is an empty folder that it may use."""
        raise NotImplementedError

    def reopen(self, store: Store, location: Path) -> Store:
        """Another store on what ``store`` has saved. ``store`` was closed, or its process is treated as ended."""
        raise NotImplementedError

    def break_store(self, store: Store) -> None:
        """Make every further operation of the medium under ``store`` fail."""
        raise NotImplementedError

    def break_snapshot(self, store: Store) -> None:
        """Make the next write of a snapshot of ``store`` fail. Other operations still work."""
        raise NotImplementedError

    def discard_snapshots(self, store: Store, location: Path) -> None:
        """Move the snapshots of ``store`` away, as an operator does who wants the state from the other nodes."""
        raise NotImplementedError

    def wait(self, deferred: Deferred[T]) -> T:
        """The result of ``deferred``. It must have fired already, unless a subclass overrides this method."""
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        assert results, "the Deferred has not fired"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def refusal(self, deferred: Deferred[T]) -> str:
        """The error of ``deferred``, which must be a single clear line."""
        line = ""
        try:
            self.wait(deferred)
        except StoreError as error:
            line = str(error)
        assert line, "the store did not refuse"
        assert "\n" not in line
        return line

    @staticmethod
    def _note(fired: list[int], number: int, _: None) -> None:
        fired.append(number)

    def loaded(self, location: Path) -> Store:
        """A new store that has been loaded."""
        store = self.make_store(location)
        assert store.load() == []
        return store

    def assert_kept(self, store: Store, location: Path, records: Sequence[Record], *, close: bool = True) -> None:
        """Check that another store loads ``records``, and yet another one after it."""
        for _ in range(2):
            if close:
                self.wait(store.close())
            store = self.reopen(store, location)
            assert store.load() == list(records)
        self.wait(store.close())

    def refused(self, call: Callable[..., object], *arguments: object) -> str:
        """The error of ``call``, which must be a single clear line."""
        try:
            call(*arguments)
        except StoreError as error:
            line = str(error)
            assert line
            assert "\n" not in line
            return line
        raise AssertionError("the store did not refuse")
