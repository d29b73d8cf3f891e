"""What a data folder says of the cluster that its node belongs to, beside the log.

A node that joined has no cluster file. A founder has one, but who founded the cluster must not depend on a file that
people edit. So the folder says it, as soon as members have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from txpaxos.cluster import Address, Cluster, Member
from txpaxos.errors import ConfigError, StoreError
from txpaxos.rights import Rights
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import Addresses, Joined, MembershipFile, joined_folder
from txpaxos.wire.members import MembersEntry


class FolderMembership:
    """The membership of the node of one data folder.

    :ivar saved: what the folder says; ``None`` if the cluster file counts.
    :raises StoreError: if the folder has lost what the node promised, or cannot be read.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._file = MembershipFile(disk, directory)
        self.saved = joined_folder(disk, directory)
        if self.saved is not None and self.saved.has_started and not _exists(disk, f"{directory}/identity"):
            raise StoreError(
                f"{directory} has lost the records of node {self.saved.node}: put them back, or let the node join again"
                " with an empty folder, in place of the lost one"
            )

    def cluster(self, cluster: Cluster) -> Cluster:
        """The cluster of the node.

        The log and the owner may both say where the node is reached, and either may be older: a node that moves is
        stopped before, so its folder does not know its new address; and a cluster file may never be edited. So the
        folder has what the owner has given last, and the owner counts if that is another address now.

        :param cluster: the cluster as its cluster file, or its owner, says.
        :raises ConfigError: if an address in the folder is none.
        :raises StoreError: if a new address cannot be noted.
        """
        if self.saved is None:
            return cluster
        if not cluster.founding:
            self.note_rights(cluster.rights)
            own = cluster.members.get(self.saved.node)
            if own is not None:
                self._note_given(self.saved, (own.address.written, own.client.written))
        return cluster_of(self.saved, cluster)

    def _note_given(self, saved: Joined, given: tuple[str, str]) -> None:
        """Note what the owner says about where the node is reached."""
        if given == saved.given or saved.node not in saved.members:
            return
        moved = {saved.node: given} if any(saved.given) else {}
        self._save(attrs.evolve(saved, given=given, members={**saved.members, **moved}))

    def note_rights(self, rights: Rights) -> None:
        """Note what the owner says clients may do. So the node knows it when it is started without a cluster file.

        :raises StoreError: if that cannot be written."""
        if self.saved is not None and self.saved.rights != rights.as_lists():
            self._save(attrs.evolve(self.saved, rights=rights.as_lists()))

    def random_bytes(self, count: int) -> bytes:
        """The incarnation for a new store: the one with which the node has joined."""
        assert self.saved is not None
        return self.saved.incarnation.to_bytes(count, "little")

    def store_opened(self) -> None:
        """Note that the folder has a store. If it has none later, it was lost.

        :raises StoreError: if that cannot be written."""
        if self.saved is not None and not self.saved.has_started:
            self._save(attrs.evolve(self.saved, has_started=True))

    def note_members(
        self,
        node: str,
        incarnation: int,
        cluster: Cluster,
        members: Addresses,
        slot: int,
        learners: tuple[str, ...] = (),
    ) -> None:
        """Note who the members are, so that the node finds them when it starts again.

        :param cluster: the cluster as the node has known it so far.
        :param members: the members, chosen at ``slot``.
        :param learners: the ids of those among them that do not vote.
        :raises StoreError: if that cannot be written."""
        own, saved = cluster.members[node], self.saved
        self._save(
            Joined(
                node if saved is None else saved.name,
                incarnation,
                cluster.name,
                node,
                addresses_of(cluster.at_founding().members),
                members,
                slot,
                "" if own.listen is None else own.listen.written,
                "" if own.client_listen is None else own.client_listen.written,
                has_started=True,
                given=(own.address.written, own.client.written) if saved is None else saved.given,
                learners=learners,
                rights=cluster.rights.as_lists() if saved is None else saved.rights,
            )
        )

    def _save(self, membership: Joined) -> None:
        self._file.write(membership)
        self.saved = membership


def _exists(disk: Disk, path: str) -> bool:
    try:
        disk.inspect(path)
    except FileNotFoundError:
        return False
    return True


def addresses_of(members: Mapping[str, Member]) -> Addresses:
    """The addresses of ``members``, in their order."""
    return {node: (one.address.written, one.client.written) for node, one in members.items()}


def learners_of(entry: MembersEntry) -> tuple[str, ...]:
    """The ids of the members of ``entry`` that do not vote."""
    return tuple(node for node, one in entry.members.items() if one.role != "voter")


def cluster_of(joined: Joined, known: Cluster | None = None) -> Cluster:
    """The cluster as the folder of a member says.

    A dead member that this one replaces may have the same addresses. It is left out, since it is not there any more.

    :param known: the cluster as its cluster file says: it may say where the node listens, and what clients may do.
        Without it they may do what the folder says. That is nothing, once keys are on, in the folder of a node that
        joined before there were keys.
    :raises ConfigError: if the node is no member any more, or an address in the folder is none.
    """
    if joined.node not in joined.members:
        raise ConfigError(f"node {joined.node} is no member of cluster {joined.cluster} any more")
    try:
        own_addresses = joined.members[joined.node]
        members = _members(
            (node, addresses)
            for node, addresses in joined.members.items()
            if node == joined.node or not set(addresses) & set(own_addresses)
        )
        listen, client_listen = (
            Address.parse(text) if text else None for text in (joined.listen, joined.client_listen)
        )
        own = None if known is None else known.members.get(joined.node)
        if own is not None:
            listen, client_listen = own.listen, own.client_listen
        members[joined.node] = attrs.evolve(members[joined.node], listen=listen, client_listen=client_listen)
        rights = Rights.from_lists(joined.rights) if known is None else known.rights
        founding = _members(joined.founding.items())
        return Cluster(joined.cluster, members, founding, joined.slot, joined.learners, rights)
    except ValueError as error:
        raise ConfigError(f"the membership of node {joined.node} has an address that is none: {error}") from None


def _members(addresses: Iterable[tuple[str, tuple[str, str]]]) -> dict[str, Member]:
    return {node: Member(Address.parse(address), Address.parse(client)) for node, (address, client) in addresses}
