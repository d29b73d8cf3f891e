"""Nodes with the checker looking on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred

from txpaxos.core.config import Limits
from txpaxos.core.messages import Slot
from txpaxos.core.ready import Chosen, Installed, Ready, SubjectChosen
from txpaxos.node.sessions import Outcomes, Sessions
from txpaxos.node.snapshots.taking import Taken
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.snapshots import Snapshot
from txpaxos.testing.simulator.environment import Environment
from txpaxos.wire.commands import Run


class Watched(PaxosProtocol):
    """Tells the checker what this node does, and has it remember as few sessions as the cluster says. It does nothing
    else otherwise than its application."""

    def __init__(self, cluster: Environment, snapshot_stands: Callable[[], None], *args: Any, **kwargs: Any) -> None:
        self._watching = cluster
        self._snapshot_stands = snapshot_stands
        super().__init__(*args, **kwargs)
        own: Any = self
        self._applier.sessions._sessions_max = cluster.sessions_max
        self._real_apply, own._applier._apply = self._applier._apply, self._watched_apply
        self._real_install, own._applier.install = self._applier.install, self._watched_install
        self._real_complete, own._submissions.complete = self._submissions.complete, self._watched_complete
        self._real_restore, own._compaction.restore = self._compaction.restore, self._watched_restore
        if cluster.transfer_limits is not None:
            for part in (own._compaction._sender, own._compaction._receiver):
                part._limits = cluster.transfer_limits
        snapshots = own._compaction._snapshots
        self._real_taken, snapshots._taken = snapshots._taken, self._watched_taken

    def submit_run(self, run: Run) -> Deferred[Outcomes]:
        """A caller on this node submits: no client has said so before."""
        if run.session == self._session.name:
            self._watching.checker.submitting(run)
        return super().submit_run(run)

    def _release(self, ready: Ready) -> None:
        snapshot = self._store.snapshot
        slot = 0 if snapshot is None else snapshot.slot
        self._watching.checker.performed(self.node, ready, self._limits or Limits())
        self._watching.checker.keeping(self.node, self._replica.log.first_slot, slot)
        super()._release(ready)

    def _hand_out(self, chosen: Chosen | SubjectChosen | Installed) -> None:
        checker = self._watching.checker
        if not isinstance(chosen, Installed):  # Before anybody is answered, and the node perhaps made to die.
            checker.handing_out(self.node, chosen)
        super()._hand_out(chosen)
        if isinstance(chosen, Installed):
            self._watching.tally["snapshots installed"] += 1
            checker.installed(self.node, chosen.slot)
        elif isinstance(chosen, Chosen):
            checker.handed_out(self.node, chosen.slot)

    def _watched_apply(self, slot: Slot, command: bytes) -> object:
        self._watching.checker.applied(self.node)
        try:
            return self._real_apply(slot, command)
        except Exception as error:
            # Processes word an exception differently: by the address of an object in it, say. Nodes must not mind.
            said = f"{error} (node {self.node} at {self._watching.world.now})"
            raise type(type(error).__name__, (Exception,), {})(said) from error

    def _watched_install(self, slot: Slot, sessions: Sessions) -> None:
        sessions._sessions_max = self._watching.sessions_max
        self._real_install(slot, sessions)

    def _watched_complete(self, run: Run, outcomes: Outcomes) -> None:
        self._watching.checker.finished(self.node, run, outcomes)
        self._real_complete(run, outcomes)

    def _watched_restore(self, snapshot: Snapshot) -> None:
        self._real_restore(snapshot)
        self._watching.tally["snapshots restored"] += 1
        self._watching.checker.state(self.node, snapshot.slot, self._compaction.state_hash())

    def _watched_taken(self, taken: Taken) -> None:
        self._watching.tally["snapshots taken"] += 1
        self._snapshot_stands()
        self._watching.checker.taken(self.node, taken.slot)
        self._watching.checker.state(self.node, taken.slot, taken.state_hash)
        self._real_taken(taken)


def watched(app: type[PaxosProtocol]) -> type[Watched]:
    """``app`` with the checker looking on."""
    return cast("type[Watched]", type("Watched", (Watched, app), {}))
