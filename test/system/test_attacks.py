"""What once stopped, misled or filled a cluster without keys: each attack by name, at real nodes with keys.

A stranger has all that can be learned on the wire: the addresses, the names, and the incarnations of all members. It
sends from the address of a member, in each of the ways below. Nothing changes: not the state, the members, the leader,
the counts of the algorithm, nor a byte on a disk. Each try is counted, and each way has one line in the log. So it is
with a client that may only read, and with one that has the session of another one; of their lines there are few.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.task import deferLater

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.key_folders import keys_for
from test.helpers.real_cluster import SECONDS, Caller, RealCluster, call, reactor, real_cluster, turn, until
from test.helpers.strangers_tls import Unchecked
from txpaxos.core.messages import (
    AcceptSlot,
    Ballot,
    ChosenValues,
    Decided,
    Fetch,
    Heartbeat,
    HeartbeatAck,
    Nack,
    Prepare,
    PrepareLog,
    PromiseLog,
    Truncated,
    Vote,
)
from txpaxos.keys import tls
from txpaxos.log_lines import LINES_MAX
from txpaxos.node.counts import Count
from txpaxos.server.access import RIGHT_FOR
from txpaxos.wire.client_messages import (
    AcceptClock,
    Answer,
    Ask,
    Authenticated,
    BackupRequest,
    ChangeMembers,
    ClientCodec,
    Forget,
    HandOver,
    Join,
    KeepTimers,
    KeepTogether,
    Members,
    MembersRequest,
    Read,
    ReadAnswer,
    Recall,
    Refused,
    ReloadKeys,
    StatusRequest,
    Submit,
    Welcome,
)
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run, new_session, owned_by
from txpaxos.wire.frames import FRAME_BYTES_MAX, FrameSplitter, frame
from txpaxos.wire.peer_messages import FetchSnapshot, Forward, Hello, Introduction, SnapshotPart, StateDigest

pytestmark = pytest.mark.timeout(180)

HIGHEST = 2**64 - 1
COMMAND = Run(b"session1", 1, 0, (b"+1000",))
BATCH = b"\x02\x91\x94\xc4\x08session!\x01\x00\x91\xc4\x05+1000"
"""A value with a command, as a leader would propose it."""


@attrs.frozen
class Scene:
    """What an attacker knows: who leads with which ballot, and which slot is next; and whose name it uses."""

    leader: str
    ballot: Ballot
    slot: int
    liar: str


def higher(scene: Scene, rounds: int = 1) -> Ballot:
    return Ballot(scene.ballot.round + rounds, scene.liar)


ATTACKS: dict[str, Callable[[Scene], list[Any]]] = {
    "another state, as a snapshot": lambda s: [Truncated(10**6), SnapshotPart(10**6, 40, 0, bytes(40))],
    "the last round, in a campaign": lambda s: [PrepareLog(Ballot(HIGHEST, s.liar), s.slot)],
    "the last round but one, in a proposal": lambda s: [AcceptSlot(Ballot(HIGHEST - 1, s.liar), s.slot, BATCH, 0)],
    "the last round, in a heartbeat": lambda s: [Heartbeat(Ballot(HIGHEST, s.liar), 0, 1)],
    "the last round, in a refusal": lambda s: [Nack(s.ballot, Ballot(HIGHEST, s.liar))],
    "digests of another state": lambda s: [StateDigest(s.slot - 1, b"log", b"state")] * 6,
    "a command as a chosen value": lambda s: [ChosenValues(s.slot, (BATCH,), s.slot)],
    "rubbish as a chosen value": lambda s: [ChosenValues(s.slot, (b"rubbish",), s.slot)],
    "two values in one ballot": lambda s: [AcceptSlot(s.ballot, s.slot, value, s.slot - 1) for value in (BATCH, b"")],
    "a register as decided": lambda s: [Decided(b"a lie"), Decided(b"another lie")],
    "a leader that is no member": lambda s: [Heartbeat(Ballot(s.ballot.round + 1, "x\x1b[2J\n"), 0, 1)],
    "a leader that nobody elected": lambda s: [Heartbeat(higher(s), s.slot - 1, 1)],
    "rising ballots": lambda s: [Heartbeat(higher(s, rounds), 0, rounds) for rounds in range(1, 400)],
    "old heartbeats": lambda s: [Heartbeat(s.ballot, 0, 1)] * 400,
    "acknowledgements of what was not sent": lambda s: [HeartbeatAck(s.ballot, s.slot + 9, HIGHEST)],
    "promises with the votes of none": lambda s: [PromiseLog(s.ballot, s.slot, (), (Vote(s.slot, s.ballot, BATCH),))],
    "questions for all that is chosen": lambda s: [Fetch(1)] * 400,
    "questions for the whole state": lambda s: [FetchSnapshot(0, 0)],
    "many new registers": lambda s: [Prepare(Ballot(1, s.liar)) for _ in range(400)],
    "a command, forwarded": lambda s: [Forward((COMMAND,))],
    "very many tiny runs": lambda s: [Forward((Run(b"session1", 1, 0, (b"",)),) * 3000)],
    "very many tiny votes": lambda s: [PromiseLog(s.ballot, 1, (), (Vote(1, s.ballot, b""),) * 2000)],
    "another data folder of a member": lambda s: [Introduction(True, 0), Introduction(True, HIGHEST, True)],
    "a second stream of a member": lambda s: [Hello()],
}


def codec_of(cluster: RealCluster, name: str, incarnation: int | None = None) -> Codec:
    """A stranger's codec with the name of a member, and its incarnation unless another one is given."""
    if incarnation is None:
        store: Any = cluster.nodes[name].node._peers
        found: Codec = store.codec if hasattr(store, "codec") else store._codec
        return found
    return Codec(cluster.cluster.name, name, incarnation, cluster.cluster.founding_members)


# ---------------------------------------------------------------------- ways


async def plain_datagrams(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> int:
    for number, data in enumerate(messages):
        cluster.send_from(liar, to, data)
        if number % 20 == 19:
            await turn()  # The system's buffer is small.
    return len(messages)


async def sealed_datagrams(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> int:
    """With a session that was seen on the wire."""
    seen = next(
        one.data for one in reversed(cluster.carried) if (one.way, one.sender, one.to) == ("datagram", liar, to)
    )
    forged = [seen[:11] + number.to_bytes(8, "big") + data + bytes(16) for number, data in enumerate(messages, 10**6)]
    return await plain_datagrams(cluster, liar, to, forged)


async def stream(cluster: RealCluster, liar: str, to: str, messages: list[bytes], creator: Any) -> int:
    hello = codec_of(cluster, liar, 12345).encode(Hello())
    said = b"".join(map(frame, [hello, *messages]))
    caller = await call(cluster.peer_port(to), Caller(said[: 2**20]), creator)
    await until(lambda: caller.lost is not None)
    assert len(caller.heard) <= 7, "an alert of TLS and nothing else"
    return 1


def plain_stream(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> Awaitable[int]:
    return stream(cluster, liar, to, messages, None)


def nameless_stream(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> Awaitable[int]:
    return stream(cluster, liar, to, messages, Unchecked(None))


def foreign_stream(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> Awaitable[int]:
    foreign = keys_for(cluster.folder.parent / f"foreign-{liar}", nodes=[liar]).node(liar)
    return stream(cluster, liar, to, messages, Unchecked(foreign))


def stream_of_a_client(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> Awaitable[int]:
    assert cluster.keys is not None
    return stream(cluster, liar, to, messages, Unchecked(cluster.keys.client("script")))


def stream_of_another_member(cluster: RealCluster, liar: str, to: str, messages: list[bytes]) -> Awaitable[int]:
    assert cluster.keys is not None
    other = next(name for name in "abc" if name not in (liar, to))
    return stream(cluster, liar, to, messages, Unchecked(cluster.keys.node(other)))


WAYS: dict[Callable[..., Awaitable[int]], tuple[Count, str]] = {
    plain_datagrams: (Count.DATAGRAM_NOT_SEALED, "it is not sealed: keys are on here, and probably off there"),
    sealed_datagrams: (Count.DATAGRAM_FORGED, "it is forged or damaged"),
    plain_stream: (Count.PEER_NOT_BELIEVED, tls.NOT_TLS),
    nameless_stream: (Count.PEER_NOT_BELIEVED, tls.NO_CERTIFICATE),
    foreign_stream: (Count.PEER_NOT_BELIEVED, "its certificate is of an unknown authority"),
    stream_of_a_client: (Count.PEER_NOT_BELIEVED, "its certificate is of an unknown authority"),
    stream_of_another_member: (Count.PEER_NOT_BELIEVED, "its certificate has the wrong name: {other}, and it claims"),
}
"""How a stranger reaches a peer port, what is counted then, and how the line in the log ends or goes on."""


@asynccontextmanager
async def unchanged(cluster: RealCluster) -> AsyncIterator[None]:
    """Nothing changes within, and the cluster goes on with the same leader."""
    await cluster.settled()
    before = cluster.state()
    yield
    await deferLater(reactor, 0.15)  # More than one heartbeat.
    after = cluster.state()
    assert {name: (before.get(name), value) for name, value in after.items() if before.get(name) != value} == {}
    leader, total = cluster.leader, cluster.nodes["a"].application.total
    client = cluster.client()
    assert await client.submit(b"+1", SECONDS) == total + 1
    client.close()
    assert cluster.leader == leader


def scene(cluster: RealCluster, liar: str) -> Scene:
    core = cluster.nodes[cluster.leader].node.status().replica
    return Scene(cluster.leader, core.ballot, core.chosen_through + 1, liar)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_of_a_stranger_at_the_port_for_nodes(tmp_path: Path, attack: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        follower = next(name for name in "abc" if name != cluster.leader)
        for to, liar in ((cluster.leader, follower), (follower, cluster.leader)):
            messages = [codec_of(cluster, liar).encode(one) for one in ATTACKS[attack](scene(cluster, liar))]
            other = next(name for name in "abc" if name not in (to, liar))
            async with unchanged(cluster):
                for way, (count, says) in WAYS.items():
                    counted, said = cluster.count(to, count), len(cluster.lines)
                    tries = await way(cluster, liar, to, messages)
                    await until(lambda: cluster.count(to, count) >= counted + tries)  # noqa: B023
                    await turn()
                    assert cluster.count(to, count) == counted + tries
                    fresh = cluster.lines[said:]
                    if way is not stream_of_a_client:  # Its line is there already: it is that of another authority.
                        (line,) = fresh
                        assert line.startswith(f"node {to} ")
                        assert says.format(other=other) in line
                    else:
                        assert fresh == []


async def test_a_member_that_was_not_met_yet_is_not_kept_out(tmp_path: Path) -> None:
    """Two forged messages in the name of a node that starts later once kept it out for good."""
    async with real_cluster(tmp_path, nodes="ab") as cluster:
        codec = codec_of(cluster, "c", 12345)
        messages = [codec.encode(one) for one in (Hello(), Introduction(True, 0), Introduction(True, 1, True))]
        for to in "ab":
            for way in (plain_datagrams, plain_stream, nameless_stream, stream_of_a_client, stream_of_another_member):
                await way(cluster, "c", to, messages)
        cluster.start("c")
        await cluster.settled()
        await cluster.stop("b" if cluster.leader == "a" else "a")
        client = cluster.client()
        assert await client.submit(b"+1", SECONDS) == 2
        client.close()


# ------------------------------------------------------------ at the port for clients


class Asking(Caller):
    """A client whose requests the test writes by hand."""

    def __init__(self, cluster: RealCluster) -> None:
        super().__init__(received=self._take)
        self._codec = ClientCodec(cluster.cluster.name)
        self._splitter = FrameSplitter(FRAME_BYTES_MAX)
        self.messages: list[Any] = []

    def _take(self, data: bytes) -> None:
        self.messages += map(self._codec.decode, self._splitter.feed(data))

    async def ask(self, *requests: Any) -> list[Any]:
        """The answers to ``requests``, one for each."""
        self.messages.clear()
        self.transport.write(b"".join(frame(self._codec.encode(one)) for one in requests))  # type: ignore[union-attr]
        await until(lambda: self.lost is not None or len(self._answers()) >= len(requests))
        return self._answers()

    def _answers(self) -> list[Any]:
        return [one for one in self.messages if not isinstance(one, Authenticated | Welcome | Members)]


async def asking(cluster: RealCluster, name: str, to: str = "") -> Asking:
    """The client with this name at the leader, or at another node."""
    assert cluster.keys is not None
    keys = cluster.keys.client(name) if name else None
    made = Asking(cluster)
    await call(cluster.client_port(to or cluster.leader), made, Unchecked(keys))
    await until(lambda: any(isinstance(one, Welcome if name else Authenticated) for one in made.messages))
    return made


def session_of(name: str, number: int = 0, slot: int = 1) -> bytes:
    """A session that belongs to a client, made when ``slot`` was applied."""
    return new_session(owned_by(name, number.to_bytes(8, "big") + bytes(8)), slot)


READER: dict[str, Callable[[], list[Any]]] = {
    "a command": lambda: [Submit(1, session_of("script"), 1, 0, (b"+1000",))],
    "commands that raise, which would fill the log": lambda: [
        Submit(number, session_of("script"), number, 0, (b"\x1b[2J" * 90,)) for number in range(1, 50)
    ],
    "questions that would each make a register": lambda: [
        Ask(number, f"register {number}", b"v") for number in range(100)
    ],
    "questions without a value": lambda: [Ask(number, f"register {number}", None) for number in range(100)],
    "a register to forget": lambda: [Forget(1, session_of("script"), 1, "register")],
    "a timer of another client": lambda: [KeepTimers(1, 1, ("session of bank",)), KeepTimers(2, 2**62, ("a", "b"))],
    "timers of another client": lambda: [KeepTogether(number, number, 2**62, 1) for number in range(1, 50)],
    "the status": lambda: [StatusRequest(1), MembersRequest(2)],
    "the lead": lambda: [HandOver(1, name) for name in "abc"],
    "other members": lambda: [
        ChangeMembers(1, "remove", "a"),
        ChangeMembers(2, "move", "b", address="10.0.0.1:1"),
        ChangeMembers(3, "priority", "c", priority=9),
    ],
    "to join": lambda: [Join(1, "d", "10.0.0.4:1", "10.0.0.4:2", 1, bytes(16), "txpaxos.counter:Counter")],
    "all of the state": lambda: [BackupRequest(1), BackupRequest(2, 0, 1), BackupRequest(3, 1, 0)],
    "other keys": lambda: [ReloadKeys(1)],
    "another time": lambda: [AcceptClock(1)],
    "what a node remembers": lambda: [Recall(1, 1), Recall(2, ballot="1.a"), Recall(3, register="register")],
}
"""What a client with the right to read asks for, beside what it may."""


def test_the_reader_asks_for_all_that_needs_another_right() -> None:
    asked = {type(one) for ask in READER.values() for one in ask()}
    assert asked == set(RIGHT_FOR) - {Read}


@pytest.mark.parametrize("who", ["script", ""], ids=["client that may read", "stranger"])
async def test_of_a_client_without_the_right(tmp_path: Path, who: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        for to in "abc":
            client = await asking(cluster, who, to)
            for requests in (ask() for ask in READER.values()):
                async with unchanged(cluster):
                    counted, said = cluster.count(to, Count.REQUEST_NOT_ALLOWED), len(cluster.lines)
                    answers = await client.ask(*requests)
                    assert {type(one) for one in answers} == {Refused}
                    assert {one.error for one in answers} == {"NotAllowed"}
                    assert cluster.count(to, Count.REQUEST_NOT_ALLOWED) == counted + len(requests)
                    assert len(cluster.lines) - said <= LINES_MAX
                    assert all("no right to" in line and "\x1b" not in line for line in cluster.lines[said:])
            if who:
                (answer,) = await client.ask(Read(1, b"", True))
                assert isinstance(answer, ReadAnswer)


THEFTS: dict[str, Callable[[bytes], Any]] = {
    "the next command of another client": lambda stolen: Submit(1, stolen, 2, 0, (b"+1000",)),
    "an acknowledgement of all that another client will ever send": lambda stolen: Submit(
        1, stolen, 2, 2**62, (b"+1000",)
    ),
    "a command far ahead of another client's": lambda stolen: Submit(1, stolen, 2**62, 0, (b"+1000",)),
    "a register to forget, in the session of another client": lambda stolen: Forget(1, stolen, 1, "register"),
}


@pytest.mark.parametrize("theft", THEFTS)
async def test_of_a_client_with_the_session_of_another_one(tmp_path: Path, theft: str) -> None:
    async with real_cluster(tmp_path) as cluster:
        shop, bank, stolen = await asking(cluster, "shop"), await asking(cluster, "bank"), session_of("shop")
        (answer,) = await shop.ask(Submit(1, stolen, 1, 0, (b"+1",)))
        assert isinstance(answer, Answer)
        for to in "abc":
            bank = await asking(cluster, "bank", to)
            async with unchanged(cluster):
                counted, said = cluster.count(to, Count.SESSION_OF_ANOTHER_CLIENT), len(cluster.lines)
                (refused,) = await bank.ask(THEFTS[theft](stolen))
                assert (refused.error, cluster.count(to, Count.SESSION_OF_ANOTHER_CLIENT)) == (
                    "NotAllowed",
                    counted + 1,
                )
                (line,) = cluster.lines[said:]
                assert line.startswith("client bank at 127.0.0.1 uses a session that is not its own")
        await cluster.settled()
        total = cluster.nodes["a"].application.total
        (answer,) = await shop.ask(Submit(2, stolen, 2, 1, (b"+1",)))
        assert isinstance(answer, Answer)
        await until(lambda: cluster.nodes["a"].application.total == total + 1)


async def test_of_strangers_that_connect_and_stay(tmp_path: Path) -> None:
    """At both ports. They neither keep clients and nodes out, nor stay, nor fill the log."""
    async with real_cluster(tmp_path) as cluster:
        to = cluster.leader
        which = (Count.CLIENT_NOT_AUTHENTICATED, Count.TOO_MANY_STRANGERS)
        async with unchanged(cluster):
            counted, said = cluster.count(to, *which), len(cluster.lines)
            full = cluster.count(to, Count.TOO_MANY_UNAUTHENTICATED_STREAMS)
            clients = [await call(cluster.client_port(to), Caller()) for _ in range(300)]
            peers = [await call(cluster.peer_port(to), Caller()) for _ in range(100)]
            shop = cluster.client()
            assert (await shop.read(b"", deadline_seconds=SECONDS)).result == cluster.nodes["a"].application.total
            shop.close()
            await until(lambda: all(one.lost is not None for one in clients))
            assert cluster.count(to, *which) == counted + 300
            await until(lambda: cluster.count(to, Count.TOO_MANY_UNAUTHENTICATED_STREAMS) == full + 36)
            await until(lambda: all(one.lost is not None for one in peers))
            assert len(cluster.lines) - said <= 2 * LINES_MAX  # At each of the two ports.
