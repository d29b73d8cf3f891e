"""The folder of an authority: its private keys, and what it has issued. It is kept off the nodes.

=============================  ===================================================================================
file                           what
=============================  ===================================================================================
``nodes-authority-N.key``      the private key that signs nodes; ``N`` grows when authorities rotate
``nodes-authority-N.pem``      its certificate
``clients-authority-N.key``    the same for clients
``clients-authority-N.pem``    its certificate
``authority.json``             which of them sign and are believed, and each certificate and token that was issued
``nodes.pem``, ``clients.pem``, ``revoked.pem``, ``tokens``
                               what goes into the folders of nodes and clients: see :mod:`txpaxos.keys.folder`
=============================  ===================================================================================

What is issued is noted first and written then, so a certificate that is not noted never leaves this folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import attrs
import msgspec
from cryptography.x509 import Certificate, CertificateRevocationList

from txpaxos.errors import ConfigError
from txpaxos.keys import trust
from txpaxos.keys.authority import LIFETIME, Authority, Issued, check_name, new_token, pem_of
from txpaxos.keys.folder import read_certificates, read_file, read_private_key, refuse_others
from txpaxos.keys.trust import Role
from txpaxos.keys.writing import refuse_leftovers, refuse_what_is_there, replace_folder, write_file, write_folder
from txpaxos.log_lines import printable

STATE = "authority.json"
VERSION = 1
ROLES: tuple[Role, ...] = ("node", "client")
Serial = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]*$")]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


@attrs.define
class Signer:
    """What is noted about an authority.

    :ivar id: the name of its files.
    :ivar is_trusted: whether it is in ``nodes.pem`` or ``clients.pem``.
    :ivar signs: whether new certificates are signed by it.
    """

    id: str
    role: Role
    is_trusted: bool = True
    signs: bool = True


@attrs.define
class Record:
    """What is noted about a certificate or a token.

    :ivar authority: the id of what has signed it; empty of a token.
    :ivar serial: in hexadecimal digits; empty of a token.
    :ivar fingerprint: the SHA-256 of the certificate or the token, in hexadecimal digits.
    :ivar not_after: when it expires; never, of a token.
    """

    name: str
    role: Role
    authority: str
    serial: Serial
    fingerprint: str
    issued_at: Moment
    not_after: Moment | None
    revoked_at: Moment | None = None

    @property
    def is_token(self) -> bool:
        """Whether this is a token."""
        return not self.authority

    def is_valid(self, now: datetime) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.not_after is None or self.not_after > now)


@attrs.define
class State:
    """What ``authority.json`` has.

    :ivar changed_at: when what goes into ``revoked.pem`` changed last.
    :ivar changes: how often it changed.
    """

    version: int
    signers: list[Signer]
    issued: list[Record]
    changed_at: Moment
    changes: Annotated[int, msgspec.Meta(ge=0)] = 0


class AuthorityFolder:
    """The folder of an authority, locked as long as it is open. Use :meth:`create` and :meth:`open`.

    :ivar path: where it is.
    :ivar state: what is noted.
    """

    def __init__(self, path: Path, state: State) -> None:
        self.path = path
        self.state = state

    @classmethod
    def create(cls, path: Path, now: datetime) -> None:
        """Make a folder with an authority for nodes and one for clients.

        :raises ConfigError: if there is something at ``path``.
        """
        refuse_what_is_there(path)
        authorities = {f"{role}s-authority-1": Authority.create(role, now) for role in ROLES}
        state = State(VERSION, [Signer(id, one.role) for id, one in authorities.items()], [], now)
        files = {STATE: _encode(state)}
        for id, one in authorities.items():
            files[f"{id}.key"], files[f"{id}.pem"] = one.own.private_key_pem, one.own.certificate_pem
        write_folder(path, files)
        with cls.open(path):
            pass  # It writes what goes into other folders.

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[AuthorityFolder]:
        """The folder at ``path``. A second command waits until the first one has closed it.

        :raises ConfigError: if there is no authority, or another user could have changed what is in the folder."""
        if not (path / STATE).is_file():
            raise ConfigError(f"{path} is not the folder of an authority: 'txpaxos keys init {path}' makes one")
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            refuse_others(path, os.fstat(handle), is_secret=False)
            fcntl.flock(handle, fcntl.LOCK_EX)
            opened = cls(path, _decode(path / STATE))
            opened._write_shared()  # An earlier command may have been interrupted before it did.
            yield opened
        finally:
            os.close(handle)

    # ------------------------------------------------------------ issuing

    def issue(self, name: str, role: Role, target: Path, now: datetime, lifetime: timedelta = LIFETIME) -> Record:
        """Issue a certificate, and write the folder of a node or client at ``target``.

        :raises ConfigError: if the name is none, or there is something at ``target``.
        """
        refuse_what_is_there(target)
        issued, record = self._issue(name, role, now, lifetime)
        with self._written(record, target / f"{role}.pem", issued.certificate_pem):
            write_folder(target, {**self._files_of(issued, role), **self._shared(role)})
        return record

    def issue_token(self, name: str, target: Path, now: datetime) -> Record:
        """Make a token, and write the folder of a client at ``target``.

        :raises ConfigError: if the name is none, or there is something at ``target``."""
        check_name(name, "client")
        refuse_what_is_there(target)
        token = new_token()
        record = Record(name, "client", "", "", hashlib.sha256(token.encode()).hexdigest(), now, None)
        self._save(issued=[*self.state.issued, record])
        self._write_shared()
        data = f"{token}\n".encode()
        with self._written(record, target / "token", data):
            write_folder(target, {"token": data, **self._shared("client")})
        return record

    def renew(self, target: Path, now: datetime, lifetime: timedelta = LIFETIME) -> tuple[Record, Path]:
        """Issue a new certificate with a new private key for the node or client whose folder is at ``target``.

        :returns: what was issued, and where the earlier folder is now.
        :raises ConfigError: if there is no certificate of this authority.
        """
        name, role = self.check_renewable(target)
        issued, record = self._issue(name, role, now, lifetime)
        with self._written(record, target / f"{role}.pem", issued.certificate_pem):
            return record, replace_folder(target, {**self._files_of(issued, role), **self._shared(role)})

    def check_renewable(self, target: Path) -> tuple[str, Role]:
        """Refuse a folder that :meth:`renew` would refuse.

        :returns: for whom its certificate is.
        :raises ConfigError: if there is no certificate of this authority, or the folder before it is still there.
        """
        role = role_of(target)
        if role == "client" and (target / "token").exists():
            raise ConfigError(f"{target} has a token, which does not expire: revoke it, and make another one")
        own = read_certificates(target / f"{role}.pem")[0]
        name, fingerprint = trust.common_name(own), trust.fingerprint_of(own)
        if fingerprint not in {record.fingerprint for record in self.state.issued}:
            raise ConfigError(f"the certificate in {target} was not issued by the authority in {self.path}")
        refuse_leftovers(target)
        return name, role

    def update(self, target: Path) -> list[str]:
        """Bring the authorities, the revoked certificates and the tokens to the folder of a node or client.

        :returns: the names of the files that were other ones.
        """
        changed = []
        for name, data in self._shared(role_of(target)).items():
            path = target / name
            if not path.exists() or path.read_bytes() != data:
                write_file(path, data)
                changed.append(name)
        return changed

    # ----------------------------------------------------------- revoking

    def revoke(
        self, name: str, role: Role | None, now: datetime, keeps_newest: bool = False, what: str = ""
    ) -> list[Record]:
        """Revoke the certificates and tokens of ``name`` that are not revoked yet.

        :param role: of nodes or clients only.
        :param keeps_newest: whether the newest one stays valid.
        :param what: the beginning of a serial, or of a token's fingerprint: only those.
        :returns: what was revoked.
        :raises ConfigError: if there is nothing to revoke, or if both a node and a client have that name.
        """
        found = [one for one in self.state.issued if one.name == name and role in (None, one.role)]
        if len({one.role for one in found}) > 1:
            raise ConfigError(f"a node and a client are called {name}: say which, by --role node or --role client")
        valid = [one for one in found if one.revoked_at is None]
        chosen = [
            one for one in valid[: -1 if keeps_newest else None] if (one.serial or one.fingerprint).startswith(what)
        ]
        if not chosen:
            known = "nothing that is not revoked already" if found else "nothing that was issued"
            other = " but its newest" if keeps_newest and valid else " and begins so" if what and valid else ""
            raise ConfigError(f"{printable(name)} has {known}{other}: see 'txpaxos keys show'")
        for one in chosen:
            one.revoked_at = now
        self._save(changed_at=now)
        self._write_shared()
        return chosen

    # ----------------------------------------------------------- rotation

    def begin_rotation(self, roles: Sequence[Role], now: datetime) -> list[Signer]:
        """Make a second authority for each of ``roles``, which is believed and does not sign yet.

        :raises ConfigError: if one of them has two already.
        """
        for role in roles:
            if len(self.trusted(role)) > 1:
                raise ConfigError(f"the authority of {role}s rotates already: see 'txpaxos keys show'")
        made = []
        for role in roles:
            authority, signer = Authority.create(role, now), Signer(self._unused_id(role), role, signs=False)
            write_file(self.path / f"{signer.id}.key", authority.own.private_key_pem, replace=False)
            write_file(self.path / f"{signer.id}.pem", authority.own.certificate_pem, replace=False)
            made.append(signer)
        self._save(signers=[*self.state.signers, *made], changed_at=now)
        self._write_shared()
        return made

    def sign_with_the_new(self) -> list[Signer]:
        """Let the second authorities sign from now on.

        :raises ConfigError: if there is none that does not sign yet."""
        rotating = [role for role in ROLES if len(self.trusted(role)) > 1 and not self.trusted(role)[-1].signs]
        if not rotating:
            raise ConfigError("there is no new authority that does not sign yet: 'txpaxos keys rotate begin' makes one")
        for role in rotating:
            for signer in self.trusted(role):
                signer.signs = signer is self.trusted(role)[-1]
        self._save()
        return [self.trusted(role)[-1] for role in rotating]

    def end_rotation(self, now: datetime, regardless: bool = False) -> list[Signer]:
        """Believe the first authorities no longer.

        :param regardless: also if nodes or clients have no certificate of the second ones.
        :returns: those that are not believed any more.
        :raises ConfigError: if no authority rotates, or the second one does not sign yet, or there is such a node or
            client.
        """
        rotating = [role for role in ROLES if len(self.trusted(role)) > 1]
        if not rotating:
            raise ConfigError("no authority rotates: 'txpaxos keys rotate begin' begins")
        for role in rotating:
            if not self.trusted(role)[-1].signs:
                raise ConfigError(
                    f"the new authority of {role}s has signed nothing yet: 'txpaxos keys rotate issue' first"
                )
        left = [name for role in rotating for name in self.left_behind(role, now)]
        if left and not regardless:
            raise ConfigError(
                f"these have no certificate of the new authority: {', '.join(left)}: 'txpaxos keys renew' first"
            )
        dropped = [one for role in rotating for one in self.trusted(role)[:-1]]
        for one in dropped:
            one.is_trusted = False
        self._save(changed_at=now)
        self._write_shared()
        return dropped

    def left_behind(self, role: Role, now: datetime) -> list[str]:
        """The nodes or clients whose valid certificates are all of earlier authorities than the one that signs."""
        valid = [one for one in self.state.issued if one.role == role and not one.is_token and one.is_valid(now)]
        newest = {one.name for one in valid if one.authority == self.signer(role).id}
        return sorted({one.name for one in valid} - newest)

    # ------------------------------------------------------------- inside

    def trusted(self, role: Role) -> list[Signer]:
        """The authorities of nodes or clients that are believed, the oldest first."""
        return [one for one in self.state.signers if one.role == role and one.is_trusted]

    def signer(self, role: Role) -> Signer:
        """The authority that signs nodes or clients."""
        return next(one for one in self.trusted(role) if one.signs)

    def certificate(self, signer: Signer) -> Certificate:
        """The certificate of an authority."""
        return read_certificates(self.path / f"{signer.id}.pem")[0]

    def _issue(self, name: str, role: Role, now: datetime, lifetime: timedelta) -> tuple[Issued, Record]:
        signer = self.signer(role)
        issued = self._authority(signer).issue(name, now, lifetime)
        certificate = issued.certificate
        serial, fingerprint = f"{certificate.serial_number:x}", trust.fingerprint_of(certificate)
        record = Record(name, role, signer.id, serial, fingerprint, now, certificate.not_valid_after_utc)
        self._save(issued=[*self.state.issued, record])
        return issued, record

    @contextmanager
    def _written(self, record: Record, path: Path, data: bytes) -> Iterator[None]:
        """What is noted in ``record`` is written to ``path``. If it cannot be, it is noted no more: a rotation must not
        end since a node seems to have a new certificate."""
        try:
            yield
        except OSError:
            if not path.exists() or path.read_bytes() != data:
                self._save(issued=[one for one in self.state.issued if one is not record])
                self._write_shared()
            raise

    def _unused_id(self, role: Role) -> str:
        """The id of a new authority. A command that was interrupted may have left the private key of another one, which
        is not noted, and is never overwritten."""
        number = 1 + sum(one.role == role for one in self.state.signers)
        while any(os.path.lexists(self.path / f"{role}s-authority-{number}.{end}") for end in ("key", "pem")):
            number += 1
        return f"{role}s-authority-{number}"

    def _authority(self, signer: Signer) -> Authority:
        certificate, path = self.certificate(signer), self.path / f"{signer.id}.key"
        key = read_private_key(path)
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{path} does not fit {signer.id}.pem: bring back the copy of the authority's folder")
        return Authority(signer.role, Issued(certificate, key))

    @staticmethod
    def _files_of(issued: Issued, role: Role) -> dict[str, bytes]:
        return {f"{role}.pem": issued.certificate_pem, f"{role}.key": issued.private_key_pem}

    def _shared(self, role: Role | None = None) -> dict[str, bytes]:
        """What all nodes, or all clients, have in their folders. It depends on what is noted alone.

        :param role: of nodes or clients; all if not given."""
        lists, files = [], {}
        for one in ROLES:
            trusted = self.trusted(one)
            files[f"{one}s.pem"] = pem_of([self.certificate(signer) for signer in trusted])
            lists += [self._revocations(signer) for signer in trusted]
        files["revoked.pem"] = pem_of(lists)
        tokens = [one for one in self.state.issued if one.is_token and one.revoked_at is None]
        files["tokens"] = "".join(f"{one.name} {one.fingerprint}\n" for one in tokens).encode()
        return {name: files[name] for name in ("nodes.pem", "revoked.pem")} if role == "client" else files

    def _revocations(self, signer: Signer) -> CertificateRevocationList:
        revoked = [
            (int(one.serial, 16), one.revoked_at)
            for one in self.state.issued
            if one.authority == signer.id and one.revoked_at is not None
        ]
        return self._authority(signer).revocations(revoked, self.state.changes, self.state.changed_at)

    def _write_shared(self) -> None:
        for name, data in self._shared().items():
            path = self.path / name
            if not path.exists() or path.read_bytes() != data:
                write_file(path, data)

    def _save(
        self,
        signers: list[Signer] | None = None,
        issued: list[Record] | None = None,
        changed_at: datetime | None = None,
    ) -> None:
        if signers is not None:
            self.state.signers = signers
        if issued is not None:
            self.state.issued = issued
        if changed_at is not None:
            self.state.changes, self.state.changed_at = self.state.changes + 1, changed_at
        write_file(self.path / STATE, _encode(self.state))


def role_of(folder: Path) -> Role:
    """Whose folder of keys this is.

    :raises ConfigError: if it is none."""
    found = [role for role in ROLES if (folder / f"{role}.pem").exists()]
    if not found and (folder / "token").exists():
        return "client"
    if len(found) != 1:
        before = folder.with_name(f"{folder.name}.before")
        if not os.path.lexists(folder) and before.is_dir():
            raise ConfigError(
                f"{folder} is missing, and {before} is there: a command was interrupted; rename that, and try again"
            )
        raise ConfigError(
            f"{folder} is not a folder of keys: it has {'both' if found else 'neither'} node.pem"
            f" {'and' if found else 'nor'} client.pem"
        )
    return found[0]


def _encode(state: State) -> bytes:
    return msgspec.json.format(msgspec.json.encode(state)) + b"\n"


def _decode(path: Path) -> State:
    try:
        state = msgspec.json.decode(read_file(path), type=State)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is damaged, or of another release: {error}") from None
    if state.version != VERSION:
        raise ConfigError(f"{path} has version {state.version}, and this release reads version {VERSION}")
    for role in ROLES:
        if sum(one.role == role and one.is_trusted and one.signs for one in state.signers) != 1:
            raise ConfigError(f"{path} is damaged: not one authority signs {role}s")
    return state
