"""From nothing to a cluster with keys: the commands of ``docs/keys.rst``, by real processes on real sockets."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.helpers.cli_nodes import Nodes, txpaxos


def keys(folder: Path, *arguments: str) -> None:
    done = txpaxos("keys", *arguments, folder=folder)
    assert (done.returncode, done.stderr) == (0, b"")


def test_from_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys(tmp_path, "init")
    keys(tmp_path, "node", "a", "b", "c")
    keys(tmp_path, "client", "alice")
    monkeypatch.setenv("TXPAXOS_KEYS", "alice.keys")
    nodes = Nodes(tmp_path, "a", "b", "c", options=("--keys", "{node}.keys"))
    try:
        for name in ("a", "b", "c"):
            nodes.start(name)
        nodes.wait_for_leader()
        done = txpaxos("submit", "+5", folder=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"5\n", b"")
        monkeypatch.delenv("TXPAXOS_KEYS")
        done = txpaxos("submit", "+5", "--timeout", "3", folder=tmp_path)
        assert (done.returncode, done.stdout) == (1, b"")
        assert len(done.stderr.splitlines()) == 1
        done = txpaxos("read", "", "--keys", "alice.keys", folder=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"5\n")
    finally:
        for name in list(nodes.processes):
            nodes.kill(name)
    logs = "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert "Traceback" not in logs
    assert "PRIVATE" not in logs
