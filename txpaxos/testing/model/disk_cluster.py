"""Three nodes: one with a disk to which anything may happen, and two that never fail.

A message and its answer are one step here. A node may send to one node, at any time, whatever it would send in its
present state. So no network is kept beside the nodes. A message that is delayed until its sender has changed is left to
the other models. The answer may be lost.

The rule is Paxos's own: at each slot one value is chosen, judged by all votes that were ever cast, and what a node
takes for chosen is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import attrs

from txpaxos.core.leader import LeaderState
from txpaxos.core.messages import NO_OP, AcceptSlot, Heartbeat, HeartbeatAck, Message, NodeId, Slot, Vote
from txpaxos.core.ready import Ready, Voted
from txpaxos.core.replica import Replica
from txpaxos.testing.model.chosen_values import AgreementChecker
from txpaxos.testing.model.disk import Belief
from txpaxos.testing.model.disk_space import NODE, Step, event
from txpaxos.testing.model.log import TIMING, ReplicaPart
from txpaxos.testing.model.node import ModelEvent, Sent
from txpaxos.testing.model.parts import NOW, STILL
from txpaxos.testing.model.states import States
from txpaxos.testing.model.stored import EMPTY, Replicas, StoredNode
from txpaxos.testing.model.stored_model import FaultBudget, Left, Spent, StoredModel

MEMBERS = ("a", "b", NODE)
OFFERED = {"a": b"A", "b": b"B", NODE: b"C"}
BEGIN = "is backed, and starts a ballot"
WAITED = "has waited too long for promises"
TOO_LONG = frozenset({WAITED, "has not heard a quorum for too long"})
"""Moves that are not made, since other moves lead to the same effects."""


@attrs.frozen
class Reign:
    """The history before the model begins: ``leader`` won a ballot with the promise of ``follower``, and proposed at
    every slot up to ``proposed_through``. The follower has accepted the proposals up to ``chosen_through``.

    :ivar taken: whether the node with a disk then learned what is chosen, and took a snapshot.
    """

    leader: NodeId
    follower: NodeId
    proposed_through: Slot = 1
    chosen_through: Slot = 0
    taken: bool = False


@attrs.frozen
class ClusterBounds:
    """The bounds that make the model finite and keep it small.

    :ivar ballots: how many each node may start, besides those of the ``reigns`` before the model begins.
    :ivar apart: two nodes that do not hear each other, if any.
    :ivar slots: the last slot at which values are proposed.
    :ivar segment_saves: how many saves fill a segment of the journal.
    :ivar anywhere: whether power may fail at each system call, or only while nothing is being saved.
    """

    ballots: Mapping[NodeId, int]
    slots: Slot
    budget: FaultBudget
    reigns: tuple[Reign, ...] = ()
    apart: frozenset[NodeId] = frozenset()
    segment_saves: int = 1
    anywhere: bool = True


@attrs.frozen(cache_hash=True)
class NodePlace:
    """The state of one node.

    :ivar number: the number of its replica; for the node with a disk, the number of the node or of the platter.
    :ivar cast: all votes that it ever cast. ``begun``: how many ballots it has started.
    """

    number: int
    runs: bool = True
    cast: frozenset[Vote] = frozenset()
    begun: int = 0


Places = tuple[NodePlace, NodePlace, NodePlace]


@attrs.frozen
class Done:
    """The effect of a node's step: its state afterwards, the messages it sends, and the platters that a power cut may
    leave."""

    place: NodePlace
    sends: tuple[Sent, ...]
    left: Left = ()
    wrong: str = ""


class Reliable:
    """A node that never fails: everything that it sends is on its disk."""

    def __init__(self, part: ReplicaPart) -> None:
        self.part = part
        self._replicas = Replicas(part)

    def initial(self) -> NodePlace:
        """The node at its first start."""
        return NodePlace(
            self._replicas.number(self._replicas.one(Replica(self.part.node, MEMBERS, STILL, NOW, (), TIMING)))
        )

    def replica(self, place: NodePlace) -> Replica:
        """The running replica."""
        return self._replicas.of(place.number)

    def do(self, place: NodePlace, name: Hashable, act: Callable[..., Ready], *arguments: Hashable) -> Done | None:
        """Do ``act``, and take the messages that the node sends to itself."""
        replica, sends, votes = self.replica(place), [], set(place.cast)
        todo: list[tuple[Any, ...]] = [(act, *arguments)]
        for one in todo:
            ready, replica = self._replicas.do(replica, *one)
            votes |= {
                Vote(record.slot, record.ballot, record.value) for record in ready.save if isinstance(record, Voted)
            }
            for to, message in _sent(ready):
                if to == self.part.node:
                    todo.append((Replica.receive, to, message, NOW))
                else:
                    sends.append((to, message))
        return Done(attrs.evolve(place, number=self._replicas.number(replica), cast=frozenset(votes)), tuple(sends))


class Stored:
    """The node with a disk."""

    def __init__(self, part: ReplicaPart, bounds: ClusterBounds) -> None:
        self.part = part
        self.model = StoredModel(NODE, MEMBERS, bounds.slots, bounds.segment_saves, part=part, sure="acknowledged")
        self._anywhere = bounds.anywhere

    def initial(self) -> NodePlace:
        """An empty folder."""
        return NodePlace(self.model.platter(EMPTY), runs=False)

    def replica(self, place: NodePlace) -> Replica:
        """The running replica."""
        return self.model.running(place.number).replica

    def do(self, place: NodePlace, name: Hashable, act: Callable[..., Ready], *arguments: Hashable) -> Done | None:
        """Do ``act``, and take the messages that the node sends to itself."""
        return self.move(place, name, partial(StoredNode.do_all, act=act, arguments=arguments))

    def move(
        self, place: NodePlace, name: Hashable, act: Callable[[StoredNode], None], begins: bool = False
    ) -> Done | None:
        """Do ``act``. Nothing happens if the store refuses it now."""
        moved = self.model.move(place.number, name, act, begins)
        if moved is None:
            return None
        after = attrs.evolve(place, number=moved.after, cast=place.cast | set(moved.voted))
        sends = tuple((to, message) for to, message in moved.sends if to != NODE)
        return Done(after, sends, moved.left if self._anywhere else (), moved.wrong)


class DiskClusterSpace:
    """The states of the three nodes, and the steps between them."""

    def __init__(self, bounds: ClusterBounds) -> None:
        self.bounds = bounds
        parts = [ReplicaPart(member, MEMBERS, OFFERED[member], bounds.slots) for member in MEMBERS]
        self._stored = Stored(parts[2], bounds)
        self._nodes: tuple[Reliable | Stored, ...] = (Reliable(parts[0]), Reliable(parts[1]), self._stored)
        self._states = States()
        self._agreement = AgreementChecker(range(3), (*OFFERED.values(), NO_OP))
        self._casts: dict[frozenset[Vote], int] = {}
        self._offers: dict[tuple[int, int], Any] = {}

    # the space

    def initial(self) -> int:
        """All nodes at their first start, with the effects of the history before."""
        places = cast(Places, tuple(node.initial() for node in self._nodes))
        started = self._stored.model.start(places[2].number)
        assert not isinstance(started, str), started
        places = _with(places, 2, attrs.evolve(places[2], number=started.after, runs=True))
        for reign in self.bounds.reigns:
            places = self._reigned(places, reign)
        return self._states.number(places, Spent())

    def _reigned(self, places: Places, reign: Reign) -> Places:
        leader, follower = MEMBERS.index(reign.leader), MEMBERS.index(reign.follower)
        node = self._nodes[leader]
        while not (replica := node.replica(places[leader])).is_leader:
            begins = any(move.begins for move in node.part.moves(replica))
            places, messages = self._does(places, leader, BEGIN if begins else WAITED)
            for message in (message for to, message in messages if to == reign.follower):
                places = self._exchanged(places, leader, follower, message)
        while (state := leader_state(node.replica(places[leader]))).next_slot <= reign.proposed_through:
            places, _ = self._does(places, leader, f"proposes {node.part.value!r}")
        for slot, open_slot in list(state.window.slots.items()):
            if slot <= reign.chosen_through:
                accept = AcceptSlot(state.ballot, slot, open_slot.value, slot - 1)
                places = self._exchanged(places, leader, follower, accept)
        return self._taken(places, leader) if reign.taken else places

    def _taken(self, places: Places, leader: int) -> Places:
        """The node with a disk hears from ``leader``, and takes a snapshot."""
        replica = self._nodes[leader].replica(places[leader])
        places = self._exchanged(
            places, leader, 2, Heartbeat(replica.election.own_ballot, replica.log.chosen_through, 0)
        )
        place, may_begin = places[2], True
        while acts := list(self._stored.model.acts(place.number, may_begin)):
            what, act, begins = acts[0]
            done = self._stored.move(place, what, act, begins)
            assert done is not None, what
            place, may_begin = done.place, may_begin and not begins
        return _with(places, 2, place)

    def _does(self, places: Places, index: int, name: str) -> tuple[Places, tuple[Sent, ...]]:
        """A move of which nothing is lost."""
        done = self._nodes[index].do(places[index], name, _lead, self._nodes[index].part, name)
        assert done is not None, name
        return _with(places, index, done.place), done.sends

    def _exchanged(self, places: Places, sender: int, receiver: int, message: Message) -> Places:
        """A message arrives, and its answer, too."""
        done = self._receive(places, receiver, MEMBERS[sender], message)
        assert done is not None, message
        places = _with(places, receiver, done.place)
        for answer in (answer for to, answer in done.sends if to == MEMBERS[sender]):
            taken = self._receive(places, sender, MEMBERS[receiver], answer)
            assert taken is not None, answer
            places = _with(places, sender, taken.place)
        return places

    def fold(self, state: int) -> int:
        """The state itself: no nodes here are interchangeable."""
        return state

    def successors(self, state: int) -> Iterator[Step]:
        """The steps from ``state``."""
        holds, spent = cast(tuple[Places, Spent], self._states.of(state))
        for index, place in enumerate(holds):
            if place.runs:
                yield from self._from_node(holds, spent, index)
        yield from self._from_disk(holds, spent)

    # what nodes say to each other

    def _from_node(self, places: Places, spent: Spent, index: int) -> Iterator[Step]:
        node, place = self._nodes[index], places[index]
        moves, offers = self._may(index, place)
        for name, begins in moves:
            if not begins or place.begun < self.bounds.ballots.get(MEMBERS[index], 0):
                done = node.do(place, name, _lead, node.part, name)
                if done is not None:
                    done = attrs.evolve(done, place=attrs.evolve(done.place, begun=place.begun + begins))
                    yield from self._after(places, spent, index, done, (ModelEvent(MEMBERS[index], name),))
        for to, message in offers:
            if places[MEMBERS.index(to)].runs and not self.bounds.apart >= {to, MEMBERS[index]}:
                yield from self._delivered(places, spent, index, MEMBERS.index(to), message)

    def _may(self, index: int, place: NodePlace) -> tuple[list[tuple[str, bool]], list[Sent]]:
        """The moves of a node that change it, and the messages that it may send without a change."""
        node = self._nodes[index]
        replica = node.replica(place)
        key = index, place.number
        if key not in self._offers:
            moves, offers = [], {}
            for move in node.part.moves(replica):
                if move.name in TOO_LONG:
                    continue
                done = node.do(place, move.name, _lead, node.part, move.name)
                if move.begins or done is None or done.place.number != place.number or done.wrong:
                    moves.append((move.name, move.begins))
                else:
                    offers.update(dict.fromkeys(done.sends))
            self._offers[key] = moves, list(offers)
        known: tuple[list[tuple[str, bool]], list[Sent]] = self._offers[key]
        return known

    def _delivered(self, places: Places, spent: Spent, sender: int, receiver: int, message: Message) -> Iterator[Step]:
        """A message arrives. Its answer arrives or is lost."""
        name = MEMBERS[sender]
        done = self._receive(places, receiver, name, message)
        if done is None:
            return
        answers = [one for to, one in done.sends if to == name and not isinstance(one, HeartbeatAck)]
        happened = ModelEvent(
            MEMBERS[receiver], "takes", name, message, sends=tuple((name, answer) for answer in answers)
        )
        if done.place != places[receiver] or done.wrong:
            yield from self._after(places, spent, receiver, done, (happened,))
        if done.wrong or not answers:
            return
        places = _with(places, receiver, done.place)
        events = [happened]
        for answer in answers:
            taken = self._receive(places, sender, MEMBERS[receiver], answer)
            if taken is not None:
                events.append(ModelEvent(name, "takes", MEMBERS[receiver], answer))
                yield from self._after(places, spent, sender, taken, tuple(events))
                if taken.wrong:
                    return
                places = _with(places, sender, taken.place)

    def _receive(self, places: Places, index: int, sender: NodeId, message: Message) -> Done | None:
        return self._nodes[index].do(places[index], (sender, message), Replica.receive, sender, message, NOW)

    # what happens to the disk

    def _from_disk(self, places: Places, spent: Spent) -> Iterator[Step]:
        place, model = places[2], self._stored.model
        if not place.runs:
            yield from self._start(places, spent, ())
            for harm in model.harms(place.number, spent, self.bounds.budget):
                yield self._step(
                    _with(places, 2, attrs.evolve(place, number=harm.platter)), harm.spent, event(harm.what)
                )
            return
        for platter, _ in model.known(place.number).left:
            yield from self._lose_power(places, spent, platter, event("loses power"))
        may_begin = spent.snapshots < self.bounds.budget.snapshots
        acts = list(model.acts(place.number, may_begin))
        if may_begin:
            known = model.known(place.number).chosen_through
            for index in range(2):
                slot = self._nodes[index].replica(places[index]).log.chosen_through
                if slot > known:
                    receive = partial(StoredNode.receive_snapshot, slot=slot)
                    acts.append((f"receives a snapshot at {slot}", receive, True))
        for what, act, begins in acts:
            done = self._stored.move(place, what, act, begins)
            if done is not None:
                after = spent._replace(snapshots=spent.snapshots + begins)
                yield from self._after(places, after, 2, done, event(what))

    def _lose_power(self, places: Places, spent: Spent, platter: int, events: tuple[ModelEvent, ...]) -> Iterator[Step]:
        """The node with a disk is down, if something may happen to its disk. Otherwise it restarts at once."""
        places = _with(places, 2, attrs.evolve(places[2], number=platter, runs=False))
        if any(True for _ in self._stored.model.harms(platter, spent, self.bounds.budget)):
            yield self._step(places, spent, events)
        else:
            yield from self._start(places, spent, events)

    def _start(self, places: Places, spent: Spent, events: tuple[ModelEvent, ...]) -> Iterator[Step]:
        place, model = places[2], self._stored.model
        started = model.start(place.number)
        if isinstance(started, str):
            return
        votes = place.cast | set(model.known(started.after).votes.values())
        up = attrs.evolve(place, number=started.after, runs=True, cast=votes)
        left = tuple((platter, call) for platter, call in started.left if platter != place.number)
        done = Done(up, (), left if self.bounds.anywhere else ())
        yield from self._after(places, spent, 2, done, (*events, *event("starts")))

    # what comes of it

    def _after(
        self, places: Places, spent: Spent, index: int, done: Done, events: tuple[ModelEvent, ...]
    ) -> Iterator[Step]:
        """The states after a node's step, and those after a power cut within it."""
        if done.wrong:
            yield self.initial(), events, done.wrong
            return
        for platter, call in done.left:
            yield from self._lose_power(places, spent, platter, (*events, *event(f"loses power after {call}")))
        yield self._step(_with(places, index, done.place), spent, events)

    def _step(self, places: Places, spent: Spent, events: tuple[ModelEvent, ...]) -> Step:
        votes = []
        beliefs: set[Belief] = set()
        for index, place in enumerate(places):
            number = self._casts.setdefault(place.cast, len(self._casts))
            votes.append(self._agreement.cast(0, number, place.cast))
            if place.runs:
                log = self._nodes[index].replica(place).log
                beliefs |= {*enumerate(log.values_from(log.first_slot), log.first_slot), *log._learned.items()}
        wrong = self._agreement.of(votes, self._agreement.believed(beliefs))
        return self._states.number(places, spent), events, wrong


def leader_state(replica: Replica) -> LeaderState:
    """The state that a node has while it leads."""
    assert replica._leader is not None
    return replica._leader


def _lead(replica: Replica, part: ReplicaPart, name: str) -> Ready:
    """Make the move with that name."""
    return next(move for move in part.moves(replica) if move.name == name).act(replica)


def _sent(ready: Ready) -> Iterable[Sent]:
    return [(to, envelope.message) for envelope in ready.send for to in envelope.to]


def _with(places: Places, index: int, place: NodePlace) -> Places:
    changed: Sequence[NodePlace] = [*places[:index], place, *places[index + 1 :]]
    return cast(Places, tuple(changed))
