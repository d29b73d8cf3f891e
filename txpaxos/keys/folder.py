"""A folder of keys: what a node or a client shows the others, and which authorities it believes.

===============  ============  ======================================================================================
file             in folders    what
===============  ============  ======================================================================================
``node.pem``     of nodes      the certificate, and what stands between it and its authority
``node.key``     of nodes      the private key that fits it
``client.pem``   of clients    the same for a client, unless it has a token
``client.key``   of clients    the private key that fits it
``token``        of clients    what a client shows that has no certificate
``nodes.pem``    of all        the authorities that sign nodes
``clients.pem``  of nodes      the authorities that sign clients: others than those
``revoked.pem``  of all        certificates that are believed no more; need not be there
``tokens``       of nodes      for each token a line with its client's name and the token's SHA-256; need not be there
===============  ============  ======================================================================================

All are plain PEM, but for the tokens. No other user may read the private key and the token, or change anything.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import (
    Certificate,
    CertificateRevocationList,
    load_pem_x509_certificates,
    load_pem_x509_crl,
)

from txpaxos.cluster import NAME
from txpaxos.errors import ConfigError
from txpaxos.keys import trust
from txpaxos.keys.trust import Role
from txpaxos.log_lines import printable

FILE_BYTES_MAX = 2**20
TOKEN_CHARACTERS_MAX = 200
_OTHERS_READ, _OTHERS_WRITE = 0o077, 0o022
_LIST_ENDS = b"-----END X509 CRL-----"


@attrs.frozen
class Keys:
    """The keys of one node or client, as they were when they were loaded.

    :ivar folder: where they come from.
    :ivar role: ``"node"`` or ``"client"``.
    :ivar name: the name in the certificate; empty if the client has a token.
    :ivar not_after: when the certificate, or the first one above it, expires.
    :ivar chain: the certificate, then what was beside it; empty if the client has a token.
    :ivar private_key: the private key that fits the certificate.
    :ivar nodes: the authorities that sign nodes.
    :ivar clients: the authorities that sign clients; none in a client's folder.
    :ivar revoked: the lists of revoked certificates.
    :ivar token: the token of a client that has no certificate.
    :ivar tokens: the SHA-256 of each token, and whose it is.
    """

    folder: str
    role: Role
    name: str
    not_after: datetime
    chain: tuple[Certificate, ...] = attrs.field(repr=False)
    private_key: Any = attrs.field(repr=False, eq=False)
    nodes: tuple[Certificate, ...] = attrs.field(repr=False)
    clients: tuple[Certificate, ...] = attrs.field(repr=False)
    revoked: tuple[CertificateRevocationList, ...] = attrs.field(repr=False)
    token: str = attrs.field(repr=False)
    tokens: Mapping[bytes, str] = attrs.field(repr=False)

    @classmethod
    def load(cls, folder: str | Path, role: Role, *, name: str | None = None, now: datetime | None = None) -> Keys:
        """Read a folder, and check all of it.

        :param name: the name that the certificate has to have; any if not given.
        :param now: when it has to be valid; now if not given.
        :raises ConfigError: with the first thing that is wrong, in one line.
        """
        return _Loading(Path(folder), role, now or datetime.now(UTC)).keys(name)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the certificate, in hexadecimal digits; empty if the client has a token."""
        return trust.fingerprint_of(self.chain[0]) if self.chain else ""

    def expires_in(self, now: datetime) -> timedelta:
        """How long the certificate is still valid; negative if it is not any more."""
        return self.not_after - now

    def principal_of(self, token: str) -> str:
        """The client that has this token; empty if none has. How long the answer takes does not tell what is wrong."""
        digest, principal = hashlib.sha256(token.encode()).digest(), ""
        for known, name in self.tokens.items():
            if hmac.compare_digest(known, digest):
                principal = name
        return principal


def read_file(path: Path, is_secret: bool = False) -> bytes:
    """The contents of a file of keys.

    :param is_secret: whether others may not even read it.
    :raises ConfigError: if it is missing, or another user could have changed it, or read a secret.
    """
    try:
        with path.open("rb") as file:
            refuse_others(path, os.fstat(file.fileno()), is_secret)
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} has more than {FILE_BYTES_MAX} bytes: it is no file of keys")
    return data


def refuse_others(path: Path, status: os.stat_result, is_secret: bool) -> None:
    """Refuse a file or a folder that another user could have changed, or a secret that another user may read.

    :raises ConfigError: with what to do."""
    user, mode = os.geteuid(), stat.S_IMODE(status.st_mode)
    if user not in (0, status.st_uid) and status.st_uid != 0:
        raise ConfigError(f"{path} belongs to user {status.st_uid}, and this process runs as user {user}")
    if is_secret and mode & _OTHERS_READ:
        raise ConfigError(f"{path} may be read by other users (mode {mode:04o}): 'chmod 600 {path}'")
    if mode & _OTHERS_WRITE:
        raise ConfigError(f"{path} may be changed by other users (mode {mode:04o}): 'chmod go-w {path}'")


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """The certificates in a PEM file, at least one.

    :raises ConfigError: if there are none."""
    data = read_file(path)
    try:
        return tuple(load_pem_x509_certificates(data))
    except ValueError as error:
        raise ConfigError(f"{path} is not PEM with certificates: {_short(error)}") from None


def read_private_key(path: Path) -> Any:
    """The private key in a PEM file.

    :raises ConfigError: if there is none, or if it has a password."""
    data = read_file(path, is_secret=True)
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        raise ConfigError(f"{path} is protected by a password: write it without one") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is not PEM with a private key: {_short(error)}") from None


def read_revoked(path: Path) -> tuple[CertificateRevocationList, ...]:
    """The lists of revoked certificates in a PEM file.

    :raises ConfigError: if something else is in there."""
    *lists, rest = read_file(path).split(_LIST_ENDS)
    try:
        if rest.strip():
            raise ValueError("something else is at its end")
        if not lists:
            raise ValueError("it is empty")  # Was it copied in part? It would revoke nothing.
        return tuple(load_pem_x509_crl(one + _LIST_ENDS) for one in lists)
    except ValueError as error:
        raise ConfigError(f"{path} is not PEM with lists of revoked certificates: {_short(error)}") from None


def read_tokens(path: Path) -> dict[bytes, str]:
    """The SHA-256 of each token in a file ``tokens``, and the client that has it.

    :raises ConfigError: if a line is wrong."""
    tokens: dict[bytes, str] = {}
    for number, line in enumerate(read_file(path).decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, digest = line.partition(" ")
        try:
            known = bytes.fromhex(digest)
        except ValueError:
            known = b""
        if not NAME.match(name) or len(known) != hashlib.sha256().digest_size:
            raise ConfigError(f"{path}, line {number}: not a name, a space, and the SHA-256 of a token in hexadecimal")
        tokens[known] = name
    return tokens


def _short(error: BaseException) -> str:
    return printable(str(error).split(". See ")[0])


@attrs.define
class _Loading:
    """One folder while it is read."""

    folder: Path
    role: Role
    now: datetime

    def keys(self, name: str | None) -> Keys:
        """All of it, checked."""
        self._check_folder()
        self._check_role()
        nodes = self._authorities("nodes.pem")
        clients = self._authorities("clients.pem") if self.role == "node" else ()
        if (signer := self._in_both(nodes, clients)) is not None:
            raise ConfigError(
                f"{self.folder}: nodes.pem and clients.pem have an authority in common"
                f" ({printable(signer.subject.rfc4514_string())}), so a client could be a node: use two"
            )
        revoked = self._revoked(nodes + clients)
        tokens = self._tokens() if self.role == "node" else {}
        token = self._token()
        if token:
            latest = max(one.not_valid_after_utc for one in nodes)
            return Keys(str(self.folder), self.role, "", latest, (), None, nodes, (), revoked, token, {})
        chain, key = self._certificate(name)
        verified = self._verified(chain, nodes, clients, revoked)
        not_after = min(one.not_valid_after_utc for one in verified)
        own = trust.common_name(chain[0])
        shown = MappingProxyType(tokens)
        return Keys(str(self.folder), self.role, own, not_after, chain, key, nodes, clients, revoked, "", shown)

    def _check_folder(self) -> None:
        try:
            status = self.folder.stat()
        except FileNotFoundError:
            raise ConfigError(f"the folder of keys {self.folder} is missing") from None
        except OSError as error:
            raise ConfigError(f"the folder of keys {self.folder} cannot be read: {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{self.folder} is not a folder of keys, but a file")
        refuse_others(self.folder, status, is_secret=False)

    def _check_role(self) -> None:
        """See that these are not the keys of the other role, whose files have other names."""
        files = {"node": ("node.pem",), "client": ("client.pem", "token")}
        found = [role for role, names in files.items() if any((self.folder / name).exists() for name in names)]
        if found and self.role not in found:
            raise ConfigError(f"{self.folder} has the keys of a {found[0]}, and a {self.role} needs its own")

    def _authorities(self, file: str) -> tuple[Certificate, ...]:
        found = read_certificates(self.folder / file)
        for one in found:
            if not trust.is_authority(one):
                subject = printable(one.subject.rfc4514_string())
                raise ConfigError(f"{self.folder / file}: the certificate of {subject} is not that of an authority")
        return found

    def _in_both(self, nodes: Iterable[Certificate], clients: Iterable[Certificate]) -> Certificate | None:
        """An authority that could sign both: by its key, or since it has signed one of the others."""
        for one in nodes:
            for other in clients:
                if one.public_key() == other.public_key() or self._is_of([one], (other,)):
                    return one
                if self._is_of([other], (one,)):
                    return other
        return None

    def _revoked(self, authorities: Iterable[Certificate]) -> tuple[CertificateRevocationList, ...]:
        path = self.folder / "revoked.pem"
        if not os.path.lexists(path):  # A link to nowhere is no reason to revoke nothing.
            return ()
        found = read_revoked(path)
        for one in found:
            if self.role == "node" and not any(trust.is_signed_by(one, authority) for authority in authorities):
                issuer = printable(one.issuer.rfc4514_string())
                raise ConfigError(f"{path}: a list is signed by an unknown authority, {issuer}: it revokes nothing")
        return found

    def _tokens(self) -> dict[bytes, str]:
        path = self.folder / "tokens"
        return read_tokens(path) if os.path.lexists(path) else {}

    def _token(self) -> str:
        path = self.folder / "token"
        if self.role != "client" or not path.exists():
            return ""
        if (self.folder / "client.pem").exists():
            raise ConfigError(f"{self.folder} has a certificate and a token: remove one of them")
        token = read_file(path, is_secret=True).decode(errors="replace").strip()
        if not (token.isascii() and token.isprintable() and 0 < len(token) <= TOKEN_CHARACTERS_MAX):
            raise ConfigError(f"{path} has no token: one line of 1 to {TOKEN_CHARACTERS_MAX} characters")
        return token

    def _certificate(self, name: str | None) -> tuple[tuple[Certificate, ...], Any]:
        path, key_path = self.folder / f"{self.role}.pem", self.folder / f"{self.role}.key"
        chain, key = read_certificates(path), read_private_key(key_path)
        if key.public_key() != chain[0].public_key():
            raise ConfigError(f"{key_path} does not fit {path}: the certificate is that of another private key")
        own = trust.common_name(chain[0])
        if not own or name not in (None, own):
            wanted = "no name that a node or a client can have" if name is None else f"not the name {name!r}"
            subject = printable(chain[0].subject.rfc4514_string())
            raise ConfigError(f"{path} {trust.WRONG_NAME}: it is for {subject}, which is {wanted}")
        may_listen, may_dial = trust.purposes_of(chain[0])
        if not may_dial or (self.role == "node" and not may_listen):
            raise ConfigError(f"{path} {trust.WRONG_PURPOSE}: its extended key usage is not that of a {self.role}")
        return chain, key

    def _verified(
        self,
        chain: tuple[Certificate, ...],
        nodes: tuple[Certificate, ...],
        clients: tuple[Certificate, ...],
        revoked: tuple[CertificateRevocationList, ...],
    ) -> list[Certificate]:
        """The chain up to the authority. A client does not know the authorities of clients: the nodes will say."""
        path, own = self.folder / f"{self.role}.pem", chain[0]
        if own.not_valid_after_utc < self.now:
            raise ConfigError(f"{path} {trust.EXPIRED} at {_shown(own.not_valid_after_utc)}: issue a new one")
        if own.not_valid_before_utc > self.now:
            since, now = _shown(own.not_valid_before_utc), _shown(self.now)
            raise ConfigError(
                f"{path} {trust.NOT_YET_VALID}, but from {since} on, and now is {now}: compare the clocks"
            )
        if self.role == "client":
            return [own]
        try:
            verified = trust.chain_of(own, chain[1:], nodes, self.now)
        except ValueError as error:
            of_client = self._is_of(clients, chain) and " (it is a client's)"
            raise ConfigError(f"{path} {error}{of_client or ''}: nodes.pem must have the authority of nodes") from None
        if trust.revoked_by(verified, revoked):
            raise ConfigError(f"{path} {trust.REVOKED}: issue a new one")
        return verified

    def _is_of(self, authorities: Iterable[Certificate], chain: tuple[Certificate, ...]) -> bool:
        try:
            return bool(trust.chain_of(chain[0], chain[1:], authorities, self.now))
        except ValueError:
            return False


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
