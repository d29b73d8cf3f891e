"""Nodes that have lost a part of their memory: they wait for it, and say nothing about it before.

Each test runs whole clusters under the simulator's rules: nothing acknowledged is lost, nothing is chosen that no
client proposed, and all is live in the end. ``TXPAXOS_LOST_MEMORY_SEEDS`` says how many seeds each one tries.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from random import Random

import pytest

from txpaxos.core.config import Limits
from txpaxos.node.snapshots.taking import Policy
from txpaxos.storage.snapshots import Snapshot
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.disk import Crash
from txpaxos.testing.simulator.host import Host

pytestmark = [
    pytest.mark.usefixtures("expected_errors"),
    pytest.mark.no_cover,  # Under coverage it would take three times as long.
]

SEEDS = int(os.environ.get("TXPAXOS_LOST_MEMORY_SEEDS", "1"))
WINDOW_SLOTS = Limits().window_slots
ORDERS = tuple(itertools.permutations(range(3)))


def compacted(seed: int) -> SimulatedCluster:
    """Three nodes that have forgotten the beginning of their log, and clients that go on and on."""
    cluster = SimulatedCluster(seed, clients=1, askers=1, callers=0, snapshot_policy=Policy(2000), sessions_max=65536)
    cluster.run(1.0)
    forget_segments(cluster, list(cluster.hosts.values()))
    return cluster


def forget_segments(cluster: SimulatedCluster, hosts: list[Host]) -> None:
    """Go on until nothing is left of the journal that each of ``hosts`` has now."""
    old = {(host.name, path) for host in hosts for path in segments(host)}
    while any((host.name, path) in old for host in hosts for path in segments(host)):
        cluster.run(0.2)


def slots_forgotten(host: Host) -> int:
    assert host.node is not None, host.name
    return host.node._replica.log.first_slot - 1


def segments(host: Host) -> list[str]:
    return [path for path in host.disk.files() if path.endswith(".segment")]


def chosen_through(host: Host) -> int:
    assert host.node is not None, host.name
    return host.node.status().replica.chosen_through


def isolate(cluster: SimulatedCluster, name: str) -> set[tuple[str, str]]:
    others = [other for other in cluster.names if other != name]
    cut = {(name, other) for other in others} | {(other, name) for other in others}
    cluster.network.cut |= cut
    return cut


def wait_until_converged(cluster: SimulatedCluster) -> None:
    """All that is not alive starts, every command gets its answer, and all nodes become equal."""
    cluster.heal()
    cluster.wait_until_converged(40.0)
    assert cluster.counts["snapshots discarded"] or cluster.counts["crashes"]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "".join(map(str, order)))
@pytest.mark.parametrize("pause_seconds", [0.0, 2.0])
def test_all_stop_and_one_is_believed(order: tuple[int, ...], pause_seconds: float) -> None:
    """One node starts as it is, the others without their snapshots, in whichever order."""
    waited = 0
    for seed in range(SEEDS):
        cluster = compacted(seed)
        if seed % 2:  # One knows less than the others.
            isolate(cluster, Random(seed).choice(cluster.names))
            cluster.run(1.0)
        hosts = sorted(cluster.hosts.values(), key=chosen_through, reverse=True)
        through = chosen_through(hosts[0])
        for host in hosts:
            host.crash()
        cluster.network.heal()
        for host in hosts[1:]:
            host.discard_snapshots()
        for index in order:
            hosts[index].start()
            cluster.run(pause_seconds)
            if not hosts[0].alive and pause_seconds:
                waited += all(host.node is None or host.node.applied_through < through for host in hosts)
        wait_until_converged(cluster)
        assert all(chosen_through(host) > through for host in hosts)
    assert waited or order[0] == 0 or not pause_seconds


def test_the_only_node_that_knows_is_away() -> None:
    """One node was cut off, one has lost its snapshots, and the third is down: what the two do not know may have been
    acknowledged, so they wait. (Now and then the journal without the snapshots reaches back to where the other was cut
    off, and they know all there is.)"""
    waited = 0
    for seed in range(SEEDS):
        cluster = compacted(seed)
        lost, behind, away = (cluster.hosts[name] for name in Random(seed).sample(cluster.names, 3))
        cut = isolate(cluster, behind.name)
        forget_segments(cluster, [lost])
        through = chosen_through(away)
        lost.discard_snapshots()
        away.crash()
        cluster.network.reconnect(cut)
        lost.start()
        assert lost.node is not None
        if chosen_through(behind) < lost.node._replica.log.lost_through:
            waited += 1
            cluster.run(3.0)
            assert chosen_through(behind) < through, seed
        wait_until_converged(cluster)
    assert waited > SEEDS // 2, waited


def test_a_crash_behind_a_received_snapshot_and_then_its_loss() -> None:
    """A leader that was alone voted for what was never chosen, was away, and died when it had another node's snapshot
    and had not yet noted that. Later that snapshot is damaged."""
    lost_later = 0
    for seed in range(4 * SEEDS):
        cluster = compacted(seed)
        leader = next(host for host in cluster.hosts.values() if host.node and host.node.leader == host.name)
        others = [host for host in cluster.hosts.values() if host is not leader]
        isolate(cluster, leader.name)
        submit_in_vain(leader)
        stale = chosen_through(leader) + WINDOW_SLOTS
        cluster.run(0.1)
        leader.crash()
        while min(map(slots_forgotten, others)) <= stale:
            cluster.run(0.2)
        cluster.network.heal()
        died = die_when_it_stands(leader)
        leader.start()
        for _ in range(100):
            cluster.run(0.05)
            if died:
                break
        del leader.__dict__["finished"]
        if not died:
            continue
        leader.start()
        learn_beyond(leader, cluster, died[0])
        leader.crash()
        snapshots = [path for path in leader.disk.files() if path.endswith(".snapshot")]
        if len(snapshots) == 2 and snapshots[-1] == died[0]:
            lost_later += 1
            leader.disk.remove(snapshots[-1])
        leader.start()
        cluster.run(0.5)
        wait_until_converged(cluster)
    assert lost_later > SEEDS, lost_later


def learn_beyond(host: Host, cluster: SimulatedCluster, snapshot: str) -> None:
    """Go on until ``host`` has learned what comes after ``snapshot``, and no longer: soon it takes one of its own."""
    slot = int(Path(snapshot).stem)
    for _ in range(200):
        cluster.run(0.005)
        if chosen_through(host) > slot:
            return


def submit_in_vain(host: Host) -> None:
    """Have a leader propose what gets no further than its own disk."""
    protocol, reactor = host.node, host.reactor
    assert protocol is not None
    assert reactor is not None
    for _ in range(WINDOW_SLOTS):
        reactor.run(lambda: protocol.submit(b"1000").addErrback(lambda _: None))


def die_when_it_stands(host: Host) -> list[str]:
    """Have ``host`` die when it has a complete snapshot, before any other node is told. Returns a list for its path."""
    died: list[str] = []

    def finished(snapshot: Snapshot) -> Snapshot:
        died.append(snapshot.path)
        host.crash()
        raise Crash

    host.__dict__["finished"] = finished
    return died
