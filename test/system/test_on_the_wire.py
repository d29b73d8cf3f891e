"""What is on the wire of a cluster with keys: nothing to be read, and nothing that is worth sending again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.task import deferLater

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.real_cluster import SECONDS, Caller, RealCluster, call, reactor, real_cluster, turn, until
from txpaxos.core.messages import AcceptedSlot, Ballot
from txpaxos.node.counts import Count
from txpaxos.wire import sealed
from txpaxos.wire.codec import Codec

pytestmark = pytest.mark.timeout(180)

NUMBER = b"7654321"
BIG = NUMBER.rjust(200_000)
"""A command that goes over streams."""

CLIENT_HELLO = 1


async def at_work(cluster: RealCluster) -> dict[str, bytes]:
    """Have the nodes and a client say all that is to be kept secret, and return that."""
    client = cluster.client()
    await client.submit(b"+" + NUMBER, SECONDS)
    await client.submit(BIG, SECONDS)
    await client.ask("the register", b"the value", SECONDS)
    await client.read(b"the query", deadline_seconds=SECONDS)
    session = client.session
    assert session is not None
    client.close()
    await cluster.settled()
    codec: Codec = cluster.nodes["a"].node._peers._codec
    return {
        "a command": b"+" + NUMBER,
        "a part of a big command": BIG[-100:],
        "a register": b"the register",
        "a value": b"the value",
        "a query": b"the query",
        "a session": session,
        "the owner of a session": session[-8:],
        "the name of a client": b"shop",
        "the name of the cluster": b"secret-cluster",
        "the number that stands for the cluster": codec._header._cluster_id,
        "an address for clients": str(cluster.cluster.members["b"].client).encode(),
    }


def joined(cluster: RealCluster) -> list[bytes]:
    """All bytes of each connection and side in their order, so that what was read in two pieces is found. The datagrams
    are on their own."""
    found: dict[tuple[int, str], bytes] = {}
    for one in cluster.carried:
        if one.connection:
            found[one.connection, one.sender] = found.get((one.connection, one.sender), b"") + one.data
    return [*found.values(), *(one.data for one in cluster.carried if not one.connection)]


def in_clear(cluster: RealCluster, secrets: dict[str, bytes]) -> set[str]:
    """The secrets that are to be read on the wire."""
    return {name for name, secret in secrets.items() if any(secret in data for data in joined(cluster))}


async def test_nothing_is_in_the_clear_with_keys(tmp_path: Path) -> None:
    async with real_cluster(tmp_path) as cluster:
        secrets = await at_work(cluster)
        ways = Counter(one.way for one in cluster.carried)
        assert min(ways[way] for way in ("datagram", "peer stream", "client stream")) > 10
        assert sum(len(one.data) for one in cluster.carried if one.way == "peer stream") > 2 * len(BIG)
        assert in_clear(cluster, secrets) == set()


async def test_all_is_in_the_clear_without_keys(tmp_path: Path) -> None:
    """So the test above would see it."""
    async with real_cluster(tmp_path, keys=False) as cluster:
        secrets = await at_work(cluster)
        # Without keys no client has a name, and of the cluster's name only its number is told.
        assert in_clear(cluster, secrets) == set(secrets) - {"the name of a client", "the name of the cluster"}


async def test_what_tls_itself_shows(tmp_path: Path) -> None:
    """The two Hello messages, of which neither has a name or a certificate, and then the lengths of what is said."""
    async with real_cluster(tmp_path) as cluster:
        await at_work(cluster)
        for one in cluster.carried:
            if one.way == "datagram":
                assert one.data.startswith(sealed.SEALED_MAGIC + bytes([sealed.VERSION]))
        hellos = [one.data for one in cluster.carried if one.sender == "dialled" and is_client_hello(one.data)]
        assert len(hellos) >= 7, "six streams between nodes, and one of a client"
        for data in hellos:
            assert extensions(data) & {SERVER_NAME, SESSION_OF_BEFORE, EARLY_DATA} == set()
        assert not any(COMMON_NAME in data for data in joined(cluster))


COMMON_NAME = b"\x55\x04\x03"
"""The object identifier that each certificate has before its name."""

SERVER_NAME, SESSION_OF_BEFORE, EARLY_DATA = 0, 41, 42
"""Extensions by which the side that dials would show more."""


def is_client_hello(data: bytes) -> bool:
    return data[:2] == b"\x16\x03" and data[5] == CLIENT_HELLO


def extensions(record: bytes) -> set[int]:
    """The kinds of the extensions of a ClientHello (RFC 8446, section 4.1.2)."""
    at = 5 + 4 + 2 + 32
    at += 1 + record[at]
    at += 2 + int.from_bytes(record[at : at + 2], "big")
    at += 1 + record[at]
    end = at + 2 + int.from_bytes(record[at : at + 2], "big")
    at, found = at + 2, set()
    while at < end:
        found.add(int.from_bytes(record[at : at + 2], "big"))
        at += 4 + int.from_bytes(record[at + 2 : at + 4], "big")
    return found


# -------------------------------------------------------------------- recorded


DROPS = (Count.DATAGRAM_REPLAYED, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION)


async def replay_datagrams(cluster: RealCluster, recorded: list[tuple[str, str, bytes]]) -> None:
    """Send recorded datagrams again, from where they came. None is accepted, and each is counted."""
    sent = Counter[str]()
    before = {name: cluster.count(name, *DROPS) for name in cluster.nodes}
    for number, (sender, to, data) in enumerate(recorded):
        cluster.send_from(sender, to, data)
        sent[to] += 1
        if number % 10 == 9:
            await turn()
    for name in cluster.nodes:
        await until(lambda: cluster.count(name, *DROPS) >= before[name] + sent[name])  # noqa: B023
        # Replies that came twice on their way are possible, but not on loopback.
        assert cluster.count(name, *DROPS) == before[name] + sent[name]


async def replay_streams(cluster: RealCluster, recorded: dict[tuple[str, str], list[bytes]]) -> None:
    """Send what the side that dialled has said again, on new connections. The nodes do not finish a handshake."""
    for (way, to), streams in recorded.items():
        port = cluster.peer_port(to) if way == "peer stream" else cluster.client_port(to)
        which = Count.PEER_NOT_BELIEVED if way == "peer stream" else Count.CLIENT_NOT_AUTHENTICATED
        for data in streams:
            counted = cluster.count(to, which)
            caller = await call(port, Caller(data))
            await until(lambda: caller.lost is not None)  # noqa: B023
            await until(lambda: cluster.count(to, which) == counted + 1)  # noqa: B023


def dialled_streams(cluster: RealCluster) -> dict[tuple[str, str], list[bytes]]:
    """What each side that dialled has said, by way and node."""
    found: dict[tuple[str, str, int], bytes] = {}
    for one in cluster.carried:
        if one.sender == "dialled":
            key = one.way, one.to, one.connection
            found[key] = found.get(key, b"") + one.data
    streams: dict[tuple[str, str], list[bytes]] = {}
    for (way, to, _), data in found.items():
        streams.setdefault((way, to), []).append(data)
    return streams


def datagrams(cluster: RealCluster) -> list[tuple[str, str, bytes]]:
    return [(one.sender, one.to, one.data) for one in cluster.carried if one.way == "datagram"]


@pytest.mark.parametrize("restarted", ["", "a", "bc", "abc"], ids=["none", "one", "two", "all"])
async def test_what_was_recorded_is_not_accepted_again(tmp_path: Path, restarted: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        await at_work(cluster)
        recorded, streams = datagrams(cluster), dialled_streams(cluster)
        assert len(recorded) > 20
        assert {way for way, _ in streams} == {"peer stream", "client stream"}
        for name in restarted:
            await cluster.stop(name)
            cluster.start(name)
        await cluster.settled()
        await deferLater(reactor, 0.3)
        before = cluster.state()
        Random(1).shuffle(recorded)
        await replay_datagrams(cluster, recorded)
        await replay_streams(cluster, streams)
        assert cluster.state() == before


OVERTAKEN = sealed.WINDOW - 100
"""How far datagrams overtake each other here. There are others of the same pair meanwhile."""


async def test_datagrams_that_overtake_each_other_are_accepted_once(tmp_path: Path) -> None:
    async with real_cluster(tmp_path) as cluster:
        sender = next(name for name in "abc" if name != cluster.leader)
        to = cluster.leader
        peers: Any = cluster.nodes[sender].node._peers
        stale = peers._codec.encode(AcceptedSlot(Ballot(0, to), 1))

        def taken() -> int:
            return sum(cluster.nodes[to].node.status().replica.dropped.values())

        made = [peers._sealers[to].seal(stale) for _ in range(OVERTAKEN)]
        before, dropped = taken(), cluster.count(to, *DROPS)
        for times, order in enumerate((made[::-1], made)):
            for number, data in enumerate(order):
                cluster.send_from(sender, to, data)
                if number % 10 == 9:
                    await turn()
            await until(lambda: taken() + cluster.count(to, *DROPS) >= before + dropped + (times + 1) * OVERTAKEN)  # noqa: B023
            assert (taken(), cluster.count(to, *DROPS)) == (before + OVERTAKEN, dropped + times * OVERTAKEN)
