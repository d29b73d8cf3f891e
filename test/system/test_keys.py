"""From nothing to a cluster with keys, and to a new authority: the commands of ``docs/keys.rst``, with real nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.cli_nodes import Nodes, txpaxos
from txpaxos.cli import main

NODES = ("a", "b", "c")
EVERYONE = [f"{name}.keys" for name in (*NODES, "alice")]
SECONDS_MAX = 60.0
LOADED = "uses its keys of"


def keys(*arguments: str) -> None:
    done = CliRunner().invoke(main, ["keys", *arguments], prog_name="txpaxos")
    assert (done.exit_code, done.stderr) == (0, "")


class Secured:
    """Three nodes with keys, and the client alice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = Nodes(folder, *NODES, options=("--keys", "{node}.keys"))
        self.total = 0

    def submit(self, keys: str = "alice.keys") -> None:
        """Add one. That it was added once, and to all that was added before, is what the answer says."""
        self.total += 1
        done = txpaxos("submit", "+1", "--keys", keys, folder=self.folder)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"%d\n" % self.total, b"")

    def refused(self, *options: str) -> str:
        """The one line for a client that is not let in."""
        done = txpaxos("submit", "+1", "--timeout", "3", *options, folder=self.folder)
        assert (done.returncode, done.stdout) == (1, b"")
        (line,) = done.stderr.decode().splitlines()
        return line

    def ballots(self) -> set[str]:
        """The ballot in which each node is led."""
        done = txpaxos("status", "--json", "--keys", "alice.keys", folder=self.folder)
        return {str(one["ballot"]) for one in json.loads(done.stdout)["nodes"].values()}

    def logs(self) -> str:
        return "".join((self.folder / f"{name}.log").read_text() for name in NODES)

    def reload(self) -> None:
        """Have each node load its keys anew, one after the other, with commands meanwhile."""
        for name in NODES:
            loaded = self.logs().count(LOADED)
            os.kill(self.nodes.processes[name].pid, signal.SIGHUP)
            give_up_at = time.monotonic() + SECONDS_MAX
            self.submit()
            while self.logs().count(LOADED) == loaded:
                assert time.monotonic() < give_up_at, self.logs()
                self.submit()


@pytest.fixture
def secured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Secured]:
    monkeypatch.chdir(tmp_path)
    keys("init")
    keys("node", *NODES)
    keys("client", "alice")
    secured = Secured(tmp_path)
    try:
        for name in NODES:
            secured.nodes.start(name)
        monkeypatch.setenv("TXPAXOS_KEYS", "alice.keys")
        secured.nodes.wait_for_leader()
        monkeypatch.delenv("TXPAXOS_KEYS")
        yield secured
    finally:
        for name in list(secured.nodes.processes):
            secured.nodes.kill(name)
    assert "Traceback" not in secured.logs()
    assert "PRIVATE" not in secured.logs()


def test_from_nothing(secured: Secured) -> None:
    secured.submit()
    assert secured.refused().startswith("txpaxos: ")
    keys("client", "alice", "--authority", "authority", "--folder", "other.keys")
    secured.submit("other.keys")
    keys("init", "strangers")
    keys("client", "alice", "--authority", "strangers", "--folder", "stranger.keys")
    shutil.copy("alice.keys/nodes.pem", "stranger.keys/nodes.pem")
    assert "unknown authority" in secured.refused("--keys", "stranger.keys")
    secured.submit()


def test_the_authority_rotates_while_all_run(secured: Secured) -> None:
    """Each command is answered, and the leader stays. At the end what the old authority has signed counts no more."""
    secured.submit()
    before = secured.ballots()
    keys("rotate", "begin")
    keys("update", *EVERYONE)
    secured.reload()
    keys("rotate", "issue")
    keys("renew", *EVERYONE)
    secured.reload()
    secured.submit("alice.keys.before")
    keys("rotate", "end")
    keys("update", *EVERYONE)
    secured.reload()
    assert "unknown authority" in secured.refused("--keys", "alice.keys.before")
    assert secured.ballots() == before
    secured.submit()


def test_a_client_is_revoked(secured: Secured) -> None:
    keys("client", "bob")
    secured.submit("bob.keys")
    keys("revoke", "bob")
    keys("update", *EVERYONE)
    secured.reload()
    assert "our certificate was revoked" in secured.refused("--keys", "bob.keys")
    secured.submit()
