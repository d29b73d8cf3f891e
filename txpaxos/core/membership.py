"""Who the members are, and which of them make a quorum, slot by slot.

Membership is decided in the log. The configuration that is chosen at slot t governs the slots from t + alpha on
(*Paxos Made Simple*, section 3; Lamport, Malkhi and Zhou, *Reconfiguring a State Machine*, 2010). A leader proposes no
slot s before it knows that every slot up to s - alpha is chosen. So the leader that proposes s always knows which
configuration governs s, whatever undecided values there are above.

Why not let a configuration govern from the next slot on: slots are chosen out of order here. A vote for a configuration
that lost its slot could rise again in a higher ballot, and take slots away from the old members that had chosen values
there. With alpha it cannot: those slots are governed by the old members, whatever is chosen at the slot in question.

Laws:

* Known configurations come from chosen slots and from snapshots, never from votes.
* Promises, pre-votes, acknowledgements for reads and signs of life are counted over the slots that may be open. A set
  of nodes is a quorum when it has a majority of each configuration that governs one of them: of one, or of two.
* Votes for a slot are counted by the configuration that governs that slot.
* There is one change at a time: an entry counts only if it names the newest configuration as the one that it changes,
  and alpha slots lie between the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

import attrs

from txpaxos.core.essential import quorum_size
from txpaxos.core.guards import BrokenInvariant
from txpaxos.core.messages import NodeId, Slot

Priorities: TypeAlias = tuple[tuple[NodeId, int], ...]
"""Pairs of a voter and its priority."""


@attrs.frozen
class Configuration:
    """The members that govern the slots from ``slot`` + alpha on.

    :ivar slot: the slot where it was chosen; 0 for the members that founded the cluster, which govern from slot 1 on.
    :ivar voters: the members whose promises and votes count.
    :ivar learners: the members that only learn what is chosen.
    :ivar priorities: how much each voter is to lead, where that is not 1: the higher, the rather; 0 for never.
    :ivar voter_set: the same voters, for a quick look.
    :ivar quorum: how many voters are a majority of them.
    """

    slot: Slot
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    priorities: Priorities = ()
    voter_set: frozenset[NodeId] = attrs.field(init=False, repr=False, eq=False)
    quorum: int = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "voter_set", frozenset(self.voters))
        object.__setattr__(self, "quorum", quorum_size(len(self.voters)))

    def priority(self, voter: NodeId) -> int:
        """How much ``voter`` is to lead: the higher, the rather; 0 for never."""
        return dict(self.priorities).get(voter, 1)

    def is_majority(self, nodes: Iterable[NodeId]) -> bool:
        """Whether ``nodes``, each named once, hold a majority of the voters."""
        return sum(node in self.voter_set for node in nodes) >= self.quorum


@attrs.frozen
class Change:
    """What an entry of the log says about members.

    :ivar base: the slot of the configuration that the entry changes. It counts only if that is still the newest.
    :ivar voters: the voters from then on.
    :ivar learners: the learners from then on.
    :ivar priorities: how much each voter is to lead, where that is not 1.
    """

    base: Slot
    voters: tuple[NodeId, ...]
    learners: tuple[NodeId, ...] = ()
    priorities: Priorities = ()


class Membership:
    """The configurations that one node knows, as far as they govern slots that are not chosen yet.

    :param node: this node's id.
    :param configurations: those known at the start, oldest first; at least one.
    :param alpha: how many slots after its own a configuration begins to govern.
    :param chosen_through: every slot up to this one is chosen.
    :ivar configurations: those that govern a slot above ``chosen_through``, oldest first: one, or two during a change.
    :ivar others: all nodes of these configurations but this one, learners included.
    :ivar senders: all nodes whose messages are taken, this one included.
    :ivar sources: the nodes that may know what this one misses: the others, and the contacts.
    :ivar is_voter: whether this node is a voter of a configuration that governs a slot above ``chosen_through``.
    :ivar retirements: how often a configuration has ceased to govern since the start.
    :ivar needs_own_vote: whether the voters without this node are too few for a quorum.
    """

    def __init__(
        self,
        node: NodeId,
        configurations: Sequence[Configuration],
        alpha: int = 1,
        chosen_through: Slot = 0,
    ) -> None:
        self.node = node
        self.alpha = alpha
        self.configurations = list(configurations)
        self.others: tuple[NodeId, ...] = ()
        self.senders: frozenset[NodeId] = frozenset()
        self.is_voter = False
        self.retirements = 0
        self.needs_own_vote = True
        self.sources: tuple[NodeId, ...] = ()
        self._contacts: tuple[NodeId, ...] = ()
        self._contacts_slot: Slot = 0
        self._recount()
        self.advance(chosen_through)

    @classmethod
    def fixed(cls, node: NodeId, members: Sequence[NodeId]) -> Membership:
        """The membership of a cluster whose members never change: all of them are voters."""
        return cls(node, [Configuration(0, tuple(members))])

    # what it is

    @property
    def newest(self) -> Configuration:
        """The configuration that was chosen last."""
        return self.configurations[-1]

    @property
    def is_changing(self) -> bool:
        """Whether two configurations govern slots that are not chosen yet."""
        return len(self.configurations) > 1

    @property
    def may_lead(self) -> bool:
        """Whether this node is a voter, and not one that never leads."""
        return self.is_voter and self.newest.priority(self.node) > 0

    @property
    def voters(self) -> tuple[NodeId, ...]:
        """The voters of all configurations that govern slots which are not chosen yet, this node included."""
        first, *later = self.configurations
        return first.voters + tuple(voter for one in later for voter in one.voters if voter not in first.voter_set)

    def governs_from(self, configuration: Configuration) -> Slot:
        """The first slot that ``configuration`` governs."""
        return configuration.slot + self.alpha if configuration.slot else 1

    def governing(self, slot: Slot) -> Configuration:
        """The configuration that governs ``slot``, which is above all that are chosen, and at most alpha above."""
        newest = self.configurations[-1]
        if len(self.configurations) == 1 or slot >= newest.slot + self.alpha:
            return newest
        return self.configurations[-2]

    def is_quorum(self, nodes: Collection[NodeId]) -> bool:
        """Whether ``nodes`` hold a majority of each configuration that governs a slot which is not chosen yet."""
        return all(one.is_majority(nodes) for one in self.configurations)

    def spare_voters(self, nodes: Collection[NodeId]) -> int:
        """How many of ``nodes``, whichever they are, may be lost, so that the others are still a quorum and one of them
        may lead; -1 if they are none already."""
        spare = min(sum(node in one.voter_set for node in nodes) - one.quorum for one in self.configurations)
        newest = self.newest
        may_lead = sum(node in newest.voter_set and newest.priority(node) > 0 for node in nodes)
        return max(-1, min(spare, may_lead - 1))

    # how it changes

    def note(self, slot: Slot, change: Change) -> Configuration | None:
        """``change`` is chosen at ``slot``, and every slot below is known.

        :returns: the configuration, or ``None`` if the change does not count: it was made for another configuration
            than the newest, or too soon after it.
        """
        newest = self.newest
        if change.base != newest.slot or slot < self.governs_from(newest) or not change.voters:
            return None
        configuration = Configuration(slot, change.voters, change.learners, change.priorities)
        self.configurations.append(configuration)
        self._recount()
        return configuration

    def advance(self, chosen_through: Slot) -> None:
        """Every slot up to ``chosen_through`` is chosen: drop the configurations that govern no slot above it."""
        while self.is_changing and self.governs_from(self.configurations[1]) <= chosen_through + 1:
            del self.configurations[0]
            self.retirements += 1
            self._recount()

    def replace(self, configurations: Sequence[Configuration], chosen_through: Slot) -> None:
        """Go on with the ``configurations`` of a snapshot that reaches up to ``chosen_through``."""
        if not configurations:
            raise BrokenInvariant("a snapshot without members", chosen_through)
        self.configurations = list(configurations)
        self.retirements += 1
        self._recount()
        self.advance(chosen_through)

    def admit_contacts(self, contacts: Iterable[NodeId], slot: Slot = 0) -> None:
        """Take messages of ``contacts``, too, and ask them what is missing: nodes that are members as far as others
        say, though this node has not learned so yet. Nothing of theirs is counted.

        :param slot: where the members were chosen of which others say so, if that is known. From then on what this node
            has learned counts alone.
        """
        self._contacts = tuple(contacts)
        self._contacts_slot = slot
        self._recount()

    def _recount(self) -> None:
        """Note what follows from the configurations. It is looked at with each message."""
        nodes = {node: None for one in self.configurations for node in (*one.voters, *one.learners)}
        self.others = tuple(node for node in nodes if node != self.node)
        contacts = self._contacts if not self._contacts_slot or self.newest.slot < self._contacts_slot else ()
        more = (node for node in contacts if node not in nodes and node != self.node)
        self.sources = (*self.others, *more)
        self.senders = frozenset((*self.sources, self.node))
        self.is_voter = any(self.node in one.voter_set for one in self.configurations)
        self.needs_own_vote = not self.is_quorum(self.others)
