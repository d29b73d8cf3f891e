"""What a node tells an observer: the steps that a checker, a recorder or a meter wants to see.

An observer is a function that takes one event. It is called in the reactor thread, in the moment of the step, and must
not raise or change anything. A node without an observer makes no events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import attrs

from txpaxos.core.messages import NodeId, Slot
from txpaxos.core.ready import Chosen, Installed, Ready, SubjectChosen
from txpaxos.node.sessions import Outcomes
from txpaxos.wire.commands import Run
from txpaxos.wire.peer_messages import PeerMessage


@attrs.frozen
class MessageReceived:
    """A message of ``sender`` goes down to the core, or to what takes its kind, at ``now`` (monotonic seconds)."""

    sender: NodeId
    message: PeerMessage
    now: float


@attrs.frozen
class TimePassed:
    """The node does what time asks for, at ``now`` (monotonic seconds)."""

    now: float


@attrs.frozen
class ReadyReleased:
    """All that ``ready`` asked to save is on disk; its messages are about to be sent and its values applied.

    :ivar first_slot: the oldest slot whose value this node keeps in its log.
    """

    ready: Ready
    first_slot: Slot


@attrs.frozen
class RunSubmitted:
    """The program of this node has submitted ``run``, in its own session."""

    run: Run


@attrs.frozen
class ValueReached:
    """What was chosen is about to be applied, or told to the application."""

    chosen: Chosen | SubjectChosen


@attrs.frozen
class CommandReached:
    """A command is about to be given to ``apply``."""

    slot: Slot
    command: bytes


@attrs.frozen
class RunFinished:
    """Every command of ``run`` has its outcome. Callers on this node are about to be told."""

    run: Run
    outcomes: Outcomes


@attrs.frozen
class SlotApplied:
    """Every command of ``slot`` is applied, and callers were told."""

    slot: Slot


@attrs.frozen
class SnapshotTaken:
    """A snapshot of this node's own state is complete and on disk. ``state_hash`` is of the state at ``slot``."""

    slot: Slot
    state_hash: bytes


@attrs.frozen
class SnapshotInstalled:
    """The node has gone on from a snapshot of another node."""

    installed: Installed


@attrs.frozen
class SnapshotRestored:
    """The application has taken on the state of a snapshot, when the node started or from another node.

    :ivar state_hash: makes the hash of the state as the application has it now.
    """

    slot: Slot
    state_hash: Callable[[], bytes]


Event: TypeAlias = (
    MessageReceived
    | TimePassed
    | ReadyReleased
    | RunSubmitted
    | ValueReached
    | CommandReached
    | RunFinished
    | SlotApplied
    | SnapshotTaken
    | SnapshotInstalled
    | SnapshotRestored
)

Observer: TypeAlias = Callable[[Event], None]
