"""What the model asks of a part of the core, and how it does without a clock.

A :class:`Part` says how one node of that kind starts, what it may do of its own accord, and what of it can be
forgotten. The parts themselves are in :mod:`~txpaxos.testing.model.decree` and :mod:`~txpaxos.testing.model.log`.

Time. The core's timers decide only *when* a node acts, and ``now`` goes nowhere else. So the model has no clock: each
timer is a :class:`Move` that may be made in any state where the timer is running, which is what happens when clocks run
as they please. For such a move exactly one timer is put at the present, and the others at the end of time: a tick at
which several are due does the same as one tick for each, in a row. Afterwards all go back to zero. With them goes what
is only counted for a timer's sake or for people: failures, attempts, when whom was heard, what was told, dropped, lag.
A leader that looks whether it hears a quorum may find either, and a node that canvasses is always backed.
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
from txpaxos.testing.model.disk import Disk

Running = TypeVar("Running")
NOW = 0.0
NEVER = math.inf


class StillRandom(Random):
    """No chance: always the shortest time, and ``chosen_one`` where somebody has to be chosen."""

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
    """What a node may do of its own accord: its name, and what carries it out. ``begins``: a ballot, if it does it."""

    name: str
    act: Callable[[Running], Ready]
    begins: bool = False


class Part(Generic[Running]):
    """One node's part of the core.

    :param node: its id. ``voters``: the ids of all acceptors.
    :cvar first_slot: the slot its first value is chosen at.
    :cvar starts_ballots: whether it ever does.
    """

    first_slot: Slot = 0
    starts_ballots = True

    def __init__(self, node: NodeId, voters: Sequence[NodeId]) -> None:
        self.node = node
        self.voters = tuple(voters)

    def start(self, disk: Disk) -> Running:
        """The node as it starts with what its disk holds."""
        raise NotImplementedError

    def moves(self, running: Running) -> Iterable[Move[Running]]:
        """What it may do of its own accord."""
        return ()

    def receive(self, running: Running, sender: NodeId, message: Message) -> Ready:
        """Take a message."""
        raise NotImplementedError

    def known(self, running: Running) -> tuple[bytes, ...]:
        """The values it knows to be chosen, from the first slot on."""
        return ()

    def remembered(self, running: Running, first_slot: Slot) -> object:
        """What a restart must not change: the acceptor, as far as ``first_slot`` and above are concerned."""
        return None

    def settle(self, running: Running) -> None:
        """Reset what cannot matter."""

    def forget_counts(self, running: Running) -> None:
        """Forget promises and votes that are fewer than a quorum. Until they are one they change nothing but a set of
        names, and the messages are still there: so all of a quorum may as well be taken in one step, at the last."""

    def counts(self, message: Message) -> bool:
        """Whether the node only counts such messages until there is a quorum of them."""
        return False

    def plain(self, message: Message) -> Message:
        """The message that stands for all that differ from it only in what nobody reads."""
        return message

    def dead(self, running: Running, disk: Disk, message: Message) -> bool:
        """Whether ``message`` can do nothing here, now or ever after: nothing but what was done already, or send what
        is dead where it goes."""
        return False


# ------------------------------------------------------------------ leadership


class Led(Protocol):
    """A node that has a :class:`Election`."""

    election: Election[Any]

    def tick(self, now: float) -> Ready: ...

    def receive(self, sender: NodeId, message: Any, now: float) -> Ready: ...


def leadership_moves(election: Election[Any]) -> list[Move[Any]]:
    """What a node's role lets it do when leadership's timer, and no other, is due."""
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
    """Have leadership's timer, whatever the role, go off then."""
    election._silent_at = election._act_at = when


def _due(node: Led, *, give_up_at: float = NEVER, heard_at: float = NOW) -> Ready:
    election = node.election
    set_timers(election, NOW)
    if election.candidacy is not None:
        election.candidacy.give_up_at = give_up_at
        election.candidacy.heard_at = dict.fromkeys(election._followers, heard_at)
    return node.tick(NOW)


def _campaign(node: Led) -> Ready:
    """A node canvasses, and all others back it: one step with starting the ballot. (Backing promises nothing.)"""
    ready = _due(node)
    for follower in node.election._followers:
        if node.election.role is not Role.CANDIDATE:
            ready = node.receive(follower, PreVoteGranted(node.election.pre_vote_number), NOW)
    return ready


def settle_leadership(election: Election[Any]) -> None:
    """Forget time, and what only time or people ask for."""
    election.sequence = election.pre_vote_number = election._failures = 0
    election._granted_by = set()
    election._heard_leader_at = -NEVER
    election._reported_ballot, election._reported_own = LOWEST, False
    if election.candidacy is not None:
        election.candidacy.heard_at, election.candidacy.give_up_at = {}, NOW
    set_timers(election, NOW)
    # Whoever starts a ballot starts one above all candidates it knew, and only hears of higher ones from then on.
    election._awaited_ballot = LOWEST
    if election.role is Role.FOLLOWER:
        # It tells people whom it follows, and overlooks the older of two leaders: that would only renew its patience.
        election.leader_ballot = LOWEST


# ------------------------------------------------------------------- proposers


def forget_ballot(proposer: practical.Proposer) -> None:
    """Of a ballot that was given up nothing counts but its number, which the next must be above."""
    proposer.observe(proposer.ballot)
    proposer.ballot, proposer.given_up = LOWEST, True
    proposer.promises, proposer.refusals, proposer.highest_accepted = set(), set(), None


def forget_own_promises(election: Election[Any]) -> None:
    """The same for a candidate: with a quorum of promises it leads, and they are gone."""
    if election.candidacy is not None:
        election.candidacy.promises = {}


def forget_promises(proposer: essential.Proposer, voters: Sequence[NodeId]) -> None:
    """Below a quorum all is forgotten; of a quorum, who was in it: only its size is ever looked at again."""
    if proposer.has_quorum:
        proposer.promises = set(voters[: proposer.quorum])
    else:
        proposer.promises = set()
        proposer.highest_accepted = None
