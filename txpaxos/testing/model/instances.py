"""What is checked: which nodes, how many ballots and slots, and what is left out to keep it finite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from txpaxos.core.messages import NO_OP, Fetch, Heartbeat, Nack, Slot
from txpaxos.testing.model.decree import (
    EssentialAcceptor,
    EssentialLearner,
    EssentialProposer,
    FunctionalPart,
    PracticalPart,
)
from txpaxos.testing.model.disk_cluster import ClusterBounds, DiskCluster, Reign
from txpaxos.testing.model.disk_world import DiskBounds, DiskWorld
from txpaxos.testing.model.log import ReplicaPart
from txpaxos.testing.model.parts import Part
from txpaxos.testing.model.search import Space
from txpaxos.testing.model.stored_model import Budget
from txpaxos.testing.model.world import Bounds, World

VOTERS = ("a", "b", "c")
VALUES = {"a": b"A", "b": b"B", "c": None}
"""What each proposes. One that proposes nothing starts no ballots."""


@attrs.frozen
class Instance:
    """Something to check. ``what``: in words. ``world`` makes it anew; its argument can change the bounds."""

    name: str
    what: str
    make: Callable[..., Space[Any]]
    bounds: Mapping[str, Any]

    def world(self, **changes: Any) -> Any:
        """It, with some bounds changed."""
        return self.make(**{**self.bounds, **changes})


def essential_world(ballots: Sequence[int], **bounds: Any) -> World:
    """Two proposers, three acceptors that are alike, one learner. ``ballots``: how many each proposer may start."""
    bounds.setdefault("alike", VOTERS)
    learners = ("learner",)
    parts: list[Part[Any]] = [
        *(EssentialProposer(name, VOTERS, value) for name, value in (("p", b"P"), ("q", b"Q"))),
        *(EssentialAcceptor(voter, VOTERS, learners) for voter in VOTERS),
        *(EssentialLearner(learner, VOTERS) for learner in learners),
    ]
    return World(parts, (b"P", b"Q"), Bounds(ballots=dict(zip("pq", ballots, strict=True)), **bounds))


def practical_world(ballots: Sequence[int], **bounds: Any) -> World:
    """Three nodes with all three roles, of which ``a`` and ``b`` propose."""
    parts = [PracticalPart(node, VOTERS, value) for node, value in VALUES.items()]
    return World(parts, (b"A", b"B"), Bounds(ballots=dict(zip("ab", ballots, strict=True)), **bounds))


def functional_world(ballots: Sequence[int], **bounds: Any) -> World:
    """The same, with leadership."""
    parts = [FunctionalPart(node, VOTERS, value) for node, value in VALUES.items()]
    return World(parts, (b"A", b"B"), Bounds(ballots=dict(zip("ab", ballots, strict=True)), **bounds))


def log_world(ballots: Sequence[int], slots_max: Slot, lost: tuple[type[Any], ...] = (), **bounds: Any) -> World:
    """Three nodes of the log, of which ``a`` and ``b`` lead. What is ``lost`` never arrives."""
    parts = [ReplicaPart(node, VOTERS, value, slots_max, Nack not in lost) for node, value in VALUES.items()]
    limits = Bounds(ballots=dict(zip("ab", ballots, strict=True)), slots_max=slots_max, lost=lost, **bounds)
    return World(parts, (b"A", b"B", NO_OP), limits)


def disk_world(**bounds: Any) -> DiskWorld:
    """One node, its store and its disk, in the middle of a cluster that goes on without it."""
    return DiskWorld(DiskBounds(**bounds))


def cluster_aside_world(**bounds: Any) -> DiskCluster:
    """``a`` has had all slots chosen with ``c``, whose snapshots may be put aside; then ``b`` has only ``c`` to ask."""
    reigns = (Reign("a", "c", 2, 2, taken=True), Reign("a", "c", 3, 3))
    limits = {"ballots": {"b": 1}, "slots": 3, "budget": Budget(1, 1, 0), "apart": frozenset("ab"), **bounds}
    return DiskCluster(ClusterBounds(reigns=reigns, **limits))


def cluster_loss_world(**bounds: Any) -> DiskCluster:
    """``c`` has proposed, and voted, and nobody heard it; ``b`` has had others chosen at the same slots with ``a``, and
    ``c`` is brought back by a snapshot, which it may lose."""
    reigns = (Reign("c", "a", 2), Reign("b", "a", 2, 2))
    limits = {"ballots": {}, "slots": 3, "budget": Budget(1, 0, 1), "apart": frozenset("ac"), **bounds}
    return DiskCluster(ClusterBounds(reigns=reigns, **limits))


INSTANCES = (
    Instance("essential", "2 ballots of each proposer", essential_world, {"ballots": (2, 2)}),
    Instance(
        "essential-slow", "1 ballot of each proposer, slow disks", essential_world, {"ballots": (1, 1), "owed_max": 2}
    ),
    Instance("practical", "1 ballot of each proposer", practical_world, {"ballots": (1, 1)}),
    Instance(
        "practical-slow", "1 ballot of each proposer, slow disks", practical_world, {"ballots": (1, 1), "owed_max": 1}
    ),
    Instance(
        "practical-three",
        "2 ballots of a, 1 of b; own messages come first",
        practical_world,
        {"ballots": (2, 1), "own_at_once": True},
    ),
    Instance(
        "functional",
        "1 ballot of each; own messages come first",
        functional_world,
        {"ballots": (1, 1), "own_at_once": True},
    ),
    Instance("replica-one-slot", "1 ballot of each, 1 slot", log_world, {"ballots": (1, 1), "slots_max": 1}),
    Instance(
        "replica-votes",
        "1 ballot of each, 2 slots; own messages come first; no heartbeats, no fetching",
        log_world,
        {"ballots": (1, 1), "slots_max": 2, "lost": (Heartbeat, Fetch), "own_at_once": True},
    ),
    Instance(
        "replica",
        "1 ballot of each, 2 slots; own messages come first; no refusals",
        log_world,
        {"ballots": (1, 1), "slots_max": 2, "lost": (Nack,), "own_at_once": True},
    ),
    Instance(
        "replica-slow",
        "1 ballot of each, 2 slots, slow disks",
        log_world,
        {"ballots": (1, 1), "slots_max": 2, "owed_max": 1},
    ),
    Instance(
        "disk",
        "1 slot; 2 snapshots, put aside once, one file lost",
        disk_world,
        {"slots": 1, "stale": (1,), "budget": Budget(2, 1, 1), "promises": True},
    ),
    Instance(
        "disk-aside",
        "2 slots; 2 snapshots, put aside once",
        disk_world,
        {"slots": 2, "stale": (1,), "budget": Budget(2, 1, 0)},
    ),
    Instance(
        "disk-loss",
        "2 slots; 2 snapshots, one file lost",
        disk_world,
        {"slots": 2, "stale": (1,), "budget": Budget(2, 0, 1)},
    ),
    Instance(
        "disk-both",
        "2 slots; 2 snapshots, put aside once, one file lost",
        disk_world,
        {"slots": 2, "stale": (1,), "budget": Budget(2, 1, 1)},
    ),
    Instance("cluster-aside", "3 slots; the snapshots of one node put aside", cluster_aside_world, {}),
    Instance("cluster-loss", "3 slots; one node loses a file", cluster_loss_world, {}),
)
