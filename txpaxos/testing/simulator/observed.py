"""What connects the nodes of a simulated cluster with the checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from txpaxos.core.messages import NodeId, Slot
from txpaxos.node.events import (
    CommandReached,
    Event,
    ReadyReleased,
    RegisterReached,
    RunFinished,
    RunSubmitted,
    SlotApplied,
    SnapshotInstalled,
    SnapshotRestored,
    SnapshotTaken,
    ValueReached,
)
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.store import Store
from txpaxos.testing.simulator.environment import Environment


class CheckingObserver:
    """Tells the checker what one node does.

    :param name: the node's id.
    :param snapshot_complete: called when the node has completed a snapshot.
    """

    def __init__(
        self, environment: Environment, name: NodeId, store: Store, snapshot_complete: Callable[[], None]
    ) -> None:
        self._environment = environment
        self._checker = environment.checker
        self._name = name
        self._store = store
        self._snapshot_complete = snapshot_complete

    def __call__(self, event: Event) -> None:
        """Tell the checker about one event of the node."""
        name, checker, counts = self._name, self._checker, self._environment.counts
        match event:
            case ReadyReleased():
                snapshot = self._store.snapshot
                checker.performed(name, event.ready, self._environment.settings.limits)
                checker.keeping(name, event.first_slot, 0 if snapshot is None else snapshot.slot)
            case RunSubmitted():
                checker.submitting(event.run)
            case ValueReached():
                checker.handing_out(name, event.chosen)
            case RegisterReached():
                checker.decided(name, event.slot, event.decided)
            case CommandReached():
                checker.applied(name)
            case RunFinished():
                checker.finished(name, event.run, event.outcomes)
            case SlotApplied():
                checker.handed_out(name, event.slot)
            case SnapshotTaken():
                counts["snapshots taken"] += 1
                self._snapshot_complete()
                checker.taken(name, event.slot)
                checker.state(name, event.slot, event.state_hash)
            case SnapshotRestored():
                counts["snapshots restored"] += 1
                checker.state(name, event.slot, event.state_hash())
            case SnapshotInstalled():
                counts["snapshots installed"] += 1
                checker.installed(name, event.installed.slot)


def with_local_error_text(app: type[PaxosProtocol], where: Callable[[], str]) -> type[PaxosProtocol]:
    """A subclass of ``app`` whose exceptions have different texts in each process, as texts with addresses of objects
    have. Nodes must reach the same state all the same.

    :param where: returns what this process adds to the text.
    """

    def apply(self: PaxosProtocol, slot: Slot, command: bytes) -> object:
        try:
            return app.apply(self, slot, command)
        except Exception as error:
            raise type(type(error).__name__, (Exception,), {})(f"{error} ({where()})") from error

    return cast("type[PaxosProtocol]", type(app.__name__, (app,), cast("dict[str, Any]", {"apply": apply})))
