"""How the tests of :mod:`~txpaxos.testing.store.contract` get at a store, and what they put into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txpaxos.core.messages import Ballot, Proposal
from txpaxos.core.ready import DecreeState, Record, SubjectState, Voted
from txpaxos.errors import StoreError
from txpaxos.storage.store import Store

T = TypeVar("T")

BALLOT = Ballot(7, "node-1")


def voted(slot: int, value: bytes = b"value") -> Voted:
    """A vote at ``slot``."""
    return Voted(BALLOT, slot, value, max(0, slot - 1))


def subject(name: str, round: int) -> SubjectState:
    """A state of the subject ``name``, unlike that of any other ``round``."""
    ballot = Ballot(round, "node-1")
    return SubjectState(name, DecreeState(ballot, Proposal(ballot, b"%d" % round), None))


class StoreHarness:
    """What a subclass says of its store, and what the tests do with it."""

    def make_store(self, location: Path) -> Store:
        """A new store, for which ``location`` is an empty folder."""
        raise NotImplementedError

    def reopen(self, store: Store, location: Path) -> Store:
        """Another store on what ``store`` saved. ``store`` was closed, or else its process ends here and now."""
        raise NotImplementedError

    def break_store(self, store: Store) -> None:
        """Have whatever is under ``store`` refuse from now on."""
        raise NotImplementedError

    def break_snapshot(self, store: Store) -> None:
        """Have whatever is under ``store`` refuse what is written next of a snapshot. Nothing else suffers."""
        raise NotImplementedError

    def discard_snapshots(self, store: Store, location: Path) -> None:
        """Put the snapshots of ``store`` aside, as somebody does who wants the state from the other nodes."""
        raise NotImplementedError

    def wait(self, deferred: Deferred[T]) -> T:
        """The result of ``deferred``, which has fired already unless this is overridden."""
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        assert results, "the Deferred has not fired"
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def refusal(self, deferred: Deferred[T]) -> str:
        """The one clear line with which ``deferred`` fails."""
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
        """A new store, ready to save."""
        store = self.make_store(location)
        assert store.load() == []
        return store

    def assert_kept(self, store: Store, location: Path, records: Sequence[Record], *, close: bool = True) -> None:
        """That ``records`` are what another store loads, and one after that."""
        for _ in range(2):
            if close:
                self.wait(store.close())
            store = self.reopen(store, location)
            assert store.load() == list(records)
        self.wait(store.close())

    def refused(self, call: Callable[..., object], *arguments: object) -> str:
        """The one clear line with which ``call`` is refused."""
        try:
            call(*arguments)
        except StoreError as error:
            line = str(error)
            assert line
            assert "\n" not in line
            return line
        raise AssertionError("the store did not refuse")
