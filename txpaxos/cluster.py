"""The cluster file: the nodes of a cluster, and their addresses. Nodes and clients read the same file.

.. code-block:: toml

    cluster = "counter"

    [nodes.a]
    address = "127.0.0.1:4001"    # datagrams and streams between nodes
    client  = "127.0.0.1:5001"    # TCP for clients

A node that listens at another address than the one that others use (in a container, behind NAT) needs two more keys:

.. code-block:: toml

    [nodes.b]
    address       = "b.example.org:4001"    # what the other nodes use
    client        = "b.example.org:5001"    # what clients use
    listen        = "0.0.0.0:4001"          # where b itself listens for the other nodes
    client_listen = "0.0.0.0:5001"          # and for clients

What clients may do once nodes have keys is in a table ``[rights]``: see :mod:`txpaxos.rights`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product
from pathlib import Path
from typing import Any

import attrs

from txpaxos.errors import ConfigError
from txpaxos.host_names import FAMILIES, canonical_host, is_ip_address, look_up
from txpaxos.rights import DEFAULT_RIGHTS, Rights

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}\Z")
NONCE_CHARACTERS = 16
_CLUSTER_NAME = re.compile(rf"{NAME.pattern[:-2]}(~[0-9a-f]{{{NONCE_CHARACTERS}}})?\Z")
"""The name of a cluster. A nonce stands behind it once the cluster was recovered or restored."""
NAME_RULE = 'letters, digits, "_", "-" and ".", a letter or digit first, at most 32'

LOCALHOST = frozenset({"127.0.0.1", "::1"})


@attrs.frozen
class Address:
    """A host and a port. Two addresses are equal if hosts and ports are; ``name`` and ``family`` do not count.

    :ivar host: a name or an IP address.
    :ivar port: 1 to 65535.
    :ivar name: the name that the IP address was looked up from, and may be looked up from again; empty if there is
        none.
    :ivar family: which addresses of a name are preferred, ``"ipv4"`` or ``"ipv6"``.
    """

    host: str
    port: int
    name: str = attrs.field(default="", eq=False, repr=False)
    family: str = attrs.field(default="ipv4", eq=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``host:port`` or ``[IPv6]:port``.

        :raises ValueError: if ``text`` is neither, or the port is out of range.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if "%" in host:
                zone = host[host.index("%") :]
                raise ValueError(f"the zone {zone} is known to one machine only: use an address without a zone")
            IPv6Address(host)
        elif ":" in host:
            raise ValueError("an IPv6 address needs brackets, as in [::1]:4001")
        if not (colon and host and port.isascii() and port.isdigit()):
            raise ValueError("not host:port")
        digits = port.lstrip("0")
        if not (0 < len(digits) < 6 and int(digits) < 65536):
            raise ValueError(f"the port is {port[:20]}, and must be one of 1 to 65535")
        return cls(host, int(digits))

    @property
    def host_name(self) -> str:
        """The name of the host, empty if only an IP address is known."""
        return self.name or ("" if is_ip_address(self.host) else self.host)

    @property
    def written(self) -> str:
        """The address as text, with the name of the host if it has one, so that others look it up themselves."""
        return str(attrs.evolve(self, host=self.host_name or self.host))

    def look_up(self) -> list[Address]:
        """Look the host's name up, which blocks. Returns all addresses that it has now; an address without a name
        returns itself.

        :raises ConfigError: if the name cannot be resolved.
        """
        name = self.host_name or self.host
        return [self.at(host) for host in look_up(name, self.family)]

    def resolve(self) -> Address:
        """Look the host's name up, which blocks. Returns this address with the preferred IP address as host, in its
        canonical spelling.

        :raises ConfigError: if the name cannot be resolved.
        """
        return self.look_up()[0]

    def at(self, host: str) -> Address:
        """This address with the IP address ``host``, which is one of those of its name."""
        return attrs.evolve(self, host=host, name=self.host_name)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen
class Member:
    """The addresses of one node.

    :ivar address: where the other nodes reach it.
    :ivar client: where clients reach it.
    :ivar listen: where the node listens for other nodes, ``None`` if that is ``address``.
    :ivar client_listen: where the node listens for clients, ``None`` if that is ``client``.
    """

    address: Address
    client: Address
    listen: Address | None = None
    client_listen: Address | None = None

    @property
    def listens_at(self) -> Address:
        """Where the node listens for other nodes."""
        return self.listen or self.address

    @property
    def listens_for_clients_at(self) -> Address:
        """Where the node listens for clients."""
        return self.client_listen or self.client

    @property
    def addresses(self) -> list[tuple[str, Address]]:
        """The addresses that other nodes and clients use, each with its key in the cluster file."""
        return [("address", self.address), ("client", self.client)]


@attrs.frozen
class Cluster:
    """All nodes of a cluster.

    :ivar name: the cluster's name. Messages of a cluster with another name are refused.
    :ivar members: the :class:`Member` of each node id, in the order of the file.
    :ivar founding: the members that founded the cluster, in the order of the cluster file then; empty if these are
        ``members``.
    :ivar slot: the slot of the log at which ``members`` were chosen; 0 for those that founded the cluster.
    :ivar learners: the ids of those among the members that do not vote.
    :ivar rights: what clients may do, when keys are on.
    """

    name: str
    members: Mapping[str, Member]
    founding: Mapping[str, Member] = attrs.field(factory=dict, repr=False)
    slot: int = 0
    learners: tuple[str, ...] = attrs.field(default=(), repr=False)
    rights: Rights = attrs.field(default=DEFAULT_RIGHTS, repr=False)

    @property
    def founding_members(self) -> tuple[str, ...]:
        """The ids of the members that founded the cluster. They stay the same when members join and leave, and nodes
        with other founding members refuse each other."""
        return tuple(self.founding or self.members)

    def at_founding(self) -> Cluster:
        """The cluster as it was founded."""
        return Cluster(self.name, self.founding) if self.founding else self

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
        _only(data, {"cluster", "family", "nodes", "rights"}, "at the top")
        name = data.get("cluster")
        if not isinstance(name, str):
            raise ConfigError('needs cluster = "NAME" at the top')
        if not _CLUSTER_NAME.match(name):
            raise ConfigError(f"cluster = {_shown(name)} at the top cannot be a name: {NAME_RULE}")
        family = data.get("family", FAMILIES[0])
        if family not in FAMILIES:
            raise ConfigError(f'family = {_shown(family)} at the top: there are "ipv4" and "ipv6"')
        nodes = data.get("nodes")
        if not isinstance(nodes, dict) or not nodes:
            raise ConfigError("needs at least one [nodes.NAME] table")
        rights = Rights.parse(data["rights"], NAME) if "rights" in data else DEFAULT_RIGHTS
        cluster = cls(name, {node: _member(node, table, family) for node, table in nodes.items()}, rights=rights)
        cluster.check()
        return cluster

    def check(self) -> None:
        """Check that no address is given twice, and that the nodes can reach each other's addresses.

        :raises ConfigError: one line that names an address that is wrong.
        """
        for _, line in self.faults():
            raise ConfigError(line)

    def faults(self) -> Iterator[tuple[set[str], str]]:
        """The faults that :meth:`check` looks for: the nodes whose addresses are wrong, and a line that says why."""
        seen: dict[tuple[str, int], tuple[str, str, Address]] = {}
        for node, member in self.members.items():
            for key, address in member.addresses:
                spots = list(_spots(address))
                there = next((seen[spot] for spot in spots if spot in seen), None)
                if there is not None:
                    also = f"which is also the {there[0]} of node {there[1]}{_unlike(there[2], address)}"
                    yield {node, there[1]}, f"{key} of node {node} is {_both(address)}, {also}"
                seen.update((spot, (key, node, address)) for spot in spots)
        for key in ("address", "client"):
            yield from _loopback_faults({node: getattr(member, key) for node, member in self.members.items()}, key)

    def resolve(self) -> Cluster:
        """Look every host name up, which blocks. Returns the cluster with IP addresses. A name that cannot be resolved
        now is kept; nodes and clients look it up again when they need it.

        :raises ConfigError: if two addresses turn out to be the same, or some cannot be reached by the other nodes.
        """
        found: dict[Address, Address] = {}
        for _, address in (one for member in self.members.values() for one in member.addresses):
            try:
                found[address] = address.resolve()
            except ConfigError:
                found[address] = address
        members = {
            node: attrs.evolve(member, address=found[member.address], client=found[member.client])
            for node, member in self.members.items()
        }
        resolved = attrs.evolve(self, members=members)
        resolved.check()
        return resolved

    def dumps(self) -> str:
        """The text of a cluster file for this cluster."""
        head = f'cluster = "{self.name}"\n'
        if any(address.family != FAMILIES[0] for member in self.members.values() for _, address in member.addresses):
            head += f'family = "{FAMILIES[1]}"\n'
        tail = [] if self.rights == DEFAULT_RIGHTS else [self.rights.dumps()]
        return "\n".join([head, *(_dump(node, member) for node, member in self.members.items()), *tail])


def is_loopback(address: Address) -> bool | None:
    """Whether only its own machine can reach ``address``; ``None`` if that depends on a look-up of its name."""
    host = canonical_host(address.host)
    if is_ip_address(host):
        return ip_address(host).is_loopback
    return True if _is_localhost(host) else None


def loopback_line(key: str, inside: str, its: Address, outside: str, others: Address) -> str:
    """The line for a loopback address among other addresses: what is wrong, and what to do."""
    return (
        f"{key} of node {inside} is {_both(its)}, which only its own machine can reach, while that of node {outside} is"
        f" {_both(others)}: give {inside} an address that the others can reach (if its name is in /etc/hosts as a"
        " loopback address, correct that)"
    )


def _loopback_faults(addresses: Mapping[str, Address], key: str) -> Iterator[tuple[set[str], str]]:
    """The faults of loopback addresses. They are wrong if another node has no loopback address, and so runs on another
    machine."""
    kinds = {node: is_loopback(address) for node, address in addresses.items()}
    outside = next((node for node, kind in kinds.items() if kind is False), None)
    if outside is not None:
        for inside in (node for node, kind in kinds.items() if kind):
            yield {inside}, loopback_line(key, inside, addresses[inside], outside, addresses[outside])


def _both(address: Address) -> str:
    """An address as text, with the name that it was looked up from."""
    return f"{address.name}:{address.port} ({address})" if address.name else str(address)


def _unlike(one: Address, other: Address) -> str:
    """The text of ``one`` behind a comma, empty if it is that of ``other``."""
    return "" if _both(one) == _both(other) else f", {_both(one)}"


def _is_localhost(host: str) -> bool:
    return host == "localhost" or host.endswith(".localhost")


def _spots(address: Address) -> Iterator[tuple[str, int]]:
    """Every (host, port) that ``address`` stands for, without a look-up."""
    host = canonical_host(address.host)
    hosts: Iterable[str] = LOCALHOST if _is_localhost(host) else (host,)
    return product(hosts, (address.port,))


def _member(node: str, table: Any, family: str) -> Member:
    where = f"in [nodes.{node}]"
    if not NAME.match(node):
        raise ConfigError(f"{_shown(node)} cannot be a node: {NAME_RULE}")
    if not isinstance(table, dict):
        raise ConfigError(f"[nodes.{node}] must be a table with address and client")
    _only(table, {"address", "client", "listen", "client_listen"}, where)
    addresses = {}
    for key in ("address", "client", "listen", "client_listen"):
        text = table.get(key)
        if text is None and key.endswith("listen"):
            continue
        if not isinstance(text, str):
            raise ConfigError(f'needs {key} = "host:port" {where}')
        try:
            address = attrs.evolve(Address.parse(text), family=family)
            check_host(address.host, listens=key.endswith("listen"))
        except ValueError as error:
            raise ConfigError(f"{key} = {_shown(text)} {where}: {error}") from None
        addresses[key] = address
    return Member(**addresses)


def check_host(host: str, listens: bool) -> None:
    """Check that ``host`` can be the host of an address.

    :param listens: whether the address is only listened at, and need not be reachable.
    :raises ValueError: if it cannot."""
    host = canonical_host(host)
    if not is_ip_address(host):
        return
    ip: IPv4Address | IPv6Address = ip_address(host)
    if ip.is_unspecified and not listens:
        key = "listen"
        raise ValueError(
            f"{host} is where a node listens, not where others reach it: give the address that others use here, and"
            f' {key} = "..." or client_{key} = "..." beside it'
        )
    if ip.is_multicast or host == "255.255.255.255":
        raise ValueError("this is no address of a single machine")
    if ip.version == 6 and ip.is_link_local:
        raise ValueError("a link-local address needs a zone, and other machines do not know it: use another address")


def _dump(node: str, member: Member) -> str:
    lines = [f'[nodes."{node}"]', f'address = "{member.address}"', f'client = "{member.client}"']
    if member.listen is not None:
        lines.append(f'listen = "{member.listen}"')
    if member.client_listen is not None:
        lines.append(f'client_listen = "{member.client_listen}"')
    return "\n".join([*lines, ""])


def _shown(value: object) -> str:
    """A value of the cluster file, as one short line."""
    text = ascii(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _only(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(f"unknown key {_shown(key)} {where} (known: {', '.join(sorted(known))})")


ALONE = Cluster("alone", {"a": Member(Address("127.0.0.1", 4010), Address("127.0.0.1", 5010))})
"""A cluster of one node on this machine. Nodes and clients use it when no cluster file is given."""
