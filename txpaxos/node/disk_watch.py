"""Noticing a disk that hangs: a node whose saves do not end leaves its part to the others until they do."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.node.performer import Performer


class DiskWatch:
    """Looks how long the save under way takes.

    :param name: this node's id.
    :param seconds_max: how long a save may take. The others wait no longer for a leader.
    :param hangs: called with the time when a save has taken too long.
    :param works: called with the time when that save has ended.
    :ivar hung_since: when the save was begun that takes too long, in monotonic seconds; ``None`` if there is none.
    """

    log = Logger()

    def __init__(
        self,
        name: NodeId,
        performer: Performer,
        seconds_max: float,
        hangs: Callable[[float], None],
        works: Callable[[float], None],
    ) -> None:
        self.hung_since: float | None = None
        self._name = name
        self._performer = performer
        self._seconds_max = seconds_max
        self._hangs = hangs
        self._works = works

    @property
    def look_at(self) -> float | None:
        """When :meth:`is_hung` should be asked next, in monotonic seconds; ``None`` while nothing is saved."""
        since = self._performer.saving_since
        return None if since is None or self.hung_since is not None else since + self._seconds_max

    def is_hung(self, now: float) -> bool:
        """Whether the save under way takes too long."""
        since = self._performer.saving_since
        if self.hung_since is None and since is not None and now >= since + self._seconds_max:
            self.hung_since = since
            self.log.warn(
                "the disk of node {node} hangs: a save that began {seconds:.1f} s ago has not ended; until it has, this"
                " node neither leads nor votes, and sends its clients to the others",
                node=self._name,
                seconds=now - since,
            )
            self._hangs(now)
        return self.still_hangs(now)

    def still_hangs(self, now: float) -> bool:
        """Whether the save that took too long is still under way. If it has ended, this node takes part again."""
        since = self.hung_since
        if since is None or self._performer.saving_since == since:
            return since is not None
        self.hung_since = None
        self.log.warn(
            "the disk of node {node} works again: a save took {seconds:.1f} s", node=self._name, seconds=now - since
        )
        self._works(now)
        return False
