"""Folders of keys for the tests of nodes and clients, made in no time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import attrs

from txpaxos.keys.authority import Authority, Issued, new_token, pem_of, token_line
from txpaxos.keys.folder import Keys
from txpaxos.keys.trust import Role


@attrs.define
class KeyFolders:
    """Authorities, and folders that they have made below ``path``.

    :ivar now: when all is issued, and has to be valid.
    """

    path: Path
    now: datetime
    nodes_authority: Authority
    clients_authority: Authority
    serial: int = 0

    def folder(self, name: str) -> Path:
        """The folder of a node or a client."""
        return self.path / name

    def node(self, name: str) -> Keys:
        """The keys of a node, loaded from its folder."""
        return Keys.load(self.folder(name), "node", name=name, now=self.now)

    def client(self, name: str) -> Keys:
        """The keys of a client, loaded from its folder."""
        return Keys.load(self.folder(name), "client", now=self.now)

    def authority(self, role: Role) -> Authority:
        """The one that signs nodes, or clients."""
        return self.nodes_authority if role == "node" else self.clients_authority

    def write(self, name: str, role: Role, issued: Issued) -> Path:
        """Write the folder of a node or a client."""
        folder = self.folder(name)
        write(folder / f"{role}.pem", issued.certificate_pem)
        write(folder / f"{role}.key", issued.private_key_pem)
        self.write_authorities(folder, role)
        return folder

    def issue(self, name: str, role: Role) -> Path:
        """Issue a certificate, and write its folder."""
        return self.write(name, role, self.authority(role).issue(name, self.now))

    def issue_token(self, name: str, nodes: Iterable[str]) -> Path:
        """Make a token for a client, write its folder, and bring its line to the nodes."""
        token, folder = new_token(), self.folder(name)
        write(folder / "token", token.encode())
        self.write_authorities(folder, "client")
        for node in nodes:
            tokens = self.folder(node) / "tokens"
            write(tokens, (tokens.read_bytes() if tokens.exists() else b"") + token_line(name, token).encode())
        return folder

    def write_authorities(self, folder: Path, role: Role) -> None:
        """Write which authorities are believed."""
        write(folder / "nodes.pem", pem_of([self.nodes_authority.certificate]))
        if role == "node":
            write(folder / "clients.pem", pem_of([self.clients_authority.certificate]))

    def revoke(self, *revoked: Keys, folders: Iterable[str]) -> None:
        """Bring lists of revoked certificates to the folders of these nodes and clients."""
        self.serial += 1
        lists = [
            authority.revocations(
                [(one.chain[0].serial_number, self.now) for one in revoked if one.role == authority.role],
                self.serial,
                self.now,
            )
            for authority in (self.nodes_authority, self.clients_authority)
        ]
        for folder in folders:
            write(self.folder(folder) / "revoked.pem", pem_of(lists))


def write(path: Path, data: bytes) -> None:
    """Write a file that no other user may read, in a folder that none may look into."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


def keys_for(
    path: Path, nodes: Iterable[str] = ("a", "b", "c"), clients: Iterable[str] = (), now: datetime | None = None
) -> KeyFolders:
    """Folders of keys for these nodes and clients, below ``path``.

    :param now: when they are issued: now if not given."""
    now = now or datetime.now(UTC)
    made = KeyFolders(path, now, Authority.create("node", now), Authority.create("client", now))
    for name in nodes:
        made.issue(name, "node")
    for name in clients:
        made.issue(name, "client")
    return made
