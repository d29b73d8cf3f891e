"""Asking for chosen values that one node misses and others have."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random

from txpaxos.core.config import Timing
from txpaxos.core.log import Log
from txpaxos.core.messages import Fetch, NodeId, Slot
from txpaxos.core.ready import Work


class CatchUp:
    """What is known to be chosen somewhere and is not in ``log``, who said so, and when to ask.

    :param others: the nodes that may be asked.
    :ivar wake_at: when :meth:`tick` is next due; infinite for never.
    """

    def __init__(self, log: Log, others: Sequence[NodeId], timing: Timing, rng: Random) -> None:
        self.wake_at = inf
        self._log = log
        self._others = others
        self._timing = timing
        self._rng = rng
        self._through: Slot = 0
        self._source: NodeId = ""
        self._attempts = 0
        self._hinted_at: dict[NodeId, float] = {}

    @property
    def heard_through(self) -> Slot:
        """How far some node has said that slots are chosen."""
        return self._through

    def note_missing(self, source: NodeId, through: Slot, now: float) -> None:
        """``source`` knows every slot up to ``through``. What of that is missing is asked for soon, if it does not come
        by itself: it may just have been overtaken."""
        if through <= self._log.chosen_through:
            return
        self._through = max(self._through, through)
        self._source = source
        if self.wake_at == inf:
            self._attempts = 0
            self.wake_at = now + self._timing.retry_seconds / 2

    def take_hint(self, work: Work, source: NodeId, now: float) -> None:
        """``source`` may have what is missing. It is believed when it answers, so it is only asked, and not often: a
        hint can be forged."""
        if now >= self._hinted_at.get(source, -inf) + self._timing.retry_seconds:
            self._hinted_at[source] = now
            work.send_to(source, Fetch(self._log.chosen_through + 1))

    def request_next(self, work: Work, source: NodeId, through: Slot, now: float) -> None:
        """``source`` has sent some of what is missing and knows every slot up to ``through``: ask for the next part."""
        self._through = max(self._through, through)
        self._source = source
        self.ask_at_once(work, now)

    def ask_at_once(self, work: Work, now: float) -> None:
        """Some of what is missing has come: ask for the next part, as if nothing had ever been asked in vain."""
        self._attempts = 0
        self._ask(work, now)

    def tick(self, work: Work, now: float) -> None:
        """Ask, if it is time."""
        if now >= self.wake_at:
            self._ask(work, now)

    def _ask(self, work: Work, now: float) -> None:
        """With every second try in vain, ask somebody else."""
        if self._through <= self._log.chosen_through:
            self.wake_at = inf
            return
        if self._attempts % 2:
            self._source = self._rng.choice(self._others)
        work.send_to(self._source, Fetch(self._log.chosen_through + 1))
        self.wake_at = now + self._timing.retry_after(self._attempts, self._rng)
        self._attempts += 1
