"""Nodes with keys: they work as without, and from strangers, forgers and replayed traffic nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import LogLevel, formatEvent
from zope.interface import implementer

from test.helpers.connected_nodes import ConnectedNodes
from test.helpers.fakes import THREE, NodeHarness, logged
from test.helpers.key_folders import KeyFolders, keys_for, write
from test.helpers.strangers import HOST, Stranger
from test.helpers.tls_pair import Pair
from test.helpers.wire_samples import PEER_SAMPLES
from txpaxos.cluster import Address
from txpaxos.errors import ConfigError
from txpaxos.keys import tls
from txpaxos.keys.authority import Authority, pem_of
from txpaxos.keys.folder import Keys
from txpaxos.node.counts import Count
from txpaxos.node.peer_streams import HANDSHAKE_SECONDS
from txpaxos.wire import sealed
from txpaxos.wire.codec import Codec
from txpaxos.wire.peer_messages import Hello

YEAR = timedelta(days=365)


class SecuredNodes(ConnectedNodes):
    """Nodes with keys.

    :ivar datagrams: all datagrams that were sent, in order, each as (from, to, bytes).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.datagrams: list[tuple[str, str, bytes]] = []
        super().__init__(*args, **options)

    def _carry(self, sender: str, to: str, data: bytes) -> None:
        self.datagrams.append((sender, to, data))
        super()._carry(sender, to, data)

    def hear(self, to: str, sender: str, *datagrams: bytes) -> None:
        """Datagrams arrive at ``to`` from the address of ``sender``."""
        address = self.cluster.members[sender].address
        for data in datagrams:
            self.nodes[to].datagram_received(data, (address.host, address.port))
        self.reactor.turn()

    def count(self, node: str, which: Count) -> int:
        return int(self.nodes[node].counters[which])

    def codec(self, node: str, incarnation: int = 7) -> Codec:
        return Codec(self.cluster.name, node, incarnation, self.cluster.members)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> KeyFolders:
    return keys_for(tmp_path_factory.mktemp("keys"), clients=["client"])


@pytest.fixture
def nodes(folders: KeyFolders) -> Iterator[SecuredNodes]:
    made = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    yield made
    for node in list(made.nodes):
        made.kill(node)


def state_of(node: Any) -> tuple[Any, ...]:
    """All that a message could change."""
    status = node.status()
    return (status.replica, status.applied_through, node.application.applied[:], list(node._store.saved))


def lines(act: Callable[[], object], level: Any = LogLevel.warn) -> list[str]:
    """The lines of the log while ``act`` runs."""
    return [formatEvent(event) for event in logged(act, level)]


def unchanged_by(nodes: SecuredNodes, node: str, act: Callable[[], object]) -> list[str]:
    """Nothing of ``node`` changes while ``act`` runs. Returns what it logged."""
    nodes.reactor.idle()
    before = state_of(nodes.nodes[node])
    said = lines(act)
    nodes.reactor.turn()
    assert state_of(nodes.nodes[node]) == before
    return said


# -------------------------------------------------------------------- at work


def test_nodes_with_keys_work_as_without(nodes: SecuredNodes) -> None:
    leader = nodes.lead()
    answers = [nodes.wait(leader.submit(b"command %d" % number)) for number in range(20)]
    assert answers[-1] == "command 19@20"
    assert nodes.wait(nodes.followers()[0].submit(b"from a follower")) == "from a follower@21"
    big = nodes.wait(leader.submit(bytes(100_000)))
    assert big.endswith("@22")
    for node in nodes.nodes:
        refused = [count for count in nodes.nodes[node].counters if count is not Count.DATAGRAM_WITHOUT_SECRET]
        assert refused == []


def test_new_nodes_found_a_cluster_with_keys(folders: KeyFolders) -> None:
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"}, votes=False)
    assert nodes.wait(nodes.lead().submit(b"first")) == "first@1"


def test_no_command_and_no_name_is_sent_in_the_clear(nodes: SecuredNodes) -> None:
    leader = nodes.lead()
    command = b"a secret command" + bytes(range(128)) * 30
    nodes.wait(leader.submit(b"a secret command"))
    nodes.wait(nodes.followers()[0].submit(command))
    carried = [data for *_, data in (*nodes.datagrams, *nodes.wires)]
    assert len(nodes.datagrams) > 10
    assert all(data.startswith(sealed.SEALED_MAGIC) for *_, data in nodes.datagrams)
    for clear in (b"secret", bytes(range(100)), b"PromiseLog", Codec("test", "a")._header._cluster_id):
        assert not any(clear in data for data in carried)


def test_a_node_that_was_restarted_is_heard_again(nodes: SecuredNodes) -> None:
    leader = nodes.lead()
    follower = nodes.followers()[0].name
    nodes.restart(follower)
    for node in [node for node in nodes.nodes.values() if node.name != follower]:
        for stream in list(node._peers._streams._open):
            if stream.peer == follower:
                stream.abort()  # As the system of a process that ends does.
    nodes.cut_off(nodes.followers()[1].name if nodes.followers()[0].name == follower else nodes.followers()[0].name)
    assert nodes.wait(leader.submit(b"with a quorum of the restarted node")).endswith("@1")


def test_datagrams_go_on_when_the_streams_are_broken(nodes: SecuredNodes) -> None:
    leader = nodes.lead()
    for node in nodes.nodes.values():
        for stream in list(node._peers._streams._open):
            stream.abort()
    nodes.reactor.turn(2)
    sent = len(nodes.datagrams)
    assert nodes.wait(leader.submit(b"no stream"), 0.05) == "no stream@1"
    assert len(nodes.datagrams) > sent


# ------------------------------------------------------------------ datagrams


def test_plain_datagrams_of_each_kind_are_dropped(nodes: SecuredNodes) -> None:
    """From the address of a member, with its incarnation: all that a forger without keys can do."""
    nodes.lead()
    for sender in "bc":
        forged = [nodes.codec(sender).encode(message) for message in PEER_SAMPLES]
        (line,) = unchanged_by(nodes, "a", partial(nodes.hear, "a", sender, *forged))
        assert line.endswith("it is not sealed: keys are on here, and probably off there")
        assert f"node {sender}" in line
    assert nodes.count("a", Count.DATAGRAM_NOT_SEALED) == 2 * len(PEER_SAMPLES)


def test_forged_sealed_datagrams_are_dropped(nodes: SecuredNodes) -> None:
    """With a session that the forger has seen on the wire."""
    nodes.lead()
    seen = next(data for sender, to, data in reversed(nodes.datagrams) if (sender, to) == ("b", "a"))
    forged = [
        seen[:11] + number.to_bytes(8, "big") + nodes.codec("b").encode(message) + bytes(16)
        for number, message in enumerate(PEER_SAMPLES, 5000)
    ]
    (line,) = unchanged_by(nodes, "a", lambda: nodes.hear("a", "b", *forged))
    assert line.endswith("it is forged or damaged")
    assert nodes.count("a", Count.DATAGRAM_FORGED) == len(PEER_SAMPLES)


def test_recorded_datagrams_are_not_taken_again(nodes: SecuredNodes) -> None:
    leader = nodes.lead()
    nodes.wait(leader.submit(b"once"))
    recorded = [data for sender, to, data in nodes.datagrams if (sender, to) == ("b", "a")]
    nodes.reactor.spend(0.01)
    recorded = [data for sender, to, data in nodes.datagrams if (sender, to) == ("b", "a")][:-2]
    assert unchanged_by(nodes, "a", lambda: nodes.hear("a", "b", *recorded)) == []
    assert nodes.count("a", Count.DATAGRAM_REPLAYED) == len(recorded)
    # Nor anywhere else: they are for one receiver.
    assert unchanged_by(nodes, "c", lambda: nodes.hear("c", "b", *recorded)) == []
    assert nodes.count("c", Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) == len(recorded)
    # Nor back: a secret is for one direction.
    assert unchanged_by(nodes, "b", lambda: nodes.hear("b", "a", *recorded)) == []
    assert nodes.count("b", Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) == len(recorded)


@pytest.mark.parametrize("restarted", ["a", "b", "ab"], ids=["receiver", "sender", "both"])
def test_recorded_datagrams_are_not_taken_after_a_restart(nodes: SecuredNodes, restarted: str) -> None:
    nodes.wait(nodes.lead().submit(b"once"))
    recorded = [data for sender, to, data in nodes.datagrams if (sender, to) == ("b", "a")]
    for node in restarted:
        nodes.restart(node)
        for other in nodes.nodes.values():
            for stream in list(other._peers._streams._open):
                if stream.peer == node:
                    stream.abort()
    nodes.lead()
    nodes.reactor.spend(1.0)
    drops = (Count.DATAGRAM_REPLAYED, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION)
    before = sum(nodes.count("a", which) for which in drops)
    assert unchanged_by(nodes, "a", lambda: nodes.hear("a", "b", *recorded)) == []
    assert sum(nodes.count("a", which) for which in drops) == before + len(recorded)


def test_a_peer_speaks_for_no_other_one(nodes: SecuredNodes) -> None:
    """The name in a message counts for nothing, not even from a member: that of the stream's certificate does."""
    nodes.lead()
    seal = nodes.nodes["b"]._peers._sealers["a"].seal
    forged = [seal(nodes.codec("c").encode(message)) for message in PEER_SAMPLES]
    said = unchanged_by(nodes, "a", lambda: nodes.hear("a", "c", *forged))
    assert [line.split(": ")[-1] for line in said] == ["it is sealed by b, and names 'c' as its sender"]
    assert nodes.count("a", Count.DATAGRAM_OF_ANOTHER_NODE) == len(PEER_SAMPLES)


def test_a_new_secret_is_made_before_one_is_worn_out(nodes: SecuredNodes, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = nodes.lead()
    monkeypatch.setattr(sealed, "RENEW_AT", 200)
    before = {node: dict(nodes.nodes[node]._peers._sealers) for node in nodes.nodes}
    nodes.reactor.spend(30.0)
    for node, sealers in before.items():
        if node == leader.name:
            now = nodes.nodes[node]._peers._sealers
            assert all(now[peer] is not sealers[peer] for peer in sealers)
            assert all(sealer._counter <= 201 for sealer in now.values())
    assert nodes.lead() is leader


# -------------------------------------------------------------------- streams


def expired(folders: KeyFolders, name: str) -> Keys:
    """The keys of a node whose certificate has expired."""
    then = folders.now - 2 * YEAR
    return made(folders, name, Authority(folders.nodes_authority.role, folders.nodes_authority.own), then, YEAR)


def made(folders: KeyFolders, name: str, authority: Authority, now: datetime, lifetime: timedelta) -> Keys:
    """Keys that are loaded at ``now``, with an authority that is old enough."""
    other = keys_for(folders.path / f"made-{name}-{now:%Y%m%d}", nodes=[], now=now)
    other.nodes_authority = authority
    other.write(name, "node", authority.issue(name, now, lifetime))
    write(other.folder(name) / "clients.pem", pem_of([other.clients_authority.certificate]))
    return Keys.load(other.folder(name), "node", name=name, now=now)


def aged(folders: KeyFolders, age: timedelta) -> KeyFolders:
    """Folders whose authorities are older than all else."""
    then = folders.now - age
    folders.nodes_authority = Authority.create("node", then)
    for node in "abc":
        folders.issue(node, "node")
    return folders


@pytest.fixture
def old_folders(tmp_path: Path) -> KeyFolders:
    return aged(keys_for(tmp_path / "aged"), 3 * YEAR)


def test_a_stranger_without_tls_is_told_nothing(nodes: SecuredNodes) -> None:
    nodes.lead()
    hello = nodes.codec("b").encode(Hello())

    def attack() -> None:
        stranger = Stranger(nodes, "a", None)
        stranger.say(hello)
        assert stranger.is_refused
        assert len(stranger.end.data) <= 7, "an alert of TLS"

    (line,) = unchanged_by(nodes, "a", attack)
    assert line.endswith(tls.NOT_TLS)
    assert HOST in line
    assert nodes.count("a", Count.PEER_NOT_BELIEVED) == 1


@pytest.mark.parametrize("begins", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["says nothing", "stalls"])
def test_a_stranger_whose_handshake_stalls_is_counted(nodes: SecuredNodes, begins: bytes) -> None:
    nodes.lead()
    nodes.reactor.spend(1.0)  # The first entry of the leader is chosen.

    def attack() -> None:
        stranger = Stranger(nodes, "a", None)
        stranger.end.transport.write(begins)  # type: ignore[union-attr]
        nodes.reactor.spend(HANDSHAKE_SECONDS + 0.1)
        stranger.run()
        assert stranger.is_refused

    (line,) = unchanged_by(nodes, "a", attack)
    assert line.endswith("it did not finish the handshake within 5 s")
    assert HOST in line
    assert nodes.count("a", Count.PEER_NOT_BELIEVED) == 1


@implementer(IOpenSSLClientConnectionCreator)
class NoCertificate:
    """A stranger's TLS without any certificate, or with one of its own."""

    def __init__(self, keys: Keys | None) -> None:
        from OpenSSL import SSL

        self._context = SSL.Context(SSL.TLS_METHOD)
        if keys is not None:
            self._context.use_certificate(keys.chain[0])
            self._context.use_privatekey(keys.private_key)

    def clientConnectionForTLS(self, protocol: object) -> Any:
        from OpenSSL import SSL

        return SSL.Connection(self._context, None)


def strangers(folders: KeyFolders) -> dict[str, tuple[Any, str]]:
    """Those that have no right to be a node, and what the node says of each."""
    other = keys_for(folders.path / "other", nodes=["b"])
    revoked = keys_for(folders.path / "revoked", nodes=[])
    revoked.nodes_authority = folders.nodes_authority
    revoked.issue("b", "node")
    folders.issue("b", "node")
    folders.revoke(revoked.node("b"), folders=["a"])
    return {
        "no certificate": (NoCertificate(None), tls.NO_CERTIFICATE),
        "another authority": (NoCertificate(other.node("b")), "its certificate is of an unknown authority"),
        "a client": (NoCertificate(folders.client("client")), "its certificate is of an unknown authority"),
        "expired": (NoCertificate(expired(folders, "b")), "its certificate has expired"),
        "revoked": (NoCertificate(revoked.node("b")), "its certificate was revoked"),
    }


@pytest.mark.parametrize("who", ["no certificate", "another authority", "a client", "expired", "revoked"])
def test_a_stranger_with_tls_is_told_nothing(tmp_path: Path, who: str) -> None:
    folders = aged(keys_for(tmp_path, clients=["client"]), 3 * YEAR)
    creator, phrase = strangers(folders)[who]
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    nodes.lead()
    hello = nodes.codec("b").encode(Hello())
    ours = nodes.nodes["a"]._peers._streams._theirs["b"]

    def attack() -> None:
        stranger = Stranger(nodes, "a", creator)
        stranger.say(hello)
        assert stranger.is_refused
        assert stranger.end.data == b""

    (line,) = unchanged_by(nodes, "a", attack)
    assert line.endswith(phrase)
    assert nodes.count("a", Count.PEER_NOT_BELIEVED) == 1
    assert nodes.nodes["a"]._peers._streams._theirs["b"] is ours, "the stream of the real node is not displaced"


def test_a_member_with_the_name_of_another_one_is_refused(nodes: SecuredNodes, folders: KeyFolders) -> None:
    nodes.lead()
    streams = nodes.nodes["a"]._peers._streams
    ours = streams._theirs["b"]
    keys = folders.node("c")

    def attack() -> None:
        stranger = Stranger(nodes, "a", tls.peer_dial(keys, "a"))
        assert not stranger.is_refused
        stranger.say(nodes.codec("b").encode(Hello()))
        assert stranger.is_refused
        assert stranger.end.data == b""

    (line,) = unchanged_by(nodes, "a", attack)
    assert line.endswith("its certificate has the wrong name: c, and it claims to be 'b'")
    assert nodes.count("a", Count.PEER_NOT_BELIEVED) == 1
    assert streams._theirs["b"] is ours


def test_a_node_that_replaced_another_has_the_certificate_of_its_name(folders: KeyFolders) -> None:
    """The others call it ``b~2``. A node with another certificate than one for ``b`` cannot be it."""
    members = {node.replace("b", "b~2"): member for node, member in THREE.members.items()}
    keys = {"a": folders.node("a"), "b~2": folders.node("b"), "c": folders.node("c")}
    nodes = SecuredNodes(cluster=attrs.evolve(THREE, members=members), keys=keys)
    nodes.lead()
    for node in nodes.nodes.values():
        assert nodes.wait(node.submit(b"x")).startswith("x@")
    stranger = Stranger(nodes, "a", tls.peer_dial(folders.node("c"), "a"))
    stranger.say(nodes.codec("b~2").encode(Hello()))
    assert stranger.is_refused
    with pytest.raises(ConfigError, match=r"the keys are those of node c, not of node b~2"):
        nodes.nodes["b~2"].use_keys(folders.node("c"))


def test_a_node_that_is_no_member_is_refused(nodes: SecuredNodes, folders: KeyFolders) -> None:
    folders.issue("d", "node")
    nodes.lead()
    stranger = Stranger(nodes, "a", tls.peer_dial(folders.node("d"), "a"))
    stranger.say(nodes.codec("d").encode(Hello()))
    assert stranger.is_refused
    assert stranger.end.data == b""


def two_with(a: Keys | None, b: Keys | None) -> tuple[SecuredNodes, list[str]]:
    """Nodes a and b, and what they say when they try to reach each other."""
    given = {node: keys for node, keys in (("a", a), ("b", b)) if keys is not None}
    nodes = SecuredNodes(keys=given, absent="c", votes=False)
    said = lines(lambda: nodes.reactor.spend(5.0))
    assert all(not node._peers._streams._theirs for node in nodes.nodes.values())
    return nodes, said


def says(said: list[str], node: str, *phrases: str) -> bool:
    """Whether one line of ``node`` ends in each of the phrases."""
    return all(
        len([line for line in said if line.startswith(f"node {node} ") and line.endswith(phrase)]) == 1
        for phrase in phrases
    )


def test_both_sides_say_that_a_certificate_has_expired(old_folders: KeyFolders) -> None:
    nodes, said = two_with(old_folders.node("a"), expired(old_folders, "b"))
    assert says(said, "a", "its certificate has expired")
    assert says(said, "b", "it says that our certificate has expired")
    assert nodes.nodes["a"].status().refuses == {"b": "its certificate has expired"}


def test_both_sides_say_that_a_certificate_is_not_yet_valid(old_folders: KeyFolders) -> None:
    later = made(old_folders, "b", old_folders.nodes_authority, old_folders.now + YEAR, YEAR)
    _, said = two_with(old_folders.node("a"), later)
    assert says(said, "a", "its certificate is not yet valid")
    assert says(said, "b", "it says that our certificate is not yet valid")


UNKNOWN_TO_IT = "it says that our certificate is of an unknown authority"


def test_both_sides_say_that_a_certificate_is_of_another_authority(folders: KeyFolders, tmp_path: Path) -> None:
    _, said = two_with(folders.node("a"), keys_for(tmp_path).node("b"))
    for node in "ab":  # Each dials, and each is dialled: so each says both.
        assert says(said, node, "its certificate is of an unknown authority", UNKNOWN_TO_IT)
    assert len(said) == 4


def test_both_sides_say_that_a_certificate_was_revoked(tmp_path: Path) -> None:
    folders = keys_for(tmp_path)
    revoked = folders.node("b")
    folders.revoke(revoked, folders=["a"])
    _, said = two_with(folders.node("a"), revoked)
    assert says(said, "a", "its certificate was revoked")
    assert says(said, "b", "it says that our certificate was revoked")


def test_a_stream_that_is_being_dialled_when_keys_are_replaced_uses_the_new_ones(tmp_path: Path) -> None:
    folders = keys_for(tmp_path)
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    nodes.lead()
    streams, revoked = nodes.nodes["a"]._peers._streams, folders.node("b")
    dialled = streams._dialling["b"]
    assert Pair(dialled, tls.peer_accept(revoked)).dialled.lost is None
    folders.revoke(revoked, folders=["a"])
    streams.use_keys(folders.node("a"))
    assert Pair(dialled, tls.peer_accept(revoked)).dialled.reason == "its certificate was revoked"


def test_both_sides_say_that_a_certificate_has_the_wrong_name(
    folders: KeyFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node b is started with the keys of c, which a start refuses: another program would not."""
    monkeypatch.setattr("txpaxos.node.node.Node._check_keys", lambda self, keys: None)
    _, said = two_with(folders.node("a"), folders.node("c"))
    assert says(said, "a", "its certificate has the wrong name: c, and not b")
    assert any(line.startswith("node b ") and "wrong name" in line for line in said)


def test_both_sides_say_that_one_has_no_keys(folders: KeyFolders) -> None:
    nodes, said = two_with(folders.node("a"), None)
    assert says(said, "a", tls.NOT_TLS)
    assert says(said, "b", "keys are on there, and off on b")
    assert nodes.count("b", Count.BAD_FRAME) > 0


def test_a_sealed_datagram_at_a_node_without_keys() -> None:
    harness = NodeHarness("a")
    data = sealed.SEALED_MAGIC + bytes(60)
    said = lines(lambda: [harness.node.datagram_received(data, ("10.0.0.2", 4000)) for _ in range(3)])
    assert [line.split(": ", 1)[1] for line in said] == ["it is sealed: keys are on there, and off on a"]
    assert harness.node.counters[Count.SEALED_DATAGRAM_WITHOUT_KEYS] == 3


# ------------------------------------------------------------------- new keys


def reissued(folders: KeyFolders, *, both: bool = True) -> Callable[[str], Keys]:
    """A new authority signs new certificates. The nodes believe the old one, too, if ``both``."""
    old = folders.nodes_authority
    folders.nodes_authority = Authority.create("node", folders.now)

    def of(name: str) -> Keys:
        folder = folders.issue(name, "node")
        believed = [folders.nodes_authority.certificate, *([old.certificate] if both else [])]
        write(folder / "nodes.pem", pem_of(believed))
        return folders.node(name)

    return of


def test_all_keys_and_the_authority_are_replaced_under_load(tmp_path: Path) -> None:
    """No command fails, no command waits long, and the leader stays."""
    folders = keys_for(tmp_path)
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    leader = nodes.lead()
    nodes.reactor.spend(3.0)
    old, own = folders.nodes_authority, {node: folders.node(node) for node in "abc"}
    new = Authority.create("node", folders.now)

    def keys(name: str, step: int) -> Keys:
        folder = folders.folder(name)
        if step == 1:
            folders.write(name, "node", new.issue(name, folders.now))
        authorities = [[old, new], [old, new], [new]][step]
        write(folder / "nodes.pem", pem_of(one.certificate for one in authorities))
        return folders.node(name)

    waits, number = [], 0
    for step in range(3):
        for name in "abc":
            nodes.nodes[name].use_keys(keys(name, step))
            for _ in range(100):
                number += 1
                since = nodes.reactor.seconds()
                follower = nodes.followers()[number % 2]
                assert nodes.wait((leader, follower)[number % 2].submit(b"%d" % number)) == f"{number}@{number}"
                waits.append(nodes.reactor.seconds() - since)
                nodes.reactor.spend(0.005)
            assert {node.leader for node in nodes.nodes.values()} == {leader.name}
        nodes.reactor.spend(8.0)
    assert max(waits) < 0.1
    assert leader.status().replica.ballot == nodes.nodes[leader.name].status().replica.ballot
    for name, node in nodes.nodes.items():
        streams = node._peers._streams
        assert len(streams._open) == 4, "those that were replaced are closed"
        for stream in streams._open:
            (shown,) = stream.transport.getHandle().get_peer_cert_chain(as_cryptography=True)[:1]
            assert shown.issuer == new.certificate.subject
            assert shown != own[stream.peer].chain[0]
        assert name not in streams._renewals


def test_a_node_that_is_revoked_is_not_heard_any_more(tmp_path: Path) -> None:
    folders = keys_for(tmp_path)
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    leader = nodes.lead()
    out = nodes.followers()[0].name
    rest = [node for node in "abc" if node != out]
    folders.revoke(folders.node(out), folders=rest)

    def reload() -> None:
        for node in rest:
            nodes.nodes[node].use_keys(folders.node(node))
        nodes.reactor.spend(3.0)

    said = lines(reload)
    for node in rest:
        assert any(line.startswith(f"node {node} ") and line.endswith("its certificate was revoked") for line in said)
        streams = nodes.nodes[node]._peers._streams
        assert out not in streams._theirs
        assert out not in nodes.nodes[node]._peers._sealers
        counted = nodes.count(node, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION)
        seal = nodes.nodes[out]._peers._sealers[node].seal
        forged = [seal(nodes.codec(out).encode(message)) for message in PEER_SAMPLES]
        assert unchanged_by(nodes, node, partial(nodes.hear, node, out, *forged)) == []
        assert nodes.count(node, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) == counted + len(forged)
    assert nodes.wait(leader.submit(b"without it")) == "without it@1"


@pytest.mark.parametrize("is_own", [True, False], ids=["its own is left", "the other one's is left"])
def test_a_node_that_is_revoked_loses_both_ways_when_it_has_one_stream(tmp_path: Path, is_own: bool) -> None:
    """Nothing is sealed for it, and nothing of it is opened, for either stream may be the one that is left."""
    folders = keys_for(tmp_path)
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    nodes.lead()
    nodes.reactor.spend(1.0)
    peers, out = nodes.nodes["a"]._peers, nodes.nodes["b"]._peers
    (peers._streams._own["b"] if is_own else out._streams._own["a"]).abort()
    nodes.reactor.turn(2)
    assert ("b" in peers._streams._own, "b" in peers._streams._theirs) == (not is_own, is_own)
    folders.revoke(folders.node("b"), folders=["a"])
    nodes.nodes["a"].use_keys(folders.node("a"))
    assert "b" not in peers._sealers
    forged = [out._sealers["a"].seal(nodes.codec("b").encode(message)) for message in PEER_SAMPLES]
    counted = nodes.count("a", Count.DATAGRAM_OF_AN_UNKNOWN_SESSION)
    assert unchanged_by(nodes, "a", partial(nodes.hear, "a", "b", *forged)) == []
    assert nodes.count("a", Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) == counted + len(forged)


@pytest.mark.parametrize("closer", "ab")
def test_keys_are_replaced_while_one_of_two_streams_is_broken(
    nodes: SecuredNodes, folders: KeyFolders, closer: str
) -> None:
    """The stream that stays is not opened anew, so its datagrams must be taken as before."""
    nodes.lead()
    nodes.reactor.spend(1.0)
    nodes.nodes[closer]._peers._streams._own["b" if closer == "a" else "a"].abort()
    nodes.reactor.turn(2)
    nodes.nodes["a"].use_keys(folders.node("a"))
    nodes.reactor.spend(5.0)
    before, sent = [nodes.count(node, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) for node in "ab"], len(nodes.datagrams)
    nodes.reactor.spend(5.0)
    assert {("a", "b"), ("b", "a")} <= {(sender, to) for sender, to, _ in nodes.datagrams[sent:]}
    assert [nodes.count(node, Count.DATAGRAM_OF_AN_UNKNOWN_SESSION) for node in "ab"] == before


def test_keys_that_the_others_do_not_believe_leave_the_streams_in_use(tmp_path: Path) -> None:
    """The operator has forgotten to bring the new authority to the other nodes first. It is tried again until then."""
    folders = keys_for(tmp_path)
    nodes = SecuredNodes(keys={node: folders.node(node) for node in "abc"})
    leader = nodes.lead()
    follower = nodes.followers()[0]
    new = reissued(folders)
    old = dict(follower._peers._streams._own)
    said = lines(lambda: (follower.use_keys(new(follower.name)), nodes.reactor.spend(10.0)))
    assert follower._peers._streams._own == old
    assert any("it says that our certificate is of an unknown authority" in line for line in said)
    assert nodes.wait(leader.submit(b"goes on")) == "goes on@1"
    for node in [node for node in nodes.nodes.values() if node is not follower]:
        node.use_keys(new(node.name))
    nodes.reactor.spend(10.0)
    assert all(stream not in old.values() for stream in follower._peers._streams._own.values())
    assert nodes.wait(leader.submit(b"and on")) == "and on@2"


def test_keys_of_another_node_and_keys_for_a_node_without_are_refused(nodes: SecuredNodes, folders: KeyFolders) -> None:
    with pytest.raises(ConfigError, match="the keys are those of node b, not of node a"):
        nodes.nodes["a"].use_keys(folders.node("b"))
    with pytest.raises(ConfigError, match="those of client client"):
        nodes.nodes["a"].use_keys(folders.client("client"))
    with pytest.raises(ConfigError, match="node a was started without keys"):
        NodeHarness("a").node.use_keys(folders.node("a"))
    with pytest.raises(ConfigError, match="the keys are those of node b"):
        NodeHarness("a", keys=folders.node("b"))


@pytest.mark.parametrize(
    ("left", "says"),
    [
        (timedelta(days=31), []),
        (timedelta(days=29, hours=2), ["the certificate of node a expires in 29 days"]),
        (timedelta(seconds=-1), ["the certificate of node a has expired: no peer takes a new stream of it"]),
    ],
)
def test_a_certificate_that_expires_is_warned_of_once_a_day(
    nodes: SecuredNodes, left: timedelta, says: list[str]
) -> None:
    peers = nodes.nodes["a"]._peers
    peers._tls.utc_now = lambda: peers.keys.not_after - left
    peers.use_keys(peers.keys)
    for _ in range(2):
        said = lines(lambda: nodes.reactor.spend(10.0))
        assert [line.split(", at")[0] for line in said] == says
        peers._expiry_at = nodes.reactor.seconds()


# --------------------------------------------------------- where peers are, and former ones


def test_a_peer_that_is_not_where_its_name_leads_is_reached_at_once(nodes: SecuredNodes) -> None:
    """A name server may lag behind. The seal shows that the peer is there, so it is not asked to prove it."""
    nodes.lead()
    peers, elsewhere = nodes.nodes["a"]._peers, ("10.0.0.77", 4000)
    nodes.reactor.turn()
    peers.tick(nodes.reactor.seconds())
    state = peers._addresses._states["b"]
    state.address = Address("10.0.0.2", 4000, "b.example")
    state.heard_from, state.heard_at, state.looked_up_at = None, 0.0, 1.0
    nodes.nodes["a"].datagram_received(nodes.codec("b").encode(Hello()), elsewhere)
    tried_before: Any = state.candidate
    assert tried_before is None, "anyone could have sent that"
    seal = nodes.nodes["b"]._peers._sealers["a"].seal
    before = nodes.count("a", Count.DATAGRAM_FROM_AN_UNKNOWN_ADDRESS)
    for _ in range(3):
        nodes.nodes["a"].datagram_received(seal(nodes.codec("b").encode(PEER_SAMPLES[0])), elsewhere)
    assert (state.candidate, state.candidate_confirmed) == (elsewhere, True)
    assert nodes.count("a", Count.DATAGRAM_FROM_AN_UNKNOWN_ADDRESS) == before + 1


def test_a_former_member_is_told_so_in_a_sealed_datagram(nodes: SecuredNodes) -> None:
    nodes.lead()
    peers = nodes.nodes["a"]._peers
    peers.remove_peer("c")
    assert "c" in peers._sealers
    heard = nodes.nodes["c"]._peers
    heard._send_datagram("a", nodes.codec("c").encode(PEER_SAMPLES[0]))
    nodes.reactor.spend(3.0)
    assert heard.refusals.refused_by["a"] == "it was removed from the cluster"
    assert all(data.startswith(sealed.SEALED_MAGIC) for *_, data in nodes.datagrams)
    peers._former.clear()
    peers.remove_peer("b")
    assert set(peers._sealers) == {"b"}, "of those that are not told any more nothing is kept"
    assert peers._opener.peers == ("b",)
