"""Who may vote: how the nodes of a cluster meet, found it once, and take in those that come later.

A node that lost its folder has forgotten what it promised, and cannot know that it has. So an empty folder does not
make a voter. There are two ways to become one, and both rest on what others have on their disks:

* **Founding.** The founders are the first nodes of the cluster file, as many as are a majority. When each of them has
  met all others and none has ever voted, they are voters. Nodes that are no founders are given a moment to say that
  there is such a cluster already. Each of them has the incarnations of the others on its disk
  then: none can found again with any of the others in the place of which an empty folder has come. Only the loss of all
  founders' folders, which are a majority, makes a cluster found itself twice.
* **Joining.** Every other node with an empty folder is a newcomer. It becomes a voter when a majority of all members,
  itself not counted, have told it that they vote and have this very incarnation of it on their disks. Whatever it may
  have been before under this name, those have not met; but whatever votes was met by a majority of voters, or by all
  other founders, and any two of these share a node. So it has never voted, and has nothing to forget. If these are the
  founders, and the members are those of the founding, that is all. Else it may stand in the place of another node, of
  which it knows nothing: then it first catches up with a leader that leads without it. That leader has asked a
  majority, without this place, what may have been chosen.

A node that is no voter asks all others whether they know it, until they do, and votes. Those answer. Voters say
something on their own only when they meet a peer for the first time, and to a node that comes under a name that they
know with another folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from random import Random

import attrs
from twisted.logger import Logger

from txpaxos.core.config import Timing
from txpaxos.core.essential import quorum_size
from txpaxos.core.messages import LOWEST, NodeId
from txpaxos.core.ready import PeerMet, Promised, Record, SubjectState, Voted, Voter
from txpaxos.log_lines import printable
from txpaxos.wire.peer_messages import Introduction

ASK_SECONDS_MAX = 1.0
"""A node that is no voter asks again after so long at the latest."""

EAGER_ATTEMPTS = 8
"""So often a node that is no voter does not wait long to ask again, when it seems that it would be answered."""

OBJECTION_SECONDS = 5.0
"""So long counts the word of a peer that knows this node with another folder. It says so again."""

OBJECTION_HEARTBEATS = 2
"""How long founders wait, from their start, for a word of those that are none."""


def has_voted(records: Iterable[Record]) -> bool:
    """Whether a node that saved ``records`` has ever promised or accepted anything. So a folder from before there were
    newcomers is told from an empty one."""
    for record in records:
        match record:
            case Promised() if record.ballot > LOWEST:
                return True
            case Voted():
                return True
            case SubjectState() if record.state.promised > LOWEST or record.state.accepted is not None:
                return True
    return False


class Founding:
    """What one node knows of its peers, and they of it, as far as voting depends on that.

    :param members: the ids of all nodes, this one included, in the order of the cluster file.
    :param incarnation: of this node's folder.
    :param send: called with a peer and what to tell it.
    :ivar voter: what says on this node's disk that it is a voter; ``None`` until it is one.
    :ivar is_over: whether nothing is left to be found out. Its owner says so.
    :ivar catches_up: whether it has to catch up with a leader first, and is about to. Its owner says so, too.
    :ivar wake_at: when :meth:`tick` is next due; infinite for never.
    """

    log = Logger()

    def __init__(
        self,
        node: NodeId,
        members: Sequence[NodeId],
        incarnation: int,
        timing: Timing | None,
        rng: Random,
        send: Callable[[NodeId, Introduction], None],
    ) -> None:
        self.voter: Voter | None = None
        self.is_over = self.catches_up = False
        self.wake_at = inf
        self._node = node
        self._members = tuple(members)
        self._peers = tuple(member for member in members if member != node)
        self._quorum = quorum_size(len(members))
        self._founders = tuple(sorted(members[: self._quorum]))
        self._incarnation = incarnation
        self._timing = timing or Timing()
        self._rng = rng
        self._send = send
        # The incarnations of peers that are on this node's disk.
        self._met: dict[NodeId, int] = {}
        # What each peer said last, and what it was told last, and when.
        self._heard: dict[NodeId, Introduction] = {}
        self._told: dict[NodeId, tuple[Introduction, float]] = {}
        self._attempts = 0
        self._objections_until = -inf
        # When a peer said last, or somebody in its name, that it knows this node with another folder.
        self._objected_at: dict[NodeId, float] = {}
        self._reported: set[NodeId] = set()

    # from the owner

    def start(self, voter: Voter | None, met: Iterable[PeerMet], now: float) -> None:
        """This is what is on disk. A node that is no voter begins to ask."""
        self.voter = voter
        self.is_over = voter is not None
        self._met = {one.peer: one.incarnation for one in met if one.peer in self._peers}
        if voter is None and self._peers:
            others = ", ".join(peer for peer in self._peers if peer in self._founders)
            self.log.info(
                "node {node} does not vote yet, for its data folder is new: it waits for {others} to {what}",
                node=self._node,
                others=others,
                what="found the cluster with" if self._node in self._founders else "take it in",
            )
            self.wake_at = now
            self._objections_until = now + OBJECTION_HEARTBEATS * self._timing.heartbeat_seconds
            self.tick(now)

    def start_voting(self, voter: Voter, now: float) -> None:
        """``voter`` is on disk. All others are told, once: those that are no voters yet may wait for it."""
        self.voter = voter
        self.wake_at = inf
        for peer in self._peers:
            self._introduce(peer, now)

    def tick(self, now: float) -> None:
        """Ask those from whom something is missing, if it is time."""
        if now < self.wake_at:
            return
        for peer in self._peers:
            if not self._is_voter_that_knows_me(peer):
                self._introduce(peer, now, asks=True)
        self._ask_later(now)

    def peer_saved(self, met: PeerMet, now: float) -> None:
        """This node has met a peer, and will know it again after a crash."""
        self._met[met.peer] = met.incarnation
        self._introduce(met.peer, now)

    def refuse(self, peer: NodeId, now: float) -> None:
        """``peer`` comes with another folder than the one it had, and is not heard. It is told with which it is known:
        if it could found a cluster, it must know at once that there is one."""
        told = self._told.get(peer)
        if peer in self._met and (told is None or now >= told[1] + self._timing.heartbeat_seconds / 10):
            self._introduce(peer, now)

    def receive_hint(self, sender: NodeId, message: Introduction, now: float) -> None:
        """This came in a way in which it may have been forged. Nobody becomes a voter by it. That somebody votes who
        knows this node with another folder keeps it from that for a while; what else it tells is asked for again."""
        if self.voter is not None:
            return
        if message.votes and message.met not in (0, self._incarnation):
            self._objected_at[sender] = now
        elif self._attempts < EAGER_ATTEMPTS:
            self.wake_at = min(self.wake_at, now + self._timing.heartbeat_seconds / 10)

    def is_folder_lost(self, now: float) -> bool:
        """Whether this node's folder is new, and a peer knows it with another."""
        objections = self._objected_at.values()
        return bool(objections) and now < max(objections) + OBJECTION_SECONDS

    def receive(self, sender: NodeId, message: Introduction, now: float) -> None:
        """A peer says who it is, and whom it knows."""
        news = attrs.evolve(message, asks=False)
        if self._heard.get(sender) != news:
            self._heard[sender] = news
            if self.voter is None:
                self._objected_at.pop(sender, None)
                self._attempts = min(self._attempts, 1)
                self.wake_at = min(self.wake_at, now + self._timing.heartbeat_seconds)
                self._compare_founders(sender, message)
        if message.asks:
            self._introduce(sender, now)

    # what follows from it

    def voter_to_save(self, now: float) -> Voter | None:
        """What to save, if all founders have met and this node is one of them, or if it has met all founders; else
        nothing.

        In a cluster of two a quorum is both, so whoever is new there needs no more than to have met the other: that one
        has all that was ever chosen."""
        if sum(self._knows_me(peer) and heard.unchanged for peer, heard in self._heard.items()) >= self._quorum:
            return Voter(self._members)  # No objection can be true then.
        if any(not self._knows_me(peer) for peer in self._founders if peer != self._node):
            return None
        if len(self._members) > 2 and (self._node not in self._founders or self._is_founded_without_me()):
            return None
        founders = [PeerMet(peer, self._met[peer]) for peer in self._founders if peer in self._met]
        if len(founders) < len(self._founders) - (self._node in self._founders):
            return None
        if self.is_folder_lost(now):
            return None
        if now < self._objections_until and any(peer not in self._heard for peer in self._peers):
            return None
        return Voter(self._members, tuple(founders))

    def is_known_to_quorum(self) -> bool:
        """Whether a majority of voters, this node not counted, have it on their disks."""
        return sum(self._knows_me(peer) and self._heard[peer].votes for peer in self._peers) >= self._quorum

    def waits_for(self) -> tuple[NodeId, ...]:
        """Those from whom something is missing, while this node is no voter."""
        return (
            ()
            if self.voter is not None
            else tuple(peer for peer in self._peers if not self._is_voter_that_knows_me(peer))
        )

    # inside

    def _knows_me(self, peer: NodeId) -> bool:
        return peer in self._heard and self._heard[peer].met == self._incarnation

    def _is_voter_that_knows_me(self, peer: NodeId) -> bool:
        return self._knows_me(peer) and self._heard[peer].votes

    def _is_founded_without_me(self) -> bool:
        """Whether somebody votes who has not founded the cluster with this node, or means to found it with others."""
        for peer, heard in self._heard.items():
            if heard.votes and not (heard.together and self._knows_me(peer)):
                return True
            if not heard.votes and peer in self._founders and tuple(sorted(heard.founders)) != self._founders:
                return True
        return False

    def _introduce(self, peer: NodeId, now: float, asks: bool = False) -> None:
        """Tell ``peer`` how things are. The same is not said again in the same moment: anybody may ask for it."""
        met = self._met.get(peer, 0)
        message = Introduction(
            votes=self.voter is not None,
            met=met,
            unchanged=self.voter is not None and bool(self.voter.founders),
            together=self.voter is not None and PeerMet(peer, met) in self.voter.founders,
            founders=() if self.voter is not None else self._founders,
            asks=asks or (self.voter is None and not self._knows_me(peer)),
        )
        told = self._told.get(peer)
        if asks or told is None or told[0] != message or now >= told[1] + self._timing.heartbeat_seconds / 20:
            self._told[peer] = message, now
            self._send(peer, message)

    def _ask_later(self, now: float) -> None:
        if all(map(self._is_voter_that_knows_me, self._peers)):
            self.wake_at = inf
            return
        seconds = min(self._timing.heartbeat_seconds * 2.0 ** min(self._attempts, EAGER_ATTEMPTS), ASK_SECONDS_MAX)
        self._attempts += 1
        self.wake_at = now + seconds * self._rng.uniform(0.75, 1.25)
        if now < self._objections_until:
            self.wake_at = min(self.wake_at, self._objections_until)

    def _compare_founders(self, peer: NodeId, message: Introduction) -> None:
        theirs = tuple(sorted(message.founders))
        if not message.votes and theirs != self._founders and peer not in self._reported:
            self._reported.add(peer)
            self.log.critical(
                "node {peer} would found the cluster with {theirs}, node {node} with {ours}: list the nodes in the same"
                " order in all cluster files",
                peer=peer,
                theirs=printable(", ".join(theirs)),
                node=self._node,
                ours=", ".join(self._founders),
            )
