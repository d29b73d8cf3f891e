"""Five real nodes, of which three are lost for ever: the two folders that are left become a cluster of their own."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from test.helpers.cli_nodes import START_SECONDS_MAX, Nodes, txpaxos
from txpaxos.cli import main
from txpaxos.cluster import Cluster

RECOVERY_SECONDS_MAX = 60.0
"""How long it may take from the command until clients are served."""


def status_once_logged(log: Path, text: str) -> Any:
    """Ask for the status until there is a line with ``text`` in ``log``. Each question takes a moment."""
    give_up_at = time.monotonic() + START_SECONDS_MAX
    while True:
        is_logged = text in log.read_text()
        status = json.loads(txpaxos("status", "--json", folder=log.parent).stdout)
        if is_logged:
            return status
        assert time.monotonic() < give_up_at, log.read_text()


def recover(*options: str) -> str:
    arguments = ["recover", "a", "b", "--keep", "a,b", "--lose", "c,d,e", "--cluster", "cluster.toml", *options]
    done = CliRunner().invoke(main, arguments)
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


def test_two_of_five_folders_make_a_cluster_and_a_returning_member_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    nodes = Nodes(tmp_path, *"abcde")
    try:
        for node in "abcde":
            nodes.start(node)
        nodes.wait_for_leader()
        assert txpaxos("submit", "+55", folder=tmp_path).stdout == b"55\n"
        for node in "abcde":
            nodes.kill(node)

        began_at = time.monotonic()
        assert "Nothing was changed." in recover()
        assert "recovered.toml is the new cluster file." in recover(
            "--accept-loss", "--write-cluster", "recovered.toml"
        )
        old = (tmp_path / "cluster.toml").rename(tmp_path / "old.toml")
        (tmp_path / "recovered.toml").rename(tmp_path / "cluster.toml")
        for node in "ab":
            nodes.start(node)
        nodes.wait_for_leader()
        assert txpaxos("submit", "+1", folder=tmp_path).stdout == b"56\n"
        seconds = time.monotonic() - began_at
        print(f"served {seconds:.1f} s after the command")
        assert seconds < RECOVERY_SECONDS_MAX

        assert_returning_member_is_refused(nodes, old)
    finally:
        for node in list(nodes.processes):
            nodes.kill(node)


def assert_returning_member_is_refused(nodes: Nodes, old: Path) -> None:
    """c comes back as it was, with the ``old`` cluster file. It is told in one line, and counted where it is refused.
    With the new cluster file it does not start, not even where that names it again."""
    folder = nodes.folder
    (folder / "c.log").write_text("")
    nodes.start("c", old.name)
    status = status_once_logged(folder / "c.log", "message of another cluster")
    assert status["nodes"]["a"]["counters"]["bad_datagram"] > 0
    assert status["cluster"] == Cluster.load("cluster.toml").name
    nodes.kill("c")
    lines = [line for line in (folder / "c.log").read_text().splitlines() if "the address of node a " in line]
    assert len(lines) == 1
    assert "node c of cluster test does not take what comes from" in lines[0]

    assert "c is not in the cluster" in start_error(nodes, folder, "cluster.toml")
    again = Cluster.load("cluster.toml")
    members = {**again.members, "c": nodes.cluster.members["c"]}
    (folder / "again.toml").write_text(Cluster(again.name, members).dumps())
    assert f"belongs to node 'c' of cluster 'test', not to node 'c' of cluster '{again.name}'" in start_error(
        nodes, folder, "again.toml"
    )


def start_error(nodes: Nodes, folder: Path, file: str) -> str:
    """The last line of node c, which does not start with the cluster file ``file``."""
    (folder / "c.log").write_text("")
    nodes.start("c", file)
    process = nodes.processes.pop("c")
    process.communicate(timeout=START_SECONDS_MAX)
    assert process.returncode == 1
    return (folder / "c.log").read_text().splitlines()[-1]
