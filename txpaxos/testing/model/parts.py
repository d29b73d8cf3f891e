"""What the model needs from a part of the core, and how the model does without a clock.

A :class:`Part` starts one node of its kind, lists the moves that the node may make by itself, and knows what of the
node's memory can be forgotten. The parts are in :mod:`~txpaxos.testing.model.decree` and
:mod:`~txpaxos.testing.model.log`.

Time. The core's timers decide only *when* a node acts, and ``now`` has no other use. So the model has no clock: each
timer is a :class:`Move`, which may be made in any state in which the timer is running. That covers all speeds of all
clocks. For such a move exactly one timer is due, and the others are set to the end of time. A tick at which several
timers are due does the same as one tick for each, one after another. After the move all times are reset to zero. With
them everything is reset that only timers or reports use: failures, attempts, when a peer was heard, what was reported,
dropped, lag. A leader that checks whether it hears a quorum may find either, and every pre-vote is granted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Generic, Protocol, TypeVar

import attrs

from txpaxos.core import essential, practical
from txpaxos.core.election import Election, Role
from txpaxos.core.messages import LOWEST, Message, NodeId, PreVoteGranted, Slot
from txpaxos.core.ready import Ready
from txpaxos.testing.model.disk import ModelDisk

Running = TypeVar("Running")
NOW = 0.0
NEVER = math.inf


class StillRandom(Random):
    """No randomness: always the shortest time, and ``chosen_one`` where a node must be chosen."""

    chosen_one: Any = None

    def uniform(self, a: float, b: float) -> float:
        return a

    def choice(self, seq: Any) -> Any:
        return self.chosen_one

    def __deepcopy__(self, memo: dict[int, Any]) -> StillRandom:
        return self


STILL = StillRandom(0)


@attrs.frozen
class Move(Generic[Running]):
    """A step that a node may take by itself: its name, and the function that performs it. ``begins``: the ballot that
    it begins, if any."""

    name: str
    act: Callable[[Running], Ready]
    begins: bool = False


class Part(Generic[Running]):
    """One node's part of the core.

    :param node: its id. ``voters``: the ids of all acceptors.
    :cvar first_slot: the slot at which its first value is chosen.
    :cvar starts_ballots: whether it ever starts a ballot.
    """

    first_slot: Slot = 0
    starts_ballots = True

    def __init__(self, node: NodeId, voters: Sequence[NodeId]) -> None:
        self.node = node
        self.voters = tuple(voters)

    def start(self, disk: ModelDisk) -> Running:
        """The node as it starts with what its disk holds."""
        raise NotImplementedError

    def moves(self, running: Running) -> Iterable[Move[Running]]:
        """The moves that the node may make by itself."""
        return ()

    def receive(self, running: Running, sender: NodeId, message: Message) -> Ready:
        """Take a message."""
        raise NotImplementedError

    def known(self, running: Running) -> tuple[bytes, ...]:
        """The values that the node knows to be chosen, from the first slot on."""
        return ()

    def remembered(self, running: Running, first_slot: Slot) -> object:
        """The state that a restart must not change: the acceptor's, for ``first_slot`` and above."""
        return None

    def settle(self, running: Running) -> None:
        """Reset the fields that cannot influence anything."""

    def forget_counts(self, running: Running) -> None:
        """Forget promises and votes that are fewer than a quorum.

        Below a quorum they change nothing but a set of names, and the messages are still in the network. So all
        messages of a quorum may be taken in one step.
        """

    def counts(self, message: Message) -> bool:
        """Whether the node only counts such messages until there is a quorum of them."""
        return False

    def plain(self, message: Message) -> Message:
        """The message that represents all messages which differ from it only in fields that no receiver reads."""
        return message

    def dead(self, running: Running, disk: ModelDisk, message: Message) -> bool:
        """Whether ``message`` can have no effect here, now or later: it changes nothing, and causes at most messages
        that were sent before or have no effect themselves."""
        return False


# ------------------------------------------------------------------ leadership


class Led(Protocol):
    """A node that has an :class:`Election`."""

    election: Election[Any]

    def tick(self, now: float) -> Ready: ...

    def receive(self, sender: NodeId, message: Any, now: float) -> Ready: ...


def leadership_moves(election: Election[Any]) -> list[Move[Any]]:
    """The moves of a node's role when the election timer, and no other, is due."""
    if election.role is Role.CANDIDATE:
        return [
            Move("asks again for promises", lambda node: _due(node, give_up_at=NEVER)),
            Move("has waited too long for promises", lambda node: _due(node, give_up_at=NOW)),
        ]
    moves: list[Move[Any]] = []
    if election.role is Role.LEADER:
        moves.append(Move("beats", lambda node: _due(node, heard_at=NOW)))
        moves.append(Move("has not heard a quorum for too long", lambda node: _due(node, heard_at=-NEVER)))
    if election.role is Role.FOLLOWER or election.is_refused:
        moves.append(Move("is backed, and starts a ballot", _campaign, begins=True))
    return moves


def set_timers(election: Election[Any], when: float) -> None:
    """Set the election timer to ``when``, in any role."""
    election._silent_at = election._act_at = when


def _due(node: Led, *, give_up_at: float = NEVER, heard_at: float = NOW) -> Ready:
    election = node.election
    set_timers(election, NOW)
    if election.candidacy is not None:
        election.candidacy.give_up_at = give_up_at
        election.candidacy.heard_at = dict.fromkeys(election.membership.others, heard_at)
    return node.tick(NOW)


def _campaign(node: Led) -> Ready:
    """A node starts a pre-vote, and all others grant it. That and the start of the ballot are one step, since a granted
    pre-vote promises nothing."""
    ready = _due(node)
    for follower in node.election.membership.others:
        if node.election.role is not Role.CANDIDATE:
            ready = node.receive(follower, PreVoteGranted(node.election.pre_vote_number), NOW)
    return ready


def settle_leadership(election: Election[Any]) -> None:
    """Reset times, and fields that only timers or reports use."""
    election.sequence = election.pre_vote_number = election._failures = 0
    election.asked_in_vain = 0  # After some of these the node asks for chosen values, as it may at any time here.
    election._granted_by = set()
    election._heard_leader_at = -NEVER
    election._reported_ballot, election._reported_own = LOWEST, False
    if election.candidacy is not None:
        election.candidacy.heard_at, election.candidacy.give_up_at = {}, NOW
    set_timers(election, NOW)
    # A ballot is started above all known candidates, and only higher ones have an effect from then on.
    election._awaited_ballot = LOWEST
    if election.role is Role.FOLLOWER:
        # Reports name the leader, and the older of two leaders is ignored: it would only reset the election timer.
        election.leader_ballot = LOWEST


# ------------------------------------------------------------------- proposers


def forget_ballot(proposer: practical.Proposer) -> None:
    """Forget a ballot that was given up, except for its number, which the next ballot must exceed."""
    proposer.observe(proposer.ballot)
    proposer.ballot, proposer.given_up = LOWEST, True
    proposer.promises, proposer.refusals, proposer.highest_accepted = set(), set(), None


def forget_own_promises(election: Election[Any]) -> None:
    """Forget a candidate's promises: with a quorum of them it leads, and they are no longer needed."""
    if election.candidacy is not None:
        election.candidacy.promises = {}


def forget_promises(proposer: essential.Proposer, voters: Sequence[NodeId]) -> None:
    """Forget all promises below a quorum. Of a quorum forget which nodes are in it, since only its size is used."""
    if proposer.has_quorum:
        proposer.promises = set(voters[: proposer.quorum])
    else:
        proposer.promises = set()
        proposer.highest_accepted = None
