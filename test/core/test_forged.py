"""Messages of somebody who is no member, but can send from any address, and knows all that members tell each other."""

from __future__ import annotations

from typing import Any

import pytest

from test.helpers.fakes import STORE_INCARNATION, THREE, Recorder, StreamTransport, framed
from test.helpers.joined import Joined
from txpaxos.core.messages import AcceptSlot, Ballot, ChosenValues, Fetch, Heartbeat, NodeId, PrepareLog, Truncated
from txpaxos.core.ready import PeerMet
from txpaxos.node.counts import Count, Labelled
from txpaxos.node.snapshots.taking import Policy
from txpaxos.storage.snapshots import Snapshot
from txpaxos.wire.codec import Codec
from txpaxos.wire.commands import Run, encode_batch, new_session
from txpaxos.wire.peer_messages import (
    AskStateDigest,
    FetchSnapshot,
    Hello,
    Introduction,
    PeerMessage,
    Proof,
    SnapshotPart,
    StateDigest,
)

FORGED = encode_batch([Run(new_session(b"nobody signed it", 0), 1, 0, (b"forged",))])

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
def joined() -> Joined:
    """A cluster that has applied something, and has snapshots."""
    joined = Joined(application=Ledger, snapshot_policy=Policy(log_bytes=2_000))
    joined.lead()
    for number in range(40):
        joined.wait(joined.lead().submit(b"%d" % number))
    joined.reactor.spend(0.1)
    return joined


def forge(joined: Joined, to: NodeId, sender: NodeId, *messages: PeerMessage, incarnation: int | None = None) -> None:
    """Datagrams come to ``to``, from the address of ``sender``."""
    codec = Codec("test", sender, STORE_INCARNATION if incarnation is None else incarnation, MEMBERS)
    address = joined.cluster.members[sender].address
    for message in messages:
        joined.nodes[to].datagram_received(codec.encode(message), (address.host, address.port))


def dial(joined: Joined, to: NodeId) -> tuple[Any, StreamTransport]:
    """Somebody connects."""
    host = joined.cluster.members[to].address.host
    listening = [server[1] for server in joined.reactor.tcpServers if server[3] == host][-1]
    stream: Any = listening.buildProtocol(None)  # type: ignore[arg-type]
    transport = StreamTransport()
    stream.makeConnection(transport)
    return stream, transport


def speak(joined: Joined, to: NodeId, sender: NodeId, *messages: PeerMessage) -> StreamTransport:
    """Somebody connects, and says all that a member would say."""
    stream, transport = dial(joined, to)
    codec = Codec("test", sender, STORE_INCARNATION, MEMBERS)
    for message in messages:
        if not transport.disconnected:
            stream.dataReceived(framed(codec.encode(message)))
    return transport


def states(joined: Joined) -> list[list[bytes]]:
    return [node.application.lines for node in joined.nodes.values()]


def still_agree(joined: Joined) -> None:
    """They go on as if nothing had been."""
    joined.wait(joined.lead().submit(b"after"))
    joined.reactor.spend(1.0)
    assert [node.failed.called for node in joined.nodes.values()] == [False] * 3
    assert states(joined) == [[*(b"%d" % number for number in range(40)), b"after"]] * 3


def attacks(joined: Joined, slot: int) -> list[PeerMessage]:
    """Of all that decides much, each by itself."""
    snapshot: Snapshot = joined.stores["a"].snapshot  # type: ignore[assignment]
    data = snapshot.read(0, 2**16)
    return [
        ChosenValues(slot + 1, (FORGED,), slot + 1),
        ChosenValues(slot + 1, (b"rubbish",), slot + 1),
        Truncated(slot + 100),
        SnapshotPart(slot + 100, len(data), 0, data),
        *(StateDigest(one, b"x" * 16, b"y" * 16) for one in range(1, slot + 100)),
    ]


def test_no_datagram_decides_what_is_chosen_or_who_is_right(joined: Joined) -> None:
    slot = joined.nodes["a"].applied_through
    for node in "abc":
        for sender in set("abc") - {node}:
            forge(joined, node, sender, *attacks(joined, slot))
    joined.reactor.spend(2.0)
    assert states(joined) == [[b"%d" % number for number in range(40)]] * 3
    still_agree(joined)
    kinds = "ChosenValues", "Truncated", "SnapshotPart", "StateDigest"
    counted = [joined.nodes["a"].counters[Labelled(Count.POSSIBLY_FORGED, kind)] for kind in kinds]
    assert counted == [4, 2, 2, 2 * (slot + 99)]


def test_no_stream_of_a_stranger_does_either(joined: Joined) -> None:
    slot = joined.nodes["a"].applied_through
    for node in "abc":
        for sender in set("abc") - {node}:
            for attack in attacks(joined, slot)[:10]:
                for greeting in ([Hello()], [], [Hello(), Proof(1)], [Hello(), Hello()]):
                    transport = speak(joined, node, sender, *greeting, attack)
                    assert transport.take() == b""  # Nothing is told.
    joined.reactor.spend(20.0)
    still_agree(joined)


def test_a_member_is_believed_only_on_the_stream_that_was_opened_to_it(joined: Joined) -> None:
    """One that has come in, from a machine that gets what is sent to c, decides nothing."""
    slot = joined.nodes["a"].applied_through
    stream = joined.nodes["a"]._peers._streams._theirs["c"]
    codec = Codec("test", "c", STORE_INCARNATION, MEMBERS)
    for attack in attacks(joined, slot):
        stream.dataReceived(framed(codec.encode(attack)))
    joined.reactor.spend(2.0)
    still_agree(joined)


def test_what_a_hint_tells_of_is_asked_for_on_the_own_stream_and_seldom(joined: Joined) -> None:
    joined.sent.clear()
    for _ in range(1000):
        forge(joined, "a", "b", Truncated(1000), ChosenValues(1000, (FORGED,), 1000), StateDigest(1000, b"", b""))
    joined.reactor.spend(0.04)
    asked = [message for here, to, message in joined.sent if (here, to) == ("a", "b")]
    assert sum(isinstance(message, Fetch) for message in asked) == 1
    assert sum(isinstance(message, AskStateDigest) for message in asked) == 1


def test_a_question_of_a_datagram_is_not_answered(joined: Joined) -> None:
    """Forty bytes must not make a megabyte, to whomever."""
    joined.reactor.spend(1.0)
    joined.sent.clear()
    for node in "abc":
        for sender in set("abc") - {node}:
            questions: list[PeerMessage] = [Fetch(1), FetchSnapshot(0, 0), AskStateDigest(1)]
            forge(joined, node, sender, *questions * 100)
            assert speak(joined, node, sender, Hello(), FetchSnapshot(0, 0)).take() == b""
    joined.reactor.spend(1.0)
    told = [message for _, _, message in joined.sent if isinstance(message, ChosenValues | SnapshotPart | StateDigest)]
    assert told == []
    assert joined.nodes["a"].counters[Labelled(Count.POSSIBLY_FORGED, "Fetch")] == 200


def test_a_forged_datagram_settles_no_incarnation() -> None:
    """Or else a node that comes later is never heard."""
    joined = Joined(absent="c")
    joined.lead()
    for node in "ab":
        messages = Heartbeat(Ballot(1, "c"), 0, 1), PrepareLog(Ballot(1, "c"), 1), AcceptSlot(Ballot(1, "c"), 1)
        forge(joined, node, "c", *messages, incarnation=99)
        assert speak(joined, node, "c", *messages).disconnected
    joined.reactor.spend(1.0)
    assert all(PeerMet("c", 99) not in store.saved for store in joined.stores.values())
    assert joined.nodes["a"].counters[Count.MESSAGE_OF_A_PEER_NOT_MET] >= 3
    joined.start("c")
    joined.lead()
    assert joined.reactor.spend(5.0, lambda: all("c" in joined.nodes[node]._known_peers for node in "ab"))
    joined.cut_off("a")
    rest = joined.lead_of_the_rest(joined.nodes["a"])
    joined.wait(rest.submit(b"without a"))  # So c is heard.


def test_no_datagram_makes_an_empty_folder_a_voter(joined: Joined) -> None:
    """It has forgotten what it promised, and only those that have met it know."""
    joined.kill("c")
    joined.cut_off("c")
    store = joined.stores["c"] = type(joined.stores["c"])()
    store.incarnation = 99
    joined.start("c")
    for sender in "ab":
        joined.nodes["c"]._known_peers.remember(sender, STORE_INCARNATION)
        lie = Introduction(votes=True, met=99, together=True, unchanged=True)
        forge(joined, "c", sender, lie)
        speak(joined, "c", sender, Hello(), lie)
    joined.reactor.spend(2.0)
    assert joined.nodes["c"]._founding.voter is None


def test_silent_strangers_keep_no_peer_out() -> None:
    joined = Joined()
    joined.lead()
    crowd = [dial(joined, node) for node in "ab" for _ in range(200)]
    assert sum(not transport.disconnected for _, transport in crowd) <= 128
    joined.restart("c")
    joined.lead()
    assert joined.reactor.spend(1.0, lambda: set(joined.nodes["c"]._peers._streams._theirs) == {"a", "b"})
    assert all("c" in joined.nodes[node]._peers._streams._theirs for node in "ab")
