"""Performs Readys: save, then release, strictly in order. "Save before send" lives in this module and nowhere else.

All Readys of one reactor iteration are saved together (group commit). While a save is in flight, later Readys wait,
even those that save nothing. When the save finishes, the Readys that it covered are released, and no others. Only a
Ready that needs no earlier save, as the Ready itself says, is released at once. A failed save is final.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain

import attrs
from twisted.python.failure import Failure

from txpaxos.clock import MonotonicClock
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.ready import Ready, Record
from txpaxos.storage.store import Store

ROUNDS_MAX = 64
"""Upper bound on save-and-release rounds per reactor iteration. Releasing a Ready can produce another one; without a
bound the performer could starve the reactor."""


APPLY_SECONDS_MAX = 0.02
"""When values have taken so long to apply, the next ones wait for another turn: the reactor has others to serve, and
heartbeats to send."""


class Performer:
    """A queue of Readys between the core and the disk, the network and the application.

    A *turn* is what the performer does in one reactor iteration: rounds of saving and releasing. It may end before all
    is released that could be. The rest comes in the next turn, in its order.

    :param refill: called at the start of each round, also while a save is in flight; may :meth:`add` Readys.
    :param release: called with each Ready once that Ready, and all before it, are saved. A Ready that may overtake the
        others is released at once. It returns what is left of a Ready whose values take long to apply.
    :param fail: called once, with the failure of a save or of a ``release``. Nothing is released after that.
    :param saved: called with the seconds that each save took, before what it covers is released.
    :ivar saving_since: when, in seconds of the clock, the save in flight began; ``None`` if no save is in flight.
    """

    def __init__(
        self,
        clock: MonotonicClock,
        store: Store,
        refill: Callable[[], None],
        release: Callable[[Ready], Ready | None],
        fail: Callable[[Failure], None],
        saved: Callable[[float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._store = store
        self._refill = refill
        self._release = release
        self._fail = fail
        self._tell_saved = saved
        self._queue: list[Ready] = []
        self._saving: list[Ready] | None = None
        self._releasing: deque[Ready] = deque()
        self._late: deque[Ready] = deque()  # What is for the application, and waits for another turn.
        self._scheduled = False
        self._turning = False
        self._bypassing = False
        self._applied_seconds = 0.0  # How long values took to apply since the last turn began.
        self._at_end: list[Callable[[], None]] = []
        self._deferred = False
        self._stopped = False
        self.saving_since: float | None = None

    @property
    def waiting(self) -> int:
        """How many Readys wait for a save, or for their values to be applied."""
        return len(self._queue) + len(self._saving or ()) + len(self._late)

    @property
    def is_behind(self) -> bool:
        """Whether values wait that could be applied, since those before them have taken long."""
        return bool(self._late)

    def add(self, ready: Ready) -> None:
        """Perform ``ready`` after those that wait; at once if it may overtake them."""
        waiting = chain(self._late, self._releasing, self._saving or (), self._queue)
        if not (ready.chosen and self._has_applied_long) and ready.may_bypass(waiting):
            if ready.save:
                raise BrokenInvariant("what saves something rests on that", ready)
            if not self._stopped:
                self._bypass(ready)
        else:
            self._queue.append(ready)
        self.schedule()

    def _bypass(self, ready: Ready) -> None:
        """Release ``ready`` before those that wait."""
        is_within, self._bypassing = self._bypassing, True
        try:
            self._release_one(ready)
        finally:
            self._bypassing = is_within
            self._end()

    def at_end(self, function: Callable[[], None]) -> bool:
        """Have ``function`` called when all is released that is being released now. It must not raise.

        What a value of the log brings about can so be done when the whole of it is applied, and for several values
        together, and yet without waiting for the reactor's next iteration.

        :returns: whether anything is being released. Otherwise ``function`` is not called.
        """
        if not self._turning and not self._bypassing:
            return False
        self._at_end.append(function)
        return True

    def _end(self) -> None:
        """Call what waits for the end of all that is being released, if nothing is any more."""
        while self._at_end and not self._turning and not self._bypassing:
            functions, self._at_end = self._at_end, []
            for function in functions:
                function()

    def schedule(self) -> None:
        """Have a turn at the end of this reactor iteration, unless one is scheduled already."""
        if self._turning or self._stopped:
            return
        if not self._scheduled:
            self._scheduled = True
            self._clock.call_soon(self._start_turn)

    def stop(self) -> None:
        """Stop for good: no Ready is saved or released any more."""
        self._stopped = True

    def _start_turn(self) -> None:
        self._scheduled = False
        if not self._stopped:
            self._turn()

    def _turn(self, saved: list[Ready] | None = None) -> None:
        """Save and release until no Ready is left, or a save does not finish at once.

        :param saved: Readys whose save has just finished.
        """
        self._turning = True
        self._applied_seconds = 0.0
        try:
            self._release_all(saved or ())
            for _ in range(ROUNDS_MAX):
                if self._stopped:
                    return
                self._refill()
                if self._saving is not None or not self._queue:
                    if self._late:
                        break
                    return
                if not self._perform():
                    break
        except Exception:
            self._give_up(Failure())
        finally:
            self._turning = False
            self._end()
        self.schedule()

    def _perform(self) -> bool:
        """Release the Readys before the first one that saves. If the first one saves, save all of them instead.

        :returns: False if the save is deferred by one reactor iteration, because every save in the queue may be: the
            reactor reads its sockets first.
        """
        count = next((index for index, ready in enumerate(self._queue) if ready.save), len(self._queue))
        if count:
            batch, self._queue = self._queue[:count], self._queue[count:]
            self._release_all(batch)
            return True
        if not self._deferred and all(ready.may_defer for ready in self._queue if ready.save):
            self._deferred = True
            return False
        self._deferred = False
        batch, self._queue = self._queue, []
        records: list[Record] = [record for ready in batch for record in ready.save]
        self._saving = batch
        self.saving_since = self._clock.seconds()
        self._store.save(records).addCallback(self._saved).addErrback(self._give_up)
        return True

    def _saved(self, _: None) -> None:
        """The save in flight has finished: release the Readys that it covers."""
        batch, since = self._saving, self.saving_since
        self._saving = self.saving_since = None
        assert batch is not None
        if self._tell_saved is not None and since is not None:
            self._tell_saved(self._clock.seconds() - since)
        if self._turning:  # The save finished on the spot; the turn that began it continues.
            self._release_all(batch)
        else:
            self._turn(batch)

    def _release_all(self, batch: Iterable[Ready]) -> None:
        """Release what is saved, in its order. When values have taken long to apply, what is for the application waits
        for the next turn. Messages do not wait for it: other nodes count on hearing of this one."""
        self._releasing.extend(batch)
        while self._releasing and not self._stopped:
            self._release_late()
            ready = self._releasing.popleft()
            if not self._late and not self._has_applied_long:
                self._release_one(ready)
            elif not ready.hands_out:
                self._release(ready)
            elif ready.chosen and ready.send:
                self._late.append(attrs.evolve(ready, send=()))
                self._release(Ready(send=ready.send))
            else:
                self._late.append(ready)
        self._release_late()

    def _release_late(self) -> None:
        while self._late and not self._stopped and not self._has_applied_long:
            self._release_one(self._late.popleft())

    @property
    def _has_applied_long(self) -> bool:
        return self._applied_seconds >= APPLY_SECONDS_MAX

    def _release_one(self, ready: Ready) -> None:
        if not ready.chosen:
            self._release(ready)
            return
        began_at = self._clock.seconds()
        rest = self._release(ready)
        self._applied_seconds += self._clock.seconds() - began_at
        if rest is not None:
            self._late.appendleft(rest)

    def _give_up(self, failure: Failure) -> None:
        if not self._stopped:
            self.stop()
            self._fail(failure)
