"""The instances that are checked: which nodes, how many ballots and slots, and what is left out to keep them finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from txpaxos.core.membership import Change
from txpaxos.core.messages import NO_OP, Fetch, Heartbeat, Nack, Slot
from txpaxos.testing.model.chosen_values import ChangingAgreementChecker
from txpaxos.testing.model.cluster_space import Bounds, ClusterSpace
from txpaxos.testing.model.decree import (
    EssentialAcceptor,
    EssentialLearner,
    EssentialProposer,
    FunctionalPart,
    PracticalPart,
)
from txpaxos.testing.model.disk_cluster import ClusterBounds, DiskClusterSpace, Reign
from txpaxos.testing.model.disk_space import DiskBounds, DiskSpace
from txpaxos.testing.model.log import ALPHA, MEMBERS, ReplicaPart
from txpaxos.testing.model.membership import MembershipBounds, MembershipSpace
from txpaxos.testing.model.parts import Part
from txpaxos.testing.model.sealing import SealingSpace
from txpaxos.testing.model.search import Space
from txpaxos.testing.model.stored_model import FaultBudget

VOTERS = ("a", "b", "c")
VALUES = {"a": b"A", "b": b"B", "c": None}
"""The value that each node proposes. A node without one starts no ballots."""


@attrs.frozen
class Instance:
    """An instance to check. ``what`` describes it. ``space`` makes its space; its argument may change the bounds."""

    name: str
    what: str
    make: Callable[..., Space[Any]]
    bounds: Mapping[str, Any]

    def space(self, **changes: Any) -> Any:
        """Make the space, with some bounds changed."""
        return self.make(**{**self.bounds, **changes})


def essential_space(ballots: Sequence[int], **bounds: Any) -> ClusterSpace:
    """Two proposers, three interchangeable acceptors, one learner. ``ballots``: how many each proposer may start."""
    bounds.setdefault("interchangeable", VOTERS)
    learners = ("learner",)
    parts: list[Part[Any]] = [
        *(EssentialProposer(name, VOTERS, value) for name, value in (("p", b"P"), ("q", b"Q"))),
        *(EssentialAcceptor(voter, VOTERS, learners) for voter in VOTERS),
        *(EssentialLearner(learner, VOTERS) for learner in learners),
    ]
    return ClusterSpace(parts, (b"P", b"Q"), Bounds(ballots=dict(zip("pq", ballots, strict=True)), **bounds))


def practical_space(ballots: Sequence[int], **bounds: Any) -> ClusterSpace:
    """Three nodes with all three roles, of which ``a`` and ``b`` propose."""
    parts = [PracticalPart(node, VOTERS, value) for node, value in VALUES.items()]
    return ClusterSpace(parts, (b"A", b"B"), Bounds(ballots=dict(zip("ab", ballots, strict=True)), **bounds))


def functional_space(ballots: Sequence[int], **bounds: Any) -> ClusterSpace:
    """The same as :func:`practical_space`, with elections."""
    parts = [FunctionalPart(node, VOTERS, value) for node, value in VALUES.items()]
    return ClusterSpace(parts, (b"A", b"B"), Bounds(ballots=dict(zip("ab", ballots, strict=True)), **bounds))


def log_space(ballots: Sequence[int], slots_max: Slot, lost: tuple[type[Any], ...] = (), **bounds: Any) -> ClusterSpace:
    """Three nodes of the log, of which ``a`` and ``b`` lead. Messages of the kinds in ``lost`` never arrive."""
    parts = [ReplicaPart(node, VOTERS, value, slots_max, Nack not in lost) for node, value in VALUES.items()]
    limits = Bounds(ballots=dict(zip("ab", ballots, strict=True)), slots_max=slots_max, lost=lost, **bounds)
    return ClusterSpace(parts, (b"A", b"B", NO_OP), limits)


def change_space(
    founders: str,
    wanted: str,
    ballots: Mapping[str, int],
    slots_max: Slot,
    lost: tuple[type[Any], ...] = (),
    **bounds: Any,
) -> ClusterSpace:
    """Nodes of the log that change their voters from ``founders`` to ``wanted``, a letter each."""
    names = sorted({*founders, *wanted})
    change = Change(0, tuple(wanted))
    parts = [
        ReplicaPart(
            name, tuple(founders), name.upper().encode() if ballots.get(name) else None, slots_max, False, change
        )
        for name in names
    ]
    offered = (*(part.value for part in parts if part.value), NO_OP, MEMBERS)
    places = {value: frozenset(map(names.index, voters)) for value, voters in ((NO_OP, founders), (MEMBERS, wanted))}
    agreement = ChangingAgreementChecker(range(len(names)), offered, places[NO_OP], {MEMBERS: places[MEMBERS]}, ALPHA)
    limits = Bounds(ballots=ballots, slots_max=slots_max, lost=(Nack, *lost), own_at_once=True, **bounds)
    return ClusterSpace(parts, offered, limits, agreement)


def disk_space(**bounds: Any) -> DiskSpace:
    """One node with its store and its disk, in a cluster whose other nodes continue without it."""
    return DiskSpace(DiskBounds(**bounds))


def cluster_aside_space(**bounds: Any) -> DiskClusterSpace:
    """``a`` has had all slots chosen with ``c``, whose snapshots may be discarded; then ``b`` has only ``c`` to ask."""
    reigns = (Reign("a", "c", 2, 2, taken=True), Reign("a", "c", 3, 3))
    limits = {"ballots": {"b": 1}, "slots": 3, "budget": FaultBudget(1, 1, 0), "apart": frozenset("ab"), **bounds}
    return DiskClusterSpace(ClusterBounds(reigns=reigns, **limits))


def cluster_loss_space(**bounds: Any) -> DiskClusterSpace:
    """``c`` has proposed and voted, and no other node heard it. ``b`` has had other values chosen at the same slots
    with ``a``. A snapshot brings ``c`` up to date, and ``c`` may lose it."""
    reigns = (Reign("c", "a", 2), Reign("b", "a", 2, 2))
    limits = {"ballots": {}, "slots": 3, "budget": FaultBudget(1, 0, 1), "apart": frozenset("ac"), **bounds}
    return DiskClusterSpace(ClusterBounds(reigns=reigns, **limits))


def membership_space(**bounds: Any) -> MembershipSpace:
    """A change of members, as an argument: none of the shipped code is run."""
    return MembershipSpace(MembershipBounds(**bounds))


INSTANCES = (
    Instance("essential", "2 ballots of each proposer", essential_space, {"ballots": (2, 2)}),
    Instance(
        "essential-slow", "1 ballot of each proposer, slow disks", essential_space, {"ballots": (1, 1), "owed_max": 2}
    ),
    Instance("practical", "1 ballot of each proposer", practical_space, {"ballots": (1, 1)}),
    Instance(
        "practical-slow", "1 ballot of each proposer, slow disks", practical_space, {"ballots": (1, 1), "owed_max": 1}
    ),
    Instance(
        "practical-three",
        "2 ballots of a, 1 of b; own messages come first",
        practical_space,
        {"ballots": (2, 1), "own_at_once": True},
    ),
    Instance(
        "functional",
        "1 ballot of each; own messages come first",
        functional_space,
        {"ballots": (1, 1), "own_at_once": True},
    ),
    Instance("replica-one-slot", "1 ballot of each, 1 slot", log_space, {"ballots": (1, 1), "slots_max": 1}),
    Instance(
        "replica-votes",
        "1 ballot of each, 2 slots; own messages come first; no heartbeats, no fetching",
        log_space,
        {"ballots": (1, 1), "slots_max": 2, "lost": (Heartbeat, Fetch), "own_at_once": True},
    ),
    Instance(
        "replica",
        "1 ballot of each, 2 slots; own messages come first; no refusals",
        log_space,
        {"ballots": (1, 1), "slots_max": 2, "lost": (Nack,), "own_at_once": True},
    ),
    Instance(
        "replica-slow",
        "1 ballot of each, 2 slots, slow disks",
        log_space,
        {"ballots": (1, 1), "slots_max": 2, "owed_max": 1},
    ),
    Instance(
        "disk",
        "1 slot; 2 snapshots, discarded once, one file lost",
        disk_space,
        {"slots": 1, "stale": (1,), "budget": FaultBudget(2, 1, 1), "promises": True},
    ),
    Instance(
        "disk-aside",
        "2 slots; 2 snapshots, discarded once",
        disk_space,
        {"slots": 2, "stale": (1,), "budget": FaultBudget(2, 1, 0)},
    ),
    Instance(
        "disk-loss",
        "2 slots; 2 snapshots, one file lost",
        disk_space,
        {"slots": 2, "stale": (1,), "budget": FaultBudget(2, 0, 1)},
    ),
    Instance(
        "disk-both",
        "2 slots; 2 snapshots, discarded once, one file lost",
        disk_space,
        {"slots": 2, "stale": (1,), "budget": FaultBudget(2, 1, 1)},
    ),
    Instance("cluster-aside", "3 slots; the snapshots of one node discarded", cluster_aside_space, {}),
    Instance("cluster-loss", "3 slots; one node loses a file", cluster_loss_space, {}),
    Instance("members-two", "c joins a and b", membership_space, {"founding": "ab", "wanted": "abc"}),
    Instance("members-swap", "c replaces b of two", membership_space, {"founding": "ab", "wanted": "ac", "ends": True}),
    Instance("members-add", "d joins a, b and c", membership_space, {"founding": "abc", "wanted": "abcd"}),
    Instance("members-replace", "d replaces c of three", membership_space, {"founding": "abc", "wanted": "abd"}),
    Instance(
        "members-remove", "c of three leaves", membership_space, {"founding": "abc", "wanted": "ab", "ends": True}
    ),
    Instance(
        "change-one",
        "the shipped log changes its only voter from a to b; 1 ballot of a, 4 slots; no heartbeats, no refusals",
        change_space,
        {"founders": "a", "wanted": "b", "ballots": {"a": 1}, "slots_max": 4, "lost": (Heartbeat,)},
    ),
    Instance(
        "change-two",
        "b joins the only voter of the shipped log; 1 ballot of each, 4 slots; no heartbeats, no refusals",
        change_space,
        {"founders": "a", "wanted": "ab", "ballots": {"a": 1, "b": 1}, "slots_max": 4, "lost": (Heartbeat,)},
    ),
    Instance("registers", "3 ballots; a register is sealed", SealingSpace, {"voters": "abc", "ballots": 3}),
)
