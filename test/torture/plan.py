"""The schedule of faults: drawn from a seed, before anything runs. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from random import Random
from typing import TypeAlias

import attrs

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


SCENARIOS = {Kind.QUORUM_LOSS: 5, Kind.CONSTRAINED_ELECTION: 5, Kind.CHAINED: 3}
"""The three scenarios of the OmniPaxos article (Ng, Haridi and Carbone, EuroSys 2023, section 2), and for how many
nodes."""

ALONE = frozenset({Kind.KILL_ALL, Kind.OUTLAST, Kind.FILL_DISK, *SCENARIOS})
"""Kinds that are not combined with another fault."""

WEIGHTS = {kind: 1 if kind in ALONE else 3 for kind in Kind}
WEIGHTS |= {Kind.KILL_AT_START: 1, Kind.OUTLAST: 2, Kind.STEP_CLOCK: 2}
"""How often each is in a bag. A new bag is begun when one is empty, so none is rare by chance."""

TOGETHER = 0.3
"""The share of rounds with a second fault, where one is possible."""

SECONDS = (0.2, 2.5)
"""How long a fault lasts."""

PAUSE_SECONDS = (0.0, 1.0)
LOSS = (0.02, 0.3)
STEP_SECONDS_MAX = 86_400.0


@attrs.frozen
class Fault:
    """One fault.

    :ivar order: all nodes. A node's place decides what it is to the fault.
    :ivar aims_at_leader: whether the leader is to take the first place.
    :ivar seconds: how long it lasts.
    :ivar cuts: the links that are cut, by places.
    :ivar amount: the probability of loss, or the seconds of a clock's step.
    """

    kind: Kind
    order: tuple[str, ...]
    aims_at_leader: bool
    seconds: float
    cuts: frozenset[tuple[int, int]] = frozenset()
    amount: float = 0.0

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


def kinds_for(nodes: int, without: Collection[Kind] = ()) -> list[Kind]:
    """The kinds that make sense for this many nodes, except those in ``without``."""
    return [kind for kind in Kind if kind not in without and SCENARIOS.get(kind, nodes) == nodes]


def rounds(rng: Random, nodes: Sequence[str], kinds: Sequence[Kind]) -> Iterator[Round]:
    """Rounds without end. The disk that is filled is the last node's."""
    while True:
        bag = [kind for kind in kinds for _ in range(WEIGHTS[kind])]
        rng.shuffle(bag)
        while bag:
            drawn = [bag.pop()]
            if not ALONE.intersection(drawn + bag[-1:]) and bag and rng.random() < TOGETHER:
                drawn.append(bag.pop())
            faults = tuple(_fault(rng, nodes, kind) for kind in drawn)
            yield Round(faults, rng.uniform(*PAUSE_SECONDS))


def _fault(rng: Random, nodes: Sequence[str], kind: Kind) -> Fault:
    order = tuple(rng.sample(nodes, len(nodes)))
    aims_at_leader = kind in SCENARIOS or rng.random() < 0.5
    if kind is Kind.FILL_DISK:
        order, aims_at_leader = tuple(reversed(nodes)), False
    amount = 0.0
    if kind is Kind.LOSE_PACKETS:
        amount = rng.uniform(*LOSS)
    elif kind is Kind.STEP_CLOCK:
        amount = rng.choice((-1, 1)) * STEP_SECONDS_MAX ** rng.random()
    return Fault(kind, order, aims_at_leader, rng.uniform(*SECONDS), _cuts(rng, kind, len(nodes)), amount)


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
