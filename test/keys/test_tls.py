"""TLS with keys, by real handshakes in memory: who is believed, and what each side says when one is not."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import attrs
import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, load_certificate

from test.helpers.key_folders import KeyFolders, keys_for, write
from test.helpers.tls_pair import Pair
from test.helpers.tls_records import DATA, HANDSHAKE, KEY_UPDATE, RecordMaker
from txpaxos.errors import ConfigError
from txpaxos.keys import load_keys
from txpaxos.keys.authority import BACKDATED, LIFETIME, Authority, Issued, pem_of
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import (
    CLOSED_EARLY,
    NO_CERTIFICATE,
    NOT_TLS,
    ConnectionCreator,
    client_accept,
    client_dial,
    export_key,
    name_of,
    peer_accept,
    peer_dial,
    reason_of,
    refusal_of,
)
from txpaxos.keys.trust import Role

MOMENT = timedelta(seconds=1)


@pytest.fixture
def made(tmp_path: Path) -> KeyFolders:
    return keys_for(tmp_path, ["a", "b"], ["alice"])


def names(pair: Pair) -> tuple[str, str]:
    """Whom the dialling and the accepting side take each other for."""
    return name_of(pair.dialled.transport), name_of(pair.accepted.transport)


def reasons(dial: Any, accept: Any) -> tuple[str, str]:
    """What a dialling and an accepting side say when there is no connection."""
    pair = Pair(dial, accept)
    assert names(pair) in (("", ""), ("b", ""))  # The side that dials has finished before it is refused.
    assert pair.dialled.lost is not None
    assert pair.accepted.lost is not None
    assert (pair.dialled.data, pair.accepted.data) == (b"", b"")
    return reason_of(pair.dialled.lost), reason_of(pair.accepted.lost)


def between_nodes(made: KeyFolders, dialling: Keys | None = None, at: datetime | None = None, **later: Any) -> Any:
    """The reasons when a dials b."""
    accepts_at = at if at is None else at + later.get("accepting", timedelta(0))
    return reasons(peer_dial(dialling or made.node("a"), "b", at=at), peer_accept(made.node("b"), at=accepts_at))


def test_two_nodes(made: KeyFolders) -> None:
    pair = Pair(peer_dial(made.node("a"), "b"), peer_accept(made.node("b")))
    assert names(pair) == ("b", "a")
    pair.dialled.transport.write(b"question")  # type: ignore[union-attr]
    pair.accepted.transport.write(b"answer")  # type: ignore[union-attr]
    pair.run()
    assert (pair.dialled.data, pair.accepted.data) == (b"answer", b"question")
    assert (pair.dialled.lost, pair.accepted.lost) == (None, None)


def test_a_client_with_a_certificate_and_one_with_a_token(made: KeyFolders) -> None:
    made.issue_token("bob", ["b"])
    accept = client_accept(made.node("b"))
    assert names(Pair(client_dial(made.client("alice")), accept)) == ("b", "alice")
    assert names(Pair(client_dial(made.client("bob"), ["a", "b"]), accept)) == ("b", "")


def test_exported_keys_are_equal_and_differ_between_connections_and_labels(made: KeyFolders) -> None:
    dial, accept = peer_dial(made.node("a"), "b"), peer_accept(made.node("b"))
    exported = []
    for _ in range(3):
        pair = Pair(dial, accept)
        for label in (b"EXPORTER-one", b"EXPORTER-two"):
            here, there = (export_key(end.transport, label, 40) for end in (pair.dialled, pair.accepted))
            assert here == there
            assert len(here) == 40
            exported.append(here)
    assert len(set(exported)) == 6


def test_expired_on_the_dialling_side(made: KeyFolders) -> None:
    """The clock of b is a year ahead of that of a."""
    assert between_nodes(made, at=made.now, accepting=LIFETIME + MOMENT) == (
        "it says that our certificate has expired",
        "its certificate has expired",
    )


def test_expired_on_the_accepting_side(made: KeyFolders) -> None:
    assert between_nodes(made, at=made.now + LIFETIME + MOMENT) == (
        "its certificate has expired",
        "it says that our certificate has expired",
    )


def test_not_yet_valid(made: KeyFolders) -> None:
    assert between_nodes(made, at=made.now, accepting=-BACKDATED - MOMENT) == (
        "it says that our certificate is not yet valid",
        "its certificate is not yet valid",
    )
    assert between_nodes(made, at=made.now - BACKDATED - MOMENT) == (
        "its certificate is not yet valid",
        "it says that our certificate is not yet valid",
    )


def test_unknown_authority(made: KeyFolders, tmp_path: Path) -> None:
    other = keys_for(tmp_path / "other", ["a"])
    assert between_nodes(made, other.node("a")) == (
        "its certificate is of an unknown authority",
        "it says that our certificate is of an unknown authority",
    )
    both = pem_of([one.nodes_authority.certificate for one in (other, made)])
    write(other.folder("a") / "nodes.pem", both)
    assert between_nodes(made, other.node("a")) == (
        "it says that our certificate is of an unknown authority",
        "its certificate is of an unknown authority",
    )


def test_an_authority_with_the_same_name_and_another_key(made: KeyFolders) -> None:
    forger = Authority.create("node", made.now)
    known = made.nodes_authority
    made.nodes_authority = Authority("node", Issued(known.certificate, forger.own.private_key))
    issued = made.nodes_authority.issue("a", made.now)
    forged = with_shown(made.node("a"), issued)
    assert between_nodes(made, forged) == (
        "it refuses the connection: decrypt error",
        "its certificate is of an unknown authority",
    )


def with_shown(keys: Keys, issued: Any) -> Keys:
    """Keys that no folder could have: with a certificate that is not checked."""
    return attrs.evolve(keys, chain=(issued.certificate,), private_key=issued.private_key)


def test_wrong_name(made: KeyFolders) -> None:
    made.issue("c", "node")
    assert reasons(peer_dial(made.node("a"), "c"), peer_accept(made.node("b"))) == (
        "its certificate has the wrong name: b, and not c",
        "it says that our certificate has the wrong name",
    )
    assert reasons(client_dial(made.client("alice"), ["a", "c"]), client_accept(made.node("b"))) == (
        "its certificate has the wrong name: b, and not a or c",
        "it says that our certificate has the wrong name",
    )


def test_revoked(made: KeyFolders) -> None:
    revoked = made.node("a")
    made.revoke(revoked, folders=["b"])
    assert between_nodes(made, revoked) == (
        "it says that our certificate was revoked",
        "its certificate was revoked",
    )
    assert names(Pair(peer_dial(made.node("b"), "b"), peer_accept(made.node("b")))) == ("b", "b")


def test_revoked_node_and_client(made: KeyFolders) -> None:
    b, alice = made.node("b"), made.client("alice")
    made.revoke(b, folders=["alice"])
    assert reasons(client_dial(made.client("alice")), client_accept(b)) == (
        "its certificate was revoked",
        "it says that our certificate was revoked",
    )
    made.revoke(alice, folders=["b"])
    assert reasons(client_dial(alice), client_accept(made.node("b"))) == (
        "it says that our certificate was revoked",
        "its certificate was revoked",
    )


def test_an_authority_without_a_list_is_believed(made: KeyFolders) -> None:
    """There is a list of one of three authorities."""
    made.issue("c", "node")
    authority = made.nodes_authority
    revoked = [(made.node("a").chain[0].serial_number, made.now)]
    write(made.folder("b") / "revoked.pem", pem_of([authority.revocations(revoked, 1, made.now)]))
    other = Authority.create("node", made.now)
    write(made.folder("b") / "nodes.pem", pem_of([other.certificate, authority.certificate]))
    accept = peer_accept(made.node("b"))
    assert names(Pair(peer_dial(made.node("c"), "b"), accept)) == ("b", "c")
    assert reasons(peer_dial(made.node("a"), "b"), accept)[1] == "its certificate was revoked"
    assert names(Pair(client_dial(made.client("alice")), client_accept(made.node("b")))) == ("b", "alice")


def test_no_certificate(made: KeyFolders) -> None:
    made.issue_token("bob", [])
    assert reasons(client_dial(made.client("bob")), peer_accept(made.node("b"))) == (
        "it says that we showed no certificate",
        NO_CERTIFICATE,
    )


def test_a_client_is_no_node_and_a_node_is_no_client(made: KeyFolders) -> None:
    alice, a, b = made.client("alice"), made.node("a"), made.node("b")
    refused = "it says that our certificate is of an unknown authority", "its certificate is of an unknown authority"
    assert reasons(client_dial(alice), peer_accept(b)) == refused
    assert reasons(client_dial(a), client_accept(b)) == refused
    assert reasons(peer_dial(a, "alice"), client_accept(with_shown(b, alice_as_server(made)))) == refused[::-1]


def alice_as_server(made: KeyFolders) -> Any:
    return made.clients_authority.issue("b", made.now)


def test_not_a_node_by_its_usage(made: KeyFolders) -> None:
    """The authority of nodes has signed a certificate that may dial only."""
    dials_only = Authority("client", made.nodes_authority.own).issue("b", made.now)
    assert reasons(peer_dial(made.node("a"), "b"), peer_accept(with_shown(made.node("b"), dials_only))) == (
        "its certificate is for another purpose",
        "it says that our certificate is for another purpose",
    )


@pytest.mark.parametrize("name", ["no name", "a\x00b", "\u0430", "x" * 33, "a+CN=b", None])
def test_a_name_that_no_node_can_have(made: KeyFolders, name: str | None) -> None:
    """The authority of nodes has signed it nevertheless."""
    odd = with_subject(made.nodes_authority, made.node("a").chain[0], name)
    shown = Issued(odd, made.node("a").private_key)
    assert reasons(peer_dial(with_shown(made.node("a"), shown), "b"), peer_accept(made.node("b"))) == (
        "it says that our certificate has the wrong name",
        "its certificate has the wrong name: none that a node or a client can have",
    )


def with_subject(authority: Authority, certificate: x509.Certificate, name: str | None) -> x509.Certificate:
    """``certificate``, signed again with another common name, or with two, or with none."""
    names = [] if name is None else name.split("+CN=")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one) for one in names])
    builder = x509.CertificateBuilder(
        authority.certificate.subject,
        subject,
        certificate.public_key(),
        x509.random_serial_number(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
    return builder.sign(authority.own.private_key, None)


def test_the_other_side_does_not_speak_tls(made: KeyFolders) -> None:
    for creator, plain_dials in ((peer_accept(made.node("b")), True), (peer_dial(made.node("a"), "b"), False)):
        pair = Pair(None, creator) if plain_dials else Pair(creator, None)
        plain, secured = (pair.dialled, pair.accepted) if plain_dials else (pair.accepted, pair.dialled)
        plain.transport.write(b"Px\x01 hello, and more bytes than a TLS record has in its header")  # type: ignore[union-attr]
        pair.run()
        assert secured.lost is not None
        assert reason_of(secured.lost) == NOT_TLS
        assert name_of(secured.transport) == ""


def test_the_other_side_closes_the_connection(made: KeyFolders) -> None:
    """Within the handshake, as a side does that has no keys and gets bytes that are no message; and after it."""
    pair = Pair(peer_dial(made.node("a"), "b"), None)
    assert pair.dialled.lost is None
    pair.accepted.transport.loseConnection()  # type: ignore[union-attr]
    pair.run()
    assert pair.dialled.lost is not None
    assert reason_of(pair.dialled.lost) == ""
    assert pair.dialled.reason == CLOSED_EARLY
    pair = Pair(peer_dial(made.node("a"), "b"), peer_accept(made.node("b")))
    pair.accepted.transport.loseConnection()
    pair.run()
    for end in (pair.dialled, pair.accepted):
        assert end.lost is not None
        assert end.reason == ""


def test_an_older_tls(made: KeyFolders) -> None:
    old = peer_dial(made.node("a"), "b")
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    said, heard = reasons(type(old)(context), peer_accept(made.node("b")))
    assert (said, heard) == ("it says that we do not speak its version of TLS", NOT_TLS)


class Resuming(ConnectionCreator):
    """Offers the session of an earlier connection."""

    session: Any = None

    def clientConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        connection = super().clientConnectionForTLS(tlsProtocol)
        if self.session is not None:
            connection.set_session(self.session)
        return connection


def bytes_of_two(dial: Resuming, accept: Any) -> tuple[int, int]:
    """What the accepting side sends on a connection, and on a second one that offers to resume the first."""
    sent = []
    for _ in range(2):
        pair = Pair(dial, accept)
        assert names(pair) == ("b", "a")
        dial.session = pair.dialled.transport.getHandle().get_session()  # type: ignore[union-attr]
        sent.append(pair.bytes_accepted)
    return sent[0], sent[1]


def test_no_session_is_resumed(made: KeyFolders) -> None:
    """A resumed session would send no certificate, and so much fewer bytes."""
    dial, accept = Resuming(peer_dial(made.node("a"), "b")._context), peer_accept(made.node("b"))
    first, second = bytes_of_two(dial, accept)
    assert first == second
    accept = peer_accept(made.node("b"))
    accept._context.set_session_id(b"would be resumed")
    accept._context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    first, second = bytes_of_two(dial, accept)
    assert second < first - 500


def test_no_name_stands_in_the_clear(made: KeyFolders) -> None:
    """The names of both nodes, that of the authority included."""
    made.issue("dialling-node", "node")
    made.issue("accepting-node", "node")
    pair = Pair(peer_dial(made.node("dialling-node"), "accepting-node"), peer_accept(made.node("accepting-node")))
    assert names(pair) == ("accepting-node", "dialling-node")
    assert b"txpaxos" not in pair.carried
    assert b"-node" not in pair.carried


def test_a_name_is_not_known_before_the_handshake_is_finished(made: KeyFolders) -> None:
    """A certificate has come, and what proves that the private key is there, too, comes byte by byte."""
    pair = Pair(peer_dial(made.node("a"), "b"), peer_accept(made.node("b")), rounds_max=0)
    transport = pair.accepted.transport
    unproved = 0
    while pair.carry_one_byte() and not name_of(transport):
        unproved += transport.getHandle().get_peer_certificate() is not None  # type: ignore[union-attr]
    assert unproved > 64, "the bytes of a signature"
    assert names(pair) == ("b", "a")


@implementer(IOpenSSLServerConnectionCreator)
class Careless:
    """Not one of ours: it believes all."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def test_a_name_is_taken_from_no_other_connection(made: KeyFolders) -> None:
    """A context that verifies nothing."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(made.node("b").chain[0])
    context.use_privatekey(made.node("b").private_key)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    pair = Pair(peer_dial(made.node("a"), "b"), Careless(context))
    assert pair.accepted.transport.getHandle().get_peer_certificate() is not None  # type: ignore[union-attr]
    assert names(pair) == ("b", "")
    assert name_of(StringTransport()) == ""
    assert name_of(None) == ""
    assert isinstance(pair.dialled, Protocol)


def test_what_new_keys_say_of_connections_that_are_there(made: KeyFolders) -> None:
    pair = Pair(peer_dial(made.node("a"), "b"), peer_accept(made.node("b")))
    transport, keys = pair.accepted.transport, made.node("b")
    assert refusal_of(transport, keys.nodes, keys) == ""
    assert refusal_of(transport, keys.nodes, keys, made.now + LIFETIME + MOMENT) == "its certificate has expired"
    assert refusal_of(transport, keys.clients, keys) == "its certificate is of an unknown authority"
    made.revoke(made.node("a"), folders=["b"])
    keys = made.node("b")
    assert refusal_of(transport, keys.nodes, keys) == "its certificate was revoked"
    assert refusal_of(StringTransport(), keys.nodes, keys) == ""


def test_half_a_message_between_records_hides_no_certificate(made: KeyFolders) -> None:
    """A side may send a message of TLS after the handshake in parts. OpenSSL is in no state that it calls finished
    until the rest has come, and the other side may keep that for after its certificate is revoked."""
    dial = peer_dial(made.node("a"), "b")
    records = RecordMaker(dial)
    pair = Pair(dial, peer_accept(made.node("b")))
    transport: Any = pair.accepted.transport
    transport.dataReceived(records.record(HANDSHAKE, bytes([KEY_UPDATE, 0, 0, 1])))
    made.revoke(made.node("a"), folders=["b"])
    keys = made.node("b")
    assert name_of(transport) == "a"
    assert refusal_of(transport, keys.nodes, keys) == "its certificate was revoked"
    transport.dataReceived(records.record(HANDSHAKE, bytes([0])))
    records.update_key()
    transport.dataReceived(records.record(DATA, b"it goes on"))
    assert pair.accepted.data == b"it goes on"


def unreadable(issued: Issued) -> X509:
    """A certificate like ``issued``, of a version that only one of the two libraries reads. Its signature is wrong."""
    data = issued.certificate.public_bytes(Encoding.DER)
    version_3, version_2 = bytes([0xA0, 3, 2, 1, 2]), bytes([0xA0, 3, 2, 1, 1])
    assert version_3 in data
    return load_certificate(FILETYPE_ASN1, data.replace(version_3, version_2, 1))


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_what_is_sent_along_with_a_certificate_keeps_no_new_keys_from_use(made: KeyFolders) -> None:
    """A peer may send certificates that nothing needs. They are read when keys are loaded anew, and not before."""
    dial = peer_dial(made.node("a"), "b")
    dial._context.add_extra_chain_cert(unreadable(made.nodes_authority.issue("x", made.now)))
    pair = Pair(dial, peer_accept(made.node("b")))
    keys = made.node("b")
    assert refusal_of(pair.accepted.transport, keys.nodes, keys) == ""
    made.revoke(made.node("a"), folders=["b"])
    keys = made.node("b")
    assert refusal_of(pair.accepted.transport, keys.nodes, keys) == "its certificate was revoked"


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
def test_a_forged_certificate_that_one_library_cannot_read(made: KeyFolders) -> None:
    """OpenSSL asks about it before it looks at the signature, if there is no list of the authority that it names."""
    other = Authority.create("node", made.now)
    made.nodes_authority, own = other, made.nodes_authority
    made.revoke(folders=["b"])  # Lists of the clients' authority, and of another one of nodes.
    write(made.folder("b") / "nodes.pem", pem_of([own.certificate, other.certificate]))
    rogue = Authority.create("node", made.now)
    name = Issued(own.certificate, rogue.own.private_key)
    forged = Authority("node", name).issue("a", made.now)
    dial = peer_dial(made.node("b"), "b")
    dial._context.use_certificate(unreadable(forged))
    dial._context.use_privatekey(forged.private_key)
    pair = Pair(dial, peer_accept(made.node("b")))
    assert pair.accepted.reason == "its certificate is not valid"


@pytest.mark.parametrize("role", ["node", "client"])
@pytest.mark.parametrize(
    ("key", "why"),
    [
        (rsa.generate_private_key(65537, 1024), "ee key too small"),
        (ec.generate_private_key(ec.SECP256K1()), "TLS 1.3"),
        (ec.generate_private_key(ec.SECP256R1()), ""),
        (rsa.generate_private_key(65537, 2048), ""),
    ],
    ids=["short", "of an unfit kind", "ECDSA", "RSA"],
)
def test_keys_that_tls_cannot_use_are_refused_when_they_are_loaded(
    made: KeyFolders, role: Role, key: Any, why: str
) -> None:
    """Otherwise a node that loads them anew would find out when it is too late."""
    name = "a" if role == "node" else "alice"
    authority = made.authority(role)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        authority.certificate.subject,
        subject,
        key.public_key(),
        x509.random_serial_number(),
        made.now - BACKDATED,
        made.now + LIFETIME,
    )
    made.write(name, role, Issued(builder.sign(authority.own.private_key, None), key))
    if why:
        with pytest.raises(ConfigError, match=rf"{name} cannot be used for TLS 1.3 \(.*{why}.*\): take keys of"):
            load_keys(made.folder(name), role)
    else:
        assert load_keys(made.folder(name), role).name == name


def test_a_token_needs_no_handshake(made: KeyFolders) -> None:
    made.issue_token("bob", [])
    assert load_keys(made.folder("bob"), "client").token


def test_other_failures_have_no_reason() -> None:
    assert reason_of(Failure(ConnectionDone())) == ""
    assert reason_of(Failure(SSL.Error([("SSL routines", "", "odd")]))) == "TLS failed: odd"
    assert reason_of(Failure(SSL.Error())) == "TLS failed: no reason is known"
    assert reason_of(Failure(SSL.SysCallError(-1, "Unexpected EOF"))) == "TLS failed: no reason is known"
    refused = Failure(SSL.Error([("SSL routines", "", "ssl/tls alert access denied")]))
    assert reason_of(refused) == "it refuses the connection: access denied"


# ---------------------------------------------------------------- hostile


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_byte_lets_no_other_name_in(made: KeyFolders, seed: int) -> None:
    """In any part of what the dialling side sends in its handshake. Nothing is raised, and each end has its reason."""
    random = Random(seed)
    dial, accept = peer_dial(made.node("a"), "b"), peer_accept(made.node("b"))
    size = Pair(dial, accept).bytes_dialled
    refused = 0
    for _ in range(50):
        pair = Pair(dial, accept, rounds_max=0)
        pair.damage(random.randrange(size), random.randrange(1, 256))
        pair.run()
        assert name_of(pair.accepted.transport) in ("", "a")
        for end in (pair.dialled, pair.accepted):
            refused += end.lost is not None and reason_of(end.lost) != ""
            assert end.data == b""
    assert refused > 50


@pytest.mark.fuzz
@pytest.mark.parametrize("seed", range(4))
def test_rubbish_before_and_after_the_handshake(made: KeyFolders, seed: int) -> None:
    random = Random(seed)
    accept = client_accept(made.node("b"))
    for _ in range(50):
        plain = Pair(None, accept)
        for _ in range(3):
            plain.dialled.transport.write(random.randbytes(random.randrange(1, 2000)))  # type: ignore[union-attr]
        plain.run()
        assert (name_of(plain.accepted.transport), plain.accepted.data) == ("", b"")
    pair = Pair(client_dial(made.client("alice")), accept)
    pair.dialled.transport.transport.write(random.randbytes(1000))  # type: ignore[union-attr]
    pair.run()
    assert pair.accepted.lost is not None
    assert reason_of(pair.accepted.lost) != ""
    assert (name_of(pair.accepted.transport), pair.accepted.data) == ("", b"")
