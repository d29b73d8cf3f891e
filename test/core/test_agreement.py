"""Many replicas, random schedules: never two values in one slot, and progress whenever a quorum can talk.

What every record saved and every message sent must fulfil on the way is in :class:`test.helpers.core_cluster.Ledger`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from test.helpers.core_cluster import CoreCluster, Faults
from txpaxos.core.config import Limits, Timing
from txpaxos.core.messages import NO_OP, Ballot, PrepareLog
from txpaxos.core.ready import LeadershipAcquired, LeadershipFact

pytestmark = pytest.mark.no_cover  # Under coverage it would take three times as long.

LONGEST = Timing().liveness_window_seconds[1]
FAULTS = Faults(loss=0.2, doubled=0.1, delay_seconds=(0.001, 0.1))
"""A fifth of all messages lost, a tenth doubled, and delays that reorder them."""


def load(cluster: CoreCluster, turns: int, trouble: Callable[[CoreCluster], None] = lambda cluster: None) -> set[bytes]:
    """Propose at every node, ten turns a second, with ``trouble`` in between; what was taken."""
    proposed = set()
    for turn in range(turns):
        cluster.run(0.1)
        trouble(cluster)
        for node in cluster.members:
            for number in range(2):
                value = f"{node}{turn}.{number}".encode()
                if cluster.propose(value, node):
                    proposed.add(value)
    return proposed


def check_progress(cluster: CoreCluster, proposed: set[bytes]) -> None:
    """With the faults gone, new values are chosen soon, and all nodes hand out the same: only what was proposed."""
    cluster.heal()
    later = set()
    for turn in range(40):  # the first of these may fall to a leader that is about to be one no longer
        later.add(b"later %d" % turn)
        cluster.propose(b"later %d" % turn)
        if cluster.run(0.5, lambda: cluster.settled() and not later.isdisjoint(cluster.values("a"))):
            break
    else:
        raise AssertionError([replica.status() for replica in cluster.nodes.values()])
    for node in cluster.members:
        assert cluster.values(node) == cluster.values("a")
    values = [value for value in cluster.values("a") if value != NO_OP]
    assert set(values) <= proposed | later
    assert len(values) == len(set(values)), "what was proposed once is chosen once"


@pytest.mark.parametrize("nodes", [3, 5])
def test_loss_doubling_and_reordering(nodes: int) -> None:
    """200 seeds, half of them with three nodes and half with five."""
    for seed in range(100):
        cluster = CoreCluster(seed, nodes, FAULTS)
        proposed = load(cluster, 20)
        check_progress(cluster, proposed)


@pytest.mark.parametrize("nodes", [3, 5])
def test_crashes_between_save_and_send(nodes: int) -> None:
    """200 seeds again: saves take up to 20 ms, and at one of 50 the node stops after it and before it sends."""
    crashes = 0
    faults = Faults(0.2, 0.1, (0.001, 0.1), crash=0.02, save_seconds=(0.0, 0.02))
    for seed in range(100):
        cluster = CoreCluster(1000 + seed, nodes, faults)
        proposed = load(cluster, 20)
        check_progress(cluster, proposed)
        crashes += cluster.crashes
    assert crashes > 100


def test_partitions_and_small_limits() -> None:
    """100 seeds: nodes that only hear, only speak, or neither; pages of two values, a window of three slots."""

    def trouble(cluster: CoreCluster) -> None:
        chance = cluster.rng.random()
        if chance < 0.15:
            ways: list[dict[str, bool]] = [{}, {"hears": True}, {"speaks": True}]
            cluster.cut_off(cluster.rng.choice(cluster.members), **cluster.rng.choice(ways))
        elif chance < 0.3:
            cluster.cut.clear()

    limits = Limits(window_slots=3, window_bytes=8, ahead_slots=4, fetch_values=2)
    for seed in range(100):
        faults = Faults(0.1, 0.1, (0.001, 0.3))
        cluster = CoreCluster(2000 + seed, 3 + seed % 3, faults, limits)
        proposed = load(cluster, 30, trouble)
        check_progress(cluster, proposed)


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("way", [{}, {"hears": True}, {"speaks": True}], ids=["neither", "hears", "speaks"])
@pytest.mark.parametrize("who", ["leader", "follower"])
def test_one_node_that_cannot_hear_or_speak_stops_no_other(nodes: int, way: dict[str, bool], who: str) -> None:
    """Trap 20: one-way partitions. The others are a quorum and go on."""
    for seed in range(10):
        cluster = CoreCluster(seed, nodes)
        assert cluster.run(5.0, cluster.leader)
        cluster.run(0.5)
        leader = cluster.leader()
        cut = leader if who == "leader" else next(node for node in cluster.members if node != leader)
        assert cut is not None
        cluster.cut_off(cut, **way)
        cluster.run(10.0)
        others = [node for node in cluster.members if node != cut]
        length = len(cluster.ledger.chosen)
        for turn in range(20):
            cluster.run(0.2)
            for node in others:
                cluster.propose(b"%d" % turn, node)
        assert len(cluster.ledger.chosen) >= length + 10, (seed, nodes, way, who)
        assert cluster.run(2.0, lambda: len({len(cluster.chosen[node]) for node in others}) == 1)  # noqa: B023
        check_progress(cluster, {b"%d" % turn for turn in range(20)})


@pytest.mark.parametrize("down", [0, 1])
def test_one_link_cut_does_not_keep_the_lead_moving(down: int) -> None:
    """Trap 20, partial connectivity: the old leader and the new one cannot hear each other, and all the rest hear both.
    With five nodes of which one is down, too few refuse either of them to stop it."""
    for seed in range(10):
        cluster = CoreCluster(seed, 3 + 2 * down)
        assert cluster.run(5.0, cluster.leader)
        cluster.run(0.5)
        old = cluster.leader()
        assert old is not None
        cluster.cut_off(old)
        assert cluster.run(5.0, lambda: cluster.leader() != old)  # noqa: B023
        new = cluster.leader()
        assert new is not None
        for node in [node for node in cluster.members if node not in (old, new)][:down]:
            cluster.stop(node)
        cluster.cut = {(old, new), (new, old)}
        cluster.run(2.0)
        acquired: list[LeadershipFact] = []
        cluster.told = lambda node, fact: acquired.append(fact) if isinstance(fact, LeadershipAcquired) else None  # noqa: B023
        cluster.run(10.0)
        assert len(acquired) <= 2, (seed, acquired)


def test_who_promised_a_ballot_that_came_to_nothing_is_not_left_behind() -> None:
    """It refuses all that the leader says, which has a quorum without it. No other node has lost the leader."""
    for seed in range(10):
        cluster = CoreCluster(seed, 5)
        assert cluster.run(5.0, cluster.leader)
        cluster.run(0.5)
        node, other = [node for node in cluster.members if node != cluster.leader()][:2]
        prepare = PrepareLog(Ballot(9, other), len(cluster.chosen[node]) + 1)
        cluster.take(node, cluster.nodes[node].receive(other, prepare, cluster.now))
        cluster.run(2.0)
        assert cluster.run(3.0, lambda: cluster.propose(b"v"))  # noqa: B023
        assert cluster.run(1.0, lambda: b"v" in cluster.values(node))  # noqa: B023


def test_another_leads_soon_after_the_leader_died() -> None:
    """Within its longest liveness window, and a little for the ballot, in most of 50 seeds; within two in all."""
    waits = []
    for seed in range(50):
        cluster = CoreCluster(seed)
        assert cluster.run(5.0, cluster.leader)
        cluster.run(1.0)
        old, since = cluster.leader(), cluster.now
        assert old is not None
        cluster.stop(old)
        assert cluster.run(5.0, cluster.leader)
        waits.append(cluster.now - since)
    assert sorted(waits)[40] <= LONGEST + 0.01
    assert max(waits) <= 2 * LONGEST


def test_a_steady_leader_is_not_disturbed() -> None:
    """Trap 20: no leader is replaced in a minute of heartbeats that take up to 50 ms, one of a hundred lost."""
    for seed in range(5):
        cluster = CoreCluster(seed, 5, Faults(0.01, 0.0, (0.001, 0.05)))
        assert cluster.run(10.0, cluster.leader)
        cluster.run(1.0)
        ballots = set()
        for _ in range(60):
            cluster.run(1.0)
            ballots |= {replica.election.own_ballot for replica in cluster.nodes.values() if replica.is_leader}
        assert len(ballots) == 1


def test_duel_ends() -> None:
    """Trap 20: all wake at the same moment, in 50 seeds; one gets through."""
    for seed in range(50):
        cluster = CoreCluster(seed, 5)
        cluster.run(0.2)
        for node in cluster.members:
            replica = cluster.nodes[node]
            replica.election._silent_at = cluster.now
            cluster.take(node, replica.tick(cluster.now))
        assert cluster.run(3.0, cluster.leader), seed
