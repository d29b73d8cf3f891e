"""Who is believed: certificates are verified here, and what can be wrong with them is said in one phrase each.

OpenSSL does the verifying. What it trusts is exactly what it is given: a certificate of an authority need not be
self-signed, so an authority may itself be signed by another one that is not trusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import Certificate, CertificateRevocationList, ExtensionNotFound, KeyUsage
from cryptography.x509.extensions import BasicConstraints, ExtendedKeyUsage
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError, X509StoreFlags

from txpaxos.cluster import NAME

Role: TypeAlias = Literal["node", "client"]
"""Whose keys a folder has, and what an authority signs."""

EXPIRED = "has expired"
NOT_YET_VALID = "is not yet valid"
UNKNOWN_AUTHORITY = "is of an unknown authority"
WRONG_NAME = "has the wrong name"
REVOKED = "was revoked"
WRONG_PURPOSE = "is for another purpose"
NOT_VALID = "is not valid"

PHRASES = {
    2: UNKNOWN_AUTHORITY,  # no issuer
    7: UNKNOWN_AUTHORITY,  # The signature does not fit: an authority with the same name and another key.
    9: NOT_YET_VALID,
    10: EXPIRED,
    18: UNKNOWN_AUTHORITY,  # self-signed
    19: UNKNOWN_AUTHORITY,  # self-signed in the chain
    20: UNKNOWN_AUTHORITY,  # no issuer locally
    21: UNKNOWN_AUTHORITY,  # The first certificate cannot be verified.
    23: REVOKED,
    24: UNKNOWN_AUTHORITY,  # The issuer is no authority.
    26: WRONG_PURPOSE,
    79: UNKNOWN_AUTHORITY,  # The issuer is no authority.
}
"""What an error of OpenSSL's verification (``X509_V_ERR_...``) means for a certificate."""

NO_LIST, LIST_NOT_YET_VALID, LIST_EXPIRED = 3, 11, 12
LIST_ERRORS = frozenset({NO_LIST, LIST_NOT_YET_VALID, LIST_EXPIRED})
"""Errors that refuse no certificate. An authority need not have a list of revoked certificates, and what an old list
revokes stays revoked: it is no reason to stop a cluster that no newer one was brought."""


def fill_store(
    store: X509Store,
    authorities: Iterable[Certificate],
    lists: Iterable[CertificateRevocationList] = (),
    at: datetime | None = None,
) -> X509Store:
    """Fill what OpenSSL verifies with.

    :param authorities: those that are believed.
    :param lists: lists of revoked certificates. Those of other authorities have no effect.
    :param at: when certificates have to be valid; at the time of each verification if not given.
    :returns: ``store``.
    """
    flags = X509StoreFlags.PARTIAL_CHAIN
    for authority in authorities:
        store.add_cert(X509.from_cryptography(authority))
    for one in lists:
        store.add_crl(one)
        flags |= X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL
    store.set_flags(flags)
    if at is not None:
        store.set_time(at.astimezone(UTC))
    return store


def chain_of(
    certificate: Certificate, others: Iterable[Certificate], authorities: Iterable[Certificate], at: datetime
) -> list[Certificate]:
    """The certificates from ``certificate`` up to the authority that is believed. Lists of revoked certificates are not
    looked at: see :func:`revoked_by`.

    :param others: more certificates, which may stand between the two.
    :raises ValueError: with the phrase that says why ``certificate`` is not believed.
    """
    between = [X509.from_cryptography(one) for one in others]
    context = X509StoreContext(
        fill_store(X509Store(), authorities, at=at), X509.from_cryptography(certificate), between
    )
    try:
        return [one.to_cryptography() for one in context.get_verified_chain()]
    except X509StoreContextError as error:
        raise ValueError(PHRASES.get(error.errors[0], f"{NOT_VALID}: {error}")) from None


def refusal(
    certificate: Certificate,
    others: Iterable[Certificate],
    authorities: Iterable[Certificate],
    lists: Iterable[CertificateRevocationList],
    at: datetime,
) -> str:
    """Why ``certificate`` is not believed, in one phrase; empty if it is.

    :param others: more certificates, which may stand between it and an authority.
    :param lists: the lists of revoked certificates.
    :param at: when certificates have to be valid.
    """
    try:
        chain = chain_of(certificate, others, authorities, at)
    except ValueError as error:
        return f"its certificate {error}"
    return f"its certificate {REVOKED}" if revoked_by(chain, lists) else ""


def revoked_by(chain: Sequence[Certificate], lists: Iterable[CertificateRevocationList]) -> bool:
    """Whether a list revokes a certificate of ``chain``."""
    return any(
        one.issuer == revocations.issuer and revocations.get_revoked_certificate_by_serial_number(one.serial_number)
        for revocations in lists
        for one in chain
    )


def is_signed_by(revocations: CertificateRevocationList, authority: Certificate) -> bool:
    """Whether ``authority`` has signed that list of revoked certificates."""
    try:
        return revocations.issuer == authority.subject and revocations.is_signature_valid(
            authority.public_key()  # type: ignore[arg-type]  # It can be none that signs: TypeError.
        )
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False


def is_authority(certificate: Certificate) -> bool:
    """Whether ``certificate`` may sign others."""
    try:
        if not certificate.extensions.get_extension_for_class(BasicConstraints).value.ca:
            return False
        return certificate.extensions.get_extension_for_class(KeyUsage).value.key_cert_sign
    except ExtensionNotFound as error:
        return error.oid == KeyUsage.oid  # Without the extension, any usage is allowed.
    except ValueError:
        return False


def purposes_of(certificate: Certificate) -> tuple[bool, bool]:
    """Whether ``certificate`` may be shown by the side that listens, and by the side that dials."""
    try:
        usages = set(certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value)
    except ExtensionNotFound:
        return True, True
    except ValueError:
        return False, False
    is_any = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages
    return is_any or ExtendedKeyUsageOID.SERVER_AUTH in usages, is_any or ExtendedKeyUsageOID.CLIENT_AUTH in usages


def fingerprint_of(certificate: Certificate) -> str:
    """The SHA-256 of ``certificate``, in hexadecimal digits."""
    return certificate.fingerprint(SHA256()).hex()


def common_name(certificate: Certificate) -> str:
    """The name that ``certificate`` is for; empty if it has none, several, or one that no node or client can have."""
    try:
        names = [one.value for one in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except ValueError:
        return ""
    name = names[0] if len(names) == 1 else ""
    return name if isinstance(name, str) and NAME.match(name) else ""
