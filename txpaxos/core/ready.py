"""What every call of the core returns: the work that its caller owes, in the order in which it must be done.

The laws of a :class:`Ready`, on which the safety of Paxos rests:

1. ``save`` is on disk before anything in ``send`` leaves, also before what goes to the node itself.
2. Readys are performed strictly in the order in which they were returned. One that saves nothing still waits for the
   saves of those before it.
3. A save that has finished releases what it covered, and nothing that came later.
4. Only a Ready that ``needs_no_prior_save`` may be performed before those that wait, as :meth:`Ready.may_bypass` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import attrs

from txpaxos.core.membership import Configuration
from txpaxos.core.messages import LOWEST, Ballot, Message, NodeId, Proposal, Slot

# ------------------------------------------------------ records: what is saved


@attrs.frozen
class Promised:
    """The node promised ``ballot`` for every slot of the log. Written by a candidate for its own ballot, too."""

    ballot: Ballot


@attrs.frozen
class Voted:
    """The node accepted ``value`` at ``slot`` in ``ballot`` (and so promised ``ballot``). When it did, it had learned
    every slot up to ``chosen_through``: a hint that spares a restarted node from asking."""

    ballot: Ballot
    slot: Slot
    value: bytes
    chosen_through: Slot


@attrs.frozen
class Learned:
    """The node was told the chosen values of ``first_slot``, ``first_slot + 1``, ..."""

    first_slot: Slot
    values: tuple[bytes, ...]


@attrs.frozen
class Checkpoint:
    """Everything up to ``slot`` is in a snapshot, or is about to be. What the node must remember beyond it follows in
    this same save: once the snapshot is complete, nothing older is needed.

    ``installed``: it came from another node, or is gone and must come from another again. Else this node had learned
    every slot up to there."""

    slot: Slot
    installed: bool = False


@attrs.frozen
class LearnedThrough:
    """The node has learned every slot up to ``slot``, so its votes below are the chosen values. Saved when the members
    before a change are not needed any more, so that what they knew is on the disks of those who come after them."""

    slot: Slot


@attrs.frozen
class PeerMet:
    """The node has met ``peer``, whose data folder had this ``incarnation``. If that peer ever comes back with another,
    it has lost what it promised, and must not be heard."""

    peer: NodeId
    incarnation: int


@attrs.frozen
class Voter:
    """The node is a voter, from here on and for ever: what it says counts toward a quorum of these ``members``. Saved
    before the first thing it promises; a node that has none of these is a newcomer, which only learns.

    ``founders``: whom it founded the cluster with, for these very members, and with which incarnations, itself left
    out. Empty if it came into a cluster that others had founded, or if the members are others since."""

    members: tuple[NodeId, ...]
    founders: tuple[PeerMet, ...] = ()


@attrs.frozen
class DecreeState:
    """All that one node must remember of one single decree."""

    promised: Ballot = LOWEST
    accepted: Proposal | None = None
    chosen: bytes | None = None


@attrs.frozen
class SubjectState:
    """The whole state of one register, from an earlier release, which ran ballots for registers.

    A store loads it, and saves none."""

    subject: str
    state: DecreeState


LogRecord: TypeAlias = Promised | Voted | Learned | Checkpoint | LearnedThrough
JournalRecord: TypeAlias = LogRecord | PeerMet
Record: TypeAlias = JournalRecord | DecreeState | SubjectState | Voter
"""What a Ready may hold. A store meets a DecreeState only inside a SubjectState."""

# ------------------------------------------------------- what the outside does


@attrs.frozen
class Envelope:
    """A message and the nodes it goes to (the sender may be one of them)."""

    to: tuple[NodeId, ...]
    message: Message


@attrs.frozen
class Chosen:
    """``value`` is chosen at ``slot``. Handed out in slot order, each slot once. (A single decree calls itself 0.)"""

    slot: Slot
    value: bytes


@attrs.frozen
class Configured:
    """``value`` is chosen, says who the members are, and counts: ``configuration`` governs from alpha slots after its
    own on. Handed out just before the value itself, so that a snapshot which holds that slot holds its members."""

    configuration: Configuration
    value: bytes


@attrs.frozen
class ChangeCompleted:
    """A majority of the voters of the configuration that was chosen at ``slot`` has on disk all that was chosen before
    it began to govern. Members that left with it are not needed any more, nor are their disks. Only a leader says so,
    once; after a change of leader it is said again."""

    slot: Slot


@attrs.frozen
class Installed:
    """The application is to be restored from the snapshot at ``slot``, which stands for every slot up to it. Handed out
    in order with what is chosen."""

    slot: Slot


@attrs.frozen
class ReadIndexConfirmed:
    """The request ``number`` for a read index has its answer: a node that has applied every slot up to ``slot`` sees
    all that was acknowledged before the request."""

    number: int
    slot: Slot


@attrs.frozen
class HandOverEnded:
    """The hand-over to ``target`` that this node began as the leader has ended. If ``reason`` is empty, the target
    leads, and has had an entry of its own ballot chosen; else the hand-over has failed for this reason."""

    target: NodeId
    reason: str = ""


@attrs.frozen
class LeadershipAcquired:
    """This node won ``ballot``: a quorum promised it."""

    ballot: Ballot


@attrs.frozen
class LeadershipLost:
    """This node led with ``ballot`` and does no longer."""

    ballot: Ballot


@attrs.frozen
class LeadershipChanged:
    """The node that this one believes to lead was ``previous`` and is ``current``; ``None``: it knows of none."""

    previous: NodeId | None
    current: NodeId | None


LeadershipFact: TypeAlias = LeadershipAcquired | LeadershipLost | LeadershipChanged
AnswerFact: TypeAlias = ReadIndexConfirmed | HandOverEnded | PeerMet | Voter | ChangeCompleted


@attrs.frozen
class Ready:
    """What the caller owes the core, fields in the order in which it must be done.

    ``answers`` may hold a PeerMet or a Voter: that it is on disk is what its owner waits for.
    ``snapshot_source``: the node to fetch a snapshot from. Its log begins above what this node misses, so nothing but a
    snapshot can help.
    ``may_defer``: the save may wait for one more turn, because a quorum may form without this node's vote.
    ``needs_no_prior_save``: everything that its messages and its values rest on was on disk, here or on other nodes,
    before the call that returned it.
    ``wake_at`` is in the seconds of the ``now`` the caller passed in: when to call ``tick`` if nothing happens sooner.
    """

    save: tuple[Record, ...] = ()
    send: tuple[Envelope, ...] = ()
    chosen: tuple[Chosen | Configured | Installed, ...] = ()
    answers: tuple[AnswerFact, ...] = ()
    leadership: tuple[LeadershipFact, ...] = ()
    snapshot_source: NodeId | None = None
    may_defer: bool = False
    needs_no_prior_save: bool = False
    wake_at: float | None = None

    def may_bypass(self, waiting: Iterable[Ready]) -> bool:
        """Whether this Ready may be performed before those that are ``waiting`` for a save. What is handed to the
        application stays in order."""
        return self.needs_no_prior_save and not (self.hands_out and any(ready.hands_out for ready in waiting))

    @property
    def hands_out(self) -> bool:
        """Whether this Ready holds something for the application."""
        return bool(self.chosen or self.answers or self.leadership)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do but to call ``tick`` at ``wake_at``."""
        return not (self.save or self.send or self.chosen or self.answers or self.leadership or self.snapshot_source)


@attrs.frozen
class Status:
    """One node's view, for people and for tests. ``lag_slots`` is how far each follower was behind when last heard."""

    node: NodeId
    role: str
    ballot: Ballot
    leader: NodeId | None
    promised: Ballot
    chosen_through: Slot
    open_slots: int
    lag_slots: dict[NodeId, int]
    dropped: dict[str, int]


@attrs.define
class Work:
    """A Ready in the making: handlers add to it, and the public method closes it with :meth:`ready`."""

    save: list[Record] = attrs.field(factory=list)
    send: list[Envelope] = attrs.field(factory=list)
    chosen: list[Chosen | Configured | Installed] = attrs.field(factory=list)
    answers: list[AnswerFact] = attrs.field(factory=list)
    snapshot_source: NodeId | None = None
    may_defer: bool = False
    needs_no_prior_save: bool = False

    def save_record(self, record: Record | None) -> None:
        """Save ``record``, if there is one."""
        if record is not None:
            self.save.append(record)

    def send_to(self, to: NodeId | Iterable[NodeId], message: Message) -> None:
        """Put ``message`` into an envelope to one node, or to several."""
        self.send.append(Envelope((to,) if isinstance(to, str) else tuple(to), message))

    def ready(self, leadership: Iterable[LeadershipFact] = (), wake_at: float | None = None) -> Ready:
        """The finished Ready."""
        return Ready(
            tuple(self.save),
            tuple(self.send),
            tuple(self.chosen),
            tuple(self.answers),
            tuple(leadership),
            self.snapshot_source,
            self.may_defer,
            self.needs_no_prior_save,
            wake_at,
        )
