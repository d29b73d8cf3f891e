"""Messages of a forger: no member, but able to send from any address, and aware of all that members tell each other."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import STORE_INCARNATION, THREE, Recorder, StreamTransport, framed
from txpaxos.core.messages import AcceptSlot, Ballot, ChosenValues, Fetch, Heartbeat, NodeId, PrepareLog, Truncated
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count, Labelled
from txpaxos.node.snapshots.taking import Policy
from txpaxos.storage.snapshots import Snapshot
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run, encode_batch, new_session
from txpaxos.wire.peer_messages import (
    AskStateDigest,
    CollectRegisters,
    FetchSnapshot,
    Hello,
    Introduction,
    PeerMessage,
    Proof,
    RegisterVotes,
    SnapshotPart,
    StateDigest,
)

FORGED = encode_batch([Run(new_session(b"it is not signed", 0), 1, 0, (b"forged",))])

MEMBERS = tuple(THREE.members)


class Ledger(Recorder):
    """Keeps what it is told, in snapshots, too."""

    state_fields = ("lines",)

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[bytes] = []

    def apply(self, slot: int, command: bytes) -> object:
        self.lines.append(command)
        return len(self.lines)


@pytest.fixture
def connected() -> ConnectedNodes:
    """A cluster that has applied something, and has snapshots."""
    connected = ConnectedNodes(application=Ledger, snapshot_policy=Policy(log_bytes=2_000))
    connected.lead()
    for number in range(40):
        connected.wait(connected.lead().submit(b"%d" % number))
    connected.reactor.spend(0.1)
    return connected


def forge(
    connected: ConnectedNodes, to: NodeId, sender: NodeId, *messages: PeerMessage, incarnation: int | None = None
) -> None:
    """Datagrams come to ``to``, from the address of ``sender``."""
    codec = Codec("test", sender, STORE_INCARNATION if incarnation is None else incarnation, MEMBERS)
    address = connected.cluster.members[sender].address
    for message in messages:
        connected.nodes[to].datagram_received(codec.encode(message), (address.host, address.port))


def dial(connected: ConnectedNodes, to: NodeId) -> tuple[Any, StreamTransport]:
    """A forger connects."""
    host = connected.cluster.members[to].address.host
    listening = [server[1] for server in connected.reactor.tcpServers if server[3] == host][-1]
    stream: Any = listening.buildProtocol(None)  # type: ignore[arg-type]
    transport = StreamTransport()
    stream.makeConnection(transport)
    return stream, transport


def speak(connected: ConnectedNodes, to: NodeId, sender: NodeId, *messages: PeerMessage) -> StreamTransport:
    """A forger connects, and says all that a member would say."""
    stream, transport = dial(connected, to)
    codec = Codec("test", sender, STORE_INCARNATION, MEMBERS)
    for message in messages:
        if not transport.disconnected:
            stream.dataReceived(framed(codec.encode(message)))
    return transport


def states(connected: ConnectedNodes) -> list[list[bytes]]:
    return [node.application.lines for node in connected.nodes.values()]


def still_agree(connected: ConnectedNodes) -> None:
    """They go on as if nothing had been."""
    connected.wait(connected.lead().submit(b"after"))
    connected.reactor.spend(1.0)
    assert [node.failed.called for node in connected.nodes.values()] == [False] * 3
    assert states(connected) == [[*(b"%d" % number for number in range(40)), b"after"]] * 3


def attacks(connected: ConnectedNodes, slot: int) -> list[PeerMessage]:
    """Of all that decides much, each by itself."""
    snapshot: Snapshot = connected.stores["a"].snapshot  # type: ignore[assignment]
    data = snapshot.read(0, 2**16)
    return [
        ChosenValues(slot + 1, (FORGED,), slot + 1),
        ChosenValues(slot + 1, (b"rubbish",), slot + 1),
        Truncated(slot + 100),
        SnapshotPart(slot + 100, len(data), 0, data),
        *(StateDigest(one, b"x" * 16, b"y" * 16) for one in range(1, slot + 100)),
    ]


def test_no_datagram_decides_what_is_chosen_or_who_is_right(connected: ConnectedNodes) -> None:
    slot = connected.nodes["a"].applied_through
    for node in "abc":
        for sender in set("abc") - {node}:
            forge(connected, node, sender, *attacks(connected, slot))
    connected.reactor.spend(2.0)
    assert states(connected) == [[b"%d" % number for number in range(40)]] * 3
    still_agree(connected)
    kinds = "ChosenValues", "Truncated", "SnapshotPart", "StateDigest"
    counted = [connected.nodes["a"].counters[Labelled(Count.POSSIBLY_FORGED, kind)] for kind in kinds]
    assert counted == [4, 2, 2, 2 * (slot + 99)]


@pytest.mark.no_cover  # Under coverage it would take three times as long.
def test_no_stream_of_a_stranger_does_either(connected: ConnectedNodes) -> None:
    slot = connected.nodes["a"].applied_through
    for node in "abc":
        for sender in set("abc") - {node}:
            for attack in attacks(connected, slot)[:10]:
                for handshake in ([Hello()], [], [Hello(), Proof(1)], [Hello(), Hello()]):
                    transport = speak(connected, node, sender, *handshake, attack)
                    assert transport.take() == b""  # Nothing is told.
    connected.reactor.spend(20.0)
    still_agree(connected)


def test_a_member_is_believed_only_on_the_stream_that_was_opened_to_it(connected: ConnectedNodes) -> None:
    """One that has come in, from a machine that gets what is sent to c, decides nothing."""
    slot = connected.nodes["a"].applied_through
    stream = connected.nodes["a"]._peers._streams._theirs["c"]
    codec = Codec("test", "c", STORE_INCARNATION, MEMBERS)
    for attack in attacks(connected, slot):
        stream.dataReceived(framed(codec.encode(attack)))
    connected.reactor.spend(2.0)
    still_agree(connected)


def test_what_a_hint_tells_of_is_asked_for_on_the_own_stream_and_seldom(connected: ConnectedNodes) -> None:
    connected.sent.clear()
    for _ in range(1000):
        forge(connected, "a", "b", Truncated(1000), ChosenValues(1000, (FORGED,), 1000), StateDigest(1000, b"", b""))
    connected.reactor.spend(0.04)
    asked = [message for here, to, message in connected.sent if (here, to) == ("a", "b")]
    assert sum(isinstance(message, Fetch) for message in asked) == 1
    assert sum(isinstance(message, AskStateDigest) for message in asked) == 1


def test_a_question_of_a_datagram_is_not_answered(connected: ConnectedNodes) -> None:
    """Forty bytes must not make a megabyte, wherever it goes."""
    connected.reactor.spend(1.0)
    connected.sent.clear()
    for node in "abc":
        for sender in set("abc") - {node}:
            questions: list[PeerMessage] = [Fetch(1), FetchSnapshot(0, 0), AskStateDigest(1), CollectRegisters(1)]
            forge(connected, node, sender, *questions * 100)
            assert speak(connected, node, sender, Hello(), FetchSnapshot(0, 0)).take() == b""
    connected.reactor.spend(1.0)
    answers = ChosenValues | SnapshotPart | StateDigest | RegisterVotes
    told = [message for _, _, message in connected.sent if isinstance(message, answers)]
    assert told == []
    for kind in ("Fetch", "CollectRegisters"):
        assert connected.nodes["a"].counters[Labelled(Count.POSSIBLY_FORGED, kind)] == 200


def test_a_forged_datagram_settles_no_incarnation() -> None:
    """Or else a node that comes later is never heard."""
    connected = ConnectedNodes(absent="c")
    connected.lead()
    for node in "ab":
        messages = Heartbeat(Ballot(1, "c"), 0, 1), PrepareLog(Ballot(1, "c"), 1), AcceptSlot(Ballot(1, "c"), 1)
        forge(connected, node, "c", *messages, incarnation=99)
        assert speak(connected, node, "c", *messages).disconnected
    connected.reactor.spend(1.0)
    assert all(PeerMet("c", 99) not in store.saved for store in connected.stores.values())
    assert connected.nodes["a"].counters[Count.MESSAGE_OF_A_PEER_NOT_MET] >= 3
    connected.start("c")
    connected.lead()
    assert connected.reactor.spend(5.0, lambda: all("c" in connected.nodes[node]._known_peers for node in "ab"))
    connected.cut_off("a")
    rest = connected.lead_of_the_rest(connected.nodes["a"])
    connected.wait(rest.submit(b"without a"))  # So c is heard.


def test_no_datagram_makes_an_empty_folder_a_voter(connected: ConnectedNodes) -> None:
    """It has forgotten what it promised, and only those that have met it know."""
    connected.kill("c")
    connected.cut_off("c")
    store = connected.stores["c"] = type(connected.stores["c"])()
    store.incarnation = 99
    connected.start("c")
    for sender in "ab":
        connected.nodes["c"]._known_peers.remember(sender, STORE_INCARNATION)
        lie = Introduction(votes=True, met=99, together=True, unchanged=True)
        forge(connected, "c", sender, lie)
        speak(connected, "c", sender, Hello(), lie)
    connected.reactor.spend(2.0)
    assert connected.nodes["c"]._founding.voter is None


def test_silent_strangers_keep_no_peer_out() -> None:
    connected = ConnectedNodes()
    connected.lead()
    crowd = [dial(connected, node) for node in "ab" for _ in range(200)]
    assert sum(not transport.disconnected for _, transport in crowd) <= 128
    connected.restart("c")
    connected.lead()
    assert connected.reactor.spend(1.0, lambda: set(connected.nodes["c"]._peers._streams._theirs) == {"a", "b"})
    assert all("c" in connected.nodes[node]._peers._streams._theirs for node in "ab")
