"""What is in a folder of keys, found by reading alone: also in one that no node or client could use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.x509 import Certificate

from txpaxos.keys import trust
from txpaxos.keys.folder import read_certificates, read_revoked
from txpaxos.keys.trust import Role


def certificates_in(folder: Path, role: Role) -> list[dict[str, Any]]:
    """The certificates in a folder of a node or a client: its own first, then those of the authorities.

    :raises ConfigError: if a file is missing, or is not PEM."""
    files = [(f"{role}.pem", str(role)), ("nodes.pem", "nodes"), ("clients.pem", "clients")]
    if (folder / "token").exists():
        files = files[1:]
    if role == "client":
        files = files[:-1]
    revoked = folder / "revoked.pem"
    lists = read_revoked(revoked) if revoked.exists() else ()
    return [
        {**described(one, whose), "revoked": trust.revoked_by([one], lists)}
        for file, whose in files
        for one in read_certificates(folder / file)
    ]


def described(certificate: Certificate, role: str) -> dict[str, Any]:
    """A certificate, for people and for JSON.

    :param role: ``"node"`` or ``"client"``, and ``"nodes"`` or ``"clients"`` for what signs them.
    """
    return {
        "name": trust.common_name(certificate) or common_names(certificate),
        "role": role,
        "serial": f"{certificate.serial_number:x}",
        "fingerprint": trust.fingerprint_of(certificate),
        "expires": certificate.not_valid_after_utc.isoformat(),
        "signed_by": certificate.issuer.rfc4514_string().removeprefix("CN="),
    }


def common_names(certificate: Certificate) -> str:
    """What ``certificate`` is for, whatever its subject is."""
    return certificate.subject.rfc4514_string().removeprefix("CN=")
