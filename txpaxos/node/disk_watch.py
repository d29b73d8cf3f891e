"""Detection of a disk that hangs.

A node whose save takes too long neither leads nor votes until that save has finished.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from txpaxos.core.messages import NodeId
from txpaxos.node.performer import Performer


class DiskWatch:
    """Measures how long the current save takes.

    :param name: this node's id.
    :param performer: tells when the current save started.
    :param seconds_max: how long a save may take. It is the longest time that followers wait for their leader.
    :param hangs: called with the current time, in monotonic seconds, when a save has taken too long.
    :param works: called with the current time, in monotonic seconds, when that save has finished.
    :ivar hung_since: when the save that takes too long was started, in monotonic seconds; ``None`` if none does.
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
        """When to call :meth:`is_hung` next, in monotonic seconds; ``None`` if no save is under way."""
        since = self._performer.saving_since
        return None if since is None or self.hung_since is not None else since + self._seconds_max

    def is_hung(self, now: float) -> bool:
        """Whether the disk hangs at ``now``. Calls ``hangs`` or ``works`` if that has changed."""
        since = self._performer.saving_since
        if self.hung_since is None and since is not None and now >= since + self._seconds_max:
            self.hung_since = since
            self.log.warn(
                "the disk of node {node} hangs: a save that began {seconds:.1f} s ago has not ended; until it has, this"
                " node neither leads nor votes, and sends its clients to the others",
                node=self._name,
                seconds=now - since,
                event="disk_hangs",
            )
            self._hangs(now)
        return self.still_hangs(now)

    def still_hangs(self, now: float) -> bool:
        """Whether the save that took too long is still under way. Calls ``works`` if it has finished."""
        since = self.hung_since
        if since is None or self._performer.saving_since == since:
            return since is not None
        self.hung_since = None
        self.log.warn(
            "the disk of node {node} works again: a save took {seconds:.1f} s",
            node=self._name,
            seconds=now - since,
            event="disk_works_again",
        )
        self._works(now)
        return False
