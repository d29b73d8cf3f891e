"""The steps of a node as events, for an observer such as a checker, a recorder or a meter.

An observer is a function that takes one event. It is called in the reactor thread, at the very step, and must not raise
or change anything. A node without an observer makes no events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs

from txpaxos.core.messages import NodeId, PromiseLog, Slot
from txpaxos.core.ready import Chosen, Installed, Ready
from txpaxos.node.registers import RegisterDecided
from txpaxos.node.sessions import Outcomes
from txpaxos.wire.commands import Run
from txpaxos.wire.peer_messages import PeerMessage


@attrs.frozen
class MessageReceived:
    """A message of ``sender`` is about to be handled, at ``now`` in monotonic seconds."""

    sender: NodeId
    message: PeerMessage
    now: float


@attrs.frozen
class PromiseCounted:
    """The core of this node has counted a promise of ``sender`` for this node's own ballot, at ``now`` in monotonic
    seconds. One that comes after those of a quorum counts for nothing."""

    sender: NodeId
    promise: PromiseLog
    now: float


@attrs.frozen
class TimePassed:
    """The node is about to do what is due, at ``now`` in monotonic seconds."""

    now: float


@attrs.frozen
class ReadyReleased:
    """The records of ``ready`` are on disk. Its messages are about to be sent and its values applied.

    :ivar first_slot: the oldest slot whose value this node keeps in its log.
    """

    ready: Ready
    first_slot: Slot


@attrs.frozen
class SaveFinished:
    """A save is on disk. It took ``seconds``, from the call of the store until the node was told."""

    seconds: float


@attrs.frozen
class RunSubmitted:
    """The program that this node runs in has submitted ``run``, in the node's own session."""

    run: Run


@attrs.frozen
class ValueReached:
    """A chosen value is about to be applied."""

    chosen: Chosen


@attrs.frozen
class RegisterReached:
    """The decision of a register is about to be reported to the application.

    :ivar slot: the slot that is being applied, or the slot of the snapshot that the decision came in.
    """

    slot: Slot
    decided: RegisterDecided


@attrs.frozen
class CommandReached:
    """``apply`` is about to be called with a command."""

    slot: Slot
    command: bytes


@attrs.frozen
class RunFinished:
    """Every command of ``run`` has its outcome. The callers on this node are about to get it."""

    run: Run
    outcomes: Outcomes


@attrs.frozen
class SlotApplied:
    """Every command of ``slot`` is applied, and the callers have their outcomes."""

    slot: Slot


@attrs.frozen
class SnapshotTaken:
    """A snapshot of this node's own state is complete and on disk. ``state_hash`` is of the state at ``slot``."""

    slot: Slot
    state_hash: bytes


@attrs.frozen
class SnapshotInstalled:
    """The node has continued from a snapshot of another node."""

    installed: Installed


@attrs.frozen
class SnapshotRestored:
    """The application has the state of a snapshot, at the start of the node or from another node.

    :ivar state_hash: returns the hash of the application's state at the time of the call.
    """

    slot: Slot
    state_hash: Callable[[], bytes]


Event: TypeAlias = (
    MessageReceived
    | PromiseCounted
    | TimePassed
    | ReadyReleased
    | SaveFinished
    | RunSubmitted
    | ValueReached
    | RegisterReached
    | CommandReached
    | RunFinished
    | SlotApplied
    | SnapshotTaken
    | SnapshotInstalled
    | SnapshotRestored
)

Observer: TypeAlias = Callable[[Event], None]


def as_one(observers: Iterable[Observer]) -> Observer | None:
    """One observer that passes each event to all of ``observers``, in this order; ``None`` if there are none, so that
    the node makes no events."""
    several = tuple(observers)
    if len(several) < 2:
        return several[0] if several else None

    def observe(event: Event) -> None:
        for observer in several:
            observer(event)

    return observe
