"""From nothing to a cluster with keys, and to a new authority: the commands of ``docs/keys.rst``, with real nodes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("OpenSSL", reason="pip install 'txpaxos[test]'")

from test.helpers.cli_nodes import Nodes, running, txpaxos
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

    def reloaded(self, *options: str, keys: str = "alice.keys", status: int = 0) -> list[str]:
        """The lines of ``txpaxos keys reload``."""
        done = txpaxos("keys", "reload", "--keys", keys, *options, folder=self.folder)
        assert (done.returncode, done.stderr) == (status, b"")
        return done.stdout.decode().splitlines()


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
    assert [line.partition(":")[0] for line in secured.reloaded()] == [*NODES]
    assert "our certificate was revoked" in secured.refused("--keys", "bob.keys")
    secured.submit()


def test_rights_and_keys_are_read_again_where_the_command_says(secured: Secured) -> None:
    """One node after the other, and each says what it uses. What cannot be used changes nothing."""
    keys("client", "bob")
    file = secured.folder / "cluster.toml"
    whole = file.read_text()
    file.write_text(whole + '[rights]\nalice = ["write", "status", "members"]\nbob = ["write", "status"]\n')
    (line,) = secured.reloaded("b")
    assert re.fullmatch(r"b: certificate [0-9a-f]{16}, valid until 20[0-9-]{8}; \[rights\] read again", line)
    assert len(secured.reloaded()) == 3
    secured.submit("bob.keys")
    lines = secured.reloaded(keys="bob.keys", status=1)
    assert all("the client 'bob' does not have the right 'members'" in line for line in lines)
    shown = json.loads("".join(secured.reloaded("c", "--json")))
    assert shown["nodes"]["c"]["rights"] == "read"
    file.write_text(whole + "[rights]\nalice = 5\n")
    lines = secured.reloaded("a", "c", "--node", str(secured.nodes.cluster.members["b"].client), status=1)
    assert [line[:3] for line in lines] == ["a: ", "c: "]
    assert all("'alice' = 5 in [rights]: must be a list of" in line for line in lines)
    file.write_text(whole)
    secured.submit("bob.keys")
    done = txpaxos("keys", "reload", "nobody", "--keys", "alice.keys", folder=secured.folder)
    assert (done.returncode, done.stderr) == (1, b"txpaxos: there is no member nobody: there are a, b, c\n")


def test_a_node_without_keys_says_so(tmp_path: Path) -> None:
    with running(tmp_path, "a") as nodes:
        done = txpaxos("keys", "reload", folder=tmp_path)
        assert (done.returncode, done.stdout) == (1, b"a: node a was started without keys: start it with them\n")
        assert "Traceback" not in (tmp_path / "a.log").read_text()
        assert nodes.processes["a"].poll() is None
