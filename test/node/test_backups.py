"""What a node gives to a client that makes a backup, part by part."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from test.helpers.folders import cluster_of, learned, start_node, value, write_folder
from txpaxos.errors import BackupOutdated, StoreError
from txpaxos.node import backups
from txpaxos.node.node import Node
from txpaxos.wire.client_messages import BackupHead

MEMBERS = ("a", "b", "c")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with a snapshot at slot 5, and the values of two slots behind it."""
    write_folder(tmp_path / "a", "a", [learned(6, 7)], members=MEMBERS, snapshot=(5, 15))
    return start_node(tmp_path / "a", "a", cluster_of(MEMBERS))


def head_of(node: Node) -> BackupHead:
    return msgspec.msgpack.decode(node.backup_part(0, 0).body, type=BackupHead)


def test_the_head(node: Node) -> None:
    snapshot = node._store.snapshot
    assert snapshot is not None
    members = {name: (f"127.0.0.1:{4000 + at}", f"127.0.0.1:{5000 + at}") for at, name in enumerate(MEMBERS)}
    assert head_of(node) == BackupHead("counter", "a", "txpaxos.counter:Counter", members, 5, snapshot.size_bytes, 7)
    node.stop()


def test_the_snapshot_in_parts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backups, "PART_BYTES", 10)
    head, parts = head_of(node), [b""]
    while len(parts) == 1 or parts[-1]:
        parts.append(node.backup_part(5, sum(map(len, parts))).body)
    assert max(map(len, parts)) == 10
    whole = b"".join(parts)
    assert len(whole) == head.snapshot_bytes
    assert node._store.snapshot is not None
    assert whole == node._store.snapshot.read(0, len(whole))
    assert node.backup_part(5, 2**63).body == b""
    node.stop()


def test_the_values_in_parts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def values(first_slot: int) -> list[bytes]:
        return msgspec.msgpack.decode(node.backup_part(0, first_slot).body, type=list[bytes])

    assert values(6) == [value(6), value(7)]
    monkeypatch.setattr(backups, "PART_BYTES", 10)
    assert values(6) == [value(6)]  # One at least.
    assert values(8) == values(2**63) == []
    node.stop()


def test_what_is_not_there_any_more(node: Node) -> None:
    with pytest.raises(BackupOutdated, match="node a has replaced its snapshot at slot 4 by newer ones"):
        node.backup_part(4, 0)
    with pytest.raises(BackupOutdated, match="the log of node a begins with slot 6 now"):
        node.backup_part(0, 5)
    node.stop()


def test_a_snapshot_that_cannot_be_read(node: Node) -> None:
    assert node._store.snapshot is not None
    Path(node._store.snapshot.path).unlink()
    with pytest.raises(StoreError, match="cannot read"):
        node.backup_part(5, 0)
    node.stop()


def test_newer_snapshots_are_rarer_while_one_is_fetched(node: Node) -> None:
    """As while another node fetches it, so that the file and the log behind it stay."""
    assert node._snapshots._fetches.count == 0
    node.backup_part(5, 0)
    assert node._snapshots._fetches.count == 1
    node.stop()
