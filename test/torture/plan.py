"""The schedule of faults: drawn from a seed, before anything runs. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from random import Random
from typing import TypeAlias

import attrs

from test.torture.roster import VOTERS_MAX, VOTERS_MIN, Newcomer, Roster
from txpaxos.core.essential import quorum_size

Link: TypeAlias = tuple[str, str]
"""From one node to another, one way."""


class Kind(Enum):
    """The kinds of faults. The first node of a fault's order is the one that it affects."""

    KILL = "kill"
    KILL_AT_START = "kill, and kill at start"
    KILL_ALL = "kill all"
    OUTLAST = "away for two snapshots"
    STOP = "stop and continue"
    CUT_ONE_WAY = "cut a link one way"
    CUT_BOTH_WAYS = "cut a link both ways"
    DEAFEN = "node hears no other"
    MUTE = "no other hears node"
    ISOLATE = "isolate a node"
    PARTITION = "partition in two"
    PARTIAL_PARTITION = "partial partition"
    CUT_CLIENTS = "cut clients from a node"
    LOSE_PACKETS = "lose packets"
    STEP_CLOCK = "step the wall clock"
    FILL_DISK = "fill the disk"
    QUORUM_LOSS = "quorum loss"
    CONSTRAINED_ELECTION = "constrained election"
    CHAINED = "chained"
    JOIN = "a node joins"
    JOIN_KILLED = "a node joins, and is killed on the way"
    REMOVE = "a member is removed"
    RETURN = "a removed member is started again"
    REPLACE = "a dead member is replaced"
    MOVE = "a member moves"
    HAND_OVER = "the lead is handed over"


SCENARIOS = {Kind.QUORUM_LOSS: 5, Kind.CONSTRAINED_ELECTION: 5, Kind.CHAINED: 3}
"""The three scenarios of the OmniPaxos article (Ng, Haridi and Carbone, EuroSys 2023, section 2), and for how many
nodes."""

JOINS = frozenset({Kind.JOIN, Kind.JOIN_KILLED})
LEAVES = frozenset({Kind.REMOVE, Kind.RETURN})
CHANGES = frozenset({*JOINS, *LEAVES, Kind.REPLACE, Kind.MOVE, Kind.HAND_OVER})
"""Kinds that change the members, or the leader, on purpose."""

ALONE = frozenset({Kind.KILL_ALL, Kind.OUTLAST, Kind.FILL_DISK, Kind.RETURN, *SCENARIOS})
"""Kinds that are not combined with another fault."""

WEIGHTS = {kind: 1 if kind in ALONE else 3 for kind in Kind}
WEIGHTS |= {Kind.KILL_AT_START: 1, Kind.OUTLAST: 2, Kind.STEP_CLOCK: 2}
WEIGHTS |= {Kind.JOIN: 5, Kind.JOIN_KILLED: 2, Kind.REMOVE: 4, Kind.RETURN: 2, Kind.REPLACE: 4}
"""How often each is in a bag. A new bag is begun when one is empty, so none is rare by chance."""

TOGETHER = 0.3
"""The share of rounds with a second fault, where one is possible."""

TOGETHER_WITH_A_CHANGE = 0.6
"""The same for rounds with a change of members."""

SECONDS = (0.2, 2.5)
"""How long a fault lasts."""

PAUSE_SECONDS = (0.0, 1.0)
LOSS = (0.02, 0.3)
STEP_SECONDS_MAX = 86_400.0


@attrs.frozen
class Fault:
    """One fault.

    :ivar order: all nodes. A node's place decides what it is to the fault. A change of members is about the first one,
        and a node that joins asks the last one.
    :ivar aims_at_leader: whether the leader is to take the first place. Before a change of members, the lead is handed
        over to the first node instead, since the plan has to know which node leaves.
    :ivar seconds: how long it lasts.
    :ivar cuts: the links that are cut, by places.
    :ivar amount: the probability of loss, or the seconds of a clock's step.
    :ivar newcomer: the node that joins.
    :ivar place: where a member moves to.
    """

    kind: Kind
    order: tuple[str, ...]
    aims_at_leader: bool
    seconds: float
    cuts: frozenset[tuple[int, int]] = frozenset()
    amount: float = 0.0
    newcomer: Newcomer | None = None
    place: int = 0

    def __str__(self) -> str:
        if self.kind not in CHANGES:
            return self.kind.value
        leads = " (as the leader)" if self.aims_at_leader else ""
        about = [] if self.kind in JOINS else [f"{self.node}{leads}"]
        comes = [] if self.newcomer is None else [f"{self.newcomer.node} comes"]
        return f"{self.kind.value}: {', '.join(about + comes)}"

    @property
    def node(self) -> str:
        """The node that it affects."""
        return self.order[0]

    @property
    def links(self) -> frozenset[Link]:
        """The links that are cut."""
        return frozenset((self.order[sender], self.order[receiver]) for sender, receiver in self.cuts)

    @property
    def down(self) -> frozenset[str]:
        """The nodes that do not run meanwhile."""
        if self.kind is Kind.KILL_ALL:
            return frozenset(self.order)
        one = {Kind.KILL, Kind.KILL_AT_START, Kind.OUTLAST, Kind.STOP, Kind.FILL_DISK}
        one |= {Kind.REPLACE, Kind.MOVE, Kind.RETURN}
        return frozenset({self.node} if self.kind in one else ())


@attrs.frozen
class Round:
    """Faults that happen at once, and the pause after them."""

    faults: tuple[Fault, ...]
    pause_seconds: float

    def aimed(self, leader: str | None) -> Round:
        """The round with ``leader`` where it belongs, and no node affected twice."""
        hit: set[str] = set()
        faults = []
        for fault in self.faults:
            order = fault.order
            if fault.kind in CHANGES:
                hit |= set() if fault.kind in JOINS else {fault.node}
                faults.append(fault)
                continue
            if fault.aims_at_leader and leader is not None:
                order = (leader, *(node for node in order if node != leader))
            if order[0] in hit:
                order = (*order[1:], order[0])
            hit.add(order[0])
            faults.append(attrs.evolve(fault, order=order))
        return attrs.evolve(self, faults=tuple(faults))


def leaves_quorum(nodes: Sequence[str], faults: Collection[Fault]) -> bool:
    """Whether a node runs that a quorum (itself included) hears and is heard by: then such a node should lead."""
    down = {node for fault in faults for node in fault.down}
    cut = {link for fault in faults for link in fault.links}

    def are_linked(one: str, other: str) -> bool:
        return one == other or not {(one, other), (other, one)} & cut

    running = [node for node in nodes if node not in down]
    heard = [sum(are_linked(node, other) for other in running) for node in running]
    return max(heard, default=0) >= quorum_size(len(nodes))


def kinds_for(nodes: int, without: Collection[Kind] = (), *, changes_members: bool = False) -> list[Kind]:
    """The kinds that make sense for this many nodes, except those in ``without``."""
    if changes_members:
        return [kind for kind in Kind if kind not in without]
    return [kind for kind in Kind if kind not in {*without, *CHANGES} and SCENARIOS.get(kind, nodes) == nodes]


def rounds(rng: Random, nodes: Sequence[str], kinds: Sequence[Kind]) -> Iterator[Round]:
    """Rounds without end. The disk that is filled is the last node's."""
    roster, small = Roster(nodes), nodes[-1]
    bag: list[Kind] = []
    while True:
        if not any(_is_possible(kind, roster, small) for kind in bag):
            fresh = [kind for kind in kinds for _ in range(WEIGHTS[kind])]
            rng.shuffle(fresh)
            bag = fresh  # What was left is not possible with these members.
        kind = _take(bag, lambda one: _is_possible(one, roster, small))
        drawn = [kind]
        if kind in CHANGES - ALONE:
            if rng.random() < TOGETHER_WITH_A_CHANGE and any(one not in ALONE | CHANGES for one in bag):
                drawn.append(_take(bag, lambda one: one not in ALONE | CHANGES))
        elif bag and not ALONE.intersection(drawn + bag[-1:]) and bag[-1] not in CHANGES and rng.random() < TOGETHER:
            drawn.append(bag.pop())
        faults = [_fault(rng, roster.nodes, one, small) for one in drawn]
        if kind in CHANGES:
            faults[0] = _change(rng, roster, faults[0])
            faults[1:] = [_with_newcomer(rng, one, faults[0].newcomer) for one in faults[1:]]
        yield Round(tuple(faults), rng.uniform(*PAUSE_SECONDS))


def _take(bag: list[Kind], wanted: Callable[[Kind], bool]) -> Kind:
    """Take the first kind that is wanted out of the bag, from its end."""
    number = next(number for number in reversed(range(len(bag))) if wanted(bag[number]))
    return bag.pop(number)


def _is_possible(kind: Kind, roster: Roster, small: str) -> bool:
    """Whether there may be such a fault with these members."""
    count = len(roster.nodes)
    if kind in JOINS:
        return count < VOTERS_MAX
    if kind in LEAVES:
        return count > VOTERS_MIN
    if kind is Kind.FILL_DISK:
        return small in roster.nodes
    return SCENARIOS.get(kind, count) == count


def _fault(rng: Random, nodes: Sequence[str], kind: Kind, small: str) -> Fault:
    order = tuple(rng.sample(nodes, len(nodes)))
    aims_at_leader = kind in SCENARIOS or rng.random() < 0.5
    if kind is Kind.FILL_DISK:
        order, aims_at_leader = (small, *(node for node in reversed(nodes) if node != small)), False
    amount = 0.0
    if kind is Kind.LOSE_PACKETS:
        amount = rng.uniform(*LOSS)
    elif kind is Kind.STEP_CLOCK:
        amount = rng.choice((-1, 1)) * STEP_SECONDS_MAX ** rng.random()
    return Fault(kind, order, aims_at_leader, rng.uniform(*SECONDS), _cuts(rng, kind, len(nodes)), amount)


def _change(rng: Random, roster: Roster, fault: Fault) -> Fault:
    """``fault``, which changes the members, with all that it needs. From then on ``roster`` is as it is after it."""
    node, newcomer, place = fault.node, None, 0
    match fault.kind:
        case Kind.JOIN | Kind.JOIN_KILLED:
            newcomer = roster.draw_newcomer(rng)
        case Kind.REMOVE | Kind.RETURN:
            node = roster.draw_leaver(rng)
            roster.remove(node)
        case Kind.REPLACE:
            node = roster.draw_leaver(rng)
            newcomer = roster.draw_newcomer(rng, node)
            roster.remove(node)
        case Kind.MOVE:
            place = roster.draw_place(rng)
            roster.move(node, place)
    if newcomer is not None:
        roster.add(newcomer)
    order = (node, *(other for other in fault.order if other != node))
    return attrs.evolve(fault, order=order, newcomer=newcomer, place=place)


def _with_newcomer(rng: Random, fault: Fault, newcomer: Newcomer | None) -> Fault:
    """``fault``, maybe with the node that joins at the end of the link that is cut."""
    if newcomer is None or fault.kind not in (Kind.CUT_ONE_WAY, Kind.CUT_BOTH_WAYS) or rng.random() < 0.5:
        return fault
    return attrs.evolve(fault, order=(fault.order[0], newcomer.node, *fault.order[1:]))


def _cuts(rng: Random, kind: Kind, count: int) -> frozenset[tuple[int, int]]:
    """The links that a fault of that kind cuts, by places."""
    everything = list(itertools.permutations(range(count), 2))
    pairs = list(itertools.combinations(range(count), 2))
    match kind:
        case Kind.CUT_ONE_WAY:
            return frozenset({rng.choice(((0, 1), (1, 0)))})
        case Kind.CUT_BOTH_WAYS:
            return _both_ways([(0, 1)])
        case Kind.DEAFEN:
            return frozenset(link for link in everything if link[1] == 0)
        case Kind.MUTE:
            return frozenset(link for link in everything if link[0] == 0)
        case Kind.ISOLATE:
            return frozenset(link for link in everything if 0 in link)
        case Kind.PARTITION:
            size = rng.randrange(1, count)
            return frozenset(link for link in everything if (link[0] < size) != (link[1] < size))
        case Kind.PARTIAL_PARTITION:
            return _both_ways(rng.sample(pairs, rng.randrange(2, len(pairs))))
        case Kind.QUORUM_LOSS:  # All nodes see the second one and no other: the first one led, and has no quorum now.
            return _both_ways([pair for pair in pairs if 1 not in pair])
        case Kind.CONSTRAINED_ELECTION:  # The same, and the first one is gone: only the second can win.
            return _both_ways([pair for pair in pairs if 1 not in pair or 0 in pair])
        case Kind.CHAINED:  # The first one led; the ends of the chain do not hear each other.
            return _both_ways([pair for pair in pairs if 1 not in pair])
    return frozenset()


def _both_ways(pairs: Sequence[tuple[int, int]]) -> frozenset[tuple[int, int]]:
    return frozenset(pairs) | {(receiver, sender) for sender, receiver in pairs}
