"""An authority: a key that signs the certificates of nodes, or those of clients.

The keys are Ed25519, so all certificates are about as long. A name stands in the certificate's common name only.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import (
    AuthorityKeyIdentifier,
    BasicConstraints,
    Certificate,
    CertificateBuilder,
    CertificateRevocationList,
    CertificateRevocationListBuilder,
    CRLNumber,
    DNSName,
    ExtendedKeyUsage,
    KeyUsage,
    Name,
    NameAttribute,
    RevokedCertificateBuilder,
    SubjectAlternativeName,
    SubjectKeyIdentifier,
    random_serial_number,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from txpaxos.cluster import NAME, NAME_RULE
from txpaxos.errors import ConfigError
from txpaxos.keys.trust import Role

AUTHORITY_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=365)
"""How long the certificate of a node or a client is valid."""

BACKDATED = timedelta(hours=1)
"""How long before it is made a certificate is valid already: clocks differ."""

TOKEN_BYTES = 32
RESERVED = frozenset({"anonymous"})
"""Names that no client can have: they mean something else in the rights of a cluster."""


@attrs.frozen
class Issued:
    """A certificate, and the private key that fits it."""

    certificate: Certificate
    private_key: Any = attrs.field(repr=False, eq=False)

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return pem_of([self.certificate])

    @property
    def private_key_pem(self) -> bytes:
        """The private key as PEM, without a password."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[no-any-return]


@attrs.frozen
class Authority:
    """What signs the certificates of one role.

    :ivar role: whose certificates these are.
    :ivar own: its certificate and its private key.
    """

    role: Role
    own: Issued

    @classmethod
    def create(cls, role: Role, now: datetime, lifetime: timedelta = AUTHORITY_LIFETIME) -> Authority:
        """A new authority. No other one has its name, which ends in random digits."""
        key = Ed25519PrivateKey.generate()
        subject = _name(f"txpaxos {role}s authority {secrets.token_hex(4)}")
        builder = _builder(subject, subject, key, now, now + lifetime)
        builder = builder.add_extension(BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        return cls(role, Issued(builder.sign(key, None), key))

    @property
    def certificate(self) -> Certificate:
        """Its certificate, which goes into ``nodes.pem`` or ``clients.pem``."""
        return self.own.certificate

    def issue(self, name: str, now: datetime, lifetime: timedelta = LIFETIME) -> Issued:
        """A certificate for ``name``, with a new private key. It expires with the authority at the latest.

        :raises ConfigError: if no node or client can have that name, or if the authority has expired.
        """
        check_name(name, self.role)
        not_after = min(now + lifetime, self.certificate.not_valid_after_utc)
        if not_after <= now:
            raise ConfigError(f"the authority of {self.role}s has expired: 'txpaxos keys rotate' makes a new one")
        key = Ed25519PrivateKey.generate()
        builder = _builder(_name(name), self.certificate.subject, key, now, not_after)
        builder = builder.add_extension(BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        dials, listens = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
        usages = [dials, listens] if self.role == "node" else [dials]
        builder = builder.add_extension(ExtendedKeyUsage(usages), critical=False)
        signer = AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key())  # type: ignore[arg-type]
        builder = builder.add_extension(signer, critical=False)
        if self.role == "node":  # What speaks HTTPS knows nodes by this name, and by no common name.
            builder = builder.add_extension(SubjectAlternativeName([DNSName(name)]), critical=False)
        return Issued(builder.sign(self.own.private_key, None), key)

    def revocations(
        self, serials: Iterable[tuple[int, datetime]], number: int, now: datetime
    ) -> CertificateRevocationList:
        """The list of revoked certificates.

        :param serials: the serial of each, and when it was revoked.
        :param number: of the list: each list has a higher one than the list before it.
        """
        builder = (
            CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - BACKDATED)
            .next_update(max(self.certificate.not_valid_after_utc, now + BACKDATED))
            .add_extension(CRLNumber(number), critical=False)
            .add_extension(
                AuthorityKeyIdentifier.from_issuer_public_key(self.certificate.public_key()),  # type: ignore[arg-type]
                critical=False,
            )
        )
        for serial, revoked_at in sorted(serials):
            revoked = RevokedCertificateBuilder().serial_number(serial).revocation_date(revoked_at).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self.own.private_key, None)


def new_token() -> str:
    """A token for a client, which cannot be guessed."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_line(name: str, token: str) -> str:
    """The line about a token in a node's file ``tokens``."""
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"


def check_name(name: str, role: Role) -> None:
    """Refuse a name that no node or no client can have.

    :raises ConfigError: with the rule."""
    if not NAME.match(name):
        raise ConfigError(f"{name[:40]!r} is no name for a {role}: {NAME_RULE}")
    if role == "client" and name in RESERVED:
        raise ConfigError(f"no client can be called {name!r}: rights for that name are those of clients without keys")


def pem_of(certificates: Iterable[Certificate | CertificateRevocationList]) -> bytes:
    """Certificates, or lists of revoked ones, as PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def _name(common_name: str) -> Name:
    return Name([NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(subject: Name, issuer: Name, key: Any, now: datetime, not_after: datetime) -> CertificateBuilder:
    since = (now - BACKDATED).astimezone(UTC)
    builder = CertificateBuilder(issuer, subject, key.public_key(), random_serial_number(), since, not_after)
    return builder.add_extension(SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(signs: bool) -> KeyUsage:
    return KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
