"""What the cluster file grants to clients."""

from __future__ import annotations

import pytest

from txpaxos.cluster import ALONE, Cluster
from txpaxos.rights import ALL_RIGHTS, DEFAULT_RIGHTS, NO_RIGHTS, Rights

NODE = 'cluster = "c"\n[nodes.a]\naddress = "127.0.0.1:1"\nclient = "127.0.0.1:2"\n'
TABLE = """
[rights]
shop = ["write", "read"]
operator = ["members", "status"]
"*" = ["status"]
anonymous = []
"""


def test_the_table_of_a_cluster_file() -> None:
    rights = Cluster.parse(NODE + TABLE).rights
    assert rights.of("shop") == {"read", "write", "status"}
    assert rights.of("operator") == {"members", "status"}
    assert rights.of("another") == {"status"}
    assert rights.of("") == set()


def test_what_is_written_is_read_again() -> None:
    cluster = Cluster.parse(NODE + TABLE)
    assert Cluster.parse(cluster.dumps()) == cluster
    assert "[rights]" not in ALONE.dumps()
    nothing = Cluster.parse(NODE + "[rights]\n")
    assert nothing.rights == NO_RIGHTS
    assert Cluster.parse(nothing.dumps()) == nothing


def test_without_a_table_each_client_that_has_shown_who_it_is_may_do_everything() -> None:
    assert Cluster.parse(NODE).rights == ALONE.rights == DEFAULT_RIGHTS
    assert DEFAULT_RIGHTS.of("shop") == {*ALL_RIGHTS}
    assert DEFAULT_RIGHTS.of("") == set()


@pytest.mark.parametrize("name", ["", "shop", "anonymous", "*"])
def test_what_is_granted_to_all_clients_is_granted_to_each(name: str) -> None:
    assert Rights({"anonymous": frozenset({"read"})}).of(name) == {"read"}


def test_a_client_cannot_be_called_so_that_it_is_no_client() -> None:
    """An empty name never has what is granted to those that have shown who they are."""
    assert Rights({"*": frozenset({"read"}), "": frozenset({"write"})}).of("") == set()
