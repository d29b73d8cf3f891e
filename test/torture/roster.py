"""Who the members of the cluster are, and in which places of the network they live, as the plan foresees it. Pure.

Each change of the plan is made before the next round begins, or the run fails. So the plan can know the members of
every round before anything runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random

import attrs

VOTERS_MIN = 3
VOTERS_MAX = 5
PLACES = 12
"""How many places the network has when members come and go. One that is left may be taken by another node."""

NAMES = "abcdefghijklmnopqrstuvwxyz"
USES_OLD_NAME = 0.5
"""The share of new nodes that take the name of a former member, if there is one."""

TAKES_OLDEST = 0.5
"""The share of members that leave by age and not at random. So the clients lose the nodes that they began with soon."""


@attrs.frozen
class Newcomer:
    """A node that joins.

    :ivar node: its id.
    :ivar name: what it calls itself.
    :ivar place: where it lives.
    """

    node: str
    name: str
    place: int


class Roster:
    """The members. Their order is that in which they came.

    :param founders: the members at first. Each lives in the place of its number.
    """

    def __init__(self, founders: Sequence[str]) -> None:
        self._places = {node: number for number, node in enumerate(founders, 1)}
        self._lives = Counter(founders)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The ids of the members."""
        return tuple(self._places)

    @property
    def places(self) -> Mapping[str, int]:
        """The place of each member."""
        return dict(self._places)

    def draw_leaver(self, rng: Random) -> str:
        """A member that is to leave."""
        return self.nodes[0] if rng.random() < TAKES_OLDEST else rng.choice(self.nodes)

    def draw_place(self, rng: Random) -> int:
        """A place where no member lives."""
        return rng.choice([place for place in range(1, PLACES + 1) if place not in self._places.values()])

    def draw_newcomer(self, rng: Random, instead_of: str = "") -> Newcomer:
        """A node that is to join.

        :param instead_of: the dead member that it replaces, whose name and place it may take.
        """
        taken = {name_of(node) for node in self._places if node != instead_of}
        old = [name for name in self._lives if name not in taken]
        if instead_of:
            old = [name_of(instead_of)]
        fresh = next(name for name in _names() if name not in self._lives)
        name = rng.choice(old) if old and rng.random() < USES_OLD_NAME else fresh
        place = self._places[instead_of] if instead_of and rng.random() < USES_OLD_NAME else self.draw_place(rng)
        lives = self._lives[name] + 1
        return Newcomer(name if lives == 1 else f"{name}~{lives}", name, place)

    def add(self, newcomer: Newcomer) -> None:
        """A node has joined."""
        self._places[newcomer.node] = newcomer.place
        self._lives[newcomer.name] += 1

    def remove(self, node: str) -> None:
        """A member has left."""
        del self._places[node]

    def move(self, node: str, place: int) -> None:
        """A member lives in another place now."""
        self._places[node] = place


def name_of(node: str) -> str:
    """What the node with that id calls itself."""
    return node.partition("~")[0]


def _names() -> Sequence[str]:
    return [*NAMES, *(f"{one}{other}" for one in NAMES for other in NAMES)]
