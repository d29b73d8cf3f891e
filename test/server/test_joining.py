"""A node that joins a cluster, of which the test plays the nodes: real sockets on the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import attrs
import pytest

from test.helpers.fakes import free_ports
from txpaxos.cluster import Address, Member
from txpaxos.errors import ConfigError, StoreError
from txpaxos.server import joining
from txpaxos.server.joining import AGAIN_SECONDS, JOIN_SECONDS, Wish, join_cluster
from txpaxos.storage.disk import Disk
from txpaxos.storage.identity import lock_folder
from txpaxos.storage.membership import Joined, Joining, MembershipFile
from txpaxos.wire.client_messages import (
    ClientCodec,
    FromClient,
    FromNode,
    Join,
    JoinAnswer,
    KeepAlive,
    KeepAliveReply,
    Pong,
    Refused,
    Welcome,
)
from txpaxos.wire.frames import FrameSplitter, frame

CODEC = ClientCodec("town")
FOUNDING = {"a": ("127.0.0.1:4001", "127.0.0.1:5001")}
Say = tuple[Any, ...]


class FakeNode:
    """The client port of a node. On each connection it says what the test gives it, and waits where that is a class of
    messages. ``None`` says nothing. It listens no more after the last connection.

    :ivar asked: what came.
    """

    def __init__(self, script: list[Say]) -> None:
        self.asked: list[FromClient | FromNode] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for number, say in enumerate(self._script, 1):
            connection, _ = self._listener.accept()
            if number == len(self._script):
                self._listener.close()
            with connection:
                self._converse(connection, say)

    def _converse(self, connection: socket.socket, say: Say) -> None:
        splitter = FrameSplitter(2**20)
        for message in say:
            if message is None:
                connection.recv(1)  # Until the other side closes the connection.
            elif isinstance(message, bytes):
                connection.sendall(message)
            elif isinstance(message, type):
                while not self._has_come(message, connection, splitter):
                    pass
            elif callable(message):
                message(self.asked[-1])
            else:
                connection.sendall(frame(CODEC.encode(message)))

    def _has_come(self, kind: type[Any], connection: socket.socket, splitter: FrameSplitter) -> bool:
        came = [CODEC.decode(part) for part in splitter.feed(connection.recv(2**16))]
        self.asked += came
        return any(isinstance(message, kind) for message in came)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def node(*script: Say) -> Iterator[FakeNode]:
    fake = FakeNode(list(script))
    try:
        yield fake
    finally:
        fake.close()


LEADS = Welcome("a", "a", "127.0.0.1:1", 40, 0.25)
ELECTS = Welcome("a", None, None, 40, 0.25)


def answer(name: str = "d") -> JoinAnswer:
    return JoinAnswer(1, "town", name, FOUNDING, 40, {**FOUNDING, name: ("127.0.0.1:4004", "127.0.0.1:5004")})


class Harness:
    """A node with an empty folder. The clock goes on when the node waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        peers, clients = free_ports(2)
        self.member = Member(Address("127.0.0.1", peers), Address("127.0.0.1", clients))
        self.seconds = 0.0
        self.waits: list[float] = []

    def join(self, at: Address, **wishes: Any) -> Joined:
        wish = Wish(at, "d", self.member, "counter:Counter", "town")
        return join_cluster(
            attrs.evolve(wish, **wishes),
            str(self.folder),
            random_bytes=lambda count: bytes(range(1, count + 1)),
            monotonic=lambda: self.seconds,
            wait=self._wait,
        )

    def refusal(self, at: Address, **wishes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            self.join(at, **wishes)
        return str(caught.value)

    def saved(self) -> Joining | Joined | None:
        return MembershipFile(Disk(), str(self.folder)).read()

    def _wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path / "d")


INCARNATION = int.from_bytes(bytes(range(1, 9)), "little")


def test_the_leader_is_asked_and_its_answer_is_saved(harness: Harness) -> None:
    with node((LEADS, Join, answer("d~2"))) as leader:
        joined = harness.join(leader.address, votes=False, replaces="d")
    member = harness.member
    (asked,) = leader.asked
    token = bytes(range(1, 17))
    assert asked == Join(
        1, "d", str(member.address), str(member.client), INCARNATION, token, "counter:Counter", False, "d"
    )
    given = (str(member.address), str(member.client))
    assert joined == Joined("d", INCARNATION, "town", "d~2", FOUNDING, answer("d~2").members, 40, given=given)
    assert harness.saved() == joined
    assert harness.waits == []


def test_a_folder_that_has_joined_asks_no_more(harness: Harness) -> None:
    with node((LEADS, Join, answer())) as leader:
        joined = harness.join(leader.address)
    assert harness.join(Address("127.0.0.1", 1)) == joined
    assert harness.refusal(Address("127.0.0.1", 1), name="e") == f"{harness.folder} belongs to node d of cluster town"


def test_another_node_says_who_leads(harness: Harness) -> None:
    with node((LEADS, Join, answer())) as leader, ExitStack() as stack:
        away = Welcome("b", "a", str(leader.address), 40, 0.25)
        follower = stack.enter_context(node((away,)))
        assert harness.join(follower.address).node == "d"
    assert follower.asked == []


def test_where_it_listens_is_saved(harness: Harness) -> None:
    listen, client_listen = (Address("127.0.0.1", port) for port in free_ports(2))
    harness.member = attrs.evolve(harness.member, listen=listen, client_listen=client_listen)
    with node((LEADS, Join, answer())) as leader:
        joined = harness.join(leader.address)
    assert (joined.listen, joined.client_listen) == (str(listen), str(client_listen))


def test_it_shows_the_token_at_its_addresses_while_it_asks(harness: Harness) -> None:
    seen: list[bytes] = []

    def look(asked: Any) -> None:
        for text in (asked.address, asked.client):
            address = Address.parse(text)
            for _ in range(2):
                with socket.create_connection((address.host, address.port), 5.0) as connection:
                    seen.append(connection.recv(100))

    with node((LEADS, Join, look, answer())) as leader:
        harness.join(leader.address)
    assert seen == [bytes(range(1, 17))] * 4
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((harness.member.address.host, harness.member.address.port), 5.0)


def test_the_name_of_the_cluster_need_not_be_known(harness: Harness) -> None:
    with node((LEADS, Join, answer())) as leader:
        assert harness.join(leader.address, cluster=None).cluster == "town"


def test_a_sign_of_life_is_given(harness: Harness) -> None:
    with node((LEADS, Join, Pong(), KeepAlive(), KeepAliveReply, answer())) as leader:
        harness.join(leader.address)
    assert KeepAliveReply() in leader.asked


# --------------------------------------------------------------- asking again


def refused(error: str, reason: str) -> Refused:
    return Refused(1, error, reason)


@pytest.mark.parametrize(
    "first",
    [
        (ELECTS,),
        (LEADS, Join),
        (LEADS, Join, refused("NoQuorum", "node a does not lead: ask the leader")),
        (LEADS, Join, refused("OutcomeUnknown", "the leader changed on the way")),
        (LEADS, Join, ELECTS),
        (LEADS, Join, LEADS, refused("Overloaded", "try again later")),
    ],
)
def test_it_asks_again(harness: Harness, first: Say) -> None:
    """With the same incarnation, so that it is added once."""
    with node(first, (LEADS, Join, answer())) as leader:
        assert harness.join(leader.address).node == "d"
    assert harness.waits == [AGAIN_SECONDS]
    assert {one.incarnation for one in leader.asked if isinstance(one, Join)} == {INCARNATION}


def test_one_that_was_stopped_on_the_way_asks_again_as_the_same(harness: Harness) -> None:
    with node((LEADS, Join, refused("ConfigError", "no"))) as leader:
        harness.refusal(leader.address)
    assert harness.saved() == Joining("d", INCARNATION)
    MembershipFile(Disk(), str(harness.folder)).write(Joining("d", 77))
    with node((LEADS, Join, answer())) as leader:
        assert harness.join(leader.address).incarnation == 77


def test_one_that_takes_another_name_then_is_another_node(harness: Harness) -> None:
    harness.folder.mkdir(mode=0o700)
    MembershipFile(Disk(), str(harness.folder)).write(Joining("e", 77))
    with node((LEADS, Join, answer())) as leader:
        assert harness.join(leader.address).incarnation == INCARNATION


def test_a_cluster_without_a_leader_is_not_waited_for_for_ever(harness: Harness) -> None:
    tries = int(JOIN_SECONDS / AGAIN_SECONDS) + 1
    with node(*[(ELECTS,)] * tries) as leader:
        line = harness.refusal(leader.address)
    assert line == (f"--join {leader.address}: the cluster has no leader: start a majority of its nodes first")


def test_a_node_that_goes_away_is_asked_again(harness: Harness) -> None:
    """It answered before, so the address is right."""
    with node((ELECTS,)) as leader:
        line = harness.refusal(leader.address)
    assert line.startswith(f"--join {leader.address}: no node answers there (Connection refused): start it")
    assert len(harness.waits) == JOIN_SECONDS / AGAIN_SECONDS


def test_a_leader_whose_address_is_none(harness: Harness) -> None:
    with node((Welcome("b", "a", "nowhere", 40, 0.25),)) as follower:
        line = harness.refusal(follower.address)
    assert line == f"--join {follower.address}: no node of the cluster town is there (not host:port)"


def test_a_leader_that_is_not_reached(harness: Harness) -> None:
    (port,) = free_ports(1)
    away = Welcome("b", "a", f"127.0.0.1:{port}", 40, 0.25)
    harness.seconds = -2 * AGAIN_SECONDS
    with node((away,), (away,)) as follower:
        wait = harness._wait

        def wait_long(seconds: float) -> None:
            wait(JOIN_SECONDS if len(harness.waits) == 2 else seconds)

        harness._wait = wait_long  # type: ignore[method-assign]
        line = harness.refusal(follower.address)
    assert line.startswith(f"--join {follower.address}: the leader")
    assert "127.0.0.1" in line


# -------------------------------------------------------------------- refused


def test_what_the_leader_refuses_is_one_line(harness: Harness) -> None:
    with node((LEADS, Join, refused("MembersRefused", "d is a member, with another data folder"))) as leader:
        assert harness.refusal(leader.address) == (f"--join {leader.address}: d is a member, with another data folder")
    assert harness.waits == []


def test_no_process_at_the_address(harness: Harness) -> None:
    (port,) = free_ports(1)
    assert harness.refusal(Address("127.0.0.1", port)) == (
        f"--join 127.0.0.1:{port}: no node answers there (Connection refused): start it, or give the address of another"
        " one"
    )


def test_the_address_for_nodes_in_place_of_that_for_clients(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node says nothing there until the other side has said who it is."""
    monkeypatch.setattr(joining, "WELCOME_SECONDS", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        at = Address(*listener.getsockname())
        assert harness.refusal(at) == (
            f"--join {at}: the process there does not speak to clients: give the address at which clients reach a node"
            " (its client address), not the one for other nodes"
        )


def test_a_node_that_is_too_busy_to_answer_at_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "WELCOME_SECONDS", 0.5)
    with node((None,), (LEADS, Join, answer())) as leader:
        assert harness.join(leader.address).node == "d"
    assert harness.waits == [AGAIN_SECONDS]


def test_another_cluster_or_no_node_at_all(harness: Harness) -> None:
    with node((LEADS,)) as leader:
        line = harness.refusal(leader.address, cluster="village")
    assert line.startswith(f"--join {leader.address}: no node of the cluster village is there (message of another clus")
    with node((b"HTTP/1.1 400 Bad request\r\n\r\n",)) as server:
        line = harness.refusal(server.address, cluster=None)
    assert line.startswith(f"--join {server.address}: no node of a cluster is there (")


def test_a_leader_that_does_not_answer(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "JOIN_SECONDS", 0.05)
    hung_up = Event()

    def stay_silent(_: object) -> None:
        harness.seconds += 100.0
        assert hung_up.wait(30.0)

    with node((LEADS, Join, stay_silent)) as leader:
        line = harness.refusal(leader.address)
        hung_up.set()
    assert line == f"--join {leader.address}: the connection to the leader was closed"


@pytest.mark.parametrize("name", ["identity", "journal"])
def test_a_folder_that_is_not_empty(harness: Harness, name: str) -> None:
    harness.folder.mkdir(mode=0o700)
    (harness.folder / name).touch()
    line = harness.refusal(Address("127.0.0.1", 1))
    assert line == (
        f"{harness.folder} is not empty ({name}): a node joins with an empty data folder; if it is a member already,"
        " leave --join out"
    )


def test_a_folder_that_another_process_uses(harness: Harness) -> None:
    harness.folder.mkdir(mode=0o700)
    lock = lock_folder(Disk(), str(harness.folder))
    try:
        with pytest.raises(StoreError, match="in use by another process"):
            harness.join(Address("127.0.0.1", 1))
    finally:
        Disk().close(lock)


def test_a_port_that_is_taken(harness: Harness) -> None:
    with socket.create_server((harness.member.client.host, harness.member.client.port)):
        line = harness.refusal(Address("127.0.0.1", 1))
    assert line.startswith(f"Couldn't listen on {harness.member.client} (TCP): Address already in use")


def test_a_port_that_is_taken_at_the_last_moment(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txpaxos.server.own_addresses.OwnAddresses.check_free", lambda self: None)
    with socket.create_server((harness.member.client.host, harness.member.client.port)):
        line = harness.refusal(Address("127.0.0.1", 1))
    assert line == f"Couldn't listen on {harness.member.client} (TCP): Address already in use"


def test_an_address_that_is_not_this_machines(harness: Harness) -> None:
    harness.member = attrs.evolve(harness.member, address=Address("192.0.2.1", 4001), client=Address("192.0.2.1", 5001))
    assert "which this machine does not have" in harness.refusal(Address("127.0.0.1", 1))
