"""Services of the recipes on one node in memory, with sessions that the test opens and ends."""

from __future__ import annotations

from txpaxos.recipes.replicated.sessions import TTL_MS_MAX, Sessions
from txpaxos.service.declaration import S, Service, context_of
from txpaxos.testing.services_harness import ServicesHarness


class Nodes:
    """A node. A test calls the methods of the services themselves, as :meth:`of` gives them.

    :ivar told: the topics that services have said have changed.
    """

    def __init__(self, *kinds: type[Service]) -> None:
        self.harness = ServicesHarness(Sessions, *kinds)
        self.kinds = kinds
        self.told: list[str] = []
        self._listen()

    def of(self, kind: type[S]) -> S:
        return self.harness.state_of(kind)

    def open(self, session_id: str) -> None:
        self.of(Sessions).open(session_id, TTL_MS_MAX)

    def close(self, session_id: str) -> None:
        assert self.of(Sessions).close(session_id)

    def advance(self, seconds: float) -> None:
        self.harness.advance(seconds)

    def restart(self) -> None:
        """Go on with the snapshot of the node, on a new one."""
        self.harness.snapshot_and_restore()
        self._listen()

    def _listen(self) -> None:
        for kind in self.kinds:
            context_of(self.of(kind))._changed = self._note

    def _note(self, service: str, topic: str | None) -> None:
        if topic is not None:  # That stands for all that has no topic.
            self.told.append(topic)
