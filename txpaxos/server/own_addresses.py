"""Where a node listens: at all addresses of its own name that its machine has, unless the cluster file says otherwise.

Names of other nodes may be unknown, or lead to the wrong place: they are looked up again later. What is wrong with the
node's own, or with both together, keeps it from starting.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import TypeAlias

import attrs

from txpaxos.cluster import Address, Cluster, Member, is_loopback, loopback_line
from txpaxos.errors import ConfigError
from txpaxos.host_names import canonical_host, look_up_together

LOOK_UP_SECONDS = 1.0
"""How long a start waits for the names of peers to be looked up. It goes on without them, and they are looked up again;
but what it learns here in time it can check."""

Known: TypeAlias = dict[tuple[str, str], list[str]]
"""Names, each with the family that comes first, and their addresses."""


@attrs.frozen
class OwnAddresses:
    """What :func:`find_own_addresses` has found.

    :ivar cluster: the cluster, with the addresses that its names have now, as far as they are known in time.
    :ivar at: where the node listens for its peers.
    :ivar clients_at: where it listens for clients.
    :ivar warnings: what is wrong with the addresses of others.
    """

    cluster: Cluster
    at: list[Address]
    clients_at: list[Address]
    warnings: list[str]

    def check_free(self) -> None:
        """Before anything is opened: are all ports free?

        :raises ConfigError: if one is not.
        """
        for address in self.at:
            _check_free(address, socket.SOCK_DGRAM)
            if len(self.cluster.members) > 1:
                _check_free(address, socket.SOCK_STREAM)
        for address in self.clients_at:
            _check_free(address, socket.SOCK_STREAM)


def find_own_addresses(cluster: Cluster, node: str) -> OwnAddresses:
    """Look up where ``node`` listens, and where the others are.

    :raises ConfigError: if there is no such node, a name that it listens at is not known, or one of its addresses
        cannot work.
    """
    if node not in cluster.members:
        raise ConfigError(f"there is no node {node}: its nodes are {', '.join(cluster.members)}")
    own = cluster.members[node]
    known = look_up_together({one for member in cluster.members.values() for one in _names(member)}, LOOK_UP_SECONDS)
    members = {
        name: member if name == node and own.listen else _at(member, known) for name, member in cluster.members.items()
    }
    at = _own_addresses("address", node, members, known)
    clients_at = _own_addresses("client", node, members, known)
    if own.listen is None:
        members[node] = attrs.evolve(members[node], address=at[0])
    else:
        members[node] = attrs.evolve(members[node], listen=at[0])
    found, warnings = attrs.evolve(cluster, members=members), []
    for culprits, line in found.faults():
        if node in culprits:
            raise ConfigError(line)
        warnings.append(line)
    return OwnAddresses(found, at, clients_at, warnings)


def _names(member: Member) -> Iterable[tuple[str, str]]:
    """The names that a node's peers need to know, each with the family that comes first."""
    for address in (member.address, member.client):
        if address.host_name:
            yield address.host_name, address.family


def _at(member: Member, known: Known) -> Member:
    """The same with an IP address for the name of its address, where it is known."""
    address = member.address
    hosts = known.get((address.host_name, address.family))
    return attrs.evolve(member, address=address.at(hosts[0])) if hosts else member


def _own_addresses(key: str, node: str, members: dict[str, Member], known: Known) -> list[Address]:
    """Where ``node`` listens: at all addresses of its name that this machine has.

    :param key: ``"address"`` or ``"client"``.
    :raises ConfigError: if that is nowhere, or where the others cannot reach it.
    """
    listen: Address | None = getattr(members[node], "listen" if key == "address" else "client_listen")
    address: Address = listen or getattr(members[node], key)
    if not address.host_name:
        hosts = [canonical_host(address.host)]
    else:
        hosts = known.get((address.host_name, address.family)) or [one.host for one in address.look_up()]
    if listen is None:
        hosts = _reachable(key, node, address, hosts, members, known)
    here = [host for host in hosts if _is_ours(host)]
    if not here:
        other = "listen" if key == "address" else "client_listen"
        its = describe_address(address, [address.at(host) for host in hosts])
        raise ConfigError(
            f"{key} of node {node} is {its}, which this machine does not have: correct it, or give {other} = "
            '"..." beside it, an address that it has'
        )
    return [address.at(host) for host in here]


def _reachable(
    key: str, node: str, address: Address, hosts: list[str], members: dict[str, Member], known: Known
) -> list[str]:
    """Of its own ``hosts`` those that the others can reach: no loopback address, if any of theirs is none."""
    others: dict[str, Address] = {}
    for name, member in members.items():
        other: Address = getattr(member, key)
        if name != node:
            others[name] = other.at(known.get((other.host_name, other.family), [other.host])[0])
    outside = next((name for name, other in others.items() if is_loopback(other) is False), None)
    if outside is None:
        return hosts
    reachable = [host for host in hosts if not is_loopback(address.at(host))]
    if not reachable:
        raise ConfigError(loopback_line(key, node, address.at(hosts[0]), outside, others[outside]))
    return reachable


def _is_ours(host: str) -> bool:
    """Whether this machine has the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _check_free(address: Address, kind: socket.SocketKind) -> None:
    """Before anything is opened: is this port free?

    :raises ConfigError: if not.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            way = "TCP" if kind is socket.SOCK_STREAM else "UDP"
            whose = "does this node run already, or another program there?"
            raise ConfigError(f"Couldn't listen on {address} ({way}): {error.strerror}; {whose}") from None


def describe_address(address: Address, at: list[Address]) -> str:
    """``address`` as the cluster file has it, and in brackets the addresses that it stands for, where they differ."""
    name = f"{address.host_name}:{address.port}" if address.host_name else str(address)
    places = ", ".join(map(str, at))
    return name if places == name else f"{name} ({places})"
