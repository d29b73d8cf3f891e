"""Hostile bytes at the ports of real nodes with keys: before the handshake, within it, and after it.

However they end, nothing is raised, nothing is kept, and the cluster goes on.
"""

from __future__ import annotations

import resource
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from OpenSSL import SSL

from test.helpers.fuzz import INPUTS, SEED
from test.helpers.real_cluster import SECONDS, Caller, RealCluster, call, real_cluster, until
from test.helpers.strangers_tls import Unchecked
from test.helpers.wire_samples import CLIENT_SAMPLES, PEER_SAMPLES, spoil
from txpaxos.node.counts import Count
from txpaxos.wire.client_messages import ClientCodec
from txpaxos.wire.frames import frame
from txpaxos.wire.peer_messages import Hello

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0 if INPUTS > 10_000 else 180)]

TRIES = max(20, INPUTS // 100)
AT_ONCE = 20
GROWTH_BYTES_MAX = 2**27
"""How much the process may grow. A node that kept what came would soon be beyond that in a long run."""

KINDS = (20, 21, 22, 23, 24)
COUNTED = (
    *(Count.PEER_NOT_BELIEVED, Count.BAD_FRAME, Count.TOO_MANY_UNAUTHENTICATED_STREAMS),
    *(Count.CLIENT_NOT_AUTHENTICATED, Count.TOO_MANY_STRANGERS, Count.BAD_REQUEST),
)


def client_hello() -> bytes:
    """What OpenSSL says first."""
    context = SSL.Context(SSL.TLS_METHOD)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection.bio_read(2**16)


def record(rng: Random, body: bytes) -> bytes:
    """One record of TLS, whose length is mostly right."""
    length = len(body) if rng.random() < 0.8 else rng.randrange(2**16)
    return bytes([rng.choice(KINDS), 3, rng.choice([1, 3, 4])]) + length.to_bytes(2, "big") + body


def rubbish(rng: Random, _: list[bytes]) -> bytes:
    return rng.randbytes(rng.randrange(1, 3000))


def records(rng: Random, _: list[bytes]) -> bytes:
    return b"".join(record(rng, rng.randbytes(rng.randrange(400))) for _ in range(rng.randint(1, 5)))


def spoiled_hello(rng: Random, _: list[bytes]) -> bytes:
    return spoil(rng, client_hello())


def hello_in_other_records(rng: Random, _: list[bytes]) -> bytes:
    """The same message in many records, or in one of another kind."""
    body, pieces = client_hello()[5:], []
    while body:
        size = rng.randrange(1, 300)
        pieces.append(b"\x16\x03\x01" + min(size, len(body)).to_bytes(2, "big") + body[:size])
        body = body[size:]
    return b"".join(pieces) + record(rng, rng.randbytes(rng.randrange(100)))


def truncated_hello(rng: Random, _: list[bytes]) -> bytes:
    """The node waits for more, and closes the connection in the end."""
    return client_hello()[: rng.randrange(1, 500)]


def hello_again(rng: Random, recorded: list[bytes]) -> bytes:
    """A whole recorded stream with a few changes."""
    return spoil(rng, rng.choice(recorded)[:5000])


BEFORE: tuple[Callable[[Random, list[bytes]], bytes], ...] = (
    *(rubbish, records, spoiled_hello, hello_in_other_records, truncated_hello, hello_again),
)


def closed(callers: list[Caller]) -> bool:
    return all(one.lost is not None for one in callers)


async def goes_on(cluster: RealCluster, counted: dict[str, int], tries: int) -> None:
    """Nothing is left of the attack at any node, at least ``tries`` connections were counted, and commands go on."""

    def is_clean() -> bool:
        streams = [served.node._peers._streams for served in cluster.nodes.values()]
        ports: list[Any] = [served._client_port for served in cluster.nodes.values()]
        return all(one.is_established for each in streams for one in each._open) and all(
            len(port.access.strangers) == 0 for port in ports
        )

    await until(is_clean)
    await cluster.settled()
    assert sum(cluster.count(name, *COUNTED) - counted[name] for name in counted) >= tries
    assert len(cluster.lines) <= 200
    client, total = cluster.client(), cluster.nodes["a"].application.total
    assert await client.submit(b"+1", SECONDS) == total + 1
    client.close()


async def attack(cluster: RealCluster, one: Callable[[int], Awaitable[Caller]], *, stays: bool = False) -> None:
    """Try ``one`` often, a few at once, and see that the nodes are as before.

    :param stays: whether a connection may stay on which too little has come, as that of a client may.
    """
    counted = {name: cluster.count(name, *COUNTED) for name in cluster.nodes}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    open_: list[Caller] = []
    for number in range(TRIES):
        open_.append(await one(number))
        if len(open_) >= AT_ONCE and open_[0].lost is None:
            open_[0].transport.abortConnection()  # type: ignore[union-attr]
        open_ = [caller for caller in open_ if caller.lost is None]
    for caller in open_ if stays else ():
        caller.transport.loseConnection()  # type: ignore[union-attr]
    await until(lambda: closed(open_))
    await goes_on(cluster, counted, TRIES // 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < GROWTH_BYTES_MAX


def port_of(cluster: RealCluster, way: str, name: str) -> int:
    return cluster.peer_port(name) if way == "peer stream" else cluster.client_port(name)


@pytest.mark.parametrize("way", ["peer stream", "client stream"])
async def test_before_the_handshake(tmp_path: Path, way: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        rng = Random(100 * SEED + 5)
        recorded = [one.data for one in cluster.carried if (one.way, one.sender) == (way, "dialled")]

        async def one(number: int) -> Caller:
            data = BEFORE[number % len(BEFORE)](rng, recorded)
            return await call(port_of(cluster, way, "abc"[number % 3]), Caller(data))

        await attack(cluster, one)


def huge_certificate(size: int) -> Unchecked:
    """Shows a certificate of about ``size`` bytes, which it has signed itself."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "b")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName(f"{number:056}.org") for number in range(size // 62)])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=9))
        .add_extension(names, critical=False)
        .sign(key, None)
    )
    made = Unchecked(None)
    made._context.use_certificate(certificate)
    made._context.use_privatekey(key)
    return made


@pytest.mark.parametrize("way", ["peer stream", "client stream"])
async def test_huge_certificates(tmp_path: Path, way: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        creators = [huge_certificate(size) for size in (10_000, 90_000, 1_000_000)]

        async def one(number: int) -> Caller:
            return await call(port_of(cluster, way, "abc"[number % 3]), Caller(b"x"), creators[number % 3])

        await attack(cluster, one)


async def test_frames_of_a_client_after_the_handshake(tmp_path: Path) -> None:
    async with real_cluster(tmp_path) as cluster:
        assert cluster.keys is not None
        rng, codec, creator = (
            Random(100 * SEED + 6),
            ClientCodec(cluster.cluster.name),
            Unchecked(cluster.keys.client("bank")),
        )

        async def one(number: int) -> Caller:
            data = spoil(rng, codec.encode(rng.choice(CLIENT_SAMPLES)))
            said = rng.choice([frame(data), data, frame(data) + rng.randbytes(100), b"\xff" * 4 + data])
            caller = await call(cluster.client_port("abc"[number % 3]), Caller(said), creator)
            await until(lambda: caller.heard or caller.lost is not None)
            return caller

        await attack(cluster, one, stays=True)


async def test_frames_of_a_node_after_the_handshake(tmp_path: Path) -> None:
    """Of one with the keys of a member, at one other node. The other two go on."""
    async with real_cluster(tmp_path) as cluster:
        assert cluster.keys is not None
        liar, to = (name for name in "abc" if name != cluster.leader)
        rng, creator = Random(100 * SEED + 7), Unchecked(cluster.keys.node(liar))
        codec: Any = cluster.nodes[liar].node._peers._codec
        hello = frame(codec.encode(Hello()))

        async def one(_: int) -> Caller:
            data = spoil(rng, codec.encode(rng.choice(PEER_SAMPLES)))
            said = rng.choice([frame(data), data, frame(data) + rng.randbytes(100), b"\xff" * 4 + data])
            caller = await call(cluster.peer_port(to), Caller(rng.choice([hello + said, said])), creator)
            await until(lambda: caller.lost is not None)
            return caller

        await attack(cluster, one)
