"""Certificates of other authorities than ours: with other keys, intermediate authorities, and fewer extensions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from test.helpers.key_folders import write
from test.helpers.tls_pair import Pair
from txpaxos.errors import ConfigError
from txpaxos.keys.authority import pem_of
from txpaxos.keys.folder import Keys
from txpaxos.keys.tls import client_accept, client_dial, name_of, peer_accept, peer_dial, reason_of

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
MakeKey = Callable[[], Any]


def p256() -> Any:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_2048() -> Any:
    return rsa.generate_private_key(65537, 2048)


class Signed:
    """A certificate as another program could make it: the fewest extensions that are possible.

    :param signer: what signs it; itself if not given.
    :param more: the organization in the subject.
    """

    def __init__(
        self,
        name: str,
        signer: Signed | None = None,
        ca: bool = False,
        make_key: MakeKey = p256,
        more: str = "",
        extensions: Sequence[x509.ExtensionType] = (),
    ) -> None:
        self.key = make_key()
        signer = signer or self
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if more:
            attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, more))
        self.subject = x509.Name(attributes)
        builder = x509.CertificateBuilder(
            signer.subject,
            self.subject,
            self.key.public_key(),
            x509.random_serial_number(),
            NOW - timedelta(1),
            NOW + timedelta(1),
        )
        if ca:
            builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        self.certificate = builder.sign(signer.key, algorithm(signer.key))

    def revoking(self, *others: Signed, until: timedelta = timedelta(1)) -> x509.CertificateRevocationList:
        builder = x509.CertificateRevocationListBuilder(self.subject, NOW, NOW + until)
        for other in others:
            serial = other.certificate.serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            )
        return builder.sign(self.key, algorithm(self.key))


def algorithm(key: Any) -> SHA256 | None:
    return None if isinstance(key, Ed25519PrivateKey) else SHA256()


def folder(
    path: Path, own: Signed, nodes: Sequence[Signed], clients: Sequence[Signed] = (), between: Sequence[Signed] = ()
) -> Path:
    """A folder for a node, or for a client if there are no ``clients``."""
    role = "node" if clients else "client"
    write(path / f"{role}.pem", pem_of([one.certificate for one in (own, *between)]))
    pem = own.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    write(path / f"{role}.key", pem)
    write(path / "nodes.pem", pem_of([one.certificate for one in nodes]))
    if clients:
        write(path / "clients.pem", pem_of([one.certificate for one in clients]))
    return path


def load(path: Path) -> Keys:
    return Keys.load(path, "node" if (path / "node.pem").exists() else "client", now=NOW)


def all_believe(a: Keys, b: Keys, client: Keys, at: datetime = NOW) -> bool:
    """Whether the two nodes and the client believe each other."""
    nodes = Pair(peer_dial(a, b.name, at=at), peer_accept(b, at=at))
    clients = Pair(client_dial(client, [b.name], at=at), client_accept(b, at=at))
    seen = [name_of(end.transport) for pair in (nodes, clients) for end in (pair.dialled, pair.accepted)]
    return seen == [b.name, a.name, b.name, client.name]


@pytest.mark.parametrize("make_key", [p256, rsa_2048])
def test_other_keys_and_fewer_extensions(tmp_path: Path, make_key: MakeKey) -> None:
    nodes, clients = Signed("of nodes", ca=True, make_key=make_key), Signed("of clients", ca=True)
    made = [
        load(
            folder(tmp_path / name, Signed(name, nodes, make_key=make_key, more="An Organisation"), [nodes], [clients])
        )
        for name in ("a", "b")
    ]
    alice = load(folder(tmp_path / "alice", Signed("alice", clients, make_key=make_key), [nodes]))
    assert all_believe(made[0], made[1], alice)


class Company:
    """A root with an intermediate authority for nodes, and another one for clients."""

    def __init__(self) -> None:
        self.root = Signed("root", ca=True)
        self.nodes, self.clients = (Signed(f"of {one}", self.root, ca=True) for one in ("nodes", "clients"))


@pytest.fixture
def company() -> Company:
    return Company()


def test_intermediate_authorities_are_believed_without_their_root(tmp_path: Path, company: Company) -> None:
    a, b = (
        load(folder(tmp_path / name, Signed(name, company.nodes), [company.nodes], [company.clients])) for name in "ab"
    )
    alice = Signed("alice", company.clients)
    assert all_believe(a, b, load(folder(tmp_path / "alice", alice, [company.nodes])))
    forged = load(folder(tmp_path / "forged", Signed("a", company.clients), [company.nodes], between=[company.clients]))
    refused = Pair(client_dial(forged, at=NOW), peer_accept(b, at=NOW)).accepted.lost
    assert refused is not None
    assert reason_of(refused) == "its certificate is of an unknown authority"


def test_certificates_between(tmp_path: Path, company: Company) -> None:
    """The root of nodes is believed; each node shows the intermediate authority beside its certificate."""
    clients = Signed("others", ca=True)
    a, b = (
        load(folder(tmp_path / name, Signed(name, company.nodes), [company.root], [clients], [company.nodes]))
        for name in "ab"
    )
    alice = load(folder(tmp_path / "alice", Signed("alice", clients), [company.root]))
    assert all_believe(a, b, alice)
    alone = folder(tmp_path / "c", Signed("c", company.nodes), [company.root], [clients])
    with pytest.raises(ConfigError, match="is of an unknown authority"):
        load(alone)


@pytest.mark.parametrize("is_of_nodes", [True, False])
def test_an_authority_above_the_other_one(tmp_path: Path, company: Company, is_of_nodes: bool) -> None:
    """All that it has signed could be both."""
    nodes, clients = ([company.root], [company.clients]) if is_of_nodes else ([company.nodes], [company.root])
    own = folder(tmp_path / "a", Signed("a", company.nodes), nodes, clients, [company.nodes])
    with pytest.raises(ConfigError, match=r"have an authority in common \(CN=root\), so a client could be a node"):
        load(own)


def test_revoked_by_an_intermediate_authority(tmp_path: Path, company: Company) -> None:
    """There is no list of the root, and none of the authority of clients."""
    own, lost = Signed("a", company.nodes), Signed("b", company.nodes)
    a, b = (
        load(folder(tmp_path / name, one, [company.nodes], [company.clients]))
        for name, one in (("a", own), ("b", lost))
    )
    write(tmp_path / "a" / "revoked.pem", pem_of([company.nodes.revoking(lost)]))
    alice = load(folder(tmp_path / "alice", Signed("alice", company.clients), [company.nodes]))
    assert all_believe(a, b, alice)
    a = load(tmp_path / "a")
    refused = Pair(peer_dial(b, "a", at=NOW), peer_accept(a, at=NOW)).accepted.lost
    assert refused is not None
    assert reason_of(refused) == "its certificate was revoked"
    assert all_believe(a, a, alice)


@pytest.mark.parametrize("hours", [-2, 0, 2])
def test_a_list_is_in_force_before_its_time_and_after_it(tmp_path: Path, company: Company, hours: int) -> None:
    """What it revokes is refused, and nothing else: that no newer list was brought stops no cluster."""
    at = NOW + timedelta(hours=hours)
    for name in ("a", "b", "c"):
        folder(tmp_path / name, one := Signed(name, company.nodes), [company.nodes], [company.clients])
    lists = [company.nodes.revoking(one, until=timedelta(hours=1)), company.clients.revoking(until=timedelta(hours=1))]
    for name in ("a", "b"):
        write(tmp_path / name / "revoked.pem", pem_of(lists))
    a, b, lost = (load(tmp_path / name) for name in ("a", "b", "c"))
    alice = load(folder(tmp_path / "alice", Signed("alice", company.clients), [company.nodes]))
    assert all_believe(a, b, alice, at)
    refused = Pair(peer_dial(lost, "a", at=at), peer_accept(a, at=at)).accepted.lost
    assert refused is not None
    assert reason_of(refused) == "its certificate was revoked"


def rubbish(oid: x509.ObjectIdentifier) -> x509.ExtensionType:
    return x509.UnrecognizedExtension(oid, b"rubbish")


@pytest.mark.parametrize(
    ("extension", "of_authority", "line"),
    [
        (rubbish(ExtensionOID.BASIC_CONSTRAINTS), True, "is not that of an authority"),
        (rubbish(ExtensionOID.KEY_USAGE), True, "is not that of an authority"),
        (x509.BasicConstraints(False, None), True, "is not that of an authority"),
        (rubbish(ExtensionOID.EXTENDED_KEY_USAGE), False, "is for another purpose"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False, "is for another purpose"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False, "is for another purpose"),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False, None),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False, None),
    ],
)
def test_extensions(tmp_path: Path, extension: x509.ExtensionType, of_authority: bool, line: str | None) -> None:
    plain = x509.BasicConstraints(True, None)
    nodes = Signed("of nodes", extensions=(extension,) if of_authority else (plain,))
    if of_authority and extension.oid == ExtensionOID.KEY_USAGE:
        nodes = Signed("of nodes", ca=True, extensions=(extension,))
    own = Signed("a", nodes, extensions=() if of_authority else (extension,))
    path = folder(tmp_path / "a", own, [nodes], [Signed("of clients", ca=True)])
    if line is None:
        assert load(path).name == "a"
        return
    with pytest.raises(ConfigError, match=line):
        load(path)


def test_an_authority_whose_key_cannot_sign(tmp_path: Path, company: Company) -> None:
    """A list of revoked certificates cannot be its own."""
    odd = Signed("odd", company.root, ca=True)
    x25519 = X25519PrivateKey.generate().public_key()
    certificate = odd.certificate
    builder = x509.CertificateBuilder(
        company.root.subject,
        odd.subject,
        x25519,
        x509.random_serial_number(),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    ).add_extension(x509.BasicConstraints(True, None), critical=True)
    odd.certificate = builder.sign(company.root.key, SHA256())
    path = folder(tmp_path / "a", Signed("a", company.nodes), [company.nodes, odd], [company.clients])
    write(path / "revoked.pem", pem_of([odd.revoking()]))
    with pytest.raises(ConfigError, match="a list is signed by an unknown authority, CN=odd"):
        load(path)
