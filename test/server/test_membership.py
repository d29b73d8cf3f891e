"""What a data folder says of the cluster that its node belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from test.helpers.fakes import THREE
from test.storage.test_membership import JOINED
from txpaxos.cluster import ALONE, Address, Cluster, Member
from txpaxos.errors import ConfigError, StoreError
from txpaxos.rights import DEFAULT_RIGHTS, NO_RIGHTS, Rights
from txpaxos.server.membership import FolderMembership, cluster_of
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import Joined, MembershipFile
from txpaxos.storage.store import DiskStore

LISTENING = attrs.evolve(JOINED, listen="0.0.0.0:7", client_listen="0.0.0.0:8")


def joined(folder: Path, membership: Joined = JOINED) -> FolderMembership:
    MembershipFile(Disk(), str(folder)).write(membership)
    return FolderMembership(Disk(), str(folder))


def test_without_a_file_the_cluster_file_counts(tmp_path: Path) -> None:
    membership = FolderMembership(Disk(), str(tmp_path))
    membership.store_opened()
    assert membership.cluster(THREE) is THREE
    assert list(tmp_path.iterdir()) == []


def test_the_cluster_of_a_node_that_has_joined(tmp_path: Path) -> None:
    a, d = Member(Address("a", 1), Address("a", 2)), Member(Address("d", 1), Address("d", 2))
    expected = Cluster("town", {"a": a, "d~2": d}, {"a": a}, 40, rights=THREE.rights)
    cluster = joined(tmp_path).cluster(THREE)
    assert cluster == expected
    assert cluster_of(JOINED) == attrs.evolve(expected, rights=NO_RIGHTS)
    assert cluster.founding_members == ("a",)
    assert cluster.at_founding() == Cluster("town", {"a": a})


def test_a_node_may_have_the_addresses_of_the_one_that_it_replaces() -> None:
    members = {"a": ("a:1", "a:2"), "d": ("d:1", "d:3"), "c": ("c:1", "d:2"), "d~2": ("d:1", "d:2")}
    assert list(cluster_of(attrs.evolve(JOINED, members=members)).members) == ["a", "d~2"]


def test_where_it_listens_is_said_by_the_folder_or_by_the_cluster_file() -> None:
    own = cluster_of(LISTENING).members["d~2"]
    assert (own.listens_at, own.listens_for_clients_at) == (Address("0.0.0.0", 7), Address("0.0.0.0", 8))
    listed = Member(Address("d", 1), Address("d", 2), listen=Address("::", 9))
    own = cluster_of(LISTENING, Cluster("town", {"d~2": listed})).members["d~2"]
    assert (own.listens_at, own.listens_for_clients_at) == (Address("::", 9), Address("d", 2))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"members": {"a": ("a:1", "a:2")}}, "node d~2 is no member of cluster town any more"),
        ({"founding": {"a": ("a", "a:2")}}, "the membership of node d~2 has an address that is none: not host:port"),
    ],
)
def test_a_membership_that_cannot_be_used(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        cluster_of(attrs.evolve(JOINED, **changes))


def test_the_store_of_a_node_that_has_joined_has_its_incarnation(tmp_path: Path) -> None:
    membership = joined(tmp_path)
    store = DiskStore(tmp_path, "town", "d~2", random_bytes=membership.random_bytes)
    assert store.incarnation == 5
    membership.store_opened()
    store.close()
    again = FolderMembership(Disk(), str(tmp_path))
    assert again.saved == attrs.evolve(JOINED, has_started=True)
    again.store_opened()


def test_a_store_that_was_lost_is_not_made_again(tmp_path: Path) -> None:
    joined(tmp_path).store_opened()
    with pytest.raises(
        StoreError, match=r"has lost the records of node d~2: put them back, or let the node join again"
    ):
        FolderMembership(Disk(), str(tmp_path))


def test_members_that_have_changed_are_noted(tmp_path: Path) -> None:
    """Also by a founder: its cluster file may be edited later."""
    three = attrs.evolve(
        THREE,
        members={
            **THREE.members,
            "b": Member(Address("10.0.0.2", 4000, "nb"), Address("nb", 5000), Address("::", 1), Address("::", 2)),
        },
    )
    members = {"b": ("nb:4000", "nb:5000"), "d": ("d:1", "d:2")}
    membership = FolderMembership(Disk(), str(tmp_path))
    membership.note_members("b", 3, three, members, 17)
    (tmp_path / "identity").touch()
    saved = FolderMembership(Disk(), str(tmp_path)).saved
    assert saved == membership.saved
    assert saved is not None
    assert (saved.name, saved.node, saved.incarnation, saved.members, saved.slot) == ("b", "b", 3, members, 17)
    assert list(saved.founding.items()) == [
        ("a", ("10.0.0.1:4000", "10.0.0.1:5000")),
        ("b", ("nb:4000", "nb:5000")),
        ("c", ("10.0.0.3:4000", "10.0.0.3:5000")),
    ]
    assert (saved.listen, saved.client_listen) == ("[::]:1", "[::]:2")
    assert saved.given == ("nb:4000", "nb:5000")


GIVEN = attrs.evolve(JOINED, given=("d:1", "d:2"))


def d_at(host: str) -> Cluster:
    """A cluster file with node d~2 at ``host``."""
    return Cluster("town", {"d~2": Member(Address(host, 1), Address(host, 2))})


def address_at(membership: FolderMembership, cluster: Cluster) -> str:
    return membership.cluster(cluster).members["d~2"].address.host


def test_a_node_that_was_moved_while_it_was_down_starts_where_its_owner_says(tmp_path: Path) -> None:
    assert address_at(joined(tmp_path, GIVEN), d_at("elsewhere")) == "elsewhere"
    again = FolderMembership(Disk(), str(tmp_path))  # The node was killed before it learned that it has moved.
    assert address_at(again, d_at("elsewhere")) == "elsewhere"
    assert address_at(again, cluster_of(again.saved or JOINED)) == "elsewhere"


def test_a_node_that_was_moved_while_it_ran_needs_no_new_cluster_file(tmp_path: Path) -> None:
    membership = joined(tmp_path, GIVEN)
    assert address_at(membership, d_at("d")) == "d"
    moved = {**JOINED.members, "d~2": ("elsewhere:1", "elsewhere:2")}
    membership.note_members("d~2", 5, membership.cluster(d_at("d")), moved, 50)
    assert address_at(membership, d_at("d")) == "elsewhere"  # The same file as before says nothing new.
    assert address_at(membership, d_at("third")) == "third"
    assert address_at(membership, d_at("d")) == "d"


def test_of_an_older_folder_it_is_not_known_what_its_owner_has_given(tmp_path: Path) -> None:
    membership = joined(tmp_path)
    assert address_at(membership, d_at("elsewhere")) == "d"
    assert address_at(membership, d_at("third")) == "third"


def test_the_name_of_a_node_that_has_joined_stays(tmp_path: Path) -> None:
    membership = joined(tmp_path)
    membership.note_members("d~2", 5, membership.cluster(THREE), {"d~2": ("d:1", "d:2")}, 50)
    members = {"d~2": ("d:1", "d:2")}
    noted = attrs.evolve(JOINED, members=members, slot=50, has_started=True, rights=THREE.rights.as_lists())
    assert membership.saved == noted


def test_a_folder_grants_what_the_node_was_told_and_a_cluster_file_counts_before_it() -> None:
    assert cluster_of(JOINED).rights == NO_RIGHTS  # It was told nothing, and the others may grant less than all.
    told = attrs.evolve(JOINED, rights={"shop": ("read", "write")})
    assert cluster_of(told).rights == Rights({"shop": frozenset({"read", "write"})})
    assert cluster_of(told, ALONE).rights == DEFAULT_RIGHTS


def test_the_rights_in_a_cluster_file_count_when_the_node_starts_without_it(tmp_path: Path) -> None:
    rights = Rights({"shop": frozenset({"read"}), "*": frozenset()})
    membership = joined(tmp_path)
    cluster = membership.cluster(attrs.evolve(THREE, rights=rights))
    again = FolderMembership(Disk(), str(tmp_path))
    assert again.saved is not None
    assert again.cluster(cluster_of(again.saved)).rights == rights
    again.note_members("d~2", 5, cluster, {"d~2": ("d:1", "d:2")}, 50)
    assert again.saved.rights == rights.as_lists()


def test_a_founder_notes_its_rights_with_the_members(tmp_path: Path) -> None:
    membership = FolderMembership(Disk(), str(tmp_path))
    cluster = attrs.evolve(THREE, rights=Rights({"shop": frozenset({"read"})}))
    membership.note_rights(cluster.rights)
    assert membership.saved is None
    membership.note_members("a", 5, cluster, {"a": ("a:1", "a:2")}, 50)
    assert membership.saved is not None
    assert membership.saved.rights == {"shop": ("read",)}
