"""Performs Readys: save, then release, strictly in order. The one room in which "save before send" lives.

All that arrives in one reactor turn is saved together (group commit). While a save is in flight, later Readys wait,
also those that save nothing; when it finishes, it releases those it covered and no others. Only a Ready that rests on
nothing, as it says itself, does not wait for a save. A failed save is final.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

from twisted.python.failure import Failure

from txpaxos.clock import MonotonicClock
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.ready import Ready, Record
from txpaxos.storage.store import Store

ROUNDS_MAX = 64
"""So often a turn saves and releases before it is the reactor's: what is released may bring up more, without end."""


class Performer:
    """A queue of Readys between the core and the world.

    :param refill: called when a turn begins, also while a save is in flight, and whenever more is to be done; may
        :meth:`add` more.
    :param release: called with each Ready once it, and all before it, are saved; with one that may overtake them at
        once.
    :param fail: called once, with the failure of a save or of a ``release``. Nothing is released after it.
    :ivar saving_since: when, in its reactor's seconds, the save in flight was begun; ``None`` if there is none.
    """

    def __init__(
        self,
        clock: MonotonicClock,
        store: Store,
        refill: Callable[[], None],
        release: Callable[[Ready], None],
        fail: Callable[[Failure], None],
    ) -> None:
        self._clock = clock
        self._store = store
        self._refill = refill
        self._release = release
        self._fail = fail
        self._queue: list[Ready] = []
        self._saving: list[Ready] | None = None
        self._releasing: deque[Ready] = deque()
        self._scheduled = False
        self._turning = False
        self._put_off = False
        self._stopped = False
        self.saving_since: float | None = None

    @property
    def waiting(self) -> int:
        """Readys that wait for a save."""
        return len(self._queue) + len(self._saving or ())

    def add(self, ready: Ready) -> None:
        """Perform ``ready`` when its turn has come: at once, if it may overtake those that wait."""
        if ready.may_bypass(chain(self._releasing, self._saving or (), self._queue)):
            if ready.save:
                raise BrokenInvariant("what saves something rests on that", ready)
            if not self._stopped:
                self._release(ready)
        else:
            self._queue.append(ready)
        self.schedule()

    def schedule(self) -> None:
        """Have a turn at the end of this reactor turn, if none is due already."""
        if self._turning or self._stopped:
            return
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_soon(self._start_turn)

    def stop(self) -> None:
        """Perform nothing more."""
        self._stopped = True

    def _start_turn(self) -> None:
        self._scheduled = False
        if not self._stopped:
            self._turn()

    def _turn(self, saved: list[Ready] | None = None) -> None:
        """Save and release until nothing is left to do, or a save takes its time.

        :param saved: Readys whose save has just finished.
        """
        self._turning = True
        try:
            self._release_all(saved or ())
            for _ in range(ROUNDS_MAX):
                if self._stopped:
                    return
                self._refill()
                if self._saving is not None or not self._queue:
                    return
                if not self._perform():
                    break
        except Exception:
            self._give_up(Failure())
        finally:
            self._turning = False
        self.schedule()

    def _perform(self) -> bool:
        """Release what stands before the first Ready that saves; if there is no such, save all there is.

        :returns: False if that is put off: what nobody is in a hurry for lets the reactor look at its sockets first.
        """
        count = next((index for index, ready in enumerate(self._queue) if ready.save), len(self._queue))
        if count:
            batch, self._queue = self._queue[:count], self._queue[count:]
            self._release_all(batch)
            return True
        if not self._put_off and all(ready.may_defer for ready in self._queue if ready.save):
            self._put_off = True
            return False
        self._put_off = False
        batch, self._queue = self._queue, []
        records: list[Record] = [record for ready in batch for record in ready.save]
        self._saving = batch
        self.saving_since = self._clock.seconds()
        self._store.save(records).addCallback(self._saved).addErrback(self._give_up)
        return True

    def _saved(self, _: None) -> None:
        """The save in flight has finished: release what it covers."""
        batch, self._saving, self.saving_since = self._saving, None, None
        assert batch is not None
        if self._turning:  # It finished on the spot; the turn that began it goes on.
            self._release_all(batch)
        else:
            self._turn(batch)

    def _release_all(self, batch: Iterable[Ready]) -> None:
        self._releasing.extend(batch)
        while self._releasing and not self._stopped:
            self._release(self._releasing.popleft())

    def _give_up(self, failure: Failure) -> None:
        if not self._stopped:
            self.stop()
            self._fail(failure)
