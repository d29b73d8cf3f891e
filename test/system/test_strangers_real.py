"""Strangers at the ports of real nodes: they are told nothing, and the nodes go on."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from test.helpers.cli_nodes import Nodes, running, txpaxos
from txpaxos.core.messages import ChosenValues, Fetch, Truncated
from txpaxos.wire.codec import Codec
from txpaxos.wire.frames import FRAME_BYTES_MAX, frame
from txpaxos.wire.peer_messages import FetchSnapshot, Hello, PeerMessage, Proof

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("strangers"), "a", "b", "c") as nodes:
        yield nodes


def heard(nodes: Nodes, node: str, *said: bytes) -> bytes:
    """All that ``node`` says to a stranger at its peer port, until it closes the connection or is silent."""
    address = nodes.cluster.members[node].address
    with socket.create_connection((address.host, address.port)) as stream:
        stream.settimeout(1.0)
        answer = b""
        try:
            for one in said:
                stream.sendall(one)
            while piece := stream.recv(2**16):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


def as_member(nodes: Nodes, sender: str, *messages: PeerMessage) -> list[bytes]:
    """Frames of a stranger that knows all of a member but its incarnation."""
    codec = Codec(nodes.cluster.name, sender, 12345, nodes.cluster.members)
    return [frame(codec.encode(message)) for message in messages]


def test_a_stranger_hears_nothing(nodes: Nodes) -> None:
    """Not the cluster, not the name, and not the incarnation, whatever it says."""
    questions: list[PeerMessage] = [Hello(), FetchSnapshot(0, 0), Fetch(1)]
    assert heard(nodes, "a") == b""
    assert heard(nodes, "a", *as_member(nodes, "b", *questions)) == b""
    assert heard(nodes, "a", *as_member(nodes, "b", Hello(), Proof(1), Truncated(100))) == b""
    assert heard(nodes, "a", *as_member(nodes, "stranger", *questions)) == b""
    assert heard(nodes, "a", struct.pack(">I", FRAME_BYTES_MAX), b"x" * 100) == b""


def test_datagrams_of_strangers_change_nothing(nodes: Nodes) -> None:
    before = int(txpaxos("submit", "+0", folder=nodes.folder).stdout)
    lies: list[PeerMessage] = [ChosenValues(before + 1, (b"",) * 5, 100), Truncated(100), FetchSnapshot(0, 0)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.settimeout(1.0)
        for _ in range(20):
            for node in "abc":
                address = nodes.cluster.members[node].address
                for data in as_member(nodes, "b" if node == "a" else "a", *lies):
                    stranger.sendto(data[4:], (address.host, address.port))
        with pytest.raises(TimeoutError):
            stranger.recv(2**16)
    assert int(txpaxos("submit", "+1", folder=nodes.folder).stdout) == before + 1


def test_silent_strangers_at_both_ports_keep_no_peer_and_no_client_out(nodes: Nodes) -> None:
    crowd = []
    try:
        for node in "abc":
            member = nodes.cluster.members[node]
            for address in (member.address, member.client):
                crowd += [socket.create_connection((address.host, address.port)) for _ in range(100)]
        big = b"+1".rjust(2**20)  # Over the streams between the nodes.
        before = int(txpaxos("submit", "+0", folder=nodes.folder).stdout)
        nodes.kill("c")
        nodes.start("c")
        assert int(txpaxos("submit", "-", folder=nodes.folder, stdin=big).stdout) == before + 1
    finally:
        for one in crowd:
            one.close()
    for log in nodes.folder.glob("*.log"):
        assert "Traceback" not in log.read_text()
