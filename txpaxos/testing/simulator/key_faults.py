"""What happens to keys, and to sealed datagrams, in a cluster whose nodes have keys."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from txpaxos.testing.simulator.cluster import SimulatedCluster
from txpaxos.testing.simulator.environment import PEER_PORT
from txpaxos.wire.sealed import HEAD_BYTES, OVERHEAD_BYTES

if TYPE_CHECKING:
    from txpaxos.testing.simulator.keys_operator import KeysOperator

REPLAY_SECONDS = 0.01
"""The mean time between two datagrams that are replayed."""

KeyFault: TypeAlias = Callable[[SimulatedCluster, str, float, Random], None]
"""Called with the cluster, a machine that is in use, how long it lasts, and what decides all that is random."""


def _operator(cluster: SimulatedCluster) -> KeysOperator:
    assert cluster.keys_operator is not None
    return cluster.keys_operator


def _renew(cluster: SimulatedCluster, machine: str, seconds: float, rng: Random) -> None:
    """Give the node a new certificate."""
    _operator(cluster).renew(cluster.hosts[machine].name)


def _steal(cluster: SimulatedCluster, machine: str, seconds: float, rng: Random) -> None:
    """The keys of the node are stolen: they are replaced, and revoked."""
    _operator(cluster).revoke(cluster.hosts[machine].name)


def _rotate(cluster: SimulatedCluster, machine: str, seconds: float, rng: Random) -> None:
    """Replace the authority, and the certificates of all nodes."""
    _operator(cluster).rotate()


def _reload(cluster: SimulatedCluster, machine: str, seconds: float, rng: Random) -> None:
    """Have the node, or another one, read its folder again, soon after one of its streams was broken."""
    host = cluster.hosts[machine]
    others = [other.name for other in cluster.hosts.values() if other is not host]
    if host.node is None or host.reactor is None or not others:
        return
    other, streams = rng.choice(others), host.node._peers._streams
    stream = rng.choice((streams._own, streams._theirs)).get(other)
    if stream is not None:
        host.reactor.run(stream.abort)
    cluster.time.after(rng.expovariate(1.0) * 0.01, _operator(cluster).reload, rng.choice((host.name, other)))


def _replay(cluster: SimulatedCluster, machine: str, seconds: float, rng: Random) -> None:
    """Send recorded datagrams to the node again, old ones and recent ones, some of them altered."""
    until = cluster.time.now + seconds

    def replay() -> None:
        host = cluster.hosts.get(machine)
        recorded = [one for one in cluster.recorded if one[1] == machine]
        if cluster.time.now >= until or host is None:
            return
        if recorded:
            source, _, data = rng.choice(recorded if rng.random() < 0.5 else recorded[-20:])
            changed = _altered(data, rng) if rng.random() < 0.5 else data
            cluster.network.inject_datagram((source, PEER_PORT), (machine, host.peer_port), changed)
            cluster.counts["datagrams replayed"] += 1
        cluster.time.after(rng.expovariate(1.0) * REPLAY_SECONDS, replay)

    replay()


def _altered(data: bytes, rng: Random) -> bytes:
    """A sealed datagram with another counter, with a bit changed, or cut short."""
    kind = rng.choice(("counter", "bit", "short"))
    if kind == "short" or len(data) < OVERHEAD_BYTES:
        return data[: rng.randrange(len(data))]
    if kind == "counter":
        counter = int.from_bytes(data[HEAD_BYTES - 8 : HEAD_BYTES], "big") + rng.choice((1, 100, 5000, 2**40))
        return data[: HEAD_BYTES - 8] + counter.to_bytes(8, "big") + data[HEAD_BYTES:]
    bit = rng.randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


KEY_FAULTS: dict[str, KeyFault] = {
    "keys renewed": _renew,
    "keys stolen": _steal,
    "authority replaced": _rotate,
    "keys reloaded": _reload,
    "datagrams replayed": _replay,
}
"""Every kind, by name."""
