"""A backup of three real nodes, made while clients write, becomes the state of another cluster."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from test.helpers.cli_nodes import TXPAXOS, Nodes, txpaxos
from txpaxos.recovery.backup_file import read_backup

SMALL_SNAPSHOTS = ("--snapshot-log-bytes", "4096")


@contextmanager
def led(nodes: Nodes, names: str) -> Iterator[Nodes]:
    try:
        for node in names:
            nodes.start(node)
        nodes.wait_for_leader()
        yield nodes
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def count(folder: Path, amounts: range) -> int:
    """The total after some increments, all by one client."""
    program = (
        "import sys; from twisted.internet.task import react; from txpaxos import Client, Cluster\n"
        "async def main(reactor):\n"
        "    client = Client(reactor, Cluster.load('cluster.toml'))\n"
        f"    for amount in range({amounts.start}, {amounts.stop}):\n"
        "        total = await client.submit(b'+%d' % amount)\n"
        "    print(total)\n"
        "    client.close()\n"
        "from twisted.internet.defer import ensureDeferred\n"
        "react(lambda reactor: ensureDeferred(main(reactor)))\n"
    )
    done = subprocess.run([TXPAXOS[0], "-c", program], cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_backup_becomes_the_state_of_another_cluster(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    with led(Nodes(old, *"abc", options=SMALL_SNAPSHOTS), "abc"):
        total = count(old, range(1, 101))
        made = txpaxos("backup", "../counter.backup", "--json", folder=old)
        assert (made.returncode, made.stderr) == (0, b"")
    report = json.loads(made.stdout)
    assert report["snapshot_slot"] > 0
    backup = read_backup(str(tmp_path / "counter.backup"))
    assert backup.digest == report["checksum"]
    assert [*backup.head.members] == ["a", "b", "c"]

    nodes = Nodes(new, *"abc", cluster="other")
    for node in "ab":
        arguments = ["restore", "../counter.backup", "--node", node, "--data-dir", node]
        done = txpaxos(*arguments, folder=new)
        assert (done.returncode, done.stderr) == (0, b"")
    with led(nodes, "abc"):
        assert txpaxos("submit", "+1", folder=new).stdout == b"%d\n" % (total + 1)
        status = json.loads(txpaxos("status", "--json", folder=new).stdout)
        assert status["nodes"]["c"]["applied_through"] > backup.head.through
