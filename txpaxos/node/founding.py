"""Which nodes may vote: how a cluster is founded once, and how later nodes join it.

A node that lost its data folder has forgotten its promises, and cannot know that it made any. So a node with an empty
folder is no voter. There are two ways to become one. Both rest on records on the disks of other nodes:

* **Founding.** The founders are the first nodes of the cluster file, as many as are a majority. They become voters when
  each of them has met all others and none of them has ever voted. The nodes that are no founders have a moment to
  object that the cluster exists already. At the founding each founder has the incarnations of the other founders on its
  disk. So none of them can found the cluster again with a founder that came back with an empty folder. A cluster can be
  founded twice only if all founders lose their folders, and these are a majority.
  A founder may have been restored from a backup. Then all founders must have been restored from the same one: with any
  other state it would be left to chance which state the cluster has.
* **Joining.** Every other node with an empty folder is a newcomer. It becomes a voter when a majority of all members,
  not counting itself, have told it that they vote and that they have this incarnation of it on their disks. Whatever
  node had its name before, these members never met that node. Each voter was met by a majority of voters, or by all
  other founders, and two such sets always have a node in common. So no voter had this name, and the newcomer has no
  promises to remember. If those members are the founders, and the members are still the ones of the founding, nothing
  else is needed. Otherwise the newcomer may have replaced a node that voted under another name. Then it first catches
  up with a leader. That leader has asked a majority, without this newcomer, which values may have been chosen.

All of this is for the members that the cluster file has at the founding. When members change, the log says which
incarnation each member has. A node that joins then is admitted by the log alone
(:meth:`~txpaxos.node.admission.Admission.named_in_log`), and introduces itself to no other node.

A node that is no voter asks all others whether they know it, until they do and vote. The others answer. A voter sends
an introduction unasked in two cases only: when it meets a peer for the first time, and when a node comes under a name
that the voter knows with another data folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""The longest time between two introductions that a node sends while it is no voter."""

EAGER_ATTEMPTS = 8
"""The number of early introductions that a node sends, while it is no voter, when a peer seems ready to answer."""

OBJECTION_SECONDS = 5.0
"""How long the objection of a peer counts, which knows this node with another folder. The peer repeats it."""

OBJECTION_HEARTBEATS = 2
"""How long founders wait, from their start, for objections of the other nodes."""


def has_voted(records: Iterable[Record]) -> bool:
    """Whether a node that saved ``records`` has ever promised or accepted anything.

    A folder of a release that saved no :class:`~txpaxos.core.ready.Voter` is recognised by this.
    """
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
    """What one node and its peers know of each other, as far as the right to vote depends on it.

    It decides when this node may vote. :class:`~txpaxos.node.admission.Admission` acts on that.

    :param members: the ids of the founding members, in the order of the cluster file. Without ``node`` if it joins.
    :param incarnation: the incarnation of this node's data folder.
    :param send: called with a peer and the introduction to send to it.
    :param restored_from: the backup that this node was restored from; empty if it was not.
    :ivar voter: the record that makes this node a voter; ``None`` until it is on disk.
    :ivar is_over: whether the node votes or is about to. The owner sets it.
    :ivar catches_up: whether the node is catching up with a leader before it votes. The owner sets it.
    :ivar wake_at: when :meth:`tick` is next due, in monotonic seconds; infinite for never.
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
        restored_from: str = "",
    ) -> None:
        self.voter: Voter | None = None
        self.is_over = self.catches_up = False
        self.wake_at = inf
        self._node = node
        self._members = tuple(members)
        self._peers = tuple(member for member in members if member != node)
        self._voters: tuple[NodeId, ...] = self._members
        self._founders = tuple(sorted(members[: quorum_size(len(members))]))
        # What the founders must agree on: who they are, and which backup they were restored from, if any.
        terms = [f"backup {restored_from}"] if restored_from else []
        self._terms = tuple(sorted([*self._founders, *terms]))
        self._is_changed = False
        self._incarnation = incarnation
        self._timing = timing or Timing()
        self._rng = rng
        self._send = send
        # The incarnations of peers that are on this node's disk.
        self._met: dict[NodeId, int] = {}
        # The last introduction from each peer; the last one to each peer, and when it was sent.
        self._heard: dict[NodeId, Introduction] = {}
        self._told: dict[NodeId, tuple[Introduction, float]] = {}
        self._attempts = 0
        self._objections_until = -inf
        # When a peer objected last that it knows this node with another folder. The objection may be forged.
        self._objected_at: dict[NodeId, float] = {}
        self._reported: set[NodeId] = set()

    # from the owner

    def start(self, voter: Voter | None, met: Iterable[PeerMet], now: float) -> None:
        """Start with the records on disk. A node that is no voter begins to introduce itself."""
        self.voter = voter
        self.is_over = voter is not None
        self._met = {one.peer: one.incarnation for one in met if one.peer in self._peers} | self._met
        if voter is None and self._peers and not self._joins:
            others = ", ".join(peer for peer in self._peers if peer in self._founders)
            self.log.info(
                "node {node} does not vote yet, because its data folder is new: it waits for {others} to {what}",
                node=self._node,
                others=others,
                what="found the cluster with it" if self._node in self._founders else "let it join",
                event="waits_to_vote",
            )
            self.wake_at = now
            self._objections_until = now + OBJECTION_HEARTBEATS * self._timing.heartbeat_seconds
            self.tick(now)

    def follow_members(self, voters: Iterable[NodeId], incarnations: Mapping[NodeId, int]) -> None:
        """Follow a change of members. From now on the members are not those of the founding.

        :param voters: the voters after the change.
        :param incarnations: for each member, the incarnation that the log says it has; 0 if it does not.
        """
        self._is_changed = True
        self._voters = tuple(voters)
        self._peers = tuple(peer for peer in incarnations if peer != self._node)
        known = {peer: incarnations[peer] or self._met.get(peer, 0) for peer in self._peers}
        self._met = {peer: incarnation for peer, incarnation in known.items() if incarnation}
        self._heard = {peer: heard for peer, heard in self._heard.items() if peer in incarnations}

    def start_voting(self, voter: Voter, now: float) -> None:
        """Tell each peer once that this node votes: ``voter`` is on disk. A peer that is no voter may wait for that."""
        self.voter = voter
        self.wake_at = inf
        for peer in self._peers:
            self._introduce(peer, now)

    def tick(self, now: float) -> None:
        """Introduce this node, if that is due, to each peer that has not confirmed that it votes and knows it."""
        if now < self.wake_at:
            return
        for peer in self._peers:
            if not self._is_voter_that_knows_me(peer):
                self._introduce(peer, now, asks=True)
        self._ask_later(now)

    def peer_saved(self, met: PeerMet, now: float) -> None:
        """Introduce this node to a peer whose incarnation is on disk now."""
        self._met[met.peer] = met.incarnation
        self._introduce(met.peer, now)

    def refuse(self, peer: NodeId, now: float) -> None:
        """Tell ``peer``, which came back with another folder, with which folder this node knows it.

        Its other messages are refused. But if it is a founder it must learn at once that there is a cluster already.
        """
        told = self._told.get(peer)
        if peer in self._met and (told is None or now >= told[1] + self._timing.heartbeat_seconds / 10):
            self._introduce(peer, now)

    def receive_hint(self, sender: NodeId, message: Introduction, now: float) -> None:
        """Handle an introduction that may be forged, since it did not come over this node's own stream.

        It never makes a node a voter. An objection counts, for a while: that a voter knows this node with another
        folder. Everything else only makes this node ask the peer again soon.
        """
        if self.voter is not None:
            return
        if message.votes and message.met not in (0, self._incarnation):
            self._objected_at[sender] = now
        elif self._attempts < EAGER_ATTEMPTS:
            self.wake_at = min(self.wake_at, now + self._timing.heartbeat_seconds / 10)

    def is_folder_lost(self, now: float) -> bool:
        """Whether a peer objected lately: this node's folder is new, and the peer knows it with another one."""
        objections = self._objected_at.values()
        return bool(objections) and now < max(objections) + OBJECTION_SECONDS

    def receive(self, sender: NodeId, message: Introduction, now: float) -> None:
        """Handle an introduction that came over this node's own stream to ``sender``."""
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
        """The record to save, if this node may become a voter without catching up first; otherwise ``None``.

        That is so for a founder when all founders have met, and for a newcomer that is known to all founders of an
        unchanged cluster. In a cluster of two nodes a quorum is both of them. So a new node there only has to meet the
        other one, which has every value that was ever chosen.
        """
        if self._is_changed or self._joins:
            return None
        quorum = quorum_size(len(self._members))
        if sum(self._knows_me(peer) and heard.unchanged for peer, heard in self._heard.items()) >= quorum:
            return Voter(self._members)  # No objection can be true then.
        if any(not self._knows_me(peer) for peer in self._founders if peer != self._node):
            return None
        if len(self._members) > 2 and (self._node not in self._founders or self._is_founded_without_me()):
            return None
        if any(not heard.votes and self._has_other_terms(peer) for peer, heard in self._heard.items()):
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
        """Whether a majority of the voters, not counting this node, vote and have this node on their disks."""
        knowing = sum(self._is_voter_that_knows_me(peer) for peer in self._voters if peer != self._node)
        return not self._joins and knowing >= quorum_size(len(self._voters))

    def waits_for(self) -> tuple[NodeId, ...]:
        """While this node is no voter, the peers that have not confirmed that they vote and know it."""
        return (
            ()
            if self.voter is not None or self._joins
            else tuple(peer for peer in self._peers if not self._is_voter_that_knows_me(peer))
        )

    # inside

    @property
    def _joins(self) -> bool:
        """Whether this node was no member at the founding."""
        return self._node not in self._members

    def _knows_me(self, peer: NodeId) -> bool:
        return peer in self._heard and self._heard[peer].met == self._incarnation

    def _is_voter_that_knows_me(self, peer: NodeId) -> bool:
        return self._knows_me(peer) and self._heard[peer].votes

    def _is_founded_without_me(self) -> bool:
        """Whether a peer votes that did not found the cluster with this node, or a founder lists other founders."""
        return any(heard.votes and not (heard.together and self._knows_me(peer)) for peer, heard in self._heard.items())

    def _has_other_terms(self, peer: NodeId) -> bool:
        """Whether ``peer`` is a founder that would found the cluster with other founders, or with another state."""
        return peer in self._founders and tuple(sorted(self._heard[peer].founders)) != self._terms

    def _introduce(self, peer: NodeId, now: float, asks: bool = False) -> None:
        """Send an introduction to ``peer``. The same one is not repeated at once: forged requests may ask for it."""
        met = self._met.get(peer, 0)
        message = Introduction(
            votes=self.voter is not None,
            met=met,
            unchanged=self.voter is not None and bool(self.voter.founders) and not self._is_changed,
            together=self.voter is not None and PeerMet(peer, met) in self.voter.founders,
            founders=() if self.voter is not None else self._terms,
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
        if not message.votes and theirs != self._terms and peer not in self._reported:
            self._reported.add(peer)
            remedy = "list the nodes in the same order in all cluster files"
            if set(theirs) & set(self._founders) == set(self._founders):
                remedy = "restore all founders from the same backup, or none"
            self.log.critical(
                "node {peer} would found the cluster with {theirs}, node {node} with {ours}: {remedy}",
                peer=peer,
                theirs=printable(", ".join(theirs)),
                node=self._node,
                ours=", ".join(self._terms),
                remedy=remedy,
                event="founders_differ",
            )
