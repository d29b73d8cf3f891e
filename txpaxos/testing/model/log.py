"""The log, as the model runs it: :class:`~txpaxos.core.replica.Replica`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import cast

import attrs

from txpaxos.core.config import Limits, Timing
from txpaxos.core.election import Role
from txpaxos.core.membership import Change
from txpaxos.core.messages import (
    MEMBERS_BYTE,
    AcceptedSlot,
    AcceptSlot,
    ChosenValues,
    Heartbeat,
    HeartbeatAck,
    Message,
    Nack,
    NodeId,
    PrepareLog,
    PromiseLog,
    Slot,
    Vote,
)
from txpaxos.core.progress import Progress
from txpaxos.core.read_index import ReadIndexServer
from txpaxos.core.ready import LogRecord, Ready
from txpaxos.core.replica import Replica
from txpaxos.testing.model.disk import ModelDisk
from txpaxos.testing.model.parts import (
    NEVER,
    NOW,
    STILL,
    Move,
    Part,
    forget_own_promises,
    leadership_moves,
    set_timers,
    settle_leadership,
)

TIMING = Timing(commit_notification_seconds=0.0)
"""There is no time here: delayed messages are sent at once, or with a heartbeat."""

ALPHA = 2
"""The window of the nodes whose members change, and so how many slots later a change governs."""

MEMBERS = MEMBERS_BYTE
"""The value that changes the members."""


class ReplicaPart(Part[Replica]):
    """A node of the log. As leader it proposes its ``value``, up to ``slots_max``. Without a value its election timer
    never fires.

    The slots that a node misses need not be remembered: it may ask any node at any time for what follows the slots that
    it knows, whether or not it has heard that there are more.

    :param refusals: whether a Nack ever arrives.
    :param change: what the value ``MEMBERS`` says about members. A node with a value of its own proposes it first.
    """

    first_slot = 1

    def __init__(
        self,
        node: NodeId,
        voters: Sequence[NodeId],
        value: bytes | None,
        slots_max: Slot,
        refusals: bool = True,
        change: Change | None = None,
    ) -> None:
        super().__init__(node, voters)
        self.value = value
        self.slots_max = slots_max
        self.refusals = refusals
        self.starts_ballots = value is not None
        self.change = change
        self._recovered: dict[ModelDisk, Slot] = {}

    def start(self, disk: ModelDisk) -> Replica:
        records = cast(tuple[LogRecord, ...], disk.records)
        if self.change is None:
            return Replica(self.node, self.voters, STILL, NOW, records, TIMING)
        limits = Limits(window_slots=ALPHA)
        return Replica(self.node, self.voters, STILL, NOW, records, TIMING, limits, change_of=self._change_of)

    def _change_of(self, value: bytes) -> Change | None:
        return self.change if value == MEMBERS else None

    def moves(self, running: Replica) -> Iterable[Move[Replica]]:
        if self.value is not None:
            for move in leadership_moves(running.election):
                yield Move(move.name, partial(_alone, move.act), move.begins)
            leader = running._leader
            if leader is not None and leader.window.slots:
                yield Move("sends again", _send_again)
            if leader is not None and running.has_room and leader.next_slot <= self.slots_max:
                if self.change is None or running.membership.newest.slot:
                    yield Move(f"proposes {self.value!r}", self._propose)
                elif running.may_change_members:
                    yield Move("proposes a change of members", _propose_change)
        for other in running.membership.others:
            yield Move(f"asks {other} for what comes next", partial(_ask, other))

    def _propose(self, running: Replica) -> Ready:
        assert self.value is not None
        return running.propose(self.value, NOW)

    def receive(self, running: Replica, sender: NodeId, message: Message) -> Ready:
        return running.receive(sender, message, NOW)

    def known(self, running: Replica) -> tuple[bytes, ...]:
        return tuple(running.log.values_from(1))

    def remembered(self, running: Replica, first_slot: Slot) -> object:
        return running.log.promised, running.log.votes_from(first_slot)

    def settle(self, running: Replica) -> None:
        settle_leadership(running.election)
        running.dropped.clear()
        missing = running._catch_up
        missing.wake_at, missing._through, missing._source, missing._attempts = inf, 0, "", 0
        leader = running._leader
        if leader is not None:
            leader.progress, leader.read_index = Progress(0.0), ReadIndexServer(running.membership)
            if self.change is None:
                leader._promised_by.clear()  # Only a change of members would ask for them.
            running._completed_slot = 0  # Only what is answered for depends on it.
            if leader.required_through < leader.next_slot:
                leader.required_through = 0
            window = leader.window
            window.resend_at = NOW if window.slots else inf
            for open_slot in window.slots.values():
                open_slot.attempts, open_slot.resend_at = 0, NOW

    def forget_counts(self, running: Replica) -> None:
        forget_own_promises(running.election)
        if running._leader is not None:
            for open_slot in running._leader.window.slots.values():
                open_slot.voters = set()

    def counts(self, message: Message) -> bool:
        return isinstance(message, PromiseLog | AcceptedSlot)

    def plain(self, message: Message) -> Message:
        # A heartbeat with a sequence is answered, and the answer is dead.
        return attrs.evolve(message, sequence=1) if isinstance(message, Heartbeat) else message

    def dead(self, running: Replica, disk: ModelDisk, message: Message) -> bool:
        role, ballot, leader = running.election.role, running.election.own_ballot, running._leader
        match message:
            case HeartbeatAck():
                return True  # It shows a leader that it is heard, and reports how far a follower is.
            case PromiseLog():
                awaited = role is Role.CANDIDATE or (role is Role.LEADER and self.change is not None)
                return not awaited or message.ballot != ballot
            case AcceptedSlot():
                return leader is None or message.ballot != ballot or message.slot not in leader.window.slots
            case Nack():
                idle = role is Role.FOLLOWER or message.ballot != ballot
                return idle and message.promised <= disk.promised
            case ChosenValues(first_slot, values):
                return first_slot + len(values) - 1 <= self._recovers(disk)
            case PrepareLog() | AcceptSlot() | Heartbeat():
                return self._question_is_dead(running, disk, message)
        return False

    def _question_is_dead(
        self, running: Replica, disk: ModelDisk, message: PrepareLog | AcceptSlot | Heartbeat
    ) -> bool:
        own = message.ballot.node == self.node
        idle = running.election.role is Role.FOLLOWER
        left = own and (idle or running.election.own_ballot != message.ballot)
        if self.refusals and not left:
            return False  # It may cause a refusal, now or later.
        if message.ballot != disk.promised:
            return message.ballot < disk.promised
        match message:
            case PrepareLog():
                return left
            case AcceptSlot(ballot, slot, value, chosen_through):
                voted = Vote(slot, ballot, value) in disk.votes
                return voted and (own or idle) and chosen_through <= self._recovers(disk)
        return idle and message.chosen_through <= self._recovers(disk)

    def _recovers(self, disk: ModelDisk) -> Slot:
        """The last slot of the chosen prefix that a node knows which starts from ``disk``."""
        known = self._recovered.get(disk)
        if known is None:
            known = self._recovered[disk] = self.start(disk).log.chosen_through
        return known


def _hold(node: Replica) -> None:
    """Hold all timers of open slots."""
    if node._leader is not None:
        node._leader.window.resend_at = NEVER


def _propose_change(node: Replica) -> Ready:
    return node.propose(MEMBERS, NOW)


def _alone(act: Callable[[Replica], Ready], node: Replica) -> Ready:
    """Only the election timer is due."""
    _hold(node)
    return act(node)


def _send_again(node: Replica) -> Ready:
    """Only the timers of the open slots are due. All of them are, since fewer would only send fewer messages."""
    set_timers(node.election, NEVER)
    return node.tick(NOW)


def _ask(other: NodeId, node: Replica) -> Ready:
    """Only the timer for missing slots is due, and the node asks ``other``."""
    _hold(node)
    set_timers(node.election, NEVER)
    missing = node._catch_up
    missing.wake_at, missing._through, missing._attempts = NOW, node.log.chosen_through + 1, 1
    STILL.chosen_one = other
    return node.tick(NOW)
