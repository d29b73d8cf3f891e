"""The addresses at which a node listens: all addresses of its own name that its machine has, unless the cluster file
gives others.

A name of another node may be unknown or wrong at the start, since it is looked up again later. A fault of the node's
own addresses, or of its own together with another node's, keeps the node from starting.
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
"""How long a start waits for the names of peers to be looked up. Addresses that are known in time are checked. The
node starts without the others, which are looked up again later."""

Known: TypeAlias = dict[tuple[str, str], list[str]]
"""The IP addresses of names, by name and preferred family."""


@attrs.frozen
class OwnAddresses:
    """The result of :func:`find_own_addresses`.

    :ivar cluster: the cluster, with the IP addresses of the names that were resolved in time.
    :ivar peers_at: the addresses at which the node listens for its peers.
    :ivar clients_at: the addresses at which it listens for clients.
    :ivar warnings: the faults of other nodes' addresses, a line each.
    """

    cluster: Cluster
    peers_at: list[Address]
    clients_at: list[Address]
    warnings: list[str]

    def check_free(self) -> None:
        """Check that all ports are free. Call it before anything is opened.

        :raises ConfigError: if one is not free.
        """
        for address in self.peers_at:
            check_free(address, socket.SOCK_DGRAM)
            check_free(address, socket.SOCK_STREAM)
        for address in self.clients_at:
            check_free(address, socket.SOCK_STREAM)


def find_own_addresses(cluster: Cluster, node: str) -> OwnAddresses:
    """Find the addresses at which ``node`` listens, and look up those of the other nodes. Blocks for the look-ups.

    :raises ConfigError: if there is no such node, if a name at which it listens cannot be resolved, or if one of its
        addresses is wrong.
    """
    if node not in cluster.members:
        raise ConfigError(f"there is no node {node}: its nodes are {', '.join(cluster.members)}")
    own = cluster.members[node]
    known = look_up_together({one for member in cluster.members.values() for one in _names(member)}, LOOK_UP_SECONDS)
    members = {
        name: member if name == node and own.listen else _at(member, known) for name, member in cluster.members.items()
    }
    peers_at = _own_addresses("address", node, members, known)
    clients_at = _own_addresses("client", node, members, known)
    if own.listen is None:
        members[node] = attrs.evolve(members[node], address=peers_at[0])
    else:
        members[node] = attrs.evolve(members[node], listen=peers_at[0])
    found, warnings = attrs.evolve(cluster, members=members), []
    for culprits, line in found.faults():
        if node in culprits:
            raise ConfigError(line)
        warnings.append(line)
    return OwnAddresses(found, peers_at, clients_at, warnings)


def _names(member: Member) -> Iterable[tuple[str, str]]:
    """The names in a node's addresses, each with its preferred family."""
    for address in (member.address, member.client):
        if address.host_name:
            yield address.host_name, address.family


def _at(member: Member, known: Known) -> Member:
    """``member`` with the IP address of the name in its address, if that is known."""
    address = member.address
    hosts = known.get((address.host_name, address.family))
    return attrs.evolve(member, address=address.at(hosts[0])) if hosts else member


def _own_addresses(key: str, node: str, members: dict[str, Member], known: Known) -> list[Address]:
    """The addresses at which ``node`` listens: all addresses of its name that this machine has.

    :param key: ``"address"`` (for peers) or ``"client"`` (for clients).
    :raises ConfigError: if there are none, or if other nodes cannot reach them.
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
            f"{key} of node {node} is {its}, which this machine does not have: correct it, or add {other} = "
            '"..." with an address that the machine has'
        )
    return [address.at(host) for host in here]


def _reachable(
    key: str, node: str, address: Address, hosts: list[str], members: dict[str, Member], known: Known
) -> list[str]:
    """Those of the node's own ``hosts`` that other nodes can reach: if one of them runs on another machine, all but the
    loopback addresses.

    :raises ConfigError: if there are none."""
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
    """Whether this machine has the IP address ``host``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def check_free(address: Address, kind: socket.SocketKind) -> None:
    """Check that a port is free.

    :raises ConfigError: if it is not.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
            advice = "does this node run already, or does another program use the port?"
            raise ConfigError(f"Couldn't listen on {address} ({protocol}): {error.strerror}; {advice}") from None


def describe_address(address: Address, at: list[Address]) -> str:
    """``address`` as the cluster file has it, with the addresses ``at`` which it is in brackets, where they differ."""
    name = f"{address.host_name}:{address.port}" if address.host_name else str(address)
    addresses = ", ".join(map(str, at))
    return name if addresses == name else f"{name} ({addresses})"
