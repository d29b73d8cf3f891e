"""The cluster file: who the nodes are and where they listen. Nodes and clients read the same one.

.. code-block:: toml

    cluster = "counter"

    [nodes.a]
    address = "127.0.0.1:4001"    # datagrams and streams between nodes
    client  = "127.0.0.1:5001"    # TCP for clients
"""

from __future__ import annotations

import ipaddress
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from txpaxos.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")


@attrs.frozen
class Address:
    """A host (name or IP address) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port`` or ``[IPv6]:port``.

        :raises ValueError: if it is neither.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            ipaddress.IPv6Address(host)
        elif ":" in host:
            raise ValueError("an IPv6 address stands in brackets")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ValueError("not host:port")
        return cls(host, int(port))

    def resolve(self) -> Address:
        """The same with an IP address for the host, in its canonical spelling. Blocks while a name is looked up.

        :raises ConfigError: if the name is not known.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:  # The latter if a label of the name is empty or too long.
            raise ConfigError(f"cannot resolve {self.host!r}: {error}; use an IP address, or mend the name") from None
        return Address(str(ipaddress.ip_address(found[0][4][0])), self.port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Member:
    """One node: where its peers reach it, and where clients do."""

    address: Address
    client: Address


@attrs.frozen
class Cluster:
    """All nodes of a cluster.

    :ivar name: no message of a cluster with another name is ever taken.
    :ivar members: node id to :class:`Member`, in the order of the file.
    """

    name: str
    members: Mapping[str, Member]

    @classmethod
    def load(cls, path: str | Path) -> Cluster:
        """Read a cluster file.

        :raises ConfigError: one line that says what is wrong and where.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            raise ConfigError(f"cannot read cluster file {path}: {reason}") from None
        try:
            return cls.parse(text)
        except ConfigError as error:
            raise ConfigError(f"cluster file {path}: {error}") from None

    @classmethod
    def parse(cls, text: str) -> Cluster:
        """Read the text of a cluster file.

        :raises ConfigError: one line that says what is wrong.
        """
        try:
            data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not TOML: {error}") from None
        _only(data, {"cluster", "nodes"}, "at the top")
        name = data.get("cluster")
        if not isinstance(name, str) or not NAME.match(name):
            raise ConfigError('needs cluster = "NAME" (letters, digits, "_", "-", ".", at most 32) at the top')
        nodes = data.get("nodes")
        if not isinstance(nodes, dict) or not nodes:
            raise ConfigError("needs at least one [nodes.NAME] table")
        members = {node: _member(node, table) for node, table in nodes.items()}
        seen: dict[Address, str] = {}
        for node, member in members.items():
            for key, address in (("address", member.address), ("client", member.client)):
                here = f"{key} of node {node}"
                if address in seen:
                    raise ConfigError(f"{here} is {address}, which is also the {seen[address]}")
                seen[address] = here
        return cls(name, members)

    def resolve(self) -> Cluster:
        """The same cluster with every host name looked up, which blocks.

        :raises ConfigError: if a name is not known.
        """
        return attrs.evolve(
            self,
            members={
                node: Member(member.address.resolve(), member.client.resolve()) for node, member in self.members.items()
            },
        )

    def dumps(self) -> str:
        """The text of a cluster file that says the same."""
        tables = [
            f'[nodes."{node}"]\naddress = "{member.address}"\nclient = "{member.client}"\n'
            for node, member in self.members.items()
        ]
        return "\n".join([f'cluster = "{self.name}"\n', *tables])


def _member(node: str, table: Any) -> Member:
    where = f"in [nodes.{node}]"
    if not NAME.match(node):
        raise ConfigError(f'{node!r} cannot be a node: letters, digits, "_", "-", ".", at most 32')
    if not isinstance(table, dict):
        raise ConfigError(f"[nodes.{node}] must be a table with address and client")
    _only(table, {"address", "client"}, where)
    addresses = {}
    for key in ("address", "client"):
        text = table.get(key)
        if not isinstance(text, str):
            raise ConfigError(f'needs {key} = "host:port" {where}')
        try:
            addresses[key] = Address.parse(text)
        except ValueError as error:
            raise ConfigError(f"{key} = {text!r} {where}: {error}") from None
    return Member(**addresses)


def _only(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {key!r} {where} (known: {', '.join(sorted(known))})")


ALONE = Cluster("counter", {"a": Member(Address("127.0.0.1", 4001), Address("127.0.0.1", 5001))})
"""One node on this machine: what runs, and what clients look for, when no cluster file is named."""
