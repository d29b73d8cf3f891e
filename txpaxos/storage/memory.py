"""A store that forgets when the process ends: for tests, simulations, and nodes that may lose everything together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred, fail, succeed

from txpaxos.core.ready import JournalRecord, Record, SubjectState
from txpaxos.errors import StoreError
from txpaxos.storage.execute import Execute, execute_here
from txpaxos.storage.records import divide


class MemoryStore:
    """:class:`~txpaxos.storage.store.Store` in memory.

    :param saved: what was saved before.
    :param incarnation: random, once per store; not 0.
    :param execute: does the saves; a simulator passes one that takes its time.

    Set ``failing`` to have every save from then on refused, as on a disk that broke.
    """

    def __init__(self, saved: Iterable[Record] = (), incarnation: int = 1, execute: Execute = execute_here) -> None:
        self.incarnation = incarnation
        self.failing = False
        self._execute = execute
        self._log, self._subjects = divide(saved)
        self._loaded = False
        self._closed = False

    @property
    def saved(self) -> list[Record]:
        """What a store opened now on the same records would load."""
        return [*self._log, *(self._subjects[subject] for subject in sorted(self._subjects))]

    def load(self) -> list[Record]:
        """See :meth:`txpaxos.storage.store.Store.load`."""
        if self._loaded or self._closed:
            raise StoreError("a store is loaded once, while it is open: open another one on what this one saved")
        self._loaded = True
        return self.saved

    def save(self, records: Sequence[Record]) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.save`."""
        if self._closed or not self._loaded:
            return fail(StoreError("a store takes records between load() and close()"))
        log, subjects = divide(records)
        return self._execute(lambda: self._write(log, subjects))

    def close(self) -> Deferred[None]:
        """See :meth:`txpaxos.storage.store.Store.close`."""
        if self._closed:
            return succeed(None)
        self._closed = True
        return self._execute(lambda: None)

    def reopen(self) -> MemoryStore:
        """A store with what this one has saved so far, as after a restart of the node. This one takes nothing more."""
        self._closed = True
        return MemoryStore(self.saved, self.incarnation, self._execute)

    def _write(self, log: list[JournalRecord], subjects: dict[str, SubjectState]) -> None:
        if self.failing:
            raise StoreError("this store was told to fail; start the node again")
        self._log += log
        self._subjects |= subjects
