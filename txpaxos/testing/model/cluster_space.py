"""The state space of a model's cluster: every node's local state, and the network.

The network is the set of all messages that were ever sent. Each of them may arrive at any time, any number of times, or
never. So no step is needed for losing, duplicating, delaying or reordering a message, and no such case is left out. A
node that is down does nothing, and its crash shows when it restarts. So crash and restart are one step, which is
possible at any time. Messages that a node sent to itself are lost with the crash.

A state is one whole number: 20 bits for each node's local state, and above them one bit for each message.

Five reductions keep the states few without leaving out behaviour. Each can be switched off, and the tests do so:

* Counting up to a quorum is one step (:meth:`Part.forget_counts`).
* Messages that can have no effect any more are removed (:meth:`Part.dead`). That they have none is tried out on the
  node, and again after each of its changes.
* A node sends at once what it may send without changing (:meth:`ClusterSpace._give`).
* Disks with the same log are the same (``ModelDisk.compacted``).
* Interchangeable nodes may swap places (:class:`InterchangeableNodes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import attrs

from txpaxos.core.messages import Ballot, Prepare, PrepareLog
from txpaxos.testing.model.chosen_values import AgreementChecker
from txpaxos.testing.model.formatting import show
from txpaxos.testing.model.messages_in_flight import InterchangeableNodes, MessagesInFlight, bits_of
from txpaxos.testing.model.node import ModelEvent, NodeModel, Outcome
from txpaxos.testing.model.parts import Part

LOCAL_BITS = 20
LOCAL_MASK = (1 << LOCAL_BITS) - 1


@attrs.frozen
class Bounds:
    """The bounds that make the model finite, and the reductions that keep it small.

    :ivar ballots: how many ballots each node may start; 0 for a node that is not named.
    :ivar slots_max: proposals at a higher slot never arrive.
    :ivar lost: the kinds of messages that never arrive.
    :ivar owed_max: with slow disks, how many Readys may wait for a save at a node; 0 if disks are fast.
    :ivar own_at_once: whether a node takes its messages to itself before any other.
    :ivar interchangeable: nodes that differ only in their names.
    :ivar forget_counts: whether this reduction is on. The same for ``bury_dead``, ``give_at_once`` and ``compact``.
    """

    ballots: Mapping[str, int]
    slots_max: int = 99
    lost: tuple[type[Any], ...] = ()
    owed_max: int = 0
    own_at_once: bool = False
    interchangeable: tuple[str, ...] = ()
    forget_counts: bool = True
    bury_dead: bool = True
    give_at_once: bool = True
    compact: bool = True


@attrs.frozen
class Change:
    """The effect of an outcome on the cluster: ``sends`` and ``believes`` as bits; ``ballot``, if the node asks for
    promises for one; ``votes``, whether the node votes."""

    local: int
    sends: int
    believes: int
    votes: bool
    ballot: Ballot | None
    events: tuple[ModelEvent, ...]
    violation: str
    restarted: bool


class ClusterSpace:
    """The states of the cluster, and the steps between them.

    :param parts: the nodes. ``offered``: the values that they may propose.
    :param agreement: says what is chosen; by the voters of the parts unless it is given.
    """

    def __init__(
        self,
        parts: Sequence[Part[Any]],
        offered: Collection[bytes],
        bounds: Bounds,
        agreement: AgreementChecker | None = None,
    ) -> None:
        assert not (bounds.own_at_once and bounds.owed_max), "a slow disk keeps own messages waiting, too"
        assert bounds.forget_counts or not bounds.interchangeable, "who was counted tells nodes apart"
        self.bounds = bounds
        self.messages = MessagesInFlight(parts, bounds.lost, bounds.slots_max)
        places = [index for index, part in enumerate(parts) if part.node in bounds.interchangeable]
        self._interchangeable = InterchangeableNodes(self.messages, places, parts)
        self.nodes: list[NodeModel] = []
        for index, part in enumerate(parts):
            like = self.nodes[places[0]] if index in places[1:] else None
            owed_max, own_at_once, compact = bounds.owed_max, bounds.own_at_once, bounds.compact
            model = NodeModel(part, owed_max=owed_max, own_at_once=own_at_once, compact=compact, like=like)
            self.nodes.append(model)
        names = [part.node for part in parts]
        self._agreement = agreement or AgreementChecker(map(names.index, parts[0].voters), offered)
        self._everyone = range(len(parts))
        self._net_shift = LOCAL_BITS * len(parts)
        self._low = (1 << self._net_shift) - 1
        # By node: what is known of each of its local states.
        self._deaf: list[dict[int, int]] = [defaultdict(int) for _ in parts]
        self._judged: list[dict[int, int]] = [defaultdict(int) for _ in parts]
        self._dead: list[dict[int, int]] = [defaultdict(int) for _ in parts]
        self._undead: list[dict[int, int]] = [defaultdict(int) for _ in parts]
        self._alarm = ""
        self._changes: list[dict[tuple[int, int], tuple[Change, ...]]] = [{} for _ in parts]
        self._gathered: list[dict[tuple[int, int], tuple[Change, ...]]] = [{} for _ in parts]
        self._given: list[dict[tuple[int, int], tuple[int, tuple[Change, ...]]]] = [{} for _ in parts]

    def initial(self) -> int:
        """The state in which every node starts for the first time. Only what can be sent at the start has been sent."""
        nodes = sum(node.initial() << LOCAL_BITS * index for index, node in enumerate(self.nodes))
        net, _, _ = self._give(nodes, 0, (1 << len(self.nodes)) - 1)
        return net << self._net_shift | nodes

    def local(self, state: int, index: int) -> int:
        """The number of the local state of node ``index``."""
        return state >> LOCAL_BITS * index & LOCAL_MASK

    def network(self, state: int) -> int:
        """The messages that may still arrive, as bits."""
        return state >> self._net_shift

    def successors(self, state: int) -> Iterator[tuple[int, tuple[ModelEvent, ...], str]]:
        """The steps from ``state``: the state after each, the events, and the violation, which may be empty."""
        net = state >> self._net_shift
        for index in self._everyone:
            shift = LOCAL_BITS * index
            local = state >> shift & LOCAL_MASK
            for change in self._possible(index, local, net):
                if change.violation:
                    yield state, change.events, change.violation
                elif self._happens(index, local, net, change):
                    nodes = state & self._low & ~(LOCAL_MASK << shift) | change.local << shift
                    after, given, violation = self._after(index, local, nodes, net, change)
                    if after != state or violation:
                        yield after, change.events + given, violation

    def fold(self, state: int) -> int:
        """The state with its interchangeable nodes in order."""
        interchangeable = self._interchangeable
        if not interchangeable.nodes:
            return state
        net = state >> self._net_shift
        locals_ = [state >> LOCAL_BITS * index & LOCAL_MASK for index in interchangeable.nodes]
        folded, net_folded = state & self._low, interchangeable.others(net)
        for place, (local, mailbox) in enumerate(sorted(zip(locals_, interchangeable.mailboxes(net), strict=True))):
            shift = LOCAL_BITS * interchangeable.nodes[place]
            folded = folded & ~(LOCAL_MASK << shift) | local << shift
            net_folded |= interchangeable.posted(place, mailbox)
        return net_folded << self._net_shift | folded

    # possible changes

    def _happens(self, index: int, local: int, net: int, change: Change) -> bool:
        """Whether the change has any effect and stays within the bounds."""
        if change.local == local and (self.bounds.give_at_once or not change.sends & ~net):
            return False
        if change.ballot is None:
            return True
        begun = self.nodes[index].locals[local].disk.begun
        return change.ballot in begun or len(begun) < self.bounds.ballots.get(change.ballot.node, 0)

    def _possible(self, index: int, local: int, net: int) -> Iterator[Change]:
        """Every change that node ``index`` may go through."""
        yield from self._spontaneous(index, local)
        waiting = net & self.messages.inbox[index] & ~self._deaf[index][local]
        counted = waiting & self.messages.counted[index] if self.bounds.forget_counts else 0
        for bit in bits_of(waiting ^ counted):
            yield from self._received(index, local, bit)
        if counted:
            yield from self._gather(index, local, counted)

    def _spontaneous(self, index: int, local: int) -> tuple[Change, ...]:
        known = self._changes[index].get((local, 0))
        if known is None:
            outcomes = self.nodes[index].spontaneous(local)
            known = self._changes[index][local, 0] = tuple(self._change(index, local, outcome) for outcome in outcomes)
        return known

    def _received(self, index: int, local: int, bit: int) -> tuple[Change, ...]:
        """The changes that a message causes; none if it has no effect."""
        known = self._changes[index].get((local, bit))
        if known is None:
            sender, _, message = self.messages.of(bit)
            changes = [self._change(index, local, one) for one in self.nodes[index].receive(local, sender, message)]
            known = tuple(change for change in changes if change.local != local or change.sends or change.violation)
            self._changes[index][local, bit] = known
            if not known:
                self._deaf[index][local] |= bit
        return known

    def _gather(self, index: int, local: int, counted: int) -> tuple[Change, ...]:
        """The changes that some of the ``counted`` messages cause, in any order, up to the first with an effect beyond
        the count.

        Counts that are left after that are forgotten.
        """
        known = self._gathered[index].get((local, counted))
        if known is not None:
            return known
        settled = self.nodes[index].settled
        found: dict[tuple[int, int, str], Change] = {}
        ways: dict[int, tuple[ModelEvent, ...]] = {local: ()}
        for counting in (queue := [local]):  # grows as it goes
            for bit in bits_of(counted):
                for change in self._received(index, counting, bit):
                    after = change.local if change.violation else settled(change.local)
                    events = ways[counting] + change.events
                    if after != local or change.sends or change.violation:
                        whole = attrs.evolve(change, local=after, events=events)
                        found.setdefault((after, change.sends, change.violation), whole)
                    elif change.local not in ways:
                        ways[change.local] = events
                        queue.append(change.local)
        known = self._gathered[index][local, counted] = tuple(found.values())
        return known

    # effects of a change

    def _after(
        self, index: int, local: int, nodes: int, net: int, change: Change
    ) -> tuple[int, tuple[ModelEvent, ...], str]:
        """The state after ``change`` of ``local``, which led to the local states ``nodes``; the events of what nodes
        sent then; and the violation, which may be empty."""
        self._alarm = ""
        self._require_still_dead(index, local, change)
        if change.restarted:
            net &= ~self.messages.own[index]
        net &= ~self._dead_bits(index, change.local, net & self.messages.inbox[index])
        new = self._living(nodes, change.sends & ~net)
        net |= new
        given: tuple[ModelEvent, ...] = ()
        believes = change.believes
        if self.bounds.give_at_once:
            net, given, more = self._give(nodes, net, self._receivers(new) | 1 << index)
            believes |= more
        violation = self._agreement.of(self._votes(nodes), believes) if believes or change.votes else ""
        return net << self._net_shift | nodes, given, self._alarm or violation

    def _give(self, nodes: int, net: int, touched: int) -> tuple[int, tuple[ModelEvent, ...], int]:
        """Let every node send what it may send without changing, by itself or as an answer.

        Only the nodes in ``touched`` can have anything new to send. A state with more messages in the network allows
        everything that the same state with fewer allows, since a message that has not arrived has had no effect. So the
        states with fewer messages need not be visited.
        """
        events: tuple[ModelEvent, ...] = ()
        believes = 0
        while touched:
            index = touched.bit_length() - 1
            touched ^= 1 << index
            local = nodes >> LOCAL_BITS * index & LOCAL_MASK
            waiting = net & self.messages.inbox[index] & ~self._deaf[index][local]
            sends, changes = self._free(index, local, waiting)
            if new := self._living(nodes, sends & ~net):
                net |= new
                touched |= self._receivers(new)
                for change in changes:
                    events += change.events
                    believes |= change.believes
        return net, events, believes

    def _free(self, index: int, local: int, waiting: int) -> tuple[int, tuple[Change, ...]]:
        """What node ``index`` can send without changing, and the changes that send it."""
        known = self._given[index].get((local, waiting))
        if known is None:
            changes = list(self._spontaneous(index, local))
            for bit in bits_of(waiting):
                changes.extend(self._received(index, local, bit))
            sends, free = 0, []
            for change in changes:
                if change.local == local and change.sends:
                    sends |= change.sends
                    events = tuple(attrs.evolve(event, gift=True) for event in change.events)
                    free.append(attrs.evolve(change, events=events))
            known = self._given[index][local, waiting] = sends, tuple(free)
        return known

    def _living(self, nodes: int, sends: int) -> int:
        """``sends`` without the messages that can have no effect at their receivers."""
        if sends and self.bounds.bury_dead:
            for index, inbox in enumerate(self.messages.inbox):
                if arriving := sends & inbox:
                    sends &= ~self._dead_bits(index, nodes >> LOCAL_BITS * index & LOCAL_MASK, arriving)
        return sends

    def _receivers(self, messages: int) -> int:
        """The receivers of ``messages``, a bit for each node."""
        return sum(1 << index for index, inbox in enumerate(self.messages.inbox) if messages & inbox)

    def _dead_bits(self, index: int, local: int, bits: int) -> int:
        """Those of ``bits`` that are removed at node ``index``."""
        return self.dead(index, local, bits) if self.bounds.bury_dead else 0

    def dead(self, index: int, local: int, bits: int) -> int:
        """Those of ``bits`` that can have no effect any more at node ``index``. The part names them, and each is tried
        out on the node."""
        unknown = bits & ~self._judged[index][local]
        if unknown:
            self._judged[index][local] |= unknown
            node = self.nodes[index]
            known = node.locals[local]
            for bit in bits_of(unknown):
                sender, _, message = self.messages.of(bit)
                if node.part.dead(known.running, known.disk, message):
                    self._dead[index][local] |= bit
                    if not node.is_deaf(local, sender, message):
                        self._undead[index][local] |= bit
        if undead := bits & self._undead[index].get(local, 0):
            sender, to, message = self.messages.of(undead)
            self._alarm = f"{show(message)} from {sender} should do nothing any more at {to}, and does"
        return bits & self._dead[index][local]

    def _require_still_dead(self, index: int, local: int, change: Change) -> None:
        """Messages that could have no effect before the change must have none after it: so they need not be kept."""
        were_dead = self._dead[index].get(local, 0)
        if change.restarted:
            were_dead &= ~self.messages.own[index]
        revived = were_dead & ~self._dead_bits(index, change.local, were_dead)
        if revived and not self._alarm:
            sender, to, message = self.messages.of(revived)
            self._alarm = f"{show(message)} from {sender} could do nothing any more at {to}, and now can"

    # what it means for all

    def _change(self, index: int, before: int, outcome: Outcome) -> Change:
        node = self.nodes[index]
        sends, votes, ballot, violation = 0, False, None, outcome.violation
        if not violation:
            assert outcome.local < LOCAL_MASK, "more local states than there is room for"
            votes = node.locals[outcome.local].disk.votes != node.locals[before].disk.votes
            for to, message in outcome.sends:
                sends |= self.messages.bit(node.part.node, to, message)
                if isinstance(message, Prepare | PrepareLog):
                    ballot = message.ballot
        believes = self._agreement.believed(outcome.beliefs)
        events, restarted = outcome.events, outcome.restarted
        return Change(outcome.local, sends, believes, votes, ballot, events, violation, restarted)

    def _votes(self, nodes: int) -> list[int]:
        """The votes ever cast by each voter, as bits."""
        votes = []
        for index in self._agreement.voters:
            local = nodes >> LOCAL_BITS * index & LOCAL_MASK
            votes.append(self._agreement.cast(index, local, self.nodes[index].locals[local].disk.votes))
        return votes
