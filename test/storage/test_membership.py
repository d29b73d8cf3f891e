"""The file that says which cluster the node of a data folder has joined."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from txpaxos.errors import StoreError
from txpaxos.storage.disk import Disk
from txpaxos.storage.membership import Joined, Joining, MembershipFile, joined_folder

JOINED = Joined("d", 5, "town", "d~2", {"a": ("a:1", "a:2")}, {"a": ("a:1", "a:2"), "d~2": ("d:1", "d:2")}, 40)


def test_there_is_none_at_first_and_then_the_last(tmp_path: Path) -> None:
    file = MembershipFile(Disk(), str(tmp_path))
    assert file.read() is None
    for membership in (Joining("d", 5), JOINED, attrs.evolve(JOINED, listen="0.0.0.0:1", has_started=True)):
        file.write(membership)
        assert MembershipFile(Disk(), str(tmp_path)).read() == membership


@pytest.mark.parametrize("payload", [b"", b"\x01", b"\x02\x80", b"\x07\x80"])
def test_one_that_is_no_membership_is_refused(tmp_path: Path, payload: bytes) -> None:
    file = MembershipFile(Disk(), str(tmp_path))
    file.read()
    file._file.write(payload)
    with pytest.raises(StoreError, match=r"membership.*this is no membership"):
        MembershipFile(Disk(), str(tmp_path)).read()


def test_the_folder_of_a_node_that_has_joined(tmp_path: Path) -> None:
    folder = str(tmp_path / "d")
    assert joined_folder(Disk(), folder) is None
    (tmp_path / "d").mkdir()
    assert joined_folder(Disk(), folder) is None
    MembershipFile(Disk(), folder).write(JOINED)
    assert joined_folder(Disk(), folder) == JOINED


def test_the_folder_of_a_node_that_was_stopped_while_it_joined(tmp_path: Path) -> None:
    MembershipFile(Disk(), str(tmp_path)).write(Joining("d", 5))
    with pytest.raises(StoreError, match=r"node d was stopped while it joined a cluster with .*: start it with --join"):
        joined_folder(Disk(), str(tmp_path))
