"""What connects the nodes of a simulated cluster with the checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

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
from txpaxos.node.node import Node
from txpaxos.node.snapshots.taking import head_of
from txpaxos.protocol import PaxosProtocol
from txpaxos.storage.store import Store
from txpaxos.testing.simulator.environment import Environment


class ObservedHost(Protocol):
    """What an observer needs of a machine."""

    @property
    def name(self) -> NodeId:
        """The id of its node."""

    @property
    def node(self) -> Node | None:
        """Its node, while that runs."""

    def snapshot_completed(self) -> None:
        """The node has completed a snapshot."""

    def released(self) -> None:
        """The node has released answers, such as that a change of members is complete."""


class CheckingObserver:
    """Tells the checker what one node does.

    :param host: the machine of that node.
    """

    def __init__(self, environment: Environment, host: ObservedHost, store: Store) -> None:
        self._environment = environment
        self._checker = environment.checker
        self._host = host
        self._name = host.name
        self._store = store

    def __call__(self, event: Event) -> None:
        """Tell the checker about one event of the node."""
        name, checker, counts = self._name, self._checker, self._environment.counts
        match event:
            case ReadyReleased():
                snapshot = self._store.snapshot
                checker.performed(name, event.ready)
                checker.keeping(name, event.first_slot, 0 if snapshot is None else snapshot.slot)
                if event.ready.answers:
                    self._host.released()
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
                if self._host.node is not None:
                    wrong = checker.timers.applied(event.slot, self._host.node.timers, self._environment.time.now)
                    if wrong:
                        self._environment.break_rule(wrong, f"{name} at slot {event.slot}")
                    checker.configured(name, event.slot, self._host.node.members.chosen)
            case SnapshotTaken():
                counts["snapshots taken"] += 1
                self._host.snapshot_completed()
                checker.taken(name, event.slot)
                snapshot = self._store.snapshot
                if snapshot is not None and snapshot.slot == event.slot:
                    head = head_of(snapshot, self._environment.configuration.name)
                    checker.configured(name, event.slot, head.chosen_members)
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
