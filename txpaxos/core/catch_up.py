"""Asking other nodes for chosen values that this node misses."""

from __future__ import annotations

from math import inf
from random import Random

from txpaxos.core.config import Timing
from txpaxos.core.log import Log
from txpaxos.core.membership import Membership
from txpaxos.core.messages import Fetch, NodeId, Slot
from txpaxos.core.ready import Work


class CatchUp:
    """What another node knows to be chosen and is not in ``log``: up to which slot, which node said so, when to ask.

    :param membership: knows which nodes may be asked.
    :ivar wake_at: when :meth:`tick` is next due; infinite for never.
    """

    def __init__(self, log: Log, membership: Membership, timing: Timing, rng: Random) -> None:
        self.wake_at = inf
        self._log = log
        self._membership = membership
        self._timing = timing
        self._rng = rng
        self._through: Slot = 0
        self._source: NodeId = ""
        self._attempts = 0
        self._hinted_at: dict[NodeId, float] = {}

    @property
    def heard_through(self) -> Slot:
        """The last slot up to which any node has said that all slots are chosen."""
        return self._through

    def note_missing(self, source: NodeId, through: Slot, now: float) -> None:
        """``source`` knows every slot up to ``through``. The missing ones are asked for soon, unless they come by
        themselves: a later message may just have overtaken theirs."""
        if through <= self._log.chosen_through:
            return
        self._through = max(self._through, through)
        self._source = source
        if self.wake_at == inf:
            self._attempts = 0
            self.wake_at = now + self._timing.retry_seconds / 2

    def ask_any(self, work: Work) -> None:
        """Ask any other node, at random, what comes after all that is known here. It may have nothing.
        Only for a node that has others to ask."""
        work.send_to(self._rng.choice(self._membership.sources), Fetch(self._log.chosen_through + 1))

    def receive_hint(self, work: Work, source: NodeId, now: float) -> None:
        """``source`` may have what is missing. A hint can be forged, so nothing is believed but the answer, and
        ``source`` is not asked often."""
        if now >= self._hinted_at.get(source, -inf) + self._timing.retry_seconds:
            self._hinted_at[source] = now
            work.send_to(source, Fetch(self._log.chosen_through + 1))

    def request_next(self, work: Work, source: NodeId, through: Slot, now: float) -> None:
        """``source`` has sent some of what is missing and knows every slot up to ``through``: ask for the next part."""
        self._through = max(self._through, through)
        self._source = source
        self.ask_at_once(work, now)

    def ask_at_once(self, work: Work, now: float) -> None:
        """Some of what is missing has come: ask for the next part at once, and count the tries anew."""
        self._attempts = 0
        self._ask(work, now)

    def tick(self, work: Work, now: float) -> None:
        """Ask, if it is time."""
        if now >= self.wake_at:
            self._ask(work, now)

    def _ask(self, work: Work, now: float) -> None:
        """Ask for the first missing slot. Every second try in a row goes to another node, chosen at random."""
        if self._through <= self._log.chosen_through:
            self.wake_at = inf
            return
        if self._attempts % 2 and self._membership.sources:
            self._source = self._rng.choice(self._membership.sources)
        work.send_to(self._source, Fetch(self._log.chosen_through + 1))
        self.wake_at = now + self._timing.retry_after(self._attempts, self._rng)
        self._attempts += 1
