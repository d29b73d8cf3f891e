"""Well-formed messages that no correct node sends, from the address and with the incarnation of a member.

Each of them once ended a node, or the cluster for good. They are dropped, counted, and leave nothing on any disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from txpaxos.core.messages import (
    AcceptSlot,
    Ballot,
    Heartbeat,
    HeartbeatAck,
    Nack,
    NodeId,
    PrepareLog,
    PromiseLog,
    TakeOver,
    Vote,
)
from txpaxos.node.snapshots.taking import Policy
from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.environment import PEER_PORT
from txpaxos.testing.simulator.host import Host
from txpaxos.wire.peer_messages import PeerMessage, RegisterVote, RegisterVotes

HIGHEST = 2**64 - 1


@pytest.fixture(autouse=True)
def expected_errors(logged_errors: list[Any]) -> Iterator[None]:
    """Commands that raise say so in the log."""
    yield
    logged_errors.clear()


def forge(cluster: SimulatedCluster, sender: NodeId, target: NodeId, message: PeerMessage) -> None:
    """``message`` comes to ``target`` as from ``sender``."""
    protocol = cluster.hosts[sender].node
    assert protocol is not None
    data = protocol._peers._codec.encode(message)
    cluster.network.send_datagram((sender, PEER_PORT), (target, PEER_PORT), data)


def state(host: Host) -> tuple[Any, ...]:
    assert host.node is not None
    status = host.node.status().replica
    return status.role, status.ballot, status.promised


def ballots(leader: NodeId, ballot: Ballot, slot: int) -> Iterator[PeerMessage]:
    """What a stranger with the name of a follower says of ballots."""
    follower = "abc"[("abc".index(leader) + 1) % 3]
    for number in (HIGHEST, HIGHEST - 1, 2**63, 2**62 + 1, ballot.round + 2**32 + 1):
        high = Ballot(number, follower)
        yield PrepareLog(high, slot)
        yield AcceptSlot(high, slot, b"", slot - 1)
        yield Heartbeat(high, slot - 1, 1)
        yield Nack(ballot, high)
        yield RegisterVotes(number, "", (RegisterVote("subject 0", high, b"v", True),), is_last=True)
    for name in ("x", "a\x1b[2J\n", leader):
        for message in (
            PrepareLog(Ballot(9, name), slot),
            Heartbeat(Ballot(9, name), 0, 1),
            Nack(ballot, Ballot(9, name)),
        ):
            if name != leader or not isinstance(message, Nack):
                yield message
    yield HeartbeatAck(ballot, slot, HIGHEST)
    yield PromiseLog(ballot, 1, (), (Vote(HIGHEST, ballot, b""),))
    yield RegisterVotes(0, "", (RegisterVote("a subject that no node knows", ballot, b"a lie", True),), is_last=True)


def values(leader: NodeId, ballot: Ballot, slot: int) -> Iterator[PeerMessage]:
    """What a stranger with the name of the leader says of values."""
    for value in (b"rubbish", b"\x02", b"\x02\x91", b"\x03of another release", b"\xff" * 100):
        yield AcceptSlot(ballot, slot, value, slot - 1)
        yield AcceptSlot(ballot, slot + 3, value, slot - 1)
    yield AcceptSlot(ballot, slot - 1, b"rubbish", slot - 1)
    yield TakeOver(ballot, slot - 1)


@pytest.mark.parametrize("kind", [ballots, values])
@pytest.mark.parametrize("seed", range(2))
def test_no_message_ends_a_node_or_is_saved(
    seed: int, kind: Callable[[NodeId, Ballot, int], Iterator[PeerMessage]]
) -> None:
    cluster = SimulatedCluster(
        seed, clients=1, askers=0, callers=0, readers=0, snapshot_policy=Policy(2**40), sessions_max=99
    )
    cluster.run(2.0)
    for client in cluster.clients:
        client.stop()
    cluster.run(1.0)
    leader = next(host for host in cluster.hosts.values() if host.node and host.node.leader == host.name)
    assert leader.node is not None
    status = leader.node.status().replica
    follower = "abc"[("abc".index(leader.name) + 1) % 3]
    sender = leader.name if kind is values else follower
    saved = {name: cluster.checker.nodes[name].log_records[:] for name in cluster.names}
    files = {name: host.disk.files() for name, host in cluster.hosts.items()}
    before = {name: state(host) for name, host in cluster.hosts.items()}
    for message in kind(leader.name, status.ballot, status.chosen_through + 1):
        for target in cluster.names:
            if target != sender:
                forge(cluster, sender, target, message)
        cluster.run(0.05)
    assert {name: state(host) for name, host in cluster.hosts.items()} == before
    assert {name: cluster.checker.nodes[name].log_records for name in cluster.names} == saved
    assert {name: host.disk.files() for name, host in cluster.hosts.items()} == files
    for host in cluster.hosts.values():  # Nor is there anything that a restart would find.
        host.crash()
        host.start()
    cluster.heal()
    cluster.wait_until_converged()


def test_two_values_in_one_ballot() -> None:
    """The first one counts. What a leader has proposed twice is its own fault, and its follower goes on."""
    cluster = SimulatedCluster(
        3, clients=0, askers=0, callers=0, readers=0, snapshot_policy=Policy(2**40), sessions_max=99
    )
    cluster.run(2.0)
    leader = next(host for host in cluster.hosts.values() if host.node and host.node.leader == host.name)
    assert leader.node is not None
    status = leader.node.status().replica
    follower = cluster.hosts[next(name for name in cluster.names if name != leader.name)]
    batch = b"\x02\x91\x94\xc4\x08session!\x01\x00\x91\xc4\x011"
    for value in (batch, b""):
        forge(cluster, leader.name, follower.name, AcceptSlot(status.ballot, status.chosen_through + 2, value, 0))
        cluster.run(0.05)
    assert follower.node is not None
    assert follower.node.status().replica.dropped["two_values_in_one_ballot"] == 1
    assert cluster.checker.nodes[follower.name].votes[status.chosen_through + 2] == (status.ballot, batch)
